# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that cannot be, and restores that are cut short: what stands there stays, and the next one succeeds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import compare
from demo.servers import MotoS3, PostgresServer
from tests.faults.aftermath import fails, nothing_is_left
from tests.faults.two_places import CountingProxy
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import Site, create_database, create_shop, databases_of, run_sql, wait_for
from tests.integration.s3_fixtures import MIB, Asked, CutAnswer, Fault, Proxy, Refuse

PATIENCE = 60
AGAIN = ("restore", "latest", "--rename", "shop", "again", "--yes")


@pytest.fixture(name="backed_up")
def program_with_a_set(shop: Program) -> Program:
    """The program of a server with the shop, which has gone on since its backup."""
    shop.json("backup", "--set", 'backup.databases=["shop"]')
    run_sql(shop.site.server, "shop", "DELETE FROM shop.sales; CREATE TABLE since_then AS SELECT 'new work' AS t")
    return shop


def state_of(server: PostgresServer, database: str) -> dict[str, object]:
    """Return the comparison's view of one database."""
    return dict(compare.snapshot(server)['database "%s"' % database])


def comes_back(program: Program, *arguments: str, name: str = "again") -> None:
    """The restore succeeds now, is recorded, leaves nothing over, and holds what was backed up."""
    program.json(*(arguments or AGAIN))
    record = program.site.records()[-1]
    assert (record["verb"], record["outcome"]) == ("restore", "ok")
    server = program.site.server
    assert run_sql(server, name, "SELECT count(*) FROM shop.sales") == [(500,)]
    nothing_is_left(program.site)


# --- what stands there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says", "hint", "record"),
    [
        (("--yes",), "There is a database 'shop' already.*replace it with mode swap, which keeps the old one", "", True),
        (("--mode", "swap", "--yes"), "replaces 'shop', and nobody confirmed it", "--confirm", False),
        (("--mode", "swap", "--confirm", "Shop"), "--confirm names 'Shop', which this restore does not touch", "exact", False),
        (("--mode", "into_empty", "--yes"), "'shop' is not empty: it has [0-9]+ objects", "", True),
        (("--mode", "into_empty", "--rename", "shop", "nothing", "--yes"), "no database 'nothing' to restore into", "", True),
    ],
    ids=["create", "swap unconfirmed", "swap with another name", "into one that is full", "into none"],
)  # fmt: skip
def test_a_database_that_exists_is_left_as_it_is(
    backed_up: Program, arguments: tuple[str, ...], says: str, hint: str, record: bool
) -> None:
    server = backed_up.site.server
    before, names = state_of(server, "shop"), databases_of(server)
    code = 2 if "Shop" in arguments else 5
    # What was never agreed to has not begun, so it leaves no record.
    fails(backed_up, "restore", "latest", *arguments, code=code, says=says, hint=hint, record=record)
    assert databases_of(server) == names
    assert compare.differences({"x": before}, {"x": state_of(server, "shop")}) == []
    comes_back(backed_up)


def test_swap_keeps_what_it_replaces(backed_up: Program) -> None:
    server = backed_up.site.server
    before = state_of(server, "shop")
    comes_back(backed_up, "restore", "latest", "--mode", "swap", "--confirm", "shop", name="shop")
    (kept,) = databases_of(server) - {"shop", "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(server, kept)}) == []


# --- what the server lacks --------------------------------------------------------------------------------------------


def test_a_missing_extension_is_named_before_anything_is_touched(backed_up: Program) -> None:
    site = backed_up.site
    right = site.sets()[0]
    site.forge(right, lambda m: m["databases"][0]["fingerprint"]["extensions"].update({"postgis": {"version": "3"}}))
    names = databases_of(site.server)
    says = r"needs the extension postgis \(3\), which this server cannot offer\. Install its package first"
    fails(backed_up, *AGAIN, code=5, says=says, hint="")
    assert databases_of(site.server) == names
    comes_back(backed_up, "restore", right, *AGAIN[2:])


def test_missing_roles_are_named_before_anything_is_touched(backed_up: Program) -> None:
    server = backed_up.site.server
    run_sql(server, "postgres", "DROP DATABASE shop")
    run_sql(server, "postgres", "DROP ROLE chief; DROP ROLE clerk")
    says = r"lacks the roles 'chief', 'clerk'\. Restore the globals too"
    fails(backed_up, *AGAIN, "--globals", "none", code=5, says=says, hint="")
    assert databases_of(server) == {"postgres"}
    assert run_sql(server, "postgres", "SELECT count(*) FROM pg_roles WHERE oid >= 16384") == [(0,)]
    comes_back(backed_up)
    assert run_sql(server, "postgres", "SELECT count(*) FROM pg_roles WHERE oid >= 16384") == [(2,)]


def test_everything_that_is_wrong_is_told_at_once(backed_up: Program) -> None:
    site = backed_up.site
    site.forge(
        site.sets()[0],
        lambda m: (
            m["databases"][0]["fingerprint"]["extensions"].update({"postgis": {"version": "3"}}),
            m["databases"][0]["properties"].update(owner="gone", collate="xx_XX.UTF-8"),
        ),
    )
    result = fails(backed_up, "restore", "latest", "--yes", code=5, says="nothing was touched", hint="")
    for said in ("'shop' already", "the role 'gone'", "postgis", "xx_XX"):
        assert said in result["message"]


# --- no room ----------------------------------------------------------------------------------------------------------


class SmallDisk:
    """Runs a program that sees a tmpfs of its own over a directory. It is gone with the program."""

    def __init__(self, program: Program, folder: Path, size: str) -> None:
        self._program, self._folder, self._size = program, folder, size
        unshare = shutil.which("unshare")
        assert unshare, "unshare (util-linux) is needed"
        # An ordinary user may mount in a namespace of his own, in which he is root.
        self._alone = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--user", "--map-root-user", "--mount"]

    def argv(self, *arguments: str) -> list[str]:
        mount = 'mount -t tmpfs -o size="$1",mode=0777 tmpfs "$2" && shift 2 && exec "$@"'
        here = ["sh", "-c", mount, "sh", self._size, str(self._folder)]
        return [*self._alone, *here, *self._real(*arguments, "--as-root")]

    def __enter__(self) -> Program:
        self._real = self._program.argv
        self._program.argv = self.argv  # type: ignore[method-assign]
        return self._program

    def __exit__(self, *_unused: object) -> None:
        self._program.argv = self._real  # type: ignore[method-assign]


def test_a_server_without_room_is_seen_before_anything_is_touched(backed_up: Program) -> None:
    server = backed_up.site.server
    names = databases_of(server)
    with SmallDisk(backed_up, server.data_dir, "1m") as program:
        says = r"data has 1\.0 MiB free; the databases take about .*Make room first"
        fails(program, *AGAIN, code=5, says=says, hint="")
    assert databases_of(server) == names
    comes_back(backed_up)


@pytest.fixture(name="remote")
def program_with_a_set_in_s3_only(
    bench: PostgresServer, store: MotoS3, make_program: Callable[..., Program]
) -> Callable[[str], Program]:
    """Return a maker of programs whose set, in the given format, is in S3 alone; its files are fetched to `<root>/work`."""

    def make(form: str) -> Program:
        create_shop(bench)
        program = make_program(bench)
        site = program.site
        (site.root / "work").mkdir()
        site.options["work_dir"] = str(site.root / "work")
        site.use_s3(store)
        program.configure()
        site.backup(databases=["shop"], format=form)
        site.push()
        subprocess.run(["rm", "-r", str(site.home)], check=True)
        return program

    return make


def test_without_room_to_fetch_a_directory_the_restore_is_refused(remote: Callable[[str], Program]) -> None:
    program = remote("directory")
    work, names = program.site.root / "work", databases_of(program.site.server)
    with SmallDisk(program, work, "1m"):
        says = "There is no room in .*/work to fetch the dump of 'shop' .* cannot be read as a stream. Make room"
        fails(program, *AGAIN, "--place", "s3", code=5, says=says, hint="")
    assert databases_of(program.site.server) == names
    comes_back(program, *AGAIN, "--place", "s3")


def test_without_room_to_fetch_a_file_it_is_restored_as_a_stream(remote: Callable[[str], Program]) -> None:
    program = remote("custom")
    with SmallDisk(program, program.site.root / "work", "1m"):
        result = program.json(*AGAIN, "--place", "s3", "--jobs", "2")
    assert [d["way"] for d in result["databases"]] == ["stream"]
    assert run_sql(program.site.server, "again", "SELECT count(*) FROM shop.sales") == [(500,)]
    nothing_is_left(program.site)


def test_a_set_that_another_host_prunes_while_it_is_restored(
    remote: Callable[[str], Program], store: MotoS3, tmp_path: Path
) -> None:
    """Locks are of one host. Nothing half-restored stays, the reason is told, and the next restore succeeds."""
    here = remote("custom")
    site = here.site
    site.options["s3"]["retention"] = {"keep_within": "", "keep_last": 1}
    here.configure()
    old = here.json("info", "--place", "s3")["places"][0]["newest"]
    new = site.backup(databases=["shop"])["set"]
    site.push()
    begun, pruned = list[str](), list[dict[str, Any]]()

    def prune_first(asked: Asked) -> None:
        if asked.kind == "get" and "/sets/%s/" % old in asked.path and "manifest" not in asked.path and not begun:
            begun.append(asked.path)
            pruned.extend(here.json("prune", "--place", "s3")["places"])

    with Proxy(store.endpoint_url, prune_first) as proxy:
        other = Program(tmp_path / "another", Site(tmp_path / "another host", site.server, instance=site.instance))
        other.site.use_s3(store, proxy.url)
        other.configure()
        names = databases_of(site.server)
        says = "The set %s was removed from s3://.* while it was read, as by the prune of another host" % old
        fails(other, "restore", old, *AGAIN[2:], "--place", "s3", code=1, says=says, hint="with another set.* pin ")
        assert [removed["set"] for place in pruned for removed in place["removed"]] == [old]
        assert databases_of(site.server) == names
        comes_back(other, *AGAIN, "--place", "s3")
    assert other.site.records()[-1]["set"] == new


NOISE = "CREATE TABLE noise AS SELECT i, gen_random_uuid() AS id FROM generate_series(1, 300000) i"


def one_by_one(faults: list[Fault], concerns: Callable[[Asked], bool]) -> Callable[[Asked], Fault]:
    """Have each request that it concerns meet the next of `faults`, which are taken out, and none when there is none left."""
    lock = threading.Lock()

    def hurt(asked: Asked) -> Fault:
        with lock:
            return faults.pop(0) if faults and concerns(asked) else None

    return hurt


BREAKS = (CutAnswer(MIB), Refuse(503, "SlowDown"), CutAnswer(0), CutAnswer(200_000))


def test_a_restore_whose_connections_break_goes_on_at_the_broken_byte(
    bench: PostgresServer, store: MotoS3, make_program: Callable[..., Program]
) -> None:
    """Straight from S3: once read as a stream, once fetched in parts. What breaks for good leaves nothing behind."""
    create_database(bench, "noisy", NOISE)
    program = make_program(bench)
    site = program.site

    def is_dump(asked: Asked) -> bool:
        return asked.kind == "get" and asked.path.endswith(".dump")

    def begin_of(asked: Asked) -> int:
        return int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])

    with CountingProxy(store.endpoint_url) as proxy:
        site.use_s3(store, proxy.url)
        site.options["s3"]["part_size"] = "5MiB"
        program.configure()
        program.json("backup", "--set", 'backup.databases=["noisy"]', "--set", "backup.compression=none")
        (size,) = [file.stat().st_size for file in site.home.rglob("*.dump")]
        program.json("sync")
        subprocess.run(["rm", "-r", str(site.home)], check=True)
        for jobs, way in (("1", "stream"), ("2", "file")):
            restore = ("restore", "latest", "--rename", "noisy", "again", "--yes", "--place", "s3", "--jobs", jobs)
            breaks = list(BREAKS)
            proxy.hurt(one_by_one(breaks, is_dump))
            (restored,) = program.json(*restore)["databases"]
            assert (restored["way"], breaks) == (way, [])
            begins = [begin_of(asked) for asked in proxy.asked if is_dump(asked)]
            assert way == "file" or begins == sorted(begins), "what was read is not asked for again"
            came = sum(count for path, count in proxy.received if path.endswith(".dump"))
            assert size <= came < size + MIB + 200_000
            whole = "SELECT count(*), sum(i), count(DISTINCT id) FROM noise"
            assert run_sql(bench, "again", whole) == run_sql(bench, "noisy", whole)
            nothing_is_left(site)
            run_sql(bench, "postgres", "DROP DATABASE again")
        proxy.hurt(lambda asked: CutAnswer(0 if begin_of(asked) % (5 * MIB) else MIB) if is_dump(asked) else None)
        says = "connection to the store at .* broke during GetObject .*, also when tried again"
        fails(program, *restore, "--set", "s3.retry_for=1s", code=4, says=says, hint="Try again later")
        assert databases_of(bench) == {"noisy", "postgres"}


def limit_files(server: PostgresServer, most: str) -> None:
    """Let no file of the server grow beyond `most` bytes, in sessions that begin from now on."""
    postmaster = (server.data_dir / "postmaster.pid").read_text().split()[0]
    command = ["prlimit", "--pid", postmaster, "--fsize=%s:unlimited" % most]
    account = server.account  # who may change the limits of its own processes
    owner: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    subprocess.run(command, check=True, **owner)


def test_a_server_that_runs_out_of_room_while_it_loads_keeps_nothing_of_it(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    """A limit on the size of files, which PostgreSQL takes for a full disk. Every session gets it from the postmaster."""
    wide = "CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 24000) i"
    create_database(bench, "large", wide)
    program = make_program(bench)
    program.json("backup")
    before = state_of(bench, "large")
    swap = ("restore", "latest", "--database", "large", "--mode", "swap", "--confirm", "large")
    limit_files(bench, "%d" % (17 * 1024 * 1024))
    try:
        fails(program, *swap, code=1, says="could not (extend|write)", hint="")
    finally:
        limit_files(bench, "unlimited")
    assert databases_of(bench) == {"large", "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(bench, "large")}) == []
    program.json(*swap)
    assert run_sql(bench, "large", "SELECT count(*) FROM wide") == [(24000,)]
    nothing_is_left(program.site)


# --- cut short --------------------------------------------------------------------------------------------------------

# Restoring this halts, most of it loaded, for as long as the role `gate` exists.
GATED = """
CREATE FUNCTION gate() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gate') LOOP
        PERFORM pg_catalog.pg_sleep(0.02);
    END LOOP;
    RETURN 1;
END $$;
CREATE TABLE goods AS SELECT i FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW slow AS SELECT gate() AS i;
"""
HALTED = "SELECT datname FROM pg_stat_activity WHERE query LIKE 'REFRESH MATERIALIZED VIEW%' AND state = 'active'"


@pytest.fixture(name="gated")
def program_of_a_gated_database(bench: PostgresServer, make_program: Callable[..., Program]) -> Iterator[Program]:
    """A program whose set halts in the middle of a restore."""
    create_database(bench, "gated", GATED)
    program = make_program(bench)
    program.json("backup", "--set", 'backup.databases=["gated"]', "--set", "backup.globals=false")
    run_sql(bench, "gated", "INSERT INTO goods VALUES (0)")
    run_sql(bench, "postgres", "CREATE ROLE gate")
    yield program
    run_sql(bench, "postgres", "DROP ROLE IF EXISTS gate")


WAYS = {
    "create": ("restore", "latest", "--rename", "gated", "again", "--yes"),
    "swap": ("restore", "latest", "--mode", "swap", "--confirm", "gated"),
}


def half_made(server: PostgresServer) -> list[str]:
    return [name for name in databases_of(server) if name.startswith("pgops-restore-")]


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_restore_that_is_cut_short_replaces_nothing_and_can_be_run_again(
    gated: Program, number: signal.Signals, way: str
) -> None:
    site, server = gated.site, gated.site.server
    before = state_of(server, "gated")
    # Somebody's own database of a like name, without our mark, is none of our business.
    create_database(server, "pgops-restore-0123456789ab")
    process = gated.start(*WAYS[way])
    ((temporary,),) = wait_for(lambda: run_sql(server, "postgres", HALTED), seconds=PATIENCE)
    count = len(site.records())
    process.send_signal(number)
    _unused, said = process.communicate(timeout=PATIENCE)
    mark = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '%s'" % temporary
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert "pgops restore was interrupted" in said
        record = site.records()[-1]
        assert (record["verb"], record["outcome"], record["exit_code"]) == ("restore", "interrupted", 1)
        assert half_made(server) == ["pgops-restore-0123456789ab"]
    else:
        assert process.returncode == -signal.SIGKILL
        assert len(site.records()) == count
        assert run_sql(server, "postgres", mark)[0][0].startswith("pgops restore in progress on ")
    assert databases_of(server) - set(half_made(server)) == {"gated", "postgres"}
    assert compare.differences({"x": before}, {"x": state_of(server, "gated")}) == []
    run_sql(server, "postgres", "DROP ROLE gate")
    result = gated.json(*WAYS[way])
    told = "cut short left behind" in " ".join(result["warnings"])
    assert told == (number == signal.SIGKILL)
    name = "again" if way == "create" else "gated"
    assert run_sql(server, name, "SELECT count(*) FROM goods") == [(1000,)]
    kept = {n for n in databases_of(server) if re.match("gated_before_", n)}
    assert len(kept) == (way == "swap")
    assert databases_of(server) - kept == {"gated", name, "postgres", "pgops-restore-0123456789ab"}
    run_sql(server, "postgres", 'DROP DATABASE "pgops-restore-0123456789ab"')
    nothing_is_left(site)


def test_another_restore_waits_its_turn_and_leaves_the_first_alone(gated: Program) -> None:
    server = gated.site.server
    process = gated.start(*WAYS["create"])
    wait_for(lambda: run_sql(server, "postgres", HALTED), seconds=PATIENCE)
    busy = gated.json("restore", "latest", "--rename", "gated", "third", "--yes", code=3)
    assert "process %d" % process.pid in busy["message"]
    assert gated.site.records()[-1]["outcome"] == "busy"
    assert len(half_made(server)) == 1
    run_sql(server, "postgres", "DROP ROLE gate")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert databases_of(server) == {"gated", "again", "postgres"}
    nothing_is_left(gated.site)
