# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a contestant copied is what it was given. This is asked after its time has ended."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SAMPLE = 50  # files whose content is read, spread over all of them; of four large ones that is each

# Of each file, by its path below the folder of the set: its size and the SHA-256 of its content.
Files = Mapping[str, tuple[int, str]]


def read(folder: Path) -> Files:
    """Return the files of a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest)
    return found


def wrong(given: Files, there: Path, *, top: str) -> str:
    """Return what is wrong with the copy below `there`, or nothing: every name and size, and the content of a sample.

    A contestant chooses the folder; it is the one that holds `top`, a file of the set's first level.
    """
    tops = sorted(there.rglob(top))
    if len(tops) != 1:
        return f"{len(tops)} files are called {top}, of 1"
    folder = tops[0].parent
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    count = sum(1 for path in there.rglob("*") if path.is_file())
    if count != len(given):
        return f"{count} of {len(given)} files are there"
    for name, (size, _digest) in given.items():
        if sizes.get(name) != size:
            return f"{name} has {sizes.get(name, 'no')} bytes, of {size}"
    names = sorted(given)
    for name in sorted({*names[:: max(1, len(names) // SAMPLE)], top}):
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != given[name][1]:
                return f"{name} has other content"
    return ""
