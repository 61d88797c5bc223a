# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of incremental base backups: which sets belong to one, when it is long enough, and what breaks it."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import timedelta
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import chain
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.base_list import built_on
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.retention import SetFacts, plan
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import utc_now
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.chains import broken, chain_of, failed
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Retention
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request as Sync
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import sync

DAY = timedelta(days=1)

# --- pure -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_a_chain_begins_with_what_has_no_parent_and_has_each_once(choices: list[int]) -> None:
    parents: dict[str, Optional[str]] = {"0": None}
    for number, choice in enumerate(choices, 1):
        parents[str(number)] = str(choice % number)
    found = chain.chain(str(len(choices)), parents.__getitem__)
    assert (found[0], found[-1]) == ("0", str(len(choices)))
    assert [parents[child] for child in found[1:]] == found[:-1]
    assert len(set(found)) == len(found)


def test_a_chain_that_goes_round_is_damaged() -> None:
    parents = {"a": "b", "b": "c", "c": "b"}
    with pytest.raises(DamagedError, match="goes round: c builds on b"):
        chain.chain("a", parents.__getitem__)


@pytest.mark.parametrize(
    ("days", "every", "limit", "said"),
    [
        ([7, 6], 7 * DAY, 14, "base.full_every"),
        ([6.97, 6], 7 * DAY, 14, "base.full_every"),  # a nightly run begins a little earlier or later
        ([6.9, 6], 7 * DAY, 14, ""),
        ([400, 6], None, 14, ""),
        ([3, 2, 1], 7 * DAY, 2, "2 incremental ones"),
        ([3, 2, 1], 7 * DAY, 3, ""),
        ([0], timedelta(0), 3, "base.full_every"),
    ],
)
def test_when_a_full_one_is_due(days: list[float], every: Optional[timedelta], limit: int, said: str) -> None:
    now = utc_now()
    due = chain.full_due([now - day * DAY for day in days], now, every, limit)
    assert said in due
    assert bool(due) == bool(said)


@given(st.integers(0, 50), st.lists(st.tuples(st.integers(1, 2), st.integers(0, 60), st.integers(1, 20)), max_size=20))
def test_the_first_position_without_a_summary_is_found(start: int, spans: list[tuple[int, int, int]]) -> None:
    summaries = [(timeline, first, first + length) for timeline, first, length in spans]
    gap = chain.unsummarized(summaries, 1, start, 60)
    covered = {n for timeline, first, last in summaries if timeline == 1 for n in range(first, last)}
    assert gap == next((n for n in range(start, 60) if n not in covered), None)


@given(st.data())
def test_a_kept_child_has_its_whole_chain_kept(data: st.DataObject) -> None:
    now, facts = utc_now(), list[SetFacts]()
    for number in range(data.draw(st.integers(1, 15))):
        parent = data.draw(st.none() | st.sampled_from([f.id for f in facts])) if facts else None
        begun = now - (40 - number) * DAY
        facts.append(SetFacts("%02d" % number, begun, data.draw(st.booleans()), False, parent, physical=True))
    rules = Retention(keep_within="", keep_last=data.draw(st.integers(0, 3)), keep_weekly=data.draw(st.integers(0, 2)))
    decided = plan(facts, rules, now)
    parents = {f.id: f.parent for f in facts}
    for kept in decided.keep:
        assert set(chain.chain(kept, parents.__getitem__)) <= set(decided.keep)
    # What goes, goes before what it builds on.
    removed = list(decided.remove)
    assert all(parents[r] not in removed[: removed.index(r)] for r in removed)


def test_a_label_tells_what_it_was_built_on() -> None:
    label = b"START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nLABEL: pgops\n"
    assert built_on(label) == ""
    assert built_on(label + b"INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n") == "0/2000028"


# --- in a place -------------------------------------------------------------------------------------------------------


def build(world: Any, place: str = "local", count: int = 3, **values: Any) -> list[str]:
    """Put a full base backup and incremental ones upon it into `place`, the oldest first."""
    ids: list[str] = []
    for number in range(count):
        kind = "incremental" if ids else "base"
        moment = world.NOW - (count - number) * DAY
        ids.append(world.add(place, moment, kind=kind, parent=ids[-1] if ids else None, **values))
    return ids


def test_all_that_a_set_needs_is_found(world: Any) -> None:
    ids = build(world)
    catalog = Catalog(world.context().local)
    assert [m.id for m in chain_of(catalog, ids[2])] == ids
    assert [m.id for m in chain_of(catalog, ids[0])] == ids[:1]
    assert broken(catalog, catalog.manifest(ids[2])) is None
    with pytest.raises(MissingError):
        chain_of(catalog, "20200101T000000Z-base")


def test_what_is_missing_or_wrong_below_is_told(world: Any) -> None:
    ids = build(world)
    folder = world.context().local.home / "sets"
    (folder / ids[0] / "base" / "base.tar").write_bytes(b"longer than it was")
    catalog = Catalog(world.context().local)
    said = broken(catalog, catalog.manifest(ids[2]))
    assert said is not None
    assert "%s builds on %s, which is not whole: Files are of the wrong size" % (ids[2], ids[0]) in said
    shutil.rmtree(folder / ids[0])
    catalog = Catalog(world.context().local)
    with pytest.raises(DamagedError, match="builds on what cannot be read: There is no set %s" % ids[0]) as caught:
        chain_of(catalog, ids[1])
    assert "(pgops sync --pull %s)" % ids[1] in caught.value.hint


def test_the_next_step_is_one_that_can_help(world: Any) -> None:
    """A pull brings what is missing here, a push what is missing there, and neither replaces a set."""
    ids, there = build(world), build(world, "s3")
    (world.context().local.home / "sets" / ids[1] / "base" / "base.tar").unlink()
    world.memory.delete(["sets/%s/base/base.tar" % there[0]])
    with pytest.raises(DamagedError, match="which is not whole") as caught:
        chain_of(Catalog(world.context().local), ids[2])
    assert "(pgops sync --pull %s)" % ids[2] in caught.value.hint
    with pytest.raises(DamagedError, match="which is not whole") as caught:
        chain_of(Catalog(world.memory), there[2])
    assert "(pgops sync)" in caught.value.hint


def test_a_place_that_is_gone_says_nothing_about_a_chain(world: Any) -> None:
    ids = build(world, "s3")
    catalog = Catalog(world.memory)
    world.memory.down = True
    with pytest.raises(UnreachableError):
        chain_of(catalog, ids[2])


def test_a_parent_of_another_cluster_or_without_a_base_is_none(world: Any) -> None:
    (full,) = build(world, count=1)
    child = world.add("local", world.NOW, kind="incremental", parent=full, system_identifier="7")
    catalog = Catalog(world.context().local)
    with pytest.raises(DamagedError, match="which is of another cluster"):
        chain_of(catalog, child)
    odd = world.add("local", world.NOW - 9 * DAY, kind="base", base=None)
    child = world.add("local", world.NOW + DAY, kind="incremental", parent=odd)
    with pytest.raises(DamagedError, match="which is no base backup"):
        chain_of(Catalog(world.context().local), child)
    alone = world.add("local", world.NOW + 2 * DAY, kind="incremental", base=None)
    with pytest.raises(DamagedError, match="names nothing that it builds on"):
        chain_of(Catalog(world.context().local), alone)


def test_another_set_under_the_name_of_the_parent_is_not_the_parent(world: Any) -> None:
    (full,) = build(world, count=1)
    base = world.manifest(world.NOW, kind="base").base
    child = world.add(
        "local", world.NOW, kind="incremental", parent=full, base=dataclasses.replace(base, parent_content="0" * 64)
    )
    catalog = Catalog(world.context().local)
    said = broken(catalog, catalog.manifest(child))
    assert said is not None
    assert "and the set of that name is another one now" in said
    with pytest.raises(DamagedError, match="is another one now") as caught:
        chain_of(catalog, child)
    assert "pgops sync" not in caught.value.hint
    assert "take a full base backup" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "parent"),
    [("incremental", None), ("incremental", "../../x"), ("base", "20261121T020000Z-base")],
)
def test_a_manifest_that_does_not_say_what_it_builds_on_is_damaged(
    world: Any, kind: str, parent: Optional[str]
) -> None:
    found = world.add("local", world.NOW, kind=kind, parent=parent)
    with pytest.raises(DamagedError, match="what it builds on"):
        Catalog(world.context().local).manifest(found)


@pytest.mark.parametrize(
    ("level", "cleared"), [("checksum", False), ("structure", True), ("restore", True)], ids=["above", "same", "below"]
)
@pytest.mark.parametrize("by", [0, 2], ids=["itself", "what builds on it"])
def test_a_pass_clears_failures_that_are_no_deeper(world: Any, level: str, cleared: bool, by: int) -> None:
    ids = build(world)
    world.prove("local", ids[0], level="structure", outcome="failed", when=world.NOW)
    world.prove("local", ids[by], level=level, when=world.NOW + DAY)
    catalog = Catalog(world.context().local)
    assert failed(catalog, ids) == ("" if cleared else ids[0])
    assert failed(catalog, ids, place="local") == ("" if cleared else ids[0])
    assert failed(catalog, ids, place="s3") == ""


def test_a_set_is_not_verified_any_more_when_what_it_builds_on_failed(world: Any) -> None:
    ids = build(world)
    world.prove("local", ids[2], when=world.NOW - 3 * timedelta(hours=1))
    catalog = Catalog(world.context().local)
    assert catalog.verified(ids[2])
    assert failed(catalog, ids) == ""
    world.prove("local", ids[0], level="checksum", outcome="failed", when=world.NOW - 2 * timedelta(hours=1))
    catalog = Catalog(world.context().local)
    assert not catalog.verified(ids[2])
    assert failed(catalog, ids) == ids[0]
    world.prove("local", ids[2], when=world.NOW - timedelta(hours=1))  # it was repaired meanwhile
    catalog = Catalog(world.context().local)
    assert catalog.verified(ids[2])
    assert failed(catalog, ids) == ""
    assert failed(catalog, ids[:1]) == ids[0]


def steps(world: Any, *names: str) -> list[tuple[str, str, str]]:
    """What a dry push would do."""
    plan_ = sync(world.context(), Sync(sets=names, dry_run=True))["plan"]
    return [(step["set"], step["action"], step["reason"]) for step in plan_]


def test_a_dry_push_tells_that_a_parent_is_nowhere(world: Any) -> None:
    ids = build(world)
    shutil.rmtree(world.context().local.home / "sets" / ids[0])
    assert steps(world, ids[2]) == [
        (ids[1], "alarm", "%s, which it builds on, is not there" % ids[0]),
        (ids[2], "alarm", "%s, which it builds on, cannot be brought there" % ids[1]),
    ]


def test_nothing_is_brought_upon_another_set_of_its_parents_name(world: Any) -> None:
    full = world.add("local", world.NOW - 2 * DAY, kind="base")
    content = Catalog(world.context().local).content(full)
    base = dataclasses.replace(world.manifest(world.NOW, kind="base").base, parent_content=content)
    child = world.add("local", world.NOW - DAY, kind="incremental", parent=full, base=base)
    world.add("s3", world.NOW - 2 * DAY, kind="base", server_version="18.1")
    found = {set_id: (action, why) for set_id, action, why in steps(world, child)}
    assert found[full][0] == "alarm"
    assert found[child] == ("alarm", "%s, which it builds on, cannot be brought there" % full)
    # Nor where this host has no such set to compare it with.
    shutil.rmtree(world.context().local.home / "sets" / full)
    assert steps(world, child) == [(child, "alarm", "%s, which it builds on, is another set there" % full)]


def test_a_dry_push_brings_what_a_set_builds_on_before_it(world: Any) -> None:
    ids = build(world)
    shown = sync(world.context(), Sync(sets=(ids[2],), dry_run=True))
    assert [step["set"] for step in shown["plan"]] == ids
