# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""`pgops wal archive` and `pgops wal fetch`, as PostgreSQL calls them: no parser, no terminal, and its own exit codes.

archive: 0 only when the file is durable, else the code of the contract; PostgreSQL tries again.
fetch: 0; 1 when the archive does not have the file, at which a recovery ends; otherwise 200 and more, at which PostgreSQL
stops instead (above 125: "recovery will abort and the server will not start up", manual, restore_command).
"""

from __future__ import annotations

import os
import sys

from ..core.errors import DamagedError, PgopsError, UnreachableError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Callable

    from ..wal.brief import Brief

    Archive = Callable[..., bool]
    Fetch = Callable[..., str]

# The same as in options.py, which imports a whole parser.
CONFIG_VARIABLE, DEFAULT_CONFIG = "PGOPS_CONFIG", "/etc/pgops/config.yml"
ABORTS_RECOVERY = 200
# Between the client, the program and the process that stays; for nobody to type.
STAY, CALLER = "stay", "PGOPS_WAL_CLIENT"
PROTOCOL, AGAIN, ABOUT = "pgops-wal-1", "again", "about"
_OPTIONS = {
    "-c": "config",
    "--config": "config",
    "--system-identifier": "system_identifier",
    "--place": "place",
    "--instance": "instance",
    "--identity-file": "identity_file",
}
_FLAGS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--look": "look"}
_WORDS = {"archive": ("PATH",), "fetch": ("NAME", "TARGET")}


def run(action: str, arguments: Sequence[str]) -> int:
    """Do what `pgops wal <action> <arguments>` says and return the exit code."""
    if action == STAY:
        from ..wal.stay import stay

        return stay(arguments[0]) if len(arguments) == 1 else UsageError.exit_code
    verbose = any(argument in _FLAGS and _FLAGS[argument] == "verbose" for argument in arguments)
    try:
        code = carry_out(action, arguments, _say)
    except Exception as error:  # noqa: BLE001 - PostgreSQL's log gets a sentence, not a traceback
        if verbose:
            import traceback

            traceback.print_exc()
        _say("Something went wrong that should not: %s: %s" % (type(error).__name__, error))
        return 1 if action == "archive" else ABORTS_RECOVERY + 1
    if CALLER in os.environ and not code:
        _leave_behind(action, arguments)
    return code


def _leave_behind(action: str, arguments: Sequence[str]) -> None:
    """Have the next calls answered sooner, where they come soon. What keeps it from that is no failure of this one."""
    try:
        from ..wal.leaving import leave_behind

        options, _words = parsed(action, arguments)
        if os.path.isabs(options["config"]):
            leave_behind(options["config"], {name: value for name, value in os.environ.items() if name != CALLER})
    except Exception:  # noqa: BLE001 - the file is where it is to be, and each call can do its own work
        return


def carry_out(
    action: str,
    arguments: Sequence[str],
    say: Callable[[str], None],
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
            from ..wal.tablespaces import look_into

            look_into(directory or os.getcwd(), *words)
            return 0
        config_path = options["config"] or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
        brief = _brief(config_path, options)
        if action == "archive":
            if store is None:
                from ..wal.archive import archive

                store = archive
            fresh = store(brief, words[0], system_identifier=options["system_identifier"], directory=directory)
            if verbose:
                say("%s %s" % (os.path.basename(words[0]), "archived" if fresh else "was archived already"))
            return 0
        if bring is None:
            from ..wal.fetch import fetch

            bring = fetch
        source = bring(
            brief,
            *words,
            system_identifier=options["system_identifier"],
            place=options["place"] or "auto",
            config_path=config_path,
            say=say,
        )
        if verbose:
            say("%s from %s" % (words[0], source))
        return 0
    except PgopsError as error:
        if action == "archive":
            _complain(error, config_path, say)
            return error.exit_code
        from ..wal.spool import AbsentError

        if isinstance(error, AbsentError):
            # PostgreSQL asks for files beyond the end as a matter of course.
            if verbose:
                say(error.message)
            return 1
        _complain(error, config_path, say)
        return _code_of(error, directory or os.getcwd())


def _brief(config_path: str, options: Mapping[str, str]) -> Brief:
    """Return what the configuration says, and the options in its place. Raise UsageError."""
    from ..wal.brief import read_brief

    brief = read_brief(config_path)
    if options["instance"]:
        from ..core.naming import check_instance

        brief = brief.of(check_instance(options["instance"]))
    return brief.opened_by(options["identity_file"]) if options["identity_file"] else brief


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
        if argument in _FLAGS:
            options[_FLAGS[argument]] = "yes"
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


def _complain(error: PgopsError, config_path: str, say: Callable[[str], None]) -> None:
    from ..core.commands import addressed

    say(addressed(error.message, config_path))
    if error.hint:
        say("  → %s" % addressed(error.hint, config_path))


def _say(text: str) -> None:
    """Say one thing in PostgreSQL's log; a log that is gone must not turn a file that is durable into a failure."""
    try:
        sys.stderr.write(line(text))
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def line(text: str) -> str:
    """Return what PostgreSQL's log gets for `text`."""
    return "pgops wal: %s\n" % text.replace("\n", "\n  ")


__all__ = ("ABORTS_RECOVERY", "ABOUT", "AGAIN", "CALLER", "PROTOCOL", "STAY", "carry_out", "line", "parsed", "run")
