# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Thousands of small requests by one thread over several connections, each of which waits for its own answer.

A thread for each costs more than the request does: they wake each other and wait for the interpreter. This knows plain
success only, like the wire below it. What it did not do is handed back, for those who know about retries and errors.
"""

from __future__ import annotations

import contextlib
import http.client
import selectors
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, TypeVar

from .s3_wire import Connection, Wire
from .transfer import Bandwidth

# What fits into the buffers of a connection: it is sent at once, and its answer comes at once.
SMALL = 64 * 1024
# With so many that were not plain success, something is wrong that this cannot mend. Stores end connections after some
# hundred answers, so there may be one more for each so many that were.
_MOST_FAILED, _GOOD_PER_FAILURE = 10, 20
# Longer than this no request may wait for its whole answer; as long as a read on any other connection.
_ANSWER_SECONDS = 60.0
_LOOK_SECONDS, _OPENING_SECONDS = 0.5, 0.02

Job = TypeVar("Job")


@dataclass(frozen=True)
class Asked:
    """A request in botocore's words; a `Body` among the `arguments` is bytes."""

    operation: str
    key: str
    arguments: Mapping[str, Any]


def volley(
    wire: Wire,
    jobs: Sequence[Job],
    ask: Callable[[Job], Optional[Asked]],
    hear: Callable[[Job, Mapping[str, Any], bytes], bool],
    *,
    lanes: int,
    opener: Executor,
    bandwidth: Bandwidth,
) -> list[Job]:
    """Make the request that `ask` returns for each job, at most `lanes` at a time; return the jobs that were not done.

    `ask` returns None for a job that it leaves; `hear` gets the answer and its content, and returns whether all is well.
    Connections are made by the threads of `opener`. Raise StoppedError when `bandwidth` is stopped, and what `ask` and
    `hear` raise.
    """
    run = _Volley(wire, jobs, ask, hear, opener, bandwidth)
    try:
        run.all(lanes)
    finally:
        run.close()
    return run.left


class _Volley(Generic[Job]):
    """One volley: connections that are being opened, that are free, and that wait for an answer."""

    def __init__(
        self,
        wire: Wire,
        jobs: Sequence[Job],
        ask: Callable[[Job], Optional[Asked]],
        hear: Callable[[Job, Mapping[str, Any], bytes], bool],
        opener: Executor,
        bandwidth: Bandwidth,
    ) -> None:
        self.left: list[Job] = []
        self._wire, self._ask, self._hear = wire, ask, hear
        self._opener, self._bandwidth = opener, bandwidth
        self._waiting = list(reversed(jobs))
        self._failed, self._good = 0, 0
        self._opening: set[Future[Connection]] = set()
        self._free: list[Connection] = []
        self._busy: dict[Connection, tuple[Job, bool, float]] = {}
        self._selector = selectors.DefaultSelector()

    def all(self, lanes: int) -> None:
        for _count in range(min(lanes, len(self._waiting))):
            self._open()
        while True:
            self._bandwidth.take(0)
            self._take_what_is_open()
            while self._free and self._waiting:
                self._begin()
            if self._busy:
                self._hear_answers()
            elif self._opening and self._waiting:
                wait(self._opening, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            else:
                break
        self.left += reversed(self._waiting)

    def _open(self) -> None:
        self._opening.add(self._opener.submit(self._wire.connect))

    def _take_what_is_open(self) -> None:
        for future in [f for f in self._opening if f.done()] if self._opening else ():
            self._opening.remove(future)
            try:
                connection = future.result()
            except (OSError, http.client.HTTPException, ValueError):
                self._count_failure()
            else:
                self._selector.register(connection, selectors.EVENT_READ)
                self._free.append(connection)

    def _begin(self) -> None:
        """Send the next request by a free connection."""
        job = self._waiting.pop()
        asked = self._ask(job)
        try:
            head = self._wire.head(asked.operation, asked.key, asked.arguments) if asked is not None else None
        except ValueError:
            head = None
        if asked is None or head is None:
            self.left.append(job)
            return
        connection = self._free.pop()
        self._busy[connection] = job, asked.operation == "get_object", time.monotonic()
        try:
            connection.send(head, asked.arguments.get("Body", b""))
        except OSError:
            self._give_up(connection)

    def _hear_answers(self) -> None:
        ready = self._selector.select(_OPENING_SECONDS if self._opening else _LOOK_SECONDS)
        for key, _events in ready:
            connection: Any = key.fileobj
            if connection in self._busy:
                self._hear_answer(connection)
            else:
                # The store closes what is idle.
                self._free.remove(connection)
                self._drop(connection)
                self._count_failure()
        late = time.monotonic() - _ANSWER_SECONDS
        for connection in [c for c, (_job, _with_body, since) in self._busy.items() if since < late]:
            self._give_up(connection)

    def _hear_answer(self, connection: Connection) -> None:
        job, with_body, _since = self._busy[connection]
        kept: list[Connection] = []
        try:
            if not connection.is_whole(SMALL):
                return  # others need not wait for the rest
            answer = connection.receive(with_body, kept.append, most=SMALL)
            content = answer.pop("Body").all() if answer is not None and with_body else b""
        except (OSError, http.client.HTTPException, ValueError):
            answer, content = None, b""
        if answer is None:
            self._give_up(connection)
            return
        del self._busy[connection]
        self._good += 1
        self._wire.learn(worked=True)
        if kept:
            self._free.append(connection)
        else:
            # A store that closes after each answer is no place for this.
            self._drop(connection)
            self._count_failure()
        if not self._hear(job, answer, content):
            self.left.append(job)

    def _give_up(self, connection: Connection) -> None:
        """Leave the job whose answer is no plain success, or does not come."""
        self.left.append(self._busy.pop(connection)[0])
        self._wire.learn(worked=False)
        self._drop(connection)
        self._count_failure()

    def _drop(self, connection: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()

    def _count_failure(self) -> None:
        self._failed += 1
        if self._failed > _MOST_FAILED + self._good // _GOOD_PER_FAILURE:
            self.left += reversed(self._waiting)
            self._waiting.clear()
        elif self._waiting:
            self._open()

    def close(self) -> None:
        """Give the free connections back, and end the others."""
        for connection in self._free:
            self._wire.put_back(connection)
        for connection in self._busy:
            connection.close()
        for future in self._opening:
            if not future.cancel():
                future.add_done_callback(self._keep)
        self._selector.close()

    def _keep(self, opened: Future[Connection]) -> None:
        if opened.exception() is None:
            self._wire.put_back(opened.result())


__all__ = ("SMALL", "Asked", "volley")
