# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which check mode has run, or from which everything was removed."""

from __future__ import annotations

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
)


@pytest.mark.parametrize("path", NOTHING)
def test_nothing_of_ours_is_there(host: Any, path: str) -> None:
    assert not host.file(path).exists


def test_nobody_runs_a_job_of_ours(host: Any) -> None:
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops*").stdout == ""
    assert host.check_output("find /etc/systemd /etc/cron.d /var/spool/cron -name %s", "*pgops*") == ""
