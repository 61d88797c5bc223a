# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found about a WAL archive: each trouble is heard of, and an idle server gives no alarm."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_health import (
    Bounds,
    Holding,
    Room,
    ServerWal,
    Shipping,
    behind,
    judge,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GIB = 1 << 30
GOOD = ServerWal(
    archive_mode="on",
    archive_command="/usr/local/bin/pgops wal archive %p",
    archive_timeout=60,
    segment_size=1 << 24,
    lag_bytes=4711,
    last_archived="000000010000000000000007",
    last_archived_time=NOW - MINUTE,
    last_failed="",
    last_failed_time=None,
    failed_count=0,
    ready=0,
    ready_since=None,
)
SHIPPED = Shipping(0, 0, None, "", None)
PLENTY = Room(100 * GIB, GIB, 1000.0)
HELD = Holding("s3", recoverable_to=NOW - MINUTE, segments=7)


def found(**facts: Any) -> dict[str, tuple[str, str]]:
    """Return severity and text by check, where all is well but for `facts`."""
    known = {
        "server": GOOD,
        "server_error": "",
        "shipping": SHIPPED,
        "room": PLENTY,
        "holdings": [HELD],
        "bounds": Bounds(10 * MINUTE, GIB),
        "now": NOW,
        **facts,
    }
    return {finding.check: (finding.severity, finding.text) for finding in judge(**known)}


def server(**values: Any) -> ServerWal:
    return dataclasses.replace(GOOD, **values)


def test_where_all_is_well_nothing_else_is_said():
    assert {check: severity for check, (severity, _text) in found().items()} == dict.fromkeys(
        ("wal archive", "wal shipping", "wal room", "wal window"), "ok"
    )


def test_an_idle_server_with_an_old_archive_is_well():
    idle = server(last_archived_time=NOW - timedelta(days=3), lag_bytes=200)
    assert found(server=idle)["wal archive"][0] == "ok"


@pytest.mark.parametrize(
    ("values", "severity", "said"),
    [
        ({"archive_mode": "off"}, "critical", "archive_mode is off"),
        ({"archive_command": "/bin/true"}, "critical", "does not call pgops"),
        ({"archive_library": "basic_archive"}, "critical", "archive_library is basic_archive"),
        (
            {"last_failed": "000000010000000000000008", "last_failed_time": NOW, "failed_count": 3},
            "critical",
            "cannot archive 000000010000000000000008 (3 failures",
        ),
        (
            {"last_failed": "1", "last_failed_time": NOW, "last_archived_time": None},
            "critical",
            "cannot archive 1",
        ),
        ({"ready": 5, "ready_since": NOW - 11 * MINUTE}, "warning", "5 files wait, the oldest for 11 min"),
        ({"ready": 5, "ready_since": NOW - 2 * MINUTE}, "ok", "5 files wait"),
        ({"lag_bytes": 2 * GIB}, "warning", "2.0 GiB of WAL are not archived"),
        ({"last_failed_time": NOW - 2 * MINUTE}, "ok", "not archived yet"),
        ({"ready": None}, "ok", "not archived yet"),
    ],
)
def test_what_the_server_does(values, severity, said):
    assert found(server=server(**values))["wal archive"][0] == severity
    assert said in found(server=server(**values))["wal archive"][1]


def test_a_server_that_waits_for_a_full_segment_is_told_of():
    assert found(server=server(archive_timeout=0))["wal timeout"][0] == "warning"
    assert "wal timeout" not in found(server=server(archive_timeout=0, in_recovery=True))
    assert "no connection" in found(server=None, server_error="no connection")["wal server"][1]


@pytest.mark.parametrize(
    ("shipping", "severity", "said"),
    [
        (Shipping(2, 100, NOW - MINUTE, "", None), "ok", "2 files (100 B) of WAL wait for S3."),
        (Shipping(2, 100, NOW - 11 * MINUTE, "", None), "warning", "does pgops wal ship run?"),
        (Shipping(2, 2 * GIB, NOW - MINUTE, "no network", NOW), "warning", "wait for S3: no network"),
        (Shipping(0, 0, None, "no network", NOW), "warning", "newest shipping failed: no network"),
    ],
)
def test_what_waits_for_s3(shipping, severity, said):
    assert found(shipping=shipping)["wal shipping"][0] == severity
    assert said in found(shipping=shipping)["wal shipping"][1]
    assert "wal shipping" not in found(shipping=None)


def test_what_s3_has_with_other_content_is_told_as_long_as_it_is_here():
    shipping = Shipping(2, 100, NOW - MINUTE, "", None, contested=["000000010000000000000003", "x"])
    severity, said = found(shipping=shipping)["wal contradiction"]
    assert (severity, "name of 000000010000000000000003. Two" in said) == ("critical", True)
    assert "wal contradiction" not in found(shipping=dataclasses.replace(shipping, contested=()))


def test_what_a_shipping_that_ended_said_is_no_news():
    for minutes, severity in ((9, "ok"), (10, "ok"), (12, "warning")):
        shipping = Shipping(0, 0, None, "", None, NOW - minutes * MINUTE)
        assert found(shipping=shipping, bounds=Bounds(9 * MINUTE, GIB, MINUTE))["wal shipping"][0] == severity
    dead = Shipping(0, 0, None, "no network", NOW, NOW - timedelta(hours=1))
    said = found(shipping=dead)["wal shipping"][1]
    assert "last ran at 2026-11-22T07:00:00" in said
    assert "It failed then: no network" in said


@pytest.mark.parametrize(
    ("hours", "severity"), [(1, "critical"), (3, "warning"), (23, "warning"), (25, "ok"), (10**7, "ok")]
)
def test_the_time_until_the_disk_is_full(hours, severity):
    room = Room(GIB + hours * 3600 * 1000, GIB, 1000.0)
    assert found(room=room)["wal room"][0] == severity
    assert Room(5, GIB, 1.0).full_in == timedelta(0)
    assert found(room=Room(GIB // 2, GIB, 0.0))["wal room"][0] == "ok"
    large = server(segment_size=GIB)
    assert found(server=large, room=Room(GIB - 1, GIB, 0.0))["wal room"][0] == "critical", "no room for the next one"
    assert found(server=large, room=Room(GIB, GIB, 0.0))["wal room"][0] == "ok"
    full = found(room=Room(5, 0, 0.0))["wal room"]
    assert (full[0], "a segment may need more" in full[1]) == ("critical", True)


def test_what_is_wrong_in_a_place():
    gap = dataclasses.replace(HELD, gaps=["000000010000000000000003"])
    assert found(holdings=[gap])["wal gap"][0] == "warning"
    twice = dataclasses.replace(HELD, contradictions=["000000010000000000000003"])
    assert found(holdings=[twice])["wal contradiction"][0] == "critical"
    assert found(holdings=[Holding("s3", segments=7)])["wal window"][0] == "warning"
    assert "wal window" not in found(holdings=[Holding("s3")])
    # A spool that feeds S3 needs no base backup of its own.
    assert found(holdings=[Holding("local", segments=7), HELD])["wal window"][0] == "ok"
    assert "no network" in found(holdings=[Holding("s3", "no network")])["wal s3"][1]
    damaged = dataclasses.replace(HELD, damaged=["00000001000000000000000%d" % n for n in range(5)])
    severity, said = found(holdings=[damaged])["wal damaged"]
    assert severity == "warning"
    assert "000000010000000000000002 and 2 more" in said
    assert "take a new base backup" in said


def test_a_timeline_whose_history_is_missing_is_told_with_what_to_do():
    """Every segment comes, and there is no gap; but nobody can get across the switch."""
    now_on_two = server(system_identifier="7", timeline=2)
    lost = dataclasses.replace(HELD, bases=[("7", 1)], stranded=[("7", 2)], newest=NOW)
    checks = found(server=now_on_two, holdings=[lost])
    severity, said = checks["wal history"]
    assert severity == "critical"
    assert "pgops wal archive pg_wal/00000002.history" in said
    assert "wal timeline" not in checks  # no recovery gets across
    for other in (server(system_identifier="8", timeline=2), server(system_identifier="7", timeline=3)):
        assert "wal history" not in found(server=other, holdings=[lost])
    assert "wal history" not in found(server=now_on_two, holdings=[dataclasses.replace(lost, error="gone")])


def test_what_a_recovery_left_is_told_in_the_place_of_the_timeline():
    """A base backup is what ends both; that a history is missing is told besides."""
    left = server(system_identifier="7", timeline=2, unsettled="Links are left.")
    old = dataclasses.replace(HELD, bases=[("7", 1)])
    assert found(server=left, holdings=[old])["wal timeline"] == ("warning", "Links are left.")
    lost = dataclasses.replace(old, stranded=[("7", 2)])
    assert {"wal timeline", "wal history"} <= set(found(server=left, holdings=[lost]))


def test_places_that_contradict_each_other_about_a_timeline_are_told_once():
    held = dataclasses.replace(HELD, disputed=[("7", 2)])
    known = (GOOD, "", SHIPPED, PLENTY, [held, dataclasses.replace(held, place="local")], Bounds(10 * MINUTE, GIB), NOW)
    told = [finding for finding in judge(*known) if finding.check == "wal contradiction"]
    assert [(finding.severity, "00000002.history" in finding.text) for finding in told] == [("critical", True)]
    # Why the window ends before the WAL does is told by that.
    late = dataclasses.replace(held, recoverable_to=NOW - 60 * MINUTE, newest=NOW)
    assert found(holdings=[late])["wal window"][0] == "ok"


def test_a_window_that_lags_behind_the_wal_is_told():
    held = dataclasses.replace(HELD, recoverable_to=NOW - 60 * MINUTE, newest=NOW)
    severity, said = found(holdings=[held])["wal window"]
    assert (severity, "1 h 0 min younger" in said) == ("warning", True)
    assert found(holdings=[dataclasses.replace(held, newest=NOW - 51 * MINUTE)])["wal window"][0] == "ok"
    # What is told already is not told twice.
    gap = dataclasses.replace(held, gaps=["000000010000000000000003"])
    assert found(holdings=[gap])["wal window"][0] == "ok"


def test_a_new_timeline_is_told_until_a_base_backup_is_of_it():
    now_on_two = server(system_identifier="7", timeline=2)
    old, new, others = (dataclasses.replace(HELD, bases=[base]) for base in (("7", 1), ("7", 2), ("8", 1)))
    severity, said = found(server=now_on_two, holdings=[old])["wal timeline"]
    assert (severity, "on timeline 2" in said, "of timeline 1" in said) == ("warning", True, True)
    unknown = Holding("s3", "no network")
    for holdings in ([old, new], [others], [HELD], [old, unknown]):
        assert "wal timeline" not in found(server=now_on_two, holdings=holdings)
    assert "wal timeline" not in found(server=server(system_identifier="7"), holdings=[old])
    assert "wal timeline" not in found(server=server(system_identifier="7", timeline=1), holdings=[old])


@pytest.mark.parametrize(("hours", "severity"), [(1, "critical"), (3, "warning"), (25, "ok")])
def test_while_archiving_fails_it_is_the_disk_of_pg_wal_that_fills(hours, severity):
    """The spool grows no more then, and its disk would last for ever."""
    failing = server(last_failed="1", last_failed_time=NOW, lag_bytes=5000)
    spool, own = Room(100 * GIB, GIB, 0.0), Room(hours * 3600 * 1000, 0, 1000.0)
    told = [
        finding
        for finding in judge(failing, "", SHIPPED, spool, [HELD], Bounds(10 * MINUTE, GIB), NOW, own_disk=own)
        if finding.check == "wal room"
    ]
    assert [finding.severity for finding in told] == [severity, "ok"]
    assert "pg_wal" in told[0].text
    assert "the server stops" in told[0].text
    assert found(server=failing, own_disk=Room(5, 0, 0.0))["wal room"][0] == "ok"
    # What is archived does not stay there; what cannot keep up does.
    assert "pg_wal" not in found(own_disk=own)["wal room"][1]
    slow = judge(server(lag_bytes=2 * GIB), "", SHIPPED, spool, [HELD], Bounds(10 * MINUTE, GIB), NOW, own_disk=own)
    assert [finding.severity for finding in slow if finding.check == "wal room"] == [severity, "ok"]


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "said"), [(1200.0, "20 min 0 s ahead of"), (-1200.0, "20 min 0 s behind"), (59.0, ""), (-59.0, "")]
)
def test_a_server_whose_clock_is_another_is_told(ahead, said):
    judged = found(server=server(ahead_seconds=ahead))
    assert ("wal clock" in judged) == bool(said)
    if said:
        assert judged["wal clock"][0] == "warning"
        assert "The server's clock is %s this host's" % said in judged["wal clock"][1]


def test_wal_from_the_future_has_no_age_and_that_is_told():
    late = dataclasses.replace(HELD, recoverable_to=NOW + 20 * MINUTE)
    severity, text = found(holdings=[late])["wal clock"]
    assert (severity, "s3 bears a time that is 20 min 0 s ahead" in text) == ("warning", True)
    assert behind(NOW + 20 * MINUTE, NOW) == (None, 1200.0)
    # What a store and a host may differ by is no news.
    assert behind(NOW + MINUTE / 2, NOW) == (0.0, None)
    assert behind(NOW - MINUTE, NOW) == (60.0, None)
    assert behind(None, NOW) == (None, None)
    assert "wal clock" not in found(holdings=[dataclasses.replace(HELD, recoverable_to=NOW + MINUTE / 2)])
