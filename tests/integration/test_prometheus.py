# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' own promtool judges the metrics and the rules, and sees each alert fire and clear on what the engine tells."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts import state as alert_state
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import metrics as core_metrics
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import severities
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import Finding
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.metrics import parse, render
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import stored_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_health import (
    Bounds,
    Holding,
    Room,
    ServerWal,
    Shipping,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_health import judge as judge_wal
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Alerts, Wal, Webhook
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import durable
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert, alert_facts
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import status as status_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import calendars
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import status
from tests.integration.alert_receivers import HttpReceiver
from tests.tools.collection_tree import ROOT
from tests.tools.prometheus import promtool
from tests.unit.plugins.module_utils._engine.conftest import World

FILES = ROOT / "roles" / "monitoring" / "files"
RULES = FILES / "pgops.rules.yml"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# promtool's time begins here; Prometheus looks back for five minutes, so that a sample comes each four.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=4)
# How often the rules are looked at, and so when an alert can be seen.
LOOK = 5 * STEP
HEALTHY = EPOCH + 2 * DAY
MIB = 1024 * 1024


def tool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [str(promtool()), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- one world, in good order -----------------------------------------------------------------------------------------


@dataclass
class Night:
    """A host in 1970: its sets, its runs, and who starts them."""

    world: World
    free: int = 10**12
    state_free: int = 10**12
    starter: str = "cron"
    due: bool = False
    wal: tuple[Finding, ...] | None = None

    def backup(self, *, places: tuple[str, ...] = ("local", "s3"), prove: bool = True, **values: Any) -> str:
        """Make a set an hour ago, and prove it now."""
        values.setdefault("payload", b"x" * 2 * MIB)
        for place in places:
            made = self.world.add(place, self.world.now - HOUR, **values)
        if prove:
            self.world.prove(places[-1], made, when=self.world.now)
        return str(made)

    def run(self, verb: str, error: Any = None, **result: Any) -> None:
        def work(context: Any) -> dict[str, Any]:
            del context
            if error:
                raise error
            return {"uncovered": [], **result} if verb == "backup" else result

        try:
            perform(self.world.context(), verb, work)
        except PgopsError as raised:
            assert raised is error


@pytest.fixture(name="night")
def healthy_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Night]]:
    """Return a maker of hosts in good order: four nights of sets here and off the server, proven, with all runs well."""
    made: list[Night] = []

    def make() -> Night:
        night = Night(World(tmp_path / str(len(made))))
        made.append(night)
        for n in range(3, -1, -1):
            night.world.now = HEALTHY - n * 12 * HOUR
            night.backup()
        for verb in ("backup", "sync", "verify", "prune"):
            night.run(verb)
        return night

    monkeypatch.setattr(status_module, "free_bytes", lambda _path: made[-1].free)
    monkeypatch.setattr(alert_facts, "free_bytes", lambda _path: made[-1].free)
    monkeypatch.setattr(durable, "free_bytes", lambda _path: made[-1].state_free)
    monkeypatch.setattr(status_module, "started_by", lambda _places, _instance: made[-1].starter)
    monkeypatch.setattr(alert_facts, "started_by", lambda _places, _instance: "cron" if made[-1].due else "")
    # This machine's own start is no matter of these hosts.
    monkeypatch.setattr(alert_facts, "_UPTIME", Path("/no/such/file"))
    asked = status_module.wal_status

    def of_wal(context: Any, surveyed: Any) -> dict[str, Any]:
        told = made[-1].wal
        return asked(context, surveyed) if told is None else {**WAL, "findings": [f.as_data() for f in told]}

    monkeypatch.setattr(status_module, "wal_status", of_wal)
    yield make


# What wal_status() says of a server that archives and ships, but for the findings.
WAL: dict[str, Any] = {
    "server": {"lag_bytes": 5 * MIB, "lag_seconds": 30.0, "ready": 1, "ready_since": None},
    "spool": {"bytes": 64 * MIB},
    "shipping": {"pending": 0, "pending_since": None, "pending_bytes": 0},
    "places": [
        {
            "place": place,
            "rpo_seconds": 60.0,
            "recovery_point": "1970-01-02T23:59:00+00:00",
            "windows": [{"stretches": [{"start": "1970-01-02T00:00:00+00:00", "end": "1970-01-02T23:59:00+00:00"}]}],
        }
        for place in ("local", "s3")
    ],
    "max_backlog_bytes": 1024 * MIB,
}


# --- what goes wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """What happens `after` the last good moment, how that is mended, and the alerts that fire in between.

    `written` tells whether pgops writes its metrics when it happens; without, the file stays as it was, or is gone. `also`
    is a series of node_exporter's own that goes from 0 to 1 and back. `midway` are alerts on the way there. What happened
    `lasts` so long.
    """

    alerts: tuple[str, ...]
    happens: Callable[[Night], Any]
    mended: Callable[[Night], Any] = lambda night: night.backup()
    after: timedelta = 2 * HOUR
    written: bool = True
    gone: bool = False
    also: str = ""
    midway: tuple[timedelta, tuple[str, ...]] = (timedelta(0), ())
    lasts: timedelta = 2 * HOUR


def _nothing(night: Night) -> None:
    del night


def _without_s3(night: Night) -> None:
    night.world.config = replace(night.world.config, s3=None)


def _with_s3(night: Night) -> None:
    night.world.config = replace(night.world.config, s3=World(Path("/nowhere")).config.s3)


def _break_a_set(night: Night) -> None:
    home = night.world.context().local.home / "sets"
    (home / min(night.world.ids("local")) / "manifest.json").write_bytes(b"{")


def _mend_a_set(night: Night) -> None:
    night.world.context().local.delete_set(min(night.world.ids("local")))


def _set(name: str, value: Any) -> Callable[[Night], None]:
    return lambda night: setattr(night, name, value)


def _down(down: bool) -> Callable[[Night], None]:
    return lambda night: setattr(night.world.memory, "down", down)


def _fail_a_set(night: Night) -> None:
    night.world.prove("local", max(night.world.ids("local")), outcome="failed", level="checksum")
    night.world.prove("s3", sorted(night.world.ids("s3"))[-2], when=night.world.now)


def _fail_an_old_set(night: Night) -> None:
    night.world.prove("local", min(night.world.ids("local")), outcome="failed", level="checksum")


def _from_the_future(night: Night) -> None:
    night.world.add("local", night.world.now + 3 * HOUR, payload=b"x" * 2 * MIB)


def _forget_all(night: Night) -> None:
    for place in ("local", "s3"):
        for set_id in night.world.ids(place):
            night.world.place(place).delete_set(set_id)


def _delete_newest(night: Night) -> None:
    night.world.context().local.delete_set(max(night.world.ids("local")))


def _wal_of(night: Night) -> Path:
    return Path(night.world.context().local.home) / "wal" / "7000000000000000001" / "0000000100000000"


def _two_servers_archive(night: Night) -> None:
    _nobody_says_how_wal_fares(night)
    folder = _wal_of(night)
    folder.mkdir(parents=True)
    for content in (b"one", b"other"):
        name = stored_name("000000010000000000000001", hashlib.sha256(content).hexdigest(), ".gz")
        (folder / name).write_bytes(gzip.compress(content))


def _one_of_them_goes(night: Night) -> None:
    min(_wal_of(night).iterdir()).unlink()
    _wal_is_left_out(night)


def _wants_restores(night: Night) -> None:
    night.world.config = replace(night.world.config, alerts=Alerts(restore_test="3h"))


def _nobody_says_how_wal_fares(night: Night) -> None:
    config = night.world.config
    night.world.config = replace(config, wal=Wal(enabled=True), schedule=replace(config.schedule, base=""))


def _wal_is_left_out(night: Night) -> None:
    night.world.config = replace(night.world.config, wal=Wal())


def _remembered(night: Night, **values: Any) -> None:
    """Change what the newest run remembered."""
    folder = night.world.context().state
    held, trouble = alert_state.load(folder)
    assert not trouble
    alert_state.save(folder, replace(held, **values))


def _nobody_ran(night: Night) -> None:
    """What has been due since the last good moment has not begun."""
    night.due = True
    known = calendars(night.world.context())
    _remembered(night, due={verb: (calendar.text, HEALTHY) for verb, calendar in known.items()})


def _all_ran(night: Night) -> None:
    for verb in ("backup", "sync", "verify", "prune"):
        night.run(verb)


def _killed(night: Night) -> None:
    _remembered(night, cut_short={"verify": night.world.now})


def _fills_up(night: Night) -> None:
    days = {night.world.now.date() - n * DAY: night.free + n * 2 * 10**11 for n in range(14)}
    _remembered(night, days=days)


def _one_is_left_out(night: Night) -> None:
    night.run("backup", uncovered=[{"what": "database new", "why": "the role may not connect"}])


def _with_bases(*made: tuple[str, timedelta]) -> Callable[[Night], None]:
    """Base backups are scheduled each week; there are those in places that began so long ago."""

    def happens(night: Night) -> None:
        schedule = replace(night.world.config.schedule, base="0 1 * * 0")
        night.world.config = replace(night.world.config, schedule=schedule)
        for place, age in made:
            night.world.add(place, night.world.now - age, kind="base")

    return happens


def _new_base(night: Night) -> None:
    night.backup(kind="base")


def _dead_channel(night: Night) -> None:
    _with_alerts(night, "http://127.0.0.1:1/")
    with pytest.raises(PgopsError, match="did not accept"):
        alert.test(night.world.context())


def _live_channel(night: Night) -> None:
    receiver = HttpReceiver()
    try:
        _with_alerts(night, receiver.url)
        alert.test(night.world.context())
    finally:
        receiver.close()


def _with_alerts(night: Night, url: str) -> None:
    night.world.config = replace(night.world.config, alerts=Alerts(webhook=Webhook(url=url)))


STORIES = {
    "late": Story(("PgopsBackupTooOld",), _nothing, after=25 * HOUR + 2 * LOOK),
    "never": Story(("PgopsBackupTooOld", "PgopsOffsiteCopyTooOld"), _forget_all),
    "not copied": Story(
        ("PgopsOffsiteCopyTooOld",), lambda n: n.backup(places=("local",)), lambda n: n.backup(), after=28 * HOUR
    ),
    "nowhere to copy to": Story(("PgopsNoOffsitePlace",), _without_s3, _with_s3),
    "store down": Story(("PgopsPlaceUnreachable",), _down(True), _down(False)),
    "not proven": Story(
        ("PgopsVerificationOverdue", "PgopsVerificationStale"),
        lambda n: n.backup(prove=False),
        after=14 * DAY,
        midway=(
            7 * DAY + LOOK,
            ("PgopsBackupTooOld", "PgopsOffsiteCopyTooOld", "PgopsMetricsStale", "PgopsVerificationOverdue"),
        ),
    ),
    "does not restore": Story(
        ("PgopsVerificationFailed",),
        _fail_a_set,
        lambda n: n.world.prove("local", max(n.world.ids("local")), when=n.world.now),
    ),
    "an old one does not restore": Story(
        ("PgopsOlderSetFailed",),
        _fail_an_old_set,
        lambda n: n.world.prove("local", min(n.world.ids("local")), when=n.world.now),
    ),
    "damaged": Story(("PgopsSetDamaged",), _break_a_set, _mend_a_set),
    "failed run": Story(
        ("PgopsRunFailed",), lambda n: n.run("sync", PgopsError("The store is full.")), lambda n: n.run("sync")
    ),
    "failed prune": Story(
        ("PgopsRunIncomplete",),
        lambda n: n.run("prune", PgopsError("The disk is read-only.")),
        lambda n: n.run("prune"),
    ),
    "half a backup": Story(("PgopsBackupSizeUnusual",), lambda n: n.backup(payload=b"x" * (MIB - 9000))),
    "empty": Story(("PgopsBackupEmpty",), lambda n: n.backup(databases=())),
    "disk full": Story(("PgopsDiskFull",), _set("free", 0), _set("free", 10**12)),
    "disk soon full": Story(("PgopsDiskSoonFull",), _set("free", MIB), _set("free", 10**12)),
    "clock": Story(("PgopsClockWrong",), _from_the_future, _delete_newest),
    # No server answers in these two, which is a warning of its own.
    "two servers archive": Story(("PgopsWalNotSafe", "PgopsWalAtRisk"), _two_servers_archive, _one_of_them_goes),
    "nobody knows of the WAL": Story(("PgopsWalAtRisk",), _nobody_says_how_wal_fares, _wal_is_left_out),
    "never restored": Story(("PgopsRestoreTestOverdue",), _wants_restores, lambda n: n.run("restore")),
    "late base backup": Story(
        ("PgopsBaseBackupTooOld", "PgopsBaseOffsiteCopyTooOld"),
        _with_bases(("local", 9 * DAY), ("s3", 9 * DAY)),
        _new_base,
    ),
    "no base backup": Story(("PgopsBaseBackupTooOld", "PgopsBaseOffsiteCopyTooOld"), _with_bases(), _new_base),
    "base backup not copied": Story(("PgopsBaseOffsiteCopyTooOld",), _with_bases(("local", HOUR)), _new_base),
    "nobody ran it": Story(("PgopsIncidentCritical", "PgopsIncident"), _nobody_ran, _all_ran, after=5 * HOUR),
    "killed": Story(("PgopsIncidentCritical",), _killed, lambda n: n.run("verify")),
    "no room for records": Story(("PgopsIncidentCritical",), _set("state_free", 100), _set("state_free", 10**12)),
    "fills up": Story(("PgopsIncident",), _fills_up, lambda n: _remembered(n, days={})),
    "left out": Story(("PgopsIncident",), _one_is_left_out, lambda n: n.run("backup")),
    "nobody hears": Story(("PgopsAlertsNotDelivered",), _dead_channel, _live_channel),
    "nobody starts it": Story(("PgopsNotScheduled",), _set("starter", ""), _set("starter", "cron")),
    "stale": Story(("PgopsBackupTooOld", "PgopsMetricsStale"), _nothing, after=25 * HOUR + 2 * LOOK, written=False),
    "gone": Story(("PgopsMetricsGone",), _nothing, written=False, gone=True),
    "gone for a week": Story(("PgopsMetricsGone",), _nothing, written=False, gone=True, lasts=7 * DAY),
    "unreadable": Story(
        ("PgopsMetricsUnreadable",), _nothing, also='node_textfile_scrape_error{job="node",instance="db1:9100"}'
    ),
}
BETWEEN = 2 * HOUR


def series(texts: list[tuple[datetime, str]], end: datetime) -> list[dict[str, str]]:
    """Return the input series of a test: each text holds from its moment to the next."""
    moments = [*(when for when, _unused in texts), end]
    counts = [round((after - before) / STEP) for before, after in itertools.pairwise(moments)]
    told = [{(name, labels): value for name, labels, value in parse(text)} for _unused, text in texts]
    found = []
    for name, labels in sorted({key for one in told for key in one}):
        parts = []
        for one, count in zip(told, counts, strict=True):
            value = one.get((name, labels))
            parts.append("_x%d" % count if value is None else "%r+0x%d" % (value, count - 1))
        found.append({"series": '%s{job="node",instance="db1:9100",%s}' % (name, labels), "values": " ".join(parts)})
    return found


def scenario(name: str, night: Night) -> dict[str, Any]:
    """Return the test of promtool for a story: healthy, in trouble, and healthy again, all alerts told each time."""
    story = STORIES[name]
    world = night.world
    world.now = HEALTHY
    texts = [(EPOCH, render(status(world.context()), "1"))]
    world.now = HEALTHY + story.after
    story.happens(night)
    if story.gone:
        texts.append((world.now, ""))
    elif story.written:
        texts.append((world.now, render(status(world.context()), "1")))
    trouble = world.now + story.lasts - LOOK
    world.now += story.lasts
    story.mended(night)
    texts.append((world.now, render(status(world.context()), "1")))
    end = world.now + BETWEEN
    given = series(texts, end)
    if story.also:
        before, during = round((HEALTHY + story.after - EPOCH) / STEP), round(BETWEEN / STEP)
        given.append({"series": story.also, "values": "0+0x%d 1+0x%d 0+0x%d" % (before - 1, during - 1, during - 1)})

    def firing(moment: datetime, alerts: tuple[str, ...]) -> dict[str, Any]:
        samples = [{"labels": '{alertname="%s"}' % alert, "value": 1} for alert in sorted(alerts)]
        return {
            "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": "%ds" % (moment - EPOCH).total_seconds(),
            "exp_samples": samples,
        }

    expected = [firing(HEALTHY, ()), firing(trouble, story.alerts), firing(end - LOOK, ())]
    if story.midway[1]:
        expected.append(firing(HEALTHY + story.midway[0], story.midway[1]))
    return {"name": name, "interval": "4m", "input_series": given, "promql_expr_test": expected}


# Every finding about WAL, as the engine gives it, and the rule that tells of it.
_GOOD_SERVER = ServerWal("on", "pgops wal archive %p", 60, 16 * MIB, 0, "1", HEALTHY, "", None, 0, 0, None)
_GOOD = {
    "server": _GOOD_SERVER,
    "server_error": "",
    "shipping": Shipping(0, 0, None, "", None, HEALTHY),
    "room": Room(10**12, 0, 0.0),
    "holdings": [Holding("s3", recoverable_to=HEALTHY, segments=9)],
}
_FAILED = replace(_GOOD_SERVER, last_failed="2", last_failed_time=HEALTHY + HOUR, failed_count=3)
_WAITS = replace(_GOOD_SERVER, ready=9, ready_since=HEALTHY - HOUR)
WAL_TROUBLES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("wal archive", "PgopsWalNotSafe", {"server": replace(_GOOD_SERVER, archive_mode="off")}),
    ("wal archive", "PgopsWalNotSafe", {"server": replace(_GOOD_SERVER, archive_command="/bin/true")}),
    ("wal archive", "PgopsWalNotSafe", {"server": _FAILED}),
    ("wal archive", "PgopsWalAtRisk", {"server": _WAITS}),
    ("wal archive", "PgopsWalAtRisk", {"server": replace(_GOOD_SERVER, lag_bytes=2 * 1024 * MIB)}),
    ("wal timeout", "PgopsWalAtRisk", {"server": replace(_GOOD_SERVER, archive_timeout=0)}),
    ("wal server", "PgopsWalAtRisk", {"server": None, "server_error": "No route."}),
    ("wal shipping", "PgopsWalAtRisk", {"shipping": Shipping(3, MIB, HEALTHY - HOUR, "", None, HEALTHY)}),
    ("wal shipping", "PgopsWalAtRisk", {"shipping": Shipping(0, 0, None, "No route.", HEALTHY, HEALTHY)}),
    ("wal shipping", "PgopsWalAtRisk", {"shipping": Shipping(0, 0, None, "", None, HEALTHY - DAY)}),
    ("wal room", "PgopsWalNotSafe", {"room": Room(3600 * 10**6, 0, 1e6)}),
    ("wal room", "PgopsWalAtRisk", {"room": Room(10 * 3600 * 10**6, 0, 1e6)}),
    ("wal s3", "PgopsWalAtRisk", {"holdings": [Holding("s3", error="No route.")]}),
    ("wal local", "PgopsWalAtRisk", {"holdings": [Holding("local", error="No right to read.")]}),
    ("wal gap", "PgopsWalAtRisk", {"holdings": [Holding("s3", gaps=["1 to 3"], recoverable_to=HEALTHY)]}),
    ("wal window", "PgopsWalAtRisk", {"holdings": [Holding("s3", segments=9)]}),
    ("wal contradiction", "PgopsWalNotSafe", {"holdings": [Holding("s3", "", [], ["1"], HEALTHY, 9)]}),
)
_BOUNDS = Bounds(timedelta(minutes=15), 1024 * MIB, timedelta(minutes=1))


def wal_scenario(night: Night, number: int) -> dict[str, Any]:
    """Return the test of promtool for one finding about WAL: well, in trouble, and well again."""
    check, alert_name, changes = WAL_TROUBLES[number]
    night.world.config = replace(night.world.config, wal=Wal(enabled=True))
    told = [tuple(judge_wal(**{**_GOOD, **changed}, bounds=_BOUNDS, now=HEALTHY)) for changed in ({}, changes, {})]
    assert [f.check for f in told[0] if f.severity != "ok"] == []
    assert [f.check for f in told[1] if f.severity != "ok"] == [check]
    texts = []
    for number_of_phase, findings in enumerate(told):
        night.wal = findings
        texts.append((EPOCH + 2 * number_of_phase * LOOK, render(status(night.world.context()), "1")))
    firing = [
        {
            "expr": 'group by (alertname, check) (ALERTS{alertname=~"PgopsWal.+",alertstate="firing"})',
            "eval_time": "%ds" % ((2 * phase + 1) * LOOK).total_seconds(),
            "exp_samples": [{"labels": '{alertname="%s",check="%s"}' % (alert_name, check), "value": 1}]
            if phase == 1
            else [],
        }
        for phase in range(3)
    ]
    return {
        "name": "%s, %d" % (check, number),
        "interval": "4m",
        "input_series": series(texts, EPOCH + 6 * LOOK),
        "promql_expr_test": firing,
    }


def wording() -> dict[str, Any]:
    """Return what one of the alerts says: what, where, since when and what to do."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    (rule,) = [rule for rule in rules if rule["alert"] == "PgopsVerificationOverdue"]
    assert "pgops verify" in rule["annotations"]["description"]
    told = {
        "exp_labels": {"severity": "warning", "job": "node", "instance": "db1:9100", "pgops_instance": "db1"},
        "exp_annotations": {
            "summary": "No restore of db1 was proven for 7d 0h 20m 0s",
            "description": rule["annotations"]["description"].replace("{{ $labels.instance }}", "db1:9100"),
        },
    }
    moment = (HEALTHY + STORIES["not proven"].midway[0] - EPOCH).total_seconds()
    return {"eval_time": "%ds" % moment, "alertname": rule["alert"], "exp_alerts": [told]}


def test_every_alert_fires_and_clears_on_what_the_engine_tells(night: Callable[[], Night], tmp_path: Path) -> None:
    tests = [scenario(name, night()) for name in STORIES]
    one = night()
    tests += [wal_scenario(one, number) for number in range(len(WAL_TROUBLES))]
    next(test for test in tests if test["name"] == "not proven")["alert_rule_test"] = [wording()]
    path = tmp_path / "test.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "20m", "tests": tests}, width=10**6)
    )
    assert "SUCCESS" in tool("test", "rules", str(path))


def test_every_alert_has_a_story() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert {alert for story in STORIES.values() for alert in story.alerts} == {rule["alert"] for rule in rules}
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_rules_say_what_the_table_of_severities_says() -> None:
    rules = {
        rule["alert"]: rule["labels"]["severity"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    }
    assert [(one.cause, r) for one in severities.TABLE for r in one.rules if rules.get(r) != one.level] == []


def rich(night: Callable[[], Night]) -> Night:
    """Return a host of which everything is known: base backups, WAL, limits of restores, recoveries, trouble and alerts."""
    made = night()
    made.wal = tuple(judge_wal(**_GOOD, bounds=_BOUNDS, now=HEALTHY))
    made.world.config = replace(made.world.config, wal=Wal(enabled=True), alerts=Alerts(restore_test="90d"))
    _with_bases(("local", HOUR), ("s3", HOUR))(made)
    for verb in ("restore", "recover", "drill"):
        made.run(verb)
    made.run("prune", PgopsError("Oh."))
    # The newest set is a dump, as that is what sizes are compared of.
    made.world.now += HOUR
    made.backup()
    _break_a_set(made)
    return made


def test_promtool_finds_no_fault_with_rules_and_metrics(night: Callable[[], Night]) -> None:
    assert "SUCCESS" in tool("check", "rules", str(RULES))
    made = rich(night)
    text = render(status(made.world.context()), "1")
    assert tool("check", "metrics", stdin=text) == ""
    assert {name for name, _unused, _unused in parse(text)} == {"pgops_%s" % name for name in core_metrics._HELP}
    assert 'pgops_incident_open{pgops_instance="db1",cause="failed-run/prune",level="warning"} 1\n' in text


def test_the_dashboard_asks_for_metrics_that_there_are(night: Callable[[], Night], tmp_path: Path) -> None:
    dashboard = json.loads((FILES / "pgops.dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    known = {name for name, _unused, _unused in parse(render(status(rich(night).world.context()), "1"))}
    for expr in asked:
        named = set(re.findall(r"pgops_[a-z_]+", expr)) - {"pgops_instance"}
        assert named, expr
        assert named <= known, expr
    subjects = (
        "pgops_incident_open",
        "pgops_rto_seconds",
        "pgops_recovery_point_timestamp_seconds",
        "pgops_wal_lag_seconds",
        "pgops_verification_start_timestamp_seconds",
    )
    for name in subjects:
        assert any(name in expr for expr in asked), name
    rules = [
        {"record": "dashboard:%d" % n, "expr": expr.replace("$pgops_instance", ".*")} for n, expr in enumerate(asked)
    ]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert "%d rules found" % len(asked) in tool("check", "rules", str(path))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


# --- what the documentation shows -------------------------------------------------------------------------------------

DOCS = ROOT / "docs" / "monitoring.md"


def shown(first: str) -> Any:
    """Return the YAML of the block of the documentation that says `first`, as it is written there."""
    (block,) = [b for b in re.findall(r"^```yaml\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL) if first in b]
    return block, yaml.safe_load(block)


def test_prometheus_takes_the_configuration_that_the_documentation_shows(tmp_path: Path) -> None:
    written, _unused = shown("rule_files:")
    _unused, ((play),) = shown("monitoring_promtool:")
    told = play["roles"][0]["vars"]
    # The files lie where the documentation has the role lay them down, below another root.
    rules = tmp_path / told["monitoring_rules"].lstrip("/")
    rules.parent.mkdir(parents=True)
    rules.write_bytes(RULES.read_bytes())
    home = re.match(r"# (/\S+)\n", written)
    assert home
    path = tmp_path / home[1].lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written.replace("[/etc/", "[%s/etc/" % tmp_path))
    said = tool("check", "config", str(path))
    assert "1 rule files found" in said
    assert "SUCCESS: %d rules found" % len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"]) in said


def test_what_the_documentation_says_to_grafana_and_to_the_role_is_so() -> None:
    _unused, provisioned = shown("providers:")
    _unused, ((play),) = shown("monitoring_promtool:")
    told = play["roles"][0]["vars"]
    (provider,) = provisioned["providers"]
    assert provisioned["apiVersion"] == 1
    assert (provider["type"], provider["options"]["path"]) == ("file", str(Path(told["monitoring_dashboard"]).parent))
    options = yaml.safe_load((FILES.parent / "meta" / "argument_specs.yml").read_text())
    known = set(options["argument_specs"]["main"]["options"])
    _unused, variables = shown("monitoring_nrpe_install:")
    assert {name for name in variables if name.startswith("monitoring_")} | set(told) <= known


def test_the_documentation_names_every_metric_and_every_alert() -> None:
    text = DOCS.read_text()
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert "`%s`" % rule["alert"] in text, rule["alert"]
    for name in core_metrics._HELP:
        assert re.search(r"`%s[`{]" % name, text), name
