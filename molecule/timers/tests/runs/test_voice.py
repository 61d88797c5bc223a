# SPDX-License-Identifier: GPL-3.0-or-later
"""Trouble on a host whose jobs systemd starts: people, Prometheus and Nagios hear of it, each in its way, and of its end."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.hosts.monitoring import firing, nrpe
from tests.hosts.voice import AS_WHOM, PATIENCE, Listener, config_of, newest_payload
from tests.tools.lab.machines import until

INSTANCE, OTHER = "db13-main", "db13-older"
CAUSE = "failed-run/backup"


@pytest.fixture(scope="module", name="told")
def heard_since_then(host: Any) -> Listener:
    """What is heard of the instance from the first of these tests on."""
    return Listener(host, INSTANCE)


def job(host: Any, verb: str, instance: str = INSTANCE) -> Any:
    """Have systemd start a job, and wait for its end."""
    return host.run("systemctl start %s", f"pgops-{verb}@{instance}.service")


def test_a_backup_that_fails_is_told_by_both_ways(host: Any, told: Listener) -> None:
    host.check_output("pg_ctlcluster 17 main stop")
    assert job(host, "backup").rc != 0
    # Whoever looks for errors in the journal finds it, too.
    errors = "journalctl --quiet --no-pager --boot --output=cat --priority=err --identifier=pgops-backup"
    assert until(lambda: host.run(errors).stdout.startswith("pgops: "), 90) is not None
    told.hear(CAUSE, "The last backup failed", "opened")
    (only,) = told.posted(CAUSE)
    assert (only["level"], only["host"]) == ("critical", "db13")
    # Of two instances, the one that failed: the command works as it is copied.
    assert only["step"].endswith(f"pgops --config {config_of(host, INSTANCE)} backup{AS_WHOM}")
    assert only["subject"] in told.mails("The last backup failed")
    assert told.by_apprise("The last backup failed") == [only["subject"]]


def test_prometheus_sees_it_and_fires_one_rule(host: Any) -> None:
    wanted = {("PgopsRunFailed", INSTANCE)}
    assert until(lambda: firing(host) == wanted, PATIENCE) is not None, firing(host)


def test_nagios_is_answered_that_it_is_so(host: Any) -> None:
    code, said = nrpe(host, f"pgops_{INSTANCE}_backup")
    assert code == 2
    assert re.match(r"PGOPS BACKUP CRITICAL - The last backup failed: .* \| backup_age=\d", said)
    assert nrpe(host, f"pgops_{INSTANCE}_verify")[0] == 0
    assert nrpe(host, f"pgops_{OTHER}_backup")[0] == 0


def test_the_job_that_looks_tells_nothing_twice(host: Any, told: Listener) -> None:
    assert job(host, "alert").rc == 0
    told.hear(CAUSE, "The last backup failed", "opened")


def test_its_end_is_told_once(host: Any, told: Listener) -> None:
    host.check_output("pg_ctlcluster 17 main start")
    assert job(host, "backup").rc == 0
    told.hear(CAUSE, "The last backup failed", "opened", "recovered")
    assert job(host, "alert").rc == 0
    told.hear(CAUSE, "The last backup failed", "opened", "recovered")
    assert [subject.partition(":")[0] for subject in told.mails("The last backup failed")] == ["CRITICAL", "RECOVERED"]
    assert told.pings("backup") == ["start", "fail", "start", ""]


def test_prometheus_and_nagios_see_that_it_is_over(host: Any) -> None:
    assert until(lambda: firing(host) == set(), PATIENCE) is not None, firing(host)
    assert nrpe(host, f"pgops_{INSTANCE}_backup")[0] == 0


def test_a_backup_that_is_killed_is_told_at_once(host: Any) -> None:
    told = Listener(host, OTHER)
    # A lock of somebody else holds it up.
    held = "CREATE TABLE IF NOT EXISTS lab (); BEGIN; LOCK TABLE lab; SELECT pg_sleep(600)"
    unit = f"pgops-backup@{OTHER}.service"
    told_to = "systemd-run --quiet --uid=postgres --unit=lab-hold psql --port=5433 --dbname=postgres"
    host.check_output(told_to + "".join(" --command=%s" for _part in held.split("; ")), *held.split("; "))
    locks = "SELECT count(*) FROM pg_locks WHERE relation = 'lab'::regclass AND granted"
    asked = "sudo -u postgres psql --port=5433 --dbname=postgres --tuples-only --no-align --command=%s"
    try:
        assert until(lambda: host.run(asked, locks).stdout.strip() == "1", PATIENCE) is not None
        host.check_output("systemctl start --no-block %s", unit)
        # It is at work, and waits for the table, once its name is on its lock.
        signed = f"/var/lib/pgops/{OTHER}/locks/backup.lock"
        assert until(lambda: host.run("test -s %s", signed).rc == 0, PATIENCE) is not None
        host.check_output("systemctl kill --kill-whom=all --signal=KILL %s", unit)
        # Nobody starts the job that looks but systemd, which sees that the other one failed.
        told.hear(CAUSE, "was cut short", "opened")
    finally:
        # Its client would leave it asleep, with the lock.
        host.check_output(asked, locks.replace("count(*)", "pg_terminate_backend(pid)"))
    assert job(host, "backup", OTHER).rc == 0
    told.hear(CAUSE, "was cut short", "opened", "recovered")


def test_what_no_run_would_tell_is_told_by_the_job(host: Any) -> None:
    told = Listener(host, OTHER)
    lost = newest_payload(host, OTHER)
    host.check_output("mv %s /root/lost", lost)
    try:
        assert job(host, "alert", OTHER).rc == 0
        told.hear("damaged-set/local", "cannot be relied on", "opened")
    finally:
        host.check_output("mv /root/lost %s", lost)
    assert job(host, "alert", OTHER).rc == 0
    told.hear("damaged-set/local", "cannot be relied on", "opened", "recovered")


def test_what_nobody_took_waits_and_is_told_later(host: Any) -> None:
    told = Listener(host, OTHER)
    host.check_output("touch /run/lab-deaf")
    try:
        host.run(
            "sudo -u postgres pgops --config %s alert send warning %s --key lab", f"/etc/pgops/{OTHER}.yml", "Deaf?"
        )
        assert until(lambda: len(told.mails("Deaf?")) == 1, PATIENCE) is not None, "the other way works"
        assert told.events("message/lab") == []
        said = host.check_output("sudo -u postgres pgops --config %s status", f"/etc/pgops/{OTHER}.yml")
        assert "2 of 4 channels for alerts took nothing of late" in said
    finally:
        host.check_output("rm /run/lab-deaf")
    assert job(host, "alert", OTHER).rc == 0
    told.hear("message/lab", "Deaf?", "message")
