# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How runs ended, for who watches from outside: what was not heard is told late, while it is still true. Nothing here raises.

A start is never told late: it would only be the start of nothing. A failure is told until another run has ended. A success
counts for the moment at which it is heard, so that an old one would hide that the next run never came: it is told within an
hour and before the next run is due, or, to who knows which run it belongs to, before the next run is due; afterwards it is a
line in the log of a watcher that has one, which is no sign of life.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Callable, Optional

from ..core.redaction import Redactor
from ..core.times import Clock
from .channel import Beat, Channel
from .delivery import accepted, failed, patiently
from .http import Answer, DeliveryError
from .state import State, Unheard

_AS_NEW = timedelta(hours=1)  # as late as watchers of this kind let a run be
_NOTHING = Answer("")


@dataclass(frozen=True)
class Ping:
    """What became of a beat at the watcher `way`. One that is `dropped` is not tried again."""

    way: str
    beat: Beat
    accepted: bool
    said: str
    dropped: bool = False
    asked: bool = True
    wait: Optional[float] = None
    ahead: Optional[timedelta] = None


@dataclass(frozen=True)
class Since:
    """What has been of a verb since one of its runs ended: whether another one has ended or is at work, when one is due next."""

    newer: bool = False
    running: bool = False
    due: Optional[datetime] = None


def ping(channel: Channel, beat: Beat, redactor: Redactor, *, tries: int = 3) -> Ping:
    """Tell a beat to the channel's watcher, and return what became of it."""
    try:
        answer = patiently(lambda: channel.beat(beat) or _NOTHING, tries=tries)
    except DeliveryError as error:
        return Ping(channel.watcher, beat, False, redactor.text(str(error)), wait=error.wait)
    said = redactor.text(answer.said)
    return Ping(channel.watcher, beat, True, said, asked=answer is not _NOTHING, ahead=answer.ahead)


def note(state: State, ends: Iterable[Ping], clock: Clock) -> None:
    """Remember what became of the ends of runs that were told just now. What was still to tell of their verbs is old."""
    for end in ends:
        state.unheard = [u for u in state.unheard if (u.way, u.beat.verb) != (end.way, end.beat.verb)]
        if not end.accepted:
            state.unheard.append(Unheard(end.way, end.beat))
            _failed(state, state.unheard[-1], end, clock)
        elif end.asked:
            accepted(state, end.way, Answer(end.said, end.ahead), clock)


def retell(
    state: State,
    channels: Sequence[Channel],
    since: Callable[[str, datetime], Since],
    redactor: Redactor,
    clock: Clock,
    *,
    but: Iterable[str] = (),
) -> list[Ping]:
    """Tell what was not heard, where it is still true, and return what became of it. The watchers in `but` failed just now.

    `since` tells what has been of a verb since a moment.
    """
    known = {channel.watcher: channel for channel in channels if channel.watcher}
    silent = set(but)
    found: list[Ping] = []
    # Of a watcher that is no longer there nothing can be told.
    state.unheard = [u for u in state.unheard if u.way in known]
    for unheard in list(state.unheard):
        channel, now = known[unheard.way], clock()
        beat = late(unheard.beat, unheard.ended, now, since(unheard.beat.verb, unheard.ended), channel)
        if beat is None:
            state.unheard.remove(unheard)
            found.append(Ping(unheard.way, unheard.beat, False, unheard.error, dropped=True))
        elif unheard.way not in silent and (unheard.not_before is None or now >= unheard.not_before):
            told = ping(channel, beat, redactor, tries=1)
            if told.accepted:
                state.unheard.remove(unheard)
                if told.asked:
                    accepted(state, unheard.way, Answer(told.said, told.ahead), clock)
            else:
                silent.add(unheard.way)
                _failed(state, unheard, told, clock)
            found.append(told)
    return found


def late(beat: Beat, ended: datetime, now: datetime, since: Since, channel: Channel) -> Optional[Beat]:
    """Return what is to be told now of a run that has `ended`, None when that is nothing any more."""
    if since.newer:
        return None
    told = replace(beat, text="%s (It ended at %s, and is told late.)" % (beat.text, beat.ended))
    if beat.phase == "fail":
        return told
    if since.running:
        return None
    as_new = ended + _AS_NEW
    if since.due is not None:
        as_new = since.due if channel.keeps_runs else min(as_new, since.due)
    if now < as_new:
        return told
    return replace(told, phase="log") if channel.has_log else None


def _failed(state: State, unheard: Unheard, end: Ping, clock: Clock) -> None:
    unheard.tries += 1
    unheard.error = end.said
    unheard.not_before = clock() + timedelta(seconds=end.wait) if end.wait else None
    failed(state, end.way, end.said, clock)


__all__ = ("Ping", "Since", "late", "note", "ping", "retell")
