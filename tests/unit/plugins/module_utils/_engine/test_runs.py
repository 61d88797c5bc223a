# SPDX-License-Identifier: GPL-3.0-or-later
"""Every run leaves a record, whatever its outcome, and no secret is in it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import run_records
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import first_run, history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform


def records(world: Any, verb: str = "") -> list[dict[str, Any]]:
    return list(history(world.context().state, verb))


def test_a_result_has_what_every_verb_tells(world: Any) -> None:
    def work(context: Any) -> dict[str, Any]:
        world.now += timedelta(seconds=90)
        context.warn("something was left out")
        return {"changed": True, "set": "x"}

    result = perform(world.context(), "backup", work)
    assert {k: result[k] for k in result if k != "seconds"} == {
        "verb": "backup",
        "instance": "db1",
        "changed": True,
        "set": "x",
        "dry_run": False,
        "begun": "2026-11-22T08:00:00+00:00",
        "ended": "2026-11-22T08:01:30+00:00",
        "warnings": ["something was left out"],
    }
    assert result["seconds"] >= 0


def test_a_run_that_went_well_is_recorded_and_logged(world: Any, tmp_path: Path) -> None:
    perform(world.context(), "backup", lambda context: {"changed": True, "set": "x", "databases": ["long"]})
    (record,) = records(world)
    assert (record["outcome"], record["exit_code"], record["reason"], record["set"]) == ("ok", 0, "", "x")
    assert record["host"] == "host1"
    assert "databases" not in record
    line = (tmp_path / "log" / "backup.log").read_text()
    assert line == "2026-11-22T08:00:00+00:00 db1 backup ok in %.1f s\n" % record["seconds"]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (PgopsError("It broke.", hint="Mend it."), "failed", 1),
        (UsageError("It broke.", hint="Mend it."), "misused", 2),
        (BusyError("It broke.", hint="Mend it."), "busy", 3),
        (UnreachableError("It broke.", hint="Mend it."), "unreachable", 4),
        (RefusedError("It broke.", hint="Mend it."), "refused", 5),
    ],
)
def test_a_failure_is_recorded_with_its_reason_and_raised_again(
    world: Any, error: PgopsError, outcome: str, code: int
) -> None:
    def work(context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)) as caught:
        perform(world.context(), "backup", work)
    assert caught.value is error
    (record,) = records(world)
    assert (record["outcome"], record["exit_code"], record["reason"]) == (outcome, code, "It broke. Mend it.")


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", "The run was interrupted."),
        (ZeroDivisionError("of ours"), "failed", "ZeroDivisionError: of ours"),
    ],
)
def test_an_interrupt_or_a_mistake_of_ours_is_recorded_too(
    world: Any, error: BaseException, outcome: str, reason: str
) -> None:
    def work(context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        perform(world.context(), "backup", work)
    (record,) = records(world)
    assert (record["outcome"], record["exit_code"], record["reason"]) == (outcome, 1, reason)


def test_a_dry_run_leaves_no_trace(world: Any, tmp_path: Path) -> None:
    result = perform(world.context(), "prune", lambda context: {"changed": True}, dry_run=True)
    assert result["dry_run"] is True
    assert list(tmp_path.rglob("*")) == []


def test_no_secret_is_in_a_result_a_record_or_a_log(make_world: Any, tmp_path: Path) -> None:
    world = make_world(postgres={"login_password": "hunter2"})

    def work(context: Any) -> dict[str, Any]:
        context.warn("said hunter2")
        return {"note": ["hunter2"]}

    result = perform(world.context(), "backup", work)
    assert "hunter2" not in json.dumps(result)

    def fail(context: Any) -> dict[str, Any]:
        raise PgopsError("cannot use hunter2")

    with pytest.raises(PgopsError):
        perform(world.context(), "backup", fail)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or "hunter2" not in path.read_text()


def test_a_reason_of_many_lines_stays_one_line_in_the_log(world: Any, tmp_path: Path) -> None:
    def work(context: Any) -> dict[str, Any]:
        context.warn("two\nlines")
        raise PgopsError("first\n  - second\nthird")

    with pytest.raises(PgopsError):
        perform(world.context(), "sync", work)
    lines = (tmp_path / "log" / "sync.log").read_text().splitlines()
    assert [line.split(" db1 ")[1] for line in lines] == [
        "sync failed in 0.0 s: first - second third",
        "warning: two lines",
    ]


def test_a_record_that_cannot_be_written_is_told_and_does_not_fail_the_work(world: Any, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    context = world.context()
    result = perform(context, "backup", lambda context: {"changed": True})
    assert result["changed"] is True
    assert "This run could not be recorded" in result["warnings"][0]


def test_the_newest_record_comes_first_and_a_verb_can_be_picked(world: Any) -> None:
    for verb in ("backup", "sync", "backup"):
        perform(world.context(), verb, lambda context: {})
        world.now += timedelta(minutes=1)
    assert [r["verb"] for r in records(world)] == ["backup", "sync", "backup"]
    assert [r["begun"][11:16] for r in records(world, "backup")] == ["08:02", "08:00"]
    assert records(world, "verify") == []


def test_runs_of_the_same_second_keep_their_order(world: Any) -> None:
    for verb in ("verify", "backup", "sync", "backup"):
        perform(world.context(), verb, lambda context: {})
        world.now += timedelta(milliseconds=1)
    assert [r["verb"] for r in records(world)] == ["backup", "sync", "backup", "verify"]


def test_a_broken_record_is_passed_over(world: Any) -> None:
    perform(world.context(), "backup", lambda context: {})
    folder = world.context().state / "runs"
    (folder / "20261123T000000Z-backup-1.json").write_text("{")
    (folder / ".20261123T000000Z-backup-2.json.1.tmp").write_text("")
    assert len(records(world)) == 1


def test_the_first_run_is_the_oldest_that_can_be_read(world: Any) -> None:
    assert first_run(world.context().state) is None
    perform(world.context(), "backup", lambda _context: {})
    folder = world.context().state / "runs"
    for name, content in (
        ("20000101T000000Z-backup-1.json", "{"),
        ("20010101T000000Z-sync-1.json", '{"begun": "soon"}'),
    ):
        (folder / name).write_text(content)
    (folder / ".19990101T000000Z-sync-1.json").write_text('{"begun": "1999-01-01T00:00:00+00:00"}')
    assert first_run(world.context().state) == "2026-11-22T08:00:00+00:00"


def test_old_records_are_forgotten(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "_KEPT", 3)
    for _unused in range(5):
        perform(world.context(), "backup", lambda context: {})
        world.now += timedelta(minutes=1)
    assert [r["begun"][11:16] for r in records(world)] == ["08:04", "08:03", "08:02"]


def test_a_history_that_never_was_is_empty(tmp_path: Path) -> None:
    assert list(history(tmp_path / "none")) == []
