# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts as operators meet them: by the program with a real server, and by the module in a playbook."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from demo.machine import free_port
from demo.servers import MotoS3
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Answer,
    HttpReceiver,
    receiver_here,
)
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    locked_table,
    program_builder,
    shop_program,
)
from tests.integration.conftest import Servers, run_sql, wait_for
from tests.integration.test_modules import CHECK, Site, task

SECRET = "very-secret-words"


@pytest.fixture(name="alerts")
def alert_section(receiver: HttpReceiver, tmp_path: Path) -> dict[str, Any]:
    """Slack by a private file, a webhook and a heartbeat."""
    path = tmp_path / "slack"
    path.write_text("%s/slack/%s\n" % (receiver.url, SECRET))
    path.chmod(0o600)
    return {
        "slack": {"webhook_url_file": str(path)},
        "webhook": {"url": receiver.url + "/hook", "secret": SECRET},
        "heartbeat": {"url": receiver.url + "/ping"},
        "timeout": 20,
    }


def test_a_night_that_fails_and_the_next_that_does_not(
    shop: Program, receiver: HttpReceiver, alerts: dict[str, Any]
) -> None:
    shop.configure(alerts=alerts)
    made = shop.json("backup")
    assert [h.path for h in receiver.heard] == ["/ping/start", "/ping"], "success is silent, but for the heartbeat"
    receiver.heard.clear()

    shop.configure(alerts=alerts, postgres={"login_port": free_port()})
    failed = shop.json("backup", code=4)
    assert "Connection refused" in failed["message"]
    assert [h.path for h in receiver.heard] == ["/ping/start", "/ping/fail", "/slack/" + SECRET, "/hook"]
    told = receiver.heard[-1].json
    assert (told["event"], told["cause"], told["level"]) == ("opened", "failed-run/backup", "critical")
    assert "Connection refused" in told["text"]
    assert told["safe"][0].startswith("local: %s, begun " % made["set"])
    assert shop.site.server.password not in str([h.body for h in receiver.heard])
    status = " ".join(shop("status").stdout.split())
    assert "open: failed-run/backup since" in status
    assert "took its last message" in status

    receiver.heard.clear()
    shop.configure(alerts=alerts)
    shop("backup", "--quiet")
    assert receiver.heard[-1].json["event"] == "recovered"
    open_now = [i["cause"] for i in shop.json("status")["alerts"]["incidents"] if i["told"]]
    assert open_now == []
    log = (Path(shop.site.data()["log_dir"]) / "alert.log").read_text()
    assert "opened of failed-run/backup to slack: accepted" in log
    assert SECRET not in log


def test_whoever_waits_for_a_backup_of_the_schedule_is_told_of_while_it_waits(
    shop: Program, receiver: HttpReceiver, alerts: dict[str, Any]
) -> None:
    """With --quiet, as cron and timers start it: on standard error, in the log and by an alert, which ends with the run."""
    shop.configure(alerts=alerts)
    server, log = shop.site.server, Path(shop.site.data()["log_dir"]) / "backup.log"
    run_sql(server, "shop", "CREATE TABLE shop.zz_gate (i int)")

    def told_of(cause: str) -> list[str]:
        return [h.json["event"] for h in receiver.heard if h.path == "/hook" and h.json["cause"] == cause]

    holds = "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND relation = 'shop.zz_gate'::regclass"
    with closing(server.connect("shop")) as migration, ExitStack() as gate:
        gate.enter_context(locked_table(server, "shop", "shop.zz_gate"))
        process = shop.start("backup", "--quiet")
        wait_for(lambda: len(run_sql(server, "shop", holds)) == 2, seconds=120)
        alter = "ALTER TABLE shop.goods ADD COLUMN note text"
        waiting = threading.Thread(target=lambda: migration.cursor().execute(alter), daemon=True)
        waiting.start()
        (told,) = wait_for(lambda: [h.json for h in receiver.heard if h.path == "/hook"], seconds=120)
        said = "process %d (role postgres) has waited" % migration.info.backend_pid
        assert said in told["text"] and "AccessExclusiveLock on shop.goods, which the dump holds up" in told["text"]
        assert (told["event"], told["level"], process.poll()) == ("message", "warning", None)
        (line,) = log.read_text().splitlines()
        assert said in line and " warning: " in line
        shop("backup", "--quiet", code=3)  # it does not get its turn, and what was told is not about it
        assert told_of(told["cause"]) == ["message"]
        gate.close()
        out, err = process.communicate(timeout=120)
        waiting.join(120)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("warning: ") and said in err
    assert told_of(told["cause"]) == ["message", "recovered"]
    receiver.heard.clear()
    shop("backup", "--quiet")
    assert [h for h in receiver.heard if h.path == "/hook"] == []


def test_the_channels_down_cost_a_backup_nothing(shop: Program, receiver: HttpReceiver, alerts: dict[str, Any]) -> None:
    receiver.always = Answer(503, "", {"Retry-After": "120"})
    os.chmod(alerts["slack"]["webhook_url_file"], 0o644)
    shop.configure(alerts=alerts)
    done = shop("backup")
    assert "Backed up" in done.stdout
    assert "warning: An alert was not taken by heartbeat: It answered 503" in done.stderr
    checked = shop("config", "--check", code=2).stderr
    assert "is open to others (mode 0644)" in checked
    assert "Backups go on" in checked


def test_the_verb_alert(shop: Program, receiver: HttpReceiver, alerts: dict[str, Any]) -> None:
    assert "There is no channel for alerts" in shop("alert", "test", code=2).stderr
    shop.configure(alerts=alerts)
    assert "alerts to slack, webhook, heartbeat" in shop("config", "--check").stdout
    shown = shop("config", "--show").stdout
    assert SECRET not in shown
    assert json.loads(shown)["alerts"]["webhook"]["secret"] == "********"

    tested = shop("alert", "test").stdout
    assert tested.count("accepted") == 3
    assert [h.path for h in receiver.heard] == ["/slack/" + SECRET, "/hook", "/ping/log"]
    receiver.answers.put(Answer(404, "no_service"))
    failed = shop.json("alert", "test", code=4)
    assert [c["accepted"] for c in failed["channels"]] == [False, True, True]
    assert SECRET not in json.dumps(failed)
    assert "slack, webhook, heartbeat" in shop("alert", "test", "--dry-run").stdout

    receiver.heard.clear()
    assert shop("alert", "send", "critical", "Two", "words", "--key", "disk").stdout.count("accepted") == 2
    shop("alert", "send", "ok", "Over.", "--key", "disk")
    assert [h.json["event"] for h in receiver.of("/hook")] == ["message", "recovered"]
    assert receiver.of("/hook")[0].json["text"] == "Two words"
    for words, said in (
        (("send", "critical"), "What shall be told?"),
        (("send", "loud", "x"), "'loud' is no level"),
        (("test", "x"), "takes no message"),
        (("evaluate", "--key", "x"), "takes no message"),
        (("shout",), "invalid choice"),
    ):
        assert said in shop("alert", *words, code=2).stderr, words

    receiver.heard.clear()
    assert "backup-age" in shop("alert", "evaluate").stdout
    assert shop("alert", "evaluate", "--quiet").stdout == ""
    assert receiver.heard == [], "the first night is still to come"
    assert "failed-run" not in shop("alert", "evaluate", "--dry-run").stdout
    kept = [(r["verb"], r.get("action", ""), r["outcome"]) for r in shop.site.records()]
    tests = [("alert", "", "misused"), ("alert", "test", "ok"), ("alert", "test", "unreachable")]
    assert sorted(kept) == tests, "a test leaves a record, a look does not"


def test_a_dry_look_tells_what_it_would(shop: Program, receiver: HttpReceiver, alerts: dict[str, Any]) -> None:
    shop.configure(postgres={"login_port": free_port()})
    shop("backup", code=4)
    shop.configure(alerts=alerts)
    said = shop("alert", "evaluate", "--dry-run").stdout
    assert "critical  failed-run/backup" in said
    assert "Would tell: CRITICAL: " in said
    assert receiver.heard == []
    receiver.always = Answer(400)
    failed = shop.json("alert", "evaluate", code=4)
    assert failed["undelivered"] == 2
    assert "did not take it: It answered 400" in shop("alert", "evaluate").stdout


def test_the_module(
    tmp_path: Path, servers: Servers, store: MotoS3, receiver: HttpReceiver, alerts: dict[str, Any]
) -> None:
    site = Site(tmp_path, servers.get("modules", 18), store)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"alerts": alerts}))
    path.chmod(0o600)
    config = {"config": str(path)}
    played = site.play(
        task("backup_alert", CHECK, action="test", **config),
        task("backup_alert", CHECK, action="send", level="warning", text="A test.", **config),
        task("backup_alert", CHECK, **config),
    )
    assert [r["changed"] for r in played.results] == [False, True, False]
    assert receiver.heard == []
    assert not site.state.exists()
    played = site.play(
        task("backup_alert", action="test", **config),
        task("backup_alert", action="send", level="warning", text="The disk is being replaced.", key="disk", **config),
        task("backup_alert", **config),
        task("pg_backup", databases=["no such database"], **config),
        task("backup_alert", **config),
        task("backup_alert", action="send", level="warning", text="x"),
        task("backup_alert", action="send", text="x", **config),
    )
    tested, sent, looked, backup, again, without, incomplete = played.results
    assert [c["channel"] for c in tested["channels"]] == ["slack", "webhook", "heartbeat"]
    assert sent["key"] == "pgops/%s/message/disk" % site.instance
    assert looked["troubles"]
    assert backup["failed"]
    assert "There is no database" in backup["msg"]
    assert [h.json["event"] for h in receiver.of("/hook")] == ["test", "message", "opened"], (
        "a module's run is told, too"
    )
    assert again["told"] == []
    assert "failed-run/backup" in [i["cause"] for i in again["incidents"]]
    assert "There is no channel" in without["msg"]
    assert "level" in incomplete["msg"]
    assert SECRET not in played.output + json.dumps(played.results)
