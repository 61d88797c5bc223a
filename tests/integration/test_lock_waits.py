# SPDX-License-Identifier: GPL-3.0-or-later
"""Who waits for locks of a dump is told, and by policy the dump gives way: on real servers, with real queues.

A dump is held by a gate: a table that sorts last and that somebody else has locked. pg_dump and our count of rows hold
the locks on all other tables then, and wait for that one until the test opens the gate.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import lock_waits
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import following
from demo.servers import PostgresServer
from tests.integration.conftest import BENCH, Servers, Site, create_database, empty, run_sql, wait_for
from tests.integration.test_versions import VERSIONS

MakeSite = Callable[..., Site]
LONG = 120
OURS = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pgops-%'"
TABLES = """
CREATE TABLE public.orders (id int PRIMARY KEY, name text);
INSERT INTO public.orders SELECT i, 'order ' || i FROM generate_series(1, 2000) i;
CREATE TABLE public.other AS SELECT i FROM generate_series(1, 500) i;
CREATE TABLE public.zz_gate AS SELECT 1 AS one;
"""


class Backup(threading.Thread):
    """A backup of the database shop in a thread of its own; what it prints for people is in `notes`."""

    def __init__(self, site: Site, **options: Any) -> None:
        super().__init__(daemon=True)
        self.site, self.notes = site, []  # type: ignore[var-annotated]
        self._options = {"databases": ["shop"], "lock_wait_timeout": "10min", **options}
        self._result: dict[str, Any] = {}
        self._error: BaseException | None = None
        engine = site.engine

        def listening(**sections: Any) -> Any:
            context = engine(**sections)
            context.reporter.note = context.reporter.alarm = self.notes.append  # type: ignore[method-assign]
            return context

        site.engine = listening  # type: ignore[method-assign]
        self.start()

    def run(self) -> None:
        try:
            self._result = self.site.backup(**self._options)
        except BaseException as error:  # noqa: BLE001  # raised again in end()
            self._error = error

    def end(self) -> dict[str, Any]:
        """Return its result, or raise what it raised."""
        self.join(LONG)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


class Statement(threading.Thread):
    """One statement in a session of its own, which may have to wait."""

    def __init__(
        self, server: PostgresServer, text: str, *, passed: threading.Event | None = None, **others: Any
    ) -> None:
        super().__init__(daemon=True)
        self._connection = server.connect("shop", **others)
        self.pid: int = self._connection.info.backend_pid
        self._text, self._passed = text, passed or threading.Event()
        self.start()

    def run(self) -> None:
        with self._connection.cursor() as asked:
            asked.execute(self._text)
        self._passed.set()
        self._connection.close()

    @property
    def done(self) -> bool:
        return not self.is_alive()


@contextmanager
def gate(server: PostgresServer) -> Iterator[Callable[[], None]]:
    """Hold every dump of the database shop before its first row, until what this yields is called."""
    connection = server.connect("shop", autocommit=False)
    connection.cursor().execute("LOCK TABLE public.zz_gate IN ACCESS EXCLUSIVE MODE")
    try:
        yield connection.commit
    finally:
        connection.close()


def holds(server: PostgresServer, table: str = "orders") -> int:
    """Return how many sessions of the backup hold a lock on `table`, all of them waiting before the gate."""
    return run_sql(  # type: ignore[no-any-return]
        server,
        "shop",
        "SELECT count(*) FROM pg_locks h JOIN pg_locks w USING (pid) JOIN pg_stat_activity USING (pid)"
        " WHERE h.relation = '%s'::regclass AND h.granted AND w.relation = 'zz_gate'::regclass AND NOT w.granted"
        " AND application_name LIKE 'pgops-%%'" % table,
    )[0][0]


def waits(server: PostgresServer, *statements: Statement) -> bool:
    """Tell whether all `statements` wait for a lock."""
    pids = [s.pid for s in statements]
    found = run_sql(
        server, "shop", "SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid = ANY('{%s}')" % str(pids)[1:-1]
    )
    return len(found) == len(pids)


def columns(site: Site, set_id: str) -> str:
    """Return how the set defines the table orders, as pg_restore tells it."""
    dump = site.manifest(set_id).databases[0].dump
    assert dump.layers == ()
    program = [str(site.server.bindir / "pg_restore"), "--table=orders", "--schema-only", "--file=-"]
    path = str(site.set_folder(set_id) / dump.path)
    return subprocess.run([*program, path], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let the watch look often; the list has an entry for each look."""
    found: list[bool] = []
    look = lock_waits.LockWatch.look

    def counted(self: lock_waits.LockWatch) -> bool:
        seen = look(self)
        found.append(seen or self._over.is_set())  # the end of the dump cancels a look that is at work
        return seen

    monkeypatch.setattr(lock_waits, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(lock_waits.LockWatch, "look", counted)
    return found


def looked_again(looks: list[bool], times: int = 3) -> None:
    """Wait for some more looks."""
    before = len(looks)
    wait_for(lambda: len(looks) >= before + times, seconds=LONG)


@pytest.fixture
def server(bench: PostgresServer) -> PostgresServer:
    create_database(bench, "shop", TABLES)
    return bench


# --- the end of a dump ------------------------------------------------------------------------------------------------


def test_who_waits_for_a_dump_does_not_wait_for_its_hashes(
    server: PostgresServer, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk gives nothing to read until the ALTER TABLE has what it waits for, or half a minute has passed."""
    site, read, held = make_site(server), following.chunks, list[bool]()
    passed = threading.Event()

    def slow(path: Path, start: int = 0) -> Iterator[bytes]:
        held.append(not passed.wait(30))
        return read(path, start)

    monkeypatch.setattr(following, "chunks", slow)
    with gate(server) as open_gate:
        dump = Backup(site, format="directory", jobs=1, compression="gzip")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text", passed=passed)
        wait_for(lambda: waits(server, alter), seconds=LONG)
        assert not passed.is_set()
        open_gate()
        result = dump.end()
    assert held
    assert not any(held), "the dump held its locks while its files were read"
    assert "note" not in columns(site, result["set"])
    assert site.verify("checksum")["sets"][0]["outcome"] == "passed"


# --- report -----------------------------------------------------------------------------------------------------------


def report_case(server: PostgresServer, site: Site, looks: list[bool]) -> tuple[Backup, dict[str, Any], Statement]:
    """Let an ALTER TABLE and two SELECTs behind it wait for a dump, which then goes on to its end."""
    with gate(server) as open_gate:
        dump = Backup(site, compression="gzip")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(
            server, "ALTER TABLE orders ADD COLUMN note text DEFAULT 'secret-in-sql'", application_name="migrate"
        )
        wait_for(lambda: waits(server, alter), seconds=LONG)
        readers = [Statement(server, "SELECT count(*) FROM orders") for _unused in range(2)]
        wait_for(lambda: waits(server, alter, *readers), seconds=LONG)
        looked_again(looks)
        assert [note for note in dump.notes if "process %d (role postgres, application migrate)" % alter.pid in note]
        assert not alter.done
        open_gate()
        result = dump.end()
    for statement in (alter, *readers):
        statement.join(LONG)
        assert statement.done
    return dump, result, alter


def test_who_waits_for_the_dump_is_told_once_with_those_behind(
    server: PostgresServer, make_site: MakeSite, looks: list[bool]
) -> None:
    site = make_site(server)
    dump, result, alter = report_case(server, site, looks)
    (wait,) = result["lock_waits"]
    assert wait.pop("seconds") > 0
    assert wait == {
        "database": "shop",
        "table": "public.orders",
        "mode": "AccessExclusiveLock",
        "pid": alter.pid,
        "role": "postgres",
        "application": "migrate",
        "queued": 2,
    }
    assert result["gave_way"] == {}
    told = [w for w in result["warnings"] if "held up" in w]
    assert len(told) == 1
    assert "AccessExclusiveLock on public.orders; 2 more sessions waited behind it." in told[0]
    assert len([n for n in dump.notes if "which the dump holds up" in n]) == 1
    record = site.records()[-1]
    assert record["outcome"] == "ok" and record["lock_waits"][0]["queued"] == 2
    assert told[0] in record["warnings"]
    assert "secret-in-sql" not in str(record) + str(result) + str(dump.notes)
    assert "note text" not in columns(site, result["set"])
    assert site.verify("structure")["sets"][0]["outcome"] == "passed"


@pytest.mark.parametrize("major", [v for v in VERSIONS if v != 18])
def test_older_servers_tell_it_too(servers: Servers, make_site: MakeSite, looks: list[bool], major: int) -> None:
    server = servers.get("bench", major)
    empty(server)
    create_database(server, "shop", TABLES)
    _unused, result, alter = report_case(server, make_site(server), looks)
    assert [(w["table"], w["pid"], w["queued"]) for w in result["lock_waits"]] == [("public.orders", alter.pid, 2)]


def test_a_server_that_does_not_say_since_when_is_watched_by_our_own_clock(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_waits, "_SINCE", lock_waits._UNKNOWN)
    _unused, result, alter = report_case(server, make_site(server), looks)
    assert [(w["pid"], w["seconds"] > 0) for w in result["lock_waits"]] == [(alter.pid, True)]


def test_a_wait_is_noticed_within_30_seconds(server: PostgresServer, make_site: MakeSite) -> None:
    with gate(server) as open_gate:
        dump = Backup(make_site(server))
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text")
        wait_for(lambda: waits(server, alter), seconds=LONG)
        wait_for(lambda: [n for n in dump.notes if "process %d" % alter.pid in n], seconds=LONG)
        open_gate()
        assert dump.end()["lock_waits"][0]["pid"] == alter.pid


def test_nobody_waits_and_nothing_is_told(server: PostgresServer, make_site: MakeSite, looks: list[bool]) -> None:
    with gate(server) as open_gate:
        dump = Backup(make_site(server), on_lock_wait="cancel")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        reader = Statement(server, "SELECT count(*) FROM orders")
        looked_again(looks)
        reader.join(LONG)
        assert reader.done
        open_gate()
        result = dump.end()
    assert all(looks)
    assert (result["warnings"], result["lock_waits"], result["gave_way"], dump.notes) == ([], [], {}, [])


def test_a_wait_that_is_not_ours_is_not_told(server: PostgresServer, make_site: MakeSite, looks: list[bool]) -> None:
    """The gate's own queue: its holder is somebody else, and others wait for it without waiting for us."""
    with gate(server) as open_gate:
        first = Statement(server, "ALTER TABLE zz_gate ADD COLUMN two int")
        wait_for(lambda: waits(server, first), seconds=LONG)
        dump = Backup(make_site(server), on_lock_wait="cancel")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        looked_again(looks)
        open_gate()
        result = dump.end()
    assert (result["lock_waits"], result["gave_way"]) == ([], {})


def test_an_index_that_is_built_concurrently_waits_for_the_transaction(
    server: PostgresServer, make_site: MakeSite, looks: list[bool]
) -> None:
    with gate(server) as open_gate:
        dump = Backup(make_site(server))
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        index = Statement(server, "CREATE INDEX CONCURRENTLY ON orders (name)")
        wait_for(lambda: [n for n in dump.notes if "the end of the dump's transaction" in n], seconds=LONG)
        open_gate()
        result = dump.end()
    index.join(LONG)
    assert index.done
    assert [(w["pid"], w["table"], w["mode"]) for w in result["lock_waits"]] == [(index.pid, "", "ShareLock")]


# --- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_dump_gives_way_and_is_made_anew(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], form: str
) -> None:
    site = make_site(server)
    with gate(server) as open_gate:
        dump = Backup(
            site, on_lock_wait="cancel", compression="gzip", format=form, jobs=2 if form == "directory" else 1
        )
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text")
        reader = Statement(server, "SELECT count(*) FROM orders")
        alter.join(LONG)
        reader.join(LONG)
        assert alter.done and reader.done and dump.is_alive()
        wait_for(lambda: holds(server) == 2, seconds=LONG)  # the second try
        open_gate()
        result = dump.end()
    assert result["gave_way"] == {"shop": 1}
    assert [w["pid"] for w in result["lock_waits"]] == [alter.pid]
    assert "The dump of 'shop' gave way once to sessions that waited for its locks." in result["warnings"]
    assert site.records()[-1]["gave_way"] == {"shop": 1}
    assert result["databases"][0]["format"] == form
    assert "note text" in columns(site, result["set"])
    assert site.sets() == [result["set"]]
    assert site.verify("structure")["sets"][0]["outcome"] == "passed"


def test_a_migration_that_stays_in_its_transaction_is_waited_for(
    server: PostgresServer, make_site: MakeSite, looks: list[bool]
) -> None:
    """It has its lock, and keeps it: the second try does not begin before it is done."""
    site = make_site(server)
    with gate(server) as open_gate:
        dump = Backup(site, on_lock_wait="cancel", compression="gzip")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        migration = server.connect("shop", autocommit=False)
        migration.cursor().execute("ALTER TABLE orders ADD COLUMN one int")  # comes back when the dump has given way
        wait_for(
            lambda: run_sql(
                server,
                "shop",
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%ShareRowExclusiveLock%' AND pid <> pg_backend_pid()",
            ),
            seconds=LONG,
        )
        wait_for(lambda: not run_sql(server, "shop", OURS), seconds=LONG)
        assert dump.is_alive()
        migration.cursor().execute("ALTER TABLE orders ADD COLUMN two int")
        migration.commit()
        migration.close()
        open_gate()
        result = dump.end()
    assert result["gave_way"] == {"shop": 1}
    assert "two integer" in columns(site, result["set"])


def test_a_dump_that_never_gets_through_fails_and_says_so(
    server: PostgresServer, make_site: MakeSite, looks: list[bool]
) -> None:
    site, over = make_site(server), threading.Event()

    def migrate() -> None:
        with server.connect("shop").cursor() as asked:
            while not over.wait(0.05):
                asked.execute("ALTER TABLE orders ALTER COLUMN name SET STATISTICS 100; LOCK TABLE orders")

    migrations = threading.Thread(target=migrate, daemon=True)
    with gate(server):
        dump = Backup(site, on_lock_wait="cancel")
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        migrations.start()
        try:
            with pytest.raises(
                PgopsError, match="begun 3 times and never came to its end: The dump of 'shop' gave way"
            ) as caught:
                dump.end()
        finally:
            over.set()
            migrations.join(LONG)
    assert caught.value.exit_code == 1 and "on_lock_wait" in caught.value.hint
    assert caught.value.details["gave_way"] == {"shop": 3}
    record = site.records()[-1]
    assert (record["outcome"], record["exit_code"], record["gave_way"]) == ("failed", 1, {"shop": 3})
    assert record["lock_waits"][0]["table"] == "public.orders"
    assert site.sets() == []
    wait_for(lambda: not run_sql(server, "shop", "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pgops%'"))


@pytest.mark.parametrize("fingerprint", [True, False])
def test_a_parallel_dump_that_loses_its_table_is_made_anew_in_either_policy(
    server: PostgresServer, make_site: MakeSite, fingerprint: bool
) -> None:
    """pg_dump's workers do not wait for a lock that somebody else waits for in front of them; they end the dump."""
    site = make_site(server)
    with gate(server) as open_gate:
        dump = Backup(site, format="directory", jobs=2, compression="gzip", fingerprint=fingerprint)
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text")
        wait_for(lambda: waits(server, alter), seconds=LONG)
        open_gate()
        result = dump.end()
    alter.join(LONG)
    assert alter.done
    assert result["gave_way"] == {"shop": 1}
    assert [w["pid"] for w in result["lock_waits"]] == [alter.pid]
    assert "note text" in columns(site, result["set"])


# --- the watch itself -------------------------------------------------------------------------------------------------


@pytest.fixture
def keeper(server: PostgresServer) -> dict[str, Any]:
    """Options of a site whose role may read everything and is nobody else."""
    run_sql(
        server,
        "shop",
        "CREATE ROLE keeper LOGIN PASSWORD 'k' IN ROLE pg_read_all_data; CREATE ROLE owner LOGIN PASSWORD 'o'; ALTER TABLE orders OWNER TO owner",
    )
    return {"postgres": {"login_user": "keeper", "login_password": "k", "login_password_file": ""}}


@pytest.mark.parametrize("policy", ["report", "cancel"])
def test_a_role_without_privileges_sees_who_waits(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], keeper: dict[str, Any], policy: str
) -> None:
    with gate(server) as open_gate:
        dump = Backup(make_site(server, **keeper), on_lock_wait=policy)
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(
            server, "ALTER TABLE orders ADD COLUMN note text", user="owner", password="o", application_name="migrate"
        )
        if policy == "report":
            wait_for(lambda: [n for n in dump.notes if "process %d" % alter.pid in n], seconds=LONG)
        else:
            alter.join(LONG)
            assert alter.done and dump.is_alive()
        open_gate()
        result = dump.end()
    assert [(w["pid"], w["role"], w["table"]) for w in result["lock_waits"]] == [(alter.pid, "owner", "public.orders")]
    assert result["gave_way"] == ({"shop": 1} if policy == "cancel" else {})


def test_a_watch_that_is_refused_its_connection_is_a_warning(
    server: PostgresServer,
    make_site: MakeSite,
    looks: list[bool],
    keeper: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_sql(server, "shop", "ALTER ROLE keeper CONNECTION LIMIT 3")  # two sessions of ours, and pg_dump's
    site = make_site(server, **keeper)
    look = lock_waits.LockWatch.look

    def later(self: lock_waits.LockWatch) -> bool:
        wait_for(lambda: holds(server) == 2, seconds=LONG)  # pg_dump has the last connection
        return look(self)

    monkeypatch.setattr(lock_waits.LockWatch, "look", later)
    with gate(server) as open_gate:
        dump = Backup(site)
        wait_for(lambda: looks, seconds=LONG)
        open_gate()
        result = dump.end()
    assert looks[0] is False
    told = [w for w in result["warnings"] if "could not be watched all the time" in w]
    assert len(told) == 1 and "too many connections for role" in told[0]
    assert site.verify("structure")["sets"][0]["outcome"] == "passed"


def test_a_watch_that_loses_its_connection_gets_another(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_waits, "_AGAIN_SECONDS", 0.2)
    with gate(server) as open_gate:
        dump = Backup(make_site(server))
        wait_for(lambda: holds(server) == 2 and looks, seconds=LONG)
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_blocking_pids(l.pid)%' AND pid <> pg_backend_pid()"
        assert run_sql(server, "shop", ended)
        wait_for(lambda: False in looks and looks[-1], seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text")
        wait_for(lambda: [n for n in dump.notes if "process %d" % alter.pid in n], seconds=LONG)
        open_gate()
        result = dump.end()
    assert len([w for w in result["warnings"] if "could not be watched all the time" in w]) == 1
    assert [w["pid"] for w in result["lock_waits"]] == [alter.pid]


def test_a_pooler_that_hides_names_does_not_hide_the_queue(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the names, the count of rows is still known to be ours, and it holds the same locks."""
    monkeypatch.setattr(lock_waits, "_WAITING", lock_waits._WAITING.replace("o.application_name =", "'hidden' ="))
    with gate(server) as open_gate:
        dump = Backup(make_site(server))
        wait_for(lambda: holds(server) == 2, seconds=LONG)
        alter = Statement(server, "ALTER TABLE orders ADD COLUMN note text")
        wait_for(lambda: [n for n in dump.notes if "process %d" % alter.pid in n], seconds=LONG)
        open_gate()
        assert [w["pid"] for w in dump.end()["lock_waits"]] == [alter.pid]


# --- a standby --------------------------------------------------------------------------------------------------------


def test_a_dump_of_a_standby_is_watched_without_a_word(
    server: PostgresServer, make_site: MakeSite, looks: list[bool], tmp_path: Path
) -> None:
    other = PostgresServer(server.bindir, tmp_path, settings=BENCH)
    other.password = server.password
    account: dict[str, Any] = {}
    if other.account:
        account = {"user": other.account.pw_uid, "group": other.account.pw_gid, "extra_groups": [], "cwd": "/"}
    server.run("pg_basebackup", "-D", str(other.data_dir), "-R", "-c", "fast", "--no-sync", "-X", "stream", **account)
    locked = "SELECT 1 FROM pg_locks WHERE relation = 'zz_gate'::regclass AND mode = 'AccessExclusiveLock' AND granted"
    with other, gate(server) as open_gate:
        run_sql(server, "shop", "CREATE TABLE flush ()")  # its commit takes the gate's record along
        wait_for(lambda: reached(other, locked), seconds=LONG)
        dump = Backup(make_site(other), on_lock_wait="cancel")
        wait_for(lambda: holds(other) == 2, seconds=LONG)
        looked_again(looks)
        open_gate()
        result = dump.end()
    assert all(looks)
    assert (result["lock_waits"], result["gave_way"]) == ([], {})
    assert not [w for w in result["warnings"] if "watched" in w or "held up" in w]


def reached(server: PostgresServer, question: str) -> bool:
    try:
        return bool(run_sql(server, "shop", question))
    except psycopg2.OperationalError:
        return False


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE orders ALTER COLUMN id TYPE bigint", "ALTER TABLE orders ADD COLUMN luck float DEFAULT random()"],
)
@pytest.mark.parametrize("fingerprint", [True, False])
def test_a_table_that_is_rewritten_under_the_snapshot_is_not_dumped_empty(
    server: PostgresServer, make_site: MakeSite, change: str, fingerprint: bool
) -> None:
    """A snapshot that is older than the rewrite sees no row in the new table; a later one does."""
    site = make_site(server)
    migration = server.connect("shop", autocommit=False)
    migration.cursor().execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    dump = Backup(site, compression="gzip", fingerprint=fingerprint)
    waiting = "SELECT 1 FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
    wait_for(lambda: len(run_sql(server, "shop", waiting)) == 2, seconds=LONG)
    migration.cursor().execute(change)
    migration.commit()
    migration.close()
    result = dump.end()
    assert rows(site, result["set"]) == 2000
    if fingerprint:
        assert result["databases"][0]["rows"] == 2501


def rows(site: Site, set_id: str) -> int:
    """Return how many rows of the table orders the set has, as pg_restore tells it."""
    program = [str(site.server.bindir / "pg_restore"), "--table=orders", "--data-only", "--file=-"]
    path = str(site.set_folder(set_id) / site.manifest(set_id).databases[0].dump.path)
    text = subprocess.run([*program, path], check=True, capture_output=True, text=True).stdout
    return text.count("\torder ")
