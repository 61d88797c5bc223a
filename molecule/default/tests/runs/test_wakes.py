# SPDX-License-Identifier: GPL-3.0-or-later
"""The power is off when a run is due. It comes last here, as it takes run records away."""

from __future__ import annotations

from typing import Any

from tests.hosts import runs_of
from tests.tools.lab import Lab
from tests.tools.lab.machines import until

INSTANCE = "db12-main"


def test_a_run_that_was_due_while_the_power_was_off_is_caught_up(lab: Lab, host: Any) -> None:
    # As if it had been off since the night before last.
    host.check_output("touch --date=%s /etc/cron.d/pgops", "2 days ago")
    host.check_output("find /var/lib/pgops/%s/runs -name %s -delete", INSTANCE, "*-backup-*.json")
    assert [run for run in runs_of(host, INSTANCE) if run["verb"] == "backup"] == []
    machine = lab.machine("db12")
    machine.stop(cut=False)
    machine.start()
    machine.wait()
    assert until(lambda: [run for run in runs_of(host, INSTANCE) if run["verb"] == "backup"], 120) is not None
    (caught,) = (run for run in runs_of(host, INSTANCE) if run["verb"] == "backup")
    assert caught["outcome"] == "ok"
