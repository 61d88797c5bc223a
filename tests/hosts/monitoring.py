# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role monitoring leaves: numbers and rules for a real node_exporter and Prometheus, checks for a real NRPE and by SSH."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.hosts import instances_of
from tests.tools.collection_tree import ROOT
from tests.tools.lab.machines import until

__all__ = (
    "test_a_check_with_another_argument_is_refused",
    "test_no_rule_fires_where_all_is_well",
    "test_node_exporter_serves_the_numbers_of_every_instance",
    "test_nrpe_answers_as_nagios_wants_it",
    "test_nrpe_offers_each_check_and_nothing_else",
    "test_prometheus_finds_no_fault_with_the_rules",
    "test_prometheus_has_the_numbers_of_every_instance",
    "test_somebody_who_asks_by_ssh_is_answered_and_may_ask_nothing_else",
    "test_the_sandbox_of_the_jobs_lets_them_write_the_numbers",
)

PLUGINS = "/usr/lib/nagios/plugins"
PATIENCE = 90
# As the guidelines have it: one line; service, word, text; then label=value[unit];[warning];[critical];[least] for each number.
OK_LINE = re.compile(r"PGOPS[A-Z ]* OK - [^|\n]+( \|( [a-z_]+=-?[0-9.]+(s|B|%)?;[^; ]*;[^; ]*;0)+)?\n")
CHECKS = ("all", "backup", "sync", "verify", "space", "size", "restore")

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


# --- NRPE and SSH -----------------------------------------------------------------------------------------------------


def nrpe(host: Any, command: str) -> tuple[int, str]:
    """Ask as Nagios does; return the code and what was said."""
    said = host.run(f"{PLUGINS}/check_nrpe -H 127.0.0.1 -t 60 -c %s", command)
    return said.rc, said.stdout


def test_nrpe_offers_each_check_and_nothing_else(host: Any) -> None:
    offered = host.file("/etc/nagios/nrpe.d/pgops.cfg").content_string
    commands = dict(re.findall(r"^command\[(\S+)\]=(.*)$", offered, re.MULTILINE))
    # No instance here archives its WAL.
    assert set(commands) == {f"pgops_{instance}_{check}" for instance in instances_of(host) for check in CHECKS}
    assert commands[f"pgops_{next(iter(instances_of(host)))}_space"].endswith("check space -c 1MiB:")
    code, said = nrpe(host, "pgops_other")
    assert (code, "not defined" in said) == (3, True)


def test_nrpe_answers_as_nagios_wants_it(host: Any) -> None:
    assert host.service("nagios-nrpe-server").is_running
    first, *others = instances_of(host)
    for command in [f"pgops_{first}_{check}" for check in CHECKS] + [f"pgops_{other}_all" for other in others]:
        code, said = nrpe(host, command)
        assert (code, bool(OK_LINE.fullmatch(said))) == (0, True), said


def test_somebody_who_asks_by_ssh_is_answered_and_may_ask_nothing_else(host: Any) -> None:
    config = next(iter(instances_of(host).values()))
    # As Icinga's check_by_ssh asks, which ends with the code of what it called.
    by_ssh = f"sudo -u icinga {PLUGINS}/check_by_ssh -H 127.0.0.1 -l icinga -t 60 -o StrictHostKeyChecking=no -q -C %s"
    asked = f"sudo -n -u postgres /usr/local/bin/pgops --config {config} check"
    done = host.run(by_ssh, f"{asked} backup")
    assert (done.rc, bool(OK_LINE.fullmatch(done.stdout))) == (0, True), done.stdout + done.stderr
    assert "backup_age=" in done.stdout
    for wrong in (f"{asked} backup -w 1", "sudo -n -u postgres id", "sudo -n cat /etc/shadow"):
        done = host.run(by_ssh, wrong)
        assert (done.rc == 0, re.search("OK -|uid=|root:", done.stdout)) == (False, None), wrong


def test_a_check_with_another_argument_is_refused(host: Any) -> None:
    config = next(iter(instances_of(host).values()))
    asked = "sudo -u nagios sudo -n -u postgres /usr/local/bin/pgops --config %s check %s"
    assert host.run(asked, config, "backup").rc == 0
    for wrong in ("backup --set local.path=/", "space", "space -c 2MiB:", "backup --config /tmp/other.yml"):
        done = host.run(asked.replace("%s check %s", "%s check " + wrong), config)
        assert (done.rc, done.stdout) == (1, ""), wrong
    assert host.run("sudo -u nagios /usr/local/bin/pgops --config %s check", config).rc == 3
    assert host.run("visudo -cf /etc/sudoers.d/pgops-monitoring").rc == 0


# --- Prometheus -------------------------------------------------------------------------------------------------------


def asked(host: Any, path: str) -> Any:
    """Return what Prometheus answers. The hosts have no curl."""
    fetch = "import sys, urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/' + sys.argv[1], timeout=30).read().decode())"
    said = json.loads(host.check_output("python3 -c %s %s", fetch, path))
    assert said["status"] == "success"
    return said["data"]


def firing(host: Any) -> set[tuple[str, str]]:
    """Return the alerts of the collection that fire, each with its instance."""
    found = [one for one in asked(host, "alerts")["alerts"] if one["state"] == "firing"]
    return {(one["labels"]["alertname"], one["labels"].get("pgops_instance", "")) for one in found}


def test_prometheus_finds_no_fault_with_the_rules(host: Any) -> None:
    shipped = yaml.safe_load((ROOT / "roles" / "monitoring" / "files" / "pgops.rules.yml").read_text())

    def rules() -> dict[str, str]:
        groups = asked(host, "rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups if group["name"] == "pgops" for rule in group["rules"]}

    # Until it has asked once, it says that it does not know.
    until(lambda: bool(rules()) and "unknown" not in rules().values(), PATIENCE)
    assert rules() == {rule["alert"]: "ok" for rule in shipped["groups"][0]["rules"]}


METRICS = ("pgops_backup_newest_timestamp_seconds{", 'pgops_run_last_success{verb="backup",', "pgops_disk_free_bytes{")


def scraped(host: Any, metric: str) -> dict[tuple[str, str, str], float]:
    """Return what Prometheus holds of a metric by job, address and instance."""
    found = asked(host, "query?query=" + metric.rstrip(",").rstrip("{").replace('"', "%22") + "}" * ("," in metric))
    labels = ("job", "instance", "pgops_instance")
    return {tuple(one["metric"][label] for label in labels): float(one["value"][1]) for one in found["result"]}


def written(host: Any, metric: str) -> dict[tuple[str, str, str], float]:
    """Return what the files of the instances say of it, as Prometheus should hold it."""
    name, _brace, label = metric.partition("{")
    found = {}
    for instance in instances_of(host):
        text = host.file(f"{DIRECTORY}/pgops-{instance}.prom").content_string
        line = rf'^{name}\{{pgops_instance="{instance}"{"," * bool(label)}{label.rstrip(",")}\}} (\S+)$'
        value = re.search(line, text, re.MULTILINE)
        assert value
        found["node", "%s:9100" % host.check_output("hostname"), instance] = float(value[1])
    return found


def test_prometheus_has_the_numbers_of_every_instance(host: Any) -> None:
    for metric in METRICS:
        until(lambda metric=metric: scraped(host, metric) == written(host, metric), PATIENCE)  # type: ignore[misc]
        assert scraped(host, metric) == written(host, metric)


def test_no_rule_fires_where_all_is_well(host: Any) -> None:
    assert until(lambda: firing(host) == set(), PATIENCE) is not None, firing(host)


def test_the_sandbox_of_the_jobs_lets_them_write_the_numbers(host: Any) -> None:
    directory = host.file(DIRECTORY)
    assert (directory.user, directory.group, directory.mode) == ("root", "postgres", 0o1775)
    for instance in instances_of(host):
        file = host.file("%s/pgops-%s.prom" % (DIRECTORY, instance))
        assert (file.user, file.mode) == ("postgres", 0o644)
        unit = host.check_output("systemctl show --property=ReadWritePaths %s", "pgops-backup@%s.service" % instance)
        assert DIRECTORY in unit
