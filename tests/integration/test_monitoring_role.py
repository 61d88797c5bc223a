# SPDX-License-Identifier: GPL-3.0-or-later
"""The role monitoring, where its program fails: what Ansible shows of the task has no secret of the instances."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration.playing import played


@pytest.mark.skipif(os.geteuid() != 0, reason="the directory of the numbers belongs to root")
def test_a_program_that_fails_shows_no_secret(tmp_path: Path) -> None:
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "pgops_instances": [{"name": "db1-main", "secrets": {"postgres_password": "hush-hush"}}],
        "pgops_metrics": {"textfile_directory": str(tmp_path / "numbers")},
        "pgops_account": "root",
        "monitoring_program": "/bin/false",
    }
    play = [{"hosts": "all", "gather_facts": False, "roles": ["pgops.backup.monitoring"]}]
    (tmp_path / "play.json").write_text(json.dumps(play))
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"db1": variables}}}))
    words = ["-m", "ansible.cli.playbook", "-i", "hosts.json", "--tags", "monitoring_metrics", "play.json"]
    done = played([sys.executable, *words], tmp_path)
    said = done.stdout + done.stderr
    assert "Write the first numbers" in said, said
    assert "failed: [db1] (item=db1-main)" in said, said
    assert "hush" not in said
