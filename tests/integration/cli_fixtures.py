# SPDX-License-Identifier: GPL-3.0-or-later
"""The program pgops of a site, as a process of its own, without and with a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.servers import PostgresServer
from tests.integration.conftest import ROOT, Site, create_shop, cursor

ENGINE = ROOT / "plugins" / "module_utils" / "_engine"
Result = subprocess.CompletedProcess[str]
# The program waits up to minutes before it asks a struggling store again. These tests count what it asks and shorten
# the waiting: whoever sleeps finds that all of the time has passed, so it tries as often as ever.
HURRY = """
import threading, time
_sleep, _now, _slept = time.sleep, time.monotonic, threading.local()
def _hurry(seconds):
    _slept.seconds = getattr(_slept, "seconds", 0) + max(0, seconds - 0.01)
    _sleep(min(seconds, 0.01))
time.sleep, time.monotonic = _hurry, lambda: _now() + getattr(_slept, "seconds", 0)
"""


class Program:
    """`python -m pgops` of a site, from a folder in which the engine is called pgops."""

    def __init__(self, folder: Path, site: Site) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "pgops").symlink_to(ENGINE)
        self.site = site
        self.config = site.root / "config.json"
        self.configure()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_", "NO_COLOR"))}
        self.environ = {
            **own,
            "PYTHONPATH": str(folder),
            "PGOPS_CONFIG": str(self.config),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def configure(self, **sections: Any) -> None:
        """Write the configuration, which holds a secret and so is private."""
        self.config.write_text(json.dumps(self.site.data(**sections)))
        self.config.chmod(0o600)

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pgops", *arguments]

    def __call__(self, *arguments: str, code: int = 0, **environ: str) -> Result:
        """Run it without a terminal and hold its exit code against `code`."""
        done = subprocess.run(
            self.argv(*arguments),
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert self.site.server.password not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run it with --json; its output is one object and nothing else."""
        done = self(*arguments, "--json", code=code)
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["exit_code"] == code
        assert done.stdout.count("\n") == 1
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin it and return the process."""
        return subprocess.Popen(
            self.argv(*arguments), env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def on_terminal(self, *arguments: str, typed: str = "", **environ: str) -> tuple[int, str]:
        """Run it on a terminal, type `typed` when it asks, and return the exit code and all that was seen."""
        pid, screen = pty.fork()
        if pid == 0:
            os.execve(sys.executable, self.argv(*arguments), {**self.environ, "TERM": "xterm", **environ})  # noqa: S606 - no shell is wanted
        seen = b""
        while True:
            ready, _unused, _unused = select.select([screen], [], [], 60)
            try:
                part = os.read(screen, 65536) if ready else b""
            except OSError:  # a terminal whose program has ended
                part = b""
            if not part:
                break
            seen += part
            if typed and seen.endswith((b"[y/N] ", b"type its name: ")):
                os.write(screen, typed.encode() + b"\n")
                typed = ""
        os.close(screen)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


@pytest.fixture(name="make_program")
def program_builder(tmp_path: Path, make_site: Callable[..., Site]) -> Callable[..., Program]:
    """Return a builder: make_program(server, section={...})."""
    return lambda server, **options: Program(tmp_path / "program", make_site(server, **options))


@pytest.fixture(name="shop")
def shop_program(bench: PostgresServer, make_program: Callable[..., Program]) -> Program:
    """The program for a server with one small database."""
    create_shop(bench)
    return make_program(bench)


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Return every file below `roots`, locks left out, with its size and time."""
    found = {}
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and path.parent.name != "locks":
                found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def children_of(pid: int) -> list[str]:
    """Return the command lines of the processes below `pid`."""
    listed = subprocess.run(["ps", "-eww", "-o", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in listed.splitlines() if line.split()[0] == str(pid)]


@contextmanager
def locked_table(server: PostgresServer, database: str, table: str) -> Iterator[None]:
    """Keep everybody else from the table, so that a dump has to wait."""
    with cursor(server, database) as asked:
        asked.execute("BEGIN; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % table)
        yield
