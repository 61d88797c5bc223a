# SPDX-License-Identifier: GPL-3.0-or-later
"""The program laid down on a host, killed with -9 at any moment and on a full disk: the old one works, or the new one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.small_disk import fill, small_disk
from tests.integration.conftest import ROOT

LAY = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pgops.host.changes import Host
from pgops.core.errors import PgopsError
from pgops.host.program import Paths, lay_down
root = Path(sys.argv[2])
try:
    lay_down(Host(), Paths(root / "lib", root / "bin", root / "completion", root / "man.gz", sys.executable))
except PgopsError as error:
    sys.exit(str(error))
"""
VERSIONS = ("1.0.1", "1.0.2")
ROUNDS = 6


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of the engine, each in a folder of its own."""
    made = {}
    for version in VERSIONS:
        folder = tmp_path_factory.mktemp("engine")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "plugins" / "module_utils" / "_engine", folder / "pgops", ignore=ignored)
        init = folder / "pgops" / "__init__.py"
        init.write_text('__version__ = "%s"\n' % version)
        made[version] = folder
    return made


def lay(engine: Path, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-c", LAY, str(engine), str(root)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def told(root: Path) -> str:
    """Return the version that the program of this host tells."""
    done = subprocess.run([str(root / "bin"), "version"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[1]


def leftovers(root: Path) -> list[str]:
    return [str(path) for path in root.rglob("*") if path.name.startswith(".")]


def test_a_program_that_is_being_replaced_works_whenever_it_is_killed(engines: dict[str, Path], tmp_path: Path) -> None:
    old, new = VERSIONS
    first = lay(engines[old], tmp_path)
    assert first.wait() == 0, first.communicate()[0]
    began = time.monotonic()
    second = lay(engines[new], tmp_path)
    assert second.wait() == 0
    whole = time.monotonic() - began
    assert told(tmp_path) == new
    chance, killed, seen = random.Random(4711), 0, set()
    for number in range(ROUNDS):
        before = told(tmp_path)
        after = old if before == new else new
        process = lay(engines[after], tmp_path)
        time.sleep((number + chance.random()) / ROUNDS * whole)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        now = told(tmp_path)
        assert now in VERSIONS
        seen.add((before, now))
        began = time.monotonic()
        again = lay(engines[after], tmp_path)
        output, _unused = again.communicate()
        # The quickest so far: what else runs here may have slowed the first.
        whole = min(whole, time.monotonic() - began)
        assert again.returncode == 0, output
        assert told(tmp_path) == after
        assert leftovers(tmp_path) == []
        assert len([path for path in (tmp_path / "lib").iterdir() if not path.is_symlink()]) == 1
    assert killed >= ROUNDS // 2


def test_a_full_disk_leaves_the_old_program_and_is_told(engines: dict[str, Path]) -> None:
    old, new = VERSIONS
    with small_disk(16) as disk:
        # The launcher cannot follow a link out of /proc, so what is current is asked instead of run.
        first = lay(engines[old], disk)
        first.communicate()
        current = os.readlink(disk / "lib" / "current")
        assert current.startswith(old)
        ballast = fill(disk, leave=300_000)
        second = lay(engines[new], disk)
        output, _unused = second.communicate()
        assert second.returncode == 1
        assert "No space left on device" in output
        assert os.readlink(disk / "lib" / "current") == current
        sources = list((disk / "lib" / current).rglob("*.py"))
        # But for what `python -m` begins with, of which a host has no need.
        assert len(sources) == len(list((engines[old] / "pgops").rglob("*.py"))) - 1
        ballast.unlink()
        third = lay(engines[new], disk)
        third.communicate()
        assert os.readlink(disk / "lib" / "current").startswith(new)
        assert leftovers(disk / "lib") == []
