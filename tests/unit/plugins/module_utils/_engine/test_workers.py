# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said by workers of pg_restore that hinder each other. A real one is in faults/test_programs.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import CommandError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import workers
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.pg_restore import Loaded, run_restore
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Command, Runner

DEADLOCK = "error: could not execute query: ERROR:  deadlock detected"
MISSING = 'error: could not execute query: ERROR:  relation "i" does not exist'


END = "warning: errors ignored on restore: 2"


def said(*lines: str, soft: frozenset[str] = frozenset(), loaded: Loaded | None = None) -> set[str]:
    """Return the numbers of the entries that are to be loaded again after a pg_restore that said `lines`."""
    source: Any = SimpleNamespace(context=SimpleNamespace(runner=Runner()))
    pieces = [piece if piece.endswith((":", " ")) else "pg_restore: %s\n" % piece for piece in lines]
    command = Command(("sh", "-c", 'printf "%s" "$@" >&2; exit 1', "pg_restore", *pieces))
    hindered = workers._Hindered()
    return run_restore(source, [command], None, loaded or Loaded(), set(soft), hindered.forgives)


def entry(number: int) -> str:
    return "from TOC entry %d; 1259 16388 INDEX i postgres" % number


def test_all_that_fails_after_a_deadlock_is_loaded_again() -> None:
    assert said(entry(7), DEADLOCK, entry(9), MISSING, END) == {"7", "9"}


def test_nothing_is_lost_where_the_lines_of_two_workers_come_mixed() -> None:
    assert said(entry(7), entry(9), DEADLOCK, DEADLOCK, END) == {"7", "9"}
    words = ("pg_restore:", " ", "error: ")
    assert said(entry(7), *words, entry(9), *words[1:], DEADLOCK, "launching item 5", DEADLOCK, END) == {"7", "9"}


def test_what_may_fail_and_what_harms_nothing_does_not_end_it() -> None:
    loaded = Loaded()
    benign = 'error: could not execute query: ERROR:  schema "public" already exists'
    lines = (entry(3), benign, entry(7), DEADLOCK, entry(8), MISSING, END)
    assert said(*lines, soft=frozenset({"8"}), loaded=loaded) == {"3", "7"}  # once more, which harms nothing again
    assert len(loaded.benign) == 1 and len(loaded.left_out) == 1


@pytest.mark.parametrize(
    "lines",
    [
        (entry(7), MISSING, END),  # nobody was in anybody's way
        (entry(9), MISSING, entry(7), DEADLOCK, END),
        (DEADLOCK, END),  # of no entry, so nobody knows what to load again
        (entry(7), DEADLOCK, "error: a worker process died unexpectedly", END),
    ],
)
def test_any_other_error_ends_it(lines: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="stopped at its first error"):
        said(*lines)


def test_one_that_breaks_off_has_not_loaded_the_rest() -> None:
    """It says at its end that it passed over errors."""
    with pytest.raises(CommandError, match="ended with status 1"):
        said(entry(7), DEADLOCK)
