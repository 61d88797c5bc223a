# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verbs that bring back databases, or the whole server: their options and examples."""

from __future__ import annotations

import argparse

from .parser import Parser, Verb, dry_run, identity_file, place, wait


def _restore(parser: Parser) -> None:
    parser.add(
        "set_id",
        metavar="SET",
        nargs="?",
        default="latest_verified",
        complete="sets",
        help="id of a set, latest, or latest_verified (the default)",
    )
    place(parser, default="auto")
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
    wait(parser)
    dry_run(parser)


RESTORE = Verb(
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
)


def _recover(parser: Parser) -> None:
    _base_backup(parser)
    parser.add(
        "--data-directory", metavar="DIR", required=True, complete="file", help="where the server's data will lie"
    )
    _moment(parser)
    _server(parser)
    identity_file(parser)
    parser.add(
        "--confirm", metavar="DIR", default="", help="agree to replace the data directory, by its exact path (in_place)"
    )
    parser.add(
        "-y", "--yes", action="store_true", help="agree without being asked; not enough to replace a data directory"
    )
    wait(parser)
    dry_run(parser)


def _server(parser: Parser) -> None:
    """What becomes of the server that is recovered, and where its parts lie."""
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


RECOVER = Verb(
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
)


def _rescue(parser: Parser) -> None:
    _base_backup(parser)
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
    wait(parser)
    dry_run(parser)


RESCUE = Verb(
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
)


def _base_backup(parser: Parser) -> None:
    """Which base backup a recovery begins with."""
    parser.add(
        "set_id",
        metavar="SET",
        nargs="?",
        default="auto",
        complete="sets",
        help="id of a base backup, or auto (the default): the one that needs the least WAL",
    )
    place(parser, default="auto")


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
    identity_file(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("%r is not a number from 0 to 64" % text)
    return int(text)


__all__ = ("RECOVER", "RESCUE", "RESTORE")
