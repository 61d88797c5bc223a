# SPDX-License-Identifier: GPL-3.0-or-later
"""Quiet hours are those of the clock on the wall, also when that is set."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.quiet import RANK, parse_quiet


@pytest.mark.parametrize(
    ("hours", "moment", "quiet"),
    [
        # In Berlin, 02:00 to 03:00 comes twice on 25 October 2026, and not at all on 29 March.
        ("02:15-02:45", "2026-10-25T00:30", True),
        ("02:15-02:45", "2026-10-25T00:50", False),
        ("02:15-02:45", "2026-10-25T01:30", True),
        ("02:15-02:45", "2026-10-25T01:50", False),
        ("02:15-02:45", "2026-03-29T00:59", False),
        ("02:15-02:45", "2026-03-29T01:00", False),
        ("22:00-07:00", "2026-03-29T04:59", True),
        ("22:00-07:00", "2026-03-29T05:00", False),
        ("22:00-07:00", "2026-10-25T05:59", True),
        ("22:00-07:00", "2026-10-25T06:00", False),
        ("22:00-07:00", "2026-10-24T20:00", True),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(hours: str, moment: str, quiet: bool) -> None:
    held = parse_quiet(hours, ZoneInfo("Europe/Berlin"), "critical")
    assert held.holds(datetime.fromisoformat(moment).replace(tzinfo=UTC), RANK["warning"]) == quiet
