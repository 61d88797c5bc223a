# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The recoverable window: to which positions and moments base backups and WAL can bring an instance back, and its gaps.

And the other side of it: which WAL no base backup needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from .segments import (
    HISTORY,
    SEGMENT,
    kind,
    number_at,
    number_before,
    number_of,
    segment_name,
    show_lsn,
    start_of,
    timeline_of,
)
from .times import CLOCK_TOLERANCE, iso

Histories = Mapping[int, Sequence[tuple[int, int, str]]]
_NEVER = 1 << 64  # behind every LSN


@dataclass(frozen=True)
class Base:
    """A base backup: where its WAL begins and ends, and when it was whole. It needs all WAL between the two."""

    id: str
    system_identifier: str
    timeline: int
    start: int
    end: int
    ended: datetime


@dataclass(frozen=True)
class SetBack:
    """The server's clock was set back by more than clocks differ, from `before` to `after`, near the LSN `position`."""

    position: int
    before: datetime
    after: datetime


@dataclass(frozen=True)
class Stretch:
    """An unbroken part of a window: recovery can stop anywhere from `start` to `end`.

    `start_time` is when its first base was whole; `end_time` when its last segment was written, so no transaction in it is
    younger. `bases` are those that recovery can begin with, the oldest first. Where it is not known when that segment was
    `written`, `end_time` is when it came to its place, which may be hours later. `last` is the name of that segment. `set_back` tells where
    the moments of what was written go backwards.
    """

    start: int
    start_time: datetime
    end: int
    end_time: datetime
    bases: tuple[str, ...]
    written: bool = True
    last: str = ""
    set_back: tuple[SetBack, ...] = ()


@dataclass(frozen=True)
class Gap:
    """Segments that are missing between others: the names of the first and the last one, and how many."""

    first: str
    last: str
    count: int


@dataclass(frozen=True)
class Window:
    """What can be recovered on the way to one timeline of one cluster. Without a stretch there is WAL, but no base for it.

    `open_gaps` are the gaps that no younger base backup makes up for: what came after them cannot be reached. `history` is the
    way to the timeline: its ancestors, the first one first, and the LSN at which each was left.
    """

    system_identifier: str
    timeline: int
    stretches: tuple[Stretch, ...]
    gaps: tuple[Gap, ...]
    open_gaps: tuple[Gap, ...] = ()
    history: tuple[tuple[int, int], ...] = ()

    @property
    def is_stranded(self) -> bool:
        """Whether there is WAL of a timeline that began with a switch, and neither its history nor a base backup of it."""
        return self.timeline > 1 and not self.history and not self.stretches

    def parts_at(self, other: Window) -> int:
        """Return the LSN up to which the ways to this timeline and to that of the `other` are one; 0 if they never are."""
        position = 0
        for (mine, left), (theirs, there_left) in zip(self._legs(), other._legs()):
            if mine != theirs:
                break
            position = min(left, there_left)
            if left != there_left:
                break
        return position

    def _legs(self) -> tuple[tuple[int, int], ...]:
        return (*self.history, (self.timeline, _NEVER))

    def as_data(self) -> dict[str, object]:
        """Return it as JSON knows it: positions as PostgreSQL writes them, moments in ISO 8601."""
        return {
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "stretches": [
                {
                    "start_lsn": show_lsn(one.start),
                    "start": iso(one.start_time),
                    "end_lsn": show_lsn(one.end),
                    "end": iso(one.end_time),
                    "bases": list(one.bases),
                }
                for one in self.stretches
            ],
            "gaps": [dataclasses.asdict(gap) for gap in self.gaps],
        }


def windows(
    system_identifier: str,
    bases: Iterable[Base],
    segments: Mapping[str, datetime],
    histories: Histories,
    size: int,
    *,
    each: bool = False,
    arrived: Container[str] = (),
) -> list[Window]:
    """Return the windows of one cluster by timeline, the newest last.

    `segments` are the names of whole segments and when each was written, `size` is how many bytes each has, `histories` the
    parsed history files by timeline. A timeline that only leads to another one is part of that one's window; with `each` it has
    one of its own, too. Of the segments in `arrived` it is only known when they came to their place.
    """
    own = [base for base in bases if base.system_identifier == system_identifier]
    present = {name: when for name, when in segments.items() if kind(name) == SEGMENT}
    timelines = {timeline_of(name) for name in present} | {base.timeline for base in own}
    last = {
        timeline: max((number_of(name, size) for name in present if timeline_of(name) == timeline), default=-1)
        for timeline in timelines
    }
    passed = {
        ancestor
        for timeline in timelines
        for ancestor, switch, _reason in histories.get(timeline, ())
        if last.get(ancestor, -1) <= number_at(switch, size)
    }
    return [
        _window(system_identifier, timeline, own, present, histories.get(timeline, ()), size, arrived)
        for timeline in sorted(timelines if each else timelines - passed)
    ]


def _window(
    system_identifier: str,
    timeline: int,
    bases: Sequence[Base],
    present: Mapping[str, datetime],
    history: Sequence[tuple[int, int, str]],
    size: int,
    arrived: Container[str],
) -> Window:
    path = _Path(timeline, history, size)
    stretches: list[Stretch] = []
    for base in sorted(bases, key=lambda b: (b.end, b.ended)):
        stretch = _reach(base, path, present, arrived) if path.passes(base) else None
        if stretch is None:
            continue
        if stretches and stretch.end == stretches[-1].end:
            # The same WAL carries both to the same end.
            before = stretches[-1]
            stretches[-1] = dataclasses.replace(before, bases=(*before.bases, base.id))
        else:
            stretches.append(stretch)
    gaps = list(_gaps(path, present))
    unmended = [gap for number, gap in gaps if stretches and start_of(number, size) >= stretches[-1].end]
    return Window(
        system_identifier,
        timeline,
        tuple(stretches),
        tuple(gap for _number, gap in gaps),
        tuple(unmended),
        tuple((ancestor, switch) for ancestor, switch, _reason in history),
    )


class _Path:
    """The way from the first timeline to one of its descendants: which timeline each segment is taken from."""

    def __init__(self, timeline: int, history: Sequence[tuple[int, int, str]], size: int) -> None:
        self.size = size
        # (first segment, timeline), the newest first: the segment in which a timeline begins is taken from it.
        starts = [0, *(number_at(switch, size) for _ancestor, switch, _reason in history)]
        names = [*(ancestor for ancestor, _switch, _reason in history), timeline]
        self._legs = list(zip(starts, names))[::-1]
        self._ends = {ancestor: switch for ancestor, switch, _reason in history}
        self.timelines = frozenset(names)

    def name(self, number: int) -> str:
        """Return the name of the segment `number` on the way."""
        timeline = next(timeline for first, timeline in self._legs if first <= number)
        return segment_name(timeline, number, self.size)

    def passes(self, base: Base) -> bool:
        """Tell whether the way leads over the end of `base`."""
        return base.timeline in self.timelines and base.end <= self._ends.get(base.timeline, base.end)

    def numbers(self, present: Iterable[str]) -> list[int]:
        """Return the numbers of those segments that are on the way, in order."""
        found = {number_of(name, self.size) for name in present if timeline_of(name) in self.timelines}
        return sorted(number for number in found if self.name(number) in present)


def _reach(base: Base, path: _Path, present: Mapping[str, datetime], arrived: Container[str]) -> Optional[Stretch]:
    """Return what `base` alone can be brought to; None if WAL is missing that it needs to be whole."""
    number = number_at(base.start, path.size)
    needed = number_before(base.end, path.size)
    latest: Optional[datetime] = None
    set_back = list[SetBack]()
    while path.name(number) in present:
        name = path.name(number)
        if name not in arrived:
            when = present[name]
            if latest is not None and when < latest - CLOCK_TOLERANCE:
                set_back.append(SetBack(start_of(number, path.size), latest, when))
                latest = when
            latest = when if latest is None else max(latest, when)
        number += 1
    if number <= needed:
        return None
    last = path.name(number - 1)
    written = last not in arrived or present[last] <= base.ended
    return Stretch(
        base.end,
        base.ended,
        start_of(number, path.size),
        max(present[last], base.ended),
        (base.id,),
        written,
        last,
        tuple(set_back),
    )


def _gaps(path: _Path, present: Mapping[str, datetime]) -> Iterator[tuple[int, Gap]]:
    """Yield each gap with the number of its first segment."""
    numbers = path.numbers(present)
    for before, after in zip(numbers, numbers[1:]):
        if after > before + 1:
            yield before + 1, Gap(path.name(before + 1), path.name(after - 1), after - before - 1)


def made_up_for(name: str, found: Iterable[Window], size: int) -> bool:
    """Tell whether a window of its timeline, or of one that came from that, goes on behind the WAL file `name`.

    Recovery to what came later needs it no more then. What another branch of the history reaches does not count.
    """
    if kind(name) in ("", HISTORY):
        return False
    end, timeline = start_of(number_of(name, size) + 1, size), timeline_of(name)
    return any(
        window.stretches
        and window.stretches[-1].end >= end
        and timeline in (window.timeline, *(ancestor for ancestor, _left in window.history))
        for window in found
    )


def disputed(places: Iterable[Mapping[str, Iterable[str]]]) -> list[int]:
    """Return the timelines of which `places` hold different histories; each says which contents it has of the WAL files of a cluster.

    Two servers were promoted to such a timeline, and nobody can tell whose WAL leads where.
    """
    contents: dict[int, set[str]] = {}
    for held in places:
        for name, found in held.items():
            if kind(name) == HISTORY:
                contents.setdefault(timeline_of(name), set()).update(found)
    return sorted(timeline for timeline, found in contents.items() if len(found) > 1)


def undisputed(histories: Histories, timelines: Container[int]) -> dict[int, Sequence[tuple[int, int, str]]]:
    """Return the `histories` from behind the last of the disputed `timelines` on: what began before that leads nowhere known."""
    found: dict[int, Sequence[tuple[int, int, str]]] = {}
    for timeline, way in histories.items():
        last = max((n for n, (ancestor, _switch, _reason) in enumerate(way) if ancestor in timelines), default=-1)
        if timeline not in timelines and (last < 0 or way[last + 1 :]):
            found[timeline] = way[last + 1 :]
    return found


# --- what nobody needs ------------------------------------------------------------------------------------------------


def needless(names: Iterable[str], bases: Iterable[Base], system_identifier: str, size: int) -> set[str]:
    """Return the WAL files of a cluster that lie before everything that its `bases` need.

    None without a base: what comes to be needed is not known then. History files always stay.
    """
    starts = [number_at(base.start, size) for base in bases if base.system_identifier == system_identifier]
    if not starts:
        return set()
    # On whatever timeline: no base reads WAL from before its own start.
    first = min(starts)
    return {name for name in names if kind(name) not in ("", HISTORY) and number_of(name, size) < first}


__all__ = (
    "Base",
    "Gap",
    "Histories",
    "SetBack",
    "Stretch",
    "Window",
    "disputed",
    "made_up_for",
    "needless",
    "undisputed",
    "windows",
)
