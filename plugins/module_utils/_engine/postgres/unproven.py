# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The mark in each directory that a recovery fills, until it is proven: so that what a kill or a power loss leaves is known.

A tablespace lies far from its data directory, so each directory has a mark of its own, which names the data directory. A mark
comes before everything else in its directory, and goes after everything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from ..system.durable import sync_dir, sync_file
from .fencing import write_file
from .throwaway import give

MARK = "pgops_unproven"
_POLL_SECONDS = 0.2
_KEPT = re.compile(r"\.before-([0-9]{8}T[0-9]{6}Z)(?:-([0-9]{1,3}))?")
_STARTED = "postmaster.opts"  # no base backup holds it
_RECOVERS = "recovery.signal"  # PostgreSQL removes it with the promotion, before anybody can write


def unfinished(data: Path) -> Path:
    """Return where the data directory `data` is unpacked, unless it is filled where it lies."""
    return data.with_name(".%s.pgops-unfinished" % data.name)


def mark(folder: Path, data: Path, account: str) -> None:
    """Mark `folder`, which is made if it is not there, as one that is filled for the data directory `data`; durably."""
    folder.mkdir(mode=0o700, exist_ok=True)
    give(account, folder)
    write_file(folder / MARK, "%s\n" % data, account)
    sync_file(folder / MARK)
    sync_dir(folder)
    with contextlib.suppress(PermissionError):  # of a mount point's it need not be ours
        sync_dir(folder.parent)


def is_marked(folder: Path, data: Path) -> bool:
    """Tell whether `folder` was filled for `data`, and never proven."""
    try:
        text = (folder / MARK).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return text == "%s\n" % data


def is_rest(data: Path) -> bool:
    """Tell whether `data` is what a recovery left that was cut short before anybody could write into it."""
    return is_marked(data, data) and ((data / _RECOVERS).exists() or not (data / _STARTED).exists())


def rests(data: Path, locations: Iterable[Path]) -> list[Path]:
    """Return what a recovery of `data` left behind that was cut short: tablespaces of those at `locations`, then the data directory."""
    found = [path for path in (unfinished(data), data) if path.is_dir() and (path != data or is_rest(data))]
    return [*(path for path in locations if is_marked(path, data)), *found] if found else []


def kept_of(data: Path) -> list[Path]:
    """Return the data directories that recoveries in place kept of `data`, the newest last.

    One that is marked was never what was there before, but what another recovery left, which was cut short.
    """
    beside = data.parent.iterdir() if data.parent.is_dir() else iter(())
    named = ((_KEPT.fullmatch(path.name[len(data.name) :]), path) for path in beside if path.name.startswith(data.name))
    ordered = sorted(((m[1], int(m[2] or 1)), path) for m, path in named if m is not None)
    return [path for _age, path in ordered if (path / "PG_VERSION").is_file() and not is_marked(path, data)]


def condemn(path: Path) -> None:
    """Make what is in `path` a rest, whatever became of its server: it is to be removed."""
    (path / _STARTED).unlink(missing_ok=True)
    sync_dir(path)


def clear(path: Path, *, whole: bool = False, patience: float = 0.0) -> None:
    """Remove what is in `path`, its mark last, and so that this can be begun anew at any moment; `whole` with the directory itself.

    A program of the run that was killed may still write into it: for `patience` seconds that is waited for. Raise OSError.
    """
    end = time.monotonic() + patience
    while True:
        try:
            condemn(path)
            _empty(path)
            sync_dir(path)
            (path / MARK).unlink(missing_ok=True)
            if whole:
                path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > end or not path.is_dir():
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARK:
            entry.unlink()


def size_of(path: Path) -> int:
    """Return the bytes that `path` takes up, as far as that can be read."""
    found = 0
    for folder, _folders, names in os.walk(path):
        for name in names:
            try:
                found += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return found


def unmark(folders: Iterable[Path]) -> None:
    """Take the marks of `folders` away, in this order: what is in them is proven. Raise OSError."""
    for folder in folders:
        (folder / MARK).unlink(missing_ok=True)
        sync_dir(folder)


__all__ = (
    "MARK",
    "clear",
    "condemn",
    "is_marked",
    "is_rest",
    "kept_of",
    "mark",
    "rests",
    "size_of",
    "unfinished",
    "unmark",
)
