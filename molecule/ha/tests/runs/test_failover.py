# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary is lost between two runs, comes back, and is made a standby."""

from __future__ import annotations

from typing import Any

from tests.hosts import runs_of
from tests.hosts.shop import asked
from tests.tools.lab import Lab
from tests.tools.lab.machines import until

INSTANCE = "shop-group"
BACKUP = "sudo -u postgres pgops --json backup"


def last_run(host: Any) -> dict[str, Any]:
    """Return the record of the newest backup."""
    return [run for run in runs_of(host, INSTANCE) if run["verb"] == "backup"][-1]


def test_a_standby_that_heard_of_its_primary_just_now_backs_up_without_it(lab: Lab, machine: Any) -> None:
    lab.machine("ha1").stop(cut=True)
    assert machine("ha2").run(BACKUP).rc == 0
    assert last_run(machine("ha2")).get("skipped") is None


def test_one_that_did_not_for_long_is_no_group_and_says_so(machine: Any) -> None:
    said = machine("ha2").run(f"{BACKUP} --set group.max_lag=1s")
    assert said.rc in (4, 5)
    assert last_run(machine("ha2"))["outcome"] != "ok"
    assert "ha1" in last_run(machine("ha2"))["reason"]


def test_the_standby_that_was_promoted_backs_up_as_the_primary(machine: Any) -> None:
    machine("ha2").check_output("pg_ctlcluster 17 main promote")
    assert until(lambda: asked(machine("ha2"), "postgres", "SELECT pg_is_in_recovery()") == "f", 90) is not None
    assert machine("ha2").run(BACKUP).rc == 0
    assert last_run(machine("ha2")).get("skipped") is None


def test_two_primaries_are_refused_by_both(lab: Lab, machine: Any) -> None:
    one = lab.machine("ha1")
    one.start()
    one.wait()
    for name in ("ha1", "ha2"):
        said = machine(name).run(BACKUP)
        assert said.rc == 5
        assert "call themselves the primary" in last_run(machine(name))["reason"]


def test_the_old_primary_as_a_standby_backs_up_again(machine: Any, ansible_play: Any) -> None:
    assert ansible_play("rejoin.yml").returncode == 0
    assert (
        until(lambda: asked(machine("ha2"), "postgres", "SELECT state FROM pg_stat_replication") == "streaming", 90)
        is not None
    )
    assert machine("ha2").run(BACKUP).rc == 0
    assert "ha1" in last_run(machine("ha2"))["skipped"]
    assert machine("ha1").run(BACKUP).rc == 0
    assert last_run(machine("ha1")).get("skipped") is None
