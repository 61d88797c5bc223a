# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The command line's verbs and options. Nothing heavy is imported here: help and completion must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Callable, NoReturn, Optional

from ..core.calendar import Calendar
from ..core.calendar import parse as parse_calendar
from ..core.errors import UsageError
from ..core.times import parse_span

DEFAULT_CONFIG = "/etc/pgops/config.yml"
CONFIG_VARIABLE = "PGOPS_CONFIG"
ALIASES = {"list": "info"}
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

_EXIT_CODES = """\
exit codes:
  0  done
  1  the work failed, or was interrupted
  2  wrong usage or configuration; nothing was touched
  3  another run holds the lock
  4  a program, a library, the server, the bucket or the network was out of reach
  5  refused for safety; nothing was touched"""

_ABOUT = "Back up PostgreSQL, copy the backups off the server, prove that they restore, and bring databases back."

_EXAMPLES = """\
examples:
  pgops backup && pgops sync && pgops verify && pgops prune     one night
  pgops status                                                  are we safe?
  pgops restore --list                                          what could be brought back
  pgops restore --database shop --rename shop shop_copy         bring one back beside the old one
  pgops config --example > /etc/pgops/config.yml                begin

'pgops VERB --help' shows the options and examples of a verb."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, and that knows how the values of its options are completed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self.completes: dict[str, str] = {}
        self.verbs: dict[str, Parser] = {}

    def add(self, *flags: str, complete: str = "", **options: Any) -> None:
        """Add an argument whose values are completed as `complete` says: file, sets, databases; or by its choices."""
        action = self.add_argument(*flags, **options)
        if complete:
            self.completes[action.dest] = complete

    def arguments(self) -> list[argparse.Action]:
        """Return all options and positional arguments."""
        return list(self._actions)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; the command line turns it into words or JSON."""
        text = message[:1].upper() + message[1:]
        raise UsageError(text.rstrip(".") + ".", hint="'%s --help' shows how it is called." % self.prog)


def _everywhere(parser: Parser, *, top: bool, short: bool = True) -> None:
    """Add what every verb takes, before it and after it. After the verb, only what is given counts.

    Without `short`, -c is left to the verb.
    """

    def default(value: Any) -> Any:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("everywhere")
    actions = [
        group.add_argument(
            *(("-c",) if short else ()),
            "--config",
            metavar="FILE",
            default=default(""),
            help="configuration (default: %s, or what %s says)" % (DEFAULT_CONFIG, CONFIG_VARIABLE),
        ),
        group.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            dest="set_before" if top else "set_after",
            default=[],
            help="lay a value over the configuration: backup.jobs=2, backup.databases='[\"shop\"]'; repeatable",
        ),
    ]
    parser.completes[actions[0].dest] = "file"
    group.add_argument(
        "--json", action="store_true", default=default(False), help="print one JSON result and nothing else"
    )
    voice = group.add_mutually_exclusive_group()
    voice.add_argument("-q", "--quiet", action="store_true", default=default(False), help="say nothing but errors")
    voice.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default(False),
        help="say each step; show where errors came from",
    )
    group.add_argument(
        "--as-root",
        action="store_true",
        default=default(False),
        help="stay root; otherwise root becomes the owner of the backup directory first",
    )


def _dry_run(parser: Parser) -> None:
    parser.add("-n", "--dry-run", action="store_true", help="show what would be done; change nothing")


def _wait(parser: Parser) -> None:
    parser.add(
        "--wait",
        metavar="SPAN",
        type=_span,
        default=None,
        help="wait up to SPAN (90s, 15min, 6h) for other runs to end, rather than fail with 3 at once",
    )


def _span(text: str) -> timedelta:
    try:
        return parse_span(text)
    except UsageError:
        raise argparse.ArgumentTypeError("%r is not a duration such as 90s, 15min, 6h or 2d" % text) from None


def _place(parser: Parser, *, default: str, many: bool = False) -> None:
    if many:
        parser.add(
            "--place",
            choices=("local", "s3"),
            action="append",
            default=[],
            help="only this place; repeatable (default: all)",
        )
    else:
        parser.add(
            "--place",
            choices=("auto", "local", "s3"),
            default=default,
            help="where; auto: s3 where there is one (default: %s)" % default,
        )


def _backup(parser: Parser) -> None:
    parser.add(
        "--kind",
        choices=("logical", "base"),
        default="logical",
        help="logical: dumps of the databases (the default); base: a copy of the whole server, for recovery to any moment",
    )
    parser.add(
        "--incremental",
        metavar="SET",
        nargs="?",
        const="auto",
        default="",
        complete="sets",
        help="with --kind base: copy what changed since SET, or since the newest one that is good for it (auto, and when SET is left "
        "out); never: a full one (default: base.incremental of the configuration)",
    )
    parser.add(
        "--to",
        choices=("local", "s3"),
        default="",
        help="with --kind base: take it to this host, or straight to S3 while it is taken (default: base.to of the configuration)",
    )
    _wait(parser)
    _dry_run(parser)


def _sync(parser: Parser) -> None:
    parser.add(
        "sets",
        metavar="SET",
        nargs="*",
        complete="sets",
        help="ids of sets, or latest, latest_verified, all; with none: push what is missing there, pull the latest",
    )
    parser.add("--pull", action="store_true", help="from S3 to this host; otherwise from this host to S3")
    _wait(parser)
    _dry_run(parser)


def _verify(parser: Parser) -> None:
    parser.add(
        "sets",
        metavar="SET",
        nargs="*",
        complete="sets",
        help="ids of sets, or latest (the default), all, or unverified",
    )
    _place(parser, default="auto")
    parser.add(
        "--level",
        choices=("checksum", "structure", "restore"),
        default="",
        help="checksum: files are what the manifest says; structure: archives parse; restore: into a throwaway server, "
        "compared with the original (default: verify.level of the configuration)",
    )
    parser.add("--identity-file", metavar="FILE", complete="file", help="private age or SSH key, for encrypted sets")
    _wait(parser)
    _dry_run(parser)


def _restore(parser: Parser) -> None:
    parser.add(
        "set_id",
        metavar="SET",
        nargs="?",
        default="latest_verified",
        complete="sets",
        help="id of a set, latest, or latest_verified (the default)",
    )
    _place(parser, default="auto")
    parser.add("--list", action="store_true", help="show what the places hold and end")
    parser.add(
        "--database",
        metavar="NAME",
        action="append",
        default=[],
        complete="databases",
        help="only this database; repeatable",
    )
    parser.add("--schema", metavar="NAME", action="append", default=[], help="only this schema; repeatable")
    parser.add("--table", metavar="SCHEMA.TABLE", action="append", default=[], help="only this table; repeatable")
    parser.add(
        "--rename",
        metavar=("OLD", "NEW"),
        nargs=2,
        action="append",
        default=[],
        help="restore OLD under the name NEW; repeatable",
    )
    parser.add(
        "--mode",
        choices=("create", "swap", "into_empty"),
        default="create",
        help="create: must not exist; swap: restore beside it, prove it, exchange the names, keep the old one; "
        "into_empty: into a database that exists and holds nothing (default: create)",
    )
    parser.add(
        "--globals",
        choices=("missing", "all", "none"),
        default="missing",
        help="which roles of the set are made first; all: existing ones, and tablespaces, become as they were (default: missing)",
    )
    _loading(parser)
    parser.add(
        "--confirm",
        metavar="NAME",
        action="append",
        default=[],
        complete="databases",
        help="agree to the restore over the database NAME, its exact name; repeatable. Mode swap asks for it",
    )
    parser.add("-y", "--yes", action="store_true", help="agree without being asked; not enough for mode swap")
    _wait(parser)
    _dry_run(parser)


def _recover(parser: Parser) -> None:
    parser.add(
        "set_id",
        metavar="SET",
        nargs="?",
        default="auto",
        complete="sets",
        help="id of a base backup, or auto (the default): the one that needs the least WAL",
    )
    _place(parser, default="auto")
    parser.add(
        "--data-directory", metavar="DIR", required=True, complete="file", help="where the server's data will lie"
    )
    _moment(parser)
    parser.add(
        "--action",
        choices=("promote", "pause"),
        default="promote",
        help="what the server does at the target: promote: take writes; pause: stay read-only, to look (default: promote)",
    )
    parser.add(
        "--mode",
        choices=("beside", "in_place"),
        default="beside",
        help="beside: a copy that only a private socket reaches; in_place: as the server itself, with its own configuration; "
        "the old data directory is kept (default: beside)",
    )
    parser.add(
        "--port", metavar="N", type=int, default=5432, help="the number in the socket's name of a copy (default: 5432)"
    )
    parser.add(
        "--socket-directory",
        metavar="DIR",
        default="",
        complete="file",
        help="where that socket lies; a new private directory when not given",
    )
    parser.add(
        "--tablespace",
        metavar=("NAME", "DIR"),
        nargs=2,
        action="append",
        default=[],
        help="another directory for a tablespace, which is called by its name, or by the path that it has; repeatable",
    )
    parser.add(
        "--waldir",
        metavar="DIR",
        default="",
        complete="file",
        help="where pg_wal is to lie, empty or not there, as with initdb --waldir (default: inside the data directory)",
    )
    parser.add(
        "--config-file",
        metavar="FILE",
        default="",
        complete="file",
        help="postgresql.conf outside of the data directory (in_place); that of a Debian cluster is found",
    )
    parser.add(
        "--leave",
        choices=("running", "stopped"),
        default="running",
        help="how the server is left; stopped, its own service can start it (default: running)",
    )
    parser.add("--identity-file", metavar="FILE", complete="file", help="private age or SSH key, for encrypted sets")
    parser.add(
        "--confirm", metavar="DIR", default="", help="agree to replace the data directory, by its exact path (in_place)"
    )
    parser.add(
        "-y", "--yes", action="store_true", help="agree without being asked; not enough to replace a data directory"
    )
    _wait(parser)
    _dry_run(parser)


def _moment(parser: Parser) -> None:
    target = parser.add_argument_group("where to stop", "exactly one of these")
    target.add_argument(
        "--to-time",
        metavar="MOMENT",
        default="",
        help="2026-11-22T14:31:07+01:00, or '2026-11-22 14:31:07 Europe/Berlin'",
    )
    target.add_argument("--to-lsn", metavar="LSN", default="", help="a position in the WAL: 16/B374D848")
    target.add_argument("--to-xid", metavar="XID", default="", help="a transaction: 4711")
    target.add_argument("--to-name", metavar="NAME", default="", help="a restore point (pg_create_restore_point)")
    target.add_argument("--to-immediate", action="store_true", help="as soon as the base backup is consistent")
    target.add_argument("--to-end", action="store_true", help="the end of the archived WAL")
    parser.add("--to-gap", action="store_true", help="with --to-end: also where WAL is missing before the end")
    parser.add("--exclusive", action="store_true", help="stop before what lies exactly at the target, not after it")
    parser.add(
        "--timeline",
        metavar="N",
        default="latest",
        help="latest (the default), current (that of the base backup), or a number",
    )


def _rescue(parser: Parser) -> None:
    parser.add(
        "set_id",
        metavar="SET",
        nargs="?",
        default="auto",
        complete="sets",
        help="id of a base backup, or auto (the default): the one that needs the least WAL",
    )
    _place(parser, default="auto")
    parser.add(
        "--database", metavar="NAME", required=True, complete="databases", help="the database, as it was called then"
    )
    parser.add("--table", metavar="SCHEMA.TABLE", action="append", default=[], help="only this table; repeatable")
    parser.add(
        "--into",
        metavar="NAME",
        default="",
        help="its name on the server, where none has that (default: NAME_rescued_<time>)",
    )
    _moment(parser)
    parser.add(
        "--globals",
        choices=("missing", "all", "none"),
        default="none",
        help="which roles of that moment are made first (default: none, as they are usually still there)",
    )
    _loading(parser)
    parser.add("-y", "--yes", action="store_true", help="agree without being asked")
    _wait(parser)
    _dry_run(parser)


def _loading(parser: Parser) -> None:
    """How databases are loaded, whatever they come from."""
    parser.add(
        "--no-owner",
        action="store_true",
        help="everything belongs to who restores, without the original's owners and grants",
    )
    parser.add(
        "--jobs", metavar="N", type=_count, default=0, help="parallel jobs (default: restore.jobs of the configuration)"
    )
    parser.add("--identity-file", metavar="FILE", complete="file", help="private age or SSH key, for encrypted sets")


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("%r is not a number from 0 to 64" % text)
    return int(text)


def _prune(parser: Parser) -> None:
    _place(parser, default="", many=True)
    parser.add(
        "--cluster",
        metavar="NUMBER",
        action="append",
        default=[],
        help="also the WAL of this earlier cluster, by its system identifier, from all places: one that --dry-run names"
        " (may be repeated)",
    )
    _wait(parser)
    _dry_run(parser)


_SCHEDULED = ("backup", "base", "sync", "verify", "prune")


def _catch_up(parser: Parser) -> None:
    parser.add(
        "--job",
        metavar="VERB=CALENDAR",
        type=_job,
        action="append",
        default=[],
        help="a job that is scheduled, such as 'backup=0 2 * * *' (base for base backups); repeatable. Without it: those of the configuration",
    )
    parser.add("--timezone", metavar="ZONE", default=None, help="of these calendars (default: schedule.timezone)")
    _wait(parser)
    _dry_run(parser)


def _job(text: str) -> tuple[str, Calendar]:
    verb, sign, calendar = text.partition("=")
    if not sign or verb not in _SCHEDULED:
        raise argparse.ArgumentTypeError("%r is not VERB=CALENDAR with one of %s" % (text, ", ".join(_SCHEDULED)))
    try:
        return verb, parse_calendar(calendar)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


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


def _metrics(parser: Parser) -> None:
    parser.add(
        "--write",
        action="store_true",
        help="write them to the file for node_exporter (metrics.textfile_directory), as each run does",
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
    _dry_run(parser)


def _info(parser: Parser) -> None:
    _place(parser, default="", many=True)
    parser.add("--details", action="store_true", help="also databases, sizes and what retention would remove")


def _pin(parser: Parser) -> None:
    parser.add("set_id", metavar="SET", complete="sets", help="id of a set, latest, or latest_verified")
    parser.add("--reason", metavar="TEXT", required=True, help="why it must stay")
    _place(parser, default="auto")
    _wait(parser)
    _dry_run(parser)


def _unpin(parser: Parser) -> None:
    parser.add("set_id", metavar="SET", complete="sets", help="id of a set")
    _place(parser, default="auto")
    _wait(parser)
    _dry_run(parser)


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
    _dry_run(parser)


def _wal(parser: Parser) -> None:
    parser.add(
        "action",
        metavar="ACTION",
        choices=("archive", "fetch", "ship", "status"),
        help="archive PATH: keep one WAL file (archive_command); fetch NAME TARGET: bring one back (restore_command); "
        "ship: copy to S3 what is kept here; status: how the archiving fares, and to which moments recovery can go",
    )
    parser.add(
        "words",
        metavar="WORD",
        nargs="*",
        complete="file",
        help="for archive: %%p; for fetch: %%f %%p, as PostgreSQL gives them",
    )
    parser.add(
        "--system-identifier",
        metavar="NUMBER",
        default="",
        help="for archive and fetch: the cluster that it must be; read from its data directory by default",
    )
    parser.add(
        "--place",
        choices=("auto", "local", "s3"),
        default="auto",
        help="for fetch: where to look; auto: here, then in S3 (default: auto)",
    )
    parser.add(
        "--instance",
        metavar="NAME",
        default="",
        help="for fetch: the instance whose archive it is, when it is not that of the configuration",
    )
    parser.add(
        "--identity-file",
        metavar="FILE",
        complete="file",
        help="for fetch: private age or SSH key, for encrypted WAL (default: restore.identity_file of the configuration)",
    )
    parser.add(
        "--look",
        action="store_true",
        help="for fetch: another command has brought the file; only see to the tablespaces that it makes",
    )
    parser.add("--loop", action="store_true", help="for ship: go on until it is ended, as a service")
    _wait(parser)
    _dry_run(parser)


def _config(parser: Parser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check the whole file and list every error (the default)")
    what.add_argument("--example", action="store_true", help="print a commented configuration with every key")
    what.add_argument("--show", action="store_true", help="print what is in force, as JSON, secrets masked")


def _completion(parser: Parser) -> None:
    parser.add("shell", choices=("bash", "zsh"), help="the shell whose script is printed")


def _nothing(parser: Parser) -> None:
    del parser


_Verb = tuple[str, str, Callable[[Parser], None], str]
VERBS: tuple[_Verb, ...] = (
    (
        "backup",
        "make a backup set of the configured databases",
        _backup,
        (
            "pgops backup\n"
            "pgops backup --kind base    a base backup of the whole server\n"
            "pgops backup --dry-run      sizes, formats and what no job covers\n"
            "pgops backup --quiet        from cron: silent unless it fails\n"
            "pgops backup --wait 6h      after a run that still holds the lock, rather than not at all"
        ),
    ),
    (
        "sync",
        "copy sets to S3, or from there",
        _sync,
        "pgops sync\npgops sync --dry-run\npgops sync --pull 20261122T020000Z-logical",
    ),
    (
        "verify",
        "prove that sets can be restored",
        _verify,
        (
            "pgops verify                            the newest set, as deep as the configuration says\n"
            "pgops verify --level restore unverified\npgops verify --place local --level checksum all"
        ),
    ),
    (
        "restore",
        "bring databases back",
        _restore,
        (
            "pgops restore --list                    which sets there are\n"
            "pgops restore --dry-run                 the plan, nothing else\n"
            "pgops restore --database shop --rename shop shop_copy --yes\n"
            "pgops restore --database shop --mode swap --confirm shop\n"
            "pgops restore 20261122T020000Z-logical --table public.orders --mode into_empty --database shop\n\n"
            "The plan is shown first. Without a terminal, --yes or --confirm must say that it is wanted."
        ),
    ),
    (
        "recover",
        "bring the whole server back, to any moment",
        _recover,
        (
            "pgops recover --data-directory /srv/copy --to-time 2026-11-22T14:31:07+01:00 --dry-run\n"
            "pgops recover --data-directory /srv/copy --to-time '2026-11-22 14:31:07 Europe/Berlin' --action pause --yes\n"
            "pgops recover --data-directory /var/lib/postgresql/17/main --mode in_place --to-end \\\n"
            "    --confirm /var/lib/postgresql/17/main --config-file /etc/postgresql/17/main/postgresql.conf\n\n"
            "The plan is shown first. Without a terminal, --yes or --confirm must say that it is wanted."
        ),
    ),
    (
        "rescue",
        "bring one database or table back as it was at a moment, under another name",
        _rescue,
        (
            "pgops rescue --database shop --to-time 2026-11-22T14:31:07+01:00 --dry-run\n"
            "pgops rescue --database shop --to-time 2026-11-22T14:31:07+01:00 --into shop_before --yes\n"
            "pgops rescue --database shop --table public.orders --to-xid 4711 --exclusive --yes\n\n"
            "A copy of the whole server is recovered where nobody reaches it, what is asked for is dumped from it and loaded, and the\n"
            "copy is removed. It needs room for the whole server, in work_dir."
        ),
    ),
    (
        "prune",
        "remove the sets that retention does not keep",
        _prune,
        "pgops prune --dry-run\npgops prune --place local\npgops prune --cluster 7712533533113469207",
    ),
    (
        "catch-up",
        "run what the schedule lost to a downtime; cron calls it after a boot",
        _catch_up,
        "pgops catch-up --dry-run\npgops catch-up",
    ),
    (
        "status",
        "are we safe? backups, proofs, runs and space on one screen",
        _nothing,
        "pgops status\npgops status --json",
    ),
    (
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
    ),
    (
        "metrics",
        "print the numbers for Prometheus, or write the file for node_exporter",
        _metrics,
        "pgops metrics\npgops metrics --write",
    ),
    (
        "checklist",
        "the checklists of an operator, ticked from evidence; sign what only a person can tell",
        _checklist,
        (
            "pgops checklist\n"
            "pgops checklist day-1\n"
            "pgops checklist --markdown > checklist.md\n"
            "pgops checklist sign before.people --name 'Ada Lovelace' --note 'see the on-call plan'"
        ),
    ),
    (
        "info",
        "the catalog: what the places hold, and what is proven (also: list)",
        _info,
        "pgops info\npgops list --place s3 --details",
    ),
    ("probe", "try what the S3 place can do, and remember it", _nothing, "pgops probe"),
    ("pin", "keep a set, whatever retention says", _pin, "pgops pin latest_verified --reason 'before the upgrade'"),
    ("unpin", "let retention decide about a set again", _unpin, "pgops unpin 20261122T020000Z-logical"),
    (
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
    ),
    (
        "wal",
        "the WAL archive: keep, copy to S3, bring back, and look after it",
        _wal,
        (
            "pgops wal status\n"
            "pgops wal ship          what S3 lacks, once\n"
            "pgops wal ship --loop   the same as a service\n\n"
            "In postgresql.conf: archive_command = 'pgops wal archive %p', restore_command = 'pgops wal fetch %f %p'.\n"
            "archive ends with 0 only when the file is durable. fetch ends with 1 when the archive does not have the file, and\n"
            "with 200 and more when nobody can tell; PostgreSQL stops then, rather than take it for the end of the WAL."
        ),
    ),
    (
        "config",
        "check or show the configuration, or write an example",
        _config,
        "pgops config --check\npgops config --example > /etc/pgops/config.yml\npgops config --show --set backup.jobs=2",
    ),
    (
        "completion",
        "print a script that completes commands in a shell",
        _completion,
        (
            "pgops completion bash > /etc/bash_completion.d/pgops\n"
            "pgops completion zsh > /usr/local/share/zsh/site-functions/_pgops"
        ),
    ),
    ("version", "print the version", _nothing, "pgops version --json"),
)


def build() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="pgops", description=_ABOUT, epilog="%s\n\n%s" % (_EXIT_CODES, _EXAMPLES))
    _everywhere(parser, top=True)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", parser_class=Parser)
    for name, summary, add, examples in VERBS:
        indented = "\n".join("  %s" % line if line else "" for line in examples.split("\n"))
        sub: Parser = verbs.add_parser(
            name,
            help=summary,
            aliases=[alias for alias, of in ALIASES.items() if of == name],
            description=summary[:1].upper() + summary[1:] + ".",
            epilog="examples:\n%s\n\n%s" % (indented, _EXIT_CODES),
        )
        add(sub)
        _everywhere(sub, top=False, short=name != "check")
        parser.verbs[name] = sub
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what `arguments` ask for. Raise UsageError for what cannot be, SystemExit after --help."""
    parser = build()
    options = parser.parse_args(list(arguments))
    if options.version:
        options.verb = "version"
    if options.verb is None:
        parser.error("what shall be done? Name a verb, such as backup, status or restore")
    if options.quiet and options.verbose:
        parser.error("--quiet and --verbose exclude each other")
    options.verb = ALIASES.get(options.verb, options.verb)
    options.overrides = options.set_before + getattr(options, "set_after", [])
    return options


def verb_of(arguments: Sequence[str]) -> Optional[str]:
    """Return the verb among `arguments` that could not be parsed, None if there is none."""
    known = {name for name, *_unused in VERBS}
    for argument in arguments:
        if ALIASES.get(argument, argument) in known:
            return ALIASES.get(argument, argument)
    return None


__all__ = (
    "ALIASES",
    "CHECKS",
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "STAGES",
    "VERBS",
    "Parser",
    "build",
    "parse",
    "verb_of",
)
