# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Locks: flock on files that stay, so that a crash frees them and nobody can lock a file that is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Callable, Optional

from ..core.errors import BusyError, UsageError
from ..core.times import Clock, iso
from .durable import adopt, make_dirs

_POLL_SECONDS = 0.2

Hears = Callable[[str], None]


@contextlib.contextmanager
def hold(
    path: Path,
    what: str,
    *,
    clock: Clock,
    shared: bool = False,
    wait: timedelta = timedelta(0),
    on_wait: Hears = lambda _holder: None,
) -> Iterator[str]:
    """Hold the lock file `path` for `what` (`backup of db1`); wait at most `wait` for others to let go.

    `on_wait` hears who has it, each time that this turns out to be somebody else.
    Yield who held it last and did not let go in order: `backup of db1, process 4711, since …`; mostly empty.

    Raise BusyError that says who holds it and since when; UsageError if the file cannot be made.
    """
    with _open(path) as stream:
        deadline = time.monotonic() + wait.total_seconds()
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        told = ""
        while True:
            try:
                fcntl.flock(stream, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                left = deadline - time.monotonic()
                who = _holder(stream)
                if left <= 0:
                    raise BusyError(
                        "Another run is in the way: %s." % who, hint="Try again when it has ended."
                    ) from None
                if who != told:
                    told = who
                    on_wait(who)
                time.sleep(min(_POLL_SECONDS, left))
        died = _signed(stream)
        # A reader wipes the name of a holder that was killed; nobody else can have written one beside it.
        _sign(stream, "" if shared else json.dumps({"pid": os.getpid(), "what": what, "since": iso(clock())}))
        try:
            yield died
        finally:
            if not shared:
                _sign(stream, "")


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock alone, since when (ISO 8601), and whether it is still there: one that is not was killed."""

    pid: int
    since: str
    alive: bool = True


def holder(path: Path) -> Optional[Holder]:
    """Return who has signed the lock file `path`, None if nobody has.

    The lock is not tried, as even that moment could keep out somebody who does not wait.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        pid, since = int(facts["pid"]), str(facts["since"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return Holder(pid, since, alive=False)
    return Holder(pid, since)


def _open(path: Path) -> IO[str]:
    try:
        make_dirs(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise UsageError(
            "The lock file %s cannot be opened: %s." % (path, error.strerror), hint="Check state_dir and its owner."
        ) from error
    adopt(path)
    return os.fdopen(handle, "r+", encoding="utf-8")


def _sign(stream: IO[str], text: str) -> None:
    # The lock is what counts; on a full disk it merely goes unsigned, and a prune can still make room.
    with contextlib.suppress(OSError):
        os.ftruncate(stream.fileno(), 0)
        os.pwrite(stream.fileno(), text.encode("utf-8"), 0)


def _holder(stream: IO[str]) -> str:
    return _signed(stream) or "a reader of the same files (a sync, verification or restore)"


def _signed(stream: IO[str]) -> str:
    """Return who has signed the lock file, empty when nobody has."""
    stream.seek(0)
    try:
        facts = json.loads(stream.read())
        return "%s, process %d, since %s" % (facts["what"], facts["pid"], facts["since"])
    except (ValueError, KeyError, TypeError):
        return ""


__all__ = ("Holder", "hold", "holder")
