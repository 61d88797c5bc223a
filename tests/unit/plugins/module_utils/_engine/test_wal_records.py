# SPDX-License-Identifier: GPL-3.0-or-later
"""When the newest transaction of a segment was committed. A real server's segments are in integration/test_wal.py."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_pages import Pages
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_records import newest_commit

PAGE, PAGES, START = 8192, 4, 5 << 20
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
HEAP, XACT = 10, 1
GOES_ON, LONG = 1, 2
COMMIT, PREPARE, ABORT, COMMIT_PREPARED, HAS_INFO = 0x00, 0x10, 0x20, 0x30, 0x80


class Segment:
    """A small one, with records laid over its pages as PostgreSQL does. `before` bytes of a record of the one before come first."""

    def __init__(self, before: int = 0, *, pages: int = PAGES, start: int = START, system: int = 7) -> None:
        self.content, self.at = bytearray(PAGE * pages), 0
        self._start, self._system = start, system
        self._write(bytes(before), goes_on=True)

    def add(self, manager: int, info: int, data: bytes, *, more: bytes = b"") -> None:
        how_long = struct.pack("=BB", 255, len(data)) if len(data) < 256 else struct.pack("=BI", 254, len(data))
        rest = more + how_long + data
        self._write(struct.pack("=IIQBB2xI", 24 + len(rest), 700, 0, info, manager, 0) + rest)

    def commit(self, second: int, info: int = COMMIT, *, tail: bytes = b"", more: bytes = b"") -> None:
        self.add(XACT, info, struct.pack("=q", second * SECOND) + tail, more=more)

    def fill(self, left: int) -> None:
        """Have the page end `left` bytes behind the next record's beginning."""
        self.add(HEAP, 0, bytes(PAGE - left - self.at % PAGE - 24 - 5))
        assert self.at % PAGE == PAGE - left

    def _write(self, record: bytes, *, goes_on: bool = False) -> None:
        done = 0
        while done < len(record) or not self.at:
            if self.at % PAGE == 0:
                if self.at == len(self.content):
                    return
                self._page(len(record) - done, goes_on=bool(done) or goes_on)
            count = min(len(record) - done, PAGE - self.at % PAGE)
            self.content[self.at : self.at + count] = record[done : done + count]
            done, self.at = done + count, self.at + count
        self.at = (self.at + 7) & ~7

    def _page(self, left: int, *, goes_on: bool) -> None:
        first = self.at == 0
        flags = (GOES_ON if goes_on and left else 0) | (LONG if first else 0)
        header = struct.pack("=HHIQI4x", 0xD118, flags, 1, self._start + self.at, left if goes_on else 0)
        header += struct.pack("=QII", self._system, len(self.content), PAGE) if first else b""
        self.content[self.at : self.at + len(header)] = header
        self.at += len(header)


def second(content: bytes | bytearray) -> float | None:
    found = newest_commit(content)
    return None if found is None else (found - EPOCH) / timedelta(seconds=1)


def test_the_last_commit_counts_whatever_comes_behind_it() -> None:
    segment = Segment()
    segment.add(HEAP, 0, bytes(100))
    assert newest_commit(segment.content) is None
    segment.commit(1)
    segment.commit(2, COMMIT_PREPARED | HAS_INFO, tail=bytes(300))
    segment.add(HEAP, COMMIT, struct.pack("=q", 9 * SECOND))
    for info in (PREPARE, ABORT):
        segment.commit(8, info)
    assert second(segment.content) == 2
    # Behind it there are pages without one, and zeros.
    segment.add(HEAP, 0, bytes(2 * PAGE))
    assert second(segment.content) == 2


def test_a_commit_of_a_subtransaction_from_elsewhere_and_one_with_much_to_say() -> None:
    segment = Segment(before=40)
    segment.commit(3, HAS_INFO, more=struct.pack("=BH", 253, 1) + struct.pack("=BI", 252, 699))
    assert second(segment.content) == 3
    segment.commit(4, HAS_INFO, tail=bytes(2 * PAGE))
    assert second(segment.content) == 4
    # What its header says of blocks, no commit has.
    segment.commit(5, more=bytes([0]))
    assert second(segment.content) == 4


@pytest.mark.parametrize("left", [8, 16, 24, 32])
def test_a_commit_that_goes_over_two_pages(left: int) -> None:
    segment = Segment(before=PAGE + 17)
    segment.fill(left)
    segment.commit(6)
    assert segment.at // PAGE == 2
    assert second(segment.content) == 6


@pytest.mark.parametrize("left", [8, 24, 32])
def test_a_commit_of_which_the_end_is_in_the_next_segment_restores_nothing(left: int) -> None:
    segment = Segment()
    segment.commit(1)
    for _page in range(PAGES):
        segment.fill(left)
        if segment.at // PAGE == PAGES - 1:
            break
        segment.add(HEAP, 0, bytes(64))
    segment.commit(7)
    assert segment.at == len(segment.content)
    assert second(segment.content) == 1


def test_pages_of_an_older_file_are_not_read() -> None:
    """PostgreSQL writes its segments into files of old ones."""
    segment = Segment()
    segment.commit(1)
    older = Segment(before=2 * PAGE)
    older.commit(9)
    content = bytearray(segment.content)
    content[PAGE:] = older.content[PAGE:]
    assert second(content) == 9, "the pages are of this place"
    for at in range(PAGE, len(content), PAGE):
        struct.pack_into("=Q", content, at + 8, START - len(content) + at)
    assert second(content) == 1


def test_what_is_no_segment_tells_nothing() -> None:
    segment = Segment()
    segment.commit(1)
    flat = bytearray(segment.content)
    flat[2] = 0
    odd = bytearray(segment.content)
    struct.pack_into("=I", odd, 36, 8191)
    for content in (b"", b"1\t0/1\tx\n" * 10, flat, odd, segment.content[:-1], bytes(PAGE)):
        assert newest_commit(content) is None
    never = Segment()
    never.add(XACT, COMMIT, struct.pack("=q", (1 << 63) - 1))
    never.add(XACT, COMMIT, bytes(3))
    assert newest_commit(never.content) is None


@given(st.integers(0, 2 * PAGE), st.lists(st.integers(0, 3 * PAGE), max_size=30))
def test_each_record_begins_in_one_page(before: int, sizes: list[int]) -> None:
    segment = Segment(before=before)
    for size in sizes:
        segment.add(HEAP, 0, bytes(size))
    pages = Pages(segment.content, START)
    assert [at for page in range(pages.count) for at in pages.records_in(page)] == list(pages.records_from(0))


@given(st.lists(st.tuples(st.integers(0, PAGE * PAGES - 1), st.integers(0, 255)), max_size=20))
def test_whatever_stands_there_it_comes_to_an_end(altered: list[tuple[int, int]]) -> None:
    segment = Segment(before=40)
    for number in range(5):
        segment.commit(number, tail=bytes(number * 1000))
    for at, value in altered:
        segment.content[at] = value
    found = newest_commit(segment.content)
    assert found is None or found.tzinfo is UTC
