# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL archive on real servers: PostgreSQL archives, S3 takes it, and another server recovers from there alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import start
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.check import Verdict, judge
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.freshness import Finding
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Manifest
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import kind, parse_lsn, parse_stored
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import status as everything
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import wal_findings, wal_status
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.ahead import Recovery
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.brief import read_brief
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal.spool import AbsentError
from demo.servers import PostgresServer
from tests.integration.conftest import BUCKET, Servers, bindir_of, cursor, run_sql, wait_for
from tests.integration.s3_fixtures import Kit, kit_of_each, moto_server, rclone_server  # noqa: F401  # pylint: disable=unused-import
from tests.integration.wal_fixtures import SYSTEM, Commands, Host, archived_up_to, as_server, base_manifest, segment


@dataclass
class Archiving:
    """A server, the host that archives it, and a copy of its data as a base backup leaves it."""

    server: PostgresServer
    host: Host
    copy: PostgresServer
    store: Any
    system: str
    base: Manifest
    rows: int = 0

    def write(self, count: int) -> str:
        """Commit rows, and return the name of the segment that holds them once it is archived."""
        run_sql(
            self.server,
            "postgres",
            "INSERT INTO log SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i"
            % (self.rows + 1, self.rows + count),
        )
        self.rows += count
        return archived_up_to(self.server)

    def s3_section(self, url: str = "") -> dict[str, Any]:
        return {
            "bucket": BUCKET,
            "endpoint_url": url or self.store.endpoint_url,
            "region": self.store.region,
            "addressing_style": "path",
            "access_key": self.store.access_key,
            "secret_key": self.store.secret_key,
        }

    def configure(self, **sections: Any) -> None:
        postgres = {"login_unix_socket": str(self.server.socket_dir), "login_port": self.server.port}
        self.host.configure(postgres={**postgres, "login_user": "postgres"}, **sections)

    def status(self) -> dict[str, Any]:
        """What wal status says. It asks the server by a library that only the Python of the tests has."""
        built = config.load(self.host.root / "config.json", environ={}, host="h")
        return wal_status(Context(built, "h"))

    def asked(self) -> Verdict:
        """What pgops check wal says."""
        built = config.load(self.host.root / "config.json", environ={}, host="h")
        return judge(everything(Context(built, "h")), "wal")

    def heard(self) -> list[Finding]:
        """What the alerts are judged by."""
        return wal_findings(Context(config.load(self.host.root / "config.json", environ={}, host="h"), "h"))


@pytest.fixture(scope="module", params=[16, 18])
def archiving(
    request: pytest.FixtureRequest, servers: Servers, moto: Any, rclone: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archiving]:
    major = request.param
    host = Host()
    server = servers.get(
        "wal", major, archive_mode="on", archive_command=host.quick("archive", "%p"), wal_level="replica"
    )
    copy = PostgresServer(
        bindir_of(major),
        tmp_path_factory.mktemp("copy"),
        settings={"restore_command": host.quick("fetch", "%f", "%p"), "archive_mode": "off"},
    )
    ((system,),) = run_sql(server, "postgres", "SELECT system_identifier::text FROM pg_control_system()")
    run_sql(server, "postgres", "DROP TABLE IF EXISTS log; CREATE TABLE log (no int PRIMARY KEY, text text)")
    archived_up_to(server)
    server.run("pg_basebackup", "-D", str(copy.data_dir), "-X", "none", "-c", "fast", cwd="/", **as_server())
    base = base_manifest(copy.data_dir, system)
    made = Archiving(server, host, copy, rclone if major == 18 else moto, system, base)
    made.configure()
    made.write(1000)
    made.write(20_000)
    made.write(20_000)
    yield made
    copy.close()
    host.close()


def test_postgresql_archives_and_each_file_comes_back_as_it_was(archiving: Archiving, tmp_path: Path) -> None:
    stored = [path for path in archiving.host.wal.rglob("*") if path.is_file()]
    names = {parse_stored(path.name)[0] for path in stored}
    assert "" not in names
    assert {kind(name) for name in names} == {"segment", "backup"}
    assert archiving.system in {path.name for path in archiving.host.wal.iterdir()}
    kept = [path for path in (archiving.server.data_dir / "pg_wal").iterdir() if path.name in names]
    assert len(kept) >= 2
    for path in kept:
        target = archiving.host.root / "fetched"
        words = ("wal", "fetch", path.name, str(target))
        archiving.host.run(*words, cwd=archiving.server.data_dir)
        assert target.read_bytes() == path.read_bytes()


def test_the_same_segment_again_is_success_and_another_one_is_not(archiving: Archiving, tmp_path: Path) -> None:
    pg_wal = archiving.server.data_dir / "pg_wal"
    stored = {parse_stored(path.name)[0]: path for path in archiving.host.wal.rglob("*") if path.is_file()}
    name = next(name for name in sorted(stored) if kind(name) == "segment" and (pg_wal / name).exists())
    before = stored[name].stat()
    archiving.host.run("wal", "archive", "pg_wal/%s" % name, cwd=archiving.server.data_dir)
    # The same server after another history, as a copy of it would be.
    other = archiving.host.root / "other" / "pg_wal"
    (other.parent / "global").mkdir(parents=True)
    other.mkdir()
    shutil.copy(archiving.server.data_dir / "global" / "pg_control", other.parent / "global")
    content = bytearray((pg_wal / name).read_bytes())
    content[100_000] ^= 1
    (other / name).write_bytes(content)
    for path in (other.parent, *other.parent.rglob("*")):
        path.chmod(0o755)
    said = archiving.host.run("wal", "archive", "pg_wal/%s" % name, cwd=other.parent, code=5).stderr
    assert "archived already with other content" in said
    assert (stored[name].stat().st_ino, stored[name].stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_segment_of_which_the_server_did_not_hear_is_handed_over_again(archiving: Archiving) -> None:
    """The command was killed when the file was durable: the server asks again, and what is stored stays as it is."""
    server, host = archiving.server, archiving.host
    unheard, aside = host.root / "unheard", host.client.with_name("client")
    script = '#!/bin/sh\n"%s" "$@" -v || exit\n! rm "%s" 2>/dev/null\n' % (aside, unheard)
    ((failures,),) = run_sql(server, "postgres", "SELECT failed_count FROM pg_stat_archiver")
    host.client.rename(aside)
    try:
        unheard.touch()
        host.client.write_text(script)
        host.client.chmod(0o755)
        name = archiving.write(10)
        ((failed, last),) = run_sql(server, "postgres", "SELECT failed_count, last_failed_wal FROM pg_stat_archiver")
        assert (failed, last) == (failures + 1, name)
    finally:
        aside.rename(host.client)
    said = [
        line.partition(name)[2] for line in server.log_file.read_text().splitlines() if line.startswith("pgops wal")
    ]
    assert [words for words in said if words] == [" archived", " was archived already"]
    assert len([path for path in host.wal.rglob(name + "-*") if path.is_file()]) == 1


def test_s3_takes_it_and_a_server_recovers_from_there_alone(archiving: Archiving) -> None:
    host, copy = archiving.host, archiving.copy
    archiving.configure(s3=archiving.s3_section())
    first = host.json("wal", "ship", "--dry-run")
    assert first["sent"] > 3
    shipped = host.json("wal", "ship")
    assert (shipped["sent"], shipped["pending"], shipped["changed"]) == (first["sent"], 0, True)
    assert host.json("wal", "ship")["sent"] == 0

    manifest = archiving.base
    client = archiving.store.client()
    key = "database-backups/db1/sets/%s/manifest.json" % manifest.id
    client.put_object(Bucket=BUCKET, Key=key, Body=manifest.encode())

    status = archiving.status()
    checks = {(finding["check"], finding["severity"]) for finding in status["findings"]}
    assert {("wal archive", "ok"), ("wal shipping", "ok"), ("wal window", "ok")} <= checks, status["findings"]
    asked = archiving.asked()
    # The server of the tests has no archive_timeout, which is told; and nothing else.
    assert (asked.code, asked.text.startswith("archive_timeout is 0")) == (1, True), asked.text
    values = {value.label: value.number for value in asked.values}
    assert values["wal_waiting"] < 16 * 2**20
    assert (values["wal_pending"], values["wal_rpo"] < 120) == (0, True)
    assert status["server"]["system_identifier"] == archiving.system
    assert status["server"]["lag_bytes"] < 16 * 2**20
    place = next(place for place in status["places"] if place["place"] == "s3")
    (window,) = place["windows"]
    assert (window["gaps"], window["timeline"], len(window["stretches"])) == ([], 1, 1)
    assert window["stretches"][0]["bases"] == [manifest.id]
    assert 0 <= place["rpo_seconds"] < 120

    # The host is lost: nothing of the spool is left.
    host.wal.rename(host.root / "lost")
    try:
        (copy.data_dir / "recovery.signal").touch()
        with copy:
            wait_for(lambda: run_sql(copy, "postgres", "SELECT NOT pg_is_in_recovery()") == [(True,)], seconds=60)
            assert run_sql(copy, "postgres", "SELECT count(*), max(no) FROM log") == [(archiving.rows, archiving.rows)]
            # What wal status said of it was true.
            ((newest,),) = run_sql(copy, "postgres", "SELECT pg_last_xact_replay_timestamp()")
            assert place["rpo_by"] == "transaction"
            assert newest == datetime.fromisoformat(place["recovery_point"])
            log = copy.log_file.read_text()
            assert "restored log file" in log
            assert "pgops wal:" not in log
    finally:
        (host.root / "lost").rename(host.wal)
        client.delete_object(Bucket=BUCKET, Key=key)


def test_the_rpo_is_the_age_of_the_newest_transaction_that_s3_could_restore(archiving: Archiving) -> None:
    """Held against the log of a writer and PostgreSQL's own reader of WAL. That a segment was ended late makes it no younger."""
    server, host = archiving.server, archiving.host
    archiving.configure(s3=archiving.s3_section())
    client, manifest = archiving.store.client(), archiving.base
    key = "database-backups/db1/sets/%s/manifest.json" % manifest.id
    client.put_object(Bucket=BUCKET, Key=key, Body=manifest.encode())
    settings = ("archive_timeout = '1s'", "autovacuum = off")
    try:
        moments, name = _ticks(archiving, settings, 20)
        archived_up_to(server, name)
        # Moments in S3 are whole seconds.
        wait_for(lambda: datetime.now(UTC) - moments[-1][0] > timedelta(seconds=1.1))
        host.json("wal", "ship")
        status = archiving.status()
        (place,) = [place for place in status["places"] if place["place"] == "s3"]
        stretch = place["windows"][-1]["stretches"][-1]
        assert all(position <= parse_lsn(stretch["end_lsn"]) for _moment, position in moments)
        point = datetime.fromisoformat(place["recovery_point"])
        age = (datetime.fromisoformat(status["now"]) - point).total_seconds()
        assert (place["rpo_by"], place["rpo_seconds"]) == ("transaction", pytest.approx(age, abs=0.01))
        # It was committed when the writer had heard of the one before, and before it heard of that one.
        assert moments[-2][0] < point <= moments[-1][0]
        # PostgreSQL's own reader says the same of it.
        segment_file = host.root / name
        host.run("wal", "fetch", name, str(segment_file), cwd=server.data_dir)
        utc = {"env": {**server.env, "TZ": "UTC"}}
        told = server.run("pg_waldump", "--rmgr=Transaction", str(segment_file), cwd="/", **utc, **as_server())
        commits = re.findall(r"desc: COMMIT (\d{4}-\d\d-\d\d [\d:.]+) UTC", told.stdout)
        assert datetime.fromisoformat(commits[-1] + "+00:00") == point
        # Another host has nothing of all that but what is in S3.
        (memory,) = (host.root / "state").rglob("wal-newest.json")
        memory.unlink()
        host.wal.rename(host.root / "lost")
        try:
            (alone,) = [place for place in archiving.status()["places"] if place["place"] == "s3"]
        finally:
            (host.root / "lost").rename(host.wal)
        assert (alone["rpo_by"], alone["recovery_point"]) == ("transaction", place["recovery_point"])
    finally:
        for setting in settings:
            run_sql(server, "postgres", "ALTER SYSTEM RESET %s" % setting.partition(" ")[0])
        run_sql(server, "postgres", "SELECT pg_reload_conf()")
        client.delete_object(Bucket=BUCKET, Key=key)


def _ticks(archiving: Archiving, settings: Iterable[str], count: int) -> tuple[list[tuple[datetime, int]], str]:
    """Commit rows under these settings; return when each was known to be committed and where, and the segment of the last."""
    moments: list[tuple[datetime, int]] = []
    where = "SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text, pg_walfile_name(pg_current_wal_insert_lsn())"
    workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    name, before = "", "-"
    with cursor(archiving.server, "postgres") as asked:  # each statement is a transaction of its own
        asked.execute("DROP TABLE IF EXISTS ticks")
        asked.execute("CREATE TABLE ticks (no int)")
        for setting in settings:
            asked.execute("ALTER SYSTEM SET %s" % setting)
        asked.execute("SELECT pg_reload_conf()")
        wait_for(lambda: run_sql(archiving.server, "postgres", workers) == [(0,)], seconds=60)
        # The segment may end between a commit and the question where that lies.
        while len(moments) < count or name != before:
            before = name
            asked.execute("INSERT INTO ticks VALUES (%s)", (len(moments),))
            asked.execute(where)
            moment, position, name = asked.fetchone()
            moments.append((moment, parse_lsn(position)))
            time.sleep(0.05)
    return moments, name


def test_an_archive_out_of_reach_ends_no_recovery_by_mistake(archiving: Archiving) -> None:
    host = archiving.host
    name = "000000010000000000000099"
    data = archiving.server.data_dir
    archiving.configure(s3=archiving.s3_section())
    host.run("wal", "fetch", name, str(host.root / "none"), cwd=data, code=1)
    archiving.configure(s3={**archiving.s3_section(), "bucket": "another"})
    host.run("wal", "fetch", name, str(host.root / "none"), cwd=data, code=204)
    if archiving.server.major == 18:  # moto takes any key
        archiving.configure(s3={**archiving.s3_section(), "secret_key": "wrong"})
        said = host.run("wal", "fetch", name, str(host.root / "none"), cwd=data, code=201).stderr
        assert "key" in said
    assert not (host.root / "none").exists()


def test_a_server_that_cannot_archive_is_heard_of(archiving: Archiving) -> None:
    archiving.configure()
    broken = archiving.host.wal.parent.parent.with_name("away")
    archiving.host.wal.parent.parent.rename(broken)
    archiving.host.wal.parent.parent.write_text("in the way")
    try:
        run_sql(archiving.server, "postgres", "SELECT pg_create_restore_point('b'), pg_switch_wal()")
        failing = "SELECT last_failed_time > last_archived_time FROM pg_stat_archiver"
        wait_for(lambda: run_sql(archiving.server, "postgres", failing) == [(True,)], seconds=60)
        status = archiving.status()
        (found,) = [finding for finding in status["findings"] if finding["check"] == "wal archive"]
        assert found["severity"] == "critical"
        assert "cannot archive 0000000100" in found["text"]
        # What stays is in pg_wal, whose disk is looked at now.
        assert any("pg_wal" in one["text"] for one in status["findings"] if one["check"] == "wal room")
        assert status["server"]["pg_wal_free_bytes"] > 0
        assert (archiving.asked().code, found["text"] in archiving.asked().text) == (2, True)
        assert found["text"] in [heard.text for heard in archiving.heard()], "the alerts are judged by the same"
        assert "cannot be written" in archiving.server.log_file.read_text()
    finally:
        archiving.host.wal.parent.parent.unlink()
        broken.rename(archiving.host.wal.parent.parent)
    archived_up_to(archiving.server)


def test_encrypted_wal_comes_back_with_the_key_only(age_key: Any, tmp_path: Path) -> None:
    key = age_key("wal")
    encrypted = {"encryption": "age", "recipients": [key.public]}
    commands = Commands(tmp_path, tmp_path / "backups", backup=encrypted)
    path = commands.write(1)
    commands("archive", path)
    commands("archive", path)
    stored, mark = commands.stored()[0], commands.stored()[1]
    assert stored.name.endswith(".zst.age")
    assert stored.read_bytes().startswith(b"age-encryption.org/")
    assert mark.name == "segments-of-16777216"
    words = ("fetch", path.rpartition("/")[2], "pg_wal/RECOVERYXLOG")
    assert "no private key" in commands(*words, code=202)
    # Which timelines there are is known without it: what lies behind a switch could not be planned otherwise.
    history = commands.data / "pg_wal" / "00000002.history"
    history.write_text('1\t0/3000000\tat restore point "before"\n', encoding="utf-8")
    commands("archive", "pg_wal/00000002.history")
    (plain,) = [one for one in commands.stored() if one.name.startswith("00000002.")]
    assert not plain.name.endswith(".age")
    commands("fetch", "00000002.history", "pg_wal/RECOVERYHISTORY")
    assert (commands.data / "pg_wal" / "RECOVERYHISTORY").read_bytes() == history.read_bytes()
    values = json.loads(commands.config.read_text())
    commands.config.write_text(json.dumps({**values, "restore": {"identity_file": str(key.file)}}))
    commands(*words)
    assert (commands.data / "pg_wal" / "RECOVERYXLOG").read_bytes() == (commands.data / path).read_bytes()
    # Other content is found out without the key, by its hash.
    commands.write(1, seed=1)
    assert "other content" in commands("archive", path, code=5)


# --- fetch from S3 ----------------------------------------------------------------------------------------------------


@dataclass
class Away:
    """Segments that are in S3 only, and a data directory to fetch them into, in this process."""

    kit: Kit
    commands: Commands
    names: list[str]
    capfd: pytest.CaptureFixture[str]

    @property
    def top(self) -> str:
        return "wal/%d/0000000100000000" % SYSTEM

    @property
    def ahead(self) -> list[str]:
        folder = self.commands.data / "pg_wal" / ".pgops"
        return sorted(path.name[:24] for path in folder.iterdir()) if folder.is_dir() else []

    def fetch(self, name: str, *words: str, code: int = 0) -> str:
        self.capfd.readouterr()
        argv = ["wal", "fetch", "-c", str(self.commands.config), name, "pg_wal/RECOVERYXLOG", *words]
        assert start.main(argv) == code
        return self.capfd.readouterr().err

    def fetched(self, number: int) -> bool:
        return (self.commands.data / "pg_wal" / "RECOVERYXLOG").read_bytes() == segment(number, size=Commands.size)


@pytest.fixture
def away(kit: Kit, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Away:
    commands = Commands(tmp_path / "server", tmp_path / "server" / "backups", s3=dataclasses.asdict(kit.s3()))
    values = json.loads(commands.config.read_text())
    commands.config.write_text(json.dumps({**values, "instance": kit.instance, "wal": {"prefetch": 2}}))
    names = []
    for number in range(1, 5):
        path = commands.write(number)
        commands("archive", path)
        names.append(path.rpartition("/")[2])
    home = tmp_path / "server" / "backups" / kit.instance
    for stored in home.rglob("*.zst"):
        kit.raw_write(stored.relative_to(home).as_posix(), stored.read_bytes())
    shutil.rmtree(home)
    monkeypatch.chdir(commands.data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return Away(kit, commands, names, capfd)


def test_fetch_brings_the_following_segments_along(away: Away) -> None:
    assert "from s3" in away.fetch(away.names[0], "-v")
    assert away.fetched(1)
    assert away.ahead == away.names[1:3]
    assert "from ahead" in away.fetch(away.names[1], "-v")
    assert away.fetched(2)
    assert away.ahead == away.names[2:3]
    assert "from ahead" in away.fetch(away.names[2], "-v")
    assert "from s3" in away.fetch(away.names[3], "-v")
    assert away.fetched(4)
    assert away.fetch("00000001000000000000000A", code=1) == ""
    assert away.fetch("00000002.history", code=1) == ""
    assert "There is no WAL archive" in away.fetch(away.names[0], "--place", "local", code=204)


def test_a_process_that_stays_has_what_follows_ready(away: Away) -> None:
    data, config_path = away.commands.data, str(away.commands.config)
    options = {"system_identifier": "", "place": "", "instance": ""}
    (data / "postmaster.pid").write_text("1\n")
    (data / "pg_wal" / ".pgops").mkdir()
    left = data / "pg_wal" / ".pgops" / (".ready-%s-1-1" % away.names[1])
    left.write_bytes(b"of one that was killed")
    recovery = Recovery(read_brief(config_path), "pg_wal/RECOVERYXLOG", config_path, options, str(data))
    try:
        source, path = recovery.give(away.names[0], fail)
        assert (source, Path(path).read_bytes()) == ("s3", segment(1, size=Commands.size))
        wait_for(lambda: {name.split("-")[1] for name in os.listdir(Path(path).parent)} == set(away.names[:3]))
        assert not left.exists()
        # Nobody reads S3 for it any more.
        for stored in away.kit.raw_paths():
            if away.names[1] in stored:
                away.kit.raw_write(stored, b"no segment")
        wait_for(lambda: not list(Path(path).parent.glob("*.tmp")))
        source, path = recovery.give(away.names[1], fail)
        assert (source, Path(path).read_bytes()) == ("ahead", segment(2, size=Commands.size))
        Path(path).rename(data / "pg_wal" / "RECOVERYXLOG")
        with pytest.raises(DamagedError, match="is damaged"):
            recovery.give(away.names[1], fail)
        with pytest.raises(AbsentError, match="is not in"):
            recovery.give("00000001000000000000000A", fail)
        assert recovery.give(away.names[3], fail)[0] in ("s3", "ahead")
    finally:
        recovery.close()
    assert not (data / "pg_wal" / ".pgops").exists()


def fail(text: str) -> None:
    """Hear a warning where there is to be none."""
    raise AssertionError(text)


def test_a_damaged_segment_on_the_host_is_taken_from_s3(away: Away) -> None:
    away.fetch(away.names[0])
    for path in (away.commands.data / "pg_wal" / ".pgops").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    said = away.fetch(away.names[1], "-v")
    assert "is damaged" in said
    assert "from s3" in said
    assert away.fetched(2)


def test_what_s3_holds_wrongly_ends_no_recovery(away: Away) -> None:
    paths = {path.rpartition("/")[2][:24]: path for path in away.kit.raw_paths()}
    away.kit.raw_write(paths[away.names[1]], b"\x28\xb5\x2f\xfd no segment")
    assert "is damaged" in away.fetch(away.names[1], code=201)
    away.kit.raw_write("%s/%s-%s" % (away.top, away.names[0], "a" * 64), b"another")
    assert "2 different files" in away.fetch(away.names[0], code=205)
    values = json.loads(away.commands.config.read_text())
    values["s3"]["bucket"] = "another"
    away.commands.config.write_text(json.dumps(values))
    assert "does not exist" in away.fetch(away.names[0], code=204)


def test_a_place_that_holds_nothing_of_the_cluster_ends_no_recovery(away: Away) -> None:
    """As where the configuration is that of another instance; beyond the end of an archive it is the end."""
    assert away.fetch("000000010000000100000000", code=1) == ""
    values = json.loads(away.commands.config.read_text())
    away.commands.config.write_text(json.dumps({**values, "instance": "another"}))
    for name in (away.names[0], "00000002.history"):
        assert "There is no WAL of the cluster %d" % SYSTEM in away.fetch(name, code=204)


def test_a_directory_for_what_follows_that_cannot_be_made_is_told_and_no_more(away: Away) -> None:
    (away.commands.data / "pg_wal" / ".pgops").write_text("in the way")
    assert "could not be brought ahead" in away.fetch(away.names[0])
    assert away.fetched(1)
