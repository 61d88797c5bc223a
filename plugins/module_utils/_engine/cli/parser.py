# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The argument parser, and the options that several verbs share."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any, Callable, NamedTuple, NoReturn

from ..core.errors import UsageError
from ..core.times import parse_span

DEFAULT_CONFIG = "/etc/pgops/config.yml"
CONFIG_VARIABLE = "PGOPS_CONFIG"


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


class Verb(NamedTuple):
    """One verb of the command line."""

    name: str
    summary: str
    add: Callable[[Parser], None]
    examples: str


def everywhere(parser: Parser, *, top: bool, short: bool = True) -> None:
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


def nothing(parser: Parser) -> None:
    """Add nothing: a verb without options of its own."""
    del parser


def place(parser: Parser, *, default: str, many: bool = False) -> None:
    """Add --place, once or, with `many`, as often as there are places."""
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


def identity_file(parser: Parser) -> None:
    """Add --identity-file."""
    parser.add("--identity-file", metavar="FILE", complete="file", help="private age or SSH key, for encrypted sets")


def wait(parser: Parser) -> None:
    """Add --wait."""
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


def dry_run(parser: Parser) -> None:
    """Add --dry-run."""
    parser.add("-n", "--dry-run", action="store_true", help="show what would be done; change nothing")


__all__ = (
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "Parser",
    "Verb",
    "dry_run",
    "everywhere",
    "identity_file",
    "nothing",
    "place",
    "wait",
)
