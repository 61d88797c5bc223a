# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs do on a node whose turn it is not, and where nobody can tell; what the members say is injected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.group import Member
from ansible_collections.pgops.backup.plugins.module_utils._engine.run_records import history
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, prune, sync, turn, verify

WHY = "host2 backs up this group: it is the primary."


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    """What the group says: host2 is the primary."""
    told = [Member("host1", standby=True, received=5, replayed=5, age=60.0), Member("host2", written=5)]
    monkeypatch.setattr(turn, "ask", lambda config: tuple(told))
    return told


@pytest.fixture
def node(make_world: Any, members: list[Member]) -> Any:
    return make_world(group={"members": ["host1", "host2"]})


def last(world: Any) -> dict[str, Any]:
    return next(history(world.context().state))


def test_a_backup_on_another_node_is_a_run_that_went_well(node: Any) -> None:
    context = node.context()
    result = perform(context, "backup", lambda c: backup.backup(c, backup.Request()))
    assert (result["changed"], result["skipped"]) == (False, WHY)
    assert result["group"] == {
        "node": "host1",
        "chosen": "host2",
        "why": "it is the primary",
        "members": [
            {"name": "host1", "state": "standby", "behind_seconds": 0.0},
            {"name": "host2", "state": "primary", "behind_seconds": None},
        ],
    }
    record = last(node)
    assert (record["outcome"], record["exit_code"], record["skipped"]) == ("ok", 0, WHY)
    assert backup.backup(node.context(), backup.Request(dry_run=True))["skipped"] == WHY


def test_a_group_in_which_nobody_can_tell_fails(node: Any, members: list[Member]) -> None:
    members[1] = Member("host2", trouble="Connection refused.")
    context = node.context()
    with pytest.raises(UnreachableError, match="No member of this group can back up"):
        perform(context, "backup", lambda c: backup.backup(c, backup.Request()))
    assert (last(node)["outcome"], last(node)["exit_code"]) == ("unreachable", 4)
    assert context.warnings == ["The member host2 of this group could not be asked: Connection refused."]


def test_a_sync_leaves_it_to_the_other_but_tells_what_is_only_here(node: Any) -> None:
    old = node.add("local", node.now - timedelta(days=2))
    node.add("s3", node.now - timedelta(days=2))
    context = node.context()
    assert sync.sync(context, sync.Request())["skipped"] == WHY
    assert context.warnings == []
    newer = node.add("local", node.now - timedelta(days=1))
    context = node.context()
    assert sync.sync(context, sync.Request(sets=("all",)))["skipped"] == WHY
    assert context.warnings == [
        "This node has newer sets than s3://bucket/db1. Bring them there with: pgops sync %s" % newer
    ]
    assert node.ids("s3") == [old]


def test_a_place_that_is_down_does_not_fail_a_sync_that_is_left_to_the_other(node: Any) -> None:
    node.memory.down = True
    context = node.context()
    assert sync.sync(context, sync.Request())["skipped"] == WHY
    assert "is unknown: The store does not answer." in context.warnings[0]


def test_what_a_person_names_is_not_left_to_another(node: Any) -> None:
    local, away = node.add("local", node.now), node.add("s3", node.now)
    for request in (
        verify.Request(place="s3", sets=(away,), level="checksum"),
        verify.Request(place="local", level="checksum"),
    ):
        result = verify.verify(node.context(), request)
        assert "skipped" not in result
        assert [report["outcome"] for report in result["sets"]] == ["passed"]
    assert "skipped" not in sync.sync(node.context(), sync.Request(sets=(local,), dry_run=True))


def test_a_verification_of_the_shared_place_is_left_to_the_other(node: Any) -> None:
    node.add("s3", node.now)
    assert verify.verify(node.context(), verify.Request(place="s3", level="checksum"))["skipped"] == WHY


def test_pruning_leaves_the_shared_place_and_does_the_own(node: Any) -> None:
    for days in (1, 40, 50):
        node.add("local", node.now - timedelta(days=days))
        node.add("s3", node.now - timedelta(days=days))
    result = prune.prune(node.context(), prune.Request())
    local, away = result["places"]
    assert (len(local["removed"]), local["skipped"]) == (2, "")
    assert (away["removed"], away["skipped"]) == ([], WHY)
    assert "skipped" not in result
    assert (len(node.ids("local")), len(node.ids("s3"))) == (1, 3)
    assert prune.prune(node.context(), prune.Request(places=("s3",)))["skipped"] == WHY


def test_pruning_where_nobody_can_tell_fails_but_does_the_own_place(node: Any, members: list[Member]) -> None:
    members[1] = Member("host2", trouble="Connection refused.")
    for days in (1, 40):
        node.add("local", node.now - timedelta(days=days))
    with pytest.raises(PgopsError, match="local: 1 sets removed") as caught:
        prune.prune(node.context(), prune.Request())
    assert caught.value.exit_code == 4
    assert len(node.ids("local")) == 1


def test_the_chosen_node_works_and_says_why_it_and_not_another(make_world: Any, members: list[Member]) -> None:
    members[0] = Member("host1", standby=True, received=9, replayed=3, age=900.0)
    world = make_world(group={"members": ["host1", "host2"], "node": "host2", "run_on": "prefer_standby"})
    world.add("s3", world.now)
    context = world.context()
    result = verify.verify(context, verify.Request(place="s3", level="checksum"))
    assert result["group"]["chosen"] == "host2"
    assert context.warnings == [
        "host2 backs up this group instead of host1: it is up to 15 min 0 s behind; group.max_lag is 5 min 0 s."
    ]
