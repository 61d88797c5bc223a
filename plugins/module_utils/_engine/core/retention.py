# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Retention: which sets of a place stay, and why. Pure: it takes facts, rules and the moment, and returns a plan.

A set stays when any rule keeps it. Dumps and base backups are counted apart, so that neither pushes the other out. Whatever
the rules say, these stay of each: pinned sets, the newest set, the newest verified sets (at least one), sets that claim to
come from the future, and every ancestor of a set that stays.

Where clusters take sets by turns, as two hosts with one name do, each is counted apart, too. Of every other cluster, as that
before an upgrade, the newest set and the newest verified one stay for as long as the rules reach back.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Callable, Optional

from ..settings import Retention
from .lineages import Taken, entwined
from .times import parse_span

_CLUSTERS_KEPT = 3


@dataclass(frozen=True)
class SetFacts:
    """What retention needs to know about a set; `physical` ones hold a data directory, the others dumps.

    `system` is the cluster that it is of, empty where nobody knows.
    """

    id: str
    begun: datetime
    verified: bool = False
    pinned: bool = False
    parent: Optional[str] = None
    physical: bool = False
    system: str = ""


@dataclass(frozen=True)
class Decision:
    """Whether the set stays, with the reasons in words."""

    id: str
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """One decision for each set, the newest set first: removing in this order takes children before parents."""

    decisions: tuple[Decision, ...]

    @property
    def keep(self) -> tuple[str, ...]:
        """The ids of the sets that stay."""
        return tuple(d.id for d in self.decisions if d.keep)

    @property
    def remove(self) -> tuple[str, ...]:
        """The ids of the sets that go."""
        return tuple(d.id for d in self.decisions if not d.keep)


Reasons = dict[str, list[str]]


def plan(facts: Sequence[SetFacts], rules: Retention, now: datetime) -> Plan:
    """Return what `rules` decide at `now` about the sets of one place. The order of `facts` does not matter.

    Raise ValueError if two facts share an id.
    """
    reasons: Reasons = {fact.id: [] for fact in facts}
    if len(reasons) != len(facts):
        raise ValueError("two sets with one id")
    ordered = sorted(facts, key=lambda f: (f.begun, f.id), reverse=True)
    # A set from the future must not take the seat of a true newest set, so it stays without being counted.
    past = [f for f in ordered if f.begun <= now]
    for fact in ordered:
        if fact.pinned:
            reasons[fact.id].append("pinned")
        if fact.begun > now:
            reasons[fact.id].append("begun in the future: check the clock")
    _by_age(past, rules, now, reasons)
    apart = entwined(Taken(f.id, f.begun, f.system) for f in past)
    for physical, system in itertools.product((False, True), ("", *apart)):
        family = [f for f in past if f.physical is physical and (f.system if f.system in apart else "") == system]
        _by_count(family, rules, reasons)
        _by_cluster(family, rules, now, reasons)
        for label, count, period in (
            ("daily", rules.keep_daily, _day),
            ("weekly", rules.keep_weekly, _week),
            ("monthly", rules.keep_monthly, _month),
            ("yearly", rules.keep_yearly, _year),
        ):
            _by_period(family, label, count, period, reasons)
    _ancestors(ordered, reasons)
    why = _why_removed(rules)
    return Plan(tuple(Decision(f.id, bool(reasons[f.id]), tuple(reasons[f.id]) or (why,)) for f in ordered))


def _by_age(past: list[SetFacts], rules: Retention, now: datetime, reasons: Reasons) -> None:
    if not rules.keep_within:
        return
    span = parse_span(rules.keep_within)
    for fact in past:
        if now - fact.begun < span:
            reasons[fact.id].append("younger than %s" % rules.keep_within)


def _by_count(past: list[SetFacts], rules: Retention, reasons: Reasons) -> None:
    # keep_last 0 still keeps the newest: it may be the one that no verification has reached yet.
    for index, fact in enumerate(past[: max(1, rules.keep_last)]):
        reasons[fact.id].append("newest" if index == 0 else "among the newest %d" % rules.keep_last)
    verified = [f for f in past if f.verified]
    for fact in verified[: max(1, rules.keep_verified)]:
        reasons[fact.id].append("verified floor")


def _by_cluster(past: list[SetFacts], rules: Retention, now: datetime, reasons: Reasons) -> None:
    """Keep the newest set, and the newest verified one, of the last clusters before the newest, for as long as the rules reach back.

    Of the last ones only: a host whose cluster is made anew each night would keep a set of each.
    """
    known = [f for f in past if f.system]
    far = reach(rules)
    for facts, what in ((known, "newest"), ([f for f in known if f.verified], "newest verified")):
        newest: dict[str, SetFacts] = {}
        for fact in facts:
            newest.setdefault(fact.system, fact)
        others = [system for system in newest if system != known[0].system]
        for system in others[:_CLUSTERS_KEPT]:
            if now - newest[system].begun <= far:
                reasons[newest[system].id].append("%s of the cluster %s" % (what, system))


def reach(rules: Retention) -> timedelta:
    """Return how far back the rules reach where there is a set each night."""
    within = parse_span(rules.keep_within) if rules.keep_within else timedelta(0)
    days = max(rules.keep_last, rules.keep_verified, rules.keep_daily, 7 * rules.keep_weekly)
    return max(within, timedelta(days=max(days, 31 * rules.keep_monthly, 366 * rules.keep_yearly)))


def _by_period(
    past: list[SetFacts], label: str, count: int, period: Callable[[datetime], str], reasons: Reasons
) -> None:
    """Keep one set of each of the newest `count` periods that have one: the newest verified, else the newest."""
    members: dict[str, list[SetFacts]] = {}
    for fact in past:
        members.setdefault(period(fact.begun.astimezone(timezone.utc)), []).append(fact)
    for name in list(members)[:count]:
        chosen = next((f for f in members[name] if f.verified), members[name][0])
        reasons[chosen.id].append("%s %s" % (label, name))


def _ancestors(ordered: list[SetFacts], reasons: Reasons) -> None:
    """Keep what kept sets build on, up to the first of the chain; a broken or circular chain ends where it breaks."""
    parents = {f.id: f.parent for f in ordered}
    for fact in ordered:
        if not reasons[fact.id]:
            continue
        seen, child, parent = {fact.id}, fact.id, fact.parent
        while parent is not None and parent in parents and parent not in seen:
            reason = "parent of %s" % child
            if reason not in reasons[parent]:
                reasons[parent].append(reason)
            seen.add(parent)
            child, parent = parent, parents[parent]


def _why_removed(rules: Retention) -> str:
    if rules.keep_within:
        return "older than %s, and no rule keeps it" % rules.keep_within
    return "no rule keeps it"


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _week(moment: datetime) -> str:
    year, week, _unused = moment.isocalendar()
    return "%d-W%02d" % (year, week)


def _month(moment: datetime) -> str:
    return moment.strftime("%Y-%m")


def _year(moment: datetime) -> str:
    return moment.strftime("%Y")


__all__ = ("Decision", "Plan", "SetFacts", "plan", "reach")
