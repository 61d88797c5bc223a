# SPDX-License-Identifier: GPL-3.0-or-later
"""Of two clusters, the one that asks for it archives its WAL: from the first run on, with a base backup in both places."""

from __future__ import annotations

import json
from typing import Any

from tests.hosts import objects_of
from tests.hosts.shop import asked


def test_the_one_that_asks_for_it_archives(host: Any) -> None:
    assert asked(host, "postgres", "SHOW archive_mode") == "on"
    assert asked(host, "postgres", "SHOW archive_mode", 5433) == "off"
    assert host.service("pgops_wal_ship@db13-main.service").is_running
    assert not host.file("/etc/systemd/system/pgops_wal_ship@db13-reports.service").exists


def test_its_base_backups_have_a_timer(host: Any) -> None:
    timer = host.service("pgops-base@db13-main.timer")
    assert timer.is_enabled
    assert timer.is_running
    assert not host.service("pgops-base@db13-reports.timer").is_enabled


def test_it_can_be_brought_to_any_moment_from_both_places(host: Any, s3: Any, bucket: str) -> None:
    said = json.loads(host.check_output("sudo -u postgres pgops --json --config /etc/pgops/db13-main.yml status"))
    assert [place["place"] for place in said["places"] if place["windows"][0]["stretches"]] == ["local", "s3"]
    assert [f["severity"] for f in said["findings"] if "base backup" in f["check"]] == ["ok", "ok"]
    bases = [one for place in said["places"] for one in place["sets"] if one["kind"] == "base"]
    assert len(bases) == 2
    assert all(one["verified"] for one in bases)
    assert objects_of(s3, bucket, "database-backups/db13-main/wal/")
    assert not objects_of(s3, bucket, "database-backups/db13-reports/wal/")
