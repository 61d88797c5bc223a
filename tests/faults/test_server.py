# SPDX-License-Identifier: GPL-3.0-or-later
"""The server refuses, is away, goes away, or keeps us waiting."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import connect
from demo.machine import free_port
from demo.servers import PostgresServer
from tests.faults.aftermath import failed, fails, works_again
from tests.integration.cli_fixtures import Program, locked_table
from tests.integration.conftest import Site, create_database, flip, run_sql, wait_for

VERBS = (("backup",), ("restore", "latest", "--database", "shop", "--rename", "shop", "copy", "--yes"))


@pytest.fixture
def backed_up(shop: Program) -> Program:
    """The program of a server whose one small database is in a set already."""
    shop("backup")
    return shop


@pytest.mark.parametrize("verb", VERBS, ids=["backup", "restore"])
def test_a_wrong_password_is_told_without_showing_it(backed_up: Program, verb: tuple[str, ...]) -> None:
    wrong = backed_up.site.root / "wrong"
    wrong.write_text("not-the-password")
    wrong.chmod(0o600)
    backed_up.configure(postgres={"login_password_file": str(wrong)})
    before = backed_up.site.sets()
    result = fails(backed_up, *verb, code=4, says="password authentication failed", hint="login_password_file")
    assert "not-the-password" not in json.dumps(result)
    assert "not-the-password" not in "".join(p.read_text() for p in (backed_up.site.root / "log").iterdir())
    assert backed_up.site.sets() == before
    backed_up.configure()
    works_again(backed_up)


@pytest.mark.parametrize("verb", VERBS, ids=["backup", "restore"])
def test_a_closed_port_is_told(backed_up: Program, verb: tuple[str, ...]) -> None:
    elsewhere = "postgres.login_port=%d" % free_port()
    fails(backed_up, *verb, "--set", elsewhere, code=4, says="Connection refused", hint="Is the server running")
    works_again(backed_up)


@pytest.fixture
def silence() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("verb", VERBS, ids=["backup", "restore"])
def test_a_server_that_never_answers_is_waited_for_no_longer_than_allowed(
    backed_up: Program, silence: int, verb: tuple[str, ...]
) -> None:
    options = ("--set", "postgres.login_port=%d" % silence, "--set", "postgres.connect_timeout=2")
    fails(backed_up, *verb, *options, code=4, says="timeout expired", hint="Is the host up")
    works_again(backed_up)


# --- it goes away -----------------------------------------------------------------------------------------------------


def reading(program: Program, process: subprocess.Popen[str]) -> int:
    """Wait until pg_dump is there and its table is waited for; return its process number."""

    asked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
    wait_for(lambda: run_sql(program.site.server, "postgres", asked), seconds=60)
    return int(wait_for(lambda: dumps_of(process.pid), seconds=60)[0])


def is_dump_of(process: Path, parent: int) -> bool:
    try:
        state = (process / "stat").read_text()
    except OSError:
        return False
    return "(pg_dump)" in state and int(state.rsplit(")", 1)[1].split()[1]) == parent


COPYING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active'"
# It does not compress, so that pg_dump is busy with it for seconds.
BALLAST = """
CREATE TABLE ballast (x text STORAGE EXTERNAL);
INSERT INTO ballast SELECT (SELECT string_agg(md5((i * 2000 + j)::text), '') FROM generate_series(1, 2000) j) FROM generate_series(1, 700) i
"""


@contextmanager
def dumping(program: Program, form: str, *, rows: bool) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a backup, and the process number of its pg_dump, which waits for its first lock or is in the midst of `rows`."""
    server = program.site.server
    options = ("--set", "backup.format=%s" % form, "--set", "backup.compression=gzip", "--set", "backup.jobs=2")
    if rows:
        create_database(server, "large", BALLAST)
        process = program.start("backup", "--json", "--set", "backup.databases=[large]", *options)
        wait_for(lambda: run_sql(server, "postgres", COPYING), seconds=60)
        yield process, dumps_of(process.pid)[0]
        return
    with locked_table(server, "shop", "shop.sales"):
        process = program.start("backup", "--json", *options)
        yield process, reading(program, process)


def dumps_of(parent: int) -> list[int]:
    """Return the processes pg_dump that `parent` started: the program one, and a parallel pg_dump its workers."""
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if is_dump_of(p, parent)]


@pytest.mark.parametrize(
    ("form", "rows", "immediate"), [("custom", False, True), ("directory", True, True), ("custom", True, False)]
)
def test_a_server_that_stops_in_the_middle_of_a_dump_is_told_and_the_next_run_succeeds(
    shop: Program, form: str, rows: bool, immediate: bool
) -> None:
    server = shop.site.server
    with dumping(shop, form, rows=rows) as (process, _dump):
        server.stop(immediate=immediate)
        out, _unused = process.communicate(timeout=60)
    server.start()
    shop.configure()  # its port may be another
    failed(shop, json.loads(out), says="server|terminating connection", hint="server's log")
    assert (process.returncode, shop.site.sets()) == (4, [])
    works_again(shop, "structure" if rows else "restore")


@pytest.mark.parametrize(("form", "rows"), [("custom", False), ("directory", True), ("custom", True)])
def test_a_pg_dump_that_is_killed_makes_no_set(shop: Program, form: str, rows: bool) -> None:
    with dumping(shop, form, rows=rows) as (process, dump):
        os.kill(dump, signal.SIGKILL)
        out, _unused = process.communicate(timeout=60)
    failed(shop, json.loads(out), says="pg_dump was killed by signal 9", hint="memory")
    assert (process.returncode, shop.site.sets()) == (1, [])
    works_again(shop)


def test_a_worker_of_pg_dump_that_is_killed_makes_no_set(shop: Program) -> None:
    with dumping(shop, "directory", rows=True) as (process, dump):
        for worker in wait_for(lambda: dumps_of(dump), seconds=60):
            os.kill(worker, signal.SIGKILL)
        out, _unused = process.communicate(timeout=60)
    failed(shop, json.loads(out), says="worker process", hint="")
    assert (process.returncode, shop.site.sets()) == (1, [])
    works_again(shop)


def test_a_session_that_has_ended_says_so_again_and_again(
    bench: PostgresServer, make_site: Callable[..., Site]
) -> None:
    with connect(make_site(bench).engine().config.postgres) as session:
        run_sql(bench, "postgres", "SELECT pg_terminate_backend(%d, 60000)" % session.value("SELECT pg_backend_pid()"))
        with pytest.raises(UnreachableError, match=r"terminating connection|server closed the connection"):
            session.value("SELECT 1")
        for ask in (session.value, session.execute):
            with pytest.raises(UnreachableError, match="The session in the database 'postgres' is over"):
                ask("SELECT 1")


# --- it keeps us waiting ----------------------------------------------------------------------------------------------


def test_a_table_that_a_migration_has_locked_is_waited_for_as_long_as_configured(shop: Program) -> None:
    with locked_table(shop.site.server, "shop", "shop.goods"):
        options = ("--set", "backup.lock_wait_timeout=1s")
        fails(shop, "backup", *options, code=1, says="lock timeout", hint="holds a lock on a table.*lock_wait_timeout")
        assert shop.site.sets() == []
    works_again(shop)


# --- it cannot read what it has ---------------------------------------------------------------------------------------


def test_a_page_that_the_server_cannot_read_makes_no_set(bench: PostgresServer, make_program: Any) -> None:
    create_database(bench, "broken", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
    (path,) = run_sql(bench, "broken", "SELECT pg_relation_filepath('t')")[0]
    run_sql(bench, "postgres", "CHECKPOINT")
    bench.stop()
    flip(bench.data_dir / path, 8000)
    bench.start()
    program = make_program(bench)
    fails(program, "backup", code=1, says="invalid page", hint="server")
    assert program.site.sets() == []
    run_sql(bench, "postgres", "DROP DATABASE broken")
    works_again(program)
