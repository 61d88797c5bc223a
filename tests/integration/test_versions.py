# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on every version of PostgreSQL that this machine has, and from older servers to newer ones."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import errors
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import SEGMENT, kind
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_records import newest_commit
from demo import compare, dataset
from demo.servers import MotoS3, PostgresServer, system_bindirs
from tests.integration.conftest import Servers, Site, create_database, databases_of, empty, run_sql, same_superuser

MakeSite = Callable[..., Site]
INSTALLED = sorted({int(path.parent.name) for path in system_bindirs()} - {16, 18})
VERSIONS = sorted({16, 18, *INSTALLED})
# What is stored, not how a version's catalog describes it.
SAME_IN_ALL_VERSIONS = ("tables", "sequences", "large objects", "policies", "schemas", "types", "comments")


def test_the_versions_of_this_machine() -> None:
    assert {16, 18} <= set(VERSIONS)


@pytest.mark.parametrize("major", VERSIONS)
def test_the_main_job(servers: Servers, make_site: MakeSite, store: MotoS3, major: int) -> None:
    """Back up, copy off, prove from there, lose the server, get everything back on another."""
    server, other = servers.get("filled", major), servers.get("target", major)
    empty(other)
    same_superuser(server, other)
    site = make_site(server)
    site.use_s3(store)
    before = compare.snapshot(server)
    site.backup()
    site.push()
    (report,) = site.verify("restore", place="s3")["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "restore"), report
    assert report["checked"]["server_version"].startswith(str(major))
    lost = Site(site.root.parent / "new host", other, instance=site.instance, options=site.options)
    lost.restore(place="s3", set="latest_verified")
    assert compare.differences(before, compare.snapshot(other)) == []


@pytest.mark.parametrize("major", VERSIONS)
def test_the_newest_commit_of_a_segment_is_the_one_that_postgresql_reads(
    servers: Servers, tmp_path: Path, major: int
) -> None:
    server = servers.get("filled", major)
    program = "DO $$ BEGIN INSERT INTO several VALUES (2); EXCEPTION WHEN division_by_zero THEN NULL; END $$"
    run_sql(server, "postgres", "DROP TABLE IF EXISTS several; CREATE TABLE several (no int)")
    run_sql(server, "postgres", program)
    run_sql(server, "postgres", "BEGIN; INSERT INTO several VALUES (3); ROLLBACK")
    ((ended,),) = run_sql(server, "postgres", "SELECT pg_walfile_name(pg_switch_wal())")
    run_sql(server, "postgres", "DROP TABLE several")
    folder = server.data_dir / "pg_wal"
    names = sorted(name for name in os.listdir(folder) if kind(name) == SEGMENT and name <= ended)[-6:]
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # a checkpoint may remove it
            shutil.copyfile(folder / name, tmp_path / name)
    found = {path.name: newest_commit(path.read_bytes()) for path in tmp_path.iterdir()}
    assert found == {path.name: read_by_postgresql(server, path) for path in tmp_path.iterdir()}
    assert found[ended] is not None


def read_by_postgresql(server: PostgresServer, segment: Path) -> datetime | None:
    """Return the newest commit that its own program shows of one segment. It fails at a record that goes on in the next."""
    command = [str(server.bindir / "pg_waldump"), "--rmgr=Transaction", str(segment)]
    env = {**server.env, "TZ": "UTC"}
    said = subprocess.run(command, env=env, cwd="/", stdout=subprocess.PIPE, text=True, check=False)
    commits = re.findall(r"desc: COMMIT(?:_PREPARED)? (?:\d+: )?(\d{4}-\d\d-\d\d [\d:.]+) UTC", said.stdout)
    return datetime.fromisoformat(commits[-1] + "+00:00") if commits else None


def across(before: dict[str, Any], after: dict[str, Any], databases: tuple[str, ...]) -> list[str]:
    """Return the differences that no change of version explains."""
    differences = []
    for name in databases:
        one, two = before['database "%s"' % name], after['database "%s"' % name]
        for section in SAME_IN_ALL_VERSIONS:
            differences += compare.differences({name: {section: one[section]}}, {name: {section: two[section]}})
    return differences


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in VERSIONS for new in VERSIONS if old < new])
def test_an_older_server_s_set_goes_to_a_newer_one(servers: Servers, make_site: MakeSite, old: int, new: int) -> None:
    source, server = servers.get("filled", old), servers.get("target", new)
    empty(server)
    site = make_site(source)
    before = compare.snapshot(source)
    site.backup()
    lacking = extensions_of(source, dataset.ORDERING) - available(server)
    databases = dataset.DATABASES
    if lacking:  # the distribution's server has extensions that the wheel's has not
        with pytest.raises(RefusedError, match="needs the extension %s" % sorted(lacking)[0]):
            site.restore(to=server)
        assert databases_of(server) == {"postgres"}
        databases = (dataset.HOSTILE,)
    site.restore(to=server, databases=databases)
    after = compare.snapshot(server)
    assert across(before, after, databases) == []
    roles = {name: facts for name, facts in before["the server"]["roles"].items() if name != "postgres"}
    held = {name: facts for name, facts in after["the server"]["roles"].items() if name != "postgres"}
    assert compare.differences({"roles": {"roles": roles}}, {"roles": {"roles": held}}) == []
    assert databases_of(server) == {*databases, "postgres"}


PARTITIONED = """
CREATE TABLE p (i int PRIMARY KEY) PARTITION BY RANGE (i);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (100);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
CREATE TABLE f (i int REFERENCES p);
INSERT INTO p VALUES (1), (150); INSERT INTO f VALUES (1), (150);
CREATE TABLE a (i int NOT NULL, j int NOT NULL); CREATE TABLE b () INHERITS (a); ALTER TABLE b ALTER i DROP NOT NULL;
"""


def test_what_a_newer_version_names_or_keeps_otherwise_is_no_loss(servers: Servers, make_site: MakeSite) -> None:
    """PostgreSQL 18 names the keys to partitions anew, and a child cannot do without its parent's NOT NULL."""
    source, server = servers.get("target", 16), servers.get("target", 18)
    for one in (source, server):
        empty(one)
    create_database(source, "parted", PARTITIONED)
    site = make_site(source)
    set_id = site.backup(databases=["parted"])["set"]
    (done,) = site.restore(to=server)["databases"]
    assert done["remarks"] == ["relation public.b: column i is NOT NULL now, as in its parent"]

    def lost(manifest: dict[str, Any]) -> None:
        manifest["databases"][0]["fingerprint"]["relations"]["public.b"]["nullable_columns"] = "others"

    with pytest.raises(errors.DamagedError, match=r"relation public\.b: columns was"):
        site.restore(to=server, set=site.forge(set_id, lost), rename={"parted": "again"})


def extensions_of(server: PostgresServer, name: str) -> set[str]:
    return {row[0] for row in run_sql(server, name, "SELECT extname FROM pg_extension")}


def available(server: PostgresServer) -> set[str]:
    return {row[0] for row in run_sql(server, "postgres", "SELECT name FROM pg_available_extensions")}


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in VERSIONS for new in VERSIONS if old < new])
def test_a_set_is_proven_by_a_newer_server_too(servers: Servers, make_site: MakeSite, old: int, new: int) -> None:
    """The backup host may have only the programs of a newer version."""
    site = make_site(servers.get("filled", old))
    site.backup(databases=[dataset.HOSTILE])
    newer = str(servers.get("target", new).bindir)
    (report,) = site.verify("restore", sections={"verify": {"server_bin_dir": newer}})["sets"]
    assert report["outcome"] == "passed", report["findings"]
    assert report["checked"]["server_version"].startswith(str(new))


@pytest.mark.parametrize("old", VERSIONS[:-1])
def test_newer_programs_back_up_an_older_server(servers: Servers, make_site: MakeSite, old: int) -> None:
    newest: PostgresServer = servers.get("filled", VERSIONS[-1])
    server, other = servers.get("filled", old), servers.get("target", old)
    site = make_site(server, postgres={"bin_dir": str(newest.bindir)})
    manifest = site.manifest(site.backup(databases=[dataset.HOSTILE])["set"])
    assert manifest.tools["pg_dump"].startswith(str(VERSIONS[-1]))
    assert manifest.server_version_num // 10000 == old
    # The older programs cannot read it; the newer ones bring it back to a server of the old version.
    empty(other)
    with pytest.raises(UsageError, match="older than"):
        site.restore(to=other)
    site.restore(to=other, sections={"postgres": {"bin_dir": str(newest.bindir)}})
    before, after = compare.snapshot(server), compare.snapshot(other)
    key = 'database "%s"' % dataset.HOSTILE
    assert compare.differences({"x": before[key]}, {"x": after[key]}) == []


@pytest.mark.parametrize("old", VERSIONS[:-1])
def test_no_set_goes_to_an_older_server(servers: Servers, make_site: MakeSite, old: int) -> None:
    newest, other = servers.get("filled", VERSIONS[-1]), servers.get("target", old)
    empty(other)
    site = make_site(newest)
    site.backup(databases=[dataset.HOSTILE])
    with pytest.raises(RefusedError, match="Dumps go to the same or a newer major version"):
        site.restore(to=other, sections={"postgres": {"bin_dir": str(newest.bindir)}})
    assert databases_of(other) == {"postgres"}
