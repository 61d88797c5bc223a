# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What every place can do. Paths are relative to `<root>/<instance>/` and use `/`; the tree is the same everywhere:

sets/<set id>/manifest.json, sets/<set id>/…    evidence/<name>.json    pins/<set id>
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable, Optional

from ..core.manifest import File

SETS, EVIDENCE, PINS = "sets", "evidence", "pins"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """A stored file: path, size in bytes, and `tag`, which changes whenever the content does (an ETag, or inode facts)."""

    __slots__ = ("modified", "path", "size", "tag")  # there may be hundreds of thousands

    path: str
    size: int
    modified: datetime
    tag: str


class Place(abc.ABC):
    """Somewhere sets live. `name` is `local` or `s3`; `root` is how a person calls it."""

    name: str
    root: str

    @abc.abstractmethod
    def entries(self, prefix: str) -> dict[str, Entry]:
        """Return what is stored below `prefix`, by path. Half-written sets are not shown."""

    def listing(self, prefix: str) -> Iterator[Entry]:
        """Yield what entries() returns, one after the other where the place can."""
        yield from self.entries(prefix).values()

    def beginning(self, start: str) -> dict[str, Entry]:
        """Return what is stored whose path begins with `start`, whatever else lies in the same folder."""
        return {path: entry for path, entry in self.entries(start.rpartition("/")[0]).items() if path.startswith(start)}

    @abc.abstractmethod
    def read(self, path: str) -> bytes:
        """Return the whole of a small file. Raise MissingError if it is not there."""

    @abc.abstractmethod
    def stream(self, path: str, *, progress: Optional[Progress] = None) -> Iterator[bytes]:
        """Yield the content of the file `path`. Raise MissingError if it is not there."""

    @abc.abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Store a small file, whole or not at all."""

    @abc.abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; one that is already gone is no error."""

    @abc.abstractmethod
    def delete_set(self, set_id: str) -> int:
        """Remove the set, its manifest first, so that what is left is no set. Return the bytes freed."""

    @abc.abstractmethod
    def fetch(self, set_id: str, file: File, target: Path, *, progress: Optional[Progress] = None) -> None:
        """Write the file of a set to the new path `target` (0600). Raise DamagedError if it is not what `file` says."""

    @abc.abstractmethod
    def check_file(self, set_id: str, file: File, *, progress: Optional[Progress] = None) -> str:
        """Prove that the stored file is what `file` says; return how (`read`, or `store checksum`).

        Raise MissingError or DamagedError.
        """


__all__ = ("EVIDENCE", "PINS", "SETS", "Entry", "Place", "Progress")
