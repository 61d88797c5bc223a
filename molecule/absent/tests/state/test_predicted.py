# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from tests.hosts.bare import NOTHING


def test_check_mode_removes_nothing(host: Any, ansible_play: Any) -> None:
    before = [path for path in NOTHING if host.file(path).exists]
    assert {"/usr/local/bin/pgops", "/etc/sudoers.d/pgops-monitoring"} < set(before)
    said = ansible_play("absent.yml", "--check", "--diff")
    assert said.returncode == 0
    assert "changed=0" not in said.stdout
    assert [path for path in NOTHING if host.file(path).exists] == before
    asked = "SELECT count(*) FROM pg_roles WHERE rolname = 'pgops_backup'"
    assert host.check_output("sudo -u postgres psql -XAtc %s", asked) == "1"
