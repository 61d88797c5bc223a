# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` and `make bench` say of their own work: the share of branches, what was not run, what a figure is of."""

from __future__ import annotations

import pytest

from tests.tools.bench import FAILED, NOT_RUN, PASSED, Outcome
from tests.tools.layers import Layer, Row, count_layers, judge_coverage


@pytest.mark.parametrize(
    ("taken", "ran", "status", "words"),
    [
        (94, 970, PASSED, "94.0 % of branches (94 of 100), 96.7 % of statements and branches"),
        # The figure of both hides what was not taken.
        (50, 1000, FAILED, "50.0 % of branches (50 of 100), 95.5 % of statements and branches"),
        (100, 880, FAILED, "100.0 % of branches (100 of 100), 89.1 % of statements and branches"),
        (90, 900, PASSED, "90.0 % of branches (90 of 100), 90.0 % of statements and branches"),
    ],
)
def test_the_limit_holds_for_branches_alone_and_for_both(taken: int, ran: int, status: str, words: str) -> None:
    totals = {"covered_branches": taken, "num_branches": 100, "covered_lines": ran, "num_statements": 1000}
    assert judge_coverage(totals) == Outcome(status, words)


def test_a_run_without_a_branch_proves_nothing() -> None:
    totals = {"covered_branches": 0, "num_branches": 0, "covered_lines": 10, "num_statements": 10}
    assert judge_coverage(totals).status == FAILED


def test_the_last_line_counts_each_layer_once() -> None:
    layer = Layer("one", "unit", lambda bench: Outcome(PASSED))
    rows = [Row(layer, Outcome(status), 0.0, "") for status in (PASSED, NOT_RUN, PASSED)]
    assert count_layers(rows) == "2 passed, 0 failed, 1 not run"
    assert count_layers([*rows[:1], Row(layer, Outcome(FAILED), 0.0, "")]) == "1 passed, 1 failed"
