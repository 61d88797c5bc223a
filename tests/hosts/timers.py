# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs by systemd's timers."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Any

import pytest

from tests.hosts import instances_of
from tests.tools.lab.machines import until
from tests.tools.units import unexplained

__all__ = (
    "test_a_night_in_which_the_clock_is_moved_has_each_job_once",
    "test_a_timer_elapses_when_it_should",
    "test_a_unit_is_one_that_systemd_has_nothing_to_say_about",
    "test_each_line_of_hardening_has_its_reason",
    "test_systemd_finds_a_service_safe",
    "test_there_is_no_crontab_as_well",
    "test_what_a_service_must_not_it_cannot",
)

ZONE = zoneinfo.ZoneInfo("Europe/Berlin")
TIMES = {"backup": (2, 0), "sync": (2, 30), "verify": (3, 0), "prune": (1, 0)}
JOBS = (*TIMES, "alert")
SUNDAY = 6
# systemd-analyze security, from 0 (locked away) to 10 (as root without anything).
MOST_EXPOSED = 3.0


def units_of(host: Any, kind: str) -> list[str]:
    """Return the names of our units."""
    return sorted(
        host.check_output(
            "find /etc/systemd/system -maxdepth 1 -name %s -printf %s", f"pgops-*.{kind}", r"%f\n"
        ).split()
    )


def elapses(host: Any, timer: str) -> dt.datetime | None:
    """Return when a timer will elapse; None while its job is at work."""
    said = host.check_output("TZ=UTC systemctl show --property=NextElapseUSecRealtime --value %s", timer)
    return dt.datetime.strptime(said, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=dt.UTC) if said else None


def _expected(verb: str, now: dt.datetime) -> dt.datetime:
    if verb == "alert":
        return dt.datetime.fromtimestamp((now.timestamp() // 900 + 1) * 900, tz=dt.UTC)
    hour, minute = TIMES[verb]
    day = now.astimezone(ZONE).replace(hour=hour, minute=minute, second=0, microsecond=0)
    while day <= now or (verb == "prune" and day.weekday() != SUNDAY):
        day = (day.replace(tzinfo=None) + dt.timedelta(days=1)).replace(tzinfo=ZONE)
    return day


def as_expected(host: Any, verb: str, instance: str) -> bool:
    """Tell whether a timer elapses when it should."""
    now = dt.datetime.fromtimestamp(int(host.check_output("date +%s", "%s")), tz=dt.UTC)
    return elapses(host, f"pgops-{verb}@{instance}.timer") == _expected(verb, now)


@pytest.mark.parametrize("verb", JOBS)
def test_a_timer_elapses_when_it_should(host: Any, verb: str) -> None:
    for instance in instances_of(host):
        timer = host.service(f"pgops-{verb}@{instance}.timer")
        assert timer.is_enabled
        assert timer.is_running
        # It may elapse while we ask.
        assert until(lambda i=instance: as_expected(host, verb, i), 60) is not None  # type: ignore[misc]


def test_a_unit_is_one_that_systemd_has_nothing_to_say_about(host: Any) -> None:
    units = [*units_of(host, "service"), *units_of(host, "timer")]
    assert len(units) == 2 * len(JOBS) * len(instances_of(host))
    said = host.run("systemd-analyze verify --man=no " + " ".join(["%s"] * len(units)), *units)
    assert (said.rc, said.stdout, said.stderr) == (0, "", "")


def test_systemd_finds_a_service_safe(host: Any) -> None:
    for unit in units_of(host, "service"):
        said = host.check_output("systemd-analyze security --no-pager %s", unit)
        exposed = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert exposed
        assert float(exposed[1]) <= MOST_EXPOSED, said


def test_each_line_of_hardening_has_its_reason(host: Any) -> None:
    for unit in units_of(host, "service"):
        assert unexplained(host.file(f"/etc/systemd/system/{unit}").content_string) == [], unit


def test_what_a_service_must_not_it_cannot(host: Any) -> None:
    unit = units_of(host, "service")[0]
    text = host.file(f"/etc/systemd/system/{unit}").content_string
    allowed = [path for line in re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE) for path in line.split()]
    settings = [
        line
        for line in text.splitlines()
        if re.match(r"(Protect|Private|ReadWrite|NoNew|Capability|Restrict|Lock|UMask|User)", line)
    ]
    properties = [word for line in settings for word in ("--property", line)]
    told = "systemd-run --quiet --wait --pipe " + " ".join(["%s"] * (len(properties) + 3))
    script = "for f in %s; do if touch $f/lab-try 2>/dev/null; then rm $f/lab-try; echo $f; fi; done"
    tried = ["/etc/pgops", "/var/lib/postgresql", "/usr/local/bin", *(path.removeprefix("-") for path in allowed)]
    said = host.check_output(told, *properties, "sh", "-c", script % " ".join(tried))
    assert said.split() == [path.removeprefix("-") for path in allowed]


def test_there_is_no_crontab_as_well(host: Any) -> None:
    assert not host.file("/etc/cron.d/pgops").exists


@pytest.mark.parametrize(("noon_before", "day"), [("2027-03-27", "2027-03-28"), ("2026-10-24", "2026-10-25")])
def test_a_night_in_which_the_clock_is_moved_has_each_job_once(host: Any, noon_before: str, day: str) -> None:
    for unit in units_of(host, "timer"):
        if "prune" in unit or "alert" in unit:
            continue
        text = host.file(f"/etc/systemd/system/{unit}").content_string
        found = set()
        for calendar in re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE):
            base = f"{noon_before} 12:00 {ZONE.key}"
            said = host.check_output(
                "TZ=%s systemd-analyze calendar --iterations=3 --base-time=%s %s", ZONE.key, base, calendar
            )
            found |= {
                when for when in re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) CES?T", said) if when.startswith(day)
            }
        assert len(found) == 1, unit
