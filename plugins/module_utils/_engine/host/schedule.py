# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The schedule on a host: cron's table or systemd's timers, the one or the other."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, Optional

from .. import config as configuration
from ..core.calendar import next_after, parse
from ..core.errors import CommandError, PgopsError, UnreachableError, UsageError
from ..core.naming import check_instance
from ..core.times import human_span, iso, parse_span
from ..settings import Config, Schedule, base_calendar
from ..system.runner import Command
from ..system.zones import local_name, named_zone
from . import changes
from .changes import Change, Host
from .facts import CRON_PROGRAMS, OS_RELEASE, distribution
from .units import HEAD, VERBS, Common, Job, crontab, heading, service, timer

CRON, SYSTEMD = "cron", "systemd"
_SECONDS = 60.0
# Of a job that comes every quarter of an hour, a delay that suits a night would leave out runs.
_LONGEST_ALERT_DELAY = timedelta(minutes=5)


@dataclass(frozen=True)
class Places:
    """Where the system keeps what concerns a schedule."""

    cron_table: Path = Path("/etc/cron.d/pgops")
    units: Path = Path("/etc/systemd/system")
    stamps: Path = Path("/var/lib/systemd/timers")
    running: Path = Path("/run/systemd/system")
    cron_programs: tuple[Path, ...] = CRON_PROGRAMS
    mailer: Path = Path("/usr/sbin/sendmail")
    os_release: Path = OS_RELEASE


@dataclass(frozen=True)
class Instance:
    """One instance: its configuration, and what is to be scheduled. What is None or empty is as the configuration says."""

    name: str
    config: str = configuration.DEFAULT_PATH
    jobs: Mapping[str, Optional[str]] = field(default_factory=dict)
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class Request:
    """What is to run by itself, and by which of the two. What is None is as the configuration of the instance says."""

    kind: str = CRON
    instances: Sequence[Instance] = ()
    common: Common = field(default_factory=Common)
    timezone: Optional[str] = None
    random_delay: Optional[str] = None
    wait: Optional[str] = None
    places: Places = field(default_factory=Places)


def lay_down(host: Host, request: Request, *, name: str) -> dict[str, Any]:
    """Lay the schedule down and return `kind`, `files`, `next_runs` and what Host.settle() says.

    `name` is that of the host. Raise UsageError that lists every error, UnreachableError where cron or systemd is missing,
    PgopsError for units that somebody masked.
    """
    jobs = _jobs(host, request, name)
    _check_host(host, request)
    wanted = _table(request, jobs) if request.kind == CRON else _units(request, jobs)
    if request.kind == SYSTEMD:
        _check_masked(wanted)
    _check_told(host, request, jobs)
    _check_delays(host, jobs)
    found = _Units(host, request.places)
    timers = ["%s.timer" % job.unit for job in jobs] if request.kind == SYSTEMD else []
    changed = _files(host, request.places, wanted, timers)
    stale = found.stale(wanted)
    for path in stale:
        host.need(changes.gone(path))
    if request.places.cron_table not in wanted:
        host.need(changes.gone(request.places.cron_table))
    found.plan(timers, changed, stale)
    result = found.settle()
    return {
        **result,
        "kind": request.kind,
        "files": [str(path) for path in wanted],
        "next_runs": _next_runs(host, jobs),
    }


def take_away(host: Host, request: Request) -> dict[str, Any]:
    """Remove every schedule of ours, of either kind. A run that has begun goes on."""
    found = _Units(host, request.places)
    stale = found.stale({})
    for path in stale:
        host.need(changes.gone(path))
    host.need(changes.gone(request.places.cron_table))
    found.plan([], set(), stale)
    return {**found.settle(), "kind": None, "files": [], "next_runs": {}}


def started_by(places: Places, instance: str) -> str:
    """Return who on this host starts the jobs of `instance`: cron, systemd, or nobody (empty)."""
    if any((_enabled(places) / ("pgops-%s@%s.timer" % (verb, instance))).is_symlink() for verb in VERBS):
        return SYSTEMD
    try:
        lines = places.cron_table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return CRON if heading(instance) in lines else ""


def laid_down(places: Places, instance: str) -> Optional[datetime]:
    """Return when what starts the jobs of `instance` was written last, None where nothing does."""
    timers = [_enabled(places) / ("pgops-%s@%s.timer" % (verb, instance)) for verb in VERBS]
    moments = []
    for path in (places.cron_table, *timers):
        with contextlib.suppress(OSError):
            moments.append(datetime.fromtimestamp(path.lstat().st_mtime, timezone.utc))
    return max(moments, default=None)


# --- what is to run ---------------------------------------------------------------------------------------------------


def _jobs(host: Host, request: Request, name: str) -> list[Job]:
    """Return every job. Raise UsageError that lists every error."""
    errors: list[str] = []
    jobs: list[Job] = []
    names = [instance.name for instance in request.instances]
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    errors += ["instances: %r is there twice." % name for name in twice]
    if not _is_path(request.common.program):
        errors.append("program: expected a path from the root (/…), found %r." % request.common.program)
    if any(not c.isprintable() or c in "\"'\\" for c in request.common.mailto):
        errors.append("mailto: %r is no address." % request.common.mailto)
    for instance in request.instances:
        try:
            jobs += _of_instance(host, request, instance, name, errors)
        except UsageError as error:
            errors.append("instances, %s: %s" % (instance.name, error))
    errors += _foreign_zones(host, request, jobs) if request.kind == CRON else []
    if errors:
        many = "an error" if len(errors) == 1 else "%d errors" % len(errors)
        raise UsageError("The schedule has %s:\n%s" % (many, "\n".join("  - %s" % error for error in errors)))
    return jobs


def _of_instance(host: Host, request: Request, instance: Instance, name: str, errors: list[str]) -> list[Job]:
    check_instance(instance.name)
    errors += [
        "instances, %s: expected a path from the root (/…), found %r." % (instance.name, path)
        for path in [instance.config, *instance.paths]
        if not _is_path(path)
    ]
    given = {verb: text for verb, text in instance.jobs.items() if text is not None}
    complete = len(given) == len(VERBS) and instance.paths
    options = (request.timezone, request.random_delay, request.wait)
    known = Config() if complete and None not in options else _configuration(host, instance, name)
    schedule = known.schedule
    zone_name = schedule.timezone if request.timezone is None else request.timezone
    zone = named_zone(zone_name)
    delay = parse_span(schedule.random_delay if request.random_delay is None else request.random_delay or "0s")
    wait = schedule.wait if request.wait is None else request.wait
    if wait and not parse_span(wait):
        wait = ""
    paths = tuple(dict.fromkeys(instance.paths or _writable(known)))
    jobs = []
    for verb in VERBS:
        text = given.get(verb, _default(known, schedule, verb))
        if text:
            try:
                calendar = parse(text)
            except UsageError as error:
                errors.append("instances, %s, %s: %s" % (instance.name, verb, error))
                continue
            spread = min(delay, _LONGEST_ALERT_DELAY) if verb == "alert" else delay
            jobs.append(Job(instance.name, verb, calendar, instance.config, zone, zone_name, spread, wait, paths))
    return [replace(job, looked_after=any(other.verb == "alert" for other in jobs)) for job in jobs]


def _default(known: Config, schedule: Schedule, verb: str) -> str:
    """Return when the configuration has `verb` run; a copy to S3 only with an S3 place, alerts only with a channel."""
    if verb == "base":
        return base_calendar(schedule.base, archived=known.wal.enabled)
    pointless = (verb == "sync" and known.s3 is None) or (verb == "alert" and not known.alerts.channels())
    return "" if pointless else str(getattr(schedule, verb))


def _writable(known: Config) -> list[str]:
    own = (known.local.path, known.state_dir, known.log_dir, known.work_dir, known.metrics.textfile_directory)
    return [path for path in own if path]


def _is_path(path: str) -> bool:
    return path.startswith("/") and path.isprintable() and "\\" not in path


def _configuration(host: Host, instance: Instance, name: str) -> Config:
    """Return the configuration of `instance`; in check mode the defaults, where it is still to be laid down."""
    path = Path(instance.config)
    if host.dry_run and not path.exists():
        host.warn("%s is not there yet; its schedule and its directories are taken for the defaults." % path)
        return Config()
    return configuration.load(path, environ={}, host=name)


def _next_runs(host: Host, jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for job in jobs:
        moment = next_after(job.calendar, host.clock(), job.zone)
        if moment is not None:
            found.setdefault(job.instance, {})[job.verb] = iso(moment)
    return found


# --- what the host can do ---------------------------------------------------------------------------------------------


def _check_host(host: Host, request: Request) -> None:
    """Raise UnreachableError or UsageError for what is missing; a dry run warns, as an earlier task may bring it."""
    lacking: list[PgopsError] = []
    if request.kind == CRON and not any(path.exists() for path in request.places.cron_programs):
        lacking.append(
            UnreachableError(
                "There is no cron on this host.", hint="Install it (the package cron), or use kind: systemd."
            )
        )
    if request.kind == SYSTEMD and host.runner.find("systemctl") is None:
        lacking.append(UnreachableError("There is no systemd on this host.", hint="Use kind: cron."))
    if not os.access(request.common.program, os.X_OK):
        lacking.append(
            UsageError("There is no program %s." % request.common.program, hint="Lay it down first (pgops_program).")
        )
    try:
        pwd.getpwnam(request.common.account)
    except KeyError:
        lacking.append(
            UsageError("This host has no account %s." % request.common.account, hint="Install PostgreSQL first.")
        )
    for error in lacking:
        if not host.dry_run:
            raise error
        host.excuse(error.message)


def _check_masked(wanted: Mapping[Path, str]) -> None:
    """Raise PgopsError for units that are never to start, as somebody said: to write them would take that back.

    No RefusedError: a look at the host would hold everything else back for it.
    """
    masked = [path.name for path in wanted if path.is_symlink() and os.path.realpath(path) == os.devnull]
    if masked:
        raise PgopsError(
            "Somebody masked %s, so that systemd never starts what the schedule has." % ", ".join(masked),
            hint="When that is over: systemctl unmask %s. If the job is not to run, leave it out of the schedule "
            "(an empty calendar). The schedule was not touched." % " ".join(map(shlex.quote, masked)),
        )


def _foreign_zones(host: Host, request: Request, jobs: Sequence[Job]) -> list[str]:
    """Return an error if a calendar is in a zone that this cron cannot tell from the host's."""
    programs = [path for path in request.places.cron_programs if path.exists()]
    if any(b"CRON_TZ" in path.read_bytes() for path in programs):
        return []
    if not programs and distribution(request.places.os_release)[0] != "Debian":
        return []  # which cron is to come is known of Debian only
    here = named_zone("")
    return [
        "timezone: the cron of this host knows no other time zone than the host's (%s), and the schedule is in %s. "
        "Use kind: systemd, or leave timezone empty and write the times on the host's clock."
        % (local_name() or "of its own", zone.zone_name)
        for zone in {job.zone_name: job for job in jobs}.values()
        if not _same_clock(zone.zone, here, host)
    ]


def _check_told(host: Host, request: Request, jobs: Sequence[Job]) -> None:
    """Warn of each instance whose failed jobs would reach nobody: there is no alert, and no mail by cron."""
    told = {job.instance for job in jobs if job.verb == "alert"}
    quiet = sorted({job.instance for job in jobs} - told)
    if not quiet:
        return
    if request.kind == SYSTEMD:
        why, remedy = "systemd mails nothing", "Set up alerts"
    elif request.common.mailto and not request.places.mailer.exists():
        why = "this host has no %s, so that cron mails nothing to %s" % (request.places.mailer, request.common.mailto)
        remedy = "Install a program that delivers mail (the package dma is a small one), or set up alerts"
    else:
        return  # it is mailed, or nobody asked for that
    host.warn(
        "A failed job of %s reaches nobody: %s, and there is no channel for alerts. %s."
        % (", ".join(quiet), why, remedy)
    )


def _check_delays(host: Host, jobs: Sequence[Job]) -> None:
    """Warn where a backup may be delayed until behind its copy: that would take the set of the night before, each time."""
    by_verb = {(job.instance, job.verb): job for job in jobs}
    for (instance, verb), job in by_verb.items():
        copy = by_verb.get((instance, "sync"))
        begins = next_after(job.calendar, host.clock(), job.zone)
        if verb not in ("backup", "base") or copy is None or begins is None:
            continue
        follows = next_after(copy.calendar, begins, copy.zone)
        another = next_after(copy.calendar, begins + job.delay, copy.zone)
        if follows is None or another is None or another - begins <= 2 * job.delay:
            continue  # where copies come often, the backup waits for the next one hardly longer
        if follows - begins <= job.delay:
            host.warn(
                "A %s of %s may be delayed by up to %s (random_delay), and its copy to S3 is due %s after it, and so may come first. Set the "
                "two further apart, or shorten the delay."
                % (
                    "backup" if verb == "backup" else "base backup",
                    instance,
                    human_span(job.delay.total_seconds()),
                    human_span((follows - begins).total_seconds()),
                )
            )


def _same_clock(one: tzinfo, other: tzinfo, host: Host) -> bool:
    """Tell whether two zones show the same time for the next two years."""
    moments = [host.clock() + timedelta(hours=12 * n) for n in range(2 * 366 * 2)]
    return all(m.astimezone(one).utcoffset() == m.astimezone(other).utcoffset() for m in moments)


# --- files ------------------------------------------------------------------------------------------------------------


def _table(request: Request, jobs: Sequence[Job]) -> dict[Path, str]:
    return {request.places.cron_table: crontab(jobs, request.common, local_name())} if jobs else {}


def _units(request: Request, jobs: Sequence[Job]) -> dict[Path, str]:
    wanted = {}
    for job in jobs:
        wanted[request.places.units / ("%s.service" % job.unit)] = service(job, request.common)
        wanted[request.places.units / ("%s.timer" % job.unit)] = timer(job, request.common)
    return wanted


def _files(host: Host, places: Places, wanted: Mapping[Path, str], timers: Sequence[str]) -> set[str]:
    """Take on the files and the links that enable timers; return the names of the files that change."""
    owned = changes.ourselves()
    changed = set()
    for path, text in wanted.items():
        if host.need(changes.file(path, text.encode("utf-8"), mode=0o644, owned=owned)):
            changed.add(path.name)
    enabled = _enabled(places)
    if timers and not enabled.is_dir():
        host.need(changes.folder(enabled, mode=0o755, owned=owned))
    for timed in timers:
        host.need(changes.link(enabled / timed, str(places.units / timed)))
    return changed


def _enabled(places: Places) -> Path:
    return places.units / "timers.target.wants"


class _Units:
    """The units of this host, and systemd where it runs."""

    def __init__(self, host: Host, places: Places) -> None:
        self._host, self._places = host, places
        self._running = places.running.is_dir() and host.runner.find("systemctl") is not None
        self._stop: list[str] = []
        self._start: list[str] = []
        self._renewed: list[str] = []
        self._gone: list[str] = []
        self._reload = False

    def stale(self, wanted: Mapping[Path, str]) -> list[Path]:
        """Return the units of ours, and the links to them, that are not `wanted`."""
        there = sorted(self._places.units.glob("pgops-*@*")) if self._places.units.is_dir() else []
        found = [p for p in there if p.suffix in (".service", ".timer") and p not in wanted and _is_ours(p)]
        enabled = _enabled(self._places)
        links = [enabled / path.name for path in found if path.suffix == ".timer"]
        return [link for link in links if link.is_symlink()] + found

    def plan(self, timers: Sequence[str], changed: set[str], stale: Sequence[Path]) -> None:
        """Find out what systemd must be told, once the files are there."""
        self._gone = sorted({path.name for path in stale})
        if not (timers or self._gone):
            return
        if not self._running:
            if timers:
                self._host.warn("systemd does not run here; the timers begin when it does.")
            return
        states = self._states([*timers, *(name.replace(".timer", ".service") for name in timers)])
        self._reload = bool(changed or self._gone)
        for name, (_active, needs_reload) in states.items():
            if needs_reload:
                self._host.need(Change(name, "not as its file says\n", "as its file says\n", lambda: None))
                self._reload = True
        for name in timers:
            active = states.get(name, (False, False))[0]
            if name in changed or not active:
                self._start.append(name)
            if name in changed and active:
                self._stop.append(name)
                self._renewed.append(name)
            if name not in changed and not active:
                self._host.need(Change(name, "inactive\n", "active\n", lambda: None))
        self._stop += [name for name in self._gone if name.endswith(".timer")]

    def settle(self) -> dict[str, Any]:
        """Make the changes, with systemd told before and after. Raise PgopsError if a timer does not begin."""
        if self._host.dry_run or not self._running:
            return self._host.settle()
        if self._stop:
            self._systemctl("stop", *self._stop)
        result = self._host.settle()
        for name in self._renewed:
            # A new calendar counts from now on; otherwise systemd would catch up what it never had promised.
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._stamp(name))
        for name in self._gone:
            with contextlib.suppress(FileNotFoundError):
                self._stamp(name).unlink()
        if self._reload:
            self._systemctl("daemon-reload")
        if self._gone:
            self._systemctl("reset-failed", *self._gone, check=False)
        if self._start:
            self._systemctl("start", *self._start)
            lame = [name for name, (active, _unused) in self._states(self._start).items() if not active]
            if lame:
                raise PgopsError(
                    "A timer does not begin: %s." % ", ".join(lame), hint="Ask: systemctl status %s." % lame[0]
                )
        return result

    def _stamp(self, name: str) -> Path:
        return self._places.stamps / ("stamp-%s" % name)

    def _states(self, names: Sequence[str]) -> dict[str, tuple[bool, bool]]:
        """Return (is active, needs a reload) of each unit."""
        said = self._systemctl("show", "--property=Id,ActiveState,NeedDaemonReload", *names)
        found = {}
        for block in said.strip().split("\n\n"):
            facts = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            active, stale = facts.get("ActiveState"), facts.get("NeedDaemonReload")
            found[facts.get("Id", "")] = (active == "active", stale == "yes")
        return found

    def _systemctl(self, *words: str, check: bool = True) -> str:
        try:
            done = self._host.runner.run(Command(("systemctl", *words)), check=check, timeout=_SECONDS)
        except CommandError as error:
            raise PgopsError(str(error), hint="Ask: journalctl -b -u systemd.") from error
        return done.stdout.decode("utf-8", "replace")


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith(HEAD)
    except OSError:
        return False


__all__ = ("CRON", "SYSTEMD", "Instance", "Places", "Request", "lay_down", "started_by", "take_away")
