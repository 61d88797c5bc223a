# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner with real processes: every exit status counts, nothing outlives a failure, no byte is lost."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import CommandError, UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import Redactor
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Command, Runner

RUNNER = Runner()


def shell(script: str, **values: Any) -> Command:
    return Command(("/bin/sh", "-c", script), **values)


def python(script: str) -> Command:
    return Command((sys.executable, "-c", script))


def alive(pid: int) -> bool:
    """Tell whether the process runs; one that is dead but not collected by init yet does not."""
    try:
        with open("/proc/%d/stat" % pid) as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After every test: no child, no zombie, no open pipe, no thread of the runner."""
    threads = threading.active_count()
    open_files = len(os.listdir("/proc/self/fd"))
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert soon(lambda: threading.active_count() <= threads)
    assert soon(lambda: len(os.listdir("/proc/self/fd")) <= open_files)


# --- one program ------------------------------------------------------------------------------------------------------


def test_a_program_gets_its_input_and_leaves_output_errors_and_status() -> None:
    finished = RUNNER.run(shell("cat; echo oops >&2; exit 3"), stdin=b"in\0put", check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, b"in\0put", "oops")


def test_a_failure_says_which_program_how_and_its_last_words() -> None:
    with pytest.raises(CommandError) as caught:
        RUNNER.run(shell("for i in 1 2 3 4 5; do echo line $i >&2; done; exit 7"))
    assert str(caught.value) == "sh ended with status 7: line 3 / line 4 / line 5"
    assert caught.value.returncode == 7
    assert caught.value.stderr == "line 1\nline 2\nline 3\nline 4\nline 5"


def test_an_error_of_the_server_is_told_however_much_follows_it() -> None:
    said = "psql:<stdin>:3: ERROR:  first\\npsql:<stdin>:9: ERROR:  division by zero\\nCONTEXT:  SQL function f\\na\\nb\\nc"
    with pytest.raises(CommandError) as caught:
        RUNNER.run(shell("printf '%s\\n' >&2; exit 3" % said))
    assert str(caught.value) == "sh ended with status 3: psql:<stdin>:9: ERROR:  division by zero / a / b / c"
    with pytest.raises(CommandError) as caught:
        RUNNER.run(shell("printf 'x: FATAL:  away\\nline 2\\nline 3\\n' >&2; exit 3"))
    assert str(caught.value) == "sh ended with status 3: x: FATAL:  away / line 2 / line 3"


def test_a_silent_failure_is_told_as_one() -> None:
    with pytest.raises(CommandError, match="sh ended with status 1 and said nothing"):
        RUNNER.run(shell("exit 1"))


def test_a_program_killed_from_outside_is_told_as_killed() -> None:
    with pytest.raises(CommandError, match="sh was killed by signal 9"):
        RUNNER.run(shell("kill -9 $$"))


def test_a_program_that_does_not_exist_is_a_missing_dependency() -> None:
    with pytest.raises(UnreachableError, match="/no/such/program cannot be run: No such file") as caught:
        RUNNER.run(Command(("/no/such/program",)))
    assert caught.value.exit_code == 4


def test_arguments_reach_the_program_as_they_are_without_a_shell() -> None:
    hostile = "$(touch /tmp/pgops-pwned); `id` 'x' \"y\" \n *"
    assert RUNNER.run(Command(("/usr/bin/printf", "%s", hostile))).stdout == hostile.encode()
    assert not Path("/tmp/pgops-pwned").exists()


def test_the_environment_is_small_and_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = RUNNER.run(Command(("/usr/bin/env",), env={"PGPORT": "5433"})).stdout.decode().splitlines()
    names = {line.split("=", 1)[0] for line in said}
    assert {"LC_ALL=C", "PGCLIENTENCODING=UTF8", "PGPORT=5433"} <= set(said)
    assert not {"PGPASSWORD", "PGHOST"} & names


def test_secrets_in_what_a_program_says_are_masked() -> None:
    runner = Runner(Redactor(["hunter2"]))
    with pytest.raises(CommandError) as caught:
        runner.run(shell("echo bad secret hunter2 >&2; exit 1"))
    assert "hunter2" not in str(caught.value) + caught.value.stderr


def test_bytes_that_are_no_text_do_not_stop_the_reading_of_errors() -> None:
    assert RUNNER.run(shell(r"printf '\377\376 end\n' >&2")).stderr.endswith(" end")


def test_endless_complaints_are_kept_short_and_do_not_block_the_program() -> None:
    finished = RUNNER.run(python("import sys\nfor n in range(200000): sys.stderr.write('line %d\\n' % n)"))
    assert finished.stderr.splitlines()[-1] == "line 199999"
    assert len(finished.stderr.splitlines()) == 200


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert RUNNER.run(shell("exit 0"), stdin=b"x" * 1000000).returncode == 0


def test_find_answers_none_for_what_is_not_there() -> None:
    assert RUNNER.find("sh") is not None
    assert RUNNER.find("no-such-program-anywhere") is None


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_program_that_takes_too_long_is_stopped_and_told_so() -> None:
    started = time.monotonic()
    with pytest.raises(CommandError, match="sleep did not end within 0 s and was stopped"):
        RUNNER.run(Command(("/bin/sleep", "60")), timeout=0.3)
    assert time.monotonic() - started < 50


class EnoughError(Exception):
    """What the program was started for has happened."""


def until_written(note: Path) -> Callable[[], None]:
    """Return a watch that ends a program as soon as its note is there."""

    def watch() -> None:
        if note.exists() and note.read_text():
            raise EnoughError

    return watch


def test_children_of_the_program_are_stopped_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(EnoughError):
        RUNNER.run(shell("sleep 60 & echo $! > %s; wait" % note), watch=until_written(note))
    assert soon(lambda: not alive(int(note.read_text())))


_WORKS = """
import sys
sys.path[:0] = %r
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Command, Runner
Runner().run(Command(("/bin/sh", "-c", "echo $$ > %s; exec sleep 600"), ends_with_us=True))
"""


def test_a_program_that_must_not_go_on_ends_with_us(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    ours = subprocess.Popen([sys.executable, "-c", _WORKS % (sys.path, told)])
    try:
        assert soon(lambda: told.is_file() and told.read_text().endswith("\n"))
        ours.kill()
        ours.wait(60)
        assert soon(lambda: not alive(int(told.read_text())))
    finally:
        ours.kill()
        ours.wait(60)


def test_a_program_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[Runner.__module__], "_GRACE_SECONDS", 0.3)
    note = tmp_path / "pid"
    script = "trap '' TERM; (trap '' TERM; echo $$ > %s; while :; do sleep 1; done) & while :; do sleep 1; done" % note
    with pytest.raises(EnoughError):
        RUNNER.run(shell(script), watch=until_written(note))
    assert soon(lambda: not alive(int(note.read_text())))


def test_what_on_line_raises_ends_the_program_and_reaches_the_caller() -> None:
    class TooManyError(Exception):
        pass

    heard: list[str] = []

    def listen(line: str) -> None:
        heard.append(line)
        if line == "error 2":
            raise TooManyError

    started = time.monotonic()
    with pytest.raises(TooManyError):
        RUNNER.run(shell("for i in 1 2 3; do echo error $i >&2; sleep 0.2; done; sleep 60"), on_line=listen)
    assert heard == ["error 1", "error 2"]
    assert time.monotonic() - started < 50


def test_an_interrupt_while_a_program_runs_leaves_nothing_running(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    main = threading.get_ident()

    def interrupt() -> None:
        if soon(lambda: note.exists() and bool(note.read_text())):
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        RUNNER.run(shell("echo $$ > %s; sleep 60" % note))
    assert soon(lambda: not alive(int(note.read_text())))


# --- pipelines --------------------------------------------------------------------------------------------------------


def pieces(count: int, size: int = 1024 * 1024) -> Iterator[bytes]:
    for index in range(count):
        yield bytes([index % 251]) * size


def test_fifty_megabytes_pass_two_programs_unchanged() -> None:
    wanted, found, size = hashlib.sha256(), hashlib.sha256(), 0
    for piece in pieces(50):
        wanted.update(piece)

    def take(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        found.update(chunk)

    RUNNER.pipe([Command(("cat",)), Command(("cat",))], source=pieces(50), sink=take)
    assert (size, found.hexdigest()) == (50 * 1024 * 1024, wanted.hexdigest())


def test_the_last_program_of_a_pipeline_writes_a_file_by_itself(tmp_path: Path) -> None:
    looks: list[int] = []
    with (tmp_path / "data").open("xb") as file:
        commands = [shell("cat; sleep 1"), shell("cat; echo done >&2")]
        said = RUNNER.pipe(commands, source=pieces(3), sink=file, watch=lambda: looks.append(1))
    assert (tmp_path / "data").read_bytes() == b"".join(pieces(3))
    assert said == "done"
    assert looks


def test_a_program_that_cannot_write_its_file_is_the_cause() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(CommandError, match="No space left on device"):
        RUNNER.pipe([shell("exec cat /dev/zero"), Command(("gzip", "-c"))], sink=full)


def test_what_all_programs_of_a_pipeline_said_is_returned() -> None:
    said = RUNNER.pipe([shell("echo one >&2; echo data"), shell("cat >/dev/null; echo two >&2")])
    assert said == "one\ntwo"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_member_that_failed_is_named_wherever_it_stands(place: int) -> None:
    commands = [shell("cat"), shell("cat"), shell("cat")]
    commands[place] = python("import sys; sys.stdin.buffer.read(10); sys.exit('I am the cause')")
    with pytest.raises(CommandError, match="I am the cause") as caught:
        RUNNER.pipe(commands, source=pieces(20))
    assert caught.value.returncode == 1


def test_a_member_that_complains_of_a_broken_pipe_is_a_victim_not_the_cause() -> None:
    talkative = python(
        "import signal, sys\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
        "try:\n"
        "    while True: sys.stdout.buffer.write(b'x' * 65536); sys.stdout.buffer.flush()\n"
        "except BrokenPipeError:\n"
        "    sys.stderr.write('could not write: Broken pipe\\n'); import os; os._exit(1)\n"
    )
    with pytest.raises(CommandError, match="disk full"):
        RUNNER.pipe([talkative, shell("head -c 10 >/dev/null; echo disk full >&2; exit 28")])


def test_a_reader_that_has_enough_does_not_fail_the_pipeline_if_the_writer_ends_well() -> None:
    RUNNER.pipe([shell("echo more than it reads"), shell("head -c 1 >/dev/null")])


def test_a_writer_that_dies_of_a_reader_that_left_early_is_told_when_nobody_else_failed() -> None:
    with pytest.raises(CommandError, match="killed by signal 13"):
        RUNNER.pipe([shell("exec cat /dev/zero"), shell("head -c 10 > /dev/null")])


def test_what_the_sink_raises_stops_all_programs(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def full(_chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        RUNNER.pipe([shell("echo $$ > %s; exec cat /dev/zero" % note), Command(("cat",))], sink=full)
    assert soon(lambda: not alive(int(note.read_text())))


def broken_source() -> Iterator[bytes]:
    yield b"the first half"
    raise ConnectionError("the store went away")


def test_what_the_source_raises_reaches_the_caller() -> None:
    with pytest.raises(ConnectionError, match="went away"):
        RUNNER.pipe([Command(("cat",))], source=broken_source())


def test_a_program_never_takes_a_source_that_broke_off_for_one_that_ended(tmp_path: Path) -> None:
    done = tmp_path / "committed"  # as psql would commit what it was given before the end of its input
    with pytest.raises(ConnectionError):
        RUNNER.pipe([Command(("cat",)), shell("cat >/dev/null; touch %s" % done)], source=broken_source())
    time.sleep(0.5)
    assert not done.exists()


def test_if_a_later_program_cannot_start_the_earlier_ones_are_stopped(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    note.write_text("0")
    with pytest.raises(UnreachableError, match="/no/such/program"):
        RUNNER.pipe([shell("echo $$ > %s; exec sleep 60" % note), Command(("/no/such/program",))])
    assert soon(lambda: not alive(int(note.read_text() or 0)))


def test_programs_start_anew_without_open_files_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        listing = RUNNER.run(shell("ls -l /proc/$$/fd")).stdout.decode()
    assert "secret" not in listing


def test_programs_have_their_ordinary_signals_back() -> None:
    mask = RUNNER.run(Command(("grep", "SigIgn", "/proc/self/status"))).stdout.decode().split()[1]
    assert not int(mask, 16) & (1 << (signal.SIGPIPE - 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_can_run_a_program_as_another_account() -> None:
    finished = RUNNER.run(Command(("/usr/bin/id",), user="nobody"))
    assert b"uid=65534(nobody)" in finished.stdout
    assert b"root" not in finished.stdout
