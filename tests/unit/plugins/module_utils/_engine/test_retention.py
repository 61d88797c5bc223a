# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: what stays, why, and what no rule may ever take away."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.retention import Plan, SetFacts, plan
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Retention

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
NOTHING = Retention(keep_last=0)


def fact(days: float, name: str = "", **values: Any) -> SetFacts:
    """A set that began `days` ago."""
    begun = NOW - timedelta(days=days)
    return SetFacts(name or begun.strftime("%Y%m%dT%H%M%SZ-logical"), begun, **values)


def nightly(count: int, **values: Any) -> list[SetFacts]:
    """A set of each of the last `count` nights at 02:00 UTC, named by its date."""
    first = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    moments = [first - timedelta(days=n) for n in range(count)]
    return [SetFacts(m.strftime("%Y-%m-%d"), m, **values) for m in moments]


def reasons(made: Plan, name: str) -> tuple[str, ...]:
    return next(d.reasons for d in made.decisions if d.id == name)


# --- each rule --------------------------------------------------------------------------------------------------------


def test_nothing_stored_gives_an_empty_plan() -> None:
    assert plan([], Retention(keep_within="7d"), NOW) == Plan(())


def test_sets_younger_than_keep_within_stay_and_older_ones_go() -> None:
    made = plan(nightly(10), Retention(keep_within="7d", keep_last=0), NOW)
    assert made.keep == tuple("2026-11-%02d" % day for day in range(22, 15, -1))
    assert made.remove == ("2026-11-15", "2026-11-14", "2026-11-13")
    assert reasons(made, "2026-11-16") == ("younger than 7d",)
    assert reasons(made, "2026-11-15") == ("older than 7d, and no rule keeps it",)


def test_a_set_of_exactly_the_age_of_keep_within_goes() -> None:
    sets = [fact(0, "new"), fact(7, "edge"), fact(6.9999, "just inside")]
    assert plan(sets, Retention(keep_within="7d"), NOW).remove == ("edge",)


def test_keep_last_keeps_the_newest_whatever_their_age() -> None:
    made = plan([fact(d, "d%d" % d) for d in (100, 200, 300, 400)], Retention(keep_last=3), NOW)
    assert made.keep == ("d100", "d200", "d300")
    assert reasons(made, "d100") == ("newest",)
    assert reasons(made, "d300") == ("among the newest 3",)
    assert reasons(made, "d400") == ("no rule keeps it",)


def test_keep_daily_keeps_the_newest_of_each_utc_day_that_has_one() -> None:
    sets = [fact(0.1, "today late"), fact(0.2, "today early"), fact(3, "days ago"), fact(9, "long ago")]
    made = plan(sets, dataclasses.replace(NOTHING, keep_daily=2), NOW)
    assert made.keep == ("today late", "days ago")
    assert reasons(made, "days ago") == ("daily 2026-11-19",)


def test_the_day_is_the_day_in_utc_wherever_the_host_is() -> None:
    tokyo = timezone(timedelta(hours=9))
    early = SetFacts("early", datetime(2026, 11, 20, 8, 30, tzinfo=tokyo))  # still the 19th in UTC
    late = SetFacts("late", datetime(2026, 11, 19, 23, 50, tzinfo=UTC))
    made = plan([early, late, fact(0, "newest")], dataclasses.replace(NOTHING, keep_daily=9), NOW)
    assert made.remove == ("early",)


def test_a_verified_set_stands_for_its_period_before_a_newer_unverified_one() -> None:
    sets = [fact(0, "newest"), fact(5.1, "newer"), fact(5.2, "proven", verified=True), fact(5.25, "older")]
    made = plan(sets, dataclasses.replace(NOTHING, keep_daily=5), NOW)
    assert made.keep == ("newest", "proven")


def test_the_tiers_keep_days_weeks_months_and_years() -> None:
    rules = dataclasses.replace(NOTHING, keep_daily=7, keep_weekly=4, keep_monthly=12, keep_yearly=2)
    made = plan(nightly(800), rules, NOW)
    assert made.keep == (
        *("2026-11-%02d" % day for day in range(22, 15, -1)),
        *("2026-11-15", "2026-11-08", "2026-11-01"),  # Sundays: the last day of an ISO week
        *("2026-10-31", "2026-09-30", "2026-08-31", "2026-07-31", "2026-06-30", "2026-05-31"),
        *("2026-04-30", "2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31"),
    )
    assert reasons(made, "2026-11-22") == (
        "newest",
        "daily 2026-11-22",
        "weekly 2026-W47",
        "monthly 2026-11",
        "yearly 2026",
    )
    assert reasons(made, "2025-12-31") == ("monthly 2025-12", "yearly 2025")


def test_weeks_are_iso_weeks_also_around_new_year() -> None:
    sets = [
        SetFacts("a", datetime(2027, 1, 3, tzinfo=UTC)),  # a Sunday: still 2026-W53
        SetFacts("b", datetime(2026, 12, 28, tzinfo=UTC)),  # the Monday of that week
        SetFacts("c", datetime(2027, 1, 4, tzinfo=UTC)),
    ]
    now = datetime(2027, 1, 5, tzinfo=UTC)
    made = plan(sets, dataclasses.replace(NOTHING, keep_weekly=5), now)
    assert made.remove == ("b",)
    assert reasons(made, "a") == ("weekly 2026-W53",)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_floor_keeps_the_newest_verified_sets_whatever_their_age(count: int) -> None:
    sets = [fact(d, "v%d" % d, verified=True) for d in (100, 200, 300, 400)] + [fact(1, "new")]
    made = plan(sets, Retention(keep_within="7d", keep_verified=count), NOW)
    assert made.keep == ("new", "v100", "v200", "v300")[: count + 1]
    assert reasons(made, "v100") == ("verified floor",)


def test_the_last_verified_set_stays_even_when_the_rules_say_zero() -> None:
    sets = [fact(900, "proven", verified=True), fact(1, "new")]
    made = plan(sets, Retention(keep_last=0, keep_verified=0), NOW)
    assert "proven" in made.keep


def test_the_newest_set_stays_though_keep_last_is_zero_and_nothing_is_verified() -> None:
    made = plan([fact(90, "newest"), fact(91, "older")], Retention(keep_within="7d", keep_last=0), NOW)
    assert made.keep == ("newest",)
    assert reasons(made, "newest") == ("newest",)


def test_tonights_set_outlives_the_prune_that_comes_before_its_verification() -> None:
    made = plan([fact(1, "proven", verified=True), fact(0.1, "tonight")], NOTHING, NOW)
    assert made.keep == ("tonight", "proven")


def test_without_any_rule_the_newest_and_the_newest_verified_set_stay() -> None:
    sets = [fact(1, "new"), fact(2, "b"), fact(3, "proven", verified=True), fact(4, "old proven", verified=True)]
    assert plan(sets, Retention(), NOW).keep == ("new", "proven")


def test_a_pinned_set_stays() -> None:
    made = plan(
        [fact(1000, "pinned", pinned=True), fact(999, "other"), fact(0, "new")], Retention(keep_within="7d"), NOW
    )
    assert made.keep == ("new", "pinned")
    assert reasons(made, "pinned") == ("pinned",)


def test_a_set_from_the_future_stays_and_takes_nobodys_place() -> None:
    sets = [fact(-365, "future", verified=True), fact(1, "newest"), fact(2, "proven", verified=True), fact(3, "old")]
    made = plan(sets, NOTHING, NOW)
    assert made.keep == ("future", "newest", "proven")
    assert reasons(made, "future") == ("begun in the future: check the clock",)


def test_every_ancestor_of_a_kept_set_stays() -> None:
    sets = [
        fact(1, "third", parent="second"),
        fact(20, "second", parent="first"),
        fact(30, "first"),
        fact(25, "cousin", parent="first"),
    ]
    made = plan(sets, Retention(keep_within="7d"), NOW)
    assert made.keep == ("third", "second", "first")
    assert reasons(made, "second") == ("parent of third",)
    assert reasons(made, "first") == ("parent of second",)


def test_ancestors_are_found_also_when_a_clock_was_wrong_and_they_look_newer() -> None:
    sets = [
        fact(1, "fourth", parent="third"),
        fact(20, "third", parent="second"),
        fact(9, "second", parent="first"),
        fact(15, "first"),
    ]
    assert plan(sets, Retention(keep_within="7d"), NOW).remove == ()


def test_a_parent_that_is_gone_or_circular_does_no_harm() -> None:
    sets = [
        fact(1, "a", parent="b"),
        fact(20, "b", parent="a"),
        fact(30, "c", parent="gone"),
        fact(31, "d", parent="d"),
    ]
    made = plan(sets, Retention(keep_within="7d"), NOW)
    assert made.keep == ("a", "b")


def test_two_sets_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="one id"):
        plan([fact(1, "a"), fact(2, "a")], Retention(), NOW)


# --- properties -------------------------------------------------------------------------------------------------------

RULES = st.builds(
    Retention,
    keep_within=st.sampled_from(["", "90s", "26h", "7d", "30d", "52w"]),
    keep_last=st.integers(0, 4),
    keep_daily=st.integers(0, 9),
    keep_weekly=st.integers(0, 5),
    keep_monthly=st.integers(0, 4),
    keep_yearly=st.integers(0, 3),
    keep_verified=st.integers(1, 3),
)


@st.composite
def histories(draw: Any) -> list[SetFacts]:
    hours = draw(st.lists(st.integers(-100, 24 * 800), unique=True, max_size=25))
    names = ["s%d" % hour for hour in hours]
    parents = st.one_of(st.none(), st.none(), st.sampled_from([*names, "gone"]))
    return [
        SetFacts(name, NOW - timedelta(hours=hour), draw(st.booleans()), draw(st.integers(0, 9)) == 0, draw(parents))
        for name, hour in zip(names, hours, strict=True)
    ]


@given(histories(), RULES)
def test_kept_and_removed_are_all_sets_and_share_none(sets: list[SetFacts], rules: Retention) -> None:
    made = plan(sets, rules, NOW)
    assert sorted(made.keep + made.remove) == sorted(f.id for f in sets)
    assert not set(made.keep) & set(made.remove)
    assert all(decision.reasons for decision in made.decisions)


@given(histories(), RULES, st.integers(0, 2**32))
def test_the_order_of_the_facts_does_not_matter(sets: list[SetFacts], rules: Retention, seed: int) -> None:
    mixed = list(sets)
    random.Random(seed).shuffle(mixed)
    assert plan(mixed, rules, NOW) == plan(sets, rules, NOW)


@given(histories(), RULES)
def test_pruning_twice_removes_nothing_more(sets: list[SetFacts], rules: Retention) -> None:
    kept = plan(sets, rules, NOW).keep
    assert plan([f for f in sets if f.id in kept], rules, NOW).remove == ()


@given(histories(), RULES)
def test_no_pin_no_parent_of_a_kept_set_and_no_last_proof_is_ever_removed(
    sets: list[SetFacts], rules: Retention
) -> None:
    kept = set(plan(sets, rules, NOW).keep)
    assert all(f.id in kept for f in sets if f.pinned)
    assert not [
        f for f in sets if f.id in kept and f.parent and f.parent not in kept and f.parent in {s.id for s in sets}
    ]
    verified = [f.id for f in sets if f.verified]
    assert len([name for name in verified if name in kept]) >= min(len(verified), rules.keep_verified)
    past = [f for f in sets if f.begun <= NOW]
    if past:
        assert max(past, key=lambda f: f.begun).id in kept


@given(histories(), RULES, RULES)
def test_adding_a_rule_never_removes_more(sets: list[SetFacts], rules: Retention, other: Retention) -> None:
    both = Retention(
        keep_within=rules.keep_within,
        keep_last=max(rules.keep_last, other.keep_last),
        keep_daily=max(rules.keep_daily, other.keep_daily),
        keep_weekly=max(rules.keep_weekly, other.keep_weekly),
        keep_monthly=max(rules.keep_monthly, other.keep_monthly),
        keep_yearly=max(rules.keep_yearly, other.keep_yearly),
        keep_verified=max(rules.keep_verified, other.keep_verified),
    )
    assert set(plan(sets, rules, NOW).keep) <= set(plan(sets, both, NOW).keep)


def _one_night(sets: list[SetFacts], now: datetime, chance: random.Random) -> list[SetFacts]:
    """Back up (or fail to), then verify some set (or find it damaged), and sometimes pin one or let one go."""
    if chance.randrange(10) < 8:
        bases: list[Optional[str]] = [f.id for f in sets] if chance.randrange(10) < 3 else [None]
        sets = [*sets, SetFacts("n%s" % now.isoformat(), now, parent=chance.choice(bases or [None]))]
    if sets and chance.randrange(10) < 6:
        chosen = sets[-1] if chance.randrange(10) < 5 else chance.choice(sets)
        sets = [dataclasses.replace(f, verified=chance.randrange(10) < 6) if f is chosen else f for f in sets]
    if sets and chance.randrange(10) < 1:
        chosen = chance.choice(sets)
        sets = [dataclasses.replace(f, pinned=not f.pinned) if f is chosen else f for f in sets]
    return sets


@settings(max_examples=25)
@given(RULES, st.integers(0, 2**32))
def test_through_75_nights_of_luck_and_misfortune_a_verified_set_remains(rules: Retention, seed: int) -> None:
    chance = random.Random(seed)
    sets: list[SetFacts] = []
    for night in range(75):
        now = NOW + timedelta(days=night, minutes=chance.randrange(120))
        sets = _one_night(sets, now, chance)
        made = plan(sets, rules, now)
        left = [f for f in sets if f.id in made.keep]
        assert any(f.verified for f in left) == any(f.verified for f in sets)
        assert [f for f in sets if f.pinned] == [f for f in left if f.pinned]
        assert bool(left) == bool(sets)
        known, names = {f.id for f in sets}, {f.id for f in left}
        assert all(f.parent in names for f in left if f.parent in known)
        sets = left


@pytest.mark.parametrize("rules", [Retention(keep_last=1), Retention(keep_last=0, keep_daily=1), NOTHING])
def test_dumps_and_base_backups_do_not_push_each_other_out(rules: Retention) -> None:
    dumps = [fact(d, "dump%d" % d, verified=d == 3) for d in (1, 2, 3, 4)]
    bases = [fact(d - 0.5, "base%d" % d, verified=d == 4, physical=True) for d in (1, 2, 3, 4)]
    made = plan(dumps + bases, rules, NOW)
    assert set(made.keep) == {"dump1", "dump3", "base1", "base4"}
    assert reasons(made, "base4") == ("verified floor",)
