# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A run: one execution of a verb, recorded whatever its outcome, told to who is to hear of it, and counted in the metrics."""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path
from typing import Any, Callable, Optional

from .context import Context
from .core.errors import DISK_FULL, PgopsError
from .core.times import iso
from .run_records import Result, append_log, outcome_of, write_record


def perform(context: Context, verb: str, work: Callable[[Context], Result], *, dry_run: bool = False) -> Result:
    """Do `work`, record the run, and return its result with the keys that every verb has.

    These are `verb`, `instance`, `changed`, `dry_run`, `begun`, `ended` (ISO 8601, UTC), `seconds` and `warnings`.
    A dry run touches nothing and so leaves no record. What `work` raises is recorded and raised again; the `details` of a
    PgopsError are completed to the same shape.
    """
    watch = None if dry_run else _watch(context, verb)
    started, tick = context.clock(), time.monotonic()
    urgent = None if watch is None else _urgent(context, verb)
    if not dry_run:
        context.alarm = lambda text: _tell_now(context, verb, text, urgent)
    result: Result = {}
    failure: Optional[BaseException] = None
    try:
        result = work(context)
    except BaseException as error:
        failure = _told(error)
        result = getattr(failure, "details", {})
        if failure is not error:
            raise failure from error
        raise
    finally:
        result = {
            "verb": verb,
            "instance": context.config.instance,
            "changed": False,
            **result,
            "dry_run": dry_run,
            "begun": iso(started),
            "ended": iso(context.clock()),
            "seconds": round(time.monotonic() - tick, 3),
            "warnings": list(context.warnings),
        }
        context.alarm = None
        if not dry_run:
            write_record(context, result, failure)
        if urgent is not None:
            urgent.over()
            result["warnings"] = list(context.warnings)
        if watch is not None:
            _alert(context, watch, result, failure)
        elif not dry_run:
            _remember(context, result)
        if not dry_run:
            # Last, so that they tell whether the alerts were taken.
            _publish(context, result)
        if isinstance(failure, PgopsError):
            failure.details = context.redactor.data(result)
    return context.redactor.data(result)  # type: ignore[no-any-return]


def _watch(context: Context, verb: str) -> Any:
    """Tell who watches from outside that a run begins; None where nobody is to be told anything."""
    if not context.config.alerts.channels():
        return None
    from .verbs.alert_runs import before_run  # loads much that a run without channels does not need

    return before_run(context, verb)


def _urgent(context: Context, verb: str) -> Any:
    """Return what tells people of something while a run lasts."""
    from .verbs.alert_runs import Urgent

    return Urgent(context, verb)


def _tell_now(context: Context, verb: str, text: str, urgent: Any) -> None:
    """Write to the log of the verb what cannot wait for the end of the run, and let people hear of it. It never fails."""
    line = "%s %s warning: %s" % (iso(context.clock()), context.config.instance, " ".join(text.split()))
    if context.config.log_dir:
        # What the log does not take, the record tells at the end.
        with contextlib.suppress(OSError):
            append_log(Path(context.config.log_dir) / ("%s.log" % verb), [line])
    if urgent is not None:
        urgent.tell(text)


def _alert(context: Context, watch: Any, result: Result, failure: Optional[BaseException]) -> None:
    """Let people hear of what they must hear of; the run's own outcome stands, whatever comes of that."""
    from .verbs.alert_runs import after_run

    after_run(context, watch, context.redactor.data({**result, **outcome_of(failure)}))
    result["warnings"] = list(context.warnings)


def _remember(context: Context, result: Result) -> None:
    """Where nobody is to be told anything, keep what status compares with later."""
    from .verbs.alert_runs import remember

    remember(context)
    result["warnings"] = list(context.warnings)


def _told(error: BaseException) -> BaseException:
    """Return `error`, or a sentence with a next step where a disk is full: that can happen wherever something is written."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    where = " (%s)" % error.filename if error.filename else ""
    return PgopsError("A disk is full: %s%s." % (error.strerror, where), hint=DISK_FULL)


def _publish(context: Context, result: Result) -> None:
    """Write the numbers of the host anew, where that is wanted. That they cannot be written does not fail the run."""
    if not context.config.metrics.textfile_directory:
        return
    from .verbs.metrics import publish_quietly

    publish_quietly(context)
    result["warnings"] = list(context.warnings)


__all__ = ("perform",)
