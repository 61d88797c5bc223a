# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The records of a WAL segment by which transactions end: where the last one does, and when the newest was committed. Pure."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from typing import Optional, Union

from .wal_pages import HEADER, INFO, MANAGER, Pages, aligned, int_at

_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
_TRANSACTIONS = 1  # the resource manager
# access/xact.h: of prepared ones as well
_WHAT, _COMMITS, _ABORTS = 0x70, (0x00, 0x30), (0x20, 0x40)
# Behind the header of such a record: where it came from, the transaction above it, and then how long its own data is.
_ORIGIN, _ABOVE, _SHORT, _LONG = 253, 252, 255, 254
_SKIPPED = {_ORIGIN: 3, _ABOVE: 5, _SHORT: 2, _LONG: 5}

Content = Union[bytes, bytearray]


def last_end(content: Content, start: int, before: int) -> Optional[int]:
    """Return the LSN behind the last record of the segment before the LSN `before` by which a transaction ends; `start` if none does.

    None if the segment cannot be read up to there.
    """
    pages = Pages(content, start)
    plain, last, reach = pages.plain, start, start
    for at in pages.records_from(0) if plain else ():
        if start + pages.raw(at) >= before or len(plain) - at < HEADER:
            break
        reach = start + pages.raw(at + aligned(int_at(plain, at, 4)))
        if _ends(plain, at, (*_COMMITS, *_ABORTS)):
            last = reach
    return last if reach >= before else None


def newest_commit(content: Content) -> Optional[datetime]:
    """Return when the last transaction whose commit lies wholly in the segment was committed; None if there is none.

    It is the server's clock that says so. What is no segment has none either.
    """
    pages = Pages(content, int_at(content, 8, 8))
    for page in range(pages.count - 1, -1, -1):
        found = None
        for at in pages.records_in(page):
            found = _committed(pages.plain, at) or found
        if found is not None:
            return found
    return None


def _ends(plain: bytes, at: int, how: tuple[int, ...]) -> bool:
    """Tell whether it is one of these ends of a transaction whose record begins there."""
    return plain[at + MANAGER] == _TRANSACTIONS and plain[at + INFO] & _WHAT in how


def _committed(plain: bytes, at: int) -> Optional[datetime]:
    """Return when the transaction was committed if the record is a whole commit; None for any other."""
    end = at + int_at(plain, at, 4)
    if end > len(plain) or not _ends(plain, at, _COMMITS):
        return None
    where, kind = at + HEADER, 0
    while where < end and kind not in (_SHORT, _LONG):
        kind = plain[where]
        where += _SKIPPED.get(kind, end)
    if where + 8 > end:
        return None
    (microseconds,) = struct.unpack_from("=q", plain, where)
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


__all__ = ("Content", "last_end", "newest_commit")
