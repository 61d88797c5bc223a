# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for the tests, started once each, and a site: one host with a configuration and directories of its own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from psycopg2 import sql

from ansible_collections.pgops.backup.plugins.module_utils._engine import config, runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Manifest, decode
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, restore, verify
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request as Sync
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import sync
from demo import dataset
from demo.servers import MotoS3, PostgresServer, system_bindirs, wheel_bindir

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "backups"
SCALE = 0.005

# A small database with one of everything that a dump can lose.
SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.goods (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, price numeric CHECK (price >= 0));
CREATE TABLE shop.sales (no serial PRIMARY KEY, good int REFERENCES shop.goods, at timestamptz DEFAULT now(), who text);
CREATE INDEX sales_at ON shop.sales (at);
CREATE STATISTICS shop.sales_stats ON good, who FROM shop.sales;
CREATE SEQUENCE shop.tickets;
CREATE VIEW shop.cheap AS SELECT * FROM shop.goods WHERE price < 5;
CREATE MATERIALIZED VIEW shop.totals AS SELECT good, count(*) FROM shop.sales GROUP BY good;
CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.who := current_user; RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON shop.sales FOR EACH ROW EXECUTE FUNCTION shop.stamp();
CREATE TYPE shop.size AS ENUM ('small', 'large');
INSERT INTO shop.goods (name, price) SELECT 'good ' || i, i FROM generate_series(1, 50) i;
INSERT INTO shop.sales (good) SELECT 1 + i % 50 FROM generate_series(1, 500) i;
SELECT nextval('shop.tickets') FROM generate_series(1, 7);
SELECT lo_from_bytea(4711, 'a large object'), lo_from_bytea(4712, 'another');
REFRESH MATERIALIZED VIEW shop.totals;
ALTER TABLE shop.sales ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.sales USING (who = current_user);
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT, INSERT ON shop.sales TO clerk;
GRANT SELECT (id, name) ON shop.goods TO clerk;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO clerk;
COMMENT ON TABLE shop.goods IS 'what there is';
COMMENT ON COLUMN shop.goods.price IS 'in euros';
ALTER TABLE shop.goods OWNER TO chief;
"""


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has set for his own servers must not steer the tests."""
    for name in list(os.environ):
        if name.startswith(("PG", "AWS_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


# --- servers ----------------------------------------------------------------------------------------------------------


# What the server `bench` has beside the defaults, and so any standby of it.
BENCH = {"max_prepared_transactions": 5}


class Servers:
    """PostgreSQL servers by purpose and version, each started when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: dict[tuple[str, int], PostgresServer] = {}

    def get(self, purpose: str, major: int, **settings: str | int) -> PostgresServer:
        """Return the server for `purpose`; the purpose `filled` holds the data set of the demo, others nothing."""
        key = (purpose, major)
        if key not in self._running:
            server = PostgresServer(
                bindir_of(major), self._root, settings={**(BENCH if purpose == "bench" else {}), **settings}
            )
            server.__enter__()
            self._running[key] = server
            if purpose == "filled":
                dataset.fill(server, scale=SCALE)
        return self._running[key]

    def close(self) -> None:
        for server in self._running.values():
            server.close()


def bindir_of(major: int) -> Path:
    """Return the programs of that version: the wheel's, or the distribution's."""
    if major in (16, 18):
        return wheel_bindir(major)
    return next(path for path in system_bindirs() if path.parent.name == str(major))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(tmp_path_factory.mktemp("servers"))
    yield found
    found.close()


@pytest.fixture
def filled(servers: Servers) -> PostgresServer:
    """PostgreSQL 18 with the data set of the demo. Tests leave its databases as they are."""
    return servers.get("filled", 18)


@pytest.fixture(scope="session")
def shop(servers: Servers) -> PostgresServer:
    """PostgreSQL 18 with the small shop. Tests leave that database as it is."""
    server = servers.get("shop", 18)
    create_shop(server)
    return server


@pytest.fixture
def bench(servers: Servers) -> Iterator[PostgresServer]:
    """PostgreSQL 18 for what a test needs; it is empty before each."""
    server = servers.get("bench", 18)
    empty(server)
    yield server


@pytest.fixture
def target(servers: Servers, filled: PostgresServer) -> PostgresServer:
    """An empty PostgreSQL 18 to restore to; its superuser has the password of `filled`, so that the two compare."""
    server = servers.get("target", 18)
    empty(server)
    same_superuser(filled, server)
    return server


def empty(server: PostgresServer) -> None:
    """Drop every database and role that did not come with the server."""
    _release(server)
    with cursor(server, "postgres") as asked:
        asked.execute("SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')")
        for (name,) in asked.fetchall():
            asked.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
            asked.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        asked.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384")
        for (name,) in asked.fetchall():
            asked.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(role=sql.Identifier(name)))
        asked.execute("ALTER ROLE ALL RESET ALL")


def _release(server: PostgresServer) -> None:
    """End what keeps a database from being dropped: prepared transactions and subscriptions."""
    prepared = run_sql(server, "postgres", "SELECT database, gid FROM pg_prepared_xacts")
    for database, gid in prepared:
        with cursor(server, database) as asked:
            asked.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    subscribed = "SELECT d.datname, s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
    for database, name in run_sql(server, "postgres", subscribed):
        with cursor(server, database) as asked:
            asked.execute("SET default_transaction_read_only = off")
            for statement in ("ALTER {} DISABLE", "ALTER {} SET (slot_name = NONE)", "DROP {}"):
                asked.execute(sql.SQL(statement).format(sql.SQL("SUBSCRIPTION {}").format(sql.Identifier(name))))


def same_superuser(one: PostgresServer, other: PostgresServer) -> None:
    """Let the superuser of `other` have the stored password of that of `one`, and log in with it."""
    with cursor(one, "postgres") as asked:
        asked.execute("SELECT rolpassword FROM pg_authid WHERE oid = 10")
        (verifier,) = asked.fetchone()
    with cursor(other, "postgres") as asked:
        asked.execute("ALTER ROLE postgres PASSWORD %s", (verifier,))
    other.password = one.password


@contextmanager
def cursor(server: PostgresServer, database: str, **others: Any) -> Iterator[Any]:
    """Yield a cursor of a superuser, or of whom `others` name, in autocommit mode."""
    with closing(server.connect(database, **others)) as connection, connection.cursor() as asked:
        yield asked


def run_sql(server: PostgresServer, database: str, text: str) -> list[tuple[Any, ...]]:
    """Run SQL and return the rows of its last statement."""
    with cursor(server, database) as asked:
        asked.execute(text)
        return list(asked.fetchall()) if asked.description else []


def create_database(server: PostgresServer, name: str, text: str = "", *, template: str = "template0") -> None:
    """Create a database and run SQL in it."""
    with cursor(server, "postgres") as asked:
        both = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        asked.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**both))
    if text:
        run_sql(server, name, text)


def create_shop(server: PostgresServer, name: str = "shop") -> None:
    """Create the small database with one of everything, and its roles."""
    roles = "CREATE ROLE clerk LOGIN PASSWORD 'clerks-own-secret'; CREATE ROLE chief; GRANT clerk TO chief"
    run_sql(server, "postgres", roles)
    create_database(server, name, SHOP)


def databases_of(server: PostgresServer) -> set[str]:
    """Return the names of the databases on the server, templates left out."""
    return {name for (name,) in run_sql(server, "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate")}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoS3]:
    """An S3 server with a bucket."""
    with MotoS3(tmp_path_factory.mktemp("moto")) as server:
        server.create_bucket(BUCKET)
        yield server


# --- a site -----------------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """A host with its own backup, state and log directories, whose instance is `server`.

    `verb()` methods run as the program runs them: recorded, with a fresh context each, which stays as `context`.
    """

    root: Path
    server: PostgresServer
    instance: str = field(default_factory=lambda: "site-" + uuid.uuid4().hex[:8])
    options: dict[str, Any] = field(default_factory=dict)
    contexts: list[Context] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def secret(self) -> Path:
        """The file with the password."""
        path = self.root / "password"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
            stream.write(self.server.password + "\n")
        return path

    def data(self, **sections: Any) -> dict[str, Any]:
        """Return the configuration as a user would write it; `sections` lie over it."""
        base = {
            "instance": self.instance,
            "postgres": {
                "login_host": self.server.host,
                "login_port": self.server.port,
                "login_user": self.server.user,
                "login_password_file": str(self.secret),
                "bin_dir": str(self.server.bindir),
            },
            "backup": {"min_free": "1MiB"},
            "verify": {"place": "local"},
            "local": {"path": str(self.root / "backups")},
            "state_dir": str(self.root / "state"),
            "log_dir": str(self.root / "log"),
        }
        return config.merge(config.merge(base, self.options), sections)

    def engine(self, **sections: Any) -> Context:
        """Return a fresh context of the configuration with `sections` over it."""
        built = config.build(self.data(**sections), environ={}, host="test-host")
        self.contexts.append(Context(built, "test-host"))
        return self.contexts[-1]

    @property
    def context(self) -> Context:
        """The context of the last verb."""
        return self.contexts[-1]

    @property
    def warnings(self) -> str:
        """The warnings of the last verb, one a line."""
        return "\n".join(self.context.warnings)

    def backup(self, *, dry_run: bool = False, **options: Any) -> dict[str, Any]:
        """Back up with `options` in the section backup."""
        request = backup.Request(dry_run=dry_run)
        context = self.engine(backup=options)
        return runs.perform(context, "backup", lambda c: backup.backup(c, request), dry_run=dry_run)

    def verify(
        self, level: str = "restore", *, sections: dict[str, Any] | None = None, **request: Any
    ) -> dict[str, Any]:
        """Verify the latest set of the local place, or what `request` says."""
        asked = verify.Request(level=level, **request)
        return runs.perform(self.engine(**(sections or {})), "verify", lambda c: verify.verify(c, asked))

    def restore(
        self, *, to: PostgresServer | None = None, sections: dict[str, Any] | None = None, **request: Any
    ) -> dict[str, Any]:
        """Restore the latest set of the local place to the server `to`, or what `request` says."""
        over = config.merge(Site(self.root / "to", to).postgres_section() if to else {}, sections or {})
        asked = restore.Request(**{"place": "local", "set": "latest", **request})
        context = self.engine(**over)
        return runs.perform(context, "restore", lambda c: restore.restore(c, asked), dry_run=asked.dry_run)

    def postgres_section(self) -> dict[str, Any]:
        """Return the part of the configuration that says how to reach the server."""
        return {"postgres": self.data()["postgres"]}

    def push(self) -> dict[str, Any]:
        """Copy the sets to S3."""
        return sync(self.engine(), Sync())

    def use_s3(self, store: MotoS3, url: str = "") -> None:
        """Let the site have an S3 place, reached by `url`."""
        self.options = config.merge(
            self.options,
            {
                "s3": {
                    "bucket": BUCKET,
                    "endpoint_url": url or store.endpoint_url,
                    "region": store.region,
                    "addressing_style": "path",
                    "access_key": store.access_key,
                    "secret_key": store.secret_key,
                }
            },
        )

    # --- what lies on the disk ---

    @property
    def home(self) -> Path:
        """The instance's directory in the local place."""
        return self.root / "backups" / self.instance

    def set_folder(self, set_id: str) -> Path:
        """The folder of a set."""
        return self.home / "sets" / set_id

    def sets(self) -> list[str]:
        """The names in the sets room, hidden ones too."""
        folder = self.home / "sets"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def manifest(self, set_id: str) -> Manifest:
        """The manifest of a set, decoded."""
        return decode((self.set_folder(set_id) / "manifest.json").read_bytes(), set_id=set_id)

    def records(self) -> list[dict[str, Any]]:
        """The run records, the oldest first."""
        folder = self.root / "state" / self.instance / "runs"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    def evidence(self) -> list[Path]:
        """The evidence files of the local place, the oldest first."""
        return sorted((self.home / "evidence").glob("*.json"))

    def forge(
        self,
        set_id: str,
        change: Callable[[dict[str, Any]], None] = lambda manifest: None,
        files: dict[str, bytes] | None = None,
    ) -> str:
        """Publish a copy of a set with `files` replaced or added and its manifest changed, every hash right.

        This is what a flawed backup would have left: whole as far as hashes go, wrong in what it holds.
        """
        newest = max(name for name in self.sets() if not name.startswith("."))
        moment = datetime.strptime(newest[:15] + "+0000", "%Y%m%dT%H%M%S%z")
        kind = set_id.rpartition("-")[2]
        new_id = "%s-%s" % ((moment + timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ"), kind)
        folder = self.set_folder(new_id)
        shutil.copytree(self.set_folder(set_id), folder)
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["id"] = new_id
        manifest["files"] = [
            {"path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "sha256": sha256(p)}
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != "manifest.json"
        ]
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return new_id


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Site]:
    """Return a builder of sites: make_site(server, section={...})."""
    count = iter(range(1000))

    def build(server: PostgresServer, **options: Any) -> Site:
        return Site(tmp_path / ("site-%d" % next(count)), server, options=options)

    return build


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, by the standard library alone."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


@contextmanager
def damaged_table(server: PostgresServer) -> Iterator[str]:
    """Have a table whose second block is damaged while the block runs; yield the path of its file in the data directory."""
    run_sql(server, "postgres", "CREATE TABLE harmed AS SELECT i FROM generate_series(1, 3000) i")
    (path,) = run_sql(server, "postgres", "CHECKPOINT; SELECT pg_relation_filepath('harmed')")[0]
    flip(server.data_dir / path, 8192 + 4000)
    try:
        yield path
    finally:
        run_sql(server, "postgres", "DROP TABLE harmed")


def flip(path: Path, position: int | None = None) -> None:
    """Change one byte of a file, in its middle if no position is given."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 0x55
    path.write_bytes(bytes(content))


CHILD = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, restore, verify
from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context, Reporter


class Stopping(Reporter):
    def phase(self, name, total=0):
        if sys.argv[5] and name.startswith(sys.argv[5]):
            print(name, flush=True)
            time.sleep(600)


context = Context(config.build(json.loads(sys.argv[2]), environ={}, host="test-host"), "test-host", reporter=Stopping())
verb = {"backup": backup, "restore": restore, "verify": verify}[sys.argv[3]]
request = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[4]).items()}
getattr(verb, sys.argv[3])(context, verb.Request(**request))
"""


@contextmanager
def process_of(
    verb: str, configuration: dict[str, Any], request: dict[str, Any], *, stop_at: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run a verb in a process of its own, which is killed at the end.

    With `stop_at` it halts, and says so on its standard output, when the phase whose name begins so begins.
    """
    found = [str(ROOT / ".venv" / "collections"), *sys.path]
    arguments = [json.dumps(found), json.dumps(configuration), verb, json.dumps(request), stop_at]
    command = [sys.executable, "-c", CHILD, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Poll(threading.Thread):
    """Looks again and again, for as long as a `with` block lasts; `found` are the truthy answers."""

    def __init__(self, look: Callable[[], Any], every: float = 0.002) -> None:
        super().__init__(daemon=True)
        self._look, self._every, self._over = look, every, threading.Event()
        self.found: list[Any] = []
        self.looked = 0

    def run(self) -> None:
        while not self._over.is_set():
            found = glimpse(self._look)
            self.looked += 1
            if found:
                self.found.append(found)
            time.sleep(self._every)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._over.set()
        self.join()


def glimpse(look: Callable[[], Any]) -> Any:
    """Return what there is to see, and None when it vanished while we looked: others are at work in those directories."""
    try:
        return look()
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_for(what: Callable[[], Any], *, seconds: float = 90) -> Any:
    """Return what `what` gives as soon as it is true; fail when that takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = glimpse(what)
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("waited %s s in vain" % seconds)


# --- age --------------------------------------------------------------------------------------------------------------


@functools.cache
def age_directory() -> str:
    """Return the directory of age and age-keygen: that on PATH, or unpacked from Debian's package into build/."""
    found = shutil.which("age")
    if found and shutil.which("age-keygen"):
        return str(Path(found).parent)
    cache = ROOT / "build" / "cache" / "age"
    if not (cache / "usr" / "bin" / "age").exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
            for command in ("apt-get download age", "dpkg -x age_*.deb unpacked"):
                done = subprocess.run(["sh", "-c", command], cwd=scratch, capture_output=True, text=True, check=False)
                if done.returncode:
                    pytest.fail("age is needed: install it (apt-get install age, dnf install age). %s" % done.stderr)
            with contextlib.suppress(OSError):  # another worker was quicker
                (Path(scratch) / "unpacked").rename(cache)
    return str(cache / "usr" / "bin")


@dataclass(frozen=True)
class Key:
    """A private age key in a file, and its public one."""

    file: Path
    public: str


def key_in(file: Path) -> Key:
    """Make a key; its private part lies in the new `file`. age must be on PATH."""
    subprocess.run(["age-keygen", "-o", str(file)], check=True, capture_output=True)
    shown = subprocess.run(["age-keygen", "-y", str(file)], check=True, capture_output=True, text=True)
    return Key(file, shown.stdout.strip())


@pytest.fixture
def age_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Key]:
    """Put age on PATH and return a maker of keys."""
    monkeypatch.setenv("PATH", "%s:%s" % (age_directory(), os.environ["PATH"]))

    return lambda name: key_in(tmp_path / name)
