# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a recovery that paused left to do, when a person has promoted the server since: its tablespaces lie behind links of ours.

Nobody was there at that promotion. A base backup would take such a link for the directory, and hold a tablespace that leads nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.errors import DamagedError, PgopsError, RefusedError
from ..core.naming import quote_ident
from ..core.segments import timeline_of
from ..postgres.connection import Server, Session
from ..postgres.recovering import is_served
from ..postgres.unproven import is_marked, unmark
from ..settings import Postgres
from ..wal.tablespaces import FILE, home_of, made_by_wal, places_by_number, settle

_LINKS = "SELECT spcname FROM pg_tablespace WHERE pg_tablespace_location(oid) ~ '^t[0-9]{1,3}$' ORDER BY spcname"
_KNOWN = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace"
_OWN = (
    "SELECT oid::bigint, spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY spcname"
)
_VERSION = "SELECT current_setting('server_version_num')::int / 10000, catalog_version_no FROM pg_control_system()"
_LINKS_LIE = "pg_tblspc"
_HERE = ("", "localhost", "127.0.0.1", "::1")


def unsettled(postgres: Postgres, session: Session, *, data_directory: str, in_recovery: bool) -> str:
    """Return what a recovery that is over left in the server's data directory, as a sentence; empty if nothing, or nobody can tell."""
    links = [] if in_recovery else session.allowed(_LINKS) or []  # none where one of its tablespaces has no link
    data = _directory(postgres, data_directory)
    if in_recovery or (data is None and not links):
        return ""
    return (
        "The server was promoted after a recovery that had paused, and nobody has settled the links of its tablespaces since: what"
        " PostgreSQL's own tools copy of it may lack them. The next pgops backup --kind base settles them."
    )


def settle_promoted(context: Context, session: Session, server: Server, *, dry_run: bool) -> None:
    """Let the links of tablespaces lead to their directories, if a recovery that paused has come to its end since; and say so.

    Raise RefusedError where they cannot: a base backup would not hold those tablespaces.
    """
    data = _directory(context.config.postgres, server.data_directory)
    if data is not None and not server.in_recovery and not dry_run:
        _lay_again(context, data, session)
    names = [str(row[0]) for row in session.allowed(_LINKS) or []]
    if server.in_recovery:
        if names:
            raise _refusal(names, "that recovery has not come to its end", "Promote the server, and run this again.")
        return
    if data is None:
        if names:
            hint = "Run this on the host of the server, as its account, by a role that may read data_directory."
            raise _refusal(names, "this run cannot look into its data directory", hint)
        return
    if dry_run:
        context.warn("What a recovery left in %s, whose server was promoted since, will be settled." % data)
        return
    _forget_replay(session, names)
    try:
        _settle(data, session)
    except (OSError, DamagedError) as error:
        why = error.message if isinstance(error, DamagedError) else "%s: %s" % (error.filename or data, error.strerror)
        if names:
            raise _refusal(names, why, "Run this as the account of the server.") from error
        context.warn(
            "What a recovery left in %s, whose server was promoted since, could not be settled (%s)." % (data, why)
        )
        return
    left = [str(row[0]) for row in session.allowed(_LINKS) or []]
    if left:
        hint = "Stop the server, and let the links in %s/pg_tblspc lead to the directories themselves." % data
        raise _refusal(left, "where those lead is not known", hint)
    context.warn(
        "What a recovery had left in %s, whose server was promoted since, was settled: the links of its tablespaces lead to the"
        " directories themselves now." % data
    )


def _lay_again(context: Context, data: Path, session: Session) -> None:
    """Lay the links that a start before the promotion took away again; see lay_missing(). Raise RefusedError where that cannot be."""
    try:
        told = lay_missing(data, session)
    except OSError as error:
        raise RefusedError(
            "A tablespace of the server has no directory any more, since a recovery that stopped while it was being dropped, and"
            " cannot be given one: %s: %s." % (error.filename or data, error.strerror),
            hint="Run this as the account of the server, or drop that tablespace.",
        ) from error
    for text in told:
        context.warn(text)


def on_this_host(postgres: Postgres) -> bool:
    """Tell whether the server is asked by a way that does not leave this host."""
    host = postgres.login_host or ""
    return host in _HERE or host.startswith("/")


def _directory(postgres: Postgres, path: str) -> Optional[Path]:
    """Return the data directory `path` of the server if it is on this host, and has what a recovery left to do."""
    data = Path(path)
    if not path or not on_this_host(postgres):
        return None
    try:
        return data if (data / FILE).is_file() and is_served(data) else None
    except OSError:  # this account may not look into it
        return None


def _forget_replay(session: Session, names: list[str]) -> None:
    """See to it that the server never again replays what made the tablespaces: by those links, which go now."""
    try:
        session.execute("CHECKPOINT")
    except PgopsError as error:
        # Each promotion begins a timeline, and the first checkpoint behind it says so.
        now = timeline_of(str(session.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")))
        if session.value("SELECT timeline_id FROM pg_control_checkpoint()") != now:
            hint = "Have a superuser say CHECKPOINT, and run this again."
            raise _refusal(names, "the server has made no checkpoint since it was promoted", hint) from error


def _settle(data: Path, session: Session) -> None:
    home = Path(home_of(data))
    settle(data, promoted=False)  # before anything goes by which the directories are known
    forget_dropped(data, session, laid=places_by_number(data))  # that of one that was being made as well
    unmark(path for path in map(Path, made_by_wal(data).values()) if is_marked(path, home))
    settle(data, promoted=True)


def forget_dropped(data: Path, session: Session, *, every: bool = False, laid: Collection[str] = ()) -> list[str]:
    """Remove links of tablespaces that the server does not have; a base backup would fail over them. Return where no other one lies.

    PostgreSQL leaves such a link where a tablespace was being made when the recovery ended, and where it replays twice that one was
    dropped and another one got its directory. Where it is not `every` link, as somebody may make a tablespace at this moment,
    only those go that lead to a tablespace that the server has, or whose number is one of those that a recovery has `laid`.
    """
    known = {str(oid): str(path) for oid, path in session.rows(_KNOWN)}
    gone = []
    for entry in sorted((data / _LINKS_LIE).iterdir()):
        if entry.name.isdecimal() and entry.name not in known and entry.is_symlink():
            where = os.readlink(entry)
            if every or where in known.values() or entry.name in laid:
                entry.unlink()
                gone += [where] if where not in known.values() else []
    return gone


def lay_missing(data: Path, session: Session) -> list[str]:
    """Give each tablespace of the server that has no link an empty directory again, and return what is to be told of that.

    PostgreSQL replays that one is dropped, which is empty then, before the commit at which it stops. Where it lay was remembered when
    the base backup was unpacked, or when the WAL made it. Raise OSError, or DamagedError if that cannot be read.
    """
    links, told = data / _LINKS_LIE, []
    lacking = [(str(oid), str(name)) for oid, name in session.rows(_OWN) if not os.path.lexists(links / str(oid))]
    remembered, owner = places_by_number(data) if lacking else {}, data.stat()
    for oid, name in lacking:
        if oid not in remembered:
            told.append(
                "The tablespace %s was being dropped at that moment: it was empty, and has no directory any more. No backup works"
                " until it is dropped: DROP TABLESPACE %s." % (name, quote_ident(name))
            )
            continue
        place, version = Path(remembered[oid]), "PG_%d_%d" % session.rows(_VERSION)[0]
        for path in (place, place / version):
            if not path.is_dir():
                path.mkdir(mode=0o700)
                if os.geteuid() == 0:
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        (links / oid).symlink_to(place)
        told.append(
            "The tablespace %s was being dropped at that moment: it was empty, and lies in %s, empty, again."
            % (name, place)
        )
    return told


def _refusal(names: list[str], why: str, hint: str) -> RefusedError:
    what = "Tablespaces of the server lie behind links that a recovery made%s" % (
        " (%s)" % ", ".join(names) if names else ""
    )
    return RefusedError("%s, and %s." % (what, why), hint=hint)


__all__ = ("forget_dropped", "lay_missing", "on_this_host", "settle_promoted", "unsettled")
