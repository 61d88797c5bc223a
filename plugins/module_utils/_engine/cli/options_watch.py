# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verbs that tell how the backups fare: their options and examples."""

from __future__ import annotations

import argparse

from .parser import Parser, Verb, dry_run, nothing

# As core/checklist.py and core/check.py have them, which takes too long to load for help and completion.
STAGES = (
    "before",
    "deployment",
    "day-1",
    "week-1",
    "week-2",
    "week-4",
    "weekly",
    "monthly",
    "quarterly",
    "yearly",
    "sign-off",
)
CHECKS = ("all", "backup", "base", "sync", "verify", "space", "size", "wal", "restore")


STATUS = Verb(
    "status",
    "are we safe? backups, proofs, runs and space on one screen",
    nothing,
    "pgops status\npgops status --json",
)


def _check(parser: Parser) -> None:
    parser.add(
        "check",
        nargs="?",
        default="all",
        choices=CHECKS,
        help="what is asked about: backup (its age), base (that of the newest base backup), sync (the copy off the server), "
        "verify (the proof), space, size (of the newest set, against the usual), wal (its archive, where wal.enabled "
        "holds), restore (when one was last tried), or all (the default)",
    )
    parser.add(
        *("-w", "--warning"),
        metavar="RANGE",
        default="",
        help="warn outside this range, in the place of what follows from the schedule: 26h, 10GiB: (less than 10 GiB), "
        "@1:5 (within), 30 (percent, of size)",
    )
    parser.add(*("-c", "--critical"), metavar="RANGE", default="", help="the same for critical")
    parser.add(
        *("-t", "--timeout"),
        metavar="SECONDS",
        type=_seconds,
        default=50.0,
        help="answer UNKNOWN when there is nothing to tell by then (default: 50)",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError("%r is no number of seconds from 1 to 86400" % text)
    return value


CHECK = Verb(
    "check",
    "answer Nagios or Icinga: one line, performance data, exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN",
    _check,
    (
        "pgops check\n"
        "pgops check backup              how old is the newest backup, by the limit that the schedule sets (daily: 26h)\n"
        "pgops check backup -w 26h -c 50h\n"
        "pgops check space -c 20GiB:     less than 20 GiB free is critical\n"
        "pgops check wal -w 5min -c 1h   how long WAL has been waiting to be archived, and for S3\n"
        "pgops check -v                  a line for each finding\n\n"
        "Not the exit codes below: a check ends with 0, 1, 2 or 3 (UNKNOWN, also for a broken configuration)."
    ),
)


def _metrics(parser: Parser) -> None:
    parser.add(
        "--write",
        action="store_true",
        help="write them to the file for node_exporter (metrics.textfile_directory), as each run does",
    )


METRICS = Verb(
    "metrics",
    "print the numbers for Prometheus, or write the file for node_exporter",
    _metrics,
    "pgops metrics\npgops metrics --write",
)


def _checklist(parser: Parser) -> None:
    parser.add(
        "what",
        metavar="STAGE",
        nargs="?",
        default="",
        choices=("", *STAGES, "sign"),
        help="only this stage: %s; or sign, to tick a line that only a person can tick" % ", ".join(STAGES),
    )
    parser.add("line", metavar="LINE", nargs="?", default="", help="with sign: the line, like before.people")
    parser.add("--name", metavar="NAME", default="", help="with sign: who ticks it")
    parser.add("--note", metavar="TEXT", default="", help="with sign: what there is to say about it")
    parser.add("--markdown", action="store_true", help="print Markdown, for a wiki")
    dry_run(parser)


CHECKLIST = Verb(
    "checklist",
    "the checklists of an operator, ticked from evidence; sign what only a person can tell",
    _checklist,
    (
        "pgops checklist\n"
        "pgops checklist day-1\n"
        "pgops checklist --markdown > checklist.md\n"
        "pgops checklist sign before.people --name 'Ada Lovelace' --note 'see the on-call plan'"
    ),
)


def _alert(parser: Parser) -> None:
    parser.add(
        "action",
        choices=("evaluate", "send", "test"),
        help="evaluate: look what is wrong and tell of it; send: pass a message on; test: try each channel",
    )
    parser.add(
        "words", metavar="LEVEL TEXT", nargs="*", help="with send: ok, info, warning or critical, and the message"
    )
    parser.add(
        "--key",
        metavar="KEY",
        default="",
        help="with send: what the message is about, so that a later one of the level ok ends it",
    )
    parser.add(
        "--once",
        action="store_true",
        help="with send and --key: tell the same again only after alerts.repeat, and an end only of what was told",
    )
    dry_run(parser)


ALERT = Verb(
    "alert",
    "tell people what is wrong, once, and when it is over; or try the channels",
    _alert,
    (
        "pgops alert test                            what does each channel answer?\n"
        "pgops alert evaluate                        what a timer runs, so that silence is heard, too\n"
        "pgops alert evaluate --dry-run              what would be told?\n"
        "pgops alert send warning 'The disk is being replaced' --key disk\n"
        "pgops alert send ok 'The new disk is in' --key disk"
    ),
)


__all__ = ("CHECKS", "STAGES", "ALERT", "CHECK", "CHECKLIST", "METRICS", "STATUS")
