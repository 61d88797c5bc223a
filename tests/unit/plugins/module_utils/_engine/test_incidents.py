# SPDX-License-Identifier: GPL-3.0-or-later
"""Incidents: told once, repeated seldom, escalated, over once; and sixty simulated days of a host with random failures."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import freshness
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.alerting import (
    Due,
    Facts,
    Limits,
    Run,
    SetFacts,
    Trouble,
    troubles,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import last_before, next_after, parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.incidents import (
    Incident,
    Policy,
    Telling,
    advance,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.quiet import RANK, Quiet, parse_quiet

MOMENTS = st.integers(0, 60 * 366 * 24 * 60).map(
    lambda minutes: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def trouble(cause: str = "c", level: str = "warning", **facts: Any) -> Trouble:
    return Trouble(**{"cause": cause, "level": level, "text": "T", "since": NOW, "step": "S", **facts})


class Night:
    """Incidents over time; `at` looks at one moment, hours after the first."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.held: dict[str, Incident] = {}

    def at(self, hours: float, *found: Trouble) -> list[Telling]:
        self.held, told = advance(self.held, found, self.policy, NOW + timedelta(hours=hours))
        # What is kept in a file must come back the same.
        assert {c: Incident.from_data(i.as_data()) for c, i in self.held.items()} == self.held
        return told

    def events(self, hours: float, *found: Trouble) -> list[str]:
        return ["%s %s" % (t.event, t.cause) for t in self.at(hours, *found)]


def test_a_trouble_is_told_once_and_its_end_once() -> None:
    night = Night()
    assert night.events(0, trouble()) == ["opened c"]
    assert night.events(0.25, trouble()) == []
    assert night.events(0.5) == ["recovered c"]
    assert night.events(0.75) == []
    assert night.held == {}
    assert night.events(1, trouble()) == ["opened c"], "another time is another incident"


def test_a_reminder_comes_a_day_later_and_the_escalation_after_three() -> None:
    night = Night()
    events = {h: e for h in range(24 * 6) if (e := night.events(h, trouble()))}
    assert events == {
        0: ["opened c"],
        24: ["repeated c"],
        48: ["repeated c"],
        72: ["escalated c"],
        96: ["repeated c"],
        120: ["repeated c"],
    }
    assert night.held["c"].loudest == RANK["escalated"]
    (over,) = night.at(24 * 6)
    assert (over.event, over.level, over.rank) == ("recovered", "critical", RANK["escalated"])


def test_nothing_is_repeated_or_escalated_where_that_is_not_wanted() -> None:
    night = Night(Policy(repeat=timedelta(0), escalate_after=timedelta(0)))
    assert [e for h in range(24 * 9) for e in night.events(h, trouble())] == ["opened c"]


def test_what_gets_worse_is_told_at_once_and_what_gets_better_is_not() -> None:
    night = Night()
    night.at(0, trouble())
    (raised,) = night.at(1, trouble(level="critical", text="worse"))
    assert (raised.event, raised.level, raised.text) == ("raised", "critical", "worse")
    assert night.at(2, trouble()) == []
    assert night.at(3, trouble(level="critical")) == []
    assert night.at(4)[0].rank == RANK["critical"], "the recovery goes to all who heard of it"


def test_what_may_pass_by_itself_is_told_when_it_has_not() -> None:
    night = Night()
    slow = trouble(patience=HOUR / 2)
    assert night.at(0, slow) == []
    assert night.at(0.25, slow) == []
    assert night.events(0.5, slow) == ["opened c"]
    assert night.events(0.75) == ["recovered c"]
    assert night.at(1, slow) == []
    assert night.at(1.25) == [], "what was never told has no end to be told"
    assert night.held == {}


def test_the_first_moment_of_an_incident_stays() -> None:
    night = Night()
    night.at(0, trouble(since=NOW - HOUR))
    night.at(1, trouble(since=NOW + HOUR))
    assert night.held["c"].since == NOW - HOUR


def test_several_are_told_the_loudest_first() -> None:
    found = [trouble("b"), trouble("z", "critical"), trouble("a")]
    assert Night().events(0, *found) == ["opened z", "opened a", "opened b"]


# --- quiet hours ------------------------------------------------------------------------------------------------------


def quiet(hours: str = "22:00-07:00", level: str = "critical") -> Policy:
    return Policy(quiet=parse_quiet(hours, UTC, level))


def test_in_quiet_hours_warnings_wait_and_what_is_critical_does_not() -> None:
    night = Night(quiet())
    assert night.at(15, trouble("w"), trouble("c", "critical"))[0].cause == "c"
    assert night.at(20, trouble("w")) == [Telling("recovered", "c", "critical", "T", "S", NOW, RANK["critical"])]
    assert night.events(23, trouble("w")) == ["opened w"], "07:00"
    assert night.events(39) == [], "a recovery waits, too"
    assert "w" in night.held
    assert night.events(47) == ["recovered w"]


def test_what_comes_back_before_its_end_was_told_goes_on() -> None:
    night = Night(quiet())
    night.at(0, trouble())
    assert night.at(15) == []
    assert night.held["c"].over is not None
    assert night.at(16, trouble()) == []
    assert night.held["c"].over is None
    assert night.events(24) == ["recovered c"]


def test_what_began_and_ended_in_quiet_hours_is_never_told() -> None:
    night = Night(quiet())
    assert night.at(15, trouble()) + night.at(20) + night.at(24) == []


def test_an_escalation_may_be_all_that_is_told_at_night() -> None:
    # With quiet hours around the clock, only what has lasted is heard of.
    policy = Policy(escalate_after=2 * HOUR, quiet=parse_quiet("00:00-23:59", UTC, "escalated"))
    night = Night(policy)
    assert night.events(15.99, trouble(level="critical")) == ["opened c"], "23:59"
    assert night.at(16.5, trouble(level="critical")) == []
    assert night.events(18.5, trouble(level="critical")) == ["escalated c"]


@pytest.mark.parametrize(
    ("hours", "moment", "inside"),
    [
        ("22:00-07:00", time(22, 0), True),
        ("22:00-07:00", time(6, 59), True),
        ("22:00-07:00", time(7, 0), False),
        ("12:00-13:30", time(13, 29), True),
        ("12:00-13:30", time(11, 59), False),
        ("00:00-00:00", time(0, 0), False),
        ("", time(3, 0), False),
    ],
)
def test_the_hours_are_on_the_clock_of_the_zone(hours: str, moment: time, inside: bool) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    found = parse_quiet(hours, zone, "critical")
    assert found.holds(datetime.combine(NOW.date(), moment, zone), RANK["warning"]) == inside
    assert not found.holds(datetime.combine(NOW.date(), moment, zone), RANK["critical"])


@pytest.mark.parametrize("text", ["22-7", "24:00-07:00", "22:60-07:00", "22:00", "22:00-07:00-08:00", "x"])
def test_what_names_no_hours_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no hours"):
        parse_quiet(text, UTC, "critical")
    assert parse_quiet(" 22:00-07:00 ", UTC, "critical") == Quiet(time(22), time(7), UTC, "critical")


@pytest.mark.parametrize(
    "damage",
    [{"level": "loud"}, {"since": "yesterday"}, {"loudest": "very"}, {"told": 3}, {"opened": "2026-01-01T00:00:00"}],
)
def test_an_incident_that_was_damaged_is_refused(damage: dict[str, Any]) -> None:
    good = Night()
    good.at(0, trouble())
    with pytest.raises((KeyError, TypeError, ValueError, UsageError, AttributeError)):
        Incident.from_data({**good.held["c"].as_data(), **damage})


# --- calendars --------------------------------------------------------------------------------------------------------


@given(
    text=st.sampled_from(["0 2 * * *", "*/15 * * * *", "30 2 * * 1,3", "0 0 29 2 *", "15 3 1 * 0"]),
    moment=MOMENTS,
)
def test_the_last_run_is_the_one_before_the_next(text: str, moment: datetime) -> None:
    calendar = parse(text)
    last = last_before(calendar, moment, UTC)
    assert last is not None
    assert last <= moment
    following = next_after(calendar, last, UTC)
    assert following is not None
    assert following > moment
    assert last_before(calendar, last, UTC) == last


def test_there_is_no_run_before_the_beginning_of_time() -> None:
    assert last_before(parse("0 2 * * *"), datetime(10, 1, 1, tzinfo=UTC), UTC) is None


# --- sixty days -------------------------------------------------------------------------------------------------------

DAYS = 60
STEP = 15 * MINUTE
TOOK = 10 * MINUTE
START = datetime(2026, 3, 1, 0, 0, tzinfo=UTC)
CALENDARS = {"backup": "0 2 * * *", "sync": "30 2 * * *", "verify": "0 3 * * *", "prune": "0 1 * * 0"}
LIMITS = freshness.limits(*(parse(CALENDARS[verb]) for verb in ("backup", "sync", "verify")))
FATES = ("failed", "missed", "hung")


@dataclass
class Host:
    """A host whose nights go as `fates` says: (verb, day) to failed, missed or hung; S3 is away on the days `away`."""

    fates: dict[tuple[str, int], str] = field(default_factory=dict)
    away: frozenset[int] = frozenset()
    shrunk: frozenset[int] = frozenset()
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    running: dict[str, datetime] = field(default_factory=dict)
    made: list[datetime] = field(default_factory=list)
    copied: list[datetime] = field(default_factory=list)
    proven: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A week of good nights before anybody looks.
        for n in range(8, 0, -1):
            for verb in ("backup", "sync", "verify"):
                moment = next_after(parse(CALENDARS[verb]), START - n * DAY, UTC)
                assert moment is not None
                self._end(verb, moment, moment + TOOK, "ok", 1000)
        self._end("prune", START - 7 * DAY + HOUR, START - 7 * DAY + HOUR + TOOK, "ok", 0)
        self.plan = sorted(
            (START + n * DAY + timedelta(hours=h, minutes=m), verb, n)
            for n in range(DAYS)
            for verb, h, m in (("backup", 2, 0), ("sync", 2, 30), ("verify", 3, 0), ("prune", 1, 0))
            if verb != "prune" or (START + n * DAY).isoweekday() == 7
        )

    def _end(self, verb: str, begun: datetime, ended: datetime, outcome: str, size: int) -> None:
        self.runs[verb].insert(
            0, Run(verb, outcome, begun, ended, "", size if verb == "backup" and outcome == "ok" else None)
        )
        if outcome == "ok":
            if verb == "backup":
                self.made.append(begun)
            elif verb == "sync" and self.made:
                self.copied.append(self.made[-1])
            elif verb == "verify" and self.copied:
                self.proven.append(ended)

    def live_until(self, now: datetime) -> None:
        for verb in list(self.running):
            # What hangs is ended by somebody after half a day.
            if now - self.running[verb] >= 12 * HOUR:
                self._end(verb, self.running.pop(verb), now, "interrupted", 0)
        # What has begun is not in a record before it has ended.
        while self.plan and self.plan[0][0] + TOOK <= now:
            begun, verb, day = self.plan.pop(0)
            fate = self.fates.get((verb, day), "ok")
            if verb == "sync" and day in self.away:
                fate = "failed"
            if fate == "hung":
                self.running[verb] = begun
            elif fate != "missed":
                self._end(verb, begun, begun + TOOK, fate, 100 if day in self.shrunk else 1000)

    def facts(self, now: datetime) -> Facts:
        def seen(moments: list[datetime]) -> freshness.Seen | None:
            return freshness.Seen("s", moments[-1]) if moments else None

        day = (now - START).days
        known = freshness.Facts(
            newest=seen(self.made),
            oldest=freshness.Seen("s", self.made[0]),
            offsite=seen(self.copied),
            verified=seen(self.proven),
            offsite_error="The store does not answer." if day in self.away else "",
        )
        return Facts(
            judged=freshness.judge(known, LIMITS, now),
            runs=self.runs,
            running=self.running,
            due={verb: Due(parse(text), START - 30 * DAY) for verb, text in CALENDARS.items()},
            sets=[SetFacts("s", "local", 1, 1)],
            watched_since=START - 30 * DAY,
        )


@dataclass
class Watched:
    """What was wrong from when to when, by cause, and what was told when."""

    wrong: dict[str, list[list[datetime]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[tuple[datetime, str]]] = field(default_factory=lambda: defaultdict(list))
    patience: dict[str, timedelta] = field(default_factory=dict)


def simulate(host: Host, policy: Policy) -> Watched:
    """Look at the host every quarter of an hour for sixty days."""
    seen = Watched()
    held: dict[str, Incident] = {}
    now = START
    before: set[str] = set()
    while now <= START + DAYS * DAY:
        host.live_until(now)
        found = troubles(host.facts(now), Limits(), now)
        causes = {t.cause for t in found}
        assert len(causes) == len(found), "a cause is there once"
        for one in found:
            seen.patience[one.cause] = one.patience
            if one.cause not in before:
                seen.wrong[one.cause].append([now, now])
            seen.wrong[one.cause][-1][1] = now
        held, tellings = advance(held, found, policy, now)
        for telling in tellings:
            seen.told[telling.cause].append((now, telling.event))
        before, now = causes, now + STEP
    return seen


FATE = st.dictionaries(
    st.tuples(st.sampled_from(["backup", "sync", "verify"]), st.integers(0, DAYS - 5)),
    st.sampled_from(FATES),
    max_size=12,
)


@settings(max_examples=6)
@given(
    fates=FATE,
    away=st.frozensets(st.integers(1, DAYS - 5), max_size=4),
    shrunk=st.frozensets(st.integers(9, 50), max_size=2),
)
def test_every_cause_is_told_within_its_limit_once_and_its_end_once(
    fates: dict[tuple[str, int], str], away: frozenset[int], shrunk: frozenset[int]
) -> None:
    host = Host(fates, away, shrunk)
    policy = Policy(repeat=DAY, escalate_after=3 * DAY)
    seen = simulate(host, policy)
    for cause, spans in seen.wrong.items():
        expected = []
        for first, last in spans:
            opened = first + seen.patience[cause]
            if last >= opened:
                expected += [(opened, "opened"), (last + STEP, "recovered")]
        told = [(when, event) for when, event in seen.told[cause] if event in ("opened", "recovered")]
        assert [event for _when, event in told] == [event for _when, event in expected][: len(told)], cause
        assert len(expected) - len(told) in (0, 1), "only what is still open at the end has no end"
        for (when, event), (limit, wanted) in zip(told, expected, strict=False):
            assert (event, when) == (wanted, limit), cause
        for (earlier, one), (later, other) in itertools.pairwise(seen.told[cause]):
            if one != "recovered" and other == "repeated":
                assert later - earlier >= policy.repeat
    # And what went wrong was seen as wrong: within the hour that a run may be late, or at once.
    for (verb, day), fate in fates.items():
        due = START + day * DAY + {"backup": 2 * HOUR, "sync": 2.5 * HOUR, "verify": 3 * HOUR}[verb]
        really = "failed" if verb == "sync" and day in away else fate
        cause = {"failed": "failed-run/%s", "missed": "missed-run/%s", "hung": "late-run/%s"}[really] % verb
        limit = {"failed": TOOK, "missed": HOUR, "hung": 1.5 * HOUR}[really] + STEP
        assert any(first <= due + limit and last >= due for first, last in seen.wrong[cause]), (cause, day)
    for cause in set(seen.told) - set(seen.wrong):
        raise AssertionError("%s was told and was never wrong" % cause)


def test_sixty_clean_days_are_silent() -> None:
    seen = simulate(Host(), Policy())
    assert not seen.told
    assert not seen.wrong


def test_a_host_that_stops_backing_up_is_told_of_for_as_long_as_it_lasts() -> None:
    host = Host({("backup", n): "missed" for n in range(10, DAYS)})
    told = simulate(host, Policy()).told["missed-run/backup"]
    assert told[0] == (START + 10 * DAY + 3 * HOUR, "opened")
    assert [event for _when, event in told[1:4]] == ["repeated", "repeated", "escalated"]
    assert all(later - earlier >= DAY for (earlier, _e), (later, _o) in itertools.pairwise(told) if _o == "repeated")
