# SPDX-License-Identifier: GPL-3.0-or-later
"""Status: one screen that says what is wrong, since when, what is still safe and what to do next."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    RefusedError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.sizes import parse_size
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Schedule
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
    assert (result["state"], found["severity"]) == ("warning", "warning")
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
    assert finding(result, "run of backup")["severity"] == "warning"
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
    assert "critical  The newest backup (%s) began 2 d 6 h ago" % set_id in text
    assert "(since 2026-11-23 04:00 UTC)" in text
    assert "The last backup failed: The disk is full." in text
    assert "Still safe\n  local: %s is proven to restore." % set_id in text
    assert "Next\n  Read why the backup failed" in text
    assert "backup   failed 2 d 0 h ago, took 0.0 s; last ok never" in text
    assert "verify   never" in text
    assert "1 set, " in text


def test_the_screen_fits_one_screen(world: Any) -> None:
    for n in range(40):
        world.add("local", world.NOW - n * DAY)
    text = render(status(world.context()), colour=False)
    assert len(text.splitlines()) <= 40
    assert max(len(line) for line in text.splitlines()) < 400
    assert "33 due for prune" in text


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
    assert "nothing on this host starts it" in render(result, colour=False)
    assert "2026-11-22 22:45 UTC" in render({**result, "schedule": {**result["schedule"], "started_by": "cron"}}, False)


def test_a_weekly_schedule_expects_a_weekly_backup(world: Any) -> None:
    old = world.add("local", world.NOW - 5 * DAY)
    world.add("s3", world.NOW - 5 * DAY)
    world.prove("s3", old, when=world.NOW - 5 * DAY)
    context = world.context()
    assert finding(status(context), "backup")["severity"] == "critical"
    context.config = dataclasses.replace(context.config, schedule=Schedule(backup="0 2 * * 0", sync="30 2 * * 0"))
    result = status(context)
    assert finding(result, "backup")["severity"] == finding(result, "off-site copy")["severity"] == "ok"
