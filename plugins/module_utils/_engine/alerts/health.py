# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How the alerts themselves do, from what they remember: no service is asked."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..core.freshness import CRITICAL, OK, WARNING, Finding
from ..core.incidents import Incident
from ..core.open_troubles import Way
from ..core.times import human_span, iso, parse_iso
from .channel import Channel
from .channels import channels
from .http import DeliveryError
from .state import State

Result = dict[str, Any]
# The services that have a channel of their own, by the schemes by which Apprise reaches them.
_APPRISE = {"slack": "slack", "pagerduty": "pagerduty", "mailto": "email", "mailtos": "email"}


def shown(state: State) -> list[Result]:
    """Return the open incidents in JSON's types."""
    return [_shown(held) for _cause, held in sorted(state.incidents.items()) if held.ended is None]


def _shown(incident: Incident) -> Result:
    return {
        "cause": incident.cause,
        "level": incident.level,
        "text": incident.text,
        "since": iso(incident.since),
        "told": iso(incident.told) if incident.told else None,
        "escalated": incident.escalated,
    }


def health(context: Context, state: State, trouble: str) -> Result:
    """Return `channels`, `watchers` (those of them that hear of runs only), `incidents` (those told, as of the last look),
    `undelivered`, `oldest` (since when something waits), `dropped` and `trouble`, from what load() gave.
    """
    on = context.config.alerts.ways_told()
    if not on:
        state, trouble = State(), ""
    queued = [w.queued for w in state.queue if w.channel in on] + [u.ended for u in state.unheard if u.way in on]
    return {
        "channels": [_channel(context, state, name) for name in on],
        "watchers": context.config.alerts.watchers(),
        "incidents": shown(state),
        "undelivered": len(queued),
        "oldest": iso(min(queued)) if queued else None,
        "dropped": state.dropped,
        "trouble": trouble,
    }


def _channel(context: Context, state: State, name: str) -> Result:
    held = state.health.get(name)
    return {
        "channel": name,
        "last_ok": iso(held.last_ok) if held and held.last_ok else None,
        "failing_since": iso(held.failing_since) if held and held.failing_since else None,
        "error": context.redactor.text(held.error) if held else "",
        "refused": context.redactor.text(held.refused) if held else "",
        "waiting": sum(w.channel == name for w in state.queue) + sum(u.way == name for u in state.unheard),
    }


def ways(context: Context) -> list[Way]:
    """Return by which ways trouble reaches people, for core.open_troubles.ways(): what each hears, and by which service."""
    found = []
    for channel in channels(context.config, context.runner):
        watched = channel.watched()
        # One check for several verbs hears of none of them for sure: the success of one hides that another never ran.
        heard = tuple(watched) if channel.apart or len(watched) == 1 else ()
        level = channel.level if channel.hears_notices else ""
        found.append(Way(channel.name, level, heard, _services(channel)))
    return found


def _services(channel: Channel) -> tuple[str, ...]:
    """Return the services that a channel goes through; Apprise's addresses name them."""
    if channel.name != "apprise":
        return (channel.name,)
    try:
        schemes = [word.partition("://")[0].lower() for word in channel.secret("urls").split()]
    except DeliveryError:
        schemes = []
    return tuple(dict.fromkeys(_APPRISE.get(scheme, "apprise") for scheme in schemes)) or ("apprise",)


def findings(known: Result) -> list[Finding]:
    """Judge what health() gave: who does not hear of trouble must at least see it in the status."""
    if not known["channels"]:
        return []
    if known["trouble"]:
        return [Finding("alerts", WARNING, "What the alerts remembered cannot be read: %s" % known["trouble"])]
    failing = [c for c in known["channels"] if c["failing_since"]]
    if failing:
        said = "; ".join("%s: %s" % (c["channel"], c["error"]) for c in failing)
        text = "%d of %d channels for alerts took nothing of late: %s" % (len(failing), len(known["channels"]), said)
        since = min(parse_iso(c["failing_since"]) for c in failing)
        # Who hears of runs only tells nobody of trouble, whether it works or not.
        people = [c for c in known["channels"] if c["channel"] not in known["watchers"]] or known["channels"]
        return [Finding("alerts", CRITICAL if all(c in failing for c in people) else WARNING, text, since=since)]
    partly = ["%s: %s" % (c["channel"], c["refused"]) for c in known["channels"] if c["refused"]]
    if partly:
        return [Finding("alerts", WARNING, "The last alert was not taken by everybody: %s" % "; ".join(partly))]
    return [Finding("alerts", OK, "Alerts go to %s." % ", ".join(c["channel"] for c in known["channels"]))]


def lines(known: Result, now: Any) -> list[str]:
    """Return the lines about the channels for a person."""
    if not known["channels"]:
        return ["nobody is told: there is no channel (section alerts)"]
    said = []
    width = max(10, *(len(channel["channel"]) for channel in known["channels"]))
    for channel in known["channels"]:
        line = "%s " % channel["channel"].ljust(width)
        if channel["failing_since"]:
            line += "takes nothing since %s: %s" % (_ago(channel["failing_since"], now), channel["error"].rstrip("."))
        elif channel["last_ok"]:
            line += "took its last message %s" % _ago(channel["last_ok"], now)
            if channel["refused"]:
                line += ", but %s" % channel["refused"].rstrip(".")
        else:
            line += "has not been tried (pgops alert test)"
        if channel["waiting"]:
            line += "; %d waiting" % channel["waiting"]
        said.append(line)
    if known["dropped"]:
        count = "1 message was" if known["dropped"] == 1 else "%d messages were" % known["dropped"]
        said.append("%s never taken, and given up (alert.log has them)" % count)
    return said


def _ago(moment: str, now: Any) -> str:
    return "%s ago" % human_span(max(0.0, (now - parse_iso(moment)).total_seconds()))


__all__ = ("findings", "health", "lines", "shown", "ways")
