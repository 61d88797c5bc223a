# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases there are: hostile names, one that vanishes, none at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

import demo.servers
from demo.servers import MotoS3, PostgresServer, RcloneS3
from tests.faults.aftermath import failed, fails, nothing_is_left, programs_of, works_again
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HttpReceiver,
    receiver_here,
)
from tests.integration.cli_fixtures import Program, locked_table
from tests.integration.conftest import (
    Servers,
    bindir_of,
    create_database,
    cursor,
    databases_of,
    empty,
    run_sql,
    wait_for,
)
from tests.integration.test_versions import INSTALLED, VERSIONS

NAMES = (
    "a\"b'; drop $(x) é",
    "-rf",
    "new\nline",
    "x=y dbname=postgres",
    "..",
    "%s {0} \\ ~41" + "A" * 50,
)


def test_databases_of_any_name_go_the_whole_way(
    bench: PostgresServer, store: MotoS3, rclone: RcloneS3, make_program: Callable[..., Program]
) -> None:
    """Backed up as archives and as directories, sent to two stores, proven, restored from both, swapped, and removed."""
    for number, name in enumerate(NAMES):
        create_database(bench, name, "CREATE TABLE t AS SELECT %d AS i" % number)
    program = make_program(bench, verify={"place": "s3"})
    program.site.use_s3(store)
    program.configure()
    # The default where pg_dump has zstd; the wheel's has gzip only.
    directory = ("--set", "backup.format=directory", "--set", "backup.jobs=2", "--set", "backup.compression=gzip")
    old, made = program.json("backup", *directory), program.json("backup")
    for result, form in ((old, "directory"), (made, "custom")):
        assert {(d["name"], d["format"]) for d in result["databases"]} == {(n, form) for n in (*NAMES, "postgres")}
        paths = [f.path for f in program.site.manifest(result["set"]).files if f.path.startswith("databases/")]
        assert len({path.split("/")[1] for path in paths}) == len(NAMES) + 1
        assert all(path.isascii() and path.isprintable() and " " not in path and "$" not in path for path in paths)
    assert program.json("sync")["sets"] == [made["set"], old["set"]]
    (report,) = program.json("verify", "--level", "restore")["sets"]
    assert (report["set"], report["place"], report["outcome"]) == (made["set"], "s3", "passed")
    first = NAMES[0]
    run_sql(bench, first, "DELETE FROM t")
    swap = ("--database=%s" % first, "--mode", "swap", "--confirm=%s" % first)
    program("restore", made["set"], "--place", "s3", *swap)
    assert run_sql(bench, first, "SELECT i FROM t") == [(0,)]
    (kept,) = databases_of(bench) - {*NAMES, "postgres"}
    assert kept.startswith(first) and run_sql(bench, kept, "SELECT * FROM t") == []

    program.site.use_s3(rclone)
    program.configure()
    assert program.json("sync")["sets"] == [made["set"], old["set"]]
    with cursor(bench, "postgres") as asked:
        for name in NAMES:
            asked.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    named = [part for name in NAMES for part in ("--database=%s" % name,)]
    program("restore", old["set"], "--place", "s3", "--jobs", "2", *named, "--yes")
    for number, name in enumerate(NAMES):
        assert run_sql(bench, name, "SELECT i FROM t") == [(number,)]

    keep_one = ("--set", "local.retention.keep_within=", "--set", "local.retention.keep_last=1")
    pruned = program.json("prune", "--place", "local", *keep_one)
    assert [removed["set"] for removed in pruned["places"][0]["removed"]] == [old["set"]]
    assert program.site.sets() == [made["set"]]
    nothing_is_left(program.site)


# --- one that vanishes ------------------------------------------------------------------------------------------------

WAITS = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = 'goes' AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
)
DROPS = """#!/bin/sh
for last; do :; done
case "$last" in *%s*) "%s/psql" -Xqd postgres -c "DROP DATABASE goes WITH (FORCE)" >&2 || exit 9;; esac
exec "%s/pg_dump" "$@"
"""
DROPS_EARLY = """#!/bin/sh
case "$*" in *--compress=*)
  "%s/psql" -Xqd postgres -h "%s" -p %d -U postgres -c "DROP DATABASE IF EXISTS goes" >&2 || exit 9;;
esac
exec "%s/pg_dump" "$@"
"""


MAKES_ANEW = """#!/bin/sh
for last; do :; done
case "$last" in *goes*) if [ ! -e "%s" ]; then
  touch "%s"
  "%s/psql" -Xqd postgres -c "DROP DATABASE goes WITH (FORCE)" -c "CREATE DATABASE goes" >&2 || exit 9
  "%s/psql" -Xqd goes -c "CREATE TABLE anew AS SELECT 1 AS i" >&2 || exit 9
fi;; esac
exec "%s/pg_dump" "$@"
"""


def with_pg_dump(bench: PostgresServer, folder: Path, script: str) -> Path:
    """Fill `folder` with the server's programs, and `script` as its pg_dump."""
    for path in bench.bindir.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "pg_dump").unlink()
    (folder / "pg_dump").write_text(script)
    (folder / "pg_dump").chmod(0o755)
    return folder


def three(bench: PostgresServer, make_program: Callable[..., Program]) -> Program:
    """The program of a server with three databases, of which the second is to go."""
    # The largest is dumped first.
    for name, rows in (("early", 60_000), ("goes", 30_000), ("late", 1000)):
        create_database(bench, name, "CREATE TABLE t AS SELECT i FROM generate_series(1, %d) i" % rows)
    return make_program(bench, backup={"min_free": "1MiB", "databases": ["early", "goes", "late"]})


def is_told_and_left_out(program: Program, result: dict[str, Any], how: str, *, level: str = "structure") -> None:
    """The others are in the set, which is proven at `level`; who was left out and why stands in result, manifest and record."""
    assert (result["exit_code"], result["outcome"]) == (0, "ok")
    assert sorted(d["name"] for d in result["databases"]) == ["early", "late"]
    (warning,) = [text for text in result["warnings"] if text.startswith("The database goes ")]
    assert warning.startswith("The database goes %s: " % how)
    manifest = program.site.manifest(result["set"])
    assert sorted(d.name for d in manifest.databases) == ["early", "late"]
    assert [dict(entry) for entry in manifest.left_out] == [{"what": "database goes", "why": "it %s" % how}]
    assert result["left_out"] == list(manifest.left_out)
    record = program.site.records()[-1]
    assert (record["verb"], record["outcome"], record["exit_code"], record["set"]) == ("backup", "ok", 0, manifest.id)
    assert how in str(record["warnings"])
    (report,) = program.json("verify", "--level", level)["sets"]
    assert (report["set"], report["outcome"]) == (manifest.id, "passed")
    nothing_is_left(program.site)


@pytest.mark.parametrize(
    ("when", "how"), [("early", "vanished before it was dumped"), ("goes", "was dropped while it was dumped")]
)
def test_a_database_that_vanishes_before_its_dump_is_told_and_the_others_are_saved(
    bench: PostgresServer, make_program: Callable[..., Program], tmp_path: Path, when: str, how: str
) -> None:
    """It is dropped as pg_dump begins: with the database before it, or with itself, when its snapshot is taken already."""
    program = three(bench, make_program)
    drops = DROPS % (when, bench.bindir, bench.bindir)
    result = program.json("backup", "--set", "postgres.bin_dir=%s" % with_pg_dump(bench, tmp_path, drops))
    assert databases_of(bench) == {"early", "late", "postgres"}
    is_told_and_left_out(program, result, how, level="restore" if when == "goes" else "structure")


def test_a_database_that_is_made_anew_under_its_name_while_it_is_dumped_is_in_the_set(
    bench: PostgresServer, make_program: Callable[..., Program], tmp_path: Path
) -> None:
    """As a nightly refresh does: what fails then is no sign that the database is gone."""
    program = three(bench, make_program)
    flag, programs = tmp_path / "once", tmp_path / "bin"
    programs.mkdir()
    script = MAKES_ANEW % (flag, flag, bench.bindir, bench.bindir, bench.bindir)
    result = program.json("backup", "--set", "postgres.bin_dir=%s" % with_pg_dump(bench, programs, script))
    assert sorted(d["name"] for d in result["databases"]) == ["early", "goes", "late"]
    assert any("Another database took the name 'goes'" in warning for warning in result["warnings"])
    program.json("restore", result["set"], "--database", "goes", "--rename", "goes", "goes_again", "--yes")
    assert run_sql(bench, "goes_again", "SELECT i FROM anew") == [(1,)]


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_database_that_is_dropped_by_force_in_the_midst_of_its_dump_is_told_and_the_others_are_saved(
    bench: PostgresServer, make_program: Callable[..., Program], form: str
) -> None:
    program = three(bench, make_program)
    with locked_table(bench, "goes", "t"):
        process = program.start("backup", "--json", "--set", "backup.format=%s" % form)
        wait_for(lambda: programs_of(program.site) and run_sql(bench, "postgres", WAITS), seconds=60)
        run_sql(bench, "postgres", "DROP DATABASE goes WITH (FORCE)")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    is_told_and_left_out(program, json.loads(out), "was dropped while it was dumped")


def test_a_database_that_vanishes_while_the_backup_is_planned_is_told_and_the_others_are_saved(
    bench: PostgresServer, make_program: Callable[..., Program], tmp_path: Path
) -> None:
    """The plan asks pg_dump what it can do when the databases are listed already."""
    program = three(bench, make_program)
    drops = DROPS_EARLY % (bench.bindir, bench.socket_dir, bench.port, bench.bindir)
    result = program.json("backup", "--set", "postgres.bin_dir=%s" % with_pg_dump(bench, tmp_path, drops))
    assert databases_of(bench) == {"early", "late", "postgres"}
    is_told_and_left_out(program, result, "vanished before it was dumped")


def test_a_database_that_vanished_is_an_alert_as_one_that_is_not_covered(
    bench: PostgresServer, make_program: Callable[..., Program], receiver: HttpReceiver
) -> None:
    program = three(bench, make_program)
    program.configure(alerts={"webhook": {"url": receiver.url + "/hook"}})
    program.json("backup")
    receiver.heard.clear()
    with locked_table(bench, "goes", "t"):
        process = program.start("backup", "--json")
        wait_for(lambda: programs_of(program.site) and run_sql(bench, "postgres", WAITS), seconds=60)
        run_sql(bench, "postgres", "DROP DATABASE goes WITH (FORCE)")
        assert process.communicate(timeout=60) and process.returncode == 0
    told = [(h.json["event"], h.json["cause"], h.json["level"]) for h in receiver.heard]
    assert told == [("opened", "uncovered", "warning")]
    assert "database goes" in receiver.heard[0].json["text"]
    receiver.heard.clear()
    program.json("backup", "--set", 'backup.databases=["early", "late"]')
    assert [(h.json["event"], h.json["cause"]) for h in receiver.heard] == [("recovered", "uncovered")]


def test_every_database_that_vanishes_makes_no_set(bench: PostgresServer, make_program: Callable[..., Program]) -> None:
    create_database(bench, "goes", "CREATE TABLE t (i int)")
    program = make_program(bench, backup={"min_free": "1MiB", "databases": ["goes"]})
    with locked_table(bench, "goes", "t"):
        process = program.start("backup", "--json")
        wait_for(lambda: programs_of(program.site), seconds=60)
        run_sql(bench, "postgres", "DROP DATABASE goes WITH (FORCE)")
        out, _unused = process.communicate(timeout=60)
    result = failed(program, json.loads(out), says="Every database vanished while it was to be dumped", hint="")
    assert (process.returncode, result["outcome"], program.site.sets()) == (1, "failed", [])


# --- one whose files are lost, and one that is half dropped -----------------------------------------------------------


@contextmanager
def lost(bench: PostgresServer, name: str) -> Iterator[None]:
    """The directory of the database is away, as on a disk that failed; at the end it is back."""
    ((oid,),) = run_sql(bench, "postgres", "SELECT oid FROM pg_database WHERE datname = '%s'" % name)
    folder = bench.data_dir / "base" / str(oid)
    folder.rename(folder.with_name("away"))
    try:
        yield
    finally:
        folder.with_name("away").rename(folder)


def test_a_database_whose_files_are_lost_while_it_is_dumped_is_a_failure(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    """The server then says that it does not exist, in the words in which it says so of one that was dropped."""
    program = three(bench, make_program)
    with ExitStack() as gone:
        with locked_table(bench, "goes", "t"):
            process = program.start("backup", "--json")
            wait_for(lambda: programs_of(program.site) and run_sql(bench, "postgres", WAITS), seconds=60)
            gone.enter_context(lost(bench, "goes"))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1, (out, err)
        failed(program, json.loads(out), says="'goes' and cannot open it, its files are lost", hint="exclude")
        assert program.site.sets() == []
    works_again(program)


def test_a_database_whose_files_are_lost_is_a_failure_until_it_is_left_out(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    program = three(bench, make_program)
    everything = ("--set", "backup.databases=[]")
    with lost(bench, "goes"):
        fails(
            program, "backup", *everything, code=1, says="'goes' and cannot open it, its files are lost", hint="exclude"
        )
        fails(program, "backup", "--kind", "base", code=1, says="no files of 'goes'", hint="log")
        assert program.site.sets() == []
        made = program.json("backup", *everything, "--set", 'backup.exclude_databases=["goes"]')
    assert "goes" not in [d["name"] for d in made["databases"]]
    assert {"what": "database goes", "why": "it is in backup.exclude_databases"} in made["uncovered"]
    works_again(program)


@pytest.mark.parametrize("major", VERSIONS)
def test_a_database_whose_drop_was_interrupted_is_told_and_the_others_are_saved(
    servers: Servers, make_program: Callable[..., Program], major: int
) -> None:
    """So PostgreSQL marks it; it lets nobody in any more."""
    server = servers.get("bench", major)
    empty(server)
    program = three(server, make_program)
    run_sql(server, "postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'goes'")
    everything = ("--set", "backup.databases=[]")
    made = program.json("backup", *everything)
    assert sorted(d["name"] for d in made["databases"]) == ["early", "late", "postgres"]
    half = {"what": "database goes", "why": "its DROP DATABASE was interrupted; drop it"}
    assert half in made["uncovered"]
    assert program.json("status", code=0)["instance"] == program.site.instance
    if major == VERSIONS[-1]:
        base = program.json("backup", "--kind", "base", "--set", "base.incremental=never")
        (report,) = program.json("verify", base["set"], "--level", "restore")["sets"]
        assert report["outcome"] == "passed"
    run_sql(server, "postgres", "DROP DATABASE goes")
    assert half not in program.json("backup", *everything)["uncovered"]


@pytest.fixture(name="german")
def german_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The distribution's server, which speaks German: the wheels' speak English alone."""
    if not INSTALLED:
        pytest.skip("no PostgreSQL of the distribution is installed")
    with pytest.MonkeyPatch.context() as patched:
        plain = demo.servers._plain_environment
        # gettext asks for no locale of that language, only for one that is not called C.
        patched.setattr(demo.servers, "_plain_environment", lambda: {**plain(), "LANGUAGE": "de"})
        settings = {"lc_messages": "C.UTF-8"}
        with PostgresServer(bindir_of(INSTALLED[-1]), tmp_path_factory.mktemp("german"), settings=settings) as server:
            with pytest.raises(psycopg2.Error) as caught:
                run_sql(server, "postgres", "SELECT 1/0")
            if "Division durch Null" not in str(caught.value):
                pytest.skip("the translations of PostgreSQL are not installed")
            yield server


def test_a_server_that_speaks_another_language_is_understood(
    german: PostgresServer, make_program: Callable[..., Program]
) -> None:
    """A database that is dropped in the midst of its dump, one whose files are lost, a lock: as superuser and as another role."""
    program = three(german, make_program)
    run_sql(german, "postgres", "CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
    with cursor(german, "postgres") as asked:
        asked.execute("ALTER ROLE reader PASSWORD %s", (german.password,))
    reader = ("--set", "postgres.login_user=reader")
    for who in ((), reader):
        with lost(german, "goes"):
            fails(program, "backup", *who, code=1, says="'goes' and cannot open it, its files are lost", hint="exclude")
        with locked_table(german, "goes", "t"):
            short = ("--set", "backup.lock_wait_timeout=1s")
            fails(program, "backup", *who, *short, code=1, says="", hint="Another session holds a lock on a table")
    fails(
        program, "backup", "--set", "postgres.login_db=nowhere", code=1, says="no database 'nowhere'", hint="case-sens"
    )
    with locked_table(german, "goes", "t"):
        process = program.start("backup", "--json", *reader)
        wait_for(lambda: programs_of(program.site) and run_sql(german, "postgres", WAITS), seconds=60)
        run_sql(german, "postgres", "DROP DATABASE goes WITH (FORCE)")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    result = json.loads(out)
    assert {"what": "database goes", "why": "it was dropped while it was dumped"} in result["left_out"]
    assert sorted(d["name"] for d in result["databases"]) == ["early", "late"]


def test_a_role_that_is_not_there_is_no_database_that_is_not_there(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    program = three(bench, make_program)
    with cursor(bench, "postgres") as asked:
        asked.execute("CREATE ROLE database_backup LOGIN SUPERUSER PASSWORD %s", (bench.password,))
    program("backup", "--set", "postgres.login_user=database_backup", "--dry-run")
    run_sql(bench, "postgres", "DROP ROLE database_backup")
    # By TCP the server asks for a password first, and says no more than that it is wrong.
    by_socket = ("--set", "postgres.login_user=database_backup", "--set", "postgres.login_host=%s" % bench.socket_dir)
    fails(program, "backup", *by_socket, code=4, says='role "database_backup" does not exist', hint="Make that role")


# --- one that is not there, and none at all ---------------------------------------------------------------------------


def test_a_database_that_is_named_and_is_not_there(shop: Program) -> None:
    named = ("--set", 'backup.databases=["Shop"]')
    fails(
        shop, "backup", *named, code=1, says="no database 'Shop' on this server", hint="case-sensitive; it has .*'shop'"
    )
    assert shop.site.sets() == []
    works_again(shop)


def test_no_database_at_all_is_refused_unless_it_is_allowed(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    program = make_program(bench, backup={"min_free": "1MiB", "exclude_databases": ["postgres"]})
    fails(program, "backup", code=1, says="no database to back up", hint="allow_no_databases")
    assert program.site.sets() == []
    made = program.json("backup", "--set", "backup.allow_no_databases=true")
    assert made["databases"] == []
    manifest = program.site.manifest(made["set"])
    assert (
        manifest.globals is not None
        and "CREATE ROLE" in (program.site.set_folder(made["set"]) / manifest.globals.path).read_text()
    )
    nothing_is_left(program.site)
