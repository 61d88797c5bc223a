# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb restore on real servers: what comes back is what was there, and whatever goes wrong replaces nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs, source
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    CommandError,
    DamagedError,
    MissingError,
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import preflight, swapping
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import connect
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import restore, rollback
from demo import compare, dataset
from demo.servers import MotoS3, PostgresServer
from tests.integration.conftest import (
    BUCKET,
    Poll,
    Servers,
    Site,
    create_database,
    create_shop,
    cursor,
    databases_of,
    empty,
    flip,
    process_of,
    run_sql,
    wait_for,
)
from tests.integration.s3_fixtures import Proxy

MakeSite = Callable[..., Site]
CLOSED = "SELECT datname FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'"
LIMITS = (
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "statement_timeout",
    "transaction_timeout",
)
ROLES = "CREATE ROLE clerk LOGIN PASSWORD 'another'; CREATE ROLE chief"


@pytest.fixture(scope="module")
def everything(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a set of everything that the demo's server holds."""
    site = Site(tmp_path_factory.mktemp("everything"), servers.get("filled", 18))
    site.backup()
    return site


@pytest.fixture(scope="module")
def small(shop: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a set of the shop, whose restores go elsewhere. Tests leave it as it is."""
    site = Site(tmp_path_factory.mktemp("small"), shop)
    site.backup(databases=["shop"])
    return site


@pytest.fixture
def mine(small: Site, tmp_path: Path) -> Site:
    """A copy of that site which the test may harm."""
    site = Site(tmp_path / "mine", small.server)
    subprocess.run(["mkdir", "-p", str(site.home)], check=True)
    subprocess.run(["cp", "-a", str(small.home / "sets"), str(site.home)], check=True)
    return site


def state_of(server: PostgresServer, database: str) -> dict[str, Any]:
    """Return the comparison's view of one database."""
    return compare.snapshot(server)['database "%s"' % database]


def same(one: PostgresServer, name: str, other: PostgresServer, other_name: str) -> list[str]:
    """Return how two databases differ, on the same server or not."""
    return compare.differences({"database": state_of(one, name)}, {"database": state_of(other, other_name)})


# --- create -----------------------------------------------------------------------------------------------------------


def test_everything_comes_back_to_an_empty_server(everything: Site, target: PostgresServer) -> None:
    before = compare.snapshot(everything.server)
    assert len(compare.differences(before, compare.snapshot(target))) > 3  # roles and databases are not there
    result = everything.restore(to=target)
    after = compare.snapshot(target)
    assert compare.differences(before, after) == []
    assert compare.compared_tables(after) > 25
    assert {d["name"] for d in result["databases"]} == set(
        dataset.DATABASES
    )  # `postgres` is bare: nothing to bring back
    assert len(result["roles_created"]) >= 8
    for database in result["databases"]:
        assert database["compared"]["rows"] > 0 and not database["benign"] and not database["left_out"]


# What an order of its own could lose: a view that needs a primary key, and its index; comments on all that has no rows.
DETAILS = """
CREATE TABLE c (id int PRIMARY KEY, name text CONSTRAINT named UNIQUE, at date);
INSERT INTO c SELECT i, i::text, date '2026-01-01' + i FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW mv AS SELECT id, name, count(*) FROM c GROUP BY id;
CREATE UNIQUE INDEX mv_id ON mv (id);
CREATE VIEW v AS SELECT id, name, count(*) FROM c GROUP BY id;
CREATE INDEX c_at ON c (at);
COMMENT ON INDEX c_at IS 'on an index';
COMMENT ON INDEX mv_id IS 'on an index of a view';
COMMENT ON CONSTRAINT c_pkey ON c IS 'on a primary key';
COMMENT ON CONSTRAINT named ON c IS 'on a unique one';
COMMENT ON MATERIALIZED VIEW mv IS 'on a view';
CREATE TABLE p (id int, month int, c_id int REFERENCES c, PRIMARY KEY (id, month)) PARTITION BY LIST (month);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
INSERT INTO p SELECT i, 1 + i % 2, i FROM generate_series(1, 100) i;
CREATE INDEX p_c ON p (c_id);
COMMENT ON INDEX p_c IS 'on a partitioned index';
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not while rows are restored''; END';
CREATE TRIGGER stop BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION stop();
COMMENT ON TRIGGER stop ON p IS 'on a trigger';
CREATE RULE kept AS ON DELETE TO c DO INSTEAD NOTHING;
COMMENT ON RULE kept ON c IS 'on a rule';
CREATE STATISTICS c_stats ON id, name FROM c;
COMMENT ON STATISTICS c_stats IS 'on statistics';
REVOKE INSERT ON c FROM CURRENT_USER;
SELECT lo_from_bytea(815, 'large'); COMMENT ON LARGE OBJECT 815 IS 'on a large object';
REFRESH MATERIALIZED VIEW mv;
"""


def definition(server: PostgresServer, database: str) -> list[str]:
    """Return what pg_dump says of a database without its rows."""
    said = server.run("pg_dump", "--schema-only", "-b", database)
    # Newer versions guard the script by a random word.
    return [line for line in said.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


@pytest.mark.parametrize("jobs", [1, 3])
def test_pg_dump_says_the_same_of_what_was_restored(bench: PostgresServer, make_site: MakeSite, jobs: int) -> None:
    create_database(bench, "details", DETAILS)
    site = make_site(bench, backup={"databases": ["details"], "format": "directory", "jobs": 2})
    site.backup()
    site.restore(rename={"details": "again"}, jobs=jobs)
    assert definition(bench, "again") == definition(bench, "details")
    for view in ("mv", "v", "c", "p"):
        assert run_sql(bench, "again", "SELECT count(*) FROM %s" % view) == [(100,)]


_LARGE = """
CREATE TABLE parent (id int PRIMARY KEY, word text);
INSERT INTO parent SELECT i, 'word ' || i FROM generate_series(1, 20000) i;
CREATE TABLE child (id int, part int, word text) PARTITION BY LIST (part);
CREATE TABLE "child's 1" PARTITION OF child FOR VALUES IN (1);
CREATE TABLE child_2 PARTITION OF child FOR VALUES IN (2);
INSERT INTO child SELECT i, 1 + i % 2, E'a\\nb\\\\.' FROM generate_series(1, 20000) i;
ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES parent;
CREATE STATISTICS together ON id, word FROM parent;
CREATE INDEX ON parent (upper(word));
"""


# What pg_dump rightly leaves out, or PostgreSQL names anew: none of it is a loss. There is neither public nor plpgsql.
UNDUMPED = """
CREATE SCHEMA s; SET search_path = s;
CREATE TABLE t (i int); INSERT INTO t VALUES (1), (1);
CREATE TABLE p (d int, i int CONSTRAINT few CHECK (i < 9), PRIMARY KEY (d, i)) PARTITION BY RANGE (d);
CREATE TABLE p01 PARTITION OF p FOR VALUES FROM (1) TO (2);
CREATE TABLE p02 PARTITION OF p FOR VALUES FROM (2) TO (3);
CREATE TABLE f (d int, i int, FOREIGN KEY (d, i) REFERENCES p);
ALTER TABLE p DETACH PARTITION p01; DROP TABLE p01;
CREATE TABLE p03 PARTITION OF p FOR VALUES FROM (3) TO (4);
CREATE TABLE p00 PARTITION OF p FOR VALUES FROM (0) TO (1);
INSERT INTO p VALUES (3, 1), (0, 1); INSERT INTO f VALUES (3, 1);
CREATE TABLE r (k int PRIMARY KEY);
CREATE TABLE m (i int, k int CONSTRAINT of_all REFERENCES r) PARTITION BY RANGE (i);
CREATE TABLE m1 (i int, k int CONSTRAINT of_its_own REFERENCES r);
ALTER TABLE m ATTACH PARTITION m1 FOR VALUES FROM (0) TO (9);
CREATE TRIGGER tg BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE VIEW v AS SELECT 1 AS i;
CREATE TYPE many AS RANGE (subtype = float8, multirange_type_name = many_more);
COMMENT ON CONSTRAINT few ON p IS 'dumped'; COMMENT ON CONSTRAINT few ON p02 IS 'left out';
COMMENT ON CONSTRAINT p_pkey ON p IS 'dumped'; COMMENT ON CONSTRAINT p02_pkey ON p02 IS 'dumped';
COMMENT ON CONSTRAINT of_all ON m IS 'dumped'; COMMENT ON CONSTRAINT of_its_own ON m1 IS 'left out';
COMMENT ON TRIGGER tg ON p IS 'dumped'; COMMENT ON TRIGGER tg ON p02 IS 'left out';
COMMENT ON VIEW v IS 'dumped'; COMMENT ON RULE "_RETURN" ON v IS 'left out';
COMMENT ON TYPE many IS 'dumped'; COMMENT ON TYPE many_more IS 'left out';
COMMENT ON TYPE t IS 'left out'; COMMENT ON TYPE _many IS 'left out';
CREATE COLLATION mine FROM "C"; CREATE COLLATION pg_catalog.imported FROM "C";
COMMENT ON COLLATION mine IS 'dumped'; COMMENT ON COLLATION pg_catalog.imported IS 'left out';
SET allow_system_table_mods = on;
CREATE OPERATOR pg_catalog.=== (LEFTARG = point, RIGHTARG = point, FUNCTION = point_eq);
CREATE TYPE e AS ENUM ('a', 'b', 'c', 'd', 'e', 'f');
CREATE TABLE h (k e, v int) PARTITION BY HASH (k);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT (array['a', 'b', 'c', 'd', 'e', 'f'])[1 + i % 6]::e, i FROM generate_series(1, 3000) i;
CREATE ROLE giver; GRANT CONNECT ON DATABASE undumped TO giver WITH GRANT OPTION;
CREATE ROLE taker; GRANT CONNECT ON DATABASE undumped TO taker WITH GRANT OPTION;
SET ROLE giver; GRANT CONNECT ON DATABASE undumped TO taker; RESET ROLE;
DROP SCHEMA public; DROP EXTENSION plpgsql;
"""
ENUMS = "SELECT count(*), sum(v * (k::text = 'b')::int) FROM s.h"


@pytest.fixture
def undumped(bench: PostgresServer) -> PostgresServer:
    """A server whose database `undumped` has what no dump brings back as it is."""
    create_database(bench, "undumped", UNDUMPED)
    for name in ("t_i", "t_i_too"):
        with pytest.raises(psycopg2.errors.UniqueViolation):
            run_sql(bench, "undumped", "CREATE UNIQUE INDEX CONCURRENTLY %s ON s.t (i)" % name)
    run_sql(bench, "undumped", "COMMENT ON INDEX s.t_i IS 'left out'")
    return bench


def as_of_format_1(manifest: dict[str, Any]) -> None:
    """Turn the one fingerprint of a manifest into what versions before format 2 took of that database."""
    facts = manifest["databases"][0]["fingerprint"]
    facts["format"] = 1
    del facts["brought"]
    for value in (*facts["constraints"].values(), *facts["relations"].values()):
        for fact in ("derived", "scattered"):
            value.pop(fact, None)
    for name in ("t_i", "t_i_too"):
        facts["indexes"]["s." + name] = {"table": "s.t", "unique": True, "valid": False}
    facts["counts"]["comments"] += 4  # each on something of which _BROUGHT knows
    facts["counts"]["pg_collation"] += 1
    manifest["databases"][0]["properties"]["acl"]["taker"] = "CONNECT CONNECT*"


@pytest.mark.parametrize(("form", "method"), [("directory", "none"), ("custom", "zstd")])
def test_what_a_dump_leaves_out_or_names_anew_is_no_loss(
    undumped: PostgresServer, make_site: MakeSite, form: str, method: str
) -> None:
    site = make_site(undumped, backup={"databases": ["undumped"], "format": form, "jobs": 2, "compression": method})
    set_id = site.backup()["set"]
    (done,) = site.restore(rename={"undumped": "again"}, jobs=2)["databases"]
    assert done["remarks"] == [] and not done["frozen"]  # what goes through its root is not
    assert definition(undumped, "again") == definition(undumped, "undumped")
    rows = run_sql(undumped, "undumped", ENUMS)
    assert rows == [(3000, 749000)] and run_sql(undumped, "again", ENUMS) == rows
    if form == "directory":
        assert site.verify("restore")["sets"][0]["outcome"] == "passed"
        return
    # One transaction, in a database that somebody else has made: what it has stays, and is told.
    create_database(undumped, "made")
    (done,) = site.restore(rename={"undumped": "made"}, mode="into_empty")["databases"]
    assert [remark.partition(" was")[0] for remark in done["remarks"]] == ["schema public", "extension plpgsql"]
    assert run_sql(undumped, "made", ENUMS) == rows
    site.restore(rename={"undumped": "part"}, tables=("s.h",), databases=("undumped",))
    assert run_sql(undumped, "part", ENUMS) == rows
    # Sets of before still restore, and what they lack is found.
    old = site.forge(set_id, as_of_format_1)
    (done,) = site.restore(set=old, rename={"undumped": "old"})["databases"]
    assert [remark.partition(":")[0] for remark in done["remarks"]] == ["comments", "entries in pg_collation"]

    def lost(manifest: dict[str, Any]) -> None:
        as_of_format_1(manifest)
        facts = manifest["databases"][0]["fingerprint"]
        facts["constraints"]["s.f lost"] = {**facts["constraints"]["s.f f_d_i_fkey"]}
        facts["counts"]["comments"] += 100
        facts["rows"]["s.h0"] += 1
        facts["indexes"]["s.lost"] = {"table": "s.t", "unique": True, "valid": True}

    with pytest.raises(DamagedError) as caught:
        site.restore(set=site.forge(set_id, lost), rename={"undumped": "lost"})
    assert sorted(line.strip("- ").partition(", ")[0] for line in caught.value.message.splitlines()[1:]) == [
        "comments: were 112",
        "constraint s.f lost is missing",
        "index s.lost is missing",
        "table s.h with its partitions: had 3001 rows",
    ]


@pytest.fixture
def unvacuumed(bench: PostgresServer) -> Iterator[PostgresServer]:
    """The server without its autovacuum, which comes each minute, and so now and then in the midst of a test."""

    def let(*words: str) -> None:
        for statement in ("ALTER SYSTEM %s" % " ".join(words), "SELECT pg_reload_conf()"):
            run_sql(bench, "postgres", statement)

    running = "SELECT 1 FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'"
    let("SET autovacuum = off")
    wait_for(lambda: not run_sql(bench, "postgres", running))
    yield bench
    let("RESET autovacuum")


@pytest.mark.parametrize(("form", "method"), [("directory", "gzip"), ("custom", "zstd")])
def test_a_parallel_restore_freezes_rows_and_gathers_statistics(
    unvacuumed: PostgresServer, make_site: MakeSite, form: str, method: str
) -> None:
    bench = unvacuumed
    create_database(bench, "large", _LARGE)
    site = make_site(bench, backup={"databases": ["large"], "format": form, "jobs": 2, "compression": method})
    site.backup()
    (done,) = site.restore(rename={"large": "loaded"}, jobs=2)["databases"]
    assert done["frozen"]
    assert done["way"] == ("file" if form == "directory" else "stream")
    assert same(bench, "large", bench, "loaded") == []
    # Visible to all without a vacuum, but for pages where a batch of rows ended: so the load itself has frozen them.
    pages = "SELECT relname, relallvisible > relpages / 2 FROM pg_class WHERE relname IN ('parent', 'child''s 1', 'child_2')"
    assert dict(run_sql(bench, "loaded", pages)) == {"parent": True, "child's 1": True, "child_2": True}
    assert run_sql(bench, "loaded", "SELECT sum(vacuum_count + autovacuum_count) FROM pg_stat_user_tables") == [(0,)]
    known = "SELECT count(*) FROM pg_stats WHERE tablename IN ('parent', 'child_2', 'parent_upper_idx')"
    assert run_sql(bench, "loaded", known) == [(2 + 3 + 1,)]
    assert run_sql(bench, "loaded", "SELECT count(*) FROM pg_statistic_ext_data") == [(1,)]


@pytest.mark.parametrize("form", ["directory", "plain"])
def test_the_other_formats_come_back_too(
    filled: PostgresServer, target: PostgresServer, make_site: MakeSite, form: str
) -> None:
    before = compare.snapshot(filled)
    site = make_site(filled)
    site.backup(format=form)
    site.restore(to=target, jobs=3)
    assert compare.differences(before, compare.snapshot(target)) == []


def test_rename_restores_beside(mine: Site) -> None:
    name = 'Shop\'s "copy"; x=1'
    try:
        result = mine.restore(rename={"shop": name})
        assert result["databases"][0]["name"] == name
        assert same(mine.server, "shop", mine.server, name) == []
    finally:
        run_sql(mine.server, "postgres", 'DROP DATABASE IF EXISTS "Shop\'s ""copy""; x=1"')


def test_names_that_cannot_be_are_refused(small: Site) -> None:
    with pytest.raises(RefusedError, match="1 to 63 bytes"):
        small.restore(rename={"shop": "é" * 32})
    with pytest.raises(RefusedError, match="1 to 63 bytes"):
        small.restore(rename={"shop": ""})
    with pytest.raises(UsageError, match="rename speaks of 'nothing'"):
        small.restore(databases=("shop",), rename={"nothing": "x"})
    with pytest.raises(UsageError, match="no restore mode"):
        small.restore(mode="replace")
    with pytest.raises(UsageError, match="no way to restore globals"):
        small.restore(globals="some")


def test_one_database_of_several(everything: Site, target: PostgresServer) -> None:
    everything.restore(to=target, databases=(dataset.HOSTILE,))
    assert databases_of(target) == {dataset.HOSTILE, "postgres"}
    with pytest.raises(MissingError, match="has no database 'Nowhere'") as caught:
        everything.restore(to=target, databases=("Nowhere",))
    assert dataset.ORDERING in caught.value.hint


def test_two_databases_cannot_get_one_name(everything: Site, target: PostgresServer) -> None:
    with pytest.raises(RefusedError, match="Two databases would get the name 'same'"):
        everything.restore(to=target, rename=dict.fromkeys(dataset.DATABASES, "same"))


def test_a_dry_run_shows_the_plan_and_touches_nothing(small: Site, bench: PostgresServer) -> None:
    result = small.restore(to=bench, dry_run=True)
    (planned,) = result["plan"]["databases"]
    assert (planned["name"], planned["replaces"], planned["files"]) == ("shop", False, 1)
    assert result["plan"]["refusals"] == [] and result["dry_run"]
    assert databases_of(bench) == {"postgres"}
    assert run_sql(bench, "postgres", "SELECT count(*) FROM pg_roles WHERE oid >= 16384") == [(0,)]
    refused = small.restore(dry_run=True)["plan"]["refusals"]
    assert len(refused) == 1 and "There is a database 'shop' already" in refused[0]


# --- swap -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(mine: Site, bench: PostgresServer) -> tuple[Site, PostgresServer]:
    """A server on which the shop has gone on since the backup."""
    create_shop(bench)
    run_sql(bench, "shop", "DELETE FROM shop.sales; CREATE TABLE since_then AS SELECT 'new work' AS t")
    return mine, bench


@pytest.mark.parametrize("confirm", [(), ("Shop",), ("other",)])
def test_swap_without_the_exact_name_changes_nothing(
    changed: tuple[Site, PostgresServer], confirm: tuple[str, ...]
) -> None:
    site, server = changed
    before = compare.snapshot(server)
    with pytest.raises(RefusedError, match="Confirm it by its exact name"):
        site.restore(to=server, mode="swap", confirm=confirm)
    assert compare.differences(before, compare.snapshot(server)) == []


def test_swap_keeps_the_old_database_whole(changed: tuple[Site, PostgresServer]) -> None:
    site, server = changed
    before = state_of(server, "shop")
    client = server.connect("shop")
    result = site.restore(to=server, mode="swap", confirm=("shop",))
    kept = result["databases"][0]["kept"]
    assert kept.startswith("shop_before_20")
    assert databases_of(server) == {"shop", kept, "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(server, kept)}) == []
    assert same(site.server, "shop", server, "shop") == []
    assert run_sql(server, "postgres", "SELECT datname FROM pg_database WHERE NOT datallowconn") == [("template0",)]
    assert "is kept as" in site.warnings
    with pytest.raises(Exception, match=r"(closed|terminat)"), client.cursor() as asked:  # its connection was ended
        asked.execute("SELECT 1")


def test_swap_where_there_is_nothing_creates(mine: Site, bench: PostgresServer) -> None:
    result = mine.restore(to=bench, mode="swap")
    assert result["databases"][0]["kept"] == ""
    assert databases_of(bench) == {"shop", "postgres"}


def test_swap_with_clients_that_come_back_at_once(changed: tuple[Site, PostgresServer]) -> None:
    site, server = changed

    def knock() -> bool:
        try:
            with cursor(server, "shop") as asked:
                asked.execute("SELECT 1")
        except Exception:  # noqa: BLE001 - it is being replaced
            return True
        return False

    with Poll(knock):
        site.restore(to=server, mode="swap", confirm=("shop",))
    assert same(site.server, "shop", server, "shop") == []


@pytest.fixture
def in_doubt(changed: tuple[Site, PostgresServer]) -> tuple[Site, PostgresServer]:
    """The same with a transaction that is prepared in the old database."""
    site, server = changed
    run_sql(server, "shop", "BEGIN; INSERT INTO since_then VALUES ('more'); PREPARE TRANSACTION 'it''s open'")
    return site, server


def test_a_prepared_transaction_is_named_before_anything_is_closed(in_doubt: tuple[Site, PostgresServer]) -> None:
    site, server = in_doubt
    said = r"'shop' cannot be renamed while transactions are prepared in it: 'it''s open' \(of postgres\)"
    asked: dict[str, Any] = {"to": server, "mode": "swap", "confirm": ("shop",)}
    (refusal,) = site.restore(**asked, dry_run=True)["plan"]["refusals"]
    assert re.search(said, refusal)
    with pytest.raises(RefusedError, match=said):
        site.restore(**asked)
    assert databases_of(server) == {"shop", "postgres"} and run_sql(server, "postgres", CLOSED) == []
    run_sql(server, "shop", "COMMIT PREPARED 'it''s open'")
    kept = site.restore(**asked)["databases"][0]["kept"]
    assert run_sql(server, kept, "SELECT count(*) FROM since_then") == [(2,)]
    run_sql(server, kept, "BEGIN; INSERT INTO since_then VALUES ('yet more'); PREPARE TRANSACTION 'kept'")
    with pytest.raises(RefusedError, match=r"Nothing was rolled back.* 'kept'"):
        roll_back(site, server, "shop")


def test_one_that_is_prepared_meanwhile_closes_the_database_for_a_moment_only(
    in_doubt: tuple[Site, PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server = in_doubt
    monkeypatch.setattr(preflight, "prepared", lambda *unused: "")
    begun = time.monotonic()
    with pytest.raises(PgopsError, match="End each there") as caught:
        site.restore(to=server, mode="swap", confirm=("shop",))
    assert time.monotonic() - begun < 60 and caught.value.exit_code == 1
    assert databases_of(server) == {"shop", "postgres"} and run_sql(server, "postgres", CLOSED) == []


def test_who_holds_on_to_a_database_ends_the_swap_in_time(
    in_doubt: tuple[Site, PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server = in_doubt
    monkeypatch.setattr(swapping, "prepared", lambda *unused: "")  # what holds on may be another thing
    monkeypatch.setattr(preflight, "prepared", lambda *unused: "")
    monkeypatch.setattr(swapping, "_PATIENCE", 0.0)
    with pytest.raises(PgopsError, match="being accessed by other users") as caught:
        site.restore(to=server, mode="swap", confirm=("shop",))
    assert "pg_stat_activity" in caught.value.hint and run_sql(server, "postgres", CLOSED) == []


# Nobody answers on that port, and nobody is asked: what pg_dump writes connects nowhere by itself.
SUBSCRIBED = (
    "CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1);"
    " CREATE SUBSCRIPTION \"from it\" CONNECTION 'host=127.0.0.1 port=1 dbname=x password=not-shown-1' PUBLICATION p"
    " WITH (connect = false, slot_name = 'live_slot'); ALTER SUBSCRIPTION \"from it\" ENABLE"
)


@pytest.fixture
def subscribed(bench: PostgresServer, make_site: MakeSite) -> Site:
    """A site with a set of a database that is subscribed to another."""
    create_database(bench, "follower", SUBSCRIBED)
    run_sql(bench, "postgres", "ALTER DATABASE follower SET default_transaction_read_only = on")
    site = make_site(bench)
    site.backup(databases=["follower"])
    return site


def test_a_swap_tells_which_database_goes_on_with_a_subscription(subscribed: Site) -> None:
    asked: dict[str, Any] = {"mode": "swap", "confirm": ("follower",)}
    remarks = "\n".join(subscribed.restore(**asked, dry_run=True)["plan"]["remarks"])
    assert "'follower' has the subscription \"from it\", enabled" in remarks and "slot 'live_slot'" in remarks
    kept = subscribed.restore(**asked)["databases"][0]["kept"]
    enabled = (
        "SELECT datname, subenabled, subslotname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid ORDER BY 1"
    )
    assert run_sql(subscribed.server, "postgres", enabled) == [
        ("follower", False, "live_slot"),
        (kept, True, "live_slot"),
    ]
    assert "The subscription \"from it\" of 'follower' is switched off" in subscribed.warnings
    assert 'The subscription "from it" of the kept %r goes on taking changes' % kept in subscribed.warnings
    assert "not-shown-1" not in subscribed.warnings


def test_a_failed_restore_of_a_subscriber_leaves_nothing(subscribed: Site) -> None:
    subscribed.forge(subscribed.sets()[0], lambda m: m["databases"][0]["fingerprint"]["rows"].update({"public.t": 2}))
    for _again in range(2):
        with pytest.raises(DamagedError):
            subscribed.restore(rename={"follower": "new"})
        assert databases_of(subscribed.server) == {"follower", "postgres"}
    assert "stays until the next restore" not in subscribed.warnings


def test_a_swap_that_fails_at_the_last_step_brings_the_old_one_back(
    changed: tuple[Site, PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server = changed
    before = state_of(server, "shop")
    rename = swapping._rename
    monkeypatch.setattr(
        swapping, "_rename", lambda old, new: rename(old, new) + ("; SELECT 1 / 0" if new == "shop" else "")
    )
    with pytest.raises(PgopsError, match="division by zero"):
        site.restore(to=server, mode="swap", confirm=("shop",))
    assert compare.differences({"x": before}, {"x": state_of(server, "shop")}) == []
    assert databases_of(server) == {"shop", "postgres"}
    assert run_sql(server, "postgres", CLOSED) == []


def test_a_database_that_a_killed_swap_left_closed_opens_again(
    changed: tuple[Site, PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server = changed

    def killed(*unused: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(swapping, "_together", killed)
        patched.setattr(swapping, "reopen", lambda *unused: False)
        with pytest.raises(KeyboardInterrupt):
            site.restore(to=server, mode="swap", confirm=("shop",))
    assert run_sql(server, "postgres", CLOSED) == [("shop",)]
    with pytest.raises(RefusedError):  # even one that is refused
        site.restore(to=server)
    assert run_sql(server, "postgres", CLOSED) == []
    assert "'shop' takes connections again" in site.warnings
    site.restore(to=server, mode="swap", confirm=("shop",))
    assert not [name for name in databases_of(server) if name.startswith("pgops-restore-")]


def test_an_error_tells_what_was_swapped_before_it(bench: PostgresServer, make_site: MakeSite) -> None:
    for name in ("one", "two"):
        create_database(bench, name, "CREATE TABLE t (i int)")
    site = make_site(bench)
    site.backup(databases=["one", "two"])
    # Somebody took the name that the second one is to be kept under.
    real = restore.kept_name
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(restore, "kept_name", lambda name, stamp, taken: "one" if name == "two" else real(name, stamp))
        with pytest.raises(PgopsError, match="already exists") as caught:
            site.restore(mode="swap", confirm=("one", "two"))
    assert "Already restored and in place: 'one' (the old ones are kept as 'one_before_" in caught.value.hint
    assert [d["name"] for d in caught.value.details["databases"]] == ["one"]
    assert len(databases_of(bench)) == 4  # both, the old one, postgres
    assert run_sql(bench, "postgres", CLOSED) == []


def test_swaps_in_one_second_keep_each_database_under_a_name_of_its_own(
    bench: PostgresServer, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that begin alike, too: what is kept of one is never given back to the other."""
    one, two = names = tuple("%s%d" % ("n" * 55, number) for number in (1, 2))
    for name in names:
        create_database(bench, name, "CREATE TABLE t AS SELECT '%s'::text AS x" % name)
    site = make_site(bench)
    site.backup(databases=list(names))
    monkeypatch.setattr(restore, "compact", lambda _moment: "20261122T093000Z")
    kept: list[str] = []
    for text in ("first", "second"):
        for name in names:
            run_sql(bench, name, "UPDATE t SET x = '%s of %s'" % (text, name))
        kept += [d["kept"] for d in site.restore(mode="swap", confirm=names)["databases"]]
    assert len({*kept, *names}) == 6 and databases_of(bench) == {*kept, *names, "postgres"}
    monkeypatch.setattr(rollback, "compact", lambda _moment: "20261122T093000Z")
    for text in ("second", "first"):
        given = roll_back(site, bench, one)["databases"][0]
        assert run_sql(bench, one, "SELECT x FROM t") == [("%s of %s" % (text, one),)]
        assert run_sql(bench, two, "SELECT x FROM t") == [(two,)]
        assert given["kept"] in kept and len(given["aside"]) <= 63
    with pytest.raises(MissingError, match="nothing was kept"):
        roll_back(site, bench, one)
    assert len(databases_of(bench)) == 7


@pytest.mark.parametrize("mode", ["create", "swap"])
def test_the_login_database_itself_comes_back(changed: tuple[Site, PostgresServer], mode: str) -> None:
    site, server = changed
    if mode == "create":
        run_sql(server, "postgres", "DROP DATABASE shop")
    site.restore(to=server, mode=mode, confirm=("shop",), sections={"postgres": {"login_db": "shop"}})
    assert same(site.server, "shop", server, "shop") == []


def test_the_database_postgres_is_swapped(mine: Site, bench: PostgresServer) -> None:
    result = mine.restore(to=bench, mode="swap", rename={"shop": "postgres"}, confirm=("postgres",))
    kept = result["databases"][0]["kept"]
    try:
        assert run_sql(bench, "postgres", "SELECT count(*) FROM shop.sales") == [(500,)]
    finally:
        run_sql(bench, "template1", "DROP DATABASE postgres")
        run_sql(bench, "template1", 'ALTER DATABASE "%s" RENAME TO postgres' % kept)


# --- rollback ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def swapped(changed: tuple[Site, PostgresServer]) -> tuple[Site, PostgresServer, str]:
    """A server on which the shop was replaced by its backup, and the name of what it was before."""
    site, server = changed
    kept = site.restore(to=server, mode="swap", confirm=("shop",))["databases"][0]["kept"]
    return site, server, kept


def roll_back(site: Site, server: PostgresServer, *databases: str, **request: Any) -> dict[str, Any]:
    """Roll the databases back, recorded as the program does."""
    reach = {"login_host": server.host, "login_port": server.port, "login_user": server.user}
    context = site.engine(postgres={**reach, "login_password_file": "", "login_password": server.password})
    asked = rollback.Request(databases=databases, **request)
    return runs.perform(context, "rollback", lambda c: rollback.rollback(c, asked), dry_run=asked.dry_run)


def test_rollback_gives_the_old_database_its_name_back(swapped: tuple[Site, PostgresServer, str]) -> None:
    site, server, kept = swapped
    old, new = state_of(server, kept), state_of(server, "shop")
    client = server.connect("shop")
    result = roll_back(site, server, "shop")
    aside = result["databases"][0]["aside"]
    assert result["databases"] == [{"database": "shop", "kept": kept, "aside": aside}]
    assert databases_of(server) == {"shop", aside, "postgres"}
    assert compare.differences({"x": old}, {"x": state_of(server, "shop")}) == []
    assert compare.differences({"x": new}, {"x": state_of(server, aside)}) == []
    assert run_sql(server, "shop", "SELECT t FROM since_then") == [("new work",)]
    assert run_sql(server, "postgres", CLOSED) == []
    assert "is kept as" in site.warnings
    with pytest.raises(Exception, match=r"(closed|terminat)"), client.cursor() as asked:
        asked.execute("SELECT 1")
    with pytest.raises(MissingError, match="nothing was kept of 'shop'"):
        roll_back(site, server, "shop")


def test_rollback_plans_without_touching_anything(swapped: tuple[Site, PostgresServer, str]) -> None:
    site, server, kept = swapped
    before = compare.snapshot(server)
    plan = roll_back(site, server, "shop", dry_run=True)["databases"]
    assert plan[0]["kept"] == kept and plan[0]["aside"].startswith("shop_rolled_back_20")
    assert compare.differences(before, compare.snapshot(server)) == []


def test_rollback_takes_the_newest_or_the_one_that_is_named(swapped: tuple[Site, PostgresServer, str]) -> None:
    site, server, kept = swapped
    for name in ("shop_before_20200101T000000Z", "shop_before_99991231T235959Z_not", "sho_before_99991231T235959Z"):
        create_database(server, name)
    assert roll_back(site, server, "shop", dry_run=True)["databases"][0]["kept"] == kept
    older = roll_back(site, server, "shop", kept={"shop": "shop_before_20200101T000000Z"})
    assert older["databases"][0]["kept"] == "shop_before_20200101T000000Z"
    assert kept in databases_of(server)


def test_rollback_of_a_database_that_is_gone_by_now(swapped: tuple[Site, PostgresServer, str]) -> None:
    site, server, kept = swapped
    old = state_of(server, kept)
    run_sql(server, "postgres", "DROP DATABASE shop")
    assert roll_back(site, server, "shop")["databases"][0]["aside"] == ""
    assert compare.differences({"x": old}, {"x": state_of(server, "shop")}) == []


def test_rollback_of_several_touches_none_when_one_cannot_be(swapped: tuple[Site, PostgresServer, str]) -> None:
    site, server, _kept = swapped
    before = compare.snapshot(server)
    with pytest.raises(MissingError, match="nothing was kept of 'other'"):
        roll_back(site, server, "shop", "other")
    with pytest.raises(MissingError, match="there is no 'shop_before_x'"):
        roll_back(site, server, "shop", kept={"shop": "shop_before_x"})
    with pytest.raises(UsageError, match="'others'"):
        roll_back(site, server, "shop", kept={"others": "x"})
    with pytest.raises(UsageError, match="Nothing is named"):
        roll_back(site, server)
    assert compare.differences(before, compare.snapshot(server)) == []


def test_a_rollback_that_fails_at_the_last_step_leaves_all_as_it_was(
    swapped: tuple[Site, PostgresServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server, _kept = swapped
    before = compare.snapshot(server)
    rename = swapping._rename
    monkeypatch.setattr(
        swapping, "_rename", lambda old, new: rename(old, new) + ("; SELECT 1 / 0" if new == "shop" else "")
    )
    with pytest.raises(PgopsError, match="division by zero"):
        roll_back(site, server, "shop")
    assert compare.differences(before, compare.snapshot(server)) == []
    assert run_sql(server, "postgres", CLOSED) == []


def test_a_long_name_is_known_again(changed: tuple[Site, PostgresServer]) -> None:
    site, server = changed
    long = "ü" * 31
    run_sql(server, "postgres", 'ALTER DATABASE shop RENAME TO "%s"' % long)
    kept = site.restore(to=server, mode="swap", rename={"shop": long}, confirm=(long,))["databases"][0]["kept"]
    assert roll_back(site, server, long)["databases"][0]["kept"] == kept
    assert run_sql(server, long, "SELECT t FROM since_then") == [("new work",)]


# --- into an empty one ------------------------------------------------------------------------------------------------


def test_into_an_empty_database(mine: Site, bench: PostgresServer) -> None:
    create_database(bench, "ready")
    run_sql(bench, "postgres", "ALTER DATABASE ready SET work_mem = '7MB'; COMMENT ON DATABASE ready IS 'ours'")
    result = mine.restore(to=bench, mode="into_empty", rename={"shop": "ready"})
    assert result["databases"][0]["jobs"] == 1
    assert same(mine.server, "shop", bench, "ready") == []
    assert run_sql(bench, "ready", "SHOW work_mem") == [("7MB",)]  # what belongs to the database stays


@pytest.mark.parametrize(
    "content",
    [
        "CREATE TABLE t (i int)",
        "CREATE SCHEMA s",
        "SELECT lo_create(5)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE e AS ENUM ('a')",
    ],
)
def test_into_one_that_is_not_empty_is_refused(mine: Site, bench: PostgresServer, content: str) -> None:
    create_database(bench, "taken", content)
    with pytest.raises(RefusedError, match="'taken' is not empty"):
        mine.restore(to=bench, mode="into_empty", rename={"shop": "taken"})


def test_into_one_that_is_not_there_is_refused(mine: Site, bench: PostgresServer) -> None:
    with pytest.raises(RefusedError, match="no database 'shop' to restore into"):
        mine.restore(to=bench, mode="into_empty")


def test_a_failure_rolls_back_to_empty(mine: Site, bench: PostgresServer) -> None:
    """The archive breaks off after most of its tables are made; nothing of them may stay."""
    create_database(bench, "ready")
    set_id = mine.sets()[0]
    dump = subprocess.run(
        ["zstd", "-dc", str(mine.set_folder(set_id) / "databases" / "shop.dump.zst")], capture_output=True, check=True
    ).stdout
    short = subprocess.run(["zstd", "-qc"], input=dump[: len(dump) - 2000], capture_output=True, check=True).stdout
    mine.forge(set_id, files={"databases/shop.dump.zst": short})
    with pytest.raises(CommandError):
        mine.restore(to=bench, mode="into_empty", rename={"shop": "ready"})
    assert run_sql(bench, "ready", "SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'") == [(0,)]
    assert run_sql(bench, "ready", "SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    # And it is still good for a right one.
    mine.restore(to=bench, set=set_id, mode="into_empty", rename={"shop": "ready"})
    assert same(mine.server, "shop", bench, "ready") == []


def test_a_difference_in_an_empty_target_is_told_as_it_is(mine: Site, bench: PostgresServer) -> None:
    create_database(bench, "ready")
    mine.forge(mine.sets()[0], lambda m: m["databases"][0]["fingerprint"]["rows"].update({"shop.sales": 501}))
    with pytest.raises(DamagedError, match=r"had 501 rows") as caught:
        mine.restore(to=bench, mode="into_empty", rename={"shop": "ready"})
    assert "The data stay in 'ready'" in caught.value.hint and "No database was replaced" not in caught.value.hint


def test_a_failure_takes_back_schemas_too(shop: PostgresServer, bench: PostgresServer, make_site: MakeSite) -> None:
    """A dump of some tables does not bring their schema, which is made before the transaction."""
    create_database(bench, "ready")
    site = make_site(shop)
    set_id = site.backup(databases=["shop"], tables=["shop.sales"])["set"]
    site.forge(
        set_id,
        files={
            "databases/shop.dump.zst": subprocess.run(
                ["zstd", "-qc"], input=b"PGDMP", capture_output=True, check=True
            ).stdout
        },
    )
    with pytest.raises(CommandError):
        site.restore(to=bench, mode="into_empty", rename={"shop": "ready"})
    assert run_sql(bench, "ready", "SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'") == [(0,)]


# --- globals and ownership --------------------------------------------------------------------------------------------


def password_of(server: PostgresServer, role: str) -> Any:
    return run_sql(server, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = '%s'" % role)[0][0]


def test_missing_globals_leave_existing_roles_alone(mine: Site, bench: PostgresServer) -> None:
    run_sql(bench, "postgres", "CREATE ROLE clerk LOGIN PASSWORD 'another' CONNECTION LIMIT 3")
    before = password_of(bench, "clerk")
    result = mine.restore(to=bench)
    assert result["roles_created"] == ["chief"]
    assert password_of(bench, "clerk") == before
    assert run_sql(bench, "postgres", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'clerk'") == [(3,)]
    assert run_sql(bench, "postgres", "SELECT pg_has_role('chief', 'clerk', 'MEMBER')") == [(True,)]


# A group whose memberships are granted by a member that may, a setting that no other system knows, privileges of all kinds.
OF_THE_SERVER = """
CREATE ROLE staff; CREATE ROLE lead LOGIN; CREATE ROLE "my-app" LOGIN; CREATE ROLE joe LOGIN;
GRANT staff TO lead WITH ADMIN OPTION; GRANT staff TO "my-app"; GRANT pg_write_all_data TO "my-app";
SET ROLE lead; GRANT staff TO joe; RESET ROLE;
GRANT SET ON PARAMETER log_statement TO "my-app"; GRANT SET ON PARAMETER log_statement TO joe;
GRANT SET ON PARAMETER log_duration TO PUBLIC;
ALTER ROLE joe SET timezone = 'UTC'; ALTER ROLE joe SET work_mem = '3MB';
UPDATE pg_db_role_setting SET setconfig = '{TimeZone=Mars/Olympus,work_mem=3MB}' WHERE setrole = 'joe'::regrole;
"""
KEPT_SPACE = "SELECT spcacl::text, spcoptions::text, shobj_description(oid, 'pg_tablespace') FROM pg_tablespace WHERE spcname = 'far'"
MEMBERS = """SELECT roleid::regrole::text, member::regrole::text, grantor::regrole::text FROM pg_auth_members
WHERE member::regrole::text IN ('lead', '"my-app"', 'joe') ORDER BY 1, 2, 3"""


@pytest.fixture
def of_the_server(bench: PostgresServer, target: PostgresServer, make_site: MakeSite) -> Iterator[Site]:
    """A site with a set of roles and a tablespace; another server has some of them, and the tablespace."""
    for server in (bench, target):
        with cursor(server, "postgres") as asked:
            asked.execute("SET allow_in_place_tablespaces = on")
            asked.execute("CREATE TABLESPACE far LOCATION ''")
    run_sql(bench, "postgres", OF_THE_SERVER)
    run_sql(bench, "postgres", "GRANT CREATE ON TABLESPACE far TO joe, lead; COMMENT ON TABLESPACE far IS 'far away'")
    run_sql(bench, "postgres", "ALTER TABLESPACE far SET (random_page_cost = 2)")
    create_database(bench, "d", "CREATE TABLE t AS SELECT 1 AS i")
    settings = "ALTER DATABASE d SET timezone = 'UTC'; ALTER DATABASE d SET work_mem = '4MB'; ALTER ROLE joe IN DATABASE d SET work_mem = '5MB'"
    run_sql(bench, "postgres", settings)
    of_database = "UPDATE pg_db_role_setting SET setconfig = '{TimeZone=Mars/Olympus,work_mem=4MB}' WHERE setrole = 0 AND setdatabase <> 0"
    run_sql(bench, "postgres", of_database)
    site = make_site(bench)
    site.backup(databases=["d"])
    run_sql(target, "postgres", 'CREATE ROLE staff; CREATE ROLE lead LOGIN; CREATE ROLE "my-app" LOGIN')
    yield site
    for server in (bench, target):
        for (name,) in run_sql(server, "postgres", "SELECT datname FROM pg_database WHERE datname IN ('d', 'again')"):
            run_sql(server, "postgres", "DROP DATABASE %s" % name)
        run_sql(server, "postgres", "DROP TABLESPACE far")
        run_sql(server, "postgres", "REVOKE SET ON PARAMETER log_duration FROM PUBLIC")


def test_a_server_with_some_of_the_roles_gets_the_others(of_the_server: Site, target: PostgresServer) -> None:
    """What existing roles lost stays lost, and who may not grant here what it granted there hinders nobody."""
    create_database(target, "others")  # people work on it already
    plan = of_the_server.restore(to=target, dry_run=True)["plan"]
    assert plan["refusals"] == []
    result = of_the_server.restore(to=target)
    assert result["roles_created"] == ["joe"] and result["remarks"] == plan["remarks"]
    assert run_sql(target, "postgres", MEMBERS) == [("staff", "joe", "postgres")]
    acl = "SELECT parname, paracl::text FROM pg_parameter_acl ORDER BY 1"
    assert run_sql(target, "postgres", acl) == [("log_statement", "{postgres=sA/postgres,joe=s/postgres}")]
    assert run_sql(target, "postgres", KEPT_SPACE) == [("{postgres=C/postgres,joe=C/postgres}", None, None)]
    for said in (
        'does not take the setting TimeZone of the role \'joe\' (invalid value for parameter "TimeZone": "Mars/Olympus")',
        "'d' comes back without the setting TimeZone=Mars/Olympus (invalid value",
        "Memberships that 'lead' had granted come back without naming a grantor who may not grant them here",
        "privileges of the tablespace 'far' stay as they are here",
        "What everyone may do with the parameter log_duration stays as it is here",
    ):
        assert said in of_the_server.warnings
    settings = "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting ORDER BY setdatabase <> 0, 1"
    assert run_sql(target, "postgres", settings) == [
        *(("joe", ["work_mem=3MB"]), ("-", ["work_mem=4MB"]), ("joe", ["work_mem=5MB"]))
    ]
    # With all of them, what is there becomes as it was.
    of_the_server.restore(to=target, globals="all", rename={"d": "again"})
    assert run_sql(target, "postgres", MEMBERS) == [
        ("pg_write_all_data", '"my-app"', "postgres"),
        *(("staff", '"my-app"', "postgres"), ("staff", "joe", "lead"), ("staff", "joe", "postgres")),
        ("staff", "lead", "postgres"),
    ]
    assert run_sql(target, "postgres", acl)[0][0] == "log_duration"
    ((privileges, options, comment),) = run_sql(target, "postgres", KEPT_SPACE)
    assert "lead=C/postgres" in privileges and (options, comment) == ("{random_page_cost=2}", "far away")


def test_globals_go_to_a_server_of_another_superuser(of_the_server: Site, target: PostgresServer) -> None:
    """From PostgreSQL 16 on only the one of initdb, or who has the admin option, can be named as a grantor."""
    run_sql(target, "postgres", "CREATE ROLE helper SUPERUSER LOGIN PASSWORD 'helps'")
    own = password_of(target, "postgres")
    helper = {"user": "helper", "password": "helps"}
    with cursor(target, "postgres", **helper) as asked:
        asked.execute("ALTER ROLE postgres RENAME TO boss")
        asked.execute("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD %s", (own,))
    try:
        of_the_server.restore(to=target)
        assert run_sql(target, "postgres", MEMBERS) == [("staff", "joe", "boss")]
        of_the_server.restore(to=target, globals="all", rename={"d": "again"})
        found = run_sql(target, "postgres", MEMBERS)
        assert ("staff", "lead", "boss") in found and ("staff", "joe", "lead") in found
        assert "Memberships that 'postgres' had granted" in of_the_server.warnings
    finally:
        with cursor(target, "postgres", **helper) as asked:
            asked.execute("REASSIGN OWNED BY postgres TO boss")
            for name in ("d", "again"):
                asked.execute("DROP DATABASE IF EXISTS %s" % name)
            asked.execute("DROP OWNED BY postgres; DROP ROLE postgres; ALTER ROLE boss RENAME TO postgres")


def test_a_setting_that_the_host_lacks_is_no_fault_of_the_set(of_the_server: Site) -> None:
    (result,) = of_the_server.verify()["sets"]
    assert result["outcome"] == "passed", result
    assert sum("TimeZone" in remark for remark in result["remarks"]) == 2


def test_all_globals_make_existing_roles_as_they_were(mine: Site, bench: PostgresServer) -> None:
    run_sql(bench, "postgres", "CREATE ROLE clerk NOLOGIN CREATEDB PASSWORD 'another'")
    own = password_of(bench, "postgres")
    assert own != password_of(mine.server, "postgres")
    mine.restore(to=bench, globals="all")
    assert password_of(bench, "clerk") == password_of(mine.server, "clerk")
    assert run_sql(bench, "postgres", "SELECT rolcreatedb, rolcanlogin FROM pg_roles WHERE rolname = 'clerk'") == [
        (False, True)
    ]
    assert password_of(bench, "postgres") == own  # the role that does the work could not log in again otherwise


def test_settings_of_all_roles_come_back_unless_there_are_some(everything: Site, bench: PostgresServer) -> None:
    run_sql(bench, "postgres", "ALTER ROLE ALL SET \"app.everyone\" = 'here'; ALTER ROLE ALL SET work_mem = '5MB'")
    asked = "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0 ORDER BY 1"
    everything.restore(to=bench, databases=(dataset.HOSTILE,))
    assert run_sql(bench, "postgres", asked) == [("app.everyone=here",), ("work_mem=5MB",)]
    everything.restore(to=bench, databases=(dataset.HOSTILE,), globals="all", rename={dataset.HOSTILE: "again"})
    assert run_sql(bench, "postgres", asked) == [("app.everyone=yes",), ("work_mem=5MB",)]
    # A server that others use already is not changed for everyone.
    run_sql(bench, "postgres", "ALTER ROLE ALL RESET ALL")
    everything.restore(to=bench, databases=(dataset.HOSTILE,), rename={dataset.HOSTILE: "third"})
    assert run_sql(bench, "postgres", asked) == []
    assert "left alone: app.everyone=yes" in everything.warnings


def test_without_globals_missing_roles_are_named(mine: Site, bench: PostgresServer) -> None:
    with pytest.raises(RefusedError, match=r"lacks the roles 'chief', 'clerk'\. Restore the globals too"):
        mine.restore(to=bench, globals="none")
    assert databases_of(bench) == {"postgres"}
    run_sql(bench, "postgres", ROLES)
    assert mine.restore(to=bench, globals="none")["roles_created"] == []
    assert same(mine.server, "shop", bench, "shop") == []


NAMED = """
CREATE ROLE "of policies"; CREATE ROLE grants; CREATE ROLE granted; CREATE ROLE sets; CREATE ROLE mapped;
CREATE TABLE t AS SELECT 1 AS i; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO "of policies";
ALTER DEFAULT PRIVILEGES FOR ROLE grants GRANT SELECT ON TABLES TO granted;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR mapped SERVER s;
ALTER ROLE sets IN DATABASE named SET work_mem = '5MB';
"""


def test_roles_that_own_nothing_are_needed_too(
    bench: PostgresServer, target: PostgresServer, make_site: MakeSite
) -> None:
    create_database(bench, "named", NAMED)
    site = make_site(bench)
    site.backup(databases=["named"])
    asked: dict[str, Any] = {"to": target, "globals": "none", "dry_run": True}
    (refusal,) = site.restore(**asked)["plan"]["refusals"]
    assert "lacks the roles 'granted', 'grants', 'of policies', 'sets'. Restore the globals too" in refusal
    # Policies and mappings are made without owners and privileges, too.
    (refusal,) = site.restore(**asked, ownership=False)["plan"]["refusals"]
    assert "lacks the role 'of policies', which policies are for. Restore the globals too" in refusal
    run_sql(target, "postgres", 'CREATE ROLE "of policies"')
    with pytest.raises(CommandError, match='role "mapped" does not exist') as caught:
        site.restore(to=target, globals="none", ownership=False)
    assert "Restore the globals too" in caught.value.hint and databases_of(target) == {"postgres"}


def test_a_role_that_even_the_globals_lack_is_named(mine: Site, bench: PostgresServer) -> None:
    mine.forge(mine.sets()[0], lambda m: m["databases"][0]["properties"].update(owner="gone"))
    with pytest.raises(RefusedError, match="lacks the role 'gone'"):
        mine.restore(to=bench)
    assert run_sql(bench, "postgres", "SELECT count(*) FROM pg_roles WHERE oid >= 16384") == [(0,)]


def test_without_ownership_no_role_is_needed(mine: Site, bench: PostgresServer) -> None:
    mine.restore(to=bench, globals="none", ownership=False)
    assert run_sql(
        bench, "shop", "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'goods'"
    ) == [("postgres",)]
    assert run_sql(bench, "shop", "SELECT relacl FROM pg_class WHERE relname = 'sales'") == [(None,)]
    assert run_sql(bench, "shop", "SELECT count(*) FROM shop.sales") == [(500,)]


def test_plain_sql_cannot_be_restored_without_ownership(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite
) -> None:
    site = make_site(shop)
    site.backup(databases=["shop"], format="plain")
    with pytest.raises(RefusedError, match="plain SQL"):
        site.restore(to=bench, globals="none", ownership=False)
    planned = site.restore(to=bench, globals="none", ownership=False, dry_run=True)
    assert "plain SQL" in planned["plan"]["refusals"][0]
    assert databases_of(bench) == {"postgres"}


def test_a_role_that_creates_databases_restores_its_own(bench: PostgresServer, make_site: MakeSite) -> None:
    """Not a superuser: what it owns comes back, what it may not do is refused at once."""
    run_sql(bench, "postgres", "CREATE ROLE tenant LOGIN PASSWORD 'tenants' CREATEDB")
    create_database(bench, "own")
    run_sql(bench, "postgres", "ALTER DATABASE own OWNER TO tenant")
    with cursor(bench, "own", user="tenant") as asked:
        asked.execute("CREATE SCHEMA mine; CREATE TABLE mine.t AS SELECT i FROM generate_series(1, 9) i")
    site = make_site(bench)
    site.backup(databases=["own"])
    secret = site.root / "tenant"
    secret.write_text("tenants")
    secret.chmod(0o600)
    login = {"postgres": {"login_user": "tenant", "login_password_file": str(secret)}}
    site.restore(sections=login, globals="none", rename={"own": "again"})
    assert run_sql(bench, "again", "SELECT count(*) FROM mine.t") == [(9,)]
    run_sql(bench, "postgres", "ALTER ROLE tenant NOCREATEDB")
    with pytest.raises(RefusedError, match="may not create databases"):
        site.restore(sections=login, globals="none", rename={"own": "third"})


# --- preflight --------------------------------------------------------------------------------------------------------


def test_all_reasons_are_told_at_once(mine: Site, bench: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.forge(
        mine.sets()[0], lambda m: m["databases"][0]["fingerprint"]["extensions"].update({"postgis": {"version": "3"}})
    )
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 1000)
    create_database(bench, "shop")
    with pytest.raises(RefusedError) as caught:
        mine.restore(to=bench, globals="none", jobs=500)
    for said in ("already", "roles 'chief', 'clerk'", "postgis", "connections are free", "Make room first"):
        assert said in caught.value.message


def test_a_newer_set_does_not_go_to_an_older_server(small: Site, servers: Servers) -> None:
    old = servers.get("filled", 16)
    before = databases_of(old)
    sections = {"postgres": {"bin_dir": str(small.server.bindir)}}
    with pytest.raises(RefusedError, match=r"from PostgreSQL 18.* the server is 16"):
        small.restore(to=old, sections=sections)
    assert databases_of(old) == before


def test_a_locale_that_the_server_lacks_is_named(mine: Site, bench: PostgresServer) -> None:
    mine.forge(mine.sets()[0], lambda m: m["databases"][0]["properties"].update(collate="xx_XX.UTF-8"))
    with pytest.raises(RefusedError, match=r"needs the locale xx_XX\.UTF-8.*locale-gen"):
        mine.restore(to=bench)
    mine.forge(
        mine.sets()[-1], lambda m: m["databases"][0]["properties"].update(collate="POSIX", provider="icu", locale="de")
    )
    with pytest.raises(RefusedError, match="needs ICU collations"):
        mine.restore(to=bench)
    assert run_sql(bench, "postgres", "SELECT count(*) FROM pg_collation WHERE collname = 'pgops_asks'") == [(0,)]


def test_a_database_with_limits_of_its_own(bench: PostgresServer, make_site: MakeSite) -> None:
    """Its own settings must not end the work on it; and a failed proof drops a template too."""
    create_database(bench, "tight", "CREATE TABLE t AS SELECT i FROM generate_series(1, 200000) i")
    run_sql(
        bench,
        "postgres",
        "ALTER DATABASE tight SET statement_timeout = '1ms'; ALTER DATABASE tight SET lock_timeout = '1ms';"
        " ALTER DATABASE tight IS_TEMPLATE true",
    )
    site = make_site(bench)
    set_id = site.backup(databases=["tight"])["set"]
    site.restore(rename={"tight": "again"})
    site.forge(set_id, lambda m: m["databases"][0]["fingerprint"]["rows"].update({"public.t": 1}))
    with pytest.raises(DamagedError):
        site.restore(rename={"tight": "third"})
    left = "SELECT datname FROM pg_database WHERE datname LIKE 'pgops-restore-%' OR datname = 'third'"
    assert run_sql(bench, "postgres", left) == []


_SILENT = """
CREATE TABLE audit (tag text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit VALUES (tg_tag); END';
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not here''; END';
CREATE MATERIALIZED VIEW sessions AS SELECT name, setting FROM pg_settings WHERE name LIKE '%timeout' OR name = 'event_triggers';
CREATE EVENT TRIGGER ddl ON ddl_command_end EXECUTE FUNCTION note();
CREATE EVENT TRIGGER views ON ddl_command_start WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION forbid();
"""
_LOGINS = "CREATE EVENT TRIGGER ins ON login EXECUTE FUNCTION note()"
# The last reads the second, which has to wait for the first, and pg_dump does not see it.
_READERS = """
CREATE MATERIALIZED VIEW one AS SELECT 1 AS i, pg_sleep(0.5)::text;
CREATE MATERIALIZED VIEW two AS SELECT i FROM one;
CREATE FUNCTION count_it() RETURNS bigint LANGUAGE sql SET search_path = public AS 'SELECT count(*) FROM two';
CREATE MATERIALIZED VIEW using_two AS SELECT count_it();
"""
_LATIN = r"""
CREATE TABLE t (i int, n text); INSERT INTO t VALUES (1, E'caf\351'), (2, E'na\357ve');
DO $$ BEGIN
EXECUTE format('CREATE TABLE %I (%I int, n text)', E'caf\351', E'\344');
EXECUTE format('INSERT INTO %I VALUES (1, %L)', E'caf\351', E'\377');
EXECUTE format('COMMENT ON TABLE t IS %L', E'd\351j\340');
EXECUTE format('COMMENT ON DATABASE latin IS %L', E'd\351j\340');
EXECUTE format('ALTER DATABASE latin SET my.word = %L', E'caf\351');
EXECUTE format('CREATE FUNCTION said() RETURNS text LANGUAGE sql AS %L', E'SELECT ''\351''::text');
EXECUTE format('CREATE TABLE %I (i int)', E'na\357ve');
EXECUTE format('CREATE TABLE %I (i int)', E'gr\303\266\303\237e');
END $$;
"""


BYTES = """
SELECT encode(convert_to(string_agg(said, ' ' ORDER BY said COLLATE "C"), 'SQL_ASCII'), 'escape') FROM (
SELECT relname || ' ' || attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE c.oid >= 16384 AND relkind = 'r' UNION ALL
SELECT n FROM t UNION ALL SELECT description FROM pg_description WHERE objoid >= 16384 UNION ALL SELECT said()
) _(said)
"""


@pytest.mark.parametrize(("form", "jobs"), [("custom", 2), ("plain", 1)])
def test_what_the_server_and_the_databases_have_in_the_way(
    bench: PostgresServer, make_site: MakeSite, form: str, jobs: int
) -> None:
    """Limits of time, triggers that hear of logins and DDL, an order that pg_dump does not know, bytes of no encoding."""
    run_sql(bench, "postgres", "; ".join("ALTER ROLE ALL SET %s = '1h'" % name for name in LIMITS))
    create_database(bench, "silent", _SILENT + _LOGINS)
    create_database(bench, "readers", _READERS)
    run_sql(bench, "postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    run_sql(bench, "latin", _LATIN)
    with cursor(bench, "postgres") as asked:
        asked.execute("SET allow_in_place_tablespaces = on")
        asked.execute("CREATE TABLESPACE \"apart's\" LOCATION ''")
    try:
        create_database(bench, "spread", 'CREATE TABLE t TABLESPACE "apart\'s" AS SELECT 1 AS i')
        site = make_site(bench, backup={"format": form, "databases": ["latin", "readers", "silent", "spread"]})
        site.backup()
        site.restore(rename={name: "%s 2" % name for name in ("latin", "readers", "silent", "spread")}, jobs=jobs)
        settings = dict(run_sql(bench, "silent 2", "SELECT name, setting FROM sessions"))
        assert {name: settings[name] for name in LIMITS} == dict.fromkeys(LIMITS, "0")
        assert settings["event_triggers"] == "off"
        assert run_sql(bench, "latin 2", BYTES) == run_sql(bench, "latin", BYTES)
        comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'latin 2'"
        assert run_sql(bench, "postgres", comment) == [(r"d\xe9j\xe0",)]
        if form == "custom":
            site.restore(databases=("latin",), rename={"latin": "part"}, tables=('public."caf\udce9"',))
            tables = "SELECT array_agg(relnatts) FROM pg_class WHERE relkind = 'r' AND oid >= 16384"
            assert run_sql(bench, "part", tables) == [([2],)]
        (report,) = site.verify("restore")["sets"]
        assert (report["outcome"], report["findings"]) == ("passed", [])
        site.forge(site.sets()[0], lambda m: m["roles"]["tablespaces"].append("gone"))
        remarks = site.restore(dry_run=True)["plan"]["remarks"]
        assert "The server lacks the tablespaces gone; everything goes to the default one." in remarks
        assert any("Create them first" in remark for remark in remarks) == (form == "plain")
    finally:
        empty(bench)
        run_sql(bench, "postgres", 'DROP TABLESPACE "apart\'s"')


def test_event_triggers_of_an_older_server(servers: Servers, make_site: MakeSite) -> None:
    old = servers.get("filled", 16)
    create_database(old, "silent", _SILENT)
    try:
        site = make_site(old, backup={"databases": ["silent"]})
        site.backup()
        site.restore(rename={"silent": "again"}, jobs=2)
        assert run_sql(old, "again", "SELECT tag FROM audit") == run_sql(old, "silent", "SELECT tag FROM audit")
    finally:
        for name in ("silent", "again"):
            run_sql(old, "postgres", "DROP DATABASE IF EXISTS %s" % name)


def test_no_limit_ends_a_session_of_ours(bench: PostgresServer, make_site: MakeSite) -> None:
    run_sql(bench, "postgres", "; ".join("ALTER ROLE ALL SET %s = '1h'" % name for name in LIMITS))
    with connect(make_site(bench).engine().config.postgres) as session:
        assert [session.value("SELECT current_setting(%s)", (name,)) for name in LIMITS] == ["0"] * len(LIMITS)


# --- what goes wrong on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "compression"), [("custom", "auto"), ("custom", "none"), ("directory", "auto"), ("plain", "auto")]
)
def test_a_damaged_byte_replaces_nothing(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, form: str, compression: str
) -> None:
    create_shop(bench)
    run_sql(bench, "shop", "CREATE TABLE since_then (i int)")
    before = state_of(bench, "shop")
    site = make_site(shop)
    set_id = site.backup(databases=["shop"], format=form, compression=compression)["set"]
    database = site.manifest(set_id).database("shop")
    assert database is not None
    files = [site.set_folder(set_id) / f.path for f in site.manifest(set_id).files_of(database.dump)]
    flip(max(files, key=lambda p: p.stat().st_size))
    with pytest.raises((DamagedError, CommandError)):
        site.restore(to=bench, mode="swap", confirm=("shop",))
    assert databases_of(bench) == {"shop", "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(bench, "shop")}) == []


def test_a_restore_that_is_not_what_was_backed_up_replaces_nothing(changed: tuple[Site, PostgresServer]) -> None:
    site, server = changed
    before = state_of(server, "shop")
    site.forge(site.sets()[0], lambda m: m["databases"][0]["fingerprint"]["rows"].update({"shop.sales": 501}))
    with pytest.raises(DamagedError, match=r"table shop\.sales: had 501 rows, has 500") as caught:
        site.restore(to=server, mode="swap", confirm=("shop",))
    assert "No database was replaced" in caught.value.hint
    assert databases_of(server) == {"shop", "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(server, "shop")}) == []


def test_what_a_killed_restore_leaves_is_marked_and_dropped_by_the_next(mine: Site, bench: PostgresServer) -> None:
    configuration = mine.data(**Site(mine.root / "there", bench).postgres_section())
    # Somebody's own database of a like name, without our mark, is none of our business.
    create_database(bench, "pgops-restore-0123456789ab")
    request = {"place": "local", "set": "latest"}
    with process_of("restore", configuration, request, stop_at="restore of shop") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BusyError, match="process %d" % process.pid):
            mine.restore(to=bench)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with cursor(bench, "postgres") as asked:
        asked.execute('CREATE DATABASE "pgops-restore-aaaaaaaaaaaa"')
        asked.execute(
            "COMMENT ON DATABASE \"pgops-restore-aaaaaaaaaaaa\" IS 'pgops restore in progress on test-host for %s'"
            % mine.instance
        )
        asked.execute('CREATE DATABASE "pgops-restore-bbbbbbbbbbbb"')
        asked.execute(
            "COMMENT ON DATABASE \"pgops-restore-bbbbbbbbbbbb\" IS 'pgops restore in progress on test-host for another'"
        )
    mine.restore(to=bench)
    assert databases_of(bench) == {"postgres", "shop", "pgops-restore-0123456789ab", "pgops-restore-bbbbbbbbbbbb"}
    assert "cut short left behind" in mine.warnings


# --- which set --------------------------------------------------------------------------------------------------------


def test_which_set_is_restored(mine: Site, bench: PostgresServer) -> None:
    first = mine.sets()[0]
    second = mine.forge(first)
    assert mine.restore(to=bench, dry_run=True)["set"] == second
    assert mine.restore(to=bench, set=first, dry_run=True)["set"] == first
    with pytest.raises(MissingError, match=r"No set in .* is verified") as caught:
        mine.restore(to=bench, set="latest_verified")
    assert "verify" in caught.value.hint
    mine.verify("restore", sets=(first,))
    assert mine.restore(to=bench, set="latest_verified", dry_run=True)["set"] == first
    with pytest.raises(MissingError, match="There is no set 20200101T000000Z-logical"):
        mine.restore(to=bench, set="20200101T000000Z-logical")
    with pytest.raises(UsageError, match="'yesterday' names no set"):
        mine.restore(to=bench, set="yesterday")


def test_no_set_at_all(shop: PostgresServer, make_site: MakeSite) -> None:
    with pytest.raises(MissingError, match="There is no set in"):
        make_site(shop).restore()


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(everything: Site, store: MotoS3, tmp_path: Path) -> Site:
    """A site whose set is in S3 only."""
    site = Site(tmp_path / "remote", everything.server)
    subprocess.run(["mkdir", "-p", str(site.home)], check=True)
    subprocess.run(["cp", "-a", str(everything.home / "sets"), str(site.home)], check=True)
    site.use_s3(store)
    site.push()
    subprocess.run(["rm", "-r", str(site.home)], check=True)
    return site


def gets(proxy: Proxy) -> set[str]:
    return {
        asked.path.rsplit("/sets/", 1)[1].split("/", 1)[1]
        for asked in proxy.asked
        if asked.kind == "get" and "/sets/" in asked.path
    }


@pytest.mark.parametrize("jobs", [1, 3])
def test_from_s3_only_what_is_needed_is_fetched(remote: Site, target: PostgresServer, store: MotoS3, jobs: int) -> None:
    before = state_of(remote.server, dataset.HOSTILE)
    with Proxy(store.endpoint_url) as proxy:
        remote.use_s3(store, proxy.url)
        result = remote.restore(place="s3", to=target, databases=(dataset.HOSTILE,), jobs=jobs)
    (dump,) = [path for path in gets(proxy) if path.startswith("databases/")]
    assert gets(proxy) == {"manifest.json", "globals.sql", dump}
    assert "ordering" not in dump
    assert compare.differences({"x": before}, {"x": state_of(target, dataset.HOSTILE)}) == []
    assert result["databases"][0]["way"] == ("file" if jobs > 1 else "stream")
    assert list((remote.root / "state" / remote.instance / "work").iterdir()) == []


def test_everything_comes_back_from_s3_as_a_stream_where_space_is_short(
    remote: Site, target: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compare.snapshot(remote.server)
    monkeypatch.setattr(source, "free_bytes", lambda path: 1024 * 1024)
    work = remote.root / "state" / remote.instance / "work"
    with Poll(lambda: [p for p in work.rglob("*") if p.is_file()]) as poll:
        result = remote.restore(place="s3", to=target, jobs=3)
    assert not poll.found and poll.looked > 10
    assert {d["way"] for d in result["databases"]} == {"stream"} and {d["jobs"] for d in result["databases"]} == {1}
    assert compare.differences(before, compare.snapshot(target)) == []


def test_a_flipped_byte_in_s3_replaces_nothing(remote: Site, target: PostgresServer, store: MotoS3) -> None:
    client = store.client()
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="database-backups/%s/sets/" % remote.instance)["Contents"]
    key = next(item["Key"] for item in listed if "ordering" in item["Key"])
    held = client.get_object(Bucket=BUCKET, Key=key)
    body = bytearray(held["Body"].read())
    body[len(body) // 2] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(body), Metadata=held["Metadata"])
    for jobs in (1, 3):
        with pytest.raises((DamagedError, CommandError)):
            remote.restore(place="s3", to=target, databases=(dataset.ORDERING,), jobs=jobs)
    assert databases_of(target) == {"postgres"}


@pytest.mark.parametrize("jobs", [1, 3])  # as a stream, and fetched before
def test_a_changed_row_in_s3_that_no_program_notices_replaces_nothing(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, store: MotoS3, jobs: int
) -> None:
    site = make_site(shop)
    site.use_s3(store)
    set_id = site.backup(databases=["shop"], compression="none")["set"]
    site.push()
    key = "database-backups/%s/sets/%s/databases/shop.dump" % (site.instance, set_id)
    held = store.client().get_object(Bucket=BUCKET, Key=key)
    body = held["Body"].read()
    assert body.count(b"good 17") == 1
    changed = body.replace(b"good 17", b"evil 17")
    store.client().put_object(Bucket=BUCKET, Key=key, Body=changed, Metadata=held["Metadata"])
    with pytest.raises(DamagedError, match="not what the manifest says"):
        site.restore(place="s3", to=bench, jobs=jobs)
    assert databases_of(bench) == {"postgres"}


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_restore_shows_no_secret(mine: Site, bench: PostgresServer) -> None:
    secret = bench.password.encode()

    def look() -> bool:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if secret in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
        return False

    with Poll(look) as poll:
        result = mine.restore(to=bench)
    assert not poll.found and poll.looked > 3
    assert secret.decode() not in json.dumps(result)
    for path in mine.root.rglob("*"):
        if path.is_file() and path.name != "password":
            assert secret not in path.read_bytes(), path
    record = mine.records()[-1]
    assert (record["verb"], record["outcome"]) == ("restore", "ok")
