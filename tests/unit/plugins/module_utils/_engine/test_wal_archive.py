# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of PostgreSQL, called as it calls them: from the data directory, judged by exit code and what lies on disk."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pwd
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import start
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    DamagedError,
    PgopsError,
    RefusedError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import (
    archive,
    brief,
    fetch,
    pack,
    spool,
    tablespaces,
)

SYSTEM = 7312345678901234567
SIZE = 1 << 20


def segment(number: int, *, seed: int = 0, system: int = SYSTEM, size: int = SIZE, at: int | None = None) -> bytes:
    """A segment as PostgreSQL writes it: its first page says which it is, the rest is of `seed`."""
    header = struct.pack("=HHIQI4xQII", 0xD110, 2, 1, number * size if at is None else at, 0, system, size, 8192)
    return header + random.Random(number * 1000 + seed).randbytes(4000) + bytes(size - len(header) - 4000)


class Server:
    """A data directory, an archive, and the two commands."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], **sections: Any) -> None:
        self.data, self.root, self.capsys = root / "data", root, capsys
        (self.data / "global").mkdir(parents=True)
        (self.data / "pg_wal").mkdir()
        (self.data / "global" / "pg_control").write_bytes(struct.pack("=Q", SYSTEM) + bytes(504))
        self.config = root / "config.json"
        self.configure(**sections)

    def configure(self, **sections: Any) -> None:
        values = {"instance": "db1", "local": {"path": str(self.root / "backups")}, **sections}
        self.config.write_text(json.dumps(values))

    def write(self, number: int, content: bytes = b"", **options: Any) -> str:
        name = segment_name(1, number, SIZE)
        (self.data / "pg_wal" / name).write_bytes(content or segment(number, **options))
        return name

    def __call__(self, action: str, *words: str, code: int = 0) -> str:
        """Run the command, hold its exit code against `code` and return what it said."""
        self.capsys.readouterr()
        assert start.main(["wal", action, "-c", str(self.config), *words]) == code
        said = self.capsys.readouterr()
        assert said.out == ""
        return said.err

    def archive(self, name: str, *words: str, code: int = 0) -> str:
        return self("archive", "pg_wal/%s" % name, *words, code=code)

    def fetch(self, name: str, *words: str, code: int = 0) -> str:
        return self("fetch", name, "pg_wal/RECOVERYXLOG", *words, code=code)

    @property
    def fetched(self) -> bytes:
        return (self.data / "pg_wal" / "RECOVERYXLOG").read_bytes()

    @property
    def top(self) -> Path:
        return self.root / "backups" / "db1" / "wal" / str(SYSTEM)

    def stored(self) -> list[Path]:
        return sorted(path for path in self.top.rglob("*") if path.is_file())


@pytest.fixture
def server(tmp_path, capsys, monkeypatch):
    made = Server(tmp_path, capsys)
    monkeypatch.chdir(made.data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


# --- archive ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["auto", "zstd", "gzip", "none"])
def test_what_was_archived_comes_back_byte_by_byte(server, compression):
    server.configure(wal={"compression": compression})
    name = server.write(1)
    content = segment(1)
    server.archive(name)
    (stored,) = server.stored()
    suffix = {"gzip": ".gz", "none": ""}.get(compression, ".zst")
    assert stored == server.top / name[:16] / ("%s-%s%s" % (name, hashlib.sha256(content).hexdigest(), suffix))
    assert (stored.stat().st_mode & 0o777) == 0o600
    assert compression == "none" or stored.stat().st_size < SIZE // 50
    server.fetch(name)
    assert server.fetched == content


def test_history_and_backup_files_are_archived_too(server):
    names = ["00000002.history", "000000010000000000000001.00000028.backup"]
    for name in names:
        (server.data / "pg_wal" / name).write_text("of %s\n" % name)
        server.archive(name)
    assert [path.parent for path in server.stored()] == [server.top / "0000000100000000", server.top]
    for name in names:
        server.fetch(name)
        assert server.fetched.decode() == "of %s\n" % name


def test_the_same_content_again_is_success_and_changes_nothing(server):
    name = server.write(1)
    server.archive(name)
    before = [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in server.stored()]
    assert "was archived already" in server.archive(name, "-v")
    # Also when the compression is another by now.
    server.configure(wal={"compression": "gzip"})
    assert "was archived already" in server.archive(name, "-v")
    assert [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in server.stored()] == before


def test_other_content_under_the_same_name_is_refused_and_the_archived_one_stays(server):
    name = server.write(1)
    server.archive(name)
    server.write(1, seed=7)
    said = server.archive(name, code=5)
    assert "archived already with other content" in said
    assert "archive_mode = off" in said
    assert len(server.stored()) == 1
    server.fetch(name)
    assert server.fetched == segment(1)


def test_a_damaged_copy_is_replaced_when_the_segment_comes_again(server):
    name = server.write(1)
    server.archive(name)
    (stored,) = server.stored()
    stored.write_bytes(stored.read_bytes()[:-9])
    assert "is damaged" in server.fetch(name, code=201)
    assert "was archived already" not in server.archive(name, "-v")
    assert server.stored() == [stored]
    server.fetch(name)
    assert server.fetched == segment(1)


def test_what_a_killed_run_left_is_cleared_by_the_next(server):
    name = server.write(1)
    folder = server.top / name[:16]
    folder.mkdir(parents=True)
    (folder / (".%s-%s.zst.tmp" % (name, "a" * 64))).write_bytes(b"half")
    server.archive(name)
    assert [path.name[:24] for path in server.stored()] == [name]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (segment(1, system=SYSTEM + 1), 5, "is of the cluster 7312345678901234568"),
        (segment(1)[:-1], 1, "power of two"),
        (b"", 1, "power of two"),
        (segment(1, at=17 * SIZE), 1, "another position than its name says"),
        (bytes(SIZE), 1, "does not begin as a WAL segment"),
    ],
)
def test_what_cannot_be_that_segment_is_not_archived(server, content, code, said):
    name = segment_name(1, 1, SIZE)
    (server.data / "pg_wal" / name).write_bytes(content)
    assert said in server.archive(name, code=code)
    assert not server.top.exists()


def test_a_given_system_identifier_must_be_that_of_the_server(server):
    name = server.write(1)
    server.archive(name, "--system-identifier", str(SYSTEM))
    assert "not 17" in server.archive(name, "--system-identifier=17", code=5)
    assert "no system identifier" in server.archive(name, "--system-identifier", "x", code=2)
    (server.data / "global" / "pg_control").unlink()
    assert "pg_control cannot be read" in server.archive(name, code=2)
    server.archive(name, "--system-identifier", str(SYSTEM))


def test_a_path_from_the_root_finds_its_own_data_directory(server, monkeypatch):
    name = server.write(1)
    monkeypatch.chdir("/")
    server("archive", str(server.data / "pg_wal" / name))
    assert len(server.stored()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "takes PATH, not 0 words"),
        (("a", "b"), "takes PATH, not 2 words"),
        (("--frobnicate", "a"), "--frobnicate is no option"),
        (("--config",), "--config is no option here, or has no value"),
        (("--place", "s3", "a"), "--place s3 is not known"),
        (("--look", "a"), "--look is for fetch alone"),
        (("pg_wal/README",), "is no WAL file"),
        (("pg_wal/000000010000000000000009",), "cannot be read"),
    ],
)
def test_a_wrong_call_fails_with_what_to_do(server, words, said):
    assert said in server("archive", *words, code=1 if "cannot be read" in said else 2)


def test_a_directory_that_cannot_be_written_fails(server):
    name = server.write(1)
    (server.root / "backups").write_text("a file")
    assert "cannot be written" in server.archive(name, code=1)


def test_content_that_does_not_read_back_is_not_archived(server, monkeypatch):
    name = server.write(1)
    monkeypatch.setattr(pack, "_zstd", lambda *_given: memoryview(bytearray(b"\x28\xb5\x2f\xfd nonsense")))
    assert "could not be read back" in server.archive(name, code=1)
    assert server.stored() == []


# --- fetch ------------------------------------------------------------------------------------------------------------


def test_what_the_archive_does_not_have_ends_a_recovery_quietly(server):
    server.archive(server.write(1))
    assert server.fetch(segment_name(1, 2, SIZE), code=1) == ""
    assert server.fetch("00000002.history", code=1) == ""
    assert "is not in" in server.fetch("00000002.history", "-v", code=1)
    assert server.fetch("nonsense", code=1) == ""


def test_an_archive_that_is_not_there_must_not_end_a_recovery(server):
    assert "There is no WAL archive" in server.fetch(segment_name(1, 1, SIZE), code=204)
    server.config.unlink()
    assert "no configuration file" in server.fetch(segment_name(1, 1, SIZE), code=202)


@pytest.mark.parametrize("by", ["ours", "another command"])
def test_a_segment_that_must_not_be_replayed_is_not_handed_over(server, monkeypatch, by):
    """Nor does the recovery end there, as PostgreSQL takes any code below 126 for the end of the WAL."""
    name, seen = server.write(1), []

    def refuse(*given):
        seen.append(given)
        raise RefusedError("It makes a tablespace.", hint="Give it a directory.")

    server.archive(name)
    monkeypatch.setattr(fetch, "look_into", refuse)
    monkeypatch.setattr(tablespaces, "look_into", refuse)
    said = server.fetch(name, *(("--look",) if by != "ours" else ()), code=205)
    assert "It makes a tablespace." in said
    assert "Give it a directory." in said
    assert [given[1:] for given in seen] == [(name, "pg_wal/RECOVERYXLOG")]
    assert not (server.data / "pg_wal" / "RECOVERYXLOG").exists()


@pytest.mark.parametrize("words", [("one",), ("--place", "moon", "a", "b"), ("--what", "a", "b")])
def test_a_wrong_call_of_fetch_must_not_end_a_recovery(server, words):
    assert "restore_command" in server("fetch", *words, code=202)


def test_a_target_that_cannot_be_written_must_not_end_a_recovery(server):
    name = server.write(1)
    server.archive(name)
    assert "cannot be written" in server("fetch", name, "nowhere/RECOVERYXLOG", code=201)


def test_two_contents_under_one_name_are_not_guessed_about(server):
    name = server.write(1)
    server.archive(name)
    other = segment(1, seed=3)
    (stored,) = server.stored()
    stored.with_name("%s-%s" % (name, hashlib.sha256(other).hexdigest())).write_bytes(other)
    assert "2 different files" in server.fetch(name, code=205)


def test_a_stored_file_of_other_content_is_damage(server):
    name = server.write(1)
    server.archive(name)
    (stored,) = server.stored()
    stored.write_bytes(gzip.compress(segment(1, seed=3)))
    assert "SHA-256 differs" in server.fetch(name, code=201)
    assert not (server.data / "pg_wal" / "RECOVERYXLOG").exists()


def test_what_was_brought_ahead_is_used_first_and_cleared(server):
    for number in (1, 2, 3):
        server.archive(server.write(number))
    ahead = server.data / "pg_wal" / ".pgops"
    ahead.mkdir()
    for stored in server.stored():
        stored.rename(ahead / stored.name)
    assert "from ahead" in server.fetch(segment_name(1, 2, SIZE), "-v")
    assert server.fetched == segment(2)
    assert [path.name[:24] for path in ahead.iterdir()] == [segment_name(1, 3, SIZE)]


def test_an_encrypted_file_without_a_key_must_not_end_a_recovery(server):
    name = server.write(1)
    folder = server.top / name[:16]
    folder.mkdir(parents=True)
    (folder / ("%s-%s.zst.age" % (name, "a" * 64))).write_bytes(b"age-encryption.org/v1\n")
    assert "no private key" in server.fetch(name, code=202)


def test_a_damaged_copy_that_is_encrypted_is_damage(server, monkeypatch):
    """Whatever age says of it: the same file may be whole in S3."""
    name = server.write(1)
    server.archive(name)
    good = segment(1)
    ahead = server.data / "pg_wal" / ".pgops"
    ahead.mkdir()
    damaged = "%s-%s.zst.age" % (name, hashlib.sha256(good).hexdigest())
    (ahead / damaged).write_bytes(b"age-encryption.org/v1\ncut")

    def refuses(_blob: bytes) -> bytes:
        raise CommandError("age failed: unexpected EOF")

    monkeypatch.setattr(fetch, "decryption", lambda _file: refuses)
    said = server.fetch(name, "-v")
    assert "cannot be decrypted" in said
    assert "from local" in said
    assert server.fetched == good


def test_what_nobody_foresaw_is_no_success_and_ends_no_recovery(server, monkeypatch):
    def broken(_path: str) -> bytes:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(brief, "read_brief", broken)
    name = server.write(1)
    assert "ZeroDivisionError: by zero" in server.archive(name, code=1)
    assert "ZeroDivisionError: by zero" in server.fetch(name, code=201)
    assert "Traceback" in server.fetch(name, "-v", code=201)


def test_a_log_that_is_gone_turns_no_success_into_a_failure(server, monkeypatch):
    name = server.write(1)
    with open(os.devnull, encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        argv = ["wal", "archive", "-v", "-c", str(server.config), "pg_wal/%s" % name]
        assert start.main(argv) == 0


def test_help_and_all_else_go_the_long_way(capfd):
    assert start.main(["wal", "archive", "--help"]) == 0
    assert "archive_command = 'pgops wal archive %p'" in capfd.readouterr().out
    assert start.main(["wal"]) == 2
    assert start.main(["--json", "wal", "archive", "x"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("-q", "wal", "fetch", "a", "b"),
        ("--config", "/nowhere.json", "wal", "fetch", "a", "b"),
        ("wal", "--config", "/nowhere.json", "fetch", "a", "b"),
        ("wal", "--bogus", "fetch", "a", "b"),
    ],
)
def test_options_at_another_place_end_no_recovery(words, capfd):
    assert start.main(words) == 202
    assert capfd.readouterr().err


# --- the short way ----------------------------------------------------------------------------------------------------


def test_the_configuration_is_read_once_and_again_when_it_changes(server, monkeypatch):
    reads = []
    real = config.read
    monkeypatch.setattr(config, "read", lambda path: reads.append(path) or real(path))
    for number in (1, 2, 3):
        server.archive(server.write(number))
    assert len(reads) == 1
    assert {path.suffix for path in server.stored()} == {".zst"}
    server.configure(wal={"compression": "none"})
    server.archive(server.write(4))
    assert len(reads) == 2
    assert [path.suffix for path in server.stored()] == [".zst", ".zst", ".zst", ""]


@pytest.mark.parametrize("harm", ["others may write", "cut", "other owner's link"])
def test_a_remembered_configuration_that_anybody_can_have_written_does_not_count(server, harm, tmp_path):
    server.archive(server.write(1))
    (cache,) = (tmp_path / "cache" / "pgops").iterdir()
    elsewhere = cache.read_text().replace(str(server.root / "backups"), str(tmp_path / "elsewhere"))
    if harm == "others may write":
        cache.write_text(elsewhere)
        cache.chmod(0o666)
    elif harm == "cut":
        cache.write_text(elsewhere[:-5])
    else:
        (tmp_path / "evil").write_text(elsewhere)
        cache.unlink()
        cache.symlink_to(tmp_path / "evil")
    server.archive(server.write(2))
    assert not (tmp_path / "elsewhere").exists()
    assert len(server.stored()) == 2


def test_without_the_variable_it_is_remembered_at_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    path = brief._cache_path("/etc/pgops/config.yml")
    assert path.startswith(os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".cache", "pgops", "wal-"))
    assert path != brief._cache_path("/etc/pgops/other.yml")
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert brief._cache_path("/etc/pgops/config.yml") == ""


def test_an_instance_without_a_name_of_its_own_is_not_remembered(server, tmp_path):
    server.config.write_text(json.dumps({"local": {"path": str(server.root / "backups")}}))
    server.archive(server.write(1))
    assert not (tmp_path / "cache").exists()


def test_a_call_imports_nothing_that_it_does_not_need(server):
    engine = Path(start.__file__).parents[1]
    (server.root / "lib").mkdir()
    (server.root / "lib" / "pgops").symlink_to(engine)
    script = (
        "import sys; before = set(sys.modules); sys.path.insert(0, %r)\n"
        "from pgops.cli.start import main; code = main(sys.argv[1:])\n"
        "print(*sorted(set(sys.modules) - before)); raise SystemExit(code)" % str(server.root / "lib")
    )
    home = dict(os.environ, XDG_CACHE_HOME=str(server.root / "caches"))
    argv = [sys.executable, "-I", "-c", script, "wal", "archive", "-c", str(server.config)]
    for number in (1, 2):
        done = subprocess.run(
            [*argv, "pg_wal/%s" % server.write(number)], env=home, capture_output=True, text=True, check=True
        )
    heavy = {"typing", "re", "json", "argparse", "dataclasses", "pathlib", "subprocess", "yaml", "logging", "datetime"}
    assert not heavy & set(done.stdout.split())


# --- compression ------------------------------------------------------------------------------------------------------


def test_without_the_library_gzip_does(monkeypatch):
    monkeypatch.setattr(pack, "_library", [None])
    content = segment(1)
    blob, suffix = pack.pack(content, "auto", None)
    assert suffix == ".gz"
    assert pack.unpack(blob) == content
    with pytest.raises(UnreachableError, match="libzstd"):
        pack.pack(content, "zstd", None)
    with pytest.raises(UnreachableError, match="libzstd"):
        pack.unpack(b"\x28\xb5\x2f\xfd and so on")


@pytest.mark.parametrize("method", ["zstd", "gzip"])
def test_cut_and_altered_files_are_damage(method):
    blob, _suffix = pack.pack(segment(1), method, 3)
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 1
    for harmed in (blob[:-1], blob[: len(blob) // 2], bytes(flipped), blob + b"x"):
        with pytest.raises(DamagedError, match="no whole"):
            pack.unpack(harmed)
        with pytest.raises(DamagedError, match="no whole"):
            pack.holds(harmed, segment(1))
    assert pack.unpack(pack.pack(b"", method, None)[0]) == b""


def test_a_large_file_is_several_frames_that_say_how_much_they_hold_and_any_zstd_reads(tmp_path):
    content = bytearray(random.Random(3).randbytes(1 << 20) * 9 + b"the rest")
    rooms: list[bytearray] = []
    works, suffix = pack.parts(content, "zstd", None, rooms)
    made = spool.side_by_side(works)
    assert (len(made), suffix, len(rooms)) == (4, ".zst", 3)
    assert [(at, size) for _blob, at, size in made] == [
        (0, 0),
        (0, 4 << 20),
        (4 << 20, 4 << 20),
        (8 << 20, (1 << 20) + 8),
    ]
    assert all(pack.part_holds(part, content) for part in made)
    blob = b"".join(part[0] for part in made)
    assert pack.content_size(blob[:100], len(blob)) == len(content)
    assert pack.unpack(blob) == content
    assert pack.holds(blob, content)
    assert not pack.holds(blob, content[:-1] + b"!")
    assert not pack.part_holds(made[0], content + b"x")
    path = tmp_path / "by-hand.zst"
    path.write_bytes(blob)
    zstd = shutil.which("zstd")
    assert zstd is None or subprocess.run([zstd, "-qdc", path], capture_output=True, check=True).stdout == content
    # A part with other content, and one that is damaged; files cut between two frames, in the first, and one too long.
    content[5 << 20] ^= 1
    assert [pack.part_holds(part, content) for part in made] == [True, True, False, True]
    content[5 << 20] ^= 1
    between = len(made[0][0]) + len(made[1][0])
    for harmed in (blob[:between], blob[:-1], blob[:20], blob[:9], blob + b"x"):
        with pytest.raises(DamagedError, match="no whole"):
            pack.unpack(harmed)
        with pytest.raises(DamagedError, match="no whole"):
            pack.holds(harmed, content)
    with pytest.raises(DamagedError, match="no whole"):
        pack.unpack(blob + made[3][0])
    assert not pack.holds(blob + made[3][0], content)
    made[1][0][100] ^= 1
    with pytest.raises(DamagedError, match="no whole"):
        pack.part_holds(made[1], content)
    huge = blob[:8] + (1 << 62).to_bytes(8, "little") + blob[16:]
    assert pack.content_size(huge, len(huge)) is None
    with pytest.raises(DamagedError, match="no whole"):
        pack.unpack(huge)


def test_memory_is_lent_to_one_at_a_time():
    first = pack.borrowed(123456)
    second = pack.borrowed(123456)
    assert first is not second
    pack.returned(first)
    assert pack.borrowed(123456) is first
    assert pack.borrowed(123456) is not first
    little = pack.borrowed(9)
    pack.returned(little)
    assert pack.borrowed(9) is not little, "of those there are many sizes"


def test_side_by_side_does_all_in_order_and_tells_the_first_failure():
    assert spool.side_by_side([lambda at=at: at * at for at in range(20)]) == [at * at for at in range(20)]
    assert spool.side_by_side([]) == []
    done = []

    def fails() -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        spool.side_by_side([fails, *[lambda: done.append(1)] * 3])
    with pytest.raises(ZeroDivisionError):
        spool.side_by_side([fails])


def test_what_does_not_read_back_as_it_was_written_is_seen(tmp_path):
    path, written = tmp_path / "written", random.Random(5).randbytes((1 << 20) + 77)
    blobs = [memoryview(b"head"), memoryview(written)]
    for content, right in (
        (b"head" + written, True),
        (b"head" + written[:-1] + b"!", False),
        (b"heat" + written, False),
        (b"head" + written[:-1], False),
        (b"head" + written + b"x", False),
        (b"he", False),
    ):
        path.write_bytes(content)
        with path.open("rb") as stream:
            assert spool.is_held_by(stream.fileno(), blobs) is right


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_not_taken(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(bytes(3 << 20))
    with path.open("rb") as stream:
        for hashing in (False, True):
            whole = bytearray(b"x") * (3 << 20)
            digest = spool.read_into(stream.fileno(), whole, hashing=hashing)
            assert whole == bytes(3 << 20)
            assert digest == (hashlib.sha256(whole).hexdigest() if hashing else "")
        for size, said in (((3 << 20) + 1, "shorter"), ((3 << 20) - 1, "longer"), (1, "longer")):
            with pytest.raises(OSError, match=said):
                spool.read_into(stream.fileno(), bytearray(size), hashing=size % 2 == 0)


@pytest.mark.parametrize("method", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, (3 << 20) + 1])
def test_what_is_packed_is_compared_piece_by_piece(method, size):
    content = random.Random(size).randbytes(size)
    blob, _suffix = pack.pack(content, method, None)
    assert pack.holds(blob, content)
    assert b"".join(bytes(piece) for piece in pack.pieces(blob)) == content
    for other in (content + b"x", content[:-1], content[: size // 2] + b"xy" + content[size // 2 + 2 :]):
        assert pack.holds(blob, other) == (other == content)


def test_what_fails_beside_is_raised_where_it_is_waited_for():
    waited = spool.aside(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        waited()
    assert spool.aside(lambda: 7)() == 7


def test_the_files_of_a_cluster_are_listed(server):
    assert spool.lineages(str(server.root / "backups" / "db1")) == []
    server.archive(server.write(1))
    (server.top / "a note").write_text("of somebody")
    home = str(server.root / "backups" / "db1")
    assert spool.lineages(home) == [str(SYSTEM)]
    assert [stored[:24] for _path, stored in spool.names(home, str(SYSTEM))] == [segment_name(1, 1, SIZE)]


def test_the_archive_of_another_instance_is_read_when_it_is_named(server):
    """As where the server of a host that is gone is brought back on another one."""
    name = server.write(1)
    server.archive(name)
    server.configure(instance="db2")
    assert "There is no WAL archive" in server.fetch(name, code=204)
    server.fetch(name, "--instance", "db1")
    assert server.fetched == segment(1)
    assert "cannot name an instance" in server.fetch(name, "--instance", "../db1", code=202)
    assert "--instance is for fetch alone" in server.archive(name, "--instance", "db1", code=2)


class Again:
    """Calls of archive() by a process that stays, which remembers what it has proven and the segment that it archived last."""

    def __init__(self, server: Server) -> None:
        self.server, self.proven, self.last = server, set(), spool.Last()

    def __call__(self, name: str) -> bool:
        told = brief.read_brief(str(self.server.config))
        where = {"directory": str(self.server.data), "proven": self.proven, "last": self.last}
        return archive.archive(told, "pg_wal/%s" % name, **where)


@pytest.fixture
def again(server):
    return Again(server)


def test_what_was_archived_last_is_compared_byte_by_byte_and_not_hashed(server, again, monkeypatch):
    name = server.write(1)
    assert again(name)
    with monkeypatch.context() as patched:
        patched.setattr(spool, "sha256", None)
        patched.setattr(spool.hashlib, "sha256", None)
        for _more in range(2):
            assert not again(name)
    # Of the one before it, only the hash is known.
    assert again(server.write(2))
    monkeypatch.setattr(spool, "is_held_by", lambda _handle, _blobs: False)
    assert not again(name)


@pytest.mark.parametrize("at", [40, 4096, SIZE // 2, SIZE - 1])
def test_one_byte_of_another_is_found_out_in_what_was_archived_last(server, again, at):
    name = server.write(1)
    assert again(name)
    other = bytearray(segment(1))
    other[at] ^= 1
    server.write(1, bytes(other))
    for _more in range(2):
        with pytest.raises(RefusedError, match="archived already with other content"):
            again(name)
    server.write(1)
    for _more in range(2):
        assert not again(name)
    assert len(server.stored()) == 1


def test_what_became_shorter_or_longer_is_not_what_was_archived_last(server, again):
    name = server.write(1)
    assert again(name)
    for content in (segment(1)[:-8192], segment(1) + bytes(8192)):
        server.write(1, content)
        with pytest.raises(PgopsError, match="a power of two"):
            again(name)
    server.write(1)
    assert not again(name)


def test_a_stored_file_that_was_touched_is_read_again_by_what_was_archived_last(server, again):
    name = server.write(1)
    assert again(name)
    (stored,) = server.stored()
    whole = stored.read_bytes()
    for broken in (whole[:-9], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        stored.write_bytes(broken)
        assert again(name), "it is written anew"
        assert stored.read_bytes() == whole
        assert not again(name)
    stored.unlink()
    assert again(name)
    assert stored.read_bytes() == whole


def test_what_was_archived_last_is_in_no_hands_but_those_of_one_call(server, again):
    """Else the memory of one would be filled with another's segment while it is compared."""
    names = [server.write(number) for number in (1, 2, 3)]
    for name in names:
        assert again(name)
    wrong: list[object] = []

    def work(name: str) -> None:
        for _more in range(25):
            try:
                wrong.extend([name] * again(name))
            except Exception as error:  # noqa: BLE001  # told below
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    held, digest = again.last.take()
    assert hashlib.sha256(held).hexdigest() == digest
    assert again.last.take() is None


def test_encrypted_or_not_the_last_one_is_known_by_its_content(server, again, monkeypatch):
    monkeypatch.setattr(archive, "_encrypted", lambda blob, _recipients: b"age-encryption.org/" + blob)
    server.configure(backup={"encryption": "age", "recipients": ["age1" + "q" * 58]})
    name = server.write(1)
    assert again(name)
    # Nobody here can prove it, so that it is written again; other content is found out all the same.
    assert again(name)
    server.write(1, seed=3)
    with pytest.raises(RefusedError):
        again(name)


def test_a_stored_segment_is_as_old_as_what_is_in_it(server):
    name, late = server.write(1), server.write(2)
    hour_ago = time.time() - 3600
    os.utime(server.data / "pg_wal" / name, (hour_ago, hour_ago))
    os.utime(server.data / "pg_wal" / late, (hour_ago + 9999, hour_ago + 9999))
    server.archive(name)
    server.archive(late)
    first, second = server.stored()
    assert first.stat().st_mtime == pytest.approx(hour_ago, abs=0.001)
    assert second.stat().st_mtime <= time.time(), "whatever the server's clock was"
