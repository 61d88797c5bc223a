# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb restore: bring databases back. Each is loaded under a name of its own, proven, and only then gets its name."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.errors import CommandError, DamagedError, MissingError, PgopsError, UnreachableError, UsageError
from ..core.fingerprint import Rules
from ..core.manifest import Database
from ..core.naming import kept_name, quote_ident, split_qualified
from ..core.selection import Wanted, missing, with_relatives
from ..core.sizes import human_size
from ..core.times import compact
from ..places.base import Place
from ..places.catalog import Catalog
from ..places.chains import refuse_entwined
from ..places.evidence import Proof, proofs
from ..postgres import preflight, statistics, swapping
from ..postgres.comparison import compare_database
from ..postgres.connection import LostError, Server, Session, TurnedAwayError, connect, server_facts, with_database
from ..postgres.databases import comment_on_database, create_database, finish_database, without_refused
from ..postgres.globals import choose_globals, load_globals, settings_left_alone
from ..postgres.loading import load_database
from ..postgres.pg_restore import Loaded, Options, self_made
from ..postgres.preflight import Findings
from ..postgres.target import Target
from ..postgres.throwaway import claimed, clear_abandoned
from ..postgres.tools import pick
from ..source import Source
from ..system import codec

MODES = ("create", "swap", "into_empty")
GLOBALS = ("missing", "all", "none")
_PREFIX = "pgops-restore-"


@dataclass(frozen=True)
class Request:
    """What to bring back, from where, and how.

    `set` is an id, `latest` or `latest_verified`; `databases` all of the set when empty; `rename` maps backed-up names to new
    ones. Modes: `create` (the target must not exist), `swap` (a target that exists is replaced and kept under another
    name; `confirm` must list it), `into_empty` (the target exists and is empty; one transaction). `globals`: roles that
    are missing, all (existing ones are changed too) or none. Without `ownership` owners and privileges are left out.
    """

    place: str = "auto"
    set: str = "latest_verified"
    databases: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    mode: str = "create"
    globals: str = "missing"
    ownership: bool = True
    jobs: int = 0
    confirm: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass
class _Job:
    """One database on its way back: loaded as `temporary`, to be called `name`; what it replaces is kept as `kept`."""

    database: Database
    name: str
    temporary: str
    replaces: bool
    loaded: Loaded = field(default_factory=Loaded)
    kept: str = ""
    done: bool = False  # it has its name; in an empty target, its data are committed
    closed: bool = False  # what it should replace lets nobody in, and its comment is the only trace of that
    phases: dict[str, float] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def comment(self) -> str:
        """SQL that gives the database its own comment in the place of our mark."""
        return comment_on_database(self.temporary, self.database.properties.get("comment"))


@dataclass
class _Work:
    request: Request
    source: Source
    target: Target
    jobs: list[_Job]
    findings: Findings
    options: Options
    wanted: Optional[Wanted]


def restore(context: Context, request: Request) -> dict[str, Any]:
    """Bring databases back as `request` says and prove that they are what the backup held.

    Result: `set`, `place`, `databases` (list of {database, name, seconds, phases, jobs, way, kept, compared, benign, left_out}),
    `roles_created`, `remarks`; a dry run has `plan` instead and touches nothing.
    Raise UsageError, MissingError, RefusedError (with every reason), DamagedError (a difference), CommandError or
    UnreachableError. Whatever goes wrong before the last step, no database has been replaced and none is left half-made.
    """
    _check(request)
    dry = request.dry_run
    with context.lock("sets", shared=True, dry_run=dry), context.lock("restore", dry_run=dry):
        return _restore(context, request)


def _restore(context: Context, request: Request) -> dict[str, Any]:
    source = _source(context, request)
    chosen = _databases(request, source)
    names = {d.name: request.rename.get(d.name, d.name) for d in chosen}
    with _maintenance(context, names.values() if request.mode == "swap" else ()) as session:
        if not request.dry_run:
            clear_abandoned(context, "restore")
            _reopen_closed(context, session)
        work = _prepare(context, request, session, source, names)
        if request.dry_run:
            return {"changed": True, "set": source.set_id, "place": source.place.name, "plan": _plan(work)}
        work.findings.settle()
        for remark in work.findings.remarks:
            context.warn(remark)
        return _perform(context, work, session)


def _maintenance(context: Context, taken: Iterable[str]) -> Session:
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


def _check(request: Request) -> None:
    if request.mode not in MODES:
        raise UsageError("%r is no restore mode." % request.mode, hint="Use one of %s." % ", ".join(MODES))
    if request.globals not in GLOBALS:
        raise UsageError(
            "%r is no way to restore globals." % request.globals, hint="Use one of %s." % ", ".join(GLOBALS)
        )
    if request.schemas and request.tables:
        raise UsageError("Ask for schemas or for tables, not for both.", hint="A table is written schema.table.")
    for table in request.tables:
        split_qualified(table)
    if (request.schemas or request.tables) and len(request.databases) != 1:
        raise UsageError("Schemas and tables are restored from one database.", hint="Name it (databases).")
    unknown = sorted(set(request.rename) - set(request.databases)) if request.databases else []
    if unknown:
        raise UsageError("rename speaks of %s, which is not restored." % ", ".join(repr(n) for n in unknown))


# --- prepare ----------------------------------------------------------------------------------------------------------


def _source(context: Context, request: Request) -> Source:
    place = context.place(request.place)
    others = [p for p in context.places() if p.name != place.name]
    more = tuple(proof for other in others if request.set == "latest_verified" for proof in _proofs_of(context, other))
    catalog = Catalog(place, more_proofs=more)
    if request.set in ("latest", "latest_verified"):
        refuse_entwined(catalog, physical=False)
    set_id = catalog.find(request.set, context.clock(), physical=False, warn=context.warn)
    source = Source(context, catalog, set_id, identity_file=context.config.restore.identity_file)
    if source.manifest.base is not None:
        raise UsageError(
            "%s is a base backup of the whole server, and holds no dumps of single databases." % set_id,
            hint="Recover it into a data directory (pgops recover %s), or choose a set that ends in -logical." % set_id,
        )
    source.check_key()
    return source


def _prepare(context: Context, request: Request, session: Session, source: Source, names: dict[str, str]) -> _Work:
    chosen = [d for d in source.manifest.databases if d.name in names]
    for database in chosen:  # what unwraps them must be there before anything is touched
        codec.unwrap(context.runner, database.dump.layers, identity_file=source.identity_file)
    server = server_facts(session)
    dumped_by = int(source.manifest.tools.get("pg_dump", "0").split(".")[0])
    programs, warnings = pick(
        context.runner,
        context.config.postgres.bin_dir,
        major=max(server.major, dumped_by),
        needed=("pg_restore", "psql"),
    )
    for warning in warnings:
        context.warn(warning)
    target = Target(with_database(context.config.postgres, session.database), programs, server)
    jobs = request.jobs or context.config.restore.jobs or min(os.cpu_count() or 1, 8)
    findings = preflight.check_names(session, names, request.mode, request.confirm, context.config.postgres)
    wanted = _wanted(request, chosen, findings.remarks)
    existing = {row[0] for row in session.rows("SELECT datname FROM pg_database")}
    findings.refusals += preflight.check_ways(
        source, chosen, _room(context), ownership=request.ownership, part=wanted is not None
    )
    if request.mode != "into_empty":
        findings.refusals += preflight.check_locales(session, chosen)
        chosen = [_with_settings(session, database, request, findings) for database in chosen]
    else:  # the settings of a database that is somebody's stay as they are, and need no roles
        chosen = [dataclasses.replace(d, properties={**d.properties, "settings": []}) for d in chosen]
    coming = _coming_roles(source, session, server, request, findings)
    on_server = preflight.check_server(
        session,
        source.manifest,
        chosen,
        target,
        jobs=jobs,
        ownership=request.ownership,
        will_create=coming,
        part=wanted is not None,
    )
    findings.refusals += on_server.refusals
    findings.remarks += on_server.remarks
    if request.mode == "into_empty":
        jobs = 1
    options = Options(
        jobs=jobs,
        ownership=request.ownership,
        tablespaces=_has_tablespaces(source, chosen, session, findings),
        single_transaction=request.mode == "into_empty",
        analyze=context.config.restore.analyze,
        wanted=wanted,
    )
    work_jobs = [
        _Job(
            d,
            names[d.name],
            names[d.name] if request.mode == "into_empty" else swapping.temporary_name(_PREFIX, _mark(context)),
            names[d.name] in existing,
        )
        for d in chosen
    ]
    return _Work(request, source, target, work_jobs, findings, options, wanted)


def _with_settings(session: Session, database: Database, request: Request, findings: Findings) -> Database:
    """Return `database` without those settings of its own that the server does not take: they are left out."""
    properties, said = without_refused(session, database.properties, ownership=request.ownership)
    findings.remarks += [
        "%r comes back without %s, as this server does not take it." % (database.name, s) for s in said
    ]
    return dataclasses.replace(database, properties=properties)


def _room(context: Context) -> Path:
    """Return the directory, or the nearest one above, in which files are needed meanwhile."""
    room = Path(context.config.work_dir) if context.config.work_dir else context.state / "work"
    return next((path for path in (room, *room.parents) if path.is_dir()), room)


def _proofs_of(context: Context, place: Place) -> list[Proof]:
    """Return the proofs that another place holds; after a disaster it may be gone, and that is no reason to stop."""
    try:
        return proofs(place)
    except PgopsError as error:
        context.warn("The evidence in %s could not be read: %s" % (place.root, error.message))
        return []


def _databases(request: Request, source: Source) -> list[Database]:
    manifest = source.manifest
    unknown = [name for name in request.databases if manifest.database(name) is None]
    if unknown:
        raise MissingError(
            "The set %s has no database %s." % (manifest.id, ", ".join(repr(n) for n in unknown)),
            hint="It has %s." % ", ".join(repr(d.name) for d in manifest.databases),
        )
    if request.databases:
        return [d for d in manifest.databases if d.name in request.databases]
    chosen = list(manifest.databases)
    # The maintenance database exists on every server; without anything in it there is nothing to bring back.
    return [d for d in chosen if not (d.name == "postgres" and _is_bare(d))] or chosen


def _is_bare(database: Database) -> bool:
    facts = database.fingerprint
    return (
        facts is not None
        and not facts["relations"]
        and not facts.get("functions")
        and len(facts.get("extensions", {})) <= 1
    )


def _wanted(request: Request, chosen: list[Database], remarks: list[str]) -> Optional[Wanted]:
    """Return what of the database is asked for, None for all of it; add to `remarks` what comes along. Raise MissingError."""
    if not request.schemas and not request.tables:
        return None
    wanted = Wanted(request.schemas, tuple(split_qualified(t) for t in request.tables))
    facts = chosen[0].fingerprint
    if facts is not None:
        lacking = missing(wanted, facts)
        if lacking:
            raise MissingError(
                "The database %r in this set has no %s." % (chosen[0].name, ", no ".join(lacking)),
                hint="Names are case-sensitive.",
            )
        wanted, heirs = with_relatives(wanted, facts)
        if heirs:
            remarks.append(
                "%s comes with %s, which it inherits from or which inherit from it."
                % (", ".join(request.tables), ", ".join(heirs))
            )
    return wanted


def _coming_roles(
    source: Source, session: Session, server: Server, request: Request, findings: Findings
) -> Optional[set[str]]:
    """Return the roles that the globals will bring, None when they are not restored."""
    if request.globals == "none":
        return None
    if source.manifest.globals is None:
        findings.remarks.append("The set holds no globals, so no roles are restored.")
        return None
    if not source.manifest.globals_passwords:
        findings.remarks.append(
            "The set holds no role passwords: restored roles need new ones before they can log in with one."
        )
    alone = settings_left_alone(source.manifest.roles or {}, session) if request.globals == "missing" else []
    if alone:
        findings.remarks.append(
            "What the set has for all roles of the server was left alone: %s. Use globals: all, or ALTER ROLE ALL SET."
            % ", ".join(alone)
        )
    chosen = choose_globals(source, session, server, overwrite=request.globals == "all")
    findings.remarks += chosen.remarks
    return set(chosen.creates)


def _has_tablespaces(source: Source, chosen: list[Database], session: Session, findings: Findings) -> bool:
    wanted = set((source.manifest.roles or {}).get("tablespaces", []))
    lacking = sorted(wanted - {row[0] for row in session.rows("SELECT spcname FROM pg_tablespace")})
    if lacking:
        findings.remarks.append(
            "The server lacks the tablespaces %s; everything goes to the default one." % ", ".join(lacking)
        )
        plain = [repr(d.name) for d in chosen if d.dump.format == "plain"]
        if plain:
            findings.remarks.append(
                "The dump of %s is plain SQL: it cannot be loaded if it names one of these tablespaces. Create them first."
                % ", ".join(plain)
            )
    return not lacking


def _plan(work: _Work) -> dict[str, Any]:
    return {
        "set": work.source.set_id,
        "place": work.source.place.root,
        "server_version": work.target.server.version,
        "mode": work.request.mode,
        "globals": work.request.globals,
        "jobs": work.options.jobs,
        "databases": [
            {
                "database": job.database.name,
                "name": job.name,
                "replaces": job.replaces and work.request.mode == "swap",
                "bytes": work.source.size(job.database.dump),
                "database_bytes": job.database.bytes,
                "files": len(work.source.manifest.files_of(job.database.dump)),
            }
            for job in work.jobs
        ],
        "refusals": work.findings.refusals,
        "remarks": work.findings.remarks,
    }


# --- perform ----------------------------------------------------------------------------------------------------------


def _perform(context: Context, work: _Work, session: Session) -> dict[str, Any]:
    request = work.request
    _drop_abandoned(context, session)
    roles: list[str] = []
    if request.globals != "none":
        context.reporter.note("restoring roles")
        chosen = choose_globals(work.source, session, work.target.server, overwrite=request.globals == "all")
        load_globals(work.source, work.target, chosen)
        roles = list(chosen.creates)
    try:
        for job in work.jobs:
            _load(context, work, job, session)
            _prove(context, work, job)
        if request.mode != "into_empty":
            for job in work.jobs:
                _give_name(context, work, job, session)
        for job in work.jobs:
            _tell_subscriptions(context, job, session)
    except BaseException as error:
        if request.mode != "into_empty":
            _discard(context, [job.temporary for job in work.jobs if not job.closed], session, work.target)
        if isinstance(error, PgopsError):
            _tell_state(error, work)
        raise
    return {
        "changed": True,
        "set": work.source.set_id,
        "place": work.source.place.name,
        "databases": [_job_result(job) for job in work.jobs],
        "bytes": sum(work.source.size(job.database.dump) for job in work.jobs),
        "roles_created": roles,
        "remarks": work.findings.remarks,
    }


def _load(context: Context, work: _Work, job: _Job, session: Session) -> None:
    tick = time.monotonic()
    size = work.source.size(job.database.dump)
    context.reporter.note("restoring %s (%s) as %s" % (job.database.name, human_size(size), job.name))
    context.reporter.phase("restore of %s" % job.name, size)
    try:
        _fill(context, work, job, session, work.options)
    except CommandError as error:
        met = self_made(error, work.options)
        if not met or work.request.mode == "into_empty":
            raise
        context.warn("The parallel restore of %r %s; it was begun anew with one job." % (job.name, met))
        swapping.drop(session, job.temporary, work.target.postgres)
        _fill(context, work, job, session, dataclasses.replace(work.options, jobs=1))
    context.reporter.done()
    job.phases["load"] = round(time.monotonic() - tick, 3)
    for left_out in job.loaded.left_out:
        context.warn("Left out of %r: %s" % (job.name, left_out))
    job.done = work.request.mode == "into_empty"
    # Before the database gets its own settings: a time limit of its own would end this.
    if context.config.restore.analyze:
        tick = time.monotonic()
        _analyze(work, job)
        job.phases["analyze"] = round(time.monotonic() - tick, 3)
    if work.request.mode != "into_empty":
        finish_database(session, job.temporary, job.database.properties, ownership=work.request.ownership)


def _fill(context: Context, work: _Work, job: _Job, session: Session, options: Options) -> None:
    if work.request.mode != "into_empty":
        properties = job.database.properties
        create_database(
            session, job.temporary, properties, work.target, ownership=work.request.ownership, comment=_mark(context)
        )
    with context.scratch("restore") as folder, contextlib.ExitStack() as stack:
        if context.config.work_dir:  # others may use it as well, and the next run must know whose this is
            stack.enter_context(claimed(context, folder))
        job.loaded = load_database(work.source, job.database, work.target, job.temporary, options, folder)


def _analyze(work: _Work, job: _Job) -> None:
    if job.loaded.analyzed:
        with work.target.session(job.temporary) as session:
            statistics.complete(session)
        return
    runner, target = work.source.context.runner, work.target
    statistics.gather(runner, target.programs, target.environment, job.temporary, work.options.jobs)


def _prove(context: Context, work: _Work, job: _Job) -> None:
    """Conclude from queries on the result that it is what the backup held. Raise DamagedError if it is not."""
    if job.database.fingerprint is None:
        context.warn("%r was restored, but its set has no fingerprint to compare it with." % job.name)
        return
    tick = time.monotonic()
    rules = Rules(work.request.ownership, work.wanted.holds if work.wanted else None)
    # An empty target was somebody's: what belongs to the database itself stays as they made it. Any other has our mark
    # for a comment until it gets its name.
    into_empty = work.request.mode == "into_empty"
    properties = {} if into_empty else {**job.database.properties, "comment": _mark(context)}
    database = dataclasses.replace(job.database, properties=properties)
    comparison = compare_database(database, work.target, job.temporary, rules)
    job.phases["compare"] = round(time.monotonic() - tick, 3)
    job.checked, job.remarks = comparison.checked, comparison.remarks
    if comparison.differences:
        raise DamagedError(
            "The restored %r is not what was backed up:\n%s"
            % (job.name, "\n".join("  - %s" % d for d in comparison.shown())),
            hint="Try another set (pgops restore --list)."
            if into_empty
            else "No database was replaced. Try another set (pgops restore --list).",
        )


def _give_name(context: Context, work: _Work, job: _Job, session: Session) -> None:
    """Rename the proven database to its name; one that stands there is renamed with it and kept."""
    if not job.replaces:
        swapping.give_name(session, job.temporary, job.name, comment=job.comment)
        job.done = True
        return
    taken = {row[0] for row in session.rows("SELECT datname FROM pg_database")}
    kept = kept_name(job.name, compact(context.clock()), taken=taken)
    try:
        swapping.swap(session, job.temporary, job.name, kept, comment=job.comment, mark=_mark(context))
    except BaseException:
        job.closed = not swapping.reopen(session, work.target.postgres, job.name)
        if job.closed:
            context.warn("%r still refuses connections; the next restore lets them in again." % job.name)
        raise
    job.kept, job.done = kept, True
    context.warn("The old %r is kept as %r; drop it when you no longer need it." % (job.name, job.kept))


def _tell_subscriptions(context: Context, job: _Job, session: Session) -> None:
    """Tell of subscriptions that came back, as none of them acts, and of those that go on in the database that was kept."""
    try:
        came, goes_on = swapping.subscriptions(session, job.name), swapping.subscriptions(session, job.kept or job.name)
    except PgopsError as error:  # all is done by now
        context.warn(
            "Whether %r has subscriptions, none of which acts, could not be asked: %s" % (job.name, error.message)
        )
        return
    for found in came:
        name = quote_ident(found.name)
        context.warn(
            "The subscription %s of %r is switched off, so that two databases do not take changes from one slot. When nobody"
            " else uses its slot%s: in %r, ALTER SUBSCRIPTION %s ENABLE, then ALTER SUBSCRIPTION %s REFRESH PUBLICATION WITH"
            " (copy_data = false). What the publisher sent since the backup is not in it: compare, or copy the tables anew."
            % (name, job.name, " %r" % found.slot if found.slot else "", job.name, name, name)
        )
    for found in goes_on if job.kept else []:
        name = quote_ident(found.name)
        does = "goes on taking changes for it" if found.enabled else "is still there"
        first = "ALTER SUBSCRIPTION %s DISABLE, then " % name if found.enabled else ""
        context.warn(
            "The subscription %s of the kept %r %s. Before its slot%s serves another, and before the database is dropped: in %r,"
            " %sALTER SUBSCRIPTION %s SET (slot_name = NONE), then DROP SUBSCRIPTION %s."
            % (name, job.kept, does, " %r" % found.slot if found.slot else "", job.kept, first, name, name)
        )


def _tell_state(error: PgopsError, work: _Work) -> None:
    """Let `error` say what stays although the restore failed."""
    done = [job for job in work.jobs if job.done]
    if not done:
        return
    error.details = {**error.details, "databases": [_job_result(job) for job in done]}
    names = ", ".join(repr(job.name) for job in done)
    if work.request.mode == "into_empty":
        said = "The data stay in %s: drop or empty what you do not want to keep." % names
    else:
        kept = ", ".join(repr(job.kept) for job in done if job.kept)
        said = "Already restored and in place: %s%s." % (names, " (the old ones are kept as %s)" % kept if kept else "")
    error.hint = ("%s %s" % (error.hint, said)).strip()


def _mark(context: Context) -> str:
    return "pgops restore in progress on %s for %s" % (context.host, context.config.instance)


def let_in_again(context: Context) -> None:
    """Open what a killed restore left closed, for a restore that ends before its work. What hinders that is told by the next one."""
    with contextlib.suppress(PgopsError), context.lock("restore"), _maintenance(context, ()) as session:
        _reopen_closed(context, session)


def _reopen_closed(context: Context, session: Session) -> None:
    """Let connections in again where a restore that was killed while it swapped left a database closed."""
    for name in swapping.left_closed(session, _PREFIX, _mark(context)):
        if swapping.reopen(session, with_database(context.config.postgres, session.database), name):
            context.warn("%r takes connections again; a restore that was cut short had left it closed." % name)


def _drop_abandoned(context: Context, session: Session) -> None:
    """Drop what a restore of this host and instance that was killed left behind; nobody else carries our mark."""
    mark = _mark(context)
    if swapping.left_closed(session, _PREFIX, mark):
        return  # its mark is the only trace of a database that is still closed
    for name in swapping.abandoned(session, _PREFIX, mark):
        try:
            swapping.drop(session, name, with_database(context.config.postgres, session.database))
        except PgopsError as error:
            context.warn("%r, which a restore that was cut short left behind, stays: %s" % (name, error.message))
            continue
        context.warn("Dropped %r, which a restore that was cut short left behind." % name)


def _discard(context: Context, names: list[str], session: Session, target: Target) -> None:
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


def _job_result(job: _Job) -> dict[str, Any]:
    return {
        "database": job.database.name,
        "name": job.name,
        "kept": job.kept,
        "seconds": round(sum(job.phases.values()), 3),
        "phases": job.phases,
        "jobs": job.loaded.jobs,
        "way": job.loaded.way,
        "frozen": job.loaded.frozen,
        "compared": job.checked,
        "remarks": job.remarks,
        "benign": job.loaded.benign,
        "left_out": job.loaded.left_out,
    }


__all__ = ("GLOBALS", "MODES", "Request", "let_in_again", "restore")
