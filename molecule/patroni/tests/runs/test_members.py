# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts whose server is Patroni's are set up like any other, and one of them backed up."""

from __future__ import annotations

# pylint: disable=unused-import
import json
from typing import Any

from tests.hosts import instances_of, objects_of, runs_of
from tests.hosts.agent import test_the_program_is_the_one_of_this_collection  # noqa: F401
from tests.hosts.cron import test_each_job_is_there_once_at_its_time  # noqa: F401
from tests.hosts.protected import test_no_run_failed  # noqa: F401
from tests.hosts.shop import is_the_shop

INSTANCE = "shop-patroni"


def test_patroni_runs_the_server_and_systemd_does_not(host: Any) -> None:
    assert host.service("patroni@17-main").is_running
    assert not host.service("postgresql@17-main").is_running
    assert host.check_output("pg_lsclusters -h").split()[:3] == ["17", "main", "5432"]


def test_both_members_have_the_shop(host: Any) -> None:
    is_the_shop(host)
    assert list(instances_of(host)) == [INSTANCE]


def test_the_replica_backed_up_and_the_leader_left_it_to_it(machine: Any) -> None:
    told = {
        name: [run for run in runs_of(machine(name), INSTANCE) if run["verb"] == "backup"] for name in ("pt1", "pt2")
    }
    assert [run.get("skipped") for run in told["pt2"]] == [None, None], "a dump, and as it archives, a base backup"
    assert sorted(run["set"].rpartition("-")[2] for run in told["pt2"]) == ["base", "logical"]
    assert told["pt1"]
    assert [run for run in told["pt1"] if "pt2" not in run["skipped"]] == []


def test_the_bucket_has_one_set_of_each_kind_and_they_are_proven(machine: Any, s3: Any, bucket: str) -> None:
    found = objects_of(s3, bucket, f"database-backups/{INSTANCE}/sets/")
    manifests = [key for key in found if key.endswith("/manifest.json")]
    assert sorted(key.split("/")[-2].rpartition("-")[2] for key in manifests) == ["base", "logical"]
    for key in manifests:
        assert json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())["from_standby"] is True
    verified = [run for name in ("pt1", "pt2") for run in runs_of(machine(name), INSTANCE) if run["verb"] == "verify"]
    assert "ok" in [run["outcome"] for run in verified if not run.get("skipped")]
