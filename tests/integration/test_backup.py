# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb backup on real servers: what a set holds, what is chosen and left out, what is refused, what never leaks."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Database
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import dumping
from demo import compare, dataset
from demo.servers import PostgresServer
from tests.integration.conftest import (
    BENCH,
    Poll,
    Servers,
    Site,
    create_database,
    create_shop,
    cursor,
    process_of,
    run_sql,
    sha256,
    wait_for,
)

MakeSite = Callable[..., Site]


def plain_bytes(site: Site, set_id: str, database: Database) -> bytes:
    """Return the dump without its wrappers, taken off by the programs themselves, not by the engine."""
    path = site.set_folder(set_id) / database.dump.path
    content = path.read_bytes()
    for layer in reversed(database.dump.layers):
        content = subprocess.run([layer, "-d", "-c"], input=content, capture_output=True, check=True).stdout
    return content


def listing(site: Site, set_id: str, name: str) -> str:
    """Return pg_restore's table of contents of a database's archive."""
    database = site.manifest(set_id).database(name)
    assert database is not None
    program = [str(site.server.bindir / "pg_restore"), "--list"]
    if database.dump.format == "directory":
        return subprocess.run(
            [*program, str(site.set_folder(set_id) / database.dump.path)], capture_output=True, check=True, text=True
        ).stdout
    dump = plain_bytes(site, set_id, database)
    return subprocess.run(program, input=dump, capture_output=True, check=True).stdout.decode()


def script(site: Site, set_id: str, name: str) -> str:
    """Return the SQL that pg_restore makes of a database's archive."""
    database = site.manifest(set_id).database(name)
    assert database is not None
    dump = plain_bytes(site, set_id, database)
    program = [str(site.server.bindir / "pg_restore"), "--file=-"]
    return subprocess.run(program, input=dump, capture_output=True, check=True).stdout.decode()


@contextmanager
def locked_table(server: PostgresServer, database: str, table: str) -> Iterator[None]:
    """Hold a lock that pg_dump must wait for."""
    connection = server.connect(database, autocommit=False)
    try:
        connection.cursor().execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % table)
        yield
    finally:
        connection.close()


# --- a whole set ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, dict[str, Any]]:
    """A site with a set of everything that the demo's server holds."""
    site = Site(tmp_path_factory.mktemp("whole"), servers.get("filled", 18))
    return site, site.backup()


def test_a_set_holds_what_its_manifest_says(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    manifest = site.manifest(result["set"])
    folder = site.set_folder(result["set"])
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert on_disk == {f.path for f in manifest.files} | {"manifest.json"}
    for file in manifest.files:
        assert (file.size, file.sha256) == ((folder / file.path).stat().st_size, sha256(folder / file.path))
    assert result["content"] == sha256(folder / "manifest.json")
    assert result["bytes"] == sum(f.size for f in manifest.files)
    assert result["path"] == str(folder)
    assert (
        {d.name for d in manifest.databases}
        == {*dataset.DATABASES, "postgres"}
        == {d["name"] for d in result["databases"]}
    )
    assert result["uncovered"] == []
    assert (manifest.kind, manifest.server_version_num // 10000, manifest.from_standby) == ("logical", 18, False)
    assert (
        manifest.system_identifier
        == run_sql(site.server, "postgres", "SELECT system_identifier::text FROM pg_control_system()")[0][0]
    )
    assert manifest.begun <= manifest.ended
    assert manifest.started.endswith("+00:00")


def test_every_archive_of_a_set_can_be_listed(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    for name in dataset.DATABASES:
        assert "TABLE DATA" in listing(site, result["set"], name)


def test_the_fingerprint_has_the_rows_that_another_tool_counts(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    state = compare.snapshot(site.server)
    for name in dataset.DATABASES:
        expected = {
            table: facts["rows"]
            for table, facts in state['database "%s"' % name]["tables"].items()
            if state['database "%s"' % name]["relations"][table]["kind"] == "r"
        }
        database = site.manifest(result["set"]).database(name)
        assert database is not None and database.fingerprint is not None
        assert database.fingerprint["rows"] == expected


def test_roles_and_server_files_are_in_the_set(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    manifest, folder = site.manifest(result["set"]), site.set_folder(result["set"])
    roles = {
        name for (name,) in run_sql(site.server, "postgres", "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'")
    }
    assert manifest.roles is not None
    assert set(manifest.roles["roles"]) == roles
    assert manifest.globals is not None and manifest.globals_passwords
    text = (folder / manifest.globals.path).read_text()
    assert text.count("CREATE ROLE ") == len(roles)
    assert "SCRAM-SHA-256$" in text
    for payload, name in ((manifest.hba, "pg_hba.conf"), (manifest.ident, "pg_ident.conf")):
        assert payload is not None
        assert (folder / payload.path).read_bytes() == (site.server.data_dir / name).read_bytes()
    assert manifest.settings is not None
    settings = {s["name"]: s["setting"] for s in json.loads((folder / manifest.settings.path).read_text())}
    assert settings["port"] == str(site.server.port)
    assert settings["fsync"] == "off"


def test_only_the_owner_can_read_a_set(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    folder = site.set_folder(result["set"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    for path in folder.rglob("*"):
        expected = 0o700 if path.is_dir() else 0o640 if path.name == "manifest.json" else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    for path in (site.home, site.home / "sets", site.root / "state", site.root / "log"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path


def test_the_password_is_nowhere_and_hashes_are_in_the_globals_only(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    secret = site.server.password.encode()
    seen = 0
    for path in site.root.rglob("*"):
        if path.is_file() and path.name != "password":
            seen += 1
            content = path.read_bytes()
            assert secret not in content, path
            assert b"SCRAM-SHA-256$" not in content or path.name == "globals.sql", path
    assert seen > 8
    assert {p.name for p in (site.root / "log").iterdir()} == {"backup.log"}
    assert secret.decode() not in json.dumps(result)


def test_a_run_is_recorded_and_its_result_has_the_common_keys(whole: tuple[Site, dict[str, Any]]) -> None:
    site, result = whole
    record = site.records()[0]
    assert (record["verb"], record["outcome"], record["exit_code"], record["set"]) == ("backup", "ok", 0, result["set"])
    assert result["changed"] and not result["dry_run"] and result["seconds"] > 0


def test_the_password_never_shows_in_a_command_line(filled: PostgresServer, make_site: MakeSite) -> None:
    seen: set[bytes] = set()

    def look() -> bool:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"pg_dump" in line:
                seen.add(line)
            if filled.password.encode() in line:
                return True
        return False

    site = make_site(filled)
    with Poll(look) as poll:
        # Some of them live so briefly that a loaded machine may not see them once.
        for _again in range(10):
            site.backup()
            if all(any(word in line for line in seen) for word in (b"pg_dumpall", b"--snapshot")):
                break
        else:
            pytest.fail("They were not seen at work: %s" % sorted(seen))
    assert not poll.found


# --- formats and compressions -----------------------------------------------------------------------------------------


def possible(form: str, compression: str) -> bool:
    """The wheel's pg_dump can do gzip alone, and plain never; a program can be put around one stream, not a directory."""
    inside = compression == "none" or (compression == "gzip" and form != "plain")
    return inside or (form != "directory" and shutil.which(compression) is not None)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip", "none"])
@pytest.mark.parametrize("form", ["custom", "directory", "plain"])
def test_each_format_with_each_compression(
    shop: PostgresServer, make_site: MakeSite, form: str, compression: str
) -> None:
    site = make_site(shop)
    options: dict[str, Any] = {"databases": ["shop"], "format": form, "compression": compression}
    if not possible(form, compression):
        with pytest.raises(UsageError, match="Compression %s is not possible" % compression):
            site.backup(**options)
        assert site.sets() == []
        return
    result = site.backup(**options)
    database = site.manifest(result["set"]).database("shop")
    assert database is not None
    assert (database.dump.format, database.dump.compression) == (form, compression)
    inside = compression == "none" or (compression == "gzip" and form != "plain")
    assert database.dump.layers == (() if inside else (compression,))
    if form == "plain":
        text = plain_bytes(site, result["set"], database).decode()
        assert "COPY shop.sales" in text and text.rstrip().splitlines()[-1].startswith(("--", "\\unrestrict"))
        assert "PostgreSQL database dump complete" in text
    else:
        shown = listing(site, result["set"], "shop")
        assert "TABLE DATA shop sales" in shown
        assert "Compression: %s" % (compression if inside else "none") in shown
    chosen = result["choices"]["shop"]
    assert (chosen["format"], chosen["compression"], chosen["inside_pg_dump"]) == (
        form,
        compression,
        inside and compression != "none",
    )
    assert len(chosen["reasons"]) >= 2


def test_auto_takes_zstd_from_the_program_when_pg_dump_lacks_it(shop: PostgresServer, make_site: MakeSite) -> None:
    if shutil.which("zstd") is None:
        pytest.fail("the program zstd is needed for this test (apt-get install zstd)")
    site = make_site(shop)
    result = site.backup(databases=["shop"])
    chosen = site.manifest(result["set"]).choices["shop"]
    assert (chosen["format"], chosen["compression"], chosen["inside_pg_dump"]) == ("custom", "zstd", False)
    assert any("the program zstd does it" in reason for reason in chosen["reasons"])
    assert any("need no parallel dump" in reason for reason in chosen["reasons"])
    assert (site.set_folder(result["set"]) / "databases" / "shop.dump.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"


def test_auto_falls_back_to_gzip_without_the_program(
    shop: PostgresServer, make_site: MakeSite, bare_path: None
) -> None:
    site = make_site(shop)
    result = site.backup(databases=["shop"])
    chosen = result["choices"]["shop"]
    assert (chosen["compression"], chosen["inside_pg_dump"]) == ("gzip", True)
    assert any("neither this build of pg_dump nor a program here can do zstd" in reason for reason in chosen["reasons"])
    with pytest.raises(UsageError, match="the program zstd is not installed"):
        site.backup(databases=["shop"], compression="zstd")


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH on which there is no compressor at all."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_the_level_reaches_the_compressor(shop: PostgresServer, make_site: MakeSite) -> None:
    sizes = [
        make_site(shop).backup(databases=["shop"], format="plain", compression="gzip", compression_level=level)[
            "databases"
        ][0]["bytes"]
        for level in (1, 9)
    ]
    assert sizes[0] > sizes[1]


def test_a_directory_dump_uses_the_jobs_that_were_asked_for(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    with Poll(lambda: [p for p in Path("/proc").iterdir() if b"--jobs=3" in read(p / "cmdline")]) as poll:
        # It lives so briefly that a loaded machine may not see it once.
        for _again in range(10):
            result = site.backup(databases=["shop"], format="directory", jobs=3)
            if poll.found:
                break
    assert poll.found
    assert result["choices"]["shop"]["jobs"] == 3
    assert (site.set_folder(result["set"]) / "databases" / "shop" / "toc.dat").exists()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- what is included -------------------------------------------------------------------------------------------------

PARTS = """
CREATE SCHEMA one; CREATE TABLE one.a AS SELECT i FROM generate_series(1, 10) i; CREATE TABLE one."B c.d" AS SELECT 'kept-in-b' AS t;
CREATE SCHEMA two; CREATE TABLE two.a AS SELECT 'two-a-row' AS t; CREATE TABLE two.log AS SELECT 'log-row' AS t;
"""


@pytest.fixture
def parts(bench: PostgresServer) -> PostgresServer:
    """A server with the databases `parts` and `other`."""
    create_database(bench, "parts", PARTS)
    create_database(bench, "other", "CREATE TABLE x (i int)")
    return bench


def test_databases_that_are_not_backed_up_are_uncovered(parts: PostgresServer, make_site: MakeSite) -> None:
    run_sql(parts, "postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS false")
    run_sql(parts, "template1", "CREATE TEMPORARY TABLE of_nobody (i int)")
    result = make_site(parts).backup(databases=["parts"])
    assert [d["name"] for d in result["databases"]] == ["parts"]
    assert {u["what"]: u["why"] for u in result["uncovered"]} == {
        "database closed": "it takes no connections",
        "database other": "it is not in backup.databases",
        "database postgres": "it is not in backup.databases",
    }
    run_sql(parts, "template1", "CREATE TABLE of_each_new_database (i int)")
    try:
        result = make_site(parts).backup(exclude_databases=["other"])
    finally:
        run_sql(parts, "template1", "DROP TABLE of_each_new_database")
    assert {d["name"] for d in result["databases"]} == {"parts", "postgres"}
    assert {"what": "database other", "why": "it is in backup.exclude_databases"} in result["uncovered"]
    assert "objects in template1" in {u["what"] for u in result["uncovered"]}


def test_a_server_with_room_for_few_locks(servers: Servers, make_site: MakeSite) -> None:
    """Where pg_dump alone has room for its locks, counting the rows must not need that of all indexes as well."""
    limits: dict[str, str | int] = {
        "max_connections": 15,
        "max_wal_senders": 0,
        "max_worker_processes": 2,
        "autovacuum_worker_slots": 1,
        "autovacuum_max_workers": 1,
    }
    server = servers.get("few locks", 18, max_locks_per_transaction=24, **limits)

    def tables(first: int, last: int) -> None:
        for at in range(first, last, 50):  # what one transaction makes is locked, too
            made = ("CREATE TABLE t%d (i int PRIMARY KEY, j int UNIQUE)" % i for i in range(at, at + 50))
            run_sql(server, "many", "; ".join(made))

    create_database(server, "many")
    tables(0, 150)
    site = make_site(server, backup={"databases": ["many"], "format": "custom", "jobs": 1})
    facts = site.manifest(site.backup()["set"]).databases[0].fingerprint
    assert facts is not None and len(facts["rows"]) == 150
    tables(150, 400)
    with pytest.raises(PgopsError) as caught:
        site.backup()
    assert "Raise its max_locks_per_transaction" in caught.value.hint


@pytest.mark.parametrize(
    ("filters", "inside", "outside", "uncovered"),
    [
        ({"schemas": ["one"]}, {"one.a", 'one."B c.d"'}, {"two.a", "two.log"}, {"schema two of database parts"}),
        (
            {"exclude_schemas": ["one"]},
            {"two.a", "two.log"},
            {"one.a", 'one."B c.d"'},
            {"schema one of database parts"},
        ),
        (
            {"tables": ['one."B c.d"', "two.a"]},
            {'one."B c.d"', "two.a"},
            {"one.a", "two.log"},
            {"table one.a of database parts", "table two.log of database parts"},
        ),
        (
            {"exclude_tables": ["two.log"]},
            {"one.a", 'one."B c.d"', "two.a"},
            {"two.log"},
            {"table two.log of database parts"},
        ),
    ],
)
def test_filters_and_what_they_leave_uncovered(
    parts: PostgresServer,
    make_site: MakeSite,
    filters: dict[str, Any],
    inside: set[str],
    outside: set[str],
    uncovered: set[str],
) -> None:
    site = make_site(parts)
    result = site.backup(databases=["parts"], **filters)
    text = script(site, result["set"], "parts")
    for table in inside:
        assert "CREATE TABLE %s (" % table in text and "COPY %s (" % table in text
    for table in outside:
        assert "CREATE TABLE %s (" % table not in text
    assert {u["what"] for u in result["uncovered"] if "database parts" in u["what"]} == uncovered
    database = site.manifest(result["set"]).database("parts")
    assert database is not None and database.fingerprint is not None
    assert set(database.fingerprint["relations"]) == inside
    assert not database.fingerprint["whole"]


def test_rows_that_are_excluded_are_absent_and_reported(parts: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(parts)
    result = site.backup(databases=["parts"], exclude_table_data=["two.log", "never.there"])
    text = script(site, result["set"], "parts")
    assert "CREATE TABLE two.log" in text and "log-row" not in text and "two-a-row" in text
    assert {"what": "rows of two.log of database parts", "why": "it is in backup.exclude_table_data"} in result[
        "left_out"
    ]
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"


@pytest.mark.parametrize("shape", ["directory", "custom"])
def test_filters_too_many_for_a_command_line_are_read_by_pg_dump(
    bench: PostgresServer, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """With names that mean something to whoever reads them; an older pg_dump cannot, and that is told before it runs."""
    odd = ('sch\'ema # "x"', 'ta"b\nle .* $')
    name = "many_%s" % shape
    schema, table = ('"%s"' % part.replace('"', '""') for part in odd)
    create_database(
        bench,
        name,
        "CREATE SCHEMA %s; CREATE TABLE %s.%s AS SELECT 'odd-row' t; CREATE TABLE kept AS SELECT 'kept-row' t"
        % (schema, schema, table),
    )
    site = make_site(bench)
    monkeypatch.setattr(dumping, "_longest", lambda: 0)
    asked = {"databases": [name], "format": shape, "exclude_table_data": ["%s.%s" % (schema, table)]}
    result = site.backup(**asked)
    if shape == "directory":
        (folder,) = site.root.glob("backups/*/sets/%s/databases/*" % result["set"])
        pg_restore = [bench.bindir / "pg_restore", "--file=-", folder]
        text = subprocess.run(pg_restore, check=True, capture_output=True, text=True).stdout
    else:
        text = script(site, result["set"], name)
    assert "kept-row" in text and "odd-row" not in text and "CREATE TABLE %s.%s (" % (schema, table) in text
    monkeypatch.setattr(dumping, "_FILTER_FILE", 99)
    with pytest.raises(RefusedError, match="too many for a command line"):
        site.backup(**asked)
    assert len(site.sets()) == 1


def test_a_filter_that_matches_nothing_anywhere_is_an_error(parts: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(parts)
    with pytest.raises(MissingError, match="no database to back up"):
        site.backup(schemas=["One"])
    assert site.sets() == []


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keeper(bench: PostgresServer, make_site: MakeSite) -> Site:
    """A site that logs in as a role that may read all rows and nothing else."""
    create_database(
        bench,
        "ledger",
        "CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i; CREATE SEQUENCE s; SELECT nextval('s')",
    )
    run_sql(
        bench, "postgres", "CREATE ROLE keeper LOGIN PASSWORD 'keepers-own-secret'; GRANT pg_read_all_data TO keeper"
    )
    site = make_site(bench)
    secret = site.root / "keeper"
    secret.write_text("keepers-own-secret")
    secret.chmod(0o600)
    site.options = {"postgres": {"login_user": "keeper", "login_password_file": str(secret)}}
    return site


def test_a_role_that_may_only_read_makes_a_set(keeper: Site) -> None:
    result = keeper.backup()
    manifest = keeper.manifest(result["set"])
    assert manifest.globals_passwords  # pg_read_all_data may read pg_authid
    assert manifest.hba is None and manifest.ident is None
    assert "pg_hba.conf is not in the set" in keeper.warnings
    assert {"pg_hba.conf", "pg_ident.conf"} <= {left["what"] for left in result["left_out"]}
    assert set(result["warnings"]) == set(manifest.warnings)


def test_without_the_right_to_read_passwords_the_globals_have_none(keeper: Site) -> None:
    run_sql(keeper.server, "postgres", "REVOKE pg_read_all_data FROM keeper")
    run_sql(keeper.server, "ledger", "GRANT SELECT ON t TO keeper; GRANT SELECT ON s TO keeper")
    result = keeper.backup(databases=["ledger"])
    manifest = keeper.manifest(result["set"])
    assert manifest.globals is not None and not manifest.globals_passwords
    text = (keeper.set_folder(result["set"]) / manifest.globals.path).read_text()
    assert "CREATE ROLE keeper" in text and "PASSWORD" not in text and "SCRAM" not in text
    assert "Role passwords are not in the set" in keeper.warnings
    keeper.options = {}  # a superuser can prove it all the same
    assert keeper.verify("restore")["sets"][0]["outcome"] == "passed"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("SELECT lo_from_bytea(1, 'x')", "large object"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "row-level security"),
    ],
)
def test_a_role_that_cannot_read_everything_makes_no_set(keeper: Site, more: str, said: str) -> None:
    run_sql(keeper.server, "ledger", more)
    with pytest.raises(PgopsError, match=said):
        keeper.backup()
    assert keeper.sets() == []
    assert keeper.records()[-1]["outcome"] == "failed"


# --- a standby --------------------------------------------------------------------------------------------------------


@pytest.fixture
def standby(bench: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """A streaming standby of `bench`, on which the shop and unlogged tables are."""
    create_shop(bench)
    run_sql(
        bench,
        "shop",
        "CREATE UNLOGGED TABLE shop.scratch (id serial, t text); INSERT INTO shop.scratch (t) SELECT 'x' FROM generate_series(1, 9)",
    )
    other = PostgresServer(bench.bindir, tmp_path, settings=BENCH)
    other.password = bench.password
    account: dict[str, Any] = {}
    if other.account:
        account = {"user": other.account.pw_uid, "group": other.account.pw_gid, "extra_groups": [], "cwd": "/"}
    bench.run("pg_basebackup", "-D", str(other.data_dir), "-R", "-c", "fast", "--no-sync", "-X", "stream", **account)
    with other:
        yield other


def test_a_set_from_a_standby(standby: PostgresServer, make_site: MakeSite) -> None:
    wait_for(lambda: run_sql(standby, "postgres", "SELECT pg_is_in_recovery()")[0][0])
    # In such a transaction it answers no query, not those with which pg_dump begins either.
    run_sql(standby, "postgres", "ALTER SYSTEM SET default_transaction_isolation = 'serializable'")
    run_sql(standby, "postgres", "SELECT pg_reload_conf()")
    site = make_site(standby)
    result = site.backup(databases=["shop"])
    manifest = site.manifest(result["set"])
    assert manifest.from_standby
    assert {
        "what": "rows of unlogged tables of database shop",
        "why": "unlogged tables cannot be read on a standby",
    } in result["left_out"]
    shown = listing(site, result["set"], "shop")
    assert "TABLE DATA shop sales" in shown and "TABLE DATA shop scratch" not in shown and "TABLE shop scratch" in shown
    report = site.verify("restore")["sets"][0]
    assert report["outcome"] == "passed"
    with pytest.raises(RefusedError, match="standby and takes no writes"):
        site.restore(rename={"shop": "again"})


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_space_that_runs_short_ends_the_backup(
    bench: PostgresServer, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_shop(bench)
    site = make_site(bench)
    monkeypatch.setattr(dumping, "free_bytes", lambda path: 1000)
    began = time.monotonic()
    with locked_table(bench, "shop", "shop.sales"), pytest.raises(RefusedError, match="the backup was ended"):
        site.backup(databases=["shop"])
    assert time.monotonic() - began < 50
    assert site.sets() == []
    wait_for(lambda: idle(bench))


def idle(server: PostgresServer) -> bool:
    return (
        run_sql(server, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgops%'")[0][0]
        == 0
    )


def test_a_dry_run_plans_and_touches_nothing(filled: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(filled)
    _unused = site.secret
    before = sorted(site.root.rglob("*"))
    result = site.backup(dry_run=True)
    assert sorted(site.root.rglob("*")) == before
    assert set(result["plan"]["databases"]) == {*dataset.DATABASES, "postgres"}
    assert result["plan"]["estimated_bytes"] > 0 and result["plan"]["choices"][dataset.ORDERING]["format"] == "custom"
    assert result["changed"] and result["dry_run"]


def test_a_second_run_makes_a_second_set(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    first = site.backup(databases=["shop"])["set"]
    before = {p: sha256(p) for p in site.set_folder(first).rglob("*") if p.is_file()}
    second = site.backup(databases=["shop"])["set"]
    assert first < second and site.sets() == [first, second]
    assert {p: sha256(p) for p in site.set_folder(first).rglob("*") if p.is_file()} == before


def test_an_interrupted_backup_leaves_neither_files_nor_processes(bench: PostgresServer, make_site: MakeSite) -> None:
    create_shop(bench)
    site = make_site(bench)
    with (
        locked_table(bench, "shop", "shop.sales"),
        process_of("backup", site.data(backup={"databases": ["shop"]}), {}) as process,
    ):
        wait_for(
            lambda: run_sql(
                bench, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE shop%'"
            )[0][0]
        )
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            # Python itself loses one that comes while a module's lock is let go; a person tries again.
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        assert site.sets() == []
        wait_for(lambda: idle(bench))


# --- while others work ------------------------------------------------------------------------------------------------


def test_a_busy_sequence_is_no_difference(bench: PostgresServer, make_site: MakeSite) -> None:
    create_shop(bench)
    over = threading.Event()

    def count() -> None:
        with cursor(bench, "shop") as asked:
            while not over.is_set():
                asked.execute("SELECT nextval('shop.tickets')")

    thread = threading.Thread(target=count)
    thread.start()
    site = make_site(bench)
    try:
        result = site.backup(databases=["shop"])
    finally:
        over.set()
        thread.join()
    database = site.manifest(result["set"]).database("shop")
    assert database is not None and database.fingerprint is not None
    before, after = database.fingerprint["sequences"]["shop.tickets"]
    assert before[0] < after[0]
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"


def test_rows_that_come_during_the_dump_do_not_disturb_the_fingerprint(
    bench: PostgresServer, make_site: MakeSite
) -> None:
    create_shop(bench)
    over = threading.Event()

    def sell() -> None:
        with cursor(bench, "shop") as asked:
            while not over.is_set():
                asked.execute("INSERT INTO shop.sales (good) VALUES (1)")

    thread = threading.Thread(target=sell)
    thread.start()
    site = make_site(bench)
    try:
        site.backup(databases=["shop"])
    finally:
        over.set()
        thread.join()
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"


def test_a_set_without_fingerprint_is_possible_and_undecided(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    result = site.backup(databases=["shop"], fingerprint=False)
    database = site.manifest(result["set"]).database("shop")
    assert database is not None and database.fingerprint is None
    with pytest.raises(UnreachableError, match="no verdict") as caught:
        site.verify("restore")
    report = caught.value.details["sets"][0]
    assert report["outcome"] == "undecided" and any("no fingerprint" in remark for remark in report["remarks"])


def test_globals_and_settings_can_be_left_out(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    result = site.backup(databases=["shop"], globals=False, server_settings=False)
    manifest = site.manifest(result["set"])
    assert (manifest.globals, manifest.settings, manifest.hba, manifest.ident) == (None, None, None, None)
    assert "backup.globals is false" in {left["why"] for left in result["left_out"]}


def test_a_gzip_around_plain_sql_is_what_gunzip_reads(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    result = site.backup(databases=["shop"], format="plain", compression="gzip")
    assert b"COPY shop.goods" in gzip.decompress(
        (site.set_folder(result["set"]) / "databases" / "shop.sql.gz").read_bytes()
    )
