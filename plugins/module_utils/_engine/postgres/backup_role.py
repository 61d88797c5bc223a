# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A database role that may read everything and change nothing: made, and proven by reading as that role."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ..context import Context
from ..core import scram
from ..core.errors import MissingError, PgopsError, RefusedError, UsageError
from ..core.naming import qualified, quote_ident, quote_literal
from ..core.redaction import MASK
from ..settings import Postgres
from .connection import Session, connect, server_facts, with_database

PRESENT, ABSENT = "present", "absent"
GRANT, COMPAT = "grant", "compat"
READ_ALL, MONITOR, SERVER_FILES = "pg_read_all_data", "pg_monitor", "pg_read_server_files"
_LEAST_MAJOR = 14  # the first with pg_read_all_data
_DEFAULTS_FOR_LARGE_OBJECTS = 18
_COMPAT = "lo_compat_privileges"
_AT_ONCE = 500
_SHOWN = 20
_NAME_BYTES = 63
_LOCK_NOT_AVAILABLE = "55P03"

_BY_LOGIN, _BY_SET_ROLE = "login", "set role"

Result = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What the role is to be. `password` empty and `connection_limit` None leave what there is; `databases` empty means all.

    `replication` lets it take base backups; without it, a role that may do so already is left so.
    """

    name: str
    state: str = PRESENT
    password: str = ""
    connection_limit: Optional[int] = None
    bypass_rls: bool = True
    replication: bool = False
    server_files: bool = False
    large_objects: str = GRANT
    databases: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Step:
    """One statement: where it runs (the login database when empty), what it grants, and how it is shown."""

    sql: str
    grants: str = ""
    database: str = ""
    shown: str = ""


@dataclass
class _Role:
    """The role as it is."""

    oid: int
    attributes: dict[str, Any]
    limit: int
    member_of: set[str]
    settings: list[str]
    password: Optional[str]  # what is stored; None where this login may not see it
    until: Optional[str]  # when the password expires; None where it never does
    expired: bool


@dataclass
class _Plan:
    before: Result
    after: Result
    steps: list[_Step] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)

    def grant(self, sql: str, what: str, *, database: str = "", shown: str = "") -> None:
        """Add a grant on what lies outside of the role itself."""
        self.steps.append(_Step(sql, what, database, shown))
        self.lacks.append(what)


def backup_role(context: Context, wanted: Wanted, *, dry_run: bool = False) -> Result:
    """Make the role what is `wanted`, or remove it, and return what that took and what the role cannot read.

    Result: `changed`, `role`, `state`, `granted`, `statements` (redacted), `unreadable` (list of {database, kind, name, why}),
    `checked` (None where nothing could be read as the role), `before` and `after`. A dry run changes nothing. On a standby, to which
    the role is to come from the primary, it warns, and its statements are those of the primary.
    Raise UsageError, MissingError, RefusedError, UnreachableError, or PgopsError with what the server says.
    """
    _check_name(wanted.name)
    with connect(context.config.postgres) as session:
        server = server_facts(session)
        if server.major < _LEAST_MAJOR:
            raise RefusedError(
                "PostgreSQL %s has no role %s, by which one may read everything." % (server.version, READ_ALL),
                hint="A role for backups needs PostgreSQL %d or newer; let a superuser back up older servers."
                % _LEAST_MAJOR,
            )
        databases = _databases(session, wanted)
        role = _look(session, wanted.name)
        if role is not None and role.attributes["superuser"]:
            raise RefusedError(
                "The role %r is a superuser, and not one that was made for backups; nothing was changed." % wanted.name,
                hint="Give the role for backups a name of its own.",
            )
        plan = _Plan(_described(role), {})
        if wanted.state == PRESENT:
            _plan(context, session, wanted, role, databases, server.major, plan)
        elif role is not None:
            _plan_removal(session, wanted, role, plan)
        if plan.steps and server.in_recovery:
            early = "The server is a standby, and the role is not yet as it should be."
            if not (dry_run and wanted.state == PRESENT):
                raise RefusedError(early, hint="Run this on the primary; standbys get the role from there.")
            # The primary may be about to make it, and changes nothing as yet, either.
            context.warn("%s Without check mode it has to have come from the primary." % early)
        if plan.steps and not dry_run:
            _perform(context, session, plan.steps)
    result: Result = {
        "changed": bool(plan.steps) and not server.in_recovery,
        "role": wanted.name,
        "state": wanted.state,
        "granted": [step.grants for step in plan.steps if step.grants],
        "statements": [_shown(step) for step in plan.steps],
        "unreadable": [],
        "checked": None,
        "before": plan.before,
        "after": plan.after,
    }
    if wanted.state == PRESENT and not (dry_run and plan.steps):
        _Check(context, wanted, databases, standby=server.in_recovery).run(result)
    return result


# --- what there is ----------------------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= _NAME_BYTES or "\0" in name:
        raise UsageError("%r cannot name a role: it must have 1 to %d bytes." % (name, _NAME_BYTES))
    if name.startswith("pg_") or name in ("public", "none"):
        raise UsageError("%r cannot name a role: PostgreSQL keeps that name for itself." % name)


def _databases(session: Session, wanted: Wanted) -> list[str]:
    rows = session.rows(
        "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2"
        " AND datname NOT IN ('template0', 'template1') ORDER BY 1"
    )
    names = [row[0] for row in rows]
    unknown = sorted(set(wanted.databases) - set(names))
    if unknown:
        raise MissingError(
            "There is no database %s that takes connections." % ", ".join(repr(name) for name in unknown),
            hint="Names are case-sensitive; there are %s." % ", ".join(repr(name) for name in names),
        )
    return [name for name in names if not wanted.databases or name in wanted.databases]


def _look(session: Session, name: str) -> Optional[_Role]:
    rows = session.rows(
        "SELECT r.oid::bigint, r.rolsuper, r.rolcanlogin, r.rolbypassrls, r.rolcreatedb, r.rolcreaterole, r.rolreplication,"
        " r.rolinherit, r.rolconnlimit, ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " WHERE m.member = r.oid), ARRAY(SELECT unnest(s.setconfig) FROM pg_db_role_setting s WHERE s.setrole = r.oid"
        " AND s.setdatabase = 0), CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil::text END, coalesce(r.rolvaliduntil <= now(), false)"
        " FROM pg_roles r WHERE r.rolname = %s",
        (name,),
    )
    if not rows:
        return None
    row = rows[0]
    kept = session.allowed("SELECT coalesce(rolpassword, '') FROM pg_authid WHERE oid = %s", (row[0],))
    names = ("superuser", "login", "bypass_rls", "createdb", "createrole", "replication", "inherit")
    return _Role(
        row[0],
        dict(zip(names, row[1:8])),
        row[8],
        set(row[9]),
        list(row[10]),
        kept[0][0] if kept is not None else None,
        row[11],
        row[12],
    )


def _described(role: Optional[_Role]) -> Result:
    if role is None:
        return {}
    return {
        **{
            name: role.attributes[name]
            for name in ("login", "inherit", "bypass_rls", "createdb", "createrole", "replication")
        },
        "connection_limit": role.limit,
        "member_of": sorted(role.member_of),
        _COMPAT: _has_compat(role),
        "password": _kind(role.password) + (", expired" if role.expired else ""),
    }


def _kind(password: Optional[str]) -> str:
    if password is None:
        return "not known"
    if not password:
        return "none"
    return "set, scram-sha-256" if password.startswith("SCRAM-SHA-256$") else "set, md5"


def _has_compat(role: _Role) -> bool:
    return any(setting.lower() in (_COMPAT + "=on", _COMPAT + "=true") for setting in role.settings)


# --- what it takes ----------------------------------------------------------------------------------------------------


def _plan(
    context: Context,
    session: Session,
    wanted: Wanted,
    role: Optional[_Role],
    databases: Sequence[str],
    major: int,
    plan: _Plan,
) -> None:
    _plan_attributes(session, wanted, role, plan)
    _plan_memberships(context, wanted, role, plan)
    compat = wanted.large_objects == COMPAT
    name = quote_ident(wanted.name)
    if compat != (role is not None and _has_compat(role)):
        sql = "ALTER ROLE %s SET %s = on" if compat else "ALTER ROLE %s RESET " + _COMPAT
        plan.steps.append(_Step(sql % ((name, _COMPAT) if compat else name), _COMPAT if compat else ""))
        plan.after[_COMPAT] = compat
    who = wanted.name if role is not None else "public"
    for database in databases:
        if not session.value("SELECT has_database_privilege(%s, %s, 'CONNECT')", (who, database)):
            sql = "GRANT CONNECT ON DATABASE %s TO %s" % (quote_ident(database), name)
            plan.grant(sql, "CONNECT on the database %s" % database)
    _plan_files(session, wanted, role, plan)
    if not compat:
        for database in databases:
            _plan_large_objects(context, wanted, role, database, major, plan)
    if role is not None:
        plan.before["lacks"] = plan.lacks
    plan.after["lacks"] = []


def _plan_attributes(session: Session, wanted: Wanted, role: Optional[_Role], plan: _Plan) -> None:
    name = quote_ident(wanted.name)
    goal = {"login": True, "inherit": True, "bypass_rls": wanted.bypass_rls, "createdb": False, "createrole": False}
    if wanted.replication:
        goal["replication"] = True
    words = {key: key.replace("_", "").upper() for key in goal}
    if role is None:
        plan.after = {
            "replication": False,
            **goal,
            "connection_limit": -1,
            "member_of": [],
            _COMPAT: False,
            "password": "none",
        }
        differing = {"login", *(key for key in ("bypass_rls", "replication") if goal.get(key))}
        verb = "CREATE"
    else:
        plan.after = dict(plan.before)
        differing = {key for key, value in goal.items() if role.attributes[key] != value}
        verb = "ALTER"
    options = [words[key] if goal[key] else "NO" + words[key] for key in goal if key in differing]
    limit = plan.after["connection_limit"] if wanted.connection_limit is None else wanted.connection_limit
    if limit != plan.after["connection_limit"]:
        options.append("CONNECTION LIMIT %d" % limit)
    if role is not None and role.expired:
        options.append("VALID UNTIL 'infinity'")
        plan.after["password"] = _kind(role.password)
    if options:
        granted = [words[key] for key in goal if key in differing and goal[key]]
        plan.steps.append(_Step("%s ROLE %s %s" % (verb, name, " ".join(options)), ", ".join(granted)))
        plan.after.update({key: goal[key] for key in differing}, connection_limit=limit)
    if wanted.password and not (role is not None and scram.is_stored(wanted.password, role.password or "")):
        iterations = session.value("SELECT current_setting('scram_iterations', true)")  # from PostgreSQL 16 on
        kept = scram.stored(
            wanted.password,
            salt=secrets.token_bytes(scram.SALT_BYTES),
            iterations=int(iterations) if iterations else scram.ITERATIONS,
        )
        sql = "ALTER ROLE %s PASSWORD %%s" % name.replace("%", "%%")
        plan.steps.append(_Step(sql % quote_literal(kept), shown=sql % quote_literal(MASK)))
        had = plan.after["password"]
        plan.after["password"] = "set, scram-sha-256" + ("" if had == "none" else ", another one")


def _plan_memberships(context: Context, wanted: Wanted, role: Optional[_Role], plan: _Plan) -> None:
    name = quote_ident(wanted.name)
    goal = {READ_ALL, MONITOR, *([SERVER_FILES] if wanted.server_files else [])}
    held = role.member_of if role is not None else set()
    for group in sorted(goal - held):
        plan.steps.append(_Step("GRANT %s TO %s" % (group, name), group))
    if SERVER_FILES in held and not wanted.server_files:
        plan.steps.append(_Step("REVOKE %s FROM %s" % (SERVER_FILES, name)))
        held = held - {SERVER_FILES}
    plan.after["member_of"] = sorted(held | goal)
    more = sorted(held - goal)
    if more:
        context.warn(
            "The role %r is also a member of %s, which a backup does not need; that was left as it is."
            % (wanted.name, ", ".join(more))
        )
    if role is not None and role.attributes["replication"] and not wanted.replication:
        context.warn(
            "The role %r may replicate, which a logical backup does not need; that was left as it is." % wanted.name
        )
    if role is not None and role.until is not None and not role.expired:
        context.warn(
            "The role %r can log in until %s only (VALID UNTIL), and backs up no more then; that was left as it is."
            % (wanted.name, role.until)
        )
    if role is not None and wanted.password and role.password is None:
        context.warn("This login may not read stored passwords, so that of %r is set each time." % wanted.name)


def _plan_files(session: Session, wanted: Wanted, role: Optional[_Role], plan: _Plan) -> None:
    """Let the role read pg_hba.conf and pg_ident.conf from the login database, if that is wanted."""
    function = "pg_catalog.pg_read_file(text)"
    may = role is not None and session.value(
        "SELECT has_function_privilege(%s, %s, 'EXECUTE')", (wanted.name, function)
    )
    name = quote_ident(wanted.name)
    if wanted.server_files and not may:
        plan.grant("GRANT EXECUTE ON FUNCTION %s TO %s" % (function, name), "EXECUTE on pg_read_file")
    if not wanted.server_files and may:
        plan.steps.append(_Step("REVOKE EXECUTE ON FUNCTION %s FROM %s" % (function, name)))


def _plan_large_objects(
    context: Context, wanted: Wanted, role: Optional[_Role], database: str, major: int, plan: _Plan
) -> None:
    """pg_read_all_data leaves large objects out, so each is granted, and where it can be said, those to come."""
    name, oid = quote_ident(wanted.name), role.oid if role is not None else 0
    with connect(context.config.postgres, database) as session:
        lacking = [row[0] for row in session.rows(_LACKING, (oid, oid))]
        owners = (
            [row[0] for row in session.rows(_OWNERS_WITHOUT_DEFAULT, (oid,))]
            if major >= _DEFAULTS_FOR_LARGE_OBJECTS
            else []
        )
        some = bool(session.value("SELECT EXISTS (SELECT 1 FROM pg_largeobject_metadata)"))
    for start in range(0, len(lacking), _AT_ONCE):
        batch = lacking[start : start + _AT_ONCE]
        sql = "GRANT SELECT ON LARGE OBJECT %s TO %s"
        grants = "SELECT on %d large object%s of %s" % (len(batch), "" if len(batch) == 1 else "s", database)
        listed = ", ".join(map(str, batch))
        plan.grant(sql % (listed, name), grants, database=database, shown=sql % (_few(batch), name))
    for owner in owners:
        sql = "ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT SELECT ON LARGE OBJECTS TO %s" % (quote_ident(owner), name)
        plan.grant(sql, "SELECT on large objects that %s will make in %s" % (owner, database), database=database)
    if some and major < _DEFAULTS_FOR_LARGE_OBJECTS:
        context.warn(
            "The database %r has large objects. New ones cannot be read until this is run again; large_objects: compat lifts that."
            % database
        )


# Neither owned by the role, nor granted to it or to everybody.
_LACKING = """
SELECT l.oid::bigint FROM pg_largeobject_metadata l WHERE l.lomowner <> %s AND NOT EXISTS (
  SELECT 1 FROM aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT' AND a.grantee IN (0, %s)) ORDER BY 1
"""
_OWNERS_WITHOUT_DEFAULT = """
SELECT DISTINCT pg_get_userbyid(l.lomowner)::text FROM pg_largeobject_metadata l WHERE NOT EXISTS (
  SELECT 1 FROM pg_default_acl d, aclexplode(d.defaclacl) a WHERE d.defaclrole = l.lomowner AND d.defaclnamespace = 0
  AND d.defaclobjtype = 'L' AND a.privilege_type = 'SELECT' AND a.grantee = %s) ORDER BY 1
"""


def _plan_removal(session: Session, wanted: Wanted, role: _Role, plan: _Plan) -> None:
    name = quote_ident(wanted.name)
    owned = session.rows(
        "SELECT coalesce(d.datname, 'the whole server'), count(*) FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s AND s.deptype = 'o' GROUP BY 1 ORDER BY 1",
        (role.oid,),
    )
    if owned:
        raise RefusedError(
            "The role %r owns what a role for backups never would: %s. Nothing was removed."
            % (wanted.name, ", ".join("%d in %s" % (count, where) for where, count in owned)),
            hint="Give that to another owner first (REASSIGN OWNED BY).",
        )
    holding = session.rows(
        "SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid WHERE d.datallowconn AND d.datconnlimit <> -2"
        " AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s ORDER BY 1",
        (role.oid,),
    )
    # It owns nothing, so this takes away its privileges and nothing else; those on databases by the first of them, too.
    for (database,) in [*holding, ("",)]:
        plan.steps.append(_Step("DROP OWNED BY %s" % name, database=database))
    plan.steps.append(_Step("DROP ROLE %s" % name))


# --- doing it ---------------------------------------------------------------------------------------------------------


def _perform(context: Context, session: Session, steps: Sequence[_Step]) -> None:
    """Run the steps, those of one database in one transaction, in their order."""
    start = 0
    while start < len(steps):
        end = start
        while end < len(steps) and steps[end].database == steps[start].database:
            end += 1
        batch, database = steps[start:end], steps[start].database
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(connect(context.config.postgres, database)) if database else session
            stack.enter_context(_transaction(there))
            for step in batch:
                try:
                    there.execute(step.sql)
                except PgopsError as error:
                    raise PgopsError(
                        "%s Statement: %s" % (context.redactor.text(error.message), _shown(step)),
                        hint="Log in as a superuser, or as a role that may do this.",
                    ) from None
        start = end


@contextlib.contextmanager
def _transaction(session: Session) -> Iterator[None]:
    session.execute("BEGIN")
    try:
        yield
    except BaseException:
        with contextlib.suppress(PgopsError):
            session.execute("ROLLBACK")
        raise
    session.execute("COMMIT")


def _shown(step: _Step) -> str:
    text = step.shown or step.sql
    return "%s -- in the database %s" % (text, step.database) if step.database else text


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return shown if len(numbers) <= _SHOWN else "%s, … (%d in all)" % (shown, len(numbers))


# --- the check --------------------------------------------------------------------------------------------------------


class _Check:
    """Reads as the role, one relation after the other: whatever pg_dump would stumble over, this does."""

    def __init__(self, context: Context, wanted: Wanted, databases: Sequence[str], *, standby: bool) -> None:
        self._context, self._wanted, self._databases, self._standby = context, wanted, databases, standby
        self._found: list[dict[str, str]] = []
        self._counts = {"databases": 0, "relations": 0, "sequences": 0, "large_objects": 0}
        self._by = ""
        self._login = _logins(context.config.postgres, wanted)

    def run(self, result: Result) -> None:
        """Check every database and put into `result` what was checked and what cannot be read."""
        for database in self._open_to_role():
            try:
                with self._session(database) as session:
                    if session is not None:
                        self._check(session, database)
            except _NotCheckedError as error:
                self._context.warn("What the role %r can read was not checked: %s" % (self._wanted.name, error))
                return
        result["checked"], result["unreadable"] = {"by": self._by, **self._counts}, self._found
        if self._found:
            first = self._found[0]
            self._context.warn(
                "The role %r cannot read everything: %s %s of %s (%s)%s."
                % (
                    self._wanted.name,
                    first["kind"],
                    first["name"],
                    first["database"],
                    first["why"],
                    " and %d more" % (len(self._found) - 1) if len(self._found) > 1 else "",
                )
            )

    def _open_to_role(self) -> list[str]:
        """Return the databases that the role may connect to, and note the others."""
        name = self._wanted.name
        with connect(self._context.config.postgres) as session:
            may = {
                d: session.value("SELECT has_database_privilege(%s, %s, 'CONNECT')", (name, d)) for d in self._databases
            }
        for database in self._databases:
            if not may[database]:
                self._lacks(database, "database", database, "it may not connect")
        return [database for database in self._databases if may[database]]

    @contextlib.contextmanager
    def _session(self, database: str) -> Iterator[Optional[Session]]:
        """Yield a session as the role: logged in with its password, or by SET ROLE; None where that was noted as lacking."""
        postgres, name = self._context.config.postgres, self._wanted.name
        session = self._logged_in(database)
        if session is not None:
            with session:
                yield session
            return
        if self._by == _BY_LOGIN:
            yield None
            return
        with connect(postgres, database) as session:
            if self._wanted.large_objects == COMPAT:  # at a login the role's own setting would do it
                session.allowed("SELECT set_config(%s, 'on', false)", (_COMPAT,))
            try:
                session.execute("SET ROLE %s" % quote_ident(name))
            except PgopsError as error:
                raise _NotCheckedError(error.message) from None
            self._by = _BY_SET_ROLE
            yield session

    def _logged_in(self, database: str) -> Optional[Session]:
        """Return a session that logged in as the role, None where that is not possible; the first way in is kept."""
        refusals = []
        for postgres in self._login:
            try:
                session = connect(with_database(postgres, database))
            except PgopsError as error:
                refusals.append(error.message)
                continue
            self._login, self._by = [postgres], _BY_LOGIN
            return session
        if self._by == _BY_LOGIN:
            self._lacks(database, "database", database, refusals[0])
        elif self._login:
            self._login = []
            self._context.warn("The role %r could not log in from here: %s" % (self._wanted.name, refusals[-1]))
        return None

    def _check(self, session: Session, database: str) -> None:
        self._counts["databases"] += 1
        session.execute("SELECT set_config('lock_timeout', '3s', false)")
        for schema, relation, kind in session.rows(_RELATIONS, (self._standby,)):
            sequence = kind == "S"
            sql = "SELECT 1 FROM %s LIMIT 0" % qualified(schema, relation)  # noqa: S608  # quoted
            self._try(session, database, "sequence" if sequence else "table", "%s.%s" % (schema, relation), sql)
            self._counts["sequences" if sequence else "relations"] += 1
        self._check_large_objects(session, database)
        for kind, name, why in session.allowed(_BEYOND) or []:
            self._lacks(database, kind, name, why)
        for (name,) in (
            session.allowed(
                "SELECT subname::text FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database"
                " WHERE datname = current_database()) ORDER BY 1"
            )
            or []
        ):
            self._lacks(database, "subscription", name, "pg_dump reads subscriptions as a superuser only")

    def _check_large_objects(self, session: Session, database: str) -> None:
        count = int(session.value("SELECT count(*) FROM pg_largeobject_metadata"))
        self._counts["large_objects"] += count
        if count and session.allowed("SELECT count(lo_get(oid, 0, 1)) FROM pg_largeobject_metadata") is None:
            oid = session.value("SELECT oid::bigint FROM pg_roles WHERE rolname = current_user")
            lacking = [row[0] for row in session.rows(_LACKING, (oid, oid))]
            kind = "large object" if len(lacking) == 1 else "large objects"
            self._lacks(database, kind, _few(lacking), "permission denied")

    def _try(self, session: Session, database: str, kind: str, name: str, sql: str) -> None:
        try:
            session.execute(sql)
        except PgopsError as error:
            said = error.message.partition("the server said: ")[2].rstrip(".") or error.message
            if getattr(error, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
                self._context.warn("The %s %s of %s was locked, so it was not checked." % (kind, name, database))
            else:
                self._lacks(database, kind, name, said)

    def _lacks(self, database: str, kind: str, name: str, why: str) -> None:
        self._found.append({"database": database, "kind": kind, "name": name, "why": why})


def _logins(postgres: Postgres, wanted: Wanted) -> list[Postgres]:
    """Return the ways by which the role could log in with its password: as we did, and over TCP where we use a socket."""
    if not wanted.password:
        return []
    same = dataclasses.replace(postgres, login_user=wanted.name, login_password=wanted.password)
    local = not postgres.login_host
    return [same, dataclasses.replace(same, login_host="localhost", login_unix_socket="")] if local else [same]


class _NotCheckedError(Exception):
    """Nobody could become the role."""


# What of every table, materialized view and sequence pg_dump would read; what has no content yet has nothing to read.
_RELATIONS = """
SELECT n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relispopulated
AND NOT (%s AND c.relpersistence = 'u') ORDER BY 1, 2
"""
# The view hides from the role what the catalog, which it may read, has.
_BEYOND = """
SELECT 'user mapping', v.usename || ' on ' || v.srvname, 'its options are hidden from who does not own the foreign server'
FROM pg_user_mappings v JOIN pg_user_mapping m ON m.oid = v.umid WHERE v.umoptions IS NULL AND m.umoptions IS NOT NULL
ORDER BY 2
"""


__all__ = ("ABSENT", "COMPAT", "GRANT", "PRESENT", "Wanted", "backup_role")
