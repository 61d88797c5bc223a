# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb backup, base backups: the whole data directory, made by pg_basebackup, published by one rename as any set."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Optional

from .. import __version__
from ..context import Context
from ..core.errors import PgopsError, RefusedError
from ..core.manifest import NAME, Base, Manifest, Payload, Tablespace, content_hash
from ..core.sizes import parse_size
from ..core.times import iso
from ..places.catalog import Catalog
from ..postgres import inventory
from ..postgres.base_taking import LEAST_MAJOR, Taken, Way, choose_way, take, wal_kept
from ..postgres.connection import Server, Session, connect, server_facts
from ..postgres.dumping import Sink
from ..postgres.tools import Programs, pick
from .making import check_room, files_of, free_id, server_files

KIND = "base"
# Data compress to a third or better, and WAL comes along.
_GUESS = 0.5
_FACTS = """
SELECT current_setting('wal_level'), current_setting('max_wal_senders')::int, pg_size_bytes(current_setting('wal_segment_size')),
  current_setting('data_checksums') = 'on'
"""
_DATABASES = """
SELECT datname, CASE WHEN has_database_privilege(datname, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END
FROM pg_database WHERE datname <> 'template0' ORDER BY datname
"""
_TABLESPACES = """
SELECT oid::text, spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY oid
"""
# Behind everything that the backup holds: what it gives is true of any moment after the end.
_END = "SELECT extract(epoch FROM clock_timestamp())::float8, pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@dataclass
class _Plan:
    server: Server
    programs: Programs
    way: Way
    reason: str
    tablespaces: list[Tablespace]
    databases: list[dict[str, Any]]
    segment_bytes: int
    checksums: bool
    estimate: int = 0
    free: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What the databases take on the server."""
        return sum(d["bytes"] for d in self.databases)

    def result(self) -> dict[str, Any]:
        """The plan as data."""
        return {
            "databases": [d["name"] for d in self.databases],
            "database_bytes": self.bytes,
            "estimated_bytes": self.estimate,
            "free_bytes": self.free,
            "choices": {"base": {**self.way.shown(), "reasons": [self.reason]}},
            "tablespaces": [{"name": t.name, "path": t.path} for t in self.tablespaces],
            "uncovered": [],
            "left_out": self.left_out,
            "server_version": self.server.version,
            "from_standby": self.server.in_recovery,
        }


def backup_base(context: Context, *, dry_run: bool) -> dict[str, Any]:
    """Make a base backup and return its facts. The caller holds the lock.

    Result: `set`, `path`, `bytes`, `files`, `content`, `databases` (list of {name, database_bytes}), `uncovered`, `left_out`,
    `choices`, `tablespaces` (list of {name, path}), `timeline`, `wal_start`, `wal_end`; a dry run has `plan` instead.
    Raise RefusedError (no space, WAL level minimal, no rights), UsageError, UnreachableError, CommandError, or DamagedError
    (blocks with a wrong checksum); no half-written set stays behind.
    """
    with connect(context.config.postgres) as session:
        plan = _plan(context, session)
        if dry_run:
            return {"changed": True, "plan": plan.result(), "uncovered": []}
        return _make(context, session, plan)


# --- plan -------------------------------------------------------------------------------------------------------------


def _plan(context: Context, session: Session) -> _Plan:
    server = server_facts(session)
    programs, warnings = pick(
        context.runner,
        context.config.postgres.bin_dir,
        major=max(server.major, LEAST_MAJOR),
        needed=("pg_basebackup",),
    )
    for warning in warnings:
        context.warn(warning)
    wal_level, senders, segment_bytes, checksums = session.rows(_FACTS)[0]
    _check_settings(wal_level, senders)
    found = [
        Tablespace(oid, name, path, Payload("base/%s.tar" % oid, "tar"))
        for oid, name, path in session.rows(_TABLESPACES)
    ]
    if not checksums:
        context.warn(
            "This cluster has no data checksums, so a damaged block is copied without notice (pg_checksums --enable adds them)."
        )
    way, reason = choose_way(context, programs, tablespaces=bool(found))
    databases = [{"name": name, "bytes": int(size)} for name, size in session.rows(_DATABASES)]
    plan = _Plan(server, programs, way, reason, found, databases, int(segment_bytes), bool(checksums))
    _plan_space(context, plan)
    return plan


def _check_settings(wal_level: str, senders: int) -> None:
    if wal_level == "minimal":
        raise RefusedError(
            "A base backup needs wal_level replica or logical, and this server has minimal.",
            hint="Set wal_level to replica and restart the server; until then back up by dumps (kind logical).",
        )
    if senders < 1:
        raise RefusedError(
            "A base backup needs a WAL sender, and max_wal_senders is 0.",
            hint="Set max_wal_senders to 10, its default, and restart the server.",
        )


def _plan_space(context: Context, plan: _Plan) -> None:
    """Estimate what the set will take, and refuse to begin when that would fill the disk."""
    ratio = 1.0 if plan.way.method == "none" else _GUESS
    catalog = Catalog(context.local)
    for previous in [name for name in catalog.ids() if name.endswith("-" + KIND)][:1]:
        try:
            manifest = catalog.manifest(previous)
        except PgopsError:
            continue
        compressed = manifest.base is not None and manifest.base.payload.compression
        if manifest.base is not None and manifest.base.bytes and compressed == plan.way.method:
            ratio = 1.2 * manifest.size / manifest.base.bytes
    plan.estimate = int(plan.bytes * ratio) + 2 * plan.segment_bytes
    plan.free = check_room(context, plan.estimate)


# --- make -------------------------------------------------------------------------------------------------------------


def _make(context: Context, session: Session, plan: _Plan) -> dict[str, Any]:
    started = context.clock()
    name = free_id(context, KIND)
    with context.local.new_set(name) as folder:
        sink = Sink(context, folder, parse_size(context.config.backup.min_free))
        context.reporter.phase("base backup", plan.estimate)
        with wal_kept(context, session):
            taken = take(context, plan.programs, sink, plan.way, plan.tablespaces)
        context.reporter.done()
        (epoch, next_xid), *_unused = session.rows(_END)
        stopped = datetime.fromtimestamp(epoch, timezone.utc)
        base = Base(
            payload=taken.payload,
            stopped=iso(stopped),
            next_xid=int(next_xid),
            wal_segment_bytes=plan.segment_bytes,
            bytes=plan.bytes,
            checksums=plan.checksums,
            algorithm=context.config.base.manifest_checksums,
            listing=_listing(sink, taken),
            tablespaces=taken.tablespaces,
            databases=tuple(plan.databases),
        )
        manifest = _manifest(context, session, plan, sink, taken, base=base, name=name, started=started)
        encoded = manifest.encode()
        (folder / NAME).write_bytes(encoded)
        (folder / NAME).chmod(0o640)
    return _result(context, manifest, content_hash(encoded), plan)


def _listing(sink: Sink, taken: Taken) -> Optional[Payload]:
    """Return the payload of PostgreSQL's own list, which must be there where the tars are files of their own."""
    if taken.listing is not None and not (sink.folder / taken.listing.path).is_file():
        raise PgopsError("pg_basebackup wrote no %s." % taken.listing.path, hint="Update the client programs.")
    return taken.listing


def _manifest(
    context: Context,
    session: Session,
    plan: _Plan,
    sink: Sink,
    taken: Taken,
    *,
    base: Base,
    name: str,
    started: datetime,
) -> Manifest:
    extra = server_files(context, session, sink, plan.left_out) if context.config.backup.server_settings else {}
    encryption = context.config.backup.encryption
    return Manifest(
        id=name,
        instance=context.config.instance,
        kind=KIND,
        started=iso(started),
        finished=iso(context.clock()),
        system_identifier=plan.server.system_identifier,
        server_version=plan.server.version,
        server_version_num=plan.server.version_num,
        tools={"pg_basebackup": plan.programs.version},
        engine=__version__,
        files=files_of(sink.folder),
        timeline=taken.timeline,
        wal_start=taken.start,
        wal_end=taken.end,
        base=base,
        from_standby=plan.server.in_recovery,
        settings=extra.get("settings"),
        hba=extra.get("hba"),
        ident=extra.get("ident"),
        roles=inventory.roles(session),
        encryption=encryption,
        recipients=tuple(context.config.backup.recipients) if encryption != "none" else (),
        choices=plan.result()["choices"],
        left_out=tuple(plan.left_out),
        warnings=tuple(context.warnings),
    )


def _result(context: Context, manifest: Manifest, content: str, plan: _Plan) -> dict[str, Any]:
    return {
        "changed": True,
        "kind": KIND,
        "set": manifest.id,
        "path": "%s/sets/%s" % (context.local.root, manifest.id),
        "content": content,
        "bytes": manifest.size,
        "files": len(manifest.files),
        "databases": [{"name": d["name"], "database_bytes": d["bytes"]} for d in plan.databases],
        "tablespaces": [{"name": t.name, "path": t.path} for t in plan.tablespaces],
        "timeline": manifest.timeline,
        "wal_start": manifest.wal_start,
        "wal_end": manifest.wal_end,
        "uncovered": [],
        "left_out": list(manifest.left_out),
        "choices": manifest.choices,
    }


__all__ = ("KIND", "backup_base")
