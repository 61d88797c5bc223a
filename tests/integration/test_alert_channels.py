# SPDX-License-Identifier: GPL-3.0-or-later
"""Each channel against a real receiver: what it sends, what it makes of every answer, and that no secret leaks."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import stat
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sentry_relay.processing import StoreNormalizer

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channel import Beat, Channel
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channels import (
    channels,
    secrets_of,
    trouble_with_channels,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.delivery import deliver, enqueue
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.http import Answer as Accepted
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.http import DeliveryError
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.sentry import parse_dsn, slug_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.state import State
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.incidents import Telling
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.notices import Notice, Origin, notice
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import Redactor
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HALF,
    HANG,
    RESET,
    TRICKLE,
    Answer,
    Certificate,
    HttpReceiver,
    MailServer,
    certificate_of_localhost,
    mail_server_with_account,
    plain_mail_server_here,
    receiver_here,
    tls_receiver_here,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SAFE = ("local: 20261121T020000Z-logical, begun 1 d 6 h ago, is proven to restore.",)
Open = Callable[..., Channel]

# What the services take, in our words: each name, type, limit and choice that they publish, and nothing that they do not name.
# PagerDuty: github.com/PagerDuty/api-schema, reference/events-v2/openapiv3.json at 5cd58ff2b5ee (no licence, so it is not copied);
# the lengths are those of its documentation of the Events API.
PAGERDUTY = {
    "type": "object",
    "required": ["routing_key", "event_action"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string"},
        "links": {"type": "array", "items": {"type": "object", "required": ["href"]}},
        "images": {"type": "array", "items": {"type": "object", "required": ["src"]}},
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "timestamp": {"type": "string", "format": "date-time"},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": {"type": "string", "minLength": 1},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
    "else": {"required": ["dedup_key"]},
}
# Slack publishes no schema. Its documentation names the limits: of a message's text (chat.postMessage), of attachments
# (reference/messaging), of blocks and of the text of a section (reference/block-kit).
SLACK = {
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {
        # 40,000 are taken; more than 4,000 are a bad idea, it says.
        "text": {"type": "string", "minLength": 1, "maxLength": 4000},
        "attachments": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "color": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
                    "blocks": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 50,
                        "items": {
                            "type": "object",
                            "required": ["type", "text"],
                            "additionalProperties": False,
                            "properties": {
                                "type": {"const": "section"},
                                "text": {
                                    "type": "object",
                                    "required": ["type", "text"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "type": {"const": "mrkdwn"},
                                        "text": {"type": "string", "minLength": 1, "maxLength": 3000},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
# Sentry: its events go through its own normaliser (the package sentry-relay). Of check-ins there is no schema but the
# specification, develop.sentry.dev/sdk/telemetry/check-ins, version 1.6.0, and the lengths in relay's crate relay_monitors.
SENTRY_CHECK_IN = {
    "type": "object",
    "required": ["check_in_id", "monitor_slug", "status"],
    "additionalProperties": False,
    "properties": {
        "check_in_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "monitor_slug": {"type": "string", "pattern": "^[a-z0-9_-]{1,50}$"},
        "status": {"enum": ["in_progress", "ok", "error"]},
        "duration": {"type": "number", "minimum": 0},
        "release": {"type": "string"},
        "environment": {"type": "string", "maxLength": 64},
        "contexts": {"type": "object"},
        "monitor_config": {
            "type": "object",
            "required": ["schedule"],
            "additionalProperties": False,
            "properties": {
                "schedule": {
                    "type": "object",
                    "required": ["type", "value"],
                    "additionalProperties": False,
                    "properties": {"type": {"const": "crontab"}, "value": {"type": "string"}},
                },
                "checkin_margin": {"type": "integer", "minimum": 0},
                "max_runtime": {"type": "integer", "minimum": 0},
                "failure_issue_threshold": {"type": "integer", "minimum": 1},
                "recovery_threshold": {"type": "integer", "minimum": 1},
                "timezone": {"type": "string"},
                "owner": {"type": "string"},
            },
        },
    },
}


def taken_as(schema: dict[str, Any], sent: Any) -> None:
    """Fail when a service would not take what it was sent, its dates included (which rfc3339-validator checks)."""
    checker = jsonschema.FormatChecker(["date-time"])
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(sent)


def relayed(sent: dict[str, Any]) -> dict[str, Any]:
    """Return an event as Sentry keeps it, which must be all that it was sent."""
    kept: dict[str, Any] = StoreNormalizer().normalize_event(dict(sent))
    assert kept.get("errors") is None
    assert kept.get("_meta") is None, "nothing is refused or shortened"
    return kept


def made(event: str = "opened", level: str = "critical", text: str = "The last backup failed.", **facts: Any) -> Notice:
    telling = Telling(
        event, facts.pop("cause", "failed-run/backup"), level, text, "Run: pgops backup", NOW, facts.pop("rank", 2)
    )
    origin = Origin(facts.pop("instance", "db1-main"), facts.pop("host", "db1"), facts.pop("safe", SAFE))
    return notice(telling, origin, Redactor(facts.pop("secrets", ())), NOW)


@pytest.fixture(name="open_channel")
def channel_opener() -> Open:
    """Return open_channel(name, section, **alerts): the only channel of such a configuration."""

    def opened(name: str, section: dict[str, Any], **others: Any) -> Channel:
        data = {"instance": "db1-main", "alerts": {"timeout": 20, **others, name: section}}
        found = channels(config.build(data, environ={}, host="db1"), Runner())
        assert [channel.name for channel in found] == [name]
        return found[0]

    return opened


def refused(channel: Channel, what: Notice | None = None) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        channel.send(what or made())
    return caught.value


# --- Slack ------------------------------------------------------------------------------------------------------------


def test_slack_shows_all_that_a_person_needs(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("slack", {"webhook_url": receiver.url + "/slack/T0/B0/secret"})
    assert channel.send(made()).said == "200 ok"
    (heard,) = receiver.heard
    taken_as(SLACK, heard.json)
    assert heard.method == "POST"
    assert heard.headers["content-type"] == "application/json"
    shown = json.dumps(heard.json)
    for word in (
        "CRITICAL: db1-main",
        "The last backup failed.",
        "Host: db1",
        NOW.isoformat(),
        SAFE[0],
        "Run: pgops backup",
    ):
        assert word in shown, word
    assert heard.json["attachments"][0]["color"] == "#a30200"
    channel.send(made("recovered"))
    assert receiver.heard[-1].json["attachments"][0]["color"] == "#2eb886"
    assert receiver.heard[-1].json["text"].startswith("RECOVERED")


def test_slack_mentions_nobody_and_is_never_too_long(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("slack", {"webhook_url": receiver.url + "/slack"})
    for text in ("<!channel> <@U1> & so", "&<>" * 5000, "ü\u202e\x00\ud800 x" * 900, "\n" * 4000 + "x"):
        channel.send(made(text=text, safe=("<" * 900,) * 20))
        taken_as(SLACK, receiver.heard[-1].json)
        assert "<" not in receiver.heard[-1].body.decode()
        for block in receiver.heard[-1].json["attachments"][0]["blocks"]:
            bare = block["text"]["text"].replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
            assert "&" not in bare, "no escape is cut through"


def test_slack_that_says_anything_else_has_not_taken_it(receiver: HttpReceiver, open_channel: Open) -> None:
    receiver.answers.put(Answer(200, "channel_is_archived"))
    assert "channel_is_archived" in str(refused(open_channel("slack", {"webhook_url": receiver.url + "/slack"})))


def test_a_bad_night_is_one_message_for_people_and_each_incident_for_programs(
    receiver: HttpReceiver, open_channel: Open
) -> None:
    slack = open_channel("slack", {"webhook_url": receiver.url + "/slack"})
    hook = open_channel("webhook", {"url": receiver.url + "/hook"})
    night = [made(cause="cause-%d/x" % n, text="Trouble %d. " % n + "x" * 400 * n, rank=1 + (n == 2)) for n in range(5)]
    night.append(made("recovered", cause="cause-9/x", text="The clock.", rank=2))

    def told(*notices: Notice) -> list[dict[str, Any]]:
        receiver.heard.clear()
        held = State()
        enqueue(held, [slack, hook], notices, lambda: NOW)
        deliver(held, [slack, hook], Redactor(), lambda: NOW)
        assert held.queue == []
        assert len(receiver.of("/hook")) == len(notices)
        return [heard.json for heard in receiver.of("/slack")]

    (only,) = told(*night)
    taken_as(SLACK, only)
    assert only["text"].startswith("CRITICAL: db1-main: 5 in trouble, 1 over. Trouble 2. ")
    shown = json.dumps(only)
    for n in range(5):
        assert "Trouble %d." % n in shown
    assert "RECOVERED: This is over, after" in shown
    assert "pgops status" in shown
    over = [made("recovered", cause="cause-%d/x" % n, text="Trouble %d." % n) for n in range(4)]
    (green,) = told(*over)
    assert green["text"].startswith("RECOVERED: db1-main: 4 over. ")
    assert green["attachments"][0]["color"] == "#2eb886"
    assert len(told(*over[:3])) == 3, "a few are told one by one"
    # A reminder of many does not wait behind what says the same.
    held = State()
    for _unused in range(2):
        enqueue(held, [slack], [made("repeated", cause="cause-%d/x" % n) for n in range(4)], lambda: NOW)
    assert len(held.queue) == 1


# --- PagerDuty --------------------------------------------------------------------------------------------------------


def test_pagerduty_is_triggered_and_resolved_by_one_key(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("pagerduty", {"routing_key": "k" * 32, "url": receiver.url + "/v2/enqueue"})
    for event in ("opened", "repeated", "recovered"):
        assert channel.send(made(event)).said.startswith("202")
    events = [h.json for h in receiver.heard]
    for event in events:
        taken_as(PAGERDUTY, event)
    assert [e["event_action"] for e in events] == ["trigger", "trigger", "resolve"]
    assert {e["dedup_key"] for e in events} == {"pgops/db1-main/failed-run/backup"}
    assert events[0]["payload"]["severity"] == "critical"
    assert events[0]["payload"]["source"] == "db1"
    assert events[0]["payload"]["group"] == "pgops/failed-run"
    assert events[0]["payload"]["custom_details"]["still safe"] == list(SAFE)


def test_a_test_leaves_no_incident_at_pagerduty(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("pagerduty", {"routing_key": "k" * 32, "url": receiver.url + "/v2/enqueue"})
    channel.test(made("test", "info"))
    assert [h.json["event_action"] for h in receiver.heard] == ["trigger", "resolve"]


def test_long_names_make_keys_that_fit_and_differ(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("pagerduty", {"routing_key": "k" * 32, "url": receiver.url + "/v2/enqueue"})
    for end in ("a", "b"):
        channel.send(made(cause="message/%s%s" % ("ü" * 250, end), text="x" * 5000, host="h" * 900))
        taken_as(PAGERDUTY, receiver.heard[-1].json)
    assert len({h.json["dedup_key"] for h in receiver.heard}) == 2


# --- Sentry -----------------------------------------------------------------------------------------------------------


def envelope(heard: Any) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Any]]]:
    """Read an envelope as Sentry's relay does: headers by line, payloads by length."""
    head, _unused, rest = heard.body.partition(b"\n")
    items = []
    while rest:
        line, _unused, rest = rest.partition(b"\n")
        item = json.loads(line)
        payload, rest = rest[: item["length"]], rest[item["length"] :]
        assert len(payload) == item["length"]
        assert rest[:1] in (b"\n", b"")
        rest = rest[1:]
        items.append((item, json.loads(payload)))
    return json.loads(head), items


def test_sentry_gets_an_event_that_is_one_issue_for_all_hosts(receiver: HttpReceiver, open_channel: Open) -> None:
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    channel = open_channel("sentry", {"dsn": dsn})
    channel.send(made(text="Ünïcode\nand \ud800 halves"))
    (heard,) = receiver.heard
    assert heard.path == "/api/42/envelope/"
    assert heard.headers["content-type"] == "application/x-sentry-envelope"
    auth = dict(part.split("=") for part in heard.headers["x-sentry-auth"].removeprefix("Sentry ").split(", "))
    assert auth["sentry_version"] == "7"
    assert auth["sentry_key"] == "a" * 32
    head, ((item, event),) = envelope(heard)
    assert item["type"] == "event"
    kept = relayed(event)
    assert kept["logentry"] == event["message"]
    assert dict(kept["tags"]) == {**event["tags"], "server_name": "db1"}
    assert (kept["release"], kept["extra"]["next"]) == (event["release"], event["extra"]["next"])
    assert head["event_id"] == event["event_id"]
    assert event["fingerprint"] == ["pgops", "pgops/failed-run"]
    assert event["level"] == "error"
    assert event["tags"]["instance"] == "db1-main"
    assert not channel.hears(made("recovered")), "there is nothing to resolve it with"


@pytest.mark.parametrize("text", ["\n" * 900 + "x", "\x00\ud800\u202e<script>" * 200, "ü" * 5000, "null"])
def test_sentry_keeps_all_of_whatever_it_is_sent(receiver: HttpReceiver, open_channel: Open, text: str) -> None:
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/42"
    for environment in ("production", "x" * 64):
        channel = open_channel("sentry", {"dsn": dsn, "environment": environment})
        channel.send(made(text=text, cause="message/%s" % text, instance="db1\r\nx", host="h" * 300, safe=(text,) * 9))
        ((_item, event),) = envelope(receiver.heard[-1])[1]
        assert relayed(event)["environment"] == environment


@pytest.mark.parametrize("environment", ["x" * 65, "a/b", "a\nb", "None", "none"])
def test_an_environment_that_sentry_would_drop_is_refused(environment: str) -> None:
    event = {"event_id": "a" * 32, "platform": "other", "message": {"formatted": "x"}, "environment": environment}
    kept = StoreNormalizer().normalize_event(event)
    with_it = {"alerts": {"sentry": {"dsn": "https://k@h/1", "environment": environment}}}
    if kept.get("environment") == environment:
        assert config.build(with_it, environ={}, host="db1").alerts.sentry.environment == environment
    else:
        with pytest.raises(UsageError, match=r"alerts\.sentry\.environment"):
            config.build(with_it, environ={}, host="db1")


def test_sentry_checks_in_at_the_begin_and_the_end(receiver: HttpReceiver, open_channel: Open) -> None:
    dsn = receiver.url.replace("://", "://%s@" % ("a" * 32)) + "/sub/42"
    channel = open_channel("sentry", {"dsn": dsn, "monitor": "{instance}-{verb}"})
    assert channel.watcher == "sentry monitor"
    for phase, seconds in (("start", None), ("fail", 12.0), ("ok", 3.0)):
        channel.beat(Beat(phase, "backup", "db1-main", "db1", "", seconds, "b" * 32, "0 2 * * *", "Europe/Berlin"))
    items = [envelope(h)[1][0] for h in receiver.heard]
    assert {item["type"] for item, _unused in items} == {"check_in"}
    for _unused, check_in in items:
        taken_as(SENTRY_CHECK_IN, check_in)
    assert [c["status"] for _unused, c in items] == ["in_progress", "error", "ok"]
    assert {c["monitor_slug"] for _unused, c in items} == {"db1-main-backup"}
    assert items[1][1]["duration"] == 12
    assert items[0][1]["monitor_config"]["schedule"] == {"type": "crontab", "value": "0 2 * * *"}
    assert items[0][1]["monitor_config"]["timezone"] == "Europe/Berlin"
    assert receiver.heard[0].path == "/sub/api/42/envelope/"
    assert not open_channel("sentry", {"dsn": dsn}).watcher
    # A test counts for no monitor: Sentry makes none without a calendar.
    assert "db1-main-backup-test" in channel.test_watcher(made("test", "info")).said
    ((_item, tried),) = envelope(receiver.heard[-1])[1]
    taken_as(SENTRY_CHECK_IN, tried)
    assert (tried["monitor_slug"], "monitor_config" in tried) == ("db1-main-backup-test", False)
    assert slug_of("DB1.example.com: Main / ü-backup") == "db1-example-com-main-backup"
    assert len(slug_of("x" * 99)) == 50


@pytest.mark.parametrize(
    "dsn", ["", "https://sentry.io/1", "https://k@sentry.io/", "https://k@sentry.io/x", "ftp://k@h/1", "https://k@[/1"]
)
def test_a_dsn_that_is_none_is_told(dsn: str) -> None:
    with pytest.raises(DeliveryError, match="DSN"):
        parse_dsn(dsn)
    assert parse_dsn("https://k@[::1]:9000/7").url == "https://[::1]:9000/api/7/envelope/"


# --- webhook and heartbeat --------------------------------------------------------------------------------------------


def test_a_webhook_gets_the_whole_notice_signed(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("webhook", {"url": receiver.url + "/hook?a=1", "secret": "shared secret"})
    sent = made()
    channel.send(sent)
    (heard,) = receiver.heard
    assert heard.path == "/hook?a=1"
    assert Notice.from_data(heard.json) == sent
    assert heard.json["format"] == 1
    stamp = heard.headers["x-pgops-timestamp"]
    assert abs(time.time() - int(stamp)) < 60
    right = hmac.new(b"shared secret", stamp.encode() + b"." + heard.body, hashlib.sha256).hexdigest()
    assert heard.headers["x-pgops-signature"] == "sha256=" + right
    open_channel("webhook", {"url": receiver.url + "/hook"}).send(sent)
    assert "x-pgops-signature" not in receiver.heard[-1].headers


def beat(phase: str, verb: str = "backup") -> Beat:
    return Beat(phase, verb, "db1-main", "db1", "The text.")


def test_a_heartbeat_hears_of_start_success_and_failure(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("heartbeat", {"url": receiver.url + "/ping/{instance}-{verb}?create=1"})
    for phase in ("start", "ok", "fail"):
        channel.beat(beat(phase))
    assert [h.path for h in receiver.heard] == [
        "/ping/db1-main-backup/start?create=1",
        "/ping/db1-main-backup?create=1",
        "/ping/db1-main-backup/fail?create=1",
    ]
    assert receiver.heard[-1].body == b"The text."
    assert not channel.hears(made()), "it hears of runs"
    channel.test(made("test", "info"))
    logs = ["/ping/db1-main-%s/log?create=1" % verb for verb in channel.watched()]
    assert "backup" in logs[0] and "verify" in logs[-1]
    assert [h.path for h in receiver.heard[3:]] == logs, "a test is no sign of life"
    receiver.heard.clear()
    watched = open_channel("heartbeat", {"url": receiver.url + "/ping/{verb}"}, watched=["sync", "prune"])
    watched.test(made("test", "info"))
    assert [h.path for h in receiver.heard] == ["/ping/sync/log", "/ping/prune/log"], "each address is tried"
    receiver.answers.put(Answer())
    receiver.answers.put(Answer(404, "no such check"))
    with pytest.raises(DeliveryError, match="Of prune: It answered 404"):
        watched.test(made("test", "info"))


def test_a_plain_heartbeat_hears_of_success_only(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("heartbeat", {"url": receiver.url + "/ping", "style": "plain"})
    for phase in ("start", "fail", "log", "ok"):
        channel.beat(beat(phase))
    assert [h.path for h in receiver.heard] == ["/ping"]
    assert "as a success" in channel.test(made("test", "info")).said, "it has nothing else"


# --- e-mail -----------------------------------------------------------------------------------------------------------


def parsed(content: Any) -> EmailMessage:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def test_mail_goes_by_starttls_and_an_account(
    mail_server: MailServer, open_channel: Open, certificate: Certificate
) -> None:
    section = {"to": ["a@example.com", "b@example.com"], "smtp_host": "localhost", "smtp_port": mail_server.port}
    section.update(user="pgops", password="sesame-open", sender="pgops@db1.example.com")
    channel = open_channel("email", section, ca_bundle=str(certificate.path))
    text = "Ünïcode, a line\nand another; \r\nBcc: x@example.com"
    channel.send(made(text=text, instance="db1\r\nBcc: y@example.com"))
    channel.send(made("recovered"))
    first, second = (parsed(e.content) for e in mail_server.mails.taken)
    assert mail_server.mails.taken[0].rcpt_tos == ["a@example.com", "b@example.com"]
    assert mail_server.mails.taken[0].mail_from == "pgops@db1.example.com"
    assert first["Bcc"] is None
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Importance"] == "high"
    assert second["Importance"] is None
    assert "Ünïcode, a line" in first.get_content()
    assert "Still safe:" in first.get_content()
    assert "Next: Run: pgops backup" in first.get_content()
    assert first["Subject"].startswith("[pgops] CRITICAL")
    assert second["Subject"].startswith("[pgops] RECOVERED")
    assert all(len(line) <= 998 for e in mail_server.mails.taken for line in e.content.splitlines())
    channel.send(made(text="other words"))
    third = parsed(mail_server.mails.taken[2].content)
    assert third["References"] == second["References"], "one incident is one thread"
    assert third["Message-ID"] != second["Message-ID"]


@pytest.mark.parametrize(
    ("changes", "said", "again"),
    [
        ({"password": "wrong-password"}, "It answered 535", False),
        ({"user": ""}, "530", False),
        ({"security": "none"}, "AUTH extension not supported", False),
        ({"smtp_port": 1}, "cannot be reached: Connection refused", False),
        ({"smtp_host": "no-such-host.invalid"}, "cannot be reached", False),
        ({"security": "none", "smtp_host": "no-such-host.invalid"}, "is not sent without TLS", False),
        ({"security": "tls"}, "TLS with localhost failed", False),
        ({"password": "", "password_file": "/no/such/file"}, "No such file", False),
    ],
)
def test_what_a_mail_server_refuses_is_told(
    mail_server: MailServer,
    open_channel: Open,
    certificate: Certificate,
    changes: dict[str, Any],
    said: str,
    again: bool,
) -> None:
    section = {"to": ["a@example.com"], "smtp_host": "localhost", "smtp_port": mail_server.port, "user": "pgops"}
    error = refused(
        open_channel("email", {**section, "password": "sesame-open", **changes}, ca_bundle=str(certificate.path))
    )
    assert said in str(error)
    assert error.again == again
    assert not mail_server.mails.taken
    for secret in ("sesame-open", "wrong-password"):
        assert secret not in str(error)


def test_an_unknown_certificate_of_a_mail_server_is_refused(mail_server: MailServer, open_channel: Open) -> None:
    section = {"to": ["a@example.com"], "smtp_host": "localhost", "smtp_port": mail_server.port}
    assert "self-signed certificate" in str(refused(open_channel("email", section)))


@pytest.mark.parametrize(
    ("codes", "at_data", "said", "again", "alone"),
    [
        ({"a@example.com": "550 no", "b@example.com": "450 later"}, "", "b@example.com (450 later)", True, False),
        ({}, "451 later", "451 later", True, False),
        ({}, "554 spam", "554 spam", False, True),
    ],
)
def test_mail_that_is_taken_for_nobody_is_not_told(
    plain_mail_server: MailServer,
    open_channel: Open,
    codes: dict[str, str],
    at_data: str,
    said: str,
    again: bool,
    alone: bool,
) -> None:
    plain_mail_server.mails.refused, plain_mail_server.mails.at_data = codes, at_data
    section = {"to": ["a@example.com", "b@example.com"], "smtp_host": "localhost", "security": "none"}
    error = refused(open_channel("email", {**section, "smtp_port": plain_mail_server.port}))
    assert said in str(error)
    assert (error.again, error.alone) == (again, alone)
    assert plain_mail_server.mails.taken == []


def test_mail_that_is_taken_for_some_says_who_is_left_out(plain_mail_server: MailServer, open_channel: Open) -> None:
    plain_mail_server.mails.refused = {"a@example.com": "550 no such user"}
    section = {"to": ["a@example.com", "b@example.com"], "smtp_host": "localhost", "security": "none"}
    answer = open_channel("email", {**section, "smtp_port": plain_mail_server.port}).send(made())
    assert answer.refused == "not for 1 of 2: a@example.com (550 no such user)"
    assert answer.said == "taken by localhost for 1, %s" % answer.refused
    assert (answer.later, answer.lost) == ((), ("a@example.com",))
    assert [m.rcpt_tos for m in plain_mail_server.mails.taken] == [["b@example.com"]]
    plain_mail_server.mails.refused = {"a@example.com": "550 no such user", "b@example.com": "450 later"}
    error = refused(open_channel("email", {**section, "smtp_port": plain_mail_server.port}))
    assert (error.each, error.later, error.lost) == (True, ("b@example.com",), ("a@example.com",))
    # A server that breaks off has not been asked about everybody.
    plain_mail_server.mails.refused = {"a@example.com": "421 going down"}
    error = refused(open_channel("email", {**section, "smtp_port": plain_mail_server.port}))
    assert (error.later, error.lost) == (("a@example.com", "b@example.com"), ())
    assert len(plain_mail_server.mails.taken) == 1


def test_a_mail_server_that_is_silent_after_the_message_may_have_taken_it(
    plain_mail_server: MailServer, open_channel: Open
) -> None:
    plain_mail_server.mails.silent = True
    section = {"to": ["a@example.com"], "smtp_host": "localhost", "security": "none"}
    channel = open_channel("email", {**section, "smtp_port": plain_mail_server.port}, timeout=3)
    errors = [refused(channel), refused(channel)]
    assert all(error.unsure and not error.again for error in errors)
    assert "did not say whether it keeps it" in str(errors[0])
    names = [parsed(m.content)["Message-ID"] for m in plain_mail_server.mails.taken]
    assert len(names) == 2
    assert len(set(names)) == 1, "who gets it twice sees it once"


SENDMAIL = """\
#!/bin/sh
# As sendmail, postfix and exim have it: addresses behind --, the message on standard input.
[ -e "$0.fails" ] && { echo "queue is full" >&2; exit 75; }
printf '%s\\n' "$@" > "$0.arguments"
cat > "$0.message"
"""


def test_mail_goes_to_the_local_sendmail_where_there_is_no_server(tmp_path: Path, open_channel: Open) -> None:
    program = tmp_path / "sendmail"
    program.write_text(SENDMAIL)
    program.chmod(0o755)
    channel = open_channel("email", {"to": ["a@example.com", "b@example.com"], "sendmail": str(program)})
    assert "taken by" in channel.send(made(text="Zeile\n.\nÜ")).said
    assert (tmp_path / "sendmail.arguments").read_text().split() == [
        *("-i", "-f", "pgops@db1", "--", "a@example.com", "b@example.com")
    ]
    content = (tmp_path / "sendmail.message").read_bytes()
    assert b"\r" not in content
    assert "Zeile\n.\nÜ" in parsed(content).get_content()
    (tmp_path / "sendmail.fails").touch()
    assert "queue is full" in str(refused(channel))
    program.unlink()
    assert "cannot be run" in str(refused(channel))


# --- Apprise ----------------------------------------------------------------------------------------------------------


def test_whatever_apprise_speaks_is_told(receiver: HttpReceiver, open_channel: Open) -> None:
    address = receiver.url.replace("http://", "json://")
    channel = open_channel("apprise", {"urls": "%s/one %s/two" % (address, address)})
    assert channel.send(made()).said == "taken by 2"
    channel.send(made("recovered"))
    assert [h.path.rstrip("/") for h in receiver.heard] == ["/one", "/two"] * 2
    assert [h.json["type"] for h in receiver.heard] == ["failure", "failure", "success", "success"]
    assert "CRITICAL: db1-main" in receiver.heard[0].json["title"]
    assert "Still safe" in receiver.heard[0].json["message"]


def test_an_address_of_apprise_that_takes_nothing_is_told(receiver: HttpReceiver, open_channel: Open) -> None:
    address = receiver.url.replace("http://", "json://")
    receiver.answers.put(Answer(500))
    answer = open_channel("apprise", {"urls": "%s/one %s/two nonsense://x" % (address, address)}).send(made())
    assert "not by 2 of 3: address 1, address 3 of 3 did not take it" in answer.refused
    assert answer.said.startswith("taken by 1, not by 2 of 3")
    receiver.always = Answer(500)
    error = refused(open_channel("apprise", {"urls": "%s/one nonsense://x" % address}))
    assert "address 1, address 2 of 2 did not take it" in str(error)


def test_without_the_library_apprise_says_what_to_install(open_channel: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    channel = open_channel("apprise", {"urls": "json://localhost"})
    assert "pip install apprise" in str(refused(channel))
    (said,) = trouble_with_channels(channel.config, channel.runner)
    assert said.startswith("alerts.apprise: The Python package apprise is not installed"), (
        "config --check tells it, too"
    )


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said", "again", "wait"),
    [
        (Answer(500, "oops\nand more"), "500 Internal Server Error: oops and more", True, None),
        (Answer(503, "", {"Retry-After": "7"}), "503", True, 7.0),
        (Answer(429, "slow down", {"Retry-After": "30"}), "429 Too Many Requests: slow down", True, 30.0),
        (Answer(429, "", {"Retry-After": "9999999"}), "429", True, 86400.0),
        (Answer(429, "", {"Retry-After": "soon"}), "429", True, None),
        (Answer(400, "invalid_payload"), "400 Bad Request: invalid_payload", False, None),
        (Answer(404, "no_service"), "404", False, None),
        (Answer(302, "", {"Location": "/elsewhere"}), "302", False, None),
        (RESET, "cannot be reached", True, None),
        (HANG, "did not answer within 1 s", False, None),
    ],
)
def test_what_an_answer_means(
    receiver: HttpReceiver, open_channel: Open, answer: Answer | str, said: str, again: bool, wait: float | None
) -> None:
    receiver.answers.put(answer)
    channel = open_channel(
        "webhook", {"url": receiver.url + "/hook/very-secret-path"}, timeout=1 if answer == HANG else 20
    )
    error = refused(channel)
    assert said in str(error)
    assert error.again == again
    assert error.wait == wait
    assert "very-secret-path" not in str(error)
    assert len(receiver.heard) == 1
    # Whoever is not in such haste: a busy machine may take a second.
    patient = open_channel("webhook", {"url": receiver.url + "/hook/very-secret-path"}, timeout=20)
    assert patient.send(made()).said.startswith("200")


@pytest.mark.parametrize(("status", "alone"), [(400, True), (413, True), (422, True), (403, False), (500, False)])
def test_what_may_be_the_fault_of_one_message_alone(
    receiver: HttpReceiver, open_channel: Open, status: int, alone: bool
) -> None:
    receiver.always = Answer(status)
    assert refused(open_channel("webhook", {"url": receiver.url})).alone == alone


def test_an_answer_that_trickles_takes_no_longer_than_one_that_does_not_come(
    receiver: HttpReceiver, open_channel: Open
) -> None:
    channel = open_channel("webhook", {"url": receiver.url}, timeout=1)
    receiver.answers.put(TRICKLE)
    begun = time.monotonic()
    error = refused(channel)
    assert time.monotonic() - begun < 30, "its sixty seconds"
    assert "did not answer within 1 s" in str(error)
    assert error.unsure


def test_what_was_taken_stays_so_when_the_rest_of_the_answer_does_not_come(
    receiver: HttpReceiver, open_channel: Open
) -> None:
    receiver.answers.put(HALF)
    assert open_channel("webhook", {"url": receiver.url}, timeout=3).send(made()).said == "200 o"


def test_a_date_is_read_by_the_clock_of_who_says_it(receiver: HttpReceiver, open_channel: Open) -> None:
    there = datetime.now(UTC) - timedelta(hours=5)
    headers = {"Retry-After": format_datetime(there + timedelta(seconds=40), usegmt=True)}
    receiver.answers.put(Answer(503, "", {**headers, "Date": format_datetime(there, usegmt=True)}))
    wait = refused(open_channel("webhook", {"url": receiver.url})).wait
    assert wait == 40


def test_a_date_may_say_when_to_come_back(receiver: HttpReceiver, open_channel: Open) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    receiver.answers.put(Answer(503, "", {"Retry-After": later}))
    wait = refused(open_channel("webhook", {"url": receiver.url})).wait
    assert wait is not None
    assert 30 < wait <= 40


def test_a_server_that_is_not_there_a_name_that_is_none_and_an_address_that_is_none(open_channel: Open) -> None:
    assert "Connection refused" in str(refused(open_channel("webhook", {"url": "http://127.0.0.1:1/"})))
    assert "cannot be resolved" in str(refused(open_channel("webhook", {"url": "https://no-such-host.invalid/x"})))
    for url in (
        "file:///etc/passwd",
        "https:///x",
        "hooks.slack.com",
        "https://h:x/",
        "https://h/a b",
        "https://h/ü",
        "https://[/",
    ):
        assert "Its address is none" in str(refused(open_channel("webhook", {"url": url}))), url


def test_tls_is_checked(
    tls_receiver: HttpReceiver, open_channel: Open, certificate: Certificate, tmp_path: Path
) -> None:
    section = {"url": tls_receiver.url + "/hook"}
    assert "TLS failed: self-signed certificate" in str(refused(open_channel("webhook", section)))
    assert not tls_receiver.heard
    assert isinstance(open_channel("webhook", section, ca_bundle=str(certificate.path)).send(made()), Accepted)
    assert "cannot be read" in str(refused(open_channel("webhook", section, ca_bundle=str(tmp_path / "none"))))


def test_tls_to_a_server_that_speaks_none_is_told(receiver: HttpReceiver, open_channel: Open) -> None:
    error = refused(open_channel("webhook", {"url": receiver.url.replace("http:", "https:")}))
    assert "TLS failed" in str(error)


def test_an_answer_tells_the_time(receiver: HttpReceiver, open_channel: Open) -> None:
    ahead = open_channel("webhook", {"url": receiver.url}).send(made()).ahead
    assert ahead is not None
    assert abs(ahead) < timedelta(seconds=5)


# --- secrets ----------------------------------------------------------------------------------------------------------

FILES = [
    ("slack", "webhook_url", {}),
    ("pagerduty", "routing_key", {}),
    ("sentry", "dsn", {}),
    ("webhook", "url", {}),
    ("heartbeat", "url", {}),
    ("apprise", "urls", {}),
]


@pytest.mark.parametrize(("name", "key", "others"), FILES)
def test_secrets_come_from_private_files(
    tmp_path: Path, open_channel: Open, name: str, key: str, others: dict[str, Any]
) -> None:
    path = tmp_path / "secret"
    path.write_text("https://hooks.example.com/services/T0000/very-secret-words\n")
    path.chmod(0o600)
    channel = open_channel(name, {key + "_file": str(path), **others})
    assert channel.secret(key) == "https://hooks.example.com/services/T0000/very-secret-words"
    assert not trouble_with_channels(channel.config, channel.runner)
    masked = Redactor(secrets_of([channel])).text("to /services/T0000/very-secret-words it went")
    assert "very-secret" not in masked
    path.chmod(0o640)
    with pytest.raises(DeliveryError, match="is open to others"):
        channel.secret(key)
    (said,) = trouble_with_channels(channel.config, channel.runner)
    assert "alerts.%s.%s_file" % (name, key) in said
    assert list(secrets_of([channel])) == []
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(DeliveryError, match="is empty"):
        channel.secret(key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "section", "said", "kept"),
    [
        (
            "heartbeat",
            {"url": "https://hc/ping/0123-4567-89ab/{instance}-{verb}"},
            "no /ping/0123-4567-89ab/db1-main-backup/log",
            "log",
        ),
        (
            "slack",
            {"webhook_url": "https://h/services/T000/B000/abcdefghijklmnopqrstuvwx"},
            "abcdefghijklmnopqrstuvwx?",
            "?",
        ),
        ("apprise", {"urls": "mailto://u:a%40b%2Fc@example.com"}, "login of u with a@b/c failed", "login of u with"),
        ("apprise", {"urls": "json://user:hun2@localhost"}, "hun2 is wrong", "is wrong"),
    ],
)
def test_no_part_of_an_address_is_shown_however_it_is_written(
    open_channel: Open, name: str, section: dict[str, Any], said: str, kept: str
) -> None:
    masked = Redactor(secrets_of([open_channel(name, section)])).text(said)
    assert kept in masked
    for secret in ("0123-4567", "abcdefgh", "a@b/c", "hun2"):
        assert secret not in masked


def test_a_notice_holds_no_secret(receiver: HttpReceiver, open_channel: Open) -> None:
    channel = open_channel("webhook", {"url": receiver.url})
    text = "It failed: postgresql://u:hunter2@h/d, password=hunter3 and s3kr1t-words"
    channel.send(made(text=text, secrets=["s3kr1t-words"], safe=("s3kr1t-words",)))
    for secret in (b"hunter2", b"hunter3", b"s3kr1t"):
        assert secret not in receiver.heard[0].body
