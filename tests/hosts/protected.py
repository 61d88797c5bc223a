# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is protected, as seen by other tools than ours; and where its secrets are not."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.hosts import files_of, instances_of, objects_of, runs_of

__all__ = (
    "test_a_restore_of_the_first_backup_was_proven",
    "test_every_file_of_every_set_is_in_the_bucket",
    "test_no_run_failed",
    "test_no_secret_is_in_what_the_host_wrote",
    "test_pgops_says_that_all_is_well",
    "test_what_is_in_the_bucket_is_what_is_on_the_disk",
)
SETS = "/backups/postgres/{}/sets"
IN_BUCKET = "database-backups/{}/sets/"


def status_of(host: Any, config: str) -> dict[str, Any]:
    """Return what `pgops status` says."""
    said: dict[str, Any] = json.loads(host.check_output("sudo -u postgres pgops --json --config %s status", config))
    return said


def test_pgops_says_that_all_is_well(host: Any) -> None:
    for config in instances_of(host).values():
        said = status_of(host, config)
        assert said["state"] == "ok", [found for found in said["findings"] if found["severity"] != "ok"]


def test_no_run_failed(host: Any) -> None:
    for instance in instances_of(host):
        assert [(run["verb"], run["reason"]) for run in runs_of(host, instance) if run["outcome"] != "ok"] == []


def test_a_restore_of_the_first_backup_was_proven(host: Any) -> None:
    for instance, config in instances_of(host).items():
        first = next(run["set"] for run in runs_of(host, instance) if run["verb"] == "backup")
        found = [one for place in status_of(host, config)["places"] for one in place["sets"] if one["id"] == first]
        assert len(found) == 2  # on the disk and in the bucket
        assert "passed" in [one["proofs"]["restore"]["outcome"] for one in found if "restore" in one["proofs"]]


def test_every_file_of_every_set_is_in_the_bucket(host: Any, s3: Any, bucket: str) -> None:
    for instance in instances_of(host):
        here, top = files_of(host, SETS.format(instance)), IN_BUCKET.format(instance)
        assert here
        assert {key.removeprefix(top): size for key, size in objects_of(s3, bucket, top).items()} == here


def test_what_is_in_the_bucket_is_what_is_on_the_disk(host: Any, s3: Any, bucket: str) -> None:
    for instance in instances_of(host):
        for path in files_of(host, SETS.format(instance)):
            body = s3.get_object(Bucket=bucket, Key=IN_BUCKET.format(instance) + path)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == host.file(f"{SETS.format(instance)}/{path}").sha256sum


def test_no_secret_is_in_what_the_host_wrote(host: Any, secrets: list[str]) -> None:
    sought = " ".join(["-e %s"] * len(secrets))
    folders = "/backups /etc /home /root /tmp /usr/local /var"
    # The journal is asked as a whole: grep in its files would miss what is compressed. Our own commands are in there, too.
    for command in (
        f"journalctl --no-pager | grep -v COMMAND= | grep -F {sought}",
        f"grep -rlF --exclude-dir=secrets --exclude-dir=journal {sought} {folders} 2>/dev/null",
    ):
        assert host.run(command, *secrets).stdout == ""
    # Each would be found if it were there.
    assert [secret for secret in secrets if not host.run("grep -rlF -- %s /etc", secret).stdout] == []
