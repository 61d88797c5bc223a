# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental base backups of real servers: chains taken, proven, recovered from to any of their moments, and refused when broken."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.base import Place
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.evidence import store as store_proof
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3 import S3Place
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import base_taking
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import (
    backup,
    backup_base,
    info,
    parents,
    prune,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request as Sync
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import sync
from demo.servers import MotoS3, PostgresServer, wheel_bindir
from tests.integration.conftest import (
    Key,
    Servers,
    Site,
    create_database,
    damaged_table,
    flip,
    process_of,
    run_sql,
    wait_for,
)
from tests.integration.test_recover import Story, ask, own, upto

MakeSite = Callable[..., Site]
LONG = 120
SUMS = "SELECT count(*), md5(string_agg(md5, '' ORDER BY i)) FROM stock"
SUMMARIZING = {"summarize_wal": "on", "wal_level": "replica"}


@dataclass
class Chain(Story):
    """The story of a chain, with the sums of what was in stock when each of its sets was taken."""

    sums: list[Any] = field(default_factory=list)


def take(site: Site, incremental: str = "", *, dry_run: bool = False, **sections: Any) -> dict[str, Any]:
    """Take a base backup as the program does."""
    request = backup.Request(kind="base", incremental=incremental, dry_run=dry_run)
    return runs.perform(site.engine(**sections), "backup", lambda c: backup.backup(c, request), dry_run=dry_run)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A server with an archive, a full base backup and two incremental ones upon it, rows between all of them."""
    root = tmp_path_factory.mktemp("chain")
    settings = {"archive_mode": "on", "archive_command": "false", **SUMMARIZING}
    with PostgresServer(wheel_bindir(18), root, settings=settings) as server:
        archive, far, near = (server.root / name for name in ("archive of wal", "far = away", "near by"))
        for path in (archive, far, near):
            path.mkdir()
            own(server, path)
        server.stop()
        server._settings["archive_command"] = 'test ! -f "%s/%%f" && cp "%%p" "%s/%%f"' % (archive, archive)
        server.start()
        run_sql(server, "postgres", "CREATE TABLESPACE far LOCATION '%s'" % far)
        run_sql(server, "postgres", "CREATE TABLESPACE near LOCATION '%s'" % near)
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY) TABLESPACE far")
        run_sql(server, "shop", "CREATE TABLE stock AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
        site = Site(root / "site", server)
        site.options = {
            "base": {"incremental": "auto", "compression": "gzip"},
            "restore": {"restore_command": 'cp "%s/%%f" "%%p"' % archive},
        }
        run_sql(server, "shop", "CREATE TABLE aside TABLESPACE near AS SELECT i FROM generate_series(1, 5000) i")
        story = Chain(server, site, archive, spaces=("far", "near"))
        for part in range(3):
            story.write(4)
            run_sql(
                server,
                "shop",
                "UPDATE stock SET md5 = md5(md5) WHERE i BETWEEN %d AND %d" % (500 * part, 500 * part + 800),
            )
            story.sums.append(run_sql(server, "shop", SUMS))
            story.back_up()
        story.write(4)
        story.settle()
        yield story
        for folder in story.copies:
            story.stop(folder)


@pytest.fixture
def story(told: Chain) -> Iterator[Chain]:
    """The story; what a test recovered ends with it."""
    yield told
    while told.copies:
        folder = told.copies.pop()
        told.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def other(story: Chain, tmp_path: Path) -> Site:
    """Another host with copies of the sets, which a test may damage."""
    site = Site(tmp_path / "other", story.server, instance=story.site.instance, options=story.site.options)
    shutil.copytree(story.site.root / "backups", site.root / "backups")
    return site


@contextmanager
def from_sets_of(story: Chain, site: Site) -> Iterator[Chain]:
    """Let the story recover from the sets of another host."""
    before, story.site = story.site, site
    try:
        yield story
    finally:
        story.site = before


# --- taken ------------------------------------------------------------------------------------------------------------


def test_each_builds_on_the_one_before(story: Chain) -> None:
    full, first, second = (story.site.manifest(set_id) for set_id in story.bases)
    assert [m.kind for m in (full, first, second)] == ["base", "incremental", "incremental"]
    assert (full.parent, first.parent, second.parent) == (None, full.id, first.id)
    assert first.base is not None
    assert first.base.parent_content
    assert 0 < first.base.own_bytes < first.base.bytes / 2
    assert max(first.size, second.size) < full.size / 2
    assert second.base is not None
    assert [t.name for t in second.base.tablespaces] == ["far", "near"]
    # Nothing changed in the second one, which is as large as ever.
    _far, near = second.base.tablespaces
    assert near.bytes > 100_000 > near.own_bytes
    described = info.info(story.site.engine(), info.Request())["places"][0]["sets"]
    assert [s["chain"] for s in described] == [[full.id, first.id], [full.id], []]
    assert all(s["complete"] for s in described)
    records = [r for r in story.site.records() if r["verb"] == "backup"]
    assert [r["kind"] for r in records[:3]] == ["base", "incremental", "incremental"]


def test_a_dry_run_tells_what_it_would_build_on(story: Chain) -> None:
    plan = take(story.site, dry_run=True)["plan"]
    assert (plan["kind"], plan["parent"], plan["chain"]) == ("incremental", story.bases[2], story.bases)
    assert plan["choices"]["base"]["reasons"][-1] == "incremental: upon %s" % story.bases[2]
    named = take(story.site, story.bases[0], dry_run=True)["plan"]
    assert (named["parent"], named["chain"]) == (story.bases[0], story.bases[:1])
    assert take(story.site, "never", dry_run=True)["plan"]["kind"] == "base"


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"chain_limit": 2}, "as many as base.chain_limit allows"), ({"full_every": "1s"}, "base.full_every allows")],
)
def test_a_full_one_is_taken_when_it_is_due(story: Chain, settings: dict[str, Any], said: str) -> None:
    plan = take(story.site, dry_run=True, base=settings)["plan"]
    assert plan["kind"] == "base"
    assert said in plan["choices"]["base"]["reasons"][-1]
    assert story.site.warnings == ""


def test_only_base_backups_can_be_incremental(story: Chain) -> None:
    with pytest.raises(UsageError, match="Only base backups"):
        backup.backup(story.site.engine(), backup.Request(incremental="auto"))
    with pytest.raises(UsageError, match="is no base backup to build on"):
        take(story.site, "20261122T020000Z-logical", dry_run=True)
    with pytest.raises(MissingError):
        take(story.site, "20261122T020000Z-base", dry_run=True)


# --- recovered --------------------------------------------------------------------------------------------------------


def test_moments_in_the_middle_of_the_chain_are_recovered(story: Chain) -> None:
    folder = story.folder()
    odd = {"far": str(folder / "a = b"), "near": str(folder / "near this time")}
    result = story.recover(folder, time=story.moments[10].isoformat(), tablespaces=odd)
    assert result["set"] == story.bases[1]
    assert story.rows(result) == upto(10)
    places = "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'"
    assert dict(ask(result, places)) == odd
    assert ask(result, "SELECT count(*), sum(i) FROM aside") == [(5000, 12502500)]
    result = story.recover(immediate="yes", set=story.bases[1], sections={"restore": {"restore_command": ""}})
    assert story.rows(result) == upto(8)
    assert ask(result, SUMS) == story.sums[1]
    folder = story.copies[-1]
    assert sorted(path.name for path in folder.iterdir()) == ["data", "far away", "near away"]
    assert not list(folder.rglob("*pgops-chain*"))
    assert not list(folder.rglob("INCREMENTAL*"))


def test_the_plan_shows_the_chain(story: Chain) -> None:
    folder = story.folder()
    plan = story.recover(folder, end="yes", dry_run=True)["plan"]
    assert (plan["set"], plan["chain"], plan["refusals"]) == (story.bases[2], story.bases[:2], [])
    assert plan["stored_bytes"] == sum(story.site.manifest(set_id).size for set_id in story.bases)
    assert list(folder.iterdir()) == []


def test_it_is_proven_by_a_restore_through_the_chain(story: Chain) -> None:
    (report,) = story.site.verify("restore")["sets"]
    assert (report["set"], report["outcome"], report["level"]) == (story.bases[2], "passed", "restore"), report
    assert report["checked"]["chain"] == story.bases
    assert "shop" in report["checked"]["databases"]
    described = info.info(story.site.engine(), info.Request())["places"][0]
    assert described["newest_verified"] == story.bases[2]


def test_from_s3_alone(story: Chain, other: Site, store: MotoS3) -> None:
    other.use_s3(store)
    # What failed here is no matter of the copies there.
    prove(other, story.bases[0], "checksum", "failed", hours=1)
    # Asked for the last one only, it brings what that builds on before it.
    assert sync(other.engine(), Sync(sets=(story.bases[2],)))["sets"] == story.bases
    shutil.rmtree(other.home)
    with from_sets_of(story, other):
        result = story.recover(end="yes", place="s3")
        assert story.rows(result) == upto(16)
        assert ask(result, SUMS) == run_sql(story.server, "shop", SUMS)
        assert result["chain"] == story.bases[:2]
    prove(other, story.bases[0], room=other.engine().s3())
    # A host whose sets are in S3 only builds on those when it is told to.
    assert take(other, dry_run=True)["plan"]["kind"] == "base"
    taken = take(other, story.bases[2])
    assert taken["parent"] == story.bases[2]
    assert "is in S3 only" in other.warnings
    assert other.push()["sets"] == [taken["set"]]
    (report,) = other.verify("structure", place="s3")["sets"]
    assert (report["set"], report["checked"]["chain"]) == (taken["set"], [*story.bases, taken["set"]])
    (described,) = info.info(other.engine(), info.Request(places=("local",)))["places"][0]["sets"]
    assert not described["complete"]


def test_retention_keeps_what_is_built_on_in_each_place(story: Chain, other: Site, store: MotoS3) -> None:
    other.instance = "kept-" + other.instance
    shutil.move(other.root / "backups" / story.site.instance, other.home)
    other.use_s3(store)
    other.push()
    rules = {"retention": {"keep_within": "", "keep_last": 1}}
    context = other.engine(local=rules, s3=rules)
    for place in prune.prune(context, prune.Request())["places"]:
        assert [kept["set"] for kept in place["kept"]] == story.bases[::-1]
        assert "parent of %s" % story.bases[1] in place["kept"][-1]["reasons"]
        assert place["removed"] == []


# --- broken -----------------------------------------------------------------------------------------------------------


def test_a_parent_that_is_gone_is_told_before_anything_is_touched(story: Chain, other: Site) -> None:
    shutil.rmtree(other.set_folder(story.bases[1]))
    (described, _full) = info.info(other.engine(), info.Request())["places"][0]["sets"]
    assert not described["complete"]
    assert "builds on what cannot be read: There is no set %s" % story.bases[1] in described["problem"]
    with pytest.raises(DamagedError, match="There is no set %s" % story.bases[1]) as caught:
        other.verify("checksum", sets=(story.bases[2],))
    assert caught.value.details["sets"][0]["outcome"] == "failed"
    folder = story.folder()
    with from_sets_of(story, other):
        with pytest.raises(DamagedError, match="There is no set %s" % story.bases[1]):
            story.recover(folder, end="yes", set=story.bases[2])
        # By itself it takes the one that is whole.
        plan = story.recover(folder, end="yes", dry_run=True)["plan"]
        assert (plan["set"], plan["chain"]) == (story.bases[0], [])
        assert "The set %s is passed over" % story.bases[2] in other.warnings
    assert list(folder.iterdir()) == []
    plan = take(other, dry_run=True)["plan"]
    assert plan["kind"] == "base"
    assert "A full base backup is taken" in other.warnings


def test_another_set_under_the_parents_name_is_no_parent(story: Chain, other: Site) -> None:
    path = other.set_folder(story.bases[0]) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"warnings": []', b'"warnings": ["another"]'))
    with pytest.raises(DamagedError, match="the set of that name is another one now"):
        other.verify("checksum", sets=(story.bases[2],))
    with pytest.raises(RefusedError, match="is another one now"):
        take(other, story.bases[2], dry_run=True)


def test_a_damaged_parent_is_found_and_nothing_is_built_on_it(story: Chain, other: Site) -> None:
    for set_id in story.bases:
        prove(other, set_id)
    assert Catalog(other.engine().local).find("latest_verified", other.context.clock()) == story.bases[2]
    flip(other.set_folder(story.bases[0]) / "base" / "base.tar.gz")
    folder = story.folder()
    said = r"of %s in .* is not what the manifest says" % story.bases[0]
    with from_sets_of(story, other), pytest.raises(DamagedError, match=said) as damaged:
        story.recover(folder, end="yes")
    assert "Name another base backup" in damaged.value.hint
    assert list(folder.iterdir()) == []
    with pytest.raises(DamagedError, match="- %s: %s: base/base.tar.gz in " % (story.bases[2], story.bases[0])):
        other.verify("checksum", sets=(story.bases[2],))
    # The rot is the parent's, so none that stands on it is verified any more, and prune does not count on them.
    catalog = Catalog(other.engine().local)
    assert [set_id for set_id in story.bases if catalog.verified(set_id)] == []
    (about,) = (p for p in catalog.proofs if p.set_id == story.bases[0] and p.outcome == "failed")
    assert (about.level, about.content, about.place) == ("checksum", catalog.content(story.bases[0]), "local")
    report = json.loads(catalog.place.read(about.path))
    assert report["findings"][0].startswith("Found while %s was verified: base/base.tar.gz" % story.bases[2])
    with pytest.raises(RefusedError, match="%s failed its verification" % story.bases[2]):
        take(other, story.bases[2], dry_run=True)
    with from_sets_of(story, other), pytest.raises(RefusedError, match="is taken by itself") as refused:
        story.recover(folder, end="yes", dry_run=True)
    assert all(set_id in refused.value.message for set_id in story.bases)
    assert "--place" in refused.value.hint
    taken = take(other)
    assert (taken["kind"], taken["parent"]) == ("base", None)
    assert "failed its verification" in other.warnings
    assert take(other, dry_run=True)["plan"]["parent"] == taken["set"]
    with from_sets_of(story, other):
        assert story.recover(folder, end="yes", dry_run=True)["plan"]["set"] == taken["set"]


def prove(
    site: Site,
    set_id: str,
    level: str = "restore",
    outcome: str = "passed",
    *,
    room: Place | None = None,
    hours: int = 0,
) -> None:
    """Keep, in `room` if not here, what came out of proving a set of this host so many hours ago, as a verification does."""
    place = room or site.engine().local
    facts = {"set": set_id, "content": Catalog(place).content(set_id), "place": "local", "level": level}
    store_proof(place, {**facts, "outcome": outcome, "finished": iso(datetime.now(UTC) - timedelta(hours=hours))})


def test_what_is_missing_in_a_parent_is_told(story: Chain, other: Site) -> None:
    prove(other, story.bases[1])
    next((other.set_folder(story.bases[1]) / "base").glob("[0-9]*.tar.gz")).unlink()
    with pytest.raises(DamagedError, match="which is not whole: Files are missing"):
        other.verify("checksum", sets=(story.bases[2],))
    assert not Catalog(other.engine().local).verified(story.bases[1])
    with from_sets_of(story, other), pytest.raises(DamagedError, match="which is not whole: Files are missing"):
        story.recover(end="yes", set=story.bases[2])


def test_a_chain_that_was_mixed_up_is_found(story: Chain, other: Site) -> None:
    """Every hash is right, and still the second does not fit upon the full one."""

    def skip(manifest: dict[str, Any]) -> None:
        manifest["parent"] = story.bases[0]
        manifest["base"]["parent_content"] = ""

    forged = other.forge(story.bases[2], skip)
    with pytest.raises(DamagedError, match="It holds what changed since") as caught:
        other.verify("structure", sets=(forged,))
    assert story.bases[0] in caught.value.message
    folder = story.folder()
    with from_sets_of(story, other), pytest.raises(DamagedError, match="The chain cannot be put together"):
        story.recover(folder, end="yes", set=forged)
    assert list(folder.iterdir()) == []


def test_an_upload_without_its_parent_is_an_alarm(story: Chain, other: Site, store: MotoS3) -> None:
    other.instance = "orphan-" + other.instance
    shutil.move(other.root / "backups" / story.site.instance, other.home)
    other.use_s3(store)
    shutil.rmtree(other.set_folder(story.bases[0]))
    with pytest.raises(DamagedError, match="%s, which it builds on, is not there" % story.bases[0]):
        other.push()


def test_a_parent_that_goes_while_its_child_comes_is_an_alarm(
    story: Chain, other: Site, store: MotoS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the chosen node of a group prunes there meanwhile."""
    other.instance = "raced-" + other.instance
    shutil.move(other.root / "backups" / story.site.instance, other.home)
    other.use_s3(store)
    publish = S3Place.publish

    def raced(place: S3Place, set_id: str, encoded: bytes) -> None:
        publish(place, set_id, encoded)
        if set_id == story.bases[1]:
            place.delete_set(story.bases[0])

    with monkeypatch.context() as patch:
        patch.setattr(S3Place, "publish", raced)
        with pytest.raises(DamagedError, match="%s, which it builds on, was removed there" % story.bases[0]):
            other.push()
    other.push()
    assert sorted(Catalog(other.engine().s3()).ids()) == sorted(story.bases)


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(servers: Servers) -> PostgresServer:
    """A server that summarizes its WAL, whose summaries a test may lose."""
    found = servers.get("incremental", 18, **SUMMARIZING)
    run_sql(found, "postgres", "CREATE TABLE IF NOT EXISTS log (i int)")
    return found


def lose_summaries(server: PostgresServer) -> None:
    """Remove the summaries, once there is one that reaches behind all base backups."""
    (position,) = run_sql(server, "postgres", "SELECT pg_current_wal_insert_lsn()")[0]
    run_sql(server, "postgres", "INSERT INTO log VALUES (0); CHECKPOINT")
    reached = "SELECT summarized_lsn >= '%s' FROM pg_get_wal_summarizer_state()" % position
    wait_for(lambda: run_sql(server, "postgres", reached)[0][0], seconds=LONG)
    for path in (server.data_dir / "pg_wal" / "summaries").iterdir():
        path.unlink()


def test_without_summaries_a_full_one_is_taken_or_it_is_refused(server: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(server, base={"incremental": "auto"})
    full = take(site)["set"]
    assert site.manifest(full).base.listing is not None  # type: ignore[union-attr]
    lose_summaries(server)
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="no summary of the WAL from") as caught:
            take(site, full, dry_run=dry_run)
        assert "wal_summary_keep_time" in caught.value.hint
    again = take(site)
    assert again["kind"] == "base"
    assert "A full base backup is taken, and no incremental one: The server has no summary" in site.warnings
    assert site.sets() == [full, again["set"]]


def test_what_only_the_server_itself_knows_is_told_the_same_way(
    server: PostgresServer, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that may not ask for summaries learns it when the backup begins."""
    run_sql(server, "postgres", "DROP ROLE IF EXISTS copier; CREATE ROLE copier LOGIN REPLICATION PASSWORD 'x'")
    run_sql(server, "postgres", "REVOKE EXECUTE ON FUNCTION pg_available_wal_summaries() FROM PUBLIC")
    login = {"login_user": "copier", "login_password": "x", "login_password_file": ""}
    site = make_site(server, postgres=login, base={"incremental": "auto"})
    try:
        full = take(site)["set"]
        assert take(site)["kind"] == "incremental"
        lose_summaries(server)
        with pytest.raises(RefusedError, match="WAL summaries are required") as caught:
            take(site, full)
        assert "--incremental never" in caught.value.hint
        count = len(site.sets())
        again = take(site)
        assert again["kind"] == "base"
        assert "WAL summaries are required" in site.warnings
        assert len(site.sets()) == count + 1
        # A server that says so in another language.
        lose_summaries(server)
        monkeypatch.setattr(base_taking, "_UNFIT", re.compile("zusammengefasst"))
        assert take(site)["kind"] == "base"
        assert "A full base backup is taken, and no incremental one: " in site.warnings
        assert len(site.sets()) == count + 2
    finally:
        run_sql(server, "postgres", "GRANT EXECUTE ON FUNCTION pg_available_wal_summaries() TO PUBLIC")


@pytest.mark.parametrize(
    ("major", "said"), [(18, "summarize_wal is off"), (16, "need PostgreSQL 17 or newer, and this server is 16")]
)
def test_a_server_that_cannot_is_told(servers: Servers, make_site: MakeSite, major: int, said: str) -> None:
    site = make_site(servers.get("base plain", major))
    with pytest.raises(RefusedError, match=said):
        take(site, "20261122T020000Z-base")
    plan = take(site, "auto", dry_run=True)["plan"]
    assert (plan["kind"], plan["parent"]) == ("base", None)
    assert said in site.warnings


def test_another_cluster_begins_a_chain_of_its_own(story: Chain, other: Site, server: PostgresServer) -> None:
    """As after pg_upgrade, or when an instance's name is used again."""
    moved = Site(other.root, server, instance=other.instance, options=other.options)
    with pytest.raises(RefusedError, match="is of another cluster"):
        take(moved, story.bases[2], dry_run=True)
    taken = take(moved)
    assert taken["kind"] == "base"
    assert moved.warnings == ""
    assert take(moved, dry_run=True)["plan"]["parent"] == taken["set"]


def test_what_nothing_can_be_built_on_is_told(server: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(server)
    inside = take(site)["set"]  # its list lies inside the tar, as zstd is a program here
    with pytest.raises(RefusedError, match="lies inside its tar"):
        take(site, inside)
    assert take(site, "auto")["kind"] == "base"
    assert "lies inside its tar" in site.warnings
    assert take(site, "auto", dry_run=True)["plan"]["kind"] == "incremental"


def test_a_program_that_compresses_is_no_obstacle(server: PostgresServer, make_site: MakeSite) -> None:
    """Neither the server nor pg_basebackup has zstd inside: this host keeps the list that the stream of the program holds."""
    site = make_site(server, base={"incremental": "auto", "compression": "zstd"})
    plan = take(site, dry_run=True)["plan"]
    assert plan["choices"]["base"]["by"] == "program"
    full, child = take(site), take(site)
    assert (full["kind"], child["kind"], child["parent"]) == ("base", "incremental", full["set"])
    (report,) = site.verify("structure")["sets"]
    assert (report["set"], report["outcome"]) == (child["set"], "passed"), report
    # With any method, what has its list in a file of its own comes first.
    assert take(site, dry_run=True, base={"compression": "auto"})["plan"]["choices"]["base"]["by"] == "server"
    with pytest.raises(UsageError, match="Nothing here compresses with zstd") as caught:
        take(site, dry_run=True, base={"compress_on": "server"})
    assert caught.value.hint == "A program cannot do it here, only this server: set base.compression to gzip or auto."


def test_an_older_server_goes_on_as_before(servers: Servers, make_site: MakeSite) -> None:
    site = make_site(servers.get("base plain", 16), base={"incremental": "auto"})
    before = take(site, "never", dry_run=True)["plan"]["choices"]["base"]
    assert take(site, dry_run=True)["plan"]["choices"]["base"] == {
        **before,
        "reasons": [*before["reasons"], "full: no incremental one can be taken"],
    }


def test_a_chain_may_be_encrypted(server: PostgresServer, make_site: MakeSite, age_key: Callable[[str], Key]) -> None:
    """This host keeps the list that PostgreSQL needs, and cannot read the sets."""
    key = age_key("one")
    site = make_site(server, backup={"encryption": "age", "recipients": [key.public]}, base={"incremental": "auto"})
    full, child = take(site), take(site)
    assert (child["kind"], child["parent"]) == ("incremental", full["set"])
    manifest = site.manifest(child["set"])
    assert manifest.base is not None
    assert manifest.base.payload.layers == ("zstd", "age")
    assert 0 < manifest.base.own_bytes < manifest.base.bytes
    (report,) = site.verify("restore", sections={"restore": {"identity_file": str(key.file)}})["sets"]
    assert (report["set"], report["outcome"], report["level"]) == (child["set"], "passed", "restore"), report
    lists = site.root / "state" / site.instance / "lists"
    assert sorted(path.name for path in lists.iterdir()) == sorted([full["set"], child["set"]])
    flip(lists / child["set"])
    with pytest.raises(RefusedError, match="this host has no copy"):
        take(site, child["set"], dry_run=True)
    shutil.rmtree(site.set_folder(child["set"]))
    assert take(site)["parent"] == full["set"]


def test_a_chain_goes_on_after_a_switch_of_the_timeline(servers: Servers, make_site: MakeSite) -> None:
    server = servers.get("incremental switch", 18, full_page_writes="on", **SUMMARIZING)
    create_database(server, "shop", "CREATE TABLE log AS SELECT i FROM generate_series(1, 3) i")
    site = make_site(server, base={"incremental": "auto"})
    full = take(site)["set"]
    run_sql(server, "shop", "INSERT INTO log VALUES (4)")
    server.stop()
    signal = server.data_dir / "standby.signal"
    signal.touch()
    own(server, signal)
    server.start()
    run_sql(server, "postgres", "SELECT pg_promote()")
    wait_for(lambda: run_sql(server, "postgres", "SELECT NOT pg_is_in_recovery()")[0][0], seconds=LONG)
    run_sql(server, "shop", "INSERT INTO log VALUES (5)")
    taken = take(site, full)
    assert (taken["kind"], taken["parent"], taken["timeline"]) == ("incremental", full, 2)
    assertion = {
        "database": "shop",
        "sql": "SELECT string_agg(i::text, ',' ORDER BY i) FROM log",
        "expect": "1,2,3,4,5",
    }
    (report,) = site.verify("restore", sections={"verify": {"assertions": [assertion]}})["sets"]
    assert (report["set"], report["outcome"]) == (taken["set"], "passed"), report


def test_no_chain_crosses_a_fork_inside_its_parent(story: Chain, other: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery from an older set ends while the next one was taken, and is promoted: the server itself would build on that one."""
    first = story.site.manifest(story.bases[1])
    result = story.recover(lsn=first.wal_start, set=story.bases[0])
    copied = run_copy(result)
    copied("CREATE TABLE filler AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 10000) i")
    ((behind,),) = ask(result, "SELECT pg_current_wal_insert_lsn() > '%s'::pg_lsn" % first.wal_end)
    assert behind
    ((hba,),) = ask(result, "SHOW hba_file")
    Path(hba).write_text("local all,replication all trust\n")
    copied("ALTER SYSTEM SET summarize_wal = on")
    copied("SELECT pg_reload_conf()")
    copied("CHECKPOINT")
    login = {"login_host": "", "login_unix_socket": result["socket_directory"], "login_port": result["port"]}
    forked = {"postgres": {**login, "login_user": "postgres", "login_password_file": ""}}
    for set_id in story.bases[1:]:
        with pytest.raises(RefusedError, match="left it at .*, before %s was whole" % set_id) as caught:
            take(other, set_id, **forked)
        assert "--incremental never" in caught.value.hint
    before = other.sets()
    taken = take(other, **forked)
    assert (taken["kind"], taken["timeline"]) == ("base", 2)
    assert "A full base backup is taken" in other.warnings
    assert len(other.sets()) == len(before) + 1
    assert take(other, dry_run=True, **forked)["plan"]["parent"] == taken["set"]
    # One of an engine that did not look is found by its proof.
    with monkeypatch.context() as patch:
        for module in (parents, backup_base):
            patch.setattr(module, "check_history", lambda *_given: None)
        mixed = take(other, story.bases[1], **forked)
    assert (mixed["kind"], mixed["timeline"]) == ("incremental", 2)
    with pytest.raises(DamagedError, match="Its timeline left that of %s at .*two histories" % story.bases[1]):
        other.verify("structure", sets=(mixed["set"],))


def run_copy(result: dict[str, Any]) -> Callable[[str], None]:
    """Return what runs statements in a copy, each by itself."""

    def run(sql: str) -> None:
        where = {"host": result["socket_directory"], "port": result["port"], "user": "postgres", "dbname": "postgres"}
        connection = psycopg2.connect(**where)
        connection.autocommit = True
        try:
            with connection.cursor() as asked:
                asked.execute(sql)
        finally:
            connection.close()

    return run


def test_one_that_is_interrupted_leaves_nothing_for_long(server: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(server, base={"incremental": "auto"})
    work = site.root / "room of many"
    work.mkdir()
    site.options["work_dir"] = str(work)
    full = take(site)["set"]
    with process_of("backup", site.data(base={"max_rate": "32KiB"}), {"kind": "base"}) as process:
        wait_for(lambda: [n for n in site.sets() if n.startswith(".unfinished-")], seconds=LONG)
        sending = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%INCREMENTAL%' AND backend_type = 'walsender'"
        wait_for(lambda: run_sql(server, "postgres", sending), seconds=LONG)
        process.kill()
    assert list(work.iterdir()) != []
    taken = take(site)
    assert (taken["kind"], taken["parent"]) == ("incremental", full)
    assert site.sets() == sorted([full, taken["set"]])
    assert list(work.iterdir()) == []


def test_damaged_blocks_that_changed_are_told(server: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(server, base={"incremental": "auto"})
    full = take(site)["set"]
    with damaged_table(server) as path, pytest.raises(DamagedError, match="block 1 of %s" % path):
        take(site)
    assert site.sets() == [full]


def test_by_hand(story: Chain) -> None:
    """The sets are what PostgreSQL's own programs write: unpacked by tar, they are put together without us."""
    folder = story.folder()
    parts, moves = list[str](), list[str]()
    for number, set_id in enumerate(story.bases):
        part, base = folder / str(number), story.site.set_folder(set_id) / "base"
        part.mkdir(mode=0o700)
        subprocess.run(["tar", "-xzf", str(base / "base.tar.gz"), "-C", str(part)], check=True)
        shutil.copy(base / "backup_manifest", part)
        for packed in base.glob("[0-9]*.tar.gz"):
            inner = folder / ("%d %s" % (number, packed.name))
            inner.mkdir()
            subprocess.run(["tar", "-xzf", str(packed), "-C", str(inner)], check=True)
            (part / "pg_tblspc" / packed.name.partition(".")[0]).symlink_to(inner)
            if set_id == story.bases[-1]:
                moves += ["-T", "%s=%s" % (inner, folder / ("moved %s" % packed.name))]
        parts.append(str(part))
    whole = folder / "data"
    program = str(story.server.bindir / "pg_combinebackup")
    done = subprocess.run([program, *moves, "-o", str(whole), *parts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (whole / "backup_manifest").is_file()
    assert not list(whole.rglob("INCREMENTAL*"))


def test_who_asks_for_too_much_is_told(story: Chain) -> None:
    with pytest.raises(PgopsError, match="must stay free"):
        take(story.site, backup={"min_free": "900TiB"})
