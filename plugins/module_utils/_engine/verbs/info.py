# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Info: what the places hold, what is proven, how fresh it is, and what retention would remove. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Optional

from ..context import Context
from ..core.calendar import Calendar, parse
from ..core.commands import addressed
from ..core.fingerprint import summary
from ..core.freshness import Facts, Finding, Limits, Seen, judge, limits, waited_for, worst
from ..core.lineages import Taken, entwined, growing, newest_of_each
from ..core.manifest import Database, Manifest
from ..core.naming import is_physical
from ..core.times import CLOCK_TOLERANCE, iso, parse_iso, parse_span
from ..places.catalog import Catalog
from ..places.chains import broken, chain_of
from ..run_records import BASE_BACKUP
from ..settings import base_calendar
from .pins import read_pin
from .survey import Surveyed, configured, decide, survey


@dataclass(frozen=True)
class Request:
    """Which places to look at (all configured ones when empty); `details` adds sizes and fingerprint summaries."""

    places: tuple[str, ...] = ()
    details: bool = False


def info(context: Context, request: Request, surveyed: Optional[Sequence[Surveyed]] = None) -> dict[str, Any]:
    """Return the catalogs of the places with `freshness` findings and an overall `state` (ok, warning, critical).

    `surveyed` are the places, if somebody has looked at them already.
    A place that cannot be read is reported with its error instead of raising. Freshness is about the places asked for.
    Raise UsageError for a place that is not configured.
    """
    places = describe(context, request, surveyed=surveyed)
    findings = freshness(context, places)
    if request.places:
        findings = [f for f in findings if _about(f, request.places)]
    return {
        "changed": False,
        "places": places,
        "freshness": [finding.as_data() for finding in findings],
        "state": worst(finding.severity for finding in findings),
    }


def describe(
    context: Context,
    request: Request,
    *,
    surveyed: Optional[Sequence[Surveyed]] = None,
    remember: bool = False,
    alone: bool = False,
) -> list[dict[str, Any]]:
    """Return what each place holds, as info() has it in `places`; `remember` and `alone` are as for survey().

    `surveyed` are the places, if somebody has looked at them already.

    Raise UsageError for a place that is not configured.
    """
    found = survey(context, request.places, remember=remember, alone=alone) if surveyed is None else surveyed
    return [_place(context, one, request.details) for one in found]


def freshness(context: Context, places: list[dict[str, Any]]) -> list[Finding]:
    """Judge what describe() gave of all places."""
    found = judge(_facts(context, places), expected(context), context.clock())
    return [replace(finding, text=addressed(finding.text, context.config_file)) for finding in found]


def calendars(context: Context) -> dict[str, Calendar]:
    """Return when each verb runs by itself, as the configuration says; without those that do not."""
    schedule = context.config.schedule
    texts = {verb: str(getattr(schedule, verb)) for verb in ("backup", "sync", "verify", "prune")}
    texts[BASE_BACKUP] = base_calendar(schedule.base, archived=context.config.wal.enabled)
    if "s3" not in configured(context):
        del texts["sync"]
    return {verb: parse(text) for verb, text in texts.items() if text}


def expected(context: Context) -> Limits:
    """Return how old things may become, as the schedule of the configuration has it."""
    found = calendars(context)
    delay = parse_span(context.config.schedule.random_delay or "0s")
    return limits(found.get("backup"), found.get("sync"), found.get("verify"), delay, base=found.get(BASE_BACKUP))


def _about(finding: Finding, places: tuple[str, ...]) -> bool:
    """Tell whether `finding` can be judged from `places` alone."""
    return "s3" in places or "off-site" not in finding.check


def _place(context: Context, surveyed: Surveyed, details: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "place": surveyed.name,
        "root": surveyed.root,
        "reachable": surveyed.trouble is None,
        "error": str(surveyed.trouble) if surveyed.trouble else None,
        "sets": [],
        "unfinished": [],
        "strays": [],
        "retention": {"keep": [], "remove": []},
        "total_bytes": 0,
        "newest": None,
        "newest_verified": None,
        "windows": [],
    }
    catalog = surveyed.catalog
    if catalog is None:
        return result
    sets = [_describe(context, surveyed, catalog, set_id, details) for set_id in catalog.ids()]
    past = catalog.past(context.clock(), context.warn)
    result.update(
        sets=sets,
        unfinished=catalog.unfinished,
        strays=catalog.strays,
        retention=_retention(context, surveyed),
        total_bytes=catalog.total_bytes,
        newest=next((s["id"] for s in sets if s["complete"] and s["id"] in past), None),
        newest_verified=next((s["id"] for s in sets if s["complete"] and s["verified"] and s["id"] in past), None),
    )
    if context.config.wal.enabled:
        held = surveyed.held(context.warn)
        result["windows"] = [window.as_data() for window in held.windows]
        if held.error:
            context.warn("What the WAL in %s allows is unknown: %s" % (surveyed.root, held.error))
    return result


def _describe(context: Context, surveyed: Surveyed, catalog: Catalog, set_id: str, details: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": set_id,
        "kind": set_id.rpartition("-")[2],
        "bytes": catalog.stored_bytes(set_id),
        "verified": False,
        "proofs": {},
        "pinned": set_id in surveyed.pins,
        "complete": False,
    }
    if details:
        described["pin"] = read_pin(catalog.place, set_id) if described["pinned"] else None
    if set_id in surveyed.damaged:
        return {**_unknown(), **described, "problem": "Its manifest cannot be read: %s" % surveyed.damaged[set_id]}
    manifest = catalog.manifest(set_id)
    problem = broken(catalog, manifest)
    proofs = catalog.proof(set_id)
    described.update(
        begun=iso(manifest.begun),
        ended=iso(manifest.ended),
        age_seconds=(context.clock() - manifest.begun).total_seconds(),
        files=len(manifest.files),
        databases=manifest.database_names,
        verified=catalog.verified(set_id),
        proofs={level: {"outcome": p.outcome, "when": iso(p.when)} for level, p in proofs.items() if p is not None},
        encryption=manifest.encryption,
        server_version=manifest.server_version,
        system_identifier=manifest.system_identifier,
        host=manifest.host,
        parent=manifest.parent,
        chain=[] if problem or manifest.parent is None else [m.id for m in chain_of(catalog, set_id)[:-1]],
        complete=not problem,
        problem=problem,
        warnings=list(manifest.warnings),
    )
    if details:
        described["contents"] = [_contents(database, manifest) for database in manifest.databases]
    return described


def _unknown() -> dict[str, Any]:
    """Return the keys that only a manifest can fill, so that every set has them."""
    blank = dict.fromkeys(("begun", "ended", "age_seconds", "encryption", "server_version", "parent"))
    blank.update(system_identifier=None, host=None)
    return {**blank, "files": 0, "databases": [], "warnings": [], "chain": []}


def _contents(database: Database, manifest: Manifest) -> dict[str, Any]:
    """Sum up a database: its sizes and what its fingerprint counted (None where none was taken)."""
    counted: Optional[dict[str, Any]] = None
    if database.fingerprint:
        try:
            counted = summary(database.fingerprint)
        except (KeyError, TypeError, AttributeError):  # a fingerprint of another version's making
            counted = None
    return {
        "name": database.name,
        "bytes": database.bytes,
        "dump_bytes": sum(file.size for file in manifest.files_of(database.dump)),
        "seconds": database.seconds,
        "format": database.dump.format,
        "fingerprint": counted,
    }


def _retention(context: Context, surveyed: Surveyed) -> dict[str, Any]:
    decided = decide(surveyed, context)
    keep = [{"set": d.id, "reasons": list(d.reasons)} for d in decided.decisions if d.keep]
    keep += [{"set": set_id, "reasons": ["its manifest cannot be read"]} for set_id in surveyed.damaged]
    keep.sort(key=lambda kept: str(kept["set"]), reverse=True)
    remove = [{"set": d.id, "reasons": list(d.reasons)} for d in decided.decisions if not d.keep]
    return {"keep": keep, "remove": remove}


def _facts(context: Context, places: list[dict[str, Any]]) -> Facts:
    """Gather what freshness is judged by, from the described places.

    Where there are dumps, they are what is scheduled and waited for, and a base backup takes the place of none.
    """
    by_name = {place["place"]: place for place in places}
    every = [s for place in places for s in place["sets"] if s["complete"]]
    # The sets of another cluster answer no question about this one.
    mixed = _taken(every)
    own = _own(by_name.get("local", {}).get("sets", []))
    strange = {*entwined(mixed)} - {own} if own else set[str]()
    every = [s for s in every if s.get("system_identifier") not in strange]
    whole = waited_for(every)
    proven = [Seen(s["id"], parse_iso(s["proofs"]["restore"]["when"])) for s in whole if s["verified"]]
    offsite = by_name.get("s3", {})
    latest = context.clock() + CLOCK_TOLERANCE
    past = [seen for seen in map(_seen, whole) if seen.when <= latest]
    bases = [seen for seen in map(_seen, every) if seen.when <= latest and is_physical(seen.set_id)]
    away = [s["id"] for s in offsite.get("sets", []) if s["complete"] and s.get("system_identifier") not in strange]
    return Facts(
        newest=max(past, key=_when, default=None),
        oldest=min(past, key=_when, default=None),
        offsite=max((seen for seen in past if seen.set_id in away), key=_when, default=None),
        verified=max(proven, key=_when, default=None),
        base=max(bases, key=_when, default=None),
        base_offsite=max((seen for seen in bases if seen.set_id in away), key=_when, default=None),
        ahead=max((seen for seen in map(_seen, every) if seen.when > latest), key=_when, default=None),
        clusters=tuple(newest_of_each(mixed, growing(mixed, context.clock()))),
        has_offsite="s3" in configured(context),
        offsite_error=offsite.get("error") or "",
        local_error=by_name.get("local", {}).get("error") or "",
    )


def _taken(sets: Sequence[Mapping[str, Any]]) -> list[Taken]:
    """Return the described sets of all places, each once. Two hosts may have taken one each in the same second."""
    found = {(s["id"], s.get("system_identifier")): s for s in sets}
    return [
        Taken(s["id"], parse_iso(s["begun"]), s.get("system_identifier") or "", s.get("host") or "")
        for s in found.values()
    ]


def _own(sets: Sequence[Mapping[str, Any]]) -> str:
    """Return the cluster of this host: that of the newest whole set in its own place; empty where nobody can tell."""
    known = [s for s in sets if s["complete"] and s.get("system_identifier")]
    return str(max(known, key=lambda s: str(s["id"]))["system_identifier"]) if known else ""


def _seen(described: Mapping[str, Any]) -> Seen:
    return Seen(described["id"], parse_iso(described["begun"]))


def _when(seen: Seen) -> datetime:
    return seen.when


__all__ = ("Request", "calendars", "describe", "expected", "freshness", "info")
