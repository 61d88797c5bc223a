# SPDX-License-Identifier: GPL-3.0-or-later
"""The night in which the clock of this server is moved, as the program that lies on it reckons with the zone that the server has."""

from __future__ import annotations

import json
import re
from typing import Any

_ASKED = """
import json, sys
from datetime import datetime
sys.path.insert(0, "/usr/local/lib/pgops/current")
from pgops.core.calendar import next_after, parse
from pgops.core.catch_up import missed
from pgops.system.zones import named_zone
jobs, ended, now = json.loads(sys.argv[1]), datetime.fromisoformat(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
jobs, zone = {verb: parse(text) for verb, text in jobs.items()}, named_zone("")
lost = {one.verb: one.due.isoformat() for one in missed(jobs, dict.fromkeys(jobs, ended), ended, now, zone)}
print(json.dumps([lost, {verb: next_after(job, now, zone).isoformat() for verb, job in jobs.items()}]))
"""
JOBS = {"backup": "0 2 * * *", "sync": "30 2 * * *", "verify": "0 3 * * *"}


def reckoned(host: Any, ended: str, now: str) -> Any:
    """Return what is to be caught up at a moment when all jobs ended last at another one, and when each is due next."""
    return json.loads(host.check_output("python3 -IB -c %s %s %s %s", _ASKED, json.dumps(JOBS), ended, now))


def test_the_catch_up_of_the_table_is_in_the_zone_of_the_server(host: Any) -> None:
    table = host.file("/etc/cron.d/pgops").content_string
    assert re.search("^CRON_TZ=Europe/Berlin$", table, re.MULTILINE)
    (line,) = re.findall("^@reboot .*$", table, re.MULTILINE)
    # None is named there: the server may move, and its cron with it.
    assert "--timezone" not in line


def test_what_a_night_with_a_moved_clock_lost_is_caught_up_once(host: Any) -> None:
    # From 02:00 the clock shows 03:00.
    lost, coming = reckoned(host, "2027-03-27T22:00:00+00:00", "2027-03-28T07:00:00+00:00")
    assert lost == {
        "backup": "2027-03-28T01:00:00+00:00",
        "sync": "2027-03-28T01:30:00+00:00",
        "verify": "2027-03-28T01:00:00+00:00",
    }
    # In summer, two o'clock is an hour earlier.
    assert coming["backup"] == "2027-03-29T00:00:00+00:00"
    # At 03:00 it is 02:00 once more, and what ran at the first one has run.
    lost, coming = reckoned(host, "2026-10-25T00:40:00+00:00", "2026-10-25T01:45:00+00:00")
    assert lost == {}
    assert (coming["backup"], coming["verify"]) == ("2026-10-26T01:00:00+00:00", "2026-10-25T02:00:00+00:00")
