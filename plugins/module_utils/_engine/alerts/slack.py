# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Slack, by an incoming webhook."""

from __future__ import annotations

from typing import Any

from ..core.notices import Notice
from .channel import Channel
from .http import Answer, DeliveryError

_COLOURS = {"info": "#439fe0", "warning": "#daa038", "critical": "#a30200"}
_GOOD = "#2eb886"
_SECTION = 2900  # characters; Slack refuses a section of more than 3000


class SlackChannel(Channel):
    """A webhook posts into one channel of Slack."""

    name = "slack"
    bundles = True

    def send(self, notice: Notice) -> Answer:
        """Post the notice. Raise DeliveryError if Slack does not say ok."""
        answer = self.caller.post_json(self.secret("webhook_url"), payload(notice))
        if answer.said.partition(" ")[2].strip() not in ("ok", ""):
            raise DeliveryError("It answered %s" % answer.said[:300], again=False, alone=True)
        return answer


def payload(notice: Notice) -> dict[str, Any]:
    """Return the message as Slack takes it. Nothing in it can mention people or channels, as < and > are escaped."""
    details = [("Host", notice.host), ("Instance", notice.instance), ("Since", notice.since)]
    blocks = [_section("", notice.text), _section("", "\n".join("%s: %s" % pair for pair in details))]
    if notice.safe:
        blocks.append(_section("*Still safe*\n", "\n".join(notice.safe)))
    if notice.step:
        blocks.append(_section("*Next*: ", notice.step))
    colour = _GOOD if notice.ends else _COLOURS.get(notice.level, _GOOD)
    return {"text": escaped(notice.subject), "attachments": [{"color": colour, "blocks": blocks}]}


def escaped(text: str) -> str:
    """Return `text` so that Slack shows it as it stands."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(head: str, text: str) -> dict[str, Any]:
    shown = escaped(text)
    while len(shown) > _SECTION:
        # Shortened before it is escaped, so that no escape is cut through.
        text = text[: len(text) * 9 // 10]
        shown = escaped(text) + "…"
    return {"type": "section", "text": {"type": "mrkdwn", "text": head + shown}}


__all__ = ("SlackChannel", "escaped", "payload")
