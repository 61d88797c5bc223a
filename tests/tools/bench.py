# SPDX-License-Identifier: GPL-3.0-or-later
"""What a layer of the tests works with: a folder, a log, and a way to run programs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from tests.tools.collection_tree import ROOT

VENV = ROOT / ".venv" / "bin"
CACHE = ROOT / ".cache"

# Ansible makes so many objects while it puts a module together that a third of its time went into searches for garbage, and
# it ends before the memory matters. A line in site-packages that begins with `import` is run by each Python that starts there.
COLLECT_LESS = "import gc; gc.set_threshold(100_000, 50, 100)\n"

# No layer comes near this; one that does hangs, and a hang must end as a failure.
LIMIT_SECONDS = 2400

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"

_NICENESS = 10

Word = Union[str, Path]


@dataclass(frozen=True)
class Outcome:
    """How a layer ended, with a few words for the table."""

    status: str
    detail: str = ""


class LayerError(Exception):
    """A layer found something wrong; the text is for the table."""


class Children:
    """The programs that are running now, so that an interrupted run leaves none behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    @contextmanager
    def watch(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Remember the program while the block runs."""
        with self._lock:
            self._running.add(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """End every program that still runs, together with its own children."""
        with self._lock:
            running = list(self._running)
        for process in running:
            stop_group(process)


def stand_back(session: int) -> None:
    """Let the session that begins with this process have a tenth of what others have, where the system allows that."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, session, _NICENESS)
        # Linux shares the processors among sessions first: there the niceness of a process counts within its own session only.
        Path(f"/proc/{session}/autogroup").write_text(str(_NICENESS))


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a program and its children to end, then make them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@dataclass
class Bench:
    """The folder and the log of one layer. A patient one leaves the processors to whoever else wants them."""

    scratch: Path
    log: Path
    children: Children = field(default_factory=Children)
    patient: bool = False

    def run(self, *command: Word, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> int:
        """Run a program, write what it prints to the log, and return its exit code."""
        words = [str(word) for word in command]
        with self.log.open("ab") as out:
            out.write(("$ " + " ".join(words) + "\n").encode())
            out.flush()
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if self.patient:
                stand_back(process.pid)
            with self.children.watch(process):
                try:
                    return process.wait(timeout=LIMIT_SECONDS)
                except subprocess.TimeoutExpired:
                    stop_group(process)
                    raise LayerError(f"ended after {LIMIT_SECONDS} s without an answer") from None

    def must(self, *command: Word, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
        """Run a program. Raises LayerError when it fails."""
        code = self.run(*command, cwd=cwd, env=env)
        if code:
            raise LayerError(f"{Path(command[0]).name} ended with {code}")

    def ask(self, *command: Word, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a short program and return its exit code and what it prints; the log gets a copy."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        self.note(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}")
        return done.returncode, done.stdout

    def read(self, *command: Word, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
        """Run a short program and return what it prints. Raises LayerError when it fails."""
        code, output = self.ask(*command, cwd=cwd, env=env)
        if code:
            raise LayerError(f"{Path(command[0]).name} ended with {code}")
        return output

    def note(self, text: str) -> None:
        """Add a line to the log."""
        with self.log.open("a") as out:
            out.write(text.rstrip("\n") + "\n")

    def text(self) -> str:
        """Return the log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def collect_less(environment: Path) -> None:
    """Let each Python of this virtual environment search for garbage less often."""
    for packages in environment.glob("lib/python3*/site-packages"):
        (packages / "pgops_tests.pth").write_text(COLLECT_LESS)


def count_tests(reports: Sequence[Path]) -> tuple[int, str]:
    """Return how many tests ran according to these JUnit files, and the counts in words."""
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for report in reports:
        for suite in ET.parse(report).getroot().iter("testsuite"):
            for name in total:
                total[name] += int(suite.get(name, "0"))
    bad = total["failures"] + total["errors"]
    ran = total["tests"] - total["skipped"]
    words = [f"{ran - bad} passed", *([f"{bad} failed"] if bad else [])]
    words += [f"{total['skipped']} skipped"] if total["skipped"] else []
    return ran, ", ".join(words)
