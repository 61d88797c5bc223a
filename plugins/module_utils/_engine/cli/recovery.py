# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A recovery by a person: show the plan, make sure that it is wanted, and only then begin."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from .. import runs
from ..core.errors import RefusedError, UsageError
from ..core.recovery_target import KINDS, parse_target
from ..core.sizes import human_size
from ..core.times import human_span
from ..system.zones import named_zone
from ..verbs import recover as verb
from .asking import ask
from .invocation import Answer, Result, Run
from .progress import printable


def recover(run: Run) -> Answer:
    """Plan, ask and recover as the options of `run` say. Raise RefusedError where nobody agrees, and what the verb raises."""
    request = request_of(run.options)
    if run.dry_run:
        planned = run.perform(lambda context: verb.recover(context, request))
        if planned["plan"]["refusals"]:
            planned.update(outcome=RefusedError.outcome, exit_code=RefusedError.exit_code)
        return Answer(planned, lambda: plan_text(planned))
    asked = dataclasses.replace(request, dry_run=True, confirm=request.data_directory)
    planned = runs.perform(run.new_context(), "recover", lambda context: verb.recover(context, asked), dry_run=True)
    if not planned["plan"]["refusals"]:  # else the run itself refuses, and is recorded
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
        if interactive or not (run.options.quiet or run.options.json):
            run.reporter.pause()
            stream = sys.stderr if interactive else sys.stdout
            stream.write(printable(plan_text(planned)) + "\n")
            stream.flush()
        request = _agreed(run.options, request, replaces=planned["plan"]["replaces"], interactive=interactive)
    # What was shown is what is done, also when a newer set has appeared since.
    request = dataclasses.replace(request, set=planned["set"], place=planned["place"])
    result = run.perform(lambda context: verb.recover(context, request))
    return Answer(result, lambda: text(result))


def request_of(options: argparse.Namespace) -> verb.Request:
    """Return what `options` ask for. Raise UsageError."""
    given = {kind: getattr(options, "to_" + kind) for kind in KINDS}
    tablespaces: dict[str, str] = {}
    for name, path in options.tablespace:
        if tablespaces.get(name, path) != path:
            raise UsageError("--tablespace gives %r two directories." % name)
        tablespaces[name] = path
    return verb.Request(
        target=parse_target(
            {kind: value if isinstance(value, str) else "yes" * value for kind, value in given.items()},
            inclusive=not options.exclusive,
            timeline=options.timeline,
            action=options.action,
            to_gap=options.to_gap,
            zone=named_zone,
        ),
        data_directory=options.data_directory,
        place=options.place,
        set=options.set_id,
        mode=options.mode,
        port=options.port,
        socket_directory=options.socket_directory,
        tablespaces=tablespaces,
        config_file=options.config_file,
        confirm=options.confirm,
        dry_run=bool(options.dry_run),
    )


def _agreed(options: argparse.Namespace, request: verb.Request, *, replaces: bool, interactive: bool) -> verb.Request:
    """Return the request with what was agreed to. Raise RefusedError where nobody agrees."""
    data = request.data_directory
    if replaces and request.confirm != data:
        if not interactive:
            raise RefusedError(
                "The recovery replaces %s, and nobody confirmed it." % data, hint="Name it by --confirm %s." % data
            )
        if ask("To replace %s (the old one is kept), type its path: " % printable(data)) != data:
            raise RefusedError("That is not its path; nothing was touched.")
        return dataclasses.replace(request, confirm=data)
    if options.yes or replaces:
        return request
    if not interactive:
        raise RefusedError("A recovery without a terminal needs a word that it is wanted.", hint="Add --yes.")
    if ask("Recover? [y/N] ").strip().lower() not in ("y", "yes"):
        raise RefusedError("It was not confirmed; nothing was touched.")
    return request


# --- texts ------------------------------------------------------------------------------------------------------------


def _target(target: Result) -> str:
    words = {"immediate": "the end of the base backup", "end": "the end of the WAL"}
    return words.get(target["kind"]) or "%s %s%s" % (
        {"time": "the moment", "lsn": "the LSN", "xid": "the transaction", "name": "the restore point"}[target["kind"]],
        target["value"],
        "" if target["inclusive"] else " (exclusive)",
    )


def plan_text(result: Result) -> str:
    """Return the plan of a recovery."""
    plan = result["plan"]
    lines = [
        "Recovery of %s to %s:" % (result["instance"], _target(plan["target"])),
        "  from the base backup %s in %s (PostgreSQL %s, whole at %s)"
        % (plan["set"], plan["place"], plan["server_version"], plan["base_stopped"]),
        *(["  which builds on %s" % ", ".join(plan["chain"])] if plan["chain"] else []),
        "  into %s, %s (%s)"
        % (
            plan["data_directory"],
            "beside the original, which it cannot reach" if plan["mode"] == "beside" else "as the server itself",
            human_size(plan["bytes"]),
        ),
    ]
    if plan["replaces"]:
        lines.append("  The data directory that is there is kept under another name.")
    lines += ["  tablespace %s in %s" % pair for pair in plan["tablespaces"].items()]
    lines += ["  Note: %s" % remark for remark in plan["remarks"]]
    if plan["refusals"]:
        lines += ["It would be refused:", *("  - %s" % refusal for refusal in plan["refusals"])]
    return "\n".join(lines) + "\n"


def text(result: Result) -> str:
    """Return what a recovery did, and the proof."""
    stopped = result["stopped"]
    lines = [
        "Recovered %s to %s in %s, from %s."
        % (result["instance"], _target(result["target"]), human_span(result["seconds"]), result["set"]),
        "  Proof: it replayed up to the LSN %s; the last transaction ended at %s; timeline %s."
        % (stopped["lsn"], stopped["time"] or "a moment that is not known", stopped["timeline"]),
    ]
    if stopped["log"]:
        lines.append("  The server says: %s" % stopped["log"])
    if result["kept"]:
        lines.append("  The old data directory is %s. Remove it when nobody needs it any more." % result["kept"])
    if result["socket_directory"]:
        lines += [
            "It runs: psql -h %s -p %d" % (result["socket_directory"], result["port"]),
            "Stop it by: pg_ctl stop -D %s" % result["data_directory"],
        ]
    else:
        lines += [
            "It runs, and archives nothing. When it is right, take the lines of archive_mode and archive_command out of",
            "%s/postgresql.auto.conf, restart it, and take a new base backup." % result["data_directory"],
        ]
    return "\n".join(lines) + "\n"


__all__ = ("plan_text", "recover", "request_of", "text")
