# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A recovery by a person: show the plan, make sure that it is wanted, and only then begin."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from .. import runs
from ..core.errors import RefusedError
from ..core.recovery_target import KINDS, Target, parse_target
from ..core.sizes import human_size
from ..core.times import human_span
from ..system.zones import named_zone
from ..verbs import recover as verb
from ..verbs import rescue as rescuing
from .asking import ask
from .invocation import Answer, Result, Run, each_once
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
        interactive = _show(run, plan_text(planned))
        request = _agreed(run.options, request, plan=planned["plan"], interactive=interactive)
    # What was shown is what is done, also when a newer set has appeared since.
    request = dataclasses.replace(request, set=planned["set"], place=planned["place"])
    result = run.perform(lambda context: verb.recover(context, request))
    return Answer(result, lambda: text(result))


def request_of(options: argparse.Namespace) -> verb.Request:
    """Return what `options` ask for. Raise UsageError."""
    return verb.Request(
        target=_target_of(options, options.action),
        data_directory=options.data_directory,
        place=options.place,
        set=options.set_id,
        mode=options.mode,
        port=options.port,
        socket_directory=options.socket_directory,
        tablespaces=each_once(options.tablespace, "--tablespace gives %r two directories."),
        wal_directory=options.waldir,
        config_file=options.config_file,
        leave=options.leave,
        confirm=options.confirm,
        dry_run=bool(options.dry_run),
    )


def _target_of(options: argparse.Namespace, action: str) -> Target:
    given = {kind: getattr(options, "to_" + kind) for kind in KINDS}
    return parse_target(
        {kind: value if isinstance(value, str) else "yes" * value for kind, value in given.items()},
        inclusive=not options.exclusive,
        timeline=options.timeline,
        action=action,
        to_gap=options.to_gap,
        zone=named_zone,
    )


def rescue(run: Run) -> Answer:
    """Plan, ask and rescue as the options of `run` say. Raise RefusedError where nobody agrees, and what the verb raises."""
    options = run.options
    request = rescuing.Request(
        database=options.database,
        target=_target_of(options, "promote"),
        tables=tuple(options.table),
        into=options.into,
        set=options.set_id,
        place=options.place,
        globals=options.globals,
        ownership=not options.no_owner,
        jobs=options.jobs,
        dry_run=bool(run.dry_run),
    )
    if run.dry_run:
        planned = run.perform(lambda context: rescuing.rescue(context, request))
        if planned["plan"]["refusals"]:
            planned.update(outcome=RefusedError.outcome, exit_code=RefusedError.exit_code)
        return Answer(planned, lambda: rescue_plan_text(planned))
    asked = dataclasses.replace(request, dry_run=True)
    planned = runs.perform(run.new_context(), "rescue", lambda context: rescuing.rescue(context, asked), dry_run=True)
    if not planned["plan"]["refusals"]:  # else the run itself refuses, and is recorded
        interactive = _show(run, rescue_plan_text(planned))
        if not options.yes:
            _consent("Rescue? [y/N] ", "A rescue", interactive)
    request = dataclasses.replace(request, set=planned["set"], place=planned["place"], into=planned["plan"]["name"])
    result = run.perform(lambda context: rescuing.rescue(context, request))
    return Answer(result, lambda: rescue_text(result))


def _show(run: Run, text: str) -> bool:
    """Show a plan to whoever is there to read it; tell whether somebody can be asked."""
    interactive = sys.stdin.isatty() and sys.stderr.isatty()
    if interactive or not (run.options.quiet or run.options.json):
        run.reporter.pause()
        stream = sys.stderr if interactive else sys.stdout
        stream.write(printable(text) + "\n")
        stream.flush()
    return interactive


def _consent(question: str, what: str, interactive: bool) -> None:
    if not interactive:
        raise RefusedError("%s without a terminal needs a word that it is wanted." % what, hint="Add --yes.")
    if ask(question).strip().lower() not in ("y", "yes"):
        raise RefusedError("It was not confirmed; nothing was touched.")


def _agreed(options: argparse.Namespace, request: verb.Request, *, plan: Result, interactive: bool) -> verb.Request:
    """Return the request with what was agreed to. Raise RefusedError where nobody agrees."""
    data, replaces = request.data_directory, plan["replaces"]
    if replaces and request.confirm != data:
        if not interactive:
            raise RefusedError(
                "The recovery replaces %s, and nobody confirmed it." % data, hint="Name it by --confirm %s." % data
            )
        what = "what is left of another run there is removed" if data in plan["rests"] else "the old one is kept"
        if ask("To replace %s (%s), type its path: " % (printable(data), what)) != data:
            raise RefusedError("That is not its path; nothing was touched.")
        return dataclasses.replace(request, confirm=data)
    if not (options.yes or replaces):
        _consent("Recover? [y/N] ", "A recovery", interactive)
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
    if plan["replaces"] and plan["data_directory"] not in plan["rests"]:
        lines.append("  The data directory that is there is kept under another name.")
    if plan["wal_directory"]:
        lines.append("  pg_wal in %s" % plan["wal_directory"])
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
        wal = " and its WAL in %s" % result["kept_wal_directory"] if result["kept_wal_directory"] else ""
        lines.append(
            "  The old data directory is %s%s. Remove it when nobody needs it any more." % (result["kept"], wal)
        )
    if result["wal_directory"]:
        lines.append("  Its WAL lies in %s." % result["wal_directory"])
    service = result["service"]
    if result["socket_directory"] and result["running"]:
        lines += [
            "It runs: psql -h %s -p %d" % (result["socket_directory"], result["port"]),
            "Stop it by: pg_ctl stop -D %s" % result["data_directory"],
        ]
    if not result["running"]:
        lines.append("It is stopped.%s" % (" Start it by: systemctl start %s" % service if service else ""))
    elif service:
        lines += [
            "It runs, but not as its service. To hand it over:",
            "  pg_ctlcluster %s stop && systemctl start %s" % (" ".join(service.split("@")[1].split("-", 1)), service),
        ]
    if not result["socket_directory"]:
        lines += [
            "It archives nothing. When it is right, take the lines of archive_mode and archive_command out of",
            "%s/postgresql.auto.conf, restart it, archive the history of its timeline, and take a new base backup;"
            % result["data_directory"],
            "the role wal_archive does all but the last.",
        ]
    return "\n".join(lines) + "\n"


def rescue_plan_text(result: Result) -> str:
    """Return the plan of a rescue."""
    plan = result["plan"]
    lines = [
        "Rescue of %s of %s, as of %s:" % (_what(plan), result["instance"], _target(plan["target"])),
        "  from the base backup %s in %s (PostgreSQL %s, whole at %s)"
        % (plan["set"], plan["place"], plan["server_version"], plan["base_stopped"]),
        "  by a copy of the whole server (%s) that nobody reaches and that is removed" % human_size(plan["bytes"]),
        "  to the database %r, which is not there yet" % plan["name"],
        *("  Note: %s" % remark for remark in plan["remarks"]),
    ]
    if plan["refusals"]:
        lines += ["It would be refused:", *("  - %s" % refusal for refusal in plan["refusals"])]
    return "\n".join(lines) + "\n"


def rescue_text(result: Result) -> str:
    """Return what a rescue did, and the proof."""
    stopped, seconds = result["stopped"], human_span(result["seconds"])
    counted = ", ".join("%d %s" % (count, kind.replace("_", " ")) for kind, count in sorted(result["compared"].items()))
    lines = [
        "Rescued %s of %s in %s." % (_what(result), result["instance"], seconds),
        "  It is the database %r, as of %s." % (result["name"], _target(result["target"])),
        "  Proof: the copy replayed up to the LSN %s; the last transaction ended at %s."
        % (stopped["lsn"], stopped["time"] or "a moment that is not known"),
        "  Compared with the copy: %s." % (counted or "nothing"),
        *("  Left out: %s" % text for text in result["left_out"]),
        *(["  Roles created: %s." % ", ".join(result["roles_created"])] if result["roles_created"] else []),
    ]
    return "\n".join(lines) + "\n"


def _what(facts: Result) -> str:
    tables = ", ".join(facts["tables"])
    return "%s of the database %r" % (tables, facts["database"]) if tables else "the database %r" % facts["database"]


__all__ = ("plan_text", "recover", "request_of", "rescue", "rescue_plan_text", "rescue_text", "text")
