# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The records of a WAL segment that make a tablespace: found without reading all others, and led to another directory.

PostgreSQL replays such a record with the path of the original, whatever lies there by then. A record is a header of 24 bytes
(length, transaction, record before, info, resource manager, CRC), here with one piece of data: the tablespace's number and
its path (xlogrecord.h, commands/tablespace.h; the same since 9.5). Pages have headers of their own, also in the middle of one.

A record may begin in one segment and end in the next. The server has read the first part by the time it asks for the second, and a
sum over both must be right in the end. Where the path begins in the first, the link stands there whatever the rest of the path is,
and so does the sum. Where it begins in the second, four bytes behind the link, which nobody reads, make the sum what it was.
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
_TRANSACTIONS, _TABLESPACES = 1, 5  # resource managers
_ENDS = (0x00, 0x20, 0x30, 0x40)  # commit and abort, of prepared ones as well (access/xact.h)
_SHORT_DATA, _LONG_DATA = 0xFF, 0xFE
_LONGEST = 2048  # of a record: a path has up to 1024 bytes
# From the resource manager on: two bytes of nothing, the CRC, the head of the data, the tablespace's number, a path, or the link
# by which an earlier recovery replaced it.
_LIKELY = re.compile(rb"\x05\x00\x00.{4}(?:\xff.|\xfe.{4}).{4}(?:/|t[0-9]{1,3}\x00)", re.DOTALL)
_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True)
class Made:
    """A record that makes the tablespace `oid` in `path`; `at` is where it begins in the segment without its pages' headers."""

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
    """Return the records of the segment `content`, which begins at the LSN `start`, that make a tablespace and are whole, in order."""
    return _made(_Pages(content, start))


def found_in(content: bytes | bytearray, start: int) -> tuple[list[Made], bytes, int]:
    """Return the same, and the first part of a record that ends in the next segment, if it makes a tablespace, or nobody can tell yet.

    And how many bytes of the segment end a record of the one before, if it may be one that makes a tablespace. Empty and 0 else.
    """
    pages = _Pages(content, start)
    rest = pages.continued(0) if pages.plain else 0
    if not 0 < rest < min(_LONGEST, len(pages.plain)) or pages.plain[rest - 1]:  # a path ends with a zero
        rest = 0
    return _made(pages), _begun(pages), rest


def last_end(content: bytes | bytearray, start: int, before: int) -> Optional[int]:
    """Return the LSN behind the last record of the segment before the LSN `before` by which a transaction ends; `start` if none does.

    None if the segment cannot be read up to there.
    """
    pages = _Pages(content, start)
    plain, last, reach = pages.plain, start, start
    for at in pages.records_from(0) if plain else ():
        if start + pages.raw(at) >= before or len(plain) - at < _HEADER:
            break
        reach = start + pages.raw(at + _aligned(_int(plain, at, 4)))
        if plain[at + _MANAGER] == _TRANSACTIONS and plain[at + _INFO] & 0x70 in _ENDS:
            last = reach
    return last if reach >= before else None


def ended(content: bytes | bytearray, start: int, head: bytes) -> Optional[Made]:
    """Return the record that began with `head` in the segment before and ends in this one, if it makes a tablespace."""
    pages = _Pages(content, start)
    rest = pages.continued(0) if pages.plain else 0
    record = head + pages.plain[:rest]
    if rest > len(pages.plain) or len(record) < _HEADER or _int(record, 0, 4) != len(record):
        return None
    made = _read(record, 0)
    return made and Made(-len(head), made.oid, made.path)


def led_to(content: bytes | bytearray, start: int, made: Made, path: str) -> bytes:
    """Return the segment with `path` in the record `made`, which is whole. Raise ValueError if it does not fit where the other was."""
    pages = _Pages(content, start)
    record = pages.plain[made.at : made.at + _int(pages.plain, made.at, 4)]
    return _changed(content, pages, made.at, _with_sum(_with_path(record, path)))


def begun_with(content: bytes | bytearray, start: int, head: bytes, path: str) -> bytes:
    """Return the segment, which ends with the first part of a record, with as much of `path` in it as lies there.

    Raise ValueError if there is certainly no room for it. Where nothing of the path lies there the segment stays as it is.
    """
    if not _begins(head):
        return bytes(content)
    pages = _Pages(content, start)
    return _changed(content, pages, len(pages.plain) - len(head), _whole(head, path)[: len(head)])


def ended_with(content: bytes | bytearray, start: int, head: bytes, path: str) -> bytes:
    """Return the segment, which ends the record that began with `head`, with the rest of it, as begun_with() has changed that.

    Raise ValueError if there is no room for `path`.
    """
    pages = _Pages(content, start)
    record = head + pages.plain[: pages.continued(0)]
    if _begins(head):
        new = _whole(head, path)
    elif len(head) <= _CRC:
        new = _with_sum(_with_path(record, path))
    else:
        new = _with_path(record, path, spare=4)
        at = _path_at(record) + len(os_bytes(path)) + 1
        new[at : at + 4] = _makes_up(new, at, _int(record, _CRC, 4)).to_bytes(4, "little")
    return _changed(content, pages, 0, new[len(head) :])


def os_bytes(path: str) -> bytes:
    """Return a path as the file system knows it."""
    return path.encode("utf-8", "surrogateescape")


def _made(pages: _Pages) -> list[Made]:
    plain, found = pages.plain, list[Made]()
    for match in _LIKELY.finditer(plain):
        at = match.start() - _MANAGER
        made = _read(plain, at) if at >= 0 and at % 8 == 0 else None
        if made is not None and next((r for r in pages.records_from(at) if r >= at), -1) == at:
            found.append(made)
    return found


def _begun(pages: _Pages) -> bytes:
    """Return the first part of the last record, if it goes on in the next segment and may make a tablespace."""
    plain = pages.plain
    last = max(pages.records_from(len(plain) - 1), default=-1) if pages.whole else -1
    if last < 0 or not len(plain) < last + _int(plain, last, 4) <= last + _LONGEST:
        return b""
    # Of a header that is cut, too, what is there tells nothing.
    return plain[last:] if len(plain) - last < _HEADER or _is_one(plain, last) else b""


def _begins(head: bytes) -> bool:
    """Tell whether all that comes before the path lies in the first part of a record, so that all of it can be told from there."""
    kinds = {_SHORT_DATA: 6, _LONG_DATA: 9}
    return len(head) > _HEADER and len(head) >= _HEADER + kinds.get(head[_HEADER], len(head))


def _path_at(record: bytes | bytearray) -> int:
    return _HEADER + (6 if record[_HEADER] == _SHORT_DATA else 9)


def _whole(head: bytes, path: str) -> bytearray:
    """Return the record that begins with `head`, with `path`."""
    return _with_sum(_with_path(head.ljust(_int(head, 0, 4), b"\0"), path))


def _with_path(record: bytes | bytearray, path: str, spare: int = 0) -> bytearray:
    """Return a record with `path`, and nothing behind that, its sum as it was. Raise ValueError if that and `spare` bytes do not fit."""
    at, new = _path_at(record), os_bytes(path) + b"\0"
    if at + len(new) + spare > len(record):
        raise ValueError("%r does not fit into the record of a tablespace." % path)
    return bytearray(record[:at] + new.ljust(len(record) - at, b"\0"))


def _with_sum(record: bytearray) -> bytearray:
    record[_CRC:_HEADER] = _crc(record).to_bytes(4, sys.byteorder)
    return record


def _changed(content: bytes | bytearray, pages: _Pages, at: int, new: bytes | bytearray) -> bytes:
    """Return the segment with other bytes from `at` on, counted without the headers of pages."""
    changed = bytearray(content)
    for number, byte in enumerate(new):
        changed[pages.raw(at + number)] = byte
    return bytes(changed)


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
    return _forward(0xFFFFFFFF, record[_HEADER:] + record[:_CRC]) ^ 0xFFFFFFFF


def _makes_up(record: bytes | bytearray, at: int, wanted: int) -> int:
    """Return what the four bytes at `at`, as a number of little-endian, must be for the record to have the CRC `wanted`."""
    before = _forward(0xFFFFFFFF, record[_HEADER:at])
    behind = _backward(wanted ^ 0xFFFFFFFF, record[at + 4 :] + record[:_CRC])
    return _backward(behind, bytes(4)) ^ before


def _forward(value: int, data: bytes | bytearray) -> int:
    for byte in data:
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


def _backward(value: int, data: bytes | bytearray) -> int:
    """Return which value _forward() takes to `value` over `data`."""
    for byte in reversed(data):
        for _bit in range(8):
            value = ((value ^ _POLYNOMIAL) << 1 | 1) if value >> 31 else value << 1
        value ^= byte
    return value


def _int(content: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size], sys.byteorder)


def _aligned(length: int) -> int:
    return -(-length // 8) * 8


__all__ = ("Made", "begun_with", "ended", "ended_with", "found_in", "last_end", "led_to", "made_in", "os_bytes")
