# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The plan of a restore: what is asked for, what the set has of it, and all that speaks against it before anything is touched."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.errors import MissingError, PgopsError, UsageError
from ..core.manifest import Database
from ..core.naming import split_qualified
from ..core.selection import Wanted, missing, with_relatives
from ..places.base import Place
from ..places.catalog import Catalog
from ..places.chains import refuse_entwined
from ..places.evidence import Proof, proofs
from ..postgres import preflight, swapping
from ..postgres.connection import Server, Session, server_facts, with_database
from ..postgres.databases import comment_on_database, without_refused
from ..postgres.globals import choose_globals, settings_left_alone
from ..postgres.pg_restore import Loaded, Options
from ..postgres.preflight import Findings
from ..postgres.target import Target
from ..postgres.tools import pick
from ..source import Source
from ..system import codec
from .restore_leftovers import PREFIX, mark_of

MODES = ("create", "swap", "into_empty")
GLOBALS = ("missing", "all", "none")


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
class Job:
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
class Work:
    """All that a restore has to go on: what is asked for, the set, the server, and a job for each database."""

    request: Request
    source: Source
    target: Target
    jobs: list[Job]
    findings: Findings
    options: Options
    wanted: Optional[Wanted]


def check(request: Request) -> None:
    """Raise UsageError where the request contradicts itself."""
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


def source_of(context: Context, request: Request) -> Source:
    """Return the set that is asked for, which holds dumps. Raise UsageError or MissingError."""
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


def prepare(context: Context, request: Request, session: Session, source: Source, names: dict[str, str]) -> Work:
    """Look at the set and at the server, and return what is to be done, and its findings: all that speaks against it."""
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
        Job(
            d,
            names[d.name],
            names[d.name] if request.mode == "into_empty" else swapping.temporary_name(PREFIX, mark_of(context)),
            names[d.name] in existing,
        )
        for d in chosen
    ]
    return Work(request, source, target, work_jobs, findings, options, wanted)


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


def chosen_databases(request: Request, source: Source) -> list[Database]:
    """Return the databases of the set that are asked for. Raise MissingError."""
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


def plan(work: Work) -> dict[str, Any]:
    """Return the work as the plan that a dry run shows."""
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


__all__ = ("GLOBALS", "Job", "MODES", "Request", "Work", "check", "chosen_databases", "plan", "prepare", "source_of")
