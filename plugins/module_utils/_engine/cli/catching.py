# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""`pgops catch-up`: the runs that a downtime swallowed, one after the other, each as the schedule calls it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Callable

from ..core.alerting import COMMANDS
from ..core.errors import PgopsError
from ..core.redaction import Redactor
from ..core.times import parse_span
from ..verbs import catch_up as verb
from .invocation import Answer, Run
from .options import parse

# As long as a server may take to come up, with a crash to recover from.
_BOOT = timedelta(minutes=15)
_OK = {"outcome": "ok", "exit_code": 0, "changed": False, "message": "", "hint": ""}


def catch_up(run: Run, call: Callable[[Run], Answer]) -> Answer:
    """Do what was missed, by `call`. A run that fails stops no other; the first such failure's exit code is the result's."""
    options = run.options
    found = verb.look(run.context, run.config_file, dict(options.job), options.timezone)
    wait = run.wait if options.wait is not None else parse_span(run.context.config.schedule.wait or "0s")
    result: dict[str, Any] = {"changed": False, "dry_run": run.dry_run, "missed": [], "exit_code": 0, "outcome": "ok"}
    if not run.dry_run:
        verb.await_server(run.context, found, min(wait, _BOOT))
    for one in found:
        entry: dict[str, Any] = verb.as_data(one)
        result["missed"].append(entry)
        if run.dry_run:
            continue
        if verb.has_run(run.context, one):  # the schedule's own turn came while others ran
            entry.update(_OK, message="it has run meanwhile")
            continue
        run.reporter.note("%s was due at %s" % (one.verb, entry["due"]))
        entry.update(_do(run, COMMANDS.get(one.verb, one.verb).split(), wait, call))
        result["changed"] = result["changed"] or entry["changed"]
        if entry["exit_code"] and not result["exit_code"]:
            result.update({key: entry[key] for key in ("exit_code", "outcome", "message", "hint")})
    return Answer(result, lambda: text(result))


def _do(run: Run, words: Sequence[str], wait: timedelta, call: Callable[[Run], Answer]) -> dict[str, Any]:
    """Do what these words of a command line ask for, as a run of its own; return how it went."""
    options = parse([*words, "--config", run.config_file, *(["--as-root"] if run.options.as_root else [])])
    options.wait, options.overrides = wait, run.options.overrides
    another = Run(options, run.reporter)
    try:
        answer = call(another).result
    except Exception as error:  # noqa: BLE001 - whatever it is, it stops no other
        redactor = another.context.redactor if another.context is not None else Redactor()
        known = error if isinstance(error, PgopsError) else PgopsError("%s: %s" % (type(error).__name__, error))
        said = {"message": redactor.text(known.message), "hint": redactor.text(known.hint)}
        return {**said, "outcome": known.outcome, "exit_code": known.exit_code, "changed": False}
    outcome, code = answer.get("outcome", "ok"), answer.get("exit_code", 0)
    return {**_OK, "outcome": outcome, "exit_code": code, "changed": bool(answer.get("changed"))}


def text(result: dict[str, Any]) -> str:
    """Return the result for people."""
    if not result["missed"]:
        return "Nothing was missed."
    lines = []
    for one in result["missed"]:
        done = "would run now" if result["dry_run"] else " ".join(filter(None, (one["message"], one["hint"]))) or "done"
        lines.append("%s, due at %s: %s" % (one["verb"], one["due"], done))
    return "\n".join(lines)


__all__ = ("catch_up", "text")
