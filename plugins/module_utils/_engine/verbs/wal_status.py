# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""WAL status: how the server archives, what waits, how long there is room, and to which moments each place can go back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.commands import addressed
from ..core.errors import PgopsError
from ..core.freshness import Finding, worst
from ..core.sizes import human_size, parse_size
from ..core.times import human_span, iso, parse_iso, parse_span
from ..core.wal_health import Bounds, Holding, Room, ServerWal, Shipping, behind, judge
from ..postgres.archiver import ask
from ..postgres.connection import connect
from ..run_records import history
from ..system.durable import free_bytes
from ..wal.asking import staying
from ..wal.fetch import decryption
from ..wal.holdings import Held
from ..wal.newest import ARRIVAL, TRANSACTION, Newest, Reach
from ..wal.shipping import last_state
from .settling import unsettled
from .survey import Surveyed, survey

_HOUR = timedelta(hours=1)
# A burst of a few seconds is no pace.
_SHORTEST = timedelta(minutes=10)
Result = dict[str, Any]


def wal_status(context: Context, surveyed: Optional[Sequence[Surveyed]] = None) -> Result:
    """Return `server`, `staying` (staying(), None without one), `spool`, `shipping` (None without S3), `places` with their `windows`,
    `findings` and `state`.

    Each place has `rpo_seconds`, how old the newest transaction is that a recovery from there would bring back, and `recovery_point`,
    when that was committed; `rpo_by` says by what that is known (`transaction`, `segment` or `arrival`, see Reach). By its arrival
    alone it is not: both are None then.
    `surveyed` are the places, if somebody has looked at them already. What cannot be reached is reported with its error. It
    changes nothing but what this host remembers of the newest segments. Positions are LSNs as texts, moments ISO 8601, sizes bytes.
    """
    result = _look(context, survey(context) if surveyed is None else surveyed)[0]
    if context.config_file:
        result["staying"] = staying(context.config_file, context.local.home)
    return result


def wal_findings(context: Context, away: Optional[Holding] = None) -> list[Finding]:
    """Judge the archiving as wal_status() does, without asking S3: how that fares is told by the newest shipping.

    `away` is what S3 held when somebody looked last. Where there is S3, the WAL here is only the newest, and what it lacks
    says nothing. Of gaps, those count that no younger base backup has made up for.
    """
    (local,) = survey(context, ("local",), alone=True)
    here = holding("local", local.held(context.warn), unmended=True)
    if context.config.s3 is not None:
        here = dataclasses.replace(here, gaps=(), segments=0, stranded=(), newest=None)
    return _look(context, [local], [here, *([away] if away is not None else [])])[1]


def _look(
    context: Context, surveyed: Sequence[Surveyed], holdings: Optional[Sequence[Holding]] = None
) -> tuple[Result, list[Finding]]:
    now = context.clock()
    server, server_facts, server_error = _ask_server(context)
    places = {one.name: one for one in surveyed}
    held = {name: one.held(context.warn) for name, one in places.items()}
    spool, room = _spool(context, held.get("local", Held()))
    own_disk = _own_disk(context, server, server_facts, now)
    shipping = _shipping(context) if context.config.s3 is not None else None
    wal = context.config.wal
    bounds = Bounds(parse_span(wal.max_lag), parse_size(wal.max_backlog), parse_span(wal.ship_every))
    reaches: dict[str, Reach] = {}
    if holdings is None:
        reaches = _reaches(context, places, held, server_facts)
        holdings = [holding(*one) for one in held.items()]
    judged = judge(server, server_error, shipping, room, holdings, bounds, now, own_disk=own_disk)
    findings = [dataclasses.replace(f, text=addressed(f.text, context.config_file)) for f in judged]
    result = {
        "changed": False,
        "now": iso(now),
        "server": _server(server, server_facts, now, own_disk) if server else None,
        "server_error": server_error or None,
        "staying": None,
        "spool": spool,
        "shipping": _shipping_data(shipping),
        "places": [_place(one, held[name], reaches.get(name, Reach()), now) for name, one in places.items()],
        "max_backlog_bytes": bounds.backlog,
        "findings": [finding.as_data() for finding in findings],
        "state": worst(finding.severity for finding in findings),
    }
    return result, findings


def _ask_server(context: Context) -> tuple[Optional[ServerWal], Result, str]:
    try:
        with connect(context.config.postgres) as session:
            server, facts = ask(session, context.clock)
            where = {"data_directory": facts["data_directory"], "in_recovery": server.in_recovery}
            server = dataclasses.replace(server, unsettled=unsettled(context.config.postgres, session, **where))
    except PgopsError as error:
        return None, {}, str(error)
    return server, facts, ""


def wal_facts(context: Context) -> Result:
    """Return what the record of a backup keeps of the WAL: `timeline` and `timeline_before` (that of the newest record before,
    None where none tells), `current_lsn`, `last_archived`, `lag_bytes`, `lag_seconds`, `ready`, `failing`, and with S3 what
    waits for it (`pending`, `pending_bytes`); or `error`, why the server does not tell.
    """
    server, facts, error = _ask_server(context)
    if server is None:
        return {"error": error}
    known = _server(server, facts, context.clock(), None)
    kept = ("timeline", "current_lsn", "last_archived", "lag_bytes", "lag_seconds", "ready", "failing")
    found = {"timeline_before": _timeline_before(context), **{key: known[key] for key in kept}}
    if context.config.s3 is not None:
        shipping = _shipping(context)
        found.update(pending=shipping.pending, pending_bytes=shipping.pending_bytes)
    return found


def _timeline_before(context: Context) -> Optional[int]:
    # Of both kinds: whichever ran last.
    for record in history(context.state):
        wal = record.get("wal") if record.get("verb") == "backup" else None
        if isinstance(wal, dict) and isinstance(wal.get("timeline"), int):
            return int(wal["timeline"])
    return None


def _own_disk(context: Context, server: Optional[ServerWal], facts: Result, now: datetime) -> Optional[Room]:
    """Return the disk of pg_wal, and how fast WAL that cannot leave fills it; None where nothing stays, or nobody can tell."""
    directory, host = facts.get("data_directory"), context.config.postgres.login_host
    if server is None or not directory or (host and host not in ("localhost", "127.0.0.1", "::1")):
        return None
    since = server.last_archived_time
    if since is None:
        since = server.ready_since
    if since is None:
        return None
    growth = server.lag_bytes / max((now - since).total_seconds(), _SHORTEST.total_seconds())
    for path in (Path(directory) / "pg_wal", Path(directory)):
        try:
            # Not of the nearest parent, as free_bytes() would: that may be another disk.
            return Room(free_bytes(path), 0, growth) if path.exists() else None
        except OSError:
            continue  # this account may not look into it
    return None


def _server(server: ServerWal, facts: Result, now: datetime, own_disk: Optional[Room]) -> Result:
    data = {**facts, **dataclasses.asdict(server)}
    for key, value in data.items():
        if isinstance(value, datetime):
            data[key] = iso(value)
    archived = server.last_archived_time
    # An idle server has nothing to archive, so only whole segments of lag have an age.
    late = archived is not None and server.lag_bytes >= server.segment_size
    data["lag_seconds"] = round((now - archived).total_seconds(), 3) if late and archived else 0.0
    data["failing"] = server.failing
    data["pg_wal_free_bytes"] = own_disk.free if own_disk else None
    return data


# --- places -----------------------------------------------------------------------------------------------------------


def _recoverable_to(held: Held) -> Optional[datetime]:
    return max((one.stretches[-1].end_time for one in held.windows if one.stretches), default=None)


def holding(name: str, held: Held, *, unmended: bool = False) -> Holding:
    """Return what a place holds, to be judged; with `unmended`, without the gaps and damage that a younger base backup made up for."""
    damaged = held.open_damage if unmended else held.damaged
    found_gaps = [gap for one in held.windows for gap in (one.open_gaps if unmended else one.gaps)]
    # What is there, but damaged, is told as that.
    found_gaps = [gap for gap in found_gaps if gap.count != sum(gap.first <= n <= gap.last for n in damaged)]
    gaps = [gap.first if gap.count == 1 else "%s to %s" % (gap.first, gap.last) for gap in found_gaps]
    found = held.lineages.values()
    return Holding(
        name,
        held.error,
        gaps,
        [name for lineage in found for name in lineage.contradictions()],
        _recoverable_to(held),
        sum(len(lineage.files) for lineage in found),
        damaged=damaged,
        bases=sorted({(base.system_identifier, base.timeline) for base in held.bases}),
        stranded=[
            (w.system_identifier, w.timeline)
            for w in held.windows
            # A history that is there is not missing, also where one before it is in dispute.
            if w.is_stranded and w.timeline not in held.ways[w.system_identifier][1]
        ],
        newest=max((when for lineage in found for when in lineage.segments().values()), default=None),
        disputed=[(system, timeline) for system, timelines in held.disputed.items() for timeline in timelines],
    )


def _reaches(
    context: Context, surveyed: Mapping[str, Surveyed], held: Mapping[str, Held], server: Result
) -> dict[str, Reach]:
    """Return to where the WAL of each place leads."""
    directory = server.get("data_directory")
    newest = Newest(
        context.state,
        decryption(context.config.restore.identity_file),
        os.path.join(directory, "pg_wal") if directory else "",
    )
    places = {name: one.place for name, one in surveyed.items() if one.place is not None}
    found: dict[str, Reach] = {}
    for name in surveyed:
        found[name] = newest.reach(name, held, places)
        newest.keep()  # who is ended while the next place is slow need not begin anew
    return found


def _place(surveyed: Surveyed, held: Held, reach: Reach, now: datetime) -> Result:
    age, ahead = behind(reach.moment, now)
    # What came late would look younger than it is.
    known = reach.moment is not None and reach.by != ARRIVAL
    return {
        "place": surveyed.name,
        "root": surveyed.root,
        "error": held.error or None,
        "clusters": [
            {"system_identifier": one.system_identifier, "files": len(one.entries()), "bytes": one.bytes}
            for one in held.lineages.values()
        ],
        "windows": [window.as_data() for window in held.windows],
        "rpo_seconds": age if known else None,
        "rpo_by": reach.by or None,
        "recovery_point": iso(reach.moment) if known and reach.moment else None,
        "ahead_seconds": ahead,
    }


# --- spool and shipping -----------------------------------------------------------------------------------------------


def _spool(context: Context, local: Held) -> tuple[Result, Room]:
    now = context.clock()
    entries = [entry for lineage in local.lineages.values() for entry in lineage.entries()]
    fresh = [entry for entry in entries if entry.modified > now - _HOUR]
    growth = sum(entry.size for entry in fresh) / _HOUR.total_seconds()
    path = context.local.home / "wal"  # which may be a disk of its own
    try:
        free = free_bytes(path)
    except PermissionError:
        free = free_bytes(Path(context.config.local.path))
    room = Room(free, parse_size(context.config.backup.min_free), growth)
    full_in = room.full_in
    return {
        "path": str(path),
        "files": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "growth_bytes_per_hour": round(growth * 3600),
        "free_bytes": room.free,
        "full_in_seconds": round(full_in.total_seconds()) if full_in is not None else None,
    }, room


def _shipping(context: Context) -> Shipping:
    state = last_state(context)
    if not state:
        return Shipping(0, 0, None, "It has never run; start pgops wal ship --loop (role wal_archive).", None)
    return Shipping(
        int(state.get("pending") or 0),
        int(state.get("pending_bytes") or 0),
        _moment(state.get("pending_since")),
        str(state.get("error") or ""),
        _moment(state.get("failing_since")),
        _moment(state.get("when")),
        [str(name) for name in state.get("contested") or ()],
    )


def _moment(text: Any) -> Optional[datetime]:
    return parse_iso(str(text)) if text else None


def _shipping_data(shipping: Optional[Shipping]) -> Optional[Result]:
    if shipping is None:
        return None
    data = dataclasses.asdict(shipping)
    return {key: iso(value) if isinstance(value, datetime) else value for key, value in data.items()}


# --- for a person -----------------------------------------------------------------------------------------------------


def render(result: Result) -> str:
    """Return the result of wal_status() as text."""
    lines = ["WAL archive: %s" % result["state"].upper(), ""]
    lines += ["  %-8s  %s" % (one["severity"], " ".join(one["text"].split())) for one in result["findings"]]
    server = result["server"]
    if server:
        lines += ["", "Server %s, timeline %s" % (server["system_identifier"], server["timeline"])]
        lines.append("  now at %s, last archived %s" % (server["current_lsn"], server["last_archived"] or "nothing"))
    lines += ["", _staying_line(result.get("staying"))]
    spool = result["spool"]
    lines += ["", "Spool %s: %d files, %s" % (spool["path"], spool["files"], human_size(spool["bytes"]))]
    for place in result["places"]:
        lines += ["", "%s: %s" % (place["place"], place["root"])]
        lines += ["  %s" % line for line in window_lines(place["windows"])] or ["  no WAL"]
        if place["rpo_seconds"] is not None:
            what = "transaction" if place["rpo_by"] == TRANSACTION else "WAL"
            lines.append("  newest recoverable %s: %s old" % (what, human_span(place["rpo_seconds"])))
        elif place["rpo_by"] == ARRIVAL and place["ahead_seconds"] is None:
            lines.append(
                "  newest recoverable transaction: unknown, as no commit can be read in its newest WAL, and this host never saw that written"
            )
        if place["ahead_seconds"] is not None:
            lines.append(
                "  newest recoverable WAL: from %s ahead of this host's clock" % human_span(place["ahead_seconds"])
            )
    return "\n".join(lines) + "\n"


def _staying_line(staying: Optional[Result]) -> str:
    if staying is None:
        return "No process stays between the calls of PostgreSQL: one does while they follow each other"
    line = "Process %d (pgops wal stay) answers PostgreSQL since %s" % (staying["pid"], staying["since"])
    if staying["calls"] is None:
        return line
    return (
        line
        + "\n  calls: %(calls)d, archived files known to be whole: %(proven)d, recoveries: %(recoveries)d, segments ahead: %(ahead)d"
        % staying
    )


def window_lines(windows: Sequence[Result]) -> list[str]:
    """Return one line for each stretch and gap."""
    lines = []
    for window in windows:
        where = "cluster %s, timeline %d" % (window["system_identifier"], window["timeline"])
        if not window["stretches"]:
            lines.append("%s: WAL, but no base backup" % where)
        lines += ["%s: %s to %s" % (where, one["start"], one["end"]) for one in window["stretches"]]
        lines += ["  missing: %s to %s (%d)" % (gap["first"], gap["last"], gap["count"]) for gap in window["gaps"]]
    return lines


__all__ = ("holding", "render", "wal_facts", "wal_findings", "wal_status", "window_lines")
