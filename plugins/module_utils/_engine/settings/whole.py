# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The whole configuration of one instance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .alerts import Alerts
from .backup import Backup, Base, Wal
from .option import option
from .places import S3, Local
from .proof import Restore, Verify
from .schedule import Schedule
from .server import Group, Postgres
from .watching import Checklist, Metrics


@dataclass(frozen=True)
class Config:
    """The whole configuration of one instance."""

    instance: str = option(
        "",
        "Name of the instance, unique in a bucket; the host and the port of the server when empty.",
        form="instance",
        example="db1-main",
    )
    postgres: Postgres = field(default_factory=Postgres)
    group: Group = field(default_factory=Group)
    backup: Backup = field(default_factory=Backup)
    base: Base = field(default_factory=Base)
    local: Local = field(default_factory=Local)
    s3: Optional[S3] = None
    verify: Verify = field(default_factory=Verify)
    restore: Restore = field(default_factory=Restore)
    wal: Wal = field(default_factory=Wal)
    schedule: Schedule = field(default_factory=Schedule)
    metrics: Metrics = field(default_factory=Metrics)
    alerts: Alerts = field(default_factory=Alerts)
    checklist: Checklist = field(default_factory=Checklist)
    state_dir: str = option("/var/lib/pgops", "Run records, locks and what is remembered between runs.", form="path")
    log_dir: str = option("/var/log/backups", "One log per verb; empty for none.", form="path")
    work_dir: str = option(
        "",
        "Room for files that a verification or restore needs for a while; a directory of its own in state_dir when empty.",
        form="path",
        example="/srv/pgops-work",
    )

    def scheduled_jobs(self) -> list[str]:
        """Return those of backup, sync and verify that run by themselves; backup always, as it is waited for everywhere."""
        found = ["backup"]
        found += ["sync"] if self.s3 is not None and self.schedule.sync else []
        return found + (["verify"] if self.schedule.verify else [])

    def watched_verbs(self, *, apart: bool) -> list[str]:
        """Return the verbs of which a watcher hears; `apart`: it has a check for each of them."""
        return list(self.alerts.watched) or (self.scheduled_jobs() if apart else ["backup"])


__all__ = ("Config",)
