# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes in the middle of a backup; and it is off when a run is due."""

from __future__ import annotations

import re
from typing import Any

from tests.hosts import runs_of
from tests.hosts.protected import SETS
from tests.tools.lab import Lab
from tests.tools.lab.machines import until

INSTANCE = "db13-main"
JOB = f"pgops-backup@{INSTANCE}"
A_SET = re.compile(r"\d{8}T\d{6}Z-logical")


def power(lab: Lab, *, cut: bool) -> None:
    """Take the power away and bring it back."""
    lab.machine("db13").stop(cut=cut)
    one = lab.machine("db13")
    one.start()
    one.wait()


def test_a_backup_that_lost_its_power_is_none(lab: Lab, host: Any) -> None:
    before = set(host.file(SETS.format(INSTANCE)).listdir())
    # A lock holds pg_dump for as long as we like.
    sql = "BEGIN; LOCK TABLE orders; SELECT pg_sleep(600)"
    host.check_output("systemd-run --quiet --unit=lab-lock sudo -u postgres psql -d shop -c %s", sql)
    held = "SELECT 'held' FROM pg_locks WHERE granted AND locktype = 'relation' AND mode = 'AccessExclusiveLock'"
    assert until(lambda: "held" in host.run("sudo -u postgres psql -XAtc %s", held).stdout, 90) is not None
    host.check_output("systemctl start --no-block %s.service", JOB)
    assert until(lambda: "pg_dump" in host.run("pgrep -a pg_dump").stdout, 90) is not None
    power(lab, cut=True)
    assert until(lambda: host.run("sudo -u postgres pg_isready").rc == 0, 60) is not None
    assert {name for name in host.file(SETS.format(INSTANCE)).listdir() if A_SET.fullmatch(name)} == before


def test_the_next_one_is_whole_and_leaves_nothing_of_the_other(host: Any) -> None:
    before = set(host.file(SETS.format(INSTANCE)).listdir())
    host.check_output("systemctl start %s.service", JOB)
    found = host.file(SETS.format(INSTANCE)).listdir()
    assert [name for name in found if not A_SET.fullmatch(name)] == []
    assert len(found) == len({name for name in before if A_SET.fullmatch(name)}) + 1
    assert (
        host.run(
            "sudo -u postgres pgops --config /etc/pgops/%s.yml verify --place local --level structure", INSTANCE
        ).rc
        == 0
    )


def test_runs_that_were_due_while_the_power_was_off_are_caught_up_in_their_order(lab: Lab, host: Any) -> None:
    """They all begin with the boot; but a copy that is over before the backup would leave it here for another day."""
    before = len(runs_of(host, INSTANCE))
    # By these files systemd knows when the timers elapsed last.
    for verb in ("backup", "sync", "verify"):
        host.check_output(
            "touch --date=%s /var/lib/systemd/timers/stamp-pgops-%s@%s.timer", "2 days ago", verb, INSTANCE
        )
    power(lab, cut=False)

    def caught_up() -> list[dict[str, Any]]:
        return [run for run in runs_of(host, INSTANCE)[before:] if run["verb"] in ("backup", "sync", "verify")]

    assert until(lambda: "verify" in [run["verb"] for run in caught_up()], 150) is not None
    backup, sync, verify = caught_up()
    assert [run["verb"] for run in (backup, sync, verify)] == ["backup", "sync", "verify"]
    assert [run["outcome"] for run in (backup, sync, verify)] == ["ok"] * 3
    assert sync["begun"] >= backup["ended"]
    assert sync["bytes_sent"] > 0
