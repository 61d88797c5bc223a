# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From work that pushes chunks to chunks that are pulled, through a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Optional, Union

from .runner import Command, OnLine, Runner, Watch


class _AbandonedError(Exception):
    """Nobody wants the rest of a stream."""


class Bridge(threading.Thread):
    """Turns work that pushes chunks into chunks to be pulled."""

    def __init__(self, work: Callable[[Callable[[bytes], None]], object]) -> None:
        super().__init__(daemon=True)
        self._work, self._abandoned = work, threading.Event()
        self._queue: queue.Queue[Union[bytes, BaseException, None]] = queue.Queue(maxsize=8)
        self.start()

    def run(self) -> None:
        end: Optional[BaseException] = None
        try:
            self._work(self._put)
        except Exception as error:  # noqa: BLE001  # raised again by chunks()
            end = error
        with contextlib.suppress(_AbandonedError):
            self._put(end)

    def _put(self, item: Union[bytes, BaseException, None]) -> None:
        while not self._abandoned.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return
        raise _AbandonedError

    def chunks(self) -> Iterator[bytes]:
        """Yield what the work pushed; raise what it raised."""
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def abandon(self) -> None:
        """End the work, if it has not ended, and wait for it. Whoever still waits for a chunk hears of it."""
        self._abandoned.set()
        self.join()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(_AbandonedError())


@contextlib.contextmanager
def flow(
    runner: Runner,
    commands: Sequence[Command],
    *,
    source: Optional[Iterable[bytes]] = None,
    watch: Optional[Watch] = None,
    on_line: Optional[OnLine] = None,
) -> Iterator[Iterator[bytes]]:
    """Yield what the pipeline `commands` gives, as chunks to be pulled; it ends when the block does, wherever it is."""
    over = threading.Event()

    def look() -> None:
        if watch is not None:
            watch()
        if over.is_set():  # a program that gives nothing hears of nothing else
            raise _AbandonedError

    bridge = Bridge(lambda put: runner.pipe(commands, source=source, sink=put, watch=look, on_line=on_line))
    try:
        yield bridge.chunks()
    finally:
        over.set()
        bridge.abandon()


__all__ = ("Bridge", "flow")
