# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL of a base backup out of the WAL archive. Real servers that have removed theirs are in integration/test_base_wal.py."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.base_list import BaseList
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name, show_lsn
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import base_wal
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.base_taking import Taken, Way

SYSTEM = "7300000000000000001"
SIZE = 1 << 20


def keep(world: Any, place: str, number: int) -> bytes:
    """Put a segment into the archive of `place`; return what it holds."""
    content = (b"%d" % number).ljust(SIZE, b"x")
    name = segment_name(1, number, SIZE)
    path = "wal/%s/%s/%s-%s" % (SYSTEM, name[:16], name, hashlib.sha256(content).hexdigest())
    if place == "s3":
        world.memory.write(path, content)
        return content
    full = world.context().local.home / path
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(content)
    return content


def bring(world: Any, last: int) -> tuple[Taken, dict[str, bytes]]:
    """Have the segments from 4 to `last` brought; return what is known of the base backup then, and the files of the tar."""
    context = world.context()
    taken = Taken(Payload("base/base.tar", "tar"), Way("none", "nobody"))
    listed = BaseList({}, ((1, show_lsn(4 * SIZE + 40), show_lsn(last * SIZE + 500)),))
    payload, chunks = base_wal.bring_wal(context, taken, SYSTEM, listed, SIZE)
    assert payload.path == "base/pg_wal.tar"
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        found = {member.name: tar.extractfile(member) for member in tar}
        return taken, {name: file.read() for name, file in found.items() if file is not None}


@pytest.mark.parametrize(("place", "other"), [("local", "s3"), ("s3", "local")])
def test_each_segment_comes_from_where_it_is(world: Any, place: str, other: str) -> None:
    """One that this host has dropped meanwhile is in S3; one that S3 does not have yet is here."""
    wanted = [keep(world, place, 4), keep(world, other, 5), keep(world, place, 6)]
    taken, found = bring(world, 6)
    assert found == {segment_name(1, 4 + n, SIZE): content for n, content in enumerate(wanted)}
    assert (taken.timeline, taken.start, taken.end) == (1, show_lsn(4 * SIZE + 40), show_lsn(6 * SIZE + 500))


def test_one_that_is_damaged_here_comes_from_the_other_place(world: Any) -> None:
    content = keep(world, "s3", 4)
    keep(world, "local", 4)
    (file,) = (world.context().local.home / "wal").rglob("*-*")
    file.write_bytes(b"damaged")
    assert bring(world, 4)[1] == {segment_name(1, 4, SIZE): content}


def test_what_comes_nowhere_is_not_waited_for_without_an_end(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_wal, "_WAIT_SECONDS", -1.0)
    keep(world, "local", 4)
    world.memory.down = True
    with pytest.raises(UnreachableError, match="did not come into the archive") as caught:
        bring(world, 5)
    assert segment_name(1, 5, SIZE) in caught.value.message
