# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Whether a part of a host is as somebody wants it, found out without touching anything."""

from __future__ import annotations

from typing import Callable

from ..core.errors import PgopsError
from .changes import Host


def lacks(host: Host, part: Callable[[Host], bool]) -> bool:
    """Tell whether there is something to do about a `part` of the host; what it warns of is passed on when there is not.

    The part is handed a host that it only looks at, and returns whether it would change something. What would be an error
    without check mode is something to do. Raise what the part raises.
    """
    looking = Host(dry_run=True, clock=host.clock, runner=host.runner)
    if part(looking) or looking.excused:
        return True
    for warning in looking.warnings:
        host.warn(warning)
    return False


def lacks_or_fails(host: Host, part: Callable[[Host], bool]) -> bool:
    """Tell the same; a part that fails is something to do, as whoever does it tells what is wrong."""
    try:
        return lacks(host, part)
    except (PgopsError, OSError):
        return True


__all__ = ("lacks", "lacks_or_fails")
