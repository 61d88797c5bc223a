# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What alerts would tell, for those who ask instead: every trouble of now is a finding, whoever hears of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Optional

from .alerting import JUDGED, Facts, Limits, Trouble, troubles
from .freshness import CRITICAL, OK, WARNING, Finding, worst
from .incidents import Incident
from .quiet import RANK
from .times import iso, parse_iso

Result = dict[str, Any]

# What a cause is called among the findings; %s is what follows its slash.
_CHECKS = {
    "failed-run": "run of %s",
    "missed-run": "missed run of %s",
    "late-run": "late run of %s",
    "failed-set": "failed set",
    "damaged-set": "damaged set",
    "no-databases": "no databases",
    "uncovered": "uncovered database",
    "size": "size",
    "disk": "disk",
    "state-disk": "state disk",
    "clock": "clock",
    "restore-test": "restore test",
    **{cause: check for check, (cause, _step, _patience) in JUDGED.items()},
}
# That the disk will be full is another thing than that it is, and is not judged by what is free now.
_FORECAST = "disk forecast"


def found(
    facts: Facts, limits: Limits, findings: Sequence[Mapping[str, Any]], now: datetime
) -> tuple[list[Trouble], list[Trouble]]:
    """Return every trouble of now, and those of which none of the `findings` (as status has them) tells; the worst first.

    `facts` need not say what was judged: the findings do.
    """
    judged = [
        Finding(f["check"], f["severity"], f["text"], parse_iso(f["since"]) if f["since"] else None) for f in findings
    ]
    every = troubles(replace(facts, judged=judged), limits, now)
    told = {f["check"] for f in findings if f["severity"] != OK}
    # Not with the findings: what follows from a missed run is a finding of its own already, and would be told twice.
    alone = troubles(replace(facts, judged=()), limits, now)
    return every, [trouble for trouble in alone if check_of(trouble) not in told]


def check_of(trouble: Trouble) -> str:
    """Return what a trouble is called among the findings of status."""
    kind, _slash, about = trouble.cause.partition("/")
    name = _CHECKS.get(kind, kind)
    return name % about if "%s" in name else name


def as_findings(untold: Iterable[Trouble], findings: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return the findings of troubles that no other one tells. One about the disk is the forecast where there is room now."""
    roomy = any(f["check"] == "disk" and f["severity"] == OK for f in findings)
    return [
        Finding(
            _FORECAST if trouble.cause == "disk" and roomy else check_of(trouble),
            trouble.level,
            trouble.text,
            since=trouble.since,
        )
        for trouble in untold
    ]


def levelled(findings: Iterable[Mapping[str, Any]], every: Iterable[Trouble]) -> list[Result]:
    """Return the findings, each at least as severe as the alert about the same: who asks is told what alerts tell."""
    levels: dict[str, list[str]] = {}
    for trouble in every:
        levels.setdefault(check_of(trouble), []).append(trouble.level)
    return [
        {**f, "severity": worst([f["severity"], *levels.get(f["check"], ())]) if f["severity"] != OK else OK}
        for f in findings
    ]


def steps(untold: Iterable[Trouble]) -> list[str]:
    """Return what to do next about them, as sentences."""
    return [t.step if t.step.endswith((".", ")")) else t.step + "." for t in untold if t.step]


def shown(every: Iterable[Trouble], held: Mapping[str, Incident]) -> list[Result]:
    """Return the troubles in JSON's types, each with when it was last `told` (None: not yet) and whether it was `escalated`."""
    return [{**trouble.as_data(), **_told(held.get(trouble.cause))} for trouble in every]


def _told(incident: Optional[Incident]) -> Result:
    if incident is None or incident.told is None or incident.over is not None:
        return {"told": None, "escalated": False}
    return {"told": iso(incident.told), "escalated": bool(incident.escalated)}


@dataclass(frozen=True)
class Way:
    """A way to people: from which `level` on it hears of trouble (empty: of none), of which verbs it hears each run, and
    through which services it goes."""

    name: str
    level: str
    watched: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


def ways(known: Sequence[Way], jobs: Sequence[str], wanted: int) -> list[Finding]:
    """Return a notice where some trouble reaches people by fewer ways than are `wanted`; zero wants none.

    Of the `jobs`, a watcher outside counts where it hears of their runs; for all else only what hears of that level does. Two
    ways that go through the same services are one. It is a notice and no finding: what it is about is not the state of the
    backups.
    """
    if wanted <= 0:
        return []
    lacking: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        # A job that never ran is told as that level, and so is heard of by whoever hears of it.
        _add(lacking, "a %s that fails or never runs" % job, _independent(known, _level_of(job), job), wanted)
    _add(lacking, "what else is critical", _independent(known, CRITICAL), wanted)
    _add(lacking, "warnings", _independent(known, WARNING), wanted)
    text = " ".join(
        "%s people of %s; there should be %d."
        % (_who(names), "trouble" if len(kinds) == len(jobs) + 2 else _listed(kinds), wanted)
        for names, kinds in lacking.items()
    )
    if not text:
        return []
    if known:
        text += " Turn on another channel (section alerts), or let one hear of more (its level, {verb} in a watcher's address)."
    return [Finding("alert ways", WARNING, text)]


def _add(lacking: dict[tuple[str, ...], list[str]], what: str, names: list[str], wanted: int) -> None:
    if len(names) < wanted:
        lacking.setdefault(tuple(names), []).append(what)


def _level_of(job: str) -> str:
    """Return the least level at which a job that fails or never runs is told."""
    return CRITICAL if job == "backup" else WARNING


def _independent(known: Sequence[Way], level: str, job: str = "") -> list[str]:
    """Return the names of the ways that hear of it, each with a service that none before it has."""
    found: list[str] = []
    used: set[str] = set()
    for way in known:
        hears = bool(way.level) and RANK[way.level] <= RANK[level]
        services = set(way.services or (way.name,))
        if (hears or job in way.watched) and not services <= used:
            found.append(way.name)
            used |= services
    return found


def _who(names: Sequence[str]) -> str:
    if not names:
        return "No channel tells"
    return "Only %s %s" % (_listed(names), "tells" if len(names) == 1 else "tell")


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


__all__ = ("Way", "as_findings", "check_of", "found", "levelled", "shown", "steps", "ways")
