# SPDX-License-Identifier: GPL-3.0-or-later
"""Recoveries and standbys of a real server while the S3 place is out of reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UnreachableError
from demo.servers import PostgresServer, wheel_bindir
from tests.integration.conftest import Site, create_database, run_sql, wait_for
from tests.integration.test_recover import Story
from tests.integration.wal_fixtures import Host, archived_up_to

DOWN = {
    "bucket": "b",
    "endpoint_url": "http://127.0.0.1:9",
    "region": "us-east-1",
    "addressing_style": "path",
    "access_key": "a",
    "secret_key": "s",
    "retry_for": "1s",
}


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A server whose base backup and WAL lie in the local place; the S3 place of its configuration does not answer."""
    root, host = tmp_path_factory.mktemp("away"), Host()
    settings = {"archive_mode": "on", "archive_command": host.command("archive", "%p"), "wal_level": "replica"}
    with PostgresServer(
        wheel_bindir(18), root, settings={**settings, "autovacuum": "off"}, initdb_args=("--wal-segsize=1",)
    ) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        host.configure(s3=DOWN)
        options = {"local": {"path": str(host.root / "backups")}, "wal": {"enabled": True}}
        site = Site(root / "site", server, instance="db1", options=options)
        story = Story(server, site, host.wal, config_file=str(host.root / "config.json"), program=str(host.program))
        story.write(2)
        story.back_up()
        for _time in range(2):
            story.write(2)
            archived_up_to(server)
        yield story
        for folder in story.copies:
            story.stop(folder)
    host.close()


def _recover(story: Story, folder: Path, place: str, **target: Any) -> Any:
    return story.recover(folder, **target, tablespaces={}, place=place, sections={"s3": DOWN})


def test_what_lies_on_this_host_is_recovered_without_s3(cut_off: Story) -> None:
    """The server asks for segments and histories beyond the target, too; nobody may ask S3 for them."""
    folder = cut_off.folder()
    result = _recover(cut_off, folder, "local", time=cut_off.moments[3].isoformat())
    assert cut_off.rows(result) == [1, 2, 3]
    cut_off.stop(folder)


def test_where_the_base_backups_are_is_told(cut_off: Story) -> None:
    """In S3, which is asked where nothing else is said, there may be some, and nobody can tell."""
    with pytest.raises(UnreachableError) as told:
        _recover(cut_off, cut_off.folder(), "auto", end="yes")
    assert told.value.hint.endswith("/backups/db1: --place local.")


def test_why_a_recovery_failed_is_told_and_its_log_kept(cut_off: Story) -> None:
    """Its directory is removed, and what the program said of the store with it."""
    folder = cut_off.folder()
    with pytest.raises(UnreachableError) as told:
        command = "%s wal fetch --place s3 -c '%s' %%f %%p" % (cut_off.program, cut_off.config_file)
        cut_off.recover(
            folder,
            time=cut_off.moments[3].isoformat(),
            tablespaces={},
            place="local",
            sections={"s3": DOWN, "restore": {"restore_command": command}},
        )
    assert "cannot be reached" in told.value.message
    assert "exit code 204" in told.value.message
    assert not (folder / "data" / "pgops_recovery.log").exists()
    kept = Path(told.value.hint.removeprefix("See ").removesuffix("."))
    assert "exit code 204" in kept.read_text(encoding="utf-8")
    assert kept.stat().st_mode & 0o077 == 0


def test_a_standby_outlives_an_archive_that_is_away(cut_off: Story) -> None:
    """It loses its connection, asks the archive, hears that nobody can tell, and streams again."""
    server, home = cut_off.server, cut_off.server.root / "standby"
    as_account = {"user": server.account.pw_name if server.account else None, "cwd": "/"}
    tool = server.bindir / "pg_basebackup"
    subprocess.run([tool, "-D", home, "-R", "-c", "fast", "-X", "stream"], env=server.env, check=True, **as_account)
    lines = [
        "restore_command = '%s wal fetch -c %s %%f %%p'" % (cut_off.program, cut_off.config_file),
        "listen_addresses = ''",
        "unix_socket_directories = '%s'" % home,
        "archive_mode = off",
        "wal_retrieve_retry_interval = '200ms'",
    ]
    with (home / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))
    log = home / "standby.log"
    control = [server.bindir / "pg_ctl", "-D", home]
    # It asks the archive first, also for its own start.
    subprocess.run(
        [*control, "start", "-w", "-t", "60", "-l", log], stdout=subprocess.DEVNULL, check=True, **as_account
    )
    try:

        def streams() -> bool:
            return bool(run_sql(server, "postgres", "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))

        wait_for(streams)
        asked = log.read_text(encoding="utf-8").count("cannot be reached")
        run_sql(server, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        wait_for(lambda: log.read_text(encoding="utf-8").count("cannot be reached") > asked)
        wait_for(streams)
    finally:
        subprocess.run([*control, "stop", "-m", "immediate"], stdout=subprocess.DEVNULL, check=False, **as_account)
    assert asked, "it asked the archive before it began to stream"
