# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary is lost between two runs, comes back, and is made a standby; and any moment of that story comes back, from S3 alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosts import objects_of, runs_of
from tests.hosts.pages import blocks, filled
from tests.hosts.shop import asked, finished_segment, is_the_shop
from tests.tools.lab import Lab
from tests.tools.lab.machines import until

INSTANCE = "shop-group"
BACKUP = "sudo -u postgres pgops --json backup"


COPY, SOCKETS = "/srv/copy", "/tmp/pitr"
# Backups have a role of their own here, which may not look at a whole server; and the old primary may have archived once more
# behind where the timelines parted, so that a moment alone does not say on which of them it lies.
OF_BOTH = "--set postgres.login_user=postgres --set postgres.login_host= --timeline 2"


@pytest.fixture(scope="module")
def moments() -> dict[int, str]:
    """By its number, when the row had been committed and the next one had not."""
    return {}


def write(host: Any, first: int, last: int) -> str:
    """Commit rows, and return a moment behind that."""
    asked(host, "shop", f"INSERT INTO ticks SELECT generate_series({first}, {last})")
    return asked(host, "shop", "SELECT clock_timestamp()")


def archived(host: Any, s3: Any, bucket: str) -> None:
    """Finish a segment, and wait until it is in the bucket."""
    segment = finished_segment(host)
    assert until(lambda: [key for key in objects_of(s3, bucket) if segment in key], 90) is not None


def rows(host: Any, where: str) -> list[int]:
    """Return the rows on a server that is reached by the sockets in a directory."""
    words = "sudo -u postgres psql -XAt -h %s -d shop -c %s"
    return [int(line) for line in host.check_output(words, where, "SELECT no FROM ticks ORDER BY no").split()]


def last_run(host: Any) -> dict[str, Any]:
    """Return the record of the newest backup."""
    return [run for run in runs_of(host, INSTANCE) if run["verb"] == "backup"][-1]


def test_somebody_writes_and_the_primary_archives(machine: Any, s3: Any, bucket: str, moments: dict[int, str]) -> None:
    primary, standby = machine("ha1"), machine("ha2")
    asked(primary, "shop", "CREATE TABLE ticks (no int PRIMARY KEY)")
    write(primary, 1, 10)
    write(primary, 11, 20)
    archived(primary, s3, bucket)
    # These the primary never archives: the standby has them, and is promoted with them.
    moments[30] = write(primary, 21, 30)
    assert until(lambda: asked(standby, "shop", "SELECT count(*) FROM ticks") == "30", 60) is not None


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


def test_it_archives_to_the_same_place(machine: Any, s3: Any, bucket: str, moments: dict[int, str]) -> None:
    moments[40] = write(machine("ha2"), 31, 40)
    write(machine("ha2"), 41, 50)
    archived(machine("ha2"), s3, bucket)
    keys = objects_of(s3, bucket, f"database-backups/{INSTANCE}/wal/")
    assert [key for key in keys if "00000002.history" in key]


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


def test_any_moment_comes_back_on_a_bare_host_from_s3_alone(machine: Any, moments: dict[int, str]) -> None:
    bare = machine("ha1")
    bare.check_output("systemctl stop pgops_wal_ship@%s", INSTANCE)
    bare.check_output("pg_dropcluster --stop 17 main && find /backups/postgres /var/lib/pgops -mindepth 1 -delete")
    assert bare.check_output("pg_lsclusters -h") == ""
    # Before the failover, in a segment that only the new primary archived; and behind it.
    for number, moment in sorted(moments.items()):
        bare.check_output("install -d -o postgres -m 700 %s", COPY)
        words = f"--place s3 --data-directory {COPY} --socket-directory {SOCKETS} --yes {OF_BOTH}"
        said = bare.run(f"pgops --json recover {words} --to-time %s", moment)
        assert said.rc == 0, said.stdout + said.stderr
        assert json.loads(said.stdout)["stopped"]["log"]
        assert rows(bare, SOCKETS) == list(range(1, number + 1))
        bare.check_output("sudo -u postgres /usr/lib/postgresql/17/bin/pg_ctl stop -m immediate -D %s", COPY)
        bare.check_output("rm -rf %s %s", COPY, SOCKETS)


def test_the_commands_of_the_page_bring_a_server_back_in_its_place(machine: Any, moments: dict[int, str]) -> None:
    host = machine("ha2")
    (script,) = [text for text in blocks("recovery.md", "In the place of the server") if text.startswith("systemctl ")]
    names = {"2026-11-22T14:30:59+01:00": f"'{moments[40]}'", "pgops recover": f"pgops recover {OF_BOTH}"}
    said = host.run("bash -e -c %s", filled(script, names))
    assert said.rc == 0, said.stdout + said.stderr
    assert host.check_output("systemctl is-active postgresql@17-main") == "active"
    assert rows(host, "/var/run/postgresql") == list(range(1, 41))
    is_the_shop(host)
