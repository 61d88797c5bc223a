# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which check mode has run, or from which everything was removed."""

from __future__ import annotations

import re
from typing import Any

import pytest

__all__ = ("test_nothing_of_ours_is_there", "test_nobody_runs_a_job_of_ours")

# What any of the roles would leave; the backups themselves are not among it.
NOTHING = (
    "/etc/cron.d/pgops",
    "/etc/logrotate.d/pgops",
    "/etc/pgops",
    "/etc/sudoers.d/pgops-monitoring",
    "/usr/local/bin/pgops",
    "/usr/local/bin/pgops-wal",
    "/usr/local/lib/pgops",
    "/usr/local/share/man/man1/pgops.1.gz",
    "/usr/share/bash-completion/completions/pgops",
    "/var/lib/pgops",
    "/var/log/backups",
)


def test_check_mode_has_said_what_would_protect_the_host(host: Any, ansible_said: str) -> None:
    """For where check mode was all that ran; not among the tests that a host takes which was emptied."""
    name, said = host.check_output("hostname"), " ".join(ansible_said.split())
    assert re.search(
        rf"{name}-main: Would back up, (take a base backup, )?copy it to S3 and verify that it restores[.]", said
    )
    assert "Prediction, as check mode changes nothing: 0 of " in said
    assert f"{name}: would be set up" in said


@pytest.mark.parametrize("path", NOTHING)
def test_nothing_of_ours_is_there(host: Any, path: str) -> None:
    assert not host.file(path).exists


def test_nobody_runs_a_job_of_ours(host: Any) -> None:
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops*").stdout == ""
    assert host.check_output("find /etc/systemd /etc/cron.d /var/spool/cron -name %s", "*pgops*") == ""
