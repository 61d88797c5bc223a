# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""WAL files from S3, the one that is asked for and those that follow it, several at once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

from .. import config
from ..context import Context
from ..core.errors import MissingError, UnreachableError
from ..core.segments import SEGMENT, folder, kind, parse_stored, timeline_of
from ..places.base import Place
from .brief import Brief
from .spool import TREE, AbsentError, one_content, open_to, restore_to

_MOST_AT_ONCE = 16
Decrypt = Optional[Callable[[bytes], bytes]]


def bring(
    brief: Brief,
    config_path: str,
    identifier: str,
    name: str,
    target: str,
    ahead: str,
    decrypt: Decrypt,
    say: Callable[[str], None],
) -> None:
    """Write the WAL file `name` to `target`, and the segments after it into the directory `ahead`, packed.

    Raise AbsentError if S3, which answered, does not have it; DamagedError, UnreachableError and others if nobody can tell.
    """
    place, most = place_of(brief, config_path)
    listing = listed(place, identifier, name)
    path = path_of(listing, name, place.root)
    following = _following(listing, name, brief.prefetch)
    with ThreadPoolExecutor(min(most, len(following) + 1), "pgops-wal") as pool:
        # In this order: a pool begins with what it was given first.
        wanted = pool.submit(blob_of, place, path)
        others = [pool.submit(_keep, place, listing[one], ahead) for one in following]
        try:
            open_to(wanted.result(), os.path.basename(path), place.root, decrypt, target)
        except BaseException:
            for other in others:
                other.cancel()
            raise
        _tell(others, say)


def place_of(brief: Brief, config_path: str) -> tuple[Place, int]:
    """Return the place in S3 of the brief's instance, and how many files may come from it at once. Raise PgopsError."""
    known = config.load(Path(config_path), environ=os.environ, host=os.uname().nodename)
    context = Context(dataclasses.replace(known, instance=brief.instance or known.instance), os.uname().nodename)
    place = context.s3()
    return place, min(_MOST_AT_ONCE, 4 * known.s3.concurrency if known.s3 else 1)


def listed(place: Place, identifier: str, name: str) -> dict[str, list[str]]:
    """Return what lies there beside the WAL file `name`, and that, as list_names() does. Raise as bring() does."""
    top = "%s/%s" % (TREE, identifier)
    try:
        listing = _listed(place, top, name)
    except MissingError as error:
        # A bucket that is gone says nothing about where the WAL ends.
        raise UnreachableError(error.message, hint=error.hint) from error
    if name in listing:
        return listing
    if not listing and next(iter(place.listing(top)), None) is None:
        # Not the end of the WAL, but the wrong place: recovery must not stop here.
        raise UnreachableError(
            "There is no WAL of the cluster %s in %s/%s." % (identifier, place.root, top),
            hint="Check s3 and instance in the configuration. If no WAL has come there yet: pgops wal ship.",
        )
    raise AbsentError("%s is not in %s/%s." % (name, place.root, top))


def path_of(listing: Mapping[str, list[str]], name: str, where: str) -> str:
    """Return the path of the WAL file `name`. Raise RefusedError if there are several with different contents."""
    paths = {os.path.basename(path): path for path in listing[name]}
    return paths[one_content(sorted(paths), name, where)]


def _listed(place: Place, top: str, name: str) -> dict[str, list[str]]:
    """Return what list_names() does of the folder of `name`. Histories lie beside the folders of all segments: only `name` itself."""
    if folder(name):
        return list_names(place, "%s/%s" % (top, folder(name)))
    paths = [path for path in place.beginning("%s/%s-" % (top, name)) if parse_stored(os.path.basename(path))[0]]
    return {name: paths} if paths else {}


def list_names(place: Place, prefix: str) -> dict[str, list[str]]:
    """Return the paths of the stored files directly in `prefix` by the name of the WAL file. Raise PgopsError."""
    found: dict[str, list[str]] = {}
    for path in place.entries(prefix):
        inner, _slash, stored = path.rpartition("/")
        name = parse_stored(stored)[0]
        if name and inner == prefix:
            found.setdefault(name, []).append(path)
    return found


def _following(listing: Mapping[str, list[str]], name: str, count: int) -> list[str]:
    if kind(name) != SEGMENT:
        return []
    later = (
        other
        for other, paths in listing.items()
        if kind(other) == SEGMENT and timeline_of(other) == timeline_of(name) and other > name and len(paths) == 1
    )
    return sorted(later)[:count]


def blob_of(place: Place, path: str) -> bytes:
    """Return the bytes of a stored file."""
    return b"".join(place.stream(path))


def _keep(place: Place, paths: list[str], ahead: str) -> None:
    """Put the stored file into the directory `ahead`; whoever uses it checks it."""
    stored = os.path.basename(paths[0])
    if os.path.exists(os.path.join(ahead, stored)):
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(ahead, 0o700)
    restore_to(blob_of(place, paths[0]), os.path.join(ahead, stored))


def _tell(others: list[Future[None]], say: Callable[[str], None]) -> None:
    """What could not be brought ahead is asked for again in its turn, so its trouble is only told."""
    troubles = {str(error) for error in (other.exception() for other in others) if error is not None}
    for trouble in sorted(troubles)[:1]:
        say("warning: following segments could not be brought ahead: %s" % trouble)


__all__ = ("blob_of", "bring", "list_names", "listed", "path_of", "place_of")
