# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Chains: incremental base backups, each upon its parent, up to the full one that all begin with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Callable, Optional

from .errors import DamagedError

# A schedule begins its runs a little earlier or later than a span before.
_SLACK = timedelta(hours=1)


def chain(set_id: str, parent_of: Callable[[str], Optional[str]]) -> list[str]:
    """Return the sets that a recovery of `set_id` needs, the full one first and itself last.

    Raise DamagedError if the chain goes round, and what `parent_of` raises.
    """
    found = [set_id]
    parent = parent_of(set_id)
    while parent is not None:
        if parent in found:
            raise DamagedError("The chain of %s goes round: %s builds on %s." % (set_id, found[-1], parent))
        found.append(parent)
        parent = parent_of(parent)
    return found[::-1]


def full_due(begun: Sequence[datetime], now: datetime, every: Optional[timedelta], limit: int) -> str:
    """Return why a full base backup is due, empty if it is not.

    `begun` is when each of a chain began, the full one first; `limit` is how many incremental ones may follow it, and
    `every` how old it may become, None for any age.
    """
    if len(begun) > limit:
        return "the chain has %d incremental ones upon its full one, as many as base.chain_limit allows" % (
            len(begun) - 1
        )
    if every is not None and now - begun[0] >= every - min(_SLACK, every / 10):
        return "the last full one is as old as base.full_every allows"
    return ""


def unsummarized(summaries: Iterable[tuple[int, int, int]], timeline: int, start: int, end: int) -> Optional[int]:
    """Return the first position from `start` up to `end` that no summary of the WAL covers, None if all are covered.

    `summaries` are (timeline, start, end); those of other timelines do not count.
    """
    reached = start
    for number, first, last in sorted(summaries):
        if number == timeline and first <= reached < last:
            reached = last
    return None if reached >= end else reached


__all__ = ("chain", "full_due", "unsummarized")
