# SPDX-License-Identifier: GPL-3.0-or-later
"""Which member of a group backs up: exactly one or nobody, the same for all who see the same."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.group import (
    PREFER_STANDBY,
    PRIMARY,
    Chosen,
    Member,
    behind,
    choose,
    may_name,
    split_member,
)

LAG = timedelta(minutes=5)


def primary(name: str, **facts: Any) -> Member:
    return Member(name, **{"system": "7", "started": "at %s" % name, "timeline": 1, "written": 1000, **facts})


def standby(name: str, **facts: Any) -> Member:
    own = {
        "system": "7",
        "started": "at %s" % name,
        "received": 1000,
        "replayed": 1000,
        "age": 3600.0,
        "streaming": True,
    }
    return Member(name, standby=True, **{**own, **facts})


def down(name: str) -> Member:
    return Member(name, trouble="Connection refused.")


def chosen(run_on: str, *members: Member) -> str:
    return choose(members, run_on=run_on, max_lag=LAG).name


@pytest.mark.parametrize(
    ("run_on", "members", "expected"),
    [
        (PRIMARY, [primary("a"), standby("b")], "a"),
        (PRIMARY, [standby("a"), primary("b")], "b"),
        (PRIMARY, [down("a"), primary("b"), standby("c")], "b"),
        (PREFER_STANDBY, [primary("a"), standby("b"), standby("c")], "b"),
        (PREFER_STANDBY, [primary("a"), standby("b", replayed=999), standby("c")], "c"),
        (PREFER_STANDBY, [primary("a"), standby("b", replayed=999, age=299.0), standby("c")], "b"),
        (PREFER_STANDBY, [primary("a"), down("b"), standby("c")], "c"),
        (PREFER_STANDBY, [primary("a"), down("b")], "a"),
        (PREFER_STANDBY, [primary("a"), standby("b", replayed=999, age=None)], "a"),
        # While the primary is down, what a standby hears is all there is to go by.
        (PREFER_STANDBY, [down("a"), standby("b", streaming=False), standby("c")], "c"),
        (PREFER_STANDBY, [down("a"), standby("b", streaming=False, age=20.0)], "b"),
        # Who may not see the system identifier cannot compare it.
        (PRIMARY, [primary("a", system=""), standby("b", system="")], "a"),
    ],
)
def test_the_one_that_backs_up(run_on: str, members: list[Member], expected: str) -> None:
    assert chosen(run_on, *members) == expected


@pytest.mark.parametrize(
    ("run_on", "members", "error", "words"),
    [
        (PRIMARY, [primary("a"), primary("b", timeline=2)], RefusedError, "a (timeline 1) and b (timeline 2) all call"),
        (PREFER_STANDBY, [primary("a"), primary("b"), standby("c")], RefusedError, "all call themselves the primary"),
        (PRIMARY, [primary("a"), standby("b", system="8")], RefusedError, "7: a; 8: b"),
        (PRIMARY, [standby("a"), standby("b")], RefusedError, "a: it is a standby; b: it is a standby"),
        (PRIMARY, [down("a"), standby("b")], UnreachableError, "a: it could not be asked: Connection refused; b: it"),
        (PREFER_STANDBY, [down("a"), down("b")], UnreachableError, "No member of this group can back up"),
        (PREFER_STANDBY, [down("a"), standby("b", streaming=False)], UnreachableError, "up to 1 h 0 min behind"),
        (
            PREFER_STANDBY,
            [standby("a", received=1001, paused=True)],
            RefusedError,
            "its replay is paused, and it is up to",
        ),
        (PREFER_STANDBY, [standby("a", streaming=False, age=None)], RefusedError, "how far it is behind is not known"),
        (
            PRIMARY,
            [primary("a"), primary("b", started="at a")],
            RefusedError,
            "a and b of this group are one and the same",
        ),
    ],
)
def test_who_cannot_tell_says_why(run_on: str, members: list[Member], error: type[PgopsError], words: str) -> None:
    with pytest.raises(error) as caught:
        choose(members, run_on=run_on, max_lag=LAG)
    assert words in caught.value.message
    assert caught.value.hint


def test_the_reasons_against_those_passed_over_are_told() -> None:
    found = choose([primary("a"), down("b"), standby("c", replayed=1, age=720.0)], run_on=PREFER_STANDBY, max_lag=LAG)
    assert found == Chosen(
        "a",
        "it is the primary, and no standby qualifies",
        (
            ("b", "it could not be asked: Connection refused"),
            ("c", "it is up to 12 min 0 s behind; group.max_lag is 5 min 0 s"),
        ),
    )


NUMBERS = st.integers(0, 3)
MEMBERS = st.lists(
    st.builds(
        Member,
        name=st.uuids().map(str),
        trouble=st.sampled_from(["", "", "", "down"]),
        standby=st.booleans(),
        system=st.sampled_from(["7", "7", "7", "", "8"]),
        written=st.none() | NUMBERS,
        received=st.none() | NUMBERS,
        replayed=st.none() | NUMBERS,
        age=st.none() | st.floats(0, 1000),
        streaming=st.none() | st.booleans(),
        paused=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(MEMBERS, st.sampled_from([PRIMARY, PREFER_STANDBY]))
def test_exactly_one_or_an_error_and_never_one_that_does_not_qualify(members: list[Member], run_on: str) -> None:
    alive = [m for m in members if not m.trouble]
    primaries = [m for m in alive if not m.standby]
    try:
        name = chosen(run_on, *members)
    except PgopsError as error:
        assert error.exit_code in (4, 5)
        # One primary in one cluster is always good enough.
        assert len(primaries) != 1 or len({m.system for m in alive if m.system}) > 1
        return
    (one,) = (m for m in members if m.name == name)
    assert not one.trouble
    assert len(primaries) <= 1
    if one.standby:
        assert run_on == PREFER_STANDBY
        seconds = behind(one, primaries[0].written if primaries else None)
        assert seconds is not None
        assert seconds <= LAG.total_seconds()
    elif run_on == PREFER_STANDBY:
        fit = [behind(m, one.written) for m in alive if m.standby]
        assert all(seconds is None or seconds > LAG.total_seconds() for seconds in fit)


@given(MEMBERS, st.randoms(use_true_random=False))
def test_under_primary_the_order_of_the_members_does_not_matter(members: list[Member], random: Any) -> None:
    def answer(found: list[Member]) -> str:
        try:
            return chosen(PRIMARY, *found)
        except PgopsError as error:
            return type(error).__name__

    shuffled = list(members)
    random.shuffle(shuffled)
    assert answer(members) == answer(shuffled)


@given(MEMBERS)
def test_a_member_that_goes_down_never_makes_two_work(members: list[Member]) -> None:
    """Nobody but the one that went down changes what the others are: the choice stays, or moves to another one."""
    try:
        name = chosen(PREFER_STANDBY, *members)
    except PgopsError:
        return
    for index, member in enumerate(members):
        if member.name != name and not (member.standby is False and not member.trouble):
            fewer = [*members]
            fewer[index] = dataclasses.replace(member, trouble="down")
            assert chosen(PREFER_STANDBY, *fewer) == name


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("db1", ("db1", None)),
        ("db1.example.com:5433", ("db1.example.com", 5433)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("[2001:db8::2]", ("2001:db8::2", None)),
        ("[2001:db8::2]:6000", ("2001:db8::2", 6000)),
    ],
)
def test_a_member_is_a_host_and_maybe_a_port(entry: str, expected: tuple[str, int | None]) -> None:
    assert split_member(entry) == expected


@pytest.mark.parametrize(
    "entry", ["", ":5432", "db1:", "db1:x", "a b", "user@db1", "2001:db8::2", "db1:0", "db1:65536", "postgresql://db1"]
)
def test_what_is_no_member_is_refused(entry: str) -> None:
    with pytest.raises(UsageError):
        split_member(entry)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_second_names_the_sets_of_one_node_alone(count: int) -> None:
    members = ["host%d" % number for number in range(count)]
    began = datetime(2026, 11, 27, 2, 0, 0, 300000, tzinfo=UTC)
    found = [
        [node for node in members if may_name(began + timedelta(seconds=second), members=members, node=node)]
        for second in range(count)
    ]
    assert [len(nodes) for nodes in found] == [1] * count
    assert sorted(nodes[0] for nodes in found) == members
    # Also where the nodes do not list the members in one order.
    moment = began + timedelta(seconds=1)
    assert [may_name(moment, members=members[::-1], node=node) for node in members] == [
        may_name(moment, members=members, node=node) for node in members
    ]
