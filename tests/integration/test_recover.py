# SPDX-License-Identifier: GPL-3.0-or-later
"""Point-in-time recovery of real servers: exactly the rows that were committed before the target are there, none after."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import quote_ident
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import parse_target
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import (
    parse_lsn,
    segment_name,
    show_lsn,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.sizes import human_size
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.tablespace_records import found_in
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import debian, fencing, recovering, unproven
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import connect, server_facts
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import (
    backup,
    recover,
    recovery_plan,
    rescue,
    rollback_data,
    settling,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.wal_status import wal_findings
from demo.servers import PostgresServer, free_port, wheel_bindir
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import ROOT as TOP
from tests.integration.conftest import Site, create_database, cursor, run_sql, wait_for
from tests.integration.wal_fixtures import Host, archived_up_to

ROWS = 24
ODD = 'Odd "name" 50% $x'
ODD_TABLE = '"sch\'ema; DROP"."ta""ble %s"'
# A partition of a partition holds the row, and another table is referred to that is not asked for.
ODD_TABLES = f"""
CREATE SCHEMA "sch'ema; DROP";
CREATE TABLE other (i int PRIMARY KEY);
INSERT INTO other VALUES (7);
CREATE TABLE {ODD_TABLE} (i int REFERENCES other, t text) PARTITION BY LIST (i);
CREATE TABLE upper PARTITION OF {ODD_TABLE} DEFAULT PARTITION BY LIST (t);
CREATE TABLE lower PARTITION OF upper DEFAULT;
INSERT INTO {ODD_TABLE} VALUES (7, 'before');
CREATE SEQUENCE "every body's" START 41;
CREATE TABLE family (i int DEFAULT nextval('"every body''s"'));
CREATE TABLE other_parent (j int);
CREATE TABLE child () INHERITS (family, other_parent);
CREATE TABLE "grand child" () INHERITS (child);
INSERT INTO family DEFAULT VALUES;
INSERT INTO "grand child" (j) VALUES (1), (2);
INSERT INTO other_parent VALUES (9);
CREATE VIEW seen AS SELECT o.i FROM other o JOIN family f USING (i);
"""
IS_PAUSED = "SELECT pg_is_in_recovery(), pg_is_wal_replay_paused()"
KINDS = ("time", "lsn", "xid", "name", "immediate", "end")


@dataclass
class Story:
    """A server with an archive and what happened on it: after each numbered row the moment, the LSN and the transaction."""

    server: PostgresServer
    site: Site
    archive: Path
    bases: list[str] = field(default_factory=list)
    moments: dict[int, datetime] = field(default_factory=dict)
    positions: dict[int, str] = field(default_factory=dict)
    xids: dict[int, str] = field(default_factory=dict)
    before: str = ""
    count: int = 0
    copies: list[Path] = field(default_factory=list)
    config_file: str = ""
    program: str = ""
    spaces: tuple[str, ...] = ()

    def write(self, rows: int) -> None:
        """Commit so many numbered rows, one by one."""
        with cursor(self.server, "shop") as asked:  # each statement is a transaction of its own
            for _row in range(rows):
                self.count += 1
                asked.execute("INSERT INTO log VALUES (%s) RETURNING pg_current_xact_id()::text", (self.count,))
                self.xids[self.count] = asked.fetchone()[0]
                asked.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")
                self.moments[self.count], self.positions[self.count] = asked.fetchone()

    def back_up(self) -> None:
        request = backup.Request(kind="base")
        result = runs.perform(self.site.engine(), "backup", lambda c: backup.backup(c, request))
        self.bases.append(result["set"])

    def settle(self) -> None:
        """Let everything so far be archived."""
        (name,) = run_sql(self.server, "postgres", "SELECT pg_walfile_name(pg_switch_wal())")[0]
        archived_up_to(self.server, name)  # while cp is at it, the file is there, but not whole

    def folder(self) -> Path:
        """A new directory for a copy and its tablespace, which the server's account can reach."""
        folder = self.server.root / ("copy %d" % len(self.copies))
        folder.mkdir()
        own(self.server, folder)
        self.copies.append(folder)
        return folder

    def places(self, folder: Path, word: str = " away") -> dict[str, str]:
        """Where the tablespaces of a copy may lie, by their names."""
        return {name: str(folder / (name + word)) for name in self.spaces}

    def recover(self, folder: Path | None = None, *, sections: Any = None, dry_run: bool = False, **asked: Any) -> Any:
        """Recover as the program does; the target is what of `asked` is one."""
        folder = folder or self.folder()
        kinds = {k: asked.pop(k) for k in KINDS if k in asked}
        more = {k: asked.pop(k) for k in ("inclusive", "timeline", "action", "to_gap") if k in asked}
        request = recover.Request(
            **{
                "target": parse_target(kinds, **more),
                "data_directory": str(folder / "data"),
                "tablespaces": self.places(folder),
                "dry_run": dry_run,
                **asked,
            }
        )
        context = self.site.engine(**(sections or {}))
        context.config_file, context.program = self.config_file, self.program
        return runs.perform(context, "recover", lambda c: recover.recover(c, request), dry_run=dry_run)

    def rows(self, result: dict[str, Any]) -> list[int]:
        """The rows of a copy."""
        return [row[0] for row in ask(result, "SELECT i FROM log ORDER BY i")]

    def start(self, conf: Path) -> None:
        """Start the server that `conf` configures, as Debian does."""
        (data,) = re.findall("data_directory = '(.*)'", conf.read_text())
        log = conf.parent / "server.log"
        words = ["start", "--wait", "-t", "60", "-D", data, "-l", str(log), "-o", "-c config_file='%s'" % conf]
        self.control(*words).check_returncode()

    def stop(self, folder: Path) -> None:
        """Stop the server of a copy and wait for its end."""
        self.control("stop", "-m", "immediate", "-D", str(folder / "data"))

    def control(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Call pg_ctl as the account of the server."""
        account = self.server.account.pw_name if self.server.account else None
        command = [str(self.server.bindir / "pg_ctl"), *words]
        # Not a pipe, which a server that was started would keep open.
        return subprocess.run(
            command, user=account, cwd="/", check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def own(server: PostgresServer, *paths: Path) -> None:
    for path in paths:
        if server.account:
            os.chown(path, server.account.pw_uid, server.account.pw_gid)


def ask(result: dict[str, Any], query: str, database: str = "shop", options: str = "") -> list[tuple[Any, ...]]:
    """Ask the shop of a copy, or another database, by its private socket."""
    where = {"host": result["socket_directory"], "port": result["port"], "user": "postgres", "dbname": database}
    where["options"] = options
    connection = psycopg2.connect(**where)
    try:
        with connection.cursor() as asked:
            asked.execute(query)
            return list(asked.fetchall())
    finally:
        connection.close()


# What the version makes no difference to runs on the newest. It is the first: pytest groups the tests by the number of the parameter.
VERSIONS = (18, 16)
NEWEST = pytest.mark.parametrize("story", VERSIONS[:1], indirect=True)


@pytest.fixture(scope="module", params=VERSIONS)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("story")
    settings = {
        "archive_mode": "on",
        "archive_command": "false",
        "wal_level": "replica",
        # What is before each line of the log of a copy reads like the line that proves where it stopped.
        "log_line_prefix": "%m LOG:  recovery stopping after commit of transaction 7, time 2020-01-01 00:00:00+00 ",
        "log_error_verbosity": "verbose",
    }
    with PostgresServer(wheel_bindir(request.param), root, settings=settings) as server:
        archive, far, near = (server.root / name for name in ("archive of wal", "far", "near by"))
        for path in (archive, far, near):
            path.mkdir()
            own(server, path)
        server.stop()
        wal = (server.data_dir / "pg_wal").rename(server.root / "wal, a disk")  # as initdb --waldir makes it
        (server.data_dir / "pg_wal").symlink_to(wal)
        server._settings["archive_command"] = 'test ! -f "%s/%%f" && cp "%%p" "%s/%%f"' % (archive, archive)
        server.start()
        run_sql(server, "postgres", "CREATE TABLESPACE far LOCATION '%s'" % far)
        run_sql(server, "postgres", "CREATE TABLESPACE near LOCATION '%s'" % near)
        run_sql(server, "postgres", "CREATE TABLE aside TABLESPACE near AS SELECT 7 AS i")
        # As on a delayed standby: nothing may wait for that.
        run_sql(server, "postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
        # In such a transaction a server that recovers answers no query; template1 is where we log in to a copy.
        for whom in ("SYSTEM", "DATABASE template1"):
            run_sql(server, "postgres", "ALTER %s SET default_transaction_isolation = 'serializable'" % whom)
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY) TABLESPACE far")
        # As our own command does, it leaves something beside the WAL.
        command = 'mkdir -p "$(dirname "%%p")/.pgops" && cp "%s/%%f" "%%p"' % archive
        site = Site(root / "site", server, options={"restore": {"restore_command": command}})
        told = Story(server, site, archive, spaces=("far", "near"))
        told.before = run_sql(server, "postgres", "SELECT clock_timestamp()")[0][0].isoformat()
        told.write(4)
        told.back_up()
        told.write(ROWS // 2 - 4)
        run_sql(server, "postgres", "SELECT pg_create_restore_point('before the sale')")
        told.write(2)
        told.back_up()
        told.write(ROWS // 2 - 2)
        told.settle()
        yield told
        for folder in told.copies:
            told.stop(folder)


@pytest.fixture
def copies(story: Story) -> Iterator[Story]:
    """The story; what a test recovered ends with it."""
    yield story
    while story.copies:
        folder = story.copies.pop()
        story.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def upto(number: int) -> list[int]:
    return list(range(1, number + 1))


# --- to the row -------------------------------------------------------------------------------------------------------


def test_to_moments_chosen_at_random(copies: Story) -> None:
    seed = random.randrange(10**6)
    # Ten of them, under writers, are in test_recover_while_writing.py.
    for number in random.Random(seed).sample(range(5, ROWS), 3):
        moment = copies.moments[number]
        folder = copies.folder()
        result = copies.recover(folder, time=moment.isoformat())
        assert copies.rows(result) == upto(number), (seed, number)
        assert result["set"] == copies.bases[0 if number <= ROWS // 2 + 2 else 1]
        assert datetime.fromisoformat(result["stopped"]["time"]) <= moment
        assert "recovery stopping before commit of transaction" in result["stopped"]["log"]
        assert result["stopped"]["timeline"] == 2
        assert ask(result, "SHOW archive_mode")[0][0] == "off"
        assert ask(result, "SHOW listen_addresses")[0][0] == ""
        asked = "SELECT current_setting('shared_buffers'), current_setting('shared_preload_libraries')"
        assert ask(result, asked) == [("128MB", "")]
        inside = "pg_wal leads to %s); here pg_wal will lie inside the data directory" % (
            copies.server.root / "wal, a disk"
        )
        assert any(inside in remark for remark in result["remarks"])
        assert (result["wal_directory"], (folder / "data" / "pg_wal").is_symlink()) == ("", False)
        copies.stop(folder)
    assert copies.site.records()[-1]["verb"] == "recover"


def test_by_lsn_transaction_and_name(copies: Story) -> None:
    result = copies.recover(lsn=copies.positions[17])
    assert copies.rows(result) == upto(17)
    result = copies.recover(xid=copies.xids[15])
    assert copies.rows(result) == upto(15)
    assert "recovery stopping after commit" in result["stopped"]["log"]
    result = copies.recover(xid=copies.xids[15], inclusive=False)
    assert copies.rows(result) == upto(14)
    result = copies.recover(name="before the sale")
    assert copies.rows(result) == upto(ROWS // 2)
    assert result["set"] == copies.bases[0]
    assert "the oldest base backup is taken" in copies.site.warnings


def test_to_both_ends(copies: Story) -> None:
    result = copies.recover(end="yes")
    assert copies.rows(result) == upto(ROWS)
    assert result["stopped"]["log"] == ""
    assert ask(result, "SHOW recovery_min_apply_delay") == [("0",)]
    data = Path(result["data_directory"])
    assert not (data / "pg_wal" / ".pgops").exists()
    # Both tablespaces lie where they were told to, and nothing says any more that they are not proven.
    where = copies.places(data.parent)
    asked = "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'"
    assert dict(ask(result, asked)) == where
    for path in (data, *map(Path, where.values())):
        assert not (path / unproven.MARK).exists()
    assert all(any(path.is_file() for path in Path(place).rglob("*")) for place in where.values())
    result = copies.recover(immediate="yes", set=copies.bases[0], sections={"restore": {"restore_command": ""}})
    assert copies.rows(result) == upto(4)


def test_paused_it_is_there_to_look_at(copies: Story) -> None:
    result = copies.recover(time=copies.moments[20].isoformat(), action="pause")
    assert copies.rows(result) == upto(20)
    assert ask(result, "SELECT pg_is_in_recovery()") == [(True,)]
    assert result["stopped"]["timeline"] == 1


@NEWEST
def test_a_copy_is_opened_to_others_by_the_commands_of_the_page(copies: Story) -> None:
    """By TCP, on a port of its own, with the logins that it had; still it archives nothing."""
    folder = copies.folder()
    sockets = folder / "s"
    copies.recover(folder, time=copies.moments[20].isoformat(), socket_directory=str(sockets))
    page = (TOP / "docs" / "recovery.md").read_text(encoding="utf-8").partition("### A copy that others use")[2]
    ((script,),) = [re.findall(r"^```sh\n(.*?)^```$", page.partition("\n##")[0], re.MULTILINE | re.DOTALL)]
    port = str(free_port())
    for shown, real in (("/srv/copy-socket", str(sockets)), ("/srv/copy", str(folder / "data")), ("5444", port)):
        assert shown in script
        script = script.replace(shown, shlex.quote(real))
    account = copies.server.account
    environment = {"PATH": os.pathsep.join([str(copies.server.bindir), os.environ["PATH"]]), "LC_ALL": "C"}
    done = subprocess.run(
        ["bash", "-c", "set -e\nexec >%s 2>&1\n%s" % (shlex.quote(str(folder / "said")), script)],
        **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}),
        env={**environment, **{k: v for k, v in copies.server.env.items() if k.startswith("LD_")}},
        cwd="/",
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, (folder / "said").read_text()
    told = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "shop"}
    with (
        contextlib.closing(psycopg2.connect(**told, password=copies.server.password)) as connection,
        connection.cursor() as asked,
    ):
        asked.execute("SELECT count(*) FROM log")
        assert asked.fetchone() == (20,)
        asked.execute("SELECT current_setting('archive_mode'), pg_is_in_recovery()")
        assert asked.fetchone() == ("off", False)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**told, password="another one")


# --- refused, and nothing touched -------------------------------------------------------------------------------------


def test_what_cannot_be_reached_is_refused_before_anything_is_touched(copies: Story) -> None:
    folder = copies.folder()
    for target, said in [
        ({"time": copies.before}, "it was whole at .* only"),
        ({"time": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "lies in the future"),
        ({"lsn": "0/1000028"}, "it was whole at the LSN"),
        ({"xid": copies.xids[2]}, "may have ended before the backup did"),
    ]:
        with pytest.raises(RefusedError, match=said):
            copies.recover(folder, **target)
    with pytest.raises(UsageError, match="no offset from UTC"):
        copies.recover(folder, time="2026-11-22 14:31:07")
    assert list(folder.iterdir()) == []
    assert copies.site.records()[-1]["outcome"] == "refused"


def test_directories_that_hold_something_are_refused_all_at_once(copies: Story) -> None:
    folder = copies.folder()
    (folder / "data").mkdir()
    (folder / "data" / "mine").touch()
    with pytest.raises(RefusedError) as caught:
        copies.recover(folder, end="yes", tablespaces={"nowhere": "/nonexistent/a"})
    for said in ("data is not empty", "no tablespace nowhere", "far of the tablespace far is not empty"):
        assert said in caught.value.message
    plan = copies.recover(folder, end="yes", dry_run=True)["plan"]
    assert plan["refusals"] == ["%s is not empty." % (folder / "data")]
    # Where one of them has a new place only, the other one's is that of the server that runs.
    plan = copies.recover(folder / "new", end="yes", tablespaces={"far": str(folder / "far")}, dry_run=True)["plan"]
    assert plan["tablespaces"] == {"far": str(folder / "far"), "near": str(copies.server.root / "near by")}
    assert any("near by of the tablespace near is not empty" in text for text in plan["refusals"])
    assert not any("tablespace far" in text for text in plan["refusals"])
    assert sorted(path.name for path in folder.iterdir()) == ["data"]


def test_a_data_directory_is_named_by_itself(copies: Story) -> None:
    """Of a link only that would be renamed; and what lies beside a path with .. in it is not what its words say."""
    folder = copies.folder()
    (folder / "real").mkdir()
    (folder / "data").symlink_to(folder / "real")
    for mode in ("in_place", "beside"):
        plan = copies.recover(folder, end="yes", mode=mode, dry_run=True)["plan"]
        assert any(
            "%s is a symbolic link: name the directory itself, " % (folder / "data") in t for t in plan["refusals"]
        )
    for wrong in ({"data_directory": "%s/real/../data" % folder}, {"tablespaces": {"far": "%s/.." % folder}}):
        with pytest.raises(UsageError, match=r"a path from the root without \.\."):
            copies.recover(folder, end="yes", **wrong)


def test_a_process_number_that_a_power_loss_left_behind_is_no_server(copies: Story) -> None:
    folder = copies.folder()
    (folder / "data").mkdir()
    (folder / "data" / "postmaster.pid").write_text("%d\n%s\n" % (os.getpid(), folder / "data"))
    asked = {"end": "yes", "mode": "in_place", "confirm": str(folder / "data"), "dry_run": True}
    plan = copies.recover(folder, **asked)["plan"]
    assert (plan["served"], plan["refusals"]) == (False, [])


def test_a_restore_of_databases_is_sent_here(copies: Story) -> None:
    with pytest.raises(UsageError, match="names no base backup"):
        copies.recover(end="yes", set="20261122T020000Z-logical")


# --- it fails, and what was there is as it was ------------------------------------------------------------------------


def test_wal_that_ends_before_the_target_leaves_nothing(copies: Story) -> None:
    folder = copies.folder()
    command = 'cp "%s/%%f" "%%p"' % (copies.server.root / "no archive")
    with pytest.raises(PgopsError, match="The WAL ended before the target") as caught:
        copies.recover(folder, xid=copies.xids[ROWS], sections={"restore": {"restore_command": command}})
    assert "no transaction of that number has ended behind the base backup" in caught.value.hint
    assert list(folder.iterdir()) == []
    assert copies.site.records()[-1]["outcome"] == "failed"


def test_a_damaged_set_leaves_nothing(copies: Story) -> None:
    folder = copies.folder()
    damaged = copies.site.forge(copies.bases[1], files={"base/base.tar.gz": b"no gzip at all"})
    try:
        with pytest.raises(PgopsError):
            copies.recover(folder, end="yes", set=damaged)
    finally:
        shutil.rmtree(copies.site.set_folder(damaged))
    assert list(folder.iterdir()) == []


@NEWEST
def test_with_the_newest_base_backup_gone_an_older_one_does(copies: Story) -> None:
    folder = copies.site.set_folder(copies.bases[1])
    gone = folder.rename(copies.site.root / "gone")
    try:
        result = copies.recover(time=copies.moments[20].isoformat())
        assert result["set"] == copies.bases[0]
        assert copies.rows(result) == upto(20)
    finally:
        gone.rename(folder)


@NEWEST
def test_another_cluster_than_the_manifest_says_is_no_success(copies: Story) -> None:
    folder = copies.folder()
    forged = copies.site.forge(
        copies.bases[1], lambda manifest: manifest.update(system_identifier="7300000000000000001")
    )
    try:
        with pytest.raises(DamagedError, match=r"calls itself \d+, and the set says 7300000000000000001"):
            copies.recover(folder, immediate="yes", set=forged)
    finally:
        shutil.rmtree(copies.site.set_folder(forged))
    assert list(folder.iterdir()) == []


def test_each_file_system_has_room_for_what_comes_there(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of it where the data directory lies: a tablespace has its own disk."""
    folder = copies.folder()
    other = next(p for p in (Path("/dev/shm"), Path("/var/tmp")) if p.stat().st_dev != folder.stat().st_dev)
    base = copies.site.manifest(copies.bases[1]).base
    assert base is not None
    sizes = {t.name: t.bytes for t in base.tablespaces}
    assert set(sizes) == {"far", "near"}
    assert all(0 < size < base.bytes / 2 for size in sizes.values())
    asked: list[tuple[Path, int]] = []

    def fits(_source: Any, home: Path, needed: int) -> bool:
        asked.append((home, needed))
        return home != other

    monkeypatch.setattr(recovery_plan.Source, "fits", fits)
    elsewhere = {**copies.places(folder), "near": str(other / "pgops near")}
    plan = copies.recover(folder, end="yes", tablespaces=elsewhere, dry_run=True)["plan"]
    wal = SEGMENT_BYTES  # from where it began to where it ended, beside the files of the databases
    assert plan["bytes"] == base.bytes + wal
    assert asked == [(folder, base.bytes - sizes["near"] + wal), (other, sizes["near"])]
    (said,) = plan["refusals"]
    assert "There is no room in %s: of the base backup %s come there" % (other, human_size(sizes["near"])) in said
    with pytest.raises(RefusedError, match="There is no room in %s" % other):
        copies.recover(folder, end="yes", tablespaces=elsewhere)
    assert list(folder.iterdir()) == []


# --- it is killed -----------------------------------------------------------------------------------------------------

# The program, which kills itself with -9 when it comes to a step.
KILLED = """
import os, signal, sys
from pgops.cli.start import main
from pgops.verbs import recover
setattr(recover, sys.argv.pop(1), lambda *_unused: os.kill(os.getpid(), signal.SIGKILL))
sys.exit(main())
"""


def test_what_a_killed_recovery_left_goes_with_the_next(copies: Story, tmp_path: Path) -> None:
    """Each is killed a step later, and each begins with what the one before has left; what was there before stays kept."""
    mode = "in_place" if copies.server.major == 18 else "beside"
    program, folder = Program(tmp_path / "program", copies.site), copies.folder()
    data, sockets = folder / "data", folder / "s"
    places = copies.places(folder)
    if mode == "in_place":
        data.mkdir(mode=0o700)
        (data / "PG_VERSION").write_text("%d\n" % copies.server.major)
        (data / "mine").touch()
        own(copies.server, *data.iterdir(), data)
        more = ["--mode", "in_place", "--leave", "stopped", "--confirm", str(data)]
    else:
        more = ["--socket-directory", str(sockets), "--yes"]
    moment = copies.moments[9].isoformat()
    words = ["recover", "--data-directory", str(data), "--to-time", moment, "--action", "pause", "--as-root", *more]
    for name, place in places.items():
        words += ["--tablespace", name, place]
    places["its WAL"] = str(folder / "wal")
    words += ["--waldir", places["its WAL"]]
    kept: list[Path] = []
    for step, left in [
        ("verify_unpacked", [unproven.unfinished(data)]),  # unpacked, with its tablespaces
        ("_recovery", [data]),  # it has its name
        ("_prove", [data]),  # its server runs
    ]:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, step, *words],
            env=program.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        for path in (*left, *map(Path, places.values())):
            assert unproven.is_marked(path, data), (step, path)
        kept = [path for path in folder.iterdir() if path.name.startswith("data.before-")]
        assert len(kept) == (mode == "in_place" and step != "verify_unpacked")
    assert recovering.is_served(data)
    plan = program.json(*words, "--dry-run")["plan"]
    assert plan["refusals"] == []
    assert plan["rests"] == [*places.values(), str(data)]
    assert sum("recovery that was cut short" in text for text in plan["remarks"]) == 4
    assert recovering.is_served(data), "a dry run touches nothing"
    result = program.json(*words)
    assert result["stopped"]["time"] <= moment
    assert any("never proven" in text for text in result["warnings"])
    for path in (data, *map(Path, places.values())):
        assert not (path / unproven.MARK).exists()
    assert not unproven.unfinished(data).exists()
    assert os.readlink(data / "pg_wal") == result["wal_directory"] == places["its WAL"]
    if mode == "beside":
        assert copies.rows(result) == upto(9)
        return
    assert [path for path in folder.iterdir() if path.name.startswith("data.before-")] == kept == [Path(result["kept"])]
    undone = rollback_data.rollback_data(copies.site.engine(), rollback_data.Request(str(data)))
    assert undone["kept"] == str(kept[0])
    assert (data / "mine").is_file()


# --- one database, or a table of it -------------------------------------------------------------------------------------


def rescued(story: Story, *, sections: Any = None, **asked: Any) -> dict[str, Any]:
    """Rescue as the program does; the target is what of `asked` is one."""
    kinds = {k: asked.pop(k) for k in KINDS if k in asked}
    request = rescue.Request(target=parse_target(kinds), **asked)
    context = story.site.engine(**(sections or {}))
    context.config_file, context.program = story.config_file, story.program
    return runs.perform(context, "rescue", lambda c: rescue.rescue(c, request), dry_run=request.dry_run)


def left_behind(story: Story, *work_dirs: Path) -> list[str]:
    """Files and servers of copies that are still there."""
    homes = [story.site.engine().state / "work", *work_dirs]
    found = [str(path) for home in homes if home.is_dir() for path in home.iterdir()]
    found += [str(p) for p in Path("/var/tmp").glob("pgops-*-%s-*" % story.site.instance)]
    mine = (*("%s/" % home for home in homes), "/var/tmp/pgops-rescue-%s-" % story.site.instance)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lives = os.readlink(process / "cwd")  # a server lives in its data directory, also when that is gone
            found += [lives] if lives.startswith(mine) else []
    return found


def test_a_database_is_rescued_beside_the_one_that_runs(story: Story) -> None:
    """With its tablespace, that of the server being occupied."""
    moment = story.moments[13].isoformat()
    plan = rescued(story, time=moment, database="shop", into="as it was", dry_run=True)["plan"]
    assert (plan["refusals"], plan["name"], plan["set"]) == ([], "as it was", story.bases[0])
    result = rescued(story, time=moment, database="shop", into="as it was")
    assert [row[0] for row in run_sql(story.server, "as it was", "SELECT i FROM log ORDER BY i")] == upto(13)
    assert run_sql(story.server, "shop", "SELECT count(*) FROM log") == [(ROWS,)]
    assert result["compared"]["rows"] == 13
    assert result["roles_created"] == []
    assert datetime.fromisoformat(result["stopped"]["time"]) <= story.moments[13]
    assert set(result["phases"]) == {"recover", "dump", "load"}
    assert left_behind(story) == []
    assert story.site.records()[-1]["verb"] == "rescue"
    with pytest.raises(RefusedError, match="There is a database 'as it was' already"):
        rescued(story, time=moment, database="shop", into="as it was")
    run_sql(story.server, "postgres", 'DROP DATABASE "as it was"')


@NEWEST
def test_what_a_killed_rescue_left_behind_goes_with_the_next(story: Story, tmp_path: Path) -> None:
    """Also where others may use the working directory: files, and the copy that runs on."""
    work = story.server.root / "work of rescues"
    work.mkdir(mode=0o755)
    moment = story.moments[13].isoformat()
    program = Program(tmp_path / "program", story.site)
    program.configure(work_dir=str(work))
    words = ("rescue", "--database", "shop", "--as-root", "--into", "it", "--to-time", moment, "--yes", "--quiet")
    process = program.start(*words)
    try:
        # Before it is promoted, and so long before its end.
        wait_for(lambda: process.poll() is not None or bool(list(work.glob("*/data/postmaster.pid"))), seconds=60)
        assert process.poll() is None, process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert any(lives.endswith("/data") for lives in left_behind(story, work))
    sections = {"work_dir": str(work)}
    rescued(story, sections=sections, time=moment, database="shop", into="it")
    assert story.site.warnings.count("which a run that was cut short left behind") >= 1
    assert left_behind(story, work) == []
    run_sql(story.server, "postgres", "DROP DATABASE it")


@NEWEST
def test_an_interrupted_rescue_ends_its_copy(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right behind the recovery, when nothing but its files tells yet that it runs."""
    perform = recover._settle

    def interrupted(*given: Any) -> list[str]:
        perform(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(recover, "_settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rescued(story, time=story.moments[13].isoformat(), database="shop", into="it")
    assert left_behind(story) == []


# --- in place ---------------------------------------------------------------------------------------------------------


def doors_at_the_proof(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Return what will hold the doors of each server at the time when it is proven where it stopped."""
    prove, doors = recover._prove, list[dict[str, str]]()

    def proves(work: Any, recovery: recovering.Recovery, stopped: Any) -> list[str]:
        with recovery.session() as session:
            names = (*fencing.UNPROVEN, "unix_socket_directories")
            doors.append({name: session.value("SELECT current_setting('%s', true)" % name) for name in names})
        return prove(work, recovery, stopped)

    monkeypatch.setattr(recover, "_prove", proves)
    return doors


def with_its_wal_apart(copies: Story, folder: Path) -> dict[str, Any]:
    """Recover to row 8, with the WAL in a directory of its own."""
    asked = {"time": copies.moments[8].isoformat()}
    with pytest.raises(RefusedError, match="wal, a disk is not empty"):
        copies.recover(folder, wal_directory=str(copies.server.root / "wal, a disk"), **asked)
    result = copies.recover(folder, wal_directory=str(folder / "wal of 8"), **asked)
    assert not any("pg_wal" in remark for remark in result["remarks"])
    assert result["wal_directory"] == os.readlink(folder / "data" / "pg_wal") == str(folder / "wal of 8")
    return result


def configured_elsewhere(copies: Story, folder: Path, port: int, sockets: str) -> tuple[Path, Path]:
    """Write postgresql.conf and pg_hba.conf outside of the data directory; whatever runs of the original's leaves a file `leaked`."""
    conf, hba = folder / "postgresql.conf", folder / "hba.conf"
    hba.write_text("local all all trust\n")
    conf.write_text(
        "port = %d\nunix_socket_directories = '%s'\nlisten_addresses = ''\nhba_file = '%s'\narchive_mode = on\n"
        "archive_command = 'touch \"%s/leaked\"'\nrecovery_end_command = 'touch \"%s/leaked\"'\n"
        "archive_cleanup_command = 'touch \"%s/leaked\"'\ndata_directory = '%s/another'\n"
        % (port, sockets, hba, folder, folder, folder, folder)
    )
    own(copies.server, conf, hba)
    return conf, hba


def keeps_no_target(data: Path) -> None:
    """The fence stays, and nothing by which a later recovery would stop there again."""
    own_settings = (data / "postgresql.auto.conf").read_text()
    assert "archive_mode = 'off'" in own_settings
    assert "recovery_" not in own_settings.replace("recovery_end_command", "")
    assert "restore_command" not in own_settings


def goes_back(copies: Story, folder: Path, first: Path, second: Path) -> None:
    """Undo recoveries that gave the WAL a directory of its own: each data directory comes back with its WAL, and starts."""
    data = folder / "data"

    def undo(kept: Path) -> Path:
        request = rollback_data.Request(str(data), kept=str(kept))
        return Path(rollback_data.rollback_data(copies.site.engine(), request)["aside"])

    assert not (undo(first) / "pg_wal").is_symlink()
    assert os.readlink(data / "pg_wal") == str(folder / "wal of 8")
    aside = undo(second)
    assert os.readlink(data / "pg_wal") == str(folder / "wal of 21")
    said = "remove it when nobody needs it any more, and %s, where its WAL lies" % (folder / "wal of 8")
    assert said in copies.site.warnings
    undo(aside)
    copies.control("start", "--wait", "-D", str(data), "-l", str(folder / "log")).check_returncode()


def recovers_with_less(
    copies: Story, folder: Path, conf: Path, asked: dict[str, Any], here: dict[str, Any]
) -> dict[str, Any]:
    """On this host it is to have less than the original, whose WAL would not be replayed with that; and our login was made later."""
    with open(conf, "a", encoding="utf-8") as stream:
        stream.write("max_connections = 20\nmax_wal_senders = 3\n")
    copies.stop(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recovering, "_REFUSED_SECONDS", 0.5)
        login = {"postgres": {"login_user": "made_later"}}
        result = copies.recover(folder, confirm=str(folder / "data"), sections=login, **asked)
    (told,) = [text for text in result["remarks"] if 'role "made_later" does not exist' in text]
    assert "The server runs, and does not let the login of the configuration in" in told
    assert result["superuser"] == "made_later"
    assert any("replayed with max_connections = 100, as the original had it" in text for text in result["remarks"])
    assert ask(here, "SELECT current_setting('max_connections'), current_setting('max_wal_senders')") == [("20", "3")]
    return result


def test_in_place_the_old_data_directory_is_kept(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian: the configuration lies elsewhere; the server was stopped; one that runs is refused."""
    doors = doors_at_the_proof(monkeypatch)
    folder = copies.folder()
    first = with_its_wal_apart(copies, folder)
    data = folder / "data"
    port = free_port()
    sockets = first["socket_directory"]
    conf, hba = configured_elsewhere(copies, folder, port, sockets)
    asked = {
        "time": copies.moments[21].isoformat(),
        "mode": "in_place",
        "config_file": str(conf),
        "tablespaces": copies.places(folder, "er"),
    }
    with pytest.raises(RefusedError) as caught:
        copies.recover(folder, **asked)
    assert "A server runs on" in caught.value.message
    assert "confirm it by its exact path" in caught.value.message
    copies.stop(folder)
    elsewhere = {**asked, "tablespaces": copies.places(folder, " to look at")}
    with pytest.raises(RefusedError, match="is where the server that is replaced has its WAL"):
        copies.recover(folder, confirm=str(data), wal_directory=first["wal_directory"], **elsewhere)
    elsewhere["wal_directory"] = str(folder / "wal of 21")
    paused = copies.recover(folder, confirm=str(data), action="pause", **elsewhere)
    assert (paused["kept_wal_directory"], paused["wal_directory"]) == (
        first["wal_directory"],
        str(folder / "wal of 21"),
    )
    assert any("the recovery pauses, and needs them to go on" in text for text in paused["remarks"])
    assert "recovery_target_time" in (data / "postgresql.auto.conf").read_text()
    here = {"socket_directory": sockets, "port": port}
    assert ask(here, IS_PAUSED, options=r"-c default_transaction_isolation=read\ committed") == [(True, True)]
    result = recovers_with_less(copies, folder, conf, asked, here)
    assert (result["running"], result["service"]) == (True, "")
    kept = Path(result["kept"])
    assert (kept / "PG_VERSION").is_file()
    # It was let in by nobody before it was proven, and is as its configuration says now.
    for door in doors[1:]:
        assert door.pop("unix_socket_directories") != sockets
        assert door == fencing.UNPROVEN
    assert len(doors) == 3
    assert ask(here, "SHOW unix_socket_directories") == [(sockets,)]
    assert ask(here, "SHOW max_logical_replication_workers") == [("4",)]
    assert copies.rows(here) == upto(21)
    assert ask(here, "SHOW archive_mode") == [("off",)]
    assert ask(here, "SHOW data_directory") == [(str(data),)]
    assert any("names the data directory %s/another" % folder in text for text in result["remarks"])
    assert not (folder / "leaked").exists()
    keeps_no_target(data)
    # It fails over it once more: the one that was there is there again.
    copies.stop(folder)
    broken = {**asked, "tablespaces": copies.places(folder, "thest"), "config_file": str(hba)}
    with pytest.raises(
        UnreachableError, match=r'LOG:  syntax error in file ".*hba.conf" line 1.* / .*FATAL:  .* contains errors'
    ):
        copies.recover(folder, confirm=str(data), **broken)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("data")) == [
        "data",
        *sorted((Path(paused["kept"]).name, kept.name)),
    ]
    assert not (folder / "farthest").exists()
    assert (data / "backup_label.old").exists()
    copies.stop(folder)
    goes_back(copies, folder, Path(paused["kept"]), kept)
    assert copies.rows(first) == upto(8)


@NEWEST
def test_debians_configuration_is_found_and_its_service_named(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration in /etc names the data directory; the server is left to its service, and the recovery undone."""
    folder = copies.folder()
    data, major = folder / "data", str(copies.server.major)
    etc = folder / "etc"
    conf = etc / major / "main" / "postgresql.conf"
    conf.parent.mkdir(parents=True)
    (folder / "hba.conf").write_text("local all all trust\n")
    conf.write_text(
        "data_directory = '%s'\nport = %d\nunix_socket_directories = '%s'\nlisten_addresses = 'localhost'\nhba_file = '%s/hba.conf'\n"
        % (data, free_port(), folder, folder)
    )
    own(copies.server, *folder.rglob("*"))
    monkeypatch.setattr(recovery_plan, "cluster_of", lambda path: debian.cluster_of(path, etc))
    doors = doors_at_the_proof(monkeypatch)
    service = "postgresql@%s-main" % major
    asked = {"mode": "in_place", "leave": "stopped"}
    first = copies.recover(folder, time=copies.moments[9].isoformat(), **asked)
    assert (first["service"], first["running"], first["kept"]) == (service, False, "")
    assert not any("names the data directory" in text for text in first["remarks"])
    assert not (data / "postmaster.pid").exists()
    # Until it was proven nobody else could come in, whatever its configuration says; and no job of its own ran.
    (door,) = doors
    private = Path(door.pop("unix_socket_directories"))
    assert door == fencing.UNPROVEN
    assert private != folder
    assert not private.exists()
    # As its service does.
    copies.start(conf)
    asked["tablespaces"] = copies.places(folder, "er")
    plan = copies.recover(folder, time=copies.moments[21].isoformat(), dry_run=True, **asked, confirm=str(data))["plan"]
    assert (plan["served"], plan["service"], len(plan["refusals"])) == (True, service, 1)
    assert "Stop it first: systemctl stop %s" % service in plan["refusals"][0]
    copies.stop(folder)
    result = copies.recover(folder, time=copies.moments[21].isoformat(), confirm=str(data), **asked)
    monkeypatch.setattr(rollback_data, "cluster_of", recovery_plan.cluster_of)
    undone = rollback_data.rollback_data(copies.site.engine(), rollback_data.Request(str(data)))
    assert (undone["kept"], undone["service"]) == (result["kept"], service)
    copies.start(conf)
    (port,) = re.findall(r"port = (\d+)", conf.read_text())
    assert copies.rows({"socket_directory": str(folder), "port": int(port)}) == upto(9)
    # The service of another version would not start what this set brings.
    conf.parent.parent.rename(etc / "9")
    with pytest.raises(RefusedError, match="of the cluster 9/main, and the base backup is of PostgreSQL %s" % major):
        copies.recover(folder, time=copies.moments[9].isoformat(), **asked)


# --- the program ------------------------------------------------------------------------------------------------------


@NEWEST
def test_the_program_plans_asks_and_tells_where_it_stopped(copies: Story, tmp_path: Path) -> None:
    program = Program(tmp_path / "program", copies.site)
    folder = copies.folder()
    moment = copies.moments[9].isoformat()
    common = [
        "recover",
        "--data-directory",
        str(folder / "data"),
        "--tablespace",
        "far",
        str(folder / "far away"),
        "--tablespace",
        "near",
        str(folder / "near away"),
        "--as-root",
    ]
    shown = program(*common, "--to-time", moment, "--dry-run").stdout
    assert "beside the original" in shown
    assert copies.bases[0] in shown
    assert "Add --yes" in program(*common, "--to-time", moment, code=5).stderr
    assert "Several targets" in program(*common, "--to-time", moment, "--to-end", code=2).stderr
    assert "no time zone" in program(*common, "--to-time", "2026-11-22 14:31:07 EST", code=2).stderr
    assert list(folder.iterdir()) == []
    said = program(*common, "--to-time", moment, "--yes").stdout
    assert "Proof: it replayed up to the LSN" in said
    assert "psql -h" in said
    again = program.json(*common, "--to-end", "--yes", code=5)
    assert "is not empty" in again["message"]


@NEWEST
def test_it_proves_where_it_stopped(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that went further than it was asked to is no success: here PostgreSQL is asked for another moment."""
    folder = copies.folder()
    settings = recovery_plan.Target.settings

    def later(target: recovery_plan.Target) -> dict[str, str]:
        return {**settings(target), "recovery_target_time": copies.moments[20].isoformat()}

    monkeypatch.setattr(recovery_plan.Target, "settings", later)
    with pytest.raises(DamagedError, match="which is after the target"):
        copies.recover(folder, time=copies.moments[18].isoformat())
    assert list(folder.iterdir()) == []


def test_just_before_a_database_is_dropped_it_is_there(copies: Story) -> None:
    """PostgreSQL removes its files before the commit at which it stops, and nothing else was committed before that."""
    create_database(copies.server, "gone", "CREATE TABLE kept AS SELECT 1 AS i")
    if copies.server.major == 16:  # the last commit lies in another segment than the removal
        copies.settle()
    ((moment,),) = run_sql(copies.server, "postgres", "SELECT clock_timestamp()")
    run_sql(copies.server, "postgres", "DROP DATABASE gone")
    copies.settle()
    said = "The database 'gone' was dropped by the first transaction that ended behind the target"
    if copies.server.major == 18:
        result = rescued(copies, time=moment.isoformat(), database="gone", into="it")
        assert run_sql(copies.server, "it", "SELECT i FROM kept") == [(1,)]
        run_sql(copies.server, "postgres", "DROP DATABASE it")
    else:
        result = copies.recover(time=moment.isoformat(), action="pause")
        assert ask(result, "SELECT i FROM kept", "gone") == [(1,)]
        assert copies.rows(result) == upto(ROWS)
    assert result["target"]["value"] == moment.isoformat()
    assert datetime.fromisoformat(result["stopped"]["time"]) <= moment
    assert any(said in text for text in result["remarks"])
    assert said in copies.site.warnings
    assert any(said in text for text in copies.site.records()[-1]["warnings"])


def paused_process(data: Path) -> int:
    """Stop the server of `data` from doing anything at all, as a checkpoint on a slow disk would; return its process."""
    pid = int((data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    return pid


@NEWEST
def test_a_shutdown_that_takes_long_is_waited_for(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """What still shuts down would be taken for one that runs. Then it does not open where another server is: it stays, and that is told."""
    folder = copies.folder()
    where = (copies.server.socket_dir, copies.server.port)
    (folder / "postgresql.conf").write_text("unix_socket_directories = '%s'\nport = %d\n" % where)
    own(copies.server, folder / "postgresql.conf")
    monkeypatch.setattr(recovering, "_STOP_SECONDS", 1)
    stop, modes = recovering.Recovery._stop, list[str]()

    def slowly(recovery: recovering.Recovery, mode: str) -> None:
        modes.append(mode)
        pid = paused_process(recovery.data) if len(modes) == 1 else 0
        stop(recovery, mode)
        if pid:
            os.kill(pid, signal.SIGCONT)

    monkeypatch.setattr(recovering.Recovery, "_stop", slowly)
    asked = {"mode": "in_place", "config_file": str(folder / "postgresql.conf")}
    with pytest.raises(UnreachableError, match=r"is recovered and proven, in .*/data, but it does not run") as caught:
        copies.recover(folder, time=copies.moments[9].isoformat(), **asked)
    assert "Mend the configuration and start it. See" in caught.value.hint
    assert (folder / "data" / "backup_label.old").is_file()
    assert not (folder / "data" / "postmaster.pid").exists()
    assert set(modes) == {"fast"}


@NEWEST
def test_nothing_is_removed_under_a_server_that_does_not_end(copies: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copies.folder()
    monkeypatch.setattr(recovering, "_STOP_SECONDS", 1)
    paused: list[int] = []

    def fails(work: Any, _recovery: Any, _stopped: Any) -> list[str]:
        paused.append(paused_process(work.data))
        raise DamagedError("it is another one")

    monkeypatch.setattr(recover, "_prove", fails)
    try:
        with pytest.raises(DamagedError, match="it is another one"):
            copies.recover(folder, time=copies.moments[9].isoformat())
        assert (folder / "data" / "PG_VERSION").is_file()
        assert (folder / "far away").is_dir()
        assert "does not end. Nothing is removed under it" in str(copies.site.warnings)
    finally:
        for pid in paused:
            os.kill(pid, signal.SIGCONT)


# --- a tablespace that is younger than the base backup ----------------------------------------------------------------


SEGMENT_BYTES = 16 << 20
LATER = "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'later'"


def before_headers(position: int) -> int:
    """How many bytes of records come before an LSN: the headers of pages of 8 KiB and of segments of 16 MiB do not count."""
    pages, inside = divmod(position, 8192)
    whole, segments = pages * (8192 - 24), position // SEGMENT_BYTES
    return whole - 16 * (segments + (position % SEGMENT_BYTES >= 8192)) + max(0, inside - (24 if pages % 2048 else 40))


def make_across(story: Story, live: Path, inside: int) -> None:
    """Make the tablespace `later` by a record of which so many bytes lie in one segment, and the rest in the next."""

    def position() -> int:
        return parse_lsn(run_sql(story.server, "postgres", "SELECT pg_current_wal_insert_lsn()::text")[0][0])

    ahead = 0  # of that record, others belong to the statement
    for _attempt in range(8):  # the server may write something in between
        now = position()
        border = (now // SEGMENT_BYTES + 1) * SEGMENT_BYTES
        goal = border - inside - ahead if ahead else (now // 8192 + 2) * 8192 + 1024
        if before_headers(goal) - before_headers(now) < 400 or border - goal > SEGMENT_BYTES - 8192:
            run_sql(story.server, "postgres", "SELECT pg_switch_wal()")
            continue
        length = before_headers(goal) - before_headers(now) - 55  # its header, and what says how long it is
        run_sql(story.server, "postgres", "SELECT pg_logical_emit_message(false, 'x', repeat('y', %d))" % length)
        exactly = position() == goal
        run_sql(story.server, "postgres", "CREATE TABLESPACE later LOCATION '%s'" % live)
        start, name = goal // SEGMENT_BYTES * SEGMENT_BYTES, segment_name(1, goal // SEGMENT_BYTES, SEGMENT_BYTES)
        found, head, _rest = found_in((story.server.data_dir / "pg_wal" / name).read_bytes(), start)
        if ahead and exactly and len(head) == inside:
            return
        if found and exactly:
            (made,) = [one for one in found if one.path == str(live)][-1:]
            ahead = before_headers(start) + made.at - before_headers(goal)
        run_sql(story.server, "postgres", "DROP TABLESPACE later")
    pytest.fail("No record came to lie across the border of two segments.")


@contextlib.contextmanager
def later_tablespace(story: Story, across: int = 0) -> Iterator[tuple[Path, str]]:
    """A tablespace of the server that was made after its base backups, and an LSN at which its table had one row of two.

    So many bytes of the record that makes it lie in another segment than the rest.
    """
    live = story.server.root / "made later, and used"
    live.mkdir(exist_ok=True)
    own(story.server, live)
    if across:
        make_across(story, live, across)
    else:
        run_sql(story.server, "postgres", "CREATE TABLESPACE later LOCATION '%s'" % live)
    try:
        run_sql(story.server, "shop", "CREATE TABLE far_off (i int) TABLESPACE later; INSERT INTO far_off VALUES (1)")
        ((position,),) = run_sql(story.server, "shop", "SELECT pg_current_wal_insert_lsn()::text")
        run_sql(story.server, "shop", "INSERT INTO far_off VALUES (2)")
        run_sql(story.server, "shop", "CHECKPOINT")
        yield live, position
    finally:
        run_sql(story.server, "shop", "DROP TABLE far_off")
        run_sql(story.server, "postgres", "DROP TABLESPACE later")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_younger_tablespace_is_never_laid_over_that_of_the_server(copies: Story) -> None:
    """PostgreSQL replays the record that makes it with the path of the original; another command than ours brings the WAL."""
    host, copies.program = Host(), ""
    try:
        with later_tablespace(copies) as (live, position):
            copies.settle()
            before = contents(live)
            assert before
            copies.program, folder = str(host.program), copies.folder()
            (folder / "data" / "pg_tblspc").mkdir(parents=True)
            (folder / "data" / "pg_tblspc" / "16500").symlink_to(live)
            plan = copies.recover(folder, lsn=position, mode="in_place", dry_run=True)["plan"]
            assert any("a tablespace in %s, which the base backup does not have" % live in t for t in plan["remarks"])
            folder, mode = copies.folder(), "in_place" if copies.server.major == 18 else "beside"
            with pytest.raises(RefusedError, match=r"makes a tablespace in .*, and .* is not empty") as caught:
                copies.recover(folder, lsn=position, mode=mode)
            assert "--tablespace" in caught.value.hint
            assert list(folder.iterdir()) == []
            assert contents(live) == before
            folder = copies.folder()
            place = folder / "that of the copy, whose path may well be longer than that of the original"
            places = {**copies.places(folder), str(live): str(place)}
            for action in ("pause", "promote") if copies.server.major == 18 else ("promote",):
                result = copies.recover(folder, lsn=position, tablespaces=places, action=action)
                assert ask(result, "SELECT i FROM far_off") == [(1,)]
                assert ask(result, LATER) == [("later", str(place))]
                assert any(str(live) in text and str(place) in text for text in result["remarks"])
                assert not (place / unproven.MARK).exists()
                assert contents(live) == before
                copies.stop(folder)
                if action == "pause":
                    shutil.rmtree(folder)
                    folder.mkdir()
                    own(copies.server, folder)
            data = Path(result["data_directory"])
            assert not [path for path in (*data.iterdir(), *(data / "pg_tblspc").iterdir()) if path.name == "t0"]
            assert not (data / "pgops_tablespaces").exists()
        # Where nobody looks that is said before, and afterwards what came of it. No server uses the directory by now.
        if copies.server.major == 18:
            copies.program, folder = "", copies.folder()
            plan = copies.recover(folder, lsn=position, dry_run=True)["plan"]
            assert any("Nobody looks into the WAL for tablespaces" in text for text in plan["remarks"])
            result = copies.recover(folder, lsn=position)
            assert any("later in %s, its original directory" % live in text for text in result["remarks"])
            assert "Nobody looks into the WAL for tablespaces" in copies.site.warnings
            assert any("and nobody looked" in text for text in copies.site.records()[-1]["warnings"])
            copies.stop(folder)
            shutil.rmtree(live)
    finally:
        copies.program = ""
        host.close()


# --- with our own archive, whose gaps are known -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The story on a server that archives with the program; each part of it lies in a segment of its own."""
    root, host = tmp_path_factory.mktemp("archived"), Host()
    settings = {
        "archive_mode": "on",
        "archive_command": host.command("archive", "%p"),
        "wal_level": "replica",
        "autovacuum": "off",  # it commits, too
    }
    with PostgresServer(wheel_bindir(18), root, settings=settings) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY)")
        create_database(server, ODD, ODD_TABLES)
        site = Site(root / "site", server, instance="db1", options={"local": {"path": str(host.root / "backups")}})
        # A name that is hostile to a shell and to PostgreSQL.
        file = host.root / "what's 5%f \"of it.json"
        shutil.copy(host.root / "config.json", file)
        own(server, file)
        told = Story(server, site, host.wal, config_file=str(file), program=str(host.program))
        told.write(2)
        told.back_up()
        for _part in range(3):
            told.write(2)
            archived_up_to(server)
        yield told
    host.close()


def test_with_our_own_archive_gaps_are_known_before(archived: Story, tmp_path: Path) -> None:
    folder = archived.folder()
    try:
        result = archived.recover(folder, time=archived.moments[7].isoformat(), tablespaces={})
        assert archived.rows(result) == upto(7)
        assert "not checked" not in archived.site.warnings
    finally:
        archived.stop(folder)
    late = archived.folder()
    ((now,),) = run_sql(archived.server, "postgres", "SELECT pg_current_wal_lsn()::text")
    end = show_lsn(parse_lsn(now) // SEGMENT_BYTES * SEGMENT_BYTES)  # as it was right behind the switch
    with pytest.raises(RefusedError, match="up to the LSN %s, and it stops only where a record begins: ask for" % end):
        archived.recover(late, lsn=end, tablespaces={})
    archived.write(1)
    with pytest.raises(RefusedError, match="the archive holds WAL for it up to"):
        archived.recover(late, time=archived.moments[9].isoformat(), tablespaces={})
    stored = {path.name[:24]: path for path in archived.archive.rglob("0*") if path.is_file() and path.name[24] == "-"}
    (middle,) = run_sql(archived.server, "postgres", "SELECT pg_walfile_name('%s')" % archived.positions[5])[0]
    gone = stored[middle].rename(tmp_path / "gone")
    for target in ({"lsn": archived.positions[7]}, {"end": "yes"}, {"time": archived.moments[7].isoformat()}):
        with pytest.raises(RefusedError, match="%s to %s .1. are missing" % (middle, middle)):
            archived.recover(late, tablespaces={}, **target)
    assert list(late.iterdir()) == []
    try:
        result = archived.recover(late, end="yes", to_gap=True, tablespaces={})
        assert archived.rows(result) == upto(4)
    finally:
        archived.stop(late)
        gone.rename(stored[middle])


def test_by_hand_with_our_own_archive_as_the_page_says(archived: Story) -> None:
    """To a moment, by PostgreSQL's programs, a shell and what unpacks: without a program of ours."""
    page = (TOP / "docs" / "recovery.md").read_text(encoding="utf-8").partition("## By hand, without pgops")[2]
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    account, folder = archived.server.account, archived.folder()
    data, log = folder / "data", folder / "log"
    (of_cluster,) = [path for path in archived.archive.iterdir() if path.is_dir()]
    shutil.copytree(archived.archive.parent / "sets" / archived.bases[0], folder / "set")
    own(archived.server, *(folder / "set").rglob("*"), folder / "set")
    where = {"SET": folder / "set", "DATA": data, "WAL": folder / "wal of it", "ARCHIVE": of_cluster}
    script += 'echo "recovery_target_time = \'%s\'" >> "$DATA/postgresql.auto.conf"\n' % archived.moments[5].isoformat()
    done = subprocess.run(
        ["sh", "-eu"],
        input=script,
        env={**{name: str(path) for name, path in where.items()}, "PATH": os.environ["PATH"]},
        cwd="/",
        user=account.pw_name if account else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    options = "-c listen_addresses= -c unix_socket_directories='%s' -c port=%d" % (folder, free_port())
    try:
        begun = archived.control("start", "--wait", "-t", "60", "-D", str(data), "-l", str(log), "-o", options)
        assert begun.returncode == 0, log.read_text()
        result = {"socket_directory": str(folder), "port": int(options.rpartition("=")[2])}
        assert archived.rows(result) == upto(5)
        assert "recovery stopping before commit of transaction" in log.read_text()
    finally:
        archived.stop(folder)


@pytest.mark.parametrize("action", ["promote", "pause"])
def test_to_a_moment_behind_which_nothing_was_committed(archived: Story, action: str) -> None:
    """PostgreSQL stops at a moment only before a later commit; a quiet server has none, and what status shows is reached."""
    archived.write(1)
    # WAL without a commit, written clearly later.
    run_sql(archived.server, "postgres", "SELECT pg_sleep(0.3), pg_create_restore_point('quiet')")
    ((name,),) = run_sql(archived.server, "postgres", "SELECT pg_walfile_name(pg_switch_wal())")
    archived_up_to(archived.server, name)
    last = archived.moments[archived.count]
    moment, folder = last + timedelta(seconds=0.1), archived.folder()
    try:
        result = archived.recover(folder, time=moment.isoformat(), action=action, tablespaces={})
        assert archived.rows(result) == upto(archived.count)
        assert ask(result, "SELECT pg_is_in_recovery()") == [(action == "pause",)]
        assert datetime.fromisoformat(result["stopped"]["time"]) <= last
        assert "recovery stopping after WAL location" in result["stopped"]["log"]
        said = "Nothing was committed between the last transaction and the target"
        assert any(said in text for text in result["remarks"])
        assert said in archived.site.warnings
        assert any(said in text for text in archived.site.records()[-1]["warnings"])
    finally:
        archived.stop(folder)


def test_packed_by_lz4_it_is_proven_and_recovered(archived: Story) -> None:
    site, folder = archived.site, archived.folder()
    request = backup.Request(kind="base")
    packed = site.engine(base={"compression": "lz4"})
    taken = runs.perform(packed, "backup", lambda c: backup.backup(c, request))
    stored = Path(taken["path"])
    try:
        assert (stored / "base" / "base.tar.lz4").is_file()
        (report,) = site.verify("restore", sets=(taken["set"],))["sets"]
        assert (report["set"], report["outcome"]) == (taken["set"], "passed"), report
        result = archived.recover(folder, immediate="yes", set=taken["set"], tablespaces={})
        assert archived.rows(result) == upto(archived.count)
    finally:
        archived.stop(folder)
        shutil.rmtree(stored)


def test_the_server_fetches_by_the_configuration_in_use_only(archived: Story, tmp_path: Path) -> None:
    """By another one it would read the archive of another instance, and take its end for that of this one."""
    folder = archived.folder()
    file, archived.config_file = archived.config_file, ""
    try:
        with pytest.raises(RefusedError, match="reads a configuration file, and this run has none"):
            archived.recover(folder, end="yes", tablespaces={})
        (tmp_path / "other.json").write_text('{"instance": "db2", "local": {"path": "%s"}}' % tmp_path)
        archived.config_file = str(tmp_path / "other.json")
        plan = archived.recover(folder, end="yes", tablespaces={}, dry_run=True)["plan"]
        assert any("leads to another archive" in text for text in plan["refusals"])
    finally:
        archived.config_file = file
    assert list(folder.iterdir()) == []


def test_a_table_is_rescued_with_its_partitions_whatever_it_is_called(archived: Story) -> None:
    """By our own archive, into a database with a name that nobody else has."""
    with cursor(archived.server, ODD) as asked:
        asked.execute("SELECT pg_current_wal_insert_lsn()::text")
        (before,) = asked.fetchone()
        asked.execute("DELETE FROM %s" % ODD_TABLE)
    archived_up_to(archived.server)
    result = rescued(archived, lsn=before, database=ODD, tables=(ODD_TABLE,))
    name = result["name"]
    assert name.startswith(ODD + "_rescued_")
    assert run_sql(archived.server, name, "SELECT i, t FROM %s" % ODD_TABLE) == [(7, "before")]
    assert run_sql(archived.server, name, "SELECT to_regclass('public.other')") == [(None,)]
    assert any("other" in text for text in result["left_out"])
    assert left_behind(archived) == []
    with pytest.raises(MissingError, match=r"had no table public\.nothing"):
        rescued(archived, lsn=before, database=ODD, tables=(ODD_TABLE, "public.nothing"))
    with pytest.raises(MissingError, match="There was no database 'shop2'"):
        rescued(archived, lsn=before, database="shop2")
    assert left_behind(archived) == []
    run_sql(archived.server, "postgres", "DROP DATABASE %s" % quote_ident(name))
    there = {row[0] for row in run_sql(archived.server, "postgres", "SELECT datname FROM pg_database")}
    assert there == {"postgres", "template0", "template1", "shop", ODD}


def test_a_table_is_rescued_with_all_that_a_query_of_it_shows(archived: Story) -> None:
    """Children that inherit from it hold rows of it, also of other parents; its numbers come from a sequence that nobody owns."""
    result = rescued(archived, immediate="yes", database=ODD, tables=("public.family",))
    name = result["name"]
    shown = "SELECT i, tableoid::regclass::text FROM family ORDER BY i"
    assert run_sql(archived.server, name, shown) == [(41, "family"), (42, '"grand child"'), (43, '"grand child"')]
    assert run_sql(archived.server, name, "INSERT INTO family DEFAULT VALUES RETURNING i") == [(44,)]
    assert run_sql(archived.server, name, "SELECT j FROM other_parent ORDER BY j") == [(1,), (2,), (9,)]
    told = "public.family comes with %s, which it inherits from or which inherit from it"
    relatives = 'public."grand child", public.child, public.other_parent'
    assert told % relatives in "\n".join(result["remarks"])
    assert result["compared"]["rows"] == 4
    run_sql(archived.server, "postgres", "DROP DATABASE %s" % quote_ident(name))
    with pytest.raises(RefusedError, match=r"public\.seen is a view, and needs public\.family, public\.other"):
        rescued(archived, immediate="yes", database=ODD, tables=("public.seen",))
    assert left_behind(archived) == []


def test_a_view_needs_nothing_by_name_that_its_extension_brings(archived: Story) -> None:
    made = "CREATE TABLE own (i int); CREATE TABLE brought (i int); CREATE VIEW seen AS SELECT i FROM own JOIN brought USING (i)"
    create_database(archived.server, "extended", made)
    asked: dict[str, Any] = {"database": "extended", "target": parse_target({"immediate": "yes"})}
    context = archived.site.engine()
    try:
        run_sql(archived.server, "extended", "ALTER EXTENSION plpgsql ADD TABLE brought")
        with pytest.raises(RefusedError, match=r"needs public\.own(?!,)"):
            rescue._others(context, rescue.Request(**asked, tables=("public.seen",)))
        both = rescue.Request(**asked, tables=("public.seen", "public.own"))
        assert rescue._others(context, both) == ['"public"."brought"']
    finally:
        run_sql(archived.server, "postgres", "DROP DATABASE extended")


def test_the_program_rescues(archived: Story, tmp_path: Path) -> None:
    program = Program(tmp_path / "program", archived.site)
    common = [
        "rescue",
        "--database",
        "shop",
        "--as-root",
        "--into",
        "shop then",
        "--set",
        "restore.restore_command=/bin/false",
    ]
    shown = program(*common, "--to-immediate", "--dry-run").stdout
    assert "to the database 'shop then', which is not there yet" in shown
    assert "Add --yes" in program(*common, "--to-immediate", code=5).stderr
    said = program(*common, "--to-immediate", "--yes").stdout
    assert "It is the database 'shop then', as of the end of the base backup." in said
    assert "Compared with the copy: " in said
    assert run_sql(archived.server, "shop then", "SELECT count(*) FROM log") == [(2,)]
    assert "already" in program.json(*common, "--to-immediate", "--yes", code=5)["message"]
    assert "already" in program(*common, "--to-immediate", "--dry-run", code=5).stdout
    run_sql(archived.server, "postgres", 'DROP DATABASE "shop then"')


def test_every_command_of_the_runbook_page_runs_as_it_stands(archived: Story, tmp_path: Path) -> None:
    """Rows are deleted; a person who follows the page has them again, and what was written since as well.

    A base backup came after that, as it does each night; what leads back is the one before.
    """
    server = archived.server
    columns = '"Id of it" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, size int GENERATED ALWAYS AS (length(what)) STORED'
    run_sql(server, "shop", "CREATE TABLE orders (%s)" % columns)
    run_sql(server, "shop", "INSERT INTO orders (what) SELECT 'order ' || i FROM generate_series(1, 500) i")
    ((moment,),) = run_sql(server, "shop", "SELECT clock_timestamp()")
    run_sql(server, "shop", 'DELETE FROM orders WHERE "Id of it" > 100')
    run_sql(server, "shop", "INSERT INTO orders (what) VALUES ('since')")
    run_sql(server, "shop", "UPDATE orders SET what = 'new' WHERE \"Id of it\" = 1")
    (needed,) = archived.bases
    archived_up_to(server)
    archived.back_up()
    program = Program(tmp_path / "program", archived.site)
    fetch = "%s wal fetch -c '%s' %%f %%p" % (archived.program, archived.archive.parents[1].with_name("config.json"))
    program.configure(restore={"restore_command": fetch}, wal={"enabled": True})
    folder = server.root / "night"
    tools = folder / "bin"
    tools.mkdir(parents=True)
    own(server, folder)
    (tools / "pgops").write_text('#!/bin/sh\nexec "%s" -m pgops "$@" --as-root\n' % sys.executable)
    # The account that stops a server is the one that it runs as.
    account = (
        "setpriv --reuid %d --regid %d --clear-groups " % (server.account[2], server.account[3])
        if server.account
        else ""
    )
    (tools / "pg_ctl").write_text('#!/bin/sh\ncd /\nexec %s"%s/pg_ctl" "$@"\n' % (account, server.bindir))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    page = (TOP / "docs" / "deleted-rows.md").read_text(encoding="utf-8")
    script = "set -e -o pipefail\n" + "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    for shown, real in [
        ("2026-11-22T14:30:59+01:00", moment.isoformat()),
        ("/srv/copy-socket", str(folder / "s")),
        ("/srv/copy", str(folder / "data")),
        ("mktemp -d", "mktemp -d -p '%s'" % tmp_path),
    ]:
        assert shown in script
        script = script.replace(shown, real)
    # What a person waits for by looking at wal status.
    script = script.replace("pgops wal status", "until_archived; pgops wal status", 1)
    waits = "until_archived() { while [ -e '%s/archive_status/'*.ready ]; do sleep 0.1; done; }\n" % (
        server.data_dir / "pg_wal"
    )
    environment = {**program.environ, **{k: v for k, v in server.env.items() if k.startswith("PG")}}
    environment["PATH"] = os.pathsep.join([str(tools), str(server.bindir), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", waits + script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"count *\n-+\n *500\n", done.stdout), "the copy has what was there"
    assert run_sql(server, "shop", 'SELECT count(*), max("Id of it") FROM orders') == [(501, 501)]
    kept = 'SELECT what, size FROM orders WHERE "Id of it" IN (1, 200, 501) ORDER BY "Id of it"'
    assert run_sql(server, "shop", kept) == [("new", 3), ("order 200", 9), ("since", 5)]
    assert not list(tmp_path.rglob("orders.csv"))
    pinned = os.listdir(archived.site.engine().local.home / "pins")
    assert [name.partition(".")[0] for name in pinned] == [needed]
    archived.site.engine().local.delete(["pins/%s" % name for name in pinned])
    # The others begin with the first one.
    shutil.rmtree(archived.site.engine().local.home / "sets" / archived.bases.pop())


@pytest.mark.parametrize(
    ("made", "rows"),
    [
        ("", "(1, 'a'), (2, 'b'), (2, 'b'), (3, NULL)"),
        ("ALTER TABLE orders ADD PRIMARY KEY (i) DEFERRABLE", "(1, 'a'), (2, 'b'), (3, NULL)"),
        ("CREATE UNIQUE INDEX ON orders (i)", "(1, 'a'), (2, 'b'), (NULL, 'c'), (NULL, 'c')"),
        (
            "ALTER TABLE orders ADD PRIMARY KEY (i); CREATE TABLE heir () INHERITS (orders); INSERT INTO heir VALUES (1, 'z')",
            "(1, 'a'), (2, 'b'), (3, NULL)",
        ),
        (
            "DROP TABLE orders; CREATE TABLE orders (i int PRIMARY KEY, t text) PARTITION BY RANGE (i); CREATE TABLE part PARTITION OF orders DEFAULT",
            "(1, 'a'), (2, 'b'), (3, NULL)",
        ),
        (
            'ALTER TABLE orders ADD CONSTRAINT "the $key" PRIMARY KEY (i), ADD UNIQUE (t) DEFERRABLE',
            "(1, 'a'), (2, 'b'), (3, NULL)",
        ),
    ],
)
def test_the_rows_are_put_back_once_whatever_the_key(archived: Story, tmp_path: Path, made: str, rows: str) -> None:
    """The step of the page that puts them back, after all but the first were deleted."""
    server = archived.server
    create_database(server, "now", "CREATE TABLE orders (i int, t text); %s" % made)
    run_sql(server, "now", "INSERT INTO orders VALUES %s" % rows)
    try:
        run_sql(server, "postgres", "CREATE DATABASE earlier TEMPLATE now")
        run_sql(server, "now", "DELETE FROM orders WHERE i IS DISTINCT FROM 1")
        page = (TOP / "docs" / "deleted-rows.md").read_text(encoding="utf-8").partition("## 4. ")[2]
        script = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
        script = script.replace("-d shop_before ", "-d earlier ").replace("-d shop ", "-d now ")
        script = "set -e -o pipefail\n" + script.replace("mktemp -d", "mktemp -d -p '%s'" % tmp_path)
        environment = {**os.environ, **{k: v for k, v in server.env.items() if k.startswith("PG")}}
        environment["PATH"] = os.pathsep.join([str(server.bindir), os.environ["PATH"]])
        for _again in range(2):
            done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            shown = "SELECT i, t FROM orders ORDER BY i, t"
            assert run_sql(server, "now", shown) == run_sql(server, "earlier", shown)
        if "UNIQUE (t)" in made:  # another row has taken what one that is missing had
            run_sql(server, "now", "DELETE FROM orders WHERE i > 1; INSERT INTO orders VALUES (9, 'b')")
            done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode != 0
            assert "orders_t_key" in done.stderr
            assert run_sql(server, "now", "SELECT i FROM orders ORDER BY i") == [(1,), (9,)]
    finally:
        run_sql(server, "postgres", "DROP DATABASE now")
        run_sql(server, "postgres", "DROP DATABASE IF EXISTS earlier")


def test_our_own_command_leads_a_younger_tablespace_elsewhere(archived: Story) -> None:
    """Also where the record that makes it begins in one segment, with its sum, and its path lies in the next."""
    with later_tablespace(archived, across=24) as (live, position):
        archived_up_to(archived.server)
        before, folder = contents(live), archived.folder()
        with pytest.raises(RefusedError, match=r"makes a tablespace in .*, and .* is not empty"):
            archived.recover(folder, lsn=position, tablespaces={})
        assert list(folder.iterdir()) == []
        places = {str(live): str(folder / "its own")}
        try:
            result = archived.recover(folder, lsn=position, tablespaces=places)
            assert ask(result, "SELECT i FROM far_off") == [(1,)]
            assert ask(result, LATER) == [("later", places[str(live)])]
        finally:
            archived.stop(folder)
        result = rescued(archived, lsn=position, database="shop", tables=("public.far_off",))
        assert run_sql(archived.server, result["name"], "SELECT i FROM far_off") == [(1,)]
        assert left_behind(archived) == []
        run_sql(archived.server, "postgres", 'DROP DATABASE "%s"' % result["name"])
        assert contents(live) == before


def test_just_before_a_tablespace_is_made_or_dropped_the_server_has_its_links(archived: Story) -> None:
    """PostgreSQL lays a link, and takes it away, before the commit at which it stops; without the right ones no backup works."""
    server, live, moments = archived.server, archived.server.root / "made and dropped", []
    live.mkdir()
    own(server, live)
    for statement in ("CREATE TABLESPACE brief LOCATION '%s'" % live, "DROP TABLESPACE brief"):
        moments += run_sql(server, "postgres", "SELECT clock_timestamp()")[0]
        run_sql(server, "postgres", statement)
    archived_up_to(server)
    names = "SELECT oid::text, spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'"
    for moment, action, has in [
        (moments[0], "promote", False),
        (moments[1], "promote", True),
        (moments[1], "pause", True),
    ]:
        folder = archived.folder()
        place, data = folder / "its own", folder / "data"
        try:
            result = archived.recover(
                folder, time=moment.isoformat(), tablespaces={str(live): str(place)}, action=action
            )
            found = ask(result, names)
            assert [row[1:] for row in found] == ([("brief", str(place))] if has else [])
            assert [p.name for p in (data / "pg_tblspc").iterdir() if p.name.isdecimal()] == [row[0] for row in found]
            said = "lies in %s, empty, again" % place if has else "A link to %s was removed" % place
            assert any(said in text for text in result["remarks"])
            assert not any("was not found out" in text for text in result["remarks"])
            if has and action == "promote":
                ask(result, "CREATE TABLE there (i int) TABLESPACE brief; SELECT 1")
            if action == "pause":  # and a person starts it again, and promotes it
                assert any("such a directory is gone again" in text for text in result["remarks"])
                archived.stop(folder)
                words = ["start", "--wait", "-t", "60", "-D", str(data), "-l", str(folder / "log")]
                archived.control(*words).check_returncode()
                wait_for(lambda made=result: ask(made, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
                assert ask(result, "SELECT pg_promote()") == [(True,)]
                with pytest.raises(psycopg2.OperationalError):
                    ask(result, names)
                reach = {"login_host": None, "login_unix_socket": result["socket_directory"]}
                reach.update(login_port=result["port"], login_user="postgres")
                context = archived.site.engine(postgres=reach)
                with connect(context.config.postgres) as session:
                    settling.settle_promoted(context, session, server_facts(session), dry_run=False)
                assert ask(result, names) == found
                assert not (data / "pgops_tablespaces").exists()
                ask(result, "CREATE TABLE there (i int) TABLESPACE brief; SELECT 1")
        finally:
            archived.stop(folder)


def test_a_copy_that_a_person_promotes_is_settled_by_its_next_base_backup(archived: Story, tmp_path: Path) -> None:
    """The recovery pauses, so nobody was there at its end; a start in between replays the record that makes the tablespace anew.

    It lies across the border of two segments, in the middle of its path.
    """
    folder, again = archived.folder(), archived.folder()
    with later_tablespace(archived, across=40) as (live, position):
        archived_up_to(archived.server)
        before, place = contents(live), str(folder / "its own")
        result = archived.recover(folder, lsn=position, tablespaces={str(live): place}, action="pause")
        data = Path(result["data_directory"])
        archived.stop(folder)
        words = ["start", "--wait", "-t", "60", "-D", str(data), "-l", str(folder / "log")]
        archived.control(*words).check_returncode()
        wait_for(lambda: ask(result, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
        assert re.fullmatch("t[0-9]", ask(result, LATER)[0][1])  # each path and each record across a border has a link
        reach = {"login_host": None, "login_unix_socket": result["socket_directory"], "login_port": result["port"]}
        own_place = {"postgres": {**reach, "login_user": "postgres"}, "local": {"path": str(tmp_path / "backups")}}

        def take(*, dry_run: bool = False) -> Any:
            context, request = archived.site.engine(**own_place), backup.Request(kind="base", dry_run=dry_run)
            return runs.perform(context, "backup", lambda c: backup.backup(c, request), dry_run=dry_run)

        with open(data / "pgops_hba.conf", "a", encoding="utf-8") as stream:
            stream.write("local replication all trust\n")
        assert ask(result, "SELECT pg_reload_conf()") == [(True,)]
        with pytest.raises(RefusedError, match="has not come to its end"):
            take()
        assert ask(result, "SELECT pg_promote()") == [(True,)]
        # As a tablespace that was made behind the pause.
        unproven.mark(Path(place), data, "")
        own(archived.server, Path(place) / unproven.MARK)
        said = archived.site.engine(**own_place)
        assert "wal timeline" in {f.check for f in wal_findings(said) if "links of its tablespaces" in f.text}
        take(dry_run=True)
        assert (data / "pgops_tablespaces").exists()
        taken = take()
        assert "settled" in archived.site.warnings
        assert any("settled" in text for text in archived.site.records()[-1]["warnings"])
        assert ask(result, LATER) == [("later", place)]
        assert [one["path"] for one in taken["tablespaces"]] == [place]
        assert not [path for path in (*data.iterdir(), *(data / "pg_tblspc").iterdir()) if path.name == "t0"]
        assert not (data / "pgops_tablespaces").exists()
        assert not (Path(place) / unproven.MARK).exists()
        take(dry_run=True)
        assert "settled" not in archived.site.warnings
        archived.stop(folder)
        where = {place: str(again / "moved")}
        found = archived.recover(again, immediate="yes", tablespaces=where, sections={"local": own_place["local"]})
        assert ask(found, "SELECT i FROM far_off") == [(1,)]
        assert ask(found, LATER) == [("later", where[place])]
        archived.stop(again)
        assert contents(live) == before


def test_a_session_that_the_server_ended_is_told_as_such(archived: Story) -> None:
    """Also where it ends between two statements, as when a server that recovers ends while it is asked how it fares."""
    postgres = archived.site.engine().config.postgres
    with connect(postgres) as session:
        pid = session.value("SELECT pg_backend_pid()")
        run_sql(archived.server, "postgres", "SELECT pg_terminate_backend(%d, 30000)" % pid)
        for _again in range(2):
            with pytest.raises(UnreachableError):
                session.rows("SELECT 1")


def test_a_pause_midway_is_no_end(archived: Story) -> None:
    """A setting was raised on the original after the base backup: a copy pauses there, to let people look."""
    server = archived.server
    server.stop()
    server._settings["max_connections"] = "150"
    server.start()
    archived.write(2)
    archived_up_to(server)
    folder = archived.folder()
    with pytest.raises(PgopsError, match=r"paused before it came to its end: .*insufficient parameter settings"):
        archived.recover(folder, end="yes", tablespaces={})
    assert list(folder.iterdir()) == []


# --- a server unlike others ---------------------------------------------------------------------------------------------


def test_a_copy_starts_and_lets_us_in_whatever_the_original_was_set_to(tmp_path: Path) -> None:
    """Long segments and a configuration elsewhere, sessions that load what no host has, a template1 that takes no logins, a socket
    for a group that is not here, and a way of reading that this host has not.
    """
    with PostgresServer(wheel_bindir(18), tmp_path / "strange", initdb_args=("--wal-segsize=64",)) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY); INSERT INTO log VALUES (1)")
        create_database(server, "plain", "CREATE TABLE log AS SELECT 7 AS i")
        site = Site(tmp_path / "site", server, options={"restore": {"restore_command": "false"}})
        story = Story(server, site, tmp_path)
        # The server itself reads none of these before its next start.
        run_sql(server, "postgres", "ALTER SYSTEM SET session_preload_libraries = 'lacking'")
        run_sql(server, "postgres", "ALTER SYSTEM SET local_preload_libraries = 'lacking'")
        run_sql(server, "postgres", "ALTER DATABASE shop SET session_preload_libraries = 'lacking'")
        run_sql(server, "postgres", "ALTER DATABASE template1 ALLOW_CONNECTIONS false")
        run_sql(server, "postgres", "ALTER SYSTEM SET unix_socket_group = 'nobody here knows it'")
        run_sql(server, "postgres", "ALTER SYSTEM SET unix_socket_permissions = '0000'")
        with (server.data_dir / "postgresql.auto.conf").open("a") as stream:
            stream.write("io_method = 'io_uring'\n")  # as of a server that was built with it
        (server.data_dir / "postgresql.conf").unlink()
        story.back_up()
        question = {"database": "shop", "sql": "SELECT count(*) FROM public.log", "expect": "1"}
        (report,) = site.verify("restore", sections={"verify": {"assertions": [question]}})["sets"]
        assert report["outcome"] == "passed", report
        result = rescued(story, immediate="yes", database="plain", into="it")
        assert run_sql(server, "it", "SELECT i FROM log") == [(7,)]
        assert result["compared"]["rows"] == 1
        assert left_behind(story) == []


REFUSE = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no logins today'; END $$;
CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION refuse();
ALTER EVENT TRIGGER refuse ENABLE ALWAYS;
"""


def test_neither_prepared_transactions_nor_triggers_of_logins_are_in_the_way(tmp_path: Path) -> None:
    """A copy has nobody who ends what was prepared: whoever looks at what that has locked would wait for ever."""
    settings = {"max_prepared_transactions": 5}
    with PostgresServer(wheel_bindir(18), tmp_path / "held", settings=settings) as server:
        create_database(server, "shop", "CREATE TABLE log (i int PRIMARY KEY); INSERT INTO log VALUES (1)")
        site = Site(tmp_path / "site", server, options={"restore": {"restore_command": "false"}})
        story = Story(server, site, tmp_path)
        run_sql(server, "template1", REFUSE)
        with cursor(server, "shop") as asked:
            asked.execute(REFUSE)
            asked.execute("BEGIN; LOCK TABLE log; INSERT INTO log VALUES (2); PREPARE TRANSACTION 'st''u%ck'")
        story.back_up()
        question = {"database": "shop", "sql": "SELECT count(*) FROM public.log", "expect": "1"}
        (report,) = site.verify("restore", sections={"verify": {"assertions": [question]}})["sets"]
        assert report["outcome"] == "passed", report
        folder = story.folder()
        try:
            result = story.recover(folder, immediate="yes")
            asked_of = "SELECT gid, database FROM pg_prepared_xacts"
            assert ask(result, asked_of, "postgres") == [("st'u%ck", "shop")]
        finally:
            story.stop(folder)
        (remark,) = result["remarks"]
        assert "In the database 'shop'" in remark
        assert '"st\'u%ck"' in remark
        result = rescued(story, immediate="yes", database="shop", into="it")
        with cursor(server, "it", options="-c event_triggers=off") as asked:
            asked.execute("SELECT i FROM public.log")
            assert asked.fetchall() == [(1,)]
        assert [text for text in result["remarks"] if "and not committed" in text and '"st\'u%ck"' in text]
        assert run_sql(server, "postgres", asked_of) == [("st'u%ck", "shop")]
        assert left_behind(story) == []
