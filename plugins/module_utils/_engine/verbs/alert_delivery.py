# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What the verb alert and the looks after runs share: the channels, what is remembered, and how notices are handed over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

from ..alerts.channel import Channel
from ..alerts.channels import channels, secrets_of
from ..alerts.delivery import Outcome, deliver, enqueue
from ..alerts.marks import Marks
from ..alerts.state import COPIED, NAME, State, load, save, save_copy, set_aside
from ..context import Context
from ..core.commands import addressed, as_account
from ..core.errors import UsageError
from ..core.notices import EACH, Notice
from ..core.times import iso
from ..run_records import append_log
from ..system.account import own_name
from ..system.lock import hold

Result = dict[str, Any]

PATIENCE = timedelta(seconds=90)  # for another look at the same time
_NO_CHANNEL = "Add the section of a channel to alerts in the configuration; docs/alerts.md has one of each."


def need_channel(context: Context) -> None:
    if not context.config.alerts.channels():
        raise UsageError("There is no channel for alerts.", hint=_NO_CHANNEL)


def opened(context: Context) -> list[Channel]:
    """Return the channels; from now on their secrets are masked wherever anything is told."""
    found = channels(context.config, context.runner)
    context.runner.redactor = context.redactor.knowing(secrets_of(found))
    return found


@contextlib.contextmanager
def remembered(context: Context, *, dry_run: bool = False) -> Iterator[State]:
    """Yield what is remembered, alone with it, and keep it afterwards. A damaged file is set aside, and that is told."""
    if dry_run:
        yield _loaded(context, dry_run=True)
        return
    path = context.state / "locks" / "alerts.lock"
    with hold(path, "alerts of %s" % context.config.instance, clock=context.clock, wait=PATIENCE):
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


def hand_over(
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
        enqueue(state, [channel], for_it, context.clock, step=told_command(context, EACH))
    enqueue(state, found, notices, context.clock, step=told_command(context, EACH))
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
    log(context, lines)
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


def log(context: Context, lines: list[str]) -> None:
    """Add lines to the log of the alerts, if there is one."""
    if not lines or not context.config.log_dir:
        return
    head = "%s %s alert" % (iso(context.clock()), context.config.instance)
    try:
        shown = ["%s %s" % (head, " ".join(context.redactor.text(line).split())) for line in lines]
        append_log(Path(context.config.log_dir) / "alert.log", shown)
    except OSError as error:
        context.warn("The log of the alerts could not be written: %s" % (error.strerror or error))


def told_command(context: Context, step: str) -> str:
    return as_account(addressed(step, context.config_file), own_name())


__all__ = ("PATIENCE", "Result", "hand_over", "log", "need_channel", "opened", "remembered", "told_command")
