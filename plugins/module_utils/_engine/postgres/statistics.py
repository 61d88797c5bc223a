# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The planner's statistics of a database that is being restored. No dump of an older pg_dump brings them."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.naming import database_argument
from ..system.runner import Command, Runner
from .connection import Session, with_options
from .tools import Programs

_NO_LIMITS = {"statement_timeout": "0", "lock_timeout": "0"}
_ALL = "ANALYZE"
# Statistics of expressions, of several columns together, and of what is filled last.
_NEED_INDEXES = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.oid IN (SELECT indrelid FROM pg_index WHERE indexprs IS NOT NULL UNION SELECT stxrelid FROM pg_statistic_ext)
   OR c.relkind = 'm'
"""


def gather(runner: Runner, programs: Programs, environment: Mapping[str, str], name: str, jobs: int) -> None:
    """Gather statistics of all tables of the database `name`, by `jobs` connections. Raise PgopsError.

    `environment` leads the programs to the server.
    """
    if programs.has("vacuumdb"):
        words = [programs.path("vacuumdb"), "--analyze-only", "--jobs=%d" % jobs]
    else:
        words = [programs.path("psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command=%s" % _ALL]
    words += ["--no-password", "--quiet", database_argument(name)]
    # Names go there and back as they are, also where they are in no encoding.
    env = {**with_options(environment, _NO_LIMITS), "PGCLIENTENCODING": "SQL_ASCII"}
    runner.run(Command(tuple(words), env=env))


def complete(session: Session) -> None:
    """Gather what could not be gathered before the indexes and materialized views were there. Raise PgopsError."""
    session.execute("SET statement_timeout = 0")
    session.execute("SET lock_timeout = 0")
    for (table,) in session.rows(_NEED_INDEXES):
        session.execute("%s %s" % (_ALL, table))


__all__ = ("complete", "gather")
