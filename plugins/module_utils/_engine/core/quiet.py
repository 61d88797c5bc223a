# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How loud alerts are, and the hours in which only the loud ones are told. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timezone, tzinfo

from .errors import UsageError

INFO, WARNING, CRITICAL, ESCALATED = "info", "warning", "critical", "escalated"
# A channel hears what is at least as loud as its own level.
RANK = {INFO: 0, WARNING: 1, CRITICAL: 2, ESCALATED: 3}


@dataclass(frozen=True)
class Quiet:
    """Hours of the day, on the clock of `zone`, in which only what is at least `level` is told; begin == end is never."""

    begin: time = time(0, 0)
    end: time = time(0, 0)
    zone: tzinfo = timezone.utc
    level: str = CRITICAL

    def holds(self, now: datetime, rank: int) -> bool:
        """Tell whether what is as loud as `rank` must wait at `now`."""
        clock = now.astimezone(self.zone).time()
        by_day = self.begin <= self.end
        inside = self.begin <= clock < self.end if by_day else clock >= self.begin or clock < self.end
        return inside and rank < RANK[self.level]


def parse_quiet(text: str, zone: tzinfo, level: str) -> Quiet:
    """Return the quiet hours that `text` (`22:00-07:00`) names; none when it is empty. Raise UsageError if it names none."""
    if not text:
        return Quiet(zone=zone, level=level)
    match = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", text.strip())
    if not match:
        raise UsageError("%r names no hours." % (text,), hint="Write it like 22:00-07:00.")
    numbers = [int(n) for n in match.groups()]
    return Quiet(time(numbers[0], numbers[1]), time(numbers[2], numbers[3]), zone, level)


__all__ = ("CRITICAL", "ESCALATED", "INFO", "RANK", "WARNING", "Quiet", "parse_quiet")
