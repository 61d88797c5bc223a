# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clusters nobody backs up."""

from __future__ import annotations

from ansible_collections.pgops.backup.plugins.filter.uncovered import uncovered

CLUSTERS = [{"version": "15", "name": "main", "port": 5432}, {"version": "17", "name": "main", "port": 5433}]


def test_clusters_without_an_instance_are_named() -> None:
    assert uncovered(CLUSTERS, [5432]) == ["cluster 17/main on port 5433"]
    assert uncovered(CLUSTERS, [5433, 5432]) == []


def test_where_a_port_cannot_be_told_nothing_is() -> None:
    assert uncovered(CLUSTERS, [5432, None]) == []
