# SPDX-License-Identifier: GPL-3.0-or-later
"""A real primary and a real standby: one of them backs up, also after a failover, and a person hears when none can."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import config, runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import dumping
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.backup_role import Wanted, backup_role
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.members import ask
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, sync
from demo.servers import MotoS3, PostgresServer
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import (
    BUCKET,
    Site,
    bindir_of,
    create_shop,
    databases_of,
    run_sql,
    wait_for,
)
from tests.integration.test_modules import Site as Playbooks
from tests.integration.test_modules import task

MakeSite = Callable[..., Site]
LONG = 90


def entry(server: PostgresServer) -> str:
    return "%s:%d" % (server.host, server.port)


@contextmanager
def standby_of(server: PostgresServer, root: Path, **settings: str | int) -> Iterator[PostgresServer]:
    """A streaming standby, which has replayed all there is."""
    other = PostgresServer(server.bindir, root, settings=settings)
    other.password = server.password
    account: dict[str, Any] = {}
    if other.account:
        account = {"user": other.account.pw_uid, "group": other.account.pw_gid, "extra_groups": [], "cwd": "/"}
    server.run("pg_basebackup", "-D", str(other.data_dir), "-R", "-c", "fast", "--no-sync", "-X", "stream", **account)
    with other:
        caught_up(server, other)
        yield other


def caught_up(primary: PostgresServer, standby: PostgresServer) -> None:
    """Wait until the standby has replayed what the primary has written.

    That is told by a record of ours: where the next one would begin may lie behind the header of a page, and nothing comes there
    for a quarter of a minute.
    """
    (position,) = run_sql(primary, "postgres", "SELECT pg_logical_emit_message(false, 'caught up', '')::text")[0]
    question = "SELECT pg_last_wal_replay_lsn() >= '%s'" % position

    def there() -> bool:
        try:
            return bool(run_sql(standby, "postgres", question)[0][0])
        except psycopg2.OperationalError:
            return False

    wait_for(there, seconds=LONG)


@dataclass
class Pair:
    """A primary and its standby, each the server of a site; both sites are one group with one S3 place."""

    primary: PostgresServer
    standby: PostgresServer
    one: Site = field(init=False)
    two: Site = field(init=False)

    def lay_out(self, root: Path, store: MotoS3, **group: Any) -> None:
        """Make the sites; `group` lies over the section of that name."""
        members = [entry(self.primary), entry(self.standby)]
        self.one, self.two = (
            Site(root / name, server, instance="group-%s" % root.name.replace("_", "-"))
            for name, server in (("one", self.primary), ("two", self.standby))
        )
        for site, node in ((self.one, members[0]), (self.two, members[1])):
            site.use_s3(store)
            site.options = config.merge(site.options, {"group": {"members": members, "node": node, **group}})


@contextmanager
def two_servers(root: Path) -> Iterator[Pair]:
    """A primary with the shop, and its standby."""
    # A commit is in the WAL at once, so that the standby can be seen to have it.
    with PostgresServer(bindir_of(18), root, settings={"synchronous_commit": "local"}) as primary:
        create_shop(primary)
        with standby_of(primary, root, max_standby_streaming_delay="200ms") as standby:
            run_sql(primary, "shop", "SELECT nextval('shop.tickets')")  # so that the standby has replayed a commit
            caught_up(primary, standby)
            yield Pair(primary, standby)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A primary and its standby for tests that leave them such."""
    with two_servers(tmp_path_factory.mktemp("pair")) as found:
        yield found


@pytest.fixture
def pair(lasting: Pair, tmp_path: Path, store: MotoS3) -> Iterator[Pair]:
    """A group of a primary and its standby, in which the primary backs up."""
    lasting.lay_out(tmp_path, store)
    yield lasting
    run_sql(lasting.standby, "postgres", "SELECT pg_wal_replay_resume()")


def night(site: Site) -> tuple[dict[str, Any], dict[str, Any]]:
    """Back up and sync, recorded, and return both results."""
    made = site.backup()
    context = site.engine()
    return made, runs.perform(context, "sync", lambda c: sync.sync(c, sync.Request()))


def last_backup(site: Site) -> dict[str, Any]:
    """The record of the last backup."""
    return [record for record in site.records() if record["verb"] == "backup"][-1]


def remote_sets(site: Site, store: MotoS3) -> list[str]:
    """The sets in the bucket, as boto3 lists them."""
    found = store.client().list_objects_v2(Bucket=BUCKET, Prefix="database-backups/%s/" % site.instance)
    return sorted(
        item["Key"].split("/")[3] for item in found.get("Contents", []) if item["Key"].endswith("manifest.json")
    )


# --- whose turn it is -------------------------------------------------------------------------------------------------


def test_one_of_two_backs_up_and_syncs_and_after_a_failover_the_other(tmp_path: Path, store: MotoS3) -> None:
    with two_servers(tmp_path / "servers") as pair:
        pair.lay_out(tmp_path, store)
        fail_over(pair, store)


def fail_over(pair: Pair, store: MotoS3) -> None:
    made, sent = night(pair.one)
    left, idle = night(pair.two)
    assert sent["sets"] == [made["set"]] == remote_sets(pair.one, store)
    why = "%s backs up this group: it is the primary." % entry(pair.primary)
    assert (left["skipped"], idle["skipped"]) == (why, why)
    assert pair.two.sets() == []
    assert [(r["verb"], r["outcome"], r["exit_code"], r["skipped"]) for r in pair.two.records()] == [
        ("backup", "ok", 0, why),
        ("sync", "ok", 0, why),
    ]
    assert made["group"]["members"] == [
        {"name": entry(pair.primary), "state": "primary", "behind_seconds": None},
        {"name": entry(pair.standby), "state": "standby", "behind_seconds": 0.0},
    ]
    # The other sees the same sets, so that its freshness is that of the group.
    assert not pair.one.manifest(made["set"]).from_standby

    pair.primary.stop()
    run_sql(pair.standby, "postgres", "SELECT pg_promote()")
    later, sent = night(pair.two)
    assert remote_sets(pair.one, store) == [made["set"], later["set"]]
    assert pair.two.manifest(later["set"]).system_identifier == pair.one.manifest(made["set"]).system_identifier
    assert "could not be asked" in pair.two.warnings
    # The old primary is down. Its host sees that the other one works, and that its own server does not.
    assert pair.one.backup()["skipped"] == "%s backs up this group: it is the primary." % entry(pair.standby)
    assert "%s of this group could not be asked: No connection" % entry(pair.primary) in pair.one.warnings

    pair.primary.start()  # as an operator should not: now there are two
    for site in (pair.one, pair.two):
        with pytest.raises(RefusedError, match=r"\(timeline 1\) and .* \(timeline 2\) all call themselves the primary"):
            site.backup()
        assert last_backup(site)["exit_code"] == 5


def test_when_the_primary_is_down_and_nobody_was_promoted_a_person_hears(pair: Pair) -> None:
    pair.primary.stop()
    for site in (pair.one, pair.two):
        with pytest.raises(UnreachableError, match="No member of this group can back up") as caught:
            site.backup()
        assert "%s: it is a standby" % entry(pair.standby) in caught.value.message
        assert last_backup(site)["exit_code"] == 4
    pair.primary.start()


def test_a_standby_is_preferred_as_long_as_it_keeps_up(pair: Pair, tmp_path: Path, store: MotoS3) -> None:
    pair.lay_out(tmp_path, store, run_on="prefer_standby", max_lag="1s")
    made, sent = night(pair.two)
    assert pair.two.manifest(made["set"]).from_standby
    assert sent["sets"] == [made["set"]]
    assert "it is a standby, nothing behind" in pair.one.backup()["skipped"]
    assert pair.two.verify("restore")["sets"][0]["outcome"] == "passed"

    run_sql(pair.standby, "postgres", "SELECT pg_wal_replay_pause()")
    run_sql(pair.primary, "shop", "INSERT INTO shop.sales (good) VALUES (1)")
    run_sql(pair.standby, "postgres", "SELECT pg_sleep(1.2)")
    assert pair.two.backup()["skipped"].endswith("it is the primary, and no standby qualifies.")
    made, _unused = night(pair.one)
    assert not pair.one.manifest(made["set"]).from_standby
    assert "instead of %s: its replay is paused, and it is up to " % entry(pair.standby) in (
        "\n".join(warning for record in pair.one.records() for warning in record["warnings"])
    )
    # Whoever asks a moment after a write must not take a standby that is quick for one that is behind.
    run_sql(pair.standby, "postgres", "SELECT pg_wal_replay_resume()")
    for _again in range(10):
        run_sql(pair.primary, "shop", "INSERT INTO shop.sales (good) VALUES (1)")
        assert [m.state for m in ask(pair.one.engine().config)] == ["primary", "standby"]
        assert "skipped" in pair.one.backup(dry_run=True)


def test_a_standby_hears_its_primary_when_we_cannot(pair: Pair, tmp_path: Path, store: MotoS3) -> None:
    """A firewall between the hosts, but not for replication."""
    pair.lay_out(tmp_path, store, run_on="prefer_standby")
    members = [entry(pair.standby), "127.0.0.1:1"]
    pair.two.options["group"].update(members=members, node=members[0])
    made = pair.two.backup()
    assert pair.two.manifest(made["set"]).from_standby
    assert "127.0.0.1:1 of this group could not be asked" in pair.two.warnings


def test_nodes_that_both_back_up_in_the_same_second_lose_neither_set(pair: Pair, tmp_path: Path, store: MotoS3) -> None:
    # As where they do not see each other: each takes itself for the one.
    pair.lay_out(tmp_path, store)
    pair.two.options = config.merge(pair.two.options, {"group": {"run_on": "prefer_standby"}})
    time.sleep(1 - time.time() % 1)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda site: site.backup(), (pair.one, pair.two)))
    assert [one.get("skipped") for one in made] == [None, None]
    for site in (pair.one, pair.two):
        assert runs.perform(site.engine(), "sync", lambda c: sync.sync(c, sync.Request()))["changed"]
    assert remote_sets(pair.one, store) == sorted({one["set"] for one in made})
    assert len(remote_sets(pair.one, store)) == 2


def test_a_member_without_a_port_is_not_looked_for_at_that_of_a_node_with_one(pair: Pair) -> None:
    # No server here is at 5432: where it is looked for, is what its trouble tells.
    own = entry(pair.standby)
    pair.two.options = config.merge(pair.two.options, {"group": {"members": ["127.0.0.2", own], "node": own}})
    other, itself = ask(pair.two.engine().config)
    assert "port 5432 " in other.trouble
    assert itself.standby
    pair.two.options = config.merge(pair.two.options, {"group": {"members": ["127.0.0.2", "here"], "node": "here"}})
    assert "port %d " % pair.standby.port in ask(pair.two.engine().config)[0].trouble


def test_a_node_that_takes_itself_for_another_is_refused(pair: Pair) -> None:
    pair.two.options["group"]["node"] = entry(pair.primary)
    with pytest.raises(RefusedError, match="are one and the same server") as caught:
        pair.two.backup()
    assert "group.node" in caught.value.hint


def test_members_that_are_strangers_are_refused(pair: Pair, bench: PostgresServer) -> None:
    run_sql(bench, "postgres", "ALTER ROLE postgres PASSWORD '%s'" % pair.primary.password)
    bench.password, before = pair.primary.password, bench.password
    pair.one.options["group"]["members"][1] = entry(bench)
    try:
        with pytest.raises(RefusedError, match="several clusters, by their system identifiers"):
            pair.one.backup()
    finally:
        run_sql(bench, "postgres", "ALTER ROLE postgres PASSWORD '%s'" % before)
        bench.password = before


def test_a_role_without_rights_can_ask(pair: Pair) -> None:
    run_sql(pair.primary, "postgres", "CREATE ROLE asker LOGIN PASSWORD 'asks-politely'")
    caught_up(pair.primary, pair.standby)
    secret = pair.one.root / "asker"
    secret.write_text("asks-politely\n")
    secret.chmod(0o600)
    over = {"login_user": "asker", "login_password_file": str(secret)}
    first, second = ask(pair.one.engine(postgres=over).config)
    assert (first.trouble, second.trouble) == ("", "")
    assert first.system == second.system != ""
    assert (first.timeline, first.standby, second.standby) == (1, False, True)
    assert (first.written or 0) <= (second.replayed or 0)


def test_the_role_for_backups_is_made_on_the_primary_and_checked_on_the_standby(pair: Pair) -> None:
    wanted = Wanted("keeper", password="keeps-what-it-reads")
    context = pair.two.engine()
    planned = backup_role(context, wanted, dry_run=True)
    assert (planned["changed"], planned["checked"], planned["unreadable"]) == (False, None, [])
    assert planned["statements"] == backup_role(pair.one.engine(), wanted, dry_run=True)["statements"]
    assert context.warnings == [
        "The server is a standby, and the role is not yet as it should be. Without check mode it has to have come from the primary."
    ]
    with pytest.raises(RefusedError, match="The server is a standby") as caught:
        backup_role(pair.two.engine(), wanted)
    assert "primary" in caught.value.hint
    run_sql(pair.primary, "shop", "CREATE UNLOGGED TABLE shop.scratch (id int)")
    assert backup_role(pair.one.engine(), wanted)["changed"]
    caught_up(pair.primary, pair.standby)
    there = backup_role(pair.two.engine(), wanted)
    assert (there["changed"], there["unreadable"], there["checked"]["by"]) == (False, [], "login")
    run_sql(pair.primary, "shop", "DROP TABLE shop.scratch")


# --- the program and the modules --------------------------------------------------------------------------------------


def test_the_program_says_who_does_it_and_how_to_do_it_here_all_the_same(pair: Pair, tmp_path: Path) -> None:
    program = Program(tmp_path / "program", pair.two)
    said = program("backup").stdout
    assert said.startswith("Left to another node. %s backs up this group: it is the primary.\n" % entry(pair.primary))
    assert "pgops --config %s backup --set group=null" % program.config in said
    assert program("backup", "--quiet").stdout == ""
    assert program.json("sync")["skipped"] == program.json("verify", "--place", "s3")["skipped"]
    pruned = program("prune").stdout
    assert "s3://%s/database-backups/%s: left to another node." % (BUCKET, pair.two.instance) in pruned
    assert "; %s backs up this group" % entry(pair.primary) in " ".join(program("status").stdout.split())
    assert program.json("backup", "--set", "group=null")["set"]
    assert pair.two.manifest(pair.two.sets()[0]).from_standby


def test_a_module_is_skipped_on_the_other_node(pair: Pair, tmp_path: Path, store: MotoS3) -> None:
    playbooks = Playbooks(tmp_path, pair.standby, store)
    group = {"members": [entry(pair.primary), entry(pair.standby)], "node": entry(pair.standby)}
    played = playbooks.play(
        task("pg_backup", group=group),
        task("pg_backup", {"check_mode": True, "diff": True}, group=group),
        task("s3_backup_sync", group=group),
        task("backup_verify", group=group),
        task("backup_prune", group=group),
        task("pg_backup", group={**group, "node": entry(pair.primary)}),
    )
    *skipped, prune, wrong = played.results
    for result in skipped:
        assert (result["skipped"], result["changed"]) == (True, False)
        assert result["skip_reason"] == "%s backs up this group: it is the primary." % entry(pair.primary)
    assert "skipped" not in prune
    assert [bool(place["skipped"]) for place in prune["places"]] == [False, True]
    assert (wrong["failed"], wrong["exit_code"], wrong["outcome"]) == (True, 5, "refused")
    assert playbooks.local_sets() == []
    assert pair.primary.password not in played.output


# --- replay and dumps -------------------------------------------------------------------------------------------------


def vacuum_away(pair: Pair) -> None:
    """Remove rows for good, which ends every snapshot on the standby that could still see them."""
    run_sql(pair.primary, "shop", "DELETE FROM shop.sales WHERE no IN (SELECT no FROM shop.sales LIMIT 5)")
    run_sql(pair.primary, "shop", "VACUUM shop.sales")
    caught_up(pair.primary, pair.standby)


def test_a_dump_that_the_standby_ends_is_made_anew(
    pair: Pair, tmp_path: Path, store: MotoS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.lay_out(tmp_path, store, run_on="prefer_standby")
    really, times = dumping._run_pg_dump, []

    def conflict(context: Any, job: Any, *others: Any) -> Any:
        if job.database == "shop":
            times.append(1)
            if len(times) <= conflicts:
                vacuum_away(pair)
        return really(context, job, *others)

    monkeypatch.setattr(dumping, "_run_pg_dump", conflict)
    conflicts = 1
    made = pair.two.backup(databases=["shop"])
    assert len(times) == 2
    assert (
        "The standby ended the dump of 'shop', which was in the way of its replay. It is made anew."
        in pair.two.warnings
    )
    manifest = pair.two.manifest(made["set"])
    rows = manifest.databases[0].fingerprint["rows"]  # type: ignore[index]
    (count,) = run_sql(pair.primary, "shop", "SELECT count(*) FROM shop.sales")[0]
    assert count in rows.values()
    times.clear()
    conflicts = 9
    with pytest.raises(PgopsError, match="begun 3 times and never came to its end") as caught:
        pair.two.backup(databases=["shop"])
    assert "hot_standby_feedback" in caught.value.hint
    assert pair.two.sets() == [made["set"]]


def test_a_standby_that_fell_behind_during_the_dump_is_told(
    pair: Pair, tmp_path: Path, store: MotoS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.lay_out(tmp_path, store, run_on="prefer_standby")
    monkeypatch.setattr(backup, "_WORTH_TELLING_SECONDS", 0.1)
    really = dumping._run_pg_dump

    def slow(*given: Any) -> Any:
        run_sql(pair.standby, "postgres", "SELECT pg_wal_replay_pause()")
        run_sql(pair.primary, "shop", "INSERT INTO shop.sales (good) VALUES (1)")
        wait_for(
            lambda: run_sql(pair.standby, "postgres", "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")[0][
                0
            ]
        )
        return really(*given)

    monkeypatch.setattr(dumping, "_run_pg_dump", slow)
    pair.two.backup(databases=["shop"])
    assert "behind at the end of the dump" in pair.two.warnings


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_the_program_waits_for_the_run_before_it(bench: PostgresServer, make_site: MakeSite, tmp_path: Path) -> None:
    create_shop(bench)
    program = Program(tmp_path / "program", make_site(bench))
    blocker = bench.connect("shop", autocommit=False)
    blocker.cursor().execute("LOCK TABLE shop.sales IN ACCESS EXCLUSIVE MODE")
    first = program.start("backup")
    lock = program.site.root / "state" / program.site.instance / "locks" / "backup.lock"
    wait_for(lambda: lock.is_file() and lock.read_text())
    assert program("backup", code=3).stderr.startswith("pgops: Another run is in the way: backup of ")
    assert program("backup", "--wait", "1s", code=3)
    second = program.start("backup", "--wait", "2min", "--verbose")
    assert second.stderr is not None
    wait_for(lambda: "waiting for another run to end: backup of " in second.stderr.readline(), seconds=LONG)
    time.sleep(1.2)
    blocker.rollback()
    blocker.close()
    assert first.wait(LONG) == 0
    said, errors = second.communicate(timeout=LONG)
    assert second.returncode == 0, errors
    assert len(program.site.sets()) == 2
    record = program.site.records()[-1]
    assert record["outcome"] == "ok"
    assert record["waited_seconds"] >= 1
    assert json.dumps(record).count(bench.password) == 0
    assert databases_of(bench) >= {"shop"}
    assert said.startswith("Backed up ")
