# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recovery left that was cut short: known by its marks, told from what somebody may have written into, and removed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import recovering, unproven
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.fencing import CopyLogin
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.recovering import started_here
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.unproven import (
    MARK,
    clear,
    is_marked,
    is_rest,
    mark,
    rests,
    size_of,
    unfinished,
    unmark,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Postgres
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import recover, recovery_plan


def test_a_program_of_a_killed_run_that_still_writes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tar does for a moment, until it hears that nothing comes any more."""
    folder = tmp_path / "unfinished"
    mark(folder, tmp_path / "data", "")
    (folder / "base").mkdir()
    rmdir, late = os.rmdir, iter(["base/1", "base/2", "3"])

    def written_meanwhile(path: Any, **options: Any) -> None:
        name = next(late, "")
        if name:
            (folder / name).write_bytes(b"x")
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", written_meanwhile)
    monkeypatch.setattr(unproven, "_POLL_SECONDS", 0.001)
    with pytest.raises(OSError, match="not empty"):
        clear(folder, whole=True)
    assert is_marked(folder, tmp_path / "data")
    clear(folder, whole=True, patience=60)
    assert next(late, "") == ""
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        clear(folder, whole=True, patience=60)


def test_a_mark_names_the_data_directory_and_goes_when_it_is_proven(tmp_path: Path) -> None:
    data, far = tmp_path / "data", tmp_path / "far away"
    for path in (data, far):
        mark(path, data, "")
        assert is_marked(path, data)
        assert not is_marked(path, tmp_path / "other")
        assert path.stat().st_mode & 0o777 == 0o700
    unmark([far, data])
    assert list(data.iterdir()) == list(far.iterdir()) == []
    assert not is_marked(data, data)
    unmark([far, data])
    assert not is_marked(tmp_path / "nothing", data)


def test_what_somebody_may_have_written_into_is_no_rest(tmp_path: Path) -> None:
    data = tmp_path / "data"
    mark(data, data, "")
    assert is_rest(data), "never started"
    (data / "postmaster.opts").write_text("postgres")
    assert not is_rest(data), "promoted"
    (data / "recovery.signal").write_text("")
    assert is_rest(data), "it still recovers"
    unmark([data])
    assert not is_rest(data), "not ours"


def test_tablespaces_go_with_the_data_directory_that_they_were_filled_for(tmp_path: Path) -> None:
    data, far, near, theirs = (tmp_path / name for name in ("data", "far", "near", "theirs"))
    mark(far, data, "")
    mark(theirs, tmp_path / "other", "")
    near.mkdir()
    asked = [near, far, theirs]
    assert rests(data, asked) == [], "nothing tells that it was cut short"
    mark(unfinished(data), data, "")
    assert rests(data, asked) == [far, unfinished(data)]
    mark(data, data, "")
    assert rests(data, asked) == [far, unfinished(data), data]
    (data / "postmaster.opts").write_text("postgres")
    clear(unfinished(data))
    unfinished(data).rmdir()
    assert rests(data, asked) == [], "what was promoted may be used, and its tablespaces with it"


def test_what_is_removed_half_is_still_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    mark(data, data, "")
    (data / "base").mkdir()
    (data / "base" / "1").write_bytes(bytes(100_000))
    (data / "link").symlink_to(tmp_path)
    for name in ("PG_VERSION", "zzz"):
        (data / name).write_text("18")
    assert size_of(data) >= 100_000
    removed: list[str] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 1:
            raise KeyboardInterrupt
        removed.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        clear(data)
    monkeypatch.undo()
    assert is_marked(data, data)
    clear(data)
    assert list(data.iterdir()) == []
    assert tmp_path.is_dir(), "a link is removed, not what it leads to"


def failed_work(data: Path, far: Path) -> Any:
    asked = recover.Request(Target("end"), str(data), mode="in_place")
    return recovery_plan.Work(asked, [], *[None] * 2, None, "", {"17": far}, "", True, [])  # type: ignore[arg-type]


def killed_after(count: int) -> Any:
    """Return a `Path.unlink` that removes so many files, and is killed at the next one."""
    left, unlink = [count], Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    return killed


def test_a_kill_while_a_failed_recovery_is_undone_leaves_what_is_known(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each file that it removes: the next run knows all that is left, or the old data directory has its name again."""
    for survived in range(1, 40):
        data, far = tmp_path / str(survived) / "data", tmp_path / str(survived) / "far"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("old")
        unpacked = unfinished(data)
        for path in (unpacked, far):
            mark(path, data, "")
            for name in ("PG_VERSION", "recovery.signal", "postmaster.opts"):
                (path / name).write_text("new")
        (unpacked / "recovery.signal").unlink()  # it was promoted before it failed
        undo = contextlib.ExitStack()
        kept = recover._put_in_place(world.context(), failed_work(data, far), unpacked, undo)
        recovery = recover.Recovery(world.context(), None, data, "", None)  # type: ignore[arg-type]
        undo.callback(recover._throw_away, world.context(), recovery, undo, kept)
        with monkeypatch.context() as patched:
            patched.setattr(recover.Recovery, "abandon", lambda _recovery: True)
            patched.setattr(Path, "unlink", killed_after(survived))
            try:
                # One by one: behind a kill nothing runs any more.
                for _sync, callback in reversed(undo.pop_all()._exit_callbacks):  # type: ignore[attr-defined]
                    callback(None, None, None)
            except KeyboardInterrupt:
                assert is_rest(data), survived
                assert not any(far.iterdir()) or is_marked(far, data), survived
                assert far in rests(data, [far]) or not any(far.iterdir()), survived
                continue
        assert (data / "PG_VERSION").read_text() == "old"
        assert not any(far.iterdir())
        break
    else:
        pytest.fail("It was never undone.")
    assert survived > 5


def test_a_kill_between_the_two_renames_is_known(tmp_path: Path) -> None:
    data, far = tmp_path / "data", tmp_path / "far"
    work = failed_work(data, far)
    work.replaces = False
    recovery_plan._check_moved(work)
    assert (work.replaces, work.refusals) == (False, [])
    kept = tmp_path / "data.before-20261122T080000Z"
    kept.mkdir()
    (kept / "PG_VERSION").write_text("18")
    mark(unfinished(data), data, "")
    recovery_plan._check_moved(work)
    assert work.replaces
    assert "was renamed to %s by a recovery that was cut short" % kept in work.refusals[0]
    confirmed = recover.Request(Target("end"), str(data), mode="in_place", confirm=str(data))
    work = dataclasses.replace(work, request=confirmed, refusals=[])
    recovery_plan._check_moved(work)
    assert work.refusals == []


def test_each_mark_that_cannot_be_taken_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, far = tmp_path / "data", tmp_path / "far"
    for path in (data, far):
        mark(path, data, "")
    real = recover.unmark

    def refused(folders: Any) -> None:
        if folders == [far]:
            raise OSError(30, "Read-only file system")
        real(folders)

    monkeypatch.setattr(recover, "unmark", refused)
    (said,) = recover._proven(failed_work(data, far))
    assert "Remove %s (Read-only file system)." % (far / MARK) in said
    assert not is_marked(data, data)


@pytest.mark.parametrize(
    ("answer", "state", "raised"),
    [
        ('FATAL: role "late" does not exist', "standby ", "existed at that moment"),
        ("FATAL: the database system is starting up", "standby ", ""),
        ("FATAL: sorry, too many clients already", "ready   ", ""),
        ('FATAL: role "late" does not exist', "starting", ""),
    ],
)
def test_a_login_that_is_refused_for_good_ends_the_wait(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, state: str, raised: str
) -> None:
    (tmp_path / "postmaster.pid").write_text("1\n%s\n0\n5432\n/s\n\n1 2\n%s\n" % (tmp_path, state))
    asked: list[int] = []

    def session(_recovery: Any) -> Any:
        asked.append(1)
        if len(asked) > 20:
            raise KeyboardInterrupt  # it goes on
        raise UnreachableError(answer)

    monkeypatch.setattr(recovering.Recovery, "session", session)
    monkeypatch.setattr(recovering.Recovery, "runs", lambda _recovery: True)
    monkeypatch.setattr(recovering, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(recovering, "_REFUSED_SECONDS", 0.0)
    waiting = recovering.Recovery(world.context(), None, tmp_path, "", None)  # type: ignore[arg-type]
    with pytest.raises(UnreachableError if raised else KeyboardInterrupt) as caught:
        waiting.wait()
    if raised:
        assert answer in str(caught.value)
        assert raised in caught.value.hint


def test_what_a_configuration_includes_and_this_host_lacks(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering.Recovery, "runs", lambda _recovery: False)
    monkeypatch.setattr(recovering, "_BEGIN_SECONDS", 0.0)
    waiting = recovering.Recovery(world.context(), None, tmp_path, "", None)  # type: ignore[arg-type]
    waiting.log.write_text(
        'LOG:  could not open configuration directory "/etc/more": No such file or directory\n'
        'FATAL:  configuration file "/srv/copy/postgresql.conf" contains errors\n'
    )
    with pytest.raises(UnreachableError, match='directory "/etc/more"') as caught:
        waiting.wait()
    assert "for a copy empty ones do" in caught.value.hint


@pytest.mark.parametrize("why", ["does not exist", "is not permitted to log in"])
def test_a_first_superuser_that_was_renamed_or_locked(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    (tmp_path / "postmaster.pid").write_text("1\n%s\n0\n5432\n/s\n\n1 2\nready   \n" % tmp_path)
    asked: list[str] = []

    def connect(where: Postgres, _databases: Any) -> Any:
        asked.append(where.login_user)
        if where.login_user != "admin":
            raise UnreachableError('FATAL:  role "%s" %s' % (where.login_user, why))
        return where

    monkeypatch.setattr(recovering, "connect_any", connect)
    known: Any = (world.context(), None, tmp_path, "", Postgres(login_user="postgres"))
    assert recovering.Recovery(*known, second="admin").session().login_user == "admin"  # type: ignore[attr-defined]
    assert asked == ["postgres", "admin"]
    with pytest.raises(UnreachableError, match='role "gone" %s' % why):
        recovering.Recovery(*known, second="gone").session()
    with pytest.raises(UnreachableError, match='role "postgres" %s' % why):
        recovering.Recovery(*known).session()


def test_a_second_login_that_is_no_superuser(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not choose what its sessions load, and need not."""
    (tmp_path / "postmaster.pid").write_text("1\n%s\n0\n5432\n/s\n\n1 2\nready   \n" % tmp_path)

    def connect(where: Postgres, _databases: Any) -> Any:
        if where.login_user != "backup":
            raise UnreachableError('FATAL:  role "%s" is not permitted to log in' % where.login_user)
        if where.options:
            raise UnreachableError('FATAL:  permission denied to set parameter "session_preload_libraries"')
        return where

    monkeypatch.setattr(recovering, "connect_any", connect)
    known: Any = (world.context(), None, tmp_path, "", CopyLogin(login_user="postgres"))
    found: Any = recovering.Recovery(*known, second="backup").session()
    assert (found.login_user, found.options) == ("backup", "")


def test_a_server_that_cannot_even_write_why_it_ended(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log lies on the disk that is full."""
    monkeypatch.setattr(recovering.Recovery, "runs", lambda _recovery: False)
    monkeypatch.setattr(recovering, "_BEGIN_SECONDS", 0.0)
    monkeypatch.setattr(recovering, "_POLL_SECONDS", 0.001)
    waiting = recovering.Recovery(world.context(), None, tmp_path, "", None)  # type: ignore[arg-type]
    waiting.log.touch()
    monkeypatch.setattr(recovering, "free_bytes", lambda _path: 4096)
    with pytest.raises(UnreachableError, match=r"could not say why: the disk of .* is full"):
        waiting.wait()
    monkeypatch.setattr(recovering, "free_bytes", lambda _path: 1 << 30)
    with pytest.raises(UnreachableError, match="before it had recovered: "):
        waiting.wait()


def test_a_file_that_goes_meanwhile_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").write_bytes(bytes(100_000))
    monkeypatch.setattr(unproven.os, "lstat", lambda path: os.stat(path + ".gone"))
    assert size_of(tmp_path) == 0


def test_the_parent_of_a_mount_point_need_not_be_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(path: Path) -> None:
        if path == tmp_path:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(unproven, "sync_dir", theirs)
    mark(tmp_path / "data", tmp_path / "data", "")
    assert (tmp_path / "data" / MARK).is_file()


def test_who_started_the_server_last(tmp_path: Path) -> None:
    """What systemd started it starts anew, so it must be told to stop; our own is ended by us."""
    assert not started_here(tmp_path)
    options = '"-c" "lc_messages=C" "-c" "log_min_messages=warning" "-c" "logging_collector=off" "-c" "log_destination=stderr"'
    (tmp_path / "postmaster.opts").write_text('/usr/bin/postgres "-D" "/data" %s "-c" "port=5"\n' % options)
    assert started_here(tmp_path)
    (tmp_path / "postmaster.opts").write_text('/usr/bin/postgres "-D" "/data" "-c" "config_file=/etc/x.conf"\n')
    assert not started_here(tmp_path)


def test_what_is_promoted_or_does_not_end_meanwhile_is_not_removed(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, far = tmp_path / "data", tmp_path / "far"
    for path in (data, far):
        mark(path, data, "")
    (data / "postmaster.opts").write_text("postgres")
    asked = recover.Request(Target("end"), str(data), mode="in_place")
    work = recovery_plan.Work(asked, [], *[None] * 2, None, "", {"17": far}, "", True, [], rests=[far, data])  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="was promoted meanwhile"):
        recover._clear_rests(world.context(), work)
    monkeypatch.setattr(recover, "is_served", lambda path: path == data)
    monkeypatch.setattr(recover.Recovery, "abandon", lambda _recovery: False)
    with pytest.raises(RefusedError, match="does not end"):
        recover._clear_rests(world.context(), work)
    assert is_marked(far, data)
    assert is_marked(data, data)
