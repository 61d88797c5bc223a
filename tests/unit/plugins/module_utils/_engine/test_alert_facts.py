# SPDX-License-Identifier: GPL-3.0-or-later
"""What alerts are judged by: the places as they are, and the S3 place not more often than is worth its requests."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import struct
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.state import State, from_data
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.alerting import Facts, Limits, troubles
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import Finding
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import stored_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Wal
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert_facts, verify
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.alert_facts import gather, limits

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def causes(world: Any, state: State, *, look_at_s3: bool = False) -> list[str]:
    facts = gather(world.context(), state, look_at_s3=look_at_s3).facts
    return sorted(t.cause for t in troubles(facts, Limits(), world.now))


def test_the_s3_place_is_looked_at_once_an_hour_and_when_something_touched_it(world: Any) -> None:
    set_id = world.add("local", world.now - HOUR)
    world.add("s3", world.now - HOUR)
    world.prove("s3", set_id)
    state = State()
    assert causes(world, state) == []
    world.memory.down = True
    world.now += HOUR / 2
    assert causes(world, state) == [], "nobody asked"
    assert causes(world, state, look_at_s3=True) == ["offsite-place"]
    world.memory.down = False
    assert causes(world, state) == [], "where it failed, it is asked again with the next look"
    world.memory.down = True
    world.now += HOUR
    assert causes(world, state) == ["offsite-place"], "an hour is over"


def test_while_the_s3_place_is_left_alone_it_is_not_asked_for_anything(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = world.add("local", world.now - HOUR)
    world.add("s3", world.now - HOUR)
    world.prove("s3", set_id)
    state = State()
    causes(world, state)
    asked = []
    monkeypatch.setattr(world.memory, "_answer", lambda: asked.append(1))
    gathered = gather(world.context(), state, look_at_s3=False)
    assert not asked
    assert "local: %s, begun 1 h 0 min ago, is proven to restore." % set_id in gathered.safe, "by what was proven there"


def test_what_was_seen_there_ages_with_the_clock(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_facts, "_LOOK_AT_S3", timedelta(days=99))
    set_id = world.add("s3", world.now)
    world.prove("s3", set_id)
    world.add("local", world.now)
    state = State()
    assert causes(world, state) == []
    state = from_data(state.as_data())
    world.now += 29 * HOUR
    world.add("local", world.now - HOUR)
    assert causes(world, state) == ["offsite-age"]
    safe = gather(world.context(), state, look_at_s3=False).safe
    assert safe[1] == "s3: %s, begun 1 d 5 h ago, is proven to restore." % set_id
    assert "is whole; nothing there is proven" in safe[0] or "is proven" in safe[0]


def test_a_set_that_failed_where_it_lies_is_seen(world: Any) -> None:
    world.add("local", world.now - HOUR)
    bad = world.add("s3", world.now - HOUR)
    world.prove("s3", bad, outcome="failed", level="checksum")
    assert "failed-set/s3" in causes(world, State())


def test_a_place_that_is_gone_is_unknown_and_not_safe(world: Any) -> None:
    world.memory.down = True
    gathered = gather(world.context(), State(), look_at_s3=True)
    assert gathered.safe == ("local: nothing.", "s3: unknown, as it cannot be read.")


def test_without_an_s3_place_nothing_of_one_is_remembered(make_world: Any) -> None:
    world = make_world(s3=None)
    world.add("local", world.now - HOUR)
    state = State(s3={"reachable": True}, s3_asked=world.now)
    assert "offsite-place" not in causes(world, state)
    assert state.s3 is None


def test_the_disk_is_remembered_by_its_fullest_moment_of_each_day(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"now": 100}
    monkeypatch.setattr(alert_facts, "free_bytes", lambda _path: free["now"])
    state = State()
    for now in (100, 70, 90):
        free["now"] = now
        gather(world.context(), state, look_at_s3=False)
    assert state.days == {world.now.date(): 70}
    for _unused in range(30):
        world.now += DAY
        gather(world.context(), state, look_at_s3=False)
    assert len(state.days) == 21

    def gone(_path: Any) -> int:
        raise OSError(2, "gone")

    monkeypatch.setattr(alert_facts, "free_bytes", gone)
    assert gather(world.context(), state, look_at_s3=False).facts.disk is None


def test_limits_come_from_the_configuration(make_world: Any) -> None:
    found = limits(
        make_world(
            alerts={"grace": "2h", "size_change": 10, "disk_days": "0s", "restore_test": "90d"},
            schedule={"random_delay": "30min", "wait": "3h", "timezone": "Europe/Berlin"},
        ).context(),
        Facts(),
    )
    assert found.grace == timedelta(hours=2, minutes=30)
    assert (found.size_change, found.disk_days, found.restore_test) == (10, timedelta(0), 90 * DAY)
    assert found.wait == 3 * HOUR
    assert str(found.zone) == "Europe/Berlin"


def test_a_restore_is_demanded_of_who_has_begun_with_it(make_world: Any) -> None:
    world = make_world(s3=None)
    state = State()

    def told(days: int) -> bool:
        world.now += days * DAY
        facts = gather(world.context(), state, look_at_s3=False).facts
        return "restore-test" in {t.cause for t in troubles(facts, limits(world.context(), facts), world.now)}

    assert not told(0)
    assert not told(400), "nobody has taken it up, and nothing is proven"
    world.prove("local", world.add("local", world.now))
    assert told(0), "for more than a year sets could be restored, and nobody has tried"
    perform(world.context(), "restore", lambda _context: {})
    assert not told(91)
    assert told(2), "a quarter later it is due again"
    assert not limits(make_world(alerts={"restore_test": ""}).context(), Facts(proven=True)).restore_test


def test_a_host_that_tells_no_uptime_is_judged_all_the_same(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(alert_facts, "_UPTIME", tmp_path / "none")
    assert gather(world.context(), State(), look_at_s3=False).facts.boot is None
    (tmp_path / "uptime").write_text("3600.5 1.0\n")
    monkeypatch.setattr(alert_facts, "_UPTIME", tmp_path / "uptime")
    assert gather(world.context(), State(), look_at_s3=False).facts.boot == world.now - timedelta(seconds=3600.5)


def test_where_the_wal_is_archived_its_health_is_asked_for(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [Finding("wal archive", "critical", "The server cannot archive.", since=world.now)]
    monkeypatch.setattr(alert_facts, "wal_findings", lambda _context, _away=None: told)
    world.add("local", world.now - HOUR)
    world.add("s3", world.now - HOUR)
    assert "wal-archive" not in causes(world, State()), "nothing is archived"
    context = world.context()
    context.config = dataclasses.replace(context.config, wal=Wal(enabled=True))
    facts = gather(context, State(), look_at_s3=False).facts
    assert "wal-archive" in [t.cause for t in troubles(facts, Limits(), world.now)]


MIB16 = 16 * 1024 * 1024


def put_wal(world: Any, *numbers: int, content: bytes = b"") -> None:
    """Have S3 hold segments of the cluster whose base backups the world makes."""
    for number in numbers:
        content = content or b"%d" % number
        name = stored_name("0000000100000000%08X" % number, hashlib.sha256(content).hexdigest(), ".gz")
        world.memory.write("wal/7300000000000000001/0000000100000000/%s" % name, gzip.compress(content))


def test_wal_that_s3_lacks_is_told_until_a_base_backup_makes_up_for_it(make_world: Any) -> None:
    world = make_world(wal={"enabled": True}, postgres={"login_unix_socket": "/nowhere"})
    state = State()
    world.add("s3", world.now - 2 * HOUR, kind="base")
    put_wal(world, 2, 3, 6)
    found = {f.check: f for f in gather(world.context(), state, look_at_s3=True).facts.judged}
    assert "000000010000000000000004 to 000000010000000000000005" in found["wal gap"].text
    assert "WAL is missing in s3" in found["wal gap"].text
    assert "wal window" not in found or found["wal window"].severity == "ok"
    # Remembered, also over a restart, and while the place does not answer.
    state = from_data(json.loads(json.dumps(state.as_data())))
    assert "wal-gap" in causes(world, state)
    world.memory.down = True
    assert "wal-gap" in causes(world, state, look_at_s3=True)
    world.memory.down = False
    world.add("s3", world.now, kind="base", wal_start="0/6000028", wal_end="0/6000120")
    assert "wal-gap" not in causes(world, state, look_at_s3=True)
    damaged = state.as_data()
    del damaged["s3"]["wal"]["gaps"]
    with pytest.raises(KeyError):
        from_data(damaged)


def test_wal_in_s3_that_a_verification_found_damaged_is_told_and_its_run_is_not_told_beside_it(make_world: Any) -> None:
    world = make_world(wal={"enabled": True}, postgres={"login_unix_socket": "/nowhere"}, verify={"level": "checksum"})
    state = State()
    world.add("s3", world.now - 2 * HOUR, kind="base")
    put_wal(world, 2, 3)
    assert "wal-damaged" not in causes(world, state, look_at_s3=True)
    request = verify.Request(place="s3", sets=("all",))
    with pytest.raises(DamagedError):  # they begin as no segment does
        perform(world.context(), "verify", lambda context: verify.verify(context, request))
    # It is told from the next look at the place on, and while nobody looks.
    found = causes(world, state, look_at_s3=True)
    assert "wal-damaged" in found
    assert "failed-run/verify" not in found
    state = from_data(json.loads(json.dumps(state.as_data())))
    assert "wal-damaged" in causes(world, state)
    world.add("s3", world.now, kind="base", wal_start="0/4000028", wal_end="0/4000120")
    content = struct.pack("=HHIQI4xQII", 0xD110, 2, 1, 4 * MIB16, 0, 7300000000000000001, MIB16, 8192)
    put_wal(world, 4, content=content.ljust(MIB16, b"\0"))
    assert "wal-damaged" not in causes(world, state, look_at_s3=True)


def test_two_servers_that_archive_to_s3_are_told(make_world: Any) -> None:
    world = make_world(wal={"enabled": True}, postgres={"login_unix_socket": "/nowhere"})
    world.add("s3", world.now - 2 * HOUR, kind="base")
    put_wal(world, 2, 3)
    assert "wal-contradiction" not in causes(world, State())
    other = stored_name("000000010000000000000003", hashlib.sha256(b"other").hexdigest(), ".gz")
    world.memory.write("wal/7300000000000000001/0000000100000000/%s" % other, gzip.compress(b"other"))
    assert "wal-contradiction" in causes(world, State())


def test_a_base_backup_says_nothing_of_databases_that_are_left_out(world: Any) -> None:
    def ran(**result: Any) -> None:
        world.now += HOUR
        perform(world.context(), "backup", lambda _context: result)

    left_out = [{"what": "database old", "why": "backup.databases does not name it"}]
    state = State()
    for facts in (
        {"kind": "logical", "uncovered": left_out},
        {"kind": "base", "uncovered": []},
        {"uncovered": left_out},
    ):
        ran(**facts)
        assert "uncovered" not in causes(world, state)
    gone = [
        {"what": "database new", "why": "it was dropped while it was dumped"},
        {"what": "rows of unlogged tables of database old", "why": "unlogged tables cannot be read on a standby"},
    ]
    ran(kind="logical", uncovered=left_out, left_out=gone)
    facts = gather(world.context(), state, look_at_s3=False).facts
    assert facts.uncovered == ["database old", "database new (it was dropped while it was dumped)"]
    assert "uncovered" in causes(world, state)
    ran(kind="logical", uncovered=left_out, left_out=[])
    assert "uncovered" not in causes(world, state)
    ran(kind="base", bytes=10**12, set="20261122T020000Z-base")
    runs = gather(world.context(), state, look_at_s3=False).facts.runs
    assert [run.size for run in runs["backup"]] == [None, None, None, None]
    assert runs["base backup"][0].size == 10**12
