# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of the night of molecule/hosts/night.yml, in which all jobs began in one minute."""

from __future__ import annotations

from typing import Any

from tests.hosts.protected import (
    instance_of,
    runs_of,
    test_every_file_of_every_set_is_in_the_bucket,
    test_no_secret_is_in_what_the_host_wrote,
    test_pgops_says_that_all_is_well,
)

__all__ = (
    "test_ansible_showed_no_secret",
    "test_each_job_ran_once_and_none_failed",
    "test_every_file_of_every_set_is_in_the_bucket",
    "test_no_process_had_a_secret_among_its_words",
    "test_no_secret_is_in_what_the_host_wrote",
    "test_pgops_says_that_all_is_well",
    "test_the_logs_tell_of_every_run",
    "test_the_night_made_a_second_set",
)

VERBS = ["backup", "prune", "sync", "verify"]


def test_each_job_ran_once_and_none_failed(host: Any) -> None:
    runs = runs_of(host, instance_of(host))[-len(VERBS) :]
    assert sorted(run["verb"] for run in runs) == VERBS
    assert [(run["verb"], run["outcome"], run["reason"]) for run in runs if run["outcome"] != "ok"] == []


def test_the_night_made_a_second_set(host: Any) -> None:
    found = host.file(f"/backups/postgres/{instance_of(host)}/sets").listdir()
    assert len([name for name in found if name.endswith("-logical")]) == 2


def test_the_logs_tell_of_every_run(host: Any) -> None:
    for verb in VERBS:
        file = host.file(f"/var/log/backups/{verb}.log")
        assert (file.user, file.mode) == ("postgres", 0o640)
        assert f"{instance_of(host)} {verb} ok" in file.content_string


def test_no_process_had_a_secret_among_its_words(host: Any, shared: dict[str, Any]) -> None:
    watched = host.file("/root/watched").content_string
    # Whoever watches sees what came and went: the jobs, and what they started.
    for program in ("pgops backup", "pgops sync", "pgops verify", "pg_dump", "pg_restore", "zstd"):
        assert program in watched, program
    for secret in (shared["lab_secret_key"].split()[-1], shared["lab_access_key"], "only for tests"):
        assert [line for line in watched.splitlines() if secret in line] == []


def test_ansible_showed_no_secret(ansible_said: str, shared: dict[str, Any]) -> None:
    assert "config.aws_credentials" in ansible_said
    assert shared["lab_secret_key"].split()[-1] not in ansible_said
