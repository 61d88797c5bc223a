# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed verification leaves is removed; what anybody else owns, lives in or runs is not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import throwaway


@pytest.fixture
def context(make_world: Any, tmp_path: Path) -> Context:
    """A run of an instance whose work_dir others use as well."""
    (tmp_path / "work").mkdir()
    found: Context = make_world(work_dir=str(tmp_path / "work")).context()
    return found


def leftover(context: Context, name: str, instance: str = "") -> Path:
    folder = Path(context.config.work_dir) / name
    folder.mkdir(mode=0o700)
    (folder / throwaway._MARKER).write_text(json.dumps({"instance": instance or context.config.instance, "pid": 1}))
    return folder


def server_files(folder: Path, pid: int, sockets: str = "/tmp/nothing") -> Path:
    data = folder / "data"
    data.mkdir()
    (data / "postmaster.pid").write_text("%d\n%s\n0\n5432\n%s\n" % (pid, data, sockets))
    return data


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that stand for servers; they are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def sleeper(sleepers: list[subprocess.Popen[bytes]], folder: Path) -> subprocess.Popen[bytes]:
    # It says when it has come to its folder, and reaps nothing: a shell would.
    code = "import sys, time; sys.stdout.write('x'); sys.stdout.flush(); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE)
    sleepers.append(process)
    assert process.stdout is not None and process.stdout.read(1) == b"x"
    return process


def test_what_nobody_lives_in_is_removed(context: Context) -> None:
    gone = [
        leftover(context, "verify-0001"),
        leftover(context, "pgops-verify-%s-0002" % context.config.instance),
    ]
    throwaway.clear_abandoned(context)
    assert not any(folder.exists() for folder in gone)
    assert len(context.warnings) == 2


def test_what_another_run_lives_in_stays(context: Context) -> None:
    folder = Path(context.config.work_dir) / "verify-0001"
    folder.mkdir(mode=0o700)
    with throwaway.claimed(context, folder):
        throwaway.clear_abandoned(context)
        assert folder.is_dir()
    throwaway.clear_abandoned(context)
    assert not folder.exists()


def test_what_belongs_to_another_instance_or_to_nobody_we_know_stays(context: Context) -> None:
    instance = context.config.instance
    kept = [
        leftover(context, "pgops-verify-%s-main-0001" % instance, instance + "-main"),
        leftover(context, "verify-0002", "other"),
        Path(context.config.work_dir) / "verify-0003",
        leftover(context, "verify-0004"),
        leftover(context, "verify-0005"),
    ]
    kept[2].mkdir()  # without a marker
    (kept[3] / throwaway._MARKER).write_text("")
    (kept[4] / throwaway._MARKER).unlink()
    (kept[4] / throwaway._MARKER).symlink_to(leftover(context, "elsewhere") / throwaway._MARKER)
    throwaway.clear_abandoned(context)
    assert all(folder.is_dir() for folder in kept) and context.warnings == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_a_stranger_owns_stays(context: Context) -> None:
    folder = leftover(context, "verify-0001")
    os.chown(folder, 54321, 54321)
    throwaway.clear_abandoned(context)
    assert folder.is_dir()


def test_our_own_state_needs_no_marker(context: Context) -> None:
    folder = context.state / "work" / "verify-0001"
    folder.mkdir(parents=True)
    throwaway.clear_abandoned(context)
    assert not folder.exists()


def test_the_process_that_serves_the_data_is_ended(
    context: Context, sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = leftover(context, "pgops-verify-%s-0001" % context.config.instance)
    process = sleeper(sleepers, server_files(folder, 0))
    (folder / "data" / "postmaster.pid").write_text("%d\n" % process.pid)
    throwaway.clear_abandoned(context)
    assert process.wait(timeout=60) != 0 and not folder.exists()


def test_a_process_that_happens_to_have_its_number_lives_on(
    context: Context, sleepers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = sleeper(sleepers, tmp_path)
    folder = leftover(context, "pgops-verify-%s-0001" % context.config.instance)
    server_files(folder, process.pid)
    throwaway.clear_abandoned(context)
    assert process.poll() is None and not folder.exists()


def test_data_that_are_a_link_to_a_real_server_are_not_followed(
    context: Context, sleepers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    process = sleeper(sleepers, server_files(tmp_path / "real", 0))
    (tmp_path / "real" / "data" / "postmaster.pid").write_text("%d\n" % process.pid)
    folder = leftover(context, "verify-0001")
    (folder / "data").symlink_to(tmp_path / "real" / "data")
    throwaway.clear_abandoned(context)
    assert process.poll() is None and (tmp_path / "real" / "data" / "postmaster.pid").exists()


def test_only_our_own_socket_directory_is_removed(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throwaway, "_sockets_base", lambda: tmp_path)
    for number, (path, stays) in enumerate(
        [
            (tmp_path / "pgops-socket-1", False),
            (tmp_path / "deep" / "pgops-socket-2", True),
            (tmp_path / "other", True),
        ]
    ):
        path.mkdir(parents=True)
        server_files(leftover(context, "verify-%04d" % number), 0, str(path))
        throwaway.clear_abandoned(context)
        assert path.is_dir() == stays


@pytest.mark.parametrize("content", ["", "nonsense\n", "99999999\n", "\0\0\0"])
def test_a_broken_file_of_a_server_blocks_nothing(context: Context, content: str) -> None:
    folder = leftover(context, "verify-0001")
    (server_files(folder, 0) / "postmaster.pid").write_text(content)
    after = leftover(context, "verify-0002")
    throwaway.clear_abandoned(context)
    assert not after.exists() and context.warnings


@pytest.mark.parametrize("marker", [None, ""])
def test_a_folder_of_a_run_that_was_killed_before_it_said_whose_it_is_goes(
    context: Context, marker: str | None
) -> None:
    shared = Path(context.config.work_dir)
    mine = shared / ("pgops-verify-%s-abcd_123" % context.config.instance)
    others = shared / ("pgops-verify-%s-1-abcd_123" % context.config.instance)
    full = shared / ("pgops-verify-%s-abcd_124" % context.config.instance)
    for folder in (mine, others, full):
        folder.mkdir(mode=0o700)
        if marker is not None:
            (folder / "pgops.json").write_text(marker)
    (full / "what").write_text("is this")
    throwaway.clear_abandoned(context)
    assert (mine.exists(), others.exists(), full.exists()) == (False, True, True)
