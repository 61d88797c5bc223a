# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog, with the real local place: a folder without a manifest is no backup."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog, readable

DAY = timedelta(days=1)


def local(world: Any, **values: Any) -> Catalog:
    return Catalog(world.context().local, **values)


def test_an_empty_place_has_no_sets_and_is_no_error(world: Any) -> None:
    catalog = local(world)
    assert (catalog.ids(), catalog.unfinished, catalog.strays, catalog.pins(), catalog.proofs) == ([], [], [], [], [])


def test_sets_come_the_newest_first(world: Any) -> None:
    ids = [world.add("local", world.NOW - n * DAY) for n in (2, 0, 1)]
    assert local(world).ids() == sorted(ids, reverse=True)


def test_a_set_without_manifest_is_no_backup(world: Any) -> None:
    whole = world.add("local", world.NOW)
    folder = world.context().local.home / "sets" / "20261121T020000Z-logical"
    folder.mkdir()
    (folder / "orders.dump").write_bytes(b"x")
    catalog = local(world)
    assert catalog.ids() == [whole]
    assert catalog.unfinished == [folder.name]
    with pytest.raises(MissingError, match="There is no set 20261121T020000Z-logical"):
        catalog.manifest(folder.name)


def test_what_does_not_belong_there_is_a_stray_and_no_set(world: Any) -> None:
    world.add("local", world.NOW)
    sets = world.context().local.home / "sets"
    (sets / "README").write_text("x")
    (sets / "old-backup").mkdir()
    (sets / "old-backup" / "manifest.json").write_text("{}")
    (sets / "20261120T020000Z-logical").write_text("a file, not a folder")
    catalog = local(world)
    assert len(catalog.ids()) == 1
    assert sorted(catalog.strays) == ["sets/20261120T020000Z-logical", "sets/README", "sets/old-backup/manifest.json"]


def test_stored_bytes_are_those_of_all_files_of_the_set(world: Any) -> None:
    set_id = world.add("local", world.NOW, payload=b"x" * 1000)
    folder = world.context().local.home / "sets" / set_id
    assert local(world).stored_bytes(set_id) == 1000 + (folder / "manifest.json").stat().st_size


def test_latest_is_the_newest_and_latest_verified_the_newest_proven(world: Any) -> None:
    old, middle, new = (world.add("local", world.NOW - n * DAY) for n in (3, 2, 1))
    world.prove("local", old)
    world.prove("local", middle)
    catalog = local(world)
    assert catalog.find("latest") == new
    assert catalog.find("latest_verified") == middle
    assert catalog.find(old) == old


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("latest", MissingError, "There is no set in"),
        ("latest_verified", MissingError, "No set in"),
        ("20261122T020000Z-logical", MissingError, "There is no set 20261122T020000Z-logical"),
        ("newest", UsageError, "names no set"),
        ("../x", UsageError, "names no set"),
        ("", UsageError, "names no set"),
    ],
)
def test_what_is_not_there_is_said_with_a_next_step(world: Any, wanted: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        local(world).find(wanted)
    assert caught.value.hint


def test_a_failed_proof_takes_the_place_of_an_older_pass(world: Any) -> None:
    set_id = world.add("local", world.NOW - DAY)
    world.prove("local", set_id, when=world.NOW - DAY)
    assert local(world).verified(set_id)
    world.prove("local", set_id, level="checksum", outcome="failed", when=world.NOW)
    assert not local(world).verified(set_id)


def test_proofs_of_another_place_count_for_the_same_content_only(world: Any) -> None:
    here = world.add("local", world.NOW - DAY)
    assert world.add("s3", world.NOW - DAY) == here
    world.prove("s3", here)
    elsewhere = tuple(Catalog(world.memory).proofs)
    assert not local(world).verified(here)
    assert local(world, more_proofs=elsewhere).verified(here)
    other = world.add("local", world.NOW - 2 * DAY)
    world.add("s3", world.NOW - 2 * DAY, payload=b"other content under the same id")
    world.prove("s3", other)
    assert not local(world, more_proofs=tuple(Catalog(world.memory).proofs)).verified(other)


@pytest.mark.parametrize("raw", [b"{", b"{}", b'{"format": 99}'])
def test_a_set_whose_manifest_cannot_be_read_is_not_verified_whatever_was_proven(world: Any, raw: bytes) -> None:
    old, broken = world.add("local", world.NOW - DAY), world.add("local", world.NOW)
    world.prove("local", old)
    world.prove("local", broken)
    (world.context().local.home / "sets" / broken / "manifest.json").write_bytes(raw)
    catalog = local(world)
    assert not catalog.verified(broken)
    assert catalog.find("latest_verified") == old
    assert isinstance(readable(catalog, broken), (DamagedError, UsageError))
    assert readable(catalog, old) is None


def test_a_place_out_of_reach_is_not_taken_for_one_without_verified_sets(world: Any) -> None:
    set_id = world.add("s3", world.NOW)
    world.prove("s3", set_id)
    catalog = Catalog(world.memory)
    assert catalog.proofs
    world.memory.down = True
    with pytest.raises(UnreachableError):
        catalog.verified(set_id)


def test_pins_are_told_by_the_id_of_their_set_and_rests_of_a_crash_are_none(world: Any) -> None:
    set_id = world.add("local", world.NOW)
    world.place("local").write("pins/" + set_id, b"{}")
    world.place("local").write("pins/.%s.12.tmp" % set_id, b"")
    assert local(world).pins() == [set_id]


def test_the_newest_of_a_family_is_found_whatever_is_newer(world: Any) -> None:
    dump = world.add("local", world.NOW - 2 * DAY)
    copy = world.add("local", world.NOW - DAY, kind="base")
    catalog = local(world)
    assert catalog.find("latest") == copy
    assert catalog.find("latest", physical=False) == dump
    assert catalog.find("latest", physical=True) == copy
    assert catalog.manifest(copy).database_names == []
    world.prove("local", copy)
    with pytest.raises(MissingError, match=r"No set in .* is verified"):
        local(world).find("latest_verified", physical=False)
    assert local(world).find("latest_verified", physical=True) == copy
