# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.catch_up import Missed, missed

NIGHT = datetime(2026, 11, 22, 2, tzinfo=UTC)  # a Sunday
NIGHTLY = {"backup": parse("0 2 * * *"), "verify": parse("0 3 * * *"), "prune": parse("0 1 * * 0")}
LONG_AGO = NIGHT - timedelta(days=100)
BERLIN = ZoneInfo("Europe/Berlin")
JOBS = {"backup": parse("0 2 * * *"), "sync": parse("30 2 * * *"), "verify": parse("0 3 * * *")}


@pytest.mark.parametrize(
    ("ended", "verbs"),
    [
        ({}, ["backup", "verify", "prune"]),
        ({"backup": NIGHT + timedelta(minutes=4)}, ["verify", "prune"]),
        ({"backup": NIGHT - timedelta(hours=23), "verify": NIGHT + timedelta(hours=2), "prune": NIGHT}, ["backup"]),
    ],
)
def test_what_has_not_run_since_it_was_due_was_missed(ended: dict[str, datetime], verbs: list[str]) -> None:
    now = NIGHT + timedelta(hours=7)
    assert [one.verb for one in missed(NIGHTLY, ended, LONG_AGO, now, UTC)] == verbs


def test_what_was_due_before_the_calendar_came_was_not_missed() -> None:
    now = NIGHT + timedelta(hours=7)
    assert missed({"backup": NIGHTLY["backup"]}, {}, NIGHT + timedelta(seconds=1), now, UTC) == []
    assert missed({"backup": NIGHTLY["backup"]}, {}, NIGHT, now, UTC) == [Missed("backup", NIGHT)]


@given(st.integers(0, 60 * 24 * 60), st.integers(0, 60 * 24 * 60))
def test_however_long_the_host_was_down_each_verb_is_caught_up_once(up: int, down: int) -> None:
    ended = dict.fromkeys(NIGHTLY, NIGHT + timedelta(minutes=up))
    now = NIGHT + timedelta(minutes=up + down)
    found = missed(NIGHTLY, ended, LONG_AGO, now, UTC)
    assert len({one.verb for one in found}) == len(found)
    assert all(ended[one.verb] < one.due <= now for one in found)
    if down >= 24 * 60:
        assert {"backup", "verify"} <= {one.verb for one in found}
    assert missed(NIGHTLY, dict.fromkeys(NIGHTLY, now), LONG_AGO, now, UTC) == []


@pytest.mark.parametrize(
    ("night", "due"),
    [
        # The hour from two to three is left out: what was due in it is due an hour of the clock later.
        (datetime(2027, 3, 28, tzinfo=BERLIN), {"backup": (1, 0), "sync": (1, 30), "verify": (1, 0)}),
        # That hour comes twice, and counts once.
        (datetime(2026, 10, 25, tzinfo=BERLIN), {"backup": (0, 0), "sync": (0, 30), "verify": (2, 0)}),
    ],
)
def test_a_night_in_which_the_clock_is_moved_is_caught_up_once(
    night: datetime, due: dict[str, tuple[int, int]]
) -> None:
    wanted = {verb: datetime(night.year, night.month, night.day, *time, tzinfo=UTC) for verb, time in due.items()}
    evening = datetime(night.year, night.month, night.day - 1, 23, tzinfo=BERLIN)
    ended = dict.fromkeys(JOBS, evening)
    assert missed(JOBS, ended, LONG_AGO, night.replace(hour=1, minute=59), BERLIN) == []
    morning = night.replace(hour=9)
    assert {one.verb: one.due for one in missed(JOBS, ended, LONG_AGO, morning, BERLIN)} == wanted
    # Whoever ran when it was due lost nothing; nor does the second of two hours of one name bring anything.
    for minutes in range(0, 24 * 60, 5):
        now = evening.astimezone(UTC) + timedelta(minutes=minutes)
        in_time = {verb: max(ended[verb], wanted[verb]) if now >= wanted[verb] else ended[verb] for verb in JOBS}
        assert missed(JOBS, in_time, LONG_AGO, now, BERLIN) == []


def test_what_cron_started_when_the_clock_skipped_its_time_is_not_caught_up_once_more() -> None:
    # All three at 03:00, as there is no 02:00 and no 02:30 in this night.
    jump = datetime(2027, 3, 28, 1, 0, tzinfo=UTC)
    ended = dict.fromkeys(JOBS, jump + timedelta(minutes=2))
    assert missed(JOBS, ended, LONG_AGO, jump + timedelta(hours=5), BERLIN) == []
