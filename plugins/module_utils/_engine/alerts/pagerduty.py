# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""PagerDuty, by its Events API v2: an incident of ours is one of its own, by the dedup key."""

from __future__ import annotations

from typing import Any

from ..core.notices import Notice
from .channel import Channel
from .http import AGENT, Answer

_SUMMARY, _KEY = 1024, 255


class PagerDutyChannel(Channel):
    """A service there."""

    name = "pagerduty"
    knows_again = True

    def send(self, notice: Notice) -> Answer:
        """Trigger or resolve. Raise DeliveryError if it is not accepted."""
        key = self.secret("routing_key")
        return self.caller.post_json(self.section.url, payload(notice, key, "resolve" if notice.ends else "trigger"))

    def test(self, notice: Notice) -> Answer:
        """Trigger an incident of the level info, and resolve it."""
        key = self.secret("routing_key")
        self.caller.post_json(self.section.url, payload(notice, key, "trigger"))
        return self.caller.post_json(self.section.url, payload(notice, key, "resolve"))


def payload(notice: Notice, routing_key: str, action: str) -> dict[str, Any]:
    """Return the event."""
    event: dict[str, Any] = {"routing_key": routing_key, "event_action": action, "dedup_key": notice.key[:_KEY]}
    if action == "resolve":
        return event
    details = {
        "text": notice.text,
        "since": notice.since,
        "next": notice.step,
        "still safe": list(notice.safe),
        "event": notice.event,
    }
    event["client"] = AGENT
    event["payload"] = {
        "summary": notice.subject[:_SUMMARY],
        "source": notice.host,
        "severity": notice.level,
        "timestamp": notice.at,
        "component": notice.instance,
        "group": notice.group,
        "class": notice.cause,
        "custom_details": details,
    }
    return event


__all__ = ("PagerDutyChannel", "payload")
