# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A process that stays while PostgreSQL calls for one WAL file after the other, so that a call need not start Python.

`pgops-wal` (host/client.py) asks it by a socket that only this account reaches. Whatever keeps it from an answer, the client
becomes the program itself: nothing depends on this process. It does the very same work, holds no lock of any other run, and
ends some seconds after the last call, or when the program is another one.

The client sends one question, its length in four bytes and then texts with a zero byte between them: PROTOCOL, the version's folder,
the data directory, the action and its words. It hears a dot each second while the work goes on, and then one answer, `=` and its length:
the exit code (or `again`: do it yourself), the file to rename, the target, and what the log of PostgreSQL is to get. The action `about`,
of any version, asks how it fares (asking.py).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from ..core.errors import BusyError
from ..core.times import utc_now
from ..system.lock import hold
from .ahead import IDLE_SECONDS, Recovery
from .archive import archive
from .brief import Brief, socket_path, stamp_of
from .calls import ABOUT, AGAIN, PROTOCOL, carry_out, line, parsed
from .fetch import look_into_or_remove
from .spool import Last, Proof

_TICK_SECONDS = 1.0
_QUESTION_SECONDS = 5.0
_LONGEST_QUESTION = 1 << 16
_PACKAGE = Path(__file__).parents[1]


def stay(config_path: str) -> int:
    """Answer until nobody has asked for a while, and return the exit code. Beside another one there is nothing to do."""
    path = socket_path(config_path)
    if not path:
        return 0
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    facts = os.stat(os.path.dirname(path))
    if facts.st_uid != os.geteuid():
        return 0
    if facts.st_mode & 0o077:
        os.chmod(os.path.dirname(path), 0o700)
    lock = Path(path[: -len("sock")] + "lock")
    try:
        with hold(lock, "wal stay", clock=utc_now, wait=timedelta(0)):
            staying = Staying(config_path, path)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, staying.end)
            staying.serve()
    except BusyError:
        pass
    return 0


class Staying:
    """The socket, the calls in progress, and what is remembered between them."""

    def __init__(self, config_path: str, path: str) -> None:
        self._config_path, self._path = config_path, path
        self._calls: dict[socket.socket, threading.Lock] = {}
        self._guard = threading.Lock()
        self._proven: set[Proof] = set()
        self._last = Last()
        self._recoveries: dict[tuple[str, ...], Recovery] = {}
        self._program = _identity()
        self._ended = False
        self._heard = time.monotonic()
        self._answered = 0

    def serve(self) -> None:
        """Listen until it is time to end."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # of one that was killed
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            mask = os.umask(0o177)
            try:
                listening.bind(self._path)
            finally:
                os.umask(mask)  # that of the server, which what is archived follows
            listening.listen(16)
            try:
                told = time.monotonic()
                while not self._is_over():
                    if select.select([listening], [], [], _TICK_SECONDS)[0]:
                        self._accept(listening)
                    if time.monotonic() - told >= _TICK_SECONDS:
                        self._tick()
                        told = time.monotonic()
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
        for recovery in self._recoveries.values():
            recovery.close()

    def end(self, *_unused: Any) -> None:
        """End when the calls in progress have."""
        self._ended = True

    def _is_over(self) -> bool:
        with self._guard:
            if self._calls:
                return False
        return self._ended or time.monotonic() - self._heard > IDLE_SECONDS or _identity() != self._program

    def _tick(self) -> None:
        """Tell those who wait that we live, and forget the recoveries that have ended."""
        with self._guard:
            calls = list(self._calls.items())
            gone = [] if calls else [key for key, one in self._recoveries.items() if one.over()]
            recoveries = [self._recoveries.pop(key) for key in gone]
        for connection, writing in calls:
            with writing, contextlib.suppress(OSError):
                connection.send(b".", socket.MSG_DONTWAIT)
        for recovery in recoveries:
            threading.Thread(target=recovery.close, daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        connection, _address = listening.accept()
        _pid, uid, _gid = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        if uid not in (os.geteuid(), 0):
            connection.close()
            return
        writing = threading.Lock()
        with self._guard:
            self._calls[connection] = writing
        threading.Thread(target=self._serve, args=(connection, writing), daemon=True).start()

    def _serve(self, connection: socket.socket, writing: threading.Lock) -> None:
        try:
            connection.settimeout(_QUESTION_SECONDS)
            question = _question(connection)
            connection.settimeout(None)
            answer = "\0".join(self._answer(question)).encode("utf-8", "surrogateescape")
            with writing:
                connection.sendall(b"=" + struct.pack("!I", len(answer)) + answer)
        except OSError:
            pass  # whoever asked is gone, and does it by other means
        finally:
            with self._guard:
                self._calls.pop(connection, None)
            connection.close()

    def _answer(self, question: list[str]) -> tuple[str, str, str, str]:
        """Return the exit code, the file to rename, what to, and the text for the log."""
        if question[:1] == [PROTOCOL] and question[3:] == [ABOUT]:
            return "0", "", "", self._about()  # who looks at us does not keep us here
        try:
            self._heard = time.monotonic()
            return self._work(question)
        finally:
            with self._guard:
                self._answered += 1
                self._heard = time.monotonic()

    def _about(self) -> str:
        with self._guard:
            recoveries = list(self._recoveries.values())
            counts = {"calls": self._answered, "proven": len(self._proven), "recoveries": len(recoveries)}
        # One file is that which was asked for last.
        return json.dumps({**counts, "ahead": sum(max(0, one.ready() - 1) for one in recoveries)})

    def _work(self, question: list[str]) -> tuple[str, str, str, str]:
        if self._ended or question[:2] != [PROTOCOL, _PACKAGE.parent.name] or _identity() != self._program:
            self._ended = True  # the next one is of that version
            return AGAIN, "", "", ""
        said: list[str] = []
        made: list[str] = []
        try:
            directory, action, words = question[2], question[3], question[4:]
            options, (*_name, target) = parsed(action, words)
            if os.path.abspath(options["config"]) != os.path.abspath(self._config_path):
                return AGAIN, "", "", ""  # another one, whose name makes the same socket
            bring = partial(self._bring, options, directory, made)
            store = partial(archive, proven=self._proven, last=self._last)
            code = carry_out(action, words, said.append, directory=directory, store=store, bring=bring)
            if action == "fetch" and code not in (0, 1):
                # At which PostgreSQL would end. The fault may be ours: keys of S3 that we have kept, and that are others by now.
                return AGAIN, "", "", ""
        except Exception:  # noqa: BLE001  # pylint: disable=broad-exception-caught
            return AGAIN, "", "", ""  # the program says what it thinks of it
        return str(code), made[0] if made else "", target, "".join(map(line, said))

    def _bring(
        self,
        options: dict[str, str],
        caller: str,
        made: list[str],
        brief: Brief,
        name: str,
        target: str,
        *,
        say: Callable[[str], None],
        **_same: Any,
    ) -> str:
        # Also what the brief does not say, where S3 is, may be another one in another configuration.
        key = (caller, os.path.dirname(target), *options.values(), stamp_of(self._config_path))
        with self._guard:
            recovery = self._recoveries.get(key)
            if recovery is None:
                recovery = Recovery(brief, target, self._config_path, options, caller)
                self._recoveries[key] = recovery
        source, path = recovery.give(name, say)
        look_into_or_remove(caller, name, path)
        made.append(path)
        return source


def _question(connection: socket.socket) -> list[str]:
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    if length > _LONGEST_QUESTION:
        raise OSError(errno.EMSGSIZE, "too long")
    return _exactly(connection, length).decode("utf-8", "surrogateescape").split("\0")


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        if not more:
            raise OSError(errno.ECONNRESET, "cut")
        found += more
    return found


def _identity() -> Optional[tuple[int, int]]:
    """Return what changes when the version that we are is removed or laid down anew, None when it is gone."""
    try:
        facts = os.stat(_PACKAGE / "__init__.py")
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


__all__ = ("Staying", "stay")
