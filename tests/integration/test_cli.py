# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of the program against real servers: what they do, say and end with."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable
from pathlib import Path

from demo.dataset import ORDERING
from demo.machine import free_port
from demo.servers import MotoS3, PostgresServer
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    program_builder,
    shop_program,
    tree,
)
from tests.integration.conftest import create_database, cursor, databases_of, flip

# --- one night --------------------------------------------------------------------------------------------------------


def test_a_night_with_s3(filled: PostgresServer, store: MotoS3, make_program: Callable[..., Program]) -> None:
    program = make_program(filled, verify={"place": "auto"})
    program.site.use_s3(store)
    program.configure()
    assert "Would back up" in program("backup", "--dry-run").stdout
    done = program("backup")
    assert "Backed up %s" % program.site.instance in done.stdout
    assert "Next: pgops --config %s sync (copy" % program.config in done.stdout
    assert "backup of ordering_system" in done.stderr
    assert "Would copy 1 set" in program("sync", "--dry-run").stdout
    assert "Copied 1 set to s3://" in program("sync").stdout
    assert "1 is there already" in program("sync").stdout
    assert "Would verify 1 set" in program("verify", "--dry-run").stdout
    assert "passed: restore" in program("verify").stdout
    assert "Nothing to verify" in program("verify", "unverified").stdout
    assert "1 set kept" in program("prune").stdout
    assert "is proven to restore" in " ".join(program("status").stdout.split())
    listed = program("restore", "--list").stdout
    assert ORDERING in listed
    assert "s3://" in listed
    assert program("list", "--place", "s3", "--details").stdout.count("local  ") == 0
    assert "two parts became one object" in program("probe").stdout
    assert [r["verb"] for r in program.site.records()] == [
        "backup",
        "sync",
        "sync",
        "verify",
        "verify",
        "prune",
        "probe",
    ]
    assert {r["outcome"] for r in program.site.records()} == {"ok"}
    assert program("backup", "--quiet").stderr == ""


def test_pins_and_their_dry_runs(shop: Program) -> None:
    set_id = shop.json("backup")["set"]
    assert "Would pin" in shop("pin", "latest", "--reason", "before the upgrade", "--dry-run").stdout
    assert shop.json("info")["places"][0]["sets"][0]["pinned"] is False
    assert "Pinned %s" % set_id in shop("pin", "latest", "--reason", "before the upgrade").stdout
    assert "is pinned already" in shop("pin", "latest", "--reason", "before the upgrade").stdout
    assert "Would unpin" in shop("unpin", set_id, "--dry-run").stdout
    assert shop.json("info")["places"][0]["sets"][0]["pinned"] is True
    assert "Unpinned" in shop("unpin", set_id).stdout
    assert "is not pinned" in shop("unpin", set_id).stdout


# --- exit codes and JSON ----------------------------------------------------------------------------------------------


def test_failed_work_is_1(shop: Program) -> None:
    set_id = shop.json("backup")["set"]
    flip(next(shop.site.set_folder(set_id).glob("databases/*")))
    result = shop.json("verify", "--level", "checksum", code=1)
    assert (result["outcome"], result["instance"]) == ("failed", shop.site.instance)
    assert result["sets"][0]["outcome"] == "failed"
    assert result["hint"]
    done = shop("verify", "--level", "checksum", code=1)
    assert done.stdout == ""
    assert "\npgops: 1 of 1 sets" in done.stderr
    assert "\n  → " in done.stderr


def test_wrong_usage_and_configuration_are_2(shop: Program, tmp_path: Path) -> None:
    assert shop.json("backup", "--frobnicate", code=2)["verb"] == "backup"
    assert "--help" in shop("bakcup", code=2).stderr
    shop(code=2)
    assert "no configuration file" in shop("backup", "--config", str(tmp_path / "none.yml"), code=2).stderr
    assert "unknown key" in shop("config", "--check", "--set", "backup.jbos=2", code=2).stderr
    assert shop.json("backup", "--set", "backup.jobs=many", code=2)["outcome"] == "misused"
    assert "secret" in shop("backup", "--set", "postgres.login_password=hunter2", code=2).stderr
    shop("restore", "--schema", "a", "--table", "b.c", "--yes", code=2)
    shop("sync", code=2)
    assert databases_of(shop.site.server) == {"postgres", "shop"}


def test_a_held_lock_is_3(shop: Program) -> None:
    shop("backup")
    lock = shop.site.root / "state" / shop.site.instance / "locks" / "backup.lock"
    with lock.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert shop.json("backup", code=3)["outcome"] == "busy"


def test_an_unreachable_server_is_4(shop: Program) -> None:
    result = shop.json("backup", "--set", "postgres.login_port=%d" % free_port(), code=4)
    assert "running" in result["hint"]
    assert shop.site.records()[-1]["outcome"] == "unreachable"


def test_what_is_not_safe_is_5(shop: Program) -> None:
    shop("backup", "--set", "backup.min_free=900TiB", code=5)
    shop("backup")
    before = databases_of(shop.site.server)
    assert "already" in shop("restore", "latest", "--yes", code=5).stderr
    assert "already" in shop("restore", "latest", "--dry-run", code=5).stdout
    copy = ("restore", "latest", "--database", "shop", "--rename", "shop", "copy")
    assert "--yes" in shop(*copy, code=5).stderr
    assert "--confirm" in shop("restore", "latest", "--mode", "swap", "--yes", code=5).stderr
    assert shop.json("restore", "latest", "--mode", "swap", "--yes", code=5)["outcome"] == "refused"
    shop(*copy, "--confirm", "another", code=2)
    assert databases_of(shop.site.server) == before


def test_an_unforeseen_error_is_a_sentence(shop: Program) -> None:
    """A broken driver stands for whatever nobody thought of."""
    broken = shop.site.root / "broken"
    broken.mkdir()
    (broken / "psycopg2.py").write_text("raise ZeroDivisionError('password=hunter2')\n")
    path = "%s:%s" % (broken, shop.environ["PYTHONPATH"])
    done = shop("backup", code=1, PYTHONPATH=path)
    assert "--verbose" in done.stderr
    assert "hunter2" not in done.stderr
    loud = subprocess.run(
        shop.argv("backup", "--verbose"),
        env={**shop.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert "hunter2" not in loud.stderr.replace("psycopg2.py", "").replace(
        "raise ZeroDivisionError('password=hunter2')", ""
    )


def test_a_reader_that_goes_away_is_no_failure(shop: Program) -> None:
    shop("backup")
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; \"$@\" | head -c 1", "-", *shop.argv("config", "--example")],
        env=shop.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_result_that_cannot_be_written_is_1(shop: Program) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            shop.argv("config", "--example"), env=shop.environ, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"No space" in done.stderr


# --- dry runs ---------------------------------------------------------------------------------------------------------


def test_dry_runs_change_nothing(shop: Program, store: MotoS3) -> None:
    shop.site.use_s3(store)
    shop.configure()
    shop("backup")
    before, databases = tree(shop.site.root), databases_of(shop.site.server)
    for arguments in (
        ("backup",),
        ("sync",),
        ("verify", "--level", "checksum"),
        ("prune",),
        ("restore", "latest", "--place", "local", "--mode", "swap"),
        ("restore", "latest", "--place", "local", "--rename", "shop", "copy"),
        ("pin", "latest", "--place", "local", "--reason", "x"),
    ):
        assert shop.json(*arguments, "--dry-run")["dry_run"] is True
    assert tree(shop.site.root) == before
    assert databases_of(shop.site.server) == databases


# --- restore, by hand -------------------------------------------------------------------------------------------------


def test_restores_without_a_terminal(shop: Program) -> None:
    shop("backup")
    done = shop("restore", "latest", "--database", "shop", "--rename", "shop", "copy", "--yes")
    assert "shop as copy" in done.stdout
    assert "proven the same: " in done.stdout
    result = shop.json("restore", "latest", "--database", "shop", "--mode", "swap", "--confirm", "shop")
    assert result["databases"][0]["kept"] in databases_of(shop.site.server)
    create_database(shop.site.server, "room")
    into = ("--database", "shop", "--rename", "shop", "room", "--table", "shop.goods", "--mode", "into_empty")
    shop("restore", "latest", *into, "--globals", "none", "--confirm", "room")
    with cursor(shop.site.server, "room") as asked:
        asked.execute("SELECT count(*) FROM shop.goods")
        assert asked.fetchone() == (50,)
    assert [r["verb"] for r in shop.site.records()] == ["backup", "restore", "restore", "restore"]


def test_a_person_confirms_on_the_terminal(shop: Program) -> None:
    shop("backup")
    swap = ("restore", "latest", "--database", "shop", "--mode", "swap")
    code, seen = shop.on_terminal(*swap, typed="shap")
    assert code == 5, seen
    assert "replaces the database" in seen
    code, seen = shop.on_terminal("restore", "latest", "--database", "shop", "--rename", "shop", "copy", typed="n")
    assert (code, "nothing was touched" in seen) == (5, True), seen
    assert databases_of(shop.site.server) == {"postgres", "shop"}
    code, seen = shop.on_terminal("restore", "latest", "--database", "shop", "--rename", "shop", "copy", typed="y")
    assert code == 0, seen
    code, seen = shop.on_terminal(*swap, typed="shop")
    assert code == 0, seen
    assert any(name.startswith("shop_before_") for name in databases_of(shop.site.server))
