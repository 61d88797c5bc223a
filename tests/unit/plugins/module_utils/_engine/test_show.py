# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import recovery, show
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import info, prune

SET = "20261122T020000Z-logical"
BACKUP: dict[str, Any] = {
    "instance": "db1",
    "seconds": 9.2,
    "bytes": 2048,
    "path": "/backups/db1/sets/" + SET,
    "databases": [
        {
            "name": "größe_λ_注文",
            "database_bytes": 10240,
            "bytes": 1024,
            "seconds": 4.0,
            "format": "custom",
            "compression": "zstd",
            "rows": 123456,
        },
        {
            "name": "shop",
            "database_bytes": 20480,
            "bytes": 1024,
            "seconds": 5.0,
            "format": "directory",
            "compression": "gzip",
        },
    ],
    "uncovered": [{"what": "database scratch", "why": "it is in backup.exclude_databases"}],
    "left_out": [],
}


FULL, CHILD = "20261122T020000Z-base", "20261123T020000Z-incremental"
INCREMENTAL: dict[str, Any] = {
    **BACKUP,
    "kind": "incremental",
    "parent": FULL,
    "databases": [{"name": "shop", "database_bytes": 10240}],
    "tablespaces": [],
    "uncovered": [],
    "path": "s3://b/db1/sets/" + CHILD,
    "choices": {
        "base": {"compression": "zstd", "by": "server", "reasons": ["zstd: it can", "incremental: upon " + FULL]}
    },
    "wal_start": "0/2000028",
    "wal_end": "0/2000120",
    "timeline": 1,
}


def test_an_incremental_backup_says_upon_what() -> None:
    assert show.backup(INCREMENTAL, has_s3=False).splitlines() == [
        "Backed up db1: 2.0 KiB in 9.2 s.",
        "What changed since %s of 1 database and 0 tablespaces, zstd by the server; WAL 0/2000028 to 0/2000120 on timeline 1."
        % FULL,
        "Set: s3://b/db1/sets/" + CHILD,
        "Next: pgops verify (prove that it restores)",
    ]
    plan = {
        "databases": ["shop"],
        "database_bytes": 10240,
        "estimated_bytes": 2048,
        "free_bytes": 4096,
        "server_version": "18.4",
        "from_standby": False,
        "choices": INCREMENTAL["choices"],
        "parent": CHILD,
        "chain": [FULL, CHILD],
    }
    shown = show.backup({"instance": "db1", "plan": plan}, has_s3=False).splitlines()
    assert "Incremental, upon %s; a recovery needs %s, %s." % (CHILD, FULL, CHILD) in shown
    assert "As a base backup, zstd by the server (zstd: it can; incremental: upon %s)." % FULL in shown


def test_the_plan_of_a_recovery_shows_the_chain() -> None:
    target = {"kind": "end", "value": "", "inclusive": True, "timeline": "latest", "action": "promote"}
    plan = {
        "target": target,
        "set": CHILD,
        "place": "s3://b/db1",
        "chain": [FULL],
        "server_version": "18.4",
        "base_stopped": "2026-11-23T02:01:00+00:00",
        "data_directory": "/srv/copy",
        "mode": "beside",
        "bytes": 1024,
        "replaces": False,
        "wal_directory": "/wal/copy",
        "tablespaces": {},
        "remarks": [],
        "refusals": [],
    }
    assert "  pg_wal in /wal/copy" in recovery.plan_text({"instance": "db1", "plan": plan}).splitlines()
    assert "  which builds on %s" % FULL in recovery.plan_text({"instance": "db1", "plan": plan}).splitlines()
    alone = recovery.plan_text({"instance": "db1", "plan": {**plan, "chain": []}})
    assert "builds on" not in alone


def test_a_backup_in_a_few_aligned_lines() -> None:
    assert show.backup(BACKUP, has_s3=True).splitlines() == [
        "Backed up db1: 2.0 KiB in 9.2 s.",
        "  größe_λ_注文  1.0 KiB of 10.0 KiB  4.0 s  custom, zstd     123,456 rows",
        "  shop          1.0 KiB of 20.0 KiB  5.0 s  directory, gzip",
        "Not covered by this backup:",
        "  database scratch: it is in backup.exclude_databases",
        "Set: /backups/db1/sets/" + SET,
        "Next: pgops sync (copy it off this server)",
    ]
    assert show.backup(BACKUP, has_s3=False).endswith("Next: pgops verify (prove that it restores)\n")


def test_long_lists_are_cut() -> None:
    many = [{"what": "table t%d" % n, "why": "filters"} for n in range(50)]
    text = show.backup({**BACKUP, "uncovered": many}, has_s3=True)
    assert "… and 30 more (see --json)" in text
    assert "table t20:" not in text


def test_what_was_proven_and_what_was_not() -> None:
    report = {"set": SET, "seconds": 3.0, "outcome": "passed", "level": "restore", "asked": "restore"}
    checked = {
        "files": 7,
        "bytes": 9,
        "databases": {"shop": {"rows": 1500}, "b": {"rows": 1}},
        "roles": 3,
        "server_version": "18",
    }
    proven = {"place": "s3", "level": "restore", "sets": [{**report, "checked": checked}]}
    assert "passed: restore  3.0 s  7 files, 2 databases, 1,501 rows, 3 roles" in show.verify(proven)
    less = {**report, "level": "checksum", "checked": {"files": 1}}
    assert "passed: checksum only, not restore" in show.verify({"place": "s3", "level": "restore", "sets": [less]})
    undecided = {**report, "outcome": "undecided", "checked": {}}
    assert "undecided: restore" in show.verify({"place": "s3", "level": "restore", "sets": [undecided]})
    assert "Nothing to verify" in show.verify({"place": "s3", "level": "restore", "sets": []})


def test_a_plan_of_a_restore_tells_what_it_replaces() -> None:
    entry = {"database": "shop", "name": "shop", "replaces": True, "bytes": 10, "database_bytes": 1024}
    plan = {
        "set": SET,
        "place": "/backups/db1",
        "server_version": "18.1",
        "mode": "swap",
        "globals": "missing",
        "jobs": 2,
        "databases": [entry, {**entry, "database": "a", "name": "b", "replaces": False}],
        "refusals": [],
        "remarks": ["Space could not be checked."],
    }
    text = show.restore_plan({"instance": "db1", "plan": plan})
    assert "shop    10 B for 1.0 KiB  replaces the database of that name, which is kept under another" in text
    assert "a as b  10 B for 1.0 KiB  new" in text
    assert "note: Space could not be checked." in text
    assert "refused" not in text
    assert "It would be refused:\n  - No." in show.restore_plan(
        {"instance": "db1", "plan": {**plan, "refusals": ["No."]}}
    )


def test_a_restore_without_a_fingerprint_says_so() -> None:
    entry = {"name": "shop", "seconds": 1.0, "compared": {}, "left_out": ["a foreign key"], "benign": [], "remarks": []}
    text = show.restore({"databases": [entry], "seconds": 2.0, "roles_created": ["clerk"]})
    assert "not compared" in text
    assert "shop: left out a foreign key" in text
    assert "Roles created: clerk." in text


def test_a_sync_says_what_it_did() -> None:
    step = {"set": SET, "action": "push", "files": 3, "bytes": 1024, "reason": "it is not there"}
    result: dict[str, Any] = {
        "direction": "push",
        "place": "s3://b/db1",
        "plan": [step],
        "dry_run": False,
        "sets": [SET],
        "files_sent": 3,
        "bytes_sent": 1024,
        "already": 2,
        "left_out": [{"set": "x", "why": "retention would remove it"}],
        "evidence_sent": 1,
        "aborted_uploads": [],
        "only_there": [],
        "only_there_count": 0,
        "seconds": 1.0,
    }
    text = show.sync(result)
    assert "Only there" not in text
    more = {**result, "only_there": ["d", "c", "b", "a"], "only_there_count": 1234}
    assert "\nOnly there: 1,234 sets: d, c, b, and 1,231 more.\n" in show.sync(more)
    assert text.startswith("Copied 1 set to s3://b/db1: 3 files, 1.0 KiB in 1.0 s; 2 are there already.\n")
    assert "left  x: retention would remove it" in text
    assert show.sync({**result, "dry_run": True}).startswith("Would copy 1 set to s3://b/db1 (1.0 KiB)")
    assert show.sync({**result, "plan": [], "sets": []}).startswith(
        "Nothing to copy to s3://b/db1: 2 are there already."
    )
    assert " from s3://b/db1" in show.sync({**result, "direction": "pull"})


def test_a_failed_check_of_a_store_stands_out() -> None:
    checks = [{"name": "put", "ok": True, "detail": "fine"}, {"name": "clock", "ok": False, "detail": "off"}]
    text = show.probe({"place": "s3://b", "ok": False, "checks": checks}, colour=True)
    assert "something is wrong" in text
    assert "\033[31m  clock  FAILED  off\033[0m" in text


def test_the_catalog_and_prune_of_a_real_world(world: Any) -> None:
    old = world.add("local", world.NOW.replace(year=2025))
    new = world.add("local", world.NOW)
    world.prove("local", new)
    context = world.context()
    text = show.info(info.info(context, info.Request(details=True)), colour=False)
    assert "SET                       BEGUN (UTC)" in text
    row = next(line for line in text.splitlines() if line.startswith("  " + new))
    assert "  restore  orders" in row
    assert "due for prune" in next(line for line in text.splitlines() if line.startswith("  " + old))
    assert "orders: 4 B for 0 B, custom" in text
    assert "critical: " in text
    planned = prune.prune(world.context(), prune.Request(dry_run=True))
    assert "1 set would be removed" in show.prune({**planned, "dry_run": True})
    done = prune.prune(world.context(), prune.Request())
    assert "1 set removed" in show.prune({**done, "dry_run": False})


def test_a_place_out_of_reach_and_a_damaged_set_are_shown(world: Any) -> None:
    set_id = world.add("local", world.NOW)
    (world.context().local.path("sets/%s/manifest.json" % set_id)).write_text("{}")
    world.memory.down = True
    text = show.info(info.info(world.context(), info.Request()), colour=False)
    assert "The store does not answer." in text
    assert "damaged: " in text
