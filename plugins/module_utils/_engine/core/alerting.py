# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a person must hear of: from run records, sets, proofs, the schedule and the clock to troubles, one per cause. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any, Optional

from .calendar import Calendar, counts_from, last_before, longest_gap
from .freshness import CRITICAL, OK, WARNING, tried, worst
from .freshness import Finding as Judged
from .naming import is_physical
from .sizes import human_size
from .times import CLOCK_TOLERANCE, human_span, iso
from .volume import SMALL

# Only the verbs that a schedule starts: of a restore somebody knows who started it.
WATCHED = ("backup", "base backup", "sync", "verify", "prune")
# What starts a verb that is not called as it is named.
COMMANDS = {"base backup": "backup --kind base"}
_HOW = {"busy": "did not start", "refused": "was refused", "interrupted": "was interrupted", "unreachable": "failed"}
# A look at a store may fail once without anything being wrong.
_PATIENCE = timedelta(minutes=30)
_FEWEST_TO_COMPARE = 3
_GONE = ("it was dropped while it was dumped", "it vanished before it was dumped")  # as a backup says it
_COMPARED = 7
_DAY = timedelta(days=1)
# By these words verify.py says that it found what is wrong with a set, and not that it could not look.
_FOUND_DAMAGE = " failed the verification"
# What follows from a run that failed, was missed or is late is told with it, and not once more.
_FOLLOWS = {
    "backup": "backup-age",
    "base backup": "base-age",
    "sync": "offsite-age",
    "verify": "verification-age",
}


@dataclass(frozen=True)
class Run:
    """A run that has ended, as its record tells. `size` is that of the set that a backup made, in bytes."""

    verb: str
    outcome: str
    begun: datetime
    ended: datetime
    reason: str = ""
    size: Optional[int] = None


@dataclass(frozen=True)
class Due:
    """When a verb runs by itself, and since when we know of that calendar."""

    calendar: Calendar
    since: datetime


@dataclass(frozen=True)
class SetFacts:
    """A set in a place: `databases` is how many it holds, `failed` the levels at which its newest proof failed."""

    set_id: str
    place: str
    size: int
    databases: int
    failed: tuple[str, ...] = ()
    problem: str = ""
    whole: bool = True


@dataclass(frozen=True)
class Disk:
    """The disk of the local place, in bytes, and for each day of late the least that was free.

    With `no_inode` it has room for no file more, and nothing is free.
    """

    path: str
    free: int
    floor: int
    days: Mapping[date, int] = field(default_factory=dict)
    no_inode: bool = False

    def __str__(self) -> str:
        return "%s has %s free%s" % (
            self.path,
            human_size(self.free),
            " (no inode is left: df -i)" if self.no_inode else "",
        )


@dataclass(frozen=True)
class Facts:
    """What is known. `runs` are by verb, the newest first; `sets` the newest first. What is None nobody can tell.

    `running` says since when a verb is at work, `cut_short` when one began that was killed and that no other one has followed,
    `due` what this host starts by itself. `uncovered` are the databases that the newest backup left out without being told
    to; `known_uncovered` those of them that have always been. `state` is the disk of the run records, `boot` when the host
    came up, `ahead` by how much its clock is ahead of a server's (negative: behind). `restored` is when somebody tried a
    restore last, `proven` whether a set that is there was restored and compared.
    """

    judged: Sequence[Judged] = ()
    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    running: Mapping[str, datetime] = field(default_factory=dict)
    cut_short: Mapping[str, datetime] = field(default_factory=dict)
    due: Mapping[str, Due] = field(default_factory=dict)
    sets: Sequence[SetFacts] = ()
    uncovered: Sequence[str] = ()
    known_uncovered: Sequence[str] = ()
    disk: Optional[Disk] = None
    state: Optional[Disk] = None
    restored: Optional[datetime] = None
    proven: bool = False
    watched_since: Optional[datetime] = None
    boot: Optional[datetime] = None
    ahead: Optional[timedelta] = None


@dataclass(frozen=True)
class Limits:
    """When what is known is trouble. A limit of zero, or None, is none.

    `grace` is how late a run may begin, `wait` how much later when another run is in its way; `zone` that of the calendars.
    """

    grace: timedelta = timedelta(hours=1)
    size_change: int = 50
    disk_days: timedelta = timedelta(days=7)
    restore_test: Optional[timedelta] = None
    allow_no_databases: bool = False
    zone: tzinfo = timezone.utc
    wait: timedelta = timedelta(0)


@dataclass(frozen=True)
class Trouble:
    """One cause. `cause` is a stable key, `since` the moment from which it has been so, `step` what to do next.

    It is told once it has been seen for `patience`.
    """

    cause: str
    level: str
    text: str
    since: datetime
    step: str = ""
    patience: timedelta = timedelta(0)

    def as_data(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {
            "cause": self.cause,
            "level": self.level,
            "text": self.text,
            "since": iso(self.since),
            "next": self.step,
        }


def troubles(facts: Facts, limits: Limits, now: datetime) -> list[Trouble]:
    """Return every trouble, one per cause, the worst first."""
    found = [t for verb in WATCHED for t in _runs(verb, facts, limits, now)]
    found += _judged(facts, now)
    found += _sets(facts, limits, now)
    found += _size(facts, limits, now)
    found += _coverage(facts, now)
    found += _disk(facts, limits, now)
    found += _state(facts, now)
    found += _clock(facts, now)
    found += _restore_test(facts, limits, now)
    rank = (CRITICAL, WARNING, OK)
    return sorted(_folded(found, facts.runs.get("verify", ())), key=lambda t: (rank.index(t.level), t.cause))


# --- runs -------------------------------------------------------------------------------------------------------------


def _runs(verb: str, facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    runs = facts.runs.get(verb, ())
    if verb in facts.cut_short:
        yield _killed(verb, facts.cut_short[verb])
    elif runs and runs[0].outcome != "ok":
        yield _failed(verb, runs)
    since = facts.running.get(verb)
    if since is not None:
        yield from _late(verb, since, facts, now)
    due = facts.due.get(verb)
    if due is not None and since is None:
        yield from _missed(verb, due, facts, limits, now)


def _failed(verb: str, runs: Sequence[Run]) -> Trouble:
    newest, first = runs[0], runs[0]
    count = 0
    for run in runs:
        if run.outcome == "ok":
            break
        first, count = run, count + 1
    how = _HOW.get(newest.outcome, "failed")
    text = "The last %s %s: %s" % (verb, how, " ".join(newest.reason.split()) or "it gave no reason.")
    if count > 1:
        text += " That was run %d in a row." % count
    lost = verb != "prune" and newest.outcome not in ("busy", "interrupted")
    return Trouble(
        "failed-run/%s" % verb,
        CRITICAL if lost else WARNING,
        text,
        first.ended,
        "Read why in the log, mend it, then run: pgops %s" % COMMANDS.get(verb, verb),
    )


def _killed(verb: str, since: datetime) -> Trouble:
    text = "The %s that began at %s was cut short and left no record: it was killed, or the host went down." % (
        verb,
        since.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
    step = "See whether memory ran out (journalctl -k), then run: pgops %s" % COMMANDS.get(verb, verb)
    return Trouble("failed-run/%s" % verb, WARNING if verb == "prune" else CRITICAL, text, since, step)


def _late(verb: str, since: datetime, facts: Facts, now: datetime) -> Iterable[Trouble]:
    """A run that takes three times as long as usual (an hour at least); at first, until the next one is due."""
    lengths = [(r.ended - r.begun).total_seconds() for r in facts.runs.get(verb, ())[:_COMPARED] if r.outcome == "ok"]
    allowed = timedelta(days=1)
    if verb in facts.due:
        allowed = longest_gap(facts.due[verb].calendar)
    if len(lengths) >= _FEWEST_TO_COMPARE:
        allowed = min(allowed, max(timedelta(hours=1), timedelta(seconds=3 * statistics.median(lengths))))
    if now - since > allowed:
        text = "The %s has been running for %s; it must not take longer than %s." % (
            verb,
            human_span((now - since).total_seconds()),
            human_span(allowed.total_seconds()),
        )
        step = "Look what it waits for: pgops status, and the locks in pg_stat_activity"
        yield Trouble("late-run/%s" % verb, WARNING, text, since + allowed, step)


def _missed(verb: str, due: Due, facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    """A run that has not begun when it was due. Whatever is newer than the calendar was promised by another one."""
    moment = last_before(due.calendar, now - limits.grace, limits.zone)
    if moment is None or moment < max(due.since, facts.watched_since or due.since):
        return
    if facts.boot is not None and facts.boot + limits.grace > now:
        return
    if _full(facts.state):
        # It may have run and left no record; that nobody knows is told.
        return
    if facts.running and now - moment <= limits.wait + limits.grace:
        # It may be waiting for the one that runs.
        return
    if any(run.ended >= counts_from(moment, limits.zone) for run in facts.runs.get(verb, ())):
        return
    level = CRITICAL if verb == "backup" else WARNING
    text = "The %s that was due at %s has not run." % (verb, _minute(moment, limits.zone))
    step = "See whether cron or systemd starts it (systemctl list-timers, /etc/cron.d/pgops), then run: pgops %s"
    step %= COMMANDS.get(verb, verb)
    yield Trouble("missed-run/%s" % verb, level, text, moment, step)


def _minute(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M %z")


# --- freshness and sets -----------------------------------------------------------------------------------------------

# From the checks of freshness.py and wal_health.py to causes: the key, the step, and how long to wait before it is told.
JUDGED = {
    "backup": ("backup-age", "Run: pgops backup", timedelta(0)),
    "base backup": ("base-age", "Run: pgops backup --kind base", timedelta(0)),
    "off-site copy": ("offsite-age", "Run: pgops sync", timedelta(0)),
    "off-site base backup": ("base-offsite-age", "Run: pgops sync", timedelta(0)),
    "off-site place": ("offsite-place", "Find out why the S3 place cannot be read: pgops probe", _PATIENCE),
    "local place": ("local-place", "Make the backup directory readable for the account of pgops", _PATIENCE),
    "verification": ("verification-age", "Run: pgops verify --level restore", timedelta(0)),
    "clusters": ("two-clusters", "Give the instance of each host a name of its own, see: pgops info", timedelta(0)),
    "clock": ("clock", "Set the clock (timedatectl), then run: pgops backup", timedelta(0)),
    "wal archive": ("wal-archive", "Look into the server's log, and at: pgops wal status", timedelta(0)),
    "wal clock": ("wal-clock", "Set the clocks (timedatectl), then look at: pgops wal status", _PATIENCE),
    "wal contradiction": (
        "wal-contradiction",
        "Stop the archiving of the copy, then look at: pgops wal status",
        timedelta(0),
    ),
    "wal damaged": ("wal-damaged", "Run: pgops backup --kind base", timedelta(0)),
    "wal history": ("wal-history", "Hand it over: pgops wal archive, as pgops wal status says", _PATIENCE),
    "wal timeline": ("wal-timeline", "Run: pgops backup --kind base", _PATIENCE),
    # What is shipped side by side arrives in no order, and what was seen in S3 is believed for an hour.
    "wal gap": ("wal-gap", "Run: pgops backup --kind base", timedelta(minutes=90)),
    "wal room": ("wal-room", "Make room, or let the WAL leave for S3: pgops wal ship", timedelta(0)),
    "wal server": ("wal-server", "See whether the server runs and lets the role in: pgops wal status", _PATIENCE),
    "wal shipping": ("wal-shipping", "Run: pgops wal ship", timedelta(0)),
    "wal window": ("wal-window", "Run: pgops backup --kind base", timedelta(0)),
}


def _judged(facts: Facts, now: datetime) -> Iterable[Trouble]:
    for finding in facts.judged:
        known = JUDGED.get(finding.check)
        if known is None or finding.severity == OK:
            continue
        cause, step, patience = known
        if finding.since is None:
            patience = max(patience, _first_night(cause, facts))
        yield Trouble(cause, finding.severity, finding.text, finding.since or now, step, patience)


def _first_night(cause: str, facts: Facts) -> timedelta:
    """Return how long what has never been there may be missing: on a host that was set up just now it is still to come."""
    verb = next((verb for verb, follower in _FOLLOWS.items() if follower == cause), "")
    if not verb or any(run.outcome == "ok" for run in facts.runs.get(verb, ())):
        return timedelta(0)
    return timedelta(days=7) if verb in ("verify", "base backup") else timedelta(hours=30)


def _sets(facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    for place in sorted({s.place for s in facts.sets}):
        here = [s for s in facts.sets if s.place == place]
        failed = [s for s in here if s.failed]
        if failed:
            newest = here[0] is failed[0]
            text = "%s in the place %s failed the verification: %s." % (
                "The newest set" if len(failed) == 1 and newest else "%d of %d sets" % (len(failed), len(here)),
                place,
                _few(["%s (%s)" % (s.set_id, ", ".join(s.failed)) for s in failed]),
            )
            step = "Do not restore from it. Run: pgops backup, then: pgops verify --level restore"
            yield Trouble("failed-set/%s" % place, CRITICAL if newest else WARNING, text, now, step)
        broken = [s for s in here if s.problem]
        if broken:
            text = "%d of %d sets in the place %s cannot be relied on. %s: %s" % (
                len(broken),
                len(here),
                place,
                broken[0].set_id,
                broken[0].problem,
            )
            yield Trouble("damaged-set/%s" % place, WARNING, text, now, "Bring it from the other place: pgops sync")
    # What a base backup holds, it does not count.
    dumps = [s for s in facts.sets if not is_physical(s.set_id)]
    newest_whole = next((s for s in dumps if s.whole), None)
    if newest_whole is not None and not newest_whole.databases:
        before = next((s for s in dumps if s.databases), None)
        if before is not None or not limits.allow_no_databases:
            text = "The newest set, %s, holds no database%s." % (
                newest_whole.set_id,
                "; %s held %d" % (before.set_id, before.databases) if before else "",
            )
            step = "Check backup.databases and the rights of the role, then run: pgops backup"
            yield Trouble("no-databases", CRITICAL, text, now, step)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else "%s and %d more" % (shown, len(names) - 3)


def _size(facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    """The newest backup against the median of the seven before it."""
    del now
    sized = [r for r in facts.runs.get("backup", ()) if r.outcome == "ok" and r.size is not None]
    if not limits.size_change or len(sized) <= _FEWEST_TO_COMPARE:
        return
    newest = sized[0]
    usual = statistics.median([r.size or 0 for r in sized[1 : _COMPARED + 1]])
    change = 100 * ((newest.size or 0) - usual) / usual if usual else 0
    if abs(change) > limits.size_change and max(newest.size or 0, usual) >= SMALL:
        text = "The newest backup has %s, %+.0f %% against the usual %s." % (
            human_size(newest.size or 0),
            change,
            human_size(usual),
        )
        step = "See what changed: pgops info --details. When it is right, the median follows within four backups"
        yield Trouble("size", WARNING, text, newest.ended, step)


def _coverage(facts: Facts, now: datetime) -> Iterable[Trouble]:
    added = sorted(set(facts.uncovered) - set(facts.known_uncovered))
    gone = [one for one in added if any(words in one for words in _GONE)]
    new = [one for one in added if one not in gone]
    if gone and not new:
        text = "The last backup did not find %s any more." % _few(gone)
        step = "Nothing, if it was dropped on purpose; else bring it back: pgops restore --list"
        yield Trouble("uncovered", WARNING, text, now, step)
    elif new:
        new += gone
        text = "No backup holds %s, which %s new." % (_few(new), "is" if len(new) == 1 else "are")
        step = "Add it to backup.databases, or to backup.exclude_databases when nobody needs it"
        yield Trouble("uncovered", WARNING, text, now, step)


# --- the host ---------------------------------------------------------------------------------------------------------


def _disk(facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    disk = facts.disk
    if disk is None:
        return
    step = "Make room (pgops prune --dry-run shows what retention would remove), or give local.path a larger disk"
    said = str(disk)
    if disk.free < disk.floor:
        text = "%s, less than the %s that must stay free: the next backup will not run." % (
            said,
            human_size(disk.floor),
        )
        yield Trouble("disk", CRITICAL, text, now, step)
        return
    sizes = [r.size for r in facts.runs.get("backup", ()) if r.outcome == "ok" and r.size is not None]
    if sizes and disk.free < disk.floor + sizes[0]:
        text = "%s; a backup as large as the newest (%s) would not fit." % (said, human_size(sizes[0]))
        yield Trouble("disk", CRITICAL, text, now, step)
        return
    left = days_left(disk)
    if left is not None and limits.disk_days and left < limits.disk_days:
        text = "%s, and at the pace of the last two weeks backups no longer fit in %s." % (
            said,
            human_span(left.total_seconds()),
        )
        yield Trouble("disk", WARNING, text, now, step)


def _full(disk: Optional[Disk]) -> bool:
    return disk is not None and disk.free < disk.floor


def _state(facts: Facts, now: datetime) -> Iterable[Trouble]:
    if facts.state is not None and _full(facts.state):
        text = "%s: runs leave no record, so that status, metrics and alerts do not know of them." % facts.state
        yield Trouble("state-disk", CRITICAL, text, now, "Make room on the disk of state_dir, then run: pgops status")


def days_left(disk: Disk) -> Optional[timedelta]:
    """Return how long the disk lasts at its pace; None when it does not fill up, or nobody can tell yet.

    Days are compared with the same day of the next week, so that a weekly prune is no pace.
    """
    steps = [(disk.days[day + 7 * _DAY] - free) / 7.0 for day, free in disk.days.items() if day + 7 * _DAY in disk.days]
    if len(steps) < _FEWEST_TO_COMPARE:
        return None
    pace = statistics.median(steps)
    if pace >= 0:
        return None
    return timedelta(days=min(36500.0, max(0.0, (disk.free - disk.floor) / -pace)))


def _clock(facts: Facts, now: datetime) -> Iterable[Trouble]:
    step = "Set the clock (timedatectl), then run: pgops backup"
    if facts.ahead is not None and abs(facts.ahead) > CLOCK_TOLERANCE:
        text = "The clock of this host is %s %s that of a server that answered." % (
            human_span(abs(facts.ahead.total_seconds())),
            "ahead of" if facts.ahead > timedelta(0) else "behind",
        )
        yield Trouble("clock", WARNING, text, now, step)
        return
    newest = max((r.ended for runs in facts.runs.values() for r in runs[:1]), default=now)
    if newest > now + CLOCK_TOLERANCE:
        text = "A run ended %s from now: the clock of this host was set back, or was ahead then." % human_span(
            (newest - now).total_seconds()
        )
        yield Trouble("clock", WARNING, text, now, step)


def _restore_test(facts: Facts, limits: Limits, now: datetime) -> Iterable[Trouble]:
    if limits.restore_test is None:
        return
    finding = tried(facts.restored, facts.watched_since, limits.restore_test, now)
    if finding.since is not None:
        step = "Restore beside the original: pgops restore --database NAME --rename NAME NAME_test"
        yield Trouble("restore-test", finding.severity, finding.text, finding.since, step)


# --- one per cause ----------------------------------------------------------------------------------------------------


def _folded(found: Iterable[Trouble], verified: Sequence[Run] = ()) -> list[Trouble]:
    """Return `found` with each cause once, and without what only follows from another one.

    A verification (`verified`: the newest first) that failed because a set or WAL did is told as that; a copy that is old
    because its run failed is told as the run, with the worse of the two levels.
    """
    by_cause: dict[str, Trouble] = {}
    for trouble in found:
        held = by_cause.get(trouble.cause)
        if held is None or worst((held.level, trouble.level)) != held.level:
            by_cause[trouble.cause] = trouble
    if (
        verified
        and _FOUND_DAMAGE in verified[0].reason
        and any(c.startswith("failed-set/") or c == "wal-damaged" for c in by_cause)
    ):
        by_cause.pop("failed-run/verify", None)
    if "wal-window" in by_cause:  # that there is no base backup is what it says
        by_cause.pop("base-age", None)
    for verb, follower in _FOLLOWS.items():
        leader = next((c % verb for c in ("failed-run/%s", "missed-run/%s", "late-run/%s") if c % verb in by_cause), "")
        follows = by_cause.get(follower)
        if leader and follows is not None:
            held = by_cause[leader]
            del by_cause[follower]
            if follows.patience:
                continue
            text = "%s %s" % (held.text, follows.text)
            by_cause[leader] = replace(held, level=worst((held.level, follows.level)), text=text)
    return list(by_cause.values())


__all__ = (
    "COMMANDS",
    "JUDGED",
    "WATCHED",
    "Disk",
    "Due",
    "Facts",
    "Limits",
    "Run",
    "SetFacts",
    "Trouble",
    "days_left",
    "troubles",
)
