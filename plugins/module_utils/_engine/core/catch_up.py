# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which runs of the schedule fell into a downtime. Pure.

As systemd's `Persistent=` has it: once, for the last time that was missed, however many were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Optional

from .calendar import Calendar, counts_from, last_before


@dataclass(frozen=True)
class Missed:
    """A verb of the schedule, and when it was due last without having run since."""

    verb: str
    due: datetime


def missed(
    calendars: Mapping[str, Calendar],
    ended: Mapping[str, Optional[datetime]],
    since: datetime,
    now: datetime,
    zone: tzinfo,
) -> list[Missed]:
    """Return what was due and has not run, in the order of `calendars`.

    `ended` is when the last run of each verb was over, however it went: what failed was not missed. What was due before
    `since`, when the calendars came to be, was promised by others.
    """
    found = []
    for verb, calendar in calendars.items():
        due = last_before(calendar, now, zone)
        last = ended.get(verb)
        if due is not None and due >= since and (last is None or last < counts_from(due, zone)):
            found.append(Missed(verb, due))
    return found


__all__ = ("Missed", "missed")
