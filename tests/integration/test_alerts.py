# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts as a whole: runs are recorded for real, receivers are real; channels fail, and the runs' own outcomes stand."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.filter.assessment import assessment
from ansible_collections.pgops.backup.plugins.filter.summary import summary
from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts import delivery, state
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import Finding
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.lock import Holder, hold, holder
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import (
    alert,
    alert_delivery,
    alert_facts,
    alert_runs,
    alert_watchers,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import render, status
from tests.faults.small_disk import fill, small_disk
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HANG,
    RESET,
    Answer,
    HttpReceiver,
    MailServer,
    certificate_of_localhost,
    plain_mail_server_here,
    receiver_here,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
KEY = "k" * 32
SLACK = "%s.slack.SlackChannel" % delivery.__name__.rpartition(".")[0]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class House:
    """An instance whose runs do what a test says, with a clock that is set by hand."""

    def __init__(self, root: Path, receiver: HttpReceiver, **alerts: Any) -> None:
        self.root, self.receiver, self.now = root, receiver, NOW
        self.alerts: dict[str, Any] = alerts or {"slack": {"webhook_url": receiver.url + "/slack/secret-words"}}
        self.others: dict[str, Any] = {}

    def context(self) -> Context:
        data = {
            "instance": "db1",
            "local": {"path": str(self.root / "backups")},
            "state_dir": str(self.root / "state"),
            "log_dir": str(self.root / "log"),
            "backup": {"min_free": "1"},
            # A machine at work may be slow to answer; only where nothing answers is it worth being quick.
            "alerts": {"timeout": 1 if self.receiver.always == HANG else 20, **self.alerts},
            **self.others,
        }
        return Context(config.build(data, environ={}, host="host1"), "host1", clock=lambda: self.now)

    def run(self, verb: str = "backup", reason: str = "", **result: Any) -> dict[str, Any]:
        """Record a run that fails for `reason`, or succeeds without one."""

        def work(_context: Context) -> dict[str, Any]:
            if reason:
                raise PgopsError(reason)
            return {"changed": True, **result}

        return perform(self.context(), verb, work)

    def fail(self, verb: str = "backup", reason: str = "No route to the server.") -> PgopsError:
        with pytest.raises(PgopsError) as caught:
            self.run(verb, reason)
        assert caught.value.message == reason, "the outcome of the run stands, whatever becomes of the alerts"
        return caught.value

    @property
    def state(self) -> Path:
        return self.root / "state" / "db1" / "alerts.json"

    def said(self, start: str = "/slack") -> list[str]:
        return [h.json["text"] for h in self.receiver.of(start)]

    def later(self, span: timedelta) -> House:
        self.now += span
        return self


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are counted in test_a_moment_of_trouble_is_waited_out and nowhere else."""
    monkeypatch.setattr(
        delivery.patiently, "__kwdefaults__", {**delivery.patiently.__kwdefaults__, "pause": lambda _s: None}
    )
    monkeypatch.setattr(delivery.deliver, "__kwdefaults__", {"pause": lambda _s: None})
    # This machine's own start is no matter of these hosts.
    monkeypatch.setattr(alert_facts, "_UPTIME", Path("/no/such/file"))


@pytest.fixture(name="house")
def one_house(tmp_path: Path, receiver: HttpReceiver) -> House:
    return House(tmp_path, receiver)


# --- after a run ------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_once_and_its_end_once(house: House) -> None:
    house.run("sync")
    assert house.said() == [], "success is silent"
    house.later(HOUR).fail("sync")
    assert house.said() == ["CRITICAL: db1: The last sync failed: No route to the server."]
    house.later(HOUR).fail("sync")
    assert len(house.said()) == 1
    house.later(HOUR).run("sync")
    assert house.said()[1:] == [
        "RECOVERED: db1: This is over, after 2 h 0 min: The last sync failed: No route to the server. That was run 2 in a row."
    ]
    house.later(HOUR).run("sync")
    assert len(house.said()) == 2
    assert stat.S_IMODE(house.state.stat().st_mode) == 0o600


def test_what_is_told_says_what_is_still_safe_and_what_to_do(house: House) -> None:
    house.alerts["webhook"] = {"url": house.receiver.url + "/hook"}
    house.fail("sync")
    (heard,) = house.receiver.of("/hook")
    assert heard.json["safe"] == ["local: nothing."]
    assert "pgops sync (as " in heard.json["step"]
    assert heard.json["host"] == "host1"
    assert heard.json["since"] == NOW.isoformat()
    log = (house.root / "log" / "alert.log").read_text()
    assert "opened failed-run/sync (critical)" in log
    assert "to webhook: accepted" in log


def test_without_a_channel_nothing_is_told(tmp_path: Path, receiver: HttpReceiver) -> None:
    house = House(tmp_path, receiver, repeat="24h")
    house.fail()
    assert json.loads(house.state.read_text())["incidents"] == {}, "only what status compares with is remembered"
    assert "failed-run/backup" in [i["cause"] for i in status(house.context())["incidents"]]
    for work in (alert.evaluate, alert.test):
        with pytest.raises(UsageError, match="no channel"):
            work(house.context())
    with pytest.raises(UsageError, match="no channel"):
        alert.send(house.context(), alert.Message("info", "x"))
    assert "nobody is told" in render(status(house.context()), False)


def test_a_dry_run_of_a_verb_tells_nobody(house: House) -> None:
    def fail(_context: Any) -> Any:
        raise PgopsError("x")

    with pytest.raises(PgopsError):
        perform(house.context(), "backup", fail, dry_run=True)
    assert house.receiver.heard == []


def test_the_heartbeat_and_sentry_hear_of_each_run(tmp_path: Path, receiver: HttpReceiver) -> None:
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    house = House(
        tmp_path,
        receiver,
        heartbeat={"url": receiver.url + "/ping/{verb}"},
        sentry={"dsn": dsn, "monitor": "{instance}-{verb}", "level": "escalated"},
        watched=["backup", "prune"],
    )
    house.run()
    house.run("verify")
    house.fail("prune", "The disk is gone.")
    assert [h.path for h in receiver.of("/ping")] == [
        "/ping/backup/start",
        "/ping/backup",
        "/ping/prune/start",
        "/ping/prune/fail",
    ]
    assert b"The disk is gone." in receiver.heard[-2].body + receiver.heard[-1].body
    check_ins = [json.loads(h.body.split(b"\n")[2]) for h in receiver.of("/api")]
    assert [(c["monitor_slug"], c["status"]) for c in check_ins] == [
        ("db1-backup", "in_progress"),
        ("db1-backup", "ok"),
        ("db1-prune", "in_progress"),
        ("db1-prune", "error"),
    ]
    assert check_ins[0]["check_in_id"] == check_ins[1]["check_in_id"] != check_ins[2]["check_in_id"]
    assert check_ins[0]["monitor_config"]["schedule"]["value"] == "0 2 * * *"


def test_a_watcher_with_a_check_for_each_verb_hears_of_what_runs_by_itself(
    tmp_path: Path, receiver: HttpReceiver
) -> None:
    house = House(tmp_path, receiver, heartbeat={"url": receiver.url + "/ping/{verb}"})
    for verb in ("backup", "sync", "verify", "prune"):
        house.run(verb)
    assert pinged(house) == ["/ping/backup", "/ping/verify"], "there is no place to copy to"
    receiver.heard.clear()
    house.others["schedule"] = {"verify": ""}
    house.run("verify")
    assert pinged(house) == [], "nothing runs it by itself, so that its check would only cry"
    house.alerts["heartbeat"] = {"url": receiver.url + "/ping/one"}
    house.others["schedule"] = {}
    for verb in ("backup", "verify"):
        house.run(verb)
    assert pinged(house) == ["/ping/one"], "one check hears of backups alone"


def test_in_a_group_only_who_did_the_work_gives_a_sign_of_life(tmp_path: Path, receiver: HttpReceiver) -> None:
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    house = House(
        tmp_path,
        receiver,
        heartbeat={"url": receiver.url + "/ping/{verb}"},
        sentry={"dsn": dsn, "monitor": "{instance}-{verb}", "level": "escalated"},
    )
    house.others["group"] = {"members": ["host1", "host2"], "node": "host1"}
    house.run(skipped="host2 backs up this group: it is the primary.")
    assert receiver.heard == [], "a start without an end would be an alarm there"
    house.run()
    house.fail()
    assert [h.path for h in receiver.of("/ping")] == ["/ping/backup", "/ping/backup/fail"]
    check_ins = [json.loads(h.body.split(b"\n")[2]) for h in receiver.of("/api")]
    assert [c["status"] for c in check_ins] == ["ok", "error"]


def test_a_heartbeat_that_does_not_answer_is_a_warning_of_the_run(tmp_path: Path, receiver: HttpReceiver) -> None:
    house = House(tmp_path, receiver, heartbeat={"url": receiver.url + "/ping/secret-words"})
    receiver.always = Answer(404, "not found")
    result = house.run()
    assert any("heartbeat: It answered 404" in w for w in result["warnings"])
    assert next(history(house.context().state, "backup"))["outcome"] == "ok"
    receiver.always = HANG
    begun = time.monotonic()
    house.run()
    assert time.monotonic() - begun < 50, "it hangs for a minute"


@pytest.fixture(name="watched")
def watched_house(tmp_path: Path, receiver: HttpReceiver) -> House:
    """A house of which a heartbeat and Sentry's monitor hear; Slack and Sentry have nothing to hear yet."""
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    return House(
        tmp_path,
        receiver,
        slack={"webhook_url": receiver.url + "/slack", "level": "escalated"},
        heartbeat={"url": receiver.url + "/ping"},
        sentry={"dsn": dsn, "monitor": "{instance}-{verb}", "level": "escalated"},
    )


def pinged(house: House) -> list[str]:
    return [h.path for h in house.receiver.of("/ping") if not h.path.endswith("/start")]


def checked_in(house: House) -> list[tuple[str, str]]:
    items = [json.loads(h.body.split(b"\n")[2]) for h in house.receiver.of("/api")]
    return [(c["status"], c["check_in_id"]) for c in items if "check_in_id" in c]


def alerts_of(house: House) -> dict[str, Any]:
    known = status(house.context())
    (finding,) = [f for f in known["findings"] if f["check"] == "alerts"]
    channels = {c["channel"]: (bool(c["failing_since"]), c["waiting"]) for c in known["alerts"]["channels"]}
    return {**finding, "channels": channels, "shown": render(known, False)}


def test_an_end_that_nobody_heard_is_shown_and_told_with_the_next_look(watched: House) -> None:
    watched.receiver.always = Answer(503, "away")
    warnings = watched.run()["warnings"]
    assert any("heartbeat: It answered 503" in w and "sentry monitor: It answered 503" in w for w in warnings)
    known = alerts_of(watched)
    assert known["severity"] == "warning", "people still hear of trouble"
    assert "heartbeat: It answered 503 Service Unavailable: away" in known["text"]
    assert known["channels"] == {
        "slack": (False, 0),
        "sentry": (False, 0),
        "heartbeat": (True, 1),
        "sentry monitor": (True, 1),
    }
    assert "takes nothing since" in known["shown"]
    watched.receiver.heard.clear()
    alert.evaluate(watched.later(HOUR / 4).context())
    assert len(pinged(watched)) == 1, "once with a look"
    watched.receiver.always, watched.receiver.heard = None, []
    result = alert.evaluate(watched.later(HOUR / 4).context())
    assert [(d["channel"], d["event"], d["cause"], d["accepted"]) for d in result["deliveries"]] == [
        ("sentry monitor", "ping", "backup", True),
        ("heartbeat", "ping", "backup", True),
    ]
    assert result["undelivered"] == 0
    assert pinged(watched) == ["/ping"]
    assert b"It ended at %s, and is told late." % NOW.isoformat().encode() in watched.receiver.of("/ping")[0].body
    assert [phase for phase, _run in checked_in(watched)] == ["ok"]
    assert (alerts_of(watched)["severity"], alerts_of(watched)["channels"]["heartbeat"]) == ("ok", (False, 0))
    assert alert.evaluate(watched.later(HOUR / 4).context())["deliveries"] == []
    assert "ping (ok) of backup to heartbeat: accepted" in (watched.root / "log" / "alert.log").read_text()


def test_an_old_success_is_no_sign_of_life(watched: House) -> None:
    """Heard late, it would hide for as long that the next run never came."""
    watched.run()
    (_start, first) = checked_in(watched)
    watched.receiver.always, watched.receiver.heard = Answer(503), []
    watched.later(HOUR).run()
    run = checked_in(watched)[-1][1]
    assert run != first[1]
    watched.receiver.always, watched.receiver.heard = None, []
    alert.evaluate(watched.later(2 * HOUR).context())
    assert pinged(watched) == ["/ping/log"]
    assert checked_in(watched) == [("ok", run)], "Sentry puts it to its own run, before the next one is due"
    watched.receiver.always = Answer(503)
    watched.run()
    watched.receiver.always, watched.receiver.heard = None, []
    alert.evaluate(watched.later(DAY).context())
    assert checked_in(watched) == [], "the next run was due"
    assert "ping (ok) of backup to sentry monitor: given up" in (watched.root / "log" / "alert.log").read_text()


def test_a_failure_is_told_however_late_until_another_run_has_ended(watched: House) -> None:
    watched.receiver.always = Answer(503)
    watched.fail()
    watched.receiver.always, watched.receiver.heard = None, []
    alert.evaluate(watched.later(2 * DAY).context())
    assert pinged(watched) == ["/ping/fail"]
    assert [phase for phase, _run in checked_in(watched)] == ["error"]
    watched.receiver.always = Answer(503)
    watched.later(HOUR).fail()
    watched.later(HOUR).run()
    watched.receiver.always, watched.receiver.heard = None, []
    alert.evaluate(watched.later(HOUR / 2).context())
    assert pinged(watched) == ["/ping"], "the failure before it is over"


def test_a_plain_heartbeat_hears_of_no_old_success(tmp_path: Path, receiver: HttpReceiver) -> None:
    house = House(tmp_path, receiver, heartbeat={"url": receiver.url + "/ping", "style": "plain"})
    receiver.always = Answer(503)
    house.run()
    assert alerts_of(house)["severity"] == "critical", "there is nothing else"
    receiver.always, receiver.heard = None, []
    alert.evaluate(house.later(2 * HOUR).context())
    assert receiver.heard == []
    assert alerts_of(house)["channels"] == {"heartbeat": (True, 0)}, "nobody knows better"
    house.run()
    assert alerts_of(house)["channels"] == {"heartbeat": (False, 0)}


def test_a_watcher_that_asks_for_patience_has_it(watched: House) -> None:
    del watched.alerts["sentry"]
    watched.receiver.always = Answer(429, "", {"Retry-After": "1800"})
    watched.run()
    watched.receiver.always, watched.receiver.heard = None, []
    assert alert.evaluate(watched.later(HOUR / 4).context())["undelivered"] == 1
    assert watched.receiver.heard == []
    alert.evaluate(watched.later(HOUR / 4).context())
    assert pinged(watched) == ["/ping"]


# --- what channels do to it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Answer(500), "It answered 500"),
        (Answer(429, "", {"Retry-After": "3600"}), "It answered 429"),
        (HANG, "did not answer within 1 s"),
        (RESET, "cannot be reached"),
        (Answer(403, "invalid_token"), "invalid_token"),
    ],
)
def test_what_is_not_taken_waits_for_the_next_look(house: House, trouble: Any, said: str) -> None:
    house.receiver.always = trouble
    error = house.fail()
    assert any("slack: " in w and said in w for w in error.details["warnings"])
    assert all("secret-words" not in w for w in error.details["warnings"])
    known = status(house.context())
    assert known["alerts"]["undelivered"] == 1
    (finding,) = [f for f in known["findings"] if f["check"] == "alerts"]
    assert finding["severity"] == "critical", "nobody hears of anything"
    assert said in finding["text"]
    assert any("pgops alert test" in step for step in known["next"])
    assert "1 waiting" in render(known, False)
    before = len(house.receiver.heard)
    house.receiver.always = None
    if isinstance(trouble, Answer) and trouble.headers:
        house.later(HOUR / 2)
        assert alert.evaluate(house.context())["undelivered"] == 1, "the service asked for an hour"
        assert len(house.receiver.heard) == before
    house.later(HOUR)
    result = alert.evaluate(house.context())
    assert result["undelivered"] == 0
    assert [d["accepted"] for d in result["deliveries"]] == [True]
    assert house.said()[-1].startswith("CRITICAL: db1: The last backup failed")
    known = status(house.context())
    assert [f["severity"] for f in known["findings"] if f["check"] == "alerts"] == ["ok"]
    assert alert.evaluate(house.later(HOUR / 4).context())["deliveries"] == []


def test_a_moment_of_trouble_is_waited_out(house: House) -> None:
    pauses: list[float] = []
    for answer in (Answer(500), Answer(429, "", {"Retry-After": "2"})):
        house.receiver.answers.put(answer)
    context = house.context()
    found = alert_delivery.opened(context)
    held = state.State()
    made = [
        alert.message(
            level="critical",
            rank=2,
            text="x",
            key="",
            event="message",
            origin=alert.Origin("db1", "h"),
            redactor=context.redactor,
            now=NOW,
        )
    ]
    delivery.enqueue(held, found, made, context.clock)
    outcomes = delivery.deliver(held, found, context.redactor, context.clock, pause=pauses.append)
    assert [o.accepted for o in outcomes] == [True]
    assert pauses == [1.0, 2.0]
    assert len(house.receiver.heard) == 3


def test_whatever_a_channel_raises_is_a_message_not_taken(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Any, _notice: Any) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr("%s.send" % SLACK, broken)
    assert any("slack: RuntimeError: odd" in w for w in house.fail().details["warnings"])
    assert status(house.context())["alerts"]["undelivered"] == 1


def test_when_time_is_up_the_rest_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_BUDGET", -1.0)
    house.fail()
    assert house.receiver.heard == []
    monkeypatch.setattr(delivery, "_BUDGET", 60.0)
    assert [d["accepted"] for d in alert.evaluate(house.context())["deliveries"]] == [True]


def test_all_channels_down_at_once_costs_a_backup_nothing_but_time(tmp_path: Path, receiver: HttpReceiver) -> None:
    receiver.always = HANG
    dead = "http://127.0.0.1:1"
    house = House(
        tmp_path,
        receiver,
        slack={"webhook_url": receiver.url + "/slack"},
        pagerduty={"routing_key": KEY, "url": dead + "/v2/enqueue"},
        sentry={"dsn": "https://%s@no-such-host.invalid/1" % KEY},
        email={"to": ["a@example.com"], "sendmail": "/no/such/sendmail"},
        webhook={"url": receiver.url.replace("http:", "https:")},
        heartbeat={"url_file": "/no/such/file"},
        apprise={"urls": "json://127.0.0.1:1/"},
    )
    begun = time.monotonic()
    error = house.fail()
    assert time.monotonic() - begun < 50
    said = " ".join(error.details["warnings"])
    for name in ("slack", "pagerduty", "sentry", "email", "webhook", "heartbeat", "apprise"):
        assert "%s: " % name in said, name
    assert status(house.context())["alerts"]["undelivered"] == 7, "the heartbeat waits, too"
    with pytest.raises(UnreachableError, match="7 of 7 channels did not accept"):
        alert.test(house.context())


def test_one_channel_down_does_not_keep_the_others(house: House, plain_mail_server: MailServer) -> None:
    house.alerts["email"] = {
        "to": ["a@example.com"],
        "smtp_host": "localhost",
        "smtp_port": plain_mail_server.port,
        "security": "none",
    }
    house.receiver.always = RESET
    house.fail()
    assert len(plain_mail_server.mails.taken) == 1
    known = status(house.context())["alerts"]
    assert [(c["channel"], c["waiting"]) for c in known["channels"]] == [("slack", 1), ("email", 0)]
    finding = next(f for f in status(house.context())["findings"] if f["check"] == "alerts")
    assert finding["severity"] == "warning"


def _by_mail(house: House, server: MailServer, *to: str) -> None:
    section = {"to": list(to), "smtp_host": "localhost", "smtp_port": server.port, "security": "none"}
    house.alerts = {"email": section}


def test_an_address_that_is_refused_does_not_keep_the_others_from_their_mail(
    house: House, plain_mail_server: MailServer
) -> None:
    mails = plain_mail_server.mails
    mails.refused = {"b@example.com": "550 no such user"}
    _by_mail(house, plain_mail_server, "a@example.com", "b@example.com")
    error = house.fail("sync")
    assert any("1 of 2" in w and "b@example.com (550 no such user)" in w for w in error.details["warnings"])
    alert.evaluate(house.later(HOUR).context())
    assert len(mails.taken) == 1, "a heard of it"
    house.later(HOUR).run("sync")
    assert [m.rcpt_tos for m in mails.taken] == [["a@example.com"]] * 2, "and hears of its end"
    known = status(house.context())
    assert known["alerts"]["undelivered"] == 0
    (finding,) = [f for f in known["findings"] if f["check"] == "alerts"]
    assert finding["severity"] == "warning"
    assert "b@example.com" in finding["text"]
    assert "b@example.com" in render(known, False)
    with pytest.raises(UnreachableError, match="1 of 1 channels did not accept it"):
        alert.test(house.context())
    mails.refused = {}
    alert.test(house.context())
    assert "b@example.com" not in render(status(house.context()), False)


def test_an_address_that_refuses_for_now_gets_it_later_and_nobody_twice(
    house: House, plain_mail_server: MailServer
) -> None:
    mails = plain_mail_server.mails
    both, later = ["a@example.com", "b@example.com"], "451 come back later"
    mails.refused = {"b@example.com": later, "c@example.com": "550 no such user"}
    _by_mail(house, plain_mail_server, *both, "c@example.com")
    warnings = house.fail("sync").details["warnings"]
    assert any("not for 2 of 3: b@example.com (451" in w and "c@example.com (550" in w for w in warnings)
    assert [to for to, _subject in mails.got()] == [["a@example.com"]]
    known = status(house.context())
    assert known["alerts"]["undelivered"] == 1
    assert "b@example.com" in next(f for f in known["findings"] if f["check"] == "alerts")["text"]
    house.later(HOUR).run("sync")
    told = [(to, subject.split(":")[0]) for to, subject in mails.got()]
    assert told == [(["a@example.com"], "CRITICAL"), (["a@example.com"], "RECOVERED")], "nobody has it twice"
    # Away altogether, the server refuses nobody.
    house.alerts["email"]["smtp_port"] = 1
    assert alert.evaluate(house.later(HOUR / 4).context())["undelivered"] == 2
    assert next(f for f in status(house.context())["findings"] if f["check"] == "alerts")["severity"] == "critical"
    house.alerts["email"]["smtp_port"] = plain_mail_server.port
    mails.refused.pop("b@example.com")
    assert alert.evaluate(house.later(HOUR / 4).context())["undelivered"] == 0
    told = [(to, subject.split(":")[0]) for to, subject in mails.got()][2:]
    assert told == [(["b@example.com"], "CRITICAL"), (["b@example.com"], "RECOVERED")], "in order"
    known = status(house.context())
    assert "c@example.com" in next(f for f in known["findings"] if f["check"] == "alerts")["text"]
    assert alert.evaluate(house.later(HOUR / 4).context())["deliveries"] == [], (
        "who refuses for good is not asked again"
    )


def test_a_mail_that_is_refused_for_the_rest_holds_up_nothing(house: House, plain_mail_server: MailServer) -> None:
    """One address took it; for the other, who had refused it for now, the server refuses the mail itself."""
    mails = plain_mail_server.mails
    mails.refused = {"b@example.com": "451 later"}
    _by_mail(house, plain_mail_server, "a@example.com", "b@example.com")
    house.fail("sync")
    mails.refused, mails.poison, mails.at_poison = {}, b"sync", "554 spam"
    alert.evaluate(house.later(HOUR / 4).context())
    assert status(house.context())["alerts"]["undelivered"] == 0, "it is not asked for again"
    house.fail("prune", "Another reason.")
    assert [to for to, subject in mails.got() if "prune" in subject] == [["a@example.com", "b@example.com"]]


def test_an_address_that_is_put_off_is_left_out_of_nothing(house: House, plain_mail_server: MailServer) -> None:
    """What it was not asked for, as it had refused something older, comes to it as well, whatever others say to that."""
    mails = plain_mail_server.mails
    first, second = "a@example.com", "b@example.com"
    mails.refused = {first: "452 later", second: "450 later"}
    _by_mail(house, plain_mail_server, first, second)
    house.fail("sync")
    # One look in which the first takes the older mail, and none of what is behind that.
    took = mails.handle_RCPT

    async def at_its_limit(server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address == first and any(first in to for to, _subject in mails.got()):
            return "452 too much at once"
        return await took(server, session, envelope, address, options)

    mails.handle_RCPT = at_its_limit  # type: ignore[method-assign]
    mails.refused.pop(first)
    house.fail("prune", "Another reason.")
    mails.handle_RCPT, mails.refused = took, {}  # type: ignore[method-assign]
    for _look in range(2):
        alert.evaluate(house.later(HOUR / 4).context())
    assert status(house.context())["alerts"]["undelivered"] == 0
    for verb in ("sync", "prune"):
        got = sorted(address for to, subject in mails.got() for address in to if verb in subject)
        assert got == [first, second], "each of them, and nobody twice"


def test_an_address_that_refuses_for_a_day_is_given_up(house: House, plain_mail_server: MailServer) -> None:
    mails = plain_mail_server.mails
    mails.refused = {"b@example.com": "451 later"}
    _by_mail(house, plain_mail_server, "a@example.com", "b@example.com")
    house.fail("prune")
    context = house.later(DAY - HOUR).context()
    alert.evaluate(context)
    context = house.later(HOUR).context()
    alert.evaluate(context)
    assert any("given up: Not taken for b@example.com (451 later)" in w for w in context.warnings)
    held, _unused = state.load(house.state.parent)
    assert [w.notice.event for w in held.queue] == ["repeated"], "that one is younger"
    mails.refused = {"b@example.com": "550 no"}
    alert.evaluate(house.later(HOUR / 4).context())
    assert status(house.context())["alerts"]["undelivered"] == 0, "now it refuses for good"
    assert {tuple(to) for to, _subject in mails.got()} == {("a@example.com",)}


def test_addresses_that_all_refuse_are_asked_again_as_they_said(house: House, plain_mail_server: MailServer) -> None:
    mails = plain_mail_server.mails
    mails.refused = {"a@example.com": "550 no", "b@example.com": "451 later"}
    _by_mail(house, plain_mail_server, "a@example.com", "b@example.com")
    house.fail("sync")
    assert next(f for f in status(house.context())["findings"] if f["check"] == "alerts")["severity"] == "critical"
    # Who refused for good is another one now, who is not asked for this one.
    mails.refused = {}
    alert.evaluate(house.later(HOUR / 4).context())
    assert [to for to, _subject in mails.got()] == [["b@example.com"]]
    assert "a@example.com, refused for good" in " ".join(render(status(house.context()), False).split())
    # Nobody is left of those who were to have it.
    mails.refused = {"b@example.com": "451 later"}
    _by_mail(house, plain_mail_server, "b@example.com", "d@example.com")
    house.fail("prune")
    _by_mail(house, plain_mail_server, "d@example.com")
    assert alert.evaluate(house.later(HOUR / 4).context())["undelivered"] == 0
    assert [to for to, _subject in mails.got()][1:] == [["d@example.com"]]


def test_a_mail_that_may_have_been_taken_comes_seldom_and_holds_up_nothing(
    house: House, plain_mail_server: MailServer
) -> None:
    mails = plain_mail_server.mails
    mails.silent = True
    _by_mail(house, plain_mail_server, "a@example.com")
    house.alerts["timeout"] = 1
    house.fail("sync")
    assert len(mails.taken) == 1
    alert.evaluate(house.later(HOUR / 4).context())
    assert len(mails.taken) == 2, "once more, as nobody knows"
    for _unused in range(3):
        alert.evaluate(house.later(HOUR / 4).context())
    assert len(mails.taken) == 2
    mails.silent = False
    house.fail("prune")
    assert [subject for _to, subject in mails.got()][2:] == [
        "WARNING: db1: The last prune failed: No route to the server."
    ]
    alert.evaluate(house.later(HOUR / 4).context())
    assert len(mails.taken) == 4
    assert status(house.context())["alerts"]["undelivered"] == 0
    mails.silent = True
    house.later(HOUR).fail("verify")
    alert.evaluate(house.later(HOUR / 4).context())
    mails.silent = False
    assert any("Given up what email never took" in w for w in house.later(HOUR / 4).run("verify")["warnings"])
    count = len(mails.taken)
    alert.evaluate(house.later(2 * HOUR).context())
    assert len(mails.taken) == count, "an alarm that may have arrived does not come behind its end"


def test_what_is_never_answered_is_given_up_after_a_day(house: House, plain_mail_server: MailServer) -> None:
    plain_mail_server.mails.silent = True
    _by_mail(house, plain_mail_server, "a@example.com")
    house.alerts["timeout"] = 1
    house.fail("prune")
    context = house.later(DAY).context()
    alert.evaluate(context)
    assert any("Given up what email never took" in w for w in context.warnings)
    known = status(house.context())
    assert known["alerts"]["dropped"] == 1
    assert next(f for f in known["findings"] if f["check"] == "alerts")["severity"] == "critical"


def test_an_address_of_apprise_that_is_dead_does_not_keep_the_others_from_their_message(house: House) -> None:
    address = house.receiver.url.replace("http://", "json://")
    house.alerts = {"apprise": {"urls": "%s/one json://127.0.0.1:1/" % address}}
    error = house.fail("sync")
    assert any("1 of 2" in w for w in error.details["warnings"])
    alert.evaluate(house.later(HOUR).context())
    house.later(HOUR).run("sync")
    assert len(house.receiver.of("/one")) == 2


@pytest.mark.parametrize("refusal", ["554 this is spam", "451 come back later"])
def test_a_message_that_is_never_taken_does_not_hold_up_those_behind_it_for_good(
    house: House, plain_mail_server: MailServer, refusal: str
) -> None:
    mails = plain_mail_server.mails
    mails.poison, mails.at_poison = b"poison", refusal
    _by_mail(house, plain_mail_server, "a@example.com")
    with pytest.raises(UnreachableError):
        alert.send(house.context(), alert.Message("critical", "This is poison."))
    if refusal.startswith("4"):
        with pytest.raises(UnreachableError, match="waits behind"):
            alert.send(house.context(), alert.Message("critical", "It may work later: the order is kept."))
        house.later(DAY + HOUR)
    context = house.context()
    alert.send(context, alert.Message("critical", "This is none."))
    assert any("email never took: CRITICAL: db1: This is poison." in w for w in context.warnings)
    assert len(mails.taken) == (2 if refusal.startswith("4") else 1)
    known = status(house.context())
    assert (known["alerts"]["dropped"], known["alerts"]["undelivered"]) == (1, 0)
    assert "1 message was never taken" in render(known, False)
    assert [f["severity"] for f in known["findings"] if f["check"] == "alerts"] == ["ok"]


def test_a_channel_that_is_away_for_days_loses_nothing(house: House) -> None:
    house.receiver.always = RESET
    house.fail("sync")
    house.later(2 * DAY).run("sync")
    before = len(house.receiver.heard)
    alert.evaluate(house.later(DAY).context())
    assert len(house.receiver.heard) - before <= 4, "what is old is tried once, and not all of it"
    house.receiver.always = None
    alert.evaluate(house.later(HOUR).context())
    assert [text.split(":")[0] for text in house.said()[-2:]] == ["CRITICAL", "RECOVERED"]
    assert status(house.context())["alerts"]["dropped"] == 0


def test_dead_channels_do_not_take_the_turn_of_one_that_works(
    tmp_path: Path, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_BUDGET", 6.0)
    dead, live = HttpReceiver(), receiver
    dead.always = HANG
    house = House(
        tmp_path,
        live,
        slack={"webhook_url": dead.url + "/slack"},
        pagerduty={"routing_key": KEY, "url": dead.url + "/v2/enqueue"},
        webhook={"url": live.url + "/hook"},
    )
    house.alerts["timeout"] = 30
    try:
        begun = time.monotonic()
        house.fail()
        assert time.monotonic() - begun < 30, "the timeout of one channel"
        assert len(live.of("/hook")) == 1
        assert len(dead.heard) == 2, "each had its turn"
        house.later(HOUR)
        dead.heard.clear()
        monkeypatch.setattr(dead, "hear", lambda _request: order.append("dead"))
        monkeypatch.setattr(live, "hear", lambda request: (order.append("live"), HttpReceiver.hear(live, request)))
        order: list[str] = []
        house.run()
        assert order[:1] == ["live"], "who is known to fail waits for the others"
        assert "dead" in order
    finally:
        dead.close()


def test_what_waits_keeps_its_order_and_has_an_end(house: House) -> None:
    house.receiver.always = Answer(500)
    house.fail()
    house.later(HOUR).run()
    house.later(HOUR).fail()
    house.receiver.always = None
    alert.evaluate(house.later(HOUR).context())
    assert [text.split(":")[0] for text in house.said() if "failed" in text][-3:] == [
        "CRITICAL",
        "RECOVERED",
        "CRITICAL",
    ]
    house.receiver.always = Answer(500)
    held = state.State()
    found = alert_delivery.opened(house.context())
    for n in range(130):
        made = alert.message(
            level="critical",
            rank=2,
            text="%d" % n,
            key="",
            event="message",
            origin=alert.Origin("db1", "h"),
            redactor=house.context().redactor,
            now=NOW,
        )
        delivery.enqueue(held, found, [made], house.context().clock)
    assert len(held.queue) == 100
    assert held.dropped == 30
    assert held.queue[0].notice.text == "30", "the oldest go first"


def test_a_reminder_does_not_wait_behind_what_says_the_same(house: House) -> None:
    house.receiver.always = Answer(500)
    house.fail()
    for _unused in range(6):
        alert.evaluate(house.later(12 * HOUR).context())
    waiting, _unused = state.load(house.state.parent)
    assert [w.notice.event for w in waiting.queue if w.notice.cause == "failed-run/backup"] == ["opened", "escalated"]


def test_a_channel_that_is_taken_away_takes_what_waits_with_it(house: House) -> None:
    house.receiver.always = Answer(500)
    house.fail()
    house.alerts = {"webhook": {"url": house.receiver.url + "/hook"}}
    house.receiver.always = None
    assert alert.evaluate(house.context())["undelivered"] == 0


# --- the state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 99}', b"\xff\xfe", b'{"format": 1, "incidents": 3}']
)
def test_a_state_that_is_damaged_is_set_aside_and_that_is_said(house: House, content: bytes | str) -> None:
    house.fail()
    if isinstance(content, str):
        content = json.dumps({**json.loads(house.state.read_text()), content: {"sets": [{"id": "x"}]}}).encode()
    house.state.write_bytes(content)
    error = house.later(HOUR).fail()
    (warning,) = [w for w in error.details["warnings"] if "could not be read" in w]
    (aside,) = house.state.parent.glob("alerts.json.damaged-*")
    assert aside.name in warning
    assert aside.read_bytes() == content
    assert len(house.said()) == 2, "what is open is told again rather than never"
    assert not [w for w in house.later(HOUR).fail().details["warnings"] if "could not be read" in w]


def torn(house: House, *, copy: bool) -> House:
    """Damage what the alerts remember, the copy too unless it is to stay."""
    house.state.write_bytes(house.state.read_bytes()[:-40])
    if not copy:
        house.state.with_name("alerts.json.copy").write_text("{")
    return house


DAMAGED = "(What the alerts remembered was damaged: this may have been told before.)"


@pytest.mark.parametrize("copy", [True, False])
def test_after_damage_what_is_open_is_found_again_told_once_more_and_its_end_too(scheduled: House, copy: bool) -> None:
    """A missed run, a database that no backup holds, and a restore that nobody tried: nothing of them is in the newest record."""

    def told() -> list[tuple[str, str, bool]]:
        found = [h.json for h in scheduled.receiver.of("/hook")]
        scheduled.receiver.heard.clear()
        wanted = ("missed-run/backup", "restore-test", "uncovered")
        return sorted((h["cause"], h["event"], DAMAGED in h["text"]) for h in found if h["cause"] in wanted)

    def ends(*names: str) -> None:
        entries = [{"what": "database " + name, "why": "it is not in backup.databases"} for name in names]
        scheduled.run(uncovered=entries, bytes=1)

    scheduled.alerts = {"webhook": {"url": scheduled.receiver.url + "/hook"}, "restore_test": "2d"}
    scheduled.alerts.update(repeat="9d", escalate_after="9d")
    scheduled.now = NOW.replace(hour=1)
    os.utime(scheduled.root / "pgops", (scheduled.now.timestamp(), scheduled.now.timestamp()))
    ends("old")
    scheduled.later(HOUR / 4)
    ends("old", "new")
    scheduled.now = NOW.replace(hour=1) + 3 * DAY
    alert.evaluate(scheduled.context())
    assert [(cause, event) for cause, event, _damage in told()] == [
        ("missed-run/backup", "opened"),
        ("restore-test", "opened"),
        ("uncovered", "opened"),
    ]
    shown = {i["cause"] for i in status(torn(scheduled, copy=copy).later(HOUR / 4).context())["incidents"]}
    assert {"missed-run/backup", "restore-test", "uncovered"} <= shown
    alert.evaluate(scheduled.context())
    event = "repeated" if copy else "opened"
    assert told() == [
        ("missed-run/backup", event, True),
        ("restore-test", event, True),
        ("uncovered", event, True),
    ]
    alert.evaluate(scheduled.later(HOUR / 4).context())
    assert told() == [], "once"
    scheduled.later(HOUR).run("restore")
    ends("old")
    assert [(cause, event) for cause, event, _damage in told()] == [
        ("missed-run/backup", "recovered"),
        ("restore-test", "recovered"),
        ("uncovered", "recovered"),
    ]


def test_what_ended_unseen_after_damage_is_told_by_the_copy(house: House) -> None:
    house.alerts["repeat"] = "0s"
    alert.send(house.context(), alert.Message("critical", "2 hosts.", "fleet", once=True))
    house.fail("sync")
    house.receiver.heard.clear()
    torn(house, copy=True).later(HOUR).run("sync")
    assert [text.partition(": db1: ")[0] for text in house.said() if "last sync" in text] == ["RECOVERED"]
    assert alert.send(house.context(), alert.Message("ok", "All.", "fleet", once=True))["changed"]


def test_a_message_after_damage_takes_nothing_from_the_next_look(house: House) -> None:
    """Who only tells something finds the damage, and does not look."""
    house.fail("sync")
    house.receiver.heard.clear()
    alert.send(torn(house, copy=True).later(HOUR).context(), alert.Message("critical", "Words."))
    assert len(house.said()) == 1
    alert.evaluate(house.context())
    assert [DAMAGED in str(h.json) for h in house.receiver.of("/slack")][1:] == [True]


def test_of_damaged_states_the_newest_are_kept(house: House) -> None:
    for _unused in range(6):
        house.fail()
        torn(house.later(HOUR), copy=True)
    alert.evaluate(house.context())
    kept = sorted(p.name for p in house.state.parent.glob("alerts.json.damaged-*"))
    assert kept == ["alerts.json.damaged-20261122T%02d0000Z" % (8 + n) for n in (4, 5, 6)]


# --- a channel that is new --------------------------------------------------------------------------------------------


def test_a_channel_that_is_turned_on_hears_once_of_what_is_open(house: House) -> None:
    house.fail("sync")
    house.later(HOUR).run("sync")
    house.fail("prune")
    house.receiver.heard.clear()
    house.alerts["webhook"] = {"url": house.receiver.url + "/hook"}
    result = alert.evaluate(house.later(HOUR).context(), dry_run=True)
    assert [(n["event"], n["cause"]) for n in result["told"]] == [("repeated", "failed-run/prune")]
    result = alert.evaluate(house.context())
    assert [(d["channel"], d["cause"]) for d in result["deliveries"]] == [("webhook", "failed-run/prune")]
    (heard,) = house.receiver.of("/hook")
    assert (heard.json["event"], heard.json["cause"]) == ("repeated", "failed-run/prune")
    assert heard.json["text"].startswith("The last prune failed")
    assert house.said() == [], "who has heard of it is left in peace"
    alert.evaluate(house.later(HOUR).context())
    assert len(house.receiver.of("/hook")) == 1
    house.run("prune")
    assert [h.json["event"] for h in house.receiver.of("/hook")] == ["repeated", "recovered"]
    # Off and on again: what has opened meanwhile is new to it.
    hook = house.alerts.pop("webhook")
    house.fail("prune")
    house.alerts["webhook"] = hook
    alert.evaluate(house.later(HOUR).context())
    assert len(house.receiver.of("/hook")) == 3


def test_a_new_channel_hears_of_its_level_only_and_after_quiet_hours(house: House) -> None:
    house.fail("sync")
    house.fail("prune")
    house.receiver.heard.clear()
    house.alerts["webhook"] = {"url": house.receiver.url + "/hook"}
    house.alerts["pagerduty"] = {"routing_key": KEY, "url": house.receiver.url + "/v2/enqueue", "level": "critical"}
    house.alerts["quiet_hours"] = "08:00-10:00"
    alert.evaluate(house.later(HOUR).context())
    assert [h.json["cause"] for h in house.receiver.of("/hook")] == ["failed-run/sync"]
    assert [h.json["event_action"] for h in house.receiver.of("/v2")] == ["trigger"]
    alert.evaluate(house.later(HOUR + HOUR / 4).context())
    assert [h.json["cause"] for h in house.receiver.of("/hook")] == ["failed-run/sync", "failed-run/prune"]
    assert len(house.receiver.of("/v2")) == 1


def test_a_damaged_state_is_shown_in_status(house: House) -> None:
    house.fail()
    house.state.write_text("{")
    known = status(house.context())
    assert next(f for f in known["findings"] if f["check"] == "alerts")["severity"] == "warning"
    assert house.state.read_text() == "{", "status changes nothing"


def test_the_state_is_read_back_as_it_was(house: House) -> None:
    house.receiver.always = Answer(503, "", {"Retry-After": "99", "Date": "Sun, 22 Nov 2026 08:00:00 GMT"})
    house.fail()
    held, trouble = state.load(house.state.parent)
    assert not trouble
    assert state.from_data(json.loads(json.dumps(held.as_data()))) == held
    assert held.queue[0].not_before == NOW + timedelta(seconds=99)


def test_a_state_that_cannot_be_written_is_told_and_so_is_the_trouble(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_unused: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(alert_delivery, "save", full)
    error = house.fail()
    assert any("may be told again" in w for w in error.details["warnings"])
    assert len(house.said()) == 1


def test_on_a_full_disk_each_thing_is_told_once_and_not_with_every_look(house: House) -> None:
    def said(*, of_the_disk: bool = False) -> list[str]:
        return [text for text in house.said() if ("leave no record" in text) == of_the_disk]

    with small_disk(4) as disk:
        (house.root / "state").symlink_to(disk)
        # The records of the runs find room, as the failures are to be known.
        (house.root / "runs").mkdir()
        (disk / "db1").mkdir()
        (disk / "db1" / "runs").symlink_to(house.root / "runs")
        house.run("sync")
        ballast = fill(disk)
        error = house.later(HOUR).fail("sync")
        assert any("could not be remembered" in w for w in error.details["warnings"])
        assert said() == ["CRITICAL: db1: The last sync failed: No route to the server."]
        for _unused in range(4):
            alert.evaluate(house.later(HOUR / 4).context())
        house.fail("sync")
        house.fail("prune")
        house.fail("prune")
        assert len(said()) == 2, "what is new is told, once"
        assert len(said(of_the_disk=True)) == 1, "and that the disk is full"
        for _unused in range(2):
            alert.send(house.later(HOUR / 4).context(), alert.Message("critical", "Words of a person."))
        assert len(said()) == 4, "what a person says is told each time"
        house.later(DAY).fail("sync")
        assert len([text for text in said()[4:] if "The last sync failed" in text]) == 1, "it lasts"
        count = len(said())
        ballast.unlink()
        alert.evaluate(house.later(HOUR / 4).context())
        assert len(said()) == count, "nor is it told when there is room again"
        assert not list((house.state.parent / "locks").glob("*.told"))
        held, _unused = state.load(house.state.parent)
        assert held.queue == []
        assert held.incidents["failed-run/sync"].told
        house.later(HOUR / 4).run("sync")
        assert house.said()[-1].startswith("RECOVERED")


def test_what_was_taken_while_the_disk_is_full_is_not_sent_again(house: House) -> None:
    """The state that lies there still holds it."""
    with small_disk(4) as disk:
        (house.root / "state").symlink_to(disk)
        house.receiver.always = Answer(500)
        house.fail()
        fill(disk)
        house.receiver.always, house.receiver.heard = None, []
        for _unused in range(4):
            alert.evaluate(house.later(HOUR / 4).context())
        # That the disk is full is told once as well.
        assert sorted("leave no record" in text for text in house.said()) == [False, True]


def test_two_looks_at_once_do_not_tell_twice(house: House) -> None:
    house.fail()
    house.later(4 * DAY)
    threads = [threading.Thread(target=lambda: alert.evaluate(house.context())) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([text for text in house.said() if "The last backup failed" in text]) == 2, (
        "the alarm, and the escalation"
    )


def test_a_look_that_lasts_keeps_no_run_from_its_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_delivery, "PATIENCE", timedelta(seconds=0.2))
    with hold(house.state.parent / "locks" / "alerts.lock", "alerts of db1", clock=lambda: NOW):
        result = house.run()
        assert any("Another run is in the way" in w for w in result["warnings"])
        with pytest.raises(BusyError):
            alert.evaluate(house.context())


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), RuntimeError("odd"), PgopsError("odd")])
def test_whatever_goes_wrong_in_a_look_the_run_ends_as_it_did(
    house: House, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    def broken(*_unused: Any, **_others: Any) -> Any:
        raise trouble

    monkeypatch.setattr(alert, "gather", broken)
    assert any("not looked after" in w for w in house.run()["warnings"])
    house.fail()
    monkeypatch.setattr(alert_runs, "beating", broken)
    monkeypatch.setattr(alert_watchers, "beating", broken)
    if not isinstance(trouble, KeyboardInterrupt):
        assert any("could not be told" in w for w in house.run()["warnings"])


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="scheduled")
def scheduled_house(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose host starts the jobs by itself."""
    table = house.root / "pgops"
    table.write_text("# Instance db1\n")
    places = alert_facts.Places(cron_table=table, units=house.root)
    monkeypatch.setattr(alert_facts, "Places", lambda: places)
    return house


def causes(result: dict[str, Any]) -> list[str]:
    return sorted(t["cause"] for t in result["troubles"])


def test_silence_is_heard(scheduled: House) -> None:
    scheduled.now = NOW.replace(hour=1, minute=30)
    assert causes(alert.evaluate(scheduled.context())) == ["backup-age", "verification-age"]
    assert scheduled.said() == [], "the first night is still to come"
    scheduled.now = NOW.replace(hour=2, minute=45)
    assert "missed-run/backup" not in causes(alert.evaluate(scheduled.context()))
    scheduled.now = NOW.replace(hour=3, minute=1)
    alert.evaluate(scheduled.context())
    assert scheduled.said() == ["CRITICAL: db1: The backup that was due at 2026-11-22 02:00 +0000 has not run."]
    # Nobody is told of what nobody here would start.
    scheduled.others["schedule"] = {"backup": ""}
    assert "missed-run/backup" not in causes(alert.evaluate(scheduled.context()))


def test_a_new_calendar_counts_from_now_on(scheduled: House) -> None:
    scheduled.now = NOW.replace(hour=1)
    scheduled.others["schedule"] = {"verify": "", "prune": ""}
    alert.evaluate(scheduled.context())
    scheduled.now = NOW.replace(hour=12)
    scheduled.others["schedule"]["backup"] = "0 10 * * *"
    assert "missed-run/backup" not in causes(alert.evaluate(scheduled.context()))
    scheduled.later(DAY)
    assert "missed-run/backup" in causes(alert.evaluate(scheduled.context()))


def test_a_run_at_work_is_seen_by_its_lock(scheduled: House) -> None:
    scheduled.now = NOW.replace(hour=1)
    alert.evaluate(scheduled.context())
    begun = NOW.replace(hour=2)
    path = scheduled.state.parent / "locks" / "backup.lock"
    with hold(path, "backup of db1", clock=lambda: begun):
        assert holder(path) == Holder(os.getpid(), begun.isoformat())
        scheduled.now = NOW.replace(hour=5)
        assert "missed-run/backup" not in causes(alert.evaluate(scheduled.context()))
        scheduled.now = begun + DAY + HOUR
        assert "late-run/backup" in causes(alert.evaluate(scheduled.context()))
    assert holder(path) is None
    path.write_text(json.dumps({"pid": os.getpid(), "since": "some day", "what": "x"}))
    assert "late-run/backup" not in causes(alert.evaluate(scheduled.context()))


def test_a_run_that_was_killed_is_told_until_another_one_has_ended(scheduled: House) -> None:
    def said() -> list[str]:
        return [text.partition(": db1: ")[0] for text in scheduled.said() if "cut short" in text]

    scheduled.run("sync")
    path = scheduled.state.parent / "locks" / "sync.lock"
    begun = scheduled.later(HOUR).now
    path.write_text(json.dumps({"pid": 2**22 + 1, "since": begun.isoformat(), "what": "sync of db1"}))
    assert holder(path) == Holder(2**22 + 1, begun.isoformat(), alive=False)
    alert.evaluate(scheduled.later(HOUR / 4).context())
    assert said() == ["CRITICAL"]
    assert "The sync that began at %s" % begun.strftime("%Y-%m-%d %H:%M:%S") in scheduled.said()[-1]
    # Another one that is at work is not yet one that succeeded.
    with hold(path, "sync of db1", clock=lambda: scheduled.now):
        alert.evaluate(scheduled.later(HOUR / 4).context())
    assert said() == ["CRITICAL"]
    # A verification passes by and wipes the sign; that mends nothing.
    with hold(path, "verify of db1", clock=lambda: scheduled.now, shared=True):
        pass
    alert.evaluate(scheduled.later(HOUR / 4).context())
    assert said() == ["CRITICAL"]
    scheduled.later(HOUR).run("sync")
    assert said() == ["CRITICAL", "RECOVERED"]


def test_a_prune_is_no_backup_though_it_holds_that_lock(scheduled: House) -> None:
    scheduled.run()
    locks, begun = scheduled.state.parent / "locks", scheduled.now
    with (
        hold(locks / "backup.lock", "backup of db1", clock=lambda: begun),
        hold(locks / "sets.lock", "sets of db1", clock=lambda: begun),
    ):
        found = causes(alert.evaluate(scheduled.later(8 * DAY).context()))
        assert [cause for cause in found if cause.startswith("late-run")] == ["late-run/prune"]


def test_a_database_that_is_in_no_backup_is_told_when_it_appears(house: House) -> None:
    def told(*names: str, why: str = "it is not in backup.databases") -> bool:
        house.later(HOUR).run(uncovered=[{"what": name, "why": why} for name in names])
        return "uncovered" in causes(alert.evaluate(house.context()))

    old, new = "database old", "database new"
    assert not told(old), "what was there at first is somebody's choice"
    assert not told(old, "schema x of database y")
    assert told(old, new)
    assert not told(old, new, why="it is in backup.exclude_databases")
    assert told(old), "what was gone for a while is new when it comes back"


def test_records_that_nobody_understands_are_passed_over(house: House) -> None:
    house.fail()
    folder = house.state.parent / "runs"
    for name, content in (
        ("20991231T000000Z-backup-1.json", "[]"),
        ("20991230T000000Z-backup-1.json", '{"outcome": "ok"}'),
    ):
        (folder / name).write_text(content)
    assert "failed-run/backup" in causes(alert.evaluate(house.context()))


def test_a_restore_that_was_tried_counts_as_a_test(house: House) -> None:
    house.alerts["restore_test"] = "30d"
    house.run("restore")
    assert "restore-test" not in causes(alert.evaluate(house.later(29 * DAY).context()))
    assert "restore-test" in causes(alert.evaluate(house.later(2 * DAY).context()))


def test_a_dry_look_tells_nobody_and_remembers_nothing(house: House) -> None:
    house.receiver.always = Answer(500)
    house.fail()
    before = house.state.read_bytes(), len(house.receiver.heard)
    result = alert.evaluate(house.later(4 * DAY).context(), dry_run=True)
    assert (result["told"][0]["event"], result["told"][0]["cause"]) == ("escalated", "failed-run/backup")
    assert (house.state.read_bytes(), len(house.receiver.heard)) == before


def test_a_look_fails_when_something_new_was_not_taken_and_once_only(house: House) -> None:
    house.receiver.always = Answer(500)
    house.now = NOW
    house.run("restore")
    house.alerts["restore_test"] = "1d"
    with pytest.raises(UnreachableError, match="slack did not take an alert: It answered 500") as caught:
        alert.evaluate(house.later(2 * DAY).context())
    assert caught.value.details["undelivered"] >= 1
    alert.evaluate(house.later(HOUR / 4).context())


def test_a_storm_of_hosts_is_one_group_and_an_incident_each(tmp_path: Path, receiver: HttpReceiver) -> None:
    """Five hundred hosts lose their store in one night, while one of the services asks for patience."""
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    context = House(
        tmp_path, receiver, pagerduty={"routing_key": KEY, "url": receiver.url + "/v2/enqueue"}, sentry={"dsn": dsn}
    ).context()
    found = alert_delivery.opened(context)
    trouble = alert_facts.Facts(judged=[Finding("off-site place", "critical", "The bucket is gone.")])
    for n in range(500):
        held = state.State()
        now = NOW + HOUR
        current = alert.troubles(trouble, alert_facts.Limits(), NOW)
        held.incidents, _unused = alert.advance({}, current, alert.policy(context), NOW)
        held.incidents, tellings = alert.advance(held.incidents, current, alert.policy(context), now)
        notices = [alert.notice(t, alert.Origin("db%d-main" % n, "db%d" % n), context.redactor, now) for t in tellings]
        delivery.enqueue(held, found, notices, context.clock)
        if n % 5 == 0:
            receiver.answers.put(Answer(429, "", {"Retry-After": "1"}))
        delivery.deliver(held, found, context.redactor, context.clock)
        assert held.queue == []
    events = [h.json for h in receiver.of("/v2/enqueue")]
    accepted = {e["dedup_key"] for e in events}
    assert len(accepted) == 500
    assert {e["payload"]["group"] for e in events} == {"pgops/offsite-place"}
    issues = {tuple(json.loads(h.body.split(b"\n")[2])["fingerprint"]) for h in receiver.of("/api")}
    assert issues == {("pgops", "pgops/offsite-place")}


def test_five_hundred_hosts_with_one_trouble_are_one_message_by_slack_and_by_mail(
    house: House, plain_mail_server: MailServer
) -> None:
    """As the playbook status has it, from what the program says of a host to what people get, each hour for a day."""
    lost = {"item": {"key": "main"}, "stdout": json.dumps(status(house.context())), "rc": 0}
    well = {**lost, "stdout": json.dumps({"findings": [], "places": [], "safe": []})}
    house.alerts["email"] = {"to": ["a@example.com"], "smtp_host": "localhost", "security": "none"}
    house.alerts["email"]["smtp_port"] = plain_mail_server.port
    names = ["db%03d" % n for n in range(500)]

    def ask(said: dict[str, Any], order: list[str]) -> tuple[int, int]:
        reports = {"pgops_report": {"trouble": [], "instances": assessment([said]), "uncovered": []}}
        fleet = summary(order, dict.fromkeys(order, reports))["fleet"]
        alert.send(house.context(), alert.Message(fleet["level"], fleet["text"], "fleet-databases", once=True))
        return len(house.receiver.of("/slack")), len(plain_mail_server.mails.taken)

    assert {ask(lost, names if hour % 2 else names[::-1]) for hour in range(23) if house.later(HOUR)} == {(1, 1)}
    assert "500 of 500 hosts are not protected." in house.said()[0]
    assert (
        "backup: 500 (db000, db001, db002, db003, db004 and 495 more)" in house.receiver.of("/slack")[0].body.decode()
    )
    assert ask(lost, names) == (1, 1)
    house.later(2 * HOUR)
    assert ask(lost, names) == (2, 2), "again after a day"
    assert {ask(well, names) for _hour in range(3) if house.later(HOUR)} == {(3, 3)}
    assert house.said()[-1] == "RECOVERED: db1: All 500 hosts are protected."


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_told_and_ended_by_its_key(tmp_path: Path, receiver: HttpReceiver) -> None:
    house = House(
        tmp_path, receiver, pagerduty={"routing_key": KEY, "url": receiver.url + "/v2/enqueue", "level": "warning"}
    )
    result = alert.send(house.context(), alert.Message("warning", "The disk is being replaced.", "disk"))
    assert result["channels"] == [{"channel": "pagerduty", "accepted": True, "said": '202 {"status":"success"}'}]
    alert.send(house.context(), alert.Message("ok", "The new disk is in.", "disk"))
    first, second = (h.json for h in receiver.heard)
    assert (first["event_action"], second["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == second["dedup_key"] == result["key"] == "pgops/db1/message/disk"
    assert first["payload"]["summary"] == "WARNING: db1: The disk is being replaced."


def test_what_is_to_be_told_once_is_told_again_when_it_changes_or_lasts(house: House) -> None:
    def told(level: str, text: str, **options: Any) -> bool:
        sent = alert.Message(level, text, "fleet", once=True, **options)
        result = alert.send(house.later(HOUR).context(), sent)
        assert bool(result["channels"]) == result["changed"]
        return bool(result["changed"])

    assert not told("ok", "All 500 hosts are protected."), "nothing was told that could be over"
    assert told("critical", "2 of 500 hosts are not protected.", dry_run=True)
    assert told("critical", "2 of 500 hosts are not protected.")
    assert not told("critical", "2 of 500 hosts are not protected.")
    assert not told("critical", "2 of 500 hosts are not protected.", dry_run=True)
    assert told("critical", "400 of 500 hosts are not protected.")
    house.later(DAY)
    assert told("critical", "400 of 500 hosts are not protected."), "as an incident that lasts is"
    assert told("ok", "All 500 hosts are protected.")
    assert not told("ok", "All 500 hosts are protected.")
    assert [text.partition(": db1: ")[0] for text in house.said()] == ["CRITICAL"] * 3 + ["RECOVERED"]
    house.alerts["repeat"] = "0s"
    assert told("warning", "Hm.")
    house.later(30 * DAY)
    assert not told("warning", "Hm."), "never again"
    with pytest.raises(UsageError, match="Once of what"):
        alert.send(house.context(), alert.Message("warning", "Hm.", once=True))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (alert.Message("loud", "x"), "'loud' is no level"),
        (alert.Message("info", " "), "nothing to tell"),
        (alert.Message("ok", "x"), "needs to know what"),
        (alert.Message("info", "x"), "No channel hears of the level info"),
    ],
)
def test_a_message_that_cannot_be_told_is_refused(house: House, message: alert.Message, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        alert.send(house.context(), message)


def test_a_message_that_is_not_taken_waits_and_fails(house: House) -> None:
    house.receiver.always = Answer(500)
    with pytest.raises(UnreachableError, match="1 of 1 channels did not accept it") as caught:
        alert.send(house.context(), alert.Message("critical", "One."))
    assert caught.value.details["undelivered"] == 1
    with pytest.raises(UnreachableError, match="waits behind"):
        alert.send(house.context(), alert.Message("critical", "Two."))
    house.receiver.always = None
    alert.evaluate(house.context())
    assert house.said()[-2:] == ["CRITICAL: db1: One.", "CRITICAL: db1: Two."]


def test_in_check_mode_a_message_and_a_test_ask_no_service(house: House) -> None:
    sent = alert.send(house.context(), alert.Message("critical", "x", dry_run=True))
    tested = alert.test(house.context(), dry_run=True)
    assert sent["channels"][0]["channel"] == tested["channels"][0]["channel"] == "slack"
    assert not tested["changed"]
    assert house.receiver.heard == []


def test_a_test_tells_what_each_channel_answered(house: House) -> None:
    house.alerts["webhook"] = {"url": house.receiver.url + "/hook"}
    result = alert.test(house.context())
    assert [(c["channel"], c["accepted"], c["said"]) for c in result["channels"]] == [
        ("slack", True, "200 ok"),
        ("webhook", True, "200"),
    ]
    assert "Nothing is wrong" in house.said()[0]
    assert "took its last message" in render(status(house.context()), False)
    house.receiver.answers.put(Answer(404, "no_service"))
    with pytest.raises(UnreachableError, match="slack: It answered 404 Not Found: no_service") as caught:
        alert.test(house.context())
    assert [c["accepted"] for c in caught.value.details["channels"]] == [False, True]


def test_a_test_tries_each_way_by_which_something_is_told(watched: House) -> None:
    names = ["slack", "sentry", "sentry monitor", "heartbeat"]
    assert [c["channel"] for c in alert.test(watched.context(), dry_run=True)["channels"]] == names
    assert [(c["channel"], c["accepted"]) for c in alert.test(watched.context())["channels"]] == [
        (n, True) for n in names
    ]
    assert [(phase, "test" in run) for phase, run in checked_in(watched)] == [("ok", False)]
    assert pinged(watched) == ["/ping/log"]
    assert {name for name, (failing, _n) in alerts_of(watched)["channels"].items() if failing} == set()
    for answer in (Answer(200, "ok"), Answer(200, "{}"), Answer(403, "no cron monitors")):
        watched.receiver.answers.put(answer)
    with pytest.raises(
        UnreachableError, match="1 of 4 channels did not accept it:\n  - sentry monitor: It answered 403"
    ):
        alert.test(watched.context())
    assert {name for name, (failing, _n) in alerts_of(watched)["channels"].items() if failing} == {"sentry monitor"}
