# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: idempotent, with a reason, and honest about what changed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    MissingError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.pins import pin, read_pin, unpin

DAY = timedelta(days=1)


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_pin_says_why_since_when_and_who(world: Any, place: str) -> None:
    set_id = world.add(place, world.NOW - DAY)
    result = pin(world.context(), place, set_id, "  audit\n2026 ")
    said = result["pin"]
    assert (said["set"], said["reason"], said["since"]) == (set_id, "audit 2026", "2026-11-22T08:00:00+00:00")
    assert said["by"].endswith("@host1")
    assert (result["changed"], result["place"], result["set"]) == (True, place, set_id)
    assert json.loads(world.place(place).read("pins/" + set_id)) == said


def test_pinning_twice_changes_nothing(world: Any) -> None:
    set_id = world.add("local", world.NOW - DAY)
    first = pin(world.context(), "local", set_id, "audit")
    world.now += DAY
    again = pin(world.context(), "local", set_id, "audit")
    assert again == {**first, "changed": False}


def test_another_reason_replaces_the_old_one_and_keeps_the_moment(world: Any) -> None:
    set_id = world.add("local", world.NOW - DAY)
    first = pin(world.context(), "local", set_id, "audit")
    world.now += DAY
    second = pin(world.context(), "local", set_id, "lawsuit")
    assert second["changed"] is True
    assert (second["pin"]["reason"], second["pin"]["since"]) == ("lawsuit", first["pin"]["since"])


def test_latest_can_be_pinned_and_means_the_set_of_now(world: Any) -> None:
    world.add("local", world.NOW - 2 * DAY)
    newest = world.add("local", world.NOW - DAY)
    assert pin(world.context(), "local", "latest", "before the migration")["set"] == newest


def test_what_is_not_there_cannot_be_pinned(world: Any) -> None:
    with pytest.raises(MissingError):
        pin(world.context(), "local", "20261122T020000Z-logical", "audit")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_pin_without_a_reason_is_refused(world: Any, reason: str) -> None:
    set_id = world.add("local", world.NOW)
    with pytest.raises(UsageError, match="needs a reason"):
        pin(world.context(), "local", set_id, reason)
    assert read_pin(world.place("local"), set_id) is None


def test_unpinning_tells_what_the_pin_said_and_is_idempotent(world: Any) -> None:
    set_id = world.add("s3", world.NOW)
    said = pin(world.context(), "s3", set_id, "audit")["pin"]
    first = unpin(world.context(), "s3", set_id)
    assert (first["changed"], first["pin"]) == (True, said)
    assert unpin(world.context(), "s3", set_id)["changed"] is False
    assert read_pin(world.memory, set_id) is None


def test_the_pin_of_a_set_that_is_gone_can_be_taken_off(world: Any) -> None:
    set_id = world.add("local", world.NOW)
    pin(world.context(), "local", set_id, "audit")
    world.place("local").delete_set(set_id)
    assert unpin(world.context(), "local", set_id)["changed"] is True


@pytest.mark.parametrize("name", ["latest", "../../etc/passwd", ""])
def test_only_an_id_can_be_unpinned(world: Any, name: str) -> None:
    with pytest.raises(UsageError, match="names no set"):
        unpin(world.context(), "local", name)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff"])
def test_a_pin_that_cannot_be_understood_still_is_one_and_can_be_renewed(world: Any, raw: bytes) -> None:
    set_id = world.add("local", world.NOW)
    world.place("local").write("pins/" + set_id, raw)
    assert read_pin(world.place("local"), set_id) == {}
    assert pin(world.context(), "local", set_id, "audit")["changed"] is True


def test_no_pin_is_set_while_sets_are_being_removed(world: Any) -> None:
    set_id = world.add("local", world.NOW)
    with world.context().lock("sets"), pytest.raises(BusyError):
        pin(world.context(), "local", set_id, "audit")
    with world.context().lock("sets", shared=True):
        assert pin(world.context(), "local", set_id, "audit")["changed"] is True
