# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""WAL segments that are unpacked and proven before a server asks for them, so that its call is a rename.

For a process that stays between the calls of a recovery. The files lie in `.pgops` beside the target; none is given that this very
process has not written and proven. They go when the replay has passed them, when it jumps, and when it ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Callable, Optional

from ..core.errors import PgopsError
from ..core.segments import SEGMENT, is_size, kind, number_of, segment_name, timeline_of
from ..places.base import Place
from .brief import Brief
from .fetch import Way, ahead_of, drop, fetch
from .remote import Decrypt, blob_of, list_names, listed, path_of, place_of
from .spool import AbsentError, folder_of, open_to

Say = Callable[[str], None]
# Without a call for so long it is over, and so long after the server's end.
IDLE_SECONDS, LINGER_SECONDS = 20.0, 10.0
_ROOM = 128 << 20
_AT_ONCE = 4
# So old may be what is known of S3 when something is brought that nobody has asked for yet.
_FRESH_SECONDS = 30.0
_RUNNING, _READY = "postmaster.pid", ".ready-"


class Recovery:
    """What one server that recovers has asked for, and what it will ask for next.

    Its calls say where it runs (`directory`, its data directory), and the same options each time.
    """

    def __init__(self, brief: Brief, target: str, config_path: str, options: dict[str, str], directory: str) -> None:
        self._brief, self._config_path, self._options, self._directory = brief, config_path, options, directory
        self._ahead = ahead_of(os.path.join(directory, target))
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Future[str], str]] = {}
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "pgops-ahead")
        self._listing = threading.Lock()
        self._listings: dict[str, tuple[float, dict[str, list[str]]]] = {}
        self._place: Optional[Place] = None
        self.used, self._ended = time.monotonic(), 0.0
        with contextlib.suppress(OSError):
            for left in os.listdir(self._ahead):
                if left.startswith(_READY):  # of a process that was killed
                    os.unlink(os.path.join(self._ahead, left))

    def give(self, name: str, say: Say) -> tuple[str, str]:
        """Return where the WAL file `name` came from, and the file to rename to the target. Raise what fetch() raises."""
        self.used = time.monotonic()
        self._have_directory()
        with self._lock:
            made = self._made.get(name)
        source, path = "", ""
        if made is not None:
            with contextlib.suppress(PgopsError, OSError, CancelledError):
                source, path = made[0].result(), made[1]
        if not source or not os.path.exists(path):
            path = self._path(name)
            try:
                source = self._make(name, path, say, asked=True)
            except PgopsError:
                if os.path.isdir(self._ahead):
                    raise
                self._have_directory()  # somebody has cleared it away meanwhile
                source = self._make(name, path, say, asked=True)
            done: Future[str] = Future()
            done.set_result(source)
            with self._lock:
                self._made[name] = (done, path)
        else:
            source = "ahead"
        self._go_on(name, os.path.getsize(path))
        self.used = time.monotonic()
        return source, path

    def _have_directory(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._ahead, 0o700)

    def ready(self) -> int:
        """Return how many files lie ready for their call."""
        with self._lock:
            return sum(
                1
                for made, _path in self._made.values()
                if made.done() and not made.cancelled() and made.exception() is None
            )

    def over(self) -> bool:
        """Tell whether nothing more is asked for: the server has ended a while ago, or has had all it needs.

        Until then nothing is touched, as somebody may be removing the whole directory.
        """
        now = time.monotonic()
        if self._runs():
            self._ended = 0.0
        elif not self._ended:
            self._ended = now
        return now - self.used > IDLE_SECONDS or bool(self._ended and now - self._ended > LINGER_SECONDS)

    def _runs(self) -> bool:
        return os.path.exists(os.path.join(self._directory, _RUNNING))

    def close(self) -> None:
        """Remove what nobody has come for."""
        with self._lock:
            for name in list(self._made):
                self._forget(name)
        self._pool.shutdown(wait=True)
        with contextlib.suppress(OSError):
            os.rmdir(self._ahead)

    def _path(self, name: str) -> str:
        # A name of its own each time: what was given up may be written still.
        return os.path.join(self._ahead, "%s%s-%d-%d" % (_READY, name, os.getpid(), next(self._numbers)))

    def _go_on(self, name: str, size: int) -> None:
        """Begin with what follows, and forget all else."""
        following: list[str] = []
        if kind(name) == SEGMENT and is_size(size) and self._runs():
            count, number = min(self._brief.prefetch, max(1, _ROOM // size)), number_of(name, size)
            following = [segment_name(timeline_of(name), number + one, size) for one in range(1, count + 1)]
        with self._lock:
            for other in set(self._made) - {name, *following}:
                self._forget(other)
            for other in following:
                made = self._made.get(other)
                # What failed, as at the end of what is archived by now, may be there when its turn comes nearer.
                if made is None or (made[0].done() and made[0].exception() is not None):
                    path = self._path(other)
                    self._made[other] = (self._pool.submit(self._make, other, path, _unheard, asked=False), path)
        if following:
            drop(self._ahead, name)

    def _forget(self, name: str) -> None:
        future, path = self._made.pop(name)
        if not future.cancel():
            future.add_done_callback(lambda _future: _remove(path))

    def _make(self, name: str, path: str, say: Say, *, asked: bool) -> str:
        """Write the WAL file `name` to `path`, whole and proven, and return where it came from. Raise what fetch() raises."""
        if not asked and not self._runs():
            raise AbsentError("The server has ended.")

        def bring(
            brief: Brief,
            config_path: str,
            identifier: str,
            wanted: str,
            target: str,
            _ahead: str,
            decrypt: Decrypt,
            _say: Say,
        ) -> None:
            try:
                self._bring(brief, config_path, identifier, wanted, target, decrypt, asked)
            except AbsentError:
                raise
            except PgopsError:
                self._place = None  # the next one has whatever the files of the credentials say by then
                raise

        return fetch(
            self._brief,
            name,
            path,
            system_identifier=self._options["system_identifier"],
            place=self._options["place"] or "auto",
            config_path=self._config_path,
            say=say,
            way=Way(self._directory, bring),
        )

    def _bring(
        self, brief: Brief, config_path: str, identifier: str, name: str, target: str, decrypt: Decrypt, asked: bool
    ) -> None:
        """Bring one file from S3, by a connection and a list that stay."""
        place = self._place
        if place is None:
            place, _most = place_of(brief, config_path)
            self._place = place
        # Whoever asks is told what is there now.
        listing = listed(place, identifier, name) if asked else self._known(place, identifier, name)
        path = path_of(listing, name, place.root)
        blob = blob_of(place, path)
        if not asked and not self._runs():
            raise AbsentError("The server has ended.")
        open_to(blob, os.path.basename(path), place.root, decrypt, target)

    def _known(self, place: Place, identifier: str, name: str) -> dict[str, list[str]]:
        """Return what lies beside `name` in S3, which may have been listed a moment ago. Raise AbsentError if that is not there."""
        inner = folder_of("", identifier, name)
        with self._listing:
            when, listing = self._listings.get(inner, (0.0, {}))
            if not when or (name not in listing and time.monotonic() - when > _FRESH_SECONDS):
                listing = list_names(place, inner)
                # Segments at the end of one folder are followed by those of the next.
                self._listings = {**dict(list(self._listings.items())[-1:]), inner: (time.monotonic(), listing)}
        if name not in listing:
            raise AbsentError("%s is not in %s/%s." % (name, place.root, inner))
        return listing


def _unheard(_text: str) -> None:
    """Say nothing: what could not be brought ahead is asked for again in its turn."""


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


__all__ = ("IDLE_SECONDS", "LINGER_SECONDS", "Recovery")
