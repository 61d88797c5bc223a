# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a server tells about its WAL and how it archives that."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Callable

from ..core.segments import HISTORY, kind, number_of, parse_lsn, show_lsn, start_of, timeline_of
from ..core.wal_health import ServerWal
from .connection import Session, server_facts

_POSITION = (
    "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN coalesce(pg_catalog.pg_last_wal_receive_lsn(),"
    " pg_catalog.pg_last_wal_replay_lsn()) ELSE pg_catalog.pg_current_wal_flush_lsn() END::text"
)
# A server that was promoted says so in its control file at the next checkpoint only.
_TIMELINE = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())"
_SETTINGS = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN"
    " ('archive_mode', 'archive_command', 'archive_library', 'archive_timeout', 'wal_segment_size', 'wal_level')"
)
_ARCHIVER = (
    "SELECT last_archived_wal, last_archived_time, last_failed_wal, last_failed_time, failed_count"
    " FROM pg_catalog.pg_stat_archiver"
)
_READY = (
    "SELECT count(*), min(modification) FROM pg_catalog.pg_ls_archive_statusdir()"
    " WHERE pg_catalog.right(name, 6) = '.ready'"
)


def ask(session: Session, clock: Callable[[], datetime]) -> tuple[ServerWal, dict[str, Any]]:
    """Return how the server archives, and as JSON what a person wants to know besides; `clock` is this host's. Raise PgopsError."""
    server = server_facts(session)
    settings: dict[str, str] = dict(session.rows(_SETTINGS))
    size = int(settings["wal_segment_size"])
    position = parse_lsn(str(session.value(_POSITION) or "0/0"))
    last, last_time, failed, failed_time, failures = session.rows(_ARCHIVER)[0]
    timeline = server.timeline if server.in_recovery else timeline_of(str(session.value(_TIMELINE)))
    waiting = session.allowed(_READY)
    ready, ready_since = waiting[0] if waiting else (None, None)
    facts = ServerWal(
        archive_mode=settings["archive_mode"],
        archive_command=settings.get("archive_command", ""),
        archive_library=settings.get("archive_library", ""),
        archive_timeout=int(settings["archive_timeout"]),
        segment_size=size,
        lag_bytes=_lag(position, last or "", size),
        last_archived=last or "",
        last_archived_time=last_time,
        last_failed=failed or "",
        last_failed_time=failed_time,
        failed_count=int(failures),
        ready=None if ready is None else int(ready),
        ready_since=ready_since,
        in_recovery=server.in_recovery,
        system_identifier=server.system_identifier,
        timeline=timeline,
        ahead_seconds=round((session.value("SELECT pg_catalog.clock_timestamp()") - clock()).total_seconds(), 3),
    )
    return facts, {
        "data_directory": server.data_directory,
        "wal_level": settings["wal_level"],
        "current_lsn": show_lsn(position),
    }


def _lag(position: int, last: str, size: int) -> int:
    """Return how many bytes lie between the end of the segment `last`, which was archived, and `position`."""
    if kind(last) in ("", HISTORY):
        return position % size if not last else 0
    return max(0, position - start_of(number_of(last, size) + 1, size))


__all__ = ("ask",)
