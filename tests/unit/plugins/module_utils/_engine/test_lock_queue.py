# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stands in which queue behind a dump, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.lock_queue import (
    TOLD,
    LockWaits,
    Waiting,
    queues,
)

OURS = frozenset({1, 2})


def waiting(pid: int, *blockers: int, seconds: float | None = None, **others: Any) -> Waiting:
    known = {"table": "public.t", "mode": "AccessExclusiveLock", "role": "deploy", "application": "migrate", **others}
    return Waiting(pid, blockers, seconds=seconds, **known)


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ([], {}),
        ([waiting(10, 99)], {}),  # behind a stranger
        ([waiting(10, 1)], {10: set()}),
        ([waiting(10, 1), waiting(11, 10), waiting(12, 11)], {10: {11, 12}}),
        ([waiting(10, 1), waiting(11, 2, 10), waiting(12, 10, 11)], {10: {12}, 11: {12}}),
        ([waiting(10, 1), waiting(2, 10), waiting(11, 10)], {10: {11}}),  # our own count stands behind it
        ([waiting(1, 99), waiting(10, 99, 1)], {10: set()}),  # we wait, and somebody waits behind us
        ([waiting(10, 1), waiting(11, 12), waiting(12, 11)], {10: set()}),  # others wait for each other
        ([waiting(10, 0)], {}),  # a prepared transaction
    ],
)
def test_queues(sessions: list[Waiting], expected: dict[int, set[int]]) -> None:
    assert queues(sessions, OURS) == expected


def test_a_wait_is_new_once_and_grows() -> None:
    waits = LockWaits("orders")
    held_up, fresh = waits.see([waiting(10, 1)], OURS, 100.0)
    assert held_up and [wait.pid for wait in fresh] == [10]
    assert waits.see([waiting(10, 1), waiting(11, 10), waiting(12, 10)], OURS, 107.5) == (True, [])
    assert waits.see([waiting(10, 1), waiting(11, 10)], OURS, 112.0) == (True, [])
    assert waits.see([], OURS, 200.0) == (False, [])
    (fact,) = waits.facts()
    assert (fact["database"], fact["pid"], fact["seconds"], fact["queued"]) == ("orders", 10, 12.0, 2)


def test_the_server_s_own_time_counts_where_it_tells_one() -> None:
    waits = LockWaits("orders")
    waits.see([waiting(10, 1, seconds=3.04)], OURS, 100.0)
    waits.see([waiting(10, 1, seconds=12.04)], OURS, 300.0)
    assert waits.facts()[0]["seconds"] == pytest.approx(12.0)


def test_who_waits_for_another_table_waits_anew() -> None:
    waits = LockWaits("orders")
    waits.see([waiting(10, 1)], OURS, 0.0)
    fresh = waits.see([waiting(10, 1, table="public.u")], OURS, 5.0)[1]
    assert [wait.table for wait in fresh] == ["public.u"]
    assert waits.pids == [10]


def test_what_is_said() -> None:
    waits = LockWaits("orders")
    (wait,) = waits.see([waiting(10, 1, seconds=3.2), waiting(11, 10)], OURS, 0.0)[1]
    assert wait.now() == (
        "In the database 'orders', process 10 (role deploy, application migrate) has waited 3 s for AccessExclusiveLock "
        "on public.t, which the dump holds up; 1 more session waits behind it."
    )
    waits.see([waiting(10, 1, seconds=9.6), waiting(11, 10), waiting(12, 11)], OURS, 6.0)
    waits.gave_way = 1
    past, gave_way = waits.warnings()
    assert past == (
        "In the database 'orders', the dump held up process 10 (role deploy, application migrate), which waited at least "
        "10 s for AccessExclusiveLock on public.t; 2 more sessions waited behind it."
    )
    assert gave_way == "The dump of 'orders' gave way once to sessions that waited for its locks."


def test_what_the_server_hides_is_left_out_of_the_words() -> None:
    waits = LockWaits("orders")
    (wait,) = waits.see([waiting(10, 1, table="", mode="ShareLock", role="", application="")], OURS, 0.0)[1]
    assert "process 10 has waited 0 s for the end of the dump's transaction," in wait.now()


def test_a_crowd_is_counted_not_told_one_by_one() -> None:
    waits = LockWaits("orders")
    crowd = [waiting(100 + i, 1) for i in range(TOLD + 7)]
    fresh = waits.see(crowd, OURS, 0.0)[1]
    assert len(fresh) == len(waits.facts()) == TOLD
    assert len(waits.pids) == TOLD + 7
    assert waits.warnings()[-1] == "In the database 'orders', the dump held up 7 more sessions."


def test_nobody_waited() -> None:
    waits = LockWaits("orders")
    assert waits.see([waiting(10, 99)], OURS, 0.0) == (False, [])
    assert (waits.facts(), waits.warnings(), waits.pids) == ([], [], [])
