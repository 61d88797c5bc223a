# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From troubles to notices: one open incident per cause, told once, repeated seldom, escalated, and its end told once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from .alerting import Trouble
from .freshness import CRITICAL, WARNING
from .quiet import ESCALATED, RANK, Quiet
from .times import iso, parse_iso

OPENED, RAISED, REPEATED, ESCALATION, RECOVERED = "opened", "raised", "repeated", "escalated", "recovered"
MESSAGE, TEST = "message", "test"


@dataclass(frozen=True)
class Policy:
    """How often a cause is told: `repeat` and `escalate_after` of zero are never.

    What came back within `flapping` has its next end told only when it has stayed away for `calm`.
    """

    repeat: timedelta = timedelta(hours=24)
    escalate_after: timedelta = timedelta(days=3)
    quiet: Quiet = Quiet()
    flapping: timedelta = timedelta(hours=6)
    calm: timedelta = timedelta(hours=2)


@dataclass(frozen=True)
class Incident:
    """A cause that lasts. `told` is when it was last told (None: not yet), `loudest` the highest rank that it was told at.

    `over` is since when it is no more. Its recovery is still to be told until it was: `ended` is when. It is remembered for a while,
    so that what comes back joins it; `times` is how often it began, `first` when for the first time.
    """

    cause: str
    level: str
    text: str
    step: str
    since: datetime
    seen: datetime
    opened: Optional[datetime] = None
    told: Optional[datetime] = None
    loudest: int = -1
    told_level: str = ""
    escalated: bool = False
    over: Optional[datetime] = None
    ended: Optional[datetime] = None
    times: int = 1
    first: Optional[datetime] = None

    def as_data(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {key: iso(value) if isinstance(value, datetime) else value for key, value in asdict(self).items()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Incident:
        """Return the incident that as_data() gave. Raise KeyError, TypeError, ValueError or UsageError for anything else."""
        # What an older version remembered began once.
        known = {"ended": None, "first": None, "times": 1, **data}
        names = ("opened", "told", "over", "ended", "first")
        moments = {key: parse_iso(known[key]) if known[key] is not None else None for key in names}
        texts = {key: str(data[key]) for key in ("cause", "level", "text", "step", "told_level")}
        if texts["level"] not in (WARNING, CRITICAL):
            raise ValueError("no level: %s" % texts["level"])
        return cls(
            since=parse_iso(data["since"]),
            seen=parse_iso(data["seen"]),
            loudest=int(data["loudest"]),
            escalated=bool(data["escalated"]),
            times=int(known["times"]),
            **texts,  # type: ignore[arg-type]  # each by its own name
            **moments,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Telling:
    """One thing to tell: `event` is what happened to the incident, `rank` how loud it is."""

    event: str
    cause: str
    level: str
    text: str
    step: str
    since: datetime
    rank: int


def advance(
    held: Mapping[str, Incident], found: Iterable[Trouble], policy: Policy, now: datetime
) -> tuple[dict[str, Incident], list[Telling]]:
    """Return the incidents after `now`, and what is to be told, from those that there were and the troubles of now."""
    current = {trouble.cause: trouble for trouble in found}
    kept: dict[str, Incident] = {}
    tellings: list[Telling] = []
    for cause in sorted({*held, *current}):
        rest: Optional[Incident]
        if cause in current:
            rest, telling = _lasting(_seen(held.get(cause), current[cause], policy, now), current[cause], policy, now)
        else:
            rest, telling = _ended(held[cause], policy, now)
        if rest is not None:
            kept[cause] = rest
        if telling is not None:
            tellings.append(telling)
    return kept, sorted(tellings, key=lambda t: (-t.rank, t.cause))


def _seen(incident: Optional[Incident], trouble: Trouble, policy: Policy, now: datetime) -> Incident:
    """Return the incident as the trouble of now leaves it; one whose end is still untold goes on.

    One whose end was told a short while ago begins again, and knows how often it has.
    """
    if incident is None or (incident.ended is not None and abs(now - incident.ended) >= policy.flapping):
        return Incident(trouble.cause, trouble.level, trouble.text, trouble.step, trouble.since, seen=now)
    times, first = incident.times, incident.first
    if incident.over is not None:
        times, first = times + 1, first or incident.since
    if incident.ended is not None:
        again = Incident(trouble.cause, trouble.level, trouble.text, trouble.step, trouble.since, seen=now)
        return replace(again, times=times, first=first)
    return replace(
        incident,
        level=trouble.level,
        text=trouble.text,
        step=trouble.step,
        since=min(incident.since, trouble.since),
        over=None,
        times=times,
        first=first,
    )


def _lasting(incident: Incident, trouble: Trouble, policy: Policy, now: datetime) -> tuple[Incident, Optional[Telling]]:
    event = _event(incident, trouble, policy, now)
    if not event:
        return incident, None
    escalated = incident.escalated or event == ESCALATION
    level = CRITICAL if escalated else incident.level
    rank = RANK[ESCALATED] if event == ESCALATION else RANK[level]
    if policy.quiet.holds(now, rank):
        return incident, None
    telling = Telling(event, incident.cause, level, _said(incident), incident.step, incident.since, rank)
    told = replace(
        incident,
        opened=incident.opened or now,
        told=now,
        told_level=level,
        escalated=escalated,
        loudest=max(incident.loudest, rank),
    )
    return told, telling


def _event(incident: Incident, trouble: Trouble, policy: Policy, now: datetime) -> str:
    """Return what is to be told of an incident that lasts, empty for nothing."""
    if incident.told is None or incident.opened is None:
        return OPENED if now - incident.seen >= trouble.patience else ""
    if RANK[incident.level] > RANK[incident.told_level]:
        return RAISED
    if policy.escalate_after and not incident.escalated and now - incident.opened >= policy.escalate_after:
        return ESCALATION
    if policy.repeat and now - incident.told >= policy.repeat:
        return REPEATED
    return ""


def _ended(incident: Incident, policy: Policy, now: datetime) -> tuple[Optional[Incident], Optional[Telling]]:
    """What was never told ends untold. What was, ends as loud as it was, after the quiet hours if it must, and when it has
    stayed away for longer the more often it came back."""
    if incident.ended is not None:
        return (incident if abs(now - incident.ended) < policy.flapping else None), None
    if incident.told is None:
        return (replace(incident, over=now, ended=now) if incident.times > 1 else None), None
    # A clock that was set back must not keep an end from being told.
    over = min(incident.over or now, now)
    calm = min(policy.flapping, policy.calm * (incident.times - 1))
    if now - over < calm or policy.quiet.holds(now, min(incident.loudest, RANK[CRITICAL])):
        return replace(incident, over=over), None
    level = incident.told_level
    text = _said(incident)
    if incident.times > 1:
        text += " (It has stayed away since %s.)" % _minute(over)
    told = Telling(RECOVERED, incident.cause, level, text, incident.step, incident.since, incident.loudest)
    return replace(incident, over=over, ended=now), told


def _said(incident: Incident) -> str:
    """Return the text, with how often it has begun where that is more than once."""
    if incident.times == 1 or incident.first is None:
        return incident.text
    return "%s (Time %d since %s.)" % (incident.text, incident.times, _minute(incident.first))


def _minute(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


__all__ = (
    "ESCALATION",
    "MESSAGE",
    "OPENED",
    "RAISED",
    "RECOVERED",
    "REPEATED",
    "TEST",
    "Incident",
    "Policy",
    "Telling",
    "advance",
)
