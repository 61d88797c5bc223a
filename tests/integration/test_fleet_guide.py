# SPDX-License-Identifier: GPL-3.0-or-later
"""One message for all hosts as docs/alerts.md has it run by itself: the very command of its unit, and of its line for cron."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HttpReceiver,
    receiver_here,
)
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    program_builder,
    shop_program,
)
from tests.integration.playing import played
from tests.integration.test_fleet import Controller
from tests.tools.collection_tree import ROOT

GUIDE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8").split("## One message for all hosts")[1]
(COMMAND,) = re.findall(r"^ExecStart=(/usr/bin/env ansible-playbook .*)$", GUIDE, re.MULTILINE)


def test_what_the_guide_has_systemd_run_tells_people_once(
    shop: Program, receiver: HttpReceiver, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, shop, receiver.url + "/hook")
    playbook = tmp_path / "ansible-playbook"
    playbook.write_text('#!/bin/sh\nexec %s -m ansible.cli.playbook "$@"\n' % sys.executable)
    playbook.chmod(0o755)
    inventory = tmp_path / "all.json"
    command = COMMAND.replace("/etc/ansible/hosts.yml", str(inventory))
    command = command.replace("/etc/pgops/fleet.yml", str(controller.config))
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    more: dict[str, Any] = {
        "pgops_play_program": str(controller.program),
        "pgops_play_instances": [{"key": "db1-main", "value": str(shop.config)}],
        "pgops_require": ["backup"],
        "ansible_python_interpreter": sys.executable,
    }
    # The second time by a host that remembers, as AWX needs it, and with the hosts in another order.
    for order, others in ((("db2", "db10"), {}), (("db10", "db2"), {"pgops_fleet_host": "db2"})):
        inventory.write_text(json.dumps({"databases": {"hosts": {name: {} for name in order}, "vars": here}}))
        words = [*shlex.split(command), "-e", json.dumps({**more, **others})]
        said = played(words, tmp_path, PATH="%s:%s" % (tmp_path, os.environ["PATH"]))
        assert "0 of 2 protected" in said.stdout, said.stdout + said.stderr
        (only,) = receiver.of("/hook")
        assert only.json["text"].startswith("2 of 2 hosts are not protected.\nbackup: 2 (")


def test_cron_runs_what_systemd_runs() -> None:
    (line,) = re.findall(r"^17 \* \* \* \* ansible (.*) 2>&1 [|] logger -t pgops-fleet$", GUIDE, re.MULTILINE)
    assert "/usr/bin/env %s" % line == COMMAND
