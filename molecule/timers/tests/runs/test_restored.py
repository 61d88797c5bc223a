# SPDX-License-Identifier: GPL-3.0-or-later
"""What was backed up by night comes back, each to the server that it is from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosts.shop import asked, databases_of, is_the_shop


@pytest.mark.parametrize(("instance", "version", "port"), [("db13-main", "17", 5432), ("db13-older", "15", 5433)])
def test_the_shop_comes_back_beside_itself(host: Any, instance: str, version: str, port: int) -> None:
    before = databases_of(host, port)
    said = host.run(
        "sudo -u postgres pgops --config %s restore --database shop --rename shop again --yes",
        f"/etc/pgops/{instance}.yml",
    )
    assert said.rc == 0, said.stdout + said.stderr
    assert databases_of(host, port) - before == {"again"}
    is_the_shop(host, "again", port)
    assert asked(host, "again", "SHOW server_version", port).startswith(version)
    asked(host, "postgres", "DROP DATABASE again", port)


def test_an_incremental_backup_brings_back_what_changed_since_the_full_one(host: Any) -> None:
    """In a copy beside the server, from S3; without a WAL archive, as it was at the end of the incremental one."""
    pgops = "pgops --json --config /etc/pgops/db13-main.yml"
    copy, sockets = "/srv/chain", "/tmp/chain"
    asked(host, "postgres", "ALTER SYSTEM SET summarize_wal = on")
    asked(host, "postgres", "SELECT pg_reload_conf()")
    try:
        full = json.loads(host.check_output(f"sudo -u postgres {pgops} backup --kind base"))
        asked(host, "shop", "CREATE TABLE changed AS SELECT generate_series(1, 5000) AS no")
        asked(host, "shop", "UPDATE customers SET name = 'changed' WHERE id = 1")
        made = json.loads(host.check_output(f"sudo -u postgres {pgops} backup --kind base --incremental"))
        assert made["set"].endswith("-incremental")
        manifest = json.loads(host.file(f"/backups/postgres/db13-main/sets/{made['set']}/manifest.json").content_string)
        assert manifest["parent"] == full["set"]
        host.check_output(f"sudo -u postgres {pgops} sync")
        asked(host, "shop", "DELETE FROM changed")
        host.check_output("install -d -o postgres -m 700 %s", copy)
        words = f"recover --data-directory {copy} --socket-directory {sockets} --to-immediate --yes"
        said = json.loads(host.check_output(f"{pgops} {words}"))
        assert said["set"] == made["set"]
        beside = "sudo -u postgres psql -XAt -h %s -d shop -c %s"
        sql = "SELECT count(*), max(no), (SELECT name FROM customers WHERE id = 1), (SELECT count(*) FROM orders) FROM changed"
        assert host.check_output(beside, sockets, sql) == "5000|5000|changed|20000"
    finally:
        host.run("sudo -u postgres /usr/lib/postgresql/17/bin/pg_ctl stop -m immediate -D %s", copy)
        host.run("rm -rf %s %s", copy, sockets)
        asked(host, "shop", "DROP TABLE IF EXISTS changed")
        asked(host, "shop", "UPDATE customers SET name = 'customer 1' WHERE id = 1")
        asked(host, "postgres", "ALTER SYSTEM RESET summarize_wal")
        asked(host, "postgres", "SELECT pg_reload_conf()")
