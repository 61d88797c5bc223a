# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that was being dropped where a recovery stopped is told by name, and is no success where that can be helped."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_end import Stopped
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.dropping import (
    DroppedError,
    check_dropped,
    once_more,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recovery_plan import Earlier

AT_ITS_END = "recovery stopping before commit of transaction 758, time 2026-11-27 11:16:12.761866+00"
AT_AN_LSN = 'recovery stopping after WAL location (LSN) "0/30001F0"'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with the files of the databases 5 and 16400, and of 16401 in the tablespace 16500."""
    for folder in ("base/5", "base/16400", "pg_tblspc/16500/PG_18_202506291/16401", "pg_wal"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "PG_VERSION").touch()
    return tmp_path


def checked(data: Path, log: str, *rows: tuple[Any, ...], **asked: Any) -> list[str]:
    base = SimpleNamespace(segment_bytes=16 << 20, end=0x2000120, next_xid=(7 << 32) + asked.get("next_xid", 750))
    work: Any = SimpleNamespace(
        data=data,
        chosen=SimpleNamespace(base=base),
        request=SimpleNamespace(database=asked.get("database", ""), target=Target("time")),
        instead=asked.get("instead"),
    )
    session: Any = SimpleNamespace(rows=lambda _sql: [(5, 1663, "postgres", -1, "0"), *rows])
    stopped = Stopped(asked.get("position", 0x3000398), None, 2, log, quiet=asked.get("quiet", False))
    return check_dropped(work, session, stopped)


def segment_of(data: Path) -> None:
    """A segment with two records, up to 0x3000060: the first one a commit, the second one not."""
    content = bytearray(16 << 20)
    content[0:40] = struct.pack("=HHIQIIQII", 0xD118, 2, 1, 0x3000000, 0, 0, 7312345678901234567, 16 << 20, 8192)
    for at, manager in ((40, 1), (64, 0)):
        content[at : at + 24] = struct.pack("=IIQBBHI", 24, 757, 0, 0, manager, 0, 0)
    (data / "pg_wal" / "000000010000000000000003").write_bytes(content)


def test_what_is_whole_is_not_told_of(data: Path) -> None:
    assert checked(data, AT_ITS_END, (16400, 1663, "shop", -1, "758"), (16401, 16500, "far", 5, "0")) == []


@pytest.mark.parametrize(
    "row", [(16400, 1663, "gone", -2, "758"), (16402, 1663, "gone", -1, "758"), (16402, 16500, "gone", -1, "758")]
)
def test_what_the_transaction_drops_at_whose_end_it_stopped_is_no_success(data: Path, row: tuple[Any, ...]) -> None:
    """As the catalog says, or its files: older servers do not mark it."""
    with pytest.raises(DroppedError, match=r"without the database 'gone', .*the transaction 758") as caught:
        checked(data, AT_ITS_END, row)
    assert caught.value.earlier is None, "no WAL is there"
    assert "--to-xid" in caught.value.hint
    with pytest.raises(DroppedError):
        checked(data, AT_ITS_END, row, position=None)
    assert checked(data, AT_ITS_END, row, database="shop") == []


def test_elsewhere_it_is_told_and_no_success_for_whoever_asked_for_that_one(data: Path) -> None:
    """The original may have such a one for long, of a removal that was interrupted."""
    row = (16400, 1663, "gone", -2, "0")
    (said,) = checked(data, AT_AN_LSN, row)
    assert "Nobody can connect to the database 'gone'" in said
    assert "--exclusive" in said
    with pytest.raises(DroppedError, match="without the database 'gone', which was being dropped: "):
        checked(data, AT_AN_LSN, row, database="gone")


def test_what_is_not_whole_at_the_second_time_either_is_no_success(data: Path) -> None:
    instead = Earlier(Target("lsn", position=0x3000000), ("gone", "lost"), None)
    assert "The databases 'gone', 'lost' were dropped" in once_more(instead)
    with pytest.raises(DroppedError) as caught:
        checked(data, AT_AN_LSN, (16400, 1663, "gone", -2, "0"), instead=instead)
    assert caught.value.earlier is None


@pytest.mark.parametrize(
    ("log", "quiet", "next_xid", "dropper"),
    [
        (AT_ITS_END, False, 750, "757"),
        (AT_AN_LSN, True, 757, "757"),  # the archive ends in the midst of the removal
        (AT_AN_LSN, True, 0xFFFFFFF0, "757"),  # the numbers have begun anew since the base backup
    ],
)
def test_where_another_transaction_ended_in_the_midst_of_a_removal_all_is_done_once_more(
    data: Path, log: str, quiet: bool, next_xid: int, dropper: str
) -> None:
    """The server stops at the end of that one; by the target the removal may not have begun, but nothing tells."""
    rows = [(16402, 1663, "gone", -2, dropper), (16403, 1663, "old", -2, "740"), (16404, 1663, "zero", -2, "0")]
    asked: dict[str, Any] = {"quiet": quiet, "next_xid": next_xid, "position": 0x3000058}
    remarks = checked(data, log, *rows, **asked)
    assert len(remarks) == 3, "where no WAL tells of an earlier moment, nobody knows"
    assert all("as the original may show" in text for text in remarks)
    segment_of(data)
    with pytest.raises(DroppedError, match="without the database 'gone', which was being dropped: ") as caught:
        checked(data, log, *(rows if next_xid == 757 else rows[:1]), **asked)
    earlier = caught.value.earlier
    assert earlier is not None
    assert (earlier.target.position, earlier.target.inclusive) == (0x3000040, False)
    assert (earlier.databases, earlier.begun) == ((), ("gone",))
    said = once_more(earlier)
    assert "The database 'gone' was being dropped where the server stopped" in said
    assert "unless a removal had begun by then" in said
    assert "first transaction" not in said
    # Then it had begun before the last transaction ended, and the original was so as well.
    (told,) = checked(data, AT_AN_LSN, rows[0], instead=earlier)
    assert "the database 'gone'" in told
    with pytest.raises(DroppedError, match="'gone'") as caught:
        checked(data, AT_AN_LSN, rows[0], instead=earlier, database="gone")
    assert caught.value.earlier is None


def test_of_those_both_the_certain_one_is_held_to_be_whole_then(data: Path) -> None:
    segment_of(data)
    rows = [(16402, 1663, "along", -2, "757"), (16403, 1663, "gone", -2, "758"), (16404, 1663, "old", -2, "740")]
    with pytest.raises(DroppedError, match="without the database 'along', 'gone', which") as caught:
        checked(data, AT_ITS_END, *rows, position=0x3000058)
    earlier = caught.value.earlier
    assert earlier is not None
    assert (earlier.databases, earlier.begun) == (("gone",), ("along",))
    said = once_more(earlier)
    assert (
        "'gone' was dropped by the first transaction that ended behind the target. The database 'along' was being"
        in said
    )
    with pytest.raises(DroppedError, match="without the database 'gone', which"):
        checked(data, AT_AN_LSN, *rows, instead=earlier)
