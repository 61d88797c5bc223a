# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What alerts are judged by, gathered: run records, places, locks, the schedule and the disk of this host."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

from ..alerts.state import NONE, State
from ..context import Context
from ..core.alerting import WATCHED, Disk, Due, Facts, Limits, Run, SetFacts
from ..core.errors import PgopsError
from ..core.freshness import Finding, restore_limit
from ..core.naming import is_set_id
from ..core.notices import safe_lines
from ..core.sizes import parse_size
from ..core.times import iso, parse_iso, parse_span
from ..core.wal_health import Holding
from ..host.schedule import Places, laid_down, started_by
from ..run_records import BASE_BACKUP, first_run, history
from ..system import durable
from ..system.durable import free_bytes
from ..system.lock import holder
from ..system.zones import named_zone
from .info import Request, calendars, describe, freshness
from .survey import Surveyed, configured, survey
from .wal_status import holding, wal_findings

_RECORDS = 30  # of each verb; more failures in a row are not counted
_DAYS = 21
_LOOK_AT_S3 = timedelta(hours=1)
_REMEMBERED_CLOCK = timedelta(days=1)
_LOCKS = {"backup": "backup", "sync": "sync", "verify": "verify", "prune": "sets"}
# Both kinds of backups hold the same lock.
_SAME = {"backup": ("backup", BASE_BACKUP)}
_LEFT_OUT_ON_PURPOSE = "it is in backup.exclude_databases"
_NOBODYS_CHOICE = ("vanished", "dropped", "interrupted")
_KEPT_OF_A_SET = (
    "id",
    "begun",
    "bytes",
    "complete",
    "verified",
    "proofs",
    "problem",
    "databases",
    "system_identifier",
    "host",
)
_STATE_FLOOR = 1 << 20  # bytes; a record has a few thousand
_UPTIME = Path("/proc/uptime")


@dataclass(frozen=True)
class Gathered:
    """The facts, what is still safe (sentences), and whether every place was looked at."""

    facts: Facts
    safe: tuple[str, ...]
    looked: bool = True


def limits(context: Context, facts: Facts) -> Limits:
    """Return when what is known is trouble, as the configuration says and, where it leaves that open, the facts."""
    alerts, schedule = context.config.alerts, context.config.schedule
    return Limits(
        grace=parse_span(alerts.grace or "1h") + parse_span(schedule.random_delay or "0s"),
        size_change=alerts.size_change,
        disk_days=parse_span(alerts.disk_days or "0s"),
        restore_test=restore_limit(alerts.restore_test, by_hand=facts.restored is not None, proven=facts.proven),
        allow_no_databases=context.config.backup.allow_no_databases,
        zone=named_zone(schedule.timezone),
        wait=parse_span(schedule.wait or "0s"),
    )


def gather(context: Context, state: State, *, look_at_s3: bool, remember: bool = True) -> Gathered:
    """Return what is known now, and let `state` remember what the next look needs.

    The S3 place is looked at when `look_at_s3` holds, when the last look is an hour old, or when that failed; with
    `remember` what it has proven is kept for the looks that leave it alone.
    """
    now = context.clock()
    state.watched_since = state.watched_since or _first_seen(context, state, now)
    places = _places(context, state, look_at_s3, remember, now)
    looked = state.s3 is None or state.s3_asked == now
    judged = [*freshness(context, places), *(_wal(context, state) if context.config.wal.enabled else ())]
    return Gathered(replace(known(context, state, places), judged=judged), safe_lines(places, now), looked)


def known(context: Context, state: State, places: list[dict[str, Any]]) -> Facts:
    """Return what is known of the described `places` and this host but for what is `judged`; `state` is as for gather()."""
    now = context.clock()
    state.watched_since = state.watched_since or _first_seen(context, state, now)
    runs = {verb: _runs(context, verb) for verb in WATCHED}
    boot = _boot(now)
    running, died = _signed(context, boot)
    state.cut_short = _cut_short({**state.cut_short, **died}, runs)
    return Facts(
        runs=runs,
        running=running,
        cut_short=state.cut_short,
        due=_due(context, state, now),
        sets=_sets(places),
        uncovered=_uncovered(context, state),
        known_uncovered=state.known_uncovered or (),
        disk=_disk(context, state, now),
        state=_state_disk(context),
        restored=_restored(context),
        proven=any(described["verified"] for place in places for described in place["sets"]),
        watched_since=state.watched_since,
        boot=boot,
        ahead=state.ahead[0] if state.ahead and now - state.ahead[1] < _REMEMBERED_CLOCK else None,
    )


def _first_seen(context: Context, state: State, now: datetime) -> datetime:
    """Return since when this host is watched: since the oldest record; where the memory is lost, since it is scheduled at all."""
    begun = first_run(context.state)
    known = [parse_iso(begun)] if begun else []
    if state.memory == NONE:
        known.append(_promised(context, now))
    return min([now, *known])


def _promised(context: Context, now: datetime) -> datetime:
    """Return since when the calendars are surely what they are, by the files that they come from; `now` where there is none."""
    moments = [laid_down(Places(), context.config.instance)]
    if context.config_file:
        with contextlib.suppress(OSError):
            moments.append(datetime.fromtimestamp(Path(context.config_file).stat().st_mtime, timezone.utc))
    return min(now, max((moment for moment in moments if moment is not None), default=now))


# --- places -----------------------------------------------------------------------------------------------------------


def _places(context: Context, state: State, look_at_s3: bool, remember: bool, now: datetime) -> list[dict[str, Any]]:
    has_s3 = "s3" in configured(context)
    old = state.s3_asked is None or now - state.s3_asked >= _LOOK_AT_S3 or now < state.s3_asked
    if not has_s3:
        state.s3, state.s3_asked = None, None
    elif state.s3 is None or look_at_s3 or old or not state.s3.get("reachable"):
        # First, as what is proven there is proven here, too.
        surveyed = survey(context, ("s3",), remember=remember)
        (seen,) = describe(context, Request(places=("s3",)), surveyed=surveyed)
        before, state.s3, state.s3_asked = state.s3, _kept(seen, state.s3), now
        if context.config.wal.enabled:
            state.s3["wal"] = _kept_wal(context, surveyed[0], before)
    found = describe(context, Request(places=("local",)), alone=True)
    return [*found, state.s3] if state.s3 is not None else found


def _kept(place: dict[str, Any], before: Optional[dict[str, Any]]) -> dict[str, Any]:
    """Return what is remembered of a look: what freshness and the state of the sets are judged by.

    While the place does not answer, its sets are taken to be as they were: that it does not answer is trouble enough.
    """
    kept = {key: place[key] for key in ("place", "root", "reachable", "error", "newest", "newest_verified")}
    sets = [{key: held.get(key) for key in _KEPT_OF_A_SET} for held in place["sets"]]
    if not place["reachable"] and before is not None:
        sets = before.get("sets") or []
    return {**kept, "sets": sets}


def _kept_wal(context: Context, surveyed: Surveyed, before: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """Return what is remembered of the WAL there; while it cannot be read, what was remembered before."""
    held = surveyed.held(context.warn)
    if held.error:
        return before.get("wal") if before else None
    seen = holding(surveyed.name, held, unmended=True)
    return {
        "gaps": list(seen.gaps),
        "contradictions": list(seen.contradictions),
        "recoverable_to": iso(seen.recoverable_to) if seen.recoverable_to else None,
        "segments": seen.segments,
        "damaged": list(seen.damaged),
        "bases": [list(base) for base in seen.bases],
        "stranded": [list(one) for one in seen.stranded],
        "newest": iso(seen.newest) if seen.newest else None,
        "disputed": [list(one) for one in seen.disputed],
    }


def _wal(context: Context, state: State) -> list[Finding]:
    seen = (state.s3 or {}).get("wal")
    if not isinstance(seen, dict):
        return wal_findings(context)
    reached = parse_iso(seen["recoverable_to"]) if seen["recoverable_to"] else None
    damaged, bases = seen.get("damaged", ()), [(str(one[0]), int(one[1])) for one in seen.get("bases", ())]
    held = Holding("s3", "", seen["gaps"], seen["contradictions"], reached, seen["segments"], damaged, bases)
    held = replace(
        held,
        stranded=[(str(one[0]), int(one[1])) for one in seen.get("stranded", ())],
        newest=parse_iso(seen["newest"]) if seen.get("newest") else None,
        disputed=[(str(one[0]), int(one[1])) for one in seen.get("disputed", ())],
    )
    return wal_findings(context, held)


def _sets(places: list[dict[str, Any]]) -> list[SetFacts]:
    found = []
    for place in places:
        for held in place["sets"]:
            proofs = held["proofs"] or {}
            failed = [level for level, proof in sorted(proofs.items()) if proof["outcome"] == "failed"]
            found.append(
                SetFacts(
                    set_id=held["id"],
                    place=place["place"],
                    size=int(held["bytes"] or 0),
                    databases=len(held["databases"] or ()),
                    failed=() if held["verified"] else tuple(failed),
                    problem=held.get("problem") or "",
                    whole=bool(held["complete"]),
                )
            )
    return sorted(found, key=lambda s: s.set_id, reverse=True)


# --- runs -------------------------------------------------------------------------------------------------------------


def _records(context: Context, verb: str) -> Iterator[dict[str, Any]]:
    found: Iterator[Any] = itertools.islice(history(context.state, verb), _RECORDS)
    yield from (record for record in found if isinstance(record, dict))


def _runs(context: Context, verb: str) -> list[Run]:
    return [run for run in (_run(verb, record) for record in _records(context, verb)) if run is not None]


def _run(verb: str, record: dict[str, Any]) -> Optional[Run]:
    """Return what a record tells, None for one that is not ours to understand."""
    try:
        size = record.get("bytes")
        return Run(
            verb,
            str(record["outcome"]),
            parse_iso(record["begun"]),
            parse_iso(record["ended"]),
            str(record.get("reason") or ""),
            int(size)
            if verb in ("backup", BASE_BACKUP)
            and size is not None
            and is_set_id(str(record.get("set")))
            and record.get("kind") != "incremental"  # as large as what changed
            else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, PgopsError):
        return None


def _restored(context: Context) -> Optional[datetime]:
    runs = [run for verb in ("restore", "recover", "rescue") for run in _runs(context, verb) if run.outcome == "ok"]
    return max((run.ended for run in runs), default=None)


def _uncovered(context: Context, state: State) -> list[str]:
    """Return the databases that the newest backup left out unasked; the first look takes them for known."""
    for record in _records(context, "backup"):
        found = _left_out(record)
        if found is None:
            continue
        known = state.known_uncovered
        if known is None:
            known = _always_uncovered(context) if state.memory == NONE else found
        # One that is gone is new when it comes back.
        state.known_uncovered = [name for name in known if name in found]
        return found
    return []


def _left_out(record: Any) -> Optional[list[str]]:
    """Return the databases that a backup left out unasked, or did not find any more, None where the record does not tell."""
    if not isinstance(record, dict) or record.get("outcome") != "ok" or record.get("skipped"):
        return None
    if not isinstance(record.get("uncovered"), list):
        return None
    gone = record.get("left_out")
    return [
        _shown(entry)
        for entry in (*record["uncovered"], *(gone if isinstance(gone, list) else ()))
        if isinstance(entry, dict)
        and str(entry.get("what")).startswith("database ")
        and entry.get("why") != _LEFT_OUT_ON_PURPOSE
    ]


def _shown(entry: dict[str, Any]) -> str:
    """Return the database as an alert calls it: with the reason, where that is no choice of anybody."""
    what, why = str(entry.get("what")), str(entry.get("why") or "")
    return "%s (%s)" % (what, why) if any(part in why for part in _NOBODYS_CHOICE) else what


def _always_uncovered(context: Context) -> list[str]:
    """Return the databases that every recorded backup left out, which nobody was told of as new. It reads every record."""
    known: Optional[list[str]] = None
    for record in history(context.state, "backup"):
        found = _left_out(record)
        if found is not None:
            known = found if known is None else [name for name in known if name in found]
    return known or []


def _signed(context: Context, boot: Optional[datetime]) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Return since when each verb is at work, and when each began whose process is gone without having let go of its lock."""
    found = {verb: holder(context.state / "locks" / ("%s.lock" % name)) for verb, name in _LOCKS.items()}
    removing, making = found["prune"], found["backup"]
    if removing and making and removing.pid == making.pid:
        # So that no backup begins, a prune holds that lock as well.
        found["backup"] = None
    running: dict[str, datetime] = {}
    died: dict[str, datetime] = {}
    for verb, held in found.items():
        if held is not None:
            try:
                since = parse_iso(held.since)
            except PgopsError:
                continue
            # After a boot its number may be somebody else's.
            alive = held.alive and not (boot is not None and since < boot)
            (running if alive else died)[verb] = since
    return running, died


def _cut_short(found: dict[str, datetime], runs: dict[str, list[Run]]) -> dict[str, datetime]:
    """Return those of `found` after which no other run of the verb has ended. The sign on the lock does not last as long."""
    return {
        verb: since
        for verb, since in found.items()
        if not any(run.ended >= since for name in _SAME.get(verb, (verb,)) for run in runs[name])
    }


def _due(context: Context, state: State, now: datetime) -> dict[str, Due]:
    """Return when this host starts what; a calendar that is new counts from now on."""
    known = calendars(context) if started_by(Places(), context.config.instance) else {}
    found = {}
    for verb, calendar in known.items():
        text, since = state.due.get(verb, ("", now))
        if state.memory == NONE and not text:
            since = _promised(context, now)
        elif text != calendar.text:
            since = now
        found[verb] = Due(calendar, since)
    state.due = {verb: (due.calendar.text, due.since) for verb, due in found.items()}
    return found


# --- the host ---------------------------------------------------------------------------------------------------------


def _disk(context: Context, state: State, now: datetime) -> Optional[Disk]:
    path = context.config.local.path
    try:
        free, no_inode = free_bytes(Path(path)), durable.no_inode(Path(path))
    except OSError:
        return None  # the local place is told of as a whole
    today = now.date()
    state.days[today] = min(free, state.days.get(today, free))
    state.days = {day: least for day, least in state.days.items() if (today - day).days < _DAYS}
    floor = parse_size(context.config.backup.min_free)
    return Disk(path, free, floor, dict(state.days), no_inode)


def _state_disk(context: Context) -> Optional[Disk]:
    try:
        free = durable.free_bytes(context.state)
        return Disk(str(context.state), free, _STATE_FLOOR, no_inode=durable.no_inode(context.state))
    except OSError:
        return None


def _boot(now: datetime) -> Optional[datetime]:
    try:
        return now - timedelta(seconds=float(_UPTIME.read_text(encoding="ascii").split()[0]))
    except (OSError, ValueError, IndexError):
        return None


__all__ = ("Gathered", "gather", "known", "limits")
