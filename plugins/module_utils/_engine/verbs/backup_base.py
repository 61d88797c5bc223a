# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb backup, base backups: the whole data directory, made by pg_basebackup, published by one rename as any set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from .. import __version__
from ..context import Context
from ..core.base_list import NAME as LIST
from ..core.base_list import parse_list
from ..core.errors import CommandError, PgopsError, RefusedError
from ..core.manifest import NAME, Base, Manifest, Payload, Tablespace, content_hash
from ..core.sizes import parse_size
from ..core.times import iso
from ..places.catalog import Catalog
from ..places.s3 import S3Place
from ..postgres import inventory, wal_directory
from ..postgres.base_taking import (
    FOLDER,
    INCREMENTAL_MAJOR,
    LEAST_MAJOR,
    Taken,
    UnfitParentError,
    Way,
    choose_way,
    may_be_unfit,
    take,
    wal_kept,
)
from ..postgres.base_wal import archive_with, bring_wal, is_gone, without_archive
from ..postgres.connection import LostError, Server, Session, connect, server_facts
from ..postgres.dumping import Sink
from ..postgres.throwaway import claimed, clear_abandoned
from ..postgres.tools import Programs, pick
from ..system import codec
from ..system.durable import create_private
from .making import check_room, files_of, free_id, server_files
from .parents import AUTO, NEVER, Parent, check_history, find_parent, keep_list, wanted_parent
from .settling import on_this_host, settle_promoted
from .streaming import StreamSink, check_stream_room, set_in_s3

KIND, INCREMENTAL = "base", "incremental"
# Data compress to a third or better, and WAL comes along. What changed is a small part, but nobody knows how small.
_GUESS, _CHANGED = 0.5, 0.25
_FACTS = """
SELECT current_setting('wal_level'), current_setting('max_wal_senders')::int, pg_size_bytes(current_setting('wal_segment_size')),
  current_setting('data_checksums') = 'on'
"""
_TABLESPACES = """
SELECT oid::text, spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY oid
"""
# Inside the data directory, as allow_in_place_tablespaces makes them: PostgreSQL's own tools cannot put them back.
_IN_PLACE = """
SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_' AND pg_tablespace_location(oid) LIKE 'pg_tblspc/%' ORDER BY spcname
"""
# Behind everything that the backup holds: what it gives is true of any moment after the end. A standby may lag behind its clock, so
# its content is as old as the newest transaction that it replayed, or, before one came, the checkpoint at which it began.
_END = """
SELECT extract(epoch FROM CASE WHEN pg_is_in_recovery()
  THEN coalesce(pg_last_xact_replay_timestamp(), (SELECT checkpoint_time FROM pg_control_checkpoint()))
  ELSE clock_timestamp() END)::float8, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


@dataclass
class _Plan:
    server: Server
    programs: Programs
    way: Way
    reasons: tuple[str, ...]
    tablespaces: list[Tablespace]
    databases: list[dict[str, Any]]
    segment_bytes: int
    checksums: bool
    parent: Optional[Parent] = None
    there: Optional[S3Place] = None
    estimate: int = 0
    free: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The kind of the set."""
        return KIND if self.parent is None else INCREMENTAL

    @property
    def chain(self) -> list[str]:
        """The sets that it builds on, the full one first."""
        return [] if self.parent is None else list(self.parent.chain)

    @property
    def bytes(self) -> int:
        """What the databases take on the server."""
        return sum(d["bytes"] for d in self.databases)

    def result(self) -> dict[str, Any]:
        """The plan as data."""
        return {
            "place": "local" if self.there is None else self.there.name,
            "kind": self.kind,
            "parent": self.parent.id if self.parent is not None else None,
            "chain": self.chain,
            "databases": [d["name"] for d in self.databases],
            "database_bytes": self.bytes,
            "estimated_bytes": self.estimate,
            "free_bytes": self.free,
            "choices": {"base": {**self.way.shown(), "reasons": list(self.reasons)}},
            "tablespaces": [{"name": t.name, "path": t.path} for t in self.tablespaces],
            "uncovered": [],
            "left_out": self.left_out,
            "server_version": self.server.version,
            "from_standby": self.server.in_recovery,
        }


def backup_base(context: Context, *, dry_run: bool, incremental: str = "", to: str = "") -> dict[str, Any]:
    """Make a base backup and return its facts. The caller holds the lock.

    `incremental`: `never` for a full one, `auto`, or the id of the set to build on; empty for what base.incremental says.
    `to`: `local`, `s3`, or empty for what base.to says.
    Result: `place`, `kind` (base, incremental), `parent`, `chain` (ids of what it builds on, the full one first), `set`, `path`, `bytes`,
    `files`, `content`, `databases` (list of {name, database_bytes}), `uncovered`, `left_out`, `choices`, `tablespaces` (list of
    {name, path}), `timeline`, `wal_start`, `wal_end`; a dry run has `plan` instead.
    Raise RefusedError (no space, WAL level minimal, no rights, nothing can be built on that set), UsageError, MissingError,
    UnreachableError, CommandError, or DamagedError (blocks with a wrong checksum); no half-written set stays behind.
    """
    wanted = wanted_parent(context, incremental)
    there = context.s3() if (to or context.config.base.to) == "s3" else None
    if not dry_run:
        clear_abandoned(context, "backup")
    with connect(context.config.postgres) as session:
        plan = _plan(context, session, wanted, there, dry_run=dry_run)
        if dry_run:
            return {"changed": True, "kind": plan.kind, "plan": plan.result(), "uncovered": []}
        try:
            return _make(context, session, plan)
        except (UnfitParentError, CommandError) as error:
            if wanted != AUTO or plan.parent is None or not may_be_unfit(error):
                raise
            context.warn("A full base backup is taken, and no incremental one: %s" % error.message)
        full = "full: the server takes no incremental one"
        plan.parent, plan.reasons = None, (*plan.reasons[:-1], full)
        _plan_space(context, plan)
        return _make(context, session, plan)


# --- plan -------------------------------------------------------------------------------------------------------------


def _plan(context: Context, session: Session, wanted: str, there: Optional[S3Place], *, dry_run: bool) -> _Plan:
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
    settle_promoted(context, session, server, dry_run=dry_run)
    in_place = [name for (name,) in session.rows(_IN_PLACE)]
    if in_place:
        raise RefusedError(
            "The server has tablespaces inside its data directory (allow_in_place_tablespaces, for tests of PostgreSQL only): %s."
            % ", ".join(map(repr, in_place)),
            hint="No base backup with them can be put back: drop them, and make them in a directory of their own. Dumps hold what is in them.",
        )
    found = _tablespaces(session)
    if not checksums:
        context.warn(
            "This cluster has no data checksums, so a damaged block is copied without notice (pg_checksums --enable adds them)."
        )
    parent, upon = find_parent(context, session, server, wanted, there=there)
    apart = wanted != NEVER and server.major >= INCREMENTAL_MAJOR
    way, reason = choose_way(context, programs, tablespaces=bool(found), apart=apart, streamed=there is not None)
    listed = inventory.databases(session)
    lost = [one.name for one in listed if one.lost]
    if lost:
        raise LostError(
            "The server has no files of %s any more; a copy of it would not have them either."
            % ", ".join(map(repr, lost)),
            hint="Look at the server's log, and restore what is lost (pgops restore --list), or drop it.",
        )
    databases = [{"name": one.name, "bytes": one.bytes} for one in listed]
    reasons = (reason, *((upon,) if wanted != NEVER else ()))
    plan = _Plan(server, programs, way, reasons, found, databases, int(segment_bytes), bool(checksums), parent, there)
    _plan_space(context, plan)
    return plan


def _tablespaces(session: Session) -> list[Tablespace]:
    return [
        Tablespace(oid, name, path, Payload("base/%s.tar" % oid, "tar"), _size_of(session, oid))
        for oid, name, path in session.rows(_TABLESPACES)
    ]


def _size_of(session: Session, oid: str) -> int:
    """Return what a tablespace takes, -1 where this role may not know."""
    rows = session.allowed("SELECT pg_tablespace_size(%s::oid)", (oid,))
    return int(rows[0][0]) if rows and rows[0][0] is not None else -1


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
    ratio = (1.0 if plan.way.method == "none" else _GUESS) * (_CHANGED if plan.parent is not None else 1.0)
    catalog = Catalog(plan.there if plan.there is not None else context.local)
    for previous in [name for name in catalog.ids() if name.endswith("-" + plan.kind)][:1]:
        try:
            manifest = catalog.manifest(previous)
        except PgopsError:
            continue
        compressed = manifest.base is not None and manifest.base.payload.compression
        if manifest.base is not None and manifest.base.bytes and compressed == plan.way.method:
            ratio = 1.2 * manifest.size / manifest.base.bytes
    plan.estimate = int(plan.bytes * ratio) + 2 * plan.segment_bytes
    if plan.there is not None:
        plan.free = check_stream_room(context, plan.there, plan.estimate)
    else:
        plan.free = check_room(context, plan.estimate, elsewhere=True)


# --- make -------------------------------------------------------------------------------------------------------------


def _make(context: Context, session: Session, plan: _Plan) -> dict[str, Any]:
    started = context.clock()
    if plan.there is not None:
        return _make_there(context, session, plan, plan.there, started)
    name = free_id(context, plan.kind)
    with context.local.new_set(name) as folder:
        sink = Sink(context, folder, parse_size(context.config.backup.min_free))
        manifest = _fill(context, session, plan, sink, name=name, started=started)
        encoded = manifest.encode()
        (folder / NAME).write_bytes(encoded)
        (folder / NAME).chmod(0o640)
    return _result(context, manifest, content_hash(encoded), plan)


def _make_there(context: Context, session: Session, plan: _Plan, place: S3Place, started: datetime) -> dict[str, Any]:
    catalog = Catalog(place)
    name = free_id(context, plan.kind)
    while catalog.taken(name):
        time.sleep(0.1)
        name = free_id(context, plan.kind)
    with set_in_s3(context, place, name, plan.estimate) as sink:
        manifest = _fill(context, session, plan, sink, name=name, started=started)
        sent = {file.path for file in sink.sent}
        place.upload_all(name, [(file, sink.folder / file.path) for file in manifest.files if file.path not in sent])
        encoded = manifest.encode()
        place.publish(name, encoded)
    return _result(context, manifest, content_hash(encoded), plan)


def _fill(context: Context, session: Session, plan: _Plan, sink: Sink, *, name: str, started: datetime) -> Manifest:
    """Write all payloads of the set to `sink`, and return its manifest."""
    taken = _take(context, session, plan, sink)
    (epoch, next_xid), *_unused = session.rows(_END)
    stopped = datetime.fromtimestamp(epoch, timezone.utc)
    listing = _listing(sink, taken)
    own = _own_sizes(sink, taken) if plan.parent is not None or taken.tablespaces else {}
    base = Base(
        payload=taken.payload,
        stopped=iso(stopped),
        next_xid=int(next_xid),
        wal_segment_bytes=plan.segment_bytes,
        bytes=plan.bytes,
        checksums=plan.checksums,
        algorithm=context.config.base.manifest_checksums,
        listing=listing,
        tablespaces=_sized(taken.tablespaces, own, incremental=plan.parent is not None),
        databases=tuple(plan.databases),
        parent_content=plan.parent.source.content if plan.parent is not None else "",
        own_bytes=sum(own.values()) if plan.parent is not None else 0,
        list_sha256=keep_list(context, name, taken.inner_list),
        wal_directory=_wal_directory(context, plan.server),
        wal=taken.wal,
    )
    return _manifest(context, session, plan, sink, taken, base=base, name=name, started=started)


def _take(context: Context, session: Session, plan: _Plan, sink: Sink) -> Taken:
    """Take it into the folder of `sink`; the list of what it builds on is at hand for that long."""
    context.reporter.phase("%sbase backup" % ("" if plan.parent is None else "incremental "), plan.estimate)
    said = list[str]()
    with contextlib.ExitStack() as stack:
        upon: Optional[Path] = None
        if plan.parent is not None:
            folder = stack.enter_context(context.scratch("backup"))
            stack.enter_context(claimed(context, folder))
            upon = folder / LIST
            with create_private(upon) as stream:
                stream.write(plan.parent.listing)
        stack.enter_context(wal_kept(context))

        def present() -> list[Tablespace]:  # one that was dropped meanwhile is in it all the same
            now = {t.oid: t for t in (*plan.tablespaces, *_tablespaces(session))}
            return [now[oid] for oid in sorted(now, key=int)]

        def once(*, with_wal: bool) -> Taken:
            return take(context, plan.programs, sink, plan.way, present, parent_list=upon, with_wal=with_wal, said=said)

        try:
            taken = once(with_wal=True)
        except CommandError as error:
            if not is_gone(session, error, said, plan.segment_bytes):
                raise
            place, why = archive_with(context, plan.server.system_identifier, said, plan.segment_bytes)
            if place is None:
                raise without_archive(error, why) from None
            context.warn(_FROM_ARCHIVE % place.root)
            sink.begin_anew(FOLDER)
            taken = once(with_wal=False)
            _bring_wal(context, plan, sink, taken)
    context.reporter.done()
    if plan.parent is not None:  # the server may have been promoted since it was asked
        check_history(context, session, plan.parent, taken.timeline)
    return taken


_FROM_ARCHIVE = (
    "The server removed WAL that the base backup needs before it was whole, so it is taken a second time, and that WAL comes from the"
    " archive in %s. To need that no more, raise max_slot_wal_keep_size or wal_keep_size at the server."
)


def _bring_wal(context: Context, plan: _Plan, sink: Sink, taken: Taken) -> None:
    """Add the WAL that the base backup needs out of the archive."""
    context.reporter.phase("WAL of the base backup, from the archive", 0)
    listed = parse_list(_list_of(sink, taken))
    taken.wal, chunks = bring_wal(context, taken, plan.server.system_identifier, listed, plan.segment_bytes)
    level, recipients = context.config.base.compression_level, context.config.backup.recipients
    commands = codec.wrap(context.runner, taken.wal.layers, level=level, recipients=recipients)
    sink.stream(taken.wal.path, commands, source=chunks)


def _list_of(sink: Sink, taken: Taken) -> bytes:
    """Return PostgreSQL's own list of the base backup, empty where it lies in a tar that is not read again."""
    return taken.inner_list if taken.listing is None else (sink.folder / taken.listing.path).read_bytes()


def _own_sizes(sink: Sink, taken: Taken) -> dict[str, int]:
    """Return what the files take unpacked, as their list says, of each tablespace by its number, and the rest by an empty one."""
    raw = _list_of(sink, taken)
    found: dict[str, int] = {}
    for path, file in parse_list(raw).files.items() if raw else ():
        parts = path.split("/", 2)
        oid = parts[1] if parts[0] == "pg_tblspc" and len(parts) > 1 else ""
        found[oid] = found.get(oid, 0) + file.size
    return found


def _wal_directory(context: Context, server: Server) -> Optional[str]:
    """Return where the server has its WAL, empty for inside its data directory; None where that cannot be seen from here."""
    here = on_this_host(context.config.postgres)
    return wal_directory.of_server(server.data_directory, server.system_identifier) if here else None


def _sized(tablespaces: Sequence[Tablespace], own: Mapping[str, int], *, incremental: bool) -> tuple[Tablespace, ...]:
    """Return the tablespaces with what they take: the list of an incremental one tells only what is in it."""
    if not own:
        return tuple(tablespaces)
    if incremental:
        return tuple(replace(t, own_bytes=own.get(t.oid, 0)) for t in tablespaces)
    return tuple(replace(t, bytes=own.get(t.oid, 0)) for t in tablespaces)


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
        kind=plan.kind,
        started=iso(started),
        finished=iso(context.clock()),
        system_identifier=plan.server.system_identifier,
        server_version=plan.server.version,
        server_version_num=plan.server.version_num,
        tools={"pg_basebackup": plan.programs.version},
        engine=__version__,
        files=(*(sink.sent if isinstance(sink, StreamSink) else ()), *files_of(sink.folder)),
        parent=plan.parent.id if plan.parent is not None else None,
        timeline=taken.timeline,
        wal_start=taken.start,
        wal_end=taken.end,
        base=base,
        from_standby=plan.server.in_recovery,
        host=context.host,
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
        "place": "local" if plan.there is None else plan.there.name,
        "kind": plan.kind,
        "parent": manifest.parent,
        "chain": plan.chain,
        "set": manifest.id,
        "path": "%s/sets/%s" % ((plan.there or context.local).root, manifest.id),
        "content": content,
        "bytes": manifest.size,
        "files": len(manifest.files),
        "databases": [{"name": d["name"], "database_bytes": d["bytes"]} for d in plan.databases],
        "tablespaces": [{"name": t.name, "path": t.path} for t in manifest.base.tablespaces] if manifest.base else [],
        "timeline": manifest.timeline,
        "wal_start": manifest.wal_start,
        "wal_end": manifest.wal_end,
        "uncovered": [],
        "left_out": list(manifest.left_out),
        "choices": manifest.choices,
    }


__all__ = ("INCREMENTAL", "KIND", "backup_base")
