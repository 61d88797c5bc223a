# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode on bare hosts predicts a WAL archive, and whether the server would be restarted for it; nothing was done."""

from __future__ import annotations

# pylint: disable=unused-wildcard-import,wildcard-import
from typing import Any

import pytest

from tests.hosts.bare import *  # noqa: F403
from tests.hosts.shop import asked

RESTART = {
    "ra": "it would be restarted (wal_archive_restart)",
    "rb": "it would be left to you (wal_archive_restart is false)",
}


@pytest.mark.parametrize("name", RESTART)
def test_what_a_server_would_be_set_to_is_told_and_it_is_not(machine: Any, ansible_said: str, name: str) -> None:
    told = " ".join(ansible_said.split())
    assert (
        f"Would set archive_command, archive_mode, archive_timeout of {name}-main. archive_mode need a restart of the"
        f" server, which ends every connection: {RESTART[name]}." in told
    )
    sql = "SELECT count(*) FROM pg_file_settings WHERE name LIKE 'archive%'"
    assert asked(machine(name), "postgres", sql) == "0"
