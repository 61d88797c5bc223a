# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Prune: remove from each place what its own retention rules do not keep, and what killed runs left behind."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Callable

from ..context import Context
from ..core.errors import PgopsError, RefusedError, UnreachableError, UsageError
from ..core.lineages import Taken, over
from ..core.naming import is_physical
from ..core.retention import reach
from ..core.sizes import human_size
from ..core.times import iso
from ..places.base import SETS, Place
from ..places.catalog import Catalog, readable
from ..places.local import LocalPlace
from ..wal.holdings import bases_of, lineages, spare
from .survey import Surveyed, configured, decide, rules, survey
from .turn import Turn, whose_turn

# An upload that was cut off leaves a folder without a manifest; a later sync goes on with it, so it gets a while.
_UNFINISHED_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Request:
    """Which places to prune (all configured ones when empty), and whether only to show what would go.

    `clusters` are the system identifiers of earlier clusters whose WAL is to go whole, from all places.
    """

    places: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    dry_run: bool = False


def prune(context: Context, request: Request) -> dict[str, Any]:
    """Prune the places and return `changed` and, per place, what was kept and removed with the reasons.

    `wal_clusters` are the earlier clusters whose WAL nobody comes to need any more, as _clear_wal() tells them. It goes only where
    somebody asks for it: that no place has a base backup of a cluster is also what a disk that is not mounted looks like.

    In a group of servers only the chosen node prunes the S3 place; on the others `skipped` of that place says who does, and
    of the result, too, where there is nothing else to prune.

    A place that fails does not keep the others from being pruned. Raise BusyError while a backup, sync, verification
    or restore runs; UsageError for a place that is not configured; RefusedError for a cluster with which it is not
    over; and at the end, if a place failed, an error that says how every place fared: UnreachableError if all that failed
    were out of reach, else PgopsError.
    """
    with _locks(context, request.dry_run):
        results: list[dict[str, Any]] = []
        failures: dict[str, PgopsError] = {}
        told: list[dict[str, Any]] = []
        turn = Turn()
        places = survey(context, request.places, remember=not request.dry_run)
        # By what all places hold before anything goes: once, and where somebody has to know.
        ended = functools.cache(functools.partial(_ended, context, places))
        _refuse_needed(context, request, ended)
        for surveyed in places:
            context.reporter.phase("prune %s" % surveyed.name)
            result = _empty(surveyed)
            results.append(result)
            try:
                if surveyed.name == "s3":
                    turn = whose_turn(context)
                    result["skipped"] = turn.left_to
                    if not turn.mine:
                        continue
                _prune_place(context, surveyed, result, request.dry_run)
                if context.config.wal.enabled:
                    told += _clear_wal(context, surveyed, result, request, ended)
            except PgopsError as error:
                failures[surveyed.name] = error
            except OSError as error:
                failures[surveyed.name] = PgopsError("%s: %s." % (error.filename or surveyed.root, error.strerror))
            context.reporter.done()
    if failures:
        raise _failure(results, failures, told)
    if all(result["skipped"] for result in results):
        return turn.skipped()
    return {
        "changed": any(_changed(result) for result in results),
        "places": results,
        "wal_clusters": told,
        **turn.facts,
    }


def _refuse_needed(context: Context, request: Request, ended: Callable[[], tuple[str, ...]]) -> None:
    """Refuse to remove the WAL of a cluster that somebody may come to need, before anything is removed."""
    if not request.clusters:
        return
    if not context.config.wal.enabled:
        raise UsageError(
            "The WAL of a cluster is only looked at where wal.enabled is set.",
            hint="Set it for this run: --set wal.enabled=true.",
        )
    if request.places:
        raise UsageError("The WAL of a cluster goes from all places at once.", hint="Name no place beside it.")
    for identifier in request.clusters:
        if identifier not in ended():
            raise RefusedError(
                "Somebody may need the WAL of the cluster %s: it is the one in use, some place has a base backup of it, not all"
                " places could be read, or something of it came within the time that the retention rules reach back."
                % identifier,
                hint="pgops prune --dry-run names the clusters whose WAL nobody needs. Nothing was removed.",
            )


@contextlib.contextmanager
def _locks(context: Context, dry_run: bool) -> Iterator[None]:
    """Hold both locks: nobody reads a set that we remove, and no backup writes what we take for a leftover."""
    if dry_run:
        yield
        return
    with context.lock("backup"), context.lock("sets"):
        yield


def _empty(surveyed: Surveyed) -> dict[str, Any]:
    return {
        "place": surveyed.name,
        "root": surveyed.root,
        "kept": [],
        "removed": [],
        "unfinished": [],
        "leftovers": [],
        "wal_removed": 0,
        "freed_bytes": 0,
        "skipped": "",
    }


def _prune_place(context: Context, surveyed: Surveyed, result: dict[str, Any], dry_run: bool) -> None:
    if surveyed.trouble is not None:
        raise surveyed.trouble
    catalog = surveyed.catalog
    if catalog is None:
        return
    # Leftovers go first: where the disk is full, this alone may be what lets the rest work.
    if isinstance(catalog.place, LocalPlace):
        _clear_leftovers(context, catalog.place, result, dry_run)
    decided = decide(surveyed, context)
    for decision in decided.decisions:
        if decision.keep:
            result["kept"].append({"set": decision.id, "reasons": list(decision.reasons)})
    for set_id, trouble in sorted(surveyed.damaged.items(), reverse=True):
        result["kept"].append({"set": set_id, "reasons": ["its manifest cannot be read"]})
        context.warn(
            "The set %s in %s stays, as its manifest cannot be read: %s Remove it by hand when you are sure that "
            "nobody needs it." % (set_id, surveyed.root, trouble)
        )
    result["kept"].sort(key=lambda kept: kept["set"], reverse=True)
    for decision in decided.decisions:
        if not decision.keep:
            size = catalog.stored_bytes(decision.id)
            if not dry_run:
                context.reporter.note("removing %s from %s" % (decision.id, surveyed.root))
                size = catalog.place.delete_set(decision.id)
            result["removed"].append({"set": decision.id, "reasons": list(decision.reasons), "bytes": size})
            result["freed_bytes"] += size
    _clear_unfinished(context, surveyed, catalog, result, dry_run)


def _clear_wal(
    context: Context,
    surveyed: Surveyed,
    result: dict[str, Any],
    request: Request,
    ended: Callable[[], tuple[str, ...]],
) -> list[dict[str, Any]]:
    """Remove from a place that was pruned the WAL that lies before every base backup that stays, and that of the clusters that
    somebody asks for and with which it is over. Return those with which it is: a list of {place, system_identifier, files, bytes,
    newest, removed}. In doubt about one, all of it stays.

    Where there is S3, the spool of this host is else cleared by wal ship, which knows what has arrived there.
    """
    catalog = surveyed.catalog
    if catalog is None:
        return []
    is_spool = isinstance(catalog.place, LocalPlace) and context.config.s3 is not None
    removed = {entry["set"] for entry in result["removed"]}
    bases, unread = bases_of(catalog, [set_id for set_id in catalog.ids() if set_id not in removed])
    if unread:
        if not is_spool:
            context.warn(
                "All WAL in %s stays, as the manifest of %s does not tell what it needs." % (surveyed.root, unread[0])
            )
        return []
    held = lineages(catalog.place)
    based = {base.system_identifier for base in bases}
    told: list[dict[str, Any]] = []
    for identifier, lineage in sorted(held.items()):
        if identifier not in based and identifier in ended():
            entries = [*lineage.entries(), *lineage.marks]
            newest, size = max(entry.modified for entry in entries), sum(entry.size for entry in entries)
            facts = {"system_identifier": identifier, "files": len(entries), "bytes": size, "newest": iso(newest)}
            told.append({"place": surveyed.name, **facts, "removed": identifier in request.clusters})
            if identifier not in request.clusters:
                continue
        elif is_spool:
            continue
        else:
            names = spare(catalog.place, lineage, bases)
            entries = [entry for name in sorted(names) for entry in lineage.files[name]]
        if entries and not request.dry_run:
            catalog.place.delete(entry.path for entry in entries)
        result["wal_removed"] += len(entries)
        result["freed_bytes"] += sum(entry.size for entry in entries)
    return told


def _ended(context: Context, places: list[Surveyed]) -> tuple[str, ...]:
    """Return the clusters whose WAL nobody comes to need any more, by what all places hold; none where one cannot be read."""
    ages: dict[str, dict[str, datetime]] = {}
    sets: list[Taken] = []
    based: set[str] = set()
    try:
        for name in configured(context):
            surveyed = next((one for one in places if one.name == name), None)
            catalog = surveyed.catalog if surveyed is not None else Catalog(context.place(name))
            if catalog is None:
                return ()
            for set_id in catalog.ids():
                if is_physical(set_id) or readable(catalog, set_id) is None:
                    manifest = catalog.manifest(set_id)
                    sets.append(Taken(set_id, manifest.begun, manifest.system_identifier))
                    based |= {manifest.system_identifier} if is_physical(set_id) else set()
            for identifier, lineage in lineages(catalog.place).items():
                # A file that came to one place late is as old as another one says that had it before.
                of_it = ages.setdefault(identifier, {})
                for entry in (*lineage.entries(), *lineage.marks):
                    of_it[entry.path] = min(entry.modified, of_it.get(entry.path, entry.modified))
    except (PgopsError, OSError) as error:
        context.warn("Whether WAL of earlier clusters is needed was not found out, so it stays: %s" % error)
        return ()
    span = max(reach(rules(context, name)) for name in configured(context))
    newest = {identifier: max(of_it.values()) for identifier, of_it in ages.items() if of_it}
    return over(newest, sets, based, context.clock(), span)


def _clear_leftovers(context: Context, place: LocalPlace, result: dict[str, Any], dry_run: bool) -> None:
    look = place.leftovers if dry_run else place.clear_leftovers
    # Without the lock of a real run, what a pull is at is nobody's rest.
    found = look(context.clock(), repairs=not dry_run)
    result["leftovers"] = [{"path": path, "bytes": size} for path, size in sorted(found.items())]
    result["freed_bytes"] += sum(found.values())


def _clear_unfinished(
    context: Context, surveyed: Surveyed, catalog: Catalog, result: dict[str, Any], dry_run: bool
) -> None:
    """Remove the remains of uploads that were cut off long ago.

    In the local place a set appears whole by one rename, so a folder without a manifest there was made or damaged by
    somebody; it is reported and stays.
    """
    for set_id in catalog.unfinished:
        files = catalog.files(set_id)
        if isinstance(catalog.place, LocalPlace):
            context.warn(
                "%s/%s/%s has no manifest, so it is no backup, and no run of ours leaves such a folder. It stays; look "
                "at it and remove it by hand." % (surveyed.root, SETS, set_id)
            )
            continue
        age = context.clock() - max(entry.modified for entry in files.values())
        if age <= _UNFINISHED_AFTER or set_id in surveyed.pins:
            continue
        size = sum(entry.size for entry in files.values())
        if not dry_run:
            _delete_files(catalog.place, set_id, list(files))
        result["unfinished"].append({"set": set_id, "bytes": size})
        result["freed_bytes"] += size


def _delete_files(place: Place, set_id: str, inner: list[str]) -> None:
    place.delete("%s/%s/%s" % (SETS, set_id, path) for path in inner)


def _changed(result: dict[str, Any]) -> bool:
    return bool(result["removed"] or result["unfinished"] or result["leftovers"] or result["wal_removed"])


def _failure(results: list[dict[str, Any]], failures: dict[str, PgopsError], ended: list[dict[str, Any]]) -> PgopsError:
    fared = []
    for result in results:
        name = result["place"]
        done = "%d sets removed, %s freed" % (len(result["removed"]), human_size(result["freed_bytes"]))
        if name in failures:
            fared.append("%s failed after %s: %s" % (name, done, failures[name]))
        else:
            fared.append("%s: %s." % (name, done))
    out_of_reach = all(isinstance(error, UnreachableError) for error in failures.values())
    kind = UnreachableError if out_of_reach else PgopsError
    text = "Pruning failed in %d of %d places. %s" % (len(failures), len(results), " ".join(fared))
    error = kind(text, hint="What could not be removed is removed by the next run.")
    error.details = {"changed": any(map(_changed, results)), "places": results, "wal_clusters": ended}
    return error


__all__ = ("Request", "prune")
