# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What is told to who watches runs from outside: that one begins, how it ended, and late what was not heard."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..alerts.channel import Beat, Channel
from ..alerts.pings import Ping, Since, ping, retell
from ..alerts.state import State
from ..context import Context
from ..core.alerting import Facts
from ..core.calendar import next_after
from ..core.errors import PgopsError
from ..core.times import iso, parse_iso
from ..run_records import BASE_BACKUP, history
from ..system.zones import named_zone
from .alert_delivery import Result, log, opened
from .info import calendars

PING = "ping"  # what a watcher outside hears of a run


@dataclass
class Watch:
    """The channels' view of one run, from its begin to its end."""

    verb: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def beating(context: Context, verb: str) -> list[Channel]:
    if verb not in context.config.watched_verbs(apart=True):
        return []
    return [channel for channel in opened(context) if verb in channel.watched()]


def beat_of(context: Context, watch: Watch, phase: str, text: str, seconds: Any) -> Beat:
    calendar = calendars(context).get(watch.verb)
    return Beat(
        phase=phase,
        verb=watch.verb,
        instance=context.config.instance,
        host=context.host,
        text=text,
        seconds=float(seconds) if seconds is not None else None,
        run=watch.run,
        crontab=calendar.text if calendar else "",
        timezone=context.config.schedule.timezone,
    )


def tell_end(context: Context, watch: Watch, record: Result) -> list[Ping]:
    """Tell who watches from outside how the run ended; return what became of that.

    A run that left its work to another node is no sign that somebody did it.
    """
    if record.get("skipped"):
        return []
    phase = "ok" if record.get("outcome") == "ok" else "fail"
    text = context.redactor.text(
        "%s %s: %s" % (watch.verb, record.get("outcome"), record.get("reason") or record.get("set") or "")
    )
    beat = beat_of(context, watch, phase, text[:2000], record.get("seconds"))
    beat = replace(beat, ended=str(record.get("ended") or iso(context.clock())))
    ends = [ping(channel, beat, context.redactor) for channel in beating(context, watch.verb)]
    log(context, [_line(end) for end in ends if end.asked])
    return ends


def retold(context: Context, state: State, found: list[Channel], facts: Facts, ends: Sequence[Ping]) -> list[Ping]:
    """Tell who watches from outside what they have not heard, where it is still true."""
    zone, known = named_zone(context.config.schedule.timezone), calendars(context)

    def since(verb: str, ended: datetime) -> Since:
        names = (verb, BASE_BACKUP) if verb == "backup" else (verb,)
        begun = facts.running.get(verb)
        return Since(
            newer=any(_ended_after(context, name, ended) for name in names),
            running=begun is not None and begun > ended,
            due=next_after(known[verb], ended, zone) if verb in known else None,
        )

    but = [end.way for end in ends if not end.accepted]
    late = retell(state, found, since, context.redactor, context.clock, but=but)
    log(context, [_line(one) for one in late])
    return late


def _ended_after(context: Context, verb: str, moment: datetime) -> bool:
    """Tell whether a run of `verb` has ended after `moment`, by the newest record."""
    with contextlib.suppress(StopIteration, KeyError, TypeError, AttributeError, PgopsError):
        return parse_iso(next(history(context.state, verb))["ended"]) > moment
    return False


def _line(end: Ping) -> str:
    became = "accepted" if end.accepted else "given up: %s" % end.said if end.dropped else end.said
    return "%s (%s) of %s to %s: %s" % (PING, end.beat.phase, end.beat.verb, end.way, became)


__all__ = ("PING", "Watch", "beat_of", "beating", "retold", "tell_end")
