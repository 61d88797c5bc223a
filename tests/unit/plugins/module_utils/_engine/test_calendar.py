# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendars: as cron reads them, as systemd says them, and how far apart two runs can be."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import (
    SHORTCUTS,
    counts_from,
    longest_gap,
    longest_lag,
    next_after,
    parse,
    to_systemd,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")
SYSTEMD = shutil.which("systemd-analyze")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text + "+00:00")


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    # Two different ends: croniter takes 0-0 for all weekdays.
    span = (
        st.tuples(number, number)
        .filter(lambda pair: pair[0] != pair[1])
        .map(lambda pair: "%d-%d" % (min(pair), max(pair)))
    )
    stepped = st.tuples(span, st.integers(1, 12)).map(lambda pair: "%s/%d" % pair)
    part = st.one_of(number.map(str), span, stepped)
    return st.one_of(
        st.just("*"), st.integers(1, most).map("*/{}".format), st.lists(part, min_size=1, max_size=3).map(",".join)
    )


CALENDARS = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(" ".join)
MOMENTS = st.integers(0, 9 * 366 * 86400).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def comes(text: str) -> bool:
    try:
        parse(text)
    except UsageError:
        return False
    return True


# --- against others ---------------------------------------------------------------------------------------------------


@given(text=CALENDARS, moment=MOMENTS)
@settings(max_examples=300)
def test_the_next_run_is_the_one_that_croniter_finds(text: str, moment: datetime) -> None:
    # croniter takes a day with a step for a day that is named; cron does not.
    assume(not re.search(r"\*/", text.split()[2] + text.split()[4]))
    assume(comes(text))
    expected = croniter(text, moment, max_years_between_matches=40).get_next(datetime)
    assert next_after(parse(text), moment, UTC) == expected


@given(text=CALENDARS, moment=MOMENTS)
def test_no_run_is_further_off_than_the_longest_gap(text: str, moment: datetime) -> None:
    assume(comes(text))
    calendar = parse(text)
    first = next_after(calendar, moment, UTC)
    assert first is not None
    second = next_after(calendar, first, UTC)
    assert second is not None
    assert timedelta(0) < second - first <= longest_gap(calendar)


@given(text=CALENDARS, moment=MOMENTS)
def test_the_text_in_numbers_means_the_same(text: str, moment: datetime) -> None:
    assume(comes(text))
    calendar = parse(text)
    assert parse(calendar.text) == calendar
    assert re.fullmatch(r"[0-9*/, -]+", calendar.text)


def systemd_runs(lines: list[str], moment: datetime, count: int) -> list[datetime]:
    """Return the next runs of a timer with these lines, as systemd itself says."""
    found: set[datetime] = set()
    for line in lines:
        told = subprocess.run(
            [str(SYSTEMD), "calendar", "--iterations=%d" % count, "--base-time=@%d" % moment.timestamp(), line],
            capture_output=True,
            text=True,
            check=True,
            env={"TZ": "UTC", "LC_ALL": "C"},
        ).stdout
        for stamp in re.findall(r"(?:elapse|Iter\. #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", told):
            found.add(at(stamp.replace(" ", "T")))
    return sorted(found)[:count]


@pytest.mark.skipif(not SYSTEMD, reason="there is no systemd-analyze")
@given(text=CALENDARS, moment=MOMENTS, zone=st.sampled_from(["UTC", "Asia/Kolkata", "Asia/Tokyo"]))
@settings(max_examples=60)
def test_systemd_runs_at_the_same_moments(text: str, moment: datetime, zone: str) -> None:
    assume(comes(text))
    calendar = parse(text)
    # systemd looks no further than to 2200, and gives up sooner on rare days.
    assume(longest_gap(calendar) < 366 * DAY)
    expected, last = [], moment
    for _unused in range(3):
        run = next_after(calendar, last, ZoneInfo(zone))
        assert run is not None
        expected.append(run)
        last = run
    assert systemd_runs(to_systemd(calendar, zone, ZoneInfo(zone)), moment, 3) == expected


@pytest.mark.skipif(not SYSTEMD, reason="there is no systemd-analyze")
@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Santiago", "Australia/Lord_Howe"]
)
@pytest.mark.parametrize("text", ["0 2 * * *", "30 2 * * *", "15 0 * * *", "0 3 * * 0"])
def test_systemd_leaves_out_no_night_on_which_the_clock_jumps(zone: str, text: str) -> None:
    calendar, there = parse(text), ZoneInfo(zone)
    runs = systemd_runs(to_systemd(calendar, zone, there), at("2027-01-01T00:00:00"), 400)
    gaps = [after - before for before, after in itertools.pairwise(runs)]
    longest = longest_gap(calendar)
    assert len(runs) >= 300
    assert longest - 2 * HOUR <= min(gaps)
    assert max(gaps) <= longest + 2 * HOUR


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", sorted(SHORTCUTS))
def test_shortcuts_are_calendars(text: str) -> None:
    assert parse(text.upper()) == parse(SHORTCUTS[text])


def test_names_of_months_and_weekdays_are_read() -> None:
    assert parse("0 0 * JAN,mar-may Mon-Fri").text == "0 0 * 1,3-5 1-5"
    assert parse("0 0 * * 7") == parse("0 0 * * 7")
    assert parse("0 0 * * 5-7").weekdays == frozenset({5, 6, 0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 2 * * * *", "6 fields"),
        ("@reboot", "1 fields"),
        ("60 2 * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 2 0 * *", "'0' is no day"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * 8", "'8' is no weekday"),
        ("0 2 * foo *", "'foo' is no month"),
        ("0 22-4 * * *", "runs backwards"),
        ("0 2 * * fri-mon", "runs backwards"),
        ("*/0 2 * * *", "runs backwards"),
        ("5/10 * * * *", "'5/10' is no minute"),
        ("0 2 L * *", "'l' is no day"),
        ("0 2 ? * *", "'?' is no day"),
        ("0,,5 2 * * *", "'' is no minute"),
        ("0 2 31 2 *", "never come"),
        ("0 2 31 4,6,9,11 *", "never come"),
        ("0 2 ٣ * *", "is no day"),
        ("0\n2 * * x", "is no weekday"),
    ],
)
def test_what_is_no_calendar_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.hint


def test_either_day_suffices_only_when_both_are_named() -> None:
    named, starred = parse("0 0 1 * 1"), parse("0 0 */2 * 1")
    assert [day for day in range(1, 9) if named.on(date(2026, 6, day))] == [1, 8]
    assert named.on(date(2026, 7, 1))  # a Wednesday
    assert starred.on(date(2026, 6, 1))
    assert not starred.on(date(2026, 6, 8))


# --- the clock --------------------------------------------------------------------------------------------------------


def test_a_time_that_the_clock_skips_is_the_same_after_the_jump() -> None:
    before = at("2027-03-27T12:00:00")
    assert next_after(parse("30 2 * * *"), before, BERLIN) == at("2027-03-28T01:30:00")  # 03:30 in Berlin
    assert next_after(parse("30 2 * * *"), at("2027-03-28T01:30:00"), BERLIN) == at("2027-03-29T00:30:00")


def test_a_time_that_comes_twice_counts_once() -> None:
    first = next_after(parse("30 2 * * *"), at("2026-10-24T12:00:00"), BERLIN)
    assert first == at("2026-10-25T00:30:00")
    assert next_after(parse("30 2 * * *"), first, BERLIN) == at("2026-10-26T01:30:00")


@pytest.mark.parametrize(
    ("due", "zone", "since"),
    [
        # Skipped: cron starts it at three, as it does what was due at two.
        ("2027-03-28T01:30:00", "Europe/Berlin", "2027-03-28T00:30:00"),
        ("2027-03-28T01:00:00", "Europe/Berlin", "2027-03-28T00:00:00"),
        ("2027-03-28T02:00:00", "Europe/Berlin", "2027-03-28T02:00:00"),
        ("2027-03-28T00:59:00", "Europe/Berlin", "2027-03-28T00:59:00"),
        ("2027-03-29T00:30:00", "Europe/Berlin", "2027-03-29T00:30:00"),
        # The hour comes twice.
        ("2026-10-25T00:30:00", "Europe/Berlin", "2026-10-25T00:30:00"),
        ("2026-10-25T01:30:00", "Europe/Berlin", "2026-10-25T01:30:00"),
        # Half an hour only; and a day, after which cron takes the new time as it is.
        ("2026-10-03T15:45:00", "Australia/Lord_Howe", "2026-10-03T15:15:00"),
        ("2011-12-30T10:30:00", "Pacific/Apia", "2011-12-30T10:30:00"),
        ("2027-03-28T01:30:00", "UTC", "2027-03-28T01:30:00"),
    ],
)
def test_what_the_clock_skips_cron_starts_at_the_jump(due: str, zone: str, since: str) -> None:
    assert counts_from(at(due), ZoneInfo(zone)) == at(since)


def test_a_leap_day_is_found_across_a_century_without_one() -> None:
    assert next_after(parse("0 0 29 2 *"), at("2096-03-01T00:00:00"), UTC) == at("2104-02-29T00:00:00")


def test_there_is_no_run_beyond_time() -> None:
    assert next_after(parse("@daily"), datetime(9990, 12, 31, 12, tzinfo=UTC), UTC) is None


# --- distances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 2 * * *", DAY),
        ("0 1 * * 0", 7 * DAY),
        ("0 2,14 * * *", 12 * HOUR),
        ("0 2,4 * * *", 22 * HOUR),
        ("0 2 * * 1-5", 3 * DAY),
        ("0 0 1 * *", 31 * DAY),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 0 29 2 *", 1461 * DAY),
    ],
)
def test_the_longest_gap(text: str, expected: timedelta) -> None:
    assert longest_gap(parse(text)) == expected


@pytest.mark.parametrize(
    ("made", "copied", "expected"),
    [
        ("0 2 * * *", "30 2 * * *", DAY + HOUR / 2),
        ("0 2 * * *", "0 * * * *", DAY + HOUR),
        ("0 2 * * *", "30 2 * * 0", 7 * DAY + HOUR / 2),
        ("0 2 * * 0", "30 2 * * *", 7 * DAY + HOUR / 2),
        # The copy goes first: what it takes is a day old already.
        ("0 2 * * *", "0 1 * * *", 2 * DAY - HOUR),
        ("0 2 * * *", "0 2 * * *", 2 * DAY),
    ],
)
def test_the_oldest_that_a_copy_becomes(made: str, copied: str, expected: timedelta) -> None:
    assert longest_lag(parse(made), parse(copied)) == expected


@given(made=CALENDARS, copied=CALENDARS)
@settings(max_examples=40)
def test_a_copy_becomes_older_than_either_gap(made: str, copied: str) -> None:
    assume(comes(made))
    assume(comes(copied))
    first, second = parse(made), parse(copied)
    assume(max(longest_gap(first), longest_gap(second)) < 366 * DAY)
    lag = longest_lag(first, second)
    assert longest_gap(second) < lag <= longest_gap(first) + longest_gap(second)


# --- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00"]),
        ("*/30 * * * *", ["*-*-* *:00,30:00"]),
        ("0 1 * * 0", ["Sun *-*-* 01:00:00"]),
        ("0 1 1-7 1,7 *", ["*-01,07-01..07 01:00:00"]),
        ("0 1 1,15 * 1-5", ["Mon,Tue,Wed,Thu,Fri *-*-* 01:00:00", "*-*-01,15 01:00:00"]),
        ("0 1 1 6 1", ["Mon *-06-* 01:00:00", "*-06-01 01:00:00"]),
    ],
)
def test_how_systemd_says_it(text: str, expected: list[str]) -> None:
    assert to_systemd(parse(text)) == expected
    assert parse(text).lines == len(expected)


def test_a_skipped_night_has_a_line_of_its_own() -> None:
    assert to_systemd(parse("30 2 * * *"), "Europe/Berlin", BERLIN) == [
        "*-*-* 02:30:00 Europe/Berlin",
        "Sun *-03-25..31 03:30:00 Europe/Berlin",
    ]
    # 03:30 is in the calendar anyhow.
    assert to_systemd(parse("30 * * * *"), "Europe/Berlin", BERLIN) == ["*-*-* *:30:00 Europe/Berlin"]
