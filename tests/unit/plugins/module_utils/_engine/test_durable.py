# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are wholly there or not at all, private, and owned by whoever owns the directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.json_text import to_json
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import durable
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.durable import (
    adopt,
    chunks,
    create_private,
    free_bytes,
    make_dirs,
    sha256_file,
    write_bytes,
)


def test_a_written_file_is_private_and_leaves_no_other(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"content")
    assert (tmp_path / "x").read_bytes() == b"content"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"a long old content")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_on_the_way_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_bytes(tmp_path / "x", b"old")

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((durable.os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space"):
        write_bytes(tmp_path / "x", b"new")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_content_is_on_disk_before_the_name_is_and_the_name_before_we_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        durable.os,
        "fsync",
        lambda fd: (steps.append("sync " + os.path.basename(os.readlink("/proc/self/fd/%d" % fd))), fsync(fd)),
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("rename"), replace(self, to))[1])
    write_bytes(tmp_path / "x", b"content")
    assert [s if s == "rename" else s.split(".")[-1] for s in steps] == ["tmp", "rename", "sync " + tmp_path.name]


def test_whoever_kills_a_writer_finds_the_old_or_a_new_file_never_half_of_one(tmp_path: Path) -> None:
    source = Path(durable.__file__).parents[1]
    program = textwrap.dedent(
        """
        import sys; sys.path.insert(0, %r)
        from _engine.system.durable import write_bytes
        from pathlib import Path
        while True:
            for letter in (b"a", b"b"):
                write_bytes(Path(%r), letter * 3000000)
                print("written", flush=True)
        """
    ) % (str(source.parent), str(tmp_path / "x"))
    for _unused in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                writer.wait(0.15)
            writer.send_signal(signal.SIGKILL)
        content = (tmp_path / "x").read_bytes()
        assert content in (b"a" * 3000000, b"b" * 3000000)


def test_a_private_file_is_never_one_that_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/dev/null")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "x")


def test_missing_directories_are_made_and_existing_ones_left_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    make_dirs(tmp_path / "a" / "b", 0o700)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o711
    make_dirs(tmp_path / "a", 0o755)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    make_dirs(tmp_path / "a" / "b")
    write_bytes(tmp_path / "a" / "b" / "x", b"")
    assert [p.stat().st_uid for p in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/x")] == [65534] * 3


def test_an_ordinary_user_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "chown", lambda *a, **k: pytest.fail("chown as an ordinary user"))
    adopt(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    assert json.loads(to_json(value).decode("utf-8")) == value


def test_json_is_the_same_whatever_the_order_of_keys_and_ends_with_a_newline() -> None:
    assert to_json({"b": 1, "a": 2}) == to_json({"a": 2, "b": 1})
    assert to_json({}).endswith(b"\n")


def test_a_name_that_is_no_utf8_survives_json() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(to_json(name)) == name


@given(st.binary(max_size=200), st.integers(0, 250))
def test_chunks_make_up_the_file_from_an_offset_on(content: bytes, offset: int) -> None:
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / ("pgops-chunks-%d" % os.getpid())
    try:
        path.write_bytes(content)
        assert b"".join(chunks(path, offset)) == content[offset:]
        assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    finally:
        path.unlink()


def test_free_space_is_asked_of_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    asked = free_bytes(tmp_path / "not" / "yet" / "there")
    assert 0 < asked <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
