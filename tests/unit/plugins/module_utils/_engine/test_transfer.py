# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts, checksums of parts, the shared speed limit, patience, and bodies that are sent straight from a file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import random
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError, PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import (
    MAX_PART_SIZE,
    MAX_PARTS,
    MIB,
    Bandwidth,
    Patience,
    Slice,
    StoppedError,
    composite,
    digests,
    part_size_for,
    parts_of,
    pieces,
    stretch,
)


@given(st.integers(0, 10**9), st.integers(1, 10**7))
def test_parts_cover_a_file_once_and_in_order(size: int, part_size: int) -> None:
    part_size = max(part_size, size // 2000 or 1)
    parts = parts_of(size, part_size)
    assert [p.number for p in parts] == list(range(1, len(parts) + 1))
    assert parts[0].offset == 0
    for one, following in itertools.pairwise(parts):
        assert one.offset + one.size == following.offset
        assert one.size == part_size
    assert parts[-1].offset + parts[-1].size == size
    assert parts[-1].size > 0 or size == 0


@given(st.integers(0, 48 * 2**40))
def test_a_part_size_keeps_within_what_s3_allows(size: int) -> None:
    chosen = part_size_for(size, 16 * MIB)
    assert 16 * MIB <= chosen <= MAX_PART_SIZE
    assert -(-size // chosen) <= MAX_PARTS
    assert chosen == 16 * MIB or chosen % MIB == 0


def test_a_part_size_grows_only_where_it_must() -> None:
    assert part_size_for(MAX_PARTS * 16 * MIB, 16 * MIB) == 16 * MIB
    assert part_size_for(MAX_PARTS * 16 * MIB + 1, 16 * MIB) == 17 * MIB


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 400))
def test_what_comes_is_cut_into_parts_of_one_size(chunks: list[bytes], size: int) -> None:
    whole, heard = b"".join(chunks), bytearray()
    with tempfile.TemporaryDirectory() as name:
        found = list(pieces(chunks, Path(name), size, heard.extend))
        assert [piece.part for piece in found] == parts_of(len(whole), size)
        assert b"".join(piece.path.read_bytes() for piece in found) == bytes(heard) == whole
        assert all(hashlib.sha256(piece.path.read_bytes()).digest() == piece.digest for piece in found)
        assert len(list(Path(name).iterdir())) == len(found)


def test_what_does_not_end_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(PgopsError, match="larger than 10000 parts of 1 bytes"):
        for piece in pieces(itertools.repeat(b"x"), tmp_path, 1, lambda _chunk: None):
            piece.path.unlink()


def test_the_checksum_of_parts_is_that_of_their_digests() -> None:
    parts = [hashlib.sha256(content).digest() for content in (b"one", b"two")]
    expected = base64.b64encode(hashlib.sha256(parts[0] + parts[1]).digest()).decode() + "-2"
    assert composite(parts) == expected


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_the_speed_limit_holds_over_any_span(counts: list[int]) -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock=clock, sleep=clock.sleep)
    moved = 0
    for count in counts:
        bandwidth.take(count)
        moved += count
        assert moved <= 1000 * clock.now + 250 + 1e-6
    assert clock.now <= moved / 1000 + 1e-6, "no slower than it must be"


def test_time_that_passes_idle_is_not_saved_up() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock=clock, sleep=clock.sleep)
    later = 3600.0
    clock.now = later
    bandwidth.take(250)
    assert clock.now == later
    bandwidth.take(1000)
    assert clock.now == pytest.approx(later + 1)


def test_no_limit_never_sleeps_and_a_stop_is_heard() -> None:
    bandwidth = Bandwidth(0, sleep=lambda seconds: pytest.fail("it slept"))
    bandwidth.take(10**12)
    bandwidth.stopped.set()
    with pytest.raises(StoppedError):
        bandwidth.take(1)


def test_a_limited_step_is_small_enough_to_keep_the_speed_even() -> None:
    assert Bandwidth(0).step == MIB
    assert Bandwidth(80 * MIB).step == MIB
    assert Bandwidth(800_000).step == 100_000
    assert Bandwidth(1).step == 4096


def test_a_stop_ends_a_long_sleep() -> None:
    bandwidth = Bandwidth(1)
    threading.Timer(0.05, bandwidth.stopped.set).start()
    bandwidth.take(3600)
    with pytest.raises(StoppedError):
        bandwidth.take(1)


@pytest.mark.parametrize(("failures", "tries", "succeeds"), [(0, 3, True), (2, 3, True), (3, 3, False), (1, 1, False)])
def test_a_passing_trouble_is_met_so_many_times(failures: int, tries: int, succeeds: bool) -> None:
    calls, pauses = [], []
    patience = Patience(tries, base=1, cap=3, sleep=pauses.append, rng=random.Random(1))

    def work() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise ConnectionError("cut")
        return "done"

    if succeeds:
        assert patience.call(work, lambda error: True) == "done"
    else:
        with pytest.raises(ConnectionError):
            patience.call(work, lambda error: True)
    assert len(calls) == min(failures + 1, tries)
    assert len(pauses) == len(calls) - 1


def test_trouble_that_stays_is_not_met_again() -> None:
    patience = Patience(5, sleep=lambda seconds: pytest.fail("it slept"))
    with pytest.raises(ValueError, match="no"):
        patience.call(
            lambda: (_unused for _unused in ()).throw(ValueError("no")),
            lambda error: isinstance(error, ConnectionError),
        )


def test_pauses_are_jittered_and_capped() -> None:
    pauses: list[float] = []
    patience = Patience(base=1, cap=8, sleep=pauses.append, rng=random.Random(7))
    for failed in range(1, 200):
        patience.pause(failed)
    assert max(pauses) <= 8
    assert min(pauses[10:]) < 1, "full jitter goes down to nothing"
    assert all(pause <= 2**index for index, pause in enumerate(pauses[:4]))


def test_a_pause_ends_soon_when_all_is_to_stop() -> None:
    pauses: list[float] = []
    stopped = threading.Event()
    patience = Patience(base=20, cap=20, sleep=lambda s: (pauses.append(s), stopped.set()), rng=random.Random(3))
    patience.until(stopped)
    with pytest.raises(StoppedError):
        patience.pause(3)
    assert len(pauses) == 1
    assert pauses[0] <= 2


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3 * MIB))
    return path


def test_a_slice_reads_its_stretch_again_and_again(source: Path) -> None:
    content = source.read_bytes()
    with Slice(source, 1000, 2 * MIB, Bandwidth(0), sha256="") as body:
        assert len(body) == 2 * MIB
        assert body.read(10) == content[1000:1010]
        assert body.read() == content[1010 : 1000 + 2 * MIB]
        assert body.read(1) == b""
        body.seek(0)
        buffer = bytearray(100)
        assert body.readinto(buffer) == 100
        assert bytes(buffer) == content[1000:1100]
        assert body.seek(-5, os.SEEK_END) == body.tell()
        assert body.read(100) == content[1000 + 2 * MIB - 5 : 1000 + 2 * MIB]
    assert body.closed


def test_only_what_is_sent_counts_against_the_limit(source: Path) -> None:
    class Counter(Bandwidth):
        taken = 0

        def take(self, count: int) -> None:
            self.taken += count

    bandwidth = Counter(0)
    with Slice(source, 0, 3 * MIB, bandwidth, sha256="") as body:
        while body.read(16384):
            pass
        assert bandwidth.taken == 0
        body.seek(0)
        body.metered()
        pieces = iter(lambda: body.read(16384), b"")
        assert b"".join(pieces) == source.read_bytes()
        assert bandwidth.taken == 3 * MIB


def test_a_source_that_shrinks_is_damaged(source: Path) -> None:
    with Slice(source, 0, 3 * MIB, Bandwidth(0), sha256="") as body:
        os.truncate(source, 100)
        assert len(body.read(200)) == 100
        with pytest.raises(DamagedError, match="became shorter"):
            body.read(1)


def test_a_stretch_ends_where_the_file_does_and_a_missing_file_is_damaged(source: Path, tmp_path: Path) -> None:
    assert b"".join(stretch(source, 3 * MIB - 5, 100)) == source.read_bytes()[-5:]
    with pytest.raises(DamagedError, match="cannot be read"):
        list(stretch(tmp_path / "nothing", 0, 1))


def test_digests_of_a_stretch(source: Path) -> None:
    part = source.read_bytes()[7:1007]
    assert digests(source, 7, 1000, md5=True) == (
        hashlib.sha256(part).digest(),
        hashlib.md5(part, usedforsecurity=False).digest(),
    )
    assert digests(source, 7, 1000, md5=False)[1] == b""
