# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between real processes: who holds one is told, and a crash frees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import BusyError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import lock as lock_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.lock import hold

SINCE = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def clock() -> datetime:
    return SINCE


@contextlib.contextmanager
def other_process(path: Path, *, shared: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A second process that holds the lock `path` until it is killed."""
    program = textwrap.dedent(
        """
        import sys, time; sys.path.insert(0, %r)
        from datetime import datetime, timezone
        from pathlib import Path
        from _engine.system.lock import hold
        clock = lambda: datetime(2026, 11, 22, 2, 0, tzinfo=timezone.utc)
        with hold(Path(%r), "backup of db1", clock=clock, shared=%r):
            print("held", flush=True)
            time.sleep(600)
        """
    ) % (str(Path(lock_module.__file__).parents[2]), str(path), shared)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_lock_that_another_process_holds_says_which_what_and_since_when(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "backup.lock"
    with other_process(path) as process:
        with pytest.raises(BusyError) as caught, hold(path, "backup of db1", clock=clock):
            pytest.fail("held twice")
        message = str(caught.value)
        assert "backup of db1, process %d, since 2026-11-22T02:00:00+00:00" % process.pid in message
        assert caught.value.exit_code == 3


def test_a_process_that_is_killed_frees_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "backup.lock"
    with other_process(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold(path, "backup of db1", clock=clock):
        assert str(os.getpid()) in path.read_text()


def test_the_name_of_a_killed_holder_is_not_told_as_that_of_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "sets.lock"
    with other_process(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with (
        hold(path, "sync of db1", clock=clock, shared=True),
        pytest.raises(BusyError, match="a reader of the same files"),
        hold(path, "prune of db1", clock=clock),
    ):
        pytest.fail("held beside a reader")


def test_the_lock_file_stays_and_names_nobody_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "backup.lock"
    with hold(path, "backup of db1", clock=clock):
        inode = path.stat().st_ino
    assert (path.stat().st_ino, path.read_text()) == (inode, "")


def test_a_failing_run_frees_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "backup.lock"
    with pytest.raises(ZeroDivisionError), hold(path, "x", clock=clock):
        raise ZeroDivisionError
    with hold(path, "y", clock=clock):
        pass


def test_readers_share_and_keep_a_remover_out(tmp_path: Path) -> None:
    path = tmp_path / "sets.lock"
    with other_process(path, shared=True):
        with hold(path, "sync", clock=clock, shared=True):
            pass
        with pytest.raises(BusyError, match="a reader"), hold(path, "prune", clock=clock):
            pytest.fail("held beside a reader")


def test_a_remover_keeps_readers_out(tmp_path: Path) -> None:
    path = tmp_path / "sets.lock"
    with (
        other_process(path),
        pytest.raises(BusyError, match="backup of db1"),
        hold(path, "s", clock=clock, shared=True),
    ):
        pytest.fail("read beside a remover")


def test_whoever_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "backup.lock"
    with other_process(path) as process:
        patience, started = 0.5, time.monotonic()
        threading.Timer(patience, process.kill).start()
        with hold(path, "sync", clock=clock, wait=timedelta(minutes=10)):
            assert time.monotonic() - started >= patience


def test_whoever_waits_too_long_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "backup.lock"
    with other_process(path):
        started = time.monotonic()
        with pytest.raises(BusyError), hold(path, "sync", clock=clock, wait=timedelta(seconds=1)):
            pytest.fail("held twice")
        assert time.monotonic() - started >= 1


def test_who_is_waited_for_is_told_once(tmp_path: Path) -> None:
    path, heard = tmp_path / "backup.lock", []
    with other_process(path) as process:

        def hear(said: str) -> None:
            heard.append(said)
            threading.Timer(1.0, process.kill).start()

        with hold(path, "sync", clock=clock, wait=timedelta(minutes=10), on_wait=hear):
            pass
    assert heard == ["backup of db1, process %d, since 2026-11-22T02:00:00+00:00" % process.pid]


def test_a_lock_that_is_free_is_no_wait(tmp_path: Path) -> None:
    with hold(tmp_path / "backup.lock", "sync", clock=clock, wait=timedelta(hours=6), on_wait=pytest.fail):
        pass


def test_a_full_disk_does_not_keep_anybody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "backup.lock"

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock_module.os, "pwrite", full)
    with hold(path, "prune", clock=clock):
        held = True
    assert held


def test_a_lock_file_that_cannot_be_made_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="state_dir"), hold(tmp_path / "file" / "x.lock", "x", clock=clock):
        pytest.fail("held")
