# SPDX-License-Identifier: GPL-3.0-or-later
"""Base backups whose WAL the server has removed before they are whole: the archive has it, and it comes into the set all the same."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import CommandError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup
from demo.servers import MotoS3, PostgresServer, wheel_bindir
from tests.integration.conftest import BUCKET, Site, create_database, cursor
from tests.integration.test_recover import Story, upto
from tests.integration.wal_fixtures import Host

# What a server keeps for as short as it can, in segments of 1 MB.
STINGY = {
    "archive_mode": "on",
    "archive_command": "false",
    "min_wal_size": "2MB",
    "max_wal_size": "2MB",
    "max_slot_wal_keep_size": "1MB",
    "wal_keep_size": 0,
}
SLOW = {"max_rate": "12MiB"}


@pytest.fixture(scope="module")
def stingy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root, host = tmp_path_factory.mktemp("stingy"), Host()
    settings = {**STINGY, "archive_command": host.quick("archive", "%p")}
    with PostgresServer(wheel_bindir(18), root, settings=settings, initdb_args=["--wal-segsize=1"]) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        options = {"local": {"path": str(host.root / "backups")}, "wal": {"enabled": True}}
        site = Site(root / "site", server, instance="db1", options=options)
        told = Story(server, site, host.wal, config_file=str(host.root / "config.json"), program=str(host.program))
        yield told
        for folder in told.copies:
            told.stop(folder)
    host.close()


@contextlib.contextmanager
def busy(server: PostgresServer) -> Iterator[None]:
    """A server that ends segment after segment, and removes what it need not keep, for as long as the block lasts."""
    over = threading.Event()

    def write() -> None:
        with cursor(server, "postgres") as asked:
            while not over.wait(0.2):
                asked.execute("SELECT pg_logical_emit_message(false, 'busy', 'x'), pg_switch_wal()")
                asked.execute("CHECKPOINT")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def take(told: Story, to: str = "local", **sections: Any) -> dict[str, Any]:
    context = told.site.engine(base=SLOW, **sections)
    return runs.perform(context, "backup", lambda c: backup.backup(c, backup.Request(kind="base", to=to)))


def take_in_vain(told: Story, to: str = "local") -> dict[str, Any]:
    """Take base backups until one is over later than its WAL is gone: a busy machine may come late to that."""
    with busy(told.server):
        for _again in range(10):
            taken = take(told, to)
            if "comes from the archive" in told.site.warnings:
                return taken
    pytest.fail("the WAL was always there until the end")


def test_wal_that_the_server_has_removed_comes_from_the_archive(stingy: Story) -> None:
    stingy.write(3)
    taken = take_in_vain(stingy)
    stingy.bases.append(taken["set"])
    (tar,) = Path(taken["path"]).glob("base/pg_wal.tar*")
    plain = subprocess.run(["zstd", "-dcf", str(tar)], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True).stdout.split()
    assert len(names) > 1
    (report,) = stingy.site.verify("structure")["sets"]
    assert report["outcome"] == "passed", report
    # It needs no archive, as any base backup.
    result = stingy.recover(immediate="yes", tablespaces={}, sections={"restore": {"restore_command": ""}})
    assert stingy.rows(result) == upto(3)


def test_so_it_does_when_it_is_streamed_to_s3(stingy: Story, store: MotoS3) -> None:
    """Nothing of the first attempt is in the way, nor stays."""
    stingy.site.use_s3(store)
    taken = take_in_vain(stingy, "s3")
    (report,) = stingy.site.verify("structure", place="s3", sets=[taken["set"]])["sets"]
    assert report["outcome"] == "passed", report
    assert not store.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_where_nobody_has_that_wal_it_is_said_what_to_do(stingy: Story) -> None:
    with busy(stingy.server), pytest.raises(CommandError) as caught:
        for again in range(10):  # as in take_in_vain()
            elsewhere = stingy.server.root / ("elsewhere %d" % again)
            take(stingy, local={"path": str(elsewhere)})
    assert "Raise max_slot_wal_keep_size or wal_keep_size" in caught.value.hint
    assert "from its archive instead, but cannot: " in caught.value.hint
    assert not list(elsewhere.rglob("*-base"))
