# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The WAL of a base backup out of the WAL archive, where the server has removed it before the backup was whole.

It comes into the set as a tar of its own, pg_wal.tar, as pg_basebackup itself writes one: so the set needs no archive, as any other.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator, Sequence
from typing import Optional

from ..context import Context
from ..core.base_list import BaseList, wal_files
from ..core.errors import CommandError, DamagedError, PgopsError, UnreachableError
from ..core.manifest import Payload
from ..core.segments import folder, number_at, parse_lsn, segment_name
from ..core.times import human_span
from ..places.base import Place
from ..system import codec
from ..wal.fetch import decryption
from ..wal.remote import blob_of, list_names, path_of
from ..wal.spool import TREE, opened
from .base_taking import FOLDER, Taken, has_other_cause, was_removed
from .connection import Session

NAME = "pg_wal"
_POLL_SECONDS = 1.0
_WAIT_SECONDS = 900.0
_TELL_SECONDS = 15.0
_BLOCK = 512
_RECORD = 20 * _BLOCK
_THERE = "SELECT count(*) FROM pg_ls_waldir() WHERE name = %s"
_HINT = (
    "Raise max_slot_wal_keep_size or wal_keep_size at the server, to more than is written during a base backup, or make that quicker"
    " (base.max_rate, base.workers)."
)


def is_gone(session: Session, error: CommandError, said: Sequence[str], segment_bytes: int) -> bool:
    """Tell whether a base backup failed because the server had removed WAL: as it says, in English, or else as its pg_wal shows."""
    if was_removed(error.stderr):
        return True
    name = _first(said, segment_bytes)
    if not name or has_other_cause(error):
        return False
    try:
        found = session.allowed(_THERE, (name,))
    except PgopsError:  # the server is gone, too
        return False
    return found is not None and not found[0][0]


def archive_with(
    context: Context, system_identifier: str, said: Sequence[str], segment_bytes: int
) -> tuple[Optional[Place], str]:
    """Return the place whose archive has the first WAL of a base backup that failed, and can be read here; or why none has."""
    name = _first(said, segment_bytes)
    if not name:
        return None, "pg_basebackup did not say where its WAL begins"
    try:
        return _found(context, system_identifier, name)[0], ""
    except PgopsError as error:
        return None, error.message.rstrip(".")


def _first(said: Sequence[str], segment_bytes: int) -> str:
    """Return the first WAL file that a base backup needs, as pg_basebackup said; empty where it did not come so far."""
    start = Taken.start_of(said)
    return "" if start is None else segment_name(start[1], number_at(parse_lsn(start[0]), segment_bytes), segment_bytes)


def without_archive(error: PgopsError, why: str) -> PgopsError:
    """Return the error of a base backup whose WAL is gone, with what to do."""
    error.hint = "%s pgops would have taken the WAL from its archive instead, but cannot: %s." % (_HINT, why)
    return error


def bring_wal(
    context: Context, taken: Taken, system_identifier: str, listed: BaseList, segment_bytes: int
) -> tuple[Payload, Iterator[bytes]]:
    """Return the payload of the WAL that PostgreSQL's list of the base backup names, and its tar, which is made as it is read.

    It waits for what has not been archived yet. Raise UnreachableError where that does not come, DamagedError for what is damaged.
    """
    ranges = listed.ranges
    if len(ranges) != 1:
        raise PgopsError(
            "The server changed its timeline during the base backup.", hint="Nothing was kept. Run it again."
        )
    ((taken.timeline, taken.start, taken.end),) = ranges
    names = wal_files(taken.timeline, taken.start, taken.end, segment_bytes)
    inner = tuple(layer for layer in taken.way.layers if layer == "age" or context.runner.find(layer) is not None)
    method = inner[0] if inner[:1] != ("age",) and inner else "none"
    payload = Payload("%s/%s.tar%s" % (FOLDER, NAME, codec.suffix(inner)), "tar", method, inner)
    return payload, _tar(context, system_identifier, names)


def _tar(context: Context, system_identifier: str, names: Sequence[str]) -> Iterator[bytes]:
    size = 0
    for name in names:
        content = _awaited(context, system_identifier, name)
        head = tarfile.TarInfo(name)
        head.size, head.mode = len(content), 0o600
        parts = (head.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK))
        size += sum(map(len, parts))
        yield from (bytes(part) for part in parts)
    yield bytes(2 * _BLOCK + -(size + 2 * _BLOCK) % _RECORD)


def _awaited(context: Context, system_identifier: str, name: str) -> bytes:
    """Return the content of a segment, once it is in the archive: the last ones may be on their way."""
    begun = time.monotonic()
    while True:
        try:
            return _found(context, system_identifier, name)[1]
        except UnreachableError as error:
            waited = time.monotonic() - begun
            if waited > _WAIT_SECONDS:
                raise UnreachableError(
                    "The WAL that the base backup needs did not come into the archive in %s: %s"
                    % (human_span(waited), error.message),
                    hint="Look at 'pgops wal status'. Of a standby, its primary must archive to the same place.",
                ) from error
            if waited > _TELL_SECONDS:
                context.reporter.note("warning: waiting for the WAL of the base backup: %s" % error.message)
            time.sleep(_POLL_SECONDS)


def _found(context: Context, system_identifier: str, name: str) -> tuple[Place, bytes]:
    """Return the first place that has a WAL file whole, and what it holds: this host keeps it for a while, and S3 gets it later.

    Raise UnreachableError where none has it yet, DamagedError where it lies there damaged alone.
    """
    why: list[PgopsError] = []
    for place in context.places():
        try:
            return place, _content(context, place, system_identifier, name)
        except PgopsError as error:
            why.append(error)
    damaged = next((error for error in why if isinstance(error, DamagedError)), None)
    if damaged is not None:
        raise damaged
    raise UnreachableError("; ".join(error.message.rstrip(".") for error in why) + ".")


def _content(context: Context, place: Place, system_identifier: str, name: str) -> bytes:
    """Return what a WAL file in `place` holds. Raise UnreachableError where it is not there."""
    where = "%s/%s/%s" % (TREE, system_identifier, folder(name))
    listing = list_names(place, where)
    if name not in listing:
        raise UnreachableError("%s is not in %s/%s." % (name, place.root, where))
    path = path_of(listing, name, place.root)
    try:
        decrypt = decryption(context.config.restore.identity_file)
        return bytes(opened(blob_of(place, path), path.rpartition("/")[2], place.root, decrypt))
    except DamagedError as error:
        error.hint = error.hint or "Nothing was kept. Run it again: another base backup needs other WAL."
        raise


__all__ = ("NAME", "archive_with", "bring_wal", "is_gone", "without_archive")
