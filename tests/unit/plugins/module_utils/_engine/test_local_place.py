# SPDX-License-Identifier: GPL-3.0-or-later
"""The local place: a set appears by one rename, and goes so that no half of it looks whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import File
from ansible_collections.pgops.backup.plugins.module_utils._engine.places import local as local_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.local import LocalPlace

ID = "20261122T020000Z-logical"
NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "backups", "db1")


def write_set(place: LocalPlace, set_id: str = ID, content: bytes = b"data") -> File:
    with place.new_set(set_id) as folder:
        (folder / "orders.dump").write_bytes(content)
        (folder / "manifest.json").write_bytes(b"{}")
    return File("orders.dump", len(content), hashlib.sha256(content).hexdigest())


def visible(place: LocalPlace) -> list[str]:
    return sorted(place.entries("sets"))


def test_a_set_is_invisible_until_it_is_published_and_whole_then(place: LocalPlace) -> None:
    with place.new_set(ID) as folder:
        (folder / "orders.dump").write_bytes(b"data")
        assert visible(place) == []
        (folder / "manifest.json").write_bytes(b"{}")
        assert visible(place) == []
    assert visible(place) == ["sets/%s/manifest.json" % ID, "sets/%s/orders.dump" % ID]
    assert place.leftovers(NOW) == {}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_work_early_leaves_nothing(place: LocalPlace, error: type[BaseException]) -> None:
    with pytest.raises(error), place.new_set(ID) as folder:
        (folder / "orders.dump").write_bytes(b"data")
        (folder / "manifest.json").write_bytes(b"{}")
        raise error
    assert visible(place) == []
    assert list((place.home / "sets").iterdir()) == []


def test_a_set_without_manifest_is_not_published(place: LocalPlace) -> None:
    with pytest.raises(MissingError, match="no manifest"), place.new_set(ID) as folder:
        (folder / "orders.dump").write_bytes(b"data")
    assert list((place.home / "sets").iterdir()) == []


def test_everything_is_on_disk_before_the_rename_and_the_rename_before_we_return(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    rename = Path.rename
    monkeypatch.setattr(local_module, "sync_file", lambda path: steps.append("file " + path.name))
    monkeypatch.setattr(local_module, "sync_dir", lambda path: steps.append("dir " + path.name))
    monkeypatch.setattr(Path, "rename", lambda self, to: (steps.append("rename"), rename(self, to))[1])
    with place.new_set(ID) as folder:
        (folder / "databases").mkdir()
        (folder / "databases" / "orders.dump").write_bytes(b"data")
        (folder / "manifest.json").write_bytes(b"{}")
    at = steps.index("rename")
    assert set(steps[:at]) == {"file orders.dump", "file manifest.json", "dir databases", "dir .unfinished-" + ID}
    assert steps[at + 1 :] == ["dir sets"]


def test_a_set_that_exists_is_never_overwritten(place: LocalPlace) -> None:
    write_set(place)
    with pytest.raises(UsageError, match="There is a set %s" % ID), place.new_set(ID):
        pytest.fail("began a second time")
    assert place.read("sets/%s/orders.dump" % ID) == b"data"


def test_the_rest_of_a_killed_run_is_no_obstacle_to_the_next(place: LocalPlace) -> None:
    rest = place.home / "sets" / (".unfinished-" + ID)
    rest.mkdir(parents=True)
    (rest / "old").write_bytes(b"12345")
    assert place.leftovers(NOW) == {str(rest): 5}
    write_set(place)
    assert visible(place) == ["sets/%s/manifest.json" % ID, "sets/%s/orders.dump" % ID]


def test_a_directory_that_cannot_be_written_says_so(tmp_path: Path, as_ordinary_user: None) -> None:
    place = LocalPlace(Path("/proc/no"), "db1")
    with pytest.raises(UsageError, match="cannot be written"), place.new_set(ID):
        pytest.fail("began")


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(place: LocalPlace, request: Any) -> None:
    write_set(place)
    place.home.parent.parent.chmod(0o755)
    for folder in (place.home.parent, place.home):
        folder.chmod(0o755)
    (place.home / "sets").chmod(0o000)
    if os.geteuid() == 0:
        request.getfixturevalue("tmp_path").parent.parent.chmod(0o755)
        request.getfixturevalue("tmp_path").parent.chmod(0o755)
    request.getfixturevalue("as_ordinary_user")
    with pytest.raises(UsageError, match="cannot be read"):
        place.entries("sets")


def test_removing_a_set_frees_its_bytes_and_leaves_no_rest(place: LocalPlace) -> None:
    write_set(place, content=b"x" * 1000)
    assert place.delete_set(ID) == 1002
    assert list((place.home / "sets").iterdir()) == []
    with pytest.raises(MissingError):
        place.delete_set(ID)


def test_a_removal_that_is_cut_off_leaves_no_set_but_a_leftover(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(place)
    rmtree = local_module.shutil.rmtree

    def cut_off(path: Path, **options: Any) -> None:
        if not options:
            raise KeyboardInterrupt
        rmtree(path, **options)

    monkeypatch.setattr(local_module.shutil, "rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        place.delete_set(ID)
    monkeypatch.undo()
    assert visible(place) == []
    assert list(place.leftovers(NOW).values()) == [6]
    assert place.clear_leftovers(NOW)
    assert list((place.home / "sets").iterdir()) == []


def test_clearing_leftovers_leaves_alone_what_a_run_is_writing(place: LocalPlace) -> None:
    """A pull writes sets without the backup lock."""
    with place.new_set(ID) as folder:
        (folder / "half").write_bytes(b"x")
        assert place.clear_leftovers(NOW) == {}
        assert (folder / "half").exists()
        (folder / "manifest.json").write_bytes(b"{}")
    assert (place.home / "sets" / ID / "half").exists()


def test_clearing_leftovers_touches_no_set(place: LocalPlace) -> None:
    write_set(place)
    assert place.clear_leftovers(NOW) == {}
    assert len(visible(place)) == 2


def test_what_a_program_of_a_killed_run_still_writes_is_no_obstacle(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pg_dump that writes a directory learns of the kill by a signal, and the next run can be there before it has ended."""
    dump = place.home / "sets" / (".unfinished-" + ID) / "databases" / "orders"
    dump.mkdir(parents=True)
    (dump / "1.dat").write_bytes(b"12345")
    rmdir, late = os.rmdir, iter(["2.dat", "3.dat"])

    def written_meanwhile(path: Any, **options: Any) -> None:
        name = next(late, "") if os.path.basename(path) == "orders" else ""
        if name:
            (dump / name).write_bytes(b"x")
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", written_meanwhile)
    assert list(place.clear_leftovers(NOW).values()) == [5]
    assert next(late, "") == ""
    assert list((place.home / "sets").iterdir()) == []


@pytest.mark.parametrize("which", ["the folder", "a folder in it", "a file"])
def test_what_somebody_else_removes_while_it_is_looked_at_is_no_leftover(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """As when a removal is planned while another one is at work."""
    trash = place.home / "sets" / (".trash-" + ID)
    (trash / "databases" / "orders").mkdir(parents=True)
    (trash / "databases" / "orders" / "1.dat").write_bytes(b"12345")
    held, lstat = local_module._is_held, Path.lstat

    def then_removed(path: Path) -> bool:
        found = held(path)
        if which == "the folder":
            shutil.rmtree(trash)
        return found

    def vanish(path: Path) -> os.stat_result:
        if which == "a file" and path.name == "1.dat":
            path.unlink(missing_ok=True)
        return lstat(path)

    def reading(path: Any) -> Any:
        if which == "a folder in it" and str(path).endswith("databases"):
            shutil.rmtree(trash / "databases", ignore_errors=True)
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(local_module, "_is_held", then_removed)
    monkeypatch.setattr(Path, "lstat", vanish)
    monkeypatch.setattr(os, "scandir", reading)
    assert list(place.leftovers(NOW).values()) == [0]


def test_a_repair_whose_set_goes_is_none(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(place)
    folder = place.home / "sets" / ID
    scandir = os.scandir

    def reading(path: Any) -> Any:
        if str(path) == str(folder):
            shutil.rmtree(folder, ignore_errors=True)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", reading)
    assert place.leftovers(NOW, repairs=True) == {}


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "sets/../../x", "", "a//b", "a/."])
def test_no_path_leads_out_of_the_place(place: LocalPlace, path: str) -> None:
    for use in (
        place.read,
        lambda p: place.write(p, b""),
        lambda p: place.delete([p]),
        lambda p: list(place.stream(p)),
    ):
        with pytest.raises(DamagedError, match="not a path inside"):
            use(path)


def test_small_files_come_back_and_deleting_twice_is_no_error(place: LocalPlace) -> None:
    place.write("pins/x", b"content")
    assert place.read("pins/x") == b"content"
    place.delete(["pins/x", "pins/x"])
    with pytest.raises(MissingError):
        place.read("pins/x")
    with pytest.raises(MissingError):
        list(place.stream("pins/x"))


def test_the_tag_of_a_file_changes_with_its_content(place: LocalPlace) -> None:
    place.write("pins/x", b"one")
    before = place.entries("pins")["pins/x"]
    place.write("pins/x", b"two")
    after = place.entries("pins")["pins/x"]
    assert (before.size, after.size) == (3, 3)
    assert before.tag != after.tag


def test_a_file_that_vanishes_while_it_is_listed_is_simply_not_there(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("evidence/a.json", b"")
    place.write("evidence/b.json", b"")
    lstat = Path.lstat

    def vanish(path: Path) -> os.stat_result:
        if path.name == "a.json":
            path.unlink()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanish)
    assert list(place.entries("evidence")) == ["evidence/b.json"]


def test_listing_while_others_write_never_fails(place: LocalPlace) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            place.write("evidence/x.json", b"x")
            place.delete(["evidence/x.json"])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _unused in range(300):
            place.entries("evidence")
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize(
    ("stored", "message"),
    [(b"dat", "has 3 bytes; the manifest says 4"), (b"dara", "SHA-256 differs"), (b"datas", "has 5 bytes")],
)
def test_content_that_is_not_what_the_manifest_says_is_found(
    place: LocalPlace, tmp_path: Path, stored: bytes, message: str
) -> None:
    file = write_set(place)
    (place.home / "sets" / ID / file.path).write_bytes(stored)
    with pytest.raises(DamagedError, match=message):
        place.check_file(ID, file)
    with pytest.raises(DamagedError, match=message):
        place.fetch(ID, file, tmp_path / "target")


def test_a_file_is_fetched_privately_with_progress(place: LocalPlace, tmp_path: Path) -> None:
    content = os.urandom(3 * 1024 * 1024 + 7)
    file = write_set(place, content=content)
    heard: list[int] = []
    place.fetch(ID, file, tmp_path / "target", progress=heard.append)
    assert (tmp_path / "target").read_bytes() == content
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o600
    assert sum(heard) == len(content)
    assert len(heard) > 1
    assert place.check_file(ID, file) == "read"
    with pytest.raises(FileExistsError):
        place.fetch(ID, file, tmp_path / "target")


def test_a_file_that_the_manifest_lists_but_nobody_stored_is_missing(place: LocalPlace) -> None:
    write_set(place)
    with pytest.raises(MissingError, match="gone"):
        place.check_file(ID, File("gone", 1, "0" * 64))


def pulled(place: LocalPlace, age: timedelta, set_id: str = ID) -> Path:
    """Make what a pull leaves that was killed when it had fetched a file, that long ago."""
    folder = place.home / "sets" / (".unfinished-pull-" + set_id)
    folder.mkdir(parents=True)
    (folder / "orders.dump").write_bytes(b"data")
    moment = (NOW - age).timestamp()
    for path in (folder / "orders.dump", folder):
        os.utime(path, (moment, moment))
    return folder


@pytest.mark.parametrize(("days", "stays"), [(6.9, True), (7.1, False)])
def test_what_a_broken_pull_fetched_waits_for_a_week(place: LocalPlace, days: float, stays: bool) -> None:
    folder = pulled(place, timedelta(days=days))
    assert visible(place) == []
    gone = {} if stays else {str(folder): 4}
    assert place.leftovers(NOW) == gone
    assert place.clear_leftovers(NOW) == gone
    assert folder.exists() == stays
    pulled(place, timedelta(days=days), "20261121T020000Z-logical")
    assert bool(place.clear_pulls(NOW, [ID, "20261121T020000Z-logical"])) == (not stays)


def test_what_a_broken_pull_fetched_goes_when_its_set_is_here_or_not_there_any_more(place: LocalPlace) -> None:
    folder = pulled(place, timedelta(0))
    assert place.clear_pulls(NOW, [ID]) == {}
    assert place.clear_pulls(NOW, []) == {str(folder): 4}
    folder = pulled(place, timedelta(0))
    write_set(place)
    assert place.leftovers(NOW) == {str(folder): 4}
    assert place.clear_pulls(NOW, [ID]) == {str(folder): 4}
    assert place.pulled(ID) is None


def test_what_was_fetched_to_repair_a_file_is_no_file_of_the_set_and_goes(place: LocalPlace) -> None:
    write_set(place)
    left = place.home / "sets" / ID / ".orders.dump.repair"
    left.write_bytes(b"half")
    assert len(visible(place)) == 2
    assert place.clear_leftovers(NOW) == {}, "a pull may be at work"
    assert left.exists()
    assert place.clear_leftovers(NOW, repairs=True) == {str(left): 4}
    left.write_bytes(b"half")
    assert place.clear_pulls(NOW, []) == {str(left): 4}
    assert len(list((place.home / "sets" / ID).iterdir())) == 2


@pytest.mark.parametrize(
    ("error", "stays"), [(KeyboardInterrupt, True), (RuntimeError, True), (OSError, False), (DamagedError, False)]
)
def test_a_pull_goes_on_with_what_it_had_unless_the_set_or_the_disk_was_wrong(
    place: LocalPlace, error: type[BaseException], stays: bool
) -> None:
    with pytest.raises(error), place.new_set(ID, go_on=True):
        raise error("nothing was fetched")
    assert list((place.home / "sets").iterdir()) == []
    with pytest.raises(error), place.new_set(ID, go_on=True) as folder:
        (folder / "orders.dump").write_bytes(b"data")
        raise error("something was")
    assert (place.pulled(ID) is not None) == stays
    assert visible(place) == []
    with place.new_set(ID, go_on=True) as folder:
        assert [path.name for path in folder.iterdir()] == (["orders.dump"] if stays else [])
        (folder / "manifest.json").write_bytes(b"{}")
    assert place.leftovers(NOW) == {}
