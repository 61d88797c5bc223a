# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A primary and its standbys: which one of them backs up. Pure: what the members told goes in, one name comes out.

The node that asks is no part of the rule, so that all nodes that see the same choose the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Optional

from .errors import RefusedError, UnreachableError, UsageError
from .times import human_span

PRIMARY, PREFER_STANDBY = "primary", "prefer_standby"
_MOST_PORT = 65535
_ENTRY = re.compile(
    r"\[(?P<bracketed>[^\[\]\s]+)\](?::(?P<bracketed_port>[0-9]+))?|(?P<host>[^:\[\]\s/@]+)(?::(?P<port>[0-9]+))?"
)


@dataclass(frozen=True)
class Member:
    """What a member of the group told. `trouble` says why it could not be asked; nothing else is known of it then.

    `system` and `started` (the moment at which the server started) name a server. `written` is the position of a primary's
    WAL, `received` and `replayed` those of a standby, `streaming` whether it hears from who sends them, and `age` how many
    seconds ago the last transaction that it knows was committed.
    """

    name: str
    trouble: str = ""
    standby: bool = False
    system: str = ""
    started: str = ""
    timeline: Optional[int] = None
    written: Optional[int] = None
    received: Optional[int] = None
    replayed: Optional[int] = None
    age: Optional[float] = None
    streaming: Optional[bool] = None
    paused: bool = False

    @property
    def state(self) -> str:
        """In a word, what it is."""
        if self.trouble:
            return "unknown"
        return "standby" if self.standby else "primary"


@dataclass(frozen=True)
class Chosen:
    """Who backs up, why, and (name, reason) of each member that was not even eligible."""

    name: str
    why: str
    passed_over: tuple[tuple[str, str], ...] = ()


def split_member(entry: str) -> tuple[str, Optional[int]]:
    """Return the host and the port, if one is given, of `host`, `host:port` or `[address]:port`. Raise UsageError."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise UsageError(
            "%r is no member." % entry, hint="Write it like db2, db2.example.com:5433 or [2001:db8::2]:5433."
        )
    port = found["bracketed_port"] or found["port"]
    if port is not None and not 1 <= int(port) <= _MOST_PORT:
        raise UsageError("%r has no true port." % entry, hint="Ports go from 1 to %d." % _MOST_PORT)
    return found["bracketed"] or found["host"], int(port) if port is not None else None


def may_name(moment: datetime, *, members: Sequence[str], node: str) -> bool:
    """Tell whether a set of `node` may bear the name of `moment`.

    Schedules begin everywhere in the same second, and nodes that do not see each other may all work: each names its sets after
    seconds of its own, or two sets would have one name in the bucket. In which order a node lists the members does not matter.
    """
    return int(moment.timestamp()) % len(members) == sorted(members).index(node)


def behind(member: Member, written: Optional[int]) -> Optional[float]:
    """Return by how many seconds the standby `member` is behind, None if nobody knows.

    `written` is the position of the primary, None where it could not be asked. Whoever has replayed that far is behind
    by nothing, however long ago the last transaction was; otherwise the age of that is the most that it can be.
    """
    if written is not None:
        there = member.replayed is not None and member.replayed >= written
    else:
        there = bool(member.streaming) and member.replayed is not None and member.replayed == member.received
    return 0.0 if there else member.age


def choose(members: Sequence[Member], *, run_on: str, max_lag: timedelta) -> Chosen:
    """Return which of `members`, the most preferred first, is to back up.

    Raise RefusedError if they are no group (two primaries, several clusters, one server twice) or none of them
    qualifies; UnreachableError if the one that would might be among those that could not be asked.
    """
    known = [member for member in members if not member.trouble]
    _check_one_cluster(known)
    primaries = [member for member in known if not member.standby]
    if len(primaries) > 1:
        raise RefusedError(
            "%s all call themselves the primary of this group." % _listed(_with_timeline(m) for m in primaries),
            hint="Stop the one that was replaced, the one with the lower timeline as a rule; until then nobody backs up.",
        )
    written = primaries[0].written if primaries else None
    passed_over = [(m.name, "it could not be asked: %s" % m.trouble.rstrip(".")) for m in members if m.trouble]
    if run_on == PREFER_STANDBY:
        for member in (m for m in known if m.standby):
            seconds = behind(member, written)
            unfit = _unfit(member, seconds, max_lag)
            if unfit:
                passed_over.append((member.name, unfit))
            else:
                why = "it is a standby, %s behind" % (human_span(seconds) if seconds else "nothing")
                return Chosen(member.name, why, tuple(passed_over))
    if primaries:
        why = "it is the primary" if run_on == PRIMARY else "it is the primary, and no standby qualifies"
        return Chosen(primaries[0].name, why, tuple(passed_over))
    if run_on == PRIMARY:
        passed_over += [(member.name, "it is a standby") for member in known]
    raise _nobody(members, passed_over)


def _check_one_cluster(known: Sequence[Member]) -> None:
    systems: dict[str, list[str]] = {}
    servers: dict[tuple[str, str], list[str]] = {}
    for member in known:
        if member.system:
            systems.setdefault(member.system, []).append(member.name)
        if member.started:
            servers.setdefault((member.system, member.started), []).append(member.name)
    if len(systems) > 1:
        told = "; ".join("%s: %s" % (system, _listed(names)) for system, names in sorted(systems.items()))
        raise RefusedError(
            "The members of this group are several clusters, by their system identifiers: %s." % told,
            hint="Check group.members, and that each standby was made from this primary.",
        )
    for names in servers.values():
        if len(names) > 1:
            raise RefusedError(
                "The members %s of this group are one and the same server." % _listed(names),
                hint="Check group.node, which must be this node's own entry, and the section postgres, which must lead to it.",
            )


def _unfit(member: Member, seconds: Optional[float], max_lag: timedelta) -> str:
    """Say why the standby does not qualify; empty when it does."""
    paused = "its replay is paused, and " if member.paused else ""
    if seconds is None:
        return "%show far it is behind is not known" % paused
    if seconds > max_lag.total_seconds():
        return "%sit is up to %s behind; group.max_lag is %s" % (
            paused,
            human_span(seconds),
            human_span(max_lag.total_seconds()),
        )
    return ""


def _nobody(members: Sequence[Member], passed_over: Iterable[tuple[str, str]]) -> Exception:
    told = "; ".join("%s: %s" % entry for entry in passed_over)
    text = "No member of this group can back up. %s." % told
    if any(member.trouble for member in members):
        return UnreachableError(text, hint="Start what is down, or let this node reach it; then run it again.")
    return RefusedError(text, hint="Promote a standby, or mend the replication; then run it again.")


def _with_timeline(member: Member) -> str:
    return "%s (timeline %d)" % (member.name, member.timeline) if member.timeline is not None else member.name


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return "%s and %s" % (", ".join(found[:-1]), found[-1]) if len(found) > 1 else found[0]


__all__ = ("PREFER_STANDBY", "PRIMARY", "Chosen", "Member", "behind", "choose", "may_name", "split_member")
