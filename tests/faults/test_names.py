# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases there are: hostile names, one that vanishes, none at all."""

from __future__ import annotations

from collections.abc import Callable

from psycopg2 import sql

from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup
from demo.servers import MotoS3, PostgresServer
from tests.faults.aftermath import fails, nothing_is_left, works_again
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import Site, create_database, cursor, databases_of, run_sql

NAMES = (
    "a\"b'; drop $(x) é",
    "-rf",
    "new\nline",
    "x=y dbname=postgres",
    "..",
    "%s {0} \\ ~41" + "A" * 50,
)


def test_databases_of_any_name_go_the_whole_way(
    bench: PostgresServer, store: MotoS3, make_program: Callable[..., Program]
) -> None:
    """Backed up, sent, proven at level restore from S3, restored from there, swapped, and removed."""
    for number, name in enumerate(NAMES):
        create_database(bench, name, "CREATE TABLE t AS SELECT %d AS i" % number)
    program = make_program(bench, verify={"place": "s3"})
    program.site.use_s3(store)
    program.configure()
    old, made = program.json("backup")["set"], program.json("backup")
    assert {d["name"] for d in made["databases"]} == {*NAMES, "postgres"}
    paths = [f.path for f in program.site.manifest(made["set"]).files if f.path.startswith("databases/")]
    assert len(paths) == len(NAMES) + 1
    assert all(path.isascii() and path.isprintable() and " " not in path and "$" not in path for path in paths)
    assert program.json("sync")["sets"] == [made["set"], old]
    (report,) = program.json("verify", "--level", "restore")["sets"]
    assert (report["place"], report["level"], report["outcome"]) == ("s3", "restore", "passed")

    with cursor(bench, "postgres") as asked:
        for name in NAMES:
            asked.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    named = [part for name in NAMES for part in ("--database=%s" % name,)]
    program("restore", made["set"], "--place", "s3", *named, "--yes")
    for number, name in enumerate(NAMES):
        assert run_sql(bench, name, "SELECT i FROM t") == [(number,)]
    first = NAMES[0]
    run_sql(bench, first, "DELETE FROM t")
    swap = ("--database=%s" % first, "--mode", "swap", "--confirm=%s" % first)
    program("restore", made["set"], "--place", "s3", *swap)
    assert run_sql(bench, first, "SELECT i FROM t") == [(0,)]
    (kept,) = databases_of(bench) - {*NAMES, "postgres"}
    assert kept.startswith(first) and run_sql(bench, kept, "SELECT * FROM t") == []

    prune = (
        "prune",
        "--place",
        "local",
        "--set",
        "local.retention.keep_within=",
        "--set",
        "local.retention.keep_last=1",
    )
    assert [removed["set"] for removed in program.json(*prune)["places"][0]["removed"]] == [old]
    assert program.site.sets() == [made["set"]]
    nothing_is_left(program.site)


def test_a_database_that_vanishes_before_its_dump_is_told_and_the_others_are_saved(
    bench: PostgresServer, make_site: Callable[..., Site]
) -> None:
    create_database(bench, "stays", "CREATE TABLE t (i int)")
    create_database(bench, "goes", "CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    site = make_site(bench)
    context = site.engine(backup={"databases": ["stays", "goes"]})

    def drop(name: str, total: int = 0) -> None:
        if name.endswith("goes"):
            run_sql(bench, "postgres", "DROP DATABASE goes WITH (FORCE)")

    context.reporter.phase = drop  # type: ignore[method-assign]
    result = backup.backup(context, backup.Request())
    assert [d["name"] for d in result["databases"]] == ["stays"]
    assert any("The database goes vanished before it was dumped" in warning for warning in context.warnings)
    assert {"what": "database goes", "why": "it vanished before it was dumped"} in result["left_out"]
    assert [d.name for d in site.manifest(result["set"]).databases] == ["stays"]
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"
    nothing_is_left(site)


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
