# SPDX-License-Identifier: GPL-3.0-or-later
"""A small process that owns one server and its directories, and ends both when its creator is gone.

The creator holds one end of a pipe. However it ends (a return, an exception, Ctrl-C, SIGTERM, SIGKILL), the
kernel closes that end; the guard reads end-of-file, stops the server and removes the directories. The guard runs
in a session of its own, so a Ctrl-C in the terminal reaches the creator and never the server behind its back. On
Linux it also inherits what the server's children leave behind, and ends that too.

This file is run by its path, so that it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 60  # seconds for each signal to work; a machine may be busy with much else


class GuardError(Exception):
    """The guard could not do what it was asked to."""


class Guard:
    """The creator's side: start and stop one server at a time; `close` stops it and removes the directories."""

    def __init__(self, *, remove: Sequence[Path] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise GuardError("the guard process has no pipes")
        self._to_guard, self._from_guard = self._process.stdin, self._process.stdout
        self._requests = 0
        self._kept = False
        self.remove(*remove)

    def remove(self, *paths: Path) -> None:
        """Have these removed at the end."""
        self._ask({"do": "remove", "paths": [str(path) for path in paths]})

    def start(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        account: tuple[int, int] | None = None,
        stop_signals: Sequence[int] = (signal.SIGTERM,),
    ) -> int:
        """Start the server as `account` (uid, gid) and return its process id. Raises GuardError."""
        return int(
            self._ask(
                {
                    "do": "start",
                    "command": list(command),
                    "log": str(log),
                    "env": dict(env),
                    "account": account,
                    "stop_signals": [int(number) for number in stop_signals],
                }
            )
        )

    def poll(self) -> int | None:
        """Return the server's exit status, or None while it runs."""
        status = self._ask({"do": "poll"})
        return None if status is None else int(status)

    def stop(self, *signals: int) -> None:
        """Stop the server (with these signals in turn, if given); the directories stay."""
        self._ask({"do": "stop", "signals": [int(number) for number in signals]})

    def keep_while(self, path: Path) -> None:
        """Outlive the creator: from now on the server stays as long as the file `path` does, also after `close`."""
        self._ask({"do": "keep", "path": str(path)})
        self._kept = True

    def close(self) -> None:
        """Stop the server, remove the directories, and wait until that is done."""
        with contextlib.suppress(BrokenPipeError):
            self._to_guard.close()
        if not self._kept:
            self._process.wait()
        self._from_guard.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        self._requests += 1
        answer: dict[str, Any] = {"number": 0}
        try:
            self._to_guard.write(json.dumps(request | {"number": self._requests}).encode() + b"\n")
            self._to_guard.flush()
            while answer["number"] < self._requests:  # a Ctrl-C may have left an older answer unread
                answer = json.loads(self._from_guard.readline())
        except (BrokenPipeError, ValueError) as error:
            raise GuardError("the guard process is gone") from error
        if "error" in answer:
            raise GuardError(answer["error"])
        return answer["value"]


class _Owner:
    """The guard's side of each request, and the clean-up at the end."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.stop_signals: list[int] = [signal.SIGTERM]
        self.paths: list[str] = []
        self.keep: str | None = None

    def answer(self, request: dict[str, Any]) -> Any:
        match request["do"]:
            case "remove":
                self.paths += request["paths"]
            case "start":
                return self.start(request)
            case "poll":
                return self.child.poll() if self.child else None
            case "stop":
                self.stop(request["signals"] or self.stop_signals)
            case "keep":
                self.keep = request["path"]
        return None

    def start(self, request: dict[str, Any]) -> int:
        self.stop_signals = request["stop_signals"]
        uid, gid = request["account"] or (None, None)
        with open(request["log"], "ab") as log:
            self.child = subprocess.Popen(
                request["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=request["env"],
                cwd="/",
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                umask=0o077,
                preexec_fn=self._prepare_child,  # noqa: PLW1509 - this process has one thread only
            )
        return self.child.pid

    def _prepare_child(self) -> None:
        """Have the child end with us, and heed the signals that we ignore."""
        _prctl(_PR_SET_PDEATHSIG, self.stop_signals[-1])
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    def stop(self, signals: Sequence[int]) -> None:
        """Each signal has its time to work; the last resort is SIGKILL. Then the same for what the server left."""
        for number in (*signals, signal.SIGKILL):
            if self.child is None or self.child.poll() is not None:
                break
            self.child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=_PATIENCE)
        for number in (signal.SIGTERM, signal.SIGKILL):
            _end_children(number)

    def linger(self) -> None:
        """Wait while the creator wanted this kept."""
        while self.keep and os.path.exists(self.keep) and (self.child is None or self.child.poll() is None):
            time.sleep(0.3)

    def clean(self) -> None:
        """Stop the server and remove the paths; another guard may still be busy in them."""
        self.stop(self.stop_signals)
        for path in self.paths:
            for _unused in range(2 * _PATIENCE):
                shutil.rmtree(path, ignore_errors=True)
                if not os.path.lexists(path):
                    break
                time.sleep(0.5)


def _children() -> list[int]:
    """Return the processes whose parent is this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def _end_children(number: int) -> None:
    """Signal the children, and those that they leave to us in turn, until none is left or time is up."""
    signalled: set[int] = set()
    deadline = time.monotonic() + _PATIENCE
    while (left := _children()) and time.monotonic() < deadline:
        for pid in set(left) - signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        signalled |= set(left)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _prctl(option: int, value: int) -> None:
    """Ask Linux for what other systems do not have; there the pipe alone has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _leave(*_unused: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Serve one creator until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    owner = _Owner()
    try:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            try:
                reply = {"value": owner.answer(request)}
            except Exception as error:  # noqa: BLE001 - whatever it is, the creator should hear of it
                reply = {"error": f"{type(error).__name__}: {error}"}
            reply["number"] = request["number"]
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.write(json.dumps(reply) + "\n")
                sys.stdout.flush()
        owner.linger()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        owner.clean()


if __name__ == "__main__":
    main()
