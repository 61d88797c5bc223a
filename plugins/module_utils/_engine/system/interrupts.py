# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Signals end a run in order, for the program and the modules alike."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

# A signal that Python dropped is sent once more when what dropped it is over. Seconds.
_AGAIN_SECONDS = 0.05
# How long the clean-up waits for the cancelling of what ran before it, which asks the server. Seconds.
_HUSH_SECONDS = 5


class _Heard:
    """When Python heard the signal that ends the run, and whether nobody cancels queries right now."""

    def __init__(self) -> None:
        self.at = 0.0
        self.hushed = threading.Event()
        self.hushed.set()


_heard = _Heard()


class Queries(Protocol):
    """A session whose query can be cancelled, also from another thread."""

    def runs_since(self, moment: float) -> bool:
        """Tell whether a query runs now that began before `moment` (of time.monotonic())."""

    def cancel(self) -> None:
        """Have the server end that query."""


_sessions: weakref.WeakSet[Queries] = weakref.WeakSet()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the run in order: the first does, only a third breaks into the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count, last, again = [0], [signal.SIGINT.value], list[threading.Timer]()
    _heard.at = 0.0

    def stop(number: int, frame: Any) -> None:
        del frame
        last[0] = number
        count[0] += 1
        if count[0] == 1:
            _heard.at = time.monotonic()  # what begins from now on is the clean-up's
        if count[0] != 2:
            raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if count[0] != 1 or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        count[0], _heard.at = 0, 0.0
        again.append(threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), last[0])))
        again[-1].daemon = True
        again[-1].start()

    # Python drops what is raised in a destructor, or while it lets go the lock of a module that it has imported.
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    before: dict[int, Any] = {}
    for number in map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        # What our creator had us ignore (nohup) stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in again:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_cancels() -> None:
    """Wait, in the clean-up, until no cancel of what ran before it is on its way, as it would meet the next query."""
    if _heard.at and threading.current_thread() is threading.main_thread():
        _heard.hushed.wait(_HUSH_SECONDS)


def cancelled_at_a_signal(session: Queries) -> None:
    """Have the query of `session` cancelled when a signal ends the run (cancelling_queries), for as long as the session is there."""
    _sessions.add(session)


def _cancel(before: float) -> None:
    """Cancel every query of this process that runs now and began before that moment."""
    for session in list(_sessions):
        if session.runs_since(before):
            session.cancel()


@contextlib.contextmanager
def cancelling_queries() -> Iterator[None]:
    """At a signal, have the server end the queries that run: Python hears of it only when libpq returns.

    Other threads' queries too, but none that began after Python had heard of it: those clean up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while os.read(reading, 1):  # more than once, as Python drops one now and then
            _heard.hushed.clear()
            try:
                _cancel(_heard.at or math.inf)
            finally:
                _heard.hushed.set()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        listener.join(timeout=5)
        os.close(reading)


__all__ = ("Queries", "cancelled_at_a_signal", "cancelling_queries", "interruptible", "wait_for_cancels")
