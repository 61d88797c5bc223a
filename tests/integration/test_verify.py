# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb verify on real servers: every planted fault turns the result red and is named; what is proven leaves evidence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import source
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    DamagedError,
    MissingError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import verify
from demo.servers import MotoS3, PostgresServer
from tests.integration.conftest import (
    BUCKET,
    Servers,
    Site,
    create_database,
    flip,
    process_of,
    run_sql,
    sha256,
    wait_for,
)

MakeSite = Callable[..., Site]


def failure_of(call: Callable[[], Any]) -> dict[str, Any]:
    """Return the report of the one set whose verification fails."""
    with pytest.raises(DamagedError) as caught:
        call()
    (report,) = caught.value.details["sets"]
    assert report["outcome"] == "failed"
    for finding in report["findings"]:
        assert finding in str(caught.value)
    return dict(report)


@pytest.fixture(scope="module")
def good(shop: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """A site with a good set of the shop, plain so that its files can be looked into. Copy it before you harm it."""
    site = Site(tmp_path_factory.mktemp("good"), shop)
    return site, site.backup(databases=["shop"], compression="none", format="custom")["set"]


@pytest.fixture
def mine(good: tuple[Site, str], tmp_path: Path) -> tuple[Site, str]:
    """A copy of the good set that the test may harm."""
    site = Site(tmp_path / "mine", good[0].server)
    subprocess.run(["mkdir", "-p", str(site.home)], check=True)
    subprocess.run(["cp", "-a", str(good[0].home / "sets"), str(site.home)], check=True)
    return site, good[1]


# --- faults of the files ----------------------------------------------------------------------------------------------


def test_two_files_that_changed_places_are_found(bench: PostgresServer, make_site: MakeSite) -> None:
    create_database(bench, "twins", "CREATE TABLE a AS SELECT 1 AS i; CREATE TABLE b AS SELECT 2 AS i")
    site = make_site(bench)
    set_id = site.backup(databases=["twins"], format="directory", compression="none")["set"]
    one, two = sorted((site.set_folder(set_id) / "databases" / "twins").glob("[0-9]*.dat"))
    assert one.stat().st_size == two.stat().st_size and sha256(one) != sha256(two)
    one.rename(one.with_suffix(".x"))
    two.rename(one)
    one.with_suffix(".x").rename(two)
    report = failure_of(lambda: site.verify("checksum"))
    assert "SHA-256 differs" in report["findings"][0]


def test_a_file_that_the_manifest_does_not_know_is_remarked(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    (site.set_folder(set_id) / "stray").write_bytes(b"x")
    report = site.verify("checksum")["sets"][0]
    assert report["outcome"] == "passed"
    assert report["remarks"] == ["Files that the manifest does not know: stray."]


def test_an_archive_that_breaks_off_with_right_hashes_fails_at_structure(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    whole = (site.set_folder(set_id) / "databases" / "shop.dump").read_bytes()
    site.forge(set_id, files={"databases/shop.dump": whole[: len(whole) * 2 // 3]})
    report = failure_of(lambda: site.verify("structure"))
    assert report["level"] == "structure" and "'shop'" in report["findings"][0]
    assert site.verify("checksum")["sets"][0]["outcome"] == "passed"  # it cannot know


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_plain_sql_that_breaks_off_with_right_hashes_fails_at_structure(
    shop: PostgresServer, make_site: MakeSite, compression: str
) -> None:
    site = make_site(shop)
    set_id = site.backup(databases=["shop"], format="plain", compression=compression)["set"]
    path = "databases/shop.sql" + (".gz" if compression == "gzip" else "")
    whole = (site.set_folder(set_id) / path).read_bytes()
    assert site.verify("structure")["sets"][0]["outcome"] == "passed"
    site.forge(set_id, files={path: whole[: len(whole) // 2]})
    report = failure_of(lambda: site.verify("structure"))
    assert "'shop'" in report["findings"][0]


# --- dumps that lost something ----------------------------------------------------------------------------------------

# What is done to a database before it is dumped once more, and what the finding must say. That dump then takes the place
# of the good one, every hash right: only a restore that is compared with the fingerprint can tell. What does not get in
# each other's way is done to the same database.
LOST: list[dict[str, tuple[str, str]]] = [
    {
        "a row": ("DELETE FROM shop.sales WHERE no = 17", "table shop.sales: had 500 rows, has 499"),
        "a sequence position": ("SELECT setval('shop.tickets', 6)", "sequence shop.tickets: was at 7, is at 6"),
        "a grant on a column": ("REVOKE SELECT (name) ON shop.goods FROM clerk", "relation shop.goods: column acl was"),
        "an index": ("DROP INDEX shop.sales_at", "index shop.sales_at is missing"),
        "a check": (
            "ALTER TABLE shop.goods DROP CONSTRAINT goods_price_check",
            "constraint shop.goods goods_price_check is missing",
        ),
        "a large object": ("SELECT lo_unlink(4712)", "large objects: were 2, are 1"),
        "a grant on a function": (
            "REVOKE EXECUTE ON FUNCTION shop.stamp FROM PUBLIC",
            "function shop.stamp(): acl was",
        ),
        "a label": ("DROP TYPE shop.size; CREATE TYPE shop.size AS ENUM ('small')", "type shop.size: labels was"),
        "a trigger": ("DROP TRIGGER stamp ON shop.sales", "trigger shop.sales stamp is missing"),
    },
    {
        "a row too many": ("INSERT INTO shop.goods (name) VALUES ('x')", "table shop.goods: had 50 rows, has 51"),
        "a sequence's being called": (
            "SELECT setval('shop.tickets', 7, false)",
            "sequence shop.tickets: was at 7, is at 7 (not called yet)",
        ),
        "a grant": ("REVOKE INSERT ON shop.sales FROM clerk", "relation shop.sales: acl was"),
        "a policy": ("DROP POLICY mine ON shop.sales", "policy shop.sales mine is missing"),
        "a foreign key": (
            "ALTER TABLE shop.sales DROP CONSTRAINT sales_good_fkey",
            "constraint shop.sales sales_good_fkey is missing",
        ),
        "bytes of a large object": (
            "SELECT lo_unlink(4712); SELECT lo_from_bytea(4712, 'an')",
            "large objects: were 21 bytes, are 16",
        ),
        "a view": ("DROP VIEW shop.cheap", "relation shop.cheap is missing"),
        "a function's body": (
            "CREATE OR REPLACE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "function shop.stamp(): body was",
        ),
    },
    {
        "all rows": ("TRUNCATE shop.sales", "table shop.sales: had 500 rows, has 0"),
        "a serial position": (
            "SELECT setval('shop.sales_no_seq', 1)",
            "sequence shop.sales_no_seq: was at 500, is at 1",
        ),
        "a right too many": ("GRANT SELECT ON shop.sales TO PUBLIC", "relation shop.sales: acl was"),
        "a policy's roles": ("ALTER POLICY mine ON shop.sales TO clerk", "policy shop.sales mine: roles was"),
        "a unique key": (
            "ALTER TABLE shop.goods DROP CONSTRAINT goods_name_key",
            "constraint shop.goods goods_name_key is missing",
        ),
        "another large object": (
            "SELECT lo_unlink(4712); SELECT lo_from_bytea(4713, 'another')",
            "large objects: other numbers or owners",
        ),
        "a trigger's life": (
            "ALTER TABLE shop.sales DISABLE TRIGGER stamp",
            "trigger shop.sales stamp: enabled was O, is D",
        ),
        "a default privilege": (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA shop REVOKE SELECT ON TABLES FROM clerk",
            "default privilege postgres shop r is missing",
        ),
    },
    {
        "row security": (
            "ALTER TABLE shop.sales DISABLE ROW LEVEL SECURITY",
            "relation shop.sales: rls was True, is False",
        ),
        "not null": ("ALTER TABLE shop.goods ALTER name DROP NOT NULL", "relation shop.goods: columns was"),
        "a default": ("ALTER TABLE shop.sales ALTER at DROP DEFAULT", "relation shop.sales: columns was"),
        "rows of a materialized view": (
            "REFRESH MATERIALIZED VIEW shop.totals WITH NO DATA",
            "relation shop.totals: populated was True, is False",
        ),
        "extended statistics": ("DROP STATISTICS shop.sales_stats", "extended statistics shop.sales_stats is missing"),
        "a comment": ("COMMENT ON COLUMN shop.goods.price IS NULL", "comments: were 2, are 1"),
        "an owner": ("ALTER TABLE shop.goods OWNER TO postgres", "relation shop.goods: owner was chief, is postgres"),
        "a grant on a schema": ("REVOKE USAGE ON SCHEMA shop FROM clerk", "schema shop: acl was"),
    },
    {
        "a column": ("ALTER TABLE shop.sales DROP who CASCADE", "relation shop.sales: columns was"),
        "a function": ("DROP FUNCTION shop.stamp CASCADE", "function shop.stamp() is missing"),
        "an extension too many": ("CREATE EXTENSION vector", "extension vector was not in the backup"),
        "a table too many": ("CREATE TABLE shop.more (i int)", "relation shop.more was not in the backup"),
    },
]


@pytest.fixture(scope="module")
def lossy(good: tuple[Site, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Verify one set in which each database lost one thing; return the findings by database."""
    site, set_id = Site(tmp_path_factory.mktemp("lossy"), good[0].server), good[1]
    subprocess.run(["mkdir", "-p", str(site.home)], check=True)
    subprocess.run(["cp", "-a", str(good[0].home / "sets"), str(site.home)], check=True)
    server, dump, files = site.server, tmp_path_factory.mktemp("dumps") / "dump", {}
    for number, changes in enumerate(LOST):
        run_sql(server, "postgres", "CREATE DATABASE lossy TEMPLATE shop")
        for change_of_one, _unused in changes.values():
            run_sql(server, "lossy", change_of_one)
        server.run("pg_dump", "--format=custom", "--file=%s" % dump, "lossy")
        run_sql(server, "postgres", "DROP DATABASE lossy WITH (FORCE)")
        files["databases/lossy%d.dump" % number] = dump.read_bytes()

    def change(manifest: dict[str, Any]) -> None:
        (shop,) = manifest["databases"]
        for number in range(len(LOST)):
            name = "lossy%d" % number
            manifest["databases"].append(
                {**shop, "name": name, "dump": {**shop["dump"], "path": "databases/%s.dump" % name}}
            )
        doctored = json.loads(json.dumps({**shop, "name": "doctored"}))
        doctored["fingerprint"]["rows"]["shop.sales"] += 1
        manifest["databases"].append(doctored)

    site.forge(set_id, change, files)
    report = failure_of(lambda: site.verify("restore", sections={"verify": {"place": "local"}}))
    assert report["level"] == "restore"
    found: dict[str, list[str]] = {}
    for finding in report["findings"]:
        name, _unused, said = finding.partition(": ")
        found.setdefault(name, []).append(said)
    return found


@pytest.mark.parametrize(("number", "what"), [(n, what) for n, changes in enumerate(LOST) for what in changes])
def test_a_dump_that_lost_something_fails_and_names_it(lossy: dict[str, list[str]], number: int, what: str) -> None:
    found = lossy.get("lossy%d" % number, [])
    assert any(LOST[number][what][1] in said for said in found), found


def test_a_fingerprint_that_counts_one_row_more_fails(lossy: dict[str, list[str]]) -> None:
    assert lossy["doctored"] == ["table shop.sales: had 501 rows, has 500"]


def test_the_whole_database_beside_them_has_no_finding(lossy: dict[str, list[str]]) -> None:
    assert set(lossy) == {"lossy%d" % number for number in range(len(LOST))} | {"doctored"}


CLERK = "ALTER ROLE clerk WITH NOSUPERUSER INHERIT NOCREATEROLE"


def only_globals(site: Site, set_id: str, change: Callable[[str], str]) -> None:
    text = (site.set_folder(set_id) / "globals.sql").read_text()
    assert change(text) != text
    site.forge(set_id, lambda manifest: manifest["databases"].clear(), {"globals.sql": change(text).encode()})


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        (lambda t: "".join(x + "\n" for x in t.splitlines() if "clerk" not in x), "structure", "role 'clerk'"),
        (lambda t: re.sub(r"GRANT clerk TO chief.*", "", t), "restore", "role 'chief': member of was ['clerk'], is []"),
        (lambda t: re.sub(r" PASSWORD '[^']*'", "", t), "restore", "role 'clerk': has password was True, is False"),
        (lambda t: t.replace(CLERK, CLERK.replace("NOCREATEROLE", "CREATEROLE")), "restore", "role 'clerk': attributes was"),
        (lambda t: t + "\nGRANT nobody_knows TO clerk;\n", "restore", "The globals do not restore"),
    ],
)  # fmt: skip
def test_globals_that_lost_something_fail_and_name_it(
    mine: tuple[Site, str], change: Callable[[str], str], level: str, said: str
) -> None:
    site, set_id = mine
    only_globals(site, set_id, change)
    report = failure_of(lambda: site.verify("restore"))
    assert report["level"] == level
    assert any(said in finding for finding in report["findings"]), report["findings"]


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_what_passes_leaves_evidence_with_the_right_name_and_content(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    result = site.verify("restore")
    (report,) = result["sets"]
    assert (report["outcome"], report["level"], report["findings"]) == ("passed", "restore", [])
    assert report["checked"]["databases"]["shop"]["rows"] == 550
    assert report["checked"]["roles"] == 3 and report["checked"]["server_version"].startswith("18")
    assert {"checksum", "structure", "start", "globals", "load", "compare"} <= set(report["phases"])
    (file,) = site.evidence()
    content = sha256(site.set_folder(set_id) / "manifest.json")
    assert re.fullmatch(r"\d{8}T\d{6}Z_local_restore_passed_%s_%s\.json" % (set_id, content), file.name)
    assert report["evidence"] == "evidence/" + file.name
    held = json.loads(file.read_text())
    assert (held["set"], held["content"], held["level"], held["outcome"], held["place"]) == (
        set_id,
        content,
        "restore",
        "passed",
        "local",
    )
    assert held["seconds"] > 0 and held["instance"] == site.instance and held["host"] == "test-host"
    assert file.stat().st_mode & 0o077 == 0
    assert Catalog(site.context.local).verified(set_id)
    record = site.records()[-1]
    assert (record["verb"], record["outcome"]) == ("verify", "ok")


def test_a_later_failure_ends_being_verified(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    site.verify("restore")
    assert Catalog(site.context.local).find("latest_verified", site.context.clock()) == set_id
    flip(site.set_folder(set_id) / "databases" / "shop.dump")
    failure_of(lambda: site.verify("checksum"))
    assert not Catalog(site.context.local).verified(set_id)
    with pytest.raises(MissingError, match=r"No set in .* is verified"):
        site.restore(set="latest_verified", rename={"shop": "again"})


def test_another_manifest_is_another_set_to_the_evidence(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    site.verify("restore")
    with (site.set_folder(set_id) / "manifest.json").open("a") as stream:
        stream.write("\n")
    assert not Catalog(site.context.local).verified(set_id)


def test_checksum_and_structure_do_not_make_a_set_verified(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    for level in ("checksum", "structure"):
        assert site.verify(level)["sets"][0]["level"] == level
    assert len(site.evidence()) == 2
    assert not Catalog(site.context.local).verified(set_id)


def test_which_sets_are_verified(mine: tuple[Site, str]) -> None:
    site, first = mine
    second, third = site.forge(first), site.forge(first)
    assert [r["set"] for r in site.verify("checksum")["sets"]] == [third]
    assert [r["set"] for r in site.verify("checksum", sets=(first,))["sets"]] == [first]
    assert [r["set"] for r in site.verify("checksum", sets=("unverified",))["sets"]] == [second]
    assert site.verify("checksum", sets=("unverified",))["sets"] == []
    assert [r["set"] for r in site.verify("structure", sets=("unverified", "latest"))["sets"]] == [third, second, first]
    assert len(site.verify("checksum", sets=("all",))["sets"]) == 3
    with pytest.raises(UsageError, match="names no set"):
        site.verify("checksum", sets=("newest",))
    with pytest.raises(MissingError, match="no set 20200101T000000Z-logical"):
        site.verify("checksum", sets=("20200101T000000Z-logical",))
    with pytest.raises(UsageError, match="no level"):
        site.verify("thorough")


def test_a_dry_run_leaves_nothing(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    result = verify.verify(site.engine(), verify.Request(level="restore", dry_run=True))
    assert [p["set"] for p in result["plan"]] == [set_id]
    assert site.evidence() == []


def test_a_missing_extension_is_no_verdict(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    new = site.forge(
        set_id, lambda m: m["databases"][0]["fingerprint"]["extensions"].update({"postgis": {"version": "3.5"}})
    )
    with pytest.raises(UnreachableError, match="no verdict") as caught:
        site.verify("restore")
    (report,) = caught.value.details["sets"]
    assert report["outcome"] == "undecided"
    assert any("cannot offer postgis" in remark for remark in report["remarks"])
    assert "_undecided_" in site.evidence()[-1].name
    assert not Catalog(site.context.local).verified(new)


def test_without_room_for_the_restored_databases_nothing_begins(
    mine: tuple[Site, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _unused = mine
    monkeypatch.setattr(source, "free_bytes", lambda path: 1024 * 1024)
    with pytest.raises(UnreachableError, match=r"There is no room in .* to restore the set") as caught:
        site.verify("restore")
    (report,) = caught.value.details["sets"]
    assert (report["outcome"], report["findings"]) == ("undecided", [])
    assert "server_version" not in report["checked"]


def test_a_set_that_this_host_cannot_prove_does_not_stop_the_others(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    new = site.forge(set_id, lambda manifest: manifest["tools"].update(pg_dump="99.1"))
    with pytest.raises(UnreachableError, match="1 of 2 sets could not be proven") as caught:
        site.verify("structure", sets=("all",))
    reports = {report["set"]: report for report in caught.value.details["sets"]}
    assert (reports[new]["outcome"], reports[set_id]["outcome"]) == ("undecided", "passed")
    assert "older than the server's 99" in reports[new]["remarks"][0]
    assert len(site.evidence()) == 2


def test_a_failure_voids_the_passes_before_it(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    site.verify("structure")
    assert site.verify("checksum", sets=("unverified",))["sets"] == []
    flip(site.set_folder(set_id) / "pg_hba.conf")
    failure_of(lambda: site.verify("checksum"))
    flip(site.set_folder(set_id) / "pg_hba.conf")
    for level in ("checksum", "structure"):
        request = verify.Request(sets=("unverified",), level=level, dry_run=True)
        assert [p["set"] for p in verify.verify(site.engine(), request)["plan"]] == [set_id]


def test_settings_of_a_database_do_not_stand_in_the_way(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    settings = [{"role": "", "settings": ["default_transaction_read_only=on", "lock_timeout=1h"]}]
    site.forge(set_id, lambda manifest: manifest["databases"][0]["properties"].update(settings=settings))
    (report,) = site.verify("restore")["sets"]
    assert (report["outcome"], report["findings"]) == ("passed", [])


def test_one_database_that_does_not_restore_does_not_hide_the_others(mine: tuple[Site, str]) -> None:
    site, set_id = mine
    text = (site.set_folder(set_id) / "globals.sql").read_text()

    def change(manifest: dict[str, Any]) -> None:
        (shop,) = manifest["databases"]
        broken = json.loads(json.dumps({**shop, "name": "broken"}))
        broken["properties"]["connection_limit"] = -5
        manifest["databases"].insert(0, broken)

    site.forge(set_id, change, {"globals.sql": (text + "\nGRANT nobody_knows TO clerk;\n").encode()})
    report = failure_of(lambda: site.verify("restore"))
    assert any("The globals do not restore" in finding for finding in report["findings"])
    assert any("'broken' does not restore" in finding for finding in report["findings"])
    assert list(report["checked"]["databases"]) == ["shop"]


# --- assertions of the user -------------------------------------------------------------------------------------------


def assertions(*asked: tuple[str, str]) -> dict[str, Any]:
    """Return the section verify with assertions about the shop."""
    return {"verify": {"assertions": [{"database": "shop", "sql": sql, "expect": expect} for sql, expect in asked]}}


def test_right_assertions_pass_and_the_throwaway_server_is_closed_to_the_world(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    asked = assertions(
        ("SELECT count(*) = 500 FROM shop.sales", "t"),
        ("SELECT name FROM shop.goods WHERE id = 3", "good 3"),
        ("SHOW archive_mode", "off"),
        ("SHOW listen_addresses", ""),
        ("SHOW shared_preload_libraries", ""),
    )
    (report,) = site.verify("restore", sections=asked)["sets"]
    assert report["outcome"] == "passed" and report["checked"]["assertions"] == 5


def test_wrong_and_erroneous_assertions_fail(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    wrong = {
        "SELECT count(*) FROM shop.sales": "gave '500' instead of 't'",
        "SELECT nothing FROM nowhere": 'relation "nowhere" does not exist',
        "SELECT pg_terminate_backend(pg_backend_pid())": "failed",
        "SELECT NULL": "gave '' instead of 't'",
    }
    asked = assertions(("SELECT true", "t"), *((sql, "t") for sql in wrong))
    report = failure_of(lambda: site.verify("restore", sections=asked))
    assert len(report["findings"]) == len(wrong)
    for (sql, said), finding in zip(wrong.items(), report["findings"], strict=True):
        assert sql in finding and said in finding


# --- the throwaway server ---------------------------------------------------------------------------------------------


def throwaways(site: Site) -> list[int]:
    """Return the postmasters of throwaway servers of this site, by their command lines, which their children have at first, too."""
    found: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if line[0].endswith("/postgres") and any(site.instance in part for part in line):
            found[int(entry.name)] = parent
    return [pid for pid, parent in found.items() if parent not in found]


def remains(site: Site) -> list[Path]:
    """Return the files that a verification left behind."""
    work = site.root / "state" / site.instance / "work"
    return [*Path("/var/tmp").glob("pgops-verify-%s-*" % site.instance), *(work.glob("*") if work.is_dir() else [])]


def listening_inodes() -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            lines = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            found |= {fields[9] for fields in lines if fields[3] == "0A"}
    return found


def sockets_of(pid: int) -> set[str]:
    links = []
    for link in Path("/proc/%d/fd" % pid).iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed just now
            links.append(os.readlink(link))
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def test_the_throwaway_server_is_out_of_reach_and_gone_afterwards(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    seen: dict[str, Any] = {}
    context = site.engine()

    def look(name: str, total: int = 0) -> None:
        if name.startswith("rehearsing"):
            (pid,) = throwaways(site)
            seen["pid"], seen["sockets"] = pid, sockets_of(pid)
            seen["tcp"] = sockets_of(pid) & listening_inodes()
            seen["user"] = Path("/proc/%d" % pid).stat().st_uid
            data = Path(os.readlink("/proc/%d/cwd" % pid))
            seen["mode"] = data.parent.stat().st_mode & 0o777
            seen["socket dir"] = Path((data / "postmaster.pid").read_text().splitlines()[4])
            seen["marked"] = [*(context.state / "work").glob("verify-*/pgops.json"), data.parent / "pgops.json"]
            seen["names"] = {json.loads(path.read_text())["instance"] for path in seen["marked"]}
            seen["socket mode"] = seen["socket dir"].stat().st_mode & 0o777

    context.reporter.phase = look  # type: ignore[method-assign]
    (report,) = verify.verify(context, verify.Request(level="restore"))["sets"]
    assert report["outcome"] == "passed"
    assert seen["sockets"] and not seen["tcp"]
    assert len(seen["marked"]) == 2 and seen["names"] == {site.instance}
    # Our own server does listen: the look itself works.
    assert sockets_of(int((site.server.data_dir / "postmaster.pid").read_text().split()[0])) & listening_inodes()
    assert seen["user"] != 0 and seen["mode"] == 0o700 and seen["socket mode"] == 0o700
    assert not throwaways(site) and remains(site) == [] and not seen["socket dir"].exists()


def test_the_throwaway_server_is_gone_after_an_exception(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    context = site.engine()

    def fail(name: str, total: int = 0) -> None:
        if name.startswith("rehearsing"):
            assert throwaways(site)
            raise RuntimeError("in the middle")

    context.reporter.phase = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="in the middle"):
        verify.verify(context, verify.Request(level="restore"))
    assert not throwaways(site) and remains(site) == []
    assert site.evidence() == []


def test_what_a_killed_verification_leaves_is_ended_by_the_next(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    with process_of("verify", site.data(), {"level": "restore"}, stop_at="rehearsing") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("rehearsing")
        with pytest.raises(BusyError, match="process %d" % process.pid):
            site.verify("checksum")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (pid,) = throwaways(site)
    sockets = Path((Path(os.readlink("/proc/%d/cwd" % pid)) / "postmaster.pid").read_text().splitlines()[4])
    assert remains(site) and sockets.exists()
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"
    assert "cut short left behind" in site.warnings
    wait_for(lambda: not throwaways(site))
    assert remains(site) == [] and not sockets.exists()


def test_an_interrupted_verification_leaves_nothing(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    with process_of("verify", site.data(), {"level": "restore"}, stop_at="rehearsing") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert not throwaways(site) and remains(site) == []


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(mine: tuple[Site, str], store: MotoS3) -> tuple[Site, str]:
    """A site whose set is in S3 too."""
    site, set_id = mine
    site.use_s3(store)
    site.push()
    return site, set_id


def key_of(site: Site, path: str) -> str:
    return "database-backups/%s/%s" % (site.instance, path)


def test_a_set_in_s3_is_proven_and_the_evidence_lies_there(remote: tuple[Site, str], store: MotoS3) -> None:
    site, set_id = remote
    subprocess.run(["rm", "-r", str(site.home)], check=True)  # the host is lost
    (report,) = site.verify("restore", place="s3")["sets"]
    assert (report["outcome"], report["place"]) == ("passed", "s3")
    body = store.client().get_object(Bucket=BUCKET, Key=key_of(site, report["evidence"]))["Body"].read()
    assert json.loads(body)["outcome"] == "passed"
    assert "_s3_restore_passed_%s_" % set_id in report["evidence"]
    assert Catalog(site.context.s3()).verified(set_id)
    assert not site.evidence() and remains(site) == []


def test_without_room_to_fetch_a_set_is_proven_as_a_stream(
    remote: tuple[Site, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, set_id = remote
    restored = sum(database.bytes for database in site.manifest(set_id).databases)
    # Only where the server lives there is room.
    monkeypatch.setattr(source.Source, "fits", lambda self, folder, needed: needed >= restored)
    (report,) = site.verify("restore", place="s3")["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "restore")
    assert any("read as a stream" in remark for remark in report["remarks"])


def test_a_directory_without_room_to_fetch_is_held_against_its_hashes_only(
    shop: PostgresServer, make_site: MakeSite, store: MotoS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(shop)
    site.use_s3(store)
    set_id = site.backup(databases=["shop"], format="directory")["set"]
    site.push()
    assert site.verify("restore", place="s3")["sets"][0]["outcome"] == "passed"
    with monkeypatch.context() as patched:
        patched.setattr(source, "free_bytes", lambda path: 1024 * 1024)
        with pytest.raises(UnreachableError, match="directory format cannot be read as a stream") as caught:
            site.verify("restore", place="s3")
    (report,) = caught.value.details["sets"]
    assert (report["outcome"], report["level"], report["asked"]) == ("undecided", "checksum", "restore")
    assert any("directory" in remark for remark in report["remarks"])
    assert "_checksum_passed_%s" % set_id in report["evidence"]


def test_a_server_of_another_version_is_taken_when_told(servers: Servers, mine: tuple[Site, str]) -> None:
    site, _unused = mine
    with pytest.raises(UnreachableError, match="older than the server's 18"):
        site.verify("restore", sections={"verify": {"server_bin_dir": str(servers.get("filled", 16).bindir)}})
    assert site.evidence()[-1].name.split("_")[3] == "undecided"


def test_an_unknown_account_for_the_server_is_told(mine: tuple[Site, str]) -> None:
    site, _unused = mine
    sections = {"verify": {"run_as": "no-such-account"}}
    if os.geteuid() == 0:
        with pytest.raises(UsageError, match="no account 'no-such-account'"):
            site.verify("restore", sections=sections)
    else:  # an ordinary user runs it himself
        assert site.verify("restore", sections=sections)["sets"][0]["outcome"] == "passed"
    assert remains(site) == []
