# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The files of the write-ahead log: their names, positions (LSN) and timelines, and how the archive calls them.

Segments are counted: number n holds the bytes from n * size on, whatever the timeline. An LSN is a plain int here.
It imports nothing, as the archive_command of PostgreSQL waits for it.
"""

from __future__ import annotations

SEGMENT, PARTIAL, HISTORY, BACKUP = "segment", "partial", "history", "backup"
LEAST_SIZE, MOST_SIZE = 1024 * 1024, 1024 * 1024 * 1024
USUAL_SIZE = 16 * 1024 * 1024
# What may stand behind the name and the hash of a stored file.
SUFFIXES = ("", ".zst", ".gz", ".age", ".zst.age", ".gz.age")

_HEX = frozenset("0123456789ABCDEF")
_SMALL_HEX = frozenset("0123456789abcdef")
_FOUR_GIB = 1 << 32
_SIZE_MARK = "segments-of-"
_DIGITS, _SEGMENT_DIGITS, _SHA256_DIGITS = 8, 24, 64


def kind(name: str) -> str:
    """Return what the WAL file called `name` is: segment, partial, history, backup; empty when it is no WAL file."""
    if _is_hex(name[:_SEGMENT_DIGITS], _SEGMENT_DIGITS):
        rest = name[_SEGMENT_DIGITS:]
        if not rest:
            return SEGMENT
        if rest == ".partial":
            return PARTIAL
        if rest.startswith(".") and rest.endswith(".backup") and _is_hex(rest[1:-7], _DIGITS):
            return BACKUP
    elif _is_hex(name[:_DIGITS], _DIGITS) and name[_DIGITS:] == ".history":
        return HISTORY
    return ""


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and _HEX.issuperset(text)


def timeline_of(name: str) -> int:
    """Return the timeline of the WAL file `name`."""
    return int(name[:_DIGITS], 16)


def number_of(name: str, size: int) -> int:
    """Return the number of the segment that `name` (also a partial or backup file) is about, for segments of `size` bytes."""
    return int(name[8:16], 16) * (_FOUR_GIB // size) + int(name[16:24], 16)


def segment_name(timeline: int, number: int, size: int) -> str:
    """Return the name of the segment `number` on `timeline`."""
    per_log = _FOUR_GIB // size
    return "%08X%08X%08X" % (timeline, number // per_log, number % per_log)


def is_size(size: int) -> bool:
    """Tell whether WAL segments can be of `size` bytes: a power of two from 1 MiB to 1 GiB."""
    return LEAST_SIZE <= size <= MOST_SIZE and size & (size - 1) == 0


# --- positions --------------------------------------------------------------------------------------------------------


def parse_lsn(text: str) -> int:
    """Return the position that `text` (`16/B374D848`) names. Raise ValueError if it names none."""
    high, slash, low = text.strip().partition("/")
    for part in (high, low):
        if not slash or not 1 <= len(part) <= _DIGITS or not _HEX.issuperset(part.upper()):
            raise ValueError("%r is no WAL position such as 16/B374D848" % (text,))
    return int(high, 16) * _FOUR_GIB + int(low, 16)


def show_lsn(position: int) -> str:
    """Return the position as PostgreSQL writes it: `16/B374D848`."""
    return "%X/%X" % divmod(position, _FOUR_GIB)


def number_at(position: int, size: int) -> int:
    """Return the number of the segment that holds the byte at `position`."""
    return position // size


def number_before(position: int, size: int) -> int:
    """Return the number of the last segment that is needed for everything before `position`, as for the end of a backup."""
    return (position - 1) // size


def start_of(number: int, size: int) -> int:
    """Return the position of the first byte of the segment `number`."""
    return number * size


# --- timelines --------------------------------------------------------------------------------------------------------


def parse_history(text: str) -> list[tuple[int, int, str]]:
    """Return the ancestors that a history file lists, the oldest first: (timeline, position of the switch, reason).

    Raise ValueError for a line that is none, or for timelines and positions that do not grow.
    """
    found: list[tuple[int, int, str]] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(None, 2)
        if not words:
            continue
        if len(words) < 2 or not words[0].isdecimal():
            raise ValueError("%r is no line of a timeline history" % line)
        entry = (int(words[0]), parse_lsn(words[1]), words[2].strip() if len(words) > 2 else "")
        if found and (entry[0] <= found[-1][0] or entry[1] < found[-1][1]):
            raise ValueError("the timeline history goes back at %r" % line)
        found.append(entry)
    return found


def timeline_at(timeline: int, ancestors: list[tuple[int, int, str]], position: int) -> int:
    """Return the timeline that holds the byte at `position` in the past of `timeline`, whose history is `ancestors`."""
    for ancestor, end, _reason in ancestors:
        if position < end:
            return ancestor
    return timeline


def order(name: str) -> tuple[int, int, str]:
    """Return what WAL files sort by: where they lie (for one size of segments), then the timeline. Others come first."""
    if not kind(name):
        return (-2, 0, name)
    if kind(name) == HISTORY:
        return (-1, timeline_of(name), name)
    return (int(name[8:24], 16), timeline_of(name), name)


# --- how the archive calls them ---------------------------------------------------------------------------------------


def folder(name: str) -> str:
    """Return the folder of the archive, inside that of the system identifier, in which `name` lies; empty for none of its own."""
    return "" if kind(name) == HISTORY else name[:16]


def stored_name(name: str, sha256: str, suffix: str) -> str:
    """Return the name of the stored file with the content `sha256` (hex digits, before compression)."""
    return "%s-%s%s" % (name, sha256, suffix)


def parse_stored(stored: str) -> tuple[str, str, str]:
    """Return (name, sha256, suffix) of a stored file; three empty texts when it is none of the archive's."""
    name, dash, rest = stored.rpartition("-")
    sha256, suffix = rest[:_SHA256_DIGITS], rest[_SHA256_DIGITS:]
    good = dash and len(sha256) == _SHA256_DIGITS and _SMALL_HEX.issuperset(sha256) and suffix in SUFFIXES
    return (name, sha256, suffix) if good and kind(name) else ("", "", "")


def size_mark(size: int) -> str:
    """Return the name of the empty file that says of how many bytes the segments of a cluster are: encrypted ones do not tell."""
    return "%s%d" % (_SIZE_MARK, size)


def parse_size_mark(name: str) -> int:
    """Return the size that the file `name` of the archive tells, 0 when it tells none."""
    digits = name[len(_SIZE_MARK) :]
    good = name.startswith(_SIZE_MARK) and digits.isascii() and digits.isdecimal() and is_size(int(digits))
    return int(digits) if good else 0


def is_system_identifier(text: str) -> bool:
    """Tell whether `text` can be the identifier of a PostgreSQL cluster."""
    return text.isascii() and text.isdecimal() and text[:1] != "0" and int(text) < 1 << 64


__all__ = (
    "BACKUP",
    "HISTORY",
    "LEAST_SIZE",
    "MOST_SIZE",
    "PARTIAL",
    "SEGMENT",
    "SUFFIXES",
    "USUAL_SIZE",
    "folder",
    "is_size",
    "is_system_identifier",
    "kind",
    "number_at",
    "number_before",
    "number_of",
    "order",
    "parse_history",
    "parse_lsn",
    "parse_size_mark",
    "parse_stored",
    "segment_name",
    "show_lsn",
    "size_mark",
    "start_of",
    "stored_name",
    "timeline_at",
    "timeline_of",
)
