# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The records of a WAL segment that make a tablespace: found without reading all others, and led to another directory.

PostgreSQL replays such a record with the path of the original, whatever lies there by then. A record is a header of 24 bytes
(length, transaction, record before, info, resource manager, CRC), here with one piece of data: the tablespace's number and
its path (xlogrecord.h, commands/tablespace.h; the same since 9.5). Pages have headers of their own, also in the middle of one.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

_SHORT_PAGE, _LONG_PAGE, _HEADER = 24, 40, 24
_CONTINUED, _HAS_LONG = 0x0001, 0x0002
_INFO, _MANAGER, _CRC = 16, 17, 20
_TABLESPACES = 5  # the resource manager
_SHORT_DATA, _LONG_DATA = 0xFF, 0xFE
_LONGEST = 2048  # of a record: a path has up to 1024 bytes
# From the resource manager on: two bytes of nothing, the CRC, the head of the data, the tablespace's number, a path, or the link
# by which an earlier recovery replaced it.
_LIKELY = re.compile(rb"\x05\x00\x00.{4}(?:\xff.|\xfe.{4}).{4}(?:/|t[0-9]{1,3}\x00)", re.DOTALL)
_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True)
class Made:
    """A record that makes the tablespace `oid` in `path`; `at` is where it begins in the segment without its pages' headers.

    Without a path it lies across the border of two segments, so that it cannot be read, nor changed.
    """

    at: int
    oid: int
    path: str


class _Pages:
    """A segment without the headers of its pages, up to the first page that is none of it (old, or never written)."""

    def __init__(self, content: bytes | bytearray, start: int) -> None:
        self.size = _int(content, 36, 4)
        self.whole = False
        self.plain = b""
        self._content = content
        if self.size < _LONG_PAGE or len(content) % self.size:
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
        return _int(self._content, at + 16, 4) if _int(self._content, at + 2, 2) & _CONTINUED else 0

    def records_from(self, plain: int) -> Iterator[int]:
        """Yield where records begin, from the first one of the page with the byte `plain` (or of one before) on."""
        page = self.raw(plain) // self.size
        while True:
            begin = page * (self.size - _SHORT_PAGE) - (_LONG_PAGE - _SHORT_PAGE if page else 0)
            rest = self.continued(page)
            at = begin + _aligned(rest)
            if not page or self.raw(at) // self.size == page:
                break
            page -= 1
        while at + 4 <= len(self.plain) and _int(self.plain, at, 4) >= _HEADER:
            yield at
            at += _aligned(_int(self.plain, at, 4))


def made_in(content: bytes | bytearray, start: int) -> list[Made]:
    """Return the records of the segment `content`, which begins at the LSN `start`, that make a tablespace, in order."""
    pages = _Pages(content, start)
    plain, found = pages.plain, list[Made]()
    if not plain:
        return []
    if _begun_before(plain, pages.continued(0)):
        found.append(Made(-1, 0, ""))
    for match in _LIKELY.finditer(plain):
        at = match.start() - _MANAGER
        made = _read(plain, at) if at >= 0 and at % 8 == 0 else None
        if made is not None and next((r for r in pages.records_from(at) if r >= at), -1) == at:
            found.append(made)
    last = max(pages.records_from(len(plain) - 1), default=-1) if pages.whole else -1
    if 0 <= last <= len(plain) - _HEADER and last + _int(plain, last, 4) > len(plain) and _is_one(plain, last):
        found.append(Made(last, 0, ""))
    return found


def led_to(content: bytes | bytearray, start: int, made: Made, path: str) -> bytes:
    """Return the segment with `path` in the record `made`; it has no more bytes than the path that is there."""
    pages, old, new = _Pages(content, start), os_bytes(made.path), os_bytes(path)
    if len(new) > len(old):
        raise ValueError("%r does not fit where %r was." % (path, made.path))
    length = _int(pages.plain, made.at, 4)
    record = bytearray(pages.plain[made.at : made.at + length])
    record[length - 1 - len(old) : length - 1] = new + bytes(len(old) - len(new))
    record[_CRC:_HEADER] = _crc(record).to_bytes(4, sys.byteorder)
    changed = bytearray(content)
    for number, byte in enumerate(record):
        changed[pages.raw(made.at + number)] = byte
    return bytes(changed)


def os_bytes(path: str) -> bytes:
    """Return a path as the file system knows it."""
    return path.encode("utf-8", "surrogateescape")


def _begun_before(plain: bytes, rest: int) -> bool:
    """Tell whether what continues a record of the segment before is the rest of one that makes a tablespace.

    That is of interest where 8 or 16 bytes of its header are there: with more of it the other segment tells.
    """
    for before in (8, 16) if _HEADER < rest < _LONGEST else ():
        data = _data(plain, _HEADER - before)
        if data is not None and _is_one(plain, -before) and data[0] + data[1] == rest and plain[data[0] + 4] == 0x2F:
            return True
    return False


def _is_one(plain: bytes, at: int) -> bool:
    """Tell whether the header of the record at `at` says that it makes a tablespace (and neither drops one nor is another's)."""
    return plain[at + _INFO] >> 4 == 0 and plain[at + _MANAGER : at + _MANAGER + 3] == bytes((_TABLESPACES, 0, 0))


def _data(plain: bytes, at: int) -> Optional[tuple[int, int]]:
    """Return where the data begin whose head lies at `at`, and how many bytes they are."""
    kind = plain[at]
    if kind == _SHORT_DATA:
        return at + 2, plain[at + 1]
    return (at + 5, _int(plain, at + 1, 4)) if kind == _LONG_DATA else None


def _read(plain: bytes, at: int) -> Optional[Made]:
    """Return the record at `at`, None if it is none or not whole: PostgreSQL would not replay it either."""
    length, data = _int(plain, at, 4), _data(plain, at + _HEADER)
    if not _is_one(plain, at) or data is None or data[0] + data[1] != at + length or at + length > len(plain):
        return None
    if length > _LONGEST or _crc(plain[at : at + length]) != _int(plain, at + _CRC, 4):
        return None
    path = plain[data[0] + 4 : at + length].split(b"\0")[0]
    return Made(at, _int(plain, data[0], 4), path.decode("utf-8", "surrogateescape"))


def _crc(record: bytes | bytearray) -> int:
    """Return the CRC-32C of a record: of what comes behind its header, and of the header before it."""
    value = 0xFFFFFFFF
    for byte in (*record[_HEADER:], *record[:_CRC]):
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _int(content: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size], sys.byteorder)


def _aligned(length: int) -> int:
    return -(-length // 8) * 8


__all__ = ("Made", "led_to", "made_in", "os_bytes")
