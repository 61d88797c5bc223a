# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The checklists of an operator as data, and what ticks each line: evidence, or the signature of a person. Pure.

A line with a `proof` is ticked by what the host knows: sets, evidence, runs, settings of the bucket, modes of files, the
schedule. One without is ticked by a person. One that is `signable` by either, as its evidence may lie elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from .checklist_proofs import DONE, OPEN, PROOFS, Answer, Facts
from .commands import addressed
from .errors import UsageError
from .times import iso, parse_iso

_LONGEST = 200  # characters of a text in a line

# The stages in the order in which a host goes through them, with how many days a tick lasts (0: for good).
STAGES: Mapping[str, tuple[str, int]] = {
    "before": ("Before deployment", 0),
    "deployment": ("Deployment", 0),
    "day-1": ("Day 1", 0),
    "week-1": ("Week 1", 0),
    "week-2": ("Week 2: a restore to a test database", 0),
    "week-4": ("Week 4: the first drill", 0),
    "weekly": ("Every week", 7),
    "monthly": ("Every month", 31),
    "quarterly": ("Every quarter", 92),
    "yearly": ("Every year", 366),
    "sign-off": ("Sign-off", 0),
}


@dataclass(frozen=True)
class Line:
    """One line: who sees to it, what must be so, the question that evidence answers (if any), and what to do when it is not."""

    id: str
    who: str
    text: str
    proof: str = ""
    todo: str = ""
    signable: bool = False

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        return self.id.partition(".")[0]

    @property
    def by_person(self) -> bool:
        """Whether a person may tick it."""
        return self.signable or not self.proof


_OPERATOR, _DBA, _SECURITY, _OWNER, _MANAGER = "operator", "database", "security", "data owner", "management"
SIGN = "Sign it when it is so."
SIGNING = "pgops checklist sign %s --name NAME"
_TOLD = "pgops alert test; who got it signs."
_WAYS = "Turn another channel on (section alerts), then: pgops alert test"
_RESTORE = "pgops restore --database NAME --rename NAME NAME_test"

LINES: tuple[Line, ...] = (
    Line("before.objectives", _OWNER, "How much data may be lost and how long a recovery may take is agreed in writing", "", SIGN),
    Line("before.people", _MANAGER, "Who is called at night, and who decides about a restore, is agreed", "", SIGN),
    Line("before.space", _OPERATOR, "The backup directory has room for another backup", "space", "Make room, or move local.path."),
    Line("before.store", _OPERATOR, "The store off the server can do all that is needed", "probed", "pgops probe"),
    Line("before.encryption", _SECURITY, "Backups are encrypted, here or by the store", "encrypted", "Set backup.encryption, or s3.sse.", True),
    Line("before.keys", _SECURITY, "The private key and the vault's password lie where the loss of these servers does not reach", "", SIGN),
    Line("deployment.configuration", _OPERATOR, "The configuration is in order", "configured", "pgops config --check"),
    Line("deployment.files", _SECURITY, "Nobody else can read the configuration, its secrets and the backups", "modes", "Apply the role agent again."),
    Line("deployment.schedule", _OPERATOR, "Backups, copies and verifications run by themselves", "scheduled", "Apply the role schedule."),
    Line("deployment.versions", _SECURITY, "The bucket keeps versions, so that overwriting destroys nothing", "versions", "Apply the role storage.", True),
    Line("deployment.lock", _SECURITY, "Object Lock keeps backups from being removed by anybody", "locked", "A new bucket: storage_object_lock.", True),
    Line("deployment.public", _SECURITY, "The bucket is closed to the public", "private", "Apply the role storage.", True),
    Line("deployment.metrics", _OPERATOR, "A monitoring system asks about the backups", "monitored", "Apply the role monitoring.", True),
    Line("deployment.alert", _OPERATOR, "An alert that was sent as a test reached a person, by two ways", "told", _TOLD, True),
    Line("deployment.ways", _OPERATOR, "Trouble reaches people by two independent ways, each of which works", "ways", _WAYS, True),
    Line("day-1.backup", _OPERATOR, "There is a recent backup", "backup", "pgops backup"),
    Line("day-1.covered", _DBA, "Every database is in it, or left out on purpose", "covered", "Check backup.databases and its like.", True),
    Line("day-1.copy", _OPERATOR, "There is a recent copy off the server", "offsite", "pgops sync"),
    Line("day-1.proof", _DBA, "A set is proven to restore", "verified", "pgops verify --level restore"),
    Line("week-1.nights", _OPERATOR, "Backups succeeded for seven days, as often as the schedule asks", "seven-days", "pgops status, the log backup.log"),
    Line("week-1.sizes", _DBA, "The newest set is about as large as the others", "sizes", "pgops info --details"),
    Line("week-1.whole", _OPERATOR, "All sets in all places are whole", "whole", "pgops info"),
    Line("week-1.prune", _OPERATOR, "Retention has removed what it should, once at least", "pruned", "pgops prune"),
    Line("week-2.restore", _DBA, "A database was restored beside the old one", "restored", _RESTORE, True),
    Line("week-2.application", _OWNER, "Who owns the data has looked at the restored database and finds it right", "", SIGN),
    Line("week-4.drill", _OPERATOR, "A server was recovered elsewhere, as if this one were lost", "drilled", "Recover elsewhere by the runbook.", True),
    Line("week-4.time", _OWNER, "The time that it took is within what was agreed", "", SIGN),
    Line("week-4.runbook", _MANAGER, "Somebody who did not write the runbook recovered by it", "", SIGN),
    Line("weekly.backups", _OPERATOR, "Backups succeeded for seven days, as often as the schedule asks", "seven-days", "pgops status, the log backup.log"),
    Line("weekly.copy", _OPERATOR, "There is a recent copy off the server", "offsite", "pgops sync"),
    Line("weekly.proof", _DBA, "A restore was proven this week", "verified", "pgops verify --level restore"),
    Line("weekly.runs", _OPERATOR, "No last run of any kind failed", "no-failures", "pgops status"),
    Line("weekly.space", _OPERATOR, "The backup directory has room for another backup", "space", "pgops prune, or a larger disk."),
    Line("monthly.restore", _DBA, "A database was restored for a test this month", "restored", _RESTORE, True),
    Line("monthly.store", _OPERATOR, "The store was tried this month", "probed", "pgops probe"),
    Line("monthly.whole", _OPERATOR, "All sets in all places are whole", "whole", "pgops verify --level checksum all"),
    Line("monthly.alert", _OPERATOR, "An alert that was sent as a test reached a person", "told", _TOLD, True),
    Line("monthly.growth", _DBA, "The growth of the databases and the places was looked at", "", SIGN),
    Line("quarterly.credentials", _SECURITY, "The credentials of the store and the server were renewed", "renewed", "Renew them; apply the role agent.", True),
    Line("quarterly.drill", _OPERATOR, "A server was recovered elsewhere", "drilled", "Recover elsewhere by the runbook.", True),
    Line("quarterly.access", _SECURITY, "Who may read and remove backups was looked through", "", SIGN),
    Line("yearly.drill", _MANAGER, "A full drill with all who would take part was held", "", SIGN),
    Line("yearly.archive", _SECURITY, "Old sets lie in an archive class of the store", "archived", "storage_lifecycle.archive_after", True),
    Line("yearly.keys", _SECURITY, "A set was opened with the copy of the key that is kept elsewhere", "", SIGN),
    Line("yearly.objectives", _OWNER, "What may be lost and how long a recovery may take was agreed anew", "", SIGN),
    Line("yearly.retention", _OWNER, "Retention is as law and contracts demand", "", SIGN),
    Line("sign-off.operator", _OPERATOR, "Operations takes the backups over", "", SIGN),
    Line("sign-off.database", _DBA, "The database team trusts the restores", "", SIGN),
    Line("sign-off.security", _SECURITY, "Security accepts access, encryption and locks", "", SIGN),
    Line("sign-off.owner", _OWNER, "Who owns the data accepts what may be lost and how long a recovery takes", "", SIGN),
    Line("sign-off.management", _MANAGER, "Management accepts the remaining risk", "", SIGN),
)  # fmt: skip


def line_errors(lines: Iterable[tuple[str, Line]]) -> list[str]:
    """Return what is wrong with lines of somebody's own, each with the path by which it is told."""
    errors: list[str] = []
    known = {line.id: "the lines of pgops" for line in LINES}
    for where, line in lines:
        stage, _dot, name = line.id.partition(".")
        if stage not in STAGES or not re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", name) or len(name) > 60:
            errors.append(
                "%s.id: expected a stage (%s), a point and a name of small letters, digits and hyphens, found %r."
                % (where, ", ".join(STAGES), line.id)
            )
        elif line.id in known:
            errors.append("%s.id: %s is in %s already; choose another name." % (where, line.id, known[line.id]))
        known.setdefault(line.id, where)
        texts = {key: str(getattr(line, key)) for key in ("who", "text", "todo")}
        errors += ["%s.%s: missing." % (where, key) for key in ("who", "text") if not texts[key].strip()]
        errors += [
            "%s.%s: expected one line of at most %d characters." % (where, key, _LONGEST)
            for key, said in texts.items()
            if len(said.splitlines()) > 1 or len(said) > _LONGEST
        ]
        if line.proof and line.proof not in PROOFS:
            errors.append("%s.proof: expected one of %s, found %r." % (where, ", ".join(PROOFS), line.proof))
        if line.signable and not line.proof:
            errors.append("%s.signable: a line without a proof is signed anyway; leave it out." % where)
    return errors


def judge(facts: Facts, stages: Iterable[str] = (), *, own: Sequence[Line] = ()) -> dict[str, Any]:
    """Return the `stages` that are asked for (all when empty), each with its `lines` ticked or not, and the sums.

    A line has id, who, text, state, ticked, by (evidence, a name, or empty), seen, when, todo, signable and own, which is
    true for those of `own` behind the usual ones.
    """
    wanted = list(stages) or list(STAGES)
    found = []
    for stage in wanted:
        title, days = STAGES[stage]
        lines = [{**_ticked(line, facts, days), "own": False} for line in LINES if line.stage == stage]
        lines += [{**_ticked(_advised(line), facts, days), "own": True} for line in own if line.stage == stage]
        found.append({"stage": stage, "title": title, "lines": lines, "done": sum(line["ticked"] for line in lines)})
    every = [line for stage in found for line in stage["lines"]]
    return {"stages": found, "lines": len(every), "done": sum(line["ticked"] for line in every)}


def _advised(line: Line) -> Line:
    """Return the line with what is usually to be done, where it does not say."""
    usual = next((other.todo for other in LINES if line.proof and other.proof == line.proof), SIGN)
    return line if line.todo else replace(line, todo=usual)


def _ticked(line: Line, facts: Facts, days: int) -> dict[str, Any]:
    """Return a line with what ticks it: evidence first, then a signature that has not lapsed."""
    answer = PROOFS[line.proof](facts, days) if line.proof else Answer(OPEN, "Nobody has signed this yet.")
    by = "evidence" if line.proof else ""
    if answer.state != DONE and line.by_person:
        signature = next((s for s in reversed(facts.signed) if s["line"] == line.id), None)
        if signature is not None:
            by, answer = _signature(signature, facts.now, days, line, answer)
    ticked = answer.state == DONE
    return {
        "id": line.id,
        "who": line.who,
        "text": line.text,
        "state": answer.state,
        "ticked": ticked,
        "by": by,
        "seen": answer.seen,
        "when": iso(answer.when) if answer.when else None,
        "todo": "" if ticked else addressed(line.todo, facts.config_file),
        "signable": line.by_person,
    }


def _signature(
    signature: Mapping[str, Any], now: datetime, days: int, line: Line, before: Answer
) -> tuple[str, Answer]:
    when = parse_iso(signature["when"])
    said = "Signed by %s on %s" % (signature["name"], when.strftime("%Y-%m-%d"))
    said += ": %s" % signature["note"] if signature["note"] else "."
    if days and now - when > timedelta(days=days):
        lapsed = "%s That has lapsed after %d days." % (said, days)
        return ("evidence" if line.proof else ""), Answer(before.state, lapsed, when)
    return str(signature["name"]), Answer(DONE, said, when)


def line_of(line_id: str, own: Sequence[Line] = ()) -> Line:
    """Return the line with that id, for a person to sign. Raise UsageError if there is none or evidence alone ticks it."""
    for line in (*LINES, *map(_advised, own)):
        if line.id == line_id:
            if not line.by_person:
                raise UsageError(
                    "%s is ticked by evidence only; nobody can sign it." % line_id, hint="What ticks it: %s" % line.todo
                )
            return line
    raise UsageError("There is no line %s." % line_id, hint="'pgops checklist' shows all with their names.")


def check_name(name: str) -> str:
    """Return the name of who signs, in one line. Raise UsageError if it is none."""
    flat = " ".join(name.split())
    if not re.search(r"\w", flat) or len(flat) > 100:
        raise UsageError("A signature needs the name of a person.", hint="--name 'Ada Lovelace'")
    return flat


__all__ = (
    "LINES",
    "SIGN",
    "SIGNING",
    "STAGES",
    "Line",
    "check_name",
    "judge",
    "line_errors",
    "line_of",
)
