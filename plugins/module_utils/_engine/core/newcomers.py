# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A channel that is turned on while something is open hears of that once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Optional

from .incidents import REPEATED, Incident, Policy, Telling

Owed = dict[str, list[str]]


def introduce(
    owed: Optional[Mapping[str, Sequence[str]]],
    names: Sequence[str],
    held: Mapping[str, Incident],
    told: Collection[str],
    policy: Policy,
    now: datetime,
) -> tuple[Owed, dict[str, list[Telling]]]:
    """Return what each channel of `names` has still to hear (causes), and what is to be told to which now.

    `owed` is the former of the last look (None: nobody knows who was there, and all are taken for old), `held` the incidents
    after this one, `told` the causes that every channel hears of now anyway. What quiet hours hold back is told after them.
    """
    rest: Owed = {}
    at_once: dict[str, list[Telling]] = {}
    for name in names:
        causes = [] if owed is None else owed.get(name, sorted(held))
        rest[name] = []
        for cause in causes:
            incident = held.get(cause)
            if incident is None or incident.told is None or incident.ended is not None or cause in told:
                continue
            # What is over for now may come back as the same incident.
            if incident.over is not None or policy.quiet.holds(now, incident.loudest):
                rest[name].append(cause)
            else:
                at_once.setdefault(name, []).append(_telling(incident))
    return rest, at_once


def _telling(incident: Incident) -> Telling:
    level = incident.told_level or incident.level
    return Telling(REPEATED, incident.cause, level, incident.text, incident.step, incident.since, incident.loudest)


__all__ = ("Owed", "introduce")
