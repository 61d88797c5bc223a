# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of a large file stays when its fetch breaks, and counts only as far as it is what it says."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.fetched import (
    Fetched,
    forget,
    is_begun,
    list_beside,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_download import Reader
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import (
    Bandwidth,
    Patience,
    Slots,
    StoppedError,
    parts_of,
)

CONTENT = os.urandom(1050)
PLAN = parts_of(len(CONTENT), 100)
ABOUT = {"etag": '"e"', "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), "part_size": 100}


def opened(target: Path, about: Any = ABOUT, *, alive: Callable[[], object] = lambda: None) -> Fetched:  # pylint: disable=dangerous-default-value
    return Fetched(target, len(CONTENT), PLAN, about, alive)


def begun(folder: Path, *numbers: int) -> Path:
    """Return a file of which these parts have come."""
    target = folder / "large"
    fetched = opened(target)
    assert fetched.parts == {}
    for part in PLAN:
        if part.number in numbers:
            content = CONTENT[part.offset : part.offset + part.size]
            fetched.write(part, [content[:20], content[20:]])
    fetched.close()
    return target


def held(target: Path, about: Any = ABOUT) -> list[int]:  # pylint: disable=dangerous-default-value
    """Return the numbers of the parts that are whole when it is opened again."""
    fetched = opened(target, about)
    fetched.close()
    assert target.stat().st_size == len(CONTENT)
    return sorted(fetched.parts)


def test_parts_that_came_are_whole_the_next_time_and_the_time_after(tmp_path: Path) -> None:
    target = begun(tmp_path, 2, 5, 11)
    assert is_begun(target)
    assert {path.stat().st_mode & 0o777 for path in (target, list_beside(target))} == {0o600}
    assert held(target) == held(target) == [2, 5, 11]
    fetched = opened(target)
    fetched.write(PLAN[0], [CONTENT[:100]])
    fetched.close()
    assert held(target) == [1, 2, 5, 11]
    fetched.done()
    assert [path.name for path in tmp_path.iterdir()] == ["large"]
    assert not is_begun(target)


def test_a_part_that_was_altered_does_not_count(tmp_path: Path) -> None:
    target = begun(tmp_path, 2, 5)
    with target.open("r+b") as stream:
        stream.seek(450)
        stream.write(bytes([CONTENT[450] ^ 1]))
    assert held(target) == [2]


@pytest.mark.parametrize(
    "about", [{**ABOUT, "etag": '"f"'}, {**ABOUT, "sha256": "0" * 64}, {**ABOUT, "part_size": 50}, {}]
)
def test_what_came_of_another_object_is_removed(tmp_path: Path, about: Any) -> None:
    target = begun(tmp_path, 2, 5)
    assert held(target, about) == []
    assert target.read_bytes() == bytes(len(CONTENT))


def test_an_object_without_an_etag_may_be_any(tmp_path: Path) -> None:
    target = begun(tmp_path, 2)
    list_beside(target).write_text(list_beside(target).read_text().replace(r"\"e\"", ""))
    assert held(target, {**ABOUT, "etag": ""}) == []


@pytest.mark.parametrize("text", [b"", b"\n", b"[1, 2]\n2 x\n", b"\xff\xfe\n", b"[" * 100_000, b"{}\n"])
def test_what_is_no_list_begins_anew(tmp_path: Path, text: bytes) -> None:
    target = begun(tmp_path, 2)
    list_beside(target).write_bytes(text)
    assert held(target) == []
    assert json.loads(list_beside(target).read_text().splitlines()[0]) == ABOUT


def test_lines_that_are_cut_or_wrong_do_not_count_and_hurt_no_other(tmp_path: Path) -> None:
    target = begun(tmp_path, 2, 5, 7)
    right = list_beside(target).read_bytes()
    lines = right.splitlines()
    wrong = [b"99 " + b"0" * 64, b"-1 x", b"3", b"", b"\xff", b"5 " + b"0" * 64, lines[3][:20]]
    list_beside(target).write_bytes(b"\n".join([*lines, *wrong]))
    assert held(target) == [2], "of two lines about a part the last counts"
    list_beside(target).write_bytes(right[:-3])
    fetched = opened(target)
    fetched.write(PLAN[6], [CONTENT[600:700]])
    fetched.close()
    assert held(target) == [2, 5, 7], "the line that was cut is ended first"


def test_a_file_of_another_length_begins_anew(tmp_path: Path) -> None:
    target = begun(tmp_path, 1)
    os.truncate(target, 700)
    assert held(target) == []


def test_a_link_is_nothing_that_came(tmp_path: Path) -> None:
    target = begun(tmp_path, 1)
    target.rename(tmp_path / "other")
    target.symlink_to(tmp_path / "other")
    assert not is_begun(target)
    with pytest.raises(FileExistsError):
        opened(target)
    assert (tmp_path / "other").read_bytes()[:100] == CONTENT[:100]


def test_without_a_word_about_the_object_there_is_no_list_and_no_way_on(tmp_path: Path) -> None:
    another = list_beside(tmp_path / "large")
    another.write_bytes(b"named so by chance")
    fetched = opened(tmp_path / "large", None)
    fetched.write(PLAN[0], [CONTENT[:100]])
    fetched.close()
    fetched.done()
    assert (tmp_path / "large").read_bytes()[:100] == CONTENT[:100]
    assert another.read_bytes() == b"named so by chance"
    with pytest.raises(FileExistsError):
        opened(tmp_path / "large", None)
    forget(tmp_path / "large")
    assert list(tmp_path.iterdir()) == []


def test_a_stop_is_heard_while_parts_are_read(tmp_path: Path) -> None:
    target = begun(tmp_path, 1, 2, 3)

    def stopped() -> None:
        raise StoppedError("The transfer was stopped.")

    with pytest.raises(StoppedError):
        opened(target, alive=stopped)
    assert held(target) == [1, 2, 3]


def test_the_list_of_a_file_with_the_longest_name_has_a_name(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    target.touch()
    assert not is_begun(target)
    list_beside(target).touch()
    assert is_begun(target)
    assert list_beside(target) != list_beside(tmp_path / ("n" * 254))


class Generous:
    """A store that answers a request for a range with more of the object, and says so: no real one that we have does."""

    bucket, endpoint, patience = "b", "http://store", Patience()

    def try_once(self, _operation: str, _key: str, **asked: str) -> Any:
        begin = int(asked["Range"].partition("=")[2].partition("-")[0])
        content = CONTENT[begin:] + b"more"
        return {"ContentLength": len(content), "ContentRange": "bytes", "ETag": '"e"', "Body": io.BytesIO(content)}

    def may_pass(self, _error: Exception) -> bool:
        return False


def test_more_than_was_asked_for_is_damage_and_lies_on_no_neighbour() -> None:
    store: Any = Generous()
    reader = Reader(store, Bandwidth(0), Slots(1))
    with pytest.raises(DamagedError, match="with more than was asked for"):
        b"".join(reader.stream("k", start=0, size=10))
