# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The command line: its verbs, in the order of the help. Nothing heavy is imported here: help and completion must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Optional

from .options_backup import BACKUP, CATCH_UP, INFO, PIN, PROBE, PRUNE, SYNC, UNPIN, VERIFY, WAL
from .options_recovery import RECOVER, RESCUE, RESTORE
from .options_watch import ALERT, CHECK, CHECKLIST, METRICS, STATUS
from .parser import Parser, Verb, everywhere, nothing

ALIASES = {"list": "info"}


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


def _config(parser: Parser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check the whole file and list every error (the default)")
    what.add_argument("--example", action="store_true", help="print a commented configuration with every key")
    what.add_argument("--show", action="store_true", help="print what is in force, as JSON, secrets masked")


CONFIG = Verb(
    "config",
    "check or show the configuration, or write an example",
    _config,
    "pgops config --check\npgops config --example > /etc/pgops/config.yml\npgops config --show --set backup.jobs=2",
)


def _completion(parser: Parser) -> None:
    parser.add("shell", choices=("bash", "zsh"), help="the shell whose script is printed")


COMPLETION = Verb(
    "completion",
    "print a script that completes commands in a shell",
    _completion,
    (
        "pgops completion bash > /etc/bash_completion.d/pgops\n"
        "pgops completion zsh > /usr/local/share/zsh/site-functions/_pgops"
    ),
)


VERSION = Verb("version", "print the version", nothing, "pgops version --json")

VERBS: tuple[Verb, ...] = (
    BACKUP,
    SYNC,
    VERIFY,
    RESTORE,
    RECOVER,
    RESCUE,
    PRUNE,
    CATCH_UP,
    STATUS,
    CHECK,
    METRICS,
    CHECKLIST,
    INFO,
    PROBE,
    PIN,
    UNPIN,
    ALERT,
    WAL,
    CONFIG,
    COMPLETION,
    VERSION,
)


def build() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="pgops", description=_ABOUT, epilog="%s\n\n%s" % (_EXIT_CODES, _EXAMPLES))
    everywhere(parser, top=True)
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
        everywhere(sub, top=False, short=name != "check")
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


__all__ = ("ALIASES", "VERBS", "build", "parse", "verb_of")
