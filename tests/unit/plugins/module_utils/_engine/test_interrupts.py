# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that end a run in order, also where Python itself would drop them."""

from __future__ import annotations

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.system import interrupts
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.interrupts import (
    cancelled_at_a_signal,
    cancelling_queries,
    interruptible,
)


class Thing:
    """Something that ends, and calls what it was given when it does."""

    def __init__(self, at_the_end: Callable[[], Any]) -> None:
        self._at_the_end = at_the_end

    def __del__(self) -> None:
        self._at_the_end()


def in_a_destructor(number: int) -> None:
    """Be interrupted where Python drops it, as it says there itself."""
    Thing(lambda: signal.raise_signal(number))


def in_the_callback_of_a_weak_reference(number: int) -> None:
    """As the lock of a module has one."""
    thing = Thing(lambda: None)
    held = weakref.ref(thing, lambda _reference: signal.raise_signal(number))
    del thing
    assert held() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", [in_a_destructor, in_the_callback_of_a_weak_reference])
def test_a_signal_that_python_drops_ends_the_run_all_the_same(where: Callable[[int], None], number: int) -> None:
    before = sys.unraisablehook
    cleaned = False
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            where(number)
            time.sleep(60)
        finally:
            # A second one breaks into no clean-up.
            signal.raise_signal(number)
            cleaned = True
    assert cleaned
    assert sys.unraisablehook is before


def test_what_else_is_dropped_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    with interruptible():
        Thing(lambda: 1 // 0)
    assert told == [ZeroDivisionError]


def test_a_run_that_ends_before_the_signal_comes_again_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_AGAIN_SECONDS", 120.0)
    others = threading.enumerate()
    with interruptible():
        in_a_destructor(signal.SIGINT)
        (timer,) = [t for t in threading.enumerate() if isinstance(t, threading.Timer) and t not in others]
    timer.join(60)
    assert not timer.is_alive()


class Query:
    """A query that began now, and runs until it is cancelled."""

    def __init__(self) -> None:
        self.began, self.cancelled = time.monotonic(), threading.Event()
        cancelled_at_a_signal(self)

    def runs_since(self, moment: float) -> bool:
        return self.began < moment

    def cancel(self) -> None:
        self.cancelled.set()


def test_what_began_after_a_dropped_signal_is_cancelled_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might last for hours, and Python hears of no signal before it ends."""
    monkeypatch.setattr(interrupts, "_AGAIN_SECONDS", 600.0)
    begun: list[Query] = []
    with pytest.raises(KeyboardInterrupt), interruptible(), cancelling_queries():
        begun.append(Query())
        in_a_destructor(signal.SIGINT)
        assert begun[0].cancelled.wait(60)
        begun.append(Query())
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            assert begun[1].cancelled.wait(60)
            begun.append(Query())
            signal.raise_signal(signal.SIGINT)
    assert not begun[2].cancelled.is_set(), "it is of the clean-up"
