# SPDX-License-Identifier: GPL-3.0-or-later
"""Base backups of real servers: taken, proven at every level, kept beside dumps, and refused where they would not be good."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup as verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import prune as pruning
from demo.servers import MotoS3, PostgresServer, free_port, system_bindirs
from tests.integration.conftest import (
    ROOT,
    Key,
    Servers,
    Site,
    create_database,
    cursor,
    flip,
    process_of,
    run_sql,
    wait_for,
    wheel_bindir,
)
from tests.integration.test_group import standby_of

MakeSite = Callable[..., Site]
VERSIONS = (16, 18)


def base(site: Site, *, dry_run: bool = False, **sections: Any) -> dict[str, Any]:
    """Take a base backup as the program does."""
    request = verb.Request(kind="base", dry_run=dry_run)
    return runs.perform(site.engine(**sections), "backup", lambda c: verb.backup(c, request), dry_run=dry_run)


def give_tablespace(server: PostgresServer, name: str) -> Path:
    """Create a tablespace in a directory whose name has spaces."""
    folder = server.root / ("a %s off place" % name)
    folder.mkdir()
    if server.account:
        os.chown(folder, server.account.pw_uid, server.account.pw_gid)
    run_sql(server, "postgres", "CREATE TABLESPACE %s LOCATION '%s'" % (name, folder))
    return folder


@pytest.fixture(scope="module", params=VERSIONS)
def plain(request: pytest.FixtureRequest, servers: Servers) -> PostgresServer:
    """A server without tablespaces of its own."""
    server = servers.get("base plain", request.param)
    create_database(server, "goods", "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 3000) i")
    run_sql(server, "goods", "ALTER TABLE t ADD PRIMARY KEY (i)")
    return server


@pytest.fixture(scope="module", params=VERSIONS)
def spaced(request: pytest.FixtureRequest, servers: Servers) -> PostgresServer:
    """A server with a tablespace in a path with spaces."""
    server = servers.get("base spaced", request.param)
    folder = give_tablespace(server, "far")
    create_database(server, "goods", "CREATE TABLE t TABLESPACE far AS SELECT i FROM generate_series(1, 3000) i")
    assert any(folder.iterdir())
    return server


# --- taken and proven -------------------------------------------------------------------------------------------------


def test_a_base_backup_is_a_set_like_any_other_and_is_proven_by_a_restore(
    plain: PostgresServer, make_site: MakeSite
) -> None:
    site = make_site(plain)
    result = base(site)
    manifest = site.manifest(result["set"])
    assert result["set"].endswith("-base")
    assert manifest.kind == "base"
    assert manifest.base is not None
    assert {d["name"] for d in manifest.base.databases} >= {"goods", "postgres"}
    (system,) = run_sql(plain, "postgres", "SELECT system_identifier::text FROM pg_control_system()")[0]
    assert manifest.system_identifier == system
    assert manifest.timeline == 1
    assert manifest.base.checksums
    assert site.records()[-1]["outcome"] == "ok"
    # Neither program of the wheel has zstd inside, so the zstd program compresses.
    assert manifest.base.payload.layers == ("zstd",)
    report = site.verify("restore")["sets"][0]
    assert (report["outcome"], report["level"]) == ("passed", "restore"), report
    assert set(report["phases"]) >= {"checksum", "structure", "unpack", "pg_verifybackup", "recover"}
    assert "goods" in report["checked"]["databases"]
    assert site.sets() == [result["set"]]
    assert list((site.root / "state" / site.instance / "work").iterdir()) == []


def test_tablespaces_come_along_also_one_that_is_made_meanwhile(spaced: PostgresServer, make_site: MakeSite) -> None:
    """PostgreSQL lists them when the checkpoint is done, for which a backup may wait for minutes."""
    site = make_site(spaced)
    # One block of them every tenth of a second, unless somebody is in a hurry.
    run_sql(spaced, "goods", "CREATE TABLE unwritten AS SELECT repeat('x', 900) FROM generate_series(1, 8000)")
    waiting = "SELECT 1 FROM pg_stat_progress_basebackup WHERE phase = 'waiting for checkpoint to finish'"
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(base, site, base={"compression": "gzip", "checkpoint": "spread"})
        wait_for(lambda: taking.done() or run_sql(spaced, "postgres", waiting))
        late = give_tablespace(spaced, "late")
        run_sql(spaced, "goods", "CREATE TABLE u TABLESPACE late AS SELECT 7 AS i")
        run_sql(spaced, "postgres", "CHECKPOINT")
        manifest = site.manifest(taking.result()["set"])
    assert manifest.base is not None
    far, other = manifest.base.tablespaces
    assert (far.name, other.name) == ("far", "late")
    assert far.path.endswith("a far off place")
    assert manifest.base.listing is not None
    for space in (far, other):
        assert (site.set_folder(manifest.id) / space.payload.path).is_file()
    before = {path: path.read_bytes() for path in late.rglob("*") if path.is_file()}
    report = site.verify("restore")["sets"][0]
    assert (report["outcome"], report["level"]) == ("passed", "restore"), report
    # The record that makes it is replayed by the throwaway server, which must not write there.
    assert before == {path: path.read_bytes() for path in late.rglob("*") if path.is_file()} != {}
    run_sql(spaced, "goods", "DROP TABLE u, unwritten")
    run_sql(spaced, "goods", "DROP TABLESPACE late")


def test_a_dry_run_plans_and_touches_nothing(plain: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(plain)
    plan = base(site, dry_run=True)["plan"]
    assert "goods" in plan["databases"]
    assert plan["choices"]["base"]["by"] == "program"
    assert plan["estimated_bytes"] > 0
    assert not (site.root / "backups").exists()
    assert site.records() == []


def test_encrypted_it_needs_its_key(plain: PostgresServer, make_site: MakeSite, age_key: Callable[[str], Key]) -> None:
    key = age_key("one")
    site = make_site(plain, backup={"encryption": "age", "recipients": [key.public]})
    manifest = site.manifest(base(site)["set"])
    assert manifest.base is not None
    assert manifest.base.payload.layers == ("zstd", "age")
    assert site.verify("restore")["sets"][0]["level"] == "checksum"
    report = site.verify("restore", sections={"restore": {"identity_file": str(key.file)}})["sets"][0]
    assert (report["outcome"], report["level"]) == ("passed", "restore"), report


def test_tablespaces_cannot_be_encrypted(
    spaced: PostgresServer, make_site: MakeSite, age_key: Callable[[str], Key]
) -> None:
    site = make_site(spaced, backup={"encryption": "age", "recipients": [age_key("one").public]})
    with pytest.raises(UsageError, match="with tablespaces cannot be encrypted"):
        base(site)
    assert site.sets() == []


def test_a_standby_is_copied_and_its_copy_follows_nobody(servers: Servers, make_site: MakeSite, tmp_path: Path) -> None:
    # Without full pages in the WAL a backup of a standby would be corrupt, and PostgreSQL refuses it.
    server = servers.get("base primary", 18, full_page_writes="on")
    create_database(server, "goods")
    with standby_of(server, tmp_path) as standby:
        site = make_site(standby)
        run_sql(server, "goods", "CREATE TABLE seen (i int)")
        replayed = "SELECT pg_last_xact_replay_timestamp()"
        wait_for(lambda: run_sql(standby, "postgres", replayed)[0][0])
        manifest = site.manifest(base(site, base={"compression": "none"})["set"])
        assert manifest.from_standby
        assert manifest.base is not None
        # A standby may be hours behind, so it is as old as what was replayed, whatever the clock says.
        assert datetime.fromisoformat(manifest.base.stopped) <= run_sql(standby, "postgres", replayed)[0][0]
        assert manifest.base.payload.path == "base/base.tar"
        report = site.verify("restore")["sets"][0]
        assert (report["outcome"], report["level"]) == ("passed", "restore"), report


def test_a_standby_that_is_promoted_meanwhile_leaves_no_set(
    servers: Servers, make_site: MakeSite, tmp_path: Path
) -> None:
    server = servers.get("base primary", 18, full_page_writes="on")
    with standby_of(server, tmp_path) as standby, ThreadPoolExecutor(1) as pool:
        site = make_site(standby)

        def promote() -> None:
            begun = "SELECT phase FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming database%'"
            wait_for(lambda: run_sql(standby, "postgres", begun), seconds=60)
            run_sql(standby, "postgres", "SELECT pg_promote(wait => false)")

        promoted = pool.submit(promote)
        with pytest.raises(PgopsError, match="standby was promoted") as caught:
            base(site, base={"max_rate": "1MiB"})
        promoted.result()
        assert "Run the backup again" in caught.value.hint
        assert site.sets() == []
        assert site.records()[-1]["outcome"] == "failed"
        assert base(site)["set"].endswith("-base"), "as a primary it is copied"


def test_it_goes_to_s3_and_is_proven_there(plain: PostgresServer, make_site: MakeSite, store: MotoS3) -> None:
    site = make_site(plain)
    site.use_s3(store)
    taken = base(site)["set"]
    assert site.push()["sets"] == [taken]
    (report,) = site.verify("restore", place="s3")["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "restore"), report


# --- beside dumps -----------------------------------------------------------------------------------------------------


def test_dumps_and_base_backups_do_not_push_each_other_out(plain: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(plain, local={"retention": {"keep_within": "", "keep_last": 1}})
    site.backup(databases=["goods"])
    dump = site.backup(databases=["goods"])["set"]
    base(site)
    newest = base(site)["set"]
    pruning.prune(site.engine(), pruning.Request())
    assert site.sets() == sorted([dump, newest])
    # A nightly verification sees to both; a restore of databases takes the dump, whatever is newer.
    reports = site.verify("checksum")["sets"]
    assert {r["set"] for r in reports} == {dump, newest}
    assert [r["set"] for r in site.verify("checksum")["sets"]] == [newest]
    assert site.restore(to=plain, databases=("goods",), rename={"goods": "again"}, dry_run=True)["set"] == dump
    with pytest.raises(UsageError, match="is a base backup of the whole server"):
        site.restore(to=plain, set=newest)


# --- not good ---------------------------------------------------------------------------------------------------------


def test_damaged_blocks_are_told_and_no_set_supersedes_the_good_one(servers: Servers, make_site: MakeSite) -> None:
    server = servers.get("base damaged", 18)
    create_database(server, "goods", "CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) i")
    site = make_site(server)
    good = base(site)["set"]
    (path,) = run_sql(server, "goods", "CHECKPOINT; SELECT pg_relation_filepath('t')")[0]
    run_sql(server, "postgres", "CHECKPOINT")
    flip(server.data_dir / path, 8192 + 4000)
    with pytest.raises(DamagedError, match="block 1 of %s" % path) as caught:
        base(site)
    assert caught.value.details["damaged"] == [{"file": path, "block": 1}]
    assert site.sets() == [good]
    assert site.records()[-1]["outcome"] == "failed"


def test_who_may_not_replicate_is_told_what_to_do(plain: PostgresServer, make_site: MakeSite) -> None:
    run_sql(
        plain,
        "postgres",
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT pg_monitor TO reader",
    )
    site = make_site(plain, postgres={"login_user": "reader", "login_password": "x", "login_password_file": ""})
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="lets nobody take a base backup") as caught:
            base(site, dry_run=dry_run)
        assert "REPLICATION" in caught.value.hint
    assert site.sets() == []


def test_a_role_that_may_replicate_and_no_more_can_take_one(plain: PostgresServer, make_site: MakeSite) -> None:
    run_sql(plain, "postgres", "DROP ROLE IF EXISTS copier; CREATE ROLE copier LOGIN REPLICATION PASSWORD 'x'")
    site = make_site(plain, postgres={"login_user": "copier", "login_password": "x", "login_password_file": ""})
    taken = base(site)
    assert {entry["what"] for entry in taken["left_out"]} == {"pg_hba.conf", "pg_ident.conf"}
    assert site.verify("restore")["sets"][0]["outcome"] == "passed"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"wal_level": "minimal", "max_wal_senders": 0}, "needs wal_level replica"),
        ({"max_wal_senders": 0}, "max_wal_senders is 0"),
    ],
)
def test_a_server_that_cannot_is_told(tmp_path: Path, make_site: MakeSite, settings: dict[str, Any], said: str) -> None:
    with PostgresServer(wheel_bindir(18), tmp_path, settings=settings) as server:
        site = make_site(server)
        with pytest.raises(RefusedError, match=said):
            base(site, dry_run=True)


def test_tablespaces_in_the_data_directory_are_refused(tmp_path: Path, make_site: MakeSite) -> None:
    with PostgresServer(wheel_bindir(18), tmp_path) as server:
        with cursor(server, "postgres", options="-c allow_in_place_tablespaces=on") as asked:
            asked.execute("CREATE TABLESPACE inner_one LOCATION ''")
        with pytest.raises(RefusedError, match=r"inside its data directory .*'inner_one'"):
            base(make_site(server), dry_run=True)


def test_a_full_house_of_wal_senders_and_of_slots(tmp_path: Path, make_site: MakeSite) -> None:
    with PostgresServer(
        wheel_bindir(16), tmp_path, settings={"max_wal_senders": 1, "max_replication_slots": 0}
    ) as server:
        site = make_site(server)
        taken = base(site)  # without a slot it is told that nothing keeps the WAL
        assert "No slot keeps WAL" in site.warnings
        assert site.manifest(taken["set"]).warnings
        with server.connect("postgres", replication="true") as _held, pytest.raises(RefusedError) as caught:
            base(site)
        assert "max_wal_senders" in caught.value.hint


def test_a_server_that_lets_slots_keep_little_wal(tmp_path: Path, make_site: MakeSite) -> None:
    """It ends the session of a slot when the backup begins with a checkpoint; all WAL that is needed is still there."""
    with PostgresServer(wheel_bindir(18), tmp_path, settings={"max_slot_wal_keep_size": "1MB"}) as server:
        site = make_site(server)
        taken = base(site)
        assert "to release replication slot" in server.log_file.read_text()
        assert "raise max_slot_wal_keep_size" in site.warnings
        assert site.manifest(taken["set"]).warnings
        (report,) = site.verify("restore")["sets"]
        assert report["outcome"] == "passed", report


def test_too_little_space_is_refused_before_it_begins(plain: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(plain)
    with pytest.raises(RefusedError, match="must stay free"):
        base(site, backup={"min_free": "900TiB"})
    assert site.sets() == []


# --- what verification finds ------------------------------------------------------------------------------------------


def repacked(site: Site, set_id: str, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> dict[str, bytes]:
    """Return the base's tar, unpacked from zstd, with the content of files changed or, for None, left out."""
    packed = site.set_folder(set_id) / "base" / "base.tar.zst"
    plain = subprocess.run(["zstd", "-d", "-c", str(packed)], capture_output=True, check=True).stdout
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(plain)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else b""
            changed = change(member, content)
            if changed is not None:
                member.size = len(changed)
                new.addfile(member, io.BytesIO(changed))
    again = subprocess.run(["zstd", "-q", "-c"], input=out.getvalue(), capture_output=True, check=True).stdout
    return {"base/base.tar.zst": again}


def test_what_hashes_alone_cannot_see_is_found(servers: Servers, make_site: MakeSite) -> None:
    """Every hash of these sets is right: a flawed backup would have left them so."""
    site = make_site(servers.get("base plain", 18))
    good = base(site)["set"]

    def found(change: Callable[[tarfile.TarInfo, bytes], bytes | None], level: str = "structure") -> str:
        forged = site.forge(good, files=repacked(site, good, change))
        with pytest.raises(DamagedError) as caught:
            site.verify(level, sets=(forged,))
        (report,) = caught.value.details["sets"]
        assert report["level"] == "structure"
        return "\n".join(report["findings"])

    assert "global/pg_control is missing" in found(lambda m, c: None if m.name == "global/pg_control" else c)
    assert "PG_VERSION has 4 bytes" in found(lambda m, c: b"999\n" if m.name == "PG_VERSION" else c)
    assert "pg_filenode.map is not what" in found(
        lambda m, c: bytes(len(c)) if m.name == "global/pg_filenode.map" else c
    )
    assert "that it needs is missing" in found(lambda m, c: None if m.name.startswith("pg_wal/0") else c)
    assert "its own checksum differs" in found(
        lambda m, c: c.replace(b'"Size": ', b'"Size":  ', 1) if m.name == "backup_manifest" else c
    )
    assert "There is no backup_manifest" in found(lambda m, c: None if m.name == "backup_manifest" else c)
    broken = site.forge(good, files={"base/base.tar.zst": b"no zstd at all"})
    with pytest.raises(DamagedError, match="cannot be read to its end"):
        site.verify("structure", sets=(broken,))


def test_amcheck_is_called_where_its_owner_has_it(tmp_path: Path, make_site: MakeSite) -> None:
    """In a schema of the database, as CREATE EXTENSION puts it into the first of the search path; also in a restored dump."""
    bindir = next((path for path in system_bindirs() if has_amcheck(path)), None)
    if bindir is None:
        pytest.skip("no server of this host has amcheck (package postgresql-contrib)")
    with PostgresServer(bindir, tmp_path) as server:
        create_database(server, "shop", "CREATE TABLE log AS SELECT g AS i FROM generate_series(1, 99) g")
        run_sql(server, "shop", "CREATE INDEX ON log (i)")
        run_sql(server, "shop", 'CREATE SCHEMA "Its %s ""own"""; CREATE EXTENSION amcheck SCHEMA "Its %s ""own"""')
        create_database(server, "odd", LOST)
        site = make_site(server)
        base(site)
        site.backup(databases=["shop"])
        for kind in ("base", "logical"):
            (set_id,) = [one for one in site.sets() if one.endswith(kind)]
            (report,) = site.verify("restore", sets=(set_id,))["sets"]
            assert report["outcome"] == "passed", report
            assert report["checked"]["indexes"] > 0
            said = [text for text in report["remarks"] if "index public.of_it was checked alone" in text]
            assert len(said) == (kind == "base"), report


# An index whose function finds in no other session what it needs, as one that names another function without its schema.
LOST = """
CREATE FUNCTION lost(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN i + current_setting('odd.one')::int; END $$;
SET odd.one = 1;
CREATE TABLE t AS SELECT g AS i FROM generate_series(1, 99) g;
CREATE INDEX of_it ON t (lost(i));
"""


def has_amcheck(bindir: Path) -> bool:
    """Tell whether that server has the extension amcheck."""
    said = subprocess.run([bindir / "pg_config", "--sharedir"], capture_output=True, text=True, check=False).stdout
    shared = Path(said.strip() or "/usr/share/postgresql/%s" % bindir.parent.name)
    return (shared / "extension" / "amcheck.control").is_file()


def test_crc32c_is_left_to_pg_verifybackup(servers: Servers, make_site: MakeSite) -> None:
    site = make_site(servers.get("base plain", 16))
    good = base(site, base={"manifest_checksums": "CRC32C"})["set"]
    forged = site.forge(
        good,
        files=repacked(site, good, lambda m, c: bytes(len(c)) if m.name == "global/pg_filenode.map" else c),
    )
    assert site.verify("structure", sets=(forged,))["sets"][0]["outcome"] == "passed"
    with pytest.raises(DamagedError, match=r"pg_verifybackup.*checksum mismatch"):
        site.verify("restore", sets=(forged,))
    assert site.verify("restore", sets=(good,))["sets"][0]["outcome"] == "passed"


def test_without_pg_verifybackup_crc32c_cannot_be_told(servers: Servers, make_site: MakeSite, tmp_path: Path) -> None:
    """The wheel's own of PostgreSQL 18 does not even tell its version."""
    site = make_site(servers.get("base plain", 18))
    base(site, base={"manifest_checksums": "CRC32C"})
    with pytest.raises(UnreachableError, match="does not run here"):
        site.verify("restore")
    base(site)
    report = site.verify("restore")["sets"][0]
    assert report["outcome"] == "passed"
    assert "compared without it" in "\n".join(report["remarks"])


def test_a_host_without_programs_of_that_version_cannot_tell(servers: Servers, make_site: MakeSite) -> None:
    site = make_site(servers.get("base plain", 16))
    base(site)
    newer = str(servers.get("base plain", 18).bindir)
    with pytest.raises(UnreachableError, match="needs server programs of that version"):
        site.verify("restore", sections={"verify": {"server_bin_dir": newer}})


def test_one_that_is_killed_leaves_nothing_for_long(servers: Servers, make_site: MakeSite) -> None:
    server = servers.get("base plain", 18)
    site = make_site(server)
    slow = site.data(base={"max_rate": "32KiB"})
    with process_of("backup", slow, {"kind": "base"}) as process:
        wait_for(lambda: [name for name in site.sets() if name.startswith(".unfinished-")])
        wait_for(
            lambda: run_sql(
                server,
                "postgres",
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%BASE_BACKUP%' AND backend_type = 'walsender'",
            )
        )
        process.kill()
    slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgops%'"
    wait_for(lambda: run_sql(server, "postgres", slots) == [(0,)])
    senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
    wait_for(lambda: run_sql(server, "postgres", senders) == [(0,)])
    taken = base(site)["set"]
    assert site.sets() == [taken]
    assert "was cut short" in site.warnings


def test_by_hand_as_the_documentation_says(servers: Servers, make_site: MakeSite) -> None:
    server = servers.get("by hand", 18)
    create_database(server, "goods", "CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) i")
    site = make_site(server)
    taken = base(site)["set"]
    page = (ROOT / "docs" / "recovery.md").read_text().partition("## By hand, without pgops")[2]
    # The other block fills the folder of the WAL, of which there is none.
    script, _filled = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    account = server.account.pw_name if server.account else None
    folder = Path(tempfile.mkdtemp(dir=server.root))
    shutil.copytree(site.set_folder(taken), folder / "set")
    for path in (folder, *folder.rglob("*")):
        if server.account:
            os.chown(path, server.account.pw_uid, server.account.pw_gid)
    where = {"SET": str(folder / "set"), "DATA": str(folder / "data"), "WAL": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["sh", "-eu"], input=script, env=where, cwd="/", user=account, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    control = [str(server.bindir / "pg_ctl"), "-w", "-D", str(folder / "data"), "-l", str(folder / "log")]
    options = "-c listen_addresses= -c unix_socket_directories=%s" % server.socket_dir
    try:
        port = free_port()
        subprocess.run(
            [*control, "-o", "%s -p %d" % (options, port), "start"],
            cwd="/",
            user=account,
            check=True,
            capture_output=True,
        )
        with cursor(server, "goods", port=port) as asked:
            asked.execute("SELECT count(*) FROM t")
            assert asked.fetchone() == (3000,)
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], cwd="/", user=account, check=False, capture_output=True)


def test_no_kind_but_these(plain: PostgresServer, make_site: MakeSite) -> None:
    with pytest.raises(PgopsError, match="'full' is no kind of backup"):
        verb.backup(make_site(plain).engine(), verb.Request(kind="full"))
