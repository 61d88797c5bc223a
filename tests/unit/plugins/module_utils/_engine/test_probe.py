# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects below probe/ a probe takes for its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._engine.places.base import Entry
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.probe import _Probe

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def _probe(stored: dict[str, Entry]) -> _Probe:
    context: Any = SimpleNamespace(clock=lambda: NOW)
    place: Any = SimpleNamespace(entries=lambda _prefix: stored, key=lambda path: "prefix/" + path)
    return _Probe(context, place)


def test_nodes_that_probe_one_place_leave_each_others_objects_alone() -> None:
    stored: dict[str, Entry] = {}
    one, other = _probe(stored), _probe(stored)
    for path in (one.path("object"), other.path("object")):
        stored[path] = Entry(path, 1, NOW, "tag")
    assert one.own() == [one.path("object")]
    assert one.key("object") != other.key("object")


def test_what_a_probe_left_long_ago_is_removed_by_the_next() -> None:
    left = Entry("probe/batch-1", 1, NOW - timedelta(hours=2), "tag")
    assert _probe({left.path: left}).own() == [left.path]
