# SPDX-License-Identifier: GPL-3.0-or-later
"""Ship, status, info and prune about WAL: what goes to S3, what stays, and what is said of it."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import shutil
import struct
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import show
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.progress import ProgressReporter
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    DamagedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import (
    segment_name,
    show_lsn,
    size_mark,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_health import ServerWal
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.window import Base
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.base import Entry
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import status as status_verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import wal_ship, wal_status
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import Request as Info
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import info
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.making import check_room
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.pins import pin
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request as Prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.survey import survey
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.windows import windows_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import holdings, pack, spool
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.shipping import last_state

SYSTEM = "7300000000000000001"
SIZE = 1 << 20
NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Archive:
    """The WAL of a world: segments in its spool, base backups in its places."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.home = world.context().local.home

    def keep(self, name: str, content: bytes, *, age: timedelta = timedelta(0), method: str = "zstd") -> str:
        """Put a WAL file into the spool; return its path in every place."""
        blob, suffix = pack.pack(content, method, 1)
        folder = "" if name.endswith(".history") else name[:16] + "/"
        path = "wal/%s/%s%s-%s%s" % (SYSTEM, folder, name, hashlib.sha256(content).hexdigest(), suffix)
        full = self.home / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(blob)
        when = (self.world.now - age).timestamp()
        os.utime(full, (when, when))
        return path

    def segment(self, number: int, *, timeline: int = 1, seed: int = 0, **options: Any) -> str:
        header = struct.pack("=HHIQI4xQII", 0xD110, 2, timeline, number * SIZE, seed, int(SYSTEM), SIZE, 8192)
        return self.keep(segment_name(timeline, number, SIZE), header.ljust(SIZE, b"\0"), **options)

    def base(self, place: str, when: datetime, start: int, **values: Any) -> str:
        """Publish a base backup that needs the segment `start`."""
        return str(
            self.world.add(
                place,
                when,
                kind="base",
                databases=(),
                timeline=1,
                wal_start=show_lsn(start * SIZE + 100),
                wal_end=show_lsn(start * SIZE + 500),
                **values,
            )
        )

    def ship(self, **request: Any) -> dict[str, Any]:
        return wal_ship.ship(self.world.context(), wal_ship.Request(**request))

    def here(self) -> list[str]:
        return sorted(p.relative_to(self.home).as_posix() for p in (self.home / "wal").rglob("*") if p.is_file())

    def there(self) -> list[str]:
        return sorted(path for path in self.world.memory.stored if path.startswith("wal/"))

    def state(self) -> dict[str, Any]:
        return last_state(self.world.context())

    def records(self) -> list[str]:
        folder = self.world.context().state / "runs"
        return [json.loads(path.read_text())["outcome"] for path in sorted(folder.glob("*wal-ship*"))]


@pytest.fixture
def archive(make_world):
    return Archive(make_world(wal={"enabled": True, "keep_local": "2h"}))


# --- ship -------------------------------------------------------------------------------------------------------------


def test_what_s3_lacks_is_sent_once_and_stays_here_for_its_time(archive):
    paths = sorted([archive.segment(1), archive.segment(2), archive.keep("00000002.history", b"1\t0/1\tx\n")])
    assert archive.ship(dry_run=True)["sent"] == 3
    assert archive.there() == []
    result = archive.ship()
    assert (result["sent"], result["pending"], result["removed"], result["changed"]) == (3, 0, 0, True)
    assert archive.there() == archive.here() == paths
    assert archive.ship()["changed"] is False
    archive.world.now += 3 * HOUR
    again = archive.ship()
    assert (again["sent"], again["removed"]) == (0, 2)
    assert [path for path in archive.here() if not path.endswith(".history")] == [
        path for path in paths if "history" in path
    ]


def test_what_a_base_backup_of_this_host_needs_stays_here(archive):
    paths = [archive.segment(number) for number in (1, 2, 3)]
    archive.base("local", NOW - HOUR, 2)
    archive.ship()
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 1
    assert archive.here() == paths[1:]


def test_what_a_base_backup_needs_that_cannot_be_read_stays_here(archive):
    paths = [archive.segment(number) for number in (1, 2)]
    archive.world.add("local", NOW - HOUR, kind="base", databases=(), wal_start="nowhere")
    archive.ship()
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 0
    assert archive.here() == paths


def test_s3_that_is_away_keeps_all_and_says_since_when(archive):
    archive.segment(1, age=timedelta(minutes=1))
    archive.ship()
    archive.world.now += timedelta(minutes=5)
    archive.segment(2)
    archive.world.memory.down = True
    with pytest.raises(UnreachableError) as caught:
        archive.ship()
    # The first one is there already, though nobody can see that now.
    assert (caught.value.details["sent"], caught.value.details["pending"]) == (0, 1)
    state = archive.state()
    assert (state["pending"], state["failing_since"]) == (1, "2026-11-22T08:05:00+00:00")
    archive.world.now += HOUR
    with pytest.raises(UnreachableError):
        archive.ship()
    assert archive.state()["failing_since"] == "2026-11-22T08:05:00+00:00"
    archive.world.memory.down = False
    archive.world.now += HOUR
    assert archive.ship()["sent"] == 1
    assert archive.state()["error"] is None
    # Told when it began and when it was over.
    assert archive.records() == ["unreachable", "ok"]


def test_a_spool_that_nobody_has_sent_yet_waits_as_a_whole(archive):
    archive.segment(1)
    archive.world.memory.down = True
    with pytest.raises(UnreachableError) as caught:
        archive.ship()
    assert caught.value.details["pending"] == 1


def test_a_service_ends_in_order_and_clears_its_spool_each_hour(archive):
    archive.segment(1)
    rounds = []

    def sleep(seconds):
        rounds.append(seconds)
        archive.world.now += 2 * HOUR
        if len(rounds) == 3:
            raise KeyboardInterrupt

    result = wal_ship.ship(archive.world.context(), wal_ship.Request(loop=True), sleep=sleep)
    assert (result["sent"], result["removed"], result["changed"]) == (1, 1, True)
    assert archive.there() != []
    assert archive.here() == []


def test_a_service_whose_credentials_were_refused_reads_them_again(archive, monkeypatch):
    archive.segment(1)
    archive.world.memory.down = True
    context = archive.world.context()
    made, rounds = [], []
    place_of = context.s3
    monkeypatch.setattr(context, "s3", lambda: made.append(1) or place_of())

    def sleep(_seconds):
        rounds.append(len(made))
        archive.world.memory.down = False
        if len(rounds) == 2:
            raise KeyboardInterrupt

    assert wal_ship.ship(context, wal_ship.Request(loop=True), sleep=sleep)["sent"] == 1
    assert rounds[0] == 2


def test_a_service_that_cannot_send_says_so_once_each_time_that_begins(archive):
    archive.segment(1)
    context, screen, rounds = archive.world.context(), io.StringIO(), []
    context.reporter = ProgressReporter(screen, environ={})
    archive.world.memory.down = True

    def sleep(_seconds):
        rounds.append(screen.getvalue().count("warning: "))
        archive.world.memory.down = len(rounds) in (1, 3)
        archive.segment(1 + len(rounds))
        if len(rounds) == 5:
            raise KeyboardInterrupt

    wal_ship.ship(context, wal_ship.Request(loop=True), sleep=sleep)
    assert rounds == [1, 1, 1, 2, 2]
    first, second = screen.getvalue().splitlines()
    assert first == second
    assert first.startswith("warning: ")


def test_a_service_that_begins_in_the_midst_of_that_says_so_too(archive):
    archive.segment(1)
    archive.world.memory.down = True
    with pytest.raises(UnreachableError):
        archive.ship()

    def sleep(_seconds):
        raise KeyboardInterrupt

    context, screen = archive.world.context(), io.StringIO()
    context.reporter = ProgressReporter(screen, environ={})
    wal_ship.ship(context, wal_ship.Request(loop=True), sleep=sleep)
    assert screen.getvalue().startswith("warning: ")
    assert len(archive.records()) == 1, "it is the same trouble"


def test_only_one_ships_at_a_time(archive):
    context = archive.world.context()
    with context.lock("wal-ship"), pytest.raises(BusyError):
        archive.ship()


def test_a_damaged_file_is_told_and_kept_from_s3(archive):
    path = archive.segment(1)
    archive.segment(2)
    (archive.home / path).write_bytes(b"\x28\xb5\x2f\xfd not whole")
    with pytest.raises(DamagedError, match="wal/7300000000000000001"):
        archive.ship()
    assert len(archive.there()) == 1


def test_what_is_cut_in_s3_is_sent_again_and_stays_here_until_then(archive):
    path = archive.segment(1)
    archive.ship()
    whole, when = archive.world.memory.stored[path]
    archive.world.memory.stored[path] = (whole[:-7], when)
    archive.world.now += 3 * HOUR
    result = archive.ship()
    assert (result["sent"], result["removed"]) == (1, 0)
    assert archive.world.memory.stored[path][0] == whole
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 1


def test_what_s3_has_packed_otherwise_is_read_once_and_left_alone(archive, monkeypatch):
    header = struct.pack("=HHIQI4xQII", 0xD110, 2, 1, SIZE, 0, int(SYSTEM), SIZE, 8192)
    content = (header + b"".join(b"%d," % (n * n) for n in range(200_000)))[:SIZE]
    path = archive.keep(segment_name(1, 1, SIZE), content)
    other = pack.pack(content, "zstd", 15)[0]
    assert len(other) != (archive.home / path).stat().st_size
    memory = archive.world.memory
    memory.write(path, other)
    reads = []
    read = memory.read
    monkeypatch.setattr(memory, "read", lambda wanted: reads.append(wanted) or read(wanted))
    for _round in range(2):
        assert archive.ship()["sent"] == 0
    assert (memory.stored[path][0] == other, reads) == (True, [path])
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 1


def test_what_is_cut_here_and_whole_in_s3_is_no_loss(archive):
    path = archive.segment(1)
    archive.ship()
    full = archive.home / path
    full.write_bytes(full.read_bytes()[:-5])
    assert archive.ship()["pending"] == 0
    archive.world.now += 3 * HOUR
    assert (archive.ship()["removed"], archive.here()) == (1, [])
    # On both sides it is one.
    path = archive.segment(2)
    archive.ship()
    full = archive.home / path
    full.write_bytes(full.read_bytes()[:-5])
    archive.world.memory.stored[path] = (b"", archive.world.now)
    archive.world.now += 3 * HOUR
    with pytest.raises(DamagedError):
        archive.ship()
    assert archive.here() == [path]
    assert archive.state()["error"].startswith("1 files in the WAL spool are damaged")


def test_of_encrypted_files_the_smaller_one_is_cut(archive):
    stored = "wal/%s/%s/%s-%s.zst.age" % (SYSTEM, "0" * 16, segment_name(1, 1, SIZE), "a" * 64)
    full = archive.home / stored
    full.parent.mkdir(parents=True)
    full.write_bytes(b"age-encryption.org/" + bytes(1000))
    archive.world.memory.write(stored, bytes(500))
    assert archive.ship()["sent"] == 1
    archive.world.memory.write(stored, bytes(5000))
    assert archive.ship()["sent"] == 0
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 1


def test_what_came_to_s3_late_stays_here_for_its_time_from_then_on(archive):
    path = archive.segment(1, age=5 * HOUR)
    archive.world.memory.down = True
    with pytest.raises(UnreachableError):
        archive.ship()
    archive.world.memory.down = False
    result = archive.ship()
    assert (result["sent"], result["removed"], archive.here()) == (1, 0, [path])
    archive.world.now += HOUR
    assert archive.ship()["removed"] == 0
    archive.world.now += HOUR + timedelta(minutes=1)
    assert archive.ship()["removed"] == 1


@pytest.mark.parametrize("clock", ["goes on", "went back"])
def test_what_was_written_before_the_last_shipping_and_archived_after_it_waits(archive, clock):
    archive.segment(1)
    archive.segment(2)
    archive.ship()
    archive.world.now += timedelta(minutes=5)
    if clock == "went back":
        file = archive.world.context().state / "wal-ship.json"
        state = json.loads(file.read_text())
        state["seen"][0] += 10**18
        file.write_text(json.dumps(state))
    archive.segment(3, age=timedelta(minutes=20))
    archive.world.memory.down = True
    with pytest.raises(UnreachableError) as caught:
        archive.ship()
    assert (caught.value.details["pending"], archive.state()["pending"]) == (1, 1)


def test_other_content_under_one_name_is_not_sent_and_the_rest_is(archive):
    ours = [archive.segment(number) for number in (1, 2, 3)]
    other = archive.segment(2, seed=9)
    (archive.home / other).rename(archive.home / "other")
    archive.world.memory.write(other, (archive.home / "other").read_bytes())
    context = archive.world.context()
    assert wal_ship.ship(context, wal_ship.Request(dry_run=True))["sent"] == 2
    assert segment_name(1, 2, SIZE) in context.warnings[0]
    for _again in range(2):
        with pytest.raises(RefusedError, match=r"other content for 0{7}10{14}02 .*Another server archives") as caught:
            archive.ship()
        assert caught.value.details["pending"] == 1
    assert archive.there() == sorted([ours[0], other, ours[2]])
    assert archive.records() == ["refused"]
    archive.world.now += 3 * HOUR
    (archive.home / archive.segment(4)).write_bytes(b"damaged")
    with pytest.raises(RefusedError, match="1 files in the WAL spool are damaged") as caught:
        archive.ship()
    assert (caught.value.details["pending"], caught.value.details["removed"]) == (2, 2)
    assert ours[1] in archive.here()
    found = [one for one in wal_status.wal_findings(context) if one.check == "wal contradiction"]
    assert [(one.severity, segment_name(1, 2, SIZE) in one.text) for one in found] == [("critical", True)]
    # While S3 is away, it is as it was.
    archive.world.memory.down = True
    with pytest.raises(UnreachableError):
        archive.ship()
    assert archive.state()["contested"] == [segment_name(1, 2, SIZE)]
    archive.world.memory.down = False
    # It is over when the one that was wrong is gone.
    archive.world.now += timedelta(minutes=1)
    archive.world.memory.delete([other])
    (archive.home / archive.segment(4)).unlink()
    assert archive.ship()["sent"] == 1
    assert archive.records()[0] == "refused"
    assert archive.records()[-1] == "ok"
    assert archive.state()["contested"] == []


def test_a_file_that_cannot_be_read_does_not_keep_the_others_here(archive, monkeypatch):
    paths = [archive.segment(number) for number in (1, 2, 3)]
    read = wal_ship.read_file

    def bad_sector(path):
        if path.endswith(paths[1]):
            raise OSError(errno.EIO, "Input/output error", path)
        return read(path)

    monkeypatch.setattr(wal_ship, "read_file", bad_sector)
    with pytest.raises(DamagedError, match="1 files in the WAL spool are damaged or cannot be read") as caught:
        archive.ship()
    assert (caught.value.details["sent"], caught.value.details["pending"]) == (2, 1)
    assert archive.there() == [paths[0], paths[2]]


def test_a_spool_in_trouble_ends_no_service_and_is_told(archive, monkeypatch):
    path = archive.segment(1)
    archive.ship()
    archive.world.now += 3 * HOUR
    context, delete = archive.world.context(), type(archive.world.context().local).delete
    rounds = []

    def read_only(place, paths):
        if list(paths) and not rounds:
            raise OSError(errno.EROFS, "Read-only file system", path)
        delete(place, paths)

    def sleep(_seconds):
        rounds.append(archive.state()["error"])
        archive.world.now += timedelta(minutes=1)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(context.local), "delete", read_only)
    wal_ship.ship(context, wal_ship.Request(loop=True), sleep=sleep)
    assert rounds == ["The WAL spool is in trouble: %s: Read-only file system." % path, None]
    assert archive.records() == ["failed", "ok"]
    # A directory that is gone is an empty spool: what was in it is in S3, and what comes makes it anew.
    shutil.rmtree(archive.home / "wal")
    assert archive.ship()["pending"] == 0


def test_a_history_of_another_lineage_stays_here(archive):
    """Two standbys of one server were promoted. The places list histories beside all segments, so only these are asked for."""
    ours, here = archive.keep("00000002.history", b"1\t0/300000\tmine\n"), archive.segment(1)
    (archive.home / ours).rename(archive.home / "ours")
    other = archive.keep("00000002.history", b"1\t0/200000\ttheirs\n")
    shipping = wal_ship._Shipping(archive.world.context())
    shipping.look()
    archive.world.memory.write(other, (archive.home / other).read_bytes())
    (archive.home / other).unlink()
    (archive.home / "ours").rename(archive.home / ours)
    with pytest.raises(RefusedError, match=r"other content for 00000002\.history"):
        shipping.once()
    assert archive.there() == sorted([other, here])


def test_a_clock_that_goes_back_does_not_keep_s3_from_being_looked_at(archive):
    path = archive.segment(1)
    shipping = wal_ship._Shipping(archive.world.context())
    assert shipping.once()["sent"] == 1
    archive.world.memory.delete([path])
    archive.world.now -= 24 * HOUR
    assert shipping.once()["sent"] == 1
    assert archive.state()["when"] == archive.world.now.isoformat()


def test_a_spool_that_cannot_be_read_is_not_taken_for_an_empty_one(archive, request):
    archive.segment(1)
    folder = archive.home / "wal" / SYSTEM
    for above in folder.parents[:6]:
        if os.geteuid() == above.stat().st_uid:
            above.chmod(0o755)
    folder.chmod(0)
    request.getfixturevalue("as_ordinary_user")
    with pytest.raises(UsageError, match="cannot be read"):
        list(spool.names(str(archive.home), SYSTEM))


def test_what_shipping_says_to_a_person(archive):
    archive.segment(1)
    assert "would be sent" in wal_ship.render({**archive.ship(dry_run=True), "dry_run": True})
    archive.ship()
    archive.world.now += 3 * HOUR
    assert "1 removed from the spool" in wal_ship.render(archive.ship())


# --- status and info --------------------------------------------------------------------------------------------------


def test_status_knows_the_windows_of_both_places(archive):
    for number in (1, 2, 3, 4, 6, 7):
        archive.segment(number, age=timedelta(minutes=50 - number), method="gzip" if number == 7 else "zstd")
    archive.base("local", NOW - 2 * HOUR, 2)
    archive.ship()
    archive.base("s3", NOW - 2 * HOUR, 6)
    result = wal_status.wal_status(archive.world.context())
    local, s3 = result["places"]
    (window,) = local["windows"]
    assert [(s["start_lsn"], s["end_lsn"]) for s in window["stretches"]] == [("0/2001F4", "0/500000")]
    assert window["gaps"] == [{"first": segment_name(1, 5, SIZE), "last": segment_name(1, 5, SIZE), "count": 1}]
    assert s3["windows"][0]["stretches"][0]["end_lsn"] == "0/800000"
    assert result["spool"]["files"] == 6
    assert result["spool"]["growth_bytes_per_hour"] > 0
    assert result["server"] is None
    severities = {finding["check"]: finding["severity"] for finding in result["findings"]}
    assert (severities["wal shipping"], severities["wal gap"], severities["wal server"]) == ("ok", "warning", "warning")
    text = wal_status.render(result)
    assert "missing: %s" % segment_name(1, 5, SIZE) in text
    known = info(archive.world.context(), Info())
    assert [place["windows"] for place in known["places"]] == [local["windows"], s3["windows"]]
    assert "recoverable by WAL, cluster %s, timeline 1: 2026-11-22" % SYSTEM in show.info(known, colour=False)
    whole = status_verb.status(archive.world.context())
    assert whole["wal"]["places"][0]["windows"] == local["windows"]
    screen = status_verb.render(whole, False)
    assert re.search(r"\nRecoverable local  2026-11-22 \S+ to 2026-11-22 \S+ UTC; RPO now \d", screen)
    assert "Take a new base backup" in screen


def test_what_misses_its_parent_begins_no_recovery(archive):
    for number in (1, 2, 3):
        archive.segment(number)
    full = archive.base("local", NOW - 2 * HOUR, 1)
    range_ = {"timeline": 1, "wal_start": show_lsn(2 * SIZE + 100), "wal_end": show_lsn(2 * SIZE + 500)}
    child = archive.world.add("local", NOW - HOUR, kind="incremental", parent=full, **range_)

    def stretches():
        context = archive.world.context()
        (window,) = info(context, Info())["places"][0]["windows"]
        return [stretch["bases"] for stretch in window["stretches"]], "\n".join(context.warnings)

    assert stretches() == ([[full, child]], "")
    shutil.rmtree(archive.home / "sets" / full)
    found, warnings = stretches()
    assert found == []
    assert "%s in %s begins no recovery: " % (child, archive.home) in warnings
    # Its WAL stays for as long as it does: the parent may be brought back.
    prune(archive.world.context(), Prune(places=("local",)))
    assert all((archive.home / "wal" / SYSTEM).glob("*/%s*" % segment_name(1, number, SIZE)) for number in (2, 3))


def test_without_wal_nothing_is_asked_and_nothing_said(make_world):
    archive = Archive(make_world())
    archive.segment(1)
    assert [place["windows"] for place in info(archive.world.context(), Info())["places"]] == [[], []]
    whole = status_verb.status(archive.world.context())
    assert whole["wal"] is None
    assert "WAL" not in status_verb.render(whole, False)


def test_a_place_that_does_not_answer_is_reported(archive):
    archive.segment(1)
    archive.world.memory.down = True
    context = archive.world.context()
    result = wal_status.wal_status(context)
    assert "does not answer" in result["places"][1]["error"]
    assert "never run" in result["shipping"]["error"]
    assert "WAL, but no base backup" in wal_status.render(result)


def test_wal_that_cannot_be_listed_is_warned_of(archive):
    context = archive.world.context()
    surveyed = survey(context)
    surveyed[0].wal = holdings.Held(error="It cannot be read.")
    assert info(context, Info(), surveyed)["places"][0]["windows"] == []
    assert context.warnings == ["What the WAL in %s allows is unknown: It cannot be read." % archive.home]


def test_shipping_that_has_stopped_is_told(archive):
    archive.segment(1)
    archive.ship()
    archive.world.now += timedelta(minutes=11)
    result = wal_status.wal_status(archive.world.context())
    (found,) = [finding for finding in result["findings"] if finding["check"] == "wal shipping"]
    assert found["severity"] == "warning"
    assert "last ran at 2026-11-22T08:00:00" in found["text"]
    assert result["shipping"]["when"] == "2026-11-22T08:00:00+00:00"


def test_a_timeline_history_leads_on_and_one_that_is_none_is_told(archive):
    for number in (1, 2):
        archive.segment(number)
    archive.segment(2, timeline=2, seed=1)
    archive.segment(3, timeline=2)
    archive.base("local", NOW - HOUR, 1)
    archive.keep("00000002.history", b"1\t0/280000\tno recovery target specified\n")
    archive.keep("00000003.history", b"nonsense")
    context = archive.world.context()
    (window,) = wal_status.wal_status(context)["places"][0]["windows"]
    assert (window["timeline"], window["stretches"][0]["end_lsn"]) == (2, "0/400000")
    assert any("00000003.history" in warning for warning in context.warnings)


def test_two_contents_of_one_name_are_no_part_of_a_window(archive):
    for number in (1, 2, 3):
        archive.segment(number)
    archive.segment(2, seed=9)
    archive.base("local", NOW - HOUR, 1)
    result = wal_status.wal_status(archive.world.context())
    assert result["places"][0]["windows"][0]["stretches"][0]["end_lsn"] == "0/200000"
    (found,) = [finding for finding in result["findings"] if finding["check"] == "wal contradiction"]
    assert segment_name(1, 2, SIZE) in found["text"]


@pytest.mark.parametrize("method", ["zstd", "gzip", "none"])
def test_the_size_of_segments_is_read_from_one(archive, method):
    archive.segment(1, method=method)
    local = archive.world.context().local
    lineage = holdings.lineages(local)[SYSTEM]
    assert holdings.segment_size(local, lineage) == SIZE
    assert holdings.segment_size(local, holdings.Lineage(SYSTEM)) == 0


def test_a_damaged_segment_does_not_hide_the_size_of_the_others(archive):
    archive.segment(1, method="gzip")
    for number in (2, 3):
        full = archive.home / archive.segment(number, method="gzip")
        full.write_bytes(full.read_bytes()[:20])
    local = archive.world.context().local
    assert holdings.segment_size(local, holdings.lineages(local)[SYSTEM]) == SIZE


# --- the server's own disk, and what a backup remembers ----------------------------------------------------------------


STUCK = ServerWal(
    archive_mode="on",
    archive_command="pgops wal archive %p",
    archive_timeout=60,
    segment_size=SIZE,
    lag_bytes=600 * SIZE,
    last_archived=segment_name(1, 1, SIZE),
    last_archived_time=NOW - timedelta(minutes=20),
    last_failed=segment_name(1, 2, SIZE),
    last_failed_time=NOW,
    failed_count=3,
    ready=600,
    ready_since=NOW - timedelta(minutes=19),
    system_identifier=SYSTEM,
    timeline=2,
)


def answers(monkeypatch: Any, server: Any, data: Any, error: str = "") -> None:
    facts = {"data_directory": str(data), "current_lsn": "0/1", "wal_level": "replica"}
    monkeypatch.setattr(wal_status, "_ask_server", lambda _context: (server, facts, error))


def test_while_archiving_fails_the_time_is_that_of_the_disk_of_pg_wal(archive, monkeypatch, tmp_path):
    (tmp_path / "pg_wal").mkdir()
    answers(monkeypatch, STUCK, tmp_path)
    asked = []
    monkeypatch.setattr(wal_status, "free_bytes", lambda path: asked.append(path) or 1800 * SIZE)
    result = wal_status.wal_status(archive.world.context())
    (told,) = [one for one in result["findings"] if one["check"] == "wal room" and "pg_wal" in one["text"]]
    # 600 segments in 20 minutes, so that 1800 more last an hour.
    assert (told["severity"], "is full in 1 h 0 min" in told["text"]) == ("critical", True), told
    assert tmp_path / "pg_wal" in asked
    assert result["server"]["pg_wal_free_bytes"] == 1800 * SIZE


def test_a_directory_that_only_others_may_look_into_is_no_end_of_the_look(archive, monkeypatch):
    """As root, nothing is refused us."""

    def free(path):
        if str(path) != archive.world.config.local.path:
            raise PermissionError(13, "Permission denied", str(path))
        return 1800 * SIZE

    monkeypatch.setattr(wal_status, "free_bytes", free)
    assert wal_status.wal_status(archive.world.context())["spool"]["free_bytes"] == 1800 * SIZE


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({}, {"login_host": "db2.example.com"}),
        ({"last_archived_time": None, "ready_since": None}, {}),
    ],
)
def test_of_a_disk_that_nobody_here_can_see_nothing_is_said(make_world, monkeypatch, tmp_path, values, options):
    archive = Archive(make_world(wal={"enabled": True}, postgres=options))
    answers(monkeypatch, dataclasses.replace(STUCK, **values), tmp_path)
    assert wal_status.wal_status(archive.world.context())["server"]["pg_wal_free_bytes"] is None
    answers(monkeypatch, STUCK, "")
    assert wal_status.wal_status(archive.world.context())["server"]["pg_wal_free_bytes"] is None


def test_the_pace_is_told_where_only_the_oldest_that_waits_says_since_when(archive, monkeypatch, tmp_path):
    answers(monkeypatch, dataclasses.replace(STUCK, last_archived_time=None), tmp_path)
    said = [one["text"] for one in wal_status.wal_status(archive.world.context())["findings"]]
    assert not any("pg_wal" in text for text in said), "that directory is not there"
    (tmp_path / "pg_wal").mkdir()
    said = [one["text"] for one in wal_status.wal_status(archive.world.context())["findings"]]
    assert any("pg_wal" in text for text in said)


def test_a_backup_remembers_the_timeline_and_what_waits(archive, monkeypatch, tmp_path):
    answers(monkeypatch, STUCK, tmp_path)

    def back_up():
        facts = perform(archive.world.context(), "backup", lambda c: {"wal": wal_status.wal_facts(c)})["wal"]
        archive.world.now += HOUR
        return facts

    assert back_up()["timeline_before"] is None
    answers(monkeypatch, dataclasses.replace(STUCK, timeline=3), tmp_path)
    facts = back_up()
    assert (facts["timeline"], facts["timeline_before"], facts["lag_bytes"], facts["failing"]) == (
        3,
        2,
        600 * SIZE,
        True,
    )
    assert facts["pending"] == 0
    answers(monkeypatch, None, tmp_path, "no connection")
    assert back_up() == {"error": "no connection"}
    answers(monkeypatch, STUCK, tmp_path)
    assert back_up()["timeline_before"] == 3


@pytest.mark.parametrize("has_s3", [True, False])
def test_without_room_here_a_base_backup_may_go_straight_to_s3(make_world, has_s3):
    world = make_world(backup={"min_free": "100TiB"}, **({} if has_s3 else {"s3": None}))
    with pytest.raises(RefusedError) as caught:
        check_room(world.context(), 1, elsewhere=True)
    assert ("--to s3" in caught.value.hint) == has_s3
    with pytest.raises(RefusedError) as caught:
        check_room(world.context(), 1)
    assert "--to s3" not in caught.value.hint


# --- prune ------------------------------------------------------------------------------------------------------------


def test_prune_removes_from_s3_what_lies_before_every_base_that_stays(archive):
    paths = [archive.segment(number) for number in range(1, 8)]
    archive.ship()
    archive.base("s3", NOW - timedelta(days=60), 2)  # goes, by the rules of the place
    archive.base("s3", NOW - timedelta(days=2), 4)
    archive.base("s3", NOW - timedelta(days=1), 6)
    planned = prune(archive.world.context(), Prune(places=("s3",), dry_run=True))
    assert planned["places"][0]["wal_removed"] == 3
    assert archive.there() == paths
    result = prune(archive.world.context(), Prune())
    assert [place["wal_removed"] for place in result["places"]] == [0, 3]
    assert "3 WAL files that no base backup needs" in show.prune({**result, "dry_run": False})
    assert result["changed"] is True
    assert archive.there() == paths[3:]
    assert archive.here() == paths, "the spool is cleared by those who know what S3 has"


def test_what_s3_has_pruned_is_not_sent_again_and_goes_here_in_its_time(archive):
    paths = [archive.segment(number) for number in range(1, 6)]
    archive.ship()
    archive.base("s3", NOW - timedelta(days=1), 4)
    prune(archive.world.context(), Prune())
    assert archive.there() == paths[3:]
    assert archive.ship()["sent"] == 0
    archive.world.now += 3 * HOUR
    assert archive.ship()["removed"] == 5
    assert (archive.there(), archive.here()) == (paths[3:], [])


def test_encrypted_wal_whose_size_is_unknown_is_not_pruned(archive):
    """Taken for segments of another size, a name would stand for another position."""
    for number in range(1, 6):
        path = archive.home / archive.segment(number, method="none")
        path.write_bytes(b"age-encryption.org/v1\n")
        path.rename("%s.age" % path)
    archive.ship()
    archive.base("s3", NOW - timedelta(days=1), 4)
    assert prune(archive.world.context(), Prune())["places"][1]["wal_removed"] == 0
    (archive.home / "wal" / SYSTEM / size_mark(SIZE)).touch()
    assert archive.ship()["sent"] == 1
    assert prune(archive.world.context(), Prune())["places"][1]["wal_removed"] == 3


def test_windows_of_segments_whose_size_is_told_by_the_other_place_or_by_none(archive):
    for number in range(1, 4):
        path = archive.home / archive.segment(number, method="none")
        path.write_bytes(b"age-encryption.org/v1\n")
        path.rename("%s.age" % path)
    (window,) = windows_of(archive.world.context(), [])
    assert (window.stretches, window.gaps) == ((), ())
    archive.ship()
    archive.world.memory.stored["wal/%s/%s" % (SYSTEM, size_mark(SIZE))] = (b"", NOW)
    base = Base("one", SYSTEM, 1, SIZE + 100, SIZE + 500, NOW - HOUR)
    (window,) = windows_of(archive.world.context(), [base])
    assert window.stretches[0].end == 4 * SIZE


def test_when_wal_was_archived_is_not_when_s3_got_it(archive):
    """Else a moment that lies behind all WAL would be taken for one that can be reached."""
    for number in (1, 2):
        archive.segment(number, age=timedelta(minutes=50 - number))
    archive.ship()
    base = Base("one", SYSTEM, 1, SIZE + 100, SIZE + 500, NOW - HOUR)
    (window,) = windows_of(archive.world.context(), [base])
    assert window.stretches[0].end_time == NOW - timedelta(minutes=48)
    assert window.stretches[0].written
    (archive.home / archive.here()[-1]).unlink()
    (window,) = windows_of(archive.world.context(), [base])
    assert (window.stretches[0].end, window.stretches[0].written) == (3 * SIZE, False)


def test_prune_keeps_all_wal_in_doubt_and_without_a_base(archive):
    paths = [archive.segment(number) for number in (1, 2, 3)]
    archive.ship()
    assert prune(archive.world.context(), Prune())["changed"] is False
    archive.base("s3", NOW - timedelta(days=2), 3)
    archive.world.add("s3", NOW - timedelta(days=1), kind="base", databases=(), wal_start="nowhere")
    context = archive.world.context()
    prune(context, Prune())
    assert archive.there() == paths
    assert any("All WAL in s3://bucket/db1 stays" in warning for warning in context.warnings)


def test_prune_clears_the_spool_where_there_is_no_s3(make_world):
    archive = Archive(make_world(s3=None, wal={"enabled": True}))
    paths = [archive.segment(number) for number in (1, 2, 3)]
    archive.base("local", NOW - timedelta(days=1), 3)
    assert prune(archive.world.context(), Prune())["places"][0]["wal_removed"] == 2
    assert archive.here() == paths[2:]


OLD = "7200000000000000001"


def earlier(archive, *, days: int = 40) -> list[str]:
    """WAL of a cluster before the upgrade, in the spool and in S3; its last base backup is gone."""
    here = [archive.segment(number, age=timedelta(days=days)) for number in (1, 2)]
    here.append(archive.keep("00000002.history", b"1\t0/1\tx\n", age=timedelta(days=days)))
    (archive.home / "wal" / SYSTEM).rename(archive.home / "wal" / OLD)
    paths = sorted(path.replace(SYSTEM, OLD) for path in here)
    (archive.home / "wal" / OLD / size_mark(SIZE)).touch()
    os.utime(archive.home / "wal" / OLD / size_mark(SIZE), (0, 0))
    paths.append("wal/%s/%s" % (OLD, size_mark(SIZE)))
    for path in paths:
        archive.world.memory.stored[path] = ((archive.home / path).read_bytes(), NOW - timedelta(days=days))
    return sorted(paths)


def test_wal_of_a_cluster_that_is_no_more_goes_from_both_places(archive):
    paths = earlier(archive)
    mine = archive.segment(3)
    archive.ship()
    archive.base("s3", NOW - timedelta(days=1), 3)
    here = archive.here()
    assert sum(OLD in path for path in here) == 2, "what S3 has goes from here by itself, but for what is small"
    for path in here:  # what another node has sent once more is no younger for that
        if OLD in path:
            archive.world.memory.stored[path] = ((archive.home / path).read_bytes(), NOW)
    told = prune(archive.world.context(), Prune())
    assert [one["removed"] for one in told["wal_clusters"]] == [False, False]
    assert told["changed"] is False
    assert "pgops prune --cluster %s removes them" % OLD in show.prune({**told, "dry_run": False})
    planned = prune(archive.world.context(), Prune(dry_run=True, clusters=(OLD,)))
    assert (archive.there(), archive.here()) == (sorted([*paths, mine]), here)
    result = prune(archive.world.context(), Prune(clusters=(OLD,)))
    assert (planned["places"], planned["wal_clusters"]) == (result["places"], result["wal_clusters"])
    came = ((2, "2026-10-13T08:00:00+00:00"), (4, "2026-11-22T08:00:00+00:00"))
    for place, told, (files, newest) in zip(result["places"], result["wal_clusters"], came, strict=True):
        assert (told["place"], told["system_identifier"]) == (place["place"], OLD)
        assert told["files"] == place["wal_removed"] == files
        assert told["newest"] == newest
        assert place["freed_bytes"] == told["bytes"] > 0
    assert archive.there() == archive.here() == [mine]
    said = show.prune({**result, "dry_run": False})
    assert "of them all 4 WAL files of the cluster %s" % OLD in said
    assert prune(archive.world.context(), Prune())["changed"] is False
    assert archive.ship()["sent"] == 0, "nothing comes back"


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_base_backup_in_any_place_keeps_the_wal_of_its_cluster_everywhere(archive, place):
    paths = earlier(archive)
    archive.base("s3", NOW - timedelta(days=1), 3)
    archive.segment(3)
    archive.ship()
    # Retention keeps it no more, but somebody does.
    pin(
        archive.world.context(), place, archive.base(place, NOW - timedelta(days=39), 1, system_identifier=OLD), "audit"
    )
    here = archive.here()
    for asked in ((), ("local",), ("s3",)):
        assert prune(archive.world.context(), Prune(places=asked))["wal_clusters"] == [], asked
    with pytest.raises(RefusedError, match="Somebody may need the WAL of the cluster %s" % OLD):
        prune(archive.world.context(), Prune(clusters=(OLD,)))
    with pytest.raises(UsageError, match="from all places at once"):
        prune(archive.world.context(), Prune(clusters=(OLD,), places=("s3",)))
    assert set(paths) <= set(archive.there())
    assert archive.here() == here


@pytest.mark.parametrize("days", [2, 29])
def test_the_wal_of_a_cluster_stays_as_long_as_the_rules_of_any_place_reach_back(archive, days):
    paths = earlier(archive, days=days)
    archive.segment(3)
    archive.base("s3", NOW - timedelta(days=1), 3)
    assert prune(archive.world.context(), Prune())["changed"] is False
    assert set(paths) <= set(archive.here()), "here the rules reach a week back, there a month"
    assert paths == archive.there()


def test_in_doubt_about_another_place_the_wal_of_a_cluster_stays(archive):
    paths = earlier(archive)
    archive.segment(3)
    archive.base("local", NOW - timedelta(days=1), 3)
    archive.world.memory.down = True
    with pytest.raises(UnreachableError):
        prune(archive.world.context(), Prune())
    with pytest.raises(RefusedError, match="not all places could be read"):
        prune(archive.world.context(), Prune(clusters=(OLD,)))
    context = archive.world.context()
    assert prune(context, Prune(places=("local",)))["changed"] is False
    assert any("WAL of earlier clusters" in warning for warning in context.warnings)
    assert set(paths) <= set(archive.here())


# --- how old what can be restored is ----------------------------------------------------------------------------------


def test_what_s3_got_late_is_no_younger_for_that(archive):
    """An hour of WAL that comes to S3 after an outage: while it is on its way, an hour would be lost, and not a moment."""
    archive.base("s3", NOW - 6 * HOUR, 1)
    archive.segment(1, age=5 * HOUR)
    archive.segment(2, age=HOUR)
    archive.ship()
    archive.segment(3, age=HOUR / 2)
    found = {place["place"]: place for place in wal_status.wal_status(archive.world.context())["places"]}
    assert found["s3"]["rpo_seconds"] == HOUR.total_seconds()
    assert found["s3"]["windows"][0]["stretches"][-1]["end"] == "2026-11-22T07:00:00+00:00"
    # Of what is here no more, this host remembers when it was written; another one does not know, and does not guess.
    for path in archive.here():
        (archive.home / path).unlink()
    found = {place["place"]: place for place in wal_status.wal_status(archive.world.context())["places"]}
    assert (found["s3"]["rpo_by"], found["s3"]["rpo_seconds"]) == ("segment", HOUR.total_seconds())
    (archive.world.context().state / "wal-newest.json").unlink()
    result = status_verb.status(archive.world.context())
    found = {place["place"]: place for place in result["wal"]["places"]}
    assert [found["s3"][key] for key in ("rpo_by", "rpo_seconds", "recovery_point")] == ["arrival", None, None]
    shown = " ".join(status_verb.render(result, colour=False).split())
    assert "RPO now unknown: when its newest WAL was written is not known here" in shown
    assert "newest recoverable transaction: unknown" in wal_status.render(result["wal"])
    archive.segment(4)
    shown = status_verb.render(status_verb.status(archive.world.context()), colour=False)
    assert not re.search(r"\n +local +.*RPO now", shown), "no base backup there"


def test_wal_that_bears_a_time_to_come_is_no_fresh_wal(archive):
    """The clock of this host was set back, or that of the store is ahead: nobody knows how much would be lost now."""
    archive.base("local", NOW - HOUR, 1)
    archive.segment(1, age=-2 * HOUR)
    (place, *_unused) = wal_status.wal_status(archive.world.context())["places"]
    assert (place["rpo_seconds"], place["ahead_seconds"]) == (None, 2 * HOUR.total_seconds())
    assert "from 2 h 0 min ahead of this host's clock" in wal_status.render(
        wal_status.wal_status(archive.world.context())
    )
    result = status_verb.status(archive.world.context())
    shown = " ".join(status_verb.render(result, colour=False).split())
    assert "; RPO now unknown: WAL is 2 h 0 min ahead of our clock" in shown
    assert any("Set the clocks" in step for step in result["next"])


def test_histories_that_contradict_each_other_count_for_nothing() -> None:
    """A server that recovers is given neither of them."""
    content = {digest * 64: b"1\t0/%s000000\twhy\n" % digest.encode() for digest in "34"}
    told: list[str] = []
    place = SimpleNamespace(root="/backups", stream=lambda path: [content[path.rpartition("-")[2]]])
    paths = ["wal/7/%s.history-%s" % (name, digest) for name in ("00000002",) for digest in content]
    lineage = holdings.Lineage("7", {"00000002.history": [Entry(path, 20, NOW, path) for path in paths]})
    assert holdings.histories(place, lineage, told.append) == {}
    assert told == ["/backups holds different files called 00000002.history, so nothing is known of that timeline."]
