# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about an error of a restore, and how a database is dropped. Real servers are in integration/test_restore.py."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.selection import Wanted
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import loading, swapping
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.pg_restore import Options

PART = Wanted((), (("public", "t"),))
ROLE = 'pg_restore: error: could not execute query: ERROR:  role "who" does not exist'
RELATION = 'pg_restore: error: could not execute query: ERROR:  relation "t" does not exist'


@pytest.mark.parametrize(
    ("said", "wanted", "hint"),
    [
        (ROLE, None, "Restore the globals too"),
        (ROLE, PART, "Restore the globals too"),
        (RELATION, PART, "name that, too"),
        (RELATION, None, ""),
        ("ERROR:  out of shared memory", PART, "max_locks_per_transaction"),
        ("ERROR:  syntax error", PART, ""),
    ],
)
def test_each_error_has_its_own_next_step(said: str, wanted: Wanted | None, hint: str) -> None:
    found = loading._hint("%s\nCommand was: x\n" % said, Options(wanted=wanted))
    assert hint in found
    assert bool(hint) == bool(found)


@pytest.mark.parametrize(("version", "statement"), [("120022", 'EXISTS "a"'), ("130000", 'EXISTS "a" WITH (FORCE)')])
def test_sessions_are_ended_with_a_database_where_the_server_knows_how(version: str, statement: str) -> None:
    """There is no PostgreSQL 12 here."""

    class Old:
        def __init__(self) -> None:
            self.said: list[str] = []

        def rows(self, sql: str, parameters: Any = None) -> list[Any]:
            return []

        allowed = rows

        def value(self, sql: str) -> str:
            return version

        def execute(self, sql: str) -> None:
            self.said.append(sql)

    old = Old()
    swapping.drop(old, "a", None)  # type: ignore[arg-type]
    assert old.said == ["DROP DATABASE IF %s" % statement]
