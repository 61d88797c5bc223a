# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What PostgreSQL calls for, one WAL file at a time: the words of a call, its work, its exit code, and what PostgreSQL's log gets.

The program (cli/wal.py) and the process that stays (stay.py) carry it out alike. Nothing is imported that a call does not need.
"""

from __future__ import annotations

import os

from ..core.errors import DamagedError, PgopsError, UnreachableError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable

    from .brief import Brief

    Say = Callable[[str], None]
    Archive = Callable[..., bool]
    Fetch = Callable[..., str]

# The same as in cli/parser.py, which imports a whole parser.
CONFIG_VARIABLE, DEFAULT_CONFIG = "PGOPS_CONFIG", "/etc/pgops/config.yml"
ABORTS_RECOVERY = 200
# Between the client, the program and the process that stays; for nobody to type.
CALLER = "PGOPS_WAL_CLIENT"
PROTOCOL, AGAIN, ABOUT = "pgops-wal-1", "again", "about"
_OPTIONS = {
    "-c": "config",
    "--config": "config",
    "--system-identifier": "system_identifier",
    "--place": "place",
    "--instance": "instance",
    "--identity-file": "identity_file",
}
FLAGS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--look": "look"}
_WORDS = {"archive": ("PATH",), "fetch": ("NAME", "TARGET")}


def carry_out(
    action: str,
    arguments: Sequence[str],
    say: Say,
    *,
    directory: str = "",
    store: Archive | None = None,
    bring: Fetch | None = None,
) -> int:
    """Do it, and return the exit code; `say` hears what PostgreSQL's log is to get.

    A process that stays says for which `directory`, the data directory of the caller, and does the work by `store` and `bring`
    instead of by what archive() and fetch() do.
    """
    verbose, config_path = False, ""
    try:
        options, words = parsed(action, arguments)
        verbose = bool(options["verbose"])
        if options["look"]:
            from .tablespaces import look_into

            look_into(directory or os.getcwd(), *words)
            return 0
        config_path = options["config"] or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
        from .brief import read_brief

        brief = read_brief(config_path)
        done = (
            _archive(brief, words[0], options, directory, store)
            if action == "archive"
            else _fetch(brief, words, options, config_path, say, bring)
        )
    except PgopsError as error:
        return _failed(action, error, config_path, say, directory=directory, verbose=verbose)
    if verbose:
        say(done)
    return 0


def _archive(brief: Brief, path: str, options: dict[str, str], directory: str, store: Archive | None) -> str:
    """Archive the file and return what was done."""
    if store is None:
        from .archive import archive

        store = archive
    fresh = store(brief, path, system_identifier=options["system_identifier"], directory=directory)
    return "%s %s" % (os.path.basename(path), "archived" if fresh else "was archived already")


def _fetch(
    brief: Brief, words: Sequence[str], options: dict[str, str], config_path: str, say: Say, bring: Fetch | None
) -> str:
    """Bring the file and return from where it came."""
    brief = _asked(brief, options)
    if bring is None:
        from .fetch import fetch

        bring = fetch
    source = bring(
        brief,
        *words,
        system_identifier=options["system_identifier"],
        place=options["place"] or "auto",
        config_path=config_path,
        say=say,
    )
    return "%s from %s" % (words[0], source)


def _asked(brief: Brief, options: dict[str, str]) -> Brief:
    """Return what the configuration says, as a fetch was told to change it."""
    if options["instance"]:
        from ..core.naming import check_instance

        brief = brief.of(check_instance(options["instance"]))
    return brief.opened_by(options["identity_file"]) if options["identity_file"] else brief


def _failed(action: str, error: PgopsError, config_path: str, say: Say, *, directory: str, verbose: bool) -> int:
    """Say what went wrong and return the exit code by which PostgreSQL does what it should."""
    if action == "archive":
        _complain(error, config_path, say)
        return error.exit_code
    from .spool import AbsentError

    if isinstance(error, AbsentError):
        # PostgreSQL asks for files beyond the end as a matter of course.
        if verbose:
            say(error.message)
        return 1
    _complain(error, config_path, say)
    return _code_of(error, directory or os.getcwd())


def _code_of(error: PgopsError, directory: str) -> int:
    """Return the code with which a fetch fails that is not known to be at the end of the WAL.

    To a standby no missing file is the end: it asks again, and its primary meanwhile. With a code above 125 it would shut down.
    """
    passing = isinstance(error, (UnreachableError, DamagedError))
    standby = os.path.exists(os.path.join(directory, "standby.signal"))
    return error.exit_code if passing and standby else ABORTS_RECOVERY + error.exit_code


def parsed(action: str, arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options and the words among `arguments`. Raise UsageError."""
    options = {
        "config": "",
        "system_identifier": "",
        "place": "",
        "instance": "",
        "identity_file": "",
        "quiet": "",
        "verbose": "",
        "look": "",
    }
    words: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if argument in FLAGS:
            options[FLAGS[argument]] = "yes"
        elif flag in _OPTIONS and (equals or rest):
            options[_OPTIONS[flag]] = value if equals else rest.pop(0)
        elif argument.startswith("-"):
            raise _misused(action, "%s is no option here, or has no value" % argument)
        else:
            words.append(argument)
    if len(words) != len(_WORDS[action]):
        raise _misused(action, "it takes %s, not %d words" % (" and ".join(_WORDS[action]), len(words)))
    if options["place"] and (action == "archive" or options["place"] not in ("auto", "local", "s3")):
        raise _misused(action, "--place %s is not known here" % options["place"])
    for option in ("instance", "identity_file", "look"):
        if options[option] and action == "archive":
            raise _misused(action, "--%s is for fetch alone" % option.replace("_", "-"))
    return options, words


def _misused(action: str, text: str) -> UsageError:
    usual = {
        "archive": "archive_command = 'pgops wal archive %p'",
        "fetch": "restore_command = 'pgops wal fetch %f %p'",
    }
    return UsageError("pgops wal %s: %s." % (action, text), hint="%s is how PostgreSQL calls it." % usual[action])


def _complain(error: PgopsError, config_path: str, say: Say) -> None:
    from ..core.commands import addressed

    say(addressed(error.message, config_path))
    if error.hint:
        say("  → %s" % addressed(error.hint, config_path))


def line(text: str) -> str:
    """Return what PostgreSQL's log gets for `text`."""
    return "pgops wal: %s\n" % text.replace("\n", "\n  ")


__all__ = ("ABORTS_RECOVERY", "ABOUT", "AGAIN", "CALLER", "FLAGS", "PROTOCOL", "carry_out", "line", "parsed")
