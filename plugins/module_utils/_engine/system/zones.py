# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Time zones, as this host knows them."""

from __future__ import annotations

import re
from datetime import tzinfo
from pathlib import Path

from ..core.errors import UsageError

_LOCALTIME = Path("/etc/localtime")
_IN_DATABASE = re.compile(r"/zoneinfo/(?:posix/|right/)?([A-Za-z0-9+_-]+(?:/[A-Za-z0-9+_-]+)*)$")


def named_zone(name: str) -> tzinfo:
    """Return the time zone `name`, this host's own when it is empty. Raise UsageError if the host does not know it."""
    import zoneinfo

    if not name:
        return _local_zone()
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            "%r is no time zone that this host knows." % (name,),
            hint="Write it like Europe/Berlin or UTC; the zones come with the package tzdata.",
        ) from None


def _local_zone() -> tzinfo:
    """Return the zone of cron and systemd here, whatever TZ says for this very process."""
    import zoneinfo
    from datetime import timezone

    try:
        with _LOCALTIME.open("rb") as stream:
            return zoneinfo.ZoneInfo.from_file(stream, key=local_name() or None)
    except (OSError, ValueError):
        return timezone.utc


def local_name() -> str:
    """Return the name of this host's time zone, empty when it cannot be told."""
    try:
        found = _IN_DATABASE.search(str(_LOCALTIME.resolve(strict=True)))
    except OSError:
        return "UTC"  # what the C library takes where there is no file
    return found.group(1) if found else ""


__all__ = ("local_name", "named_zone")
