# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Moments and durations. Every moment is UTC with its offset written out; a moment without an offset is refused."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Callable

from .errors import UsageError

Clock = Callable[[], datetime]

# Clocks of two hosts differ a little; what is further ahead than this is wrong.
CLOCK_TOLERANCE = timedelta(minutes=5)
_SPAN_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def utc_now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(timezone.utc)


def iso(moment: datetime) -> str:
    """Return `moment` as `2026-11-22T02:00:00.123456+00:00`; raise ValueError if it has no offset."""
    if moment.tzinfo is None:
        raise ValueError("a moment without an offset: %r" % (moment,))
    return moment.astimezone(timezone.utc).isoformat()


def parse_iso(text: str) -> datetime:
    """Return the moment that `text` names, in UTC. Raise UsageError if it is no ISO 8601 moment with an offset."""
    try:
        moment = datetime.fromisoformat(written_out(text.strip()))
    except ValueError:
        raise UsageError("%r is not a moment." % (text,), hint="Write it like 2026-11-22T02:00:00+00:00.") from None
    if moment.tzinfo is None:
        raise UsageError(
            "%r has no offset from UTC, so it names no single moment." % (text,),
            hint="Write it like 2026-11-22T02:00:00+00:00.",
        )
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise UsageError("%r is not a moment." % (text,), hint="The year must lie between 1 and 9999 in UTC.") from None


_SHORT = re.compile(r"([0-9-]{10}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,]([0-9]+))?([+-][0-9:]+|[zZ])?")


def written_out(text: str) -> str:
    """Return `text`, if it is a moment as PostgreSQL prints it (`2026-11-22 02:00:00.5+01`), in full, as Python before 3.11 reads it."""
    match = _SHORT.fullmatch(text)
    if match is None:
        return re.sub("[zZ]$", "+00:00", text)
    stem, fraction, zone = match.group(1), match.group(2), match.group(3) or ""
    if re.fullmatch("[+-][0-9]{2}(?:[0-9]{2})?", zone):
        zone = "%s:%s" % (zone[:3], zone[3:] or "00")
    return stem + (".%s" % fraction[:6].ljust(6, "0") if fraction else "") + ("+00:00" if zone in ("z", "Z") else zone)


def compact(moment: datetime) -> str:
    """Return `moment` as `20261122T020000Z`, the form that set ids and file names use."""
    return moment.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def ordered(moment: datetime) -> str:
    """Return `moment` as `20261122T020000.123456Z`, for names that are sorted; those of whole seconds fit in among them."""
    return moment.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def parse_span(text: str) -> timedelta:
    """Return the duration that `text` (`90s`, `15min`, `26h`, `7d`, `2w`) names. Raise UsageError if it names none."""
    match = re.fullmatch(r"([0-9]{1,9})\s*(s|min|h|d|w)", text.strip())
    try:
        if match:
            return timedelta(seconds=int(match.group(1)) * _SPAN_UNITS[match.group(2)])
    except OverflowError:
        pass
    raise UsageError("%r is not a duration." % (text,), hint="Write it like 90s, 15min, 26h, 7d or 2w.")


def human_span(seconds: float) -> str:
    """Return `seconds` for a person: `4.2 s`, `3 min 20 s`, `5 h 10 min`, `3 d 4 h`."""
    if round(seconds, 1) < 60:
        return "%.1f s" % seconds
    whole = round(seconds)
    if whole < 3600:
        return "%d min %d s" % divmod(whole, 60)
    if whole < 86400:
        return "%d h %d min" % (whole // 3600, whole % 3600 // 60)
    return "%d d %d h" % (whole // 86400, whole % 86400 // 3600)


__all__ = (
    "CLOCK_TOLERANCE",
    "Clock",
    "compact",
    "human_span",
    "iso",
    "ordered",
    "parse_iso",
    "parse_span",
    "utc_now",
    "written_out",
)
