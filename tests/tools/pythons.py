# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the Python interpreters of this machine: on PATH, and those that pyenv installed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

Version = tuple[int, int]
OLDEST: Version = (3, 9)
NEWEST: Version = (3, 15)

# A shim of pyenv is there for each version and fails for most, hence: run it and see who answers.
WHO = "import json, sys, ensurepip; print(json.dumps([list(sys.version_info[:3]), sys.executable]))"


def _candidates() -> list[str]:
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    found = [path for path in (shutil.which(name) for name in [*names, "python3"]) if path]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found += [str(path) for path in sorted(root.glob("versions/3.*/bin/python3"))]
    return [str(Path(sys.base_prefix, "bin", "python3")), *found]


def _answer(path: str) -> tuple[tuple[int, ...], Path] | None:
    """Return version and real path of an interpreter, or None when it does not run."""
    try:
        reply = subprocess.run([path, "-I", "-c", WHO], check=True, capture_output=True, timeout=30, text=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version, executable = json.loads(reply)
    return tuple(version), Path(executable)


@functools.cache
def find() -> dict[Version, Path]:
    """Return the newest usable interpreter of each minor version from 3.9 on."""
    best: dict[Version, tuple[tuple[int, ...], Path]] = {}
    for path in _candidates():
        answer = _answer(path)
        if answer is None:
            continue
        minor: Version = (answer[0][0], answer[0][1])
        if OLDEST <= minor <= NEWEST and (minor not in best or answer[0] > best[minor][0]):
            best[minor] = answer
    return {minor: best[minor][1] for minor in sorted(best)}


def label(version: Version) -> str:
    """Return the version as people write it."""
    return f"{version[0]}.{version[1]}"


def search_path(first: Path) -> str:
    """Return a PATH on which `first` comes before the interpreters found here, and these before the rest."""
    folders = [first, *(path.parent for path in find().values())]
    return os.pathsep.join([*(str(folder) for folder in folders), os.environ.get("PATH", os.defpath)])
