# SPDX-License-Identifier: GPL-3.0-or-later
"""The server of rb is to archive its WAL: it is restarted for that when somebody allows it, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts.shop import asked

OTHER = {"name": "rb-other", "postgres": {"login_port": 5433}}

BEGAN = "SELECT extract(epoch FROM pg_postmaster_start_time())"
PENDING = "SELECT name FROM pg_settings WHERE pending_restart"


def test_site_left_the_server_running_and_said_what_waits(host: Any, ansible_said: str) -> None:
    # The configuration came before the server's settings, and the server runs since before that.
    assert float(asked(host, "postgres", BEGAN)) < host.file("/etc/pgops/config.yml").mtime.timestamp()
    assert asked(host, "postgres", PENDING) == "archive_mode"
    assert asked(host, "postgres", "SHOW archive_mode") == "off"
    set_to = "SELECT setting FROM pg_file_settings WHERE name = 'archive_command'"
    assert asked(host, "postgres", set_to).startswith("/usr/local/bin/pgops-wal wal archive ")
    told = " ".join(ansible_said.split())
    assert "rb-main does not archive yet: archive_mode need a restart of the server" in told
    assert "Set wal_archive_restart to true to have it done, or restart it when that suits." in told


def test_it_counts_as_protected_but_for_who_requires_the_archive(playbook: Any, host: Any) -> None:
    assert asked(host, "postgres", "SHOW archive_mode") == "off"
    assert playbook("status", target="rb", pgops_require=["backup"]).returncode == 0
    said = playbook("status", target="rb", pgops_require=["backup", "WAL archive"])
    assert said.returncode != 0
    told = " ".join(said.stdout.split())
    assert "rb: NOT PROTECTED" in told
    assert "The server does not archive its WAL (archive_mode is off)." in told


def test_once_it_is_allowed_the_server_is_restarted_and_archives(playbook: Any, host: Any) -> None:
    before, other = asked(host, "postgres", BEGAN), asked(host, "postgres", BEGAN, 5433)
    required = {"pgops_require": ["backup", "WAL archive"]}
    said = playbook("site", "--tags", "wal_archive_configure", target="rb", wal_archive_restart=True, **required)
    assert "rb-main does not archive yet: archive_mode need a restart" in " ".join(said.stdout.split())
    assert "It is restarted now." in " ".join(said.stdout.split())
    assert said.returncode == 0, "it is asked again after that"
    assert float(asked(host, "postgres", BEGAN)) > float(before)
    assert asked(host, "postgres", "SHOW archive_mode") == "on"
    assert asked(host, "postgres", BEGAN, 5433) == other, "the other cluster is none of its business"


@pytest.mark.parametrize(
    "variables", [{"pgops_instances": [OTHER]}, {"pgops_wal": {"enabled": False}}], ids=["no instance", "no archive"]
)
def test_a_server_that_would_archive_for_nobody_is_told_before_anything_is_touched(
    playbook: Any, host: Any, variables: dict[str, Any]
) -> None:
    before = host.check_output("sha256sum /etc/pgops/*.yml /etc/cron.d/pgops")
    said = playbook("site", target="rb", **variables)
    told = " ".join(said.stdout.split())
    assert said.returncode != 0
    assert "No instance with wal.enabled has the port of cluster 17/main on port 5432" in told
    assert "rb: NOT PROTECTED" in told
    assert host.check_output("sha256sum /etc/pgops/*.yml /etc/cron.d/pgops") == before
    asked(host, "postgres", "SELECT pg_switch_wal()")
    assert asked(host, "postgres", "SELECT failed_count FROM pg_stat_archiver") == "0"


def test_where_there_was_no_cron_it_is_predicted_and_installed_and_runs(machine: Any, ansible_said: str) -> None:
    assert "Would install cron." in ansible_said
    rc = machine("rc")
    assert rc.service("cron").is_running
    assert rc.service("cron").is_enabled
    assert rc.file("/etc/cron.d/pgops").contains("pgops backup")
