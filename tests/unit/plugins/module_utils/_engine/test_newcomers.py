# SPDX-License-Identifier: GPL-3.0-or-later
"""A channel that is turned on while something is open: what it hears of, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.incidents import REPEATED, Incident, Policy
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.newcomers import introduce

NOW = datetime(2026, 11, 27, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


def an_incident(cause: str, **more: datetime) -> Incident:
    return Incident(cause, "critical", "It is so.", "Do this.", NOW - HOUR, NOW, **more)


def test_what_is_over_for_now_is_told_when_it_has_come_back_and_what_has_ended_never() -> None:
    told = {"opened": NOW - HOUR, "told": NOW - HOUR}
    held = {
        "open": an_incident("open", **told),
        "calm": an_incident("calm", over=NOW, **told),
        "ended": an_incident("ended", over=NOW, ended=NOW, **told),
        "untold": an_incident("untold"),
    }
    owed, now = introduce({"slack": []}, ["slack", "email"], held, [], Policy(), NOW)
    assert [(t.event, t.cause) for t in now.pop("email")] == [(REPEATED, "open")]
    assert now == {}
    assert owed == {"slack": [], "email": ["calm"]}
    assert introduce(owed, ["slack", "email"], held, [], Policy(), NOW) == (owed, {})
    held["calm"] = an_incident("calm", **told)
    owed, now = introduce(owed, ["slack", "email"], held, [], Policy(), NOW)
    assert [t.cause for t in now["email"]] == ["calm"]
    assert owed == {"slack": [], "email": []}
    held["calm"] = an_incident("calm", over=NOW, ended=NOW, **told)
    assert introduce({"email": ["calm"]}, ["email"], held, [], Policy(), NOW) == ({"email": []}, {})
