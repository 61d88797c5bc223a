# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What ticks a line of the checklists without a person: each proof asks what a host knows of itself. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Callable, Optional

from ..settings import SENTRY_MONITOR
from .freshness import OK, waited_for
from .naming import is_physical
from .sizes import human_size
from .times import human_span, parse_iso

DONE, OPEN, UNKNOWN = "done", "open", "unknown"
_COLD = frozenset({"GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"})
_WANTED_WAYS = 2
_PRIVATE, _NOT_FOR_OTHERS = 0o077, 0o007


@dataclass(frozen=True)
class Facts:
    """What is known: status() and the clock, the newest runs (at least 40 days of them), modes of files, the bucket's settings.

    `metrics_read` tells whether node_exporter reads the file (None: it cannot be seen), `asked` when pgops check was asked last.
    `files` are dicts of path, kind (secret or directory), mode and modified (None where they are not there). `bucket` is None
    where there is none; `bucket_error` says why its settings could not be read. `signed` are the signatures, the oldest first.
    `config_file` is what the commands of the lines are about.
    """

    now: datetime
    status: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]] = ()
    files: Sequence[Mapping[str, Any]] = ()
    bucket: Optional[Mapping[str, Any]] = None
    bucket_error: str = ""
    encryption: str = "none"
    store_encryption: str = ""
    metrics_file: str = ""
    metrics_written: Optional[datetime] = None
    metrics_read: Optional[bool] = None
    asked: Optional[datetime] = None
    config_path: str = ""
    config_file: str = ""
    signed: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Answer:
    """Whether it is so (done, open, unknown), what was seen, and the moment that it is about."""

    state: str
    seen: str
    when: Optional[datetime] = None


def _finding(check: str, *others: str) -> Callable[[Facts, int], Answer]:
    """Tick when no finding of status about `check` (or `others`) is bad; the first is told."""

    def ask(facts: Facts, days: int) -> Answer:
        del days
        found = [f for f in facts.status["findings"] if f["check"] in (check, *others)]
        bad = [f for f in found if f["severity"] != OK]
        if bad or not found:
            return Answer(OPEN, bad[0]["text"] if bad else "Nothing is known of it.", None)
        return Answer(DONE, found[0]["text"], facts.now)

    return ask


def _sizes(facts: Facts, days: int) -> Answer:
    del days
    size = facts.status["size"]
    if size["deviation"] is None:
        return Answer(OPEN, "There are too few sets yet to know a usual size.")
    found = [f for f in facts.status["findings"] if f["check"] in ("size", "no databases")]
    said = "%s has %s, the median is %s." % (size["set"], human_size(size["bytes"]), human_size(size["median_bytes"]))
    return Answer(OPEN, found[0]["text"]) if found else Answer(DONE, said, facts.now)


def _counted(facts: Facts) -> set[str]:
    """Return the ids of the complete sets by which backups are judged."""
    places = facts.status["places"]
    return {s["id"] for s in waited_for(s for place in places for s in place["sets"] if s["complete"])}


def _verified(facts: Facts, days: int) -> Answer:
    """A set that is there was restored and compared, within `days` where there is such a limit."""
    counted = _counted(facts)
    proofs = [
        (parse_iso(s["proofs"]["restore"]["when"]), s["id"], place["place"])
        for place in facts.status["places"]
        for s in place["sets"]
        if s["id"] in counted and s["complete"] and s["verified"]
    ]
    if not proofs:
        return Answer(OPEN, "No set that is there is proven to restore.")
    when, set_id, place = max(proofs)
    said = "%s was restored and compared %s ago (%s)." % (set_id, _ago(facts, when), place)
    return Answer(DONE if not days or facts.now - when <= timedelta(days=days) else OPEN, said, when)


def _whole(facts: Facts, days: int) -> Answer:
    del days
    places = facts.status["places"]
    lost = [place["place"] for place in places if not place["reachable"]]
    if lost:
        return Answer(UNKNOWN, "Cannot be read now: %s." % ", ".join(lost))
    bad = [s["id"] for place in places for s in place["sets"] if s["problem"] or _failed(s)]
    count = sum(len(place["sets"]) for place in places)
    if bad or not count:
        return Answer(OPEN, "Not whole, or failed: %s." % ", ".join(bad[:5]) if bad else "There are no sets yet.")
    return Answer(DONE, "%d sets in %d places, none damaged." % (count, len(places)), facts.now)


def _failed(described: Mapping[str, Any]) -> bool:
    return any(proof["outcome"] == "failed" for proof in described["proofs"].values()) and not described["verified"]


def _run_of(*verbs: str, good: str = "") -> Callable[[Facts, int], Answer]:
    """Tick when a run of one of `verbs` succeeded, within the days of the stage; `good` is a key of its record that must hold."""

    def ask(facts: Facts, days: int) -> Answer:
        for record in facts.runs:
            fine = record.get("outcome") == "ok" and not record.get("skipped") and (not good or record.get(good))
            if record.get("verb") in verbs and fine:
                when = parse_iso(record["ended"])
                said = "pgops %s succeeded %s ago." % (record["verb"], _ago(facts, when))
                return Answer(DONE if not days or facts.now - when <= timedelta(days=days) else OPEN, said, when)
        return Answer(OPEN, "No run of pgops %s is recorded that succeeded." % " or ".join(verbs))

    return ask


def _drilled(facts: Facts, days: int) -> Answer:
    """Tick by a drill, or by a recovery of the whole server to somewhere else."""
    beside = [r for r in facts.runs if r.get("verb") == "drill" or r.get("mode") == "beside"]
    return _run_of("drill", "recover")(replace(facts, runs=beside), days)


def _seven_days(facts: Facts, days: int) -> Answer:
    """In the last seven days there was no longer pause between backups than the schedule allows.

    Runs of this host count, and sets: those of a group are made by other nodes, too.
    """
    del days
    allowed = timedelta(seconds=facts.status["limits"]["backup"]["critical_seconds"])
    since = facts.now - timedelta(days=7)
    counted = _counted(facts)
    dumps = not all(map(is_physical, counted))
    runs = (
        r
        for r in facts.runs
        if r.get("verb") == "backup" and r.get("outcome") == "ok" and not r.get("skipped")
        if not dumps or r.get("kind") not in ("base", "incremental")
    )
    sets = (s for place in facts.status["places"] for s in place["sets"] if s["id"] in counted and s["complete"])
    ended = {parse_iso(entry["ended"]) for entry in itertools.chain(runs, sets)}
    good = sorted(moment for moment in ended if moment <= facts.now)
    older = [moment for moment in good if moment <= since]
    inside = [moment for moment in good if moment > since]
    if not good:
        return Answer(OPEN, "No backup is recorded that succeeded.")
    if not older and allowed < timedelta(days=7) and good[0] - since > allowed:
        return Answer(OPEN, "Backups are recorded for %s only." % _ago(facts, good[0]), good[-1])
    moments = [*(older[-1:] or [since]), *inside, facts.now]
    gap, after = max((later - earlier, earlier) for earlier, later in zip(moments, moments[1:]))
    if gap > allowed:
        said = "There was none for %s, from %s on." % (
            human_span(gap.total_seconds()),
            after.strftime("%Y-%m-%d %H:%M UTC"),
        )
        return Answer(OPEN, said, good[-1])
    return Answer(
        DONE,
        "The longest pause was %s." % human_span(gap.total_seconds()),
        good[-1],
    )


def _no_failures(facts: Facts, days: int) -> Answer:
    del days
    bad = [f["text"] for f in facts.status["findings"] if f["check"].startswith("run of ")]
    known = [verb for verb, records in facts.status["runs"].items() if records["last"] is not None]
    if bad or not known:
        return Answer(OPEN, bad[0] if bad else "No run is recorded yet.")
    return Answer(DONE, "The last runs of %s succeeded." % ", ".join(known), facts.now)


def _covered(facts: Facts, days: int) -> Answer:
    del days
    for record in facts.runs:
        if record.get("verb") == "backup" and record.get("outcome") == "ok" and not record.get("skipped"):
            when, left = parse_iso(record["ended"]), record.get("uncovered") or []
            if left:
                named = ", ".join(str(entry.get("what")) for entry in left[:5])
                return Answer(OPEN, "Not covered by the last backup: %s. Sign it if that is meant." % named, when)
            return Answer(DONE, "The last backup left nothing out.", when)
    return Answer(OPEN, "No backup is recorded that succeeded.")


# How long after its time a run may end before it is missed: others may be in its way.
_LATE = timedelta(hours=8)
# Where the clock skips an hour, cron starts what was due in it at the jump.
_EARLY = timedelta(hours=1)


def _missed(facts: Facts) -> list[str]:
    """Return the verbs of the schedule that did not run when they were due last."""
    begun = [parse_iso(record["begun"]) for record in facts.runs[-1:]]
    missed = []
    for verb, run in facts.status["schedule"]["runs"].items():
        due = parse_iso(run["last_due"]) if run["last_due"] else None
        if due is None or facts.now - due < _LATE or not begun or due < begun[0]:
            continue
        last = facts.status["runs"].get(verb, {}).get("last")
        if last is None or parse_iso(last["ended"]) < due - _EARLY:
            missed.append(verb)
    return missed


def _scheduled(facts: Facts, days: int) -> Answer:
    """Something is to start the runs, and did when they were due last."""
    del days
    schedule = facts.status["schedule"]
    if not schedule["started_by"]:
        return Answer(OPEN, "Neither cron nor systemd starts them on this host.")
    lacking = [verb for verb in ("backup", "verify") if verb not in schedule["runs"]]
    lacking += ["sync"] if _has_store(facts) and "sync" not in schedule["runs"] else []
    if lacking:
        return Answer(OPEN, "%s starts the runs, but not of: %s." % (schedule["started_by"], ", ".join(lacking)))
    missed = _missed(facts)
    if missed:
        said = "%s is to start them, but when it was due last, there was no run of: %s."
        return Answer(OPEN, said % (schedule["started_by"], ", ".join(missed)))
    shown = ", ".join("%s %s" % (verb, run["calendar"]) for verb, run in schedule["runs"].items())
    return Answer(DONE, "%s starts them: %s." % (schedule["started_by"], shown), facts.now)


def _configured(facts: Facts, days: int) -> Answer:
    del days
    return Answer(DONE, "%s has no errors." % (facts.config_path or "It"), facts.now)


def _modes(facts: Facts, days: int) -> Answer:
    """Secrets are for their owner alone, directories not for others."""
    del days
    seen = [file for file in facts.files if file["mode"] is not None]
    wrong = {"secret": _PRIVATE, "directory": _NOT_FOR_OTHERS}
    bad = ["%s has mode %04o" % (f["path"], f["mode"]) for f in seen if f["mode"] & wrong[f["kind"]]]
    if bad:
        return Answer(OPEN, "Too open: %s." % ", ".join(bad))
    if not seen:
        return Answer(UNKNOWN, "None of the files could be looked at.")
    return Answer(DONE, "%d files and directories, none open to others." % len(seen), facts.now)


def _renewed(facts: Facts, days: int) -> Answer:
    secrets = [
        f for f in facts.files if f["kind"] == "secret" and f["modified"] is not None and f["path"] != facts.config_path
    ]
    if not secrets:
        return Answer(UNKNOWN, "No file with a secret is known, so its age is not, either.")
    oldest = min(secrets, key=lambda file: file["modified"])
    said = "%s is %s old." % (oldest["path"], _ago(facts, oldest["modified"]))
    state = DONE if facts.now - oldest["modified"] <= timedelta(days=days) else OPEN
    return Answer(state, "%s The oldest of %d files." % (said, len(secrets)), oldest["modified"])


def _encrypted(facts: Facts, days: int) -> Answer:
    del days
    if facts.encryption != "none":
        return Answer(DONE, "backup.encryption is %s." % facts.encryption, facts.now)
    if facts.store_encryption:
        return Answer(
            DONE,
            "The store encrypts (s3.sse is %s); the copies on this host are plain." % facts.store_encryption,
            facts.now,
        )
    return Answer(OPEN, "backup.encryption is none, and s3.sse is not set.")


def _has_store(facts: Facts) -> bool:
    return any(place["place"] != "local" for place in facts.status["places"])


def _bucket(name: str, good: Callable[[Any], str], bad: str) -> Callable[[Facts, int], Answer]:
    """Tick by the setting `name` of the bucket when `good` says something of its value."""

    def ask(facts: Facts, days: int) -> Answer:
        del days
        if not _has_store(facts):
            return Answer(OPEN, "The configuration has no place off the server.")
        if facts.bucket_error or facts.bucket is None:
            return Answer(
                UNKNOWN,
                "The settings of the bucket cannot be read from here: %s" % (facts.bucket_error or "it is not there."),
            )
        value = facts.bucket.get(name)
        if value is None:
            return Answer(UNKNOWN, "The store does not tell.")
        said = good(value)
        return Answer(DONE, said, facts.now) if said else Answer(OPEN, bad)

    return ask


def _lock_said(lock: Any) -> str:
    return (
        "Each version is kept for %d days (%s)." % (lock["days"], lock["mode"])
        if lock["enabled"] and lock["days"]
        else ""
    )


def _archive_said(rules: Any) -> str:
    moves = [
        (step.get("Days"), step.get("StorageClass"))
        for rule in rules
        if rule.get("Status") == "Enabled"
        for step in rule.get("Transitions") or ()
    ]
    cold = [(days, name) for days, name in moves if name in _COLD]
    return "Sets move to %s after %s days." % (cold[0][1], cold[0][0]) if cold else ""


def _monitored(facts: Facts, days: int) -> Answer:
    """Somebody asked pgops check within a day, or node_exporter reads what the last run wrote."""
    del days
    if facts.asked is not None and facts.now - facts.asked <= timedelta(days=1):
        return Answer(DONE, "pgops check was last asked %s ago." % _ago(facts, facts.asked), facts.asked)
    if not facts.metrics_file:
        return Answer(OPEN, "Nobody asked pgops check within a day, and metrics.textfile_directory is not set.")
    if facts.metrics_written is None:
        return Answer(OPEN, "%s is not there." % facts.metrics_file)
    said = "%s was written %s ago" % (facts.metrics_file, _ago(facts, facts.metrics_written))
    ended = max((parse_iso(record["ended"]) for record in facts.runs[:1]), default=facts.metrics_written)
    if ended - facts.metrics_written > timedelta(minutes=10):
        return Answer(OPEN, "%s, and not by the last run." % said, facts.metrics_written)
    if facts.metrics_read is None:
        return Answer(UNKNOWN, "%s; whether anybody reads it cannot be seen from here." % said, facts.metrics_written)
    if not facts.metrics_read:
        return Answer(OPEN, "%s, but no node_exporter on this host reads that directory." % said, facts.metrics_written)
    return Answer(DONE, "%s, and node_exporter reads that directory." % said, facts.metrics_written)


def _told(facts: Facts, days: int) -> Answer:
    """Say what the last test of the alerts gave. That a person got it, only that person can tell."""
    del days
    for record in facts.runs:
        if record.get("verb") == "alert" and record.get("action") == "test":
            when = parse_iso(record["ended"])
            told = [c for c in record.get("channels") or () if isinstance(c, Mapping)]
            taken = [str(c.get("channel")) for c in told if c.get("accepted")]
            lost = [str(c.get("channel")) for c in told if not c.get("accepted")]
            said = "The last test, %s ago, was taken by %s" % (_ago(facts, when), ", ".join(taken) or "nobody")
            said += ", and not by %s." % ", ".join(lost) if lost else "."
            return Answer(OPEN, "%s Whether it reached a person is to be signed." % said, when)
    return Answer(OPEN, "No test of the alerts is recorded.")


def _ways(facts: Facts, days: int) -> Answer:
    """Channels that took their last message are ways, and so is a monitoring system that asks."""
    # Sentry's monitor is no other way than Sentry.
    channels = [c for c in facts.status["alerts"]["channels"] if c["channel"] != SENTRY_MONITOR]
    works = [c["channel"] for c in channels if c["last_ok"] and not c["failing_since"] and not c["refused"]]
    asks = _monitored(facts, days)
    works += ["monitoring"] if asks.state == DONE else []
    idle = [c["channel"] for c in channels if c["channel"] not in works]
    said = "%s took or asked last." % ", ".join(works) if works else "No way is known to work."
    said += " Not known to work: %s." % ", ".join(idle) if idle else ""
    # What asks is told of all trouble; without it, each trouble wants two ways of those that work.
    few = [] if asks.state == DONE else [n["text"] for n in facts.status["notices"] if n["check"] == "alert ways"]
    if len(works) < _WANTED_WAYS:
        return Answer(OPEN, said)
    return Answer(OPEN, " ".join([said, *few])) if few else Answer(DONE, said, facts.now)


def _ago(facts: Facts, when: datetime) -> str:
    return human_span(max(0.0, (facts.now - when).total_seconds()))


PROOFS: Mapping[str, Callable[[Facts, int], Answer]] = {
    "archived": _bucket("lifecycle", _archive_said, "No rule of its life cycle moves anything to an archive."),
    "backup": _finding("backup", "no databases"),
    "configured": _configured,
    "covered": _covered,
    "drilled": _drilled,
    "encrypted": _encrypted,
    "locked": _bucket("object_lock", _lock_said, "It has no Object Lock with a time by default."),
    "modes": _modes,
    "monitored": _monitored,
    "no-failures": _no_failures,
    "offsite": _finding("off-site copy", "off-site place", "no off-site place"),
    "private": _bucket(
        "public_access_block", lambda on: "Public access is blocked." if on else "", "Nothing blocks public access."
    ),
    "probed": _run_of("probe", good="ok"),
    "pruned": _run_of("prune"),
    "renewed": _renewed,
    "restored": _run_of("restore"),
    "scheduled": _scheduled,
    "seven-days": _seven_days,
    "sizes": _sizes,
    "space": _finding("disk"),
    "told": _told,
    "verified": _verified,
    "versions": _bucket(
        "versioning", lambda said: "Versions are on." if said == "Enabled" else "", "It keeps no versions."
    ),
    "ways": _ways,
    "whole": _whole,
}


__all__ = ("DONE", "OPEN", "PROOFS", "UNKNOWN", "Answer", "Facts")
