# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own promises."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.lab import Lab, network
from tests.tools.lab.machines import OFFERED, until

RELEASES = {"lab12": "12", "lab13": "13"}


def test_is_a_debian_host_whose_services_all_run(host: Any) -> None:
    name = host.run("hostname").stdout.strip()
    assert host.file("/etc/debian_version").content_string.startswith(RELEASES[name])
    assert host.process.get(pid=1).comm == "systemd"
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
    assert host.service("cron").is_running
    assert host.service("ssh").is_running


def test_has_no_database_yet(host: Any) -> None:
    assert host.package("postgresql").is_installed
    assert host.run("pg_lsclusters -h").stdout == ""


def test_can_install_what_the_roles_and_scenarios_ask_for(lab: Lab, host: Any) -> None:
    offered = [package.partition("/")[0] for package in OFFERED[lab.machine(host.check_output("hostname")).facts.kind]]
    words = " ".join(["%s"] * len(offered))
    listed = host.run(f"dpkg-query --show --showformat=%s {words}", r"${db:Status-Status}\n", *offered)
    assert listed.stdout.split().count("installed") == 1, "cron, to be taken away and to come back"
    assert host.run(f"apt-get install -s --no-install-recommends {words}", *offered).rc == 0


def test_reaches_the_store_and_nothing_outside(host: Any) -> None:
    assert host.addr("s3").port(8000).is_reachable
    assert host.run("ip route show default").stdout == ""


def test_keeps_what_it_wrote_when_its_power_is_cut(lab: Lab, machine: Any) -> None:
    machine("lab12").check_output("echo here > /root/written && sync")
    lab.machine("lab12").stop(cut=True)
    one = lab.machine("lab12")
    assert not one.is_on()
    one.start()
    one.wait()
    assert machine("lab12").file("/root/written").content_string == "here\n"


def test_a_host_without_its_cable_is_not_reached(lab: Lab, machine: Any) -> None:
    network.plug("lab13", into=False)
    try:
        assert not machine("lab12").addr("lab13").port(22).is_reachable
    finally:
        network.plug("lab13", into=True)
    assert until(lambda: machine("lab12").addr("lab13").port(22).is_reachable, 60) is not None


def test_hosts_of_one_release_are_two_hosts(machine: Any) -> None:
    ids = {machine(name).file("/etc/machine-id").content_string for name in RELEASES}
    assert len(ids) == len(RELEASES)


def test_the_store_keeps_objects(s3: Any) -> None:
    s3.create_bucket(Bucket="lab-itself")
    s3.put_object(Bucket="lab-itself", Key="a/b", Body=b"kept")
    assert s3.get_object(Bucket="lab-itself", Key="a/b")["Body"].read() == b"kept"
    s3.delete_object(Bucket="lab-itself", Key="a/b")
    s3.delete_bucket(Bucket="lab-itself")


def test_of_a_test_that_fails_every_host_that_it_was_handed_is_asked(
    machine: Any, request: pytest.FixtureRequest
) -> None:
    machine("lab12")
    call = pytest.CallInfo.from_call(lambda: pytest.fail("on purpose"), "call")
    report = request.node.ihook.pytest_runtest_makereport(item=request.node, call=call)
    said = {title.partition(" ")[0]: text for title, text in report.sections if "journalctl" in title}
    assert list(said) == ["ssh://lab12:"], "of the one that was handed out, and of no other"
    assert said["ssh://lab12:"].strip()
