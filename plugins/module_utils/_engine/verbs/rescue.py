# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb rescue: one database, or some of its tables, as they were at a moment, under another name on the server that runs.

A copy of the whole server is recovered where nobody reaches it, what is asked for is dumped from there and restored, and the
copy is gone again. So it is three verbs in a row, each in a place of its own: no other verb calls one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..context import Context
from ..core.errors import MissingError, RefusedError, UsageError
from ..core.naming import kept_name, qualified, split_qualified
from ..core.recovery_target import Target
from ..core.times import compact
from ..postgres.connection import connect, connect_any
from ..postgres.fencing import CopyLogin
from ..postgres.preflight import check_names
from ..postgres.prepared import prepared, roll_back
from ..postgres.throwaway import (
    account_of,
    claimed,
    clear_abandoned,
    end_servers,
    give,
    home_for_server,
    room_for_server,
)
from ..settings import Backup, Config, Local
from .backup import Request as BackupRequest
from .backup import backup
from .recover import Request as RecoverRequest
from .recover import recover
from .restore import restore
from .restore_plan import GLOBALS
from .restore_plan import Request as RestoreRequest

_LABEL = "rescue"
# What there is of a table, its partitions and what inherits from it: they hold rows of it; and what those inherit from,
# without which they cannot be made. The same as with_relatives() finds.
_WITH_RELATIVES = """
WITH RECURSIVE found AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION
  SELECT i.inhrelid FROM found f JOIN pg_inherits i ON i.inhparent = f.oid
), every AS (
  SELECT oid FROM found
  UNION
  SELECT i.inhparent FROM every e JOIN pg_class c ON c.oid = e.oid AND NOT c.relispartition JOIN pg_inherits i ON i.inhrelid = c.oid
)
SELECT oid::bigint FROM every
"""
# What each view reads that is not asked for, but for what belongs to PostgreSQL, or to an extension, which comes with it.
_NEEDED = """
SELECT format('%%I.%%I', vn.nspname, v.relname), array_agg(DISTINCT format('%%I.%%I', n.nspname, c.relname))
FROM pg_class v JOIN pg_namespace vn ON vn.oid = v.relnamespace JOIN pg_rewrite r ON r.ev_class = v.oid
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE v.relkind IN ('v', 'm') AND v.oid = ANY(%s::bigint[]::oid[]) AND c.oid <> ALL(%s::bigint[]::oid[])
AND c.relkind <> 'S' AND NOT EXISTS (
  SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'
)
AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' GROUP BY 1 ORDER BY 1
"""
_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 2, 3
"""


@dataclass(frozen=True)
class Request:
    """Which `database` (of it only `tables`, if any are named), as of which `target`, and its name `into` on the server.

    Without a name it gets one that tells when. `set` and `place` are as for a recovery; `globals` and `ownership` as for a
    restore, where the roles are usually still there.
    """

    database: str
    target: Target
    tables: tuple[str, ...] = ()
    into: str = ""
    set: str = "auto"
    place: str = "auto"
    globals: str = "none"
    ownership: bool = True
    jobs: int = 0
    dry_run: bool = False


def rescue(context: Context, request: Request) -> dict[str, Any]:
    """Bring the database back beside what is there, proven twice: where the copy stopped, and what was loaded from it.

    Result: `set`, `place`, `target`, `stopped` (as of a recovery), `database`, `name`, `tables`, `compared`, `bytes`, `phases`,
    `roles_created`, `left_out`, `remarks`; a dry run has `plan` instead and touches nothing.
    Raise UsageError, RefusedError (with every reason; nothing was touched), MissingError, DamagedError, CommandError or
    UnreachableError. Whatever goes wrong, the copy is gone and nothing is left on the server.
    """
    request = _checked(context, request)
    with context.lock(_LABEL, dry_run=request.dry_run):
        if not request.dry_run:
            clear_abandoned(context, _LABEL)
        planned = _planned(context, request, _somewhere(context))
        plan = _plan(request, planned["plan"], _refusals(context, request))
        if request.dry_run:
            return {"changed": True, "set": planned["set"], "place": planned["place"], "plan": plan}
        if plan["refusals"]:
            raise RefusedError(
                "The rescue was refused:\n%s" % "\n".join("  - %s" % text for text in plan["refusals"]),
                hint="Nothing was touched.",
            )
        # What was planned is what is done, also when a newer set has appeared since.
        request = dataclasses.replace(request, set=planned["set"], place=planned["place"])
        with context.scratch(_LABEL) as folder, contextlib.ExitStack() as stack:
            if context.config.work_dir:  # others may use it as well, and the next run must know whose this is
                stack.enter_context(claimed(context, folder))
            return _perform(context, request, folder)


def _checked(context: Context, request: Request) -> Request:
    """Return the request with a name for the database. Raise UsageError."""
    if not request.database:
        raise UsageError("No database is named.", hint="Name the one that is to be rescued.")
    if request.globals not in GLOBALS:
        raise UsageError(
            "%r is no way to restore globals." % request.globals, hint="Use one of %s." % ", ".join(GLOBALS)
        )
    for table in request.tables:
        split_qualified(table)
    into = request.into or kept_name(request.database, compact(context.clock()), "rescued")
    return dataclasses.replace(request, into=into, target=dataclasses.replace(request.target, action="promote"))


# --- plan -------------------------------------------------------------------------------------------------------------


def _somewhere(context: Context) -> Path:
    """Return a directory that is not there, in the room that the copy will have; a plan is made for it."""
    room = room_for_server(context, Path(context.config.work_dir or context.state / "work"))
    return next(path for path in (room, *room.parents) if path.is_dir()) / "pgops-rescue"


def _planned(context: Context, request: Request, data: Path) -> dict[str, Any]:
    """Return the plan of the recovery into `data`; every tablespace lies beside it."""
    asked = RecoverRequest(request.target, str(data), place=request.place, set=request.set, passing=True, dry_run=True)
    names = sorted(recover(context, asked)["plan"]["tablespaces"])
    paths = {name: str(data.with_name("%s-tablespace-%d" % (data.name, n))) for n, name in enumerate(names)}
    asked = dataclasses.replace(asked, tablespaces=paths)
    return {**recover(context, asked), "tablespaces": paths}


def _refusals(context: Context, request: Request) -> list[str]:
    """Return why the server could not take the database."""
    with connect(context.config.postgres) as session:
        found = check_names(session, {request.database: request.into}, "create", (), context.config.postgres)
        if session.value("SELECT pg_is_in_recovery()"):
            found.refusals.append("The server is a standby and takes no writes; rescue to the primary.")
        elif not session.value("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"):
            found.refusals.append("This role may not create databases. Log in as a superuser or grant CREATEDB.")
    return found.refusals


def _plan(request: Request, recovery: dict[str, Any], refusals: list[str]) -> dict[str, Any]:
    kept = ("set", "place", "server_version", "target", "base_stopped", "bytes", "stored_bytes", "remarks")
    return {
        **{key: recovery[key] for key in kept},
        "database": request.database,
        "name": request.into,
        "tables": list(request.tables),
        "refusals": [*recovery["refusals"], *refusals],
    }


# --- perform ----------------------------------------------------------------------------------------------------------


def _perform(context: Context, request: Request, folder: Path) -> dict[str, Any]:
    phases: dict[str, float] = {}
    with _home(context, folder) as home:
        planned = _planned(context, request, home / "data")
        (major, *_minor) = map(int, re.findall("[0-9]+", planned["plan"]["server_version"]))
        asked = RecoverRequest(
            request.target,
            str(home / "data"),
            place=request.place,
            set=request.set,
            tablespaces=planned["tablespaces"],
            others=str(home / "tablespace-new"),
            passing=True,
            database=request.database,
        )
        with _timed(phases, "recover"):
            copy = recover(context, asked)
        with _timed(phases, "dump"):
            made = _dump(context, request, copy, folder, major=major)
    with _timed(phases, "load"):
        loaded = _load(context, request, made, folder)
    (one,) = loaded["databases"]
    return {
        "changed": True,
        **{key: copy[key] for key in ("set", "place", "target", "stopped")},
        "database": request.database,
        "name": request.into,
        "tables": list(request.tables),
        "compared": one["compared"],
        "bytes": loaded["bytes"],
        "phases": phases,
        "roles_created": loaded["roles_created"],
        "left_out": one["left_out"],
        "remarks": [*copy["remarks"], *loaded["remarks"], *one["remarks"]],
    }


@contextlib.contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    tick = time.monotonic()
    yield
    phases[name] = round(time.monotonic() - tick, 3)


@contextlib.contextmanager
def _home(context: Context, folder: Path) -> Iterator[Path]:
    """Yield a private directory that the account of the copy can reach; the copy in it is ended, and it is removed.

    Whenever a signal comes: that the copy runs is written there, and nothing that was to be remembered is lost.
    """
    account = account_of(context)
    home = home_for_server(context, folder, account, _LABEL)
    try:
        with claimed(context, home):
            give(account, home)
            yield home
    finally:
        ended = False
        with contextlib.suppress(OSError, ValueError):
            ended = end_servers(context, home)
        if ended:
            shutil.rmtree(home, ignore_errors=True)
        else:
            context.warn("The copy in %s does not end. Stop it, and remove that directory." % home)


def _dump(context: Context, request: Request, copy: dict[str, Any], folder: Path, *, major: int) -> str:
    """Dump what is asked for from the copy into a place in `folder` and return the id of the set."""
    own = context.config
    login = CopyLogin(
        login_unix_socket=copy["socket_directory"],
        login_port=copy["port"],
        login_user=copy["superuser"],
        login_db="template1",
        bin_dir=own.postgres.bin_dir,
    ).of_version(major)
    with connect_any(login, copy["databases"]) as session:
        login = dataclasses.replace(login, login_db=session.database)
    config = Config(
        instance=own.instance,
        postgres=login,
        local=Local(path=str(_sets(folder))),
        state_dir=str(folder / "state"),
        log_dir="",
    )
    _sets(folder).mkdir(mode=0o700)
    there = dataclasses.replace(context, config=config)
    copy["remarks"] += _roll_back(there, request.database)
    config = dataclasses.replace(
        config,
        backup=Backup(
            databases=[request.database],
            exclude_table_data=_others(there, request),
            globals=request.globals != "none",
            server_settings=False,
            jobs=own.backup.jobs,
            min_free=own.backup.min_free,
        ),
    )
    return str(backup(dataclasses.replace(context, config=config), BackupRequest())["set"])


def _sets(folder: Path) -> Path:
    return folder / "sets"


def _roll_back(context: Context, database: str) -> list[str]:
    """Roll back what was prepared in the copy's `database`, as its locks would never end, and return what is to be told of that."""
    with connect(context.config.postgres) as session:
        waiting = prepared(session)
    if database not in waiting:
        return []
    with connect(context.config.postgres, database) as session:
        names = roll_back(session)
    text = "Prepared at that moment, and not committed, so that nothing of them is in it: the transactions %s."
    return [text % ", ".join(map(repr, names))]


def _others(context: Context, request: Request) -> list[str]:
    """Return the tables whose rows nobody asked for; their definitions come along, as what is asked for may need their types.

    Raise MissingError that lists what the copy does not have, RefusedError if a view needs more than is asked for.
    """
    with connect(context.config.postgres) as session:
        there = session.rows("SELECT 1 FROM pg_database WHERE datname = %s", (request.database,))
    if not there:
        raise MissingError(
            "There was no database %r at that moment." % request.database, hint="Names are case-sensitive."
        )
    if not request.tables:
        return []
    with connect(context.config.postgres, request.database) as session:
        found = {table: session.rows(_WITH_RELATIVES, split_qualified(table)) for table in request.tables}
        every = session.rows(_TABLES)
        wanted = {row[0] for rows in found.values() for row in rows}
        views = session.rows(_NEEDED, [sorted(wanted)] * 2)
    lacking = [table for table, rows in found.items() if not rows]
    if lacking:
        raise MissingError(
            "The database %r had no table %s at that moment." % (request.database, ", no table ".join(lacking)),
            hint="Names are case-sensitive; a table is written schema.table.",
        )
    if views:
        raise RefusedError(
            "What is asked for needs more than that:\n%s"
            % "\n".join("  - %s is a view, and needs %s" % (view, ", ".join(needed)) for view, needed in views),
            hint="Name those, too (--table), or rescue the whole database, without --table. Nothing was touched.",
        )
    return [qualified(schema, name) for oid, schema, name in every if oid not in wanted]


def _load(context: Context, request: Request, made: str, folder: Path) -> dict[str, Any]:
    """Restore the set that was made of the copy into the server, proven by its fingerprint."""
    config = dataclasses.replace(context.config, local=Local(path=str(_sets(folder))), s3=None)
    asked = RestoreRequest(
        place="local",
        set=made,
        databases=(request.database,),
        tables=request.tables,
        rename={request.database: request.into},
        globals=request.globals,
        ownership=request.ownership,
        jobs=request.jobs,
    )
    try:
        return restore(dataclasses.replace(context, config=config), asked)
    except RefusedError as error:
        if request.globals == "none" and "lacks the role" in error.message:
            error.hint = "The roles come back, too, with globals: missing (--globals missing)."
        raise


__all__ = ("Request", "rescue")
