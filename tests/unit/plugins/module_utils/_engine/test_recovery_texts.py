# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a recovery and a rescue: how the server is left, and what to do next."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import recovery

TARGET = {"kind": "time", "value": "2026-11-22T13:31:07+00:00", "inclusive": True, "timeline": "latest"}
STOPPED = {"lsn": "0/6000528", "time": None, "timeline": 2, "log": "recovery stopping before commit"}
RECOVERED = {
    "instance": "db1-main",
    "set": "20261122T000000Z-base",
    "seconds": 44.1,
    "target": TARGET,
    "stopped": STOPPED,
    "data_directory": "/var/lib/postgresql/17/main",
    "kept": "",
    "wal_directory": "",
    "kept_wal_directory": "",
    "socket_directory": "",
    "port": None,
    "service": "postgresql@17-main",
    "running": True,
}
SERVED = "systemctl start postgresql@17-main"


@pytest.mark.parametrize(
    ("changes", "said", "not_said"),
    [
        ({}, ["not as its service", "pg_ctlcluster 17 main stop && " + SERVED, "archives nothing"], ["psql -h"]),
        ({"running": False}, ["It is stopped. Start it by: " + SERVED], ["not as its service"]),
        ({"running": False, "service": ""}, ["It is stopped.\n"], ["systemctl"]),
        ({"service": ""}, ["archives nothing"], ["systemctl", "stopped."]),
        ({"socket_directory": "/tmp/s", "port": 5433, "service": ""}, ["psql -h /tmp/s -p 5433"], ["archives nothing"]),
        ({"kept": "/var/lib/postgresql/17/main.before-x"}, ["The old data directory is /var/lib/"], ["WAL"]),
        (
            {"kept": "/data.before-x", "kept_wal_directory": "/disk/data", "wal_directory": "/disk/new"},
            ["is /data.before-x and its WAL in /disk/data. Remove", "Its WAL lies in /disk/new."],
            [],
        ),
    ],
)
def test_how_the_server_is_left_is_told(changes: dict[str, Any], said: list[str], not_said: list[str]) -> None:
    text = recovery.text({**RECOVERED, **changes})
    assert "Recovered db1-main to the moment 2026-11-22T13:31:07+00:00" in text
    assert "the last transaction ended at a moment that is not known" in text
    assert [words for words in said if words not in text] == []
    assert [words for words in not_said if words in text] == []


def test_a_rescue_tells_what_it_would_do_and_did() -> None:
    plan = {
        "database": "shop",
        "name": "shop_before",
        "tables": ["public.orders", "public.lines"],
        "target": {**TARGET, "kind": "xid", "value": "4711", "inclusive": False},
        "set": "20261122T000000Z-base",
        "place": "s3://b/db1-main",
        "server_version": "17.6",
        "base_stopped": "2026-11-22T00:01:00+00:00",
        "bytes": 2**30,
        "remarks": ["a remark"],
        "refusals": ["a reason"],
    }
    text = recovery.rescue_plan_text({"instance": "db1-main", "plan": plan})
    assert "Rescue of public.orders, public.lines of the database 'shop' of db1-main" in text
    assert "as of the transaction 4711 (exclusive)" in text
    assert "1.0 GiB" in text
    assert "Note: a remark" in text
    assert text.endswith("It would be refused:\n  - a reason\n")
    done = {
        **RECOVERED,
        **plan,
        "compared": {"rows": 7, "large_objects": 0},
        "left_out": ["a foreign key"],
        "roles_created": ["seller"],
        "tables": [],
    }
    text = recovery.rescue_text({**done, "target": TARGET})
    assert text.startswith("Rescued the database 'shop' of db1-main in 44.1 s.\n")
    assert "Compared with the copy: 0 large objects, 7 rows." in text
    assert text.endswith("Left out: a foreign key\n  Roles created: seller.\n")
