# SPDX-License-Identifier: GPL-3.0-or-later
"""The program as a process: on a terminal, under signals, as root, and what others can see of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.catch_up import await_after_boot
from demo.dataset import HOSTILE, ORDERING
from demo.machine import server_account
from demo.servers import MotoS3, PostgresServer
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    ENGINE,
    Program,
    Result,
    children_of,
    locked_table,
    program_builder,
    shop_program,
)
from tests.integration.conftest import Poll, wait_for

# --- the terminal -----------------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_line_that_is_redrawn(filled: PostgresServer, make_program: Callable[..., Program]) -> None:
    program = make_program(filled)
    code, seen = program.on_terminal("backup")
    assert code == 0, seen
    assert "\r\033[K" in seen
    assert "ordering_system: " not in seen.split("Backed up")[0]
    with locked_table(filled, ORDERING, "sales.customers"):
        process_code, _unused = program.on_terminal("backup", "--set", "backup.lock_wait_timeout=1s")
    assert process_code == 1
    code, seen = program.on_terminal("status", TERM="xterm")
    assert "\033[33m" in seen
    code, seen = program.on_terminal("status", NO_COLOR="1")
    assert "\033[" not in seen
    code, seen = program.on_terminal("backup", TERM="dumb")
    assert "\033" not in seen
    assert "backup of %s: " % ORDERING in seen
    code, seen = program.on_terminal("backup", "--quiet")
    assert (code, seen) == (0, "")


# --- signals ----------------------------------------------------------------------------------------------------------


def test_a_signal_in_the_middle_of_a_sync_ends_it_and_the_next_one_goes_on(
    filled: PostgresServer, store: MotoS3, make_program: Callable[..., Program]
) -> None:
    program = make_program(filled, backup={"min_free": "1MiB", "compression": "none"})
    program.site.use_s3(store)
    program.configure()
    set_id = program.json("backup")["set"]
    process = program.start("sync", "--set", "s3.bandwidth_limit=20KiB")
    assert process.stderr is not None
    wait_for(lambda: "push" in process.stderr.readline())
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - began < 40
    assert program.site.records()[-1]["outcome"] == "interrupted"
    assert program.json("info", "--place", "s3")["places"][0]["sets"] == []
    assert program.json("sync")["sets"] == [set_id]


def test_a_signal_ends_a_query_that_runs(shop: Program) -> None:
    """libpq waits for the server and would not hear it before the query has ended."""
    script = (
        "import sys; from pathlib import Path; from pgops import config; from pgops.postgres import connection; from pgops.system import interrupts\n"
        "loaded = config.load(Path(sys.argv[1]), environ={}, host='h')\n"
        "with interrupts.interruptible(), interrupts.cancelling_queries(), connection.connect(loaded.postgres) as session:\n"
        "    print('ready', flush=True)\n"
        "    session.rows('SELECT pg_sleep(600)')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(shop.config)],
        env=shop.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _unused, err = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in err


SPARED = """
import os, signal, sys, threading, time
from pathlib import Path
from pgops import config
from pgops.postgres import connection
from pgops.system import interrupts

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def late(session, cancel=connection.Session.cancel):
    time.sleep(0.6)
    cancel(session)

loaded = config.load(Path(sys.argv[1]), environ={}, host='h')
with connection.connect(loaded.postgres) as session:
    for number in range(201):
        with interrupts.interruptible(), interrupts.cancelling_queries():
            try:
                if number:
                    interrupt()
                else:
                    # The query ends by itself before its cancel is on its way.
                    connection.Session.cancel = late
                    threading.Timer(0.2, interrupt).start()
                    session.rows('SELECT pg_sleep(0.4)')
                time.sleep(60)  # a busy machine may be late with it
                raise SystemExit('no signal')
            except KeyboardInterrupt:
                session.rows('SELECT pg_sleep(%s)', (0.01 if number else 1,))
"""


def test_a_signal_spares_the_queries_of_the_clean_up(shop: Program) -> None:
    """Python may hear of a signal before the thread that cancels does: DROP DATABASE is not what was to be ended."""
    argv = [sys.executable, "-c", SPARED, str(shop.config)]
    done = subprocess.run(argv, env=shop.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_command_line_holds_the_password(filled: PostgresServer, make_program: Callable[..., Program]) -> None:
    program = make_program(filled, postgres={"login_password": filled.password})

    def look() -> list[bytes]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                line = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if filled.password.encode() in line:
                found.append(line)
        return found

    with Poll(look) as poll:
        program("backup")
        program("verify")
    assert poll.looked > 10
    assert poll.found == []
    assert filled.password not in program("config", "--show").stdout


# --- whose files ------------------------------------------------------------------------------------------------------


def plain_python(folder: Path) -> tuple[str, str]:
    """Return a Python that every account can run, and a PYTHONPATH with copies of the engine and the driver for it."""
    python = "/usr/bin/python%d.%d" % sys.version_info[:2]
    if not Path(python).exists():
        pytest.skip("there is no %s" % python)
    folder.mkdir(mode=0o755)
    shutil.copytree(ENGINE, folder / "pgops", ignore=shutil.ignore_patterns("__pycache__"))
    packages = Path(psycopg2.__file__).parents[1]
    for name in ("psycopg2", "psycopg2_binary.libs"):
        if (packages / name).is_dir():
            shutil.copytree(packages / name, folder / name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return python, str(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_root_becomes_the_owner_of_the_backups(shop: Program) -> None:
    account = server_account()
    assert account is not None
    with tempfile.TemporaryDirectory(prefix="pgops-", dir="/tmp") as home:
        Path(home).chmod(0o755)
        python, path = plain_python(Path(home, "programs"))
        shop.site.root = Path(home, "site")
        shop.config = Path(home, "config.json")
        for name in ("site", "site/backups", "site/state", "site/log"):
            Path(home, name).mkdir()
            os.chown(Path(home, name), account.pw_uid, account.pw_gid)
        shop.configure()
        environ = {**shop.environ, "PYTHONPATH": path, "PGOPS_CONFIG": str(shop.config)}

        def run(*arguments: str) -> Result:
            argv = [python, "-m", "pgops", *arguments]
            return subprocess.run(argv, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=60)

        done = run("backup")
        assert done.returncode == 0, done.stderr
        assert "running as %s" % account.pw_name in done.stderr
        stored = [path for room in ("backups", "state", "log") for path in (shop.site.root / room).rglob("*")]
        assert {path.stat().st_uid for path in stored} == {account.pw_uid}
        assert "running as" not in run("info", "--as-root").stderr
        key = Path(home, "key.txt")
        key.write_text("AGE-SECRET-KEY-NONE")
        key.chmod(0o600)
        refused = run("restore", "latest", "--dry-run", "--identity-file", str(key))
        assert refused.returncode == 2
        assert "--as-root" in refused.stderr


# --- catching up ------------------------------------------------------------------------------------------------------


def test_what_a_downtime_swallowed_is_caught_up_once(shop: Program) -> None:
    shop.configure(schedule={"wait": "30s"})
    assert shop.json("catch-up")["missed"] == [], "the configuration is younger than any night"
    three_days_ago = time.time() - 3 * 86400
    os.utime(shop.config, (three_days_ago, three_days_ago))
    planned = shop.json("catch-up", "--dry-run")
    assert [one["verb"] for one in planned["missed"]][:2] == ["backup", "verify"]
    assert shop.json("info")["places"][0]["sets"] == []
    done = shop.json("catch-up")
    assert done["changed"]
    assert [(one["verb"], one["outcome"]) for one in done["missed"]] == [
        (one["verb"], "ok") for one in planned["missed"]
    ]
    (made,) = shop.json("info")["places"][0]["sets"]
    assert made["proofs"], "the verification came after the backup"
    assert "Nothing was missed." in shop("catch-up").stdout
    # As the table of cron has it, which may have less, and another zone, than the configuration.
    now = datetime.now(UTC)
    every = "%d %d * * *" % (now.minute, now.hour)
    for record in (shop.site.root / "state").rglob("runs/*.json"):
        record.unlink()
    told = shop.json("catch-up", "--dry-run", "--job", "verify=" + every, "--timezone", "UTC")
    assert [one["verb"] for one in told["missed"]] == ["verify"]
    assert "is not VERB=CALENDAR" in shop("catch-up", "--job", "restore=" + every, code=2).stderr


def test_what_fails_in_catching_up_stops_nothing_else_and_is_told(shop: Program) -> None:
    shop("backup")
    for record in (shop.site.root / "state").rglob("runs/*.json"):
        record.unlink()
    shop.configure(schedule={"wait": "1s"}, postgres={"login_port": 1})
    three_days_ago = time.time() - 3 * 86400
    os.utime(shop.config, (three_days_ago, three_days_ago))
    done = shop.json("catch-up", code=4)
    by_verb = {one["verb"]: one for one in done["missed"]}
    assert by_verb["backup"]["exit_code"] == 4
    assert "verify" in by_verb, "what comes after it was tried, too"
    assert done["message"] == by_verb["backup"]["message"] != ""


def test_after_a_boot_a_backup_that_waits_at_all_waits_for_the_server(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    context = make_program(bench).site.engine()
    asked: list[float] = []

    def come_up(seconds: float) -> None:
        asked.append(seconds)
        bench.start()

    bench.stop()
    try:
        await_after_boot(context, up=20.0, sleep=come_up)
        assert asked == [], "somebody who calls it waits for nothing"
        context.wait = timedelta(hours=6)
        await_after_boot(context, up=86400.0, sleep=come_up)
        assert asked == [], "a server that is down on another day is told at once"
        await_after_boot(context, up=20.0, sleep=come_up)
        assert len(asked) == 1
    finally:
        if not asked:
            bench.start()
    await_after_boot(context, up=20.0, sleep=come_up)
    assert len(asked) == 1, "it is there"


# --- completion -------------------------------------------------------------------------------------------------------


def test_what_the_places_hold_is_completed(filled: PostgresServer, make_program: Callable[..., Program]) -> None:
    program = make_program(filled)
    set_id = program.json("backup")["set"]
    assert program("_complete", "sets").stdout.split() == [set_id]
    assert {ORDERING, HOSTILE} <= set(program("_complete", "databases").stdout.splitlines())
    silent = program("_complete", "sets", "--config", "/nowhere", code=1)
    assert (silent.stdout, silent.stderr) == ("", "")
