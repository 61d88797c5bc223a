# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Prepared transactions in a copy of a server: not committed at its moment, they hold their locks there until somebody ends them."""

from __future__ import annotations

from .connection import Session

_PREPARED = "SELECT gid, database FROM pg_prepared_xacts ORDER BY database, gid"


def prepared(session: Session) -> dict[str, list[str]]:
    """Return the names of the prepared transactions of each database that has any."""
    found: dict[str, list[str]] = {}
    for gid, database in session.rows(_PREPARED):
        found.setdefault(str(database), []).append(str(gid))
    return found


def roll_back(session: Session) -> list[str]:
    """Roll back what is prepared in the database of `session`, of a copy that serves nobody else, and return the names."""
    names = prepared(session).get(session.database, [])
    for name in names:
        session.execute("ROLLBACK PREPARED %s", (name,))
    return names


__all__ = ("prepared", "roll_back")
