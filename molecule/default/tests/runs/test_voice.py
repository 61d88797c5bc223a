# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts from jobs of cron reach a web server and, by the local sendmail, a mailbox: once, and so does their end."""

from __future__ import annotations

import re
from typing import Any

from tests.hosts.voice import AS_WHOM, Listener, newest_payload

INSTANCE = "db12-main"
# As cron starts a job.
_AS_CRON = "sudo -u postgres env -i HOME=/var/lib/postgresql SHELL=/bin/sh PATH=%s sh -c %s"


def by_cron(host: Any, verb: str) -> Any:
    """Run the job of a verb as its line in the table says."""
    table = host.file("/etc/cron.d/pgops").content_string
    path = re.search(r"^PATH=(.*)$", table, re.MULTILINE)
    line = re.search(r"^(?:\S+ ){5}postgres (.* /usr/local/bin/pgops %s .*)$" % verb, table, re.MULTILINE)
    assert path
    assert line
    return host.run(_AS_CRON, path[1], line[1])


def test_crons_own_job_tells_what_no_run_would(host: Any) -> None:
    told = Listener(host, INSTANCE)
    lost = newest_payload(host, INSTANCE)
    host.check_output("mv %s /root/lost", lost)
    try:
        # Within a minute cron starts the job.
        told.hear("damaged-set/local", "cannot be relied on", "opened")
    finally:
        host.check_output("mv /root/lost %s", lost)
    (only,) = told.posted("damaged-set/local")
    assert (only["level"], only["host"]) == ("warning", "db12")
    assert only["subject"] == told.mails("")[0]
    assert by_cron(host, "alert").rc == 0
    told.hear("damaged-set/local", "cannot be relied on", "opened", "recovered")


def test_a_backup_that_fails_is_told_once_and_so_is_its_end(host: Any) -> None:
    told = Listener(host, INSTANCE)
    host.check_output("pg_ctlcluster 15 main stop")
    try:
        done = by_cron(host, "backup")
        assert done.rc == 4
        # What cron would mail.
        assert done.stderr.startswith("pgops: ")
        told.hear("failed-run/backup", "The last backup failed", "opened")
        assert by_cron(host, "alert").rc == 0
    finally:
        host.check_output("pg_ctlcluster 15 main start")
    done = by_cron(host, "backup")
    assert (done.rc, done.stdout, done.stderr) == (0, "", "")
    told.hear("failed-run/backup", "The last backup failed", "opened", "recovered")
    assert by_cron(host, "alert").rc == 0
    told.hear("failed-run/backup", "The last backup failed", "opened", "recovered")
    first, last = told.posted("failed-run/backup")
    assert (first["level"], first["key"] == last["key"]) == ("critical", True)
    assert told.by_apprise("The last backup failed") == [first["subject"], last["subject"]]
    assert "is proven to restore" in " ".join(first["safe"])
    assert first["step"].endswith(f"pgops backup{AS_WHOM}")
    assert [subject.partition(":")[0] for subject in told.mails("The last backup failed")] == ["CRITICAL", "RECOVERED"]
    assert told.pings("backup") == ["start", "fail", "start", ""]
