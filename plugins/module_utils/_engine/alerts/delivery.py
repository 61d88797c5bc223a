# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From notices to channels: what is not accepted waits, and is tried again with the next look. Nothing here raises."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Callable, Optional

from ..core.incidents import REPEATED
from ..core.notices import EACH, SEVERAL, Notice, bundle
from ..core.redaction import Redactor
from ..core.times import Clock
from .channel import Channel
from .http import Answer, DeliveryError
from .state import Health, State, Waiting

_TRIES = 3
_LONGEST_PAUSE = 5.0  # seconds; a service that asks for more is asked again by the next look
_BUDGET = 60.0  # seconds for all channels together
_MOST_AT_ONCE = 3
_MOST_WAITING = 100  # for each channel
_STUCK = timedelta(hours=24)  # what was not taken for so long no longer holds up what is behind it
_MOST_STUCK = 3  # in one look, so that a channel that is away for days costs little
_SHORTEST = 1.0  # seconds; with less left there is no use in asking

Pause = Callable[[float], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one notice at one channel.

    `refused` says who of its addresses did not take it. One that is `dropped` is not tried again.
    """

    channel: str
    notice: Notice
    accepted: bool
    said: str
    fresh: bool = True
    refused: str = ""
    dropped: bool = False


def enqueue(
    state: State, channels: Iterable[Channel], notices: Sequence[Notice], clock: Clock, *, step: str = EACH
) -> None:
    """Let each notice wait for the channels that hear of it. A reminder does not wait behind what says the same.

    More than a few at once are one message for a channel that people read, with `step` as what to do next.
    """
    for channel in channels:
        heard = [notice for notice in notices if channel.hears(notice)]
        if channel.bundles and len(heard) > _MOST_AT_ONCE:
            heard = [bundle(heard, step)]
        for notice in heard:
            mine = [w for w in state.queue if w.channel == channel.name]
            if notice.event == REPEATED and any(w.notice.key == notice.key and not w.taken for w in mine):
                continue
            if len(mine) >= _MOST_WAITING:
                state.queue.remove(mine[0])
                state.dropped += 1
            state.queue.append(Waiting(channel.name, notice, clock()))


def deliver(
    state: State, channels: Sequence[Channel], redactor: Redactor, clock: Clock, *, pause: Pause = time.sleep
) -> list[Outcome]:
    """Hand over what waits, to each channel in order; return what became of it.

    A channel's turn ends with what it does not accept, unless that may be the message's own fault: one that is refused
    for what it is, or has been tried for a day. Such a one is dropped as soon as the channel takes one behind it. The
    channels that work come first, and each has its share of the time that is left.
    """
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + _BUDGET
    names = {channel.name for channel in channels}
    # Of a channel that is no longer there nothing can be told.
    state.queue = [w for w in state.queue if w.channel in names]
    busy = [channel for channel in channels if any(w.channel == channel.name for w in state.queue)]
    busy.sort(key=lambda channel: state.health.get(channel.name, Health()).failing_since is not None)
    for number, channel in enumerate(busy):
        now = time.monotonic()
        turn = _Turn(state, channel, redactor, clock, now + (deadline - now) / (len(busy) - number), pause)
        outcomes += turn.take()
    return outcomes


class _Turn:
    """One channel's part of a look, until the monotonic time `deadline`."""

    def __init__(
        self, state: State, channel: Channel, redactor: Redactor, clock: Clock, deadline: float, pause: Pause
    ) -> None:
        self._state, self._channel, self._redactor, self._clock = state, channel, redactor, clock
        self._deadline, self._pause = deadline, pause
        self._passed: list[Waiting] = []
        self._stuck = 0
        self._put_off: set[str] = set()  # addresses that refused something for now
        self._outcomes: list[Outcome] = []

    def take(self) -> list[Outcome]:
        caller = self._channel.caller
        try:
            for waiting in [w for w in self._state.queue if w.channel == self._channel.name]:
                if waiting.not_before is not None and self._clock() < waiting.not_before:
                    if waiting.unsure:
                        continue
                    break
                if self._asked(waiting) == [] and not self._left(waiting):
                    continue
                if time.monotonic() + _SHORTEST > self._deadline:
                    waiting.error = waiting.error or "There was no time left to try"
                    break
                if not self._one(waiting):
                    break
        finally:
            self._channel.caller = caller
        return self._outcomes

    def _one(self, waiting: Waiting) -> bool:
        """Try one, and tell whether the next may be tried."""
        # Behind what has been stuck for a day it is no news that the channel takes nothing.
        fresh, name, now = not waiting.tries and not self._stuck, self._channel.name, self._clock()
        stuck = _stuck(waiting, now)
        try:
            answer = self._try(waiting, tries=1 if stuck or self._stuck or waiting.taken else _TRIES)
        except DeliveryError as error:
            said = self._redactor.text(str(error))
            waiting.error = said
            unsure = error.unsure and not self._channel.knows_again
            waiting.unsure += unsure
            wait = _pause_of(waiting) if unsure else error.wait
            waiting.not_before = self._clock() + timedelta(seconds=wait) if wait else None
            if waiting.taken:
                return self._left_out(waiting, error, said, stuck)
            if stuck and unsure:
                # It was handed over more than once, and may have arrived each time.
                failed(self._state, name, said, self._clock)
                self._give_up(waiting)
                return False
            failed(self._state, name, said, self._clock)
            self._outcomes.append(Outcome(name, waiting.notice, False, said, fresh))
            self._passed.append(waiting)
            self._stuck += stuck and not error.alone
            return error.alone or (stuck and self._stuck <= _MOST_STUCK)
        refused = self._settle(waiting, answer)
        self._forget_before(waiting)
        accepted(self._state, name, replace(answer, refused=refused), self._clock)
        self._outcomes.append(Outcome(name, waiting.notice, True, self._redactor.text(answer.said), refused=refused))
        self._drop()
        return True

    def _asked(self, waiting: Waiting) -> Optional[list[str]]:
        """Return the addresses that are asked now, None for a channel that is asked as one."""
        every = self._channel.addresses()
        if not every:
            return None
        # What is older comes first, for each address.
        return [a for a in every if a not in self._put_off and (waiting.to is None or a in waiting.to)]

    def _forget_before(self, taken: Waiting) -> None:
        """Give up what may have been taken where something newer of the same incident was: an alarm behind its end is none."""
        for waiting in list(self._state.queue):
            same = waiting.channel == taken.channel and waiting.notice.key == taken.notice.key
            same = same and taken.notice.cause != SEVERAL  # of which each is about something else
            if same and waiting.unsure and waiting is not taken and waiting.queued <= taken.queued:
                self._give_up(waiting)

    def _left(self, waiting: Waiting) -> bool:
        """See to a message whose addresses are all put off, or get nothing any more; tell whether it is to be tried."""
        if self._put_off:
            return False
        if waiting.taken:
            self._state.queue.remove(waiting)
            return False
        waiting.to = None
        return True

    def _settle(self, waiting: Waiting, answer: Answer) -> str:
        """Keep what was taken for those that may take it later; return who is left out."""
        later = self._for_later(waiting, answer.later)
        refused = self._redactor.text(answer.refused)
        if waiting.lost and not refused:
            refused = "not for %s, refused for good" % ", ".join(waiting.lost)
        waiting.lost += [a for a in answer.lost if a not in waiting.lost]
        self._put_off.update(later)
        if later:
            waiting.to, waiting.taken, waiting.error = later, True, refused or waiting.error
        else:
            self._state.queue.remove(waiting)
        return refused

    def _for_later(self, waiting: Waiting, refused: Sequence[str]) -> list[str]:
        """Return who is still to get it: those that `refused` it for now, and those that were not asked, as they owe something older."""
        asked_later = [a for a in self._put_off if waiting.to is None or a in waiting.to]
        return [a for a in self._channel.addresses() if a in refused or a in asked_later]

    def _left_out(self, waiting: Waiting, error: DeliveryError, said: str, stuck: bool) -> bool:
        """See to those that refuse what others took; tell whether the next may be tried."""
        name = self._channel.name
        if not error.each:
            failed(self._state, name, said, self._clock)
            if not (stuck or error.alone):
                self._outcomes.append(Outcome(name, waiting.notice, False, said, False))
                return False
        waiting.to = self._for_later(waiting, error.later)
        waiting.lost += [a for a in error.lost if a not in waiting.lost]
        self._put_off.update(error.later)
        if stuck or error.alone or not waiting.to:
            self._state.queue.remove(waiting)
            self._outcomes.append(Outcome(name, waiting.notice, True, said, False, refused="given up: %s" % said))
        else:
            self._outcomes.append(Outcome(name, waiting.notice, False, said, False))
        return error.each or error.alone

    def _drop(self) -> None:
        """Give up what was passed over: the channel works, so that it is the message which does not."""
        for waiting in self._passed:
            self._give_up(waiting)
        self._passed = []

    def _give_up(self, waiting: Waiting) -> None:
        if waiting not in self._state.queue:
            return  # by another reason, in the same turn
        self._state.queue.remove(waiting)
        self._state.dropped += 1
        self._outcomes.append(Outcome(self._channel.name, waiting.notice, False, waiting.error, False, dropped=True))

    def _try(self, waiting: Waiting, *, tries: int) -> Answer:
        usual = self._channel.caller

        def once() -> Answer:
            waiting.tries += 1
            left = max(_SHORTEST, self._deadline - time.monotonic())
            self._channel.caller = replace(usual, timeout=min(usual.timeout, left))
            only = self._asked(waiting)
            if only is None:
                return self._channel.send(waiting.notice)
            try:
                return self._channel.send_to(waiting.notice, only)
            except DeliveryError as error:
                if error.each and not waiting.taken:
                    # Who refused it for good is not asked again, while others may take it.
                    later = self._for_later(waiting, error.later)
                    waiting.to = later or None
                    waiting.lost = [*waiting.lost, *error.lost] if later else []
                raise

        return patiently(once, deadline=self._deadline, pause=self._pause, tries=tries)


def _pause_of(waiting: Waiting) -> float:
    """Return how long one waits that may have been taken, in seconds: once more with the next look, then each time longer."""
    return 3600.0 * 2 ** min(waiting.unsure - 2, 5) if waiting.unsure > 1 else 0.0


def _stuck(waiting: Waiting, now: datetime) -> bool:
    return bool(waiting.tries) and now - waiting.queued >= _STUCK


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
    state.health[name] = Health(last_ok=clock(), refused=answer.refused)
    if answer.ahead is not None:
        state.ahead = (answer.ahead, clock())


def failed(state: State, name: str, said: str, clock: Clock) -> None:
    """Remember that a channel does not work."""
    held = state.health.get(name, Health())
    state.health[name] = Health(held.last_ok, held.failing_since or clock(), said)


__all__ = ("Outcome", "accepted", "deliver", "enqueue", "failed", "patiently")
