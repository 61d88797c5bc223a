# SPDX-License-Identifier: GPL-3.0-or-later
"""Two major versions on one host: each is backed up, and proven to restore, by programs of its own."""

from __future__ import annotations

import json
from typing import Any

from tests.hosts import files_of, instances_of, objects_of
from tests.hosts.shop import asked, is_the_shop

MAJORS = {"db13-main": ("17", 5432), "db13-older": ("15", 5433)}


def read(host: Any, path: str) -> dict[str, Any]:
    """Return what a JSON file of the host says."""
    return dict(json.loads(host.file(path).content_string))


def major(version: str) -> str:
    """Return the major version of one like 15.18 (Debian 15.18-0+deb12u1)."""
    return version.partition(".")[0]


def test_the_host_has_a_cluster_of_each(host: Any) -> None:
    clusters = [line.split()[:4] for line in host.check_output("pg_lsclusters -h").splitlines()]
    assert clusters == [["15", "main", "5433", "online"], ["17", "main", "5432", "online"]]
    assert set(instances_of(host)) == set(MAJORS)
    for version, port in MAJORS.values():
        assert major(asked(host, "postgres", "SHOW server_version", port)) == version
        is_the_shop(host, port=port)


def test_each_set_is_of_its_server_and_made_by_its_programs(host: Any) -> None:
    for instance, (version, _port) in MAJORS.items():
        folder = f"/backups/postgres/{instance}/sets"
        found = [path for path in files_of(host, folder) if path.endswith("/manifest.json")]
        assert found
        for path in found:
            said = read(host, f"{folder}/{path}")
            assert major(said["server_version"]) == version
            assert major(said["tools"]["pg_dump"]) == version


def test_each_proof_is_by_a_server_of_the_same_major(s3: Any, bucket: str) -> None:
    for instance, (version, _port) in MAJORS.items():
        found = objects_of(s3, bucket, f"database-backups/{instance}/evidence/")
        proofs = [key for key in found if "_restore_passed_" in key]
        assert proofs
        for key in proofs:
            said = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            assert major(said["checked"]["server_version"]) == version


def test_the_client_programs_of_both_are_there(host: Any) -> None:
    assert [name for name in ("15", "17") if not host.package(f"postgresql-client-{name}").is_installed] == []
