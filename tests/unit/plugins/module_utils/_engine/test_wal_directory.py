# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_wal outside of the data directory: where a server has it, and where that of a recovered one may not lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Base, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import wal_directory
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.unproven import mark
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.wal_directory import refusals
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Postgres
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import recovery_plan, settling

SYSTEM = "7312345678901234567"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with its WAL on a disk of its own."""
    made, disk = tmp_path / "data", tmp_path / "disk"
    (made / "global").mkdir(parents=True)
    (made / "global" / "pg_control").write_bytes(int(SYSTEM).to_bytes(8, "little"))
    (made / "PG_VERSION").write_text("18\n")
    (disk / "archive_status").mkdir(parents=True)
    (made / "pg_wal").symlink_to("../disk")
    return made


def test_where_a_server_has_its_wal(data: Path) -> None:
    assert wal_directory.of_server(str(data), SYSTEM) == str(data.parent / "disk")
    assert wal_directory.of_server(str(data), "7312345678901234568") is None, (
        "another server's directory, of the same name"
    )
    assert wal_directory.of_server("", SYSTEM) is wal_directory.of_server("/nonexistent", SYSTEM) is None
    (data / "pg_wal").unlink()
    (data / "pg_wal").mkdir()
    assert wal_directory.of_server(str(data), SYSTEM) == ""


@pytest.mark.parametrize(
    ("host", "here"), [(None, True), ("", True), ("localhost", True), ("/run/sockets", True), ("db2", False)]
)
def test_a_server_elsewhere_may_have_a_directory_of_the_same_name(host: str, here: bool) -> None:
    assert settling.on_this_host(Postgres(login_host=host)) is here


def refused(place: Path, data: Path, *taken: Path) -> str:
    found = refusals(place, data, taken)
    assert len(found) < 2, "one sentence says it"
    return found[0] if found else ""


def test_it_lies_in_a_directory_of_its_own(data: Path, tmp_path: Path) -> None:
    copy, far = tmp_path / "copy", tmp_path / "far"
    assert refused(tmp_path / "wal", copy, far) == ""
    (tmp_path / "wal").mkdir()
    assert refused(tmp_path / "wal", copy, far) == ""
    for place, said in [
        (copy, "cannot lie in"),
        (copy / "wal", "as %s does" % copy),
        (tmp_path, "as %s does" % copy),
        (tmp_path / ".copy.pgops-unfinished" / "wal", "cannot lie in"),
        (far, "as %s does" % far),
        (tmp_path / "disk" / "copy", "lies inside %s, which is a server's" % (tmp_path / "disk")),
        (data / "copy", "lies inside %s, which is a server's" % data),
        (tmp_path / "disk", "is not empty"),
        (tmp_path / "nothing" / "wal", "%s does not exist" % (tmp_path / "nothing")),
    ]:
        assert said in refused(place, copy, far), place
    (tmp_path / "file").touch()
    assert "is no directory" in refused(tmp_path / "file", copy, far)
    (tmp_path / "link").symlink_to(tmp_path / "wal")
    assert "name the directory itself, %s" % (tmp_path / "wal") in refused(tmp_path / "link", copy, far)


def test_in_place_that_of_the_server_stays_with_it(data: Path, tmp_path: Path) -> None:
    assert "needs that" in refused(tmp_path / "disk", data)
    assert "needs that" in refused(tmp_path / "disk" / "new", data)
    assert refused(tmp_path / "wal", data) == ""


def test_what_a_recovery_left_that_was_cut_short_may_be_filled_anew(tmp_path: Path) -> None:
    data, wal = tmp_path / "data", tmp_path / "wal"
    for path in (data, wal):
        mark(path, data, "")
    (data / "pg_wal").symlink_to(wal)
    (wal / "000000010000000000000001").touch()
    assert refused(wal, data) == ""
    assert "is not empty" in refused(wal, tmp_path / "another")


def test_who_may_not_write_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wal").mkdir()
    with monkeypatch.context() as patched:  # as it is group-writable, and somebody else's
        patched.setattr(wal_directory.os, "geteuid", lambda: (tmp_path / "wal").stat().st_uid + 1)
        assert "/wal does not belong to this account" in refused(tmp_path / "wal", tmp_path / "data")
        assert refused(tmp_path / "new", tmp_path / "data") == ""
    monkeypatch.setattr(wal_directory.os, "access", lambda *_unused: False)
    assert "/wal does not belong to this account" in refused(tmp_path / "wal", tmp_path / "data")


@pytest.mark.parametrize("before", [None, "", "/disk/main"])
def test_a_passing_copy_is_told_of_to_nobody(before: Any, tmp_path: Path) -> None:
    base = Base(Payload("x", "tar"), "2026-11-22T08:00:00+00:00", 1, 1 << 24, 0, True, "SHA256", wal_directory=before)

    def said(**asked: Any) -> list[str]:
        request = recovery_plan.Request(Target("end"), str(tmp_path / "data"), **asked)
        nothing: Any = None
        work = recovery_plan.Work(request, [], base, nothing, nothing, "", {}, "", False, [])
        return list(recovery_plan._wal_inside(work))

    assert [("pg_wal leads to /disk/main" in text, "--waldir DIR" in text) for text in said()] == [(True, True)] * bool(
        before
    )
    assert said(passing=True) == said(wal_directory="/disk/copy") == []


@pytest.mark.parametrize("names", [[], ["000000010000000000000001", "--help", "archive_status", ".pgops"]])
def test_all_of_it_is_moved_whatever_it_is_called(
    world: Any, tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_directory, "_AT_ONCE", 3)
    inner, place = tmp_path / "data" / "pg_wal", tmp_path / "a place"
    inner.mkdir(parents=True)
    place.mkdir()
    place.chmod(0o777)
    for name in names:
        (inner / name).mkdir() if "status" in name else (inner / name).write_text(name)
    wal_directory.move(world.context(), tmp_path / "data", place, "")
    assert inner.readlink() == place
    assert place.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in inner.iterdir()) == sorted(names)
