# SPDX-License-Identifier: GPL-3.0-or-later
"""What is still told of a run whose end nobody heard: never an old success as a new one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channel import Beat
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.pings import Since, late

ENDED = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DUE = ENDED + DAY
# What each watcher can: whether it puts a late end to its own run, and whether it has a log.
HEALTHCHECKS, PLAIN, SENTRY = ({"keeps_runs": k, "has_log": log} for k, log in ((0, 1), (0, 0), (1, 0)))


def told(phase: str, watcher: dict[str, Any], passed: timedelta, **since: Any) -> str:
    beat = Beat(phase, "backup", "db1", "host1", "It is so.", 3.0, "b" * 32, ended=ENDED.isoformat())
    assert Beat.from_data(asdict(beat)) == beat
    channel: Any = SimpleNamespace(**watcher)
    found = late(beat, ENDED, ENDED + passed, Since(**since), channel)
    if found is None:
        return ""
    assert found.text == "It is so. (It ended at 2026-11-22T02:00:00+00:00, and is told late.)"
    assert (found.run, found.ended) == (beat.run, beat.ended)
    return found.phase


@pytest.mark.parametrize(
    ("phase", "watcher", "passed", "since", "expected"),
    [
        ("ok", HEALTHCHECKS, HOUR / 2, {}, "ok"),
        ("ok", HEALTHCHECKS, HOUR, {}, "log"),
        ("ok", HEALTHCHECKS, HOUR / 2, {"due": ENDED + HOUR / 4}, "log"),
        ("ok", PLAIN, HOUR / 2, {"due": DUE}, "ok"),
        ("ok", PLAIN, 2 * HOUR, {"due": DUE}, ""),
        ("ok", SENTRY, 23 * HOUR, {"due": DUE}, "ok"),
        ("ok", SENTRY, DAY, {"due": DUE}, ""),
        ("ok", SENTRY, 2 * HOUR, {}, ""),
        ("ok", HEALTHCHECKS, HOUR / 2, {"running": True}, ""),
        ("ok", HEALTHCHECKS, HOUR / 2, {"newer": True}, ""),
        ("fail", PLAIN, 30 * DAY, {"due": DUE}, "fail"),
        ("fail", SENTRY, HOUR, {"running": True}, "fail"),
        ("fail", SENTRY, HOUR, {"newer": True}, ""),
    ],
)
def test_what_is_told_late(
    phase: str, watcher: dict[str, Any], passed: Any, since: dict[str, Any], expected: str
) -> None:
    assert told(phase, watcher, passed, **since) == expected
