# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Who waits for locks of a dump: whom we hold up, how many stand behind them, and what is told of it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

# More sessions than these are counted, but not told one by one.
TOLD = 20


@dataclass(frozen=True)
class Waiting:
    """A session that waits for a lock now, as the server shows it.

    `blockers` are the processes that it waits for, those before it in the queue included; `table` is empty where it waits
    for the end of a transaction; `seconds` is None where the server does not tell since when it waits.
    """

    pid: int
    blockers: tuple[int, ...]
    table: str
    mode: str
    role: str
    application: str
    seconds: Optional[float]


@dataclass
class Wait:
    """What was seen of one session that waited for us: the longest that it was seen to wait, the most that stood behind it."""

    database: str
    table: str
    mode: str
    pid: int
    role: str
    application: str
    seconds: float
    queued: int

    @property
    def who(self) -> str:
        """The session, for messages."""
        known = [("role", self.role), ("application", self.application)]
        said = ", ".join("%s %s" % pair for pair in known if pair[1])
        return "process %d%s" % (self.pid, " (%s)" % said if said else "")

    @property
    def what(self) -> str:
        """What it waits for, for messages."""
        return "%s on %s" % (self.mode, self.table) if self.table else "the end of the dump's transaction"

    @property
    def behind(self) -> str:
        """How many wait behind it, for messages; empty when nobody does."""
        if not self.queued:
            return ""
        return "; %d more session%s behind it" % (self.queued, " waits" if self.queued == 1 else "s wait")

    def now(self) -> str:
        """Return a sentence for whom watches the dump."""
        return "In the database %r, %s has waited %.0f s for %s, which the dump holds up%s." % (
            self.database,
            self.who,
            self.seconds,
            self.what,
            self.behind,
        )

    def past(self) -> str:
        """Return a sentence for the result."""
        return "In the database %r, the dump held up %s, which waited at least %.0f s for %s%s." % (
            self.database,
            self.who,
            self.seconds,
            self.what,
            self.behind.replace(" waits ", " waited ").replace(" wait ", " waited "),
        )


def queues(waiting: Iterable[Waiting], ours: frozenset[int]) -> dict[int, frozenset[int]]:
    """Return, for each session that waits for one of `ours`, the sessions that wait behind it in turn.

    One that waits behind two of them stands in both queues. `ours` themselves are never counted: our count of rows may
    stand behind the very statement that waits for our dump.
    """
    blockers: Mapping[int, Collection[int]] = {w.pid: w.blockers for w in waiting if w.pid not in ours}
    first = [pid for pid, before in blockers.items() if ours.intersection(before)]
    found = {}
    for head in first:
        behind: set[int] = set()
        fresh = {head}
        while fresh:
            fresh = {p for p, before in blockers.items() if fresh.intersection(before)} - behind - set(first)
            behind |= fresh
        found[head] = frozenset(behind)
    return found


class LockWaits:
    """All that was seen while one database was dumped. `gave_way` counts how often the dump let others go first."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.gave_way = 0
        self._waits: dict[tuple[int, str, str], Wait] = {}
        self._since: dict[tuple[int, str, str], float] = {}

    def see(self, waiting: Collection[Waiting], ours: frozenset[int], now: float) -> tuple[bool, list[Wait]]:
        """Take in what one look at `now` (seconds of a clock that never goes back) showed.

        Return whether anybody waits for us, and the waits that are new; all but the first TOLD of these are left out.
        """
        found = queues(waiting, ours)
        fresh: list[Wait] = []
        for one in waiting:
            if one.pid not in found:
                continue
            key = (one.pid, one.table, one.mode)
            since = self._since.setdefault(key, now)
            seconds = round(now - since if one.seconds is None else one.seconds, 1)
            if key not in self._waits:
                self._waits[key] = Wait(
                    self.database, one.table, one.mode, one.pid, one.role, one.application, seconds, 0
                )
                if len(self._waits) <= TOLD:
                    fresh.append(self._waits[key])
            wait = self._waits[key]
            wait.seconds = max(wait.seconds, seconds)
            wait.queued = max(wait.queued, len(found[one.pid]))
        return bool(found), fresh

    @property
    def pids(self) -> list[int]:
        """The processes that ever waited for us."""
        return sorted({wait.pid for wait in self._waits.values()})

    def facts(self) -> list[dict[str, Any]]:
        """Return what to tell of each wait, as data: the fields of Wait."""
        return [dataclasses.asdict(wait) for wait in list(self._waits.values())[:TOLD]]

    def warnings(self) -> list[str]:
        """Return what to tell of all that, as sentences."""
        told = [wait.past() for wait in list(self._waits.values())[:TOLD]]
        if len(self._waits) > TOLD:
            more = len(self._waits) - TOLD
            told.append("In the database %r, the dump held up %d more sessions." % (self.database, more))
        if self.gave_way:
            times = "once" if self.gave_way == 1 else "%d times" % self.gave_way
            told.append("The dump of %r gave way %s to sessions that waited for its locks." % (self.database, times))
        return told


__all__ = ("TOLD", "LockWaits", "Wait", "Waiting", "queues")
