# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The section of the alerts: their channels, and what is told when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .option import option

HEARTBEAT, SENTRY_MONITOR = "heartbeat", "sentry monitor"
_LEVELS = ("info", "warning", "critical", "escalated")
_HEARS = "The least that it hears of. escalated: only what has lasted for escalate_after."


@dataclass(frozen=True)
class Slack:
    """A Slack channel, by an incoming webhook. What understands the same messages (Mattermost, Rocket.Chat) works, too."""

    webhook_url: str = option("", "Address of the webhook. Rather use webhook_url_file.", secret=True)
    webhook_url_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/slack_webhook_url"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class PagerDuty:
    """A service of PagerDuty, by its Events API v2: an incident is opened, and resolved when it is over."""

    routing_key: str = option("", "Integration key of the service. Rather use routing_key_file.", secret=True)
    routing_key_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/pagerduty_routing_key"
    )
    url: str = option(
        "https://events.pagerduty.com/v2/enqueue", "Address of the Events API; that of the EU is another one."
    )
    level: str = option("critical", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Sentry:
    """A project of Sentry. It gets errors, and, where there is a monitor, check-ins of the runs of alerts.watched."""

    dsn: str = option("", "The project's DSN. Rather use dsn_file.", secret=True)
    dsn_file: str = option("", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/sentry_dsn")
    environment: str = option("production", "The environment that it shows.")
    monitor: str = option(
        "",
        "Slug of the cron monitor, which is made when it is missing; {instance} and {verb} stand for themselves. No check-ins "
        "when empty.",
        example="{instance}-{verb}",
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Email:
    """E-mail, by SMTP where there is an smtp_host, by the local sendmail otherwise; that one needs rights that timers lack."""

    to: list[str] = option([], "Who gets it; nobody when empty.", example=["oncall@example.com"])
    sender: str = option("", "From whom; pgops at this host when empty.", example="pgops@db1.example.com")
    smtp_host: str = option("", "Mail server.", example="mail.example.com")
    smtp_port: Optional[int] = option(
        None,
        "Its port; 587, with security tls 465, with none 25 where nothing says otherwise.",
        example=587,
        least=1,
        most=65535,
    )
    security: str = option(
        "starttls",
        "How the connection is encrypted. A password is never sent without.",
        choices=("starttls", "tls", "none"),
    )
    user: str = option("", "Account there, when it wants one.", example="pgops")
    password: str = option("", "Its password. Rather use password_file.", secret=True)
    password_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/smtp_password"
    )
    sendmail: str = option(
        "/usr/sbin/sendmail", "The program that takes mail where there is no smtp_host.", form="path"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Webhook:
    """Any program that takes JSON by POST."""

    url: str = option("", "Its address. Rather use url_file when it holds a secret.", secret=True)
    url_file: str = option("", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/webhook_url")
    secret: str = option(
        "", "Key of the signature (HMAC-SHA-256) of each message. Rather use secret_file.", secret=True
    )
    secret_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/webhook_secret"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Heartbeat:
    """A watcher outside, which raises an alarm when it no longer hears of the runs of alerts.watched."""

    url: str = option("", "Its address; {instance} and {verb} stand for themselves. Rather use url_file.", secret=True)
    url_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/heartbeat_url"
    )
    style: str = option(
        "healthchecks",
        "What it understands. healthchecks: /start, /fail and success, as Healthchecks has it; plain: success only.",
        choices=("healthchecks", "plain"),
    )


@dataclass(frozen=True)
class AppriseUrls:
    """Whatever else Apprise speaks; this host then needs the Python package apprise."""

    urls: str = option("", "Apprise's addresses, with blanks between. Rather use urls_file.", secret=True)
    urls_file: str = option(
        "", "File (mode 0600) that holds them in one line.", form="path", example="/etc/pgops/secrets/apprise_urls"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Alerts:
    """Who hears of trouble, and when. Nobody does without a channel; the section of a channel turns it on.

    Files of secrets are read when something is sent, so that a channel in trouble never keeps a backup from being made.
    """

    slack: Slack = field(default_factory=Slack)
    pagerduty: PagerDuty = field(default_factory=PagerDuty)
    sentry: Sentry = field(default_factory=Sentry)
    email: Email = field(default_factory=Email)
    webhook: Webhook = field(default_factory=Webhook)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    apprise: AppriseUrls = field(default_factory=AppriseUrls)
    watched: list[str] = option(
        [],
        "Verbs of which the heartbeat and Sentry's monitor hear. When empty: backup; also sync and verify, where they are "
        "scheduled, of one whose address or slug has {verb}, so that each verb has a check of its own.",
        example=["backup", "sync"],
    )
    repeat: str = option("24h", "How often an incident that lasts is told again; 0s for never.", form="span")
    escalate_after: str = option(
        "3d",
        "When an incident that lasts is told as critical, and to channels of the level escalated; 0s for never.",
        form="span",
    )
    quiet_hours: str = option(
        "",
        "Hours in which only what is at least quiet_level is told, in schedule.timezone.",
        form="hours",
        example="22:00-07:00",
    )
    quiet_level: str = option(
        "critical", "What is told in quiet hours all the same.", choices=("critical", "escalated")
    )
    grace: str = option("1h", "How long after its time a run may begin before it counts as missed.", form="span")
    size_change: int = option(
        50,
        "By how many percent a backup may differ from the median of the seven before it; 0 for any.",
        least=0,
        most=100000,
    )
    disk_days: str = option(
        "7d", "How long the disk of the local place must last at its pace; 0s for no forecast.", form="span"
    )
    restore_test: str = option(
        "auto",
        "How often somebody must try a restore (pgops restore, recover or rescue); never when empty. auto: each quarter where "
        "somebody did it once, and once in the first year where verifications prove that sets restore.",
        form="span or auto",
        example="90d",
    )
    ways: int = option(
        2,
        "How many ways there should be by which each trouble reaches people, so that one may fail: with fewer, pgops status has "
        "a notice. 1 where a monitoring system asks as well; 0 for any.",
        least=0,
        most=7,
    )
    timeout: int = option(10, "Seconds to wait for the answer of a channel.", least=1, most=120)
    ca_bundle: str = option(
        "",
        "File with the certificates that those of the channels' servers must descend from.",
        form="path",
        example="/etc/pgops/alerts-ca.pem",
    )

    def channels(self) -> list[str]:
        """Return the names of the channels that are on."""
        given = {
            "slack": self.slack.webhook_url or self.slack.webhook_url_file,
            "pagerduty": self.pagerduty.routing_key or self.pagerduty.routing_key_file,
            "sentry": self.sentry.dsn or self.sentry.dsn_file,
            "email": self.email.to,
            "webhook": self.webhook.url or self.webhook.url_file,
            "heartbeat": self.heartbeat.url or self.heartbeat.url_file,
            "apprise": self.apprise.urls or self.apprise.urls_file,
        }
        return [name for name, value in given.items() if value]

    def ways_told(self) -> list[str]:
        """Return the names of all that is told something: the channels, and Sentry's monitor, which hears of runs."""
        found = self.channels()
        return [*found, SENTRY_MONITOR] if "sentry" in found and self.sentry.monitor else found

    def watchers(self) -> list[str]:
        """Return the names of those that hear of runs, and of nothing else."""
        return [name for name in self.ways_told() if name in (HEARTBEAT, SENTRY_MONITOR)]


__all__ = (
    "HEARTBEAT",
    "SENTRY_MONITOR",
    "Alerts",
    "AppriseUrls",
    "Email",
    "Heartbeat",
    "PagerDuty",
    "Sentry",
    "Slack",
    "Webhook",
)
