# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are hashed while they grow: the result is that of the file as it lies there in the end, whatever happened meanwhile."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.system import following
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.durable import sync_file
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.following import Following
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.making import files_of

ENDINGS = (".zst", ".gz")


def is_now(path: Path) -> tuple[int, str]:
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def seen(follower: Following, path: Path) -> int:
    """How many bytes of the file were read so far."""
    done = follower._files.get(path)
    return 0 if done is None else done.read


def test_a_file_is_read_and_flushed_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    def flush(path: Path) -> None:
        sync_file(path)
        flushed.append(path.stat().st_size)

    monkeypatch.setattr(following, "sync_file", flush)
    monkeypatch.setattr(following, "_FLUSH_EVERY", 5000)
    path = tmp_path / "a.dump.zst"
    with path.open("xb", buffering=0) as file, Following(path, ENDINGS) as follower:
        file.write(os.urandom(4000))
        until(lambda: seen(follower, path) == 4000)
        file.write(os.urandom(4000))
        until(lambda: bool(flushed))
        file.write(b"the last words")
    assert follower.hashes() == {path: is_now(path)}
    assert flushed == [8000]  # what came after it was too little


def test_in_a_folder_only_what_is_written_from_beginning_to_end_is_followed(tmp_path: Path) -> None:
    for name in ("1.dat.zst", "2.dat.gz", "toc.dat", "gone.zst"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    with Following(tmp_path, ENDINGS) as follower:
        until(lambda: len(follower._files) == 3)
        (tmp_path / "gone.zst").unlink()
    paths = [tmp_path / "1.dat.zst", tmp_path / "2.dat.gz"]
    assert follower.hashes() == {path: is_now(path) for path in paths}


@pytest.mark.parametrize("how", ["another file", "shorter"])
def test_what_is_made_anew_is_read_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(b"the first attempt")
    with Following(path, ENDINGS) as follower:
        until(lambda: seen(follower, path) == 17)
        if how == "shorter":
            path.write_bytes(b"the second")
        else:
            (tmp_path / "new").write_bytes(b"a second attempt, longer than the first")
            (tmp_path / "new").replace(path)
    assert follower.hashes() == {path: is_now(path)}


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    with Following(path, ENDINGS) as follower:
        time.sleep(0.3)
        path.write_bytes(b"at last")
    assert follower.hashes() == {path: is_now(path)}
    with Following(tmp_path / "b.dump", ENDINGS) as nothing:
        pass
    assert nothing.hashes() == {}


@pytest.mark.parametrize("what", ["chunks", "sync_file"])
def test_a_file_that_cannot_be_read_or_flushed_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def broken(*_unused: object) -> list[bytes]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(following, what, broken)
    monkeypatch.setattr(following, "_FLUSH_EVERY", 1)
    path = tmp_path / "a.zst"
    path.write_bytes(b"x")
    follower = Following(path, ENDINGS)
    with follower:
        until(lambda: follower._trouble is not None)
    with pytest.raises(OSError, match="Input/output error"):
        follower.hashes()


def test_a_slow_disk_keeps_nobody_from_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()
    monkeypatch.setattr(following, "sync_file", lambda _path: disk.wait(60))
    monkeypatch.setattr(following, "_FLUSH_EVERY", 1)
    path = tmp_path / "a.zst"
    path.write_bytes(b"x")
    with Following(path, ENDINGS) as follower:
        until(lambda: follower._flusher is not None)
        with path.open("ab") as file:
            file.write(b"y")
        until(lambda: seen(follower, path) == 2)
        assert not disk.is_set()
        disk.set()
    assert follower.hashes() == {path: is_now(path)}


def test_the_list_of_files_takes_only_hashes_that_are_of_all_that_lies_there(tmp_path: Path) -> None:
    for name in ("known", "grew", "other"):
        (tmp_path / name).write_bytes(name.encode())
    known = {tmp_path / "known": (5, "taken as it is"), tmp_path / "grew": (3, "of the first bytes")}
    found = {file.path: (file.size, file.sha256) for file in files_of(tmp_path, known)}
    assert found == {
        "known": (5, "taken as it is"),
        "grew": is_now(tmp_path / "grew"),
        "other": is_now(tmp_path / "other"),
    }
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in found} == {0o600}
