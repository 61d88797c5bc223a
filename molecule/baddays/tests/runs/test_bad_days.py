# SPDX-License-Identifier: GPL-3.0-or-later
"""One bad day after the other. Each leaves the hosts so that the next can come."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hosts import instances_of, objects_of, runs_of
from tests.hosts.bare import NOTHING
from tests.hosts.protected import SETS, status_of
from tests.tools.lab import network
from tests.tools.lab.machines import until

STORE = "10.213.0.10"
APT_LOCK = Path(__file__).parents[2] / "files" / "apt_lock.py"
HELD = "/run/lab-apt"
INSTALLING, LISTING = "/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"


@contextmanager
def unplugged(name: str) -> Iterator[None]:
    """Take a host's network away for a while."""
    network.plug(name, into=False)
    try:
        yield
    finally:
        network.plug(name, into=True)


@contextmanager
def apt_is_busy(host: Any, waited_for: int, lock: str = INSTALLING) -> Iterator[None]:
    """Hold a lock of a host's apt until an apt-get has waited for it so many seconds; with 0, for as long as this lasts."""
    host.check_output("rm -f %s", HELD)
    words = "systemd-run --quiet --collect --unit=lab-apt python3 -c %s %s %s %s"
    host.check_output(words, APT_LOCK.read_text(), lock, HELD, str(waited_for))
    try:
        assert until(lambda: host.run("test -s %s", HELD).rc == 0, 60) is not None
        yield
    finally:
        host.run("systemctl stop lab-apt")


def told(said: Any) -> str:
    """Return what a playbook said at its end of which hosts are protected."""
    return " ".join(str(said.stdout).partition("TASK [Who is protected?]")[2].partition("TASK [")[0].split())


def sets_of(host: Any, name: str) -> list[str]:
    """Return the backup sets that a host has."""
    folder = host.file(SETS.format(f"{name}-main"))
    return list(folder.listdir()) if folder.is_directory else []


def test_a_wrong_configuration_is_told_whole_before_anything_is_touched(
    playbook: Any, machine: Any, s3: Any, bucket: str
) -> None:
    said = playbook("site", pgops_backup={"jobs": -1, "fromat": "custom"}, pgops_schedule={"backup": "61 2 * * *"})
    assert said.returncode != 0
    for wrong in ("backup.jobs", "fromat", "schedule.backup"):
        assert wrong in said.stdout + said.stderr
    for name in ("bd1", "bd2"):
        assert [path for path in NOTHING if machine(name).file(path).exists] == []
        assert not machine(name).package("zstd").is_installed
    assert bucket not in [one["Name"] for one in s3.list_buckets()["Buckets"]]


def test_a_host_whose_apt_is_busy_for_too_long_says_so(playbook: Any, machine: Any) -> None:
    for lock in (INSTALLING, LISTING):
        with apt_is_busy(machine("bd1"), waited_for=0, lock=lock):
            said = playbook("site", "--tags", "pgops_install", target="bd1", agent_packages_wait=1)
        assert said.returncode != 0
        assert "lock" in told(said)
        assert str(Path(lock).parent) in told(said), "which one"
        assert not machine("bd1").package("zstd").is_installed


def test_a_host_out_of_reach_and_one_whose_apt_is_busy(playbook: Any, machine: Any) -> None:
    host = machine("bd1")
    with apt_is_busy(host, waited_for=3), unplugged("bd2"):
        said = playbook("site", "--tags", "pgops_install")
    assert said.returncode != 0
    assert "0 of 2 protected" in said.stdout
    assert "It could not be reached" in said.stdout
    # The lock was let go only because an apt-get waited for it, and nothing was installed before.
    had, let_go = (float(line) for line in host.file(HELD).content_string.split())
    dates = "sed -n %s /var/log/apt/history.log | TZ=UTC date --file=- +%%s"
    begun = [int(line) for line in host.check_output(dates, "s/^Start-Date: //p").split()]
    assert [moment for moment in begun if moment >= int(had)]
    assert [moment for moment in begun if int(had) <= moment < int(let_go)] == []
    assert host.package("zstd").is_installed


def test_each_step_of_site_by_its_tag(playbook: Any, machine: Any, s3: Any, bucket: str) -> None:
    """The tags of docs/setup.md, one after the other: what each brings, and that the next one does not come by itself."""
    host, top = machine("bd1"), "database-backups/bd1-main/"

    def found() -> dict[str, bool]:
        there = bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]
        keys = list(objects_of(s3, bucket, top)) if there else []
        return {
            "pgops_install": host.run("pgops version").rc == 0 and host.file("/etc/cron.d/pgops").exists,
            "pgops_storage": there and s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled",
            "pgops_backup": len(sets_of(host, "bd1")) == 1,
            "pgops_sync": any(key.endswith("/manifest.json") for key in keys),
            "pgops_verify": any("_restore_passed_" in key for key in keys),
        }

    done = ["pgops_install"]
    assert [tag for tag, there in found().items() if there] == done
    for tag in ("pgops_storage", "pgops_backup", "pgops_sync", "pgops_verify"):
        said = playbook("site", "--tags", tag, target="bd1")
        done.append(tag)
        assert [name for name, there in found().items() if there] == done
        assert (said.returncode == 0) is (tag == "pgops_verify")
    assert "1 of 1 protected" in said.stdout


def test_a_store_out_of_reach_leaves_the_local_backup(playbook: Any, machine: Any) -> None:
    network.block("bd2", STORE, blocked=True)
    try:
        said = playbook("site")
    finally:
        network.block("bd2", STORE, blocked=False)
    assert said.returncode != 0
    summary = told(said)
    assert "1 of 2 protected" in summary
    assert "bd2: NOT PROTECTED" in summary
    assert f"The store at http://{STORE}:8000 cannot be reached" in summary
    (made,) = sets_of(machine("bd2"), "bd2")
    assert f"bd2-main: still safe - local: {made} is proven to restore." in summary
    status = status_of(machine("bd2"), "/etc/pgops/config.yml")
    assert [
        place["sets"][0]["proofs"]["restore"]["outcome"] for place in status["places"] if place["place"] == "local"
    ] == ["passed"]
    assert machine("bd2").file("/etc/cron.d/pgops").exists


def test_the_next_day_the_rest_is_made_up_for(playbook: Any) -> None:
    said = playbook("site")
    assert said.returncode == 0
    assert "2 of 2 protected" in said.stdout
    # One look told that the hosts lack nothing but that.
    for step in ("Configure | ", "Program | ", "Write the schedule"):
        assert step not in said.stdout


def test_a_server_that_is_stopped_and_a_disk_that_is_full(playbook: Any, machine: Any) -> None:
    machine("bd1").check_output("pg_ctlcluster 15 main stop")
    machine("bd2").check_output(
        "mv /backups/postgres/bd2-main /root/kept && mount -t tmpfs -o size=128k,mode=750,uid=postgres tmpfs "
        "/backups/postgres"
    )
    try:
        said = playbook("backup")
        assert said.returncode != 0
        assert "0 of 2" in said.stdout
        for name, why in (("bd1", "socket|connect"), ("bd2", "free|full|No space")):
            run = [run for run in runs_of(machine(name), f"{name}-main") if run["verb"] == "backup"][-1]
            assert run["outcome"] != "ok"
            # The run's own record and the summary tell the same: what is wrong on that host, and not that something is.
            assert re.search(why, run["reason"]), run["reason"]
            assert re.search(why, told(said).partition(f"{name}: NOT PROTECTED")[2].partition("NOT PROTECTED")[0])
        assert sets_of(machine("bd2"), "bd2") == []
    finally:
        machine("bd2").check_output("umount /backups/postgres && mv /root/kept /backups/postgres/bd2-main")
        machine("bd1").check_output("pg_ctlcluster 15 main start")


def test_a_credential_that_no_longer_holds(playbook: Any, machine: Any, shared: dict[str, Any]) -> None:
    secrets = {"s3_access_key": shared["lab_access_key"], "s3_secret_key": "of yesterday 'k5Vn"}
    said = playbook("site", target="bd1", pgops_secrets=secrets)
    assert said.returncode != 0
    summary = told(said)
    assert "bd1: NOT PROTECTED" in summary
    assert "it does not accept the credentials" in summary
    assert re.search(r"bd1-main: still safe - local: \S+-logical is proven to restore[.]", summary)
    assert "k5Vn" not in said.stdout + said.stderr
    said = playbook("site", target="bd1")
    assert said.returncode == 0


def test_a_host_that_goes_in_the_middle_of_the_play(playbook: Any, machine: Any) -> None:
    before = len(sets_of(machine("bd1"), "bd1"))
    # Its dump waits, so that the play is not over before.
    host = machine("bd2")
    held = "BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"
    host.check_output("systemd-run --quiet --uid=postgres --unit=lab-lock psql --dbname=shop --command=%s", held)
    waits = "until sudo -u postgres psql -XAtc 'SELECT 1 FROM pg_locks WHERE NOT granted' | grep 1; do sleep 0.1; done"

    def leave() -> None:
        host.run("timeout 120 sh -c %s", waits)
        network.plug("bd2", into=False)

    gone = threading.Thread(target=leave)
    gone.start()
    try:
        said = playbook("backup")
    finally:
        gone.join()
        network.plug("bd2", into=True)
        # Its client would leave it asleep, with the lock.
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE customers%'"
        host.run("sudo -u postgres psql -XAtc %s", ends)
    # What went on without us has come to its end, and is in nobody's way.
    host.check_output("timeout 120 sh -c %s", "while pgrep -u postgres 'pg_dump|pgops|python3'; do sleep 0.1; done")
    assert said.returncode != 0
    assert "bd2: NOT PROTECTED" in said.stdout
    assert "It could not be reached" in said.stdout
    assert len(sets_of(machine("bd1"), "bd1")) == before + 1


def test_in_the_end_all_is_well(playbook: Any, machine: Any) -> None:
    for name in ("backup", "sync", "site"):
        assert playbook(name).returncode == 0
    for name in ("bd1", "bd2"):
        for config in instances_of(machine(name)).values():
            said = status_of(machine(name), config)
            assert [found for found in said["findings"] if found["severity"] != "ok"] == []
