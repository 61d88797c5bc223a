# SPDX-License-Identifier: GPL-3.0-or-later
"""Sixty simulated days of a host on which anything may go wrong: each cause of the policy is told in time, and nothing else.

The state goes through its own file format at each look, as it does on a host. What must be told is worked out anew here, from
nothing but what was wrong when.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts import state
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channel import Channel
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.delivery import deliver, enqueue
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.http import Answer, DeliveryError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import (
    alerting,
    freshness,
    severities,
    wal_health,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.alerting import (
    Disk,
    Due,
    Facts,
    Limits,
    Run,
    SetFacts,
    Trouble,
    troubles,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import Calendar, next_after, parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.incidents import Incident, Policy, advance
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.json_text import to_json
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.lineages import Taken
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.notices import Notice, Origin, notice
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.quiet import RANK, parse_quiet
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import Redactor
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso, parse_iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Alerts, Config, PagerDuty

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DAYS, STEP, TOOK = 60, 15 * MINUTE, 10 * MINUTE
START = datetime(2026, 3, 1, 0, 0, tzinfo=UTC)  # a Sunday
END = START + DAYS * DAY
LONG_AGO = START - 40 * DAY
GIB = 1 << 30
CALENDARS: dict[str, Calendar] = {
    verb: parse(text)
    for verb, text in {
        "backup": "0 2 * * *",
        "base backup": "0 0 * * 0",
        "sync": "30 2 * * *",
        "verify": "0 3 * * *",
        "prune": "0 1 * * 0",
    }.items()
}
DUE = {verb: Due(calendar, LONG_AGO) for verb, calendar in CALENDARS.items()}
FRESH = freshness.limits(CALENDARS["backup"], CALENDARS["sync"], CALENDARS["verify"], base=CALENDARS["base backup"])
LIMITS = Limits(restore_test=90 * DAY)
BOUNDS = wal_health.Bounds(10 * MINUTE, GIB)
FATES = ("failed", "missed", "hung")
# What may be wrong for a while beside the runs, and the cause that it is told as. What follows from a run is told with it.
SPELLS = {
    "dumps lost": "backup-age",
    "bases lost": "base-age",
    "copies lost": "offsite-age",
    "copies of bases lost": "base-offsite-age",
    "proofs lost": "verification-age",
    "directory closed": "local-place",
    "clock ahead": "clock",
    "set of the future": "clock",
    "two hosts, one name": "two-clusters",
    "set failed": "failed-set/local",
    "set damaged": "damaged-set/s3",
    "empty set": "no-databases",
    "new database": "uncovered",
    "shrunk": "size",
    "disk full": "disk",
    "nobody tries": "restore-test",
    "archiving fails": "wal-archive",
    "two archive": "wal-contradiction",
    "WAL missing": "wal-gap",
    "WAL rots": "wal-damaged",
    "new timeline": "wal-timeline",
    "no history": "wal-history",
    "clocks apart": "wal-clock",
    "WAL fills the disk": "wal-room",
    "server silent": "wal-server",
    "shipping stops": "wal-shipping",
    "WAL without a base": "wal-window",
    # Last, as while these last, runs fail or nobody can tell whether one was missed.
    "store away": "offsite-place",
    "records' disk full": "state-disk",
}
_LEADERS = {
    "backup-age": "backup",
    "base-age": "base backup",
    "base-offsite-age": "base backup",
    "offsite-age": "sync",
    "verification-age": "verify",
}
# What is told in the place of a cause that cannot be told from it.
_INSTEAD = {
    "base-age": ("wal-window",),
    "base-offsite-age": ("base-age", "wal-window", "offsite-place"),
    "offsite-age": ("offsite-place",),
    "wal-archive": ("wal-server",),
}
Span = tuple[datetime, datetime]


def causes_of_the_policy() -> set[str]:
    """Every cause that alerting.py can make, as its own source has them; a verb or a place in one is a %s."""
    made = set()
    for node in ast.walk(ast.parse(inspect.getsource(alerting))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Trouble":
            first = node.args[0]
            if isinstance(first, ast.BinOp):
                first = first.left
            if isinstance(first, ast.Constant):
                made.add(str(first.value))
            else:
                assert isinstance(first, ast.Name) and first.id == "cause", (
                    "a cause that cannot be told from the source"
                )
    every = {cause % verb for cause in made if cause.endswith("-run/%s") for verb in alerting.WATCHED}
    every |= {cause for cause in made if not cause.endswith("-run/%s")}
    return every | {cause for cause, _step, _patience in alerting.JUDGED.values()}


def test_the_table_of_severities_has_every_cause_and_no_other() -> None:
    every = {cause.partition("/")[0] for cause in causes_of_the_policy()}
    assert {one.cause for one in severities.TABLE} == every


def test_the_guide_has_every_cause() -> None:
    guide = Path(__file__).resolve().parents[5] / "docs" / "alerts.md"
    told = set(re.findall(r"`([a-z/A-Z-]+)`", guide.read_text(encoding="utf-8").partition("| cause |")[2]))
    every = {cause.replace("/%s", "/PLACE") for cause in causes_of_the_policy()}
    every = {"%s/VERB" % cause.partition("/")[0] if "-run/" in cause else cause for cause in every}
    assert every - told == set()


@dataclass
class Host:
    """A host whose runs go as `fates` says, by verb and day, and on which `spells` are wrong from a moment to another."""

    fates: dict[tuple[str, int], str] = field(default_factory=dict)
    spells: dict[str, list[Span]] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    running: dict[str, datetime] = field(default_factory=dict)
    made: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Three weeks of good nights before anybody looks.
        self.plan: list[tuple[datetime, str, int]] = []
        for verb, calendar in CALENDARS.items():
            moment = next_after(calendar, START - 21 * DAY - MINUTE, UTC)
            while moment is not None and moment < END:
                self.plan.append((moment, verb, (moment - START).days))
                moment = next_after(calendar, moment, UTC)
        self.plan.sort()
        self.live_until(START - STEP)

    def on(self, spell: str, now: datetime) -> bool:
        return any(first <= now < last for first, last in self.spells.get(spell, ()))

    def _end(self, verb: str, begun: datetime, ended: datetime, outcome: str) -> None:
        size = None
        if verb == "backup" and outcome == "ok":
            size = GIB // 10 if self.on("shrunk", ended) else GIB
        self.runs[verb].insert(0, Run(verb, outcome, begun, ended, "", size))
        del self.runs[verb][30:]
        if outcome == "ok":
            if verb == "sync":
                self.made["copy"], self.made["copy of base"] = self.made["backup"], self.made["base backup"]
            self.made[verb] = ended if verb == "verify" else begun

    def live_until(self, now: datetime) -> None:
        for verb in list(self.running):
            # What hangs is ended by somebody after half a day.
            if now - self.running[verb] >= 12 * HOUR:
                self._end(verb, self.running.pop(verb), now, "interrupted")
        # What has begun is not in a record before it has ended.
        while self.plan and self.plan[0][0] + TOOK <= now:
            begun, verb, day = self.plan.pop(0)
            fate = self.fates.get((verb, day), "ok") if day >= 0 else "ok"
            if verb == "sync" and self.on("store away", begun):
                fate = "failed"
            if fate == "hung":
                self.running[verb] = begun
            elif fate != "missed":
                self._end(verb, begun, begun + TOOK, fate)

    def _seen(self, what: str, now: datetime, *lost: str) -> Optional[freshness.Seen]:
        return None if any(self.on(spell, now) for spell in lost) else freshness.Seen("s", self.made[what])

    def _judged(self, now: datetime) -> list[freshness.Finding]:
        known = freshness.Facts(
            newest=self._seen("backup", now, "dumps lost"),
            oldest=freshness.Seen("s", LONG_AGO),
            offsite=self._seen("copy", now, "copies lost"),
            verified=self._seen("verify", now, "proofs lost"),
            base=self._seen("base backup", now, "bases lost"),
            base_offsite=self._seen("copy of base", now, "copies of bases lost"),
            ahead=freshness.Seen("f", now + DAY) if self.on("set of the future", now) else None,
            clusters=(Taken("t", now, "7"), Taken("s", now, "8")) if self.on("two hosts, one name", now) else (),
            offsite_error="The store does not answer." if self.on("store away", now) else "",
            local_error="Permission denied." if self.on("directory closed", now) else "",
        )
        return [*freshness.judge(known, FRESH, now), *self._wal(now)]

    def _wal(self, now: datetime) -> list[freshness.Finding]:
        failed = now - MINUTE if self.on("archiving fails", now) else None
        server = wal_health.ServerWal(
            "on", "pgops wal archive %p", 60, 1 << 24, 0, "1", now - 2 * MINUTE, "2", failed, 1, 0, None
        )
        server = dataclasses.replace(
            server,
            system_identifier="7",
            timeline=2 if self.on("new timeline", now) or self.on("no history", now) else 1,
            ahead_seconds=600.0 if self.on("clocks apart", now) else 0.0,
        )
        behind = now - 2 * HOUR if self.on("shipping stops", now) else None
        holding = wal_health.Holding(
            "s3",
            gaps=["000000010000000000000007"] if self.on("WAL missing", now) else (),
            contradictions=["000000010000000000000008"] if self.on("two archive", now) else (),
            recoverable_to=None if self.on("WAL without a base", now) else now,
            segments=100,
            damaged=["000000010000000000000009"] if self.on("WAL rots", now) else (),
            bases=[("7", 1)],
            stranded=[("7", 2)] if self.on("no history", now) else (),
        )
        return wal_health.judge(
            None if self.on("server silent", now) else server,
            "It does not answer.",
            wal_health.Shipping(3 if behind else 0, 1 << 24, behind, "", None, now),
            wal_health.Room(GIB, 0, self._growth(now)),
            [holding],
            BOUNDS,
            now,
        )

    def _growth(self, now: datetime) -> float:
        """Bytes per second: at first the disk lasts for six hours, a day later for one."""
        if not self.on("WAL fills the disk", now):
            return 0.0
        return GIB / 3600 / (1 if self.on("WAL fills the disk", now - DAY) else 6)

    def facts(self, now: datetime) -> Facts:
        newest, older = "20260301T020000Z-logical", "20260228T020000Z-logical"
        damaged = "Its manifest cannot be read." if self.on("set damaged", now) else ""
        day = now.date()
        return Facts(
            judged=self._judged(now),
            runs=self.runs,
            running=self.running,
            due=DUE,
            sets=[
                SetFacts(
                    newest,
                    "local",
                    GIB,
                    0 if self.on("empty set", now) else 2,
                    failed=("restore",) if self.on("set failed", now) else (),
                ),
                SetFacts(older, "s3", GIB, 2, problem=damaged),
            ],
            uncovered=["database new"] if self.on("new database", now) else [],
            disk=Disk("/b", GIB // 2 if self.on("disk full", now) else 50 * GIB, GIB, _days(day)),
            state=Disk("/s", 4096 if self.on("records' disk full", now) else GIB, 1 << 20),
            restored=now - (91 * DAY if self.on("nobody tries", now) else DAY),
            watched_since=LONG_AGO,
            ahead=HOUR if self.on("clock ahead", now) else timedelta(0),
        )


def _days(day: date) -> dict[date, int]:
    return {day - n * DAY: 50 * GIB for n in range(14)}


# --- what must be told ------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What a person must have heard of one cause: worked out from what is wrong, step by step."""

    since: Optional[datetime] = None
    opened: Optional[datetime] = None
    told: Optional[datetime] = None
    level: str = ""
    loudest: int = -1
    escalated: bool = False
    over: Optional[datetime] = None
    ended: Optional[datetime] = None
    times: int = 1

    def at(self, now: datetime, wrong: Optional[Trouble], policy: Policy) -> str:
        """Return the event that must be told at `now`, empty for none."""
        if wrong is None:
            if self.told is None:
                self.ended = now if self.since and self.times > 1 else self.ended
                self.since = None
                return ""
            self.over = self.over or now
            if now - self.over < min(6, 2 * (self.times - 1)) * HOUR:
                return ""
            if policy.quiet.holds(now, min(self.loudest, RANK["critical"])):
                return ""
            self.__init__(times=self.times, ended=now)  # type: ignore[misc]
            return "recovered"
        if self.over is not None:
            self.over, self.times = None, self.times + 1
        if self.since is None:
            self.times = self.times + 1 if self.ended and now - self.ended < 6 * HOUR else 1
            self.since = now
        level = "critical" if self.escalated else wrong.level
        if self.told is None or self.opened is None:
            event = "opened" if now - self.since >= wrong.patience else ""
        elif (wrong.level, self.level) == ("critical", "warning"):
            event = "raised"
        elif not self.escalated and policy.escalate_after and now - self.opened >= policy.escalate_after:
            event, level = "escalated", "critical"
        else:
            event = "repeated" if now - self.told >= policy.repeat else ""
        rank = RANK["escalated"] if event == "escalated" else RANK[level]
        if not event or policy.quiet.holds(now, rank):
            return ""
        self.opened, self.told, self.level = self.opened or now, now, level
        self.loudest, self.escalated = max(self.loudest, rank), self.escalated or event == "escalated"
        return event


@dataclass
class Watched:
    """By cause: from when to when it was wrong, and what was told when."""

    wrong: dict[str, list[list[datetime]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[tuple[datetime, str]]] = field(default_factory=lambda: defaultdict(list))

    def was_wrong(self, cause: str, first: datetime, last: datetime) -> bool:
        return any(begun <= last and ended >= first for begun, ended in self.wrong[cause])


def simulate(
    host: Host, policy: Policy, folder: Path, *, damaged_at: Optional[datetime] = None, begin: datetime = START
) -> Watched:
    """Look at the host each quarter of an hour, and hold what is told against what must be. The file is damaged once."""
    seen, expected = Watched(), defaultdict(Expected)  # type: ignore[var-annotated]
    held, now = state.State(watched_since=LONG_AGO), begin
    before: dict[str, Incident] = {}
    wrong: set[str] = set()
    while now <= END:
        host.live_until(now)
        if damaged_at is not None and now >= damaged_at:
            damaged_at = None
            state.save(folder, held)
            (folder / state.NAME).write_bytes((folder / state.NAME).read_bytes()[:-20])
            held, trouble = state.load(folder)
            assert trouble
            assert state.set_aside(folder, now) in [path.name for path in folder.iterdir()]
            assert held.incidents == {}
            # What is open is told anew; that what was over is over, nobody remembers.
            expected.clear()
        found = {t.cause: t for t in troubles(host.facts(now), LIMITS, now)}
        for trouble in found.values():
            assert trouble.level in severities.levels_of(trouble.cause), trouble.cause
        held.incidents, tellings = advance(held.incidents, found.values(), policy, now)
        told = {t.cause: t for t in tellings}
        assert len(told) == len(tellings), "one look tells of a cause once"
        for cause in sorted({*found, *expected}):
            wanted = expected[cause].at(now, found.get(cause), policy)
            got = told.pop(cause, None)
            assert (got.event if got else "") == wanted, (cause, iso(now))
            if wanted:
                seen.told[cause].append((now, wanted))
        assert not told, "of what was never wrong nothing is told"
        for cause in found:
            if cause not in wrong:
                seen.wrong[cause].append([now, now])
            seen.wrong[cause][-1][1] = now
        # As the next look finds it; what is as it was, is in the file already.
        if held.incidents != before:
            kept = to_json(held.as_data())
            held = state.from_data(json.loads(kept))
            assert to_json(held.as_data()) == kept
            before = dict(held.incidents)
        wrong, now = set(found), now + STEP
    return seen


def check(seen: Watched, host: Host, policy: Policy, damaged_at: Optional[datetime] = None) -> None:
    """What a person may ask for, whatever the rules are: in time, not too often, and the end once."""
    for cause, told in seen.told.items():
        for (earlier, one), (later, other) in itertools.pairwise(told):
            lost = damaged_at is not None and earlier < damaged_at <= later
            if one == "recovered":
                assert other == "opened", cause
            elif other == "repeated":
                assert later - earlier >= policy.repeat, cause
            else:
                assert other in ("raised", "escalated", "recovered") or lost, (cause, one, other)
        assert sum(event == "recovered" for _when, event in told) <= len(seen.wrong[cause]), "each end once"
    # And what went wrong was seen as wrong: within the hour that a run may be late, or at once.
    for (verb, day), fate in host.fates.items():
        begun = next((n for n in (next_after(CALENDARS[verb], START + day * DAY - MINUTE, UTC),) if n), END)
        if begun >= min(END, START + (day + 1) * DAY) or host.on("records' disk full", begun + HOUR):
            continue
        really = "failed" if verb == "sync" and host.on("store away", begun) else fate
        limit = {"failed": TOOK, "missed": HOUR, "hung": 12.5 * HOUR}[really] + STEP
        causes = ["%s/%s" % (kind, verb) for kind in ("failed-run", "missed-run", "late-run")]
        assert any(seen.was_wrong(cause, begun, begun + limit) for cause in causes), (verb, day, fate)
    for spell, spans in host.spells.items():
        cause = SPELLS[spell]
        verb = _LEADERS.get(cause, "")
        instead = ["%s/%s" % (kind, verb) for kind in ("failed-run", "missed-run", "late-run") if verb]
        instead += _INSTEAD.get(cause, ())
        for first, last in spans if spell != "shrunk" else ():
            if first >= START and last - first >= STEP:
                assert any(seen.was_wrong(c, first, first + STEP) for c in [cause, *instead]), (spell, iso(first))


QUIET = ("", "22:00-07:00", "09:00-17:30")


def policy_of(quiet: str, level: str = "critical") -> Policy:
    return Policy(repeat=DAY, escalate_after=3 * DAY, quiet=parse_quiet(quiet, UTC, level))


# --- sixty days -------------------------------------------------------------------------------------------------------


@pytest.fixture(name="folder", scope="module")
def folder_of_the_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.mark.parametrize("quiet", QUIET[1:2])
def test_every_cause_of_the_policy_is_told_in_time(quiet: str, folder: Path) -> None:
    """One after another, each for four days and some hours, so that it is told, repeated, escalated and over."""
    fates = {}
    for number, verb in enumerate(alerting.WATCHED):
        weekly = verb in ("base backup", "prune")
        for turn, fate in enumerate(FATES):
            fates[(verb, 7 * (3 * (number % 2) + turn + 1) + (0 if weekly else number))] = fate
    spells = {}
    for number, spell in enumerate(SPELLS):
        first = START + (2 + number * 1.87) * DAY + number * HOUR
        spells[spell] = [(first, first + 4 * DAY + 5 * HOUR)]
    host, policy = Host(fates, spells), policy_of(quiet)
    seen = simulate(host, policy, folder, damaged_at=START + 30 * DAY)
    check(seen, host, policy, START + 30 * DAY)
    every = causes_of_the_policy()
    raised = {c if "-run/" in c else c.replace("/local", "/%s").replace("/s3", "/%s") for c in seen.told}
    assert every - raised == set(), "causes that this simulation never raises"
    assert raised - every == set()
    events = {event for told in seen.told.values() for _when, event in told}
    assert events == {"opened", "raised", "repeated", "escalated", "recovered"}
    over = [cause for cause, told in seen.told.items() if told[-1][1] == "recovered"]
    assert set(over) == set(seen.told), "all of it is over in the end"


FATE = st.dictionaries(
    st.tuples(st.sampled_from(alerting.WATCHED), st.integers(0, DAYS - 5)), st.sampled_from(FATES), max_size=10
)
SPELL = st.dictionaries(
    st.sampled_from(sorted(SPELLS)),
    st.lists(
        st.tuples(st.integers(0, (DAYS - 6) * 96), st.integers(1, 5 * 96)).map(
            lambda when: (START + when[0] * STEP, START + (when[0] + when[1]) * STEP)
        ),
        min_size=1,
        max_size=2,
    ),
    max_size=8,
)


# To shrink what fails would take longer than to read it.
@settings(max_examples=2, derandomize=True, phases=(Phase.explicit, Phase.generate), print_blob=True)
@given(
    fates=FATE,
    spells=SPELL,
    quiet=st.sampled_from(QUIET),
    level=st.sampled_from(["critical", "escalated"]),
    damaged=st.integers(0, DAYS),
)
def test_whatever_goes_wrong_is_told_in_time_once_and_its_end_once(
    folder: Path, fates: dict[tuple[str, int], str], spells: dict[str, list[Span]], quiet: str, level: str, damaged: int
) -> None:
    host, policy, damaged_at = Host(fates, spells), policy_of(quiet, level), START + damaged * DAY
    check(simulate(host, policy, folder, damaged_at=damaged_at), host, policy, damaged_at)


def test_sixty_clean_days_are_silent(folder: Path) -> None:
    seen = simulate(Host(), policy_of(""), folder, damaged_at=START + 20 * DAY)
    assert not seen.told
    assert not seen.wrong


def test_a_host_that_stops_backing_up_is_told_of_for_as_long_as_it_lasts(folder: Path) -> None:
    host = Host({("backup", n): "missed" for n in range(50, DAYS)})
    told = simulate(host, policy_of(""), folder, begin=START + 49 * DAY).told["missed-run/backup"]
    assert told[0] == (START + 50 * DAY + 3 * HOUR, "opened")
    assert [event for _when, event in told[1:4]] == ["repeated", "repeated", "escalated"]
    assert all(event == "repeated" for _when, event in told[4:])


# --- sixty days with channels that fail -------------------------------------------------------------------------------

# How a channel fails, and how long after that it may be until what waited has arrived: one look, when it was asked to wait one more,
# and after a time-out, which may have been an acceptance, up to the longest pause between two tries.
OUTAGES = {
    "500": ({"again": True}, 2 * STEP),
    "429": ({"again": True, "wait": 1800.0}, HOUR),
    "hang": ({"again": False, "unsure": True}, 34 * HOUR),
}
STEPS = DAYS * 96
LAST = STEPS - 4 * 96  # the last four days are clean, and every channel works
LEVELS = {"a": "warning", "b": "critical", "c": "warning", "d": "critical"}
PATIENCE = {"c": HOUR / 2, "d": HOUR}


class Receiver(Channel):
    """A channel whose service answers as `outages` says: from a step to another, in a way of OUTAGES."""

    def __init__(self, name: str, outages: list[tuple[int, int, str]], clock: Callable[[], datetime]) -> None:
        self.name, self.outages, self.clock = name, outages, clock
        super().__init__(Config(alerts=Alerts(pagerduty=PagerDuty(level="warning"))), None)  # type: ignore[arg-type]
        self.knows_again = name == "pagerduty"
        self.got: list[tuple[datetime, Notice]] = []

    def fails(self, now: datetime) -> str:
        step = (now - START) // STEP
        return next((how for first, length, how in self.outages if first <= step < first + length), "")

    def send(self, notice: Notice) -> Answer:
        how = self.fails(self.clock())
        if how:
            raise DeliveryError("It fails (%s)." % how, **OUTAGES[how][0])  # type: ignore[arg-type]
        self.got.append((self.clock(), notice))
        return Answer("ok")


SPANS = st.one_of(
    st.tuples(st.integers(0, LAST - 480), st.integers(1, 480)).map(lambda t: [(t[0], t[0] + t[1])]),
    # One that comes and goes: how long it is there, how long away, and how often.
    st.tuples(st.integers(0, LAST - 960), st.integers(1, 12), st.integers(1, 36), st.integers(2, 20)).map(
        lambda t: [(t[0] + n * (t[1] + t[2]), t[0] + n * (t[1] + t[2]) + t[1]) for n in range(t[3])]
    ),
)
OUTAGE = st.lists(
    st.tuples(st.integers(0, LAST - 160), st.integers(1, 80), st.sampled_from(sorted(OUTAGES))), max_size=6
)


@settings(max_examples=40, derandomize=True, phases=(Phase.explicit, Phase.generate), deadline=None, print_blob=True)
@given(
    spells=st.dictionaries(st.sampled_from(sorted(LEVELS)), st.lists(SPANS, min_size=1, max_size=4)),
    outages=st.fixed_dictionaries({"slack": OUTAGE, "pagerduty": OUTAGE}),
    restarts=st.sets(st.integers(0, STEPS), max_size=20),
)
def test_channels_that_fail_and_restarts_lose_nothing_and_tell_nothing_twice(
    spells: dict[str, list[list[tuple[int, int]]]],
    outages: dict[str, list[tuple[int, int, str]]],
    restarts: set[int],
) -> None:
    wrong = {cause: {n for spans in every for one in spans for n in range(*one)} for cause, every in spells.items()}
    now, policy = START, policy_of("")

    def clock() -> datetime:
        return now

    receivers = [Receiver(name, failing, clock) for name, failing in sorted(outages.items())]
    held, origin, masks = state.State(), Origin("db1", "host1"), Redactor()
    told: dict[str, list[tuple[datetime, str]]] = {cause: [] for cause in wrong}
    for step in range(STEPS):
        now = START + step * STEP
        if step in restarts:
            held = state.from_data(json.loads(to_json(held.as_data())))
        found = [
            Trouble(cause, LEVELS[cause], "T", now, "S", PATIENCE.get(cause, timedelta(0)))
            for cause, steps in sorted(wrong.items())
            if step in steps
        ]
        held.incidents, tellings = advance(held.incidents, found, policy, now)
        for telling in tellings:
            told[telling.cause].append((now, telling.event))
        for trouble in found:
            since = [n in wrong[trouble.cause] for n in range(max(0, step - trouble.patience // STEP), step + 1)]
            if all(since) and len(since) > trouble.patience // STEP:
                assert held.incidents[trouble.cause].told is not None, "an alarm is never late"
        enqueue(held, receivers, [notice(one, origin, masks, now) for one in tellings], clock)
        if held.queue:
            deliver(held, receivers, masks, clock, pause=lambda _seconds: None)
    for cause, events in told.items():
        begun = [when for when, event in events if event == "opened"]
        assert all(sum(when <= other < when + DAY for other in begun) <= 7 for when in begun), "not each time"
        _alternate([event for _when, event in events])
        assert not events or events[-1][1] == "recovered", cause
    assert held.queue == []
    for receiver in receivers:
        _all_arrived(receiver, told)


def _alternate(events: list[str]) -> None:
    """Nothing is opened twice, and nothing ends that was not open."""
    ends = [event for event in events if event in ("opened", "recovered")]
    assert ends == ["opened", "recovered"] * (len(ends) // 2)


def _all_arrived(receiver: Receiver, told: dict[str, list[tuple[datetime, str]]]) -> None:
    """What was told arrived once, in order and in time; behind a time-out, it or what is newer of the same incident."""
    hung = any(how == "hang" for _first, _length, how in receiver.outages) and not receiver.knows_again
    for cause, events in told.items():
        mine = [(when, one.event, parse_iso(one.at)) for when, one in receiver.got if one.cause == cause]
        assert len({(event, at) for _when, event, at in mine}) == len(mine), "nothing arrives twice"
        if not hung:
            _alternate([event for _when, event, _at in mine])
        if events:
            assert mine[-1][1] == "recovered", "whoever heard of it hears of its end"
        for at, event in events:
            limit = at
            for first, length, how in sorted(receiver.outages):
                begun, ended = START + first * STEP, START + (first + length) * STEP
                if begun - OUTAGES[how][1] <= limit and at < ended + OUTAGES[how][1]:
                    limit = max(limit, ended + OUTAGES[how][1])
            fine = [one for when, one, its in mine if when <= limit and (its > at or (its == at and one == event))]
            # A reminder does not wait behind what says the same.
            assert fine or event == "repeated", (cause, event, iso(at))
