# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL files: names, positions and timelines there and back, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import segments as s

SIZES = st.sampled_from([1 << power for power in range(20, 31)])
TIMELINES = st.integers(1, 2**32 - 1)
POSITIONS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("000000010000000A000000FF", s.SEGMENT),
        ("000000010000000A000000FF.partial", s.PARTIAL),
        ("000000010000000A000000FF.00000028.backup", s.BACKUP),
        ("0000000A.history", s.HISTORY),
        ("", ""),
        ("RECOVERYXLOG", ""),
        ("000000010000000a000000ff", ""),
        ("000000010000000A000000FF.partial.zst", ""),
        ("000000010000000A000000FF.28.backup", ""),
        ("000000010000000A000000F", ""),
        ("000000010000000A000000FF\n", ""),
        ("../0000000A.history", ""),
        ("0000000A.history.tmp", ""),
        ("00000001000000\u0660\u0660000000FF", ""),
    ],
)
def test_the_name_says_what_a_file_is(name, kind):
    assert s.kind(name) == kind


@given(TIMELINES, POSITIONS, SIZES)
def test_a_position_has_one_segment_and_its_name_leads_back_there(timeline, position, size):
    number = s.number_at(position, size)
    name = s.segment_name(timeline, number, size)
    assert s.kind(name) == s.SEGMENT
    assert (s.timeline_of(name), s.number_of(name, size)) == (timeline, number)
    assert s.start_of(number, size) <= position < s.start_of(number + 1, size)


@given(POSITIONS)
def test_positions_are_written_and_read(position):
    assert s.parse_lsn(s.show_lsn(position)) == position


def test_positions_as_postgresql_writes_them():
    assert s.show_lsn(0x16B374D848) == "16/B374D848"
    assert s.parse_lsn(" 0/3000028\n") == 0x3000028
    # The end of a backup at the very end of a segment needs no byte of the next one.
    assert s.number_before(0x4000000, 1 << 24) == 3
    assert s.number_before(0x4000001, 1 << 24) == 4


@pytest.mark.parametrize("text", ["", "16", "16/", "/16", "16/123456789", "G/1", "1/2/3", "-1/2", "1/ 2"])
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ValueError, match="no WAL position"):
        s.parse_lsn(text)


@given(TIMELINES, st.lists(st.tuples(POSITIONS, SIZES.map(lambda _size: 1 << 24)), min_size=2, max_size=8))
def test_names_sort_as_the_positions_do(timeline, found):
    size = 1 << 24
    numbers = [position // size for position, _size in found]
    names = [s.segment_name(timeline, number, size) for number in numbers]
    assert [s.number_of(name, size) for name in sorted(names, key=s.order)] == sorted(numbers)


def test_history_files_come_before_all_segments():
    names = ["000000020000000000000003", "00000003.history", "000000010000000000000003", "00000002.history"]
    assert sorted(names, key=s.order) == [names[3], names[1], names[2], names[0]]


def test_a_history_names_the_ancestors():
    text = "1\t0/3000158\tno recovery target specified\n\n# a remark\n2\t0/5000000\tbefore 2026-11-22 08:00:00+00\n"
    found = s.parse_history(text)
    assert found == [
        (1, 0x3000158, "no recovery target specified"),
        (2, 0x5000000, "before 2026-11-22 08:00:00+00"),
    ]
    assert [s.timeline_at(3, found, at) for at in (0, 0x3000157, 0x3000158, 0x4FFFFFF, 0x5000000)] == [1, 1, 2, 2, 3]
    assert s.timeline_at(1, [], 17) == 1


@pytest.mark.parametrize("text", ["1", "one\t0/1\tx", "1\tnowhere\tx", "2\t0/5\tx\n1\t0/6\tx", "1\t0/5\tx\n2\t0/4\tx"])
def test_a_history_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=r"timeline history|WAL position"):
        s.parse_history(text)


@given(
    st.sampled_from(["0000000100000000000000AB", "00000002.history", "0000000100000000000000AB.00000028.backup"]),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.sampled_from(s.SUFFIXES),
)
def test_the_name_in_the_archive_leads_back_to_the_file(name, digest, suffix):
    assert s.parse_stored(s.stored_name(name, digest, suffix)) == (name, digest, suffix)


@pytest.mark.parametrize(
    "stored",
    [
        "0000000100000000000000AB",
        "0000000100000000000000AB-%s.exe" % ("a" * 64),
        "0000000100000000000000AB-%s" % ("a" * 63),
        "0000000100000000000000AB-%s.zst" % ("A" * 64),
        "readme-%s.zst" % ("a" * 64),
        ".0000000100000000000000AB-%s.zst.tmp" % ("a" * 64),
    ],
)
def test_other_files_are_none_of_the_archive(stored):
    assert s.parse_stored(stored) == ("", "", "")


def test_folders():
    assert s.folder("0000000100000002000000AB") == "0000000100000002"
    assert s.folder("0000000100000002000000AB.00000028.backup") == "0000000100000002"
    assert s.folder("00000002.history") == ""


@pytest.mark.parametrize(
    ("text", "good"), [("7312345678901234567", True), ("0", False), ("", False), ("12a", False), (str(2**64), False)]
)
def test_system_identifiers(text, good):
    assert s.is_system_identifier(text) is good


@given(SIZES)
def test_the_mark_of_a_size_leads_back_to_it(size):
    assert s.parse_size_mark(s.size_mark(size)) == size


@pytest.mark.parametrize("name", ["", "segments-of-", "segments-of-17", "segments-of-x", "000000010000000000000001"])
def test_other_names_mark_no_size(name):
    assert s.parse_size_mark(name) == 0


@pytest.mark.parametrize(
    ("size", "good"), [(1 << 20, True), (1 << 30, True), (1 << 19, False), (1 << 31, False), (3 << 20, False)]
)
def test_sizes_of_segments(size, good):
    assert s.is_size(size) is good
