# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From notices to channels: what is not accepted waits, and is tried again with the next look. Nothing here raises."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Callable, Optional

from ..core.incidents import REPEATED
from ..core.notices import Notice
from ..core.redaction import Redactor
from ..core.times import Clock
from .channels import Channel
from .http import Answer, DeliveryError
from .state import Health, State, Waiting

_TRIES = 3
_LONGEST_PAUSE = 5.0  # seconds; a service that asks for more is asked again by the next look
_BUDGET = 60.0  # seconds for all channels together
_MOST_WAITING = 100  # for each channel

Pause = Callable[[float], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one notice at one channel."""

    channel: str
    notice: Notice
    accepted: bool
    said: str
    fresh: bool = True


def enqueue(state: State, channels: Iterable[Channel], notices: Sequence[Notice], clock: Clock) -> None:
    """Let each notice wait for the channels that hear of it. A reminder does not wait behind what says the same."""
    for channel in channels:
        for notice in notices:
            if not channel.hears(notice):
                continue
            mine = [w for w in state.queue if w.channel == channel.name]
            if notice.event == REPEATED and any(w.notice.key == notice.key for w in mine):
                continue
            if len(mine) >= _MOST_WAITING:
                state.queue.remove(mine[0])
                state.dropped += 1
            state.queue.append(Waiting(channel.name, notice, clock()))


def deliver(
    state: State, channels: Sequence[Channel], redactor: Redactor, clock: Clock, *, pause: Pause = time.sleep
) -> list[Outcome]:
    """Hand over what waits, to each channel in order until one notice is not accepted; return what became of them."""
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + _BUDGET
    names = {channel.name for channel in channels}
    # Of a channel that is no longer there nothing can be told.
    state.queue = [w for w in state.queue if w.channel in names]
    for channel in channels:
        for waiting in [w for w in state.queue if w.channel == channel.name]:
            if waiting.not_before is not None and clock() < waiting.not_before:
                break
            if time.monotonic() > deadline:
                waiting.error = waiting.error or "There was no time left to try"
                break
            fresh = not waiting.tries
            try:
                answer = _try(channel, waiting, deadline, pause)
            except DeliveryError as error:
                said = redactor.text(str(error))
                waiting.error = said
                waiting.not_before = clock() + timedelta(seconds=error.wait) if error.wait else None
                failed(state, channel.name, said, clock)
                outcomes.append(Outcome(channel.name, waiting.notice, False, said, fresh))
                break
            state.queue.remove(waiting)
            accepted(state, channel.name, answer, clock)
            outcomes.append(Outcome(channel.name, waiting.notice, True, redactor.text(answer.said)))
    return outcomes


def _try(channel: Channel, waiting: Waiting, deadline: float, pause: Pause) -> Answer:
    def once() -> Answer:
        waiting.tries += 1
        return channel.send(waiting.notice)

    return patiently(once, deadline=deadline, pause=pause)


def patiently(
    work: Callable[[], Answer], *, deadline: Optional[float] = None, pause: Pause = time.sleep, tries: int = _TRIES
) -> Answer:
    """Call `work` up to `tries` times, with growing pauses or those that the service asks for. Raise DeliveryError at the end."""
    for attempt in range(1, tries + 1):
        try:
            return work()
        except DeliveryError as error:
            wait = error.wait if error.wait is not None else float(2 ** (attempt - 1))
            over = deadline is not None and time.monotonic() + wait > deadline
            if not error.again or attempt == tries or wait > _LONGEST_PAUSE or over:
                raise
        except Exception as error:  # a channel's library may raise anything
            raise DeliveryError("%s: %s" % (type(error).__name__, error), again=False) from error
        pause(wait)
    raise DeliveryError("It was not tried.", again=False)


def accepted(state: State, name: str, answer: Answer, clock: Clock) -> None:
    """Remember that a channel works, and what time its service has."""
    state.health[name] = Health(last_ok=clock())
    if answer.ahead is not None:
        state.ahead = (answer.ahead, clock())


def failed(state: State, name: str, said: str, clock: Clock) -> None:
    """Remember that a channel does not work."""
    held = state.health.get(name, Health())
    state.health[name] = Health(held.last_ok, held.failing_since or clock(), said)


__all__ = ("Outcome", "accepted", "deliver", "enqueue", "failed", "patiently")
