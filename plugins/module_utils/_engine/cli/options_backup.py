# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verbs that make sets, keep them and prove them: their options and examples."""

from __future__ import annotations

import argparse

from ..core.calendar import Calendar
from ..core.calendar import parse as parse_calendar
from ..core.errors import UsageError
from .parser import Parser, Verb, dry_run, identity_file, nothing, place, wait

_SCHEDULED = ("backup", "base", "sync", "verify", "prune")


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
    wait(parser)
    dry_run(parser)


BACKUP = Verb(
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
)


def _sync(parser: Parser) -> None:
    parser.add(
        "sets",
        metavar="SET",
        nargs="*",
        complete="sets",
        help="ids of sets, or latest, latest_verified, all; with none: push what is missing there, pull the latest",
    )
    parser.add("--pull", action="store_true", help="from S3 to this host; otherwise from this host to S3")
    wait(parser)
    dry_run(parser)


SYNC = Verb(
    "sync",
    "copy sets to S3, or from there",
    _sync,
    "pgops sync\npgops sync --dry-run\npgops sync --pull 20261122T020000Z-logical",
)


def _verify(parser: Parser) -> None:
    parser.add(
        "sets",
        metavar="SET",
        nargs="*",
        complete="sets",
        help="ids of sets, or latest (the default), all, or unverified",
    )
    place(parser, default="auto")
    parser.add(
        "--level",
        choices=("checksum", "structure", "restore"),
        default="",
        help="checksum: files are what the manifest says; structure: archives parse; restore: into a throwaway server, "
        "compared with the original (default: verify.level of the configuration)",
    )
    identity_file(parser)
    wait(parser)
    dry_run(parser)


VERIFY = Verb(
    "verify",
    "prove that sets can be restored",
    _verify,
    (
        "pgops verify                            the newest set, as deep as the configuration says\n"
        "pgops verify --level restore unverified\npgops verify --place local --level checksum all"
    ),
)


def _prune(parser: Parser) -> None:
    place(parser, default="", many=True)
    parser.add(
        "--cluster",
        metavar="NUMBER",
        action="append",
        default=[],
        help="also the WAL of this earlier cluster, by its system identifier, from all places: one that --dry-run names"
        " (may be repeated)",
    )
    wait(parser)
    dry_run(parser)


PRUNE = Verb(
    "prune",
    "remove the sets that retention does not keep",
    _prune,
    "pgops prune --dry-run\npgops prune --place local\npgops prune --cluster 7712533533113469207",
)


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
    wait(parser)
    dry_run(parser)


def _job(text: str) -> tuple[str, Calendar]:
    verb, sign, calendar = text.partition("=")
    if not sign or verb not in _SCHEDULED:
        raise argparse.ArgumentTypeError("%r is not VERB=CALENDAR with one of %s" % (text, ", ".join(_SCHEDULED)))
    try:
        return verb, parse_calendar(calendar)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


CATCH_UP = Verb(
    "catch-up",
    "run what the schedule lost to a downtime; cron calls it after a boot",
    _catch_up,
    "pgops catch-up --dry-run\npgops catch-up",
)


def _info(parser: Parser) -> None:
    place(parser, default="", many=True)
    parser.add("--details", action="store_true", help="also databases, sizes and what retention would remove")


INFO = Verb(
    "info",
    "the catalog: what the places hold, and what is proven (also: list)",
    _info,
    "pgops info\npgops list --place s3 --details",
)


PROBE = Verb("probe", "try what the S3 place can do, and remember it", nothing, "pgops probe")


def _pin(parser: Parser) -> None:
    parser.add("set_id", metavar="SET", complete="sets", help="id of a set, latest, or latest_verified")
    parser.add("--reason", metavar="TEXT", required=True, help="why it must stay")
    place(parser, default="auto")
    wait(parser)
    dry_run(parser)


PIN = Verb(
    "pin", "keep a set, whatever retention says", _pin, "pgops pin latest_verified --reason 'before the upgrade'"
)


def _unpin(parser: Parser) -> None:
    parser.add("set_id", metavar="SET", complete="sets", help="id of a set")
    place(parser, default="auto")
    wait(parser)
    dry_run(parser)


UNPIN = Verb("unpin", "let retention decide about a set again", _unpin, "pgops unpin 20261122T020000Z-logical")


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
    wait(parser)
    dry_run(parser)


WAL = Verb(
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
)


__all__ = ("BACKUP", "CATCH_UP", "INFO", "PIN", "PROBE", "PRUNE", "SYNC", "UNPIN", "VERIFY", "WAL")
