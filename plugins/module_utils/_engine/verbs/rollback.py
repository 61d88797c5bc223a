# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb rollback: a database that a restore replaced gets its name back; what the restore made is kept beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..context import Context
from ..core.errors import MissingError, RefusedError, UsageError
from ..core.naming import kept_name
from ..core.times import compact
from ..postgres import swapping
from ..postgres.connection import Session, connect

_KEPT = re.compile(r"_before_(([0-9]{8}T[0-9]{6}Z)(?:_([0-9]+))?)$")


@dataclass(frozen=True)
class Request:
    """Which databases get back what stood there before; `kept` names it where it is not the newest that a restore kept."""

    databases: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False


def rollback(context: Context, request: Request) -> dict[str, Any]:
    """Give each of the databases in `request` its name back, one after the other.

    Result: `databases`, a list of {database, kept, aside}: `kept` is the database that bears the name `database` again, `aside`
    what the other is called now (empty when there was none). Raise UsageError, MissingError or RefusedError before anything
    is renamed.
    """
    if not request.databases:
        raise UsageError("Nothing is named to roll back.", hint="Name the databases that a restore replaced.")
    strangers = sorted(set(request.kept) - set(request.databases))
    if strangers:
        raise UsageError("kept says something of %s, which is not to be rolled back." % ", ".join(map(repr, strangers)))
    with context.lock("restore", dry_run=request.dry_run), connect(context.config.postgres) as session:
        plan = _plan(context, session, request)
        for step in [] if request.dry_run else plan:
            _give_back(context, session, step)
    return {"changed": True, "databases": plan}


def _plan(context: Context, session: Session, request: Request) -> list[dict[str, str]]:
    """Return what is renamed to what. Raise MissingError if something is not there, RefusedError if we stand in its place."""
    existing = {row[0] for row in session.rows("SELECT datname FROM pg_database")}
    stamp = compact(context.clock())
    plan: list[dict[str, str]] = []
    lacking = []
    for name in request.databases:
        candidates = sorted((other for other in existing if _was(other, name)), key=_age)
        kept = request.kept.get(name) or (candidates[-1] if candidates else "")
        if kept not in existing:
            lacking.append("there is no %r" % kept if kept else "nothing was kept of %r" % name)
            continue
        taken = existing | {step["aside"] for step in plan}
        aside = kept_name(name, stamp, "rolled_back", taken=taken) if name in existing else ""
        plan.append({"database": name, "kept": kept, "aside": aside})
    if lacking:
        raise MissingError(
            "It cannot be rolled back: %s." % "; ".join(lacking),
            hint="Only a restore with mode swap keeps a database, under a name like orders_before_20261122T093000Z. "
            "If it is there under another name (psql -l lists them), name that (kept of the module and the playbook). What a restore with mode create made is"
            " undone by DROP DATABASE.",
        )
    if session.database in {name for step in plan for name in step.values()}:
        raise RefusedError(
            "We are connected to %r ourselves, so that it cannot be renamed." % session.database,
            hint="Log in to another database (postgres.login_db).",
        )
    hindrances = [
        text for step in plan for name in (step["database"], step["kept"]) if (text := swapping.prepared(session, name))
    ]
    if hindrances:
        raise RefusedError("Nothing was rolled back. %s" % " ".join(hindrances))
    return plan


def _was(candidate: str, name: str) -> bool:
    """Tell whether `candidate` is a name that a restore gives to what `name` was before."""
    match = _KEPT.search(candidate)
    return match is not None and candidate == kept_name(name, match.group(1))


def _age(kept: str) -> tuple[str, int]:
    """Return by what the names that a restore gave sort as they were given; in one second there may be several."""
    match = _KEPT.search(kept)
    return (match.group(2), int(match.group(3) or 1)) if match else ("", 0)


def _give_back(context: Context, session: Session, step: Mapping[str, str]) -> None:
    name = step["database"]
    try:
        swapping.exchange(session, name, step["kept"], step["aside"])
    except BaseException:
        if step["aside"] and not swapping.reopen(session, context.config.postgres, name):
            context.warn("%r refuses connections; ALTER DATABASE … WITH ALLOW_CONNECTIONS true lets them in." % name)
        raise
    if step["aside"]:
        context.warn("What was called %r is kept as %r; drop it when you no longer need it." % (name, step["aside"]))


__all__ = ("Request", "rollback")
