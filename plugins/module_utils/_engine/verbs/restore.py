# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb restore: bring databases back. Each is loaded under a name of its own, proven, and only then gets its name."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

from ..context import Context
from ..core.errors import CommandError, DamagedError, PgopsError
from ..core.fingerprint import Rules
from ..core.naming import kept_name, quote_ident
from ..core.sizes import human_size
from ..core.times import compact
from ..postgres import statistics, swapping
from ..postgres.comparison import compare_database
from ..postgres.connection import Session
from ..postgres.databases import create_database, finish_database
from ..postgres.globals import choose_globals, load_globals
from ..postgres.loading import load_database
from ..postgres.pg_restore import Options
from ..postgres.throwaway import claimed, clear_abandoned
from ..postgres.workers import self_made
from .restore_leftovers import discard, drop_abandoned, maintenance_session, mark_of, reopen_closed
from .restore_plan import Job, Request, Work, check, chosen_databases, plan, prepare, source_of


def restore(context: Context, request: Request) -> dict[str, Any]:
    """Bring databases back as `request` says and prove that they are what the backup held.

    Result: `set`, `place`, `databases` (list of {database, name, seconds, phases, jobs, way, kept, compared, benign, left_out}),
    `roles_created`, `remarks`; a dry run has `plan` instead and touches nothing.
    Raise UsageError, MissingError, RefusedError (with every reason), DamagedError (a difference), CommandError or
    UnreachableError. Whatever goes wrong before the last step, no database has been replaced and none is left half-made.
    """
    check(request)
    dry = request.dry_run
    with context.lock("sets", shared=True, dry_run=dry), context.lock("restore", dry_run=dry):
        return _restore(context, request)


def _restore(context: Context, request: Request) -> dict[str, Any]:
    source = source_of(context, request)
    chosen = chosen_databases(request, source)
    names = {d.name: request.rename.get(d.name, d.name) for d in chosen}
    with maintenance_session(context, names.values() if request.mode == "swap" else ()) as session:
        if not request.dry_run:
            clear_abandoned(context, "restore")
            reopen_closed(context, session)
        work = prepare(context, request, session, source, names)
        if request.dry_run:
            return {"changed": True, "set": source.set_id, "place": source.place.name, "plan": plan(work)}
        work.findings.settle()
        for remark in work.findings.remarks:
            context.warn(remark)
        return _perform(context, work, session)


# --- perform ----------------------------------------------------------------------------------------------------------


def _perform(context: Context, work: Work, session: Session) -> dict[str, Any]:
    request = work.request
    drop_abandoned(context, session)
    roles: list[str] = []
    if request.globals != "none":
        context.reporter.note("restoring roles")
        chosen = choose_globals(work.source, session, work.target.server, overwrite=request.globals == "all")
        load_globals(work.source, work.target, chosen)
        roles = list(chosen.creates)
    try:
        for job in work.jobs:
            _load(context, work, job, session)
            _prove(context, work, job)
        if request.mode != "into_empty":
            for job in work.jobs:
                _give_name(context, work, job, session)
        for job in work.jobs:
            _tell_subscriptions(context, job, session)
    except BaseException as error:
        if request.mode != "into_empty":
            discard(context, [job.temporary for job in work.jobs if not job.closed], session, work.target)
        if isinstance(error, PgopsError):
            _tell_state(error, work)
        raise
    return {
        "changed": True,
        "set": work.source.set_id,
        "place": work.source.place.name,
        "databases": [_job_result(job) for job in work.jobs],
        "bytes": sum(work.source.size(job.database.dump) for job in work.jobs),
        "roles_created": roles,
        "remarks": work.findings.remarks,
    }


def _load(context: Context, work: Work, job: Job, session: Session) -> None:
    tick = time.monotonic()
    size = work.source.size(job.database.dump)
    context.reporter.note("restoring %s (%s) as %s" % (job.database.name, human_size(size), job.name))
    context.reporter.phase("restore of %s" % job.name, size)
    try:
        _fill(context, work, job, session, work.options)
    except CommandError as error:
        met = self_made(error, work.options)
        if not met or work.request.mode == "into_empty":
            raise
        context.warn("The parallel restore of %r %s; it was begun anew with one job." % (job.name, met))
        swapping.drop(session, job.temporary, work.target.postgres)
        _fill(context, work, job, session, dataclasses.replace(work.options, jobs=1))
    context.reporter.done()
    job.phases["load"] = round(time.monotonic() - tick, 3)
    for met in job.loaded.again:
        context.warn("The parallel restore of %r %s." % (job.name, met))
    for left_out in job.loaded.left_out:
        context.warn("Left out of %r: %s" % (job.name, left_out))
    job.done = work.request.mode == "into_empty"
    # Before the database gets its own settings: a time limit of its own would end this.
    if context.config.restore.analyze:
        tick = time.monotonic()
        _analyze(work, job)
        job.phases["analyze"] = round(time.monotonic() - tick, 3)
    if work.request.mode != "into_empty":
        finish_database(session, job.temporary, job.database.properties, ownership=work.request.ownership)


def _fill(context: Context, work: Work, job: Job, session: Session, options: Options) -> None:
    if work.request.mode != "into_empty":
        properties = job.database.properties
        create_database(
            session, job.temporary, properties, work.target, ownership=work.request.ownership, comment=mark_of(context)
        )
    with context.scratch("restore") as folder, contextlib.ExitStack() as stack:
        if context.config.work_dir:  # others may use it as well, and the next run must know whose this is
            stack.enter_context(claimed(context, folder))
        job.loaded = load_database(work.source, job.database, work.target, job.temporary, options, folder)


def _analyze(work: Work, job: Job) -> None:
    if job.loaded.analyzed:
        with work.target.session(job.temporary) as session:
            statistics.complete(session)
        return
    runner, target = work.source.context.runner, work.target
    statistics.gather(runner, target.programs, target.environment, job.temporary, work.options.jobs)


def _prove(context: Context, work: Work, job: Job) -> None:
    """Conclude from queries on the result that it is what the backup held. Raise DamagedError if it is not."""
    if job.database.fingerprint is None:
        context.warn("%r was restored, but its set has no fingerprint to compare it with." % job.name)
        return
    tick = time.monotonic()
    rules = Rules(work.request.ownership, work.wanted.holds if work.wanted else None)
    # An empty target was somebody's: what belongs to the database itself stays as they made it. Any other has our mark
    # for a comment until it gets its name.
    into_empty = work.request.mode == "into_empty"
    properties = {} if into_empty else {**job.database.properties, "comment": mark_of(context)}
    database = dataclasses.replace(job.database, properties=properties)
    comparison = compare_database(database, work.target, job.temporary, rules)
    job.phases["compare"] = round(time.monotonic() - tick, 3)
    job.checked, job.remarks = comparison.checked, comparison.remarks
    if comparison.differences:
        raise DamagedError(
            "The restored %r is not what was backed up:\n%s"
            % (job.name, "\n".join("  - %s" % d for d in comparison.shown())),
            hint="Try another set (pgops restore --list)."
            if into_empty
            else "No database was replaced. Try another set (pgops restore --list).",
        )


def _give_name(context: Context, work: Work, job: Job, session: Session) -> None:
    """Rename the proven database to its name; one that stands there is renamed with it and kept."""
    if not job.replaces:
        swapping.give_name(session, job.temporary, job.name, comment=job.comment)
        job.done = True
        return
    taken = {row[0] for row in session.rows("SELECT datname FROM pg_database")}
    kept = kept_name(job.name, compact(context.clock()), taken=taken)
    try:
        swapping.swap(session, job.temporary, job.name, kept, comment=job.comment, mark=mark_of(context))
    except BaseException:
        job.closed = not swapping.reopen(session, work.target.postgres, job.name)
        if job.closed:
            context.warn("%r still refuses connections; the next restore lets them in again." % job.name)
        raise
    job.kept, job.done = kept, True
    context.warn("The old %r is kept as %r; drop it when you no longer need it." % (job.name, job.kept))


def _tell_subscriptions(context: Context, job: Job, session: Session) -> None:
    """Tell of subscriptions that came back, as none of them acts, and of those that go on in the database that was kept."""
    try:
        came, goes_on = swapping.subscriptions(session, job.name), swapping.subscriptions(session, job.kept or job.name)
    except PgopsError as error:  # all is done by now
        context.warn(
            "Whether %r has subscriptions, none of which acts, could not be asked: %s" % (job.name, error.message)
        )
        return
    for found in came:
        name = quote_ident(found.name)
        context.warn(
            "The subscription %s of %r is switched off, so that two databases do not take changes from one slot. When nobody"
            " else uses its slot%s: in %r, ALTER SUBSCRIPTION %s ENABLE, then ALTER SUBSCRIPTION %s REFRESH PUBLICATION WITH"
            " (copy_data = false). What the publisher sent since the backup is not in it: compare, or copy the tables anew."
            % (name, job.name, " %r" % found.slot if found.slot else "", job.name, name, name)
        )
    for found in goes_on if job.kept else []:
        name = quote_ident(found.name)
        does = "goes on taking changes for it" if found.enabled else "is still there"
        first = "ALTER SUBSCRIPTION %s DISABLE, then " % name if found.enabled else ""
        context.warn(
            "The subscription %s of the kept %r %s. Before its slot%s serves another, and before the database is dropped: in %r,"
            " %sALTER SUBSCRIPTION %s SET (slot_name = NONE), then DROP SUBSCRIPTION %s."
            % (name, job.kept, does, " %r" % found.slot if found.slot else "", job.kept, first, name, name)
        )


def _tell_state(error: PgopsError, work: Work) -> None:
    """Let `error` say what stays although the restore failed."""
    done = [job for job in work.jobs if job.done]
    if not done:
        return
    error.details = {**error.details, "databases": [_job_result(job) for job in done]}
    names = ", ".join(repr(job.name) for job in done)
    if work.request.mode == "into_empty":
        said = "The data stay in %s: drop or empty what you do not want to keep." % names
    else:
        kept = ", ".join(repr(job.kept) for job in done if job.kept)
        said = "Already restored and in place: %s%s." % (names, " (the old ones are kept as %s)" % kept if kept else "")
    error.hint = ("%s %s" % (error.hint, said)).strip()


def _job_result(job: Job) -> dict[str, Any]:
    return {
        "database": job.database.name,
        "name": job.name,
        "kept": job.kept,
        "seconds": round(sum(job.phases.values()), 3),
        "phases": job.phases,
        "jobs": job.loaded.jobs,
        "way": job.loaded.way,
        "frozen": job.loaded.frozen,
        "compared": job.checked,
        "remarks": job.remarks,
        "benign": job.loaded.benign,
        "left_out": job.loaded.left_out,
    }


__all__ = ("Request", "restore")
