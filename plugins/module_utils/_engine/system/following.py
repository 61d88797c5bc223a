# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Hash files while programs still write them, and have them go to the disk meanwhile: little is left to do at their end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from .durable import chunks, sync_file

_PAUSE_SECONDS = 0.1
_PAUSE_FACTOR = 10.0  # of what a look took: one over ten thousand files must not take a core
_FLUSH_EVERY = 64 * 1024 * 1024


@dataclass
class _Progress:
    """How far a file was read, and the hash of that."""

    inode: int
    read: int = 0
    digest: Any = field(default_factory=hashlib.sha256)  # no public type has a name for it in Python 3.9


class Following(threading.Thread):
    """Follows the files of `target`, a file or a folder, for as long as a block lasts; then hashes() is the result.

    Only files whose names end in one of `suffixes`: their writers must go on to the end and never back.
    """

    def __init__(self, target: Path, suffixes: tuple[str, ...]) -> None:
        super().__init__(name="pgops-following", daemon=True)
        self._target, self._suffixes = target, suffixes
        self._files: dict[Path, _Progress] = {}
        self._waiting: dict[Path, int] = {}  # bytes that were read and not flushed
        self._flusher: Optional[threading.Thread] = None
        self._over, self._given_up = threading.Event(), False
        self._trouble: Optional[BaseException] = None

    def __enter__(self) -> Following:  # noqa: PYI034  # typing.Self came with Python 3.11
        self.start()
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_unused: object) -> None:
        self._given_up = kind is not None  # nobody waits for the hashes of what failed
        self._over.set()
        self.join()

    def run(self) -> None:
        pause = _PAUSE_SECONDS
        try:
            while not self._over.wait(pause):
                pause = max(_PAUSE_SECONDS, _PAUSE_FACTOR * self._look())
                self._flush()
        except Exception as error:  # noqa: BLE001  # raised again by hashes()
            self._trouble = error

    def hashes(self) -> dict[Path, tuple[int, str]]:
        """Read what is left when all is written, and return the size and the SHA-256 (hex digits) of each file. Raise OSError."""
        if self._trouble is None:
            self._look()
        if self._flusher is not None:
            self._flusher.join()
        # What the system tells one flush of a lost write, it may not tell the next.
        if self._trouble is not None:
            raise self._trouble
        there = {path: self._files[path] for path in self._paths() if path in self._files}
        return {path: (done.read, done.digest.hexdigest()) for path, done in there.items()}

    def _look(self) -> float:
        """Read what came, and return the seconds that it took to see what that is."""
        began, reading = time.monotonic(), 0.0
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                done = self._files.get(path)
                if done is None or done.inode != facts.st_ino or done.read > facts.st_size:
                    done = self._files[path] = _Progress(facts.st_ino)
                if facts.st_size > done.read:
                    tick = time.monotonic()
                    self._read(path, done)
                    reading += time.monotonic() - tick
        return time.monotonic() - began - reading

    def _read(self, path: Path, done: _Progress) -> None:
        before = done.read
        for chunk in chunks(path, before):
            done.digest.update(chunk)
            done.read += len(chunk)
            if self._given_up:
                return
        self._waiting[path] = self._waiting.get(path, 0) + done.read - before

    def _flush(self) -> None:
        """Have what was read go to the disk when that is worth while; a slow disk keeps nobody from reading on."""
        busy = self._flusher is not None and self._flusher.is_alive()
        if busy or sum(self._waiting.values()) < _FLUSH_EVERY:
            return
        paths, self._waiting = list(self._waiting), {}
        self._flusher = threading.Thread(target=self._sync, args=(paths,), name="pgops-flushing", daemon=True)
        self._flusher.start()

    def _sync(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    sync_file(path)
        except Exception as error:  # noqa: BLE001  # raised again by hashes()
            self._trouble = error

    def _paths(self) -> list[Path]:
        if not self._target.is_dir():
            return [self._target] if self._target.name.endswith(self._suffixes) else []
        with os.scandir(self._target) as entries:
            return [self._target / entry.name for entry in entries if entry.name.endswith(self._suffixes)]


__all__ = ("Following",)
