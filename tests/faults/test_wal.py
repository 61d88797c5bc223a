# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL archive when it is killed, when its disk is full, and when S3 is away: PostgreSQL is never told a lie."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    RefusedError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import parse_stored, segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert, alert_facts, wal_ship
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import wal_status
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.archive import archive
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.brief import Brief, values_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.pack import unpack
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.shipping import last_state
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.spool import sha256
from demo.servers import RcloneS3
from tests.faults.small_disk import fill, small_disk
from tests.integration.alert_receivers import HttpReceiver, receiver_here  # noqa: F401  # pylint: disable=unused-import
from tests.integration.s3_fixtures import BUCKET, Kit, Proxy, Refuse
from tests.integration.wal_fixtures import MIB, Commands, data_directory, segment


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


class Steps:
    """Counts the steps of archive() that change something on disk, and remembers which names would survive a power cut."""

    def __init__(self, patch: pytest.MonkeyPatch, dies_at: int = 0) -> None:
        self.count, self.dies_at = 0, dies_at
        self.made: set[str] = set()
        self.safe: set[str] = set()
        for name in ("mkdir", "rename", "unlink", "utime", "fsync"):
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            synced = os.readlink("/proc/self/fd/%d" % words[0]) if name == "fsync" else ""
            done = real(*words, **options)
            if name in ("mkdir", "rename"):
                self.made.add(str(words[-1] if name == "rename" else words[0]))
            self.safe |= {made for made in self.made if os.path.dirname(made) == synced}
            return done

        return call


def test_a_kill_between_any_two_steps_leaves_no_name_that_a_power_cut_takes_away(tmp_path: Path) -> None:
    data = data_directory(tmp_path / "data")
    path = data / "pg_wal" / segment_name(1, 1, MIB)
    path.write_bytes(segment(1, size=MIB))

    def settings(home: Path) -> Brief:
        values = {"instance": "db1", "local": {"path": str(home / "backups")}, "wal": {"compression": "gzip"}}
        return Brief(values_of(config.build(values, environ={}, host="h")))

    fresh: list[bool] = []
    for step in itertools.count(1):
        home = tmp_path / str(step)
        home.mkdir()
        child = os.fork()
        if not child:
            with pytest.MonkeyPatch.context() as patch:
                Steps(patch, dies_at=step)
                archive(settings(home), str(path))
            os._exit(0)
        died = os.waitpid(child, 0)[1] != 0
        before = [stored for stored in home.rglob("0*") if parse_stored(stored.name)[0]]
        assert all(sha256(unpack(stored.read_bytes())) == parse_stored(stored.name)[1] for stored in before)
        there = {str(made) for made in home.rglob("*") if made.is_dir()}
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch)
            # What the one before made counts as lost with the power, until it is made durable again.
            steps.made |= there | {str(stored) for stored in before}
            fresh.append(archive(settings(home), str(path)))
        assert fresh[-1] is not bool(before)
        (stored,) = [stored for stored in home.rglob("*") if stored.is_file()]
        assert sha256(unpack(stored.read_bytes())) == parse_stored(stored.name)[1]
        if died and not before:
            inside = {str(above) for above in stored.parents if home in above.parents}
            assert {str(stored), *inside} <= steps.safe, step
        elif died:
            assert str(stored) in steps.safe
        else:
            break
    assert step > 12
    assert {*fresh} == {True, False}


def test_a_full_spool_is_told_to_postgresql_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(32) as disk:
        commands = Commands(tmp_path, tmp_path / "backups", wal={"compression": "none"})
        (tmp_path / "backups" / "db1").mkdir(parents=True)
        (disk / "wal").mkdir()
        commands.top.symlink_to(disk / "wal")  # a disk of its own for the WAL alone
        first, second = commands.write(1), commands.write(2)
        commands("archive", first)
        ballast = fill(disk, leave=4 * MIB)
        said = commands("archive", second, code=1)
        assert "is full" in said
        assert "Make room" in said
        assert [parse_stored(path.name)[0] for path in commands.stored()] == [first.rpartition("/")[2]]
        values = json.loads(commands.config.read_text())
        context = Context(config.build({**values, "wal": {"enabled": True}}, environ={}, host="h"), "h")
        told = {(one["check"], one["severity"]): one["text"] for one in wal_status(context)["findings"]}
        assert "4.0 MiB are free for WAL, and a segment may need more" in told[("wal room", "critical")]
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


class Host:
    """A host on a small disk whose server ends a segment a minute, with the shipping and the alert job, and a clock of its own."""

    def __init__(self, kit: Kit, disk: Path, receiver: HttpReceiver) -> None:
        self.kit, self.receiver = kit, receiver
        self.now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=4)
        sections = {
            "instance": kit.instance,
            "local": {"path": str(disk / "backups")},
            "state_dir": str(kit.tmp / "state"),
            "log_dir": "",
            "s3": dataclasses.asdict(kit.s3()),
            "backup": {"min_free": "1MiB"},
            "postgres": {"login_unix_socket": "/nowhere"},
            "wal": {"enabled": True, "keep_local": "30min", "compression": "none"},
            "alerts": {"slack": {"webhook_url": receiver.url + "/slack/secret"}, "timeout": 30},
        }
        self.context = Context(config.build(sections, environ={}, host="h"), "h", clock=lambda: self.now)
        self.brief = Brief(values_of(self.context.config))
        self.data = data_directory(kit.tmp / "data")
        self.archived: list[str] = []

    def minutes(self, count: int, *, write: bool, down: bool = False) -> None:
        """Let so much time pass; each five minutes the shipping looks and then the alert job."""
        for minute in range(1, count + 1):
            self.now += timedelta(minutes=1)
            if write:
                self.write()
            if minute % 5:
                continue
            self.context.warnings.clear()
            with pytest.raises(UnreachableError) if down else contextlib.nullcontext():
                wal_ship.ship(self.context, wal_ship.Request())
            alert.evaluate(self.context)

    def write(self) -> None:
        """Archive the next segment."""
        number = 1 + len(self.archived)
        path = self.data / "pg_wal" / segment_name(1, number, MIB)
        path.write_bytes(segment(number, size=MIB))
        written = (self.now - timedelta(seconds=30)).timestamp()
        os.utime(path, (written, written))
        assert archive(self.brief, str(path))
        self.archived.append(path.name)

    def told(self, level: str, words: str) -> list[str]:
        """What a person heard at that level with these words in it."""
        heard = [request.json["text"] for request in self.receiver.of("/slack")]
        return [text for text in heard if text.startswith(level) and words in text]


def test_an_hour_without_s3_is_told_and_so_is_its_end_and_no_segment_is_lost(
    tmp_path: Path, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is a process that is really gone, and back."""
    waiting, room = "of WAL wait for S3", "are free for WAL; at"
    with small_disk(256) as disk, RcloneS3(tmp_path) as server:
        server.create_bucket(BUCKET)
        kit = Kit(server, "rclone", tmp_path)
        # The same place wherever it listens; it is not asked again for half a minute, neither by us nor by botocore.
        real = time.sleep
        monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))
        monkeypatch.setattr(Context, "s3", lambda _context: kit.place(tries=2))
        monkeypatch.setattr(alert_facts, "_UPTIME", tmp_path / "none")
        host = Host(kit, disk, receiver)
        host.minutes(5, write=True)
        assert host.told("", waiting) == host.told("", room) == [], "while all is well nobody is told of WAL"
        server.end()
        host.minutes(60, write=True, down=True)
        assert (len(host.told("WARNING", waiting)), len(host.told("WARNING", room))) == (1, 1)
        assert last_state(host.context)["pending"] == 60
        server.begin()
        host.minutes(5, write=False)
        assert last_state(host.context)["pending"] == 0
        assert len(host.told("RECOVERED", waiting)) == 1
        there = [path for path in kit.raw_paths() if path.startswith("wal/")]
        assert [parse_stored(path.rpartition("/")[2])[0] for path in there] == host.archived, "none is lost"
        for path, name in zip(there, host.archived, strict=True):
            assert kit.raw_read(path) == (host.data / "pg_wal" / name).read_bytes()
        # What has arrived leaves in its time, and so the room comes back.
        host.minutes(65, write=False)
        assert len(host.told("RECOVERED", room)) == 1
    records = [json.loads(path.read_text()) for path in sorted((host.context.state / "runs").glob("*wal-ship*.json"))]
    assert [record["outcome"] for record in records] == ["unreachable", "ok"]


def test_a_damaged_file_of_the_spool_is_not_sent_and_the_others_are(moto_kit: Kit, tmp_path: Path) -> None:
    context = moto_kit.context()
    spool = spooled(context, Commands(tmp_path / "server", Path(context.config.local.path)), range(1, 4))
    spool[1].write_bytes(spool[1].read_bytes()[:-1])
    with pytest.raises(DamagedError, match="1 files in the WAL spool are damaged") as caught:
        wal_ship.ship(context, wal_ship.Request())
    assert (caught.value.details["sent"], caught.value.details["pending"]) == (2, 1)
    assert len([path for path in moto_kit.raw_paths() if path.startswith("wal/")]) == 2


def test_two_hosts_that_archive_to_one_place_do_not_spoil_what_is_there(kit: Kit, tmp_path: Path) -> None:
    """A copy of a machine with the configuration of the original: both were the same server up to segment 2."""
    first, second = kit.context(home="first"), kit.context(home="second")
    data = data_directory(tmp_path / "data")

    def keep(context: Context, *numbers: int, seed: int = 0) -> None:
        for number in numbers:
            path = data / "pg_wal" / segment_name(1, number, MIB)
            path.write_bytes(segment(number, size=MIB, seed=seed))
            assert archive(Brief(values_of(context.config)), str(path))

    keep(first, 1, 2, 3, 4)
    keep(second, 1, 2)
    assert wal_ship.ship(first, wal_ship.Request())["sent"] == 4
    keep(second, 3, 4, 5, seed=1)
    told = []
    for _again in range(2):
        with pytest.raises(RefusedError, match="Another server archives to the same place") as caught:
            wal_ship.ship(second, wal_ship.Request())
        assert caught.value.exit_code == 5
        told.append([caught.value.details[key] for key in ("sent", "pending")])
    assert told == [[1, 2], [0, 2]], "what nobody else has goes"

    numbers = iter((6, 7))

    def sleep(_seconds: float) -> None:
        """Let the first host be quicker, though the second one does not list the whole place again."""
        number = next(numbers, 0)
        if not number:
            raise KeyboardInterrupt
        keep(first, number)
        assert wal_ship.ship(first, wal_ship.Request())["sent"] == 1
        keep(second, number, seed=1)

    result = wal_ship.ship(second, wal_ship.Request(loop=True), sleep=sleep)
    assert (result["sent"], result["pending"]) == (0, 4)
    there = [path for path in kit.raw_paths() if path.startswith("wal/")]
    assert [parse_stored(path.rpartition("/")[2])[0] for path in there] == [
        segment_name(1, number, MIB) for number in range(1, 8)
    ]
    assert len([path for path in second.local.home.rglob("0*-*") if path.is_file()]) == 7
    found = [one for one in wal_status(second)["findings"] if one["check"] == "wal contradiction"]
    assert [(one["severity"], segment_name(1, 3, MIB) in one["text"]) for one in found] == [("critical", True)]
    records = [json.loads(path.read_text()) for path in sorted((second.state / "runs").glob("*wal-ship*.json"))]
    assert [record["outcome"] for record in records] == ["refused"], "told once, however many there are"


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
