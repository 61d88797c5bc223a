# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb backup: logical sets, made by pg_dump and pg_dumpall, published by one rename; backup_base.py makes the others."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Optional

from .. import __version__
from ..context import Context
from ..core.choice import Choice, Facts, choose
from ..core.errors import MissingError, PgopsError, UsageError
from ..core.fingerprint import summary
from ..core.lock_queue import LockWaits
from ..core.manifest import NAME, Database, Manifest, Payload, content_hash
from ..core.naming import split_qualified
from ..core.sizes import human_size, parse_size
from ..core.times import human_span, iso
from ..places.catalog import Catalog
from ..places.local import LocalPlace
from ..postgres import inventory
from ..postgres.connection import Server, Session, connect, server_facts
from ..postgres.dumping import DroppedError, DumpJob, Sink, dump_database, dump_globals, masked_settings
from ..postgres.tools import Programs, dump_compressions, pick
from ..settings import Backup
from ..system import codec
from .making import check_room, files_of, free_id, server_files
from .turn import whose_turn

KIND, BASE = "logical", "base"
_TEMPLATE = "template1"
KINDS = (KIND, BASE)
# A first set is compared with nothing; dumps of typical data shrink to a quarter, and half is on the safe side.
_FIRST_GUESS = {"none": 1.0}
_GUESS = 0.5
_WORTH_TELLING_SECONDS = 60.0
_REPLAY_LAG = """
SELECT pg_catalog.pg_last_wal_receive_lsn() > pg_catalog.pg_last_wal_replay_lsn(),
  extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
"""


@dataclass(frozen=True)
class Request:
    """A backup of a kind (`logical` or `base`) as the configuration says; `dry_run` plans it and touches nothing.

    `incremental` is for base backups: `never`, `auto`, or the id of the set to build on; empty for what base.incremental says.
    And so is `to`: `local` or `s3`, empty for what base.to says.
    """

    dry_run: bool = False
    kind: str = KIND
    incremental: str = ""
    to: str = ""


@dataclass
class _Target:
    """A database that will be dumped."""

    name: str
    bytes: int
    scope: inventory.Scope
    choice: Optional[Choice] = None


@dataclass
class _Plan:
    server: Server
    programs: Programs
    targets: list[_Target]
    uncovered: list[dict[str, str]]
    left_out: list[dict[str, str]] = field(default_factory=list)
    estimate: int = 0
    free: int = 0
    choices: dict[str, Any] = field(default_factory=dict)
    waits: list[LockWaits] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """The plan as data."""
        return {
            "databases": [t.name for t in self.targets],
            "database_bytes": sum(t.bytes for t in self.targets),
            "estimated_bytes": self.estimate,
            "free_bytes": self.free,
            "choices": self.choices,
            "uncovered": self.uncovered,
            "left_out": self.left_out,
            "server_version": self.server.version,
            "from_standby": self.server.in_recovery,
        }

    def lock_waits(self) -> dict[str, Any]:
        """Who waited for locks of the dumps, and which databases were dumped anew for that, as data."""
        return {
            "lock_waits": [fact for waits in self.waits for fact in waits.facts()],
            "gave_way": {waits.database: waits.gave_way for waits in self.waits if waits.gave_way},
        }


def backup(context: Context, request: Request) -> dict[str, Any]:
    """Make a set, of the configured databases or of the whole server, and return its facts.

    Result: `kind`, `set`, `path`, `bytes`, `files`, `databases` (list of {name, bytes, database_bytes, seconds, tables, rows, format,
    compression}), `uncovered`, `left_out`, `choices`, `content`, `lock_waits` (list of {database, table, mode, pid, role,
    application, seconds, queued}), `gave_way` (database to times), with wal.enabled `wal` (see wal_facts()); a dry run has
    `plan` instead. In a group of servers `group` tells who was chosen, and where that is another node, nothing is done and
    `skipped` says so. Of a base backup see backup_base().
    Raise UsageError, UnreachableError, RefusedError (not enough space), BusyError or CommandError; no half-written set
    stays behind.
    """
    if request.kind not in KINDS:
        raise UsageError("%r is no kind of backup." % request.kind, hint="Use one of %s." % ", ".join(KINDS))
    if (request.incremental or request.to) and request.kind != BASE:
        raise UsageError(
            "Only base backups can be incremental, or be taken straight to a place.", hint="Ask for one: kind base."
        )
    try:
        return {"kind": request.kind, **_backup(context, request)}
    except PgopsError as error:
        error.details.setdefault("kind", request.kind)
        raise


def _backup(context: Context, request: Request) -> dict[str, Any]:
    if request.dry_run:
        turn = whose_turn(context)
        if not turn.mine:
            return turn.skipped()
        if request.kind == BASE:
            from .backup_base import backup_base  # loads much that a dump does not need

            return {**backup_base(context, dry_run=True, incremental=request.incremental, to=request.to), **turn.facts}
        with connect(context.config.postgres) as session:
            plan = _plan(context, session)
        return {"changed": True, "plan": plan.result(), "uncovered": plan.uncovered, **turn.facts}
    with context.lock("backup"):
        for path, size in context.local.clear_leftovers(context.clock()).items():
            context.warn("Removed %s (%s), which a run that was cut short left behind." % (path, human_size(size)))
        turn = whose_turn(context)
        if not turn.mine:
            return turn.skipped()
        if turn.facts and context.config.s3 is None:
            context.warn("This group has no S3 place, so each node has only the sets that it made itself.")
        if request.kind == BASE:
            from .backup_base import backup_base

            made = backup_base(context, dry_run=False, incremental=request.incremental, to=request.to)
            return {**made, **_wal(context), **turn.facts}
        with connect(context.config.postgres) as session:
            plan = _plan(context, session)
            try:
                made = _make(context, session, plan)
            except PgopsError as error:
                error.details.update(plan.lock_waits())
                raise
        return {**made, **_wal(context), **turn.facts}


def _wal(context: Context) -> dict[str, Any]:
    """Return `wal`, how the WAL archive fares, for the record of the run, where there is one."""
    if not context.config.wal.enabled:
        return {}
    from .wal_status import wal_facts

    try:
        return {"wal": wal_facts(context)}
    except Exception as error:  # noqa: BLE001 - the set is there; what is only told beside it takes nothing away
        return {"wal": {"error": context.redactor.text("%s: %s" % (type(error).__name__, error))}}


# --- plan -------------------------------------------------------------------------------------------------------------


def _plan(context: Context, session: Session) -> _Plan:
    config = context.config
    server = server_facts(session)
    programs, warnings = pick(
        context.runner,
        config.postgres.bin_dir,
        major=server.major,
        needed=("pg_dump", "pg_dumpall", "pg_restore"),
        careful=not server.superuser,
    )
    for warning in warnings:
        context.warn(warning)
    names, uncovered = _databases(config.backup, session)
    # Others may come through a pooler, which keeps the connection, and nobody could make a database meanwhile.
    uncovered += _template(context) if server.superuser else []
    plan = _Plan(server, programs, [], uncovered)
    native = dump_compressions(context.runner, programs)
    available = frozenset(name for name in codec.SUFFIXES if context.runner.find(name))
    if config.backup.encryption == "age" and "age" not in available:
        codec.wrap(context.runner, ["age"], level=None, recipients=())
    for listed in names:
        try:
            target = _target(context, listed, plan)
            if target is None:
                continue
            tables = _table_count(context, listed.name)
        except MissingError as error:
            _vanished(context, plan, listed.name, error)
            continue
        target.choice = choose(config.backup, Facts(native, available, os.cpu_count() or 1, listed.bytes, tables))
        plan.targets.append(target)
        plan.choices[listed.name] = _choice_facts(target.choice)
    if not plan.targets and not config.backup.allow_no_databases:
        raise MissingError(
            "There is no database to back up.",
            hint="Check backup.databases and exclude_databases, or set allow_no_databases.",
        )
    _plan_space(context, plan)
    return plan


def _databases(wanted: Backup, session: Session) -> tuple[list[inventory.Listed], list[dict[str, str]]]:
    """Return the databases to dump, the largest first, and what no job covers."""
    listed = [one for one in inventory.databases(session) if one.name != _TEMPLATE]
    known = {one.name for one in listed}
    unknown = sorted(set(wanted.databases) - known)
    if unknown:
        raise MissingError(
            "There is no database %s on this server." % ", ".join(repr(n) for n in unknown),
            hint="Names are case-sensitive; it has %s." % ", ".join(repr(n) for n in sorted(known)),
        )
    chosen, uncovered = [], []
    for one in sorted(listed, key=lambda one: (-one.bytes, one.name)):
        if one.closed:
            uncovered.append({"what": "database %s" % one.name, "why": one.closed})
        elif wanted.databases and one.name not in wanted.databases:
            uncovered.append({"what": "database %s" % one.name, "why": "it is not in backup.databases"})
        elif one.name in wanted.exclude_databases:
            uncovered.append({"what": "database %s" % one.name, "why": "it is in backup.exclude_databases"})
        else:
            chosen.append(one)
    return chosen, uncovered


def _template(context: Context) -> list[dict[str, str]]:
    """Return what is to be said of template1, which is not dumped, if it holds anything. One that lets us not in is nobody's."""
    try:
        with connect(context.config.postgres, _TEMPLATE) as session:
            if not inventory.holds_objects(session):
                return []
    except PgopsError:
        return []
    why = "new databases are copied from it, and a backup of databases leaves it out; keep the script that makes them"
    return [{"what": "objects in %s" % _TEMPLATE, "why": why}]


def _target(context: Context, listed: inventory.Listed, plan: _Plan) -> Optional[_Target]:
    """Return what of a database is dumped, None if its filters leave nothing; add to `plan.uncovered`."""
    wanted, name = context.config.backup, listed.name
    scope = inventory.Scope(
        tuple(wanted.schemas),
        tuple(wanted.exclude_schemas),
        tuple(split_qualified(t) for t in wanted.tables),
        tuple(split_qualified(t) for t in wanted.exclude_tables),
        tuple(split_qualified(t) for t in wanted.exclude_table_data),
    )
    if scope.whole and not scope.exclude_table_data:
        return _Target(name, listed.bytes, scope)
    with connect(context.config.postgres, name) as session:
        found = session.rows(
            "SELECT n.nspname, c.relname FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm', 'f', 'v')"
            " WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        )
    schemas = {row[0] for row in found}
    relations = {(row[0], row[1]) for row in found if row[1] is not None}
    covered = {pair for pair in relations if scope.holds(*pair)}
    for schema in sorted(schemas):
        inside = {pair for pair in relations if pair[0] == schema}
        if inside and not inside & covered:
            plan.uncovered.append(
                {"what": "schema %s of database %s" % (schema, name), "why": "the filters of the backup leave it out"}
            )
        elif inside - covered:
            why = "the filters of the backup leave it out"
            plan.uncovered += [
                {"what": "table %s.%s of database %s" % (*pair, name), "why": why} for pair in sorted(inside - covered)
            ]
    narrowed = inventory.Scope(
        tuple(s for s in scope.schemas if s in schemas),
        tuple(s for s in scope.exclude_schemas if s in schemas),
        tuple(t for t in scope.tables if t in relations),
        tuple(t for t in scope.exclude_tables if t in relations),
        tuple(t for t in scope.exclude_table_data if t in relations),
    )
    if (scope.schemas and not narrowed.schemas) or (scope.tables and not narrowed.tables):
        return None
    for pair in narrowed.exclude_table_data:
        plan.left_out.append(
            {"what": "rows of %s.%s of database %s" % (*pair, name), "why": "it is in backup.exclude_table_data"}
        )
    return _Target(name, listed.bytes, narrowed)


def _table_count(context: Context, name: str) -> int:
    with connect(context.config.postgres, name) as session:
        return int(
            session.value(
                "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
            )
        )


def _choice_facts(choice: Choice) -> dict[str, Any]:
    return {
        "format": choice.format,
        "compression": choice.native
        if choice.native != "none"
        else next((x for x in choice.layers if x != "age"), "none"),
        "inside_pg_dump": choice.native != "none",
        "level": choice.level,
        "jobs": choice.jobs,
        "reasons": list(choice.reasons),
    }


def _plan_space(context: Context, plan: _Plan) -> None:
    """Estimate what the set will take, and refuse to begin when that would fill the disk."""
    total = sum(t.bytes for t in plan.targets)
    ratio = _FIRST_GUESS.get(context.config.backup.compression, _GUESS)
    catalog = Catalog(context.local)
    for previous in [name for name in catalog.ids() if name.endswith("-" + KIND)][:1]:
        try:
            manifest = catalog.manifest(previous)
        except PgopsError:
            continue
        before = sum(d.bytes for d in manifest.databases)
        if before and manifest.encryption == context.config.backup.encryption:
            ratio = 1.2 * manifest.size / before
    plan.estimate = int(total * ratio)
    plan.free = check_room(context, plan.estimate)


# --- make -------------------------------------------------------------------------------------------------------------


def _make(context: Context, session: Session, plan: _Plan) -> dict[str, Any]:
    started = context.clock()
    name = free_id(context, KIND)
    floor = parse_size(context.config.backup.min_free)
    with context.local.new_set(name) as folder:
        sink = Sink(context, folder, floor)
        databases: list[Database] = []
        total = sum(t.bytes for t in plan.targets)
        for target in plan.targets:
            context.reporter.phase("backup of %s" % target.name, 0)
            database = _dump(context, plan, target, sink)
            context.reporter.done()
            if database is not None:
                databases.append(database)
        if not databases and total and not context.config.backup.allow_no_databases:
            raise MissingError("Every database vanished while it was to be dumped.")
        if plan.server.in_recovery:
            _tell_lag(context, session)
        manifest = _finish(context, session, plan, sink, databases, name=name, started=started)
        encoded = manifest.encode()
        (folder / NAME).write_bytes(encoded)
        (folder / NAME).chmod(0o640)
    return _result(context.local, manifest, content_hash(encoded), plan)


def _tell_lag(context: Context, session: Session) -> None:
    """Warn if the standby that we dumped has fallen behind: its replay may wait for a dump, up to max_standby_streaming_delay."""
    row = session.rows(_REPLAY_LAG)[0]
    if row[0] and row[1] is not None and row[1] > _WORTH_TELLING_SECONDS:
        context.warn(
            "The standby is %s behind at the end of the dump: its replay waits for it, or for another session."
            % human_span(row[1])
        )


def _dump(context: Context, plan: _Plan, target: _Target, sink: Sink) -> Optional[Database]:
    if target.choice is None:
        raise PgopsError("No way to dump %s was chosen." % target.name)
    tick = time.monotonic()
    job = DumpJob(
        target.name,
        target.scope,
        target.choice,
        plan.programs,
        plan.server,
        with_rows=context.config.backup.fingerprint,
    )
    plan.waits.append(LockWaits(target.name))
    try:
        payload, fingerprint, properties, left_out = dump_database(context, job, sink, plan.waits[-1])
    except MissingError as error:
        _vanished(context, plan, target.name, error)
        return None
    plan.left_out += left_out
    return Database(target.name, payload, properties, fingerprint, target.bytes, round(time.monotonic() - tick, 3))


def _vanished(context: Context, plan: _Plan, name: str, error: MissingError) -> None:
    """Tell of a database that was dropped since the listing: not ours to save any more, but a person should know."""
    how = "was dropped while it was dumped" if isinstance(error, DroppedError) else "vanished before it was dumped"
    context.warn("The database %s %s: %s" % (name, how, error.message))
    plan.left_out.append({"what": "database %s" % name, "why": "it %s" % how})


def _finish(
    context: Context, session: Session, plan: _Plan, sink: Sink, databases: list[Database], *, name: str, started: Any
) -> Manifest:
    """Write what belongs to the whole server, and return the manifest."""
    wanted = context.config.backup
    globals_payload, passwords = None, False
    if wanted.globals:
        globals_payload, passwords = dump_globals(context, plan.programs, plan.server, sink)
    else:
        plan.left_out.append({"what": "roles and tablespaces", "why": "backup.globals is false"})
    extra: dict[str, Optional[Payload]] = {"settings": None, "hba": None, "ident": None}
    if wanted.server_settings:
        extra.update(server_files(context, session, sink, plan.left_out))
    else:
        plan.left_out.append(
            {"what": "server settings, pg_hba.conf and pg_ident.conf", "why": "backup.server_settings is false"}
        )
    roles = inventory.roles(session)
    plan.left_out += masked_settings(roles["settings"], "all roles")
    version = plan.programs.version
    return Manifest(
        id=name,
        instance=context.config.instance,
        kind=KIND,
        started=iso(started),
        finished=iso(context.clock()),
        system_identifier=plan.server.system_identifier,
        server_version=plan.server.version,
        server_version_num=plan.server.version_num,
        tools={"pg_dump": version, "pg_dumpall": version},
        engine=__version__,
        files=files_of(sink.folder, sink.hashes),
        databases=tuple(databases),
        timeline=plan.server.timeline,
        from_standby=plan.server.in_recovery,
        host=context.host,
        globals=globals_payload,
        globals_passwords=passwords,
        settings=extra["settings"],
        hba=extra["hba"],
        ident=extra["ident"],
        roles=roles,
        encryption=wanted.encryption,
        recipients=tuple(wanted.recipients) if wanted.encryption != "none" else (),
        choices=plan.choices,
        left_out=tuple(plan.left_out),
        warnings=tuple(context.warnings),
    )


def _result(place: LocalPlace, manifest: Manifest, content: str, plan: _Plan) -> dict[str, Any]:
    databases = []
    for database in manifest.databases:
        entry = {
            "name": database.name,
            "database_bytes": database.bytes,
            "bytes": sum(f.size for f in manifest.files_of(database.dump)),
            "seconds": database.seconds,
            "format": database.dump.format,
            "compression": database.dump.compression,
        }
        if database.fingerprint:
            entry.update(summary(database.fingerprint))
        databases.append(entry)
    return {
        "changed": True,
        "set": manifest.id,
        "path": "%s/sets/%s" % (place.root, manifest.id),
        "content": content,
        "bytes": manifest.size,
        "files": len(manifest.files),
        "databases": databases,
        "uncovered": plan.uncovered,
        "left_out": list(manifest.left_out),
        "choices": manifest.choices,
        **plan.lock_waits(),
    }


__all__ = ("KIND", "KINDS", "Request", "backup")
