# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The one file that spawns processes. Commands are lists; secrets travel in the environment of one child."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Callable, Optional, Union

from ..core.errors import CommandError, UnreachableError
from ..core.redaction import Redactor

_KEPT_LINES, _SHOWN = 200, 3
# So PostgreSQL's programs hand on what a server said, in English.
_ERROR = re.compile(r"\b(?:ERROR|FATAL|PANIC):  ")
_GRACE_SECONDS = 5.0
_SOURCE_SECONDS = 1.0
_PASSED_ON = (
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PGPASSFILE",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "LOGNAME",
)
_WATCH_SECONDS = 0.5
# Asks the kernel for SIGTERM when we die, and becomes the program. pg_dump and pg_restore then end their workers and cancel
# their queries. Popen's preexec_fn could do the same, but is not safe beside threads.
_GUARD = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execv(sys.argv[2], sys.argv[2:])
"""
# For `python -I -c`: runs the package in the folder that is the first argument as the program pgops.
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pgops.cli.start import main; raise SystemExit(main())"
OnLine = Callable[[str], None]
Watch = Callable[[], None]


@dataclass(frozen=True)
class Command:
    """A program to run: `argv` (no shell), `env` added to a small clean environment, and the account when root runs it.

    `ends_with_us`: whether it would go on for long when we are killed, and must not: it writes where the next run begins.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    cwd: str = "/"
    ends_with_us: bool = False

    def with_arguments(self, arguments: Iterable[str]) -> Command:
        """Return the same command with more arguments."""
        return dataclasses.replace(self, argv=(*self.argv, *arguments))

    @property
    def name(self) -> str:
        """The program's bare name, for messages."""
        return os.path.basename(self.argv[0])

    @property
    def at_server(self) -> bool:
        """Whether it works at the server, and would go on with that when we are killed. Others hear it from their pipes."""
        return "PGAPPNAME" in self.env


@dataclass(frozen=True)
class Finished:
    """What a program left: exit status, standard output, redacted standard error."""

    returncode: int
    stdout: bytes
    stderr: str


class _Process:
    """A started program whose standard error is being read."""

    def __init__(
        self,
        command: Command,
        redactor: Redactor,
        *,
        stdin: Optional[int],
        stdout: Optional[int],
        on_line: Optional[OnLine],
    ) -> None:
        self.command = command
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.trouble: Optional[BaseException] = None
        try:
            self.popen = _spawn(command, stdin, stdout)
        except OSError as error:
            raise UnreachableError(
                "%s cannot be run: %s." % (command.argv[0], error.strerror or error),
                hint="Install it, or name its directory in the configuration.",
            ) from error
        self._reader = threading.Thread(target=self._read, args=(redactor, on_line), daemon=True)
        self._reader.start()

    def _read(self, redactor: Redactor, on_line: Optional[OnLine]) -> None:
        stream = self.popen.stderr
        if stream is None:
            return
        for raw in stream:
            line = redactor.text(raw.decode("utf-8", "replace").rstrip("\n"))
            self.lines.append(line)
            if on_line and self.trouble is None:
                try:
                    on_line(line)
                except Exception as error:  # noqa: BLE001  # handed to the caller's thread, which re-raises it
                    self.trouble = error
                    self.stop()
        stream.close()

    def stop(self) -> None:
        """Ask the program and its children to end, then insist."""
        _signal_group(self.popen, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self.popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        _signal_group(self.popen, signal.SIGKILL)

    def wait(self, timeout: Optional[float] = None) -> int:
        code = self.popen.wait(timeout)
        self._reader.join()
        return code

    @property
    def stderr(self) -> str:
        return "\n".join(self.lines)


class Runner:
    """Runs programs and pipelines of programs; nothing that it started outlives a failure."""

    def __init__(self, redactor: Optional[Redactor] = None) -> None:
        self.redactor = redactor or Redactor()

    def find(self, name: str) -> Optional[str]:
        """Return the path of the program `name`, or None when it is not on PATH."""
        return shutil.which(name)

    def run(
        self,
        command: Command,
        *,
        stdin: bytes = b"",
        check: bool = True,
        timeout: Optional[float] = None,
        on_line: Optional[OnLine] = None,
        watch: Optional[Watch] = None,
    ) -> Finished:
        """Run `command` to its end and return what it left.

        `watch` is called twice a second from another thread; what it raises ends the program.
        Raise CommandError if it fails and `check` holds or if it outlives `timeout` seconds, UnreachableError if it
        cannot be started, and whatever `watch` raises, or `on_line` for a line of its standard error.
        """
        output: list[bytes] = []
        pipeline = _Pipeline([command], self.redactor, on_line)
        pipeline.pump([stdin] if stdin else [], output.append, watch, timeout)
        process = pipeline.processes[0]
        if check and process.popen.returncode != 0:
            raise _failure(process)
        return Finished(process.popen.returncode, b"".join(output), process.stderr)

    def pipe(
        self,
        commands: Sequence[Command],
        *,
        source: Union[Iterable[bytes], Path, None] = None,
        sink: Union[Callable[[bytes], object], IO[bytes], None] = None,
        on_line: Optional[OnLine] = None,
        watch: Optional[Watch] = None,
    ) -> str:
        """Run `commands` as a pipeline from the chunks (or file) `source` into `sink`; return their standard errors, joined.

        An open file is written by the last program itself; anything else is called with each chunk.

        Every exit status counts. Raise CommandError for the first program of the pipeline that failed by itself,
        and whatever `source`, `sink`, `on_line` or `watch` raise; all programs have ended then.
        """
        with contextlib.ExitStack() as stack:
            # The first program reads a file by itself.
            file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else None
            into = None if sink is None or callable(sink) else sink
            pipeline = _Pipeline(commands, self.redactor, on_line, file, into)
        chunks: Iterable[bytes] = source if source is not None and not isinstance(source, Path) else []
        pipeline.pump(chunks, sink if callable(sink) else _drop, watch, None)
        failed = [p for p in pipeline.processes if p.popen.returncode != 0]
        if failed:
            causes = [p for p in failed if p is pipeline.processes[-1] or not _is_victim(p)] or failed
            raise _failure(causes[0])
        return "\n".join(p.stderr for p in pipeline.processes if p.stderr)


class _Pipeline:
    """Programs that run together, each reading what the one before it writes."""

    def __init__(
        self,
        commands: Sequence[Command],
        redactor: Redactor,
        on_line: Optional[OnLine],
        upstream: Optional[IO[bytes]] = None,
        into: Optional[IO[bytes]] = None,
    ) -> None:
        self.processes: list[_Process] = []
        self.given_up = False
        try:
            for number, command in enumerate(commands, 1):
                stdin = subprocess.PIPE if upstream is None else upstream.fileno()
                stdout = into.fileno() if into is not None and number == len(commands) else subprocess.PIPE
                self.processes.append(_Process(command, redactor, stdin=stdin, stdout=stdout, on_line=on_line))
                if upstream:
                    upstream.close()  # the child holds it; ours must go, or a dead reader would never be noticed
                upstream = self.processes[-1].popen.stdout
        except BaseException:
            self.stop()
            raise

    def pump(
        self, source: Iterable[bytes], sink: Callable[[bytes], object], watch: Optional[Watch], timeout: Optional[float]
    ) -> None:
        """Run to the end. Raise what `source`, `sink`, `watch` or a listener raised; every program has ended then."""
        helpers: list[_Helper] = []
        try:
            helpers.append(_Feeder(self, source))
            if watch is not None:
                helpers.append(_Watcher(watch, self))
            if timeout is not None:
                helpers.append(_Watcher(_deadline(self.processes[0].command.name, timeout), self))
            output = self.processes[-1].popen.stdout
            while output is not None:
                chunk = output.read1(1024 * 1024)  # type: ignore[attr-defined]  # Popen pipes are BufferedReaders
                if not chunk:
                    break
                sink(chunk)
            for process in self.processes:
                process.wait()
        except BaseException:
            self.stop()
            raise
        finally:
            for helper in reversed(helpers):
                helper.end()
            for process in self.processes:
                if process.popen.stdout:
                    process.popen.stdout.close()
        for trouble in [p.trouble for p in self.processes] + [h.trouble for h in reversed(helpers)]:
            if trouble is not None:
                raise trouble

    def stop(self) -> None:
        """End every program that still runs."""
        self.kill()
        for process in self.processes:
            process.wait()

    def kill(self) -> None:
        """Make every program end, the last first: one whose writer went first would take its input for complete."""
        self.given_up = True
        for process in reversed(self.processes):
            _signal_group(process.popen, signal.SIGTERM)
        for process in reversed(self.processes):
            process.stop()


class _Helper(threading.Thread):
    """A thread beside a pipeline; `trouble` is what it raised, for the caller's thread to raise again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.trouble: Optional[BaseException] = None

    def end(self) -> None:
        """Wait for it, after telling it to end."""
        self.join()


class _Feeder(_Helper):
    """Writes the chunks of a source into a pipeline; a reader that ended early is no error of ours.

    When the source breaks off, the programs end before their input does: psql would commit the half that it has.
    """

    def __init__(self, pipeline: _Pipeline, source: Iterable[bytes]) -> None:
        super().__init__()
        self._pipeline, self._pipe, self._source = pipeline, pipeline.processes[0].popen.stdin, source
        self.start()

    def run(self) -> None:
        if self._pipe is None:
            return
        try:
            for chunk in self._source:
                self._pipe.write(chunk)
        except BrokenPipeError:
            pass
        except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
            self.trouble = error
            if not self._pipeline.given_up:
                self._pipeline.kill()
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()

    def end(self) -> None:
        # Where nobody wants the rest, a source that gives nothing now is not waited for: whoever owns it ends it.
        self.join(_SOURCE_SECONDS if self._pipeline.given_up else None)


class _Watcher(_Helper):
    """Looks after a pipeline; what the watch raises ends it."""

    def __init__(self, watch: Watch, pipeline: _Pipeline) -> None:
        super().__init__()
        self._watch, self._pipeline, self._over = watch, pipeline, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(_WATCH_SECONDS):
            try:
                self._watch()
            except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
                self.trouble = error
                self._pipeline.kill()
                return

    def end(self) -> None:
        self._over.set()
        super().end()


def detach(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a program of ours that outlives us, in a session of its own and without any file of ours. Raise OSError."""
    subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        cwd="/",
        start_new_session=True,
    )


def _drop(_chunk: bytes) -> None:
    """Take what nobody wants."""


def _deadline(name: str, seconds: float) -> Watch:
    end = time.monotonic() + seconds

    def watch() -> None:
        if time.monotonic() >= end:
            raise CommandError("%s did not end within %.0f s and was stopped." % (name, seconds))

    return watch


def _spawn(command: Command, stdin: Optional[int], stdout: Optional[int]) -> subprocess.Popen[bytes]:
    options: dict[str, object] = {}
    if command.user and os.geteuid() == 0:
        options = {"user": command.user, "group": _group_of(command.user), "extra_groups": []}
    # A list, never a shell string; run_command would buffer what must stream.
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # pylint: disable=ansible-bad-function
        _argv(command),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=_environment(command.env),
        cwd=command.cwd,
        start_new_session=True,
        **options,
    )


def _argv(command: Command) -> list[str]:
    """Return the arguments of a process that ends with us where that matters, and else those of the command itself."""
    argv = list(command.argv)
    # What cannot be run is for Popen to tell. Another account may be unable to run this Python.
    if (
        not (command.at_server or command.ends_with_us)
        or command.user
        or not sys.executable
        or not os.access(argv[0], os.X_OK)
    ):
        return argv
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *argv]


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    clean = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    clean.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {**clean, "LC_ALL": "C", "PGCLIENTENCODING": "UTF8", **extra}


def _signal_group(popen: subprocess.Popen[bytes], number: int) -> None:
    if popen.poll() is None or number == signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, number)


def _is_victim(process: _Process) -> bool:
    """Tell whether the program failed because the next one had stopped reading, and so is not the cause."""
    killed = process.popen.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE)
    return killed or "broken pipe" in process.stderr.lower()


def _failure(process: _Process) -> CommandError:
    code = process.popen.returncode
    how = "was killed by signal %d" % -code if code < 0 else "ended with status %d" % code
    lines = _last_words([line for line in process.lines if line.strip()])
    said = ": %s" % " / ".join(lines) if lines else " and said nothing."
    hint = (
        "Find out who did (out of memory? journalctl -k tells), then run it again." if code == -signal.SIGKILL else ""
    )
    return CommandError(
        "%s %s%s" % (process.command.name, how, said), hint=hint, stderr=process.stderr, returncode=code
    )


def _last_words(lines: list[str]) -> list[str]:
    """Return the last of `lines`, and before them the last that tells an error of a server, which may have much to add."""
    last = lines[-_SHOWN:]
    if any(_ERROR.search(line) for line in last):
        return last
    error = next((line for line in reversed(lines) if _ERROR.search(line)), None)
    return last if error is None else [error, *last]


__all__ = ("START", "Command", "Finished", "OnLine", "Runner", "Watch", "detach")
