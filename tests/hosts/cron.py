# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs by cron."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Any

from tests.hosts import instances_of
from tests.hosts.protected import status_of

__all__ = (
    "test_cron_has_accepted_the_file",
    "test_each_job_is_there_once_at_its_time",
    "test_the_file_is_one_that_cron_reads",
    "test_the_times_are_on_the_clock_of_the_host",
    "test_there_is_no_timer_as_well",
)

TIMES = {
    "backup": "0 2 * * *",
    "sync": "30 2 * * *",
    "verify": "0 3 * * *",
    "prune": "0 1 * * 0",
    "alert": "*/15 * * * *",
    "catch-up": "@reboot",
}


def test_the_file_is_one_that_cron_reads(host: Any) -> None:
    file = host.file("/etc/cron.d/pgops")
    assert (file.mode, file.user, file.group) == (0o644, "root", "root")
    assert file.content_string.endswith("\n")


def test_each_job_is_there_once_at_its_time(host: Any) -> None:
    lines = host.file("/etc/cron.d/pgops").content_string.splitlines()
    jobs = [line for line in lines if "/usr/local/bin/pgops" in line and not line.startswith("#")]
    # Where WAL is archived, base backups have a job of their own.
    bases = [line for line in jobs if "--kind base " in line]
    assert len(bases) <= 1
    jobs = [line for line in jobs if line not in bases]
    # Somebody looks for trouble where there is somebody to tell.
    told = host.run("grep -rq webhook_url /etc/pgops").rc == 0
    times = {verb: time for verb, time in TIMES.items() if told or verb != "alert"}
    for verb, time in times.items():
        assert [line.startswith(f"{time} postgres ") for line in jobs if f"pgops {verb} " in line] == [True], verb
    assert len(jobs) == len(times)
    settings = {
        line.split("=", 1)[0] for line in lines if "=" in line and line not in jobs and not line.startswith("#")
    }
    assert {"CRON_TZ", "MAILTO", "PATH"} <= settings


def test_the_times_are_on_the_clock_of_the_host(host: Any) -> None:
    name = host.check_output("readlink -f /etc/localtime").removeprefix("/usr/share/zoneinfo/")
    table = host.file("/etc/cron.d/pgops").content_string
    assert re.findall("^CRON_TZ=(.*)$", table, re.MULTILINE) == [name]
    # This is how the program itself tells when its jobs are due.
    zone = zoneinfo.ZoneInfo(name)
    now = dt.datetime.fromtimestamp(int(host.check_output("date +%s", "%s")), tz=zone)
    for config in instances_of(host).values():
        runs = status_of(host, config)["schedule"]["runs"]
        for verb in ("backup", "sync", "verify"):
            minute, hour = (int(word) for word in TIMES[verb].split()[:2])
            due, coming = (dt.datetime.fromisoformat(runs[verb][key]) for key in ("last_due", "next_run"))
            for moment in (due, coming):
                assert (moment.astimezone(zone).hour, moment.astimezone(zone).minute) == (hour, minute)
            assert dt.timedelta(hours=23) <= coming - due <= dt.timedelta(hours=25)
            # It may become due while we ask.
            assert due <= now + dt.timedelta(minutes=1)
            assert now < coming


def test_cron_has_accepted_the_file(host: Any) -> None:
    said = host.check_output("journalctl --no-pager --unit cron --boot")
    assert "Error" not in said
    assert "bad minute" not in said


def test_there_is_no_timer_as_well(host: Any) -> None:
    assert host.run("systemctl list-unit-files --all --no-legend %s", "pgops*").stdout == ""
