# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What has come of a large file whose fetch broke: a sparse file, and beside it the list of the parts that are whole.

The list says which object they are of, and the SHA-256 of each part as it came. Nothing in it is believed: a part counts
when what lies on the disk has that hash, and the file when the whole has the hash of its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from ..system.durable import adopt
from .transfer import Part, digests

_SUFFIX = ".fetched"
_LONGEST_NAME = 255  # bytes, on all file systems that count
Json = dict[str, Any]


def list_beside(target: Path) -> Path:
    """Return where the list of what was fetched of `target` lies."""
    name = ".%s%s" % (target.name, _SUFFIX)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = ".%s%s" % (hashlib.sha256(os.fsencode(target.name)).hexdigest(), _SUFFIX)
    return target.with_name(name)


def is_begun(target: Path) -> bool:
    """Tell whether a fetch of `target` may go on: both files are there, and are files."""
    return all(path.is_file() and not path.is_symlink() for path in (target, list_beside(target)))


class Fetched:
    """One large file that is being fetched, its parts by several threads."""

    def __init__(
        self, target: Path, size: int, plan: Sequence[Part], about: Optional[Json], alive: Callable[[], object]
    ) -> None:
        """Make the file `target` of `size` bytes, or open what came of it; `parts` are those of the `plan` that are whole then.

        `about` says which object it is of: what came of another is removed. Without `about` there is no list, and a
        file of its name is another one.

        `alive` is called now and then and may raise. Raise OSError, FileExistsError for a file that has no list.
        """
        self._list, self._lines = list_beside(target), -1
        self.parts: dict[int, Part] = {}
        lines: Optional[list[str]] = None
        if about is not None and is_begun(target):
            lines = self._lines_about(target, size, about)
            if lines is None:
                target.unlink()
        if lines is None and about is not None:
            self._list.unlink(missing_ok=True)
        elif lines is not None:
            self._find_whole(target, plan, lines, alive)
        new = os.O_CREAT | os.O_EXCL if lines is None else 0
        self._handle = os.open(target, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | new, 0o600)
        try:
            if new:
                adopt(target)
                os.truncate(self._handle, size)
            if about is not None:
                self._lines = os.open(self._list, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | new, 0o600)
                # Where there are lines, the last may have been cut: an empty one ends it.
                self._write(json.dumps(about, sort_keys=True) if new else "")
                if new:
                    adopt(self._list)
        except BaseException:
            self.close()
            raise

    def _lines_about(self, target: Path, size: int, about: Json) -> Optional[list[str]]:
        """Return the lines of the list that name parts; None where it is of another object, or no list."""
        try:
            first, *lines = self._list.read_text(encoding="utf-8", errors="replace").split("\n")
            same = bool(about.get("etag")) and json.loads(first) == about and target.stat().st_size == size
        except (OSError, ValueError, RecursionError):
            return None
        return lines if same else None

    def _find_whole(
        self, target: Path, plan: Sequence[Part], lines: Sequence[str], alive: Callable[[], object]
    ) -> None:
        said = {number: digest for number, _blank, digest in (line.partition(" ") for line in lines)}
        for part in plan:
            alive()
            digest = said.get(str(part.number))
            # What a killed run wrote half is no hash, and what was altered has another.
            if digest is not None and digests(target, part.offset, part.size, md5=False)[0].hex() == digest:
                self.parts[part.number] = part

    def write(self, part: Part, chunks: Iterable[bytes]) -> None:
        """Write a part, and note that it is whole. Raise OSError, and what `chunks` raises."""
        came, at = hashlib.sha256(), part.offset
        for chunk in chunks:
            if self._lines >= 0:
                came.update(chunk)
            view = memoryview(chunk)
            while view:
                written = os.pwrite(self._handle, view, at)
                view, at = view[written:], at + written
        if self._lines >= 0:
            self._write("%d %s" % (part.number, came.hexdigest()))

    def _write(self, line: str) -> None:
        # By one write each, so that lines of several threads do not mix.
        os.write(self._lines, ("%s\n" % line).encode("utf-8"))

    def close(self) -> None:
        """Close the files; they stay."""
        os.close(self._handle)
        if self._lines >= 0:
            os.close(self._lines)

    def done(self) -> None:
        """Forget the list, if there is one: the file is whole."""
        if self._lines >= 0:
            self._list.unlink(missing_ok=True)


def forget(target: Path) -> None:
    """Remove what was fetched of `target`."""
    for path in (target, list_beside(target)):
        path.unlink(missing_ok=True)


__all__ = ("Fetched", "forget", "is_begun", "list_beside")
