# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits behind each other for one channel."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channel import Channel
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.delivery import deliver
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.http import Answer
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.state import State, Waiting
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.notices import Notice, Origin, bundle, message
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import Redactor
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner

NOW = datetime(2026, 11, 27, 8, 0, tzinfo=UTC)


class Takes(Channel):
    """Takes all that it is handed."""

    name = "webhook"

    def __init__(self) -> None:
        super().__init__(
            config.build({"instance": "db1", "alerts": {"webhook": {"url": "https://h"}}}, environ={}, host="h"),
            Runner(),
        )
        self.taken: list[Notice] = []

    def send(self, notice: Notice) -> Answer:
        self.taken.append(notice)
        return Answer("200")


def told(what: str) -> Notice:
    made = message(
        level="critical",
        rank=2,
        text=what,
        key=what,
        event="opened",
        origin=Origin("db1", "h"),
        redactor=Redactor(),
        now=NOW,
    )
    return replace(made, cause=what)


@pytest.mark.parametrize("bundles", [True, False])
def test_a_bundle_that_may_have_been_taken_outlives_another_one_and_an_old_alarm_does_not(bundles: bool) -> None:
    """Two bundles have one key, and each is about something else; two alarms of one incident are about the same."""
    first, second = told("the disk"), told("the disk")
    if bundles:
        first, second = bundle([told("a"), told("b")]), bundle([told("c"), told("d")])
    assert first.key == second.key
    hour = timedelta(hours=1)
    unsure = Waiting("webhook", first, NOW - hour, tries=2, not_before=NOW + hour, error="no answer", unsure=2)
    state, channel = State(queue=[unsure, Waiting("webhook", second, NOW)]), Takes()
    outcomes = deliver(state, [channel], Redactor(), lambda: NOW)
    assert channel.taken == [second]
    assert state.queue == ([unsure] if bundles else [])
    assert [(one.notice, one.dropped) for one in outcomes if one.dropped] == ([] if bundles else [(first, True)])
    # In its turn it is tried again.
    deliver(state, [channel], Redactor(), lambda: NOW + 2 * hour)
    assert channel.taken == ([second, first] if bundles else [second])
    assert not state.queue
