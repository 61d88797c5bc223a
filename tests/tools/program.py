# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as the program `pgops`: pack it into one file, and check that a bare Python runs it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipapp
from pathlib import Path

from tests.tools import pythons
from tests.tools.bench import NOT_RUN, PASSED, Bench, LayerError, Outcome
from tests.tools.collection_tree import ROOT

ENGINE = ROOT / "plugins" / "module_utils" / "_engine"
START = "from pgops.cli.start import main\n\nraise SystemExit(main())\n"

_START_AT = "import sys; sys.path.insert(0, sys.argv.pop(1)); " + START.replace("\n\n", "; ").strip()

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import pgops
names = [found.name for found in pkgutil.walk_packages(pgops.__path__, "pgops.") if not found.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names) + 1)
"""


def stage(folder: Path) -> Path:
    """Copy the engine into `folder` under the name it has as a program."""
    shutil.copytree(ENGINE, folder / "pgops", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return folder


def lay_down(folder: Path, *python: str, seen: str = "") -> tuple[str, ...]:
    """Put the engine into `folder` as it lies on hosts, compiled by the command `python`; return what starts it.

    `seen` is the path that `python` has for the folder, where it is another one. All is for the owner of the folder.
    """
    stage(folder)
    for path in folder.rglob("*"):
        os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
    home = seen or str(folder)
    subprocess.run([*python, "-m", "compileall", "-q", home], check=True)
    return "-I", "-c", _START_AT, home


def pack(target: Path) -> None:
    """Write the program as one executable file."""
    with tempfile.TemporaryDirectory(prefix="pgops-program-") as scratch:
        folder = stage(Path(scratch))
        (folder / "__main__.py").write_text(START)
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3", compressed=True)
    target.chmod(0o755)


def floor(bench: Bench) -> Outcome:
    """Import every module of the engine on the oldest Python, without a single third-party package."""
    python = pythons.find().get(pythons.OLDEST)
    if python is None:
        return Outcome(NOT_RUN, f"this machine has no Python {pythons.label(pythons.OLDEST)}")
    folder = stage(bench.scratch / "engine")
    # -S keeps site-packages away: what imports here needs the standard library alone.
    count = bench.read(python, "-I", "-S", "-c", IMPORT_ALL, folder).strip()
    bench.must(python, "-S", "-m", "pgops", "--help", cwd=folder)
    return Outcome(PASSED, f"{count} modules, and pgops --help")


def one_file(bench: Bench) -> Outcome:
    """Pack the program and start the file with each Python of this machine."""
    target = bench.scratch / "pgops"
    pack(target)
    for python in pythons.find().values():
        bench.must(python, "-I", "-S", target, "--help", cwd=bench.scratch)
    bench.must(target, "--help", cwd=bench.scratch)
    if bench.run(target, "--no-such-option", cwd=bench.scratch) != 2:
        raise LayerError("the packed program loses its exit code")
    tried = " ".join(pythons.label(version) for version in pythons.find())
    return Outcome(PASSED, f"{target.stat().st_size // 1024} KiB, Python {tried}")


def main() -> int:
    """Pack the program into the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    target.parent.mkdir(parents=True, exist_ok=True)
    pack(target)
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
