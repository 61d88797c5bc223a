# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases there are: hostile names, one that vanishes, none at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from demo.servers import MotoS3, PostgresServer, RcloneS3
from tests.faults.aftermath import failed, fails, nothing_is_left, programs_of, works_again
from tests.integration.cli_fixtures import Program, locked_table
from tests.integration.conftest import create_database, cursor, databases_of, run_sql, wait_for

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

DROPS = """#!/bin/sh
for last; do :; done
case "$last" in *%s*) "%s/psql" -Xqd postgres -c "DROP DATABASE goes WITH (FORCE)" >&2 || exit 9;; esac
exec "%s/pg_dump" "$@"
"""


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
    for path in bench.bindir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "pg_dump").unlink()
    (tmp_path / "pg_dump").write_text(DROPS % (when, bench.bindir, bench.bindir))
    (tmp_path / "pg_dump").chmod(0o755)
    result = program.json("backup", "--set", "postgres.bin_dir=%s" % tmp_path)
    assert databases_of(bench) == {"early", "late", "postgres"}
    is_told_and_left_out(program, result, how, level="restore" if when == "goes" else "structure")


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_database_that_is_dropped_by_force_in_the_midst_of_its_dump_is_told_and_the_others_are_saved(
    bench: PostgresServer, make_program: Callable[..., Program], form: str
) -> None:
    program = three(bench, make_program)
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = 'goes' AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
    with locked_table(bench, "goes", "t"):
        process = program.start("backup", "--json", "--set", "backup.format=%s" % form)
        wait_for(lambda: programs_of(program.site) and run_sql(bench, "postgres", waits), seconds=60)
        run_sql(bench, "postgres", "DROP DATABASE goes WITH (FORCE)")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    is_told_and_left_out(program, json.loads(out), "was dropped while it was dumped")


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
