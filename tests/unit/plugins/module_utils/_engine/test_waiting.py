# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that waits for others: all its locks together no longer than it may, and its record tells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import context as context_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import options
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context, Reporter
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import BusyError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import lock as lock_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import prune, verify


class Clock:
    """Time that passes where somebody sleeps; `at` a moment something happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: tuple[float, Callable[[], None]] = (math.inf, lambda: None)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.at[0]:
            self.at[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which locks are waited for."""
    found = Clock()
    for module in (lock_module, context_module):
        monkeypatch.setattr(module, "time", found)
    return found


@contextlib.contextmanager
def held(world: Any, *names: str) -> Iterator[Callable[[], None]]:
    """Somebody else holds the locks, until the block ends or what this yields is called."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(world.context().lock(name))
        yield stack.close


def waiting(world: Any, seconds: float) -> Any:
    context = world.context()
    context.wait = timedelta(seconds=seconds)
    return context


def test_without_a_wait_a_run_fails_at_once(world: Any, clock: Clock) -> None:
    with held(world, "backup"), pytest.raises(BusyError, match="backup of db1, process"):
        perform(world.context(), "prune", lambda context: prune.prune(context, prune.Request()))
    assert clock.now == 0
    (record,) = history(world.context().state)
    assert (record["outcome"], record["exit_code"]) == ("busy", 3)
    assert "waited_seconds" not in record


def test_a_run_that_waits_comes_to_its_turn_and_its_record_tells(world: Any, tmp_path: Path, clock: Clock) -> None:
    with held(world, "backup") as let_go:
        clock.at = (3, let_go)
        perform(waiting(world, 60), "prune", lambda context: prune.prune(context, prune.Request()))
    (record,) = history(world.context().state)
    assert record["outcome"] == "ok"
    assert record["waited_seconds"] == pytest.approx(3, abs=0.3)
    assert "s of them waiting for other runs" in (tmp_path / "log" / "prune.log").read_text()


def test_all_locks_of_a_run_share_its_patience(world: Any, clock: Clock) -> None:
    """The first lock takes 1 of 2 seconds, so the second has but one left."""
    context = waiting(world, 2)
    with held(world, "sets"), held(world, "backup") as let_go, pytest.raises(BusyError):
        clock.at = (1, let_go)
        prune.prune(context, prune.Request())
    assert context.waited == pytest.approx(2), "not 3"


@pytest.mark.parametrize(("place", "lock"), [("s3", "sync"), ("local", "backup")])
def test_a_verification_that_waits_comes_after_the_run_that_brings_the_set(
    world: Any, clock: Clock, place: str, lock: str
) -> None:
    request = verify.Request(place=place, sets=("all",), level="checksum")
    with held(world, lock) as let_go:
        assert verify.verify(world.context(), request)["sets"] == []

        def bring() -> None:
            world.add(place, world.now)
            let_go()

        clock.at = (1, bring)
        context = waiting(world, 30)
        assert len(verify.verify(context, request)["sets"]) == 1
        assert context.waited > 0


def test_a_person_hears_that_a_run_waits(world: Any, clock: Clock) -> None:
    said: list[str] = []

    class Hearing(Reporter):
        def note(self, text: str) -> None:
            said.append(text)

    context: Context = waiting(world, 30)
    context.reporter = Hearing()
    with held(world, "backup") as let_go:
        clock.at = (1, let_go)
        with context.lock("backup"):
            pass
    assert len(said) == 1
    assert said[0].startswith("warning: waiting for another run to end: backup of db1, process ")
    assert context.warnings == []


@pytest.mark.parametrize("verb", ["backup", "sync", "verify", "restore", "prune", "pin", "unpin"])
def test_every_verb_that_locks_can_be_told_to_wait(verb: str) -> None:
    more = {"pin": ["latest", "--reason", "x"], "unpin": ["x"]}.get(verb, [])
    assert options.parse([verb, *more]).wait is None
    assert options.parse([verb, *more, "--wait", "90min"]).wait == timedelta(minutes=90)
    with pytest.raises(UsageError, match=r"--wait.*'six' is not a duration"):
        options.parse([verb, *more, "--wait", "six"])
