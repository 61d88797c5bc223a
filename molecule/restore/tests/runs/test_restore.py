# SPDX-License-Identifier: GPL-3.0-or-later
"""The server ra is gone. Its databases come back on rb, from S3, by the playbooks; in the order of a bad night."""

from __future__ import annotations

from typing import Any

from tests.hosts import runs_of
from tests.hosts.shop import ODD, ODD_ROW, asked, databases_of, is_the_shop
from tests.tools.lab import Lab

FROM_RA = {"target": "rb", "from_instance": "ra-main", "place": "s3"}


def test_the_server_is_gone(lab: Lab, host: Any) -> None:
    assert not lab.machine("ra").is_on()
    assert databases_of(host) == {"postgres"}


def test_status_names_who_is_not_protected(playbook: Any, host: Any) -> None:
    said = playbook("status")
    assert said.returncode != 0
    assert "2 of 3 protected" in said.stdout
    assert "ra: NOT PROTECTED" in said.stdout
    assert "Not backed up: cluster 17/other on port 5433." in said.stdout


def test_without_a_confirmation_there_is_a_plan_and_nothing_else(playbook: Any, host: Any) -> None:
    said = playbook("restore", **FROM_RA, databases="shop")
    assert said.returncode != 0
    # Wherever the lines are broken.
    told = " ".join((said.stdout + said.stderr).split())
    assert "To carry the plan out" in told
    assert "restore shop on rb" in told
    assert databases_of(host) == {"postgres"}


def test_a_confirmation_of_something_else_is_none(playbook: Any, host: Any) -> None:
    said = playbook("restore", **FROM_RA, databases="shop", confirm="restore shop on ra")
    assert said.returncode != 0
    assert databases_of(host) == {"postgres"}


def test_check_mode_restores_nothing(playbook: Any, host: Any) -> None:
    said = playbook("restore", "--check", **FROM_RA, databases="shop", confirm="restore shop on rb")
    assert said.returncode == 0
    assert databases_of(host) == {"postgres"}


def test_confirmed_it_brings_the_shop_back(playbook: Any, host: Any) -> None:
    said = playbook("restore", **FROM_RA, databases="shop", confirm="restore shop on rb")
    assert said.returncode == 0
    is_the_shop(host)


def test_a_database_with_an_odd_name_comes_back(playbook: Any, host: Any) -> None:
    said = playbook("restore", **FROM_RA, databases=[ODD], confirm=f"restore {ODD} on rb")
    assert said.returncode == 0
    assert asked(host, ODD, 'TABLE "sch\'ema"."ta""ble"') == ODD_ROW


def test_what_is_in_use_is_not_overwritten(playbook: Any, host: Any) -> None:
    asked(host, "shop", "DELETE FROM orders WHERE id > 15000")
    said = playbook("restore", **FROM_RA, databases="shop", confirm="restore shop on rb")
    assert said.returncode != 0
    assert asked(host, "shop", "SELECT count(*) FROM orders") == "15000"


def test_a_swap_keeps_the_one_before_and_rolls_back(playbook: Any, host: Any) -> None:
    said = playbook("restore", **FROM_RA, databases="shop", mode="swap", confirm="restore shop on rb")
    assert said.returncode == 0
    is_the_shop(host)
    said = playbook("restore_rollback", target="rb", databases="shop", confirm="roll back shop on rb")
    assert said.returncode == 0
    assert asked(host, "shop", "SELECT count(*) FROM orders") == "15000"


def test_each_attempt_is_on_record(host: Any) -> None:
    # With the instance whose backups they are.
    runs = [run for run in runs_of(host, "ra-main") if run["verb"] == "restore" and not run["dry_run"]]
    assert [run["outcome"] for run in runs].count("ok") == 3
