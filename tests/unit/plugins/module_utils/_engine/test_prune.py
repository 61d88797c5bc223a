# SPDX-License-Identifier: GPL-3.0-or-later
"""Prune: each place by its own rules, never what is needed, and honest about what it could not do."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import prune as prune_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.pins import pin, unpin
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request, prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.survey import survey

DAY = timedelta(days=1)


def fill(world: Any, ages: list[float], places: tuple[str, ...] = ("local", "s3")) -> dict[float, str]:
    """Put a set of each age in days into the places; return the ids by age."""
    ids = {}
    for age in ages:
        for place in places:
            ids[age] = world.add(place, world.NOW - timedelta(days=age))
    return ids


def of(result: dict[str, Any], place: str) -> dict[str, Any]:
    return next(p for p in result["places"] if p["place"] == place)


def tree(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_each_place_is_pruned_by_its_own_rules(world: Any) -> None:
    ids = fill(world, [1, 6, 8, 29, 31])
    context = world.context()
    result = prune(context, Request())
    assert result["changed"] is True
    assert world.ids("local") == [ids[1], ids[6]]
    assert world.ids("s3") == [ids[1], ids[6], ids[8], ids[29]]
    assert [r["set"] for r in of(result, "local")["removed"]] == [ids[8], ids[29], ids[31]]
    assert of(result, "s3")["removed"][0]["reasons"] == ["older than 30d, and no rule keeps it"]
    assert of(result, "local")["kept"][0] == {"set": ids[1], "reasons": ["younger than 7d", "newest"]}
    assert context.warnings == []


def test_what_is_freed_is_counted_and_what_is_left_has_no_rest(world: Any, tmp_path: Path) -> None:
    ids = fill(world, [1, 40])
    size = Catalog(world.place("local")).stored_bytes(ids[40])
    result = prune(world.context(), Request())
    assert of(result, "local")["freed_bytes"] == of(result, "local")["removed"][0]["bytes"] == size > 0
    assert of(result, "s3")["freed_bytes"] == size
    assert tree(tmp_path / "backups" / "db1" / "sets") == sorted(
        [ids[1], *(ids[1] + rest for rest in ("/databases", "/databases/orders.dump", "/manifest.json"))]
    )
    assert all(ids[40] not in path for path in world.memory.stored)


def test_a_second_prune_changes_nothing(world: Any) -> None:
    fill(world, [1, 8, 31])
    prune(world.context(), Request())
    result = prune(world.context(), Request())
    assert result["changed"] is False
    assert [p["removed"] for p in result["places"]] == [[], []]


def test_only_the_places_asked_for_are_pruned(world: Any) -> None:
    ids = fill(world, [1, 40])
    result = prune(world.context(), Request(places=("s3",)))
    assert [p["place"] for p in result["places"]] == ["s3"]
    assert ids[40] in world.ids("local")
    assert ids[40] not in world.ids("s3")


def test_a_place_that_is_not_configured_is_refused(make_world: Any) -> None:
    world = make_world(s3=None)
    fill(world, [1, 40], ("local",))
    with pytest.raises(UsageError, match="no place 's3'"):
        prune(world.context(), Request(places=("s3",)))
    assert len(world.ids("local")) == 2


def test_a_dry_run_shows_the_same_and_touches_nothing(world: Any, tmp_path: Path) -> None:
    fill(world, [1, 8, 31])
    (tmp_path / "backups/db1/sets/.unfinished-20261101T000000Z-logical").mkdir()
    world.memory.write("sets/20261001T000000Z-logical/x", b"half")
    world.memory.stored["sets/20261001T000000Z-logical/x"] = (b"half", world.NOW - 9 * DAY)
    files, objects = tree(tmp_path), dict(world.memory.stored)
    shown = prune(world.context(), Request(dry_run=True))
    assert (tree(tmp_path), world.memory.stored) == (files, objects)
    assert shown["changed"] is True
    assert prune(world.context(), Request()) == shown


def test_a_dry_run_needs_no_lock(world: Any) -> None:
    fill(world, [1, 8])
    with world.context().lock("backup"), world.context().lock("sets", shared=True):
        assert prune(world.context(), Request(dry_run=True))["changed"] is True


@pytest.mark.parametrize(("lock", "shared"), [("backup", False), ("sets", True), ("sets", False)])
def test_nothing_is_pruned_while_another_run_writes_or_reads_sets(world: Any, lock: str, shared: bool) -> None:
    fill(world, [1, 8])
    with world.context().lock(lock, shared=shared), pytest.raises(BusyError):
        prune(world.context(), Request())
    assert len(world.ids("local")) == 2


# --- what must stay ---------------------------------------------------------------------------------------------------


def test_a_set_proven_in_the_other_place_is_verified_here_too(world: Any) -> None:
    ids = fill(world, [1, 20, 21])
    world.prove("s3", ids[20])
    result = prune(world.context(), Request())
    assert world.ids("local") == [ids[1], ids[20]]
    assert {"set": ids[20], "reasons": ["verified floor"]} in of(result, "local")["kept"]


def test_a_place_out_of_reach_fails_and_the_others_are_pruned(world: Any) -> None:
    ids = fill(world, [1, 8])
    world.memory.down = True
    with pytest.raises(UnreachableError) as caught:
        prune(world.context(), Request())
    assert world.ids("local") == [ids[1]]
    message = str(caught.value)
    assert "1 of 2 places" in message
    assert "local: 1 sets removed" in message
    assert "s3 failed" in message
    assert "The store does not answer. Check the network." in message
    assert caught.value.details["changed"] is True
    assert of(caught.value.details, "local")["removed"][0]["set"] == ids[8]


def test_a_store_that_stops_answering_while_manifests_are_read_loses_nothing(world: Any) -> None:
    ids = fill(world, [1, 40], ("s3",))
    answers = world.memory.read

    def read(path: str) -> bytes:
        world.memory.down = ids[40] in path
        return answers(path)

    world.memory.read = read
    with pytest.raises(UnreachableError):
        prune(world.context(), Request())
    world.memory.down = False
    assert world.ids("s3") == [ids[1], ids[40]]


def test_what_a_place_out_of_reach_has_proven_is_not_forgotten(world: Any) -> None:
    ids = fill(world, [1, 5])
    world.prove("s3", ids[5])
    prune(world.context(), Request())
    world.memory.down = True
    world.now += 20 * DAY
    newer = world.add("local", world.now - DAY)
    with pytest.raises(UnreachableError):
        prune(world.context(), Request())
    assert world.ids("local") == [newer, ids[5]]


def test_a_failure_in_the_middle_is_told_with_what_was_done_before(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, [1, 8, 9])

    def refuse(set_id: str) -> int:
        raise PermissionError(13, "Permission denied", "/backups/x")

    world_context = world.context()
    monkeypatch.setattr(type(world_context.local), "delete_set", lambda self, set_id: refuse(set_id))
    with pytest.raises(
        PgopsError, match="local failed after 0 sets removed, 0 B freed: /backups/x: Permission denied"
    ) as e:
        prune(world_context, Request())
    assert not isinstance(e.value, UnreachableError)


def test_a_pinned_set_stays_until_it_is_unpinned(world: Any) -> None:
    ids = fill(world, [1, 40])
    pin(world.context(), "local", ids[40], "audit 2026")
    prune(world.context(), Request())
    assert world.ids("local") == [ids[1], ids[40]]
    unpin(world.context(), "local", ids[40])
    prune(world.context(), Request())
    assert world.ids("local") == [ids[1]]


def test_the_sets_that_a_kept_incremental_builds_on_stay(world: Any) -> None:
    base = world.add("local", world.NOW - 20 * DAY, kind="base")
    middle = world.add("local", world.NOW - 10 * DAY, kind="incremental", parent=base)
    newest = world.add("local", world.NOW - DAY, kind="incremental", parent=middle)
    result = prune(world.context(), Request(places=("local",)))
    assert world.ids("local") == [newest, middle, base]
    assert of(result, "local")["kept"][2]["reasons"] == ["parent of %s" % middle]


def damage(world: Any, set_id: str) -> None:
    (world.context().local.home / "sets" / set_id / "manifest.json").write_bytes(b"{")


def test_a_set_whose_manifest_cannot_be_read_stays_and_is_reported(world: Any) -> None:
    ids = fill(world, [1, 40], ("local",))
    damage(world, ids[40])
    context = world.context()
    result = prune(context, Request(places=("local",)))
    assert world.ids("local") == [ids[1], ids[40]]
    assert {"set": ids[40], "reasons": ["its manifest cannot be read"]} in of(result, "local")["kept"]
    assert len(context.warnings) == 1
    assert "%s in %s stays" % (ids[40], context.local.root) in context.warnings[0]


def test_a_set_written_by_a_newer_version_stays(world: Any) -> None:
    ids = fill(world, [1], ("local",))
    future = world.add("local", world.NOW - 40 * DAY, format=2)
    world.prove("local", future)
    context = world.context()
    prune(context, Request(places=("local",)))
    assert world.ids("local") == [ids[1], future]
    assert "format 2" in context.warnings[0]


def test_an_unreadable_incremental_keeps_everything_that_it_may_build_on(world: Any) -> None:
    oldest = world.add("local", world.NOW - 41 * DAY, kind="logical")
    base = world.add("local", world.NOW - 40 * DAY, kind="base")
    broken = world.add("local", world.NOW - 39 * DAY, kind="incremental", parent=base)
    later = world.add("local", world.NOW - 38 * DAY, kind="base")
    fresh = world.add("local", world.NOW - 2 * DAY, kind="base")
    newest = world.add("local", world.NOW - DAY)
    damage(world, broken)
    prune(world.context(), Request(places=("local",)))
    assert world.ids("local") == [newest, fresh, broken, base]
    assert not {oldest, later} & set(world.ids("local"))


# --- what killed runs left --------------------------------------------------------------------------------------------


def test_half_written_sets_of_killed_runs_are_cleared_from_the_local_place(world: Any, tmp_path: Path) -> None:
    ids = fill(world, [1], ("local",))
    left = tmp_path / "backups/db1/sets/.unfinished-20261122T070000Z-logical"
    left.mkdir()
    (left / "half").write_bytes(b"12345")
    result = prune(world.context(), Request(places=("local",)))
    assert not left.exists()
    assert world.ids("local") == [ids[1]]
    assert of(result, "local")["leftovers"] == [{"path": str(left), "bytes": 5}]
    assert (of(result, "local")["freed_bytes"], result["changed"]) == (5, True)


@pytest.mark.parametrize(("age", "gone"), [(6.9, False), (7.1, True)])
def test_an_upload_that_was_cut_off_is_cleared_after_seven_days(world: Any, age: float, gone: bool) -> None:
    fill(world, [1])
    path = "sets/20261101T020000Z-logical/databases/orders.dump"
    world.memory.stored["sets/20261101T020000Z-logical/old"] = (b"x", world.NOW - 20 * DAY)
    world.memory.stored[path] = (b"half", world.NOW - timedelta(days=age))
    result = prune(world.context(), Request())
    assert (path not in world.memory.stored) is gone
    expected = [{"set": "20261101T020000Z-logical", "bytes": 5}] if gone else []
    assert of(result, "s3")["unfinished"] == expected
    assert result["changed"] is gone


def test_a_local_folder_without_a_manifest_is_reported_and_left_alone(world: Any, tmp_path: Path) -> None:
    fill(world, [1], ("local",))
    folder = tmp_path / "backups/db1/sets/20251101T020000Z-logical"
    folder.mkdir()
    (folder / "precious").write_bytes(b"x")
    context = world.context()
    prune(context, Request(places=("local",)))
    assert (folder / "precious").exists()
    assert "20251101T020000Z-logical has no manifest" in context.warnings[0]


def test_evidence_of_removed_sets_stays_for_the_auditor(world: Any) -> None:
    ids = fill(world, [1, 40])
    proof = world.prove("s3", ids[40])
    world.prove("s3", ids[1])
    prune(world.context(), Request())
    assert ids[40] not in world.ids("s3")
    assert proof in world.memory.stored


def test_an_unexpected_error_is_not_swallowed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, [1, 8])
    monkeypatch.setattr(prune_module, "decide", lambda surveyed, context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prune(world.context(), Request())


# --- another bucket, another path -------------------------------------------------------------------------------------


def another_bucket(world: Any) -> None:
    world.config = replace(world.config, s3=replace(world.config.s3, bucket="another"))
    world.memory = type(world.memory)(lambda: world.now)
    world.memory.root = "s3://another/db1"


@pytest.mark.parametrize("version", ["this", "an older one, which did not say where"])
def test_what_an_earlier_bucket_has_proven_counts_on_in_the_next_one(world: Any, version: str) -> None:
    ids = fill(world, [20, 1], ("local", "s3"))
    damaged = world.add("s3", world.NOW - 2 * DAY)
    world.prove("s3", ids[20])
    world.prove("s3", damaged, outcome="failed", level="checksum")
    prune(world.context(), Request())
    if version != "this":
        memory = world.context().state / "proofs" / "s3.json"
        memory.write_text(
            json.dumps([{k: v for k, v in p.items() if k != "where"} for p in json.loads(memory.read_text())])
        )
    old, before = world.memory, world.config
    another_bucket(world)
    for path in world.place("local").entries("sets/%s" % ids[20]):
        world.memory.write(path, world.place("local").read(path))
    for _night in range(3):
        world.now += DAY
        prune(world.context(), Request())
        assert ids[20] in world.ids("local"), "the only set that is proven"
        found = {place.name: place for place in survey(world.context())}
        assert [f.id for f in found["local"].facts if f.verified] == [ids[20]]
        assert [f.id for f in found["s3"].facts if f.verified] == [ids[20]], "its content is the same"
    assert known_at_last_prune(world) == {ids[20]}, "a failure was that bucket's"
    world.memory.down = True
    assert [f.id for f in survey(world.context(), ("local",), alone=True)[0].facts if f.verified] == [ids[20]]
    world.memory, world.config = old, before
    assert [f.id for f in survey(world.context())[0].facts if f.verified] == [ids[20]]


def test_what_a_place_has_proven_counts_on_when_the_configuration_has_it_no_more(world: Any) -> None:
    ids = fill(world, [20, 1], ("local", "s3"))
    world.prove("s3", ids[20])
    prune(world.context(), Request())
    world.config = replace(world.config, s3=None)
    for _night in range(3):
        world.now += DAY
        prune(world.context(), Request())
        assert ids[20] in world.ids("local"), "the only set that is proven"
        (local,) = survey(world.context())
        assert [f.id for f in local.facts if f.verified] == [ids[20]]


def test_what_an_earlier_bucket_has_proven_is_not_kept_without_end(world: Any) -> None:
    ids = [world.add("s3", world.NOW - timedelta(hours=hours)) for hours in range(400)]
    for set_id in ids:
        world.prove("s3", set_id)
    prune(world.context(), Request(places=("s3",)))
    another_bucket(world)
    prune(world.context(), Request())
    assert known_at_last_prune(world) == set(ids[:200])


# --- weeks of nights, with the real catalog and evidence ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_through_weeks_of_nights_with_outages_a_verified_set_remains_in_each_place(make_world: Any, seed: int) -> None:
    chance = random.Random(seed)
    world = make_world(local={"retention": {"keep_within": "2d"}}, s3={"retention": {"keep_within": "5d"}})
    for _night in range(25):
        world.now += DAY
        if chance.randrange(10) < 8:
            world.add("local", world.now)
        world.memory.down = False
        if chance.randrange(10) < 8:
            for set_id in set(world.ids("local")) - set(world.ids("s3")):
                for path in world.place("local").entries("sets/%s" % set_id):
                    world.memory.write(path, world.place("local").read(path))
        if world.ids("s3") and chance.randrange(10) < 4:
            chosen = chance.choice(world.ids("s3"))
            world.prove("s3", chosen, outcome="passed" if chance.randrange(10) < 8 else "failed")
        before = verified(world)
        world.memory.down = chance.randrange(10) < 3
        try:
            prune(world.context(), Request())
        except UnreachableError:
            assert world.memory.down
        world.memory.down = False
        after = verified(world)
        assert bool(after["s3"]) == bool(before["s3"])
        if world.ids("local"):
            assert bool(after["local"]) >= bool(before["local"] & known_at_last_prune(world))


def verified(world: Any) -> dict[str, set[str]]:
    proofs = tuple(Catalog(world.memory).proofs)
    found = {}
    for name in ("local", "s3"):
        catalog = Catalog(world.place(name), more_proofs=proofs)
        found[name] = {set_id for set_id in catalog.ids() if catalog.verified(set_id)}
    return found


def known_at_last_prune(world: Any) -> set[str]:
    """The sets that proofs remembered by this host speak of: an outage hides only what was proven since."""
    path = world.context().state / "proofs" / "s3.json"
    return {p["set_id"] for p in json.loads(path.read_text())} if path.exists() else set()
