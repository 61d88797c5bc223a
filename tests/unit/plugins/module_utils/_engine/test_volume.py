# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes: the newest set against the usual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import set_id
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.volume import ALLOWED, judge, measure
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import render, status

MIB = 1024 * 1024
FIRST = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)


def sets(*sizes: int, kind: str = "logical", **values: Any) -> list[dict[str, Any]]:
    """Return a described set a day, the oldest first."""
    return [
        {
            "id": set_id(FIRST + timedelta(days=n), kind),
            "kind": kind,
            "bytes": size,
            "databases": ["shop"],
            "complete": True,
            **values,
        }
        for n, size in enumerate(sizes)
    ]


def checks(found: list[dict[str, Any]]) -> list[str]:
    return [finding.check for finding in judge(measure(found))]


@pytest.mark.parametrize(
    ("sizes", "alarms"),
    [
        ((), False),
        ((10 * MIB, 10 * MIB, MIB), False),  # two before it are too few
        ((10 * MIB, 10 * MIB, 10 * MIB, 5 * MIB), False),
        ((10 * MIB, 10 * MIB, 10 * MIB, 5 * MIB - 1), True),
        ((10 * MIB, 10 * MIB, 10 * MIB, 15 * MIB + 1), True),
        ((900 * MIB, *[10 * MIB] * 7, 10 * MIB), False),  # the eighth before it is forgotten
        ((0, 0, 0, 10 * MIB), False),
        ((10, 10, 10, 100), False),
    ],
)
def test_half_as_much_more_or_less_is_told(sizes: tuple[int, ...], alarms: bool) -> None:
    assert checks(sets(*sizes)) == (["size"] if alarms else [])


def test_sets_of_other_kinds_and_broken_ones_do_not_count_and_each_counts_once() -> None:
    found = sets(*[10 * MIB] * 4)
    assert checks(found + sets(*[900 * MIB] * 3, kind="base")) == []
    assert checks([*found, *sets(*[0] * 6, complete=False)][::-1]) == []
    assert measure(found * 3) == measure(found)


def test_a_set_without_a_single_database_is_critical_unless_that_is_wanted() -> None:
    empty = measure(sets(5, databases=[]))
    assert [(f.check, f.severity) for f in judge(empty)] == [("no databases", "critical")]
    assert judge(empty, none_allowed=True) == []
    assert judge(measure(sets(5, databases=[], kind="base"))) == []


@given(st.lists(st.integers(MIB, 10**12), min_size=1, max_size=12))
def test_the_deviation_is_what_the_finding_goes_by(sizes: list[int]) -> None:
    known = measure(sets(*sizes))
    assert known["bytes"] == sizes[-1]
    assert (known["deviation"] is None) == (len(sizes) < 4)
    off = known["deviation"]
    assert bool(judge(known)) == (off is not None and abs(off) > ALLOWED)


def test_status_tells_of_it_with_the_step_to_take(world: Any) -> None:
    for n, size in enumerate((1, 2 * MIB, 2 * MIB, 2 * MIB)):
        world.add("local", world.NOW - timedelta(days=n), payload=b"x" * size)
    result = status(world.context())
    assert result["size"]["median_bytes"] > 2 * MIB
    assert "size" in [f["check"] for f in result["findings"]]
    assert any("Compare the newest sets" in step for step in result["next"])
    assert "than usual" in render(result, colour=False)
