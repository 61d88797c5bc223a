# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What WAL a place holds, by cluster, and what can be recovered with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Callable, Optional

from ..core.errors import DamagedError, PgopsError
from ..core.manifest import Manifest
from ..core.segments import (
    HISTORY,
    SEGMENT,
    USUAL_SIZE,
    is_size,
    kind,
    parse_history,
    parse_lsn,
    parse_size_mark,
    parse_stored,
)
from ..core.times import parse_iso
from ..core.wal_proof import Known, problem_of
from ..core.window import Base, Window, disputed, made_up_for, needless, undisputed, windows
from ..places.base import Entry, Place
from ..places.catalog import Catalog, readable
from ..places.chains import chain_of
from .pack import content_size
from .proofs import mark_of
from .spool import TREE, opened

Hears = Callable[[str], None]
_ASKED = 5  # segments, until one tells its size


@dataclass
class Lineage:
    """The WAL of one cluster in one place: its files by the name of the WAL file. More than one file is a contradiction.

    `marked` is the size of its segments as the archive says it, 0 when it does not, and `marks` the files that do. `spoiled` are
    the paths of files that were read and were not what their names say: they carry no recovery.
    """

    system_identifier: str
    files: dict[str, list[Entry]] = field(default_factory=dict)
    marked: int = 0
    marks: list[Entry] = field(default_factory=list)
    spoiled: set[str] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        """What it takes up."""
        return sum(entry.size for entry in self.entries())

    def entries(self) -> list[Entry]:
        """Return all files."""
        return [entry for entries in self.files.values() for entry in entries]

    def segments(self) -> dict[str, datetime]:
        """Return the whole segments of which the place holds one content, and when each was stored."""
        return {
            name: entries[0].modified
            for name, entries in self.files.items()
            if kind(name) == SEGMENT and len(_contents(entries)) == 1 and not self._is_spoiled(entries)
        }

    def damaged(self) -> list[str]:
        """Return the names of which the place holds no file that is whole, as far as they were read."""
        return sorted(name for name, entries in self.files.items() if self._is_spoiled(entries))

    def _is_spoiled(self, entries: Iterable[Entry]) -> bool:
        return all(entry.path in self.spoiled for entry in entries)

    def contradictions(self) -> list[str]:
        """Return the names under which there are different contents."""
        return sorted(name for name, entries in self.files.items() if len(_contents(entries)) > 1)

    def contents(self) -> dict[str, set[str]]:
        """Return the hashes of what the place holds under each name."""
        return {name: _contents(entries) for name, entries in self.files.items()}


def _contents(entries: Iterable[Entry]) -> set[str]:
    return {parse_stored(entry.path.rpartition("/")[2])[1] for entry in entries}


def lineages(place: Place, known: Optional[Known] = None) -> dict[str, Lineage]:
    """Return the WAL in `place` by system identifier; `known` is what reading it has shown. Raise what the listing raises."""
    found: dict[str, Lineage] = {}
    for path, entry in place.entries(TREE).items():
        parts = path.split("/")
        name, marked = parse_stored(parts[-1])[0], parse_size_mark(parts[-1])
        if (name or marked) and len(parts) > 2 and parts[1].isdecimal():
            lineage = found.setdefault(parts[1], Lineage(parts[1]))
            if name:
                lineage.files.setdefault(name, []).append(entry)
                if known and problem_of(path, mark_of(entry), known):
                    lineage.spoiled.add(path)
            if marked:
                lineage.marked = marked
                lineage.marks.append(entry)
    return found


def segment_size(place: Place, lineage: Lineage) -> int:
    """Return how large the segments of `lineage` are, as the archive or one of them says; 0 where that cannot be told."""
    if lineage.marked:
        return lineage.marked
    for name in sorted(lineage.segments(), reverse=True)[:_ASKED]:
        entry = lineage.files[name][0]
        stream = iter(place.stream(entry.path))
        head = next(stream, b"")
        size = content_size(head, entry.size)
        if size is None and entry.path.endswith(".gz"):
            try:
                size = len(opened(head + b"".join(stream), entry.path.rpartition("/")[2], place.root))
            except DamagedError:
                continue  # it is told where it is read; another one has the same size
        if size is not None and is_size(size):
            return size
        if entry.path.endswith(".age"):
            break  # so are the others
    return 0


def spare(place: Place, lineage: Lineage, bases: Iterable[Base]) -> set[str]:
    """Return the names of WAL files that none of `bases` needs; none where the size of segments is unknown."""
    size = segment_size(place, lineage)
    return needless(lineage.files, bases, lineage.system_identifier, size) if size else set()


def histories(place: Place, lineage: Lineage, hear: Hears) -> dict[int, list[tuple[int, int, str]]]:
    """Return the parsed history files by timeline; `hear` is told of those that cannot be read, or contradict each other."""
    found = {}
    for name, entries in lineage.files.items():
        if kind(name) != HISTORY:
            continue
        if len(_contents(entries)) > 1:  # the server would be given none of them
            hear("%s holds different files called %s, so nothing is known of that timeline." % (place.root, name))
            continue
        # One that was archived when histories were encrypted, too, may lie beside the plain one.
        path = min(entry.path for entry in entries if entry.path.endswith(".age") == _all_encrypted(entries))
        try:
            content = opened(b"".join(place.stream(path)), path.rpartition("/")[2], place.root)
            found[int(name[:8], 16)] = parse_history(bytes(content).decode("utf-8", "replace"))
        except (PgopsError, ValueError) as error:
            hear("The timeline history %s in %s cannot be read: %s" % (name, place.root, error))
    return found


def _all_encrypted(entries: Iterable[Entry]) -> bool:
    return all(entry.path.endswith(".age") for entry in entries)


def base_of(manifest: Manifest) -> Optional[Base]:
    """Return the base backup that `manifest` describes, None if it is of another kind. Raise DamagedError without its WAL."""
    if manifest.kind == "logical":
        return None
    try:
        start, end = parse_lsn(manifest.wal_start or ""), parse_lsn(manifest.wal_end or "")
    except ValueError:
        raise DamagedError("The manifest of %s does not say which WAL it needs." % manifest.id) from None
    # By the server's clock, as targets are, where the manifest has it.
    ended = parse_iso(manifest.base.stopped) if manifest.base is not None else manifest.ended
    return Base(manifest.id, manifest.system_identifier, manifest.timeline or 1, start, end, ended)


def bases_of(catalog: Catalog, set_ids: Iterable[str]) -> tuple[list[Base], list[str]]:
    """Return the base backups among the sets, and the ids of those that may be some and cannot be read."""
    found: list[Base] = []
    unread: list[str] = []
    for set_id in set_ids:
        if set_id.endswith("-logical"):
            continue
        try:
            base = base_of(catalog.manifest(set_id))
        except PgopsError:
            unread.append(set_id)
            continue
        if base is not None:
            found.append(base)
    return found, unread


@dataclass
class Held:
    """The WAL of a place by system identifier and the windows that it opens; or why that is unknown.

    `bases` are the base backups there. `damaged` are the names of WAL files that were read and are not whole, `open_damage`
    those of them that no younger base backup makes up for. `disputed` are timelines by cluster of which another place has another
    history: no window goes over the switch to one. `ways` are what windows are made of: the segments, the histories and the size.
    """

    lineages: dict[str, Lineage] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    bases: list[Base] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    open_damage: list[str] = field(default_factory=list)
    error: str = ""
    disputed: dict[str, list[int]] = field(default_factory=dict)
    ways: dict[str, tuple[dict[str, datetime], dict[int, list[tuple[int, int, str]]], int]] = field(
        default_factory=dict
    )

    def open(self) -> None:
        """Find the windows, and which damage they do not make up for."""
        self.windows, self.open_damage = [], []
        for identifier, (segments, past, size) in self.ways.items():
            left = undisputed(past, self.disputed.get(identifier, ()))
            opened_here = windows(identifier, self.bases, segments, left, size)
            self.windows += opened_here
            damaged = self.lineages[identifier].damaged()
            self.open_damage += [name for name in damaged if not made_up_for(name, opened_here, size)]


def look(
    place: Place, catalog: Catalog, hear: Hears, elsewhere: Optional[Held] = None, known: Optional[Known] = None
) -> Held:
    """Return the WAL in `place` and to where it brings the base backups of `catalog`. `hear` is told of what cannot be read.

    A place knows when a segment came, which may be long after it was written; `elsewhere` is another place that may know better.
    `known` is what reading the WAL there has shown.
    """
    held = Held()
    try:
        held.lineages = lineages(place, known)
        held.bases, unread = bases_of(catalog, _standing(place, catalog, hear))
        for set_id in unread:
            hear("Whether %s in %s can begin a recovery is unknown: its manifest does not tell." % (set_id, place.root))
        for identifier, lineage in sorted(held.lineages.items()):
            size, past = segment_size(place, lineage) or USUAL_SIZE, histories(place, lineage, hear)
            earlier = elsewhere.lineages.get(identifier) if elsewhere is not None else None
            written = earlier.segments() if earlier is not None else {}
            segments = {name: min(came, written.get(name, came)) for name, came in lineage.segments().items()}
            held.ways[identifier] = (segments, past, size)
            held.damaged += lineage.damaged()
        held.open()
    except PgopsError as error:
        held.error = str(error)
    except OSError as error:
        held.error = "%s cannot be read: %s." % (place.root, error)
    return held


def apart(places: Iterable[Mapping[str, Lineage]]) -> dict[str, list[int]]:
    """Return the timelines, by cluster, of which the places hold different histories."""
    held = list(places)
    found = {
        identifier: disputed(lineages[identifier].contents() for lineages in held if identifier in lineages)
        for identifier in sorted({identifier for lineages in held for identifier in lineages})
    }
    return {identifier: timelines for identifier, timelines in found.items() if timelines}


def compare(places: Iterable[Held]) -> None:
    """Let no window of the places go over a switch of which they hold different histories."""
    held = list(places)
    found = apart(one.lineages for one in held)
    for one in held:
        if one.disputed != found:
            one.disputed = found
            one.open()


def _standing(place: Place, catalog: Catalog, hear: Hears) -> Iterator[str]:
    """Yield the ids of the sets but for those that miss what they build on: they begin no recovery."""
    for set_id in catalog.ids():
        if set_id.endswith("-incremental") and readable(catalog, set_id) is None:
            try:
                chain_of(catalog, set_id)
            except DamagedError as error:
                hear("%s in %s begins no recovery: %s" % (set_id, place.root, error.message))
                continue
        yield set_id


__all__ = (
    "Held",
    "Lineage",
    "apart",
    "base_of",
    "bases_of",
    "compare",
    "histories",
    "lineages",
    "look",
    "segment_size",
    "spare",
)
