# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of site by their tags, as the documentation says: what is lost of them comes back, and nothing else is done.

The timers are lost by going over to cron, and so come back.
"""

from __future__ import annotations

from typing import Any

LOST = ("/etc/prometheus/rules/pgops.yml", "/etc/systemd/system/pgops-prune@db13-main.timer")
OTHER = "/usr/share/bash-completion/completions/pgops"


def test_cron_takes_over_from_the_timers(playbook: Any, host: Any) -> None:
    assert host.service("pgops-backup@db13-main.timer").is_running
    # Cron has no time zone of its own for each file.
    said = playbook("site", "--tags", "schedule_configure", pgops_scheduler="cron", pgops_schedule={})
    assert said.returncode == 0
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops-*").stdout == ""
    assert host.run("systemctl list-timers --all --no-legend %s", "pgops-*").stdout == ""
    assert host.check_output("find /etc/systemd -name %s", "*pgops*") == ""
    lines = host.file("/etc/cron.d/pgops").content_string.splitlines()
    for instance in ("db13-main", "db13-older"):
        for verb in ("backup", "sync", "verify", "prune", "alert"):
            found = [line for line in lines if f"pgops {verb} " in line and f"/{instance}.yml" in line]
            assert len(found) == 1, (instance, verb)


def test_the_tags_of_two_roles_bring_back_what_is_theirs(playbook: Any, host: Any) -> None:
    host.check_output("rm -f %s %s && mv %s /root/other", *LOST, OTHER)
    try:
        said = playbook("site", "--tags", "monitoring_rules,schedule_configure")
        assert said.returncode == 0
        assert [path for path in LOST if not host.file(path).exists] == []
        assert not host.file(OTHER).exists
        assert not host.file("/etc/cron.d/pgops").exists
        timers = host.check_output("systemctl list-timers --plain --no-legend %s", "pgops-*")
        assert timers.count("pgops-backup@") == 4, timers  # a timer and its service, of two instances
    finally:
        host.check_output("mv /root/other %s", OTHER)
