# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb alert: look what people must hear of and tell them, pass on a message, try the channels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Callable, Optional

from ..alerts.channel import Channel
from ..alerts.delivery import Outcome, accepted, failed, patiently
from ..alerts.health import shown
from ..alerts.http import Answer, DeliveryError
from ..alerts.pings import Ping, note
from ..alerts.state import State
from ..context import Context
from ..core.alerting import Trouble, troubles
from ..core.commands import addressed
from ..core.errors import UnreachableError, UsageError
from ..core.incidents import MESSAGE, OPENED, RECOVERED, TEST, Policy, Telling, advance
from ..core.newcomers import introduce
from ..core.notices import Notice, Origin, message, notice
from ..core.quiet import RANK, parse_quiet
from ..core.times import parse_span
from ..system.zones import named_zone
from .alert_delivery import Result, hand_over, log, need_channel, opened, remembered, told_command
from .alert_facts import gather, limits
from .alert_watchers import PING, retold
from .metrics import publish_quietly

LEVELS = ("ok", "info", "warning", "critical")
_AT_ONCE = timedelta(microseconds=1)
_TOLD_OF_DAMAGE = timedelta(days=1)  # what is told with some patience is told in that time
_LONGEST = 1300  # characters
_DAMAGE = "(What the alerts remembered was damaged: this may have been told before.)"


# --- looking ----------------------------------------------------------------------------------------------------------


def evaluate(context: Context, *, dry_run: bool = False) -> Result:
    """Look what is wrong, tell of it, and try again what was not accepted earlier.

    Result: `troubles` (list of {cause, level, text, since, next}), `told` (list of {event, cause, level, subject}),
    `incidents`, `deliveries` (list of {channel, event, cause, accepted, said, fresh}), `undelivered`. A dry run tells nobody and
    remembers nothing. Raise UsageError without a channel, BusyError while another look lasts, UnreachableError when a
    channel did not take something new: it is tried again with the next look.
    """
    need_channel(context)
    result, looked = look(context, look_at_s3=False, dry_run=dry_run)
    if looked and not dry_run:
        # Otherwise they would only be as young as the last run.
        publish_quietly(context)
    lost = [d for d in result["deliveries"] if not d["accepted"] and d["fresh"]]
    if lost:
        error = UnreachableError(
            "%s did not take an alert: %s" % (", ".join(sorted({d["channel"] for d in lost})), lost[0]["said"]),
            hint="It is tried again with the next look. Find out why: pgops alert test.",
        )
        error.details = result
        raise error
    return result


def look(context: Context, *, look_at_s3: bool, dry_run: bool, ends: Sequence[Ping] = ()) -> tuple[Result, bool]:
    """Return what evaluate() returns, and whether every place was looked at. `ends` are the pings of a run that has ended."""
    found = opened(context)
    with remembered(context, dry_run=dry_run) as state:
        now = context.clock()
        note(state, ends, context.clock)
        gathered = gather(context, state, look_at_s3=look_at_s3, remember=not dry_run)
        current = [_addressed(context, one) for one in troubles(gathered.facts, limits(context, gathered.facts), now)]
        rules = policy(context)
        # After damage each is told once more, whenever it was told last.
        again = replace(rules, repeat=_AT_ONCE) if state.memory else rules
        state.incidents, tellings = advance(state.incidents, current, again, now)
        origin = Origin(context.config.instance, context.host, gathered.safe)

        def made(telling: Telling) -> Notice:
            return notice(_of_the_damage(telling, state, now), origin, context.redactor, now)

        notices = [made(telling) for telling in tellings]
        hearing, told = [c.name for c in found if c.hears_notices], {telling.cause for telling in tellings}
        state.owed, news = introduce(state.owed, hearing, state.incidents, told, rules, now)
        extra = {name: [made(telling) for telling in telling_it] for name, telling_it in news.items()}
        state.memory = ""  # what is told of it waits in the state from here on
        outcomes = [] if dry_run else hand_over(context, state, found, notices, extra=extra)
        late = [] if dry_run else retold(context, state, found, gathered.facts, ends)
        every = list(dict.fromkeys([*notices, *(one for some in extra.values() for one in some)]))
        return _result(state, current, every, outcomes, late), gathered.looked


def _of_the_damage(telling: Telling, state: State, now: datetime) -> Telling:
    """Return what is told, with a word on the damaged memory where it may have been told before."""
    if state.damaged is None or telling.event == RECOVERED or telling.since > state.damaged:
        return telling
    if not state.memory and (telling.event != OPENED or now - state.damaged >= _TOLD_OF_DAMAGE):
        return telling
    text = telling.text if len(telling.text) <= _LONGEST else telling.text[: _LONGEST - 1] + "…"
    return replace(telling, text="%s %s" % (text, _DAMAGE))


def _addressed(context: Context, trouble: Trouble) -> Trouble:
    """Return the trouble with commands that work for who reads them somewhere else: about this instance, and as whom."""
    return replace(trouble, text=addressed(trouble.text, context.config_file), step=told_command(context, trouble.step))


def policy(context: Context) -> Policy:
    """Return how often what is told, as the configuration says."""
    alerts = context.config.alerts
    zone = named_zone(context.config.schedule.timezone)
    return Policy(
        repeat=parse_span(alerts.repeat or "0s"),
        escalate_after=parse_span(alerts.escalate_after or "0s"),
        quiet=parse_quiet(alerts.quiet_hours, zone, alerts.quiet_level),
    )


def _result(
    state: State, current: list[Trouble], notices: list[Notice], outcomes: list[Outcome], late: list[Ping]
) -> Result:
    return {
        "changed": bool(notices),
        "troubles": [trouble.as_data() for trouble in current],
        "told": [{"event": n.event, "cause": n.cause, "level": n.level, "subject": n.subject} for n in notices],
        "incidents": shown(state),
        "deliveries": [*(_delivery(o) for o in outcomes), *(_pinged(p) for p in late if not p.dropped)],
        "undelivered": _waiting(state),
    }


def _waiting(state: State) -> int:
    return len(state.queue) + len(state.unheard)


def _pinged(late: Ping) -> Result:
    return {
        "channel": late.way,
        "event": PING,
        "cause": late.beat.verb,
        "accepted": late.accepted,
        "said": late.said,
        "fresh": False,
    }


def _delivery(outcome: Outcome) -> Result:
    return {
        "channel": outcome.channel,
        "event": outcome.notice.event,
        "cause": outcome.notice.cause,
        "accepted": outcome.accepted,
        "said": outcome.said,
        "fresh": outcome.fresh,
    }


# --- messages and tests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What somebody wants told: `level` is ok, info, warning or critical; ok ends what was told under the same `key`.

    With `once`, the same is told again only after the time that a lasting incident is, and an end only of what was told.
    """

    level: str
    text: str
    key: str = ""
    dry_run: bool = False
    once: bool = False


def send(context: Context, wanted: Message) -> Result:
    """Tell a message to every channel that hears of its level.

    Result: `level`, `key`, `channels` (list of {channel, accepted, said}), `undelivered`; a dry run has `channels` without
    answers, and what was told already has none (`changed` is False). Raise UsageError for what cannot be told,
    UnreachableError when a channel did not take it: it then waits for the next look.
    """
    need_channel(context)
    if wanted.level not in LEVELS:
        raise UsageError("%r is no level." % (wanted.level,), hint="Use one of %s." % ", ".join(LEVELS))
    if not wanted.text.strip():
        raise UsageError("There is nothing to tell.", hint="Give the text of the message.")
    if wanted.level == "ok" and not wanted.key:
        raise UsageError(
            "The level ok ends something, and needs to know what.", hint="Give the key of the earlier message."
        )
    if wanted.once and not wanted.key:
        raise UsageError("Once of what? The same is known by its key.", hint="Give a key with once.")
    found = opened(context)
    over = wanted.level == "ok"
    made = message(
        level="info" if over else wanted.level,
        rank=RANK["critical"] if over else RANK[wanted.level],
        text=wanted.text,
        key=wanted.key,
        event=RECOVERED if over else MESSAGE,
        origin=Origin(context.config.instance, context.host),
        redactor=context.redactor,
        now=context.clock(),
    )
    hearing = [channel for channel in found if channel.hears(made)]
    if not hearing:
        raise UsageError(
            "No channel hears of the level %s." % wanted.level,
            hint="Lower the level of a channel, or raise that of the message.",
        )
    result: Result = {"changed": True, "level": wanted.level, "key": made.key, "undelivered": 0}
    with remembered(context, dry_run=wanted.dry_run) as state:
        if wanted.once and _told_already(context, state, wanted):
            return {**result, "changed": False, "channels": [], "undelivered": _waiting(state)}
        if wanted.dry_run:
            return {**result, "channels": [{"channel": c.name, "accepted": None, "said": ""} for c in hearing]}
        if over:
            state.messages.pop(wanted.key, None)
        elif wanted.key:
            state.messages[wanted.key] = (_digest(wanted), context.clock())
        outcomes = [o for o in hand_over(context, state, hearing, [made], others=found) if o.notice is made]
        result["undelivered"] = _waiting(state)
    said = {o.channel: o for o in outcomes}
    result["channels"] = [_answer(c.name, said.get(c.name)) for c in hearing]
    return _judged(result, "It waits, and is tried again with the next look (pgops alert evaluate).")


def _digest(wanted: Message) -> str:
    return hashlib.sha256(("%s %s" % (wanted.level, wanted.text)).encode("utf-8", "replace")).hexdigest()[:16]


def _told_already(context: Context, state: State, wanted: Message) -> bool:
    held = state.messages.get(wanted.key)
    if wanted.level == "ok" or held is None:
        return held is None and wanted.level == "ok"
    told, at = held
    repeat = policy(context).repeat
    return told == _digest(wanted) and (not repeat or context.clock() - at < repeat)


def _answer(name: str, outcome: Optional[Outcome]) -> Result:
    if outcome is None:
        return {"channel": name, "accepted": False, "said": "It waits behind what this channel did not take earlier."}
    return {"channel": name, "accepted": outcome.accepted, "said": outcome.said}


def test(context: Context, *, dry_run: bool = False) -> Result:
    """Send a test to each channel and to each watcher of runs, and return what each answered.

    Result: `action` (test), `channels` (list of {channel, accepted, said, seconds}). Raise UsageError without a channel, UnreachableError
    when one did not accept.
    """
    need_channel(context)
    found = opened(context)
    result: Result = {"changed": not dry_run, "action": "test", "channels": []}
    if dry_run:
        return {
            **result,
            "channels": [
                {"channel": name, "accepted": None, "said": "", "seconds": 0.0} for name, _try in _tries(found)
            ],
        }
    made = message(
        level="info",
        rank=RANK["escalated"],
        text="This is a test of the alerts of %s. Nothing is wrong." % context.config.instance,
        key="test",
        event=TEST,
        origin=Origin(context.config.instance, context.host),
        redactor=context.redactor,
        now=context.clock(),
    )
    with remembered(context) as state:
        for name, attempt in _tries(found):
            begun = time.monotonic()
            answer, said = _tested(attempt, made)
            if answer is not None:
                kept = replace(answer, refused=context.redactor.text(answer.refused))
                accepted(state, name, kept, context.clock)
            else:
                failed(state, name, context.redactor.text(said), context.clock)
            result["channels"].append(
                {
                    "channel": name,
                    # Who tries them wants to know of each address.
                    "accepted": answer is not None and not answer.refused,
                    "said": context.redactor.text(said),
                    "seconds": round(time.monotonic() - begun, 3),
                }
            )
    log(
        context,
        ["test to %s: %s" % (c["channel"], "accepted" if c["accepted"] else c["said"]) for c in result["channels"]],
    )
    return _judged(result, "Mend them, then run it again: until then nobody hears of trouble by them.")


def _tries(found: list[Channel]) -> Iterator[tuple[str, Callable[[Notice], Answer]]]:
    """Yield every way by which something is told, and what tries it."""
    for channel in found:
        if channel.hears_notices:
            yield channel.name, channel.test
        if channel.watcher:
            yield channel.watcher, channel.test_watcher


def _tested(attempt: Callable[[Notice], Answer], made: Notice) -> tuple[Optional[Answer], str]:
    try:
        # As it would be in earnest, but for the patience: a person waits for the answer.
        answer = patiently(lambda: attempt(made), tries=1)
    except DeliveryError as error:
        return None, str(error)
    return answer, answer.said


def _judged(result: Result, hint: str) -> Result:
    lost = [c for c in result["channels"] if not c["accepted"]]
    if not lost:
        return result
    said = "\n".join("  - %s: %s" % (c["channel"], c["said"]) for c in lost)
    error = UnreachableError(
        "%d of %d channels did not accept it:\n%s" % (len(lost), len(result["channels"]), said), hint=hint
    )
    error.details = result
    raise error


__all__ = ("LEVELS", "Message", "evaluate", "look", "policy", "send", "test")
