# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which engine this is, to the byte: its source files and their digest."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from typing import Any

_SHORT = 12


def own_files() -> dict[str, bytes]:
    """Return the engine's source files by their path in the package, from a folder or from a zip file alike.

    What `python -m` begins with is none of them: the program has a beginning of its own.
    """
    found: dict[str, bytes] = {}
    _gather(importlib.resources.files(__package__ or __name__.rpartition(".")[0]), "", found)
    found.pop("__main__.py", None)
    return found


def _gather(folder: Any, path: str, found: dict[str, bytes]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                _gather(entry, "%s%s/" % (path, entry.name), found)
        elif entry.name.endswith(".py"):
            found[path + entry.name] = entry.read_bytes()


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256, as hex digits, of the names and contents of `files`."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(b"%s\0%d\0" % (name.encode("utf-8"), len(files[name])))
        total.update(files[name])
    return total.hexdigest()


def label(version: str, whole_digest: str) -> str:
    """Return the name of the folder in which this very version lies: `0.1.0-3f2a…`."""
    return "%s-%s" % (version, whole_digest[:_SHORT])


__all__ = ("digest", "label", "own_files")
