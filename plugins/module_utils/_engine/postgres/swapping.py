# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A proven database gets its name. What stands there is renamed in the same transaction, so a name never means nothing."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import PgopsError
from ..core.naming import quote_ident, quote_literal
from ..settings import Postgres
from .connection import Session, connect
from .databases import comment_on_database

_CLOSED = " (closed: "
_TRIES = 20
# Seconds in which databases must become free; each try waits in the server for up to 5 of them.
_PATIENCE = 30.0
_FORCED = 130000  # the first PostgreSQL whose DROP DATABASE ends sessions itself


def give_name(session: Session, temporary: str, name: str, *, comment: str) -> None:
    """Rename `temporary` to `name` and run the SQL `comment` with it, both or neither."""
    _together(session, (temporary,), (comment, _rename(temporary, name)))


def swap(session: Session, temporary: str, name: str, kept: str, *, comment: str, mark: str) -> None:
    """Rename `name` to `kept` and `temporary` to `name`, both or neither.

    New connections to `name` are refused meanwhile, and the comment of `temporary` says so: whoever finds it after a kill can
    let them in again. After an error or an interrupt the caller must, too (reopen).
    """
    database = quote_ident(name)
    closing = "ALTER DATABASE %s WITH ALLOW_CONNECTIONS false" % database
    session.execute("%s; %s" % (comment_on_database(temporary, "%s%s%s)" % (mark, _CLOSED, name)), closing))
    opening = "ALTER DATABASE %s WITH ALLOW_CONNECTIONS true" % quote_ident(kept)
    _together(session, (name, temporary), (_rename(name, kept), opening, comment, _rename(temporary, name)))


def exchange(session: Session, name: str, kept: str, aside: str) -> None:
    """Give `kept` the name `name` back; what is called so, if `aside` is not empty, is called that then. Both or neither.

    New connections to `name` are refused meanwhile. After an error or an interrupt the caller must let them in again (reopen).
    """
    statements = [_rename(kept, name)]
    if aside:
        session.execute("ALTER DATABASE %s WITH ALLOW_CONNECTIONS false" % quote_ident(name))
        opening = "ALTER DATABASE %s WITH ALLOW_CONNECTIONS true" % quote_ident(aside)
        statements = [_rename(name, aside), opening, *statements]
    _together(session, (name, kept), statements)


def reopen(session: Session, postgres: Postgres, name: str) -> bool:
    """Let connections to `name` in again, by a new session if this one has ended. Tell whether they are let in now."""
    try:
        _open(session, name)
    except PgopsError:
        try:
            with connect(postgres) as another:
                _open(another, name)
        except PgopsError:
            return False
    return True


def _open(session: Session, name: str) -> None:
    if session.rows(
        "SELECT 1 FROM pg_database WHERE datname = %s AND NOT datallowconn AND datconnlimit <> -2", (name,)
    ):
        session.execute("ALTER DATABASE %s WITH ALLOW_CONNECTIONS true" % quote_ident(name))


def left_closed(session: Session, prefix: str, mark: str) -> list[str]:
    """Return the databases that a swap of ours closed and, being killed, did not open again."""
    rows = session.rows(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE starts_with(datname::text, %s)"
        " AND starts_with(shobj_description(oid, 'pg_database'), %s)",
        (prefix, mark + _CLOSED),
    )
    names = [row[0][len(mark + _CLOSED) : -1] for row in rows]
    return [
        name
        for name in names
        if session.rows(
            "SELECT 1 FROM pg_database WHERE datname = %s AND NOT datallowconn AND datconnlimit <> -2", (name,)
        )
    ]


def temporary_name(prefix: str, mark: str) -> str:
    """Return a new name for a database that will get the comment `mark`; it tells whose it is before that."""
    return "%s%s" % (_tagged(prefix, mark), secrets.token_hex(4))


def _tagged(prefix: str, mark: str) -> str:
    return "%s%s-" % (prefix, hashlib.sha256(mark.encode()).hexdigest()[:8])


def abandoned(session: Session, prefix: str, mark: str) -> list[str]:
    """Return the databases with our mark: a restore that was killed left them behind. What it was still making is ended."""
    tagged = _tagged(prefix, mark)
    # A killed client's CREATE DATABASE goes on, and nobody sees the database before it is there.
    making = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND starts_with(query, %s)"
    statement = ('CREATE DATABASE "%s' % tagged,)
    for _attempt in range(_TRIES):
        if not session.rows("SELECT pg_terminate_backend(pid) " + making, statement):
            break
        time.sleep(0.2)
    rows = session.rows(
        "SELECT datname FROM pg_database WHERE starts_with(datname::text, %s) AND (shobj_description(oid, 'pg_database') = %s"
        " OR starts_with(shobj_description(oid, 'pg_database'), %s) OR starts_with(datname::text, %s))",
        (prefix, mark, mark + _CLOSED, tagged),
    )
    return [row[0] for row in rows]


def drop(session: Session, name: str, postgres: Postgres) -> None:
    """Drop the database `name`, which a restore made, if there is one: also when it is a template already, or has subscriptions."""
    if session.rows("SELECT 1 FROM pg_database WHERE datname = %s AND datistemplate", (name,)):
        session.execute("ALTER DATABASE %s WITH IS_TEMPLATE false" % quote_ident(name))
    if subscriptions(session, name):
        _drop_subscriptions(session, name, postgres)
    force = " WITH (FORCE)" if int(session.value("SELECT current_setting('server_version_num')")) >= _FORCED else ""
    session.execute("DROP DATABASE IF EXISTS %s%s" % (quote_ident(name), force))


def _drop_subscriptions(session: Session, name: str, postgres: Postgres) -> None:
    """Drop the subscriptions of a restored database: they hinder its end. Their slots at the publisher are another's, and stay."""
    with connect(postgres, name) as inside:
        inside.execute("SET default_transaction_read_only = off")
        for found in subscriptions(session, name):
            subscription = quote_ident(found.name)
            inside.execute("ALTER SUBSCRIPTION %s DISABLE" % subscription)
            inside.execute("ALTER SUBSCRIPTION %s SET (slot_name = NONE)" % subscription)
            inside.execute("DROP SUBSCRIPTION %s" % subscription)


@dataclass(frozen=True)
class Subscription:
    """A subscription of a database; `slot` is that of the publisher it takes changes from, empty for none."""

    name: str
    enabled: bool
    slot: str


def subscriptions(session: Session, database: str) -> list[Subscription]:
    """Return the subscriptions of `database`, by name."""
    rows = session.allowed(
        "SELECT s.subname, s.subenabled, coalesce(s.subslotname, '') FROM pg_subscription s"
        " JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = %s ORDER BY 1",
        (database,),
    )
    return [Subscription(*row) for row in rows or []]


def prepared(session: Session, database: str) -> str:
    """Return what to say of the prepared transactions that are open in `database`, and hinder its renaming; empty for none."""
    rows = session.rows(
        "SELECT gid, owner::text FROM pg_prepared_xacts WHERE database = %s ORDER BY prepared, gid", (database,)
    )
    if not rows:
        return ""
    return (
        "The database %r cannot be renamed while transactions are prepared in it: %s. End each there"
        " (COMMIT PREPARED or ROLLBACK PREPARED and its name), then run it again."
        % (database, ", ".join("%s (of %s)" % (quote_literal(gid).strip(), owner) for gid, owner in rows))
    )


def _rename(old: str, new: str) -> str:
    return "ALTER DATABASE %s RENAME TO %s" % (quote_ident(old), quote_ident(new))


def _together(session: Session, names: Sequence[str], statements: Sequence[str]) -> None:
    """Run `statements` as one transaction while nobody is connected to `names`. Who still is gets ended, a few times."""
    end = time.monotonic() + _PATIENCE
    while True:
        for name in names:
            hindrance = prepared(session, name)
            if hindrance:
                raise PgopsError(hindrance)
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
            (list(names),),
        )
        try:
            session.execute("; ".join(statements))  # sent at once, they are one transaction
            return
        except PgopsError as error:
            if getattr(error, "sqlstate", None) != "55006":
                raise
            if time.monotonic() > end:
                error.hint = "See who holds on to it (SELECT * FROM pg_stat_activity), end that, then run it again."
                raise
            time.sleep(0.2)


__all__ = (
    "Subscription",
    "abandoned",
    "drop",
    "exchange",
    "give_name",
    "left_closed",
    "prepared",
    "reopen",
    "subscriptions",
    "swap",
    "temporary_name",
)
