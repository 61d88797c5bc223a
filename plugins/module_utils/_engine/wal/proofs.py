# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The archive read again: is each file still what its name says? And what this host remembers of that, in its state directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Optional

from ..core.errors import CommandError, DamagedError, PgopsError, UsageError
from ..core.json_text import to_json
from ..core.segments import parse_stored
from ..core.times import iso
from ..core.wal_proof import Known, Read, decode, encode
from ..places.base import Entry, Place
from ..system.durable import make_dirs, write_bytes
from .origin import check_segment
from .spool import opened

# So age calls a key that is none of the recipients'.
_WRONG_KEY = "no identity matched"
Decrypt = Optional[Callable[[bytes], bytes]]


def mark_of(entry: Entry) -> str:
    """Return what changes whenever the stored file is written again."""
    return "%d %s %s" % (entry.size, entry.tag, iso(entry.modified))


def _file(state: Path, name: str) -> Path:
    return state / "wal-proofs" / ("%s.json" % name)


def remembered(state: Path, place: str, root: str) -> dict[str, Read]:
    """Return what was read of the WAL in the place called `place` at `root`, by path; empty where nothing is remembered."""
    try:
        return decode(json.loads(_file(state, place).read_text(encoding="utf-8")), root)
    except (OSError, ValueError):
        return {}


def remember(state: Path, place: str, root: str, known: Known) -> None:
    """Keep what was read. Raise OSError if that cannot be."""
    path = _file(state, place)
    make_dirs(path.parent)
    write_bytes(path, to_json(encode(root, known)))


def problem_in(place: Place, path: str, decrypt: Decrypt) -> str:
    """Read the stored WAL file and return what is wrong with it, empty if nothing is.

    Its content must have the hash that is in its name, and a segment must begin as the one of its name does: the magic number
    of a page, its own length, its cluster and its position. Raise MissingError if it is gone, UnreachableError if the place is,
    UsageError if the key is for other files.
    """
    identifier, stored = path.split("/")[1], path.rpartition("/")[2]
    blob = b"".join(place.stream(path))
    try:
        content = opened(blob, stored, "%s/%s" % (place.root, path.rpartition("/")[0]), decrypt)
    except DamagedError as error:
        cause = error.__cause__
        if isinstance(cause, CommandError) and _WRONG_KEY in cause.message:
            raise UsageError(
                error.message, hint="Give restore.identity_file with the key of its recipients."
            ) from error
        return error.message
    try:
        check_segment(parse_stored(stored)[0], content, identifier)
    except PgopsError as error:
        return error.message
    return ""


__all__ = ("Decrypt", "mark_of", "problem_in", "remember", "remembered")
