# SPDX-License-Identifier: GPL-3.0-or-later
"""A recovery in place is undone: the kept data directory gets its place back, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import debian
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


def test_a_service_is_named_and_a_server_that_runs_is_in_the_way(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lay_out(tmp_path, "main.before-20261122T070000Z")
    cluster = debian.Cluster("17", "main", tmp_path / "postgresql.conf")
    monkeypatch.setattr(module, "cluster_of", lambda _data: cluster)
    (data / "postmaster.pid").write_text("%d\n" % os.getpid())
    assert rollback_data(world.context(), Request(str(data), dry_run=True))["served"] is True
    with pytest.raises(RefusedError, match="A server runs on") as caught:
        rollback_data(world.context(), Request(str(data)))
    assert "systemctl stop postgresql@17-main" in caught.value.hint
    assert said(data) == "main"


def test_what_is_not_there_cannot_come_back(world: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="There is no data directory"):
        rollback_data(world.context(), Request(str(tmp_path / "main")))
    data = lay_out(tmp_path)
    with pytest.raises(MissingError, match="that was kept of"):
        rollback_data(world.context(), Request(str(data)))
    for named in (tmp_path / "nothing", Path("/")):
        with pytest.raises((MissingError, UsageError)):
            rollback_data(world.context(), Request(str(data), kept=str(named)))
    with pytest.raises(UsageError, match="path from the root"):
        rollback_data(world.context(), Request("main"))


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
