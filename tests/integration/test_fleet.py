# SPDX-License-Identifier: GPL-3.0-or-later
"""One message for many hosts: the playbook status asks them all, and people hear once of what is wrong and of its end."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.servers import PostgresServer
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HttpReceiver,
    receiver_here,
)
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    program_builder,
    shop_program,
)
from tests.integration.conftest import databases_of
from tests.integration.playing import played

_LOST_AFTER = "{{ 'ssh' if %s is defined else 'local' }}"


class Controller:
    """A machine that asks hosts which are all this machine, and has a configuration of its own by which it tells people."""

    def __init__(self, folder: Path, shop: Program, url: str) -> None:
        self.folder, self.shop = folder, shop
        self.program = folder / "pgops"
        told = "".join(
            "export %s=%s\n" % (name, shop.environ[name]) for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        )
        self.program.write_text('#!/bin/sh\n%sexec %s -m pgops "$@"\n' % (told, sys.executable))
        self.program.chmod(0o755)
        self.config = folder / "fleet.yml"
        data = {
            "instance": "fleet",
            "state_dir": str(folder / "fleet"),
            "log_dir": "",
            "alerts": {"webhook": {"url": url}},
        }
        self.config.write_text(json.dumps(data))
        self.config.chmod(0o600)

    def ask(self, *hosts: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook status for these hosts; see play()."""
        return self.play(["status"], *hosts, **extra)

    def play(self, names: Sequence[str], *hosts: str, also: str = "", **told: Any) -> subprocess.CompletedProcess[str]:
        """Run playbooks in one go. Hosts that are called lost are no machines at all; those called
        lost_after_NAME, from when NAME is known. `also` are words as a person would type them. What is told as None is not said.
        """
        inventory = {
            "databases": {
                "hosts": {
                    host: {
                        "ansible_host": "203.0.113.1",
                        "ansible_connection": _LOST_AFTER % host.partition("_after_")[2]
                        if "_after_" in host
                        else "ssh",
                        "ansible_ssh_args": "-o ConnectTimeout=1",
                    }
                    if host.startswith("lost")
                    else {}
                    for host in hosts
                },
                "vars": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                },
            }
        }
        path = self.folder / "hosts.json"
        path.write_text(json.dumps({"all": {"children": inventory}}))
        extra: dict[str, Any] = {
            "pgops_play_program": str(self.program),
            "pgops_play_instances": [{"key": "db1-main", "value": str(self.shop.config)}],
            "pgops_require": ["backup"],
            "pgops_fleet_config": str(self.config),
            "ansible_python_interpreter": sys.executable,
            **told,
        }
        extra = {name: value for name, value in extra.items() if value is not None}
        words = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(path), "-e", json.dumps(extra)]
        words += ["pgops.backup." + name for name in names]
        return played(["/bin/sh", "-c", f"{shlex.join(words)} {also}"], self.folder)


def test_people_hear_once_of_many_hosts_and_once_that_it_is_over(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    for _unused in range(2):
        said = controller.ask("db1", "db2", "lost1")
        assert "0 of 3 protected" in said.stdout, said.stdout + said.stderr
        (only,) = receiver.of("/hook")
    text = only.json["text"].splitlines()
    assert text[0] == "3 of 3 hosts are not protected."
    assert "backup: 2 (db1, db2)" in text
    assert "not reached: 1 (lost1)" in text
    assert (only.json["instance"], only.json["level"], only.json["event"]) == ("fleet", "critical", "message")
    shop("backup")
    said = controller.ask("db1", "db2")
    assert said.returncode == 0, said.stdout + said.stderr
    _first, last = receiver.of("/hook")
    assert (last.json["event"], last.json["text"]) == ("recovered", "All 2 hosts are protected.")
    assert last.json["key"] == only.json["key"] == "pgops/fleet/message/fleet-databases"


def test_a_host_that_is_lost_later_is_not_protected_by_what_an_earlier_playbook_saw(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    shop("backup")
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    said = controller.play(["status", "status"], "lost_after_pgops_report")
    first, last = said.stdout.split("PLAY [Ask]")[1:]
    assert "1 of 1 protected" in first, said.stdout + said.stderr
    assert "0 of 1 protected" in last, said.stdout + said.stderr
    assert said.returncode


def test_a_host_that_is_lost_midway_stops_no_other_when_one_works_at_a_time(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    said = controller.play(["verify"], "db1", "lost_after_pgops_reached", "db2", pgops_serial=1)
    assert "UNREACHABLE" in said.stdout, said.stdout + said.stderr
    assert "0 of 3 protected" in said.stdout, said.stdout + said.stderr
    for host in ("db1", "db2"):
        assert f"{host}: NOT PROTECTED" in said.stdout
    assert said.returncode


def test_an_instance_that_a_host_does_not_have_is_told_before_anything_is_done(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    said = controller.play(["verify"], "db1", instance="o'brien; $HOME", pgops_play_instances=[])
    assert said.returncode
    assert "db1 has no instance o'brien; $HOME; it has " in said.stdout, said.stdout + said.stderr
    assert "Prove that it restores" not in said.stdout


@pytest.mark.parametrize("name", ["shop_then", """o'brien $HOME a=b {{ 1 }} "x" \\\\ +%20  é"""])
def test_what_a_restore_asks_to_be_typed_confirms_it_whatever_the_name(
    shop: Program, receiver: HttpReceiver, tmp_path: Path, bench: PostgresServer, name: str
) -> None:
    shop("backup")
    asked = {"target": "db1", "databases": "shop", "mode": "create"}
    also = "-e " + shlex.quote("{rename: {shop: !unsafe %s}, set: latest}" % json.dumps(name))
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    said = controller.play(["restore"], "db1", also=also, **asked)
    # As it stands on the screen, where Ansible shows texts as JSON.
    typed = re.search(r"say also (-e confirm=(?:'[^']*'|\S+?))[\",]", said.stdout)
    assert typed, said.stdout + said.stderr
    said = controller.play(["restore"], "db1", also=f"{also} {typed[1]}", **asked)
    assert said.returncode == 0, said.stdout + said.stderr
    assert name in databases_of(bench)


def test_a_pattern_of_hosts_means_what_it_means_to_ansible_and_this_machine_is_there_for_the_summary(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    books = ["backup", "checklist", "site", "status", "sync", "verify"]
    for pattern, found in {
        "databases:&db*:!db2": {"db1"},
        "nohost": set(),
        # A blank field of a form: to the lookup that is everybody.
        " ,": set(),
    }.items():
        said = controller.play(books, "db1", "db2", "old", also="--list-hosts", target=pattern)
        plays = said.stdout.split("\n  play #")[1:]
        assert len(plays) == 2 * len(books) - 1, said.stdout + said.stderr
        assert [set(play.partition("):\n")[2].split("\n\n")[0].split()) for play in plays] == [
            {*found, "localhost"}
        ] * len(plays)


@pytest.mark.parametrize(
    ("book", "told", "why"),
    [
        ("restore", {"target": "nohost"}, "No host of the inventory matches nohost. Nothing was done."),
        (
            "restore_rollback",
            {"target": "nohost:!db1"},
            "No host of the inventory matches nohost:!db1. Nothing was done.",
        ),
        ("restore", {"target": "db1:!db2", "instance": "nix"}, "db1 has no instance nix; it has db1-main."),
    ],
)
def test_a_restore_of_what_there_is_not_fails_and_says_why(
    shop: Program, receiver: HttpReceiver, tmp_path: Path, book: str, told: dict[str, str], why: str
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    said = controller.play([book], "db1", "db2", databases="all", pgops_play_instances=None, **told)
    assert said.returncode == 2, said.stdout + said.stderr
    assert why in " ".join(said.stdout.split())
    assert "(2/6)" not in said.stdout


def test_two_hosts_with_one_name_are_set_up_neither_of_them(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    told = {"pgops_instances": [{"name": "main"}], "pgops_s3": {"bucket": "{{ 'back' ~ 'ups' }}"}}
    said = controller.play(["site"], "db1", "db2", also="--check", pgops_play_instances=None, **told)
    assert said.returncode == 2, said.stdout + said.stderr
    assert "db1 and db2 each call an instance main, and would keep it in s3://backups/" in said.stdout
    assert "Reach the host" not in said.stdout
