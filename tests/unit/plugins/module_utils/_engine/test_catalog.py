# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog, with the real local place: a folder without a manifest is no backup."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import NAME
from ansible_collections.pgops.backup.plugins.module_utils._engine.places import catalog as catalog_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.base import Entry
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


def test_a_set_from_the_future_is_never_the_latest_and_is_told(world: Any) -> None:
    now, ahead, soon = (world.add("local", world.NOW + n * DAY) for n in (0, 400, 1 / 1440))
    for set_id in (now, ahead):
        world.prove("local", set_id)
    told: list[str] = []
    catalog = local(world)
    assert catalog.find("latest", world.NOW, warn=told.append) == soon, "the clocks of hosts differ by a minute"
    assert catalog.find("latest_verified", world.NOW) == now
    assert len(told) == 1 and "The set %s in " % ahead in told[0] and "check the clock" in told[0]
    assert catalog.find(ahead, world.NOW, warn=told.append) == ahead
    assert catalog.ids() == [ahead, soon, now] and len(told) == 1


def test_a_set_whose_name_is_no_moment_is_never_the_latest(world: Any) -> None:
    """Whoever can write there may call a folder so, and Object Lock would keep it."""
    true, odd = world.add("local", world.NOW), "99999999T999999Z-logical"
    folder = world.context().local.home / "sets" / odd
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    told: list[str] = []
    assert local(world).find("latest", world.NOW, warn=told.append) == true
    assert len(told) == 1 and odd in told[0]


def test_stored_bytes_are_those_of_all_files_of_the_set(world: Any) -> None:
    set_id = world.add("local", world.NOW, payload=b"x" * 1000)
    folder = world.context().local.home / "sets" / set_id
    assert local(world).stored_bytes(set_id) == 1000 + (folder / "manifest.json").stat().st_size


def test_latest_is_the_newest_and_latest_verified_the_newest_proven(world: Any) -> None:
    old, middle, new = (world.add("local", world.NOW - n * DAY) for n in (3, 2, 1))
    world.prove("local", old)
    world.prove("local", middle)
    catalog = local(world)
    assert catalog.find("latest", world.NOW) == new
    assert catalog.find("latest_verified", world.NOW) == middle
    assert catalog.find(old, world.NOW) == old


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
        local(world).find(wanted, world.NOW)
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
    assert catalog.find("latest_verified", world.NOW) == old
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
    assert catalog.find("latest", world.NOW) == copy
    assert catalog.find("latest", world.NOW, physical=False) == dump
    assert catalog.find("latest", world.NOW, physical=True) == copy
    assert catalog.manifest(copy).database_names == []
    world.prove("local", copy)
    with pytest.raises(MissingError, match=r"No set in .* is verified"):
        local(world).find("latest_verified", world.NOW, physical=False)
    assert local(world).find("latest_verified", world.NOW, physical=True) == copy


def test_a_file_costs_the_catalog_less_than_a_hundred_bytes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of twenty thousand, packed; what it holds is as good as new."""
    sets, files = 100, 200
    names = [(world.NOW - n * DAY).strftime("%Y%m%dT%H%M%SZ-logical") for n in range(sets)]

    def listing(prefix: str) -> Iterator[Entry]:
        for name in names:
            for number in range(files):
                path = "%s/%s/databases/shop/%d.dat.zst" % (prefix, name, number)
                yield Entry(path, 10**9 + number, world.NOW + timedelta(microseconds=number), os.urandom(16).hex())
            yield Entry("%s/%s/%s" % (prefix, name, NAME), 7, world.NOW, "tag")

    monkeypatch.setattr(world.memory, "listing", listing)
    tracemalloc.start()
    try:
        catalog = Catalog(world.memory)
        held, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100 * sets * files
    assert catalog.ids() == sorted(names, reverse=True)
    stored = catalog.files(names[3])
    assert len(stored) == files + 1
    seven = stored["databases/shop/7.dat.zst"]
    assert (seven.path, seven.size) == ("sets/%s/databases/shop/7.dat.zst" % names[3], 10**9 + 7)
    assert seven.modified == world.NOW + timedelta(microseconds=7)
    assert stored[NAME] == catalog.stored_manifest(names[3])
    assert catalog.stored_bytes(names[3]) == sum(entry.size for entry in stored.values())
    assert catalog.total_bytes == sets * catalog.stored_bytes(names[3])


def test_names_that_are_no_text_and_come_in_any_order_are_kept_as_they_are(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["sets/20261121T020000Z-logical/%s" % name for name in ("a\nb", "\udcff", 'q"\0', NAME)]
    other = "sets/20261122T020000Z-logical/x"
    entries = [Entry(path, 1, world.NOW, "t") for path in (paths[0], other, *paths[1:])]
    monkeypatch.setattr(world.memory, "listing", lambda prefix: iter(entries))
    catalog = Catalog(world.memory)
    assert sorted(e.path for e in catalog.files("20261121T020000Z-logical").values()) == sorted(paths)
    assert catalog.unfinished == ["20261122T020000Z-logical"]
    assert catalog.taken("20261122T020000Z-logical") and not catalog.taken("20261123T020000Z-logical")
    assert catalog.files("20261123T020000Z-logical") == {}


def test_only_so_many_manifests_stay_decoded_and_each_is_read_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [world.add("local", world.NOW - n * DAY) for n in range(4)]
    catalog = local(world)
    most = len(catalog.manifest(ids[0]).files)
    monkeypatch.setattr(catalog_module, "_MOST_FILES", most)
    contents = [catalog.content(name) for name in ids]
    assert len(catalog._manifests) == 1
    monkeypatch.setattr(catalog.place, "read", lambda path: pytest.fail("%s is read again" % path))
    assert [catalog.manifest(name).id for name in ids] == ids
    assert [catalog.content(name) for name in ids] == contents
    assert len(catalog._manifests) == 1
