# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own process killed with -9 at any moment while it restores and verifies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from demo import compare
from demo.servers import PostgresServer
from tests.faults.aftermath import PATIENCE, nothing_is_left, on_server, programs_of, servers_of, sessions
from tests.faults.test_killed import kill, kill_at, kill_surely, moments, told_by_the_next
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import create_database, databases_of, run_sql, wait_for

COUNTS = "SELECT (SELECT count(*) FROM shop.sales), (SELECT count(*) FROM shop.goods)"
BACKED_UP = [(500, 50)]


@pytest.fixture
def backed_up(shop: Program) -> Program:
    """The program of a server whose one small database is in a set already."""
    shop("backup", "--set", "backup.databases=[shop]")
    return shop


def half_made(server: PostgresServer) -> list[str]:
    return [name for name in databases_of(server) if name.startswith("pgops-restore-")]


def no_session(server: PostgresServer) -> None:
    """Wait until the server has done what a killed run had told it last."""
    wait_for(lambda: not sessions(server), seconds=PATIENCE)


def drop(server: PostgresServer, name: str) -> None:
    run_sql(server, "postgres", 'DROP DATABASE IF EXISTS "%s" WITH (FORCE)' % name)


# --- restore into a new database --------------------------------------------------------------------------------------

COPY = ("restore", "latest", "--database", "shop", "--rename", "shop", "copy", "--yes")


def test_a_restore_that_is_killed_at_any_moment_is_no_trouble_for_the_next(backed_up: Program) -> None:
    server = backed_up.site.server
    for moment in moments(6, backed_up, *COPY):
        kill_at(moment, backed_up, *COPY, prepare=lambda: drop(server, "copy"))
        no_session(server)
        if "copy" in databases_of(server):  # it had its name already, and so is whole
            assert run_sql(server, "copy", COUNTS) == BACKED_UP
            drop(server, "copy")
        backed_up(*COPY)
        assert run_sql(server, "copy", COUNTS) == BACKED_UP
        nothing_is_left(backed_up.site)
    ours, theirs = (compare.snapshot(server)['database "%s"' % name] for name in ("shop", "copy"))
    assert compare.differences({"x": ours}, {"x": theirs}) == []


STEPS: dict[str, Callable[[Program], Any]] = {
    "the database is made": lambda program: half_made(program.site.server),
    "the dump is unwrapped": lambda program: list(program.site.root.glob("state/*/work/restore-*/*")),
    "pg_restore is at work": lambda program: [line for line in programs_of(program.site) if "pg_restore" in line],
    "statistics are gathered": lambda program: [line for line in programs_of(program.site) if "vacuumdb" in line],
    "the database has its name": lambda program: "copy" in databases_of(program.site.server),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_restore_that_is_killed_when(backed_up: Program, step: str) -> None:
    kill_surely(
        backed_up,
        *COPY,
        when=lambda: STEPS[step](backed_up),
        prepare=lambda: drop(backed_up.site.server, "copy"),
    )
    no_session(backed_up.site.server)
    left = half_made(backed_up.site.server)
    drop(backed_up.site.server, "copy")
    backed_up(*COPY)
    said = told_by_the_next(backed_up.site)
    assert all("Dropped %r, which a restore that was cut short left behind" % name in said for name in left)
    assert run_sql(backed_up.site.server, "copy", COUNTS) == BACKED_UP
    nothing_is_left(backed_up.site)


def test_a_database_that_was_not_marked_yet_is_known_by_its_name(backed_up: Program) -> None:
    """The kill comes between CREATE DATABASE and the comment that says whose it is."""
    mark = "pgops restore in progress on %s for %s" % (os.uname().nodename, backed_up.site.instance)
    ours = "pgops-restore-%s-00000000" % hashlib.sha256(mark.encode()).hexdigest()[:8]
    theirs = "pgops-restore-00000000-00000000"
    for name in (ours, theirs):
        create_database(backed_up.site.server, name)
    backed_up(*COPY)
    assert half_made(backed_up.site.server) == [theirs]
    assert "Dropped %r" % ours in told_by_the_next(backed_up.site)


def test_half_a_script_is_never_committed(bench: PostgresServer, make_program: Callable[..., Program]) -> None:
    """psql takes the end of its input for the end of the script; killed, we end it in the middle of one."""
    create_database(
        bench, "rows", "CREATE TABLE a AS SELECT i FROM generate_series(1, 300000) i; CREATE TABLE b (i int)"
    )
    program = make_program(bench, backup={"min_free": "1MiB", "format": "plain", "compression": "none"})
    program("backup", "--set", "backup.databases=[rows]")
    create_database(bench, "room")
    into = (
        "--database",
        "rows",
        "--rename",
        "rows",
        "room",
        "--mode",
        "into_empty",
        "--globals",
        "none",
        "--confirm",
        "room",
    )
    loading = "SELECT 1 FROM pg_stat_activity WHERE datname = 'room' AND query LIKE 'COPY %'"
    for _again in range(20):
        kill(program, "restore", "latest", *into, when=lambda: run_sql(bench, "postgres", loading))
        on_server(bench)
        there = run_sql(bench, "room", "SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b')")
        if there == [(0,)]:
            break
        # It was done with the script before the kill came.
        assert there == [(2,)]
        assert run_sql(bench, "room", "SELECT count(*) FROM a") == [(300000,)]
        drop(bench, "room")
        create_database(bench, "room")
    else:
        pytest.fail("it always ended before it was killed")
    program("restore", "latest", *into)
    assert run_sql(bench, "room", "SELECT count(*) FROM a") == [(300000,)]
    nothing_is_left(program.site)


# --- swap -------------------------------------------------------------------------------------------------------------

SWAP = ("restore", "latest", "--database", "shop", "--mode", "swap", "--confirm", "shop")


def of_which_age(server: PostgresServer, name: str) -> str:
    """Tell whether the database is the `old` one that was to be replaced, or the `new` one from the backup."""
    return "old" if run_sql(server, name, "SELECT to_regclass('public.marker') IS NOT NULL")[0][0] else "new"


def replaced(server: PostgresServer) -> list[str]:
    return [name for name in databases_of(server) if name.startswith("shop_before_")]


def closed(server: PostgresServer) -> list[tuple[Any, ...]]:
    return run_sql(server, "postgres", "SELECT datname FROM pg_database WHERE NOT datallowconn AND datname = 'shop'")


@contextmanager
def held(server: PostgresServer) -> Iterator[None]:
    """Let nobody rename `shop`."""
    with closing(server.connect(autocommit=False)) as connection:
        connection.cursor().execute("COMMENT ON DATABASE shop IS 'held'")
        yield


SWAP_STEPS: dict[str, Callable[[PostgresServer], Any]] = {
    "the new one is made": half_made,
    "the old one is closed": closed,
    "they have been swapped": replaced,
}


def check_swap(program: Program) -> None:
    """After a kill the name `shop` means the old or the new database, whole; the next swap ends well, and keeps the old."""
    server = program.site.server
    no_session(server)
    if closed(server):  # the next restore opens it again, whatever else becomes of that
        program(*COPY[:-1], "--dry-run")
        program("restore", "latest", "--database", "shop", "--yes", code=5)
        assert closed(server) == []
    age = of_which_age(server, "shop")
    assert run_sql(server, "shop", COUNTS)[0][1] == 50
    assert [of_which_age(server, name) for name in replaced(server)] == ([] if age == "old" else ["old"])
    program(*SWAP)
    assert of_which_age(server, "shop") == "new"
    assert run_sql(server, "shop", COUNTS) == BACKED_UP
    ages = [of_which_age(server, name) for name in replaced(server)]
    assert ages.count("old") == 1
    assert [
        run_sql(server, n, "SELECT count(*) FROM marker") for n in replaced(server) if of_which_age(server, n) == "old"
    ] == [[(1,)]]
    nothing_is_left(program.site)


def become_old(program: Program) -> None:
    """Let `shop` be a database that lost its sales and has what no backup has."""
    server = program.site.server
    for name in replaced(server):
        drop(server, name)
    run_sql(server, "shop", "DELETE FROM shop.sales; CREATE TABLE marker AS SELECT 1 AS i")


def test_a_swap_that_is_killed_at_any_moment_loses_nothing(backed_up: Program) -> None:
    for moment in moments(6, backed_up, *SWAP):
        kill_at(moment, backed_up, *SWAP, prepare=lambda: become_old(backed_up))
        check_swap(backed_up)


@pytest.mark.parametrize("step", SWAP_STEPS)
def test_a_swap_that_is_killed_when(backed_up: Program, step: str) -> None:
    server = backed_up.site.server
    # Closed it is for a moment only, unless somebody keeps it from being renamed.
    with held(server) if step == "the old one is closed" else nullcontext():
        kill_surely(backed_up, *SWAP, when=lambda: SWAP_STEPS[step](server), prepare=lambda: become_old(backed_up))
    check_swap(backed_up)


def test_a_database_left_closed_is_open_after_the_next_restore_even_if_that_is_refused(backed_up: Program) -> None:
    server = backed_up.site.server
    mark = "pgops restore in progress on %s for %s" % (os.uname().nodename, backed_up.site.instance)
    half = "pgops-restore-%s-00000000" % hashlib.sha256(mark.encode()).hexdigest()[:8]
    create_database(server, half)
    run_sql(server, "postgres", "COMMENT ON DATABASE \"%s\" IS '%s (closed: shop)'" % (half, mark))
    run_sql(server, "postgres", "ALTER DATABASE shop WITH ALLOW_CONNECTIONS false")
    backed_up(*COPY[:-1], "--dry-run")
    assert closed(server) == [("shop",)]
    backed_up("restore", "latest", "--database", "shop", "--yes", code=5)
    assert closed(server) == []
    assert "'shop' takes connections again" in told_by_the_next(backed_up.site)


# --- verify -----------------------------------------------------------------------------------------------------------


def test_a_verification_that_is_killed_at_any_moment_leaves_nothing_after_the_next(backed_up: Program) -> None:
    verify = ("verify", "latest", "--level", "restore")
    for moment in moments(3, backed_up, *verify):
        kill_at(moment, backed_up, *verify)
        assert backed_up.json(*verify)["sets"][0]["outcome"] == "passed"
        nothing_is_left(backed_up.site)


def homes(program: Program) -> list[Path]:
    """Return the directories of throwaway servers, where root has them and where others do."""
    mine = list(program.site.root.glob("state/*/work/verify-*/server/data"))
    return mine + list(Path("/var/tmp").glob("pgops-*-%s-*" % program.site.instance))


VERIFY_STEPS: dict[str, Callable[[Program], Any]] = {
    "the folder is there": lambda program: list(program.site.root.glob("state/*/work/verify-*")),
    "the server is being made": homes,
    "the server runs": lambda program: servers_of(program.site),
}


@pytest.mark.parametrize("step", VERIFY_STEPS)
def test_a_verification_that_is_killed_when(backed_up: Program, step: str) -> None:
    verify = ("verify", "latest", "--level", "restore")
    known: set[Path] = set()
    kill_surely(
        backed_up,
        *verify,
        when=lambda: VERIFY_STEPS[step](backed_up),
        prepare=lambda: known.update(backed_up.site.evidence()),
    )
    assert set(backed_up.site.evidence()) == known
    backed_up(*verify)
    assert "A run was cut short" in told_by_the_next(backed_up.site)
    nothing_is_left(backed_up.site)
