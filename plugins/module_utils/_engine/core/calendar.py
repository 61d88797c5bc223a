# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Calendars: five fields as cron has them. When is the next run, how far apart can two be, how does systemd say it?

Pure: a calendar, a moment and a time zone in, moments out. A time that the clock skips when summer time begins counts as
the same time after the jump, as a night without a backup is worse than a late one; one that comes twice counts once.
"""

from __future__ import annotations

import calendar as _months
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Optional

from .errors import UsageError

SHORTCUTS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_HINT = "Write five fields as in a crontab (minute hour day month weekday), like '0 2 * * *', or @daily, @hourly, @weekly, @monthly."
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_SYSTEMD_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_WEEKDAYS = {name.lower(): number for number, name in enumerate(_SYSTEMD_DAYS)}
# After so many years the weekdays fall on the same days again.
_CYCLE_YEARS = 28
_ANCHOR = 2001
_MINUTES_OF_DAY = 24 * 60
_MANY = 100_000


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True)
class Calendar:
    """Parsed fields. `text` is the calendar in numbers, as every cron reads it; `either` when day or weekday suffices."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @property
    def lines(self) -> int:
        """How many lines systemd needs for it on a clock that does not jump."""
        return 2 if self.either else 1

    def on(self, day: date) -> bool:
        """Tell whether there is a run on `day`."""
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_day or by_weekday) if self.either else (by_day and by_weekday)

    def times(self) -> Iterator[tuple[int, int]]:
        """Yield (hour, minute) of each run of a day, in order."""
        for hour in self.hours:
            for minute in self.minutes:
                yield hour, minute


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Calendar:
    """Return the calendar that `text` names. Raise UsageError if it names none, or one that never comes."""
    said = text.strip().lower()
    fields = SHORTCUTS.get(said, said).split()
    if len(fields) != len(_FIELDS):
        raise UsageError("%r is not a calendar: it has %d fields." % (text, len(fields)), hint=_HINT)
    parsed = [_parse(field, spec, text) for field, spec in zip(fields, _FIELDS)]
    minutes, hours, days, months, weekdays = (values for values, _unused in parsed)
    found = Calendar(
        text=" ".join(shown for _unused, shown in parsed),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        # As cron has it: only when neither field begins with a star does one of the two suffice.
        either=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    if not any(found.on(day) for day in _cycle()):
        raise UsageError("%r is a calendar of days that never come." % (text,), hint="Check its day and its month.")
    return found


def _parse(field: str, spec: _Field, text: str) -> tuple[set[int], str]:
    """Return the values of one field, and the field in numbers."""
    values: set[int] = set()
    shown = []
    for part in field.split(","):
        match = re.fullmatch(r"(?:(\*)|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]{1,4}))?", part)
        if not match or (match[4] and match[2] and not match[3]):
            raise UsageError("%r is not a calendar: %r is no %s." % (text, part, spec.name), hint=_HINT)
        if match[1]:
            # A star means no Sunday twice, though 7 is one, too.
            first, last = spec.least, min(spec.most, 6) if spec.names is _WEEKDAYS else spec.most
        else:
            first = _number(match[2], spec, text)
            last = _number(match[3], spec, text) if match[3] else first
        step = int(match[4] or 1)
        if first > last or step < 1:
            raise UsageError(
                "%r is not a calendar: %r runs backwards." % (text, part), hint="Write it as two ranges: 22-23,0-4."
            )
        values.update(range(first, last + 1, step))
        span = "*" if match[1] else ("%d-%d" % (first, last) if match[3] else "%d" % first)
        shown.append("%s/%d" % (span, step) if match[4] else span)
    return values, ",".join(shown)


def _number(word: str, spec: _Field, text: str) -> int:
    number = spec.names.get(word, int(word) if word.isdecimal() and len(word) <= 4 else -1)
    if not spec.least <= number <= spec.most:
        raise UsageError(
            "%r is not a calendar: %r is no %s (%d to %d)." % (text, word, spec.name, spec.least, spec.most), hint=_HINT
        )
    return number


# Cron takes a clock that jumps further for one that was wrong.
_NEAR = timedelta(hours=3)


# --- moments ----------------------------------------------------------------------------------------------------------


def next_after(found: Calendar, moment: datetime, zone: tzinfo) -> Optional[datetime]:
    """Return the first run after `moment`, in UTC; the calendar is on the clock of `zone`. None beyond the year 9990."""
    day = moment.astimezone(zone).date() - timedelta(days=1)
    # A calendar that comes at all comes within eight years, as leap days do around 2100.
    for _unused in range(366 * 9):
        if day.year > 9990:
            return None
        if found.on(day):
            later = [run for run in _runs_on(found, day, zone) if run > moment]
            if later:
                return min(later)
        day += timedelta(days=1)
    return None


def last_before(found: Calendar, moment: datetime, zone: tzinfo) -> Optional[datetime]:
    """Return the last run at or before `moment`, in UTC; the calendar is on the clock of `zone`. None before the year 11."""
    day = moment.astimezone(zone).date() + timedelta(days=1)
    for _unused in range(366 * 9):
        if day.year < 11:
            return None
        if found.on(day):
            earlier = [run for run in _runs_on(found, day, zone) if run <= moment]
            if earlier:
                return max(earlier)
        day -= timedelta(days=1)
    return None


def counts_from(due: datetime, zone: tzinfo) -> datetime:
    """Return from when on a run is the one that was due at `due`: where the clock skipped that time, cron starts it at the jump already."""
    jump = _offset(due, zone) - _offset(due - _NEAR, zone)
    if timedelta(0) < jump < _NEAR and _offset(due - jump, zone) != _offset(due, zone):
        return due - jump
    return due


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _runs_on(found: Calendar, day: date, zone: tzinfo) -> Iterator[datetime]:
    for hour, minute in found.times():
        yield _at(day, hour, minute, zone)


def _at(day: date, hour: int, minute: int, zone: tzinfo) -> datetime:
    # fold=0: of two the first; of none, the time that the clock would show had it not jumped.
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(timezone.utc)


# --- intervals --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _cycle() -> tuple[date, ...]:
    first = date(_ANCHOR, 1, 1)
    return tuple(first + timedelta(days=n) for n in range((date(_ANCHOR + _CYCLE_YEARS, 1, 1) - first).days))


@functools.lru_cache(maxsize=64)
def longest_gap(found: Calendar) -> timedelta:
    """Return the longest time from one run to the next, on a clock that does not jump."""
    of_day = [hour * 60 + minute for hour, minute in found.times()]
    days = [n for n, day in enumerate(_cycle()) if found.on(day)]
    days.append(days[0] + len(_cycle()))
    between = max(after - before for before, after in zip(days, days[1:])) * _MINUTES_OF_DAY
    within = max((after - before for before, after in zip(of_day, of_day[1:])), default=0)
    return timedelta(minutes=max(between - of_day[-1] + of_day[0], within))


@functools.lru_cache(maxsize=64)
def longest_lag(made: Calendar, copied: Calendar) -> timedelta:
    """Return how old the newest copy can be just before the next is made, at most.

    A copy is of what was `made` before it began. A run of both at one moment is taken for a copy of the one before.
    """
    makes, copies = _minutes(made), _minutes(copied)
    if not makes or not copies:
        return longest_gap(made) + longest_gap(copied)
    worst, at, of = 0, 0, -1
    for moment, after in zip(copies, copies[1:]):
        while at < len(makes) and makes[at] < moment:
            of = makes[at]
            at += 1
        if of >= 0:
            worst = max(worst, after - of)
    return timedelta(minutes=worst)


def _minutes(found: Calendar) -> list[int]:
    """Return the runs of two cycles in minutes since their beginning, in order; nothing where they are too many to list."""
    of_day = [hour * 60 + minute for hour, minute in found.times()]
    days = [n for n, day in enumerate(_cycle()) if found.on(day)]
    if len(days) * len(of_day) > _MANY:
        return []
    once = [n * _MINUTES_OF_DAY + minute for n in days for minute in of_day]
    return once + [len(_cycle()) * _MINUTES_OF_DAY + minute for minute in once]


# --- systemd ----------------------------------------------------------------------------------------------------------


def to_systemd(found: Calendar, zone_name: str = "", zone: Optional[tzinfo] = None) -> list[str]:
    """Return the values of OnCalendar= that together mean the same; `zone_name` is written at each.

    systemd leaves out a time that the clock skips, so for the rules of `zone` a line of its own names each such night.
    """
    dates = "*-%s-" % _list(found.months, 1, 12)
    days, weekdays = _list(found.days, 1, 31), _weekdays(found.weekdays)
    time = "%s:%s:00" % (_list(found.hours, 0, 23), _list(found.minutes, 0, 59))
    by_weekday, by_day = "%s%s*" % (weekdays, dates), "%s%s" % (dates, days)
    either = [by_weekday, by_day] if found.either else [weekdays + by_day]
    lines = ["%s %s" % (line, time) for line in either]
    if zone is not None:
        lines += _skipped(found, zone)
    return ["%s %s" % (line, zone_name) if zone_name else line for line in lines]


def _list(values: frozenset[int] | tuple[int, ...], least: int, most: int) -> str:
    if len(values) == most - least + 1:
        return "*"
    ordered = sorted(values)
    parts, first = [], ordered[0]
    for value, after in zip(ordered, [*ordered[1:], -1]):
        if after != value + 1:
            parts.append("%02d" % first if first == value else "%02d..%02d" % (first, value))
            first = after
    return ",".join(parts)


def _weekdays(values: frozenset[int]) -> str:
    if len(values) == 7:
        return ""
    return "%s " % ",".join(_SYSTEMD_DAYS[day] for day in sorted(values))


def _skipped(found: Calendar, zone: tzinfo) -> list[str]:
    """Return lines for the runs that fall into hours which the clock of `zone` skips, in any of the years to come."""
    nights: dict[str, set[date]] = {}
    times = frozenset(found.times())
    for year in range(_SKIPPED_FROM, _SKIPPED_FROM + _CYCLE_YEARS):
        for day in _jumps(zone, year):
            if found.on(day):
                for hour, minute in found.times():
                    run = _at(day, hour, minute, zone).astimezone(zone)
                    # A run after the jump may be in the calendar anyhow.
                    known = found.on(run.date()) and (run.hour, run.minute) in times
                    if (run.date(), run.hour, run.minute) != (day, hour, minute) and not known:
                        nights.setdefault("%02d:%02d" % (run.hour, run.minute), set()).add(run.date())
    return [line for time, dates in sorted(nights.items()) for line in _rule(time, dates)]


# The rules of a zone that are known today hold for the years to come, as far as anybody knows.
_SKIPPED_FROM = 2026


@functools.lru_cache(maxsize=256)
def _jumps(zone: tzinfo, year: int) -> tuple[date, ...]:
    """Return the days of `year` on which the clock of `zone` jumps ahead."""
    found = []
    day = date(year, 1, 1)
    while day.year == year:
        after = day + timedelta(days=1)
        if _at(after, 0, 0, zone) - _at(day, 0, 0, zone) < timedelta(days=1):
            found.append(day)
        day = after
    return tuple(found)


def _rule(time: str, dates: set[date]) -> Iterator[str]:
    """Yield the line that names exactly `dates` in each of the years, or a line for each date."""
    months, weekdays = {day.month for day in dates}, {day.isoweekday() % 7 for day in dates}
    first, last = min(day.day for day in dates), max(day.day for day in dates)
    if len(months) == len(weekdays) == 1:
        (month,), (weekday,) = months, weekdays
        same = {
            date(year, month, n)
            for year in range(_SKIPPED_FROM, _SKIPPED_FROM + _CYCLE_YEARS)
            for n in range(first, min(last, _months.monthrange(year, month)[1]) + 1)
            if date(year, month, n).isoweekday() % 7 == weekday
        }
        if same == dates:
            yield "%s *-%02d-%02d..%02d %s:00" % (_SYSTEMD_DAYS[weekday], month, first, last, time)
            return
    for day in sorted(dates):
        yield "%s %s:00" % (day.isoformat(), time)


__all__ = (
    "SHORTCUTS",
    "Calendar",
    "counts_from",
    "last_before",
    "longest_gap",
    "longest_lag",
    "next_after",
    "parse",
    "to_systemd",
)
