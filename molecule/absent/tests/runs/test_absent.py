# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# pylint: disable=unused-import,unused-wildcard-import,wildcard-import
# Every test here has the host, also one that does not look at it: pytest puts those with it together.
from typing import Any

import pytest

from tests.hosts import files_of, objects_of
from tests.hosts.bare import NOTHING, test_nobody_runs_a_job_of_ours  # noqa: F401
from tests.hosts.shop import is_the_shop

SETS = "/backups/postgres/gone13-main/sets"


@pytest.mark.parametrize("path", sorted({*NOTHING} - {"/etc/pgops"}))
def test_nothing_of_ours_is_left(host: Any, path: str) -> None:
    assert not host.file(path).exists


def test_what_somebody_wrote_by_hand_stays_and_nothing_beside_it(host: Any) -> None:
    assert host.check_output("find /etc/pgops -mindepth 1") == "/etc/pgops/fleet.yml"
    assert host.file("/etc/pgops/fleet.yml").content_string == "# By hand\ninstance: fleet\n"


def test_the_backups_are_still_there(host: Any, s3: Any, bucket: str) -> None:
    here = files_of(host, SETS)
    assert [path for path in here if path.endswith("/manifest.json")]
    assert objects_of(s3, bucket, "database-backups/gone13-main/sets/").keys() >= {
        f"database-backups/gone13-main/sets/{path}" for path in here
    }


def test_the_server_is_as_it_was(host: Any) -> None:
    is_the_shop(host)


def test_the_role_in_the_database_is_gone(host: Any) -> None:
    asked = "SELECT count(*) FROM pg_roles WHERE rolname = 'pgops_backup'"
    assert host.check_output("sudo -u postgres psql -XAtc %s", asked) == "0"


def test_no_secret_is_left(host: Any, secrets: list[str]) -> None:
    sought = " ".join(["-e %s"] * len(secrets))
    found = host.run(f"grep -rlF --exclude-dir=journal {sought} /etc /home /root /tmp /usr/local /var", *secrets)
    assert found.stdout == ""


def test_a_second_removal_finds_nothing_to_do(host: Any, ansible_play: Any) -> None:
    said = ansible_play("absent.yml")
    assert said.returncode == 0
    assert "changed=0" in said.stdout


def test_where_the_server_does_not_run_site_leaves_the_schedule_all_the_same(playbook: Any, host: Any) -> None:
    host.check_output("pg_ctlcluster 17 main stop")
    try:
        said = playbook("site")
        assert said.returncode != 0
        assert "gone13: NOT PROTECTED" in said.stdout
        listed = host.check_output("systemctl list-timers --all --no-legend %s", "pgops-*")
        for verb in ("backup", "sync", "verify", "prune"):
            assert f"pgops-{verb}@gone13-main.timer" in listed
    finally:
        host.check_output("pg_ctlcluster 17 main start")


def test_site_brings_it_back_and_finds_the_backups(playbook: Any, host: Any) -> None:
    before = files_of(host, SETS)
    # What there was without pipelining, there is with it.
    said = playbook("site", ansible_pipelining=True)
    assert said.returncode == 0
    assert "1 of 1 protected" in said.stdout
    assert files_of(host, SETS) == before


def test_check_mode_says_by_which_configuration_it_judges(playbook: Any) -> None:
    told = "by the configuration that is there now"
    said = playbook("site", "--check", pgops_backup={"jobs": 3})
    assert said.returncode == 0
    assert told in " ".join(said.stdout.split())
    assert told not in " ".join(playbook("site", "--check").stdout.split())


def test_while_a_job_runs_nothing_goes(host: Any, ansible_play: Any) -> None:
    job, timer = "pgops-backup@gone13-main.service", "pgops-backup@gone13-main.timer"
    holds = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)"
    host.check_output("systemd-run --quiet --unit holder --uid postgres psql -X -d shop -c %s", holds)
    held = "SELECT 'is so' FROM pg_locks WHERE granted AND locktype = 'relation' AND mode = 'AccessExclusiveLock'"
    waiting = "SELECT 'is so' FROM pg_locks WHERE NOT granted"
    until = 'until sudo -u postgres psql -XAtc "%s" | grep -q "is so"; do sleep 1; done'
    try:
        # Else the job might be the first.
        host.check_output("timeout 120 sh -c %s", until % held)
        host.check_output("systemctl start --no-block %s", job)
        host.check_output("timeout 120 sh -c %s", until % waiting)
        said = ansible_play("absent.yml")
        assert said.returncode != 0
        assert "Somebody runs pgops from" in said.stdout + said.stderr
        assert host.service(timer).is_enabled
        assert host.check_output("find /etc/pgops -name '*.yml' -not -name fleet.yml")
    finally:
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK %'"
        host.check_output("sudo -u postgres psql -XAtc %s", ends)
    waits = f"while [ $(systemctl is-active {job}) = activating ]; do sleep 1; done"
    host.check_output("timeout 120 sh -c %s", waits)
    assert host.check_output("systemctl show --property Result --value %s", job) == "success"


def test_the_controller_finds_nothing_outdated_in_what_it_played(host: Any, ansible_said: str) -> None:
    assert "PLAY RECAP" in ansible_said
    assert [line for line in ansible_said.splitlines() if "DEPRECAT" in line] == []
