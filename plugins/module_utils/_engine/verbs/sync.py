# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Sync: bring sets from here to the S3 place, or from there to here; repair what is broken there, alarm about the rest.

What is on one side only is copied. What is on both sides and the same is left alone. What differs under the same name
is repaired from the good side where that is certain, else it is an alarm: nothing is overwritten blindly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from ..context import Context
from ..core.errors import DamagedError, PgopsError, UsageError
from ..core.naming import is_set_id
from ..places.base import Place
from ..places.catalog import Catalog
from .sync_pull import Pull
from .sync_push import Push
from .sync_steps import Done, Result
from .turn import Turn, whose_turn

_BACKUP_WAIT = timedelta(hours=6)


@dataclass(frozen=True)
class Request:
    """What to sync. `sets`: ids, `latest`, `latest_verified`, `all`; empty: push what is missing, pull the latest."""

    direction: str = "push"
    sets: tuple[str, ...] = ()
    dry_run: bool = False


def sync(context: Context, request: Request) -> Result:
    """Bring the wanted sets to the other side and return what was done; under `dry_run` what would be done.

    In a group of servers only the chosen node pushes, unless sets are named by their ids; the result of the others has
    `skipped`, which says who does.
    Raise DamagedError at the end if a set could not be reconciled (the others have been), RefusedError if space is
    short, UnreachableError if the store cannot be reached: what has been sent is kept and goes on from there.
    """
    if request.direction not in ("push", "pull"):
        raise UsageError("%r is no direction." % (request.direction,), hint="Say push or pull.")
    place, done = context.s3(), Done()
    turn = Turn()
    with _locks(context, request):
        if request.direction == "push" and not any(is_set_id(name) for name in request.sets):
            turn = whose_turn(context)
            if not turn.mine:
                _tell_what_is_only_here(context, place)
                return turn.skipped()
        if request.direction == "push":
            push = Push(context, place, done)
            push.run(request.sets, dry_run=request.dry_run)
            if not turn.facts and not any(is_set_id(name) for name in request.sets):
                # In a group another node may have made it.
                push.tell_if_the_newest_is_only_there()
        else:
            Pull(context, place, done).run(request.sets, dry_run=request.dry_run)
    if done.alarms and not request.dry_run:
        said = "; ".join("%s: %s" % (set_id, why.rstrip(".")) for set_id, why in done.alarms)
        error = DamagedError(
            "%d of %d sets could not be reconciled with %s (%d were sent). %s."
            % (len(done.alarms), len(done.plan) + done.already, place.root, len(done.sets), said),
            hint=_next(done),
        )
        error.details = done.result(request.direction, place)
        raise error
    result = {**done.result(request.direction, place), **turn.facts}
    if request.dry_run:
        result["changed"] = bool(done.evidence_sent) or any(s.action in ("push", "pull", "repair") for s in done.plan)
    return result


def _next(done: Done) -> str:
    """Return what to do about the alarms."""
    pull = [set_id for set_id, _why in done.alarms if set_id in done.pullable]
    if not pull:
        return "Verify both copies of each; remove the bad one, then sync again."
    others = " Of the others verify both copies; remove the bad one, then sync again."
    return "The copy here is damaged; bring the good one from there: pgops sync --pull %s.%s" % (
        " ".join(pull),
        others if len(pull) < len(done.alarms) else "",
    )


def _tell_what_is_only_here(context: Context, place: Place) -> None:
    """Warn of sets that are newer than all in `place`: this node made them when it was its turn, and then that changed."""
    here = Catalog(context.local).ids()
    try:
        newest = max(Catalog(place).ids(), default="")
    except PgopsError as error:
        context.warn("Whether this node has sets that are not off the server is unknown: %s" % error.message)
        return
    only_here = [set_id for set_id in here if set_id > newest]
    if only_here:
        context.warn(
            "This node has newer sets than %s. Bring them there with: pgops sync %s" % (place.root, " ".join(only_here))
        )


@contextlib.contextmanager
def _locks(context: Context, request: Request) -> Iterator[None]:
    """Keep other syncs and removals away, and wait for a running backup; a dry run touches nothing and needs none."""
    with contextlib.ExitStack() as stack:
        if not request.dry_run:
            stack.enter_context(context.lock("sync"))
            if request.direction == "push":
                # Published sets never change, so the next backup may begin while we send.
                with context.lock("backup", shared=True, wait=_BACKUP_WAIT):
                    pass
            stack.enter_context(context.lock("sets", shared=True))
        yield


__all__ = ("Request", "sync")
