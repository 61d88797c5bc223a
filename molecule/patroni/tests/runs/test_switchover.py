# SPDX-License-Identifier: GPL-3.0-or-later
"""The leader changes between the nights; in each, both members begin at the same time, as by their schedules."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.hosts import objects_of, runs_of
from tests.hosts.protected import SETS
from tests.hosts.shop import asked, finished_segment
from tests.tools.lab.machines import until

INSTANCE = "shop-patroni"
MEMBERS = ("pt1", "pt2")
CTL = "sudo -u postgres patronictl --config-file /etc/patroni/17-main.yml"


def roles_of(host: Any) -> dict[str, tuple[str, str]]:
    """Return what Patroni says of each member: its role and its state."""
    said = host.run(f"{CTL} list --format json")
    return {one["Member"]: (one["Role"], one["State"]) for one in json.loads(said.stdout or "[]")}


def switch_to(machine: Any, leader: str) -> None:
    """Let Patroni hand the leadership over, and wait until the other member follows."""
    other = next(name for name in MEMBERS if name != leader)
    machine(leader).check_output(f"{CTL} switchover --leader {other} --candidate {leader} --force")
    wanted = {leader: ("Leader", "running"), other: ("Replica", "streaming")}
    assert until(lambda: roles_of(machine(leader)) == wanted, 90) is not None, roles_of(machine(leader))


def sets_of(host: Any) -> set[str]:
    """Return the names of the backup sets that a member holds."""
    folder = host.file(SETS.format(INSTANCE))
    return set(folder.listdir()) if folder.is_directory else set()


def night(machine: Any, *options: str) -> dict[str, dict[str, Any]]:
    """Let both members begin their backup at once, and then their copy, and return the record of each backup."""
    with ThreadPoolExecutor(len(MEMBERS)) as pool:
        for verb in ("backup", "sync"):
            words = " ".join(["sudo -u postgres pgops --json", verb, *options])
            list(pool.map(lambda name, words=words: machine(name).run(words), MEMBERS))
    return {name: [run for run in runs_of(machine(name), INSTANCE) if run["verb"] == "backup"][-1] for name in MEMBERS}


@pytest.mark.parametrize(
    ("leader", "rule", "works"),
    [
        ("pt2", "prefer_standby", "pt1"),
        ("pt2", "primary", "pt2"),
        ("pt1", "prefer_standby", "pt2"),
    ],
)
def test_exactly_one_member_backs_up(machine: Any, leader: str, rule: str, works: str) -> None:
    if roles_of(machine(leader)).get(leader, ("", ""))[0] != "Leader":
        switch_to(machine, leader)
    # What a server that is used does all the time: by its last transaction a standby knows how far behind it is.
    asked(machine(leader), "postgres", "SELECT pg_logical_emit_message(true, 'lab', 'used')")
    before = {name: sets_of(machine(name)) for name in MEMBERS}
    told = night(machine, f"--set group.run_on={rule}")
    assert {name: run["outcome"] for name, run in told.items()} == dict.fromkeys(MEMBERS, "ok")
    assert [name for name, run in told.items() if not run.get("skipped")] == [works], told
    for name in MEMBERS:
        assert len(sets_of(machine(name)) - before[name]) == (name == works), name


def test_the_sets_of_both_members_lie_beside_each_other(machine: Any, s3: Any, bucket: str) -> None:
    found = objects_of(s3, bucket, f"database-backups/{INSTANCE}/sets/")
    assert len([key for key in found if key.endswith("-logical/manifest.json")]) == 4
    # The proof is the same whoever took the set.
    assert machine("pt1").run("sudo -u postgres pgops verify --place s3 --level restore").rc == 0


def test_every_member_would_archive_its_wal_and_the_restart_is_left_to_patroni(
    ansible_play: Any, machine: Any, s3: Any, bucket: str
) -> None:
    began = {name: asked(machine(name), "postgres", "SELECT pg_postmaster_start_time()") for name in MEMBERS}
    # Patroni restarted them since site was here; so something waits for a restart again.
    for name in MEMBERS:
        asked(machine(name), "postgres", "ALTER SYSTEM SET archive_mode = 'always'")
        asked(machine(name), "postgres", "SELECT pg_reload_conf()")
    said = ansible_play("archive.yml")
    assert said.returncode == 0
    assert said.stdout.count("patronictl restart") >= len(MEMBERS)
    assert {n: asked(machine(n), "postgres", "SELECT pg_postmaster_start_time()") for n in MEMBERS} == began
    for name in MEMBERS:
        asked(machine(name), "postgres", "ALTER SYSTEM SET archive_mode = 'on'")
    machine("pt1").check_output(f"{CTL} restart 17-main --force")
    for name in MEMBERS:
        archives = partial(machine(name).run, "sudo -u postgres psql -XAtc 'SHOW archive_mode' postgres")
        assert until(lambda ask=archives: ask().stdout == "on\n", 60) is not None, name
    segment = finished_segment(machine("pt1"))
    assert until(lambda: [key for key in objects_of(s3, bucket) if segment in key], 60) is not None


def test_a_group_of_which_nobody_answers_is_an_error_on_every_member(machine: Any) -> None:
    for name in MEMBERS:
        # Patroni ends its server with it.
        machine(name).check_output("systemctl stop patroni@17-main")
    told = night(machine)
    for run in told.values():
        assert run["outcome"] != "ok"
        assert "No member of this group can back up" in run["reason"]
    for name in MEMBERS:
        said = machine(name).run("sudo -u postgres pgops check backup")
        assert said.rc in (1, 2)
        assert "The last backup failed: No member of this group can back up" in said.stdout
