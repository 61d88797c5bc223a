# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How severe each cause is, in one table for alerts, `pgops check` and the rules of Prometheus. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .freshness import CRITICAL, WARNING

_INCIDENT = {CRITICAL: "PgopsIncidentCritical", WARNING: "PgopsIncident"}
_WAL = {CRITICAL: "PgopsWalNotSafe", WARNING: "PgopsWalAtRisk"}


@dataclass(frozen=True)
class Severity:
    """One way in which a cause is wrong: its level when it alarms, and the rules of Prometheus that tell of it."""

    cause: str
    level: str
    when: str
    rules: tuple[str, ...]


def _incident(cause: str, level: str, when: str) -> Severity:
    return Severity(cause, level, when, (_INCIDENT[level],))


def _wal(cause: str, level: str, when: str) -> Severity:
    return Severity(cause, level, when, (_WAL[level],))


# An incident that lasts for alerts.escalate_after is told as critical by the channels, whatever stands here; who asks is told
# what it is.
TABLE = (
    Severity("failed-run", CRITICAL, "it failed or was killed", ("PgopsRunFailed", "PgopsIncidentCritical")),
    Severity(
        "failed-run",
        WARNING,
        "of prune; interrupted, or another run was in its way",
        ("PgopsRunIncomplete", "PgopsIncident"),
    ),
    _incident("missed-run", CRITICAL, "of backup"),
    _incident("missed-run", WARNING, "of any other"),
    # A late run has the worse level of what follows from it.
    _incident("late-run", CRITICAL, "what it should have renewed is too old"),
    _incident("late-run", WARNING, "it takes too long"),
    Severity("backup-age", CRITICAL, "too old", ("PgopsBackupTooOld",)),
    Severity("base-age", CRITICAL, "too old", ("PgopsBaseBackupTooOld",)),
    Severity("offsite-age", CRITICAL, "too old", ("PgopsOffsiteCopyTooOld",)),
    Severity("base-offsite-age", CRITICAL, "too old", ("PgopsBaseOffsiteCopyTooOld",)),
    Severity("offsite-place", CRITICAL, "it cannot be read", ("PgopsPlaceUnreachable",)),
    Severity("local-place", CRITICAL, "it cannot be read", ("PgopsPlaceUnreachable",)),
    Severity("verification-age", WARNING, "no proof for 7 days", ("PgopsVerificationOverdue",)),
    Severity("verification-age", CRITICAL, "no proof for 14 days", ("PgopsVerificationStale",)),
    Severity("failed-set", CRITICAL, "the newest set of a place failed", ("PgopsVerificationFailed",)),
    Severity("failed-set", WARNING, "older ones failed", ("PgopsOlderSetFailed",)),
    Severity("damaged-set", WARNING, "files are missing or wrong", ("PgopsSetDamaged",)),
    Severity("no-databases", CRITICAL, "the newest set is empty", ("PgopsBackupEmpty",)),
    _incident("uncovered", WARNING, "no backup holds a new database"),
    Severity("size", WARNING, "far from the usual", ("PgopsBackupSizeUnusual", "PgopsIncident")),
    Severity("disk", CRITICAL, "the next backup does not fit", ("PgopsDiskFull", "PgopsDiskSoonFull")),
    _incident("disk", WARNING, "it will not fit within disk_days"),
    _incident("state-disk", CRITICAL, "runs leave no record"),
    _incident("two-clusters", CRITICAL, "two hosts back up under one name"),
    Severity("clock", WARNING, "it is off", ("PgopsClockWrong",)),
    Severity("restore-test", WARNING, "nobody tried one", ("PgopsRestoreTestOverdue",)),
    _wal("wal-archive", CRITICAL, "the server does not archive"),
    _wal("wal-archive", WARNING, "WAL waits"),
    _wal("wal-contradiction", CRITICAL, "two servers archive to one place"),
    _wal("wal-history", CRITICAL, "the history of the timeline is missing"),
    _wal("wal-room", CRITICAL, "the disk is about to be full"),
    _wal("wal-room", WARNING, "the disk will be full soon"),
    _wal("wal-clock", WARNING, "clocks differ"),
    _wal("wal-damaged", WARNING, "damaged WAL"),
    _wal("wal-gap", WARNING, "WAL is missing"),
    _wal("wal-server", WARNING, "it cannot be asked"),
    _wal("wal-shipping", WARNING, "WAL waits for S3"),
    _wal("wal-timeline", WARNING, "no base backup of the timeline"),
    _wal("wal-window", WARNING, "no base backup to replay it on"),
)


def levels_of(cause: str) -> tuple[str, ...]:
    """Return the levels that a cause (`disk`, `failed-run/backup`) may alarm with; none for one that is not known."""
    kind = cause.partition("/")[0]
    return tuple(one.level for one in TABLE if one.cause == kind)


def rows() -> list[str]:
    """Return the table as lines of Markdown, for the guide."""
    lines = ["| cause | when | alert, check and rule say | rule |", "|---|---|---|---|"]
    for one in TABLE:
        rules = ", ".join("`%s`" % rule for rule in one.rules)
        lines.append("| `%s` | %s | %s | %s |" % (one.cause, one.when, one.level, rules))
    return lines


__all__ = ("TABLE", "Severity", "levels_of", "rows")
