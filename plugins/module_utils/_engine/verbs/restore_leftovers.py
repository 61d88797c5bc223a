# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a restore that fails or is killed leaves on the server under our mark: it is dropped, and what it closed is opened again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Optional

from ..context import Context
from ..core.errors import MissingError, PgopsError, UnreachableError
from ..postgres import swapping
from ..postgres.connection import LostError, Session, TurnedAwayError, connect, with_database
from ..postgres.target import Target

PREFIX = "pgops-restore-"


def maintenance_session(context: Context, taken: Iterable[str]) -> Session:
    """Return a session for what concerns the whole server, in a database that is there and is none of `taken`."""
    postgres = context.config.postgres
    candidates = [
        name for name in dict.fromkeys((postgres.login_db, "postgres", "template1")) if name not in set(taken)
    ]
    first: Optional[PgopsError] = None
    for name in candidates:
        try:
            return connect(postgres, name)
        except (MissingError, LostError, TurnedAwayError) as error:
            first = first or error
    if first is None:
        return connect(postgres)  # all three are to be replaced, template1 too: preflight refuses that
    raise first


def mark_of(context: Context) -> str:
    """Return what the comment of a database says that a restore of this host and instance makes."""
    return "pgops restore in progress on %s for %s" % (context.host, context.config.instance)


def let_in_again(context: Context) -> None:
    """Open what a killed restore left closed, for a restore that ends before its work. What hinders that is told by the next one."""
    with contextlib.suppress(PgopsError), context.lock("restore"), maintenance_session(context, ()) as session:
        reopen_closed(context, session)


def reopen_closed(context: Context, session: Session) -> None:
    """Let connections in again where a restore that was killed while it swapped left a database closed."""
    for name in swapping.left_closed(session, PREFIX, mark_of(context)):
        if swapping.reopen(session, with_database(context.config.postgres, session.database), name):
            context.warn("%r takes connections again; a restore that was cut short had left it closed." % name)


def drop_abandoned(context: Context, session: Session) -> None:
    """Drop what a restore of this host and instance that was killed left behind; nobody else carries our mark."""
    mark = mark_of(context)
    if swapping.left_closed(session, PREFIX, mark):
        return  # its mark is the only trace of a database that is still closed
    for name in swapping.abandoned(session, PREFIX, mark):
        try:
            swapping.drop(session, name, with_database(context.config.postgres, session.database))
        except PgopsError as error:
            context.warn("%r, which a restore that was cut short left behind, stays: %s" % (name, error.message))
            continue
        context.warn("Dropped %r, which a restore that was cut short left behind." % name)


def discard(context: Context, names: list[str], session: Session, target: Target) -> None:
    """Drop what this restore made, as far as that goes: what went wrong before is what gets told."""
    for name in names:
        try:
            swapping.drop(session, name, target.postgres)
        except UnreachableError:
            try:
                with connect(target.postgres) as another:
                    swapping.drop(another, name, target.postgres)
            except PgopsError as error:
                context.warn("%r stays until the next restore: %s" % (name, error.message))
        except PgopsError as error:
            context.warn("%r stays until the next restore: %s" % (name, error.message))


__all__ = ("PREFIX", "discard", "drop_abandoned", "let_in_again", "maintenance_session", "mark_of", "reopen_closed")
