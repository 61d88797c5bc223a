# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The section of what runs by itself, and when."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True)
class Schedule:
    """When this host does each verb by itself: five fields as in a crontab, or @daily, @hourly, @weekly, @monthly.

    Limits of freshness follow from it. Nothing is scheduled by this section alone; the module pgops_schedule does that.
    """

    backup: str = option("0 2 * * *", "Backups; not scheduled when empty.", form="calendar")
    base: str = option(
        "auto",
        "Base backups; auto: each Sunday at midnight where wal.enabled is set, never otherwise. Not scheduled when empty.",
        form="calendar or auto",
        example="0 0 * * 0",
    )
    sync: str = option("30 2 * * *", "Copies to S3, where there is an S3 place.", form="calendar")
    verify: str = option("0 3 * * *", "Verifications.", form="calendar")
    prune: str = option("0 1 * * 0", "Removals by retention.", form="calendar")
    alert: str = option(
        "*/15 * * * *",
        "Looks for what nobody ran and what is overdue, where there is an alert channel.",
        form="calendar",
    )
    timezone: str = option(
        "", "Time zone of these calendars; this host's when empty.", form="timezone", example="Europe/Berlin"
    )
    random_delay: str = option(
        "0s", "Longest delay, chosen at random, so that many hosts do not begin at once.", form="span"
    )
    wait: str = option(
        "6h",
        "How long a scheduled run waits for another one that is in its way. By timers it begins only when the jobs that come before it "
        "in the night and are at work are done, however long they take.",
        form="span",
    )


_WEEKLY = "0 0 * * 0"


def base_calendar(base: str, *, archived: bool) -> str:
    """Return when base backups are made by themselves, empty for never, where schedule.base is `base`.

    `archived` tells whether WAL is: without it, a base backup is asked for only by name.
    """
    return (_WEEKLY if archived else "") if base == "auto" else base


__all__ = ("Schedule", "base_calendar")
