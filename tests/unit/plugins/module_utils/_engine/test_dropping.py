# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that was being dropped where a recovery stopped is told by name, and is no success where that can be helped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Stopped, Target
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
    base = SimpleNamespace(segment_bytes=16 << 20, end=0x2000120)
    work: Any = SimpleNamespace(
        data=data,
        chosen=SimpleNamespace(base=base),
        request=SimpleNamespace(database=asked.get("database", ""), target=Target("time")),
        instead=asked.get("instead"),
    )
    session: Any = SimpleNamespace(rows=lambda _sql: [(5, 1663, "postgres", -1, "0"), *rows])
    return check_dropped(work, session, Stopped(asked.get("position", 0x3000398), None, 2, log))


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
