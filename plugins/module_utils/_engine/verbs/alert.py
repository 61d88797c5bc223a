# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb alert: look what people must hear of and tell them, pass on a message, try the channels.

After each run the same look follows by itself (after_run). Whatever goes wrong in it, the run's own outcome stands.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Callable, Optional

from ..alerts.channels import Beat, Channel, channels, secrets_of
from ..alerts.delivery import Outcome, accepted, deliver, enqueue, failed, patiently
from ..alerts.health import shown
from ..alerts.http import Answer, DeliveryError
from ..alerts.marks import Marks
from ..alerts.pings import Ping, Since, note, ping, retell
from ..alerts.state import COPIED, NAME, State, load, save, save_copy, set_aside
from ..context import Context
from ..core.alerting import Facts, Trouble, troubles
from ..core.calendar import next_after
from ..core.commands import addressed, as_account
from ..core.errors import PgopsError, UnreachableError, UsageError
from ..core.incidents import MESSAGE, OPENED, RECOVERED, TEST, Policy, Telling, advance
from ..core.newcomers import introduce
from ..core.notices import EACH, Notice, Origin, message, notice
from ..core.quiet import RANK, parse_quiet
from ..core.times import iso, parse_iso, parse_span
from ..runs import BASE_BACKUP, append_log, history
from ..system.account import own_name
from ..system.lock import hold
from ..system.zones import named_zone
from .alert_facts import gather, known, limits
from .info import calendars
from .metrics import publish_quietly

Result = dict[str, Any]

PING = "ping"  # what a watcher outside hears of a run
LEVELS = ("ok", "info", "warning", "critical")
_PATIENCE = timedelta(seconds=90)  # for another look at the same time
_NO_CHANNEL = "Add the section of a channel to alerts in the configuration; docs/alerts.md has one of each."
# After these the S3 place may hold something else than before.
_TOUCHES_S3 = frozenset({"sync", "verify", "prune", "probe", "pin", "unpin", "alert"})
_START_SECONDS = 5.0
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
    _need_channel(context)
    result, looked = _look(context, look_at_s3=False, dry_run=dry_run)
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


def _look(context: Context, *, look_at_s3: bool, dry_run: bool, ends: Sequence[Ping] = ()) -> tuple[Result, bool]:
    """Return what evaluate() returns, and whether every place was looked at. `ends` are the pings of a run that has ended."""
    found = _opened(context)
    with _state(context, dry_run=dry_run) as state:
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
        outcomes = [] if dry_run else _deliver(context, state, found, notices, extra=extra)
        late = [] if dry_run else _retold(context, state, found, gathered.facts, ends)
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
    return replace(
        trouble, text=addressed(trouble.text, context.config_file), step=_told_command(context, trouble.step)
    )


def _told_command(context: Context, step: str) -> str:
    return as_account(addressed(step, context.config_file), own_name())


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
    _need_channel(context)
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
    found = _opened(context)
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
    with _state(context, dry_run=wanted.dry_run) as state:
        if wanted.once and _told_already(context, state, wanted):
            return {**result, "changed": False, "channels": [], "undelivered": _waiting(state)}
        if wanted.dry_run:
            return {**result, "channels": [{"channel": c.name, "accepted": None, "said": ""} for c in hearing]}
        if over:
            state.messages.pop(wanted.key, None)
        elif wanted.key:
            state.messages[wanted.key] = (_digest(wanted), context.clock())
        outcomes = [o for o in _deliver(context, state, hearing, [made], others=found) if o.notice is made]
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
    _need_channel(context)
    found = _opened(context)
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
    with _state(context) as state:
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
    _log(
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


# --- after each run ---------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """The channels' view of one run, from its begin to its end."""

    verb: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def before_run(context: Context, verb: str) -> Watch:
    """Tell who watches from outside that a run begins, and return what after_run() wants. It never fails."""
    watch = Watch(verb)
    # In a group it is only known later whose turn it is, and a start without an end would be an alarm.
    alone = not context.config.group.members
    try:
        for channel in _beating(context, verb) if alone else ():
            channel.caller = type(channel.caller)(min(channel.caller.timeout, _START_SECONDS), channel.caller.ca_bundle)
            with contextlib.suppress(DeliveryError):
                # That it was not heard shows when the run ends.
                channel.beat(_beat(context, watch, "start", "", None))
    except Exception as error:  # noqa: BLE001 - no alert may keep a run from its work
        context.warn("That the run begins could not be told: %s: %s" % (type(error).__name__, error))
    return watch


class Urgent:
    """Tells people of what a run of `verb` meets while it lasts, in a thread of its own, and when that is over. It never fails.

    One message for each run: the first thing that is met. The rest is in the log and in the record.
    """

    def __init__(self, context: Context, verb: str) -> None:
        self._context, self._key = context, "%s in progress" % verb
        self._teller: Optional[threading.Thread] = None

    def tell(self, text: str) -> None:
        """Begin to tell `text`."""
        if self._teller is None:
            told = Message("warning", text, self._key)
            self._teller = threading.Thread(target=self._send, args=(told,), name="urgent", daemon=True)
            self._teller.start()

    def over(self) -> None:
        """Tell that the run has ended, to whom heard of it, also where that was of an earlier run which was killed."""
        teller, known = self._teller, False
        if teller is not None:
            teller.join(_PATIENCE.total_seconds())
        with contextlib.suppress(Exception):
            known = self._key in load(self._context.state)[0].messages
        if known:
            self._send(Message("ok", "That run has ended.", self._key, once=True))

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
        ends = _tell_end(context, watch, record)
        troubled += ["%s: %s" % (end.way, end.said) for end in ends if not end.accepted]
        result, _looked = _look(context, look_at_s3=watch.verb in _TOUCHES_S3, dry_run=False, ends=ends)
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
        with _state(context) as state:
            known(context, state, [])
            state.memory = ""
    except KeyboardInterrupt:
        context.warn("What status compares with later was not remembered: somebody ended that.")
    except Exception as error:  # noqa: BLE001 - that may spoil no run
        context.warn("What status compares with later could not be remembered: %s" % error)


def _tell_end(context: Context, watch: Watch, record: Result) -> list[Ping]:
    """Tell who watches from outside how the run ended; return what became of that.

    A run that left its work to another node is no sign that somebody did it.
    """
    if record.get("skipped"):
        return []
    phase = "ok" if record.get("outcome") == "ok" else "fail"
    text = context.redactor.text(
        "%s %s: %s" % (watch.verb, record.get("outcome"), record.get("reason") or record.get("set") or "")
    )
    beat = _beat(context, watch, phase, text[:2000], record.get("seconds"))
    beat = replace(beat, ended=str(record.get("ended") or iso(context.clock())))
    ends = [ping(channel, beat, context.redactor) for channel in _beating(context, watch.verb)]
    _log(context, [_line(end) for end in ends if end.asked])
    return ends


def _retold(context: Context, state: State, found: list[Channel], facts: Facts, ends: Sequence[Ping]) -> list[Ping]:
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
    _log(context, [_line(one) for one in late])
    return late


def _ended_after(context: Context, verb: str, moment: datetime) -> bool:
    """Tell whether a run of `verb` has ended after `moment`, by the newest record."""
    with contextlib.suppress(StopIteration, KeyError, TypeError, AttributeError, PgopsError):
        return parse_iso(next(history(context.state, verb))["ended"]) > moment
    return False


def _line(end: Ping) -> str:
    became = "accepted" if end.accepted else "given up: %s" % end.said if end.dropped else end.said
    return "%s (%s) of %s to %s: %s" % (PING, end.beat.phase, end.beat.verb, end.way, became)


def _beating(context: Context, verb: str) -> list[Channel]:
    if verb not in context.config.watched_verbs(apart=True):
        return []
    return [channel for channel in _opened(context) if verb in channel.watched()]


def _beat(context: Context, watch: Watch, phase: str, text: str, seconds: Any) -> Beat:
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


# --- what they share --------------------------------------------------------------------------------------------------


def _need_channel(context: Context) -> None:
    if not context.config.alerts.channels():
        raise UsageError("There is no channel for alerts.", hint=_NO_CHANNEL)


def _opened(context: Context) -> list[Channel]:
    """Return the channels; from now on their secrets are masked wherever anything is told."""
    found = channels(context.config, context.runner)
    context.runner.redactor = context.redactor.knowing(secrets_of(found))
    return found


@contextlib.contextmanager
def _state(context: Context, *, dry_run: bool = False) -> Iterator[State]:
    """Yield what is remembered, alone with it, and keep it afterwards. A damaged file is set aside, and that is told."""
    if dry_run:
        yield _loaded(context, dry_run=True)
        return
    path = context.state / "locks" / "alerts.lock"
    with hold(path, "alerts of %s" % context.config.instance, clock=context.clock, wait=_PATIENCE):
        state = _loaded(context, dry_run=False)
        try:
            yield state
        finally:
            if _save(context, state):
                # Now the state knows it.
                Marks(context.state / "locks", context.clock).clear()
                _save_copy(context, state)


def _loaded(context: Context, *, dry_run: bool) -> State:
    state, trouble = load(context.state)
    if trouble:
        aside = ""
        if not dry_run:
            try:
                aside = "; it is kept as %s" % set_aside(context.state, context.clock())
            except OSError as error:
                aside = ", and could not be set aside: %s" % error.strerror
        how = "They go on with its copy" if state.memory == COPIED else "They begin anew, by the records of the runs"
        context.warn(
            "What the alerts remembered (%s) could not be read%s. %s, and tell once more what is open: %s"
            % (context.state / NAME, aside, how, trouble)
        )
        state.damaged = context.clock()
    return state


def _save_copy(context: Context, state: State) -> None:
    try:
        save_copy(context.state, state)
    except OSError as error:
        context.warn("What the alerts remember has no second copy: %s" % (error.strerror or error))


def _save(context: Context, state: State) -> bool:
    """Keep the state, and tell whether it could be kept."""
    try:
        save(context.state, state)
    except OSError as error:
        lost = "What the alerts told could not be remembered, and may be told again: %s"
        if not context.config.alerts.channels():
            lost = "What status compares with later could not be remembered: %s"
        context.warn(lost % error)
        return False
    return True


def _deliver(
    context: Context,
    state: State,
    found: list[Channel],
    notices: list[Notice],
    *,
    others: Optional[list[Channel]] = None,
    extra: Optional[Mapping[str, list[Notice]]] = None,
) -> list[Outcome]:
    """Queue the notices for the channels in `found`, remember them, and hand over what waits.

    What is `extra` is for the channel of that name alone.
    """
    for channel in found:
        for_it = (extra or {}).get(channel.name, [])
        enqueue(state, [channel], for_it, context.clock, step=_told_command(context, EACH))
    enqueue(state, found, notices, context.clock, step=_told_command(context, EACH))
    marks = Marks(context.state / "locks", context.clock)
    # A state that could not be saved knows nothing of what was told since: each look would tell it again.
    state.queue = [w for w in state.queue if not marks.holds(w.channel, w.notice)]
    if state.queue:
        # Remembered first: who is killed while a service does not answer has still told of the trouble, later.
        _save(context, state)
    outcomes = deliver(state, others or found, context.redactor, context.clock)
    if outcomes and not _save(context, state):
        _mark(marks, outcomes)
    for outcome in outcomes:
        if outcome.dropped:
            context.warn(
                "Given up what %s never took: %s (%s)" % (outcome.channel, outcome.notice.subject, outcome.said)
            )
        elif outcome.refused:
            context.warn("An alert was taken by %s, but %s" % (outcome.channel, outcome.refused))
    lines = ["%s %s (%s)" % (n.event, n.cause, n.level) for n in notices]
    lines += ["%s is new: %s" % (name, ", ".join(n.cause for n in some)) for name, some in (extra or {}).items()]
    lines += ["%s of %s to %s: %s" % (o.notice.event, o.notice.cause, o.channel, _became(o)) for o in outcomes]
    _log(context, lines)
    return [o for o in outcomes if not o.dropped]


def _became(outcome: Outcome) -> str:
    if outcome.accepted:
        return "accepted, but %s" % outcome.refused if outcome.refused else "accepted"
    return "given up: %s" % outcome.said if outcome.dropped else outcome.said


def _mark(marks: Marks, outcomes: list[Outcome]) -> None:
    """Keep what was told by marks, as the state could not be saved."""
    for outcome in outcomes:
        if outcome.accepted:
            # Where not even that is possible, the warning is all that is left.
            with contextlib.suppress(OSError):
                marks.add(outcome.channel, outcome.notice)


def _log(context: Context, lines: list[str]) -> None:
    """Add lines to the log of the alerts, if there is one."""
    if not lines or not context.config.log_dir:
        return
    head = "%s %s alert" % (iso(context.clock()), context.config.instance)
    try:
        shown = ["%s %s" % (head, " ".join(context.redactor.text(line).split())) for line in lines]
        append_log(Path(context.config.log_dir) / "alert.log", shown)
    except OSError as error:
        context.warn("The log of the alerts could not be written: %s" % (error.strerror or error))


__all__ = (
    "LEVELS",
    "Message",
    "Urgent",
    "Watch",
    "after_run",
    "before_run",
    "evaluate",
    "policy",
    "remember",
    "send",
    "test",
)
