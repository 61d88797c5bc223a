# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The texts that make a host run pgops by itself: systemd's units and cron's table. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta, tzinfo

from ..core.calendar import Calendar, to_systemd
from ..core.errors import UsageError

HEAD = "# Written by Ansible (pgops.backup.pgops_schedule): changes made here are lost.\n"
VERBS = ("backup", "base", "sync", "verify", "prune", "alert")
_CRON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_COMMAND = 990  # cron's own limit is 1000
_DOES = {
    "backup": "Back up PostgreSQL",
    "base": "Take a base backup of PostgreSQL",
    "sync": "Copy backups to S3",
    "verify": "Prove that backups restore",
    "prune": "Remove old backups",
    "alert": "Tell of backups that are missing or in trouble",
}
# Of a job that is not called as its verb is, the words.
_WORDS = {"alert": ("alert", "evaluate"), "base": ("backup", "--kind", "base")}
_WAITS_FOR_NOBODY = ("alert",)
# Who goes on with whose work; the alert looks at any time.
_ORDER = ("backup", "base", "sync", "verify", "prune")
# Debian's and EL's own, those of PGDG for EL, Patroni's. One that a host does not have is passed over.
_SERVERS = ("postgresql.service", *("postgresql-%d.service" % major for major in range(13, 21)), "patroni.service")


@dataclass(frozen=True)
class Job:
    """One verb of one instance (`base` is a backup of that kind), and when. `paths` are the directories that it may write.

    With `looked_after`, a job of the same host looks for trouble and tells people.
    """

    instance: str
    verb: str
    calendar: Calendar
    config: str
    zone: tzinfo
    zone_name: str = ""
    delay: timedelta = timedelta(0)
    wait: str = ""
    paths: tuple[str, ...] = ()
    looked_after: bool = False

    @property
    def unit(self) -> str:
        """The name of its units, without what a unit's name ends in."""
        return "pgops-%s@%s" % (self.verb, self.instance)


@dataclass(frozen=True)
class Common:
    """What all jobs of a host share."""

    program: str = "/usr/local/bin/pgops"
    account: str = "postgres"
    mailto: str = "root"
    catch_up: bool = True


def _arguments(job: Job, common: Common) -> list[str]:
    waiting = ["--wait", job.wait] if job.wait and job.verb not in _WAITS_FOR_NOBODY else []
    return [common.program, *_WORDS.get(job.verb, (job.verb,)), "--config", job.config, *waiting]


# --- systemd ----------------------------------------------------------------------------------------------------------

_SERVICE = """\
%(head)s
[Unit]
Description=%(does)s: %(instance)s
Documentation=man:pgops(1)
# A run that is caught up after a boot finds the network and the server there, whoever starts it.
Wants=network-online.target
After=network-online.target %(servers)s
%(failure)s%(earlier)s
[Service]
Type=oneshot
User=%(account)s
ExecStart=%(command)s
SyslogIdentifier=pgops-%(verb)s

# The database server has the first turn: at the processor, at the disk, and when memory runs out.
Nice=10
IOSchedulingClass=idle
OOMScoreAdjust=500

# A stop reaches pgops first, which then ends its programs and cleans up in order.
KillMode=mixed
TimeoutStopSec=120

# What it writes is for its account alone.
UMask=0077
# The whole system can be read and not written, but for the directories of the backups, the state and the logs.
ProtectSystem=strict
%(writable)s
# Nothing of it lies in a home.
ProtectHome=read-only
# A /tmp and /var/tmp of its own, so that nobody can foresee or take away a file there; they go with the run.
PrivateTmp=yes
# It needs no disk, no terminal and no other device.
PrivateDevices=yes
# No set-uid program (sudo, su, ping) can give it the rights of another account.
NoNewPrivileges=yes
# Nor does it need a single one of root's rights.
CapabilityBoundingSet=
# It talks to PostgreSQL and S3 by sockets and TCP; netlink answers which addresses this host has.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
# The kernel, its settings, its log and its modules, the clock and the host's name are none of its business.
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
# Programs of other accounts cannot be seen, and so neither can their arguments.
ProtectProc=invisible
# No new namespaces, real-time priority, foreign machine code or set-uid files: ways out of what stands above.
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
# The calls that an ordinary service makes. Another one fails, and the run tells of it, rather than be killed.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
# RemoveIPC= stays off: it would remove the shared memory of the database server, whose account this is.
"""

_FAILURE = """\
# A run tells of its failure itself, unless it was killed. Then somebody looks at once, and tells.
OnFailure=pgops-alert@%s.service
"""

_EARLIER = """\
# Caught up after a downtime they all begin at once: each has its turn when those are done whose work it goes on with.
After=%s
"""

_TIMER = """\
%(head)s
[Unit]
Description=When to %(does)s: %(instance)s
Documentation=man:pgops(1)

[Timer]
%(when)s
# To the second: the calendars of the jobs are apart already.
AccuracySec=1s
%(delay)s# %(persistent_why)s
Persistent=%(persistent)s

[Install]
WantedBy=timers.target
"""


def service(job: Job, common: Common) -> str:
    """Return the service that runs `job`."""
    earlier = _ORDER[: _ORDER.index(job.verb)] if job.verb in _ORDER else ()
    return _SERVICE % {
        "head": HEAD,
        "servers": " ".join(_SERVERS),
        "does": _DOES[job.verb],
        "earlier": _EARLIER % " ".join("pgops-%s@%s.service" % (verb, job.instance) for verb in earlier)
        if earlier
        else "",
        "failure": _FAILURE % job.instance if job.looked_after and job.verb != "alert" else "",
        "verb": job.verb,
        "instance": job.instance,
        "account": common.account,
        "command": " ".join(_quoted(word) for word in _arguments(job, common)),
        # The dash: a directory that is missing is told by pgops itself, in a sentence.
        "writable": "\n".join("ReadWritePaths=%s" % _quoted("-" + path, command=False) for path in job.paths),
    }


def timer(job: Job, common: Common) -> str:
    """Return the timer that starts the service of `job`."""
    delay = ""
    if job.delay:
        delay = (
            "# So that many hosts do not begin at once; the same delay each time.\n"
            "RandomizedDelaySec=%d\nFixedRandomDelay=yes\n" % job.delay.total_seconds()
        )
    persistent = (
        "A run that fell into a downtime is caught up."
        if common.catch_up
        else "A run that fell into a downtime is left."
    )
    when = []
    for index, line in enumerate(to_systemd(job.calendar, job.zone_name, job.zone)):
        # systemd leaves out a time that the clock skips.
        when += ["# In the night that the clock skips an hour:"] if index == job.calendar.lines else []
        when.append("OnCalendar=%s" % line)
    return _TIMER % {
        "head": HEAD,
        "does": _DOES[job.verb][:1].lower() + _DOES[job.verb][1:],
        "instance": job.instance,
        "when": "\n".join(when),
        "delay": delay,
        "persistent_why": persistent,
        "persistent": "yes" if common.catch_up else "no",
    }


def _quoted(text: str, *, command: bool = True) -> str:
    """Return `text` as one word of a unit file; in a command alone, a dollar sign begins a variable."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = text.replace("$", "$$") if command else text
    return '"%s"' % text if any(c in " '\"\\;" for c in text) or not text else text


# --- cron -------------------------------------------------------------------------------------------------------------


def heading(instance: str) -> str:
    """Return the line of a table under which the jobs of `instance` stand."""
    return "# Instance %s" % instance


def crontab(jobs: Sequence[Job], common: Common, here: str) -> str:
    """Return the table for /etc/cron.d; `here` is the host's own zone. Raise UsageError for what cannot stand in one."""
    lines = [
        HEAD.rstrip("\n"),
        "# A run that fell into a downtime is %s."
        % ("caught up after the boot (catch-up)" if common.catch_up else "left out"),
        "SHELL=/bin/sh",
        "PATH=%s" % _CRON_PATH,
        "# With --quiet a job only speaks when it fails; cron mails that.",
        'MAILTO="%s"' % common.mailto,
    ]
    zone = ""
    for index, job in enumerate(jobs):
        if not index or jobs[index - 1].instance != job.instance:
            lines += ["", heading(job.instance)]
        if (job.zone_name or here) != zone:
            zone = job.zone_name or here
            lines += ["# The times below are in this zone.", "CRON_TZ=%s" % zone]
        lines.append("%s %s %s" % (job.calendar.text, common.account, _command(job, common)))
        last = index + 1 == len(jobs) or jobs[index + 1].instance != job.instance
        swallowed = [one for one in jobs if one.instance == job.instance and one.verb != "alert"]
        if last and common.catch_up and swallowed:
            lines.append("@reboot %s %s" % (common.account, _catching_up(swallowed, common)))
    return "".join("%s\n" % line for line in lines)


def _command(job: Job, common: Common) -> str:
    return _line(_arguments(job, common), job.delay)


def _catching_up(jobs: Sequence[Job], common: Common) -> str:
    """Return the command for these jobs of one instance, with the calendars of this table, which the configuration may not have."""
    one = jobs[0]
    words = [common.program, "catch-up", "--config", one.config]
    for job in jobs:
        words += ["--job", "%s=%s" % (job.verb, job.calendar.text)]
    if one.zone_name:
        words += ["--timezone", one.zone_name]
    return _line([*words, *(["--wait", one.wait] if one.wait else [])], one.delay)


def _line(arguments: Sequence[str], delay: timedelta) -> str:
    # The database server has the first turn at the processor and at the disk.
    words = ["nice", "-n", "10", "ionice", "-c", "3", *arguments, "--quiet"]
    command = " ".join(shlex.quote(word) for word in words)
    if delay:
        command = "sleep $(shuf -i 0-%d -n 1) && %s" % (delay.total_seconds(), command)
    # For cron a percent sign ends the command, unless a backslash stands before it.
    command = command.replace("%", "\\%")
    if len(command) > _LONGEST_COMMAND:
        raise UsageError("A command of %d characters is too long for cron." % len(command), hint="Shorten the paths.")
    return command


__all__ = ("HEAD", "VERBS", "Common", "Job", "crontab", "heading", "service", "timer")
