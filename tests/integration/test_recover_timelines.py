# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery where history branches: a failover, a second recovery over a recovered server, an upgrade to another version."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError, RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import parse_target
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import debian
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, recovery_plan
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import Request, info
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request as PruneRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import wal_status
from demo.machine import server_account, short_temp_dir
from demo.servers import PostgresServer, free_port, wheel_bindir
from tests.integration.conftest import BUCKET, Key, Site, age_directory, create_database, key_in, run_sql, wait_for
from tests.integration.s3_fixtures import rclone_server  # noqa: F401  # pylint: disable=unused-import
from tests.integration.test_group import caught_up, standby_of
from tests.integration.test_recover import Story, own, upto
from tests.integration.wal_fixtures import Host, archived_up_to, as_server


def archiving(host: Host) -> dict[str, str]:
    return {"archive_mode": "on", "archive_command": host.command("archive", "%p"), "wal_level": "replica"}


def story_of(server: PostgresServer, host: Host, root: Path) -> Story:
    """The first part of a story: five rows in the archive, two of which are in a base backup."""
    create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
    options = {"local": {"path": str(host.root / "backups")}, "wal": {"enabled": True}}
    site = Site(root / "site", server, instance="db1", options=options)
    told = Story(server, site, host.wal, config_file=str(host.root / "config.json"), program=str(host.program))
    told.write(2)
    told.back_up()
    told.write(3)
    archived_up_to(server)
    return told


def fail_over(told: Story, standby: PostgresServer) -> None:
    """End the server of the story, and let its standby, which has all of it, go on with three rows, which it archives."""
    caught_up(told.server, standby)
    told.server.stop(immediate=True)
    assert run_sql(standby, "postgres", "SELECT pg_promote(wait_seconds => 120)") == [(True,)]
    told.server = standby
    told.write(3)
    archived_up_to(standby)


def windows(told: Story) -> list[tuple[str, int]]:
    """The clusters and timelines of which something can be brought back."""
    (place,) = info(told.site.engine(), Request())["places"]
    return [(window["system_identifier"], window["timeline"]) for window in place["windows"] if window["stretches"]]


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A failover after seven rows, and three more on the new primary, which archives to the same place; the old one is gone."""
    root, host = tmp_path_factory.mktemp("switched"), Host()
    with PostgresServer(wheel_bindir(18), root, settings=archiving(host)) as primary:
        told = story_of(primary, host, root)
        with standby_of(primary, root, **archiving(host)) as standby:
            told.write(1)
            archived_up_to(primary)
            told.write(1)  # which only the standby has; and behind a switch there is nothing to wait for but a record
            fail_over(told, standby)
            yield told
            for folder in told.copies:
                told.stop(folder)
    host.close()


def rows_at(told: Story, **asked: object) -> tuple[list[int], int]:
    """Recover, and return the rows and the timeline that the copy is on."""
    folder = told.folder()
    try:
        result = told.recover(folder, tablespaces={}, **asked)
        return told.rows(result), result["stopped"]["timeline"]
    finally:
        told.stop(folder)
        shutil.rmtree(folder)
        told.copies.remove(folder)


def test_a_failover_is_no_end(switched: Story) -> None:
    assert rows_at(switched, time=switched.moments[9].isoformat()) == (upto(9), 3)
    assert rows_at(switched, end="yes") == (upto(10), 3)
    # Before it, as if it had never been.
    assert rows_at(switched, time=switched.moments[4].isoformat(), timeline="current") == (upto(4), 3)


def test_a_second_recovery_over_a_recovered_server(switched: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, archives to the same place, and is brought back to what it did since; the first history stays reachable."""
    folder = switched.folder()
    data = folder / "data"
    conf = folder / "etc" / "18" / "main" / "postgresql.conf"
    conf.parent.mkdir(parents=True)
    (folder / "hba.conf").write_text("local all all trust\n")
    port = free_port()
    command = "%s wal archive -c %s %%p" % (switched.program, switched.config_file)
    conf.write_text(
        "data_directory = '%s'\nport = %d\nunix_socket_directories = '%s'\nlisten_addresses = ''\nhba_file = '%s/hba.conf'\n"
        "archive_mode = on\narchive_command = '%s'\n" % (data, port, folder, folder, command)
    )
    own(switched.server, *folder.rglob("*"))
    monkeypatch.setattr(recovery_plan, "cluster_of", lambda path: debian.cluster_of(path, folder / "etc"))
    result = switched.recover(
        folder, time=switched.moments[8].isoformat(), mode="in_place", leave="stopped", tablespaces={}
    )
    assert result["stopped"]["timeline"] == 3
    # As the runbook says.
    auto = data / "postgresql.auto.conf"
    auto.write_text("".join(line for line in auto.read_text().splitlines(True) if not line.startswith("archive_")))
    switched.start(conf)
    restored = copy.copy(switched.server)
    restored.socket_dir, restored.port, restored.log_file = folder, port, conf.parent / "server.log"
    before, switched.server = switched.server, restored
    try:
        switched.count = 100
        switched.write(2)
        archived_up_to(restored)
        history = ["wal", "archive", "-c", switched.config_file, "pg_wal/00000003.history"]
        subprocess.run([switched.program, *history], **{**as_server(), "cwd": data}, check=True)
    finally:
        switched.server = before
        switched.stop(folder)
    assert rows_at(switched, end="yes") == ([*upto(8), 101, 102], 4)
    assert rows_at(switched, time=switched.moments[101].isoformat()) == ([*upto(8), 101], 4)
    # It needs no WAL of the archive, but must not begin a timeline that another recovery has begun before it.
    assert rows_at(switched, immediate="yes") == (upto(2), 4)
    # The latest one would be brought to row 8 only.
    for target in ({"time": switched.moments[10].isoformat()}, {"xid": switched.xids[10]}):
        with pytest.raises(RefusedError, match="may lie on timeline 2 and on timeline 3"):
            switched.recover(dry_run=True, tablespaces={}, **target)
        assert rows_at(switched, timeline="2", **target)[0] == upto(10)


def test_an_upgrade_begins_a_new_lineage_and_the_old_one_can_still_be_restored(tmp_path: Path) -> None:
    host, old_bin, new_bin = Host(), wheel_bindir(16), wheel_bindir(18)
    with PostgresServer(old_bin, tmp_path, settings=archiving(host)) as old:
        told = story_of(old, host, tmp_path)
        with PostgresServer(new_bin, tmp_path, settings=archiving(host)) as new:
            new.stop()
            old.stop()
            upgrade(old, new)
            new.password = old.password
            new.start()
            told.server, told.site.server = new, new
            told.write(1)
            archived_up_to(new)
            folder = told.folder()
            with pytest.raises(RefusedError, match="cannot be reached from any base backup"):
                told.recover(folder, time=told.moments[6].isoformat(), tablespaces={})
            told.back_up()
            told.write(2)
            archived_up_to(new)
            systems = [system for system, _timeline in windows(told)]
            assert len(set(systems)) == len(systems) == 2
            try:
                assert rows_at(told, time=told.moments[7].isoformat())[0] == upto(7)
                sections = {"postgres": {"bin_dir": str(old.bindir)}}
                assert rows_at(told, time=told.moments[4].isoformat(), sections=sections)[0] == upto(4)
                # The newest lineage is not taken for the end of the old one.
                assert rows_at(told, end="yes")[0] == upto(8)
                assert rows_at(told, end="yes", set=told.bases[0], sections=sections)[0] == upto(5)
            finally:
                for left in told.copies:
                    told.stop(left)
    host.close()


def upgrade(old: PostgresServer, new: PostgresServer) -> None:
    """Move the data of `old` into `new` by pg_upgrade; both are stopped."""
    folder = new.root / "upgrade"
    folder.mkdir()
    own(new, folder)
    words = ["-b", str(old.bindir), "-B", str(new.bindir), "-d", str(old.data_dir), "-D", str(new.data_dir)]
    done = subprocess.run(
        [str(new.bindir / "pg_upgrade"), *words, "-U", "postgres", "-s", str(new.socket_dir)],
        **{**as_server(), "cwd": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("Upgrade Complete", done.stdout)


# --- from S3 alone ----------------------------------------------------------------------------------------------------


FAILOVER = "failover"  # an instance of its own, as the store may be that of other tests, too


@dataclass
class Nodes:
    """Two hosts with a spool and a state each, whose WAL goes to one S3 place, encrypted, and a third one that has nothing of it.

    Only the third one has the private key.
    """

    told: Story
    one: Host
    two: Host
    empty: Host
    store: Any
    key: Key
    standby: PostgresServer

    def site(self, host: Host, server: PostgresServer) -> Site:
        options = {
            "local": {"path": str(host.root / "backups")},
            "wal": {"enabled": True},
            "s3": s3_of(self.store),
            "verify": {"place": "s3", "level": "checksum"},
            **sealed(self.key, private=host is self.empty),
        }
        return Site(host.root / "site", server, instance=FAILOVER, options=options)

    def back_up(self, site: Site) -> dict[str, Any]:
        """Take a base backup straight to S3."""
        request = backup.Request(kind="base", to="s3")
        return runs.perform(site.engine(), "backup", lambda c: backup.backup(c, request))

    def findings(self, site: Site) -> dict[str, str]:
        return {one["check"]: one["severity"] for one in wal_status(site.engine())["findings"]}


def s3_of(store: Any) -> dict[str, str]:
    return {
        "bucket": BUCKET,
        "endpoint_url": store.endpoint_url,
        "region": store.region,
        "addressing_style": "path",
        "access_key": store.access_key,
        "secret_key": store.secret_key,
    }


def sealed(key: Key, *, private: bool) -> dict[str, Any]:
    """The sections of a configuration that encrypts, and of one that can decrypt."""
    sections = {"backup": {"min_free": "1MiB", "encryption": "age", "recipients": [key.public]}}
    return {**sections, "restore": {"identity_file": str(key.file)}} if private else sections


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    """A key, and age on PATH, both where the account of the server can reach them."""
    folder = short_temp_dir()
    with pytest.MonkeyPatch.context() as patched:
        for name in ("age", "age-keygen"):
            shutil.copy(Path(age_directory()) / name, folder)
        folder.chmod(0o755)
        patched.setenv("PATH", "%s:%s" % (folder, os.environ["PATH"]))
        made = key_in(folder / "key")
        account = server_account()
        if account:
            os.chown(made.file, account.pw_uid, account.pw_gid)
        yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def nodes(rclone: Any, key: Key, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Five rows, a failover, and three more on the new primary; each node ships what it archived itself."""
    root = tmp_path_factory.mktemp("nodes")
    hosts = [Host() for _number in range(3)]
    one, two, empty = hosts
    for host in hosts:
        host.configure(instance=FAILOVER, s3=s3_of(rclone), **sealed(key, private=host is empty))
    with PostgresServer(wheel_bindir(18), root, settings=archiving(one)) as primary:
        create_database(primary, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        told = Story(primary, Site(root / "none", primary), empty.wal)
        with standby_of(primary, root, **archiving(two)) as standby:
            made = Nodes(told, one, two, empty, rclone, key, standby)
            told.write(2)
            told.bases.append(made.back_up(made.site(one, primary))["set"])
            told.write(3)
            archived_up_to(primary)
            assert one.json("wal", "ship")["pending"] == 0
            fail_over(told, standby)
            assert two.json("wal", "ship")["pending"] == 0
            told.site = made.site(empty, standby)
            told.config_file, told.program = str(empty.root / "config.json"), str(empty.program)
            yield made
            for folder in told.copies:
                told.stop(folder)
    for host in hosts:
        host.close()


def test_a_recovery_gets_across_the_switch_from_s3_alone(nodes: Nodes) -> None:
    """Encrypted on both sides of it: to a moment behind it, to the end, and to a moment before it as if it had never been."""
    told = nodes.told
    client, prefix = nodes.store.client(), "database-backups/%s/" % FAILOVER
    stored = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]
    plain = {key.rpartition("/")[2].partition("-")[0] for key in stored if not key.endswith(".age")}
    # What tells no row: which timelines there are, how long a segment is, and what a set is.
    assert plain == {"00000002.history", "segments", "manifest.json"}
    assert {key.split("/wal/")[1].split("/")[1][:8] for key in stored if "/wal/" in key and key.endswith(".age")} == {
        "00000001",
        "00000002",
    }
    assert rows_at(told, time=told.moments[7].isoformat()) == (upto(7), 3)
    assert rows_at(told, end="yes") == (upto(8), 3)
    assert rows_at(told, time=told.moments[4].isoformat(), timeline="current") == (upto(4), 3)
    # Of the node that is gone only S3 knows, and of the other one nothing was asked.
    assert not (nodes.empty.root / "backups" / FAILOVER).exists()


def test_a_key_that_one_recovery_is_given_opens_the_wal_as_well(nodes: Nodes) -> None:
    """It is brought for as long as it takes (--identity-file): the configuration, which the server's own calls read, has none."""
    told, host = nodes.told, nodes.empty
    try:
        host.configure(instance=FAILOVER, s3=s3_of(nodes.store), **sealed(nodes.key, private=False))
        assert rows_at(told, time=told.moments[7].isoformat()) == (upto(7), 3)
    finally:
        host.configure(instance=FAILOVER, s3=s3_of(nodes.store), **sealed(nodes.key, private=True))


def test_the_wal_of_both_nodes_is_read_again_in_s3(nodes: Nodes) -> None:
    site = nodes.told.site

    def read() -> dict[str, Any]:
        return site.verify("checksum", place="s3")["wal"]

    whole = read()
    assert (whole["damaged"], whole["left"], whole["passed"]) == ([], 0, whole["files"])
    assert whole["files"] >= 4
    client, prefix = nodes.store.client(), "database-backups/%s/wal/" % FAILOVER
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    needed = sorted(item["Key"] for item in listed if "/00000002" in item["Key"] and "history" not in item["Key"])
    good = client.get_object(Bucket=BUCKET, Key=needed[0])["Body"].read()
    at = len(good) // 2  # behind the header of age, which says for whom it is
    for damaged in (good[:-1], good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
        client.put_object(Bucket=BUCKET, Key=needed[0], Body=damaged)
        with pytest.raises(DamagedError, match=r"WAL in s3://.* failed the verification"):
            read()
        assert nodes.findings(site)["wal damaged"] == "warning"
        # It is known before anything is touched that a recovery cannot get there.
        with pytest.raises(RefusedError, match=r"are missing|holds WAL for it up to|cannot be reached"):
            nodes.told.recover(dry_run=True, tablespaces={}, time=nodes.told.moments[8].isoformat())
    client.put_object(Bucket=BUCKET, Key=needed[0], Body=good)
    assert read()["damaged"] == []
    assert "wal damaged" not in nodes.findings(site)


def test_places_that_contradict_each_other_about_a_timeline_lead_across_no_switch(nodes: Nodes) -> None:
    """Another server was promoted to the same timeline, and this host has its history; S3 has that of the first one."""
    told, site, host = nodes.told, nodes.told.site, nodes.empty
    target = {"time": told.moments[8].isoformat(), "tablespaces": {}, "dry_run": True}
    assert told.recover(**target)["plan"]["refusals"] == []
    ((system,),) = run_sql(nodes.standby, "postgres", "SELECT system_identifier::text FROM pg_control_system()")
    file = host.root / "00000002.history"
    file.write_text("1\t0/1000028\tno recovery target specified\n")
    own(nodes.standby, file)
    host.run("wal", "archive", "--system-identifier", system, str(file))
    try:
        status = wal_status(site.engine())
        texts = [
            f["text"] for f in status["findings"] if (f["check"], f["severity"]) == ("wal contradiction", "critical")
        ]
        assert any("different histories of timeline 2" in text for text in texts), status["findings"]
        assert "wal history" not in {f["check"] for f in status["findings"]}
        assert [w["timeline"] for p in status["places"] for w in p["windows"] if w["stretches"]] == [1]
        with pytest.raises(RefusedError, match=r"holds WAL for it up to|cannot be reached|ends with"):
            told.recover(**target)
        assert "different histories of timeline 2" in site.warnings
        site.verify("checksum", place="s3")
        assert "different histories of timeline 2" in site.warnings
    finally:
        shutil.rmtree(host.root / "backups" / FAILOVER / "wal")
    assert "wal contradiction" not in nodes.findings(site)
    assert told.recover(**target)["plan"]["refusals"] == []


def test_the_local_place_is_asked_alone_only_where_it_leads_across_the_switch(nodes: Nodes) -> None:
    """What lies in S3 is brought to the host bit by bit; the server must ask S3 until all of its way is here."""
    told, home = nodes.told, nodes.empty.root / "backups" / FAILOVER
    client, root = nodes.store.client(), "database-backups/%s/" % FAILOVER
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=root)["Contents"]]

    def bring(part: str) -> None:
        for key in keys:
            path = home / key.removeprefix(root)
            if part in key and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def alone(timeline: str = "latest", **target: str) -> bool:
        context = told.site.engine()
        context.config_file, context.program = told.config_file, told.program
        asked = recovery_plan.Request(
            parse_target(target, timeline=timeline), str(told.folder() / "data"), set=told.bases[0], place="local"
        )
        work = recovery_plan.prepare(context, asked)
        assert work.refusals == []
        return "--place local" in work.command

    before, behind, end = {"time": told.moments[4].isoformat()}, {"time": told.moments[8].isoformat()}, {"end": "yes"}
    bring("/sets/")
    try:
        assert not alone(**before, timeline="current"), "there is no WAL here yet"
        bring("/wal/")
        assert alone(**before) and alone(**behind) and alone(**end)
        for path in [p for p in home.rglob("00000002*") if p.is_file() and "history" not in p.name]:
            path.unlink()
        assert alone(**before, timeline="current")
        assert not alone(**behind), "what lies behind the switch is in S3 only"
        assert not alone(**end)
        assert alone(**end, timeline="current")
        max(p for p in home.rglob("00000001*-*") if re.match("[0-9A-F]{24}-", p.name)).unlink()
        assert not alone(**end, timeline="current"), "S3 has more of it"
    finally:
        shutil.rmtree(home)


def test_the_new_timeline_is_told_until_a_base_backup_is_of_it(nodes: Nodes) -> None:
    site = nodes.site(nodes.two, nodes.standby)
    assert nodes.findings(site)["wal timeline"] == "warning"
    made = nodes.back_up(site)
    assert (made["timeline"], made["wal"]["timeline"], made["wal"]["failing"]) == (2, 2, False)
    assert site.records()[-1]["wal"] == made["wal"]
    assert "wal timeline" not in nodes.findings(site)


def test_the_wal_of_a_cluster_that_is_no_more_goes_from_s3_and_nothing_else(nodes: Nodes) -> None:
    """Forty days later: of another cluster than this one there is WAL, and in no place a base backup."""
    told, host, ended = nodes.told, nodes.empty, "7300000000000000001"
    client, prefix = nodes.store.client(), "database-backups/%s/wal/" % FAILOVER
    names = ["0000000100000000/000000010000000000000001-%s.zst.age" % ("a" * 64), "00000002.history-%s" % ("b" * 64)]
    for name in (*names, "segments-of-16777216"):
        client.put_object(Bucket=BUCKET, Key="%s%s/%s" % (prefix, ended, name), Body=b"of no more use")
    spooled = host.wal.parent.parent / FAILOVER / "wal" / ended / names[1]
    spooled.parent.mkdir(parents=True)
    spooled.write_bytes(b"of no more use")

    def stored() -> set[str]:
        return {item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]}

    def pruned(days: int, *clusters: str, dry_run: bool = False) -> list[Any]:
        context = told.site.engine()
        context.clock = lambda: datetime.now(UTC) + timedelta(days=days)
        request = PruneRequest(dry_run=dry_run, clusters=clusters)
        found = runs.perform(context, "prune", lambda c: prune(c, request), dry_run=dry_run)["wal_clusters"]
        return [(one["place"], one["system_identifier"]) for one in found]

    wait_for(lambda: datetime.now(UTC) - datetime.fromtimestamp(spooled.stat().st_mtime, UTC) > timedelta(seconds=1.1))
    made = nodes.back_up(told.site)["set"]
    told.write(1)
    archived_up_to(nodes.standby)
    assert nodes.two.json("wal", "ship")["pending"] == 0
    before = stored()
    assert pruned(20) == []
    for asked in ((), (ended,)):
        assert pruned(40, *asked, dry_run=True) == [("local", ended), ("s3", ended)]
    assert stored() == before
    assert pruned(40, ended) == [("local", ended), ("s3", ended)]
    recorded = [one["wal_clusters"] for one in told.site.records() if one["verb"] == "prune"]
    assert [[one["files"] for one in clusters] for clusters in recorded] == [[], [1, 3]]
    assert not spooled.exists()
    gone = before - stored()
    assert {key for key in before if "/%s/" % ended in key} <= gone
    assert rows_at(told, end="yes", set=made)[0] == upto(9)
