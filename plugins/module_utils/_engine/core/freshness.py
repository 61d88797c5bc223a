# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Freshness: is there a backup, off the server, proven to restore, and recent? Pure: moments in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Optional

from .calendar import Calendar, longest_gap, longest_lag
from .lineages import Taken, told
from .naming import is_physical
from .times import human_span, iso, parse_span

OK, WARNING, CRITICAL = "ok", "warning", "critical"
_RANK = {OK: 0, WARNING: 1, CRITICAL: 2}
_DAY = timedelta(days=1)
_QUARTER, _YEAR = timedelta(days=92), timedelta(days=366)


def limit(interval: timedelta) -> timedelta:
    """Return how old the newest backup may become when one is due each `interval`.

    A backup that began at 02:00 is replaced when the next one *ends*, which is later than 02:00 tomorrow by the time
    that the run takes and waits. Two hours cover that for a nightly run: 26 hours, so that a single missed night is
    heard of on the same morning. A longer interval has longer runs and is less urgent, so it gets a twelfth of itself,
    at most half a day: 7 days and 12 hours for a weekly one. A shorter one keeps the two hours, as a dump takes as
    long as it takes, however often it is made.
    """
    return interval + max(timedelta(hours=2), min(interval / 12, timedelta(hours=12)))


@dataclass(frozen=True)
class Limits:
    """How old things may become. `base` and `base_offsite`, of base backups, are None where nobody waits for one."""

    backup: timedelta = limit(_DAY)
    offsite: timedelta = limit(_DAY) + timedelta(hours=2)
    verified_warning: timedelta = timedelta(days=7)
    verified_critical: timedelta = timedelta(days=14)
    base: Optional[timedelta] = None
    base_offsite: Optional[timedelta] = None


def limits(
    backup: Optional[Calendar],
    sync: Optional[Calendar],
    verify: Optional[Calendar],
    delay: timedelta = timedelta(0),
    *,
    base: Optional[Calendar] = None,
) -> Limits:
    """Return how old things may become on a host with these calendars and this random delay.

    What is not scheduled there is somebody else's to start, and is expected as it would be by default: each night. A base
    backup is expected where it is scheduled.
    """
    usual = Limits()
    made = longest_gap(backup) if backup else _DAY
    # Off the server there are two runs on the way, each of which takes its time.
    away = longest_lag(backup, sync) if backup and sync else max(made, longest_gap(sync) if sync else _DAY)
    proven = longest_gap(verify) if verify else _DAY
    return Limits(
        backup=limit(made) + delay,
        offsite=limit(away) + delay + timedelta(hours=2),
        verified_warning=max(usual.verified_warning, limit(proven) + delay),
        verified_critical=max(usual.verified_critical, limit(2 * proven) + delay),
        base=limit(longest_gap(base)) + delay if base else None,
        base_offsite=limit(_away(base, sync)) + delay + timedelta(hours=2) if base else None,
    )


def _away(made: Calendar, sync: Optional[Calendar]) -> timedelta:
    """Return how old the newest copy off the server becomes at most, as the calendars have it."""
    return longest_lag(made, sync) if sync else longest_gap(made)


@dataclass(frozen=True)
class Seen:
    """A set, and the moment that counts: when it began, or when it was proven."""

    set_id: str
    when: datetime


@dataclass(frozen=True)
class Facts:
    """What is known about an instance's sets in all its places. Only whole, readable sets count.

    `newest`, `oldest` and `offsite` are of sets that do not claim to begin in the future; `ahead` is one that does.
    `verified` is the newest passed restore of a set that is verified now. `oldest` tells how long there have been sets.
    `base` is the newest base backup, `base_offsite` the newest off the server.
    `clusters` are the newest sets of clusters that take sets by turns, as two hosts with one name do.
    `offsite_error` says why the place off the server could not be read, `local_error` the same of this host's.
    """

    newest: Optional[Seen] = None
    oldest: Optional[Seen] = None
    offsite: Optional[Seen] = None
    verified: Optional[Seen] = None
    ahead: Optional[Seen] = None
    base: Optional[Seen] = None
    base_offsite: Optional[Seen] = None
    clusters: tuple[Taken, ...] = ()
    has_offsite: bool = True
    offsite_error: str = ""
    local_error: str = ""


@dataclass(frozen=True)
class Finding:
    """One judged fact: `check` is a stable name, `text` a sentence, `since` the moment from which it has been so."""

    check: str
    severity: str
    text: str
    since: Optional[datetime] = None
    age_seconds: Optional[float] = None
    limit_seconds: Optional[float] = None

    def as_data(self) -> dict[str, object]:
        """Return the finding in JSON's types."""
        return {
            "check": self.check,
            "severity": self.severity,
            "text": self.text,
            "since": iso(self.since) if self.since else None,
            "age_seconds": self.age_seconds,
            "limit_seconds": self.limit_seconds,
        }


def judge(facts: Facts, limits: Limits, now: datetime) -> list[Finding]:
    """Return a finding for each question: backup, off-site copy, verification; and for a place, a clock or a name in trouble.

    Where base backups are expected, two more: base backup, and off-site base backup where the place off the server answers.
    """
    findings = [_backup(facts, limits, now), _offsite(facts, limits, now), _verification(facts, limits, now)]
    findings += _bases(facts, limits, now)
    if facts.local_error:
        text = "The local place cannot be read: %s" % facts.local_error
        findings.append(Finding("local place", CRITICAL, text))
    if facts.clusters:
        text = (
            "%d clusters back up under this one name, as two hosts do that call an instance the same: %s. Give each a name of "
            "its own." % (len(facts.clusters), told(facts.clusters))
        )
        findings.append(Finding("clusters", CRITICAL, text))
    if facts.ahead:
        text = "The set %s claims to begin %s from now and is not counted; check the clock of its host." % (
            facts.ahead.set_id,
            human_span((facts.ahead.when - now).total_seconds()),
        )
        findings.append(Finding("clock", WARNING, text))
    return findings


def restore_limit(setting: str, *, by_hand: bool, proven: bool) -> Optional[timedelta]:
    """Return how often somebody must try a restore, None for never. `setting` is auto, a span, or empty for never.

    auto: where somebody did it once (`by_hand`), again within a quarter; where only verifications prove restores (`proven`),
    somebody within the first year. Before that, nobody has taken it up, and the age of the proofs is told anyway.
    """
    if setting != "auto":
        return parse_span(setting) if setting else None
    return _QUARTER if by_hand else _YEAR if proven else None


def tried(last: Optional[datetime], start: Optional[datetime], allowed: timedelta, now: datetime) -> Finding:
    """Return the finding whether a restore was tried within `allowed`; without a `last` one, it is waited for from `start`."""
    check, begun = "restore test", last or start
    if begun is None:
        return Finding(check, OK, "No restore was tried yet, as nothing has run here.")
    age = now - begun
    span, wanted = human_span(max(0.0, age.total_seconds())), human_span(allowed.total_seconds())
    late = age > allowed
    if late:
        text = "No restore has been tried for %s; one is wanted every %s." % (span, wanted)
    elif last is not None:
        text = "The last restore was tried %s ago." % span
    else:
        text = "No restore was tried yet; the first is wanted within %s." % wanted
    return Finding(
        check,
        WARNING if late else OK,
        text,
        since=begun + allowed if late else None,
        age_seconds=age.total_seconds(),
        limit_seconds=allowed.total_seconds(),
    )


def worst(severities: Iterable[str]) -> str:
    """Return the worst of `severities`; ok when there are none."""
    return max(severities, key=_RANK.__getitem__, default=OK)


def _backup(facts: Facts, limits: Limits, now: datetime) -> Finding:
    if facts.newest is None:
        return Finding("backup", CRITICAL, "There is no backup at all. Run: pgops backup.")
    return _aged("backup", "The newest backup", facts.newest, limits.backup, now)


def _offsite(facts: Facts, limits: Limits, now: datetime) -> Finding:
    check = "off-site copy"
    if not facts.has_offsite:
        text = "No copy leaves this server, as the configuration has no S3 place: who loses the host loses the backups."
        return Finding("no off-site place", WARNING, text)
    if facts.offsite_error:
        text = "Whether the copy off the server is recent is unknown: %s" % facts.offsite_error
        return Finding("off-site place", CRITICAL, text)
    if facts.offsite is None:
        return Finding(check, CRITICAL, "There is no backup off this server. Run: pgops sync.")
    return _aged(check, "The newest backup off this server", facts.offsite, limits.offsite, now)


def _bases(facts: Facts, limits: Limits, now: datetime) -> Iterator[Finding]:
    if limits.base is None or limits.base_offsite is None:
        return
    if facts.base is None:
        text = "There is no base backup, from which the WAL could lead to any moment. Run: pgops backup --kind base."
        yield Finding("base backup", CRITICAL, text)
        return
    yield _aged("base backup", "The newest base backup", facts.base, limits.base, now)
    if not facts.has_offsite or facts.offsite_error:
        return
    check = "off-site base backup"
    if facts.base_offsite is None:
        yield Finding(check, CRITICAL, "There is no base backup off this server. Run: pgops sync.")
    else:
        yield _aged(check, "The newest base backup off this server", facts.base_offsite, limits.base_offsite, now)


def _aged(check: str, what: str, seen: Seen, allowed: timedelta, now: datetime) -> Finding:
    age = now - seen.when
    begun = "%s (%s) began %s ago" % (what, seen.set_id, human_span(max(0.0, age.total_seconds())))
    late = age > allowed
    text = "%s; it must not be older than %s." % (begun, human_span(allowed.total_seconds())) if late else begun + "."
    return Finding(
        check,
        CRITICAL if late else OK,
        text,
        since=seen.when + allowed if late else None,
        age_seconds=age.total_seconds(),
        limit_seconds=allowed.total_seconds(),
    )


def _verification(facts: Facts, limits: Limits, now: datetime) -> Finding:
    """Judge the newest proof; while there has never been one, the clock runs from the oldest set on."""
    check = "verification"
    if facts.newest is None:
        return Finding(check, CRITICAL, "There is no backup that could be proven to restore.")
    start = (facts.verified or facts.oldest or facts.newest).when
    age = now - start
    span = human_span(max(0.0, age.total_seconds()))
    if facts.verified is not None:
        text = "A restore was last proven %s ago (%s)" % (span, facts.verified.set_id)
    else:
        text = "No backup is proven to restore, and the oldest is from %s ago" % span
    severity, allowed = OK, limits.verified_warning
    if age > limits.verified_critical:
        severity, allowed = CRITICAL, limits.verified_critical
    elif age > limits.verified_warning or facts.verified is None:
        severity = WARNING
    text += "." if severity == OK else ". Run: pgops verify --level restore."
    late = age > allowed
    return Finding(
        check,
        severity,
        text,
        since=start + allowed if late else None,
        age_seconds=age.total_seconds(),
        limit_seconds=allowed.total_seconds(),
    )


def waited_for(sets: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those of the described sets of all places by which backups are judged: dumps, where there are any.

    They are what is scheduled and waited for then, and a base backup takes the place of none.
    """
    every = list(sets)
    return [described for described in every if not is_physical(described["id"])] or every


__all__ = (
    "CRITICAL",
    "OK",
    "WARNING",
    "Facts",
    "Finding",
    "Limits",
    "Seen",
    "judge",
    "limit",
    "limits",
    "restore_limit",
    "tried",
    "waited_for",
    "worst",
)
