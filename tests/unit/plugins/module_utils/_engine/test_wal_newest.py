# SPDX-License-Identifier: GPL-3.0-or-later
"""Up to which moment the WAL of a place leaves nothing out, and from where that is read."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import CommandError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name, size_mark
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import wal_status
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.survey import survey
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import newest
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.newest import Newest, Reach

from .test_wal_records import EPOCH, PAGE, Segment
from .test_wal_verbs import HOUR, NOW, SIZE, SYSTEM, Archive

AGE = b"age-encryption.org/v1\n"
COMMITTED = NOW - 2 * HOUR


class Written(Archive):
    """An archive whose newest segment ends with a commit, written an hour later."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.base("local", NOW - 6 * HOUR, 1)
        self.base("s3", NOW - 6 * HOUR, 1)
        self.content = self.made(1, COMMITTED)
        self.path = self.keep(segment_name(1, 1, SIZE), self.content, age=HOUR)

    def made(self, number: int, commit: datetime | None) -> bytes:
        segment = Segment(pages=SIZE // PAGE, start=number * SIZE, system=int(SYSTEM))
        if commit is not None:
            segment.commit(int((commit - EPOCH).total_seconds()))
        return bytes(segment.content)

    def seal(self) -> None:
        """Have it encrypted, as far as one can see, with the content in it."""
        os.rename(self.home / self.path, self.home / (self.path + ".age"))
        self.path += ".age"
        (self.home / self.path).write_bytes(AGE + self.content)
        (self.home / "wal" / SYSTEM / size_mark(SIZE)).touch()
        when = (NOW - HOUR).timestamp()
        os.utime(self.home / self.path, (when, when))

    def look(self, name: str, *, places: tuple[str, ...] = (), **how: Any) -> Reach:
        context = self.world.context()
        surveyed = {one.name: one for one in survey(context, places)}
        held = {one: surveyed[one].held(context.warn) for one in surveyed}
        known = Newest(context.state, how.get("decrypt"), str(how.get("pg_wal", "")))
        found = known.reach(name, held, {one: surveyed[one].place for one in surveyed})
        known.keep()
        return found

    @property
    def memory(self) -> Path:
        return Path(self.world.context().state) / "wal-newest.json"


@pytest.fixture
def written(make_world):
    return Written(make_world(wal={"enabled": True}))


def test_the_newest_commit_counts_and_not_when_its_segment_was_ended(written):
    written.ship()
    assert written.look("local") == written.look("s3") == Reach(COMMITTED, "transaction")
    result = wal_status.wal_status(written.world.context())
    assert [one["rpo_seconds"] for one in result["places"]] == [2 * HOUR.total_seconds()] * 2
    assert {one["recovery_point"] for one in result["places"]} == {iso(COMMITTED)}
    assert wal_status.render(result).count("newest recoverable transaction: 2 h 0 min old") == 2
    # How far WAL leads is another thing: a target behind the commit, before the segment's end, is no target without WAL.
    assert result["places"][0]["windows"][0]["stretches"][0]["end"] == iso(NOW - HOUR)


def test_a_segment_is_read_once_and_known_by_its_content(written, monkeypatch):
    written.ship()
    written.look("s3")
    monkeypatch.setattr(newest, "newest_commit", None)
    (written.home / written.path).unlink()
    assert written.look("s3") == Reach(COMMITTED, "transaction")
    kept = written.memory.stat()
    written.look("s3")
    assert written.memory.stat().st_mtime_ns == kept.st_mtime_ns


def test_s3_alone_is_asked_where_this_host_has_nothing(written):
    written.ship()
    (written.home / written.path).unlink()
    assert written.look("s3", places=("s3",)) == Reach(COMMITTED, "transaction")
    assert written.look("local") == Reach()


def test_a_large_segment_is_not_fetched_to_look_into_it(written, monkeypatch):
    written.ship()
    blob = (written.home / written.path).stat().st_size
    (written.home / written.path).unlink()
    monkeypatch.setattr(newest, "_MOST_FETCHED", blob - 1)
    assert written.look("s3", places=("s3",)).by == "arrival"
    monkeypatch.setattr(newest, "_MOST_FETCHED", blob)
    assert written.look("s3", places=("s3",)) == Reach(COMMITTED, "transaction")


def test_without_a_commit_it_is_when_the_server_wrote_it(written):
    written.keep(segment_name(1, 2, SIZE), written.made(2, None), age=HOUR / 2)
    written.ship()
    assert written.look("local") == written.look("s3") == Reach(NOW - HOUR / 2, "segment")
    (place, *_unused) = wal_status.wal_status(written.world.context())["places"]
    assert (place["rpo_by"], place["recovery_point"]) == ("segment", iso(NOW - HOUR / 2))
    assert "newest recoverable WAL: 30 min 0 s old" in wal_status.render(wal_status.wal_status(written.world.context()))


@pytest.mark.parametrize("kept", [b"{", b"[]", b'{"format": 9}', b'{"format": 1, "places": {"a": [1]}}'])
def test_a_memory_that_cannot_be_read_is_made_anew(written, kept):
    written.memory.parent.mkdir(parents=True, exist_ok=True)
    written.memory.write_bytes(kept)
    assert written.look("local").moment == COMMITTED
    assert written.memory.read_bytes() != kept


def test_a_memory_that_cannot_be_kept_is_no_failure(written):
    written.memory.mkdir(parents=True)
    assert written.look("local").moment == COMMITTED


def test_what_is_encrypted_is_read_where_the_server_still_has_it_or_by_the_key(written, tmp_path):
    written.seal()
    assert written.look("local") == Reach(NOW - HOUR, "segment")
    assert written.look("local", pg_wal=tmp_path) == Reach(NOW - HOUR, "segment"), "it is gone there"
    (tmp_path / segment_name(1, 1, SIZE)).write_bytes(written.made(1, NOW))
    assert written.look("local", pg_wal=tmp_path) == Reach(NOW - HOUR, "segment"), "that is other content"
    (tmp_path / segment_name(1, 1, SIZE)).write_bytes(written.content)
    assert written.look("local", pg_wal=tmp_path) == Reach(COMMITTED, "transaction")
    # Read once, it is known.
    assert written.look("local") == Reach(COMMITTED, "transaction")
    written.memory.unlink()

    def wrong(_blob: bytes) -> bytes:
        raise CommandError("no identity matched")

    assert written.look("local", decrypt=wrong) == Reach(NOW - HOUR, "segment")
    assert written.look("local", decrypt=lambda blob: blob[len(AGE) :]) == Reach(COMMITTED, "transaction")


def test_when_nobody_can_read_it_or_saw_it_written_nobody_guesses(written):
    written.seal()
    written.ship()
    written.look("s3")
    (written.home / written.path).unlink()
    assert written.look("s3") == Reach(NOW - HOUR, "segment"), "this host saw it"
    written.memory.unlink()
    reach = written.look("s3", places=("s3",))
    assert (reach.by, reach.moment) == ("arrival", NOW)
    (_local, place) = wal_status.wal_status(written.world.context())["places"]
    assert (place["rpo_seconds"], place["recovery_point"], place["rpo_by"]) == (None, None, "arrival")


def test_what_a_place_held_is_known_when_it_is_back(written):
    """While S3 is away the newest segment here is another one; the one there may be gone from here when S3 answers again."""
    written.seal()
    written.ship()
    written.look("s3")
    written.world.memory.down = True
    written.keep(segment_name(1, 2, SIZE), written.made(2, NOW - HOUR / 4))
    assert written.look("s3") == Reach()
    assert written.look("local") == Reach(NOW - HOUR / 4, "transaction")
    written.world.memory.down = False
    (written.home / written.path).unlink()
    assert written.look("s3") == Reach(NOW - HOUR, "segment")


def test_a_damaged_file_is_read_in_the_other_place(written):
    written.ship()
    blob = bytearray((written.home / written.path).read_bytes())
    blob[-1] ^= 1
    (written.home / written.path).write_bytes(blob)
    when = (NOW - HOUR + timedelta(minutes=1)).timestamp()
    os.utime(written.home / written.path, (when, when))
    assert written.look("local").by == "segment"
    assert written.look("s3") == Reach(COMMITTED, "transaction")
