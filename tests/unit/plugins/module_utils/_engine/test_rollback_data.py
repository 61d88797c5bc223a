# SPDX-License-Identifier: GPL-3.0-or-later
"""A recovery in place is undone: the kept data directory gets its place back, and nothing is lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import debian
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import unproven as unproven_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import rollback_data as module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rollback_data import Request, rollback_data


def lay_out(root: Path, *names: str) -> Path:
    for name in ("main", *names):
        (root / name).mkdir()
        (root / name / "PG_VERSION").write_text("17\n")
        (root / name / "of").write_text(name)
    return root / "main"


def said(data: Path) -> str:
    return (data / "of").read_text()


def test_the_newest_kept_one_comes_back_and_the_other_is_kept(world: Any, tmp_path: Path) -> None:
    names = ("main.before-20261121T090000Z", "main.before-20261122T070000Z", "main.before-20261122T070000Z-10")
    data = lay_out(
        tmp_path, *names, "main.before-20261122T070000Z-9", "main.before-noon", "other.before-20261123T000000Z"
    )
    asked = Request(str(data), dry_run=True)
    planned = rollback_data(world.context(), asked)
    assert planned["kept"] == str(data) + ".before-20261122T070000Z-10"
    assert said(data) == "main", "a dry run touches nothing"
    context = world.context()
    result = rollback_data(context, Request(str(data)))
    assert {**planned, "changed": True} == result
    assert said(data) == names[2]
    assert result["aside"] == str(data) + ".rolled-back-20261122T080000Z"
    assert said(Path(result["aside"])) == "main"
    assert any("remove it when nobody needs it" in text for text in context.warnings)
    # And back again, in the same second, by name.
    again = rollback_data(world.context(), Request(str(data), kept=result["aside"]))
    assert (said(data), again["aside"]) == ("main", str(data) + ".rolled-back-20261122T080000Z-2")


def test_what_a_recovery_left_that_was_cut_short_is_not_what_was_there_before(world: Any, tmp_path: Path) -> None:
    """It was killed behind its renames, and the next one kept its copy, which was never proven; it can still be named."""
    data = lay_out(tmp_path, "main.before-20261121T090000Z", "main.before-20261122T070000Z")
    unproven = tmp_path / "main.before-20261122T070000Z"
    (unproven / unproven_module.MARK).write_text("%s\n" % data)
    assert rollback_data(world.context(), Request(str(data), dry_run=True))["kept"].endswith("20261121T090000Z")
    named = Request(str(data), kept=str(unproven), dry_run=True)
    assert rollback_data(world.context(), named)["kept"] == str(unproven)
    (unproven / unproven_module.MARK).write_text("/elsewhere\n")
    assert rollback_data(world.context(), Request(str(data), dry_run=True))["kept"] == str(unproven)


def test_a_service_is_named_and_a_server_that_runs_is_in_the_way(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lay_out(tmp_path, "main.before-20261122T070000Z")
    cluster = debian.Cluster("17", "main", tmp_path / "postgresql.conf")
    monkeypatch.setattr(module, "cluster_of", lambda _data: cluster)
    (data / "postmaster.pid").write_text("%d\n" % os.getpid())
    # After a power loss the number may be anybody's, here ours.
    assert rollback_data(world.context(), Request(str(data), dry_run=True))["served"] is False
    monkeypatch.chdir(data)  # where a server lives
    assert rollback_data(world.context(), Request(str(data), dry_run=True))["served"] is True
    with pytest.raises(RefusedError, match="A server runs on") as caught:
        rollback_data(world.context(), Request(str(data)))
    assert "systemctl stop postgresql@17-main" in caught.value.hint
    assert said(data) == "main"


def test_what_is_not_there_cannot_come_back(world: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="There is no data directory"):
        rollback_data(world.context(), Request(str(tmp_path / "main")))
    with pytest.raises(MissingError, match="There is no data directory"):
        rollback_data(world.context(), Request(str(tmp_path / "nowhere" / "main")))
    data = lay_out(tmp_path)
    with pytest.raises(MissingError, match="that was kept of"):
        rollback_data(world.context(), Request(str(data)))
    for named in (tmp_path / "nothing", Path("/")):
        with pytest.raises((MissingError, UsageError)):
            rollback_data(world.context(), Request(str(data), kept=str(named)))
    for path in ("main", "%s/../main" % data):
        with pytest.raises(UsageError, match="path from the root"):
            rollback_data(world.context(), Request(path))
    (data / "PG_VERSION").unlink()
    with pytest.raises(MissingError, match="is no data directory"):
        rollback_data(world.context(), Request(str(data)))


def test_a_run_that_was_killed_between_its_renames_is_ended(world: Any, tmp_path: Path) -> None:
    """That of the recovery, or that of an earlier rollback: there is nothing to put aside."""
    data = lay_out(tmp_path, "main.before-20261122T070000Z")
    data.rename(tmp_path / "main.rolled-back-20261122T075900Z")
    planned = rollback_data(world.context(), Request(str(data), dry_run=True))
    assert not data.exists()
    context = world.context()
    assert rollback_data(context, Request(str(data))) == planned
    assert (planned["aside"], planned["kept"]) == ("", str(data) + ".before-20261122T070000Z")
    assert said(data) == "main.before-20261122T070000Z"
    assert context.warnings == []


def test_only_what_was_kept_of_it_or_is_of_the_same_cluster_gets_its_place(world: Any, tmp_path: Path) -> None:
    data = lay_out(tmp_path, "other", "other.before-20261122T070000Z")
    for path, identifier in ((data, 7312345678901234567), (tmp_path / "other", 7312345678901234568)):
        (path / "global").mkdir()
        (path / "global" / "pg_control").write_bytes(identifier.to_bytes(8, sys.byteorder))
    for wrong in ("other", "other.before-20261122T070000Z"):
        with pytest.raises(RefusedError, match="is of another cluster"):
            rollback_data(world.context(), Request(str(data), kept=str(tmp_path / wrong)))
    assert said(data) == "main"
    (tmp_path / "other" / "global" / "pg_control").write_bytes((data / "global" / "pg_control").read_bytes())
    rollback_data(world.context(), Request(str(data), kept=str(tmp_path / "other")))
    assert said(data) == "other"


def test_a_symbolic_link_is_no_data_directory(world: Any, tmp_path: Path) -> None:
    real = lay_out(tmp_path, "main.before-20261122T070000Z")
    real.rename(tmp_path / "real")
    real.symlink_to(tmp_path / "real")
    with pytest.raises(RefusedError, match="is a symbolic link") as caught:
        rollback_data(world.context(), Request(str(real)))
    assert str(tmp_path / "real") in caught.value.hint


def test_when_the_kept_one_cannot_be_renamed_all_is_as_it_was(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lay_out(tmp_path, "main.before-20261122T070000Z")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if ".before-" in self.name:
            raise OSError("it cannot")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="it cannot"):
        rollback_data(world.context(), Request(str(data)))
    assert said(data) == "main"


def test_a_mount_point_cannot_be_renamed(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lay_out(tmp_path, "main.before-20261122T070000Z")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(data))
    with pytest.raises(RefusedError, match="mount point"):
        rollback_data(world.context(), Request(str(data)))
