# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full, fill up or cannot be written. The full ones are real file systems of 32 MiB."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.servers import MotoS3, PostgresServer
from tests.faults.aftermath import failed, fails, nothing_is_left, works_again
from tests.faults.small_disk import fill, small_disk
from tests.faults.two_places import Host, host_at_moto  # noqa: F401  # pylint: disable=unused-import  # a fixture
from tests.integration.cli_fixtures import Program, locked_table, tree
from tests.integration.conftest import create_database, databases_of, run_sql, wait_for
from tests.integration.s3_fixtures import Asked

MIB = 1024 * 1024
# Rows that do not compress, so that the dump is as large as they are.
BALLAST = "CREATE TABLE ballast AS SELECT sha512((i || 'x')::bytea) AS b FROM generate_series(1, 60000) i"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 32 MiB."""
    with small_disk(32) as path:
        yield path


@pytest.fixture
def big(bench: PostgresServer, make_program: Callable[..., Program]) -> Program:
    """The program of a server with a database whose dump takes 4 MiB and more."""
    create_database(bench, "big", BALLAST)
    return make_program(bench)


def on_disk(program: Program, disk: Path, name: str, folder: str) -> None:
    """Let the folder of the site lie on the small disk."""
    (disk / name).mkdir()
    (program.site.root / folder).symlink_to(disk / name)


# --- backup -----------------------------------------------------------------------------------------------------------


def test_a_backup_that_would_not_leave_the_floor_is_refused_before_its_first_byte(big: Program, disk: Path) -> None:
    on_disk(big, disk, "backups", "backups")
    result = fails(
        big,
        "backup",
        "--set",
        "backup.min_free=31MiB",
        code=5,
        says="31.0 MiB must stay free",
        hint=r"pgops --config \S+ prune.*min_free",
    )
    assert result["outcome"] == "refused"
    assert list((disk / "backups").rglob("*.dump*")) == []
    assert big.site.sets() == []
    works_again(big)


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_disk_that_somebody_fills_during_a_backup_ends_it_at_the_floor(big: Program, disk: Path, form: str) -> None:
    on_disk(big, disk, "backups", "backups")
    with locked_table(big.site.server, "big", "ballast"):
        process = big.start("backup", "--json", "--set", "backup.format=%s" % form)
        wait_for(lambda: list((disk / "backups").glob("*/sets/.unfinished-*/databases")), seconds=60)
        ballast = fill(disk, leave=MIB // 2)
        out, err = process.communicate(timeout=60)
    result = failed(
        big,
        loads(out, err),
        says="1.0 MiB must stay free; the backup was ended",
        hint=r"pgops --config \S+ prune.*min_free",
    )
    assert result["exit_code"] == process.returncode == 5
    assert big.site.sets() == []
    ballast.unlink()
    works_again(big)


def loads(out: str, err: str) -> dict[str, Any]:
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_disk_that_is_full_in_the_middle_of_a_dump(big: Program, disk: Path, form: str) -> None:
    """There is no floor that would have told before: the write itself fails."""
    on_disk(big, disk, "backups", "backups")
    options = ("--set", "backup.min_free=0", "--set", "backup.format=%s" % form)
    with locked_table(big.site.server, "big", "ballast"):
        process = big.start("backup", "--json", *options)
        wait_for(lambda: list((disk / "backups").glob("*/sets/.unfinished-*/databases")), seconds=60)
        ballast = fill(disk)
    out, err = process.communicate(timeout=60)
    result = failed(big, loads(out, err), says="No space left on device", hint=r"Make room.*pgops --config \S+ prune")
    assert result["exit_code"] == process.returncode == 1
    assert big.site.sets() == []
    ballast.unlink()
    works_again(big)


# --- restore ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_while_a_restore_fetches_its_set(
    bench: PostgresServer, store: MotoS3, make_program: Callable[..., Program], disk: Path
) -> None:
    create_database(bench, "big", BALLAST)
    program = make_program(bench, backup={"min_free": "1MiB", "format": "directory", "compression": "none"})
    program.site.use_s3(store)
    program.configure()
    program("backup", "--set", "backup.databases=[big]")
    program("sync")
    program.site.options["s3"]["bandwidth_limit"] = "1MiB"
    program.configure(work_dir=str(disk))
    copy = ("restore", "latest", "--place", "s3", "--database", "big", "--rename", "big", "copy", "--yes")
    process = program.start(*copy, "--json")
    wait_for(lambda: list(disk.glob("restore-*/*")), seconds=60)
    ballast = fill(disk)
    out, err = process.communicate(timeout=120)
    result = failed(program, loads(out, err), says="No space left on device", hint="Make room")
    assert result["exit_code"] == process.returncode == 1
    assert sorted(path.name for path in disk.iterdir()) == ["ballast"]
    assert databases_of(bench) == {"big", "postgres"}
    # Now it is full before: that is seen, and refused.
    fails(program, *copy, code=5, says="no room in .* Make room, or set work_dir", hint="")
    assert databases_of(bench) == {"big", "postgres"}
    ballast.unlink()
    program(*copy)
    assert run_sql(bench, "copy", "SELECT count(*) FROM ballast") == [(60000,)]
    assert list(disk.iterdir()) == []
    nothing_is_left(program.site)


# --- sync and verify --------------------------------------------------------------------------------------------------


def standing(disk: Path) -> dict[str, tuple[int, int]]:
    """Return what lies on the disk, but for whole files that a pull leaves to the next one."""
    return {name: facts for name, facts in tree(disk).items() if "/.unfinished-pull-" not in name}


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_disk_that_fills_while_a_set_is_pulled(moto_host: Host, disk: Path, harm: str) -> None:
    """Nothing half-written stays, neither of a set that was not here nor of one whose file is replaced."""
    host, large = moto_host, "b/large"
    on_disk(host.program, disk, "backups", "backups")
    set_id = host.make_set()
    host.succeeds("sync")
    path = host.site.set_folder(set_id) / large
    if harm == "missing":
        host.lose_local()
    else:
        path.write_bytes(bytes(path.stat().st_size))
    before = standing(disk)
    (disk / "ballast").touch()

    def fills(asked: Asked) -> None:
        if asked.kind == "get" and asked.path.endswith(large):
            fill(disk)

    host.proxy.hurt(fills)
    text = host.fails("sync", "--pull", set_id, code=1, said="A disk is full: No space left on device")
    assert re.search(r"Make room \(pgops --config \S+ prune\)", text)
    (disk / "ballast").unlink()
    assert standing(disk) == before
    assert [name for name in host.site.sets() if not name.startswith(".")] == ([] if harm == "missing" else [set_id])
    assert [name for name in tree(disk) if name.endswith(large)] == (
        [] if harm == "missing" else [str(disk / path.relative_to(host.site.root))]
    )
    # Now it is full before: that is seen, and refused.
    ballast = fill(disk)
    host.proxy.heal()
    host.fails("sync", "--pull", set_id, code=5, said="must stay free, but .* has only.*Make room")
    ballast.unlink()
    assert standing(disk) == before
    done = host.succeeds("sync", "--pull", set_id)
    assert (done["sets"], len(done["repaired"])) == (([set_id], 0) if harm == "missing" else ([], 1))
    host.is_whole_here(set_id)


# A dump sets how columns are stored before it brings their rows: what was pressed on the server it was taken from is not any more.
SWELLS = """
CREATE TABLE swells AS SELECT repeat('swell ', 1400000) AS t FROM generate_series(1, 6);
ALTER TABLE swells ALTER t SET STORAGE EXTERNAL;
"""


def test_a_disk_that_fills_while_a_restore_is_rehearsed_is_no_verdict_on_the_set(
    bench: PostgresServer, make_program: Callable[..., Program]
) -> None:
    """It fills under the server, which reads an archive from pg_restore, and under us, who unpack one for it."""
    create_database(bench, "swells", SWELLS)
    program = make_program(bench, backup={"databases": ["swells"]}, verify={"run_as": "nobody"})
    for compression in ("gzip", "zstd"):
        set_id = program.json("backup", "--set", "backup.compression=%s" % compression)["set"]
        verify = ("verify", set_id, "--level", "restore")
        with small_disk(88, "nobody") as disk:
            program.configure(work_dir=str(disk))
            # What the server could not write is a page of the table, or its log: then it breaks down.
            says = "no verdict on them:(.|\n)*%s: .*No space left on device" % set_id
            result = fails(program, *verify, code=4, says=says, hint="Make room .*work_dir")
            assert list(disk.iterdir()) == []
        (report,) = result["sets"]
        told = (report["set"], report["level"], report["outcome"], report["findings"])
        assert told == (set_id, "restore", "undecided", [])
        assert any("'swells'" in remark and "No space left" in remark for remark in report["remarks"]), report[
            "remarks"
        ]
        assert "swells" not in report["checked"].get("databases", {})
        assert ["_undecided_" in proof.name for proof in program.site.evidence() if set_id in proof.name] == [True]
        listed = {known["id"]: known for known in program.json("info")["places"][0]["sets"]}
        assert (listed[set_id]["verified"], listed[set_id]["problem"]) == (False, None)
        program.configure()
    (report,) = program.json(*verify)["sets"]
    assert (report["outcome"], list(report["checked"]["databases"])) == ("passed", ["swells"])
    nothing_is_left(program.site)


# --- state and log ----------------------------------------------------------------------------------------------------


def test_a_full_disk_of_the_records_does_not_stop_a_backup(shop: Program, disk: Path) -> None:
    on_disk(shop, disk, "state", "state")
    on_disk(shop, disk, "log", "log")
    shop("backup")
    records = shop.site.records()
    ballast = fill(disk)
    result = shop.json("backup")
    assert any("could not be recorded" in warning and "No space left" in warning for warning in result["warnings"])
    assert shop.site.records() == records
    nothing_is_left(shop.site)
    ballast.unlink()
    works_again(shop)


def test_a_disk_without_an_inode_is_full_and_is_told_as_that(shop: Program) -> None:
    with small_disk(32, inodes=300) as disk:
        for folder in ("state", "backups"):
            on_disk(shop, disk, folder, folder)
        shop("backup")
        ballast = disk / "ballast"
        ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (ballast / str(number)).touch()
        facts = os.statvfs(disk)
        assert (facts.f_favail, facts.f_bavail > 0) == (0, True)
        said = shop("backup", code=5).stderr
        assert "no inode is left" in said
        assert "df -i" in said
        assert "(no inode is left: df -i): runs leave no record" in shop("check", code=2).stdout
        shutil.rmtree(ballast)
        works_again(shop)


# --- directories that cannot be written -------------------------------------------------------------------------------


@pytest.fixture
def bound_by_modes(shop: Program) -> Program:
    """The program as somebody whom modes keep out: root without the right to pass over them is."""
    if os.geteuid() == 0:
        without = "-dac_override,-dac_read_search"
        prefix = ["setpriv", "--bounding-set=" + without, "--inh-caps=" + without]
        plain = shop.argv
        shop.argv = lambda *arguments: [*prefix, *plain(*arguments)]  # type: ignore[method-assign]
    return shop


@pytest.mark.parametrize(
    ("folder", "arguments", "says", "hint"),
    [
        ("backups", ("backup",), "backups.* cannot be written: Permission denied", "give it to the account"),
        ("state", ("backup",), "state.* cannot be opened: Permission denied", "Check state_dir and its owner"),
    ],
)
def test_a_directory_that_may_not_be_written(
    bound_by_modes: Program, folder: str, arguments: tuple[str, ...], says: str, hint: str
) -> None:
    path = bound_by_modes.site.root / folder
    path.mkdir(mode=0o500)
    fails(bound_by_modes, *arguments, code=2, says=says, hint=hint, record=folder != "state")
    assert list(path.iterdir()) == []
    path.chmod(0o700)
    works_again(bound_by_modes)


def test_a_log_directory_that_may_not_be_written_is_a_warning(bound_by_modes: Program) -> None:
    path = bound_by_modes.site.root / "log"
    path.mkdir(mode=0o500)
    result = bound_by_modes.json("backup")
    assert any("could not be recorded" in warning for warning in result["warnings"])
    path.chmod(0o700)
    works_again(bound_by_modes)
