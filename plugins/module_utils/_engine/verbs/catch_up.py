# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Catching up: what the schedule lost to a downtime, for cron, which does not look back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..context import Context
from ..core.calendar import Calendar
from ..core.catch_up import Missed, missed
from ..core.errors import PgopsError, UnreachableError
from ..core.times import parse_iso
from ..postgres.connection import connect
from ..run_records import BASE_BACKUP, history
from ..system.zones import named_zone

if TYPE_CHECKING:
    from ..host.schedule import Places

_ORDER = ("backup", BASE_BACKUP, "sync", "verify", "prune")
_READS_THE_SERVER = ("backup", BASE_BACKUP)
_NAMES = {"base": BASE_BACKUP}  # as a schedule calls it
_AGAIN = 5.0  # seconds
_FRESH = timedelta(minutes=5)


def look(
    context: Context,
    config_file: str,
    jobs: Optional[Mapping[str, Calendar]] = None,
    timezone_name: Optional[str] = None,
    places: Optional[Places] = None,
) -> list[Missed]:
    """Return what was missed on this host since its table of cron, or else its configuration, was written.

    `jobs` and their zone are as the table has them, otherwise as the configuration has.
    """
    from ..host.schedule import Places  # each backup imports this file, and needs neither
    from .info import calendars

    known = calendars(context) if not jobs else {_NAMES.get(verb, verb): calendar for verb, calendar in jobs.items()}
    ordered = {verb: known[verb] for verb in _ORDER if verb in known}
    table = (places or Places()).cron_table
    now = context.clock()
    since = _written(table) or _written(Path(config_file)) or now
    zone = named_zone(context.config.schedule.timezone if timezone_name is None else timezone_name)
    ended = {verb: _last(context.state, verb) for verb in ordered}
    return missed(ordered, ended, since, now, zone)


def await_server(
    context: Context, found: list[Missed], patience: timedelta, *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Wait until the server takes connections, where something of `found` reads it: after a boot it may be on its way.

    When it does not, the run says so itself.
    """
    if any(one.verb in _READS_THE_SERVER for one in found):
        _await_server(context, patience, sleep)


def await_after_boot(
    context: Context, *, up: Optional[float] = None, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Wait for the server in the first minutes of a host, where this run waits at all; `up` is for how many seconds the host is.

    Not every server has a unit that a timer could name, and one that recovers from a crash takes connections later than it runs.
    """
    since = time.clock_gettime(time.CLOCK_BOOTTIME) if up is None else up
    patience = min(context.wait, _FRESH - timedelta(seconds=since))
    if patience > timedelta(0):
        _await_server(context, patience, sleep)


def _await_server(context: Context, patience: timedelta, sleep: Callable[[float], object]) -> None:
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            connect(context.config.postgres).close()
        except UnreachableError:
            if time.monotonic() >= deadline:
                return
            sleep(_AGAIN)
        except PgopsError:
            return
        else:
            return


def has_run(context: Context, one: Missed) -> bool:
    """Tell whether somebody else has done meanwhile what was missed."""
    last = _last(context.state, one.verb)
    return last is not None and last >= one.due


def _written(path: Path) -> Optional[datetime]:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    except OSError:
        return None


def _last(state: Path, verb: str) -> Optional[datetime]:
    for record in history(state, verb):
        try:
            return parse_iso(record["ended"])
        except (KeyError, TypeError, AttributeError, PgopsError):
            continue
    return None


def as_data(one: Missed) -> dict[str, Any]:
    """Return it for a result."""
    return {"verb": one.verb, "due": one.due.astimezone(timezone.utc).isoformat(timespec="seconds")}


__all__ = ("as_data", "await_after_boot", "await_server", "has_run", "look")
