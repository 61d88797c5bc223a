# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Verification level `restore`: the set is restored into a throwaway server and compared with its fingerprint."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..context import Context
from ..core.errors import NO_SPACE, CommandError, PgopsError, RefusedError, UnreachableError, UsageError
from ..core.fingerprint import Rules, compare_roles
from ..core.manifest import Database
from ..core.naming import quote_ident
from ..core.sizes import human_size
from ..postgres import inventory, swapping
from ..postgres.comparison import compare_database
from ..postgres.connection import Session, connect
from ..postgres.databases import comment_on_database, create_database, finish_database, without_refused
from ..postgres.globals import ALL_ROLES, choose_globals, load_globals
from ..postgres.loading import load_database
from ..postgres.pg_restore import Loaded, Options
from ..postgres.target import Target
from ..postgres.throwaway import room_for_server, throwaway
from ..postgres.workers import self_made
from ..settings import Assertion
from ..source import Source


@dataclass
class Rehearsal:
    """What a rehearsed restore found. `findings` are faults of the set; `cannot` is what this host could not decide."""

    findings: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stage:
    """The set that is rehearsed, the server it is restored into, and what that showed so far."""

    context: Context
    source: Source
    target: Target
    session: Session
    folder: Path
    result: Rehearsal
    ownership: bool


def rehearse(context: Context, source: Source, folder: Path) -> Rehearsal:
    """Restore the set of `source` into a throwaway server in `folder` and return what that showed.

    Raise PgopsError if no server can be had, or if the set's globals are not what the manifest says.
    """
    result = Rehearsal()
    manifest = source.manifest
    lack = _lack_of_room(context, source, folder)
    if lack:
        result.cannot.append(lack)
        return result
    superuser = (manifest.roles or {}).get("bootstrap") or "postgres"
    tick = time.monotonic()
    with throwaway(context, folder, major=manifest.server_version_num // 10000, superuser=superuser) as target:
        tick = lap(result, "start", tick)
        result.checked["server_version"] = target.server.version
        with connect(target.postgres) as session:
            stage = Stage(context, source, target, session, folder, result, ownership=False)
            stage.ownership = _roles(stage)
            tick = lap(result, "globals", tick)
            for number, database in enumerate(manifest.databases):
                try:
                    _one(stage, database, number)
                except (PgopsError, OSError) as error:
                    broken = last_words(target) if isinstance(error, UnreachableError) else ""
                    text = "The throwaway server broke down%s." % broken if broken else as_said(context, error)
                    result.cannot.append("%r could not be examined to the end: %s" % (database.name, text))
    return result


def as_said(context: Context, error: Exception) -> str:
    """Return what went wrong on this host, and where: the system names a file only if it could not be opened."""
    if not isinstance(error, OSError):
        return str(error)
    where = error.filename or "below %s" % (context.config.work_dir or "%s or /var/tmp" % context.state)
    return "%s (%s)." % (error.strerror or error, where)


def _lack_of_room(context: Context, source: Source, folder: Path) -> str:
    """Return what to say if the restored databases have no room where the server will live; empty if they have."""
    room = room_for_server(context, folder)
    needed = int(1.2 * sum(_restored_bytes(source, database) for database in source.manifest.databases))
    if source.fits(room, needed):
        return ""
    return (
        "There is no room in %s to restore the set: its databases need %s beside what backup.min_free (%s) keeps free."
        " Make room, or set work_dir to a larger disk." % (room, human_size(needed), context.config.backup.min_free)
    )


def _restored_bytes(source: Source, database: Database) -> int:
    if database.fingerprint and not database.fingerprint["whole"]:  # some tables of a database that may be far larger
        return min(database.bytes, 4 * source.size(database.dump))
    return database.bytes


def lap(result: Rehearsal, phase: str, tick: float) -> float:
    """Add the seconds since `tick` to the phase, and return the present."""
    now = time.monotonic()
    result.phases[phase] = round(result.phases.get(phase, 0.0) + now - tick, 3)
    return now


def _fault(stage: Stage, what: str, error: PgopsError) -> None:
    """Note that `what` failed: as a fault of the set, unless this host or its server is to blame."""
    text = "%s: %s" % (what, error.message)
    said = error.message + getattr(error, "stderr", "")
    ours = isinstance(error, (UnreachableError, RefusedError, UsageError)) or NO_SPACE in said
    try:
        stage.session.rows("SELECT 1")
    except PgopsError:
        text, ours = "The throwaway server broke down%s. %s" % (last_words(stage.target), text), True
    (stage.result.cannot if ours else stage.result.findings).append(text)


def last_words(target: Target) -> str:
    """Return, to follow what is said, why a server broke down, as far as its log tells."""
    log = Path(target.server.data_directory).parent / "server.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((": %s" % line.partition("PANIC:")[2].strip() for line in reversed(lines) if "PANIC:" in line), "")


def _roles(stage: Stage) -> bool:
    """Restore the globals and tell whether owners and privileges can follow."""
    manifest, result = stage.source.manifest, stage.result
    if manifest.globals is None:
        result.cannot.append("The set holds no globals, so owners and privileges cannot be proven.")
        return False
    try:
        chosen = choose_globals(stage.source, stage.session, stage.target.server, overwrite=True)
        load_globals(stage.source, stage.target, chosen)
    except CommandError as error:
        _fault(stage, "The globals do not restore", error)
        return False
    result.remarks += chosen.remarks
    if manifest.roles is not None:
        found = inventory.roles(stage.session)
        wanted = _without_settings(manifest.roles, {(role, name) for role, name, _said in chosen.refused})
        result.findings += compare_roles(wanted, found, passwords=manifest.globals_passwords)
        result.checked["roles"] = len(manifest.roles["roles"])
    return True


def _without_settings(roles: dict[str, Any], refused: set[tuple[str, str]]) -> dict[str, Any]:
    """Return the roles of a manifest without the settings that this host's server does not take: they prove nothing here."""

    def fine(role: str, settings: list[str]) -> list[str]:
        return [setting for setting in settings if (role, setting.partition("=")[0]) not in refused]

    return {
        **roles,
        "settings": fine(ALL_ROLES, roles.get("settings", [])),
        "roles": {
            name: {**facts, "settings": fine(name, facts.get("settings", []))} for name, facts in roles["roles"].items()
        },
    }


def _one(stage: Stage, database: Database, number: int) -> None:
    context, result, target = stage.context, stage.result, stage.target
    lacking = _lacking_extensions(stage.session, database)
    if lacking:
        result.cannot.append(
            "%r was not restored: this host's server cannot offer %s. Install the packages."
            % (database.name, ", ".join(lacking))
        )
        return
    tick = time.monotonic()
    if database.dump.format == "plain":
        _make_tablespaces(stage)
    properties, said = without_refused(stage.session, database.properties, ownership=stage.ownership)
    result.remarks += [
        "%r was rehearsed without %s, as this host's server does not take it." % (database.name, s) for s in said
    ]
    database = dataclasses.replace(database, properties=properties)
    _create(stage.session, database, target, result)
    options = Options(jobs=min(os.cpu_count() or 1, 8), ownership=stage.ownership, tablespaces=False)
    context.reporter.phase("rehearsing %s" % database.name, stage.source.size(database.dump))
    try:
        loaded = _load(stage, database, options, stage.folder / ("load-%d" % number))
    except PgopsError as error:
        _fault(stage, "%r does not restore" % database.name, error)
        return
    finally:
        context.reporter.done()
        tick = lap(result, "load", tick)
    result.remarks += ["%s: %s" % (database.name, text) for text in loaded.benign]
    result.remarks += ["The parallel restore of %r %s." % (database.name, met) for met in loaded.again]
    _compare(database, target, options, result)
    tick = lap(result, "compare", tick)
    if context.config.verify.amcheck:
        check_indexes(database.name, target, result)
        tick = lap(result, "amcheck", tick)
    for assertion in context.config.verify.assertions:
        if assertion.database == database.name:
            ask(stage, assertion)
    lap(result, "assertions", tick)


def _load(stage: Stage, database: Database, options: Options, room: Path) -> Loaded:
    try:
        loaded = _fill(stage, database, options, room)
    except CommandError as error:
        met = self_made(error, options)
        if not met:
            raise
        stage.result.remarks.append(
            "%r was restored anew with one job, since the parallel restore %s." % (database.name, met)
        )
        _create(stage.session, database, stage.target, stage.result)
        loaded = _fill(stage, database, dataclasses.replace(options, jobs=1), room)
    finish_database(stage.session, database.name, database.properties, ownership=options.ownership)
    stage.session.execute(comment_on_database(database.name, database.properties.get("comment")))
    return loaded


def _fill(stage: Stage, database: Database, options: Options, room: Path) -> Loaded:
    room.mkdir(mode=0o700)
    try:
        return load_database(stage.source, database, stage.target, database.name, options, room)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _lacking_extensions(session: Session, database: Database) -> list[str]:
    available = {row[0] for row in session.rows("SELECT name FROM pg_available_extensions")}
    return sorted(set((database.fingerprint or {}).get("extensions", {})) - available)


def _make_tablespaces(stage: Stage) -> None:
    """Make the tablespaces of the set, as folders of the throwaway server: plain SQL names them, and psql leaves nothing out."""
    names = set((stage.source.manifest.roles or {}).get("tablespaces", []))
    there = {row[0] for row in stage.session.rows("SELECT spcname FROM pg_tablespace")}
    for name in sorted(names - there):
        stage.session.execute("SET allow_in_place_tablespaces = on")
        stage.session.execute("CREATE TABLESPACE %s LOCATION ''" % quote_ident(name))


def _create(session: Session, database: Database, target: Target, result: Rehearsal) -> None:
    """Create the empty database, in the place of one that stands there."""
    comment = "a rehearsed restore"
    swapping.drop(session, database.name, target.postgres)
    ownership = database.properties["owner"] in {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
    try:
        create_database(session, database.name, database.properties, target, ownership=ownership, comment=comment)
    except PgopsError as error:
        if isinstance(error, UnreachableError) or NO_SPACE in error.message:
            raise
        remark = "%r was rehearsed with the C locale, since its own cannot be had here (%s)."
        if remark % (database.name, error.message) not in result.remarks:
            result.remarks.append(remark % (database.name, error.message))
        create_database(
            session, database.name, database.properties, target, ownership=ownership, comment=comment, locale=False
        )


def _compare(database: Database, target: Target, options: Options, result: Rehearsal) -> None:
    if database.fingerprint is None:
        result.cannot.append("%r has no fingerprint to compare with." % database.name)
        return
    comparison = compare_database(database, target, database.name, Rules(ownership=options.ownership))
    result.findings += ["%s: %s" % (database.name, text) for text in comparison.shown()]
    result.remarks += ["%s: %s" % (database.name, text) for text in comparison.remarks]
    result.checked.setdefault("databases", {})[database.name] = comparison.checked


def _is_of_the_question(error: PgopsError) -> bool:
    """Tell whether what was asked, or who asked, was wrong (class 42); that says nothing of the data."""
    return str(getattr(error, "sqlstate", "")).startswith("42")


_HALF_CHECKED = (
    "%s: index %s was checked alone and not against the rows of its table, as its expression fails in our session, which has no"
    " search_path: %s"
)


def _check_index(session: Session, check: str, index: int) -> str:
    """Have amcheck look at one index, against its table as well; return why not against that, where its own functions fail."""
    try:
        session.rows(check, (index, True))
    except PgopsError as error:
        if not _is_of_the_question(error):
            raise
        session.rows(check, (index, False))  # which calls none of them
        return error.message
    return ""


_HOME_OF_AMCHECK = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
"""


def check_indexes(database: str, target: Target, result: Rehearsal) -> None:
    """Have amcheck look at every B-tree index of `database`, where it can be had."""
    with target.session(database) as session:
        if not session.rows("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
            text = "amcheck is not installed on this host, so indexes were not checked (package postgresql-contrib)."
            if text not in result.remarks:
                result.remarks.append(text)
            return
        # Settings of the database itself must not stand in the way.
        session.execute("SET default_transaction_read_only = off")
        session.execute("SET statement_timeout = 0")
        session.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog")
        # Who has it already has it where he likes, and may have left it as it was before an upgrade.
        session.execute("ALTER EXTENSION amcheck UPDATE")
        check = "SELECT %s.bt_index_check(%%s::oid::regclass, %%s)" % quote_ident(
            str(session.value(_HOME_OF_AMCHECK))
        ).replace("%", "%%")
        indexes = session.rows(
            "SELECT c.oid::bigint, c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
            " WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.relpersistence <> 't'"
        )
        for oid, name in indexes:
            try:
                unsaid = _check_index(session, check, oid)
            except PgopsError as error:
                if isinstance(error, UnreachableError) or NO_SPACE in error.message or _is_of_the_question(error):
                    raise
                result.findings.append("%s: index %s is damaged: %s" % (database, name, error.message))
            else:
                if unsaid:
                    result.remarks.append(_HALF_CHECKED % (database, name, unsaid))
        result.checked["indexes"] = result.checked.get("indexes", 0) + len(indexes)


def ask(stage: Stage, assertion: Assertion) -> None:
    """Ask the restored database as psql would, so that the answer looks as the user has seen it."""
    target, result = stage.target, stage.result
    command = target.psql(assertion.database, "--tuples-only", "--no-align", "--file=-")
    result.checked["assertions"] = result.checked.get("assertions", 0) + 1
    try:
        said = stage.context.runner.run(command, stdin=assertion.sql.encode()).stdout.decode("utf-8", "replace").strip()
    except CommandError as error:
        _fault(stage, "%s: the assertion %r failed" % (assertion.database, assertion.sql), error)
        return
    if said != assertion.expect:
        result.findings.append(
            "%s: the assertion %r gave %r instead of %r"
            % (assertion.database, assertion.sql, said[:200], assertion.expect)
        )


__all__ = ("Rehearsal", "Stage", "as_said", "ask", "check_indexes", "lap", "last_words", "rehearse")
