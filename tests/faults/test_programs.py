# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of this host: too old, away, or built without what is asked of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.servers import PostgresServer, system_bindirs
from tests.faults.aftermath import fails, works_again
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import Servers, create_database, empty, run_sql

MakeProgram = Callable[..., Program]


def test_programs_older_than_the_server_are_refused(shop: Program, servers: Servers) -> None:
    older = ("--set", "postgres.bin_dir=%s" % servers.get("filled", 16).bindir)
    fails(
        shop,
        "backup",
        *older,
        code=2,
        says=r"16\.\d+ .*older than the server's 18",
        hint="Install postgresql-client-18",
    )
    set_id = works_again(shop)
    copy = ("restore", set_id, "--database", "shop", "--rename", "shop", "copy", "--yes")
    fails(shop, *copy, *older, code=2, says="older than", hint="Install postgresql-client-18")


def test_programs_that_are_not_there_are_named(shop: Program, tmp_path: Path) -> None:
    nowhere = ("--set", "postgres.bin_dir=%s" % tmp_path)
    fails(shop, "backup", *nowhere, code=2, says="has no pg_dump", hint="Check bin_dir")
    assert shop.site.sets() == []
    works_again(shop)


IN_EACH_OTHERS_WAY = """#!/bin/sh
case "$*" in *--jobs=2*) echo "pg_restore: error: could not execute query: ERROR:  %s" >&2; exit 1;; esac
exec "%s/pg_restore" "$@"
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("deadlock detected", "deadlocked with itself"),
        ("permission denied for schema sales", "granted out of order"),
        ("tuple concurrently updated", "changed one thing twice at once"),
    ],
)
def test_workers_of_pg_restore_in_each_others_way_are_followed_by_one(
    shop: Program, tmp_path: Path, said: str, told: str
) -> None:
    """Which worker comes first is chance, so a pg_restore that says it stands in front of the real one."""
    bindir = shop.site.server.bindir
    for path in bindir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "pg_restore").unlink()
    (tmp_path / "pg_restore").write_text(IN_EACH_OTHERS_WAY % (said, bindir))
    (tmp_path / "pg_restore").chmod(0o755)
    shop("backup", "--set", "backup.databases=[shop]", "--set", "backup.format=directory", "--set", "backup.jobs=2")
    alike = ("restore", "latest", "--rename", "shop", "copy", "--database", "shop", "--yes", "--jobs", "2")
    result = shop.json(*alike, "--set", "postgres.bin_dir=%s" % tmp_path)
    assert "The parallel restore of 'copy' %s; it was begun anew with one job." % told in result["warnings"]
    assert run_sql(shop.site.server, "copy", "SELECT count(*) FROM shop.goods") == [(50,)]
    run_sql(shop.site.server, "postgres", "DROP DATABASE copy")


FAILS_AT_FIRST = """
CREATE FUNCTION public.visits() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  mark text := 'visit to ' || current_database() || ', no. ';
  before bigint;
BEGIN
  PERFORM pg_advisory_lock(1);
  SELECT count(*) INTO before FROM pg_ls_dir('.') file WHERE starts_with(file, mark);
  -- No rollback takes a file back.
  EXECUTE format('COPY (SELECT 1) TO %%L', current_setting('data_directory') || '/' || mark || before);
  PERFORM pg_advisory_unlock(1);
  RETURN before;
END $$;
CREATE FUNCTION public.at_first(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF public.visits() < %d THEN
    RAISE 'deadlock detected' USING ERRCODE = 'deadlock_detected';
  END IF;
  RETURN $1;
END $$;
SELECT public.visits() FROM generate_series(1, 10);
CREATE TABLE public.orders (id int, day int NOT NULL) PARTITION BY LIST (day);
CREATE TABLE public.orders_1 PARTITION OF public.orders FOR VALUES IN (1);
CREATE TABLE public.orders_2 PARTITION OF public.orders FOR VALUES IN (2);
INSERT INTO public.orders SELECT i, 1 + i %% 2 FROM generate_series(1, 4) i;
CREATE INDEX orders_i ON public.orders (public.at_first(id));
"""


@pytest.mark.parametrize(
    ("times", "met"),
    [
        (1, "deadlocked with itself; what failed by that (entries: 2) was loaded again by one worker."),
        (3, "deadlocked with itself; it was begun anew with one job."),
    ],
)
def test_what_workers_of_pg_restore_hinder_each_other_at_is_loaded_again(shop: Program, times: int, met: str) -> None:
    """Who meets whom is chance, so the first builds of indexes say that they did; attachments then fail for want of them."""
    server = shop.site.server
    create_database(server, "often", FAILS_AT_FIRST % times)
    shop("backup", "--set", "backup.databases=[often]", "--set", "backup.format=directory", "--set", "backup.jobs=2")
    result = shop.json("restore", "latest", "--rename", "often", "again %d" % times, "--yes", "--jobs", "2")
    assert "The parallel restore of 'again %d' %s" % (times, met) in result["warnings"]
    assert run_sql(server, "again %d" % times, "SELECT count(*) FROM orders") == [(4,)]
    index = "SELECT indisvalid, (SELECT count(*) FROM pg_inherits WHERE inhparent = indexrelid) FROM pg_index"
    assert run_sql(server, "again %d" % times, index + " WHERE indexrelid = 'orders_i'::regclass") == [(True, 2)]
    for gone in ("often", "again %d" % times):
        run_sql(server, "postgres", 'DROP DATABASE "%s"' % gone)


def test_a_verification_tells_what_workers_did_to_each_other(shop: Program) -> None:
    create_database(shop.site.server, "often", FAILS_AT_FIRST % 1)
    shop("backup", "--set", "backup.databases=[often]")
    run_sql(shop.site.server, "postgres", "DROP DATABASE often")
    said = "The parallel restore of 'often' deadlocked with itself; what failed by that (entries: 2) was loaded again by one worker."
    assert said in json.dumps(shop.json("verify", "latest", "--level", "restore"))


def builds() -> list[int]:
    """Return the versions here whose pg_dump lacks zstd: the wheel's, and Debian's 15 where it is installed."""
    return [18, *(15 for path in system_bindirs() if path.parent.name == "15")]


@pytest.fixture(params=builds())
def without_zstd(request: pytest.FixtureRequest, servers: Servers, make_program: MakeProgram) -> Program:
    """The program of a server whose pg_dump was built without zstd, or is too old for it."""
    server: PostgresServer = servers.get("bench", request.param)
    empty(server)
    create_database(server, "ledger", "CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i")
    return make_program(server)


def choice(program: Program, result: dict[str, Any]) -> tuple[str, bool]:
    chosen = program.site.manifest(result["set"]).choices["ledger"]
    return chosen["compression"], chosen["inside_pg_dump"]


def test_auto_takes_the_program_zstd_where_pg_dump_lacks_it(without_zstd: Program) -> None:
    assert shutil.which("zstd"), "this test needs the program zstd (apt-get install zstd)"
    result = without_zstd.json("backup")
    assert choice(without_zstd, result) == ("zstd", False)
    works_again(without_zstd, "restore")


def test_zstd_that_nothing_here_can_do_is_told_and_auto_goes_on_with_gzip(
    without_zstd: Program, tmp_path: Path
) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    asked = ("backup", "--set", "backup.compression=zstd")
    before = without_zstd.environ["PATH"]
    without_zstd.environ["PATH"] = str(bare)
    fails(
        without_zstd, *asked, code=2, says="Compression zstd is not possible.*program zstd is not installed", hint="."
    )
    assert without_zstd.site.sets() == []
    assert choice(without_zstd, without_zstd.json("backup")) == ("gzip", True)
    without_zstd.environ["PATH"] = before
    works_again(without_zstd)


def test_zstd_inside_a_directory_is_told_where_pg_dump_lacks_it(without_zstd: Program) -> None:
    """A directory is not one stream, so no program can be put around it."""
    asked = ("--set", "backup.compression=zstd", "--set", "backup.format=directory")
    result = fails(without_zstd, "backup", *asked, code=2, says="Compression zstd is not possible", hint=".")
    assert "directory" in json.dumps(result)
    assert without_zstd.site.sets() == []
    works_again(without_zstd)
