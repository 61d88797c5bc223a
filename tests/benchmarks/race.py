# SPDX-License-Identifier: GPL-3.0-or-later
"""Run contestants in turn and take their time, their memory, and nothing of what came before them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.benchmarks.table import MB, Run, say

_LOOK_EVERY = 0.02  # seconds; VmHWM only grows, so what is missed is the growth of the last moment


class CannotRunError(Exception):
    """Something that a measure needs is not here, or failed; the text says what."""


@dataclass(frozen=True)
class Bench:
    """What each scene is handed; `pgops` is what starts it with the Python that runs the bench."""

    scratch: Path
    pgops: tuple[str, ...]
    scale: float
    rounds: int
    facts: dict[str, str]

    def note(self, name: str, value: str) -> None:
        """Remember a fact for the reader of the figures, such as a version."""
        self.facts[name] = value
        say(f"  {name}: {value}")


def race(contestants: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Let each contestant run `rounds` times, in turn (A B A B), and return all runs."""
    found: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, contestant in contestants.items():
            run = contestant()
            found[name].append(run)
            more = ", ".join(f"{key} {_words(key, value)}" for key, value in run.items() if key != "seconds")
            say(f"    {number}/{rounds} {name:24} {run['seconds']:8.2f} s  {more}".rstrip())
    return found


def _words(key: str, value: float) -> str:
    return f"{value / MB:.1f} MB" if key in ("bytes", "memory") else f"{value:.2f} s"


def timed(words: Sequence[str], *, env: Mapping[str, str], log: Path, out: Path | None = None) -> Run:
    """Run a program after a sync(1) and return its `seconds`, `cpu` seconds and peak `memory` in bytes.

    The CPU time is that of its children, too; the memory is its own alone. What it prints goes to `out` (or to `log`,
    where its errors go). Raises CannotRunError when it fails.
    """
    os.sync()
    with log.open("ab") as errors, (out or log).open("wb" if out else "ab") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(words), env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            with _Peak(process.pid) as peak:
                status, usage = os.wait4(process.pid, 0)[1:]
                seconds = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            end(process)
            raise
    if process.returncode:
        said = "".join(p.read_text(errors="replace")[-2000:] for p in dict.fromkeys((log, out or log)))
        raise CannotRunError(f"{' '.join(words[-6:])} ended with {process.returncode}: {said}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "memory": peak.bytes}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program and its group to end, and make them when they do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
            return


class _Peak(threading.Thread):
    """Watches the largest resident size of a process while the block runs; `bytes` has it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._status = f"/proc/{pid}/status"
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            with contextlib.suppress(OSError), open(self._status, encoding="ascii", errors="replace") as status:
                for line in status:
                    if line.startswith("VmHWM:"):
                        self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
