# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments carry their offset, durations are read and shown as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import (
    compact,
    human_span,
    iso,
    ordered,
    parse_iso,
    parse_span,
    utc_now,
)

OFFSETS = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda d: timezone(timedelta(minutes=d.total_seconds() // 60))
)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=OFFSETS)  # noqa: DTZ001


@given(MOMENTS)
def test_a_moment_is_written_in_utc_and_comes_back(moment: datetime) -> None:
    assert iso(moment).endswith("+00:00")
    assert parse_iso(iso(moment)) == moment


@pytest.mark.parametrize(
    "text",
    ["2026-11-22T02:00:00Z", "2026-11-22T02:00:00z", " 2026-11-22T03:00:00+01:00 ", "2026-11-22T02:00:00.000+00:00"],
)
def test_a_moment_is_read_whatever_its_offset(text: str) -> None:
    moment = parse_iso(text)
    assert moment == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    assert moment.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("2026-11-22 02:00:07.5+00", 500_000),
        ("2026-11-22 03:00:07.50123+01", 501_230),
        ("2026-11-22T03:00:07.1+01:00", 100_000),
        ("2026-11-22T03:00:07,123456+0100", 123_456),
        ("2026-11-22T02:00:07.123456789Z", 123_456),
        ("2026-11-22 07:30:07+05:30", 0),
        ("2026-11-21 22:30:07-0330", 0),
        ("2026-11-22 02:53:35+00:53:28", 0),
    ],
)
def test_a_moment_is_read_as_postgresql_prints_it(text: str, fraction: int) -> None:
    """As psql and the server's log have it, with each Python: before 3.11 its own parser knows three or six digits alone."""
    assert parse_iso(text) == datetime(2026, 11, 22, 2, 0, 7, fraction, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-22T02:00:00", "2026-11-22", "2026-11-22 02:00"])
def test_a_moment_without_an_offset_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no offset from UTC"):
        parse_iso(text)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-22T25:00:00Z", "Z", "12"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a moment"):
        parse_iso(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_beyond_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a moment"):
        parse_iso(text)


def test_a_naive_moment_is_a_mistake_of_ours_and_never_written() -> None:
    with pytest.raises(ValueError, match="without an offset"):
        iso(datetime(2026, 11, 22))  # noqa: DTZ001


def test_the_clock_is_in_utc() -> None:
    assert utc_now().utcoffset() == timedelta(0)


def test_names_of_moments_sort_as_the_moments_do() -> None:
    second = datetime(2026, 11, 22, 2, tzinfo=UTC)
    moments = [second, second + timedelta(microseconds=1), second + timedelta(seconds=1)]
    assert [ordered(m) for m in moments] == sorted(ordered(m) for m in moments)
    assert ordered(moments[1]) == "20261122T020000.000001Z"


def test_the_compact_form_is_in_utc() -> None:
    assert compact(datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=-1)))) == "20261122T023000Z"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15min", timedelta(minutes=15)),
        ("26h", timedelta(hours=26)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        (" 3 d ", timedelta(days=3)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_read(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "7", "7m", "d", "-1d", "1.5h", "7 days", "1d2h", "\u0667d", "7d\n7d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_span(text)


def test_a_duration_beyond_all_measure_is_refused_and_not_a_crash() -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_span("99999999999w")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.23, "4.2 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 0 s"),
        (60, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (5 * 3600 + 600, "5 h 10 min"),
        (86400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_a_duration_is_shown_for_people(seconds: float, text: str) -> None:
    assert human_span(seconds) == text
