# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that stays while PostgreSQL calls for one WAL file after the other, and its client: the same work, or the program's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import parse_stored, segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.lock import holder
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import _staying_line
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import ahead, asking, stay
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.pack import unpack
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.spool import sha256
from demo.machine import short_temp_dir
from tests.integration.conftest import ROOT, wait_for
from tests.integration.wal_fixtures import Client, Commands, lay_down, segment

# A client that has nothing to fall back to: what it does, the process that stays has done.
NO_PROGRAM = {"program": "/nonexistent/pgops", "current": str(ROOT / "plugins" / "module_utils")}


@pytest.fixture
def commands() -> Iterator[Commands]:
    root = short_temp_dir()
    made = Commands(root / 'it\'s $(a) "dïr"', root / "backups")
    yield made
    shutil.rmtree(root, ignore_errors=True)


@dataclass
class Here:
    """The process that stays is a thread of this one."""

    commands: Commands
    client: Client
    staying: stay.Staying

    def fetch(self, name: str, code: int = 0) -> str:
        return self.client("fetch", "-v", name, "pg_wal/RECOVERYXLOG", code=code)

    @property
    def ready(self) -> set[str]:
        folder = self.commands.data / "pg_wal" / ".pgops"
        return (
            {name.split("-")[1] for name in os.listdir(folder) if not name.endswith(".tmp")}
            if folder.is_dir()
            else set()
        )


@pytest.mark.parametrize("answers", [[b"."] * 40, [b"=\0"], [b'=\0\0\0\0{"calls": 1e999}'], []])
def test_an_answer_without_an_end_or_a_sense_keeps_nobody_who_looks(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, answers: list[bytes]
) -> None:
    """A process that is stuck says each moment that it is still there; what it is asked for is then unknown."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(commands.config.parent / "caches"))
    monkeypatch.setattr(asking, "_ANSWER_SECONDS", 0.5)
    commands.socket.parent.mkdir(parents=True, mode=0o700)
    signed = {"pid": os.getpid(), "since": "2026-11-27T08:00:00+00:00", "what": "wal stay"}
    commands.socket.with_suffix(".lock").write_text(json.dumps(signed))
    assert asking.staying(str(commands.config), commands.config.parent) is None, (
        "nobody listens: another process by now"
    )
    over = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(commands.socket))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as asked, contextlib.suppress(OSError):
                for piece in answers:
                    asked.sendall(piece)
                    if over.wait(0.2):
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        found = asking.staying(str(commands.config), commands.config.parent)
        unfinished = thread.is_alive()
        over.set()
        thread.join(60)
    assert found is not None
    assert (found["pid"], found["calls"]) == (os.getpid(), None)
    assert len(answers) < 10 or unfinished, "it did not wait for the last of it"


@pytest.fixture
def here(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(commands.config.parent / "caches"))
    monkeypatch.setattr(ahead, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(asking, "_ANSWER_SECONDS", 60.0)
    commands.socket.parent.mkdir(parents=True, mode=0o700)
    staying = stay.Staying(str(commands.config), str(commands.socket))
    thread = threading.Thread(target=staying.serve)
    thread.start()
    wait_for(commands.socket.exists, seconds=60)
    yield Here(commands, commands.client(**NO_PROGRAM), staying)
    staying.end()
    thread.join(60)
    assert not thread.is_alive()
    assert not commands.socket.exists()


def test_it_archives_as_the_program_does(here: Here) -> None:
    commands, client = here.commands, here.client
    path = commands.write(1)
    name = path.rpartition("/")[2]
    assert client("archive", "-v", path) == "pgops wal: %s archived\n" % name
    (stored,) = commands.stored()
    assert sha256(unpack(stored.read_bytes())) == parse_stored(stored.name)[1] == sha256(segment(1, size=commands.size))
    facts = stored.stat()
    for _again in range(2):
        assert client("archive", "-v", path) == "pgops wal: %s was archived already\n" % name
    commands.write(1, seed=1)
    assert "archived already with other content" in client("archive", path, code=5)
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (facts.st_ino, facts.st_mtime_ns)
    # Proven once or not, what has changed since is read again, and mended by what the server hands over.
    commands.write(1)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-9] + bytes(9))
    assert "archived" in client("archive", "-v", path)
    assert stored.read_bytes() == whole
    for hostile in ("pg_wal/%s; touch x" % name, "pg_wal/$(id)\nx", "pg_wal/é'\""):
        assert "is no WAL file" in client("archive", hostile, code=2)
    assert "cannot be read" in client("archive", "pg_wal/%s" % segment_name(1, 9, commands.size), code=1)
    assert here.commands.socket.stat().st_mode & 0o777 == 0o600


def test_it_has_ready_what_a_recovery_will_ask_for(here: Here) -> None:
    commands = here.commands
    running = commands.data / "postmaster.pid"
    running.write_text("1\n")
    names = []
    for number in range(1, 13):
        path = commands.write(number)
        here.client("archive", path)
        names.append(path.rpartition("/")[2])
    other = commands.data / "pg_wal" / segment_name(2, 3, commands.size)
    other.write_bytes(segment(3, size=commands.size, seed=5))
    here.client("archive", "pg_wal/%s" % other.name)
    (commands.data / "pg_wal" / "00000002.history").write_text("1\t0/3000000\tfor a test\n")
    here.client("archive", "pg_wal/00000002.history")
    target = commands.data / "pg_wal" / "RECOVERYXLOG"

    assert "from local" in here.fetch(names[0])
    assert target.read_bytes() == segment(1, size=commands.size)
    # A hundred and twenty-eight megabytes are kept ready, and no more.
    wait_for(lambda: here.ready == set(names[1:9]), seconds=60)
    wait_for(lambda: json.loads(asking._ask(str(commands.socket)))["ahead"] == 8, seconds=60)
    told = json.loads(asking._ask(str(commands.socket)))
    assert told == {"calls": 15, "proven": 14, "recoveries": 1, "ahead": 8}, "whoever looks is not counted"
    for number in (2, 3, 4):
        assert here.fetch(names[number - 1]) == "pgops wal: %s from ahead\n" % names[number - 1]
        assert target.read_bytes() == segment(number, size=commands.size)
    wait_for(lambda: here.ready == set(names[4:12]), seconds=60)
    # The history is no segment, and the other timeline is a jump back.
    assert "from local" in here.fetch("00000002.history")
    assert "from local" in here.fetch(other.name)
    assert target.read_bytes() == segment(3, size=commands.size, seed=5)
    wait_for(lambda: here.ready == set(), seconds=60)
    assert "is not in" in here.fetch(segment_name(2, 4, commands.size), code=1), "the end of the WAL"
    assert here.fetch("no WAL file", code=1)
    assert "from local" in here.fetch(names[10])
    wait_for(lambda: here.ready == {names[11]}, seconds=60)
    # What is damaged is given by nobody, and nothing of it stays.
    (stored,) = [path for path in commands.stored() if path.name.startswith(names[4])]
    stored.write_bytes(stored.read_bytes()[:-5])
    here.fetch(names[4], code=204)  # a client without a program to fall back to
    assert "is damaged" in here.commands.client()("fetch", names[4], "pg_wal/RECOVERYXLOG", code=201)
    running.unlink()
    wait_for(lambda: not (commands.data / "pg_wal" / ".pgops").exists(), seconds=60)
    assert "from local" in here.fetch(names[0])
    assert here.ready == set(), "where no server runs nothing is brought ahead"


def test_who_asks_wrongly_is_told_nothing(here: Here) -> None:
    commands = here.commands
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(60)
        asking.connect(str(commands.socket))
        asking.sendall(b"\xff\xff\xff\xff")
        assert asking.recv(100) == b""
    assert commands.stored() == []
    if os.geteuid() == 0:
        commands.socket.chmod(0o666)
        for folder in (commands.socket.parent, *commands.socket.parents[1:4]):
            folder.chmod(0o755)
        asks = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60); sys.exit(len(s.recv(1)))"
        argv = ["/usr/bin/python3", "-I", "-c", asks, str(commands.socket)]
        assert subprocess.run(argv, user=65534, group=65534, extra_groups=[], check=False).returncode == 0


# --- as processes -----------------------------------------------------------------------------------------------------


def stays(commands: Commands) -> list[str]:
    """What starts the process that stays, and does so however slow this machine is."""
    patient = "from pgops.wal import stay; stay.IDLE_SECONDS = 600.0; from pgops.cli.start import main"
    script = commands.script.replace("from pgops.cli.start import main", patient)
    assert script != commands.script
    return [sys.executable, "-I", "-c", script, "wal", "stay", str(commands.config)]


@pytest.fixture
def process(commands: Commands) -> Iterator[subprocess.Popen[str]]:
    """The process that stays, as one."""
    argv = stays(commands)
    started = subprocess.Popen(
        argv,
        env={**os.environ, "XDG_CACHE_HOME": str(commands.config.parent / "caches")},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(commands.socket.exists, seconds=60)
    yield started
    started.kill()
    started.communicate()


def test_killed_midway_it_leaves_the_work_to_the_program(commands: Commands, process: subprocess.Popen[str]) -> None:
    path = commands.write(1, noise=2 << 20)
    # Held still in the middle of its work, and then killed.
    os.kill(process.pid, signal.SIGSTOP)
    called = commands.client().start("archive", "-v", path)
    wait_for(lambda: _has_asked(called.pid), seconds=60)
    process.kill()
    _out, said = called.communicate(timeout=120)
    assert (called.returncode, said) == (0, "pgops wal: %s archived\n" % path.rpartition("/")[2])
    (stored,) = commands.stored()
    assert sha256(unpack(stored.read_bytes())) == parse_stored(stored.name)[1]


def test_another_version_answers_nothing_and_the_program_does_the_work(
    commands: Commands, process: subprocess.Popen[str]
) -> None:
    path = commands.write(1)
    assert "archived" in commands.client(current="/usr/local/lib/pgops/0.0.9-0123456789ab")("archive", "-v", path)
    assert len(commands.stored()) == 1
    assert process.wait(60) == 0, "it makes room for one of that version"
    # A socket that nobody listens at is no trouble either.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(commands.socket))
    assert "archived already" in commands.client()("archive", "-v", path)


def _has_asked(pid: int) -> bool:
    """Tell whether the client waits for an answer: its socket is among its files."""
    try:
        return any(os.readlink(file).startswith("socket:") for file in Path("/proc/%d/fd" % pid).iterdir())
    except OSError:
        return False


def test_one_that_hangs_is_ended_and_the_program_does_the_work(
    commands: Commands, process: subprocess.Popen[str]
) -> None:
    path = commands.write(1)
    os.kill(process.pid, signal.SIGSTOP)
    said = commands.client(silence=1)("archive", path)
    assert "process %d (pgops wal stay) does not answer and was ended" % process.pid in said
    assert process.wait(60) == -signal.SIGKILL
    assert len(commands.stored()) == 1
    commands.client()("fetch", path.rpartition("/")[2], "pg_wal/RECOVERYXLOG")


def test_calls_that_follow_each_other_leave_it_behind_until_the_program_is_another(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, lock = commands.client(), commands.socket.with_suffix(".lock")
    monkeypatch.setenv("XDG_CACHE_HOME", str(commands.config.parent / "caches"))
    monkeypatch.setattr(asking, "_ANSWER_SECONDS", 60.0)
    assert asking.staying(str(commands.config), commands.top.parent) is None
    assert "No process stays" in _staying_line(None)
    path = commands.write(1)
    client("archive", path)
    assert not lock.exists(), "one call in a while starts nothing"
    for _again in range(100):
        client("archive", path)
        if commands.socket.exists():
            break
    wait_for(commands.socket.exists, seconds=60)
    found = holder(lock)
    assert found is not None
    assert found.alive
    told = asking.staying(str(commands.config), commands.top.parent)
    assert told is not None
    assert (told["pid"], told["since"], told["recoveries"], told["ahead"]) == (found.pid, found.since, 0, 0)
    assert "Process %d (pgops wal stay)" % found.pid in _staying_line(told)
    # Where it does not answer it is told nevertheless.
    monkeypatch.setattr(asking, "_ask", lambda _path: "")
    told = asking.staying(str(commands.config), commands.top.parent)
    assert told == {
        "pid": found.pid,
        "since": found.since,
        "calls": None,
        "proven": None,
        "recoveries": None,
        "ahead": None,
    }
    assert _staying_line(told).endswith(found.since)
    title = Path("/proc/%d/cmdline" % found.pid).read_bytes().split(b"\0")
    assert title[-4:-1] == [b"wal", b"stay", os.fsencode(commands.config)]
    assert all(os.readlink(file) == "/dev/null" for file in (Path("/proc/%d/fd" % found.pid) / no for no in "012"))
    # A second one has nothing to do.
    assert commands.start("stay").wait(60) == 2
    argv = [sys.executable, "-I", "-c", commands.script, "wal", "stay", str(commands.config)]
    env = {**os.environ, "XDG_CACHE_HOME": str(commands.config.parent / "caches")}
    assert subprocess.run(argv, env=env, check=False, timeout=60).returncode == 0
    (commands.config.parent / "lib" / "pgops").unlink()
    wait_for(lambda: not Path("/proc/%d" % found.pid).exists() or _is_zombie(found.pid), seconds=60)
    assert not commands.socket.exists()


def test_one_in_another_container_is_not_asked(commands: Commands) -> None:
    """It sees other files under the same names: the program does the work."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace")
    path = commands.write(1)
    env = {**os.environ, "XDG_CACHE_HOME": str(commands.config.parent / "caches")}
    elsewhere = subprocess.Popen(["unshare", "--mount", *stays(commands)], env=env)
    try:
        wait_for(commands.socket.exists, seconds=60)
        assert "cannot be run" in commands.client(**NO_PROGRAM)("archive", path, code=4)
        assert commands.stored() == []
        assert "archived" in commands.client()("archive", "-v", path)
        assert elsewhere.poll() is None
    finally:
        elsewhere.kill()
        elsewhere.wait()


def test_a_client_of_another_name_asks_and_becomes_its_own_program(
    commands: Commands, process: subprocess.Popen[str]
) -> None:
    """As with wal_archive_program: what is asked is told by the configuration alone."""
    root = commands.config.parent
    at = root / "bin of ours" / "pg'ops"
    at.parent.mkdir()
    text = "#!%s -I\n%s\n" % (sys.executable, commands.script)
    client = Client(commands, lay_down(at, text, current=str(root / "lib")))
    assert client.path.name == "pg'ops-wal"
    path = commands.write(1)
    at.chmod(0o644)
    assert client("archive", "-v", path) == "pgops wal: %s archived\n" % path.rpartition("/")[2]
    at.chmod(0o755)
    process.kill()
    process.wait()
    assert client("archive", "-v", path) == "pgops wal: %s was archived already\n" % path.rpartition("/")[2]


def _is_zombie(pid: int) -> bool:
    try:
        return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_without_calls_it_ends(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(commands.config.parent / "caches"))
    monkeypatch.setattr(stay, "IDLE_SECONDS", 0.5)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        assert stay.stay(str(commands.config)) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert commands.socket.parent.stat().st_mode & 0o777 == 0o700
    assert not commands.socket.exists()
