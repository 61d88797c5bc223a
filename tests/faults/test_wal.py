# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL archive when it is killed, when its disk is full, and when S3 is away: PostgreSQL is never told a lie."""

from __future__ import annotations

import itertools
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import parse_stored, segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import wal_ship
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.pack import unpack
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.spool import sha256
from tests.faults.small_disk import fill, small_disk
from tests.integration.s3_fixtures import Kit, Proxy, Refuse
from tests.integration.wal_fixtures import MIB, Commands


def test_a_killed_archive_leaves_the_whole_file_or_none_and_the_next_one_succeeds(tmp_path: Path) -> None:
    commands = Commands(tmp_path, tmp_path / "backups")
    outcomes = set()
    for number in range(1, 7):
        path = commands.write(number, noise=2 * MIB)
        before = set(commands.stored())
        process = commands.start("archive", path)
        # A call takes an eighth to a fourth of a second, so this hits each of its steps.
        time.sleep(0.035 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        fresh = [stored for stored in set(commands.stored()) - before if parse_stored(stored.name)[0]]
        for stored in fresh:
            assert sha256(unpack(stored.read_bytes())) == parse_stored(stored.name)[1]
        outcomes.add((process.returncode, bool(fresh)))
        commands("archive", path)
        commands("archive", path)
        commands("fetch", path.rpartition("/")[2], "pg_wal/RECOVERYXLOG")
        assert (commands.data / "pg_wal" / "RECOVERYXLOG").read_bytes() == (commands.data / path).read_bytes()
    assert (-signal.SIGKILL, False) in outcomes
    assert len(commands.stored()) == 6, "something is left of the killed ones"


def test_a_full_spool_is_told_to_postgresql_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(32) as disk:
        commands = Commands(tmp_path, disk / "backups", wal={"compression": "none"})
        (disk / "backups").mkdir()
        first, second = commands.write(1), commands.write(2)
        commands("archive", first)
        ballast = fill(disk, leave=4 * MIB)
        said = commands("archive", second, code=1)
        assert "is full" in said
        assert "Make room" in said
        assert [parse_stored(path.name)[0] for path in commands.stored()] == [first.rpartition("/")[2]]
        assert commands("archive", first) == "", "what is there already needs no room"
        ballast.unlink()
        commands("archive", second)
        assert len(commands.stored()) == 2


class Rounds:
    """Stands between the rounds of a shipping loop: S3 comes back before the third, and the service is ended after it."""

    def __init__(self, context: Context, proxy: Proxy) -> None:
        self.context, self.proxy, self.pending = context, proxy, list[int]()

    def __call__(self, _seconds: float) -> None:
        state = json.loads((self.context.state / "wal-ship.json").read_text())
        self.pending.append(state["pending"])
        assert bool(state["error"]) == (len(self.pending) < 3)
        if len(self.pending) == 2:
            self.proxy.fault = lambda asked: None
        if len(self.pending) == 3:
            raise KeyboardInterrupt


def spooled(context: Context, commands: Commands, numbers: range) -> list[Path]:
    """Archive segments into the spool of the context and return what lies there."""
    values = json.loads(commands.config.read_text())
    commands.config.write_text(json.dumps({**values, "instance": context.config.instance}))
    for number in numbers:
        commands("archive", commands.write(number))
    return sorted(path for path in context.local.home.rglob("*") if path.is_file())


def test_s3_that_is_away_loses_nothing_and_is_told_once(
    moto_kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(moto_kit.server.endpoint_url) as proxy:
        context = moto_kit.context(proxy.url)
        # The same place, which is not asked again for half a minute, neither by us nor by botocore.
        real = time.sleep
        monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))
        monkeypatch.setattr(Context, "s3", lambda _context: moto_kit.place(proxy.url, tries=2))
        ticks = itertools.count()
        context.clock = lambda: datetime.now(UTC) + timedelta(seconds=next(ticks))
        commands = Commands(tmp_path / "server", Path(context.config.local.path))
        spool = spooled(context, commands, range(1, 4))
        proxy.fault = lambda asked: Refuse(503, "SlowDown")
        rounds = Rounds(context, proxy)
        result = wal_ship.ship(context, wal_ship.Request(loop=True), sleep=rounds)
    assert (result["sent"], result["pending"], rounds.pending) == (3, 0, [3, 3, 0])
    assert [path for path in spool if not path.exists()] == [], "what was sent stays for its time"
    there = [path for path in moto_kit.raw_paths() if path.startswith("wal/")]
    assert there == [path.relative_to(context.local.home).as_posix() for path in spool]
    # Told once when it began and once when it was over, not each time that it was tried.
    records = [json.loads(path.read_text()) for path in sorted((context.state / "runs").glob("*wal-ship*.json"))]
    assert [record["outcome"] for record in records] == ["unreachable", "ok"]


def test_a_damaged_file_of_the_spool_is_not_sent_and_the_others_are(moto_kit: Kit, tmp_path: Path) -> None:
    context = moto_kit.context()
    spool = spooled(context, Commands(tmp_path / "server", Path(context.config.local.path)), range(1, 4))
    spool[1].write_bytes(spool[1].read_bytes()[:-1])
    with pytest.raises(DamagedError, match="1 files in the WAL spool are damaged") as caught:
        wal_ship.ship(context, wal_ship.Request())
    assert (caught.value.details["sent"], caught.value.details["pending"]) == (2, 1)
    assert len([path for path in moto_kit.raw_paths() if path.startswith("wal/")]) == 2


def test_a_store_that_is_gone_ends_no_recovery(moto_kit: Kit, tmp_path: Path) -> None:
    section = {
        "bucket": "backups",
        "endpoint_url": "http://127.0.0.1:9",
        "access_key": "a",
        "secret_key": "b",
        "addressing_style": "path",
    }
    commands = Commands(tmp_path, tmp_path / "backups", s3=section)
    assert "→" in commands("fetch", segment_name(1, 1, 16 * MIB), "pg_wal/RECOVERYXLOG", code=204)
    assert not (commands.data / "pg_wal" / "RECOVERYXLOG").exists()
