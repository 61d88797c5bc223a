# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics: what status knows as numbers, in the text format that node_exporter reads, written at once or not at all."""

from __future__ import annotations

import copy
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import metrics as core
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.durable import publish
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.metrics import metrics
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import status

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def numbers(world: Any) -> dict[str, float]:
    """Return every sample by its name and labels, without the instance's."""
    text = core.render(status(world.context()), "1.2.3")
    return {
        (name.removeprefix("pgops_") + "{%s}" % re.sub(r'^pgops_instance="[^"]*",?', "", labels)).replace(
            "{}", ""
        ): value
        for name, labels, value in core.parse(text)
    }


def ran(world: Any, verb: str = "backup", error: Any = None) -> dict[str, Any]:
    def work(context: Any) -> dict[str, Any]:
        del context
        if error:
            raise error
        return {"changed": True}

    return perform(world.context(), verb, work)


def test_the_numbers_are_those_of_status(world: Any) -> None:
    set_id = world.add("local", world.NOW - 6 * HOUR, payload=b"x" * 100)
    world.add("local", world.NOW - 30 * HOUR)
    world.add("s3", world.NOW - 6 * HOUR, payload=b"x" * 100)
    world.prove("s3", set_id, when=world.NOW - HOUR)
    ran(world)
    found = numbers(world)
    now = world.NOW.timestamp()
    assert found["metrics_written_timestamp_seconds"] == now
    assert found["state"] == 0
    assert found["backup_newest_timestamp_seconds"] == found["offsite_newest_timestamp_seconds"] == now - 6 * 3600
    assert found["verification_newest_timestamp_seconds"] == now - 3600
    assert (found["backup_limit_seconds"], found["offsite_limit_seconds"]) == (26 * 3600, 28 * 3600 + 1950)
    assert found['verification_limit_seconds{severity="critical"}'] == 14 * 86400
    assert found['place_sets{place="local",kind="logical"}'] == 2
    assert found['place_sets_verified{place="s3"}'] == 1
    assert found['place_reachable{place="s3"}'] == 1
    assert found['recovery_point_timestamp_seconds{place="s3"}'] == now - 6 * 3600
    assert found['run_last_success{verb="backup"}'] == 1
    assert found['run_last_success_timestamp_seconds{verb="backup"}'] == now
    assert found["backup_newest_databases"] == 1
    assert found["disk_min_free_bytes"] == 1
    assert found['info{version="1.2.3",host="host1"}'] == 1
    assert found['schedule_next_timestamp_seconds{verb="prune"}'] > now


def test_a_base_backup_makes_no_dump_newer(world: Any) -> None:
    for place in ("local", "s3"):
        world.prove(place, world.add(place, world.NOW - 2 * DAY), when=world.NOW - 2 * DAY)
    before = numbers(world)
    for place in ("local", "s3"):
        world.prove(place, world.add(place, world.NOW - HOUR, kind="base"), when=world.NOW)
    found = numbers(world)
    for name in ("backup_newest", "offsite_newest", "verification_newest", "verification_start"):
        assert found["%s_timestamp_seconds" % name] == before["%s_timestamp_seconds" % name], name
    assert found['place_sets{place="local",kind="base"}'] == 1
    # Without any dump, base backups are what there is.
    for set_id in world.ids("local"):
        if set_id.endswith("-logical"):
            for place in ("local", "s3"):
                world.place(place).delete_set(set_id)
    assert numbers(world)["backup_newest_timestamp_seconds"] == world.NOW.timestamp() - 3600


def test_base_backups_have_an_age_and_where_they_are_waited_for_a_limit(make_world: Any) -> None:
    world = make_world(schedule={"base": "0 0 * * 0"})
    found = numbers(world)
    assert (found["base_limit_seconds"], found["base_offsite_limit_seconds"]) == (
        7.5 * 86400,
        7.5 * 86400 + 4.5 * 3600,  # it is copied at half past two, and that takes its time
    )
    assert "base_newest_timestamp_seconds" not in found
    world.add("local", world.NOW - 2 * HOUR, kind="base")
    world.add("s3", world.NOW - 3 * HOUR, kind="base")
    found, now = numbers(world), world.NOW.timestamp()
    assert found["base_newest_timestamp_seconds"] == now - 2 * 3600
    assert found["base_offsite_newest_timestamp_seconds"] == now - 3 * 3600
    world.memory.down = True
    assert [name for name in numbers(world) if name.startswith("base_offsite")] == [], "nobody knows"
    without = numbers(make_world())
    assert "base_newest_timestamp_seconds" in without
    assert [name for name in without if name.startswith("base_") and "limit" in name] == []


def test_incidents_and_the_measured_recovery_are_told(world: Any) -> None:
    assert numbers(world)['incident_open{cause="backup-age",level="critical"}'] == 1
    for place in ("local", "s3"):
        world.prove(place, world.add(place, world.NOW - HOUR), when=world.NOW)
    ran(world, "restore")
    found = numbers(world)
    assert [name for name in found if name.startswith("incident_open")] == []
    assert found['rto_measured_timestamp_seconds{verb="restore"}'] == world.NOW.timestamp()
    assert 0 <= found['rto_seconds{verb="restore"}'] < 60
    assert found["alert_channels"] == 0


def test_what_has_never_been_has_no_sample(world: Any) -> None:
    found = numbers(world)
    assert [name for name in found if "newest" in name or "run_last" in name or "recovery" in name] == []
    assert found["offsite_configured"] == 1
    assert found["state"] == 2


def test_without_a_place_off_the_server_nothing_is_told_of_one(make_world: Any) -> None:
    world = make_world(s3=None)
    world.add("local", world.NOW - HOUR)
    found = numbers(world)
    assert found["offsite_configured"] == 0
    assert [name for name in found if name.startswith("offsite_") and name != "offsite_configured"] == []
    assert found["verification_start_timestamp_seconds"] == world.NOW.timestamp() - 3600


def test_trouble_is_told(world: Any) -> None:
    broken = world.add("local", world.NOW - 2 * HOUR)
    failed = world.add("local", world.NOW - HOUR)
    world.add("local", world.NOW + DAY)
    world.prove("local", failed, outcome="failed")
    (world.context().local.home / "sets" / broken / "manifest.json").write_bytes(b"{")
    world.memory.down = True
    with pytest.raises(PgopsError):
        ran(world, error=PgopsError("Oh."))
    found = numbers(world)
    assert found['place_sets_damaged{place="local"}'] == found['place_sets_failed{place="local"}'] == 1
    assert found['place_reachable{place="s3"}'] == found['run_last_success{verb="backup"}'] == 0
    assert found["backup_newest_timestamp_seconds"] == world.NOW.timestamp() - 3600
    assert found['finding_severity{check="run of backup"}'] == 2
    assert found['finding_severity{check="off-site place"}'] == 2
    assert [name for name in found if 'place_bytes{place="s3"' in name] == []


LABEL = re.compile(r'[a-z_]+="((?:[^"\\\n]|\\["\\n])*)"')


def test_wal_that_is_archived_moves_the_recovery_point(world: Any) -> None:
    world.add("local", world.now - timedelta(hours=20))
    result = status(world.context())
    stretch, newest = {"end": iso(world.now - timedelta(minutes=3))}, iso(world.now - timedelta(minutes=4))
    result["wal"] = {
        "server": {"lag_bytes": 17, "lag_seconds": 4},
        "spool": {"bytes": 30},
        "shipping": {"pending_bytes": 10},
        "places": [
            {"place": "local", "windows": [{"stretches": [stretch]}], "recovery_point": newest},
            {"place": "s3", "windows": [], "recovery_point": None},
        ],
    }
    told = {(name, labels.partition(",")[2]): value for name, labels, value in core.parse(core.render(result, "1"))}
    assert told["pgops_wal_lag_bytes", ""] == 17
    assert told["pgops_wal_lag_seconds", ""] == 4
    assert told["pgops_wal_spool_bytes", ""] == 30
    assert told["pgops_wal_shipping_pending_bytes", ""] == 10
    reached = (world.now - timedelta(minutes=3)).timestamp()
    assert told["pgops_wal_recoverable_timestamp_seconds", 'place="local"'] == reached
    # How long there is WAL is one thing, how old the newest transaction in it is another.
    assert told["pgops_recovery_point_timestamp_seconds", 'place="local"'] == reached - 60
    assert ("pgops_wal_recoverable_timestamp_seconds", 'place="s3"') not in told
    result["wal"].update(server=None, shipping=None)
    assert "pgops_wal_lag" not in core.render(result, "1")


@given(st.text(min_size=1), st.text())
def test_no_name_breaks_a_line(instance: str, host: str) -> None:
    samples = core._Samples(instance)
    samples.add("info", 1.5, host=host)
    (line,) = samples.found["info"]
    shown = line[len("pgops_info{") : line.rindex("}")]
    first, second = (match.group(1) for match in LABEL.finditer(shown))
    assert 'pgops_instance="%s",host="%s"' % (first, second) == shown
    told = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), second)
    assert told == host.encode("utf-8", "replace").decode("utf-8")
    assert line.endswith("} 1.5")


def test_each_metric_has_its_help_and_type_once_and_all_samples_behind(world: Any) -> None:
    world.prove("local", world.add("local", world.NOW - HOUR))
    ran(world)
    ran(world, "sync")
    text = core.render(status(world.context()), "1.2.3")
    assert text.endswith("\n")
    names: list[str] = []
    for line in text.splitlines():
        match = re.fullmatch(r"# HELP (\S+) \S.*\.", line)
        if match:
            assert match[1] not in names
            names.append(match[1])
        elif line.startswith("# TYPE"):
            assert line == "# TYPE %s gauge" % names[-1]
        else:
            assert line.startswith(names[-1] + "{")
    assert len(names) > 20


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(make_world: Any, tmp_path: Path) -> Any:
    """A world whose numbers are written."""
    (tmp_path / "textfile").mkdir()
    return make_world(metrics={"textfile_directory": str(tmp_path / "textfile")})


def test_each_run_writes_them_for_everybody_to_read_itself_included(told: Any, tmp_path: Path) -> None:
    path = tmp_path / "textfile" / "pgops-db1.prom"
    before = os.umask(0o077)
    try:
        ran(told)
    finally:
        os.umask(before)
    assert 'pgops_run_last_success{pgops_instance="db1",verb="backup"} 1\n' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(PgopsError, match="Oh"):
        ran(told, error=PgopsError("Oh."))
    assert 'pgops_run_last_success{pgops_instance="db1",verb="backup"} 0\n' in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_dry_run_writes_none(told: Any, tmp_path: Path) -> None:
    perform(told.context(), "backup", lambda _context: {}, dry_run=True)
    assert list((tmp_path / "textfile").iterdir()) == []


def test_what_cannot_be_written_is_a_warning_and_the_run_is_done(told: Any, tmp_path: Path) -> None:
    (tmp_path / "textfile").rmdir()
    result = ran(told)
    assert result["changed"] is True
    assert "The metrics could not be written" in result["warnings"][0]
    assert next(history(told.context().state))["outcome"] == "ok"


def test_the_verb_prints_them_and_writes_them_when_asked(told: Any, world: Any, tmp_path: Path) -> None:
    shown = metrics(told.context())
    assert (shown["changed"], shown["path"]) == (False, str(tmp_path / "textfile" / "pgops-db1.prom"))
    assert not Path(shown["path"]).exists()
    assert metrics(told.context(), write=True)["metrics"] == Path(shown["path"]).read_text()
    with pytest.raises(UsageError, match="names no directory"):
        metrics(world.context(), write=True)
    assert metrics(world.context())["path"] is None


def test_a_file_is_changed_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.prom"
    publish(path, b"old\n")
    (tmp_path / ".x.prom.999999999.tmp").write_bytes(b"left")
    (tmp_path / ".other.999999999.tmp").write_bytes(b"not ours")

    def full(*_unused: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space"):
        publish(path, b"new\n")
    assert path.read_bytes() == b"old\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.999999999.tmp", "x.prom"]


def test_rendering_changes_nothing(world: Any) -> None:
    world.add("local", world.NOW - HOUR)
    result = status(world.context())
    before = copy.deepcopy(result)
    core.render(result, "1")
    assert result == before
