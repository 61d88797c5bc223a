# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which files of the WAL archive are read next, to see whether they are still what their names say. Pure: listings in, order out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .segments import order, parse_stored

FORMAT = 1


@dataclass(frozen=True)
class Read:
    """A stored file that was read: how the listing `mark`ed it, when (seconds since 1970), and what was wrong, empty if nothing.

    What is listed with another mark was written since: nothing is known of it.
    """

    mark: str
    when: int
    problem: str = ""


Known = Mapping[str, Read]


def problem_of(path: str, mark: str, known: Known) -> str:
    """Return what was wrong with the stored file when it was read as it is now; empty if nothing was, or it was not read."""
    read = known.get(path)
    return read.problem if read is not None and read.mark == mark else ""


def choose(marks: Mapping[str, str], known: Known, most: int) -> list[str]:
    """Return at most `most` of the stored paths to read, `marks` being those of the listing.

    First those that were damaged, as they may have been mended, in at most half of the places; then what was never read, the
    newest first, as a recovery is mostly to a recent moment; then what was read longest ago.
    """
    damaged = [path for path, mark in marks.items() if problem_of(path, mark, known)]
    damaged.sort(key=lambda path: (known[path].when, path))
    fresh = [path for path, mark in marks.items() if path not in known or known[path].mark != mark]
    fresh.sort(key=lambda path: (order(parse_stored(path.rpartition("/")[2])[0]), path), reverse=True)
    again = sorted(set(marks) - set(damaged) - set(fresh), key=lambda path: (known[path].when, path))
    half = most // 2
    return [*damaged[:half], *fresh, *again, *damaged[half:]][:most]


def left(marks: Mapping[str, str], known: Known) -> int:
    """Return how many of the stored files were never read as they are now."""
    return sum(1 for path, mark in marks.items() if path not in known or known[path].mark != mark)


def encode(root: str, known: Known) -> dict[str, Any]:
    """Return what is known of the place `root` in JSON's types."""
    files = {path: [read.mark, read.when, read.problem] for path, read in sorted(known.items())}
    return {"format": FORMAT, "root": root, "files": files}


def decode(data: Any, root: str) -> dict[str, Read]:
    """Return what encode() kept of the place `root`; nothing where it is of another place or no such thing."""
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("root") != root:
        return {}
    files = data.get("files")
    return dict(_reads(files.items())) if isinstance(files, dict) else {}


def _reads(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Read]]:
    for path, kept in items:
        if isinstance(kept, list) and [type(one) for one in kept] == [str, int, str]:
            yield path, Read(*kept)


__all__ = ("FORMAT", "Known", "Read", "choose", "decode", "encode", "left", "problem_of")
