# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""`pgops check` as a plugin of Nagios and Icinga: one line, codes 0 to 3 and no other, an answer in time whatever happens."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, Optional

from ..core import check
from ..core.commands import addressed
from ..core.errors import PgopsError, UsageError
from .invocation import config_path

SERVICE = "PGOPS"


class _LateError(BaseException):
    """The time is up. No handler of errors on the way may take it for trouble of its own."""


def answer(options: argparse.Namespace) -> int:
    """Do the check that `options` ask for, print its line, and return its code; UNKNOWN for all that goes wrong."""
    which = options.check
    verdict, instance = check.unknown("It was interrupted."), None
    try:
        with _deadline(options.timeout):
            verdict, instance = _judge(options)
    except _LateError:
        verdict = check.unknown(
            "There was no answer within %g s: a place hangs, or needs more time (-t)." % options.timeout
        )
    except KeyboardInterrupt:
        pass
    except PgopsError as error:
        verdict = check.unknown(addressed(str(error), os.path.abspath(config_path(options))))
    except Exception as error:  # noqa: BLE001 - a monitoring system gets a line, whatever happens
        verdict = check.unknown("Something went wrong that should not: %s: %s" % (type(error).__name__, error))
    return _print(verdict, which, instance, options)


def refused(error: UsageError) -> int:
    """Print that the command line is wrong and return UNKNOWN."""
    return _print(check.unknown(str(error)), "all", None, argparse.Namespace(json=False, verbose=False))


def _judge(options: argparse.Namespace) -> tuple[check.Verdict, Optional[str]]:
    from ..context import Reporter
    from ..verbs.status import status
    from .invocation import Run

    which = options.check
    if which == "all" and (options.warning or options.critical):
        raise UsageError(
            "-w and -c need to know of what: %s." % ", ".join(check.UNITS), hint="pgops check backup -c 30h"
        )
    ranges = [
        check.parse_range(text, check.UNITS[which]) if text else None for text in (options.warning, options.critical)
    ]
    run = Run(options, Reporter())
    with _explained():
        run.begin()
    verdict = check.judge(run.context.redactor.data(status(run.context)), which, *ranges)
    # The checklist wants to know whether anybody asks. Where nothing can be written, it does not learn it.
    with contextlib.suppress(OSError):
        run.context.asked.open("a").close()
        os.utime(run.context.asked)
    return verdict, run.context.config.instance


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Tell an account that may not read the configuration how it may ask all the same."""
    try:
        yield
    except UsageError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise UsageError(
            error.message,
            hint="%s The role monitoring lets others ask so." % error.hint,
        ) from error


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _LateError in this thread when `seconds` have passed."""

    def late(number: int, frame: Any) -> None:
        del number, frame
        raise _LateError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _print(verdict: check.Verdict, which: str, instance: Optional[str], options: argparse.Namespace) -> int:
    from .progress import printable

    service = SERVICE if which == "all" else "%s %s" % (SERVICE, which.upper())
    text = printable(verdict.output(service, verbose=options.verbose))
    if options.json:
        text = json.dumps(_as_data(verdict, which, instance)) + "\n"
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        # Nobody reads. What is left in the buffer must not be tried again at the end, which would spoil the code.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return check.UNKNOWN
    return verdict.code


def _as_data(verdict: check.Verdict, which: str, instance: Optional[str]) -> dict[str, Any]:
    return {
        "verb": "check",
        "instance": instance,
        "check": which,
        "exit_code": verdict.code,
        "state": check.WORDS[verdict.code].lower(),
        "text": verdict.text,
        "details": list(verdict.details),
        "values": [
            {"label": v.label, "value": None if math.isinf(v.number) else v.number, "unit": v.uom}
            for v in verdict.values
        ],
    }


__all__ = ("SERVICE", "answer", "refused")
