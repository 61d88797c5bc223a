# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A WAL segment as a row of records: where each begins, without the headers of the pages over which they lie. Pure.

A page begins with a header, which tells how much of a record that began earlier goes on behind it, so that one can begin to read
with any page. A record is a header of 24 bytes (length, transaction, record before, info, resource manager, CRC) and its data. That is
the same from PostgreSQL 9.5 to 18 (access/xlogrecord.h, access/xlog_internal.h), in the byte order of the machine.
"""

from __future__ import annotations

import itertools
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT_PAGE, _LONG_PAGE = 24, 40
_CONTINUED, _IS_LONG = 0x0001, 0x0002
# Of a record: how long its header is, and where in it stand what happened, and to whom (the resource manager).
HEADER, INFO, MANAGER = 24, 16, 17


class Pages:
    """A segment without the headers of its pages, up to the first page that is none of it (old, or never written)."""

    def __init__(self, content: bytes | bytearray, start: int) -> None:
        self.size = int_at(content, 36, 4)
        self.whole = False
        self.plain, self.count = b"", 0
        self._content = content
        if not int_at(content, 2, 2) & _IS_LONG or self.size < _LONG_PAGE or len(content) % self.size:
            return
        parts, view = [], memoryview(content)
        for at in range(0, len(content), self.size):
            if content[at + 8 : at + 16] != (start + at).to_bytes(8, sys.byteorder):
                break
            parts.append(view[at + self._head(at) : at + self.size])
        else:
            self.whole = True
        self.plain, self.count = b"".join(parts), len(parts)

    @staticmethod
    def _head(at: int) -> int:
        return _SHORT_PAGE if at else _LONG_PAGE

    def raw(self, plain: int) -> int:
        """Return where the byte `plain` of what is left lies in the segment."""
        first = self.size - _LONG_PAGE
        if plain < first:
            return plain + _LONG_PAGE
        page, inside = divmod(plain - first, self.size - _SHORT_PAGE)
        return (page + 1) * self.size + _SHORT_PAGE + inside

    def continued(self, page: int) -> int:
        """Return how many bytes of a record that began before the page are still to come in it and behind it."""
        at = page * self.size
        return int_at(self._content, at + 16, 4) if int_at(self._content, at + 2, 2) & _CONTINUED else 0

    def records_from(self, plain: int) -> Iterator[int]:
        """Yield where records begin, from the first one of the page with the byte `plain` (or of one before) on."""
        page = self.raw(plain) // self.size
        while page and self.raw(self._first(page)) // self.size != page:
            page -= 1
        return self._from(self._first(page))

    def records_in(self, page: int) -> Iterator[int]:
        """Yield where records begin that begin in the page."""
        end = self._begin(page + 1)
        return itertools.takewhile(lambda at: at < end, self._from(self._first(page)))

    def _from(self, at: int) -> Iterator[int]:
        while at + 4 <= len(self.plain) and int_at(self.plain, at, 4) >= HEADER:
            yield at
            at += aligned(int_at(self.plain, at, 4))

    def _begin(self, page: int) -> int:
        return page * (self.size - _SHORT_PAGE) - (_LONG_PAGE - _SHORT_PAGE if page else 0)

    def _first(self, page: int) -> int:
        """Return where the first record begins that may begin in the page; behind it where the page holds one's middle."""
        return self._begin(page) + aligned(self.continued(page))


def int_at(content: bytes | bytearray, at: int, size: int) -> int:
    """Return the number of `size` bytes at `at`."""
    return int.from_bytes(content[at : at + size], sys.byteorder)


def aligned(length: int) -> int:
    """Return how much a record takes that is so long."""
    return -(-length // 8) * 8


__all__ = ("HEADER", "INFO", "MANAGER", "Pages", "aligned", "int_at")
