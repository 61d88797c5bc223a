# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""PostgreSQL's own list of a base backup's files (backup_manifest), and the WAL files that it needs.

PostgreSQL manual, chapter "Backup Manifest Format".
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Optional

from .errors import DamagedError
from .segments import number_at, number_before, parse_lsn, segment_name

NAME = "backup_manifest"
LABEL = "backup_label"
_FROM = re.compile(rb"^INCREMENTAL FROM LSN: ([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
# Files of the data directory that the list leaves out on purpose.
UNLISTED = ("pg_wal/", NAME)


@dataclass(frozen=True)
class Listed:
    """A file as the list describes it: size in bytes, and a checksum by `algorithm`, None where it has none."""

    size: int
    algorithm: Optional[str]
    checksum: str


@dataclass(frozen=True)
class BaseList:
    """What a backup_manifest says: files by path, and the WAL ranges (timeline, first and last LSN)."""

    files: dict[str, Listed]
    ranges: tuple[tuple[int, str, str], ...]
    system_identifier: str = ""


def parse_list(raw: bytes) -> BaseList:
    """Return what the bytes of a backup_manifest say. Raise DamagedError if they are none, or its own checksum differs."""
    position = raw.rfind(b'"Manifest-Checksum"')
    try:
        data = json.loads(raw)
        told = data["Manifest-Checksum"]
        files = {_path(entry): _listed(entry) for entry in data["Files"]}
        ranges = tuple((int(r["Timeline"]), str(r["Start-LSN"]), str(r["End-LSN"])) for r in data["WAL-Ranges"])
        system = str(data.get("System-Identifier", ""))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("PostgreSQL's list of the base backup cannot be read: %s." % error) from None
    if hashlib.sha256(raw[:position]).hexdigest() != told:
        raise DamagedError("PostgreSQL's list of the base backup is damaged: its own checksum differs.")
    return BaseList(files, ranges, system)


def _path(entry: dict[str, Any]) -> str:
    if "Path" in entry:
        return str(entry["Path"])
    return bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")


def _listed(entry: dict[str, Any]) -> Listed:
    algorithm = entry.get("Checksum-Algorithm")
    return Listed(int(entry["Size"]), algorithm and str(algorithm), str(entry.get("Checksum", "")))


def built_on(label: bytes) -> str:
    """Return the LSN at which the parent of an incremental base backup began, as its backup_label says; empty for a full one."""
    match = _FROM.search(label)
    return match.group(1).decode("ascii") if match else ""


def wal_files(timeline: int, first: str, last: str, segment_bytes: int) -> list[str]:
    """Return the names of the WAL files that hold the range from the LSN `first` up to, not including, `last`."""
    begin, end = parse_lsn(first), parse_lsn(last)
    numbers = range(number_at(begin, segment_bytes), number_before(max(end, begin + 1), segment_bytes) + 1)
    return [segment_name(timeline, number, segment_bytes) for number in numbers]


__all__ = ("LABEL", "NAME", "UNLISTED", "BaseList", "Listed", "built_on", "parse_list", "wal_files")
