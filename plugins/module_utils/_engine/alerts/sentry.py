# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Sentry: errors and check-ins as envelopes. Its SDK would need a library on every host for two requests."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import Any, Optional
from urllib.parse import urlsplit

from .. import __version__
from ..core.notices import Notice
from ..settings import SENTRY_MONITOR
from .channel import Beat, Channel
from .http import AGENT, Answer, DeliveryError, to_body

_LEVELS = {"critical": "error", "warning": "warning", "info": "info"}
_STATUS = {"start": "in_progress", "ok": "ok", "fail": "error"}
_TAG = 200


@dataclass(frozen=True)
class Dsn:
    """Where envelopes go, and the key that opens it."""

    url: str
    key: str


def parse_dsn(text: str) -> Dsn:
    """Return what a DSN (`https://KEY@HOST/PROJECT`) names. Raise DeliveryError if it names nothing."""
    try:
        parts = urlsplit(text)
        port = ":%d" % parts.port if parts.port else ""
        folder, _slash, project = parts.path.rpartition("/")
        if parts.scheme in ("http", "https") and parts.hostname and parts.username and project.isdecimal():
            host = "[%s]" % parts.hostname if ":" in parts.hostname else parts.hostname
            url = "%s://%s%s%s/api/%s/envelope/" % (parts.scheme, host, port, folder, project)
            return Dsn(url, parts.username)
    except ValueError:
        pass
    raise DeliveryError("Its DSN is none like https://KEY@HOST/PROJECT.", again=False)


class SentryChannel(Channel):
    """A project there. Nothing there is resolved by a message, so recoveries are for the other channels."""

    name = "sentry"
    hears_recoveries = False

    keeps_runs = True  # by the name of the check-in

    @property
    def watcher(self) -> str:  # type: ignore[override]  # only where there is a monitor
        """What its monitor is called, empty where there is none."""
        return SENTRY_MONITOR if self.section.monitor else ""

    @property
    def apart(self) -> bool:
        """Whether there is a monitor for each verb."""
        return "{verb}" in self.section.monitor

    def send(self, notice: Notice) -> Answer:
        """Send an event. Raise DeliveryError if it is not accepted."""
        identity = uuid.uuid4().hex
        return self._post({"event_id": identity}, "event", event(notice, identity, self.section.environment))

    def beat(self, beat: Beat) -> Optional[Answer]:
        """Send a check-in. Raise DeliveryError if it is not accepted."""
        slug = slug_of(self.named(self.section.monitor, beat.verb))
        return self._post({}, "check_in", check_in(beat, slug, self.section.environment))

    def test_watcher(self, notice: Notice) -> Answer:
        """Check in for a monitor that is not there, as only that is no sign of life. Raise DeliveryError if it is not accepted."""
        slug = "%s-test" % slug_of(self.named(self.section.monitor, "backup"))[:45]
        beat = Beat("ok", "backup", notice.instance, notice.host, run=uuid.uuid4().hex)
        answer = self._post({}, "check_in", check_in(beat, slug, self.section.environment))
        return replace(answer, said="%s (as %s, which counts for no monitor)" % (answer.said, slug))

    def _post(self, head: dict[str, Any], kind: str, item: dict[str, Any]) -> Answer:
        dsn = parse_dsn(self.secret("dsn"))
        body = to_body(item)
        lines = [to_body(head), to_body({"type": kind, "length": len(body), "content_type": "application/json"}), body]
        auth = "Sentry sentry_version=7, sentry_client=%s, sentry_key=%s" % (AGENT, dsn.key)
        headers = {"Content-Type": "application/x-sentry-envelope", "X-Sentry-Auth": auth}
        return self.caller.post(dsn.url, b"\n".join(lines) + b"\n", headers)


def slug_of(name: str) -> str:
    """Return `name` as Sentry takes it for a slug: small letters, digits, - and _, fifty at the most."""
    return re.sub(r"(?:-|[^a-z0-9_])+", "-", name.lower()).strip("-")[:50]


def event(notice: Notice, identity: str, environment: str) -> dict[str, Any]:
    """Return the event. Its fingerprint is the kind of cause, so that five hundred hosts with one trouble are one issue."""
    return {
        "event_id": identity,
        "timestamp": notice.at,
        "platform": "other",
        "level": _LEVELS.get(notice.level, "error"),
        "logger": "pgops",
        "server_name": notice.host,
        "release": "pgops@%s" % __version__,
        "environment": environment,
        "message": {"formatted": "%s\n\n%s" % (notice.subject, notice.body())},
        "fingerprint": ["pgops", notice.group],
        "tags": {"instance": notice.instance[:_TAG], "cause": notice.cause[:_TAG], "event": notice.event},
        "extra": {"since": notice.since, "next": notice.step, "safe": list(notice.safe)},
    }


def check_in(beat: Beat, slug: str, environment: str) -> dict[str, Any]:
    """Return the check-in of a run; with the run's calendar, by which Sentry makes the monitor when it is missing."""
    item: dict[str, Any] = {
        "check_in_id": beat.run,
        "monitor_slug": slug,
        "status": _STATUS[beat.phase],
        "release": "pgops@%s" % __version__,
        "environment": environment,
    }
    if beat.seconds is not None:
        item["duration"] = beat.seconds
    if beat.crontab:
        item["monitor_config"] = {
            "schedule": {"type": "crontab", "value": beat.crontab},
            "checkin_margin": 60,
            "max_runtime": 24 * 60,
            **({"timezone": beat.timezone} if beat.timezone else {}),
        }
    return item


__all__ = ("Dsn", "SentryChannel", "check_in", "event", "parse_dsn", "slug_of")
