# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of site by their tags, as the documentation says: what is lost of them comes back, and nothing else is done."""

from __future__ import annotations

from typing import Any

LOST = ("/etc/prometheus/rules/pgops.yml", "/etc/systemd/system/pgops-prune@db13-main.timer")
OTHER = "/usr/share/bash-completion/completions/pgops"


def test_the_tags_of_two_roles_bring_back_what_is_theirs(playbook: Any, host: Any) -> None:
    host.check_output("rm %s %s && mv %s /root/other", *LOST, OTHER)
    try:
        said = playbook("site", "--tags", "monitoring_rules,schedule_configure")
        assert said.returncode == 0
        assert [path for path in LOST if not host.file(path).exists] == []
        assert not host.file(OTHER).exists
    finally:
        host.check_output("mv /root/other %s", OTHER)
