# SPDX-License-Identifier: GPL-3.0-or-later
"""The server of rb is to archive its WAL: it is restarted for that when somebody allows it, and not before."""

from __future__ import annotations

from typing import Any

from tests.hosts.shop import asked

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


def test_once_it_is_allowed_the_server_is_restarted_and_archives(playbook: Any, host: Any) -> None:
    before, other = asked(host, "postgres", BEGAN), asked(host, "postgres", BEGAN, 5433)
    said = playbook("site", "--tags", "wal_archive_configure", target="rb", wal_archive_restart=True)
    assert "rb-main does not archive yet: archive_mode need a restart" in " ".join(said.stdout.split())
    assert "It is restarted now." in " ".join(said.stdout.split())
    assert said.returncode == 0
    assert float(asked(host, "postgres", BEGAN)) > float(before)
    assert asked(host, "postgres", "SHOW archive_mode") == "on"
    assert asked(host, "postgres", BEGAN, 5433) == other, "the other cluster is none of its business"
