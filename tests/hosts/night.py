# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of the night of molecule/hosts/night.yml, in which all jobs began in one minute."""

from __future__ import annotations

from typing import Any

from tests.hosts import files_of, instances_of, objects_of, runs_of
from tests.hosts.protected import (
    IN_BUCKET,
    SETS,
    test_no_run_failed,
    test_no_secret_is_in_what_the_host_wrote,
    test_pgops_says_that_all_is_well,
)

__all__ = (
    "test_ansible_showed_no_secret",
    "test_each_job_ran_once",
    "test_no_process_had_a_secret_among_its_words",
    "test_no_run_failed",
    "test_no_secret_is_in_what_the_host_wrote",
    "test_pgops_says_that_all_is_well",
    "test_the_logs_tell_of_every_run",
    "test_the_night_made_a_second_set",
    "test_what_was_copied_is_what_is_on_the_disk",
)

VERBS = ["backup", "prune", "sync", "verify"]


def test_each_job_ran_once(host: Any) -> None:
    for instance in instances_of(host):
        assert sorted(run["verb"] for run in runs_of(host, instance)[-len(VERBS) :]) == VERBS


def test_the_night_made_a_second_set(host: Any) -> None:
    for instance in instances_of(host):
        found = host.file(SETS.format(instance)).listdir()
        assert len([name for name in found if name.endswith("-logical")]) == 2


def test_what_was_copied_is_what_is_on_the_disk(host: Any, s3: Any, bucket: str) -> None:
    # The copy of the second set may wait for the next night: nothing says which job came first.
    for instance in instances_of(host):
        here, top = files_of(host, SETS.format(instance)), IN_BUCKET.format(instance)
        there = {key.removeprefix(top): size for key, size in objects_of(s3, bucket, top).items()}
        assert there
        assert there.items() <= here.items()


def test_the_logs_tell_of_every_run(host: Any) -> None:
    for verb in VERBS:
        file = host.file(f"/var/log/backups/{verb}.log")
        assert file.user == "postgres"
        assert file.mode & 0o137 == 0
        for instance in instances_of(host):
            assert f"{instance} {verb} ok" in file.content_string


def test_no_process_had_a_secret_among_its_words(host: Any, secrets: list[str], shared: dict[str, Any]) -> None:
    watched = host.file("/root/watched").content_string
    # Whoever watches sees what came and went: the jobs, and most of what they started.
    for verb in ("backup", "sync", "verify"):
        assert f"pgops {verb}" in watched
    assert [program for program in ("pg_dump", "pg_restore", "zstd") if program in watched]
    for secret in (*secrets, shared["lab_access_key"], "only for tests"):
        assert [line for line in watched.splitlines() if secret in line] == []


def test_ansible_showed_no_secret(ansible_said: str, secrets: list[str]) -> None:
    assert "aws_credentials" in ansible_said
    assert [secret for secret in secrets if secret in ansible_said] == []
