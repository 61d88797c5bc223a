# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What the alerts do beside each run. Whatever goes wrong in it, the run's own outcome stands: nothing here raises."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Optional

from ..alerts.http import DeliveryError
from ..alerts.state import load
from ..context import Context
from ..core.errors import PgopsError, UsageError
from ..system.lock import holder
from .alert import Message, look, send
from .alert_delivery import PATIENCE, Result, remembered
from .alert_facts import known
from .alert_watchers import Watch, beat_of, beating, tell_end

# After these the S3 place may hold something else than before.
_TOUCHES_S3 = frozenset({"sync", "verify", "prune", "probe", "pin", "unpin", "alert"})
_START_SECONDS = 5.0


def before_run(context: Context, verb: str) -> Watch:
    """Tell who watches from outside that a run begins, and return what after_run() wants. It never fails."""
    watch = Watch(verb)
    # In a group it is only known later whose turn it is, and a start without an end would be an alarm.
    alone = not context.config.group.members
    try:
        for channel in beating(context, verb) if alone else ():
            channel.caller = type(channel.caller)(min(channel.caller.timeout, _START_SECONDS), channel.caller.ca_bundle)
            with contextlib.suppress(DeliveryError):
                # That it was not heard shows when the run ends.
                channel.beat(beat_of(context, watch, "start", "", None))
    except Exception as error:  # noqa: BLE001 - no alert may keep a run from its work
        context.warn("That the run begins could not be told: %s: %s" % (type(error).__name__, error))
    return watch


class Urgent:
    """Tells people of what a run of `verb` meets while it lasts, in a thread of its own, and when that is over. It never fails.

    One message for each run: the first thing that is met. The rest is in the log and in the record.
    """

    def __init__(self, context: Context, verb: str) -> None:
        self._context, self._key = context, "%s in progress" % verb
        self._lock = context.state / "locks" / ("%s.lock" % verb)
        self._teller: Optional[threading.Thread] = None

    def tell(self, text: str) -> None:
        """Begin to tell `text`."""
        if self._teller is None:
            told = Message("warning", text, self._key)
            self._teller = threading.Thread(target=self._send, args=(told,), name="urgent", daemon=True)
            self._teller.start()

    def over(self) -> None:
        """Tell that the run has ended, to whom heard of it, also where that was of an earlier run which was killed."""
        try:
            if self._teller is not None:
                self._teller.join(PATIENCE.total_seconds())
            elif self._other_run():
                return
            known = False
            with contextlib.suppress(Exception):
                known = self._key in load(self._context.state)[0].messages
            if known:
                self._send(Message("ok", "That run has ended.", self._key, once=True))
        except KeyboardInterrupt:
            self._context.warn("That the run has ended was not told: somebody ended that.")

    def _other_run(self) -> bool:
        """Tell whether another run of the verb is at work: what was told is about that one."""
        by = holder(self._lock)
        return by is not None and by.alive and by.pid != os.getpid()

    def _send(self, told: Message) -> None:
        try:
            send(self._context, told)
        except UsageError:
            return  # nobody wants to hear of it
        except Exception as error:  # noqa: BLE001 - no alert may spoil a run
            said = self._context.redactor.text(str(error))
            self._context.warn("What was told during the run was not heard at once: %s" % said)


def after_run(context: Context, watch: Watch, record: Result) -> None:
    """Tell of a run that has ended and been recorded, and of all else that there is to tell. It never fails."""
    troubled: list[str] = []
    try:
        ends = tell_end(context, watch, record)
        troubled += ["%s: %s" % (end.way, end.said) for end in ends if not end.accepted]
        result, _looked = look(context, look_at_s3=watch.verb in _TOUCHES_S3, dry_run=False, ends=ends)
        troubled += ["%s: %s" % (d["channel"], d["said"]) for d in result["deliveries"] if not d["accepted"]]
    except PgopsError as error:
        context.warn("The alerts were not looked after: %s" % error)
    except KeyboardInterrupt:
        context.warn("The alerts were not looked after: somebody ended that.")
    except Exception as error:  # noqa: BLE001 - no alert may spoil the outcome of a run
        context.warn("The alerts were not looked after: %s: %s" % (type(error).__name__, error))
    if troubled:
        context.warn("An alert was not taken by %s" % "; ".join(dict.fromkeys(troubled)))


def remember(context: Context) -> None:
    """Keep what the next look at troubles compares with, and tell nobody: there is no channel. It never fails."""
    try:
        with remembered(context) as state:
            known(context, state, [])
            state.memory = ""
    except KeyboardInterrupt:
        context.warn("What status compares with later was not remembered: somebody ended that.")
    except Exception as error:  # noqa: BLE001 - that may spoil no run
        context.warn("What status compares with later could not be remembered: %s" % error)


__all__ = ("Urgent", "Watch", "after_run", "before_run", "remember")
