# SPDX-License-Identifier: GPL-3.0-or-later
"""Freshness: which ages are fine, which are not, and what the findings say."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import (
    Facts,
    Finding,
    Limits,
    Seen,
    judge,
    limit,
    limits,
    worst,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def seen(age: timedelta) -> Seen:
    return Seen("20261122T020000Z-logical", NOW - age)


GOOD = Facts(newest=seen(6 * HOUR), oldest=seen(30 * DAY), offsite=seen(6 * HOUR), verified=seen(5 * HOUR))


def find(check: str, limits: Optional[Limits] = None, **changes: Any) -> Finding:
    found = judge(dataclasses.replace(GOOD, **changes), limits or Limits(), NOW)
    return next(f for f in found if f.check == check)


@pytest.mark.parametrize(
    ("interval", "allowed"),
    [(HOUR, 3 * HOUR), (6 * HOUR, 8 * HOUR), (DAY, 26 * HOUR), (2 * DAY, 52 * HOUR), (7 * DAY, 7 * DAY + 12 * HOUR)],
)
def test_a_limit_leaves_a_run_its_time(interval: timedelta, allowed: timedelta) -> None:
    assert limit(interval) == allowed


@given(st.timedeltas(min_value=timedelta(minutes=5), max_value=timedelta(days=365)))
def test_a_limit_always_exceeds_the_interval_and_never_by_more_than_half_a_day(interval: timedelta) -> None:
    assert timedelta(hours=2) <= limit(interval) - interval <= timedelta(hours=12)


def test_when_all_is_well_every_question_has_a_good_answer() -> None:
    found = judge(GOOD, Limits(), NOW)
    assert [(f.check, f.severity) for f in found] == [("backup", "ok"), ("off-site copy", "ok"), ("verification", "ok")]
    assert found[0].text == "The newest backup (20261122T020000Z-logical) began 6 h 0 min ago."
    assert [f.since for f in found] == [None, None, None]


@pytest.mark.parametrize(
    ("age", "severity"), [(timedelta(0), "ok"), (26 * HOUR, "ok"), (26 * HOUR + timedelta(seconds=1), "critical")]
)
def test_a_daily_backup_may_be_26_hours_old_and_not_a_second_more(age: timedelta, severity: str) -> None:
    assert find("backup", newest=seen(age)).severity == severity


def test_a_late_backup_says_how_old_how_old_it_may_be_and_since_when_it_is_late() -> None:
    found = find("backup", newest=seen(2 * DAY))
    assert found.text == (
        "The newest backup (20261122T020000Z-logical) began 2 d 0 h ago; it must not be older than 1 d 2 h."
    )
    assert found.since == NOW - 22 * HOUR
    assert (found.age_seconds, found.limit_seconds) == (172800, 93600)


def test_no_backup_at_all_is_critical_and_says_what_to_run() -> None:
    found = judge(Facts(), Limits(), NOW)
    assert {f.check: f.severity for f in found} == {
        "backup": "critical",
        "off-site copy": "critical",
        "verification": "critical",
    }
    assert "pgops backup" in found[0].text
    assert "pgops sync" in found[1].text


@pytest.mark.parametrize(("age", "severity"), [(28 * HOUR, "ok"), (28 * HOUR + timedelta(seconds=1), "critical")])
def test_the_copy_off_site_may_be_two_hours_later_than_the_backup(age: timedelta, severity: str) -> None:
    assert find("off-site copy", offsite=seen(age)).severity == severity


def test_a_configuration_without_an_off_site_place_is_a_warning_for_ever() -> None:
    found = find("no off-site place", offsite=None, has_offsite=False)
    assert found.severity == "warning"
    assert "no S3 place" in found.text


def test_an_off_site_place_that_does_not_answer_is_not_taken_for_an_empty_one() -> None:
    found = find("off-site place", offsite=None, offsite_error="The store does not answer.")
    assert found.severity == "critical"
    assert "unknown: The store does not answer." in found.text
    assert "pgops sync" not in found.text


def test_a_local_place_that_cannot_be_read_is_critical() -> None:
    found = find("local place", local_error="Permission denied.")
    assert (found.severity, found.text) == ("critical", "The local place cannot be read: Permission denied.")


@pytest.mark.parametrize(
    ("age", "severity"),
    [(7 * DAY, "ok"), (7 * DAY + HOUR, "warning"), (14 * DAY, "warning"), (14 * DAY + HOUR, "critical")],
)
def test_a_proof_older_than_7_days_warns_and_older_than_14_is_critical(age: timedelta, severity: str) -> None:
    found = find("verification", verified=seen(age))
    assert found.severity == severity
    assert ("pgops verify" in found.text) == (severity != "ok")


def test_the_moment_since_which_a_proof_is_too_old_is_that_of_the_limit_it_broke() -> None:
    assert find("verification", verified=seen(10 * DAY)).since == NOW - 3 * DAY
    assert find("verification", verified=seen(20 * DAY)).since == NOW - 6 * DAY


@pytest.mark.parametrize(("oldest", "severity"), [(HOUR, "warning"), (8 * DAY, "warning"), (15 * DAY, "critical")])
def test_never_having_proven_anything_grows_worse_from_the_first_backup_on(oldest: timedelta, severity: str) -> None:
    found = find("verification", verified=None, oldest=seen(oldest))
    assert found.severity == severity
    assert found.text.startswith("No backup is proven to restore")


def test_a_set_from_the_future_is_a_clock_to_look_at() -> None:
    found = find("clock", ahead=Seen("20271122T020000Z-logical", NOW + 2 * DAY))
    assert found.severity == "warning"
    assert "20271122T020000Z-logical claims to begin 2 d 0 h from now" in found.text


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([], "ok"),
        (["ok", "ok"], "ok"),
        (["ok", "warning"], "warning"),
        (["critical", "warning", "ok"], "critical"),
    ],
)
def test_the_worst_finding_is_the_state(severities: list[str], expected: str) -> None:
    assert worst(severities) == expected


def test_a_finding_as_data_is_plain_json() -> None:
    data = find("backup", newest=seen(2 * DAY)).as_data()
    assert data["since"] == "2026-11-21T10:00:00+00:00"
    assert sorted(data) == ["age_seconds", "check", "limit_seconds", "severity", "since", "text"]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backup", "sync", "expected"),
    [
        ("0 2 * * *", "30 2 * * *", (26 * HOUR, 28.5 * HOUR)),
        ("0 1 * * 0", "30 2 * * *", (7.5 * DAY, 7.5 * DAY + 3.5 * HOUR)),
        ("0 2 * * *", "30 2 * * 0", (26 * HOUR, 7.5 * DAY + 2.5 * HOUR)),
        ("0 */6 * * *", "0 * * * *", (8 * HOUR, 11 * HOUR)),
        ("", "", (26 * HOUR, 28 * HOUR)),
        ("0 1 * * 0", "", (7.5 * DAY, 7.5 * DAY + 2 * HOUR)),
    ],
)
def test_limits_follow_from_the_schedule(backup: str, sync: str, expected: tuple[timedelta, timedelta]) -> None:
    found = limits(parse(backup) if backup else None, parse(sync) if sync else None, None)
    assert found.backup == expected[0]
    assert abs(found.offsite - expected[1]) < HOUR


def test_a_random_delay_and_a_rare_verification_are_allowed_for() -> None:
    daily, monthly = parse("0 2 * * *"), parse("0 3 1 * *")
    late = limits(daily, daily, monthly, 2 * HOUR)
    assert late.backup == 28 * HOUR
    assert late.verified_warning > 31 * DAY
    assert late.verified_critical > 62 * DAY
    usual = limits(daily, daily, daily)
    assert (usual.verified_warning, usual.verified_critical) == (7 * DAY, 14 * DAY)


# --- base backups -----------------------------------------------------------------------------------------------------

WEEKLY = limits(parse("0 2 * * *"), parse("30 2 * * *"), parse("0 3 * * *"), base=parse("0 0 * * 0"))
BASES = {"base": seen(2 * DAY), "base_offsite": seen(2 * DAY)}


def test_nobody_waits_for_base_backups_that_are_not_scheduled() -> None:
    assert [f for f in judge(GOOD, Limits(), NOW) if "base" in f.check] == []
    assert (Limits().base, Limits().base_offsite) == (None, None)


def test_a_weekly_base_backup_may_be_a_week_and_half_a_day_old_and_its_copy_until_the_next_sync() -> None:
    assert WEEKLY.base == 7 * DAY + 12 * HOUR
    # At 02:30 it is taken along.
    assert WEEKLY.base_offsite == limit(7 * DAY + timedelta(hours=2, minutes=30)) + 2 * HOUR
    assert find("base backup", WEEKLY, **BASES).severity == "ok"
    assert find("off-site base backup", WEEKLY, **BASES).severity == "ok"
    late = find("base backup", WEEKLY, **{**BASES, "base": seen(8 * DAY)})
    assert (late.severity, late.since) == ("critical", NOW - 12 * HOUR)
    assert find("off-site base backup", WEEKLY, **{**BASES, "base_offsite": seen(9 * DAY)}).severity == "critical"


def test_a_base_backup_that_is_not_there_or_not_off_the_server_is_told() -> None:
    assert "There is no base backup" in find("base backup", WEEKLY).text
    assert find("off-site base backup", WEEKLY, base=seen(DAY)).severity == "critical"
    for facts in ({"has_offsite": False}, {"offsite_error": "it does not answer"}):
        found = judge(dataclasses.replace(GOOD, base=seen(DAY), **facts), WEEKLY, NOW)
        assert [f.severity for f in found if "base" in f.check] == ["ok"], "that is told by another finding"


def test_without_a_sync_of_its_own_a_copy_is_as_old_as_the_next_base_backup() -> None:
    assert limits(None, None, None, base=parse("0 0 * * 0")).base_offsite == limit(7 * DAY) + 2 * HOUR
