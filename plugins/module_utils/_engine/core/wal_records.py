# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""When the newest transaction in a WAL segment was committed, as its own records say. Pure: bytes in, a moment out.

A segment is a row of pages; a page begins with a header, which tells how much of a record that began earlier goes on behind it.
So one page after the other can be read from the end. That layout is the same from PostgreSQL 9.5 to 18 (access/xlogrecord.h,
access/xlog_internal.h, access/xact.h), in the byte order of its machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Optional, Union

_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
# magic, flags, timeline, address of the page, what is left of the record that began before
_PAGE = struct.Struct("=HHIQI4x")
_LONG_PAGE = 40
_GOES_ON, _IS_LONG = 0x0001, 0x0002
# length, transaction, position of the record before, info, resource manager, checksum
_RECORD = struct.Struct("=IIQBB2xI")
_RM_XACT, _WHAT, _COMMITS = 1, 0x70, (0x00, 0x30)
# Behind the header of such a record: where it came from, the transaction above it, and then how long its own data is.
_ORIGIN, _ABOVE, _SHORT, _LONG = 253, 252, 255, 254
_SKIPPED = {_ORIGIN: 3, _ABOVE: 5, _SHORT: 2, _LONG: 5}

Content = Union[bytes, bytearray]


def newest_commit(content: Content) -> Optional[datetime]:
    """Return when the last transaction whose commit lies wholly in the segment was committed; None if there is none.

    It is the server's clock that says so. What is no segment has none either.
    """
    if len(content) < _LONG_PAGE:
        return None
    magic, flags, _timeline, start, _left = _PAGE.unpack_from(content)
    (page_size,) = struct.unpack_from("=I", content, _LONG_PAGE - 4)
    if not flags & _IS_LONG or page_size < 1024 or page_size & (page_size - 1) or len(content) % page_size:
        return None
    segment = _Segment(content, page_size, magic, start)
    for number in range(len(content) // page_size - 1, -1, -1):
        found = None
        for at, length in segment.records(number):
            found = segment.committed(at, length) or found
        if found is not None:
            return found
    return None


class _Segment:
    def __init__(self, content: Content, page_size: int, magic: int, start: int) -> None:
        self._content, self._page_size, self._magic, self._start = content, page_size, magic, start

    def records(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield where in the segment each record begins that begins in the page, and its length."""
        begin = number * self._page_size
        magic, flags, _timeline, address, left = _PAGE.unpack_from(self._content, begin)
        if magic != self._magic or address != self._start + begin:
            return  # nothing was written there
        at = begin + self._header(number) + (_aligned(left) if flags & _GOES_ON else 0)
        end = begin + self._page_size
        while at + 4 <= end:
            (length,) = struct.unpack_from("=I", self._content, at)
            if length < _RECORD.size:
                return
            yield at, length
            at += _aligned(length)

    def committed(self, at: int, length: int) -> Optional[datetime]:
        """Return when the transaction was committed if the record is a whole commit; None for any other."""
        head = self._read(at, min(length, 64))
        if len(head) < _RECORD.size:
            return None
        _length, _xid, _before, info, manager, _crc = _RECORD.unpack_from(head)
        if manager != _RM_XACT or info & _WHAT not in _COMMITS or len(self._read(at, length)) < length:
            return None
        where = _RECORD.size
        while where < len(head):
            kind = head[where]
            where += _SKIPPED.get(kind, len(head))
            if kind in (_SHORT, _LONG):
                break
        if where + 8 > len(head):
            return None
        (microseconds,) = struct.unpack_from("=q", head, where)
        try:
            return _EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            return None

    def _read(self, at: int, length: int) -> bytes:
        """Return so much of a record, without the headers of the pages over which it goes; less where the segment ends."""
        parts = []
        while length and at < len(self._content):
            number = at // self._page_size
            end = min(at + length, (number + 1) * self._page_size)
            parts.append(bytes(self._content[at:end]))
            length -= end - at
            at = end + self._header(number + 1)
        return b"".join(parts)

    def _header(self, number: int) -> int:
        return _PAGE.size if number else _LONG_PAGE


def _aligned(length: int) -> int:
    return (length + 7) & ~7


__all__ = ("newest_commit",)
