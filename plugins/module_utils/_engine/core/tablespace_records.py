# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The records of a WAL segment that make a tablespace: found without reading all others, and led to another directory.

PostgreSQL replays such a record with the path of the original, whatever lies there by then. It is a header (wal_pages) with one
piece of data: the tablespace's number and its path (commands/tablespace.h; the same since 9.5).

A record may begin in one segment and end in the next. The server has read the first part by the time it asks for the second, and a
sum over both must be right in the end. Where the path begins in the first, the link stands there whatever the rest of the path is,
and so does the sum. Where it begins in the second, four bytes behind the link, which nobody reads, make the sum what it was.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from .wal_pages import HEADER, INFO, MANAGER, Pages, int_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_CRC = 20
_TABLESPACES = 5  # the resource manager
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


def made_in(content: bytes | bytearray, start: int) -> list[Made]:
    """Return the records of the segment `content`, which begins at the LSN `start`, that make a tablespace and are whole, in order."""
    return _made(Pages(content, start))


def found_in(content: bytes | bytearray, start: int) -> tuple[list[Made], bytes, int]:
    """Return the same, and the first part of a record that ends in the next segment, if it makes a tablespace, or nobody can tell yet.

    And how many bytes of the segment end a record of the one before, if it may be one that makes a tablespace. Empty and 0 else.
    """
    pages = Pages(content, start)
    rest = pages.continued(0) if pages.plain else 0
    if not 0 < rest < min(_LONGEST, len(pages.plain)) or pages.plain[rest - 1]:  # a path ends with a zero
        rest = 0
    return _made(pages), _begun(pages), rest


def ended(content: bytes | bytearray, start: int, head: bytes) -> Optional[Made]:
    """Return the record that began with `head` in the segment before and ends in this one, if it makes a tablespace."""
    pages = Pages(content, start)
    rest = pages.continued(0) if pages.plain else 0
    record = head + pages.plain[:rest]
    if rest > len(pages.plain) or len(record) < HEADER or int_at(record, 0, 4) != len(record):
        return None
    made = _read(record, 0)
    return made and Made(-len(head), made.oid, made.path)


def led_to(content: bytes | bytearray, start: int, made: Made, path: str) -> bytes:
    """Return the segment with `path` in the record `made`, which is whole. Raise ValueError if it does not fit where the other was."""
    pages = Pages(content, start)
    record = pages.plain[made.at : made.at + int_at(pages.plain, made.at, 4)]
    return _changed(content, pages, made.at, _with_sum(_with_path(record, path)))


def begun_with(content: bytes | bytearray, start: int, head: bytes, path: str) -> bytes:
    """Return the segment, which ends with the first part of a record, with as much of `path` in it as lies there.

    Raise ValueError if there is certainly no room for it. Where nothing of the path lies there the segment stays as it is.
    """
    if not _begins(head):
        return bytes(content)
    pages = Pages(content, start)
    return _changed(content, pages, len(pages.plain) - len(head), _whole(head, path)[: len(head)])


def ended_with(content: bytes | bytearray, start: int, head: bytes, path: str) -> bytes:
    """Return the segment, which ends the record that began with `head`, with the rest of it, as begun_with() has changed that.

    Raise ValueError if there is no room for `path`.
    """
    pages = Pages(content, start)
    record = head + pages.plain[: pages.continued(0)]
    if _begins(head):
        new = _whole(head, path)
    elif len(head) <= _CRC:
        new = _with_sum(_with_path(record, path))
    else:
        new = _with_path(record, path, spare=4)
        at = _path_at(record) + len(os_bytes(path)) + 1
        new[at : at + 4] = _makes_up(new, at, int_at(record, _CRC, 4)).to_bytes(4, "little")
    return _changed(content, pages, 0, new[len(head) :])


def os_bytes(path: str) -> bytes:
    """Return a path as the file system knows it."""
    return path.encode("utf-8", "surrogateescape")


def _made(pages: Pages) -> list[Made]:
    plain, found = pages.plain, list[Made]()
    for match in _LIKELY.finditer(plain):
        at = match.start() - MANAGER
        made = _read(plain, at) if at >= 0 and at % 8 == 0 else None
        if made is not None and next((r for r in pages.records_from(at) if r >= at), -1) == at:
            found.append(made)
    return found


def _begun(pages: Pages) -> bytes:
    """Return the first part of the last record, if it goes on in the next segment and may make a tablespace."""
    plain = pages.plain
    last = max(pages.records_from(len(plain) - 1), default=-1) if pages.whole else -1
    if last < 0 or not len(plain) < last + int_at(plain, last, 4) <= last + _LONGEST:
        return b""
    # Of a header that is cut, too, what is there tells nothing.
    return plain[last:] if len(plain) - last < HEADER or _is_one(plain, last) else b""


def _begins(head: bytes) -> bool:
    """Tell whether all that comes before the path lies in the first part of a record, so that all of it can be told from there."""
    kinds = {_SHORT_DATA: 6, _LONG_DATA: 9}
    return len(head) > HEADER and len(head) >= HEADER + kinds.get(head[HEADER], len(head))


def _path_at(record: bytes | bytearray) -> int:
    return HEADER + (6 if record[HEADER] == _SHORT_DATA else 9)


def _whole(head: bytes, path: str) -> bytearray:
    """Return the record that begins with `head`, with `path`."""
    return _with_sum(_with_path(head.ljust(int_at(head, 0, 4), b"\0"), path))


def _with_path(record: bytes | bytearray, path: str, spare: int = 0) -> bytearray:
    """Return a record with `path`, and nothing behind that, its sum as it was. Raise ValueError if that and `spare` bytes do not fit."""
    at, new = _path_at(record), os_bytes(path) + b"\0"
    if at + len(new) + spare > len(record):
        raise ValueError("%r does not fit into the record of a tablespace." % path)
    return bytearray(record[:at] + new.ljust(len(record) - at, b"\0"))


def _with_sum(record: bytearray) -> bytearray:
    record[_CRC:HEADER] = _crc(record).to_bytes(4, sys.byteorder)
    return record


def _changed(content: bytes | bytearray, pages: Pages, at: int, new: bytes | bytearray) -> bytes:
    """Return the segment with other bytes from `at` on, counted without the headers of pages."""
    changed = bytearray(content)
    for number, byte in enumerate(new):
        changed[pages.raw(at + number)] = byte
    return bytes(changed)


def _is_one(plain: bytes, at: int) -> bool:
    """Tell whether the header of the record at `at` says that it makes a tablespace (and neither drops one nor is another's)."""
    return plain[at + INFO] >> 4 == 0 and plain[at + MANAGER : at + MANAGER + 3] == bytes((_TABLESPACES, 0, 0))


def _data(plain: bytes, at: int) -> Optional[tuple[int, int]]:
    """Return where the data begin whose head lies at `at`, and how many bytes they are."""
    kind = plain[at]
    if kind == _SHORT_DATA:
        return at + 2, plain[at + 1]
    return (at + 5, int_at(plain, at + 1, 4)) if kind == _LONG_DATA else None


def _read(plain: bytes, at: int) -> Optional[Made]:
    """Return the record at `at`, None if it is none or not whole: PostgreSQL would not replay it either."""
    length, data = int_at(plain, at, 4), _data(plain, at + HEADER)
    if not _is_one(plain, at) or data is None or data[0] + data[1] != at + length or at + length > len(plain):
        return None
    if length > _LONGEST or _crc(plain[at : at + length]) != int_at(plain, at + _CRC, 4):
        return None
    path = plain[data[0] + 4 : at + length].split(b"\0")[0]
    return Made(at, int_at(plain, data[0], 4), path.decode("utf-8", "surrogateescape"))


def _crc(record: bytes | bytearray) -> int:
    """Return the CRC-32C of a record: of what comes behind its header, and of the header before it."""
    return _forward(0xFFFFFFFF, record[HEADER:] + record[:_CRC]) ^ 0xFFFFFFFF


def _makes_up(record: bytes | bytearray, at: int, wanted: int) -> int:
    """Return what the four bytes at `at`, as a number of little-endian, must be for the record to have the CRC `wanted`."""
    before = _forward(0xFFFFFFFF, record[HEADER:at])
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


__all__ = ("Made", "begun_with", "ended", "ended_with", "found_in", "led_to", "made_in", "os_bytes")
