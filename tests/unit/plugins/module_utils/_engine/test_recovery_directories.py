# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a recovery lays things: what its account cannot make is told before anything is touched."""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Base, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.tools import Programs
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Config, Restore
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import recover, recovery_plan, restore_command


def work_of(data: Path, locations: dict[str, Path], **asked: Any) -> recovery_plan.Work:
    """What would be done; only its directories are looked at."""
    base = Base(Payload("x", "tar"), "2026-11-22T08:00:00+00:00", 1, 1 << 24, 0, True, "SHA256")
    nothing: Any = None
    request = recovery_plan.Request(Target("end"), str(data), **asked)
    return recovery_plan.Work(request, [], base, nothing, nothing, "", locations, "", False, [])


def test_directories_that_only_root_can_make_are_told_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    locations = {"1": there, "2": tmp_path / "far", "3": tmp_path / "no" / "parent"}
    work = work_of(tmp_path / "data", locations, wal_directory=str(tmp_path / "wal"))
    work.places = {"/later": str(tmp_path / "later"), "/again": str(tmp_path / "far")}
    recovery_plan._check_rights(work)
    assert (work.to_make, work.refusals) == ([], [])
    monkeypatch.setattr(recovery_plan.os, "access", lambda path, _mode: path != tmp_path)
    recovery_plan._check_rights(work)
    assert work.to_make == [tmp_path / name for name in ("data", "far", "later", "wal")]
    assert work.refusals == [
        "%s does not belong to this account, so %s cannot be made in it: make it first, as this account's."
        % (tmp_path, name)
        for name in ("data", "far", "later", "wal")
    ]


def test_a_directory_of_the_socket_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str, **asked: Any) -> list[str]:
        return [*recovery_plan.closed_sockets(work_of(tmp_path, {}, socket_directory=name, **asked).request)]

    shut, opened = tmp_path / "shut", tmp_path / "opened"
    shut.mkdir(mode=0o700)
    opened.mkdir(mode=0o700)
    opened.chmod(0o750)
    (tmp_path / "file").touch()
    assert said("") == said(str(shut)) == said(str(tmp_path / "new")) == []
    assert said(str(opened), mode="in_place") == []  # it has a private one until it is proven
    assert "name a directory of mode 0700" in said(str(opened))[0]
    assert "is no directory" in said(str(tmp_path / "file"))[0]
    assert "%s does not exist" % (tmp_path / "no") in said(str(tmp_path / "no" / "sockets"))[0]
    monkeypatch.setattr(recovery_plan.os, "access", lambda *_unused: False)
    for name in ("new", "shut"):
        assert "does not belong to this account" in said(str(tmp_path / name))[0]


def test_a_directory_of_the_socket_that_somebody_made_meanwhile_is_not_taken(tmp_path: Path) -> None:
    """The plan has looked before everything was unpacked; whoever reaches the socket may do everything in the copy."""
    sockets = tmp_path / "sockets"
    work = work_of(tmp_path, {}, socket_directory=str(sockets))
    with contextlib.ExitStack() as undo:
        assert recover._sockets(work, undo) == sockets
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()
    sockets.mkdir()
    sockets.chmod(0o777)
    with contextlib.ExitStack() as undo, pytest.raises(RefusedError, match="Others can reach the socket"):
        recover._sockets(work, undo)
    assert sockets.is_dir()


@pytest.mark.parametrize(("version", "off"), [("16.9", False), ("17.1", True)])
def test_no_event_trigger_hears_of_us_before_the_server_itself_is_proven(
    tmp_path: Path, version: str, off: bool
) -> None:
    """One that writes turns everybody away as long as the server recovers."""
    work = work_of(tmp_path / "data", {}, mode="in_place")
    work.chain = [SimpleNamespace(manifest=SimpleNamespace(roles=None))]  # type: ignore[list-item]
    work.programs = Programs(tmp_path, version)
    context: Any = SimpleNamespace(config=Config())
    options = recover._recovery(context, work, None, tmp_path, {}).options
    assert ("-c event_triggers='off'" in options) is off
    assert "-c listen_addresses=''" in options


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as another account")
def test_a_private_key_that_the_account_of_the_server_cannot_read_is_told() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        folder, key = Path(name), Path(name) / "its key.txt"
        folder.chmod(0o755)
        key.write_text("AGE-SECRET-KEY")
        key.chmod(0o600)
        context: Any = SimpleNamespace(config=Config(restore=Restore(identity_file=str(key))), runner=Runner())
        manifest: Any = SimpleNamespace(encryption="age")

        def said(account: str) -> list[str]:
            return [*restore_command.key_is_shut(context, manifest, account)]

        assert said("") == []  # the server has our own account, and check_key() has read it
        (refusal,) = said("nobody")
        assert "install -m 600 -o nobody '%s' /run/pgops-key.txt" % key in refusal
        os.chown(key, nobody.pw_uid, nobody.pw_gid)
        assert said("nobody") == []
        key.unlink()
        manifest.encryption = "none"
        assert said("nobody") == []
