# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What an incremental base backup builds on: a set that is whole, of this very cluster, and since which the server knows what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.base_list import parse_list
from ..core.chain import full_due, unsummarized
from ..core.errors import DamagedError, MissingError, PgopsError, UsageError
from ..core.manifest import Base, Manifest
from ..core.naming import is_physical, is_set_id
from ..core.segments import parse_history, parse_lsn, show_lsn
from ..core.times import parse_span
from ..places.base import Place
from ..places.catalog import Catalog
from ..places.chains import chain_of, failed, problem
from ..postgres.base_taking import INCREMENTAL_MAJOR, UnfitParentError
from ..postgres.connection import Server, Session
from ..source import Source
from ..system.durable import make_dirs, write_bytes
from ..wal.holdings import histories, lineages
from .survey import configured, survey

AUTO, NEVER = "auto", "never"
_SUMMARIES = """
SELECT tli::bigint, (start_lsn - '0/0')::bigint, (end_lsn - '0/0')::bigint FROM pg_catalog.pg_available_wal_summaries()
"""
_SUMMARIZED = "SELECT (summarized_lsn - '0/0')::bigint FROM pg_catalog.pg_get_wal_summarizer_state()"
# Of a standby the control file knows what a base backup of it begins with.
_TIMELINE = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
  THEN greatest(c.timeline_id, r.min_recovery_end_timeline)
  ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END
FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r
"""
_HISTORY = "SELECT pg_catalog.pg_read_file(%s)"
_KEPT_LISTS = 64
_FORKED = "Take a full one: pgops backup --kind base --incremental never. Chains go on from there."
_HOW = "Set summarize_wal to on at the server (a reload is enough), and take a full base backup after that."


@dataclass(frozen=True)
class Parent:
    """A set to build on, PostgreSQL's own list of it, and the ids of what it stands on, the full one first and itself last."""

    source: Source
    listing: bytes
    chain: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its id."""
        return self.source.set_id


def wanted_parent(context: Context, asked: str) -> str:
    """Return what a run is to build on: `never`, `auto`, or the id of a set; an empty `asked` means base.incremental.

    Raise UsageError for what is none of these.
    """
    wanted = asked or context.config.base.incremental
    if wanted not in (AUTO, NEVER) and not (is_set_id(wanted) and is_physical(wanted)):
        raise UsageError(
            "%r is no base backup to build on." % wanted, hint="Give the id of one, or auto, or never for a full one."
        )
    return wanted


def find_parent(
    context: Context, session: Session, server: Server, wanted: str, *, there: Optional[Place] = None
) -> tuple[Optional[Parent], str]:
    """Return what to build on, None for a full base backup, and why.

    `there` is the place to which it is taken, None for this host. `wanted` is `never`, `auto` or an id. With auto, whatever keeps an
    incremental one from being taken is told as a warning, but for what the settings say. Raise RefusedError or MissingError if
    the set that was named cannot be built on.
    """
    if wanted == NEVER:
        return None, "full: incremental ones are not asked for"
    try:
        _check_server(session, server)
        catalog = Catalog(there) if there is not None else _local(context)
        found = _newest(context, catalog, server) if wanted == AUTO else _named(context, catalog, server, wanted)
        if found is None:
            return None, "full: there is none of this cluster to build on"
        due = _due(context, found) if wanted == AUTO else ""
        if due:
            return None, "full: %s" % due
        now = session.allowed(_TIMELINE)
        if now and now[0][0]:  # what it began with in the end is looked at when it is taken
            check_history(context, session, found, int(now[0][0]))
        _check_summaries(session, found)
    except UnfitParentError as error:
        if wanted != AUTO:
            raise
        context.warn("A full base backup is taken, and no incremental one: %s" % error)
        return None, "full: no incremental one can be taken"
    return found, "incremental: upon %s" % found.id


# --- the server -------------------------------------------------------------------------------------------------------


def _check_server(session: Session, server: Server) -> None:
    if server.major < INCREMENTAL_MAJOR:
        raise UnfitParentError(
            "Incremental base backups need PostgreSQL %d or newer, and this server is %s."
            % (INCREMENTAL_MAJOR, server.version),
            hint="Take full ones (base.incremental: never).",
        )
    if session.value("SELECT current_setting('summarize_wal')") != "on":
        raise UnfitParentError("The server keeps no summaries of its WAL: summarize_wal is off.", hint=_HOW)


def _check_summaries(session: Session, parent: Parent) -> None:
    """Raise UnfitParentError if the server does not know any more what changed since the parent.

    Where the role may not ask, or the parent is of an earlier timeline, the server itself finds out.
    """
    known = session.allowed(_SUMMARIES)
    reached = session.allowed(_SUMMARIZED)
    manifest = parent.source.manifest
    start, timeline = parse_lsn(manifest.wal_start or "0/0"), manifest.timeline or 1
    if known is None or not reached:
        return
    end = max((last for number, _first, last in known if number == timeline), default=0)
    if end <= start and reached[0][0] <= start:
        return  # the newest of them is to be written yet
    gap = unsummarized(known, timeline, start, end) if end > start else start
    if gap is not None:
        raise UnfitParentError(
            "The server has no summary of the WAL from %s on any more, and so does not know what changed since %s."
            % (show_lsn(gap), parent.id),
            hint="Take a full one. wal_summary_keep_time says how long the server keeps them, and summarize_wal must stay on.",
        )


def check_history(context: Context, session: Session, parent: Parent, timeline: int) -> None:
    """Raise UnfitParentError unless all that the parent holds lies in the past of `timeline`, that of the server.

    The server itself accepts a parent which ends behind the fork, and would so mix two histories.
    """
    manifest = parent.source.manifest
    own, end = manifest.timeline or 1, parse_lsn(manifest.wal_end or "0/0")
    if own == timeline:
        return
    ancestors = _history(context, session, manifest.system_identifier, timeline)
    fork = next((position for number, position, _reason in ancestors or () if number == own), None)
    if fork is not None and fork >= end:
        return
    why = "the history of that one cannot be read"
    if fork is not None:
        why = "that one left it at %s, before %s was whole (%s)" % (show_lsn(fork), parent.id, show_lsn(end))
    elif ancestors is not None:
        why = "that one does not come from it"
    raise UnfitParentError(
        "%s is of timeline %d, and the server is on timeline %d: %s." % (parent.id, own, timeline, why), hint=_FORKED
    )


def _history(
    context: Context, session: Session, system_identifier: str, timeline: int
) -> Optional[list[tuple[int, int, str]]]:
    """Return the ancestors of a timeline, as the server's own history file or the one in the archive says; None if there is none."""
    if timeline == 1:
        return []
    rows = session.allowed(_HISTORY, ("pg_wal/%08X.history" % timeline,))
    if rows:
        try:
            return parse_history(str(rows[0][0]))
        except ValueError as error:
            context.warn("The history of timeline %d at the server cannot be read: %s" % (timeline, error))
            return None
    for place in context.places():
        try:
            lineage = lineages(place).get(system_identifier)
            if lineage is not None and len(lineage.files.get("%08X.history" % timeline, ())) == 1:
                found = histories(place, lineage, context.warn).get(timeline)
                if found is not None:
                    return found
        except (PgopsError, OSError) as error:
            context.warn("The WAL in %s could not be listed: %s" % (place.root, error))
    return None


# --- the set ----------------------------------------------------------------------------------------------------------


def _due(context: Context, parent: Parent) -> str:
    settings = context.config.base
    begun = [parent.source.catalog.manifest(set_id).begun for set_id in parent.chain]
    every = parse_span(settings.full_every) if settings.full_every else None
    return full_due(begun, context.clock(), every, settings.chain_limit)


def _newest(context: Context, catalog: Catalog, server: Server) -> Optional[Parent]:
    """Return the newest base backup of the cluster, None if there is none.

    What is in S3 only is built on here when somebody says so: a chain should be whole in each place.
    """
    manifest = next(_manifests(catalog, server), None)
    return None if manifest is None else _parent(context, catalog, server, manifest.id)


def _manifests(catalog: Catalog, server: Server) -> Iterator[Manifest]:
    """Yield the manifests of base backups of the cluster, the newest first. Raise UnfitParentError for one that cannot be read."""
    for set_id in catalog.ids():
        if not is_physical(set_id):
            continue
        try:
            manifest = catalog.manifest(set_id)
        except PgopsError as error:
            raise UnfitParentError("%s cannot be read: %s" % (set_id, error.message)) from None
        if server.system_identifier in ("", manifest.system_identifier):
            yield manifest


def _named(context: Context, catalog: Catalog, server: Server, wanted: str) -> Parent:
    if catalog.place.name == "local" and wanted not in catalog.ids() and "s3" in configured(context):
        catalog = Catalog(context.s3())
        context.warn(
            "%s is in S3 only, so what is built on it can be recovered from there only, or when that is brought here, too"
            " (pgops sync --pull)." % wanted
        )
    return _parent(context, catalog, server, wanted)


def _local(context: Context) -> Catalog:
    """Return what lies on this host, with what is known of proofs made in S3."""
    (local,) = survey(context, ("local",), alone=True)
    if local.catalog is None:
        raise local.trouble or PgopsError("%s cannot be read." % local.root)
    return local.catalog


def _parent(context: Context, catalog: Catalog, server: Server, set_id: str) -> Parent:
    """Return the set as one to build on. Raise UnfitParentError if that would not be good, MissingError if there is none."""
    manifest = catalog.manifest(set_id)
    base = manifest.base
    if base is None:
        raise UnfitParentError("The manifest of %s describes no base backup." % set_id)
    if server.system_identifier not in ("", manifest.system_identifier):
        raise UnfitParentError(
            "%s is of another cluster: it says %s, and this server is %s."
            % (set_id, manifest.system_identifier, server.system_identifier)
        )
    try:
        chain = chain_of(catalog, set_id)
    except (DamagedError, MissingError) as error:
        raise UnfitParentError(error.message, hint=error.hint) from None
    missing = problem(catalog, manifest)
    if missing:
        raise UnfitParentError("%s is not whole: %s" % (set_id, missing))
    bad = failed(catalog, [m.id for m in chain])
    if bad:
        raise UnfitParentError("%s failed its verification." % bad, hint="Nothing is built on what may be damaged.")
    source = Source(context, catalog, set_id)
    return Parent(source, _list_of(source, base), tuple(m.id for m in chain))


# --- PostgreSQL's own list of a set -----------------------------------------------------------------------------------


def keep_list(context: Context, set_id: str, raw: bytes) -> str:
    """Keep PostgreSQL's list of a set in whose tar it lies where this host cannot get at it, and forget the oldest ones.

    Return its SHA-256, empty if there is none.
    """
    folder = _lists(context)
    if not raw:
        return ""
    names = sorted(path.name for path in folder.iterdir() if is_set_id(path.name)) if folder.is_dir() else []
    for name in names[: -_KEPT_LISTS + 1]:
        (folder / name).unlink(missing_ok=True)
    try:
        make_dirs(folder, 0o700)
        write_bytes(folder / set_id, raw)
    except OSError as error:
        context.warn(
            "Nothing can be built on this set, as its list cannot be kept in %s: %s." % (folder, error.strerror)
        )
        return ""
    return hashlib.sha256(raw).hexdigest()


def _lists(context: Context) -> Path:
    return context.state / "lists"


def _list_of(source: Source, base: Base) -> bytes:
    """Return PostgreSQL's list of the set. Raise UnfitParentError if it cannot be had."""
    if base.listing is not None:
        try:
            raw = source.content_of(base.listing)
            parse_list(raw)
        except (DamagedError, MissingError) as error:
            raise UnfitParentError(error.message) from None
        return raw
    if not base.list_sha256:
        raise UnfitParentError(
            "The list of the files of %s lies inside its tar, where nothing can build on it." % source.set_id,
            hint="Take a full one with base.incremental: auto, or with --incremental auto.",
        )
    try:
        raw = (_lists(source.context) / source.set_id).read_bytes()
    except OSError:
        raw = b""
    if hashlib.sha256(raw).hexdigest() != base.list_sha256:
        raise UnfitParentError(
            "The list of the files of %s lies inside its tar, and this host has no copy." % source.set_id,
            hint="Take a full one on this host.",
        )
    return raw


__all__ = ("AUTO", "NEVER", "Parent", "check_history", "find_parent", "keep_list", "wanted_parent")
