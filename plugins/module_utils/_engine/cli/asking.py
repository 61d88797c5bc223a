# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A restore by a person: show the plan, make sure that it is wanted, and only then begin."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any, NoReturn

from .. import runs
from ..context import Context
from ..core.errors import PgopsError, RefusedError, UsageError
from ..postgres.preflight import Findings
from ..verbs import restore as verb
from ..verbs.restore_leftovers import let_in_again
from . import show
from .invocation import Answer, Result, Run, each_once
from .progress import printable


def restore(run: Run) -> Answer:
    """Plan, ask and restore as the options of `run` say.

    A plan that nobody agrees to began nothing and leaves no record; one that fails or is refused does, as any run.
    Raise RefusedError for those, UsageError, and what the restore raises.
    """
    request = _request(run.options)
    try:
        planned = _plan(run, request)
        if not run.dry_run:
            Findings(planned["plan"]["refusals"]).settle()
    except PgopsError as error:
        if not run.dry_run:
            _record(run, error)
        raise
    plan = planned["plan"]
    if run.dry_run:
        if plan["refusals"]:
            planned.update(outcome=RefusedError.outcome, exit_code=RefusedError.exit_code)
        return Answer(planned, lambda: show.restore_plan(planned))
    _check_confirmed(run.options.confirm, plan)
    interactive = sys.stdin.isatty() and sys.stderr.isatty()
    if interactive or not (run.options.quiet or run.options.json):
        run.reporter.pause()
        stream = sys.stderr if interactive else sys.stdout
        stream.write(printable(show.restore_plan(planned)) + "\n")
        stream.flush()
    confirmed = _consent(run.options, plan, interactive)
    # What was shown is what is done, also when a newer set has appeared since.
    request = dataclasses.replace(request, set=planned["set"], place=planned["place"], confirm=confirmed, dry_run=False)
    result = run.perform(lambda context: verb.restore(context, request))
    return Answer(result, lambda: show.restore(result))


def _record(run: Run, error: PgopsError) -> NoReturn:
    """Record a restore that ended with its plan, and raise why."""

    def end(context: Context) -> Result:
        let_in_again(context)
        raise error

    run.perform(end)
    raise error


def _request(options: argparse.Namespace) -> verb.Request:
    return verb.Request(
        place=options.place,
        set=options.set_id,
        databases=tuple(options.database),
        schemas=tuple(options.schema),
        tables=tuple(options.table),
        rename=each_once(options.rename, "--rename gives %r two new names."),
        mode=options.mode,
        globals=options.globals,
        ownership=not options.no_owner,
        jobs=options.jobs,
        dry_run=True,
    )


def _plan(run: Run, request: verb.Request) -> Result:
    """Return the plan as it would be with every replacement confirmed: that question comes after it."""

    def planned(confirm: tuple[str, ...]) -> Result:
        asked = dataclasses.replace(request, confirm=confirm)
        return runs.perform(run.new_context(), "restore", lambda context: verb.restore(context, asked), dry_run=True)

    result = planned(tuple(run.options.confirm))
    replaced = _replaced(result["plan"])
    if set(replaced) - set(run.options.confirm):
        result = planned(tuple(replaced))
    return result


def _replaced(plan: dict[str, Any]) -> list[str]:
    return [database["name"] for database in plan["databases"] if database["replaces"]]


def _check_confirmed(confirmed: list[str], plan: dict[str, Any]) -> None:
    unknown = sorted(set(confirmed) - {database["name"] for database in plan["databases"]})
    if unknown:
        raise UsageError(
            "--confirm names %s, which this restore does not touch." % ", ".join(repr(name) for name in unknown),
            hint="It takes the exact name that the restored database gets.",
        )


def _consent(options: argparse.Namespace, plan: dict[str, Any], interactive: bool) -> tuple[str, ...]:
    """Return the names whose replacement is agreed to. Raise RefusedError where nobody agrees."""
    confirmed = list(options.confirm)
    replaced = _replaced(plan)
    if replaced:
        lacking = [name for name in replaced if name not in confirmed]
        if lacking and not interactive:
            raise RefusedError(
                "Mode swap replaces %s, and nobody confirmed it." % ", ".join(repr(name) for name in lacking),
                hint="Name each by --confirm NAME.",
            )
        for name in lacking:
            if ask("To replace %s, type its name: " % printable(name)) != name:
                raise RefusedError("That is not its name; nothing was touched.")
            confirmed.append(name)
        return tuple(confirmed)
    names = {database["name"] for database in plan["databases"]}
    if options.yes or names <= set(confirmed):
        return tuple(confirmed)
    if not interactive:
        raise RefusedError("A restore without a terminal needs a word that it is wanted.", hint="Add --yes.")
    if ask("Restore? [y/N] ").strip().lower() not in ("y", "yes"):
        raise RefusedError("It was not confirmed; nothing was touched.")
    return tuple(confirmed)


def ask(question: str) -> str:
    """Return what a person types at the terminal."""
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        sys.stderr.write("\n")
    return line.rstrip("\r\n")


__all__ = ("ask", "restore")
