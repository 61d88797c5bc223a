# SPDX-License-Identifier: GPL-3.0-or-later
"""What people must hear of: each cause from the facts that make it, and nothing on a night like any other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import freshness
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.alerting import (
    Disk,
    Due,
    Facts,
    Limits,
    Run,
    SetFacts,
    Trouble,
    days_left,
    troubles,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import verify

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)
NIGHTLY = Due(parse("0 2 * * *"), LONG_AGO)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GIB = 1 << 30


def run(verb: str = "backup", age: timedelta = 6 * HOUR, *, took: timedelta = HOUR / 4, **facts: Any) -> Run:
    begun = NOW - age
    return Run(**{"verb": verb, "outcome": "ok", "begun": begun, "ended": begun + took, **facts})


def nights(count: int = 8, **facts: Any) -> list[Run]:
    return [run(age=6 * HOUR + n * DAY, **{"size": GIB, **facts}) for n in range(count)]


def found(limits: Limits | None = None, now: datetime = NOW, **facts: Any) -> dict[str, Trouble]:
    return {t.cause: t for t in troubles(Facts(**facts), limits or Limits(), now)}


def judged(check: str, severity: str = "critical", since: datetime | None = NOW - HOUR) -> freshness.Finding:
    return freshness.Finding(check, severity, "It is so.", since=since)


def test_a_night_like_any_other_is_no_trouble() -> None:
    sets = [SetFacts("20261122T020000Z-logical", "local", GIB, 3)]
    disk = Disk("/b", 50 * GIB, GIB, {date(2026, 11, 22) - n * DAY: 50 * GIB for n in range(14)})
    assert not found(
        runs={"backup": nights()},
        due={"backup": NIGHTLY},
        sets=sets,
        disk=disk,
        judged=[judged("backup", "ok")],
        ahead=timedelta(seconds=3),
        watched_since=LONG_AGO,
    )
    assert not found()


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "outcome", "level", "word"),
    [
        ("backup", "failed", "critical", "failed"),
        ("backup", "unreachable", "critical", "failed"),
        ("sync", "refused", "critical", "was refused"),
        ("verify", "failed", "critical", "failed"),
        ("prune", "failed", "warning", "failed"),
        ("backup", "busy", "warning", "did not start"),
        ("backup", "interrupted", "warning", "was interrupted"),
    ],
)
def test_a_failed_run_is_told_with_its_reason(verb: str, outcome: str, level: str, word: str) -> None:
    trouble = found(runs={verb: [run(verb, outcome=outcome, reason="No\nroute."), run(verb, 30 * HOUR)]})
    assert list(trouble) == ["failed-run/%s" % verb]
    (only,) = trouble.values()
    assert only.level == level
    assert "The last %s %s: No route." % (verb, word) in only.text
    assert "in a row" not in only.text
    assert only.step.endswith("pgops %s" % verb)
    assert only.since == NOW - 6 * HOUR + HOUR / 4


def test_failures_in_a_row_count_from_the_first() -> None:
    runs = [run(outcome="failed", age=6 * HOUR + n * DAY) for n in range(3)] + [run(age=90 * HOUR)]
    only = found(runs={"backup": runs})["failed-run/backup"]
    assert "run 3 in a row" in only.text
    assert "it gave no reason" in only.text
    assert only.since == runs[2].ended


def test_a_success_ends_it_whatever_was_before() -> None:
    assert not found(runs={"backup": [run(), run(age=30 * HOUR, outcome="failed")]})


def test_a_restore_that_fails_is_told_to_who_started_it() -> None:
    assert not found(runs={"restore": [run("restore", outcome="failed")]})


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({}, True),
        ({"runs": {"backup": [run(age=30 * HOUR)]}}, True),
        ({"runs": {"backup": [run(age=6 * HOUR)]}}, False),
        ({"runs": {"backup": [run(age=2 * HOUR)]}}, False),  # somebody made up for it
        ({"runs": {"backup": [run(age=7 * HOUR, took=2 * HOUR)]}}, False),  # it was at work when it was due
        ({"running": {"backup": NOW - 6 * HOUR}}, False),
        ({"running": {"sync": NOW - 6 * HOUR}}, True),  # nobody waits without being told to
        ({"boot": NOW - HOUR / 2}, False),
        ({"boot": NOW - 2 * HOUR}, True),
        ({"watched_since": NOW - 5 * HOUR}, False),  # set up after the time of the run
        ({"due": {"backup": Due(parse("0 2 * * *"), NOW - HOUR)}}, False),  # the calendar is new
        ({"due": {}}, False),  # this host starts nothing
        ({"due": {"backup": Due(parse("0 2 29 2 *"), NOW - timedelta(days=1))}}, False),
    ],
)
def test_a_run_that_was_due_and_did_not_begin_is_missed(facts: dict[str, Any], wanted: bool) -> None:
    trouble = found(**{"due": {"backup": NIGHTLY}, "watched_since": LONG_AGO, **facts})
    assert ("missed-run/backup" in trouble) == wanted
    if wanted:
        assert trouble["missed-run/backup"].since == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
        assert "2026-11-22 02:00 +0000" in trouble["missed-run/backup"].text


def test_a_run_is_not_missed_before_its_grace_is_over() -> None:
    due = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    facts: dict[str, Any] = {
        "due": {"backup": NIGHTLY},
        "watched_since": LONG_AGO,
        "runs": {"backup": [run(age=30 * HOUR)]},
    }
    assert not found(now=due + HOUR - timedelta(seconds=1), **facts)
    assert list(found(now=due + HOUR, **facts)) == ["missed-run/backup"]


def test_a_run_that_cron_started_when_the_clock_skipped_its_time_is_not_missed() -> None:
    # At 03:00 in Berlin, as soon as there is no 02:30 in this night; by the calendar it is due at 03:30.
    started = datetime(2027, 3, 28, 1, 0, tzinfo=UTC)
    facts: dict[str, Any] = {"due": {"sync": Due(parse("30 2 * * *"), LONG_AGO)}, "watched_since": LONG_AGO}
    limits = Limits(zone=ZoneInfo("Europe/Berlin"))
    for ended, missed in ((started + HOUR / 60, []), (started - 24 * HOUR, ["missed-run/sync"])):
        runs = {"sync": [run("sync", NOW - ended, took=timedelta(0))]}
        assert list(found(limits, now=started + 7 * HOUR, runs=runs, **facts)) == missed


def test_a_run_that_waits_for_another_has_the_patience_that_it_was_given() -> None:
    facts: dict[str, Any] = {"due": {"verify": NIGHTLY}, "running": {"sync": NOW - 9 * HOUR}, "watched_since": LONG_AGO}
    assert "missed-run/verify" not in found(Limits(wait=6 * HOUR), **facts)
    assert found(Limits(wait=HOUR), **facts)["missed-run/verify"].level == "warning"


def test_a_run_that_takes_three_times_as_long_as_usual_is_late() -> None:
    runs = {"backup": nights(took=HOUR)}
    assert not found(runs=runs, running={"backup": NOW - 3 * HOUR})
    late = found(runs=runs, running={"backup": NOW - 4 * HOUR})["late-run/backup"]
    assert late.level == "warning"
    assert late.since == NOW - HOUR
    # A quick one has an hour; one that nobody knows yet has until it is due again.
    quick = {"backup": nights(took=timedelta(minutes=1))}
    assert not found(runs=quick, running={"backup": NOW - HOUR})
    assert found(runs=quick, running={"backup": NOW - 2 * HOUR})
    every_six_hours = {"backup": Due(parse("0 */6 * * *"), LONG_AGO)}
    assert not found(running={"backup": NOW - 6 * HOUR}, due=every_six_hours)
    assert found(running={"backup": NOW - 7 * HOUR}, due=every_six_hours)
    assert found(running={"backup": NOW - 25 * HOUR})


# --- freshness and sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "cause"),
    [
        ("backup", "backup-age"),
        ("off-site copy", "offsite-age"),
        ("off-site place", "offsite-place"),
        ("local place", "local-place"),
        ("verification", "verification-age"),
        ("clock", "clock"),
    ],
)
def test_what_freshness_finds_is_told(check: str, cause: str) -> None:
    trouble = found(judged=[judged(check, "warning")])
    assert list(trouble) == [cause]
    assert trouble[cause].level == "warning"
    assert trouble[cause].since == NOW - HOUR
    assert trouble[cause].step


def test_what_is_a_choice_is_no_trouble() -> None:
    assert not found(judged=[judged("no off-site place", "warning"), judged("something new", "critical")])


def test_the_first_night_is_waited_for() -> None:
    missing = [judged(check, since=None) for check in ("backup", "off-site copy", "verification")]
    fresh = found(judged=missing)
    assert fresh["backup-age"].patience == fresh["offsite-age"].patience == 30 * HOUR
    assert fresh["verification-age"].patience == 7 * DAY
    # Where there have been backups, that there are none any more is told at once.
    gone = found(judged=missing, runs={"backup": nights()})
    assert gone["backup-age"].patience == timedelta(0)


def test_a_store_that_does_not_answer_once_is_looked_at_again_before_it_is_told() -> None:
    assert found(judged=[judged("off-site place", since=None)])["offsite-place"].patience == HOUR / 2


def test_what_follows_from_a_run_is_told_with_it() -> None:
    runs = {"backup": [run(outcome="failed"), run(age=30 * HOUR)], "sync": [run("sync", outcome="busy")]}
    trouble = found(runs=runs, judged=[judged("backup"), judged("off-site copy"), judged("verification", "warning")])
    assert sorted(trouble) == ["failed-run/backup", "failed-run/sync", "verification-age"]
    assert "It is so." in trouble["failed-run/backup"].text
    assert trouble["failed-run/sync"].level == "critical", "the worse of the two"
    first = found(runs={"backup": [run(outcome="failed")]}, judged=[judged("backup", since=None)])
    assert "It is so." not in first["failed-run/backup"].text


def test_a_set_that_failed_is_told_instead_of_the_run_that_found_it() -> None:
    newest, older = "20261122T020000Z-logical", "20261121T020000Z-logical"
    sets = [SetFacts(newest, "s3", GIB, 1, failed=("restore",)), SetFacts(older, "s3", GIB, 1)]
    trouble = found(sets=sets, runs={"verify": [_found_damage(newest)]})
    assert list(trouble) == ["failed-set/s3"]
    assert trouble["failed-set/s3"].level == "critical"
    assert "The newest set" in trouble["failed-set/s3"].text
    sets = [SetFacts(newest, "s3", GIB, 1), SetFacts(older, "s3", GIB, 1, failed=("checksum", "structure"))]
    assert found(sets=sets)["failed-set/s3"].level == "warning"
    assert "%s (checksum, structure)" % older in found(sets=sets)["failed-set/s3"].text


def _found_damage(set_id: str) -> Run:
    """Return a verification as it ends when a set failed: the words are those of the verb."""
    with pytest.raises(PgopsError) as caught:
        verify._judge("/b", {"sets": [{"set": set_id, "outcome": "failed", "findings": ["A byte is wrong."]}]})
    return run("verify", outcome=caught.value.outcome, reason=str(caught.value))


@pytest.mark.parametrize(
    "newest",
    [
        run("verify", outcome="unreachable", reason="1 of 1 sets could not be proven, which is no verdict on them."),
        run("verify", outcome="refused", reason="There is no room."),
        run("verify", outcome="interrupted"),
        run("verify", outcome="failed", reason="pg_restore ended with 1."),
    ],
)
def test_an_old_set_that_failed_hides_no_verification_that_fails_for_another_reason(newest: Run) -> None:
    ids = ["202611%02dT020000Z-logical" % n for n in (22, 21)]
    sets = [SetFacts(ids[0], "s3", GIB, 1), SetFacts(ids[1], "s3", GIB, 1, failed=("checksum",))]
    runs = [newest, replace(_found_damage(ids[1]), ended=NOW - 20 * HOUR)]
    assert sorted(found(sets=sets, runs={"verify": runs})) == ["failed-run/verify", "failed-set/s3"]


def test_many_sets_are_one_cause_and_a_short_text() -> None:
    sets = [SetFacts("202611%02dT020000Z-logical" % n, "local", 1, 1, failed=("checksum",)) for n in range(28, 0, -1)]
    only = found(sets=sets)["failed-set/local"]
    assert "28 of 28 sets" in only.text
    assert "and 25 more" in only.text
    assert len(only.text) < 300


def test_a_set_that_is_not_whole_is_told_for_its_place() -> None:
    sets = [
        SetFacts("20261122T020000Z-logical", "s3", 1, 0, problem="Files are missing: a.", whole=False),
        SetFacts("20261121T020000Z-logical", "s3", 1, 1),
        SetFacts("20261122T020000Z-logical", "local", 1, 1),
    ]
    assert list(found(sets=sets)) == ["damaged-set/s3"]
    assert "Files are missing: a." in found(sets=sets)["damaged-set/s3"].text


def test_a_set_without_a_database_is_told_unless_that_is_wanted_and_usual() -> None:
    empty, full = (
        SetFacts("20261122T020000Z-logical", "local", 1, 0),
        SetFacts("20261121T020000Z-logical", "local", 1, 3),
    )
    assert found(sets=[empty])["no-databases"].level == "critical"
    wanted = Limits(allow_no_databases=True)
    assert not found(wanted, sets=[empty])
    assert "held 3" in found(wanted, sets=[empty, full])["no-databases"].text


@pytest.mark.parametrize(
    ("size", "told"),
    [(GIB, False), (GIB * 3 // 2, False), (GIB * 8 // 5, True), (GIB // 2, False), (GIB * 2 // 5, True), (0, True)],
)
def test_a_backup_unlike_the_seven_before_it_is_told(size: int, told: bool) -> None:
    runs = [
        run(size=size),
        *[run(age=6 * HOUR + n * DAY, size=GIB) for n in range(1, 8)],
        run(age=900 * HOUR, size=99 * GIB),
    ]
    trouble = found(runs={"backup": runs})
    assert ("size" in trouble) == told
    if told:
        assert "%+.0f %%" % (100 * (size - GIB) / GIB) in trouble["size"].text
    assert "size" not in found(Limits(size_change=0), runs={"backup": runs})


def test_the_median_forgives_one_odd_night_and_few_nights_say_nothing() -> None:
    runs = nights(4)
    runs[2] = run(age=54 * HOUR, size=40 * GIB)
    assert not found(runs={"backup": runs})
    assert not found(runs={"backup": [run(size=9 * GIB), *nights(3)[1:]]})
    # Runs that were left to another node, or failed, have no size.
    assert not found(runs={"backup": [run(size=None), *nights(7)]})
    assert not found(runs={"backup": nights(5, size=0)})
    # Of very small ones, a row more or less is half.
    assert not found(runs={"backup": [run(size=9000), *nights(7, size=3000)[1:]]})
    assert "size" in found(runs={"backup": [run(size=9000), *nights(7, size=2 << 20)[1:]]})


def test_a_database_that_is_new_and_in_no_backup_is_told() -> None:
    assert not found(uncovered=["database a"], known_uncovered=["database a", "database b"])
    one = found(uncovered=["database a", "database new"], known_uncovered=["database a"])["uncovered"]
    assert "database new, which is new" in one.text
    many = found(uncovered=["database %d" % n for n in range(5)])["uncovered"]
    assert "and 2 more, which are new" in many.text


# --- the host ---------------------------------------------------------------------------------------------------------


def days(*free: int) -> dict[date, int]:
    first = date(2026, 11, 22) - (len(free) - 1) * DAY
    return {first + n * DAY: size * GIB for n, size in enumerate(free)}


def test_a_disk_that_is_full_or_too_small_for_the_next_is_told() -> None:
    runs = {"backup": [run(size=5 * GIB)]}
    assert "must stay free" in found(disk=Disk("/b", GIB // 2, GIB))["disk"].text
    assert "would not fit" in found(disk=Disk("/b", 5 * GIB, GIB), runs=runs)["disk"].text
    assert not found(disk=Disk("/b", 6 * GIB, GIB), runs=runs)


def test_a_disk_that_fills_up_is_told_days_before() -> None:
    filling = Disk("/b", 17 * GIB, 2 * GIB, days(*range(56, 16, -3)))
    left = days_left(filling)
    assert left == timedelta(days=5)
    assert found(disk=filling)["disk"].level == "warning"
    assert not found(Limits(disk_days=timedelta(days=5)), disk=filling)
    assert not found(Limits(disk_days=timedelta(0)), disk=filling)


def test_a_weekly_prune_is_no_pace() -> None:
    sawtooth = days(*([50, 45, 40, 35, 30, 25, 20] * 2))
    assert days_left(Disk("/b", 20 * GIB, GIB, sawtooth)) is None
    # Nor do a few days say anything.
    assert days_left(Disk("/b", 10 * GIB, GIB, days(50, 40, 30, 20, 10))) is None


def test_a_clock_that_is_off_is_told() -> None:
    assert "2 h 0 min ahead of" in found(ahead=2 * HOUR)["clock"].text
    assert "2 h 0 min behind" in found(ahead=-2 * HOUR)["clock"].text
    assert not found(ahead=timedelta(minutes=4))
    assert "was set back" in found(runs={"prune": [run("prune", -HOUR)]})["clock"].text


def test_wal_that_is_not_safe_is_told() -> None:
    assert not found(judged=[judged("wal archive", "ok"), judged("wal timeout", "warning")])
    for check in ("archive", "contradiction", "gap", "room", "shipping", "window"):
        assert found(judged=[judged("wal %s" % check)])["wal-%s" % check].since == NOW - HOUR
    assert found(judged=[judged("wal server")])["wal-server"].patience > timedelta(0)


def test_a_disk_on_which_no_record_fits_is_told_and_no_run_is_missed_for_want_of_one() -> None:
    overdue = {"due": {"backup": NIGHTLY}, "watched_since": LONG_AGO}
    assert list(found(**overdue)) == ["missed-run/backup"]
    full = found(state=Disk("/var/lib/pgops/db1", 4096, 1 << 20), **overdue)
    assert list(full) == ["state-disk"]
    assert full["state-disk"].level == "critical"
    assert "/var/lib/pgops/db1 has 4.0 KiB free" in full["state-disk"].text
    assert not found(state=Disk("/var/lib/pgops/db1", 1 << 20, 1 << 20))


def test_a_run_that_was_killed_is_told_in_the_place_of_the_last_that_ended() -> None:
    failed = [run(outcome="failed", reason="No route.")]
    only = found(runs={"backup": failed}, cut_short={"backup": NOW - HOUR})["failed-run/backup"]
    assert "No route" not in only.text
    assert "began at 2026-11-22 07:00:00 UTC was cut short" in only.text
    assert (only.level, only.since) == ("critical", NOW - HOUR)
    assert found(cut_short={"prune": NOW})["failed-run/prune"].level == "warning"


def test_a_restore_test_that_is_overdue_is_told_where_one_is_wanted() -> None:
    wanted = Limits(restore_test=30 * DAY)
    assert not found(restored=LONG_AGO)
    assert not found(wanted, restored=NOW - 29 * DAY)
    assert found(wanted, restored=NOW - 31 * DAY)["restore-test"].since == NOW - DAY
    assert found(wanted, watched_since=NOW - 31 * DAY)
    assert not found(wanted)


def test_the_worst_comes_first_and_is_told_in_json() -> None:
    listed = troubles(
        Facts(ahead=HOUR, runs={"backup": [run(outcome="failed")], "prune": [run("prune", outcome="failed")]}),
        Limits(),
        NOW,
    )
    assert [t.cause for t in listed] == ["failed-run/backup", "clock", "failed-run/prune"]
    assert listed[0].as_data() == {
        "cause": "failed-run/backup",
        "level": "critical",
        "text": listed[0].text,
        "since": "2026-11-22T02:15:00+00:00",
        "next": listed[0].step,
    }


def test_a_base_backup_is_a_run_of_its_own_and_counts_no_databases() -> None:
    base = [run("base backup", HOUR, outcome="failed")]
    known = found(
        runs={"backup": nights(), "base backup": base}, sets=[SetFacts("20261122T020000Z-base", "local", GIB, 0)]
    )
    assert known["failed-run/base backup"].step.endswith("pgops backup --kind base")
    assert "no-databases" not in known
    assert "failed-run/backup" not in known


# --- base backups -----------------------------------------------------------------------------------------------------


def test_a_base_backup_that_is_late_is_told_once_with_its_command() -> None:
    told = found(judged=[judged("base backup"), judged("off-site base backup")])
    assert told["base-age"].step == "Run: pgops backup --kind base"
    assert told["base-offsite-age"].step == "Run: pgops sync"
    weekly = Due(parse("0 0 * * 0"), LONG_AGO)
    missed = found(due={"base backup": weekly}, watched_since=LONG_AGO, judged=[judged("base backup")])
    assert set(missed) == {"missed-run/base backup"}
    assert "pgops backup --kind base" in missed["missed-run/base backup"].step
    assert "It is so." in missed["missed-run/base backup"].text


def test_that_there_is_none_at_all_is_told_by_the_window() -> None:
    assert set(found(judged=[judged("base backup", since=None), judged("wal window")])) == {"wal-window"}


def test_a_host_that_was_set_up_just_now_has_until_its_first_sunday() -> None:
    assert found(judged=[judged("base backup", since=None)])["base-age"].patience == 7 * DAY
