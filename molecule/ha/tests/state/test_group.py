# SPDX-License-Identifier: GPL-3.0-or-later
"""The standby backs up, and the primary leaves it to it."""

from __future__ import annotations

# pylint: disable=unused-import,unused-wildcard-import,wildcard-import
import json
from typing import Any

from tests.hosts import files_of, instances_of, objects_of, runs_of
from tests.hosts.night import test_ansible_showed_no_secret  # noqa: F401
from tests.hosts.protected import test_no_run_failed, test_no_secret_is_in_what_the_host_wrote  # noqa: F401
from tests.hosts.shop import asked

INSTANCE = "shop-group"


def test_both_nodes_have_one_name(host: Any) -> None:
    assert list(instances_of(host)) == [INSTANCE]


def test_the_standby_replicates(machine: Any) -> None:
    assert asked(machine("ha1"), "postgres", "SELECT state FROM pg_stat_replication") == "streaming"
    assert asked(machine("ha2"), "postgres", "SELECT pg_is_in_recovery()") == "t"


def test_the_standby_backed_up(machine: Any) -> None:
    runs = [run for run in runs_of(machine("ha2"), INSTANCE) if run["verb"] == "backup"]
    assert [run["outcome"] for run in runs] == ["ok", "ok"]
    found = files_of(machine("ha2"), f"/backups/postgres/{INSTANCE}/sets")
    manifests = [path for path in found if path.endswith("/manifest.json")]
    assert sorted(path.split("/")[0].rpartition("-")[2] for path in manifests) == ["base", "logical"]
    for path in manifests:
        said = json.loads(machine("ha2").file(f"/backups/postgres/{INSTANCE}/sets/{path}").content_string)
        assert said["from_standby"] is True


def test_the_primary_left_it_to_the_standby(machine: Any) -> None:
    runs = [run for run in runs_of(machine("ha1"), INSTANCE) if run["verb"] == "backup"]
    assert runs
    assert [run["outcome"] for run in runs] == ["ok"] * len(runs)
    assert [run for run in runs if "ha2" not in run["skipped"]] == []


def test_the_bucket_has_one_set_of_each_kind(s3: Any, bucket: str) -> None:
    found = objects_of(s3, bucket, f"database-backups/{INSTANCE}/sets/")
    manifests = [key for key in found if key.endswith("/manifest.json")]
    assert sorted(key.split("/")[-2].rpartition("-")[2] for key in manifests) == ["base", "logical"]


def test_no_process_of_site_had_a_secret_among_its_words(machine: Any, secrets: list[str]) -> None:
    assert len(secrets) == 2, "that of the store, and that of the database"
    watched = {name: machine(name).file("/root/watched").content_string for name in ("ha1", "ha2")}
    # Who backs up dumps; who proves loads into a server of its own.
    for program in ("pg_dump", "pg_restore", "initdb"):
        assert program in watched["ha2"]
    assert [
        line for said in watched.values() for line in said.splitlines() if any(one in line for one in secrets)
    ] == []


def test_the_role_reads_and_writes_nothing(machine: Any, variables: dict[str, Any]) -> None:
    password = variables["pgops_secrets"]["postgres_password"]
    words = "PGPASSWORD=%s psql -XAt -h localhost -U pgops_backup -d shop -c %s"
    assert machine("ha1").check_output(words, password, "SELECT count(*) FROM orders") == "20000"
    assert machine("ha1").run(words, password, "DELETE FROM orders").rc != 0
    assert machine("ha1").run(words, password, "CREATE TABLE mine ()").rc != 0
