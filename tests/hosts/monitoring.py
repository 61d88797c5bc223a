# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role monitoring leaves: numbers that a real node_exporter serves, and checks that another account may ask for."""

from __future__ import annotations

import re
from typing import Any

from tests.hosts import instances_of

__all__ = (
    "test_a_check_with_another_argument_is_refused",
    "test_node_exporter_serves_the_numbers_of_every_instance",
    "test_the_checks_answer_to_the_account_of_nrpe",
    "test_the_rules_are_there",
    "test_the_sandbox_of_the_jobs_lets_them_write_the_numbers",
)

DIRECTORY = "/var/lib/prometheus/node-exporter"


def served(host: Any) -> str:
    """Return what Prometheus would scrape. The hosts have no curl."""
    url = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/metrics', timeout=20).read().decode())"
    return str(host.check_output("python3 -c %s", url))


def test_node_exporter_serves_the_numbers_of_every_instance(host: Any) -> None:
    assert host.service("prometheus-node-exporter").is_running
    said = served(host)
    assert re.search(r"^node_textfile_scrape_error 0$", said, re.MULTILINE)
    for instance in instances_of(host):
        label = 'pgops_instance="%s"' % instance
        newest = re.search(r"^pgops_backup_newest_timestamp_seconds\{%s\} (\S+)$" % label, said, re.MULTILINE)
        assert newest
        now = int(host.check_output("date +%s"))
        assert 0 <= now - float(newest[1]) < 3600
        assert '\npgops_place_reachable{%s,place="s3"} 1\n' % label in said
        assert '\npgops_run_last_success{%s,verb="verify"} 1\n' % label in said
        assert "\npgops_schedule_started{%s} 1\n" % label in said


def test_the_checks_answer_to_the_account_of_nrpe(host: Any) -> None:
    offered = host.file("/srv/pgops.cfg").content_string
    commands = dict(re.findall(r"^command\[(\S+)\]=(.*)$", offered, re.MULTILINE))
    instances = instances_of(host)
    checks = ("all", "backup", "sync", "verify", "space", "size", "restore")
    assert len(commands) == len(checks) * len(instances)
    for instance in instances:
        for check in checks:
            done = host.run("sudo -u games sh -c %s", commands["pgops_%s_%s" % (instance, check)])
            assert (done.rc, done.stdout.count("\n")) == (0, 1), done.stdout + done.stderr
            assert re.match(r"PGOPS[ A-Z]* OK - ", done.stdout)
    space = commands["pgops_%s_space" % next(iter(instances))]
    assert space.endswith("check space -c 1MiB:")


def test_a_check_with_another_argument_is_refused(host: Any) -> None:
    config = next(iter(instances_of(host).values()))
    asked = "sudo -u games sudo -n -u postgres /usr/local/bin/pgops --config %s check %s"
    assert host.run(asked, config, "backup").rc == 0
    for wrong in ("backup --set local.path=/", "space", "space -c 2MiB:", "backup --config /tmp/other.yml"):
        done = host.run(asked.replace("%s check %s", "%s check " + wrong), config)
        assert (done.rc, done.stdout) == (1, ""), wrong
    assert host.run("sudo -u games /usr/local/bin/pgops --config %s check", config).rc == 3
    assert host.run("visudo -cf /etc/sudoers.d/pgops-monitoring").rc == 0


def test_the_sandbox_of_the_jobs_lets_them_write_the_numbers(host: Any) -> None:
    directory = host.file(DIRECTORY)
    assert (directory.user, directory.group, directory.mode) == ("root", "postgres", 0o1775)
    for instance in instances_of(host):
        file = host.file("%s/pgops-%s.prom" % (DIRECTORY, instance))
        assert (file.user, file.mode) == ("postgres", 0o644)
        unit = host.check_output("systemctl show --property=ReadWritePaths %s", "pgops-backup@%s.service" % instance)
        assert DIRECTORY in unit


def test_the_rules_are_there(host: Any) -> None:
    assert "PgopsBackupTooOld" in host.file("/etc/pgops.rules.yml").content_string
