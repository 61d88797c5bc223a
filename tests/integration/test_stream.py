# SPDX-License-Identifier: GPL-3.0-or-later
"""Base backups that go straight to S3 while they are taken, of a real server to a store that speaks S3."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import parse_span
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_client import Store
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_download import Reader
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import S3
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup, info
from demo.servers import MotoS3, PostgresServer
from tests.integration.cli_fixtures import Program, program_builder  # noqa: F401  # pylint: disable=unused-import  # fixtures
from tests.integration.conftest import Key, Servers, Site, damaged_table, process_of, run_sql, wait_for
from tests.integration.test_base_backup import give_tablespace
from tests.integration.test_incremental import LONG, SUMMARIZING

MakeSite = Callable[..., Site]


def take(site: Site, **asked: Any) -> dict[str, Any]:
    """Take a base backup straight to S3, as the program does."""
    request = backup.Request(**{"kind": "base", "to": "s3", **asked})
    return runs.perform(site.engine(), "backup", lambda c: backup.backup(c, request), dry_run=request.dry_run)


@pytest.fixture
def server(servers: Servers) -> PostgresServer:
    """The server that summarizes its WAL."""
    found = servers.get("incremental", 18, **SUMMARIZING)
    run_sql(found, "postgres", "CREATE TABLE IF NOT EXISTS log (i int)")
    return found


def in_s3(site: Site) -> dict[str, int]:
    """What lies in the bucket of the site: path to size."""
    return {path: entry.size for path, entry in site.engine().s3().entries("sets").items()}


def test_it_never_lies_here_and_is_proven_there(server: PostgresServer, make_site: MakeSite, store: MotoS3) -> None:
    site = make_site(server)
    site.use_s3(store)
    plan = take(site, dry_run=True)["plan"]
    assert (plan["place"], plan["choices"]["base"]["by"]) == ("s3", "program")
    full = take(site)
    assert (full["place"], full["kind"]) == ("s3", "base")
    assert full["path"].startswith("s3://")
    stored = in_s3(site)
    assert sum(size for path, size in stored.items() if not path.endswith("/manifest.json")) == full["bytes"]
    assert stored["sets/%s/base/base.tar.zst" % full["set"]] > 1024 * 1024
    assert site.sets() == []
    run_sql(server, "postgres", "INSERT INTO log VALUES (1)")
    child = take(site, incremental="auto")
    assert (child["kind"], child["parent"]) == ("incremental", full["set"])
    assert child["bytes"] < full["bytes"] / 2
    (report,) = site.verify("restore", place="s3")["sets"]
    assert (report["set"], report["outcome"], report["level"]) == (child["set"], "passed", "restore"), report
    assert site.sets() == []
    assert list((site.root / "state" / site.instance / "work").iterdir()) == []
    (here, there) = info.info(site.engine(), info.Request())["places"]
    assert (here["sets"], there["newest_verified"]) == ([], child["set"])


def test_parts_lie_here_only_until_they_are_sent(server: PostgresServer, make_site: MakeSite, store: MotoS3) -> None:
    site = make_site(server, s3={"part_size": "5MiB", "concurrency": 2}, base={"compression": "none", "to": "s3"})
    site.use_s3(store)
    taken = take(site, to="")
    assert in_s3(site)["sets/%s/base/base.tar" % taken["set"]] > 30 * 1024 * 1024
    (report,) = site.verify("structure", place="s3")["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "structure"), report
    with pytest.raises(RefusedError, match=r"the parts on their way to S3 need 20\.0 MiB"):
        site.options["backup"] = {"min_free": "900TiB"}
        take(site, dry_run=True)


def test_encrypted_no_plain_byte_leaves(
    server: PostgresServer, make_site: MakeSite, store: MotoS3, age_key: Callable[[str], Key]
) -> None:
    key = age_key("one")
    site = make_site(server, backup={"encryption": "age", "recipients": [key.public]})
    site.use_s3(store)
    full = take(site)
    assert take(site, incremental="auto")["parent"] == full["set"]
    report = site.verify("structure", place="s3", sections={"restore": {"identity_file": str(key.file)}})["sets"][0]
    assert (report["outcome"], report["level"]) == ("passed", "structure"), report


def test_what_cannot_work_is_refused(server: PostgresServer, make_site: MakeSite, store: MotoS3) -> None:
    site = make_site(server)
    with pytest.raises(UsageError, match="no S3 place"):
        take(site)
    with pytest.raises(UsageError, match="Only base backups"):
        take(site, kind="logical")
    site.use_s3(store)
    folder = give_tablespace(server, "away")
    try:
        with pytest.raises(RefusedError, match="with tablespaces cannot be streamed to S3") as caught:
            take(site, dry_run=True)
    finally:
        run_sql(server, "postgres", "DROP TABLESPACE away")
        shutil.rmtree(folder)
    assert "pgops sync" in caught.value.hint


def test_a_server_whose_blocks_are_damaged_leaves_nothing_there(
    server: PostgresServer, make_site: MakeSite, store: MotoS3
) -> None:
    site = make_site(server)
    site.use_s3(store)
    with damaged_table(server) as path, pytest.raises(DamagedError, match="block 1 of %s" % path):
        take(site)
    assert in_s3(site) == {}
    assert site.engine().s3().writer.unfinished.by_key() == {}


def test_one_that_is_killed_is_no_set_and_its_parts_go(
    server: PostgresServer, make_site: MakeSite, store: MotoS3
) -> None:
    site = make_site(server)
    site.use_s3(store)
    work = site.root / "room of many"
    work.mkdir()
    site.options["work_dir"] = str(work)
    slow = site.data(base={"max_rate": "32KiB", "to": "s3"})
    with process_of("backup", slow, {"kind": "base"}) as process:
        wait_for(lambda: list(work.glob("backup-*/parts/part-1")), seconds=LONG)
        process.kill()
    assert [path for path in in_s3(site) if path.endswith("manifest.json")] == []
    taken = take(site)
    assert "was cut short left behind" in site.warnings
    assert list(work.iterdir()) == []
    assert [path for path in in_s3(site) if path.endswith("manifest.json")] == ["sets/%s/manifest.json" % taken["set"]]
    kept = json.loads(site.engine().s3().read("sets/%s/manifest.json" % taken["set"]))
    assert kept["base"]["list_sha256"]
    shutil.rmtree(site.root / "state" / site.instance / "lists")
    assert take(site, incremental="auto", dry_run=True)["plan"]["kind"] == "base"
    assert "this host has no copy" in site.warnings


SLOW = {
    "server": {"base": {"checkpoint": "spread"}},
    "store": {"base": {"compression": "none"}, "s3": {"bandwidth_limit": "4KiB", "part_size": "5MiB"}},
}


@pytest.mark.parametrize("slow", SLOW)
def test_one_that_is_interrupted_ends_at_once(
    server: PostgresServer, make_program: Callable[..., Program], store: MotoS3, slow: str
) -> None:
    program = make_program(server)
    program.site.use_s3(store)
    work = program.site.root / "work room"
    work.mkdir()
    program.site.options["work_dir"] = str(work)
    program.configure(**SLOW[slow])
    # The checkpoint has so much to write that it is spread over minutes; until it is over the server sends nothing.
    run_sql(server, "postgres", "INSERT INTO log SELECT generate_series(1, 200000)")
    writer = program.site.engine().s3().writer

    def begun() -> bool:
        writer.unfinished.forget()
        return bool(writer.unfinished.by_key()) and (slow == "server" or bool(list(work.glob("backup-*/parts/part-2"))))

    process = program.start("backup", "--kind", "base", "--to", "s3")
    try:
        wait_for(begun, seconds=LONG)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert program.site.records()[-1]["outcome"] == "interrupted"
    assert in_s3(program.site) == {}
    assert not begun()
    assert list(work.iterdir()) == []
    run_sql(server, "postgres", "TRUNCATE log")


@pytest.mark.parametrize("when", ["begun", "read back"])
def test_the_moments_at_which_a_signal_could_leave_something(
    server: PostgresServer, make_site: MakeSite, store: MotoS3, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The store has made the upload, and we have not heard of it; or it does not answer while we read what we sent."""
    site = make_site(server)
    site.use_s3(store)
    site.options["s3"]["checksum_mode"] = "read"
    perform, read = Store.try_once, Reader.sha256

    def interrupt() -> None:
        time.sleep(0.5)  # the main thread waits by then; a signal that meets it a moment before is heard later
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)

    def makes(of: Store, operation: str, key: str = "", **arguments: Any) -> Any:
        answer = perform(of, operation, key, **arguments)
        if operation == "create_multipart_upload" and when == "begun" and "/base/" in key:
            interrupt()
        return answer

    def reads(of: Reader, key: str, **where: Any) -> Any:
        if when == "read back" and "/base/" in key:
            interrupt()
            of._store.patience.call(away, lambda _error: True)
        return read(of, key, **where)

    def away() -> None:
        raise ConnectionError

    monkeypatch.setattr(Store, "try_once", makes)
    monkeypatch.setattr(Reader, "sha256", reads)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        take(site)
    assert time.monotonic() - began < parse_span(S3().retry_for).total_seconds() / 2
    assert in_s3(site) == {}
    assert site.engine().s3().writer.unfinished.by_key() == {}
