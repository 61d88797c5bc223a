# SPDX-License-Identifier: GPL-3.0-or-later
"""The recoverable window, held against a recovery that is played segment by segment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import (
    number_at,
    number_before,
    segment_name,
    timeline_at,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.window import (
    Base,
    Gap,
    disputed,
    made_up_for,
    needless,
    undisputed,
    windows,
)

SIZE = 1 << 24
SYSTEM = "7312345678901234567"
NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def when(number: int) -> datetime:
    """Each segment is archived a minute after the one before."""
    return NOW + timedelta(minutes=number)


def segments(numbers, timeline: int = 1):
    return {segment_name(timeline, number, SIZE): when(number) for number in numbers}


def base(first: float, last: float, timeline: int = 1, name: str = "") -> Base:
    """A base backup whose WAL lies between two places, counted in segments."""
    start, end = int(first * SIZE), int(last * SIZE)
    return Base(name or "%g-base" % first, SYSTEM, timeline, start, end, when(int(last)))


def test_one_base_and_all_wal_since():
    (window,) = windows(SYSTEM, [base(3.1, 3.5)], segments(range(3, 11)), {}, SIZE)
    (stretch,) = window.stretches
    assert (stretch.start, stretch.end) == (int(3.5 * SIZE), 11 * SIZE)
    assert (stretch.start_time, stretch.end_time) == (when(3), when(10))
    assert window.gaps == ()
    assert window.as_data()["stretches"] == [
        {
            "start_lsn": "0/3800000",
            "start": "2026-11-22T08:03:00+00:00",
            "end_lsn": "0/B000000",
            "end": "2026-11-22T08:10:00+00:00",
            "bases": ["3.1-base"],
        }
    ]


def test_what_another_branch_reaches_makes_up_for_no_damage():
    """The first timeline goes on to segment 9, the second left it at 5 and is damaged in its segment 7."""
    present = {**segments(range(3, 10)), **segments([5, 6, 8], timeline=2)}
    history = {2: [(1, 5 * SIZE + 100, "a recovery")]}
    bases = [base(3.1, 3.5)]
    found = windows(SYSTEM, bases, present, history, SIZE)
    assert [(one.timeline, one.stretches[-1].end) for one in found] == [(1, 10 * SIZE), (2, 7 * SIZE)]
    damaged = segment_name(2, 7, SIZE)
    assert not made_up_for(damaged, found, SIZE)
    assert made_up_for(segment_name(1, 4, SIZE), found, SIZE)
    younger = windows(SYSTEM, [*bases, base(8.1, 8.5, timeline=2)], present, history, SIZE)
    assert made_up_for(damaged, younger, SIZE)
    # What the second one came from counts as its own.
    assert made_up_for(segment_name(1, 4, SIZE), [one for one in younger if one.timeline == 2], SIZE)


def test_histories_of_which_places_have_different_contents_are_disputed():
    two, three, segment = "00000002.history", "00000003.history", segment_name(2, 7, SIZE)
    assert disputed([]) == []
    assert disputed([{two: {"a"}}, {two: {"a"}, three: {"b"}}, {}]) == []
    # Of segments each place is asked by itself.
    assert disputed([{two: {"a"}, segment: {"c"}}, {two: {"a"}, segment: {"d"}}]) == []
    assert disputed([{three: {"a"}, two: {"a"}}, {two: {"b"}, three: {"c"}}]) == [2, 3]
    assert disputed([{two: {"a", "b"}}, {}]) == [2], "whose contents these are nobody can tell either"


def test_no_window_goes_over_a_disputed_switch_nor_over_one_that_came_from_there():
    past = {2: [(1, 5 * SIZE, "")], 3: [(1, 5 * SIZE, ""), (2, 7 * SIZE, "")], 4: [(1, 6 * SIZE, "")]}
    assert undisputed(past, ()) == past
    assert list(undisputed(past, [2])) == [4]
    assert list(undisputed(past, [3])) == [2, 4]
    # A base backup that was made behind the switch in dispute reads no history of it.
    later = {**past, 5: [*past[3], (3, 9 * SIZE, "")]}
    assert undisputed(later, [2]) == {4: past[4], 5: [(3, 9 * SIZE, "")]}


@given(st.lists(st.dictionaries(st.integers(2, 4), st.sets(st.sampled_from("ab"), min_size=1)), max_size=3))
def test_the_order_of_places_makes_no_difference_to_what_is_disputed(places):
    named = [{"%08X.history" % timeline: found for timeline, found in place.items()} for place in places]
    assert disputed(named) == disputed(named[::-1])
    assert disputed(named[:1] * 2) == disputed(named[:1])
    for timeline in (2, 3, 4):
        told = {content for place in places for content in place.get(timeline, ())}
        assert (timeline in disputed(named)) == (len(told) > 1)


def test_when_the_last_segment_was_written_is_unknown_where_it_only_arrived():
    for arrived, written in ((10, False), (9, True)):
        names = {segment_name(1, arrived, SIZE)}
        (window,) = windows(SYSTEM, [base(3.1, 3.5)], segments(range(3, 11)), {}, SIZE, arrived=names)
        assert window.stretches[0].written is written
    # It came before the base backup was whole, so it was written before that.
    (window,) = windows(SYSTEM, [base(3.1, 3.5)], segments([3]), {}, SIZE, arrived={segment_name(1, 3, SIZE)})
    assert window.stretches[0].written


def test_a_missing_segment_ends_the_window_until_the_next_base():
    present = segments([3, 4, 5, 8, 9, 10, 11])
    (window,) = windows(SYSTEM, [base(3.1, 3.5), base(9.2, 9.4)], present, {}, SIZE)
    assert [(one.start, one.end, one.bases) for one in window.stretches] == [
        (int(3.5 * SIZE), 6 * SIZE, ("3.1-base",)),
        (int(9.4 * SIZE), 12 * SIZE, ("9.2-base",)),
    ]
    assert window.gaps == (Gap(segment_name(1, 6, SIZE), segment_name(1, 7, SIZE), 2),)
    assert window.open_gaps == (), "the younger base backup makes up for it"
    (before,) = windows(SYSTEM, [base(3.1, 3.5)], present, {}, SIZE)
    assert before.open_gaps == before.gaps == window.gaps
    assert windows(SYSTEM, [], present, {}, SIZE)[0].open_gaps == (), "without a base that is another trouble"
    assert window.as_data()["gaps"] == [
        {"first": "000000010000000000000006", "last": "000000010000000000000007", "count": 2}
    ]


def test_a_base_without_its_own_wal_is_no_start():
    (window,) = windows(SYSTEM, [base(3.1, 5.5)], segments([3, 4, 6, 7]), {}, SIZE)
    assert window.stretches == ()
    (window,) = windows(SYSTEM, [base(3.1, 4)], segments([3]), {}, SIZE)
    assert window.stretches[0].start == window.stretches[0].end == 4 * SIZE
    assert windows(SYSTEM, [base(3.1, 4)], {}, {}, SIZE)[0].stretches == ()


def test_wal_without_a_base_and_another_cluster_give_nothing():
    (window,) = windows(SYSTEM, [], segments([3, 4]), {}, SIZE)
    assert (window.stretches, window.timeline) == ((), 1)
    # The first timeline began with no switch, of which a history could be missing.
    assert not window.is_stranded
    (later,) = windows(SYSTEM, [], segments([3], timeline=2), {}, SIZE)
    assert later.is_stranded
    assert windows("17", [base(3.1, 3.5)], {}, {}, SIZE) == []


def test_the_window_follows_a_switch_of_the_timeline():
    present = {**segments([3, 4, 5]), **segments([5, 6, 7], timeline=2)}
    present[segment_name(1, 5, SIZE) + ".partial"] = NOW
    histories = {2: [(1, int(5.5 * SIZE), "no recovery target specified")]}
    (window,) = windows(SYSTEM, [base(3.1, 3.5), base(6.1, 6.2, timeline=2)], present, histories, SIZE)
    assert window.timeline == 2
    assert [(one.start, one.end, one.bases) for one in window.stretches] == [
        (int(3.5 * SIZE), 8 * SIZE, ("3.1-base", "6.1-base")),
    ]
    assert window.gaps == ()
    # Who asks for the first timeline itself gets it as far as there are whole segments of it.
    one, two = windows(SYSTEM, [base(3.1, 3.5), base(6.1, 6.2, timeline=2)], present, histories, SIZE, each=True)
    assert (one.timeline, one.stretches[0].end, one.stretches[0].bases) == (1, 6 * SIZE, ("3.1-base",))
    assert two == window


def test_what_went_on_after_the_switch_is_a_window_of_its_own():
    present = {**segments([3, 4, 5, 6, 7]), **segments([5, 6], timeline=2)}
    histories = {2: [(1, int(5.5 * SIZE), "before a mistake")]}
    late = base(6.1, 6.5, name="late")
    one, two = windows(SYSTEM, [base(3.1, 3.5), late], present, histories, SIZE)
    assert (one.timeline, one.stretches[0].end, two.timeline, two.stretches[0].end) == (1, 8 * SIZE, 2, 7 * SIZE)
    # The base was taken on timeline 1 after the switch, so it does not lead to timeline 2.
    assert ("late" in one.stretches[0].bases, "late" in two.stretches[0].bases) == (True, False)


NUMBERS = st.sets(st.integers(2, 16))
BASES = st.lists(
    st.tuples(st.integers(32, 16 * 16 - 2), st.integers(1, 40)).map(lambda p: base(p[0] / 16, (p[0] + p[1]) / 16)),
    max_size=4,
)


def replayed(start: Base, present, timeline: int, history) -> int:
    """How far PostgreSQL gets from `start` on the way to `timeline`; -1 when it does not become consistent."""
    number = number_at(start.start, SIZE)
    while True:
        # It takes the newest timeline of the history that has begun by the end of this segment.
        here = timeline_at(timeline, history, number * SIZE + SIZE - 1)
        for ancestor, switch, _reason in history:
            if number_at(switch, SIZE) == number:
                here = next((a for a, at, _r in history if at > switch), timeline) if ancestor != timeline else here
        if segment_name(here, number, SIZE) not in present:
            break
        number += 1
    return number * SIZE if number > number_before(start.end, SIZE) else -1


@given(BASES, NUMBERS, NUMBERS, st.one_of(st.none(), st.integers(2 * 16 + 1, 16 * 16)))
def test_a_window_is_exactly_what_a_recovery_can_reach(bases, first, second, switch):
    history = [(1, switch * SIZE // 16, "")] if switch else []
    present = segments(first)
    if switch:
        present.update(segments([n for n in second if n >= number_at(history[0][1], SIZE)], timeline=2))
    for window in windows(SYSTEM, bases, present, {2: history} if switch else {}, SIZE):
        way = history if window.timeline == 2 else []
        reach = {}
        for one in bases:
            if way and one.end > way[0][1]:
                continue  # taken on timeline 1 after the switch
            end = replayed(one, present, window.timeline, way)
            if end >= 0 and (window.timeline == 2 or one.timeline == 1):
                reach.setdefault((one.id, one.end), end)
        claimed = {(name, stretch.end) for stretch in window.stretches for name in stretch.bases}
        assert claimed == {(name, end) for (name, _at), end in reach.items()}
        for stretch in window.stretches:
            assert stretch.start == min(one.end for one in bases if one.id in stretch.bases)
            assert stretch.start <= stretch.end
            assert stretch.start_time <= stretch.end_time


@given(BASES, NUMBERS)
def test_no_base_loses_a_segment_that_it_could_be_brought_further_by(bases, numbers):
    present = segments(numbers)
    names = [*present, "00000002.history", "00000001000000000000000%d.00000028.backup" % 2]
    gone = needless(names, bases, SYSTEM, SIZE)
    left = {name: moment for name, moment in present.items() if name not in gone}
    before, after = (windows(SYSTEM, bases, some, {}, SIZE) for some in (present, left))
    assert [w.stretches for w in after] == [w.stretches for w in before if w.stretches or after]
    assert "00000002.history" not in gone
    if not bases:
        assert gone == set()
    else:
        assert all(int(name[16:24], 16) < min(number_at(one.start, SIZE) for one in bases) for name in gone)


def test_a_base_of_another_cluster_lets_nothing_go():
    assert needless(segments([1, 2, 3]), [base(3.1, 3.5)], "17", SIZE) == set()
    assert needless(segments([1, 2, 3]), [base(3.1, 3.5)], SYSTEM, SIZE) == set(segments([1, 2]))
