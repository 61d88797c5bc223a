# SPDX-License-Identifier: GPL-3.0-or-later
"""Status: one screen that says what is wrong, since when, what is still safe and what to do next."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs as runs_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts import state as alert_state
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.state import Health
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    RefusedError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import Finding
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.incidents import Incident
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.sizes import parse_size
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Schedule
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import durable
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert_facts
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import status as status_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request, prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import render, status

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def safe_world(world: Any) -> str:
    set_id = world.add("local", world.NOW - 6 * HOUR)
    world.add("s3", world.NOW - 6 * HOUR)
    world.prove("s3", set_id, when=world.NOW - HOUR)
    return str(set_id)


def ran(world: Any, verb: str, error: Any = None, **facts: Any) -> None:
    def work(context: Any) -> dict[str, Any]:
        if error:
            error.details.update(facts)
            raise error
        return facts

    try:
        perform(world.context(), verb, work)
    except PgopsError as raised:
        assert raised is error


def finding(result: dict[str, Any], check: str) -> dict[str, Any]:
    return next(f for f in result["findings"] if f["check"] == check)


def test_when_all_is_well_there_is_nothing_to_do(world: Any) -> None:
    set_id = safe_world(world)
    ran(world, "backup")
    result = status(world.context())
    assert (result["state"], result["next"], result["changed"]) == ("ok", [], False)
    assert result["safe"] == ["local: %s is proven to restore." % set_id, "s3: %s is proven to restore." % set_id]
    assert (result["instance"], result["host"]) == ("db1", "host1")
    json.dumps(result)


def test_the_worst_comes_first_and_is_the_state(world: Any) -> None:
    safe_world(world)
    world.now += 9 * DAY
    result = status(world.context())
    assert result["state"] == "critical"
    severities = [f["severity"] for f in result["findings"]]
    assert severities == sorted(severities, key=("critical", "warning", "ok").index)
    assert result["next"] == ["Run: pgops backup.", "Run: pgops sync.", "Run: pgops verify --level restore."]


def test_the_newest_run_and_the_newest_good_one_are_told(world: Any) -> None:
    safe_world(world)
    ran(world, "backup")
    world.now += HOUR
    ran(world, "backup", PgopsError("The disk is full."))
    world.now += HOUR
    ran(world, "backup", BusyError("Another run is in the way."))
    runs = status(world.context())["runs"]
    assert runs["backup"]["last"]["outcome"] == "busy"
    assert runs["backup"]["last_ok"]["ended"] == "2026-11-22T08:00:00+00:00"
    assert runs["sync"] == {"last": None, "last_ok": None}


def test_a_failed_run_is_heard_of_before_its_backup_is_late(world: Any) -> None:
    safe_world(world)
    ran(world, "backup", PgopsError("The disk is full."))
    result = status(world.context())
    found = finding(result, "run of backup")
    assert (result["state"], found["severity"]) == ("critical", "critical"), "as the alert says"
    assert found["text"] == "The last backup failed: The disk is full."
    assert found["since"] == "2026-11-22T08:00:00+00:00"
    assert result["next"] == ["Read why the backup failed, then run: pgops backup."]


def test_a_base_backup_does_not_take_the_place_of_a_dump(world: Any) -> None:
    safe_world(world)
    ran(world, "backup", PgopsError("The disk is full."), kind="logical")
    world.now += 2 * DAY
    ran(world, "backup", kind="base")
    for place in ("local", "s3"):
        world.prove(place, world.add(place, world.now, kind="base"), when=world.now)
    result = status(world.context())
    assert finding(result, "run of backup")["severity"] == "critical"
    assert finding(result, "backup")["severity"] == finding(result, "off-site copy")["severity"] == "critical"
    assert result["runs"]["base backup"]["last"]["outcome"] == "ok"
    world.now += HOUR
    ran(world, "backup", PgopsError("No slot is free."), kind="base")
    world.now += HOUR
    ran(world, "backup", kind="logical")
    result = status(world.context())
    assert not [f for f in result["findings"] if f["check"] == "run of backup"]
    assert finding(result, "run of base backup")["text"] == "The last base backup failed: No slot is free."


def test_where_there_are_base_backups_alone_they_count(world: Any) -> None:
    for place in ("local", "s3"):
        world.prove(place, world.add(place, world.now - HOUR, kind="base"), when=world.now)
    result = status(world.context())
    assert {finding(result, check)["severity"] for check in ("backup", "off-site copy", "verification")} == {"ok"}


def test_a_restore_that_was_refused_is_no_lasting_trouble(world: Any) -> None:
    safe_world(world)
    ran(world, "restore", RefusedError("It exists already."))
    assert status(world.context())["state"] == "ok"


def test_the_next_dump_is_what_there_must_be_room_for(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_world(world)
    world.add("local", world.now, kind="base", payload=b"x" * 200_000)
    monkeypatch.setattr(status_module, "free_bytes", lambda _path: parse_size("1GiB") + 100_000)
    world.config = dataclasses.replace(world.config, backup=dataclasses.replace(world.config.backup, min_free="1GiB"))
    assert finding(status(world.context()), "disk")["severity"] == "ok"


def test_a_backup_that_is_late_because_it_failed_asks_for_one_step_only(world: Any) -> None:
    safe_world(world)
    world.now += 2 * DAY
    ran(world, "backup", PgopsError("The disk is full."))
    steps = status(world.context())["next"]
    assert [step for step in steps if "backup" in step] == ["Read why the backup failed, then run: pgops backup."]


def test_a_failed_run_that_was_made_good_is_forgotten(world: Any) -> None:
    safe_world(world)
    ran(world, "backup", PgopsError("The disk is full."))
    world.now += HOUR
    ran(world, "backup")
    assert status(world.context())["state"] == "ok"


@pytest.mark.parametrize(("free", "severity"), [(0, "critical"), (4, "warning"), (10**12, "ok")])
def test_space_is_judged_by_the_floor_and_the_newest_set(
    world: Any, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
) -> None:
    safe_world(world)
    monkeypatch.setattr(status_module, "free_bytes", lambda path: free)
    result = status(world.context())
    assert finding(result, "disk")["severity"] == severity
    assert result["disk"]["free_bytes"] == free
    if severity != "ok":
        assert result["findings"][0]["check"] == "disk"
    assert ("Make room" in " ".join(result["next"])) == (severity != "ok")


def test_a_damaged_set_is_heard_of_though_newer_ones_are_fine(world: Any) -> None:
    old = world.add("local", world.NOW - 3 * DAY)
    safe_world(world)
    (world.context().local.home / "sets" / old / "databases" / "orders.dump").unlink()
    result = status(world.context())
    assert result["state"] == "warning"
    assert old in finding(result, "damaged set")["text"]


def test_a_set_that_failed_its_verification_is_heard_of(world: Any) -> None:
    old = world.add("local", world.NOW - 3 * DAY)
    safe_world(world)
    world.prove("local", old, outcome="failed", level="checksum")
    result = status(world.context())
    assert finding(result, "failed set")["text"].startswith("The set %s in" % old)
    assert any("Verify another set" in step for step in result["next"])


def test_a_place_out_of_reach_is_not_called_safe(world: Any) -> None:
    set_id = safe_world(world)
    prune(world.context(), Request())  # each night's prune remembers what S3 has proven
    world.memory.down = True
    result = status(world.context())
    assert result["safe"][1] == "s3: unknown, as it cannot be read."
    assert set_id in result["safe"][0]
    assert result["next"] == ["Find out why the S3 place cannot be read: pgops probe."]


def test_without_an_s3_place_the_next_step_is_to_have_one(make_world: Any) -> None:
    world = make_world(s3=None)
    world.add("local", world.NOW - HOUR)
    result = status(world.context())
    assert result["next"][-1] == "Add an S3 place to the configuration (section s3)."
    assert "pgops sync" not in " ".join(result["next"])


# --- the screen -------------------------------------------------------------------------------------------------------


def test_the_screen_says_what_since_when_what_is_safe_and_what_to_do(world: Any) -> None:
    set_id = safe_world(world)
    ran(world, "backup", PgopsError("The disk\nis full."))
    world.now += 2 * DAY
    text = render(status(world.context()), colour=False)
    assert text.splitlines()[0] == "db1 on host1: CRITICAL"
    flat = " ".join(text.split())
    assert "critical The newest backup (%s) began 2 d 6 h ago; it must not be older than" % set_id in flat
    assert "(since 2026-11-23 04:00 UTC)" in flat
    assert "The last backup failed: The disk is full." in text
    assert "\nStill safe  local: %s is proven to restore.\n" % set_id in text
    assert "\nNext        Read why the backup failed" in text
    assert "\nRuns        backup      failed 2 d 0 h ago, took 0.0 s; last ok never\n" in text
    assert "\n            never ran: sync, verify, prune\n" in text
    assert "\n  ok        verification, disk, restore test\n" in text
    assert "base backup" not in text, "nobody waits for one, and none was made"
    assert "1 set, " in text


def test_the_screen_fits_one_screen(world: Any) -> None:
    for n in range(40):
        world.add("local", world.NOW - n * DAY)
    text = render(status(world.context()), colour=False)
    assert len(text.splitlines()) <= 24
    # A long path is longer than the screen rather than cut.
    assert max(len(line) for line in text.splitlines() if "/backups/" not in line) <= 80
    assert "33 due for prune" in text


def test_long_lists_say_how_much_more_there_is(world: Any) -> None:
    safe_world(world)
    for n in range(1, 9):
        broken = world.add("local", world.NOW - n * DAY)
        (world.context().local.home / "sets" / broken / "manifest.json").write_bytes(b"{")
    for verb in ("sync", "prune", "verify"):
        ran(world, verb, PgopsError("Oh no."))
    result = status(world.context())
    text = render(result, colour=False)
    bad = [f for f in result["findings"] if f["severity"] != "ok"]
    assert len(bad) == 11
    assert re.findall(r"^  (?:warning|critical) ", text, re.MULTILINE) == [
        *["  critical "] * 2,
        *["  warning "] * 3,
    ]
    assert "\n            and 6 more: pgops status --json\n" in text
    assert "Next        Read why the copy failed, then run: pgops sync.\n" in text
    assert re.search(r"open: failed-run/\S+ since .* \(\w+\), .*, and\s+1\s+more: pgops status --json", text, re.DOTALL)


def busy_world(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[dict[str, Any]]]:
    """A host as many are: a store, WAL, base backups, two channels and a schedule; and what wal_status() says of it."""
    alerts = {"slack": {"webhook_url": "https://hooks.example.com/x"}, "email": {"to": ["oncall@example.com"]}}
    world = make_world(alerts=alerts, wal={"enabled": True})
    monkeypatch.setattr(status_module, "started_by", lambda _places, _instance: "systemd")
    for kind, age in (("base", 3 * DAY), ("logical", DAY + 6 * HOUR), ("logical", 6 * HOUR)):
        for place in ("local", "s3"):
            made = world.add(place, world.NOW - age, kind=kind)
            world.prove(place, made, when=world.NOW - HOUR)
    stretch = {"start": "2026-11-19T08:00:00+00:00", "end": "2026-11-22T07:59:00+00:00"}
    windows = [{"system_identifier": "7300000000000000001", "timeline": 1, "stretches": [stretch], "gaps": []}]
    checks = ("wal archive", "wal shipping", "wal room", "wal window")
    monkeypatch.setattr(
        status_module,
        "wal_status",
        lambda _context, _surveyed: {
            "server": None,
            "places": [{"place": place, "windows": windows, "rpo_seconds": 60.0} for place in ("local", "s3")],
            "findings": [Finding(check, "ok", "It is well.").as_data() for check in checks],
        },
    )
    seen: Any = status_module.info

    def with_windows(*given: Any) -> Any:
        known = seen(*given)
        return {**known, "places": [{**place, "windows": windows} for place in known["places"]]}

    monkeypatch.setattr(status_module, "info", with_windows)
    return world, windows


def test_a_host_with_wal_two_channels_and_trouble_still_fits_24_lines_of_80(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, windows = busy_world(make_world, monkeypatch)
    health = {name: Health(last_ok=world.now - HOUR) for name in ("slack", "email")}
    alert_state.save(world.context().state, alert_state.State(health=health, known_uncovered=[]))
    monkeypatch.setattr(runs_module, "_watch", lambda _context, _verb: None)
    monkeypatch.setattr(runs_module, "_remember", lambda _context, _result: None)
    for verb, facts in (("backup", {"uncovered": [{"what": "database orders_new", "why": "it is new"}]}), ("sync", {})):
        ran(world, verb, **facts)
    world.now += HOUR / 60
    ran(world, "backup", kind="base")
    ran(world, "verify")
    ran(world, "prune")
    result = status(world.context())
    for place, root in zip(
        result["places"], ("/var/backups/pgops/db1-main", "s3://example-backups/db1-main"), strict=True
    ):
        place["root"] = root  # a test has longer paths than a host
    text = render(result, colour=False)
    assert len(text.splitlines()) <= 24, text
    assert max(map(len, text.splitlines())) <= 80, text
    assert "warning   No backup holds database orders_new, which is new." in text
    assert "open: uncovered since 0.0 s ago (warning)" in text
    assert "Recoverable local  2026-11-19 08:00 to 2026-11-22 07:59 UTC; RPO now 1 min 0 s\n" in text
    assert "base backup ok 0.0 s ago, took 0.0 s; next 2026-" in text
    windows[:] = [
        {**windows[0], "timeline": number, "stretches": windows[0]["stretches"] * number, "gaps": []}
        for number in (1, 4)
    ]
    text = render(status(world.context()), colour=False)
    assert text.count("timeline 4") == 6
    assert "local  and 2 stretches before: pgops wal status" in text


# --- what alerts would tell -------------------------------------------------------------------------------------------


def test_a_database_that_no_backup_holds_is_seen_without_any_channel(world: Any) -> None:
    safe_world(world)
    assert status(world.context())["remembered"] is None
    ran(world, "backup", uncovered=[{"what": "database old", "why": "the role may not connect"}])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", status(world.context())["remembered"])
    assert status(world.context())["incidents"] == [], "it has always been so"
    world.now += HOUR
    both = [{"what": "database %s" % name, "why": "the role may not connect"} for name in ("old", "new")]
    ran(world, "backup", uncovered=both)
    result = status(world.context())
    found = finding(result, "uncovered database")
    assert (found["severity"], found["text"]) == ("warning", "No backup holds database new, which is new.")
    (incident,) = result["incidents"]
    assert {key: incident[key] for key in ("cause", "level", "told", "escalated")} == {
        "cause": "uncovered",
        "level": "warning",
        "told": None,
        "escalated": False,
    }
    assert result["state"] == "warning"
    assert result["next"] == [incident["next"] + "."]
    ran(world, "backup", uncovered=both[:1])
    assert status(world.context())["incidents"] == []


def test_a_run_whose_memory_cannot_be_kept_is_as_good_and_says_so(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = world.context().state / "locks" / "alerts.lock"
    in_the_way.mkdir(parents=True)
    done = perform(world.context(), "prune", lambda _context: {"changed": True})
    assert done["changed"]
    assert re.search(r"could not be remembered: .*alerts\.lock", "\n".join(done["warnings"]))
    in_the_way.rmdir()

    def ended(*_unused: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(alert_facts, "_signed", ended)
    done = perform(world.context(), "prune", lambda _context: {"changed": True})
    assert "somebody ended that" in "\n".join(done["warnings"])


def test_a_run_that_was_missed_is_seen_without_any_channel(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_facts, "started_by", lambda _places, _instance: "cron")
    monkeypatch.setattr(alert_facts, "_UPTIME", Path("/no/such/file"))
    safe_world(world)
    for verb in ("backup", "sync", "verify", "prune"):
        ran(world, verb)
    assert status(world.context())["incidents"] == []
    world.now += DAY
    missed = [f["check"] for f in status(world.context())["findings"] if f["check"].startswith("missed run of ")]
    assert "missed run of backup" in missed
    assert [f["severity"] for f in status(world.context())["findings"] if f["check"] == "missed run of backup"] == [
        "critical"
    ]
    (told,) = [i for i in status(world.context())["incidents"] if i["cause"] == "missed-run/backup"]
    assert "The newest backup" in told["text"], "what follows from it is told with it, as alerts do"
    assert "The newest backup" not in finding(status(world.context()), "missed run of backup")["text"]


def test_a_killed_run_and_one_that_takes_too_long_are_seen(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_world(world)
    ran(world, "verify")
    monkeypatch.setattr(
        alert_facts,
        "_signed",
        lambda _context, _boot: ({"sync": world.now - 40 * DAY}, {"verify": world.now + HOUR / 60}),
    )
    result = status(world.context())
    assert "was cut short" in finding(result, "run of verify")["text"]
    assert "must not take longer than" in finding(result, "late run of sync")["text"]
    assert {i["cause"] for i in result["incidents"]} == {"failed-run/verify", "late-run/sync"}


def test_the_forecast_of_the_disk_and_that_of_the_records_are_seen(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_world(world)
    free = {"now": 100 * 1024**3}
    monkeypatch.setattr(alert_facts, "free_bytes", lambda _path: free["now"])
    for _day in range(14):
        ran(world, "prune")
        world.now += DAY
        free["now"] -= 6 * 1024**3
    result = status(world.context())
    assert "at the pace of the last two weeks" in finding(result, "disk forecast")["text"]
    assert finding(result, "disk")["severity"] == "ok"
    monkeypatch.setattr(durable, "free_bytes", lambda _path: 100)
    assert finding(status(world.context()), "state disk")["severity"] == "critical"


def test_what_a_finding_tells_already_is_told_once(world: Any) -> None:
    safe_world(world)
    world.now += 9 * DAY
    ran(world, "sync", PgopsError("No route."))
    result = status(world.context())
    checks = [f["check"] for f in result["findings"]]
    assert len(checks) == len(set(checks))
    assert {i["cause"] for i in result["incidents"]} == {"backup-age", "failed-run/sync", "verification-age"}


def test_who_was_told_is_known_and_stale_memories_open_nothing(make_world: Any) -> None:
    world = make_world(alerts={"slack": {"webhook_url": "https://x"}})
    safe_world(world)
    world.now += 2 * DAY
    since = world.now - HOUR
    told = Incident("backup-age", "critical", "x", "y", since, since, since, since, 2, "critical", True)
    state = alert_state.State(incidents={"backup-age": told, "size": dataclasses.replace(told, cause="size")})
    alert_state.save(world.context().state, state)
    found = {i["cause"]: (i["told"], i["escalated"]) for i in status(world.context())["incidents"]}
    assert found == {"backup-age": ("2026-11-24T07:00:00+00:00", True), "offsite-age": (None, False)}


def test_fewer_ways_to_people_than_wanted_are_a_notice_and_no_alarm(make_world: Any) -> None:
    def said(**alerts: Any) -> list[str]:
        world = make_world(alerts=alerts)
        quiet = make_world(alerts={**alerts, "ways": 0})
        result = status(world.context())
        assert result["state"] == status(quiet.context())["state"]
        shown = " ".join(render(result, colour=False).split())
        assert ("people of " in shown) == bool(result["notices"])
        assert not any(f["check"] == "alert ways" for f in result["findings"])
        return [n["text"] for n in result["notices"]]

    slack, mail = {"webhook_url": "https://x"}, {"to": ["a@example.com"]}
    assert said() == ["No channel tells people of trouble; there should be 2."]
    turn_on = (
        " Turn on another channel (section alerts), or let one hear of more (its level, {verb} in a watcher's address)."
    )
    assert said(slack=slack) == ["Only slack tells people of trouble; there should be 2." + turn_on]
    assert said(slack=slack, email=mail) == []
    assert said(ways=0) == said(slack=slack, ways=1) == []
    three = "Only slack and email tell people of trouble; there should be 3."
    assert said(slack=slack, email=mail, ways=3) == [three + turn_on]
    loud = {"routing_key": "x" * 32}
    assert said(slack=slack, pagerduty=loud) == [
        "Only slack tells people of a sync that fails or never runs, a verify that fails or never runs and warnings; "
        "there should be 2." + turn_on
    ], "who hears of what is critical only is no way for a warning"
    assert said(slack=slack, apprise={"urls": "slack://a/b/c"}) == [
        "Only slack tells people of trouble; there should be 2." + turn_on
    ], "one service"
    assert said(slack=slack, apprise={"urls": "slack://a/b/c tgram://x/y"}) == []
    assert said(slack=slack, apprise={"urls_file": "/nowhere"}) == [], "where it goes cannot be read"
    other = "what else is critical and warnings; there should be 2." + turn_on
    assert said(slack=slack, heartbeat={"url": "https://h/{instance}-{verb}"}) == [
        "Only slack tells people of " + other
    ]
    assert said(slack=slack, heartbeat={"url": "https://h/x"}) == [
        "Only slack tells people of a sync that fails or never runs, a verify that fails or never runs, " + other
    ], "one address has one check, which hears of backup alone"
    assert said(slack=slack, heartbeat={"url": "https://h/x"}, watched=["backup", "sync"]) == [
        "Only slack tells people of trouble; there should be 2." + turn_on
    ], "a success of sync would hide that no backup was made"
    assert said(slack=slack, sentry={"dsn": "https://k@h/1", "monitor": "{verb}"}) == [], "Sentry hears of all, once"
    assert said(heartbeat={"url_file": "/nowhere"}) != [], "what cannot be read is no error of status"


def test_how_long_the_newest_recovery_took_is_known(world: Any) -> None:
    safe_world(world)
    assert status(world.context())["rto"] == {}
    ran(world, "restore", seconds=1)
    world.now += HOUR
    ran(world, "restore", RefusedError("No."))
    ran(world, "drill")
    found = status(world.context())["rto"]
    assert {verb: measured["when"] for verb, measured in found.items()} == {
        "restore": "2026-11-22T08:00:00+00:00",
        "drill": "2026-11-22T09:00:00+00:00",
    }


def test_colours_are_only_for_a_terminal(world: Any) -> None:
    result = status(world.context())
    assert "\033[" not in render(result, colour=False)
    coloured = render(result, colour=True)
    assert "\033[31mCRITICAL\033[0m" in coloured
    assert coloured.replace("\033[31m", "").replace("\033[32m", "").replace("\033[33m", "").replace(
        "\033[0m", ""
    ) == render(result, colour=False)


def test_a_world_in_ruins_still_renders(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = world.add("local", world.NOW - HOUR)
    (world.context().local.home / "sets" / broken / "manifest.json").write_bytes(b"{")
    world.memory.down = True
    text = render(status(world.context()), colour=True)
    assert "s3://bucket/db1: The store does not answer." in text
    assert "s3: unknown" in text


def test_the_next_runs_are_told_and_that_nobody_starts_them(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(status_module, "started_by", lambda _places, instance: asked.append(instance) or "")
    safe_world(world)
    context = world.context()
    context.config = dataclasses.replace(
        context.config, schedule=Schedule(backup="15 4 * * *", prune="", timezone="Asia/Kolkata")
    )
    result = status(context)
    assert asked == ["db1"]
    assert result["schedule"]["started_by"] is None
    assert result["schedule"]["runs"]["backup"] == {
        "calendar": "15 4 * * *",
        "next_run": "2026-11-22T22:45:00+00:00",
        "last_due": "2026-11-21T22:45:00+00:00",
    }
    assert "prune" not in result["schedule"]["runs"]
    assert "Nothing on this host starts them" in render(result, colour=False)
    assert "never; next 2026-11-22 22:45 UTC" in render(
        {**result, "schedule": {**result["schedule"], "started_by": "cron"}}, False
    )


def test_when_the_clock_is_moved_the_night_still_has_its_runs(world: Any) -> None:
    safe_world(world)
    context = world.context()
    context.config = dataclasses.replace(context.config, schedule=Schedule(timezone="Europe/Berlin"))
    context.clock = lambda: datetime(2027, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    runs = status(context)["schedule"]["runs"]
    # 02:00 to 03:00 is left out in this night: 03:00 in summer time, and 03:30; from the next night on, an hour earlier than in winter.
    assert {
        verb: (run["last_due"], run["next_run"]) for verb, run in runs.items() if verb in ("backup", "sync", "verify")
    } == {
        "backup": ("2027-03-28T01:00:00+00:00", "2027-03-29T00:00:00+00:00"),
        "sync": ("2027-03-28T01:30:00+00:00", "2027-03-29T00:30:00+00:00"),
        "verify": ("2027-03-28T01:00:00+00:00", "2027-03-29T01:00:00+00:00"),
    }


def test_a_weekly_schedule_expects_a_weekly_backup(world: Any) -> None:
    old = world.add("local", world.NOW - 5 * DAY)
    world.add("s3", world.NOW - 5 * DAY)
    world.prove("s3", old, when=world.NOW - 5 * DAY)
    context = world.context()
    assert finding(status(context), "backup")["severity"] == "critical"
    context.config = dataclasses.replace(context.config, schedule=Schedule(backup="0 2 * * 0", sync="30 2 * * 0"))
    result = status(context)
    assert finding(result, "backup")["severity"] == finding(result, "off-site copy")["severity"] == "ok"
