# SPDX-License-Identifier: GPL-3.0-or-later
"""What pg_combinebackup says, as a person hears it, and what keeps it from saying anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    DamagedError,
    PgopsError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Base, Payload, Tablespace
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import base_unpacking
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.tools import Programs
from ansible_collections.pgops.backup.plugins.module_utils._engine.source import Source


def sets(world: Any, payload: bytes) -> list[Source]:
    """A full base backup and one upon it, whose tars are `payload`."""
    full = world.add("local", world.NOW, kind="base", payload=payload)
    child = world.add("local", world.NOW, kind="incremental", parent=full, payload=payload)
    catalog = Catalog(world.context().local)
    return [Source(world.context(), catalog, set_id) for set_id in (full, child)]


def programs(folder: Path, script: str) -> Programs:
    """A pg_combinebackup that does what a test wants."""
    tool = folder / "pg_combinebackup"
    tool.write_text('#!/bin/sh\ncase "$*" in *--help*) exit 0 ;; esac\n' + script)
    tool.chmod(0o755)
    return Programs(folder, "17.2")


EMPTY_TAR = bytes(10240)
WAL = 16 << 20  # of each set: one segment


def test_what_it_says_about_a_chain_is_told(world: Any, tmp_path: Path) -> None:
    tools = programs(
        tmp_path, "echo 'pg_combinebackup: error: backup at \"1\" starts at LSN 0/5, but expected 0/3' >&2; exit 1"
    )
    with pytest.raises(DamagedError, match=r"cannot be put together. pg_combinebackup: error: .* but expected 0/3"):
        base_unpacking.unpack_chain(sets(world, EMPTY_TAR), tools, tmp_path / "data", "", {})


@pytest.mark.parametrize(
    ("script", "kind"),
    [("echo 'could not write: No space left on device' >&2; exit 1", CommandError), ("kill -9 $$", UnreachableError)],
    ids=["full", "killed"],
)
def test_a_full_disk_and_a_kill_say_nothing_about_the_sets(
    world: Any, tmp_path: Path, script: str, kind: type[PgopsError]
) -> None:
    with pytest.raises(kind):
        base_unpacking.unpack_chain(sets(world, EMPTY_TAR), programs(tmp_path, script), tmp_path / "data", "", {})


def test_what_cannot_be_unpacked_is_named(world: Any, tmp_path: Path) -> None:
    chain = sets(world, b"no tar at all, and long enough to be looked at" * 50)
    with pytest.raises(CommandError, match="%s cannot be unpacked" % chain[0].set_id):
        base_unpacking.unpack_chain(chain, programs(tmp_path, "exit 0"), tmp_path / "data", "", {})


def test_without_the_program_nothing_begins(world: Any, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="There is no pg_combinebackup") as caught:
        base_unpacking.unpack_chain(sets(world, EMPTY_TAR), Programs(tmp_path, "17.2"), tmp_path / "data", "", {})
    assert "postgresql-client-17" in caught.value.hint
    assert not (tmp_path / "data").exists()


def test_the_room_for_a_chain_is_that_of_all_its_parts(world: Any) -> None:
    chain = sets(world, EMPTY_TAR)
    assert base_unpacking.unpacked_bytes(chain[:1]) == 1024 + WAL
    assert base_unpacking.unpacked_bytes(chain) == 3 * (1024 + WAL)
    assert base_unpacking.unpacked_sizes(chain) == {"": 3 * (1024 + WAL)}
    odd = world.add("local", world.NOW, kind="base", base=None, id="20200101T000000Z-base")
    with pytest.raises(DamagedError, match="describes no base backup"):
        base_unpacking.unpacked_bytes([Source(world.context(), Catalog(world.context().local), odd)])


def test_the_room_of_tablespaces_is_theirs(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(oid: str, size: int, own: int) -> Tablespace:
        return Tablespace(oid, "t" + oid, "/" + oid, Payload("base/%s.tar" % oid, "tar"), size, own)

    def link(chain: Source, *tablespaces: Tablespace, size: int, own: int) -> Base:
        assert chain.manifest.base is not None
        return dataclasses.replace(chain.manifest.base, tablespaces=tablespaces, bytes=size, own_bytes=own)

    full, child = sets(world, EMPTY_TAR)
    bases = {
        full.set_id: link(full, told("17", 600, 0), told("16", -1, 0), told("15", 50, 0), size=1000, own=0),
        child.set_id: link(child, told("17", 700, 30), told("16", -1, 7), size=1100, own=90),
    }
    monkeypatch.setattr(base_unpacking, "_base", lambda source: bases[source.set_id])
    assert base_unpacking.unpacked_sizes([full]) == {"": 350 + WAL, "17": 600, "16": 0, "15": 50}
    # All parts beside the whole; what the last one has no more lies with the data directory.
    together = base_unpacking.unpacked_sizes([full, child])
    assert together == {"": 1100 + 1000 + 90 - (700 + 600 + 30) - 7 + 3 * WAL, "17": 700 + 600 + 30, "16": 7}
    assert list(together) == ["", "17", "16"]
    # What a server does not let us see of its databases is no reason to give a tablespace less.
    bases[full.set_id] = link(full, told("17", 600, 0), size=100, own=0)
    assert base_unpacking.unpacked_sizes([full]) == {"": WAL, "17": 600}


def test_no_link_leads_to_the_directories_of_the_original(tmp_path: Path) -> None:
    """PostgreSQL's own map goes where the set has no tablespace, and what it names must be in the set."""
    base = Base(Payload("base/base.tar", "tar"), "2026-11-22T08:00:00+00:00", 1000, 1 << 24, 0, True, "SHA256")
    mapped = tmp_path / "tablespace_map"
    mapped.write_text("16400 /srv/live\n")
    with pytest.raises(DamagedError, match=r"lacks the tablespace in /srv/live \(number 16400\)"):
        base_unpacking.write_tablespace_map(base, tmp_path, "", {})
    mapped.write_text("")
    base_unpacking.write_tablespace_map(base, tmp_path, "", {})
    assert not mapped.exists()
    there = dataclasses.replace(base, tablespaces=(Tablespace("16400", "far", "/srv/live", Payload("x", "tar"), 0),))
    mapped.write_text("16400 /srv/live\n")
    base_unpacking.write_tablespace_map(there, tmp_path, "", {"16400": tmp_path / "a b"})
    assert mapped.read_text() == "16400 %s/a b\n" % tmp_path
