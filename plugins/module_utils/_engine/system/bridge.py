# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From work that pushes chunks to chunks that are pulled, through a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Optional, Union


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
        """End the work, if it has not ended, and wait for it."""
        self._abandoned.set()
        self.join()


__all__ = ("Bridge",)
