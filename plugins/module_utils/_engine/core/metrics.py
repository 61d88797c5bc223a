# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The numbers of an instance in Prometheus' text format: status in, text out. Pure.

Moments, not ages: a file that nobody writes any more must not look fresh. What has never happened has no sample.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ..settings import SENTRY_MONITOR
from .freshness import CRITICAL, OK, WARNING, waited_for
from .naming import is_physical
from .times import parse_iso

OWN_LABEL = "pgops_instance"
_RANK = {OK: 0, WARNING: 1, CRITICAL: 2}

# Every metric: its name without pgops_, and what it says. node_exporter wants the same words in the files of all instances.
_HELP = {
    "info": "The engine that wrote these metrics, and the host it runs on; always 1.",
    "metrics_written_timestamp_seconds": "When these metrics were written.",
    "state": "The overall state as pgops status says it: 0 ok, 1 warning, 2 critical.",
    "finding_severity": "The severity of each thing that pgops status looked at: 0 ok, 1 warning, 2 critical.",
    "incident_open": "A cause of trouble that is open; its level is that of the alerts, whoever is told. Always 1.",
    "alert_channels": "Channels for alerts that the configuration turns on.",
    "backup_newest_timestamp_seconds": "When the newest whole backup began, in whichever place it is.",
    "backup_limit_seconds": "How old the newest backup may become, as the schedule has it.",
    "backup_newest_bytes": "Size of the newest whole backup.",
    "backup_newest_databases": "Databases in the newest whole backup.",
    "backup_size_deviation_ratio": "How far the newest backup is off the median of those before it, as a part of that.",
    "offsite_newest_timestamp_seconds": "When the newest whole backup in a place off the server began.",
    "offsite_limit_seconds": "How old the newest backup off the server may become, as the schedule has it.",
    "offsite_configured": "Whether there is a place off the server.",
    "base_newest_timestamp_seconds": "When the newest whole base backup began, in whichever place it is.",
    "base_limit_seconds": "How old the newest base backup may become; only where base backups are scheduled.",
    "base_offsite_newest_timestamp_seconds": "When the newest whole base backup in a place off the server began.",
    "base_offsite_limit_seconds": "How old the newest base backup off the server may become; only where they are scheduled.",
    "verification_newest_timestamp_seconds": "When a restore was last proven, of a set that is there and counts as verified.",
    "verification_limit_seconds": "How old the newest proof may become before it warns and before it is critical.",
    "verification_start_timestamp_seconds": "From when on a proof is waited for: the newest proof, else the oldest backup.",
    "restore_test_start_timestamp_seconds": "From when on a restore is waited for: the newest that was tried, else the first run.",
    "restore_test_limit_seconds": "How long ago the newest restore that was tried may be; only where one is demanded.",
    "rto_seconds": "How long the newest recovery of the verb took that succeeded: the measured RTO.",
    "rto_measured_timestamp_seconds": "When that recovery ended.",
    "recovery_point_timestamp_seconds": "The moment that a recovery from the place would bring back now.",
    "place_reachable": "Whether the place could be read.",
    "place_bytes": "Bytes in the place.",
    "place_sets": "Sets in the place, by kind.",
    "place_sets_verified": "Whole sets in the place that are proven to restore.",
    "place_sets_damaged": "Sets in the place that are not whole, or cannot be read.",
    "place_sets_failed": "Sets in the place that failed their newest verification.",
    "place_sets_due_for_prune": "Sets in the place that retention does not keep.",
    "place_newest_timestamp_seconds": "When the newest whole set in the place began.",
    "place_newest_verified_timestamp_seconds": "When the newest verified set in the place began.",
    "run_last_timestamp_seconds": "When the last run of the verb ended, however it ended.",
    "run_last_success": "Whether the last run of the verb succeeded.",
    "run_last_duration_seconds": "How long the last run of the verb took.",
    "run_last_success_timestamp_seconds": "When the last run of the verb that succeeded ended.",
    "run_last_success_duration_seconds": "How long the last run of the verb that succeeded took.",
    "wal_lag_bytes": "Bytes of WAL that the server has not archived yet.",
    "wal_lag_seconds": "How long whole segments of WAL have been waiting to be archived.",
    "wal_spool_bytes": "Bytes of WAL in the backup directory.",
    "wal_shipping_pending_bytes": "Bytes of archived WAL that are not in the place off the server yet.",
    "wal_recoverable_timestamp_seconds": "Up to when the WAL in the place can bring the server back.",
    "schedule_next_timestamp_seconds": "When the verb runs next, seen from the time of writing.",
    "schedule_started": "Whether cron or systemd starts the runs of the instance on this host.",
    "disk_free_bytes": "Free space in the backup directory.",
    "disk_min_free_bytes": "Space that must stay free in the backup directory.",
}


@dataclass
class _Samples:
    instance: str
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, value: Optional[float], **labels: str) -> None:
        """Add a sample; nothing where there is no value."""
        if value is None:
            return
        told = {OWN_LABEL: self.instance, **labels}
        shown = ",".join('%s="%s"' % (key, _escaped(text)) for key, text in told.items())
        self.found.setdefault(name, []).append("pgops_%s{%s} %s" % (name, shown, _number(value)))

    def moment(self, name: str, text: Optional[str], **labels: str) -> None:
        """Add a moment as seconds since 1970."""
        self.add(name, parse_iso(text).timestamp() if text else None, **labels)


def render(result: Mapping[str, Any], version: str) -> str:
    """Return the metrics of what status() returned, written by the engine `version`."""
    samples = _Samples(str(result["instance"]))
    samples.add("info", 1, version=version, host=str(result["host"]))
    samples.moment("metrics_written_timestamp_seconds", result["now"])
    samples.add("state", _RANK[result["state"]])
    worst: dict[str, int] = {}
    for finding in result["findings"]:
        worst[finding["check"]] = max(worst.get(finding["check"], 0), _RANK[finding["severity"]])
    for check in sorted(worst):
        samples.add("finding_severity", worst[check], check=check)
    for incident in result["incidents"]:
        samples.add("incident_open", 1, cause=incident["cause"], level=incident["level"])
    samples.add("alert_channels", sum(c["channel"] != SENTRY_MONITOR for c in result["alerts"]["channels"]))
    _whole(samples, result)
    _bases(samples, result)
    for verb, measured in result["rto"].items():
        samples.add("rto_seconds", measured["seconds"], verb=verb)
        samples.moment("rto_measured_timestamp_seconds", measured["when"], verb=verb)
    wal = result.get("wal")
    reached = {place["place"]: place["recovery_point"] for place in wal["places"]} if wal else {}
    for place in result["places"]:
        _place(samples, place, reached.get(place["place"]))
    for verb, records in result["runs"].items():
        _runs(samples, verb, records)
    _wal(samples, wal)
    for verb, run in result["schedule"]["runs"].items():
        samples.moment("schedule_next_timestamp_seconds", run["next_run"], verb=verb)
    samples.add("schedule_started", float(result["schedule"]["started_by"] is not None))
    samples.add("disk_free_bytes", result["disk"]["free_bytes"])
    samples.add("disk_min_free_bytes", result["disk"]["min_free_bytes"])
    return "".join(_family(name, samples.found[name]) for name in _HELP if name in samples.found)


def _family(name: str, lines: list[str]) -> str:
    head = "# HELP pgops_%s %s\n# TYPE pgops_%s gauge\n" % (name, _HELP[name], name)
    return head + "".join(line + "\n" for line in lines)


def _whole(samples: _Samples, result: Mapping[str, Any]) -> None:
    """Add what is asked of the instance as a whole, with its limits."""
    now = result["now"]
    complete = _complete(result)
    counted = {s["id"] for s in waited_for(itertools.chain(*complete.values()))}
    past = {name: [s for s in sets if s["id"] in counted and s["begun"] <= now] for name, sets in complete.items()}
    every = [described for sets in past.values() for described in sets]
    begun = [described["begun"] for described in every]
    limits = result["limits"]
    samples.moment("backup_newest_timestamp_seconds", max(begun, default=None))
    samples.add("backup_limit_seconds", limits["backup"]["critical_seconds"])
    samples.add("backup_newest_bytes", result["size"]["bytes"])
    samples.add("backup_newest_databases", result["size"]["databases"])
    samples.add("backup_size_deviation_ratio", result["size"]["deviation"])
    away = [name for name in past if name != "local"]
    samples.add("offsite_configured", float(bool(away)))
    # Of a place that cannot be read nobody knows how old its newest set is; that is another alarm.
    if away and all(place["reachable"] for place in result["places"] if place["place"] != "local"):
        newest = max((described["begun"] for name in away for described in past[name]), default=None)
        samples.moment("offsite_newest_timestamp_seconds", newest)
        samples.add("offsite_limit_seconds", limits["offsite"]["critical_seconds"])
    proven = max((s["proofs"]["restore"]["when"] for s in every if s["verified"]), default=None)
    samples.moment("verification_newest_timestamp_seconds", proven)
    samples.moment("verification_start_timestamp_seconds", proven or min(begun, default=None))
    for severity in ("warning", "critical"):
        limit = limits["verification"]["%s_seconds" % severity]
        samples.add("verification_limit_seconds", limit, severity=severity)
    tested = limits["restore_test"]["warning_seconds"]
    if tested is not None:
        samples.moment("restore_test_start_timestamp_seconds", result["restore_test"]["since"])
        samples.add("restore_test_limit_seconds", tested)


def _bases(samples: _Samples, result: Mapping[str, Any]) -> None:
    """Add how old the newest base backups are, and may be where somebody waits for one."""
    now, limits = result["now"], result["limits"]
    past = {
        name: [s["begun"] for s in sets if is_physical(s["id"]) and s["begun"] <= now]
        for name, sets in _complete(result).items()
    }
    samples.moment("base_newest_timestamp_seconds", max(itertools.chain(*past.values()), default=None))
    samples.add("base_limit_seconds", limits["base"]["critical_seconds"])
    away = [place for place in result["places"] if place["place"] != "local"]
    if away and all(place["reachable"] for place in away):
        newest = max((begun for place in away for begun in past[place["place"]]), default=None)
        samples.moment("base_offsite_newest_timestamp_seconds", newest)
        samples.add("base_offsite_limit_seconds", limits["base_offsite"]["critical_seconds"])


def _complete(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    return {place["place"]: [s for s in place["sets"] if s["complete"]] for place in result["places"]}


def _wal(samples: _Samples, wal: Optional[Mapping[str, Any]]) -> None:
    """Add how the WAL archive fares, where there is one."""
    if not wal:
        return
    if wal["server"]:
        samples.add("wal_lag_bytes", wal["server"]["lag_bytes"])
        samples.add("wal_lag_seconds", wal["server"]["lag_seconds"])
    samples.add("wal_spool_bytes", wal["spool"]["bytes"])
    if wal["shipping"]:
        samples.add("wal_shipping_pending_bytes", wal["shipping"]["pending_bytes"])
    for place, moment in _recoverable(wal).items():
        samples.moment("wal_recoverable_timestamp_seconds", moment, place=place)


def _recoverable(wal: Mapping[str, Any]) -> dict[str, str]:
    """Return up to when each place can bring the server back by WAL, for those that can."""
    ends: dict[str, str] = {}
    for place in wal["places"]:
        found = [stretch["end"] for window in place["windows"] for stretch in window["stretches"]]
        if found:
            ends[str(place["place"])] = max(found, key=parse_iso)
    return ends


def _place(samples: _Samples, place: Mapping[str, Any], reached: Optional[str]) -> None:
    name = str(place["place"])
    samples.add("place_reachable", float(place["reachable"]), place=name)
    if not place["reachable"]:
        return
    sets = {s["id"]: s for s in place["sets"]}
    samples.add("place_bytes", place["total_bytes"], place=name)
    for kind in sorted({s["kind"] for s in place["sets"]}) or ["logical"]:
        samples.add("place_sets", sum(s["kind"] == kind for s in place["sets"]), place=name, kind=kind)
    samples.add("place_sets_verified", sum(bool(s["complete"] and s["verified"]) for s in place["sets"]), place=name)
    samples.add("place_sets_damaged", sum(bool(s["problem"]) for s in place["sets"]), place=name)
    samples.add("place_sets_failed", sum(_failed(s) for s in place["sets"]), place=name)
    samples.add("place_sets_due_for_prune", len(place["retention"]["remove"]), place=name)
    for key, metric in (("newest", "newest"), ("newest_verified", "newest_verified")):
        if place[key]:
            samples.moment("place_%s_timestamp_seconds" % metric, sets[place[key]]["begun"], place=name)
    points = [sets[place["newest"]]["begun"]] if place["newest"] else []
    points += [reached] if reached else []
    samples.moment("recovery_point_timestamp_seconds", max(points, key=parse_iso, default=None), place=name)


def _failed(described: Mapping[str, Any]) -> bool:
    return not described["verified"] and any(proof["outcome"] == "failed" for proof in described["proofs"].values())


def _runs(samples: _Samples, verb: str, records: Mapping[str, Any]) -> None:
    last, good = records["last"], records["last_ok"]
    if last is not None:
        samples.moment("run_last_timestamp_seconds", last["ended"], verb=verb)
        samples.add("run_last_success", float(last["outcome"] == "ok"), verb=verb)
        samples.add("run_last_duration_seconds", last["seconds"], verb=verb)
    if good is not None:
        samples.moment("run_last_success_timestamp_seconds", good["ended"], verb=verb)
        samples.add("run_last_success_duration_seconds", good["seconds"], verb=verb)


# --- the text format --------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    whole = float(value)
    return "%d" % whole if whole == int(whole) else repr(round(whole, 6))


_SAMPLE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>\S+)")


def parse(text: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, labels (as written) and value of each sample in `text`, as render() writes it."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match:
            yield match["name"], match["labels"], float(match["value"])


__all__ = ("OWN_LABEL", "parse", "render")
