# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""pg_wal outside of the data directory, as initdb --waldir makes it: where a server has it, and how a recovered one gets it.

A base backup holds its content, and not that it lay elsewhere. So the set says it, and a recovery puts it where it is told to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.errors import UsageError
from ..system.runner import Command
from ..wal.origin import system_identifier_of
from .unproven import is_rest, rests, unfinished

NAME = "pg_wal"
_AT_ONCE = 1000  # files that one mv is given


def of_server(data_directory: str, system_identifier: str) -> Optional[str]:
    """Return where the server of `data_directory` has its WAL, empty for inside of it; None where this host or account cannot tell."""
    try:
        here = system_identifier_of(data_directory) == system_identifier
    except UsageError:
        return None
    return outside(Path(data_directory)) if here else None


def outside(data: Path) -> str:
    """Return where the WAL of the data directory `data` lies, if that is a link or a file system of its own; empty otherwise."""
    inner = data / NAME
    return os.path.realpath(inner) if os.path.islink(inner) or os.path.ismount(inner) else ""


def refusals(place: Path, data: Path, taken: Iterable[Path]) -> list[str]:
    """Return what forbids that the WAL of the recovered `data` lies in `place`; `taken` are the directories of its tablespaces."""
    return [*_in_the_way(place, data, taken)][:1] or [*_unusable(place, data)][:1]


def _in_the_way(place: Path, data: Path, taken: Iterable[Path]) -> Iterator[str]:
    """Yield what else lies there, or around it."""
    true = Path(os.path.realpath(place))
    for other in (data, unfinished(data), *taken):
        if _overlap(true, Path(os.path.realpath(other))):
            yield "The WAL cannot lie in %s, as %s does: give it a directory of its own." % (place, other)
    live = "" if is_rest(data) else outside(data)
    if live and _overlap(true, Path(live)):
        yield (
            "%s is where the server that is replaced has its WAL (%s). Its data directory is kept, and needs that: give the WAL"
            " another directory." % (place, live)
        )
    for above in true.parents:
        if (above / "PG_VERSION").exists() or (above / "archive_status").is_dir():
            yield "%s lies inside %s, which is a server's: give the WAL another directory." % (place, above)


def _unusable(place: Path, data: Path) -> Iterator[str]:
    """Yield why nothing can be laid there: only a directory that is empty, or that a recovery that was cut short left, will do."""
    if place.is_symlink():
        yield "%s is a symbolic link: name the directory itself, %s." % (place, os.path.realpath(place))
    elif place.is_dir() and not _is_ours(place):
        yield "%s does not belong to this account, so the WAL cannot lie in it." % place
    elif place.is_dir() and any(place.iterdir()) and rests(data, [place])[:1] != [place]:
        yield "The directory %s is not empty, so the WAL cannot lie in it: give it another one." % place
    elif not place.is_dir() and os.path.lexists(place):
        yield "%s is no directory, so the WAL cannot lie in it." % place
    elif not place.parent.is_dir():
        yield "%s does not exist, so the WAL cannot lie in it." % place.parent


def _is_ours(place: Path) -> bool:
    """Tell whether this account may fill the directory `place`, and shut others out of it."""
    return os.access(place, os.R_OK | os.W_OK | os.X_OK) and os.geteuid() in (0, place.stat().st_uid)


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def move(context: Context, data: Path, place: Path, account: str) -> None:
    """Move the WAL of the new data directory `data` to `place`, which is there, and let a link lead to it. Raise CommandError.

    Others could read it where it was made by hand, so it is shut, as initdb does.
    """
    inner = data / NAME
    place.chmod(0o700)
    files = sorted(str(path) for path in inner.iterdir())
    for first in range(0, len(files), _AT_ONCE):
        some = files[first : first + _AT_ONCE]
        context.runner.run(Command(("mv", "--target-directory=%s" % place, "--", *some), user=account))
    inner.rmdir()
    inner.symlink_to(place)


__all__ = ("NAME", "move", "of_server", "outside", "refusals")
