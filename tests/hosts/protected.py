# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is protected, as seen by other tools than ours; and where its secrets are not."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = (
    "test_every_file_of_every_set_is_in_the_bucket",
    "test_no_secret_is_in_what_the_host_wrote",
    "test_pgops_says_that_all_is_well",
    "test_the_first_backup_was_restored_to_prove_it",
    "test_what_is_in_the_bucket_is_what_is_on_the_disk",
)
SETS = "/backups/postgres/{instance}/sets"


def instance_of(host: Any) -> str:
    """Return the name that the roles give the instance of a host by themselves."""
    return f"{host.check_output('hostname')}-main"


def runs_of(host: Any, instance: str) -> list[dict[str, Any]]:
    """Return what is recorded of every run, the oldest first."""
    folder = f"/var/lib/pgops/{instance}/runs"
    names = sorted(host.file(folder).listdir()) if host.file(folder).is_directory else []
    records = [json.loads(host.file(f"{folder}/{name}").content_string) for name in names if name.endswith(".json")]
    return sorted(records, key=lambda record: str(record["begun"]))


def objects_of(s3: Any, bucket: str) -> dict[str, int]:
    """Return the size of every object in a bucket, by its key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}


def files_of(host: Any, folder: str) -> dict[str, int]:
    """Return the size of every file below a folder, by its path from there."""
    listed = host.check_output("find %s -type f -printf %s", folder, r"%s %P\n")
    return {path: int(size) for size, path in (line.split(" ", 1) for line in listed.splitlines())}


def test_pgops_says_that_all_is_well(host: Any) -> None:
    said = json.loads(host.check_output("sudo -u postgres pgops --json status"))
    assert said["state"] == "ok", [found for found in said["findings"] if found["severity"] != "ok"]


def test_the_first_backup_was_restored_to_prove_it(host: Any) -> None:
    instance = instance_of(host)
    assert [run["outcome"] for run in runs_of(host, instance)][:3] == ["ok"] * 3
    first = runs_of(host, instance)[0]["set"]
    said = json.loads(host.check_output("sudo -u postgres pgops --json status"))
    found = [one for place in said["places"] for one in place["sets"] if one["id"] == first]
    assert len(found) == 2
    assert [one["proofs"]["restore"]["outcome"] for one in found if "restore" in one["proofs"]]


def test_every_file_of_every_set_is_in_the_bucket(host: Any, s3: Any, bucket: str) -> None:
    instance = instance_of(host)
    here = files_of(host, SETS.format(instance=instance))
    there = objects_of(s3, bucket)
    top = f"database-backups/{instance}/sets/"
    assert here
    assert {key.removeprefix(top): size for key, size in there.items() if key.startswith(top)} == here


def test_what_is_in_the_bucket_is_what_is_on_the_disk(host: Any, s3: Any, bucket: str) -> None:
    instance = instance_of(host)
    folder = SETS.format(instance=instance)
    manifest = next(path for path in files_of(host, folder) if path.endswith("/manifest.json"))
    body = s3.get_object(Bucket=bucket, Key=f"database-backups/{instance}/sets/{manifest}")["Body"].read()
    assert hashlib.sha256(body).hexdigest() == host.file(f"{folder}/{manifest}").sha256sum


def test_no_secret_is_in_what_the_host_wrote(host: Any, shared: dict[str, Any]) -> None:
    secret = shared["lab_secret_key"].split()[-1]
    # The journal is asked as a whole: grep in its files would miss what is compressed. Our own commands are in there, too.
    for command in (
        "journalctl --no-pager | grep -v COMMAND= | grep -c -- %s",
        "grep -rlF --exclude-dir=secrets --exclude-dir=journal -- %s /backups /etc /home /root /run /tmp /usr/local /var 2>/dev/null",
    ):
        said = host.run(command, secret)
        assert said.stdout.strip() in ("", "0"), said.stdout
    # It would be found if it were there.
    assert host.run("grep -rlF -- %s /etc", secret).stdout.split() == ["/etc/pgops/secrets/config.aws_credentials"]
