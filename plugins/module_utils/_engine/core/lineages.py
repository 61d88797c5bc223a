# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Lineages: of which cluster each set is, and whether two clusters back up under one name. Pure.

A cluster is known by its system identifier. After an upgrade by pg_upgrade, and after a recovery into a cluster that was made
anew, the sets of one cluster end where those of the other begin. Two hosts with one name take theirs by turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# A cluster of which nothing came for longer than this, and than twice the longest pause that it made before, has stopped.
_SILENT = timedelta(days=2)


@dataclass(frozen=True)
class Taken:
    """A set: when it began, of which cluster it is (empty where nobody knows), and which host took it (empty likewise)."""

    id: str
    begun: datetime
    system: str
    host: str = ""


def entwined(sets: Iterable[Taken]) -> tuple[str, ...]:
    """Return the clusters that took sets by turns with another one, in the order of their names; none where that is in order.

    Each of two has a set, then the other has one, and then both once more. Where only one comes back, the other was tried and
    given up, as an upgrade is.
    """
    order = [one.system for one in sorted(sets, key=_key) if one.system]
    found: set[str] = set()
    for one, other in itertools.combinations(sorted(set(order)), 2):
        turns = [system for system, _unused in itertools.groupby(s for s in order if s in (one, other))]
        if len(turns) > 3:
            found |= {one, other}
    return tuple(sorted(found))


def growing(sets: Sequence[Taken], now: datetime) -> tuple[str, ...]:
    """Return those of the entwined clusters that still take sets at `now`, where they are two at least; none where they are not."""
    going = []
    for system in entwined(sets):
        moments = sorted(one.begun for one in sets if one.system == system)
        longest = max(later - earlier for earlier, later in zip(moments, moments[1:]))
        if now - moments[-1] <= max(_SILENT, 2 * longest):
            going.append(system)
    return tuple(going) if len(going) > 1 else ()


def newest_of_each(sets: Iterable[Taken], systems: Iterable[str]) -> list[Taken]:
    """Return the newest set of each of `systems`, the newest of all first."""
    newest = {one.system: one for one in sorted(sets, key=_key)}
    return sorted((newest[system] for system in systems if system in newest), key=_key, reverse=True)


def over(
    newest: Mapping[str, datetime], sets: Iterable[Taken], based: Container[str], now: datetime, span: timedelta
) -> tuple[str, ...]:
    """Return the clusters whose WAL nobody comes to need any more, in the order of their names; none in doubt.

    `newest` is when the last WAL file of each came to be, `sets` are those of every kind that all places keep, `based` the clusters
    of which one of them is a base backup. It is over with a cluster that has none, and of which neither WAL nor a set came for `span`,
    when one that has some took a set since: the instance has gone on as that. What a base backup to come needs begins with it.
    """
    known = sorted((one for one in sets if one.system), key=_key)
    current = {known[-1].system} if known else set()
    current |= {one.system for one in known if now - one.begun <= span}
    last = max(newest.values(), default=now)
    return tuple(
        system
        for system, moment in sorted(newest.items())
        if system not in based
        and system not in current
        and moment < last
        and now - moment > span
        and any(one.begun > moment for one in known if one.system in based)
    )


def told(sets: Iterable[Taken]) -> str:
    """Say of each set which it is, of which cluster, and who took it."""
    return "; ".join(
        "%s is of the cluster %s%s" % (one.id, one.system, ", taken on %s" % one.host if one.host else "")
        for one in sets
    )


def _key(one: Taken) -> tuple[datetime, str, str]:
    return one.begun, one.id, one.system


__all__ = ("Taken", "entwined", "growing", "newest_of_each", "over", "told")
