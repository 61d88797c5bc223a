# SPDX-License-Identifier: GPL-3.0-or-later
"""Incidents: told once, repeated seldom, escalated, over once. Sixty days of them are in test_sixty_days.py."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.alerting import (
    Trouble,
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
    assert night.events(1, trouble()) == ["opened c"], "never delayed"


def test_what_comes_and_goes_is_told_twice_and_its_end_once_it_stays_away() -> None:
    night = Night()
    events = [
        (h / 4, e) for h in range(40) for e in night.events(h / 4, *([trouble()] if h % 4 < 2 and h < 20 else ()))
    ]
    assert events == [(0, "opened c"), (0.5, "recovered c"), (1, "opened c")]
    told = [t for h in range(40, 48) for t in night.at(h / 4)]
    assert [t.event for t in told] == ["recovered"], "six hours after it was there last"
    since = "2026-11-22 08:00 UTC.) (It has stayed away since 2026-11-22 12:30 UTC.)"
    assert told[0].text == "T (Time 5 since %s" % since
    assert night.at(12) == []
    assert night.at(10.5 + 6) == [] and night.held == {}, "and then it is forgotten"
    (again,) = night.at(17, trouble())
    assert (again.event, again.text, night.held["c"].times) == ("opened", "T", 1)


def test_the_longer_it_comes_and_goes_the_longer_it_must_stay_away() -> None:
    night = Night()
    events = [(h, e) for h in range(48) for e in night.events(h, *([trouble()] if h % 4 == 0 else ()))]
    assert events == [
        *[(0, "opened c"), (1, "recovered c"), (4, "opened c"), (7, "recovered c"), (8, "opened c")],
        *[(32, "repeated c")],
    ]


def test_what_comes_and_goes_gets_worse_and_lasts_like_any_other() -> None:
    night = Night()
    night.at(0, trouble()), night.at(0.25), night.at(0.5, trouble()), night.at(0.75)
    assert night.events(1, trouble(level="critical")) == ["raised c"]
    events = [e for h in range(2, 80) for e in night.events(h, *([trouble(level="critical")] if h % 2 else ()))]
    assert events == ["repeated c", "repeated c", "escalated c"]


def test_a_clock_that_is_set_back_keeps_no_end_from_being_told() -> None:
    night = Night()
    night.at(0, trouble()), night.at(1), night.at(2, trouble()), night.at(3)
    assert night.at(-90) == []
    assert night.events(-88) == ["recovered c"]
    assert night.events(-300, trouble()) == ["opened c"]
    assert night.held["c"].times == 1


def test_a_short_one_that_nobody_heard_of_counts_only_beside_others() -> None:
    night = Night()
    night.at(0, trouble()), night.at(0.25)
    assert night.at(0.5, trouble(patience=HOUR)) + night.at(0.75) == []
    assert night.held["c"].times == 2
    (again,) = night.at(1, trouble())
    assert again.text.startswith("T (Time 3 since")


def test_an_incident_of_an_older_version_began_once() -> None:
    night = Night()
    night.at(0, trouble())
    data = {k: v for k, v in night.held["c"].as_data().items() if k not in ("times", "first", "ended")}
    assert Incident.from_data(data) == night.held["c"]


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
    assert night.events(24) == [], "it has come back once"
    assert night.events(26) == ["recovered c"]


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
