# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that waits for others: all its locks together no longer than it may, and its record tells."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import options
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context, Reporter
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import BusyError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import prune, verify


@contextlib.contextmanager
def held(world: Any, *names: str, seconds: float) -> Iterator[None]:
    """Somebody else holds the locks for so long."""
    ready = threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(world.context().lock(name))
            ready.set()
            time.sleep(seconds)

    other = threading.Thread(target=hold)
    other.start()
    ready.wait()
    yield
    other.join()


def waiting(world: Any, seconds: float) -> Any:
    context = world.context()
    context.wait = timedelta(seconds=seconds)
    return context


def test_without_a_wait_a_run_fails_at_once(world: Any) -> None:
    began = time.monotonic()
    with held(world, "backup", seconds=1), pytest.raises(BusyError, match="backup of db1, process"):
        perform(world.context(), "prune", lambda context: prune.prune(context, prune.Request()))
    assert time.monotonic() - began < 30
    (record,) = history(world.context().state)
    assert (record["outcome"], record["exit_code"]) == ("busy", 3)
    assert "waited_seconds" not in record


def test_a_run_that_waits_comes_to_its_turn_and_its_record_tells(world: Any, tmp_path: Path) -> None:
    with held(world, "backup", seconds=3):
        perform(waiting(world, 60), "prune", lambda context: prune.prune(context, prune.Request()))
    (record,) = history(world.context().state)
    assert record["outcome"] == "ok"
    assert 1 <= record["waited_seconds"] < 60
    assert "s of them waiting for other runs" in (tmp_path / "log" / "prune.log").read_text()


def test_all_locks_of_a_run_share_its_patience(world: Any) -> None:
    """The first lock takes 1 of 2 seconds, so the second has but one left."""
    context = waiting(world, 2)
    with held(world, "sets", seconds=5), held(world, "backup", seconds=1), pytest.raises(BusyError):
        prune.prune(context, prune.Request())
    assert context.waited == pytest.approx(2, abs=0.9), "not 3"


@pytest.mark.parametrize(("place", "lock"), [("s3", "sync"), ("local", "backup")])
def test_a_verification_that_waits_comes_after_the_run_that_brings_the_set(world: Any, place: str, lock: str) -> None:
    request = verify.Request(place=place, sets=("all",), level="checksum")
    with held(world, lock, seconds=1):
        assert verify.verify(world.context(), request)["sets"] == []
        context = waiting(world, 30)
        world.add(place, world.now)
        assert len(verify.verify(context, request)["sets"]) == 1
        assert context.waited > 0


def test_a_person_hears_that_a_run_waits(world: Any) -> None:
    said: list[str] = []

    class Hearing(Reporter):
        def note(self, text: str) -> None:
            said.append(text)

    context: Context = waiting(world, 30)
    context.reporter = Hearing()
    with held(world, "backup", seconds=1), context.lock("backup"):
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
