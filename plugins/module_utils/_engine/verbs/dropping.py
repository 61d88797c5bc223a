# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Databases that were being dropped where a recovery stopped: PostgreSQL stops at commits only, and removes the files before that.

What is recovered so lists a database that nobody can use. Behind the last transaction that ended before it, it is still whole.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional

from ..core.errors import DamagedError, PgopsError
from ..core.recovery_end import Stopped, transaction_ahead
from ..core.segments import SEGMENT, kind, number_before, number_of, start_of
from ..core.wal_records import last_end
from ..postgres.connection import Session
from .recovery_plan import Earlier, Work

_DEFAULT_TABLESPACE = 1663
_DROPPED = -2  # the limit of connections of a database whose removal has begun
_LISTED = (
    "SELECT oid::bigint, dattablespace::bigint, datname, datconnlimit, xmax::text FROM pg_database ORDER BY datname"
)


class DroppedError(DamagedError):
    """A database was being dropped where the recovery stopped; `earlier` is where it is still whole, None where nobody knows."""

    def __init__(self, message: str, *, hint: str = "", earlier: Optional[Earlier] = None) -> None:
        super().__init__(message, hint=hint)
        self.earlier = earlier


def check_dropped(work: Work, session: Session, stopped: Stopped) -> list[str]:
    """Return what is to be told of databases that were being dropped before, and are of no use.

    Raise DroppedError where it is the very transaction before which the server stopped that drops one: it belongs to the target. So
    may one whose removal began since the base backup, and had not ended: its `earlier` is where that may not have begun.
    """
    ahead = transaction_ahead(stopped.log)
    before = work.instead.databases if work.instead is not None else ()
    # Where the server stopped at the end of a transaction, or of the archive, more was replayed than what had ended by the target.
    beyond = work.instead is None and bool(ahead or stopped.quiet)
    lost, begun, broken = list[str](), list[str](), list[str]()
    for oid, tablespace, name, limit, dropper in session.rows(_LISTED):
        if limit != _DROPPED and _has_files(work.data, oid, tablespace):
            continue
        if work.request.database not in ("", name):
            continue
        if name in before or dropper == ahead:
            lost.append(name)
        elif beyond and _is_younger(int(dropper), work.chosen.base.next_xid):
            begun.append(name)
        else:
            broken.append(name)
    if lost or begun:
        earlier = _earlier(work, stopped, lost, begun) if beyond else None
        if lost or earlier is not None:
            raise _error([*lost, *begun], ahead if not begun else "", earlier)
        broken = sorted([*broken, *begun])
    if broken and work.request.database:
        raise _error(broken, "", None)
    return [
        "Nobody can connect to the database %r: it was being dropped at that moment, or its removal had been interrupted before,"
        " as the original may show, too. To have it, ask for an earlier moment; at an LSN, --exclusive stops before its record."
        % name
        for name in broken
    ]


def once_more(earlier: Earlier) -> str:
    """Return why the recovery is done a second time."""
    said = []
    if earlier.databases:
        said.append("%s dropped by the first transaction that ended behind the target" % _named(earlier.databases))
    if earlier.begun:
        said.append("%s being dropped where the server stopped" % _named(earlier.begun))
    return (
        "%s, and PostgreSQL removes the files before that ends: it is recovered once more, to %s, where %s still whole%s."
        " No transaction ended between that and the target."
        % (
            ". ".join(said),
            earlier.target.shown,
            "they are" if len(earlier.databases) + len(earlier.begun) > 1 else "it is",
            ", unless a removal had begun by then" if earlier.begun else "",
        )
    )


def _named(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        return "The databases %s were" % ", ".join(map(repr, names))
    return "The database %r was" % names[0]


def _is_younger(dropper: int, next_xid: int) -> bool:
    """Tell whether a transaction, as a row names it (its lower 32 bits), began when or after `next_xid` was the next one."""
    return bool(dropper) and (dropper - next_xid) % (1 << 32) < 1 << 31


def _error(names: list[str], ahead: str, earlier: Optional[Earlier]) -> DroppedError:
    by = " by the transaction %s, at whose end it stopped" % ahead if ahead else ""
    return DroppedError(
        "The server recovered, but without the database %s, which was being dropped%s: PostgreSQL removes the files of a database"
        " before that." % (", ".join(map(repr, sorted(names))), by),
        hint="What was there before is as it was, unless a warning says that the server does not end. Ask for the last transaction"
        " before it (--to-xid), for an LSN before it with --exclusive, or for an earlier moment; for other databases alone, rescue"
        " them.",
        earlier=earlier,
    )


def _earlier(work: Work, stopped: Stopped, lost: list[str], begun: list[str]) -> Optional[Earlier]:
    """Return where no transaction has ended between it and where the server stopped: in the segment that it has replayed last."""
    size, end = work.chosen.base.segment_bytes, work.chosen.base.end
    if stopped.position is None:
        return None
    number = number_before(stopped.position, size)
    start = start_of(number, size)
    for path in sorted((work.data / "pg_wal").iterdir(), reverse=True):
        if kind(path.name) != SEGMENT or number_of(path.name, size) != number:
            continue
        last = last_end(path.read_bytes(), start, stopped.position)
        if last is not None:
            # Exclusive: of the transaction that ends by the record at which it stops PostgreSQL would not tell when that was.
            target = dataclasses.replace(
                work.request.target, kind="lsn", moment=None, xid=0, position=max(last, end), inclusive=False
            )
            return Earlier(target, tuple(lost), stopped.moment, tuple(begun))
    return None


def _has_files(data: Path, oid: int, tablespace: int) -> bool:
    """Tell whether the files of a database are there. Raise PgopsError if nobody may look."""
    try:
        if tablespace == _DEFAULT_TABLESPACE:
            return (data / "base" / str(oid) / "PG_VERSION").exists()
        return any((data / "pg_tblspc" / str(tablespace)).glob("PG_*/%d/PG_VERSION" % oid))
    except OSError as error:
        raise PgopsError("The files of the databases cannot be looked at: %s" % error) from error


__all__ = ("DroppedError", "check_dropped", "once_more")
