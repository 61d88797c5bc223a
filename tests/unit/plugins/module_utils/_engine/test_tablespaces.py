# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that make a tablespace are found wherever they lie in the WAL, and lead to no directory that somebody uses."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError, RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.tablespace_records import (
    Made,
    _crc,
    begun_with,
    ended,
    ended_with,
    found_in,
    led_to,
    made_in,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_records import last_end
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import unproven
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import tablespaces

PAGE, SIZE = 8192, 1 << 20
ROOM = SIZE - 40 - (SIZE // PAGE - 1) * 24  # what a segment holds without the headers of its pages
NAME = segment_name(1, 1, SIZE)


def record(data: bytes, *, manager: int = 10, info: int = 0) -> bytes:
    head = struct.pack("=BB", 255, len(data)) if len(data) < 256 else struct.pack("=BI", 254, len(data))
    made = bytearray(struct.pack("=IIQBBHI", 24 + len(head) + len(data), 0, 0, info, manager, 0, 0) + head + data)
    if manager == 5:
        made[20:24] = _crc(made).to_bytes(4, sys.byteorder)
    return bytes(made) + bytes(-len(made) % 8)


def filler(length: int) -> bytes:
    """Records of somebody else that take so many bytes."""
    assert length % 8 == 0 and (not length or length >= 32)
    found = b""
    while length:
        step = 4000 if length >= 4032 else length
        found += record(bytes(step - (26 if step < 282 else 29)))
        length -= step
    return found


def create(path: str, oid: int = 16400) -> bytes:
    return record(struct.pack("=I", oid) + path.encode("utf-8", "surrogateescape") + b"\0", manager=5)


def segment(plain: bytes, *, number: int = 1, rest: int = 0) -> bytes:
    """Lay records out in the pages of a segment; `rest` bytes of them continue a record of the segment before."""
    starts = [0] if not rest else []
    at = -(-rest // 8) * 8
    while at + 4 <= len(plain) and int.from_bytes(plain[at : at + 4], sys.byteorder):
        starts.append(at)
        at += -(-int.from_bytes(plain[at : at + 4], sys.byteorder) // 8) * 8
    plain, found, taken = plain[:ROOM].ljust(ROOM, b"\0"), b"", 0
    for page in range(SIZE // PAGE):
        head = 24 if page else 40
        begun = max((s for s in starts if s < taken), default=0)
        length = int.from_bytes(plain[begun : begun + 4], sys.byteorder) if page and taken else 0
        left = rest if not page else max(begun + length - taken, 0)
        flags = (1 if left else 0) | (0 if page else 2)
        found += struct.pack("=HHIQI4x", 0xD116, flags, 1, number * SIZE + page * PAGE, left)
        found += b"" if page else struct.pack("=QII", 7, SIZE, PAGE)
        found += plain[taken : taken + PAGE - head]
        taken += PAGE - head
    assert len(found) == SIZE
    return found


def plain_of(content: bytes) -> bytes:
    return b"".join(content[at + (24 if at else 40) : at + PAGE] for at in range(0, SIZE, PAGE))


def paths_of(content: bytes) -> list[str]:
    """Where the tablespaces are made whose records are whole, by reading one record after the other."""
    plain, at, found = plain_of(content), 0, []
    while length := int.from_bytes(plain[at : at + 4], sys.byteorder):
        one = plain[at : at + length]
        if one[17] == 5 and _crc(one) == int.from_bytes(one[20:24], sys.byteorder):
            found.append(one[30 + 3 * (one[24] == 254) :].split(b"\0")[0].decode("utf-8", "surrogateescape"))
        at += -(-length // 8) * 8
    return found


@pytest.mark.parametrize("path", ["/x", "/srv/a b/\udcff", "/" + "long/" * 100])
@pytest.mark.parametrize("before", [0, 4000, *range(8152 - 144, 8152, 8), 8152 + 8168 - 40])
def test_a_record_is_found_and_changed_wherever_it_lies(path: str, before: int) -> None:
    """Also where a page ends in its middle: only its path and its sum are others then."""
    made = create(path)
    content = segment(filler(before) + made + filler(8000))
    (found,) = made_in(content, SIZE)
    assert found == Made(before, 16400, path)
    changed = led_to(content, SIZE, found, "t0")
    assert paths_of(changed) == ["t0"]
    assert [made.path for made in made_in(changed, SIZE)] == ["t0"]
    one, other = plain_of(content), plain_of(changed)
    assert one[:before] == other[:before]
    assert one[before + len(made) :] == other[before + len(made) :]


def test_what_only_looks_like_one_is_none() -> None:
    inside = record(bytes(6) + create("/in/a/row"))  # a row that holds WAL, aligned as it is
    dropped = record(struct.pack("=I", 16400), manager=5, info=0x10)
    other = record(struct.pack("=I", 16400) + b"/x\0", manager=6)
    broken = bytearray(create("/broken"))
    broken[21] ^= 1
    assert made_in(segment(inside + dropped + other + bytes(broken)), SIZE) == []
    good = segment(filler(9000 - 9000 % 8) + create("/old"))
    # A page of another turn of the file, behind the end of the WAL.
    old = bytearray(good)
    old[PAGE + 8 : PAGE + 16] = (5 * SIZE + PAGE).to_bytes(8, sys.byteorder)
    assert made_in(good, SIZE)
    assert made_in(bytes(old), SIZE) == []
    assert made_in(bytes(SIZE), SIZE) == []
    with pytest.raises(ValueError, match="does not fit"):
        led_to(good, SIZE, made_in(good, SIZE)[0], "/longer")


def two_segments(made: bytes, inside: int, number: int = 1) -> tuple[bytes, bytes]:
    """Lay a record across the border of two segments, with so many bytes of it in the first one."""
    length = int.from_bytes(made[:4], sys.byteorder)
    assert inside % 8 == 0
    assert inside < length
    first = segment(filler(ROOM - inside) + made, number=number)
    return first, segment(made[inside:] + filler(80), number=number + 1, rest=length - inside)


def across(first: bytes, second: bytes, inside: int, length: int) -> bytes:
    """The record that the two hold together."""
    return plain_of(first)[ROOM - inside :] + plain_of(second)[: length - inside]


LONG = "/" + "long/" * 50  # for which the head of the data is longer


@pytest.mark.parametrize("path", ["/srv/across the border", LONG, "/srv/elsewhere/\udcff"])
def test_across_the_border_of_two_segments_it_is_changed_in_both(path: str) -> None:
    """Wherever the border lies in it, both parts together are a record with the other path, whose sum is right; nothing else changes."""
    made = create(path)
    length = int.from_bytes(made[:4], sys.byteorder)
    for inside in [*range(8, min(length, 56), 8), (length - 1) // 8 * 8]:
        link = "t0" if inside % 16 else "t123"
        first, second = two_segments(made, inside)
        found, head, none = found_in(first, SIZE)
        assert (found, head, none) == ([], made[:inside], 0)
        assert found_in(second, 2 * SIZE) == ([], b"", length - inside)
        assert ended(second, 2 * SIZE, head) == Made(-inside, 16400, path)
        one, other = begun_with(first, SIZE, head, link), ended_with(second, 2 * SIZE, head, link)
        whole = across(one, other, inside, length)
        assert _crc(whole) == int.from_bytes(whole[20:24], sys.byteorder), inside
        at = 30 + 3 * (whole[24] == 254)
        assert whole[at:].split(b"\0")[0] == link.encode()
        assert (whole[:20], whole[24:at]) == (made[:20], made[24:at])
        assert plain_of(one)[: ROOM - inside] == plain_of(first)[: ROOM - inside]
        assert plain_of(other)[length - inside :] == plain_of(second)[length - inside :]
        assert (one == first) == (inside < at), "where nothing of the path lies it stays as it is"


def test_any_record_across_the_border_is_changed_right_or_not_at_all() -> None:
    """Whatever the path, the border and the rest of the two segments: a record of somebody else is never touched."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    for _each in range(60):
        path = "/" + "".join(chance.choice("ab /\u00e9") for _letter in range(chance.choice([1, 5, 9, 40, 300, 900])))
        ours = chance.randrange(3) > 0
        made = create(path, chance.randrange(1, 1 << 32))
        if not ours:  # its path would do, and it has another sum, manager or purpose
            made = bytearray(made)
            made[chance.choice([16, 17, 20, 25])] ^= 0x10
            made = bytes(made)
        length = int.from_bytes(made[:4], sys.byteorder)
        inside = chance.randrange(8, length, 8) if length > 8 else 8
        first, second = two_segments(made, inside)
        _found, head, _none = found_in(first, SIZE)
        it = ended(second, 2 * SIZE, head) if head else None
        said = (seed, path, inside, ours)
        assert (it is not None) == ours, said
        if it is None:
            continue
        assert (it.path, head) == (path, made[:inside]), said
        try:
            one, other = begun_with(first, SIZE, head, "t0"), ended_with(second, 2 * SIZE, head, "t0")
        except ValueError:
            assert len(path.encode()) < 6, said
            continue
        whole = across(one, other, inside, length)
        assert _crc(whole) == int.from_bytes(whole[20:24], sys.byteorder), said
        assert whole[30 + 3 * (whole[24] == 254) :].startswith(b"t0\0"), said


def test_where_the_last_transaction_ended_is_found() -> None:
    """Of commits and aborts, and no others; also where a page ends in the middle of one."""
    for before in (0, 4000, 8152 - 40, 8152 - 64, 8152 - 8):
        plain = filler(before) + record(bytes(50), manager=1) + filler(64)
        ended_at = at_lsn(len(plain) - 64)
        plain += record(bytes(50), manager=1, info=0x10) + record(bytes(50), manager=4)
        here = at_lsn(len(plain))
        plain += record(bytes(50), manager=1, info=0x20) + filler(96)
        content = segment(plain)
        assert last_end(content, SIZE, here) == ended_at
        assert last_end(content, SIZE, at_lsn(len(plain))) == at_lsn(len(plain) - 96)
        assert last_end(content, SIZE, at_lsn(len(plain)) + 8) is None, "nobody knows what comes there"
    assert last_end(segment(filler(4000)), SIZE, at_lsn(4000)) == SIZE
    assert last_end(bytes(SIZE), SIZE, SIZE + 800) is None


def at_lsn(plain: int) -> int:
    """The LSN of a byte of the segment 1, counted without the headers of its pages."""
    page, inside = divmod(plain - (PAGE - 40), PAGE - 24)
    return SIZE + (40 + plain if plain < PAGE - 40 else (page + 1) * PAGE + 24 + inside)


# --- where it may lie -------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one tablespace of its base backup."""
    found = tmp_path / "data"
    for folder in ("pg_wal", "pg_tblspc"):
        (found / folder).mkdir(parents=True)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "PG_16").touch()
    return found


def laid(data: Path, places: dict[str, str] | None = None, others: str = "") -> None:
    ours = {"/was/there": str(data.with_name("moved"))}
    tablespaces.lay(data, "", home=data, places=places or {}, ours=ours, others=others, numbers={})


def look(data: Path, *paths: str) -> list[str]:
    """Let a segment be looked into that makes tablespaces in `paths`; return where it makes them then."""
    file = data / "pg_wal" / NAME
    file.write_bytes(segment(b"".join(create(path) for path in paths)))
    tablespaces.look_into(str(data), NAME, str(file))
    return paths_of(file.read_bytes())


def test_without_a_recovery_of_ours_nothing_is_done(data: Path) -> None:
    assert look(data, "/live") == ["/live"]


def test_each_goes_where_it_may_lie(data: Path, tmp_path: Path) -> None:
    asked, empty = tmp_path / "asked for", tmp_path / "empty"
    empty.mkdir()
    laid(data, {"/asked": str(asked)})
    for _again in range(2):  # as when the server is started once more
        assert look(data, "/was/there", "/asked", str(empty)) == ["t0", "t1", str(empty)]
    assert (data / "t0").resolve() == (data / "pg_tblspc" / "t0").resolve() == tmp_path / "moved"
    assert (data / "pg_tblspc" / "t1").resolve() == asked
    assert tablespaces.made_by_wal(data) == {"/asked": str(asked), str(empty): str(empty)}
    assert tablespaces.made_anew(data) == [str(asked)]
    assert unproven.is_marked(asked, data)
    (data / "pg_tblspc" / "16400").symlink_to("t1")
    (data / "pg_tblspc" / "16401").symlink_to(empty)
    tablespaces.settle(data, promoted=False)
    assert (data / "pg_tblspc" / "16400").readlink() == asked
    assert (data / "t1").is_symlink()
    tablespaces.settle(data, promoted=True)
    assert sorted(path.name for path in data.iterdir()) == ["pg_tblspc", "pg_wal"]
    assert sorted(path.name for path in (data / "pg_tblspc").iterdir()) == ["16400", "16401"]
    tablespaces.settle(data, promoted=True)


def test_those_that_nobody_named_lie_beside(data: Path, tmp_path: Path) -> None:
    laid(data, others=str(tmp_path / "new"))
    assert look(data, "/one", "/two") == ["t0", "t1"]
    assert sorted(tablespaces.made_by_wal(data).values()) == [str(tmp_path / "new-2"), str(tmp_path / "new-3")]


def look_across(data: Path, path: str, inside: int, *, number: int = 1) -> str:
    """Let two segments be looked into, across whose border a tablespace is made in `path`; return where it is made then."""
    made = create(path)
    files = [data / "pg_wal" / segment_name(1, one, SIZE) for one in (number, number + 1)]
    for file, content in zip(files, two_segments(made, inside, number), strict=True):
        file.write_bytes(content)
        tablespaces.look_into(str(data), file.name, str(file))
    whole = across(*(file.read_bytes() for file in files), inside, int.from_bytes(made[:4], sys.byteorder))
    assert _crc(whole) == int.from_bytes(whole[20:24], sys.byteorder)
    return whole[30:].split(b"\0")[0].decode()


@pytest.mark.parametrize("inside", [8, 24, 32, 40])
def test_one_across_the_border_of_two_segments_goes_where_it_may_lie(data: Path, tmp_path: Path, inside: int) -> None:
    asked = tmp_path / "asked for"
    laid(data, {"/a path that is asked for": str(asked)})
    assert look(data, "/a path that is asked for") == ["t0"]
    for _again in range(2):  # as when the server is started once more
        assert look_across(data, "/a path that is asked for", inside) == "t1"
        assert look_across(data, "/was/there", inside, number=3) == "t2"
        assert (data / "t1").resolve() == (data / "pg_tblspc" / "t1").resolve() == asked
        assert (data / "t2").resolve() == (data / "pg_tblspc" / "t2").resolve() == tmp_path / "moved"
    assert tablespaces.has_links(data)
    assert tablespaces.made_by_wal(data) == {"/a path that is asked for": str(asked)}
    (data / "pg_tblspc" / "16400").symlink_to("t2")
    tablespaces.settle(data, promoted=True)
    assert (data / "pg_tblspc" / "16400").readlink() == tmp_path / "moved"
    assert sorted(path.name for path in data.iterdir()) == ["pg_tblspc", "pg_wal"]
    assert [path.name for path in (data / "pg_tblspc").iterdir()] == ["16400"]


@pytest.mark.parametrize("inside", [8, 40])
def test_a_first_part_that_comes_again_as_it_was_handed_over_is_the_same_record(data: Path, inside: int) -> None:
    """The client was killed before its rename, and the server asks once more for a segment that lies there changed."""
    laid(data)
    made = create("/was/there")
    files = [data / "pg_wal" / segment_name(1, one, SIZE) for one in (1, 2)]
    first, second = two_segments(made, inside, 1)
    files[0].write_bytes(first)
    for _again in range(2):
        tablespaces.look_into(str(data), files[0].name, str(files[0]))
    files[1].write_bytes(second)
    tablespaces.look_into(str(data), files[1].name, str(files[1]))
    whole = across(*(file.read_bytes() for file in files), inside, int.from_bytes(made[:4], sys.byteorder))
    assert _crc(whole) == int.from_bytes(whole[20:24], sys.byteorder)
    assert whole[30:].split(b"\0")[0] == b"t0"


def test_what_goes_on_across_a_border_and_makes_no_tablespace_is_left_alone(data: Path) -> None:
    laid(data)
    other = record(bytes(60))
    for number in (1, 3):
        files = [data / "pg_wal" / segment_name(1, one, SIZE) for one in (number, number + 1)]
        for file, content in zip(files, two_segments(other, 16, number), strict=True):
            file.write_bytes(content)
            tablespaces.look_into(str(data), file.name, str(file))
            assert file.read_bytes() == content
    assert not tablespaces.has_links(data)
    known = json.loads((data / tablespaces.FILE).read_text())["begun"]
    assert list(known) == ["4"], "what came to nothing is forgotten"
    # The next one has nothing to do with what is remembered of the one before.
    file = data / "pg_wal" / segment_name(1, 4, SIZE)
    file.write_bytes(segment(create("/live")[16:] + filler(80), number=4, rest=14))
    tablespaces.look_into(str(data), file.name, str(file))
    assert not tablespaces.has_links(data)


@pytest.mark.parametrize("why", ["is not empty", "cannot be used", "too short"])
def test_what_may_lie_nowhere_is_not_handed_over(data: Path, tmp_path: Path, why: str) -> None:
    live = tmp_path / "live"
    live.mkdir()
    (live / "PG_16").touch()
    laid(data)
    path = {"is not empty": str(live), "cannot be used": str(tmp_path / "no" / "where"), "too short": "/a"}[why]
    if why == "too short":
        laid(data, others=str(tmp_path / "new"))
    for inside in (0, 24) if why != "too short" else (24,):
        with pytest.raises(RefusedError, match=why):
            look_across(data, path, inside) if inside else look(data, path)
    said, todo = tablespaces.refused(data)
    assert why in said
    assert todo
    assert [path.name for path in live.iterdir()] == ["PG_16"]


def test_what_an_earlier_recovery_led_elsewhere_is_known(data: Path, tmp_path: Path) -> None:
    """At the promotion the segment with the changed record has become one of the new timeline, and was archived."""
    laid(data)
    with pytest.raises(RefusedError, match="that an earlier recovery led elsewhere"):
        look(data, "t0")
    laid(data, {"/asked": str(tmp_path / "asked for")})
    assert look(data, "/asked") == ["t0"]
    assert look(data, "t0") == ["t0"], "this one has led it there itself"
    laid(data, others=str(tmp_path / "new"))
    assert look(data, "t7", "t70") == ["t0", "t1"]


def test_a_call_that_was_ended_midway_can_be_made_again(data: Path, tmp_path: Path) -> None:
    laid(data)
    unproven.mark(tmp_path / "marked", data, "")
    assert look(data, str(tmp_path / "marked")) == [str(tmp_path / "marked")]
    unproven.mark(tmp_path / "of another", tmp_path, "")
    with pytest.raises(RefusedError, match="is not empty"):
        look(data, str(tmp_path / "of another"))


def test_what_has_become_a_standby_is_left_alone(data: Path) -> None:
    laid(data, {"/live": str(data.with_name("new"))})
    (data / "standby.signal").touch()
    assert look(data, "/live") == ["/live"]
    assert not tablespaces.has_links(data)
    (data / "standby.signal").unlink()
    assert look(data, "/live") == ["t0"]
    assert tablespaces.has_links(data)


def test_a_file_that_cannot_be_read_hands_over_nothing(data: Path) -> None:
    (data / tablespaces.FILE).write_text("{")
    with pytest.raises(DamagedError, match="cannot be read"):
        look(data, "/live")


def test_what_is_no_segment_is_not_looked_into(data: Path) -> None:
    laid(data)
    for name, content in ((NAME, b"cut"), ("00000002.history", segment(create("/live")))):
        (data / "pg_wal" / name).write_bytes(content)
        tablespaces.look_into(str(data), name, str(data / "pg_wal" / name))
    assert tablespaces.refused(data) == []
