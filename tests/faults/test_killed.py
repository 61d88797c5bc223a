# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own process killed with -9 at any moment while it writes sets, sends them and removes them."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from demo.servers import MotoS3, PostgresServer
from tests.faults.aftermath import nothing_is_left, programs_of, sessions, whole, works_again
from tests.faults.two_places import Host, host_at_moto  # noqa: F401  # pylint: disable=unused-import  # fixtures
from tests.integration.cli_fixtures import Program, locked_table
from tests.integration.conftest import Site, create_shop, glimpse, run_sql, wait_for
from tests.integration.s3_fixtures import MIB

SIGKILL = -9


def kill(program: Program, *arguments: str, when: Callable[[], Any]) -> bool:
    """Run the program and kill it as soon as `when` holds; tell whether it was still there."""
    process = program.start(*arguments)
    while process.poll() is None and not glimpse(when):
        pass
    process.kill()
    process.communicate()
    assert process.returncode in (SIGKILL, 0), process.returncode
    return process.returncode == SIGKILL


def kill_surely(program: Program, *arguments: str, when: Callable[[], Any], prepare: Callable[[], Any] = int) -> None:
    """Prepare and run the program until it was killed as soon as `when` held: it may have ended by itself just before."""
    for _again in range(20):
        prepare()
        if kill(program, *arguments, when=when):
            return
    raise AssertionError("it always ended before it was killed")


def kill_at(moment: float, program: Program, *arguments: str, prepare: Callable[[], Any] = int) -> None:
    """Prepare and run the program until it was killed so many seconds into it, or sooner where it ended by itself."""
    for _again in range(20):
        prepare()
        if kill(program, *arguments, when=after(moment)):
            return
        moment *= 0.8
    raise AssertionError("it always ended before it was killed")


def after(seconds: float) -> Callable[[], bool]:
    """Return a condition that holds from so many seconds on."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def moments(count: int, program: Program, *arguments: str) -> list[float]:
    """Return seconds into a run of the program, spread over as long as it takes: one in each of `count` equal parts."""
    began = time.monotonic()
    program(*arguments)
    duration, chance = time.monotonic() - began, random.Random(4711)
    return [(number + chance.random()) / count * duration for number in range(count)]


def told_by_the_next(site: Site) -> str:
    """Return what the record of the last run says of those before it."""
    return "\n".join(site.records()[-1]["warnings"])


# --- backup -----------------------------------------------------------------------------------------------------------


def test_a_backup_that_is_killed_at_any_moment_is_no_trouble_for_the_next(shop: Program) -> None:
    for moment in moments(12, shop, "backup"):
        before = set(shop.site.sets())
        kill_at(moment, shop, "backup")
        for name in set(shop.site.sets()) - before:
            if not name.startswith("."):
                whole(shop.site, name)  # it was published just before the kill, or never
        shop("backup")
        nothing_is_left(shop.site)
    works_again(shop, "restore")


def dumps(site: Site) -> list[Path]:
    return list((site.home / "sets").glob(".unfinished-*/databases/*"))


STEPS: dict[str, Callable[[Site, set[str]], Any]] = {
    "the lock is held": lambda site, before: backup_lock(site),
    "the folder is there": lambda site, before: [n for n in site.sets() if n.startswith(".")],
    "the first dump is there": lambda site, before: dumps(site),
    "the globals are there": lambda site, before: list((site.home / "sets").glob(".unfinished-*/globals.sql")),
    "the manifest is there": lambda site, before: list((site.home / "sets").glob(".unfinished-*/manifest.json")),
    "the set is published": lambda site, before: [n for n in set(site.sets()) - before if not n.startswith(".")],
}


def backup_lock(site: Site) -> str:
    path = site.root / "state" / site.instance / "locks" / "backup.lock"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("step", STEPS)
def test_a_backup_that_is_killed_when(shop: Program, step: str) -> None:
    before: set[str] = set()
    early = step in ("the folder is there", "the first dump is there")
    # So early, it must not be done before a busy machine comes to the kill.
    with locked_table(shop.site.server, "shop", "shop.sales") if early else nullcontext():
        kill_surely(
            shop,
            "backup",
            when=lambda: STEPS[step](shop.site, before),
            prepare=lambda: before.update(shop.site.sets()),
        )
    published = [n for n in shop.site.sets() if not n.startswith(".") and n not in before]
    for name in published:
        whole(shop.site, name)
    signed, folders = backup_lock(shop.site), [n for n in shop.site.sets() if n.startswith(".")]
    shop("backup")
    nothing_is_left(shop.site)
    said = told_by_the_next(shop.site)
    assert ("A run was cut short" in said) == bool(signed)
    assert ("left behind" in said) == bool(folders)
    if early:
        assert folders
        assert published == []
    assert set(shop.site.sets()) > set(published)


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_the_programs_of_a_killed_backup_end_with_it(shop: Program, form: str) -> None:
    """They wait for a lock, so no broken pipe tells them, and they would wait for minutes."""
    with locked_table(shop.site.server, "shop", "shop.sales"):
        process = shop.start("backup", "--set", "backup.format=%s" % form, "--set", "backup.jobs=2")
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
        wait_for(lambda: programs_of(shop.site) and run_sql(shop.site.server, "postgres", waiting), seconds=60)
        process.kill()
        process.communicate()
        wait_for(lambda: not programs_of(shop.site), seconds=60)
        wait_for(lambda: not sessions(shop.site.server), seconds=60)
    works_again(shop)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_backup_ends_it_in_order(shop: Program, number: signal.Signals) -> None:
    with locked_table(shop.site.server, "shop", "shop.sales"):
        process = shop.start("backup", "--json")
        wait_for(lambda: programs_of(shop.site), seconds=60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        result = json.loads(out)
        assert (result["outcome"], result["exit_code"]) == ("interrupted", 1)
        assert [(r["verb"], r["outcome"]) for r in shop.site.records()] == [("backup", "interrupted")]
        assert shop.site.sets() == []
        nothing_is_left(shop.site)
    works_again(shop)


def test_a_second_backup_meanwhile_is_told_who_is_at_work(shop: Program) -> None:
    with locked_table(shop.site.server, "shop", "shop.sales"):
        process = shop.start("backup")
        wait_for(lambda: dumps(shop.site), seconds=60)
        second = shop.json("backup", code=3)
        assert "backup of %s, process %d, since 20" % (shop.site.instance, process.pid) in second["message"]
        assert second["hint"] == "Try again when it has ended."
        assert [(r["verb"], r["outcome"], r["exit_code"]) for r in shop.site.records()] == [("backup", "busy", 3)]
    assert process.wait(timeout=60) == 0
    process.communicate()
    works_again(shop)


# --- sync and prune ---------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(bench: PostgresServer, store: MotoS3, make_program: Callable[..., Program]) -> Program:
    """A program with an S3 place, whose data take a while to send."""
    create_shop(bench)
    run_sql(
        bench, "shop", "CREATE TABLE ballast AS SELECT string_agg(md5(i::text), '') FROM generate_series(1, 20000) i"
    )
    program = make_program(bench, backup={"min_free": "1MiB", "compression": "none"})
    program.site.use_s3(store)
    program.site.options["s3"]["bandwidth_limit"] = "1MiB"
    program.configure()
    return program


def stored(program: Program) -> list[dict[str, Any]]:
    sets: list[dict[str, Any]] = program.json("info", "--place", "s3")["places"][0]["sets"]
    return sets


def test_a_sync_that_is_killed_at_any_moment_goes_on_the_next_time(remote: Program) -> None:
    remote("backup")
    made: list[str] = []
    for moment in moments(5, remote, "sync"):
        kill_at(moment, remote, "sync", prepare=lambda: made.append(remote.json("backup")["set"]))
        set_id = made[-1]
        assert remote.json("sync")["sets"] == [set_id] or set_id in [s["id"] for s in stored(remote)]
        nothing_is_left(remote.site)
    everything = [s["id"] for s in stored(remote)]
    assert sorted(everything) == remote.site.sets()
    reports = remote.json("verify", "all", "--place", "s3", "--level", "checksum")["sets"]
    assert {r["set"]: r["outcome"] for r in reports} == dict.fromkeys(everything, "passed")


def test_a_pull_that_is_killed_goes_on_the_next_time_and_leaves_nothing(moto_host: Host) -> None:
    host = moto_host
    sizes = {"a": 200_000, "b": 3 * MIB}
    set_id = host.make_set(sizes=sizes)
    host.succeeds("sync")
    host.lose_local()
    slowly = {"bandwidth_limit": "256KiB", "concurrency": 1}
    host.program.configure(s3=slowly)
    pulled = host.site.home / "sets" / (".unfinished-pull-" + set_id)
    assert kill(host.program, "sync", "--pull", when=(pulled / "b").exists)
    assert host.program.json("info", "--place", "local")["places"][0]["sets"] == []
    assert host.program.json("prune", "--place", "local")["places"][0]["leftovers"] == [], "it waits for the next pull"
    host.program.configure()
    host.proxy.heal()
    assert host.succeeds("sync", "--pull")["sets"] == [set_id]
    assert sizes["b"] <= host.proxy.bytes_received() < sizes["b"] + 64 * 1024
    assert "A run was cut short" in told_by_the_next(host.site)
    host.is_whole_here(set_id)
    # The same while it repairs a file.
    (host.site.set_folder(set_id) / "b").write_bytes(bytes(3 * MIB))
    host.program.configure(s3=slowly)
    assert kill(host.program, "sync", "--pull", when=(host.site.set_folder(set_id) / ".b.repair").exists)
    (place,) = host.program.json("info", "--place", "local")["places"]
    assert place["total_bytes"] == sum(p.stat().st_size for p in host.site.set_folder(set_id).glob("[!.]*"))
    host.program.configure()
    assert host.succeeds("sync", "--pull")["repaired"][0]["files"] == ["b"]
    assert ".b.repair (" in told_by_the_next(host.site)
    host.is_whole_here(set_id)


def test_a_prune_that_is_killed_at_any_moment_is_finished_by_the_next(shop: Program) -> None:
    shop("backup")
    shop("backup")
    keep_one = ("--set", "local.retention.keep_within=", "--set", "local.retention.keep_last=1")
    prune = ("prune", "--place", "local", *keep_one)

    def two_more() -> None:
        for _count in range(2):
            shop.site.forge(max(shop.site.sets()))

    for moment in moments(6, shop, *prune):
        kill_at(moment, shop, *prune, prepare=two_more)
        newest = max(name for name in shop.site.sets() if not name.startswith("."))
        for name in shop.site.sets():
            if not name.startswith("."):
                whole(shop.site, name)
        shop(*prune)
        assert shop.site.sets() == [newest]
        nothing_is_left(shop.site)
    works_again(shop)
