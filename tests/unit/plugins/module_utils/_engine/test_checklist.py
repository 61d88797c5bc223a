# SPDX-License-Identifier: GPL-3.0-or-later
"""The checklist ticks itself: only from evidence, never from hope; and a person's signature lapses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts import state as alert_state
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.state import Health
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import main as cli
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import options_watch
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import checklist as core
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import checklist_proofs as proofs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import checklist_text as text
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Alerts, Slack, Webhook
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import checklist as verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import status as status_module

DAY, HOUR, MIB = timedelta(days=1), timedelta(hours=1), 1024 * 1024
GOOD_BUCKET = {
    "versioning": "Enabled",
    "object_lock": {"enabled": True, "mode": "COMPLIANCE", "days": 30},
    "public_access_block": True,
    "lifecycle": [{"Status": "Enabled", "Transitions": [{"Days": 90, "StorageClass": "DEEP_ARCHIVE"}]}],
    "tags": {},
}


class Bucket:
    """What the store says of its settings."""

    settings: Optional[dict[str, Any]] = GOOD_BUCKET
    error: Optional[Exception] = None

    def look(self, _context: Any) -> Any:
        if self.error:
            raise self.error  # pylint: disable=raising-bad-type  # it looks at the default alone
        return self.settings or {}


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket as it should be, a schedule that runs, and a disk with room."""
    found = Bucket()
    monkeypatch.setattr(verb, "look", found.look)
    monkeypatch.setattr(status_module, "started_by", lambda _places, _instance: "systemd")
    return found


def ran(world: Any, name: str, error: Any = None, **result: Any) -> None:
    def work(_context: Any) -> dict[str, Any]:
        if error:
            raise error
        return result

    try:
        perform(world.context(), name, work)
    except PgopsError as raised:
        assert raised is error


def lines(world: Any, *stages: str, config_path: str = "") -> dict[str, dict[str, Any]]:
    result = verb.checklist(world.context(), stages, config_path=config_path)
    json.dumps(result)
    return {line["id"]: line for stage in result["stages"] for line in stage["lines"]}


def ticked(world: Any, *stages: str) -> set[str]:
    return {name for name, line in lines(world, *stages).items() if line["ticked"]}


def good_week(world: Any) -> None:
    """Nine nights of backups, proven, with every other run as well."""
    for n in range(8, -1, -1):
        world.now = world.NOW - n * DAY
        world.add("local", world.now - HOUR, payload=b"x" * 2 * MIB)
        made = world.add("s3", world.now - HOUR, payload=b"x" * 2 * MIB)
        ran(world, "backup", uncovered=[])
    world.prove("s3", made)
    for name in ("sync", "verify", "prune", "restore"):
        ran(world, name)
    ran(world, "probe", ok=True)


PROVABLE = {line.id for line in core.LINES if line.proof}
# What nothing of a good week tells: whole drills, and the age of credentials that no file holds.
NOT_TOLD = {"week-4.drill", "quarterly.drill", "quarterly.credentials", "before.encryption", "deployment.metrics"}
NOT_TOLD |= {"deployment.alert", "monthly.alert"}  # a person must say that it arrived
NOT_TOLD |= {"deployment.ways"}  # there is no channel


def test_nothing_is_ticked_without_evidence(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "started_by", lambda _places, _instance: "")
    world = make_world(s3=None, backup={"min_free": "100TiB"})
    assert ticked(world) == {"deployment.configuration"}
    for line in lines(world).values():
        assert line["seen"]
        assert line["ticked"] or line["todo"]


def test_a_good_week_ticks_all_that_evidence_can(world: Any) -> None:
    good_week(world)
    assert ticked(world) == PROVABLE - NOT_TOLD
    result = verb.checklist(world.context(), ["day-1"])
    assert (result["done"], result["lines"], result["stages"][0]["title"]) == (4, 4, "Day 1")
    line = lines(world)["day-1.proof"]
    assert "was restored and compared 0.0 s ago (s3)" in line["seen"]
    assert (line["when"], line["by"], line["state"]) == ("2026-11-22T08:00:00+00:00", "evidence", "done")


def test_two_ways_to_people_are_such_that_work(world: Any) -> None:
    def said() -> tuple[bool, str]:
        line = lines(world, "deployment")["deployment.ways"]
        return line["ticked"], line["seen"]

    assert said() == (False, "No way is known to work.")
    alerts = Alerts(slack=Slack(webhook_url="https://x"), webhook=Webhook(url="https://y"))
    world.config = dataclasses.replace(world.config, alerts=alerts)
    assert said() == (False, "No way is known to work. Not known to work: slack, webhook.")
    health = {"slack": Health(last_ok=world.now), "webhook": Health(last_ok=world.now, failing_since=world.now)}
    alert_state.save(world.context().state, alert_state.State(health=health))
    assert said() == (False, "slack took or asked last. Not known to work: webhook.")
    asked = world.context().asked
    asked.touch()
    os.utime(asked, (world.now.timestamp(), world.now.timestamp()))
    assert said() == (True, "slack, monitoring took or asked last. Not known to work: webhook.")
    world.now += 2 * DAY
    assert not said()[0], "nobody asks any more"
    health["webhook"] = Health(last_ok=world.now)
    alert_state.save(world.context().state, alert_state.State(health=health))
    assert said() == (True, "slack, webhook took or asked last.")
    health["webhook"] = Health(last_ok=world.now, refused="a@b: no such user")
    alert_state.save(world.context().state, alert_state.State(health=health))
    assert not said()[0], "not everybody got it"


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("versioning", {"deployment.versions"}),
        ("object_lock", {"deployment.lock"}),
        ("public_access_block", {"deployment.public"}),
        ("lifecycle", {"yearly.archive"}),
    ],
)
@pytest.mark.parametrize("bad", [True, False])
def test_each_setting_of_the_bucket_ticks_its_own_line(
    world: Any, bucket: Bucket, name: str, lost: set[str], bad: bool
) -> None:
    weak = {
        "versioning": "Suspended",
        "object_lock": {"enabled": True, "mode": "", "days": 0},
        "public_access_block": False,
        "lifecycle": [{"Status": "Disabled", "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}]}],
    }
    bucket.settings = {**GOOD_BUCKET, name: weak[name] if bad else None}
    found = lines(world, "deployment", "yearly")
    of_bucket = {"deployment.versions", "deployment.lock", "deployment.public", "yearly.archive"}
    assert {line for line in of_bucket if not found[line]["ticked"]} == lost
    assert found[next(iter(lost))]["state"] == ("open" if bad else "unknown")


def test_settings_that_cannot_be_read_are_unknown_and_can_be_signed(world: Any, bucket: Bucket) -> None:
    bucket.error = UnreachableError("The store says AccessDenied.")
    line = lines(world)["deployment.versions"]
    assert (line["state"], line["ticked"], line["signable"]) == ("unknown", False, True)
    assert "AccessDenied" in line["seen"]
    verb.sign(world.context(), "deployment.versions", "Ada")
    assert lines(world)["deployment.versions"]["by"] == "Ada"
    bucket.error, bucket.settings = None, None
    assert "not there" in lines(world)["deployment.lock"]["seen"]


def test_a_night_without_a_backup_unticks_the_week(world: Any) -> None:
    good_week(world)
    runs = sorted((world.context().state / "runs").glob("*-backup-*.json"))
    runs[4].unlink()
    # The set of that night is evidence, too, as another node of a group may have made it.
    assert lines(world)["weekly.backups"]["ticked"]
    lost = sorted(world.ids("local"))[4]
    for place in ("local", "s3"):
        world.place(place).delete_set(lost)
    line = lines(world)["weekly.backups"]
    assert not line["ticked"]
    assert "There was none for 1 d 23 h, from 2026-11-17 08:00 UTC on." in line["seen"]
    world.now += 2 * DAY
    assert not lines(world)["weekly.copy"]["ticked"]


def test_base_backups_tick_no_line_of_the_dumps(world: Any) -> None:
    good_week(world)
    assert lines(world)["weekly.backups"]["ticked"]
    for _half_a_day in range(28):
        world.now += DAY / 2
        ran(world, "backup", kind="base")
        for place in ("local", "s3"):
            world.prove(place, world.add(place, world.now, kind="base"), when=world.now)
    found = lines(world)
    ticks = {name: found[name]["ticked"] for name in ("weekly.backups", "week-1.nights", "weekly.proof")}
    assert ticks == dict.fromkeys(ticks, False)


def test_few_days_of_records_are_no_week(world: Any) -> None:
    world.now = world.NOW - 3 * DAY
    ran(world, "backup")
    for n in (2, 1, 0):
        world.now = world.NOW - n * DAY
        ran(world, "backup")
    assert "recorded for 3 d 0 h only" in lines(world)["week-1.nights"]["seen"]


@pytest.mark.parametrize(
    ("what", "lost"),
    [
        ("failed run", {"weekly.runs"}),
        ("uncovered", {"day-1.covered"}),
        ("damage", {"week-1.whole", "monthly.whole"}),
        ("store down", {"week-1.whole", "monthly.whole", "day-1.copy", "weekly.copy"}),
        ("old proof", {"weekly.proof"}),
        ("size", {"week-1.sizes"}),
    ],
)
def test_what_goes_wrong_unticks_its_lines_and_no_other(world: Any, what: str, lost: set[str]) -> None:
    good_week(world)
    before = ticked(world)
    if what == "failed run":
        ran(world, "sync", PgopsError("The store is full."))
    elif what == "uncovered":
        ran(world, "backup", uncovered=[{"what": "database scratch", "why": "excluded"}])
    elif what == "damage":
        oldest = min(world.ids("local"))
        world.prove("local", oldest, outcome="failed", level="checksum")
    elif what == "store down":
        world.memory.down = True
    elif what == "size":
        world.add("local", world.now - timedelta(minutes=5))
    else:
        for path in [p for p in world.memory.stored if "evidence" in p]:
            del world.memory.stored[path]
        world.prove("s3", min(world.ids("s3")), when=world.now - 8 * DAY)
    after = ticked(world)
    assert lost <= before - after
    assert before - after - lost <= {"day-1.proof", "weekly.proof"}  # the proof lay in the store


def test_modes_that_are_too_open_are_named(world: Any, tmp_path: Path) -> None:
    world.add("local", world.NOW - HOUR)
    config = tmp_path / "config.yml"
    config.touch(mode=0o600)
    assert lines(world, config_path=str(config))["deployment.files"]["ticked"]
    config.chmod(0o640)
    assert "config.yml has mode 0640" in lines(world, config_path=str(config))["deployment.files"]["seen"]
    config.chmod(0o600)
    world.context().local.home.chmod(0o755)
    assert "has mode 0755" in lines(world, config_path=str(config))["deployment.files"]["seen"]


def test_credentials_are_renewed_when_their_file_is(make_world: Any, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.touch(mode=0o600)
    world = make_world(s3={"bucket": "b", "credentials_file": str(secret), "sse": "AES256"})
    for days, done in ((91, True), (93, False)):
        moment = (world.NOW - days * DAY).timestamp()
        os.utime(secret, (moment, moment))
        assert lines(world)["quarterly.credentials"]["ticked"] == done
    assert lines(world)["before.encryption"]["ticked"]


def test_metrics_that_were_written_and_are_read_tick_the_monitoring(
    make_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Optional[bool]] = [None]
    monkeypatch.setattr(verb, "_exported", lambda _directory: read[0])
    # The moments of files are this machine's, and so those of the runs must be.
    world = make_world(
        metrics={"textfile_directory": str(tmp_path)},
        backup={"encryption": "age", "recipients": ["age1"], "min_free": "1"},
    )
    world.now = datetime.now(UTC)

    def seen() -> tuple[str, str]:
        line = lines(world)["deployment.metrics"]
        return line["state"], line["seen"]

    assert "is not there" in seen()[1]
    ran(world, "backup")
    assert seen()[0] == "unknown"
    read[0] = False
    assert (seen()[0], "no node_exporter on this host reads" in seen()[1]) == ("open", True)
    read[0] = True
    assert (seen()[0], "node_exporter reads that directory" in seen()[1]) == ("done", True)
    file = tmp_path / "pgops-db1.prom"
    os.utime(file, (world.now.timestamp() - 3600, world.now.timestamp() - 3600))
    assert (seen()[0], "not by the last run" in seen()[1]) == ("open", True)
    assert lines(world)["before.encryption"]["seen"] == "backup.encryption is age."


def test_somebody_who_asks_pgops_check_ticks_the_monitoring_for_a_day(world: Any) -> None:
    ran(world, "backup")
    assert "Nobody asked pgops check" in lines(world)["deployment.metrics"]["seen"]
    mark = world.context().asked
    mark.touch()
    for hours, done in ((23, True), (25, False)):
        moment = (world.now - hours * HOUR).timestamp()
        os.utime(mark, (moment, moment))
        assert lines(world)["deployment.metrics"]["ticked"] == done


def test_a_node_exporter_is_known_by_what_it_reads(tmp_path: Path) -> None:
    def process(number: int, *words: str) -> None:
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join([*words, ""]).encode())

    assert verb._exported("/srv/numbers", tmp_path) is None, "nothing can be seen"
    process(1, "/sbin/init")
    process(7, "grep", "node_exporter")
    assert verb._exported("/srv/numbers", tmp_path) is False
    process(8, "/usr/bin/prometheus-node-exporter")
    assert verb._exported("/srv/numbers", tmp_path) is False
    assert verb._exported("/var/lib/prometheus/node-exporter/", tmp_path) is True, "as Debian has it"
    process(9, "node_exporter", "--collector.textfile.directory=/srv/numbers")
    assert verb._exported("/srv/numbers", tmp_path) is True
    process(9, "node_exporter", "--collector.textfile.directory", "/srv/others")
    assert verb._exported("/srv/others", tmp_path) is True
    assert verb._exported("/srv/numbers", tmp_path) is False


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says then that there is no such process, not that there is no such file."""
    for number, words in ((1, b"/sbin/init\0"), (7, b"ends\0"), (9, b"node_exporter\0")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes(words)
    really = {name: getattr(os, name) for name in ("stat", "open")}

    def looking(name: str) -> Any:
        def look(path: Any, *others: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path).endswith("/7/cmdline"):
                raise ProcessLookupError(3, "No such process")
            return really[name](path, *others, **options)

        return look

    for name in really:
        monkeypatch.setattr(os, name, looking(name))
    assert verb._exported("/srv/numbers", tmp_path) is False
    assert verb._exported("/var/lib/prometheus/node-exporter", tmp_path) is True


def test_a_schedule_that_starts_nothing_is_no_schedule(world: Any) -> None:
    ran(world, "backup")
    assert lines(world)["deployment.schedule"]["ticked"], "nothing has been due yet"
    good_week(world)
    assert lines(world)["deployment.schedule"]["ticked"]
    world.now += 20 * HOUR
    assert lines(world)["deployment.schedule"]["ticked"], "it may still wait for another run"
    world.now += 8 * HOUR
    line = lines(world)["deployment.schedule"]
    assert (line["ticked"], line["state"]) == (False, "open")
    assert line["seen"].endswith("when it was due last, there was no run of: backup, sync, verify.")


def test_what_a_test_of_the_alerts_gave_is_shown_to_who_signs(world: Any) -> None:
    assert lines(world)["deployment.alert"]["seen"] == "No test of the alerts is recorded."
    told = [{"channel": "slack", "accepted": True}, {"channel": "email", "accepted": False}]
    ran(world, "alert", action="test", channels=told)
    world.now += HOUR
    line = lines(world)["deployment.alert"]
    assert line["seen"].startswith("The last test, 1 h 0 min ago, was taken by slack, and not by email.")
    assert (line["ticked"], line["signable"]) == (False, True)
    verb.sign(world.context(), "monthly.alert", "Ada")
    assert lines(world)["monthly.alert"]["by"] == "Ada"
    ran(world, "alert", action="test", channels=told[1:])
    assert "taken by nobody, and not by email" in lines(world)["deployment.alert"]["seen"]


def test_a_recovery_to_somewhere_else_is_a_drill(world: Any) -> None:
    ran(world, "recover", mode="in_place")
    assert not lines(world)["week-4.drill"]["ticked"]
    ran(world, "recover", mode="beside")
    assert {"week-4.drill", "quarterly.drill"} <= ticked(world)


def test_secrets_of_channels_are_looked_at(make_world: Any, tmp_path: Path) -> None:
    secret = tmp_path / "slack"
    secret.touch(mode=0o600)
    world = make_world(alerts={"slack": {"webhook_url_file": str(secret)}})
    assert lines(world)["deployment.files"]["ticked"]
    secret.chmod(0o644)
    assert "slack has mode 0644" in lines(world)["deployment.files"]["seen"]


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_signature_ticks_with_name_and_date_and_lapses_where_the_stage_comes_again(world: Any) -> None:
    for name in ("before.people", "monthly.growth"):
        signed = verb.sign(world.context(), name, "  Ada   Lovelace ", "all\nwell")["signature"]
        assert (signed["name"], signed["note"]) == ("Ada Lovelace", "all well")
    found = lines(world)
    assert found["before.people"]["seen"] == "Signed by Ada Lovelace on 2026-11-22: all well"
    assert found["before.people"]["by"] == "Ada Lovelace"
    world.now += 31 * DAY
    assert {"before.people", "monthly.growth"} <= ticked(world)
    world.now += timedelta(seconds=1)
    late = lines(world)["monthly.growth"]
    assert (late["ticked"], late["by"]) == (False, "")
    assert "lapsed after 31 days" in late["seen"]
    assert "before.people" in ticked(world)
    verb.sign(world.context(), "monthly.growth", "Bob")
    assert lines(world)["monthly.growth"]["by"] == "Bob"
    assert [s["name"] for s in verb.signatures(world.context())] == ["Ada Lovelace", "Ada Lovelace", "Bob"]


def test_evidence_counts_more_than_a_signature(world: Any) -> None:
    verb.sign(world.context(), "deployment.versions", "Ada")
    assert lines(world)["deployment.versions"]["by"] == "evidence"


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [("day-1.backup", "Ada", "evidence only"), ("day-1.nothing", "Ada", "no line"), ("before.people", " - ", "name")],
)
def test_what_cannot_be_signed_is_refused(world: Any, line: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        verb.sign(world.context(), line, name)
    assert verb.signatures(world.context()) == []


def test_a_dry_run_signs_nothing_and_a_damaged_file_is_told(world: Any) -> None:
    assert verb.sign(world.context(), "before.people", "Ada", dry_run=True)["changed"]
    assert verb.signatures(world.context()) == []
    verb.sign(world.context(), "before.people", "Ada")
    path = world.context().state / "checklist.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    with pytest.raises(PgopsError, match="cannot be read"):
        lines(world)
    with pytest.raises(PgopsError, match="cannot be read"):
        verb.sign(world.context(), "before.people", "Ada")


# --- the data and the texts -------------------------------------------------------------------------------------------


def test_the_lines_are_named_by_stage_and_each_has_its_proof_or_a_person() -> None:
    names = [line.id for line in core.LINES]
    assert len(set(names)) == len(names)
    assert list(dict.fromkeys(line.stage for line in core.LINES)) == list(core.STAGES)
    assert {line.proof for line in core.LINES} - {""} == set(proofs.PROOFS)
    assert all(re.fullmatch(r"[a-z0-9-]+\.[a-z-]+", name) for name in names)
    assert all(line.todo for line in core.LINES)
    assert len({line.who for line in core.LINES if line.stage == "sign-off"}) == 5


def test_the_stages_of_the_options_are_those_of_the_engine() -> None:
    assert tuple(core.STAGES) == options_watch.STAGES


def test_text_and_markdown_show_each_line(world: Any) -> None:
    good_week(world)
    verb.sign(world.context(), "sign-off.owner", "Ada")
    result = verb.checklist(world.context())
    shown, wiki = text.text(result), text.markdown(result)
    assert "  [x] There is a recent backup (operator)\n      day-1.backup: The newest backup" in shown
    assert "→ pgops checklist sign before.people --name NAME" in shown
    assert "→ Recover elsewhere by the runbook." in shown
    assert wiki.count("\n- [x] ") == result["done"]
    assert wiki.count("\n- [") == result["lines"] == len(core.LINES)
    assert "## Sign-off (1 of 5)" in wiki


# --- lines of one's own -----------------------------------------------------------------------------------------------

INVOICES = {"id": "monthly.invoices", "who": "accounting", "text": "The *invoices* were looked at"}
RESTORED = {"id": "day-1.restored", "who": "audit", "text": "It was restored", "proof": "restored", "signable": True}


def test_own_lines_stand_behind_the_others_and_are_ticked_and_signed_as_they_are(
    make_world: Any, tmp_path: Path
) -> None:
    path = tmp_path / "lines.json"
    path.write_text(json.dumps({"lines": [RESTORED, {**RESTORED, "id": "day-1.todo", "todo": "Ask."}]}))
    world = make_world(checklist={"lines": [INVOICES], "files": [str(path)]})
    result = verb.checklist(world.context())
    assert result["lines"] == len(core.LINES) + 3
    day = next(stage for stage in result["stages"] if stage["stage"] == "day-1")
    assert [line["id"] for line in day["lines"]][-3:] == ["day-1.proof", "day-1.restored", "day-1.todo"]
    assert [line["own"] for line in day["lines"]] == [False] * 4 + [True] * 2
    assert [line["todo"] for line in day["lines"]][-2:] == [core._RESTORE, "Ask."]
    shown, wiki = text.text(result), text.markdown(result)
    assert "  [ ] The *invoices* were looked at (accounting)\n      monthly.invoices: Nobody has signed" in shown
    assert "→ pgops checklist sign monthly.invoices --name NAME" in shown
    assert "- [ ] **The \\*invoices\\* were looked at** (accounting): " in wiki
    ran(world, "restore")
    verb.sign(world.context(), "monthly.invoices", "Ada")
    found = lines(world)
    assert found["day-1.restored"]["by"] == "evidence"
    assert found["monthly.invoices"]["by"] == "Ada"
    world.now += 32 * DAY
    assert "lapsed after 31 days" in lines(world)["monthly.invoices"]["seen"], "as its stage has it"
    with pytest.raises(UsageError, match="evidence only"):
        verb.sign(make_world(checklist={"lines": [{**RESTORED, "signable": False}]}).context(), RESTORED["id"], "Ada")


def test_every_error_of_own_lines_is_told_at_once(
    make_world: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = [
        {**INVOICES, "id": "sometimes.invoices"},
        {**INVOICES, "id": "day-1.backup", "who": " ", "text": "two\nlines"},
        {**INVOICES, "proof": "hope", "todo": "x" * 201},
        {**INVOICES, "signable": True},
    ]
    with pytest.raises(UsageError) as caught:
        make_world(checklist={"lines": bad, "files": ["lines.yml"]})
    said = caught.value.message
    for part in (
        "checklist.files[0]: expected a path",
        "checklist.lines[0].id: expected a stage (before, deployment",
        "checklist.lines[1].id: day-1.backup is in the lines of pgops already",
        "checklist.lines[1].who: missing",
        "checklist.lines[1].text: expected one line",
        "checklist.lines[2].proof: expected one of archived, backup",
        "checklist.lines[2].todo: expected one line of at most 200 characters",
        "checklist.lines[3].id: monthly.invoices is in checklist.lines[2] already",
        "checklist.lines[3].signable: a line without a proof",
    ):
        assert part in said, part
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps({"lines": [INVOICES, {**INVOICES, "what": 1}], "files": ["/x"]}))
    second.write_text(json.dumps({"lines": [INVOICES]}))
    files = [str(first), str(second), str(tmp_path / "gone")]
    world = make_world(checklist={"files": files})
    assert world.config.checklist.files == files, "what is wrong in a file keeps no backup from being made"
    with pytest.raises(UsageError) as caught:
        verb.checklist(world.context())
    for part in (
        "have 5 errors",
        "%s.lines[1].what: unknown key" % first,
        "%s.files: a file of lines names no other" % first,
        "%s.lines[1].id: monthly.invoices is in %s.lines[0]" % (first, first),
        "%s.lines[0].id: monthly.invoices is in %s.lines[0]" % (second, first),
        "no configuration file %s" % (tmp_path / "gone"),
    ):
        assert part in caught.value.message, part
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"instance": "db1", "checklist": {"files": [str(first)]}}))
    assert cli.main(["--config", str(config), "config", "--check"]) == 2
    assert "unknown key" in capfd.readouterr().err
    first.write_text(json.dumps({"lines": [INVOICES]}))
    assert cli.main(["--config", str(config), "config", "--check"]) == 0


@given(st.text())
def test_no_note_becomes_markdown(note: str) -> None:
    shown = text._plain(note)
    assert not re.search(r"[`*_\[\]<>#|!]", re.sub(r"\\.", "", shown))
    assert len(shown.splitlines()) <= 1
    assert re.sub(r"\\(.)", r"\1", shown) == " ".join(note.split())


def test_the_program_shows_and_signs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    data = {"instance": "db1", "local": {"path": str(tmp_path / "b")}, "state_dir": str(tmp_path / "s"), "log_dir": ""}
    config.write_text(json.dumps(data))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["--config", str(config), *arguments])
        return (code, *capfd.readouterr())

    assert run("checklist", "before")[1].startswith("db1 on ")
    assert run("checklist", "--markdown")[1].startswith("# Checklists of db1 on ")
    assert "Would sign" in run("checklist", "sign", "before.people", "--name", "Ada", "--dry-run")[1]
    assert run("checklist", "sign", "before.people", "--name", "Ada")[1] == "Signed before.people: Ada.\n"
    said = json.loads(run("checklist", "before", "--json")[1])
    assert [line["by"] for line in said["stages"][0]["lines"] if line["id"] == "before.people"] == ["Ada"]
    assert [json.loads(p.read_text())["verb"] for p in (tmp_path / "s" / "db1" / "runs").iterdir()] == ["checklist"]
    for wrong in (("checklist", "sign"), ("checklist", "day-1", "x.y"), ("checklist", "day-9")):
        assert run(*wrong)[0] == 2
