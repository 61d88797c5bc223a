# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on a host: laid down whole, replaced in one step, and never taken from under somebody who runs it."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import __version__, identity
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.invocation import program_path
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.options import VERBS
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import program as host_program
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.program import (
    Paths,
    in_order,
    lay_down,
    take_away,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.rotation import Rotation


def paths(root: Path, **others: Any) -> Paths:
    return Paths(
        **{
            "lib": root / "lib" / "pgops",
            "bin": root / "bin" / "pgops",
            "completion": root / "completions" / "pgops",
            "man": root / "man" / "pgops.1.gz",
            "python": sys.executable,
            **others,
        }
    )


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("laid")
    lay_down(Host(), paths(root))
    return root


@pytest.fixture
def root(laid: Path, tmp_path: Path) -> Path:
    """A copy of a host with the program, where a test may do what it likes."""
    copy = tmp_path / "host"
    shutil.copytree(laid, copy, symlinks=True)
    for name in ("pgops", "pgops-wal"):
        launcher = copy / "bin" / name
        launcher.write_text(launcher.read_text().replace(str(laid), str(copy)))
    return copy


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(root / "bin" / "pgops"), *words], capture_output=True, text=True, check=False, env={})


def age(root: Path, version: str = "0.0.9") -> Path:
    """Turn the version that is laid down into an older one, which is current."""
    current = root / "lib" / "pgops" / "current"
    old = current.parent / ("%s-0123456789ab" % version)
    current.resolve().rename(old)
    init = old / "pgops" / "__init__.py"
    init.write_text(init.read_text().replace(__version__, version))
    current.unlink()
    current.symlink_to(old.name)
    return old


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_digest_is_the_same_from_a_folder_and_from_a_zip_file(tmp_path: Path) -> None:
    archive = tmp_path / "engine.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in identity.own_files().items():
            packed.writestr("pgops/%s" % name, content)
    code = "from pgops.identity import digest, own_files; print(digest(own_files()))"
    said = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, sys.argv[1]); " + code, str(archive)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == identity.digest(identity.own_files())


def test_the_digest_tells_names_and_contents_apart() -> None:
    base = {"a.py": b"1", "b.py": b"2"}
    others = [{"a.py": b"2", "b.py": b"1"}, {"a.py": b"1"}, {"a.py": b"1", "c.py": b"2"}, {"a.py": b"12", "b.py": b""}]
    assert len({identity.digest(files) for files in [base, *others]}) == 5


# --- laying it down ---------------------------------------------------------------------------------------------------


def test_the_program_runs_and_knows_what_it_is(laid: Path) -> None:
    said = json.loads(run(laid, "version", "--json").stdout)
    assert (said["version"], said["digest"]) == (__version__, identity.digest(identity.own_files()))
    for verb, *_unused in VERBS:
        assert run(laid, verb, "--help").returncode == (3 if verb == "check" else 0)
    assert run(laid, "status", "--config", "/nonexistent").returncode == 2


DIGEST = identity.digest(identity.own_files())


def alter(home: Path) -> None:
    (home / "pgops" / "core" / "times.py").write_text("# not ours\n")


def remove(home: Path) -> None:
    (home / "pgops" / "core" / "times.py").unlink()


def add(home: Path) -> None:
    (home / "pgops" / "more.py").write_text("")


def bare(home: Path) -> None:
    next(home.glob("pgops/core/__pycache__/times.*.pyc")).unlink()


def open_up(home: Path) -> None:
    (home / "pgops" / "config.py").chmod(0o666)


def call_otherwise(home: Path) -> None:
    (home.parents[2] / "bin" / "pgops").write_text("#!/bin/sh\n# pgops\n")


def leave_older(home: Path) -> None:
    (home.parent / "0.0.9-0123456789ab").mkdir()


def lose(home: Path) -> None:
    (home.parent / "current").unlink()


def test_the_digest_alone_tells_that_all_is_in_order(root: Path) -> None:
    host = Host()
    assert in_order(host, paths(root), digest=DIGEST)
    assert (host.changes, host.warnings) == ([], [])


@pytest.mark.parametrize("spoil", [alter, remove, add, bare, open_up, call_otherwise, leave_older, lose])
def test_the_digest_alone_tells_what_lay_down_would_mend(root: Path, spoil: Callable[[Path], None]) -> None:
    spoil((root / "lib" / "pgops" / "current").resolve())
    assert not in_order(Host(), paths(root), digest=DIGEST)
    assert lay_down(Host(), paths(root))["changed"]
    assert in_order(Host(), paths(root), digest=DIGEST)


def test_another_engine_or_a_rule_for_logs_is_something_to_do(root: Path, tmp_path: Path) -> None:
    assert not in_order(Host(), paths(root), digest=identity.digest({**identity.own_files(), "new.py": b""}))
    rotation = Rotation(tmp_path / "rule", [str(tmp_path)])
    assert not in_order(Host(), paths(root), rotation, digest=DIGEST)
    lay_down(Host(), paths(root), rotation)
    assert in_order(Host(), paths(root), rotation, digest=DIGEST)
    away = Rotation(rotation.path)
    assert not in_order(Host(), paths(root), away, digest=DIGEST), "one that is no longer wanted"
    assert lay_down(Host(), paths(root), away)["removed"] == [str(rotation.path)]
    assert in_order(Host(), paths(root), away, digest=DIGEST)
    assert not in_order(Host(), paths(tmp_path / "bare"), digest=DIGEST)


def test_it_is_compiled_and_belongs_to_everybody_to_read(laid: Path) -> None:
    home = (laid / "lib" / "pgops" / "current").resolve()
    sources = list(home.rglob("*.py"))
    assert len(sources) == len(identity.own_files())
    tag = sys.implementation.cache_tag
    for source in sources:
        assert (source.parent / "__pycache__" / ("%s.%s.pyc" % (source.stem, tag))).is_file()
    for path in [home, *home.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    compiled = next(home.glob("pgops/__pycache__/config.*.pyc"))
    assert str(home / "pgops" / "config.py").encode() in compiled.read_bytes()  # tracebacks name the right file


def test_the_completion_and_the_manual_page_are_there(laid: Path) -> None:
    assert "complete -F _pgops pgops" in (laid / "completions" / "pgops").read_text()
    page = gzip.decompress((laid / "man" / "pgops.1.gz").read_bytes()).decode()
    for verb, *_unused in VERBS:
        assert ".SS pgops %s" % verb in page


@pytest.mark.skipif(not shutil.which("man"), reason="there is no man")
def test_man_shows_the_page_without_a_complaint(laid: Path) -> None:
    told = subprocess.run(
        ["man", "--warnings", "-l", "-E", "utf-8", str(laid / "man" / "pgops.1.gz")],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
    )
    assert not told.stderr, told.stderr
    for part in ("pgops restore", "--config FILE", "EXIT STATUS", "5      refused for safety", "schema.table".upper()):
        assert part in told.stdout, part


def test_a_second_run_changes_nothing(root: Path) -> None:
    # The copy has another place, and the compiled files tell the old one; that is no difference.
    result = lay_down(Host(), paths(root))
    assert (result["changed"], result["removed"], result["diff"]) == (False, [], [])
    assert result["before"] == __version__


def test_a_dry_run_predicts_and_touches_nothing(tmp_path: Path) -> None:
    result = lay_down(Host(dry_run=True), paths(tmp_path))
    assert (result["changed"], result["before"], result["version"]) == (True, None, __version__)
    assert not list(tmp_path.iterdir())


def test_an_older_version_is_replaced_and_removed(root: Path) -> None:
    old = age(root)
    planned = lay_down(Host(dry_run=True), paths(root))
    assert old.is_dir()
    result = lay_down(Host(), paths(root))
    assert (result["before"], result["removed"], planned["removed"]) == ("0.0.9", [str(old)], [str(old)])
    assert not old.exists()
    assert json.loads(run(root, "version", "--json").stdout)["version"] == __version__


@pytest.mark.parametrize("damage", ["altered", "missing", "added", "open", "uncompiled"])
def test_a_version_that_is_not_as_it_was_laid_down_is_laid_down_anew(root: Path, damage: str) -> None:
    file = root / "lib" / "pgops" / "current" / "pgops" / "config.py"
    if damage == "altered":
        file.write_text("raise SystemExit('hello')\n")
    elif damage == "missing":
        file.unlink()
    elif damage == "added":
        (file.parent / "json.py").write_text("raise SystemExit('hello')\n")
    elif damage == "open":
        file.chmod(0o666)
    else:
        shutil.rmtree(file.parent / "core" / "__pycache__")
    result = lay_down(Host(), paths(root))
    assert result["changed"]
    assert not lay_down(Host(), paths(root))["changed"]
    assert [p.name for p in (root / "lib" / "pgops").iterdir() if p.name.startswith(".")] == []


def test_what_a_run_that_was_cut_short_left_is_removed(root: Path) -> None:
    left = root / "lib" / "pgops" / ".0.0.8-aaaaaaaaaaaa.new"
    (left / "pgops").mkdir(parents=True)
    (root / "bin" / ".pgops.4711.tmp").write_text("half")
    (root / "bin" / "pgops").write_text("#!/bin/sh\n# an older pgops\n")
    assert str(left) in lay_down(Host(), paths(root))["removed"]
    assert not left.exists()
    assert sorted(path.name for path in (root / "bin").iterdir()) == ["pgops", "pgops-wal"]


# --- somebody runs it -------------------------------------------------------------------------------------------------


def test_a_version_that_somebody_runs_stays_until_the_next_time(root: Path) -> None:
    old = age(root)
    launcher = (root / "bin" / "pgops").read_text()
    script = root / "waiting.py"
    script.write_text(launcher.replace("    code = main()", "    print('up', flush=True); input()\n    code = main()"))
    waiting = subprocess.Popen(
        [sys.executable, "-I", str(script), "version", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdin is not None
    assert waiting.stdout is not None
    try:
        assert waiting.stdout.readline() == "up\n"
        result = lay_down(Host(), paths(root))
        assert (result["in_use"], result["removed"]) == ([str(old)], [])
        with pytest.raises(BusyError, match="Somebody runs pgops"):
            take_away(Host(), paths(root))
        assert (root / "bin" / "pgops").exists()
        # It goes on with its own version, also in what it imports only now.
        said, _unused = waiting.communicate("go\n", timeout=30)
        assert json.loads(said)["version"] == "0.0.9"
    finally:
        waiting.kill()
        waiting.wait()
    assert lay_down(Host(), paths(root))["removed"] == [str(old)]


def a_process(proc: Path, number: int, group: str, *held: Path) -> None:
    """Make what /proc has of a process: its control group, and the files that it holds."""
    (proc / str(number) / "fd").mkdir(parents=True)
    (proc / str(number) / "cgroup").write_text("8:pids:/\n0::/%s\n" % group)
    for handle, path in enumerate(held, 3):
        (proc / str(number) / "fd" / str(handle)).symlink_to(path)


def test_a_service_that_runs_another_version_is_something_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib, proc = root / "lib" / "pgops", root / "proc"
    current, old = (lib / "current").resolve(), lib / "0.0.9-0123456789ab"
    slices = "system.slice/system-pgops_wal_ship.slice/pgops_wal_ship@%s.service"
    a_process(proc, 1, "init.scope")
    a_process(proc, 20, slices % "fresh", current, root)
    # A job that began before, and ends by itself.
    a_process(proc, 30, "system.slice/system-pgops\\x2dbackup.slice/pgops-backup@a.service", old)
    # Its files have the same names, elsewhere.
    a_process(proc, 31, "machine.slice/a-container/" + slices % "of-another-host", old)
    (proc / "40").mkdir()
    (proc / "meminfo").touch()
    monkeypatch.setattr(host_program, "_PROC", proc)
    assert in_order(Host(), paths(root), digest=DIGEST)
    for number, name in ((60, "b-main"), (50, "a\\x2dmain"), (51, "a\\x2dmain")):
        a_process(proc, number, slices % name, root, old)
    assert not in_order(Host(), paths(root), digest=DIGEST)
    wanted = ["pgops_wal_ship@a\\x2dmain.service", "pgops_wal_ship@b-main.service"]
    for dry_run in (True, False):
        result = lay_down(Host(dry_run=dry_run), paths(root))
        assert (result["changed"], result["outdated"]) == (False, wanted)


def test_two_runs_do_not_lay_it_down_at_once(root: Path) -> None:
    handle = os.open(root / "lib" / "pgops", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="Another run"):
            lay_down(Host(), paths(root))
    finally:
        os.close(handle)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "bin" / "pgops"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho something else\n")
    with pytest.raises(RefusedError, match="is not pgops"):
        lay_down(Host(), paths(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


@pytest.mark.parametrize("python", ["python3", "/usr/bin/env python3", "/" + "x" * 200])
def test_a_python_that_cannot_stand_in_a_script_is_refused(tmp_path: Path, python: str) -> None:
    with pytest.raises(UsageError, match="first line of a script"):
        lay_down(Host(), paths(tmp_path, python=python))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "is not a Python that runs"),
        ("exit 1", "is not a Python that runs"),
        ("echo '[[3, 8, 10], \"cpython-38\"]'", "needs 3.9 or later"),
    ],
)
def test_a_python_that_is_missing_or_too_old_is_told(tmp_path: Path, script: str | None, said: str) -> None:
    python = tmp_path / "python3"
    if script:
        python.write_text("#!/bin/sh\n%s\n" % script)
        python.chmod(0o755)
    with pytest.raises(UnreachableError, match=said):
        lay_down(Host(), paths(tmp_path, python=str(python)))
    assert not (tmp_path / "lib").exists()


def test_a_version_that_does_not_run_never_becomes_current(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = age(root)
    broken = {**identity.own_files(), "cli/main.py": b"raise SystemExit(1)\n"}
    monkeypatch.setattr(identity, "own_files", lambda: broken)
    with pytest.raises(PgopsError, match="does not run"):
        lay_down(Host(), paths(root))
    assert (root / "lib" / "pgops" / "current").resolve() == old
    assert json.loads(run(root, "version", "--json").stdout)["version"] == "0.0.9"


def test_a_lost_library_is_told_in_a_sentence(root: Path) -> None:
    shutil.rmtree(root / "lib")
    done = run(root, "status")
    assert done.returncode == 4
    assert "Lay the program down again" in done.stderr
    # To PostgreSQL, anything up to 125 would be the end of the WAL.
    assert run(root, "wal", "fetch", "000000010000000000000001", "x").returncode == 204
    assert run(root, "wal", "archive", "x").returncode == 4


def test_a_program_that_does_not_start_ends_no_recovery(root: Path) -> None:
    (root / "lib" / "pgops" / "current" / "pgops" / "cli" / "start.py").write_text("import nothing_of_the_kind\n")
    done = run(root, "wal", "fetch", "000000010000000000000001", "x")
    assert done.returncode == 204
    assert "nothing_of_the_kind" in done.stderr
    assert run(root, "version").returncode == 1


def test_a_run_knows_what_started_it(root: Path, tmp_path: Path) -> None:
    assert program_path(str(root / "bin" / "pgops")) == str(root / "bin" / "pgops")
    another = tmp_path / "another"
    another.write_text("#!/bin/sh\nexit 0\n")
    another.chmod(0o755)
    for called in (str(another), "-c", str(root / "bin"), identity.__file__):
        assert program_path(called) == "pgops"


# --- taking it away ---------------------------------------------------------------------------------------------------


def test_taking_it_away_leaves_nothing(root: Path) -> None:
    planned = take_away(Host(dry_run=True), paths(root))
    assert (root / "bin" / "pgops").exists()
    result = take_away(Host(), paths(root))
    assert result["removed"] == planned["removed"]
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert not (root / "lib" / "pgops").exists()
    assert not take_away(Host(), paths(root))["changed"]
