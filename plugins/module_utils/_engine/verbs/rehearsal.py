# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Verification level `restore`: the set is restored into a throwaway server and compared with its fingerprint."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..context import Context
from ..core.errors import CommandError, PgopsError
from ..core.fingerprint import Rules, compare_roles
from ..core.manifest import Database
from ..core.naming import database_argument, quote_ident
from ..postgres import inventory
from ..postgres.connection import Session, connect
from ..postgres.loading import (
    Options,
    Target,
    comment_on_database,
    compare_database,
    create_database,
    finish_database,
    load_database,
    load_globals,
)
from ..postgres.throwaway import throwaway
from ..settings import Assertion
from ..source import Source
from ..system.runner import Command


@dataclass
class Rehearsal:
    """What a rehearsed restore found. `findings` are faults of the set; `cannot` is what this host could not decide."""

    findings: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)


def rehearse(context: Context, source: Source, folder: Path) -> Rehearsal:
    """Restore the set of `source` into a throwaway server in `folder` and return what that showed.

    Raise DamagedError for stored bytes that are not what the manifest says, UnreachableError if no server can be had.
    """
    result = Rehearsal()
    manifest = source.manifest
    superuser = (manifest.roles or {}).get("bootstrap") or "postgres"
    tick = time.monotonic()
    with throwaway(context, folder, major=manifest.server_version_num // 10000, superuser=superuser) as target:
        tick = _lap(result, "start", tick)
        result.checked["server_version"] = target.server.version
        with connect(target.postgres) as session:
            _roles(source, target, session, result)
            tick = _lap(result, "globals", tick)
            for database in manifest.databases:
                _one(context, source, database, target, session, folder, result)
    return result


def _lap(result: Rehearsal, phase: str, tick: float) -> float:
    now = time.monotonic()
    result.phases[phase] = round(result.phases.get(phase, 0.0) + now - tick, 3)
    return now


def _roles(source: Source, target: Target, session: Session, result: Rehearsal) -> None:
    manifest = source.manifest
    if manifest.globals is None:
        result.cannot.append("The set holds no globals, so owners and privileges cannot be proven.")
        return
    try:
        load_globals(source, target, overwrite=True)
    except CommandError as error:
        result.findings.append("The globals do not restore: %s" % error.message)
        return
    if manifest.roles is not None:
        found = inventory.roles(session)
        result.findings += compare_roles(manifest.roles, found, passwords=manifest.globals_passwords)
        result.checked["roles"] = len(manifest.roles["roles"])


def _one(
    context: Context,
    source: Source,
    database: Database,
    target: Target,
    session: Session,
    folder: Path,
    result: Rehearsal,
) -> None:
    lacking = _lacking_extensions(session, database)
    if lacking:
        result.cannot.append(
            "%r was not restored: this host's server cannot offer %s. Install the packages."
            % (database.name, ", ".join(lacking))
        )
        return
    tick = time.monotonic()
    context.reporter.phase("rehearsing %s" % database.name, source.size(database.dump))
    if database.name in ("postgres", "template1"):
        session.execute("DROP DATABASE IF EXISTS %s" % quote_ident(database.name))
    _create(session, database, target, result)
    room = folder / ("load-%d" % len(result.checked.get("databases", {})))
    room.mkdir(mode=0o700)
    options = Options(
        jobs=min(os.cpu_count() or 1, 8), ownership=source.manifest.globals is not None, tablespaces=False
    )
    try:
        loaded = load_database(source, database, target, database.name, options, room)
        finish_database(session, database.name, database.properties, ownership=options.ownership)
        session.execute(comment_on_database(database.name, database.properties.get("comment")))
    except CommandError as error:
        result.findings.append("%r does not restore: %s" % (database.name, error.message))
        return
    finally:
        context.reporter.done()
        tick = _lap(result, "load", tick)
    result.remarks += ["%s: %s" % (database.name, text) for text in loaded.benign]
    _compare(database, target, options, result)
    tick = _lap(result, "compare", tick)
    if context.config.verify.amcheck:
        _amcheck(database, target, result)
        tick = _lap(result, "amcheck", tick)
    for assertion in context.config.verify.assertions:
        if assertion.database == database.name:
            _assert(context, assertion, target, result)
    _lap(result, "assertions", tick)


def _lacking_extensions(session: Session, database: Database) -> list[str]:
    available = {row[0] for row in session.rows("SELECT name FROM pg_available_extensions")}
    return sorted(set((database.fingerprint or {}).get("extensions", {})) - available)


def _create(session: Session, database: Database, target: Target, result: Rehearsal) -> None:
    comment = "a rehearsed restore"
    ownership = database.properties["owner"] in {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
    try:
        create_database(session, database.name, database.properties, target, ownership=ownership, comment=comment)
    except PgopsError as error:
        result.remarks.append(
            "%r was rehearsed with the C locale, since its own cannot be had here (%s)."
            % (database.name, error.message)
        )
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


def _amcheck(database: Database, target: Target, result: Rehearsal) -> None:
    with connect(target.postgres, database.name) as session:
        if not session.rows("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
            text = "amcheck is not installed on this host, so indexes were not checked (package postgresql-contrib)."
            if text not in result.remarks:
                result.remarks.append(text)
            return
        session.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog")
        indexes = session.rows(
            "SELECT c.oid::bigint, c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
            " WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.relpersistence <> 't'"
        )
        for oid, name in indexes:
            try:
                session.rows("SELECT bt_index_check(%s::oid::regclass, true)", (oid,))
            except PgopsError as error:
                result.findings.append("%s: index %s is damaged: %s" % (database.name, name, error.message))
        result.checked["indexes"] = result.checked.get("indexes", 0) + len(indexes)


def _assert(context: Context, assertion: Assertion, target: Target, result: Rehearsal) -> None:
    """Ask the restored database as psql would, so that the answer looks as the user has seen it."""
    command = Command(
        (
            target.programs.path("psql"),
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            database_argument(assertion.database),
        ),
        env=target.environment,
    )
    result.checked["assertions"] = result.checked.get("assertions", 0) + 1
    try:
        said = context.runner.run(command, stdin=assertion.sql.encode()).stdout.decode("utf-8", "replace").strip()
    except CommandError as error:
        result.findings.append("%s: the assertion %r failed: %s" % (assertion.database, assertion.sql, error.message))
        return
    if said != assertion.expect:
        result.findings.append(
            "%s: the assertion %r gave %r instead of %r"
            % (assertion.database, assertion.sql, said[:200], assertion.expect)
        )


__all__ = ("Rehearsal", "rehearse")
