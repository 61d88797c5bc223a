# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The program `pgops`: parse, call, say how it went, and end with the exit code of the contract."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Callable, Optional, TextIO

from ..core.errors import PgopsError, UsageError
from ..system.interrupts import cancelling_queries, interruptible
from .options import parse, verb_of

_INTERRUPTED = "interrupted"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program with the arguments `argv` (those of the process when None) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if arguments[:1] == ["_complete"]:
        from .completing import answer

        return answer(arguments[1:])
    voice = _Voice(json_wanted="--json" in arguments)
    with interruptible():
        try:
            options = parse(arguments)
            if options.verb == "check":
                from .checking import answer as check

                return check(options)
            voice.quiet, voice.verbose = options.quiet, options.verbose
            return _run(options, voice)
        except UsageError as error:
            if verb_of(arguments) == "check":
                from .checking import refused

                return refused(error)
            return voice.failed(verb_of(arguments), error)
        except SystemExit as over:
            # A plugin that shows its help has checked nothing.
            return 3 if verb_of(arguments) == "check" else int(over.code or 0)
        except KeyboardInterrupt:
            return voice.failed(verb_of(arguments), _InterruptedError("pgops was interrupted before it began."))


def _run(options: Any, voice: _Voice) -> int:
    from .commands import call
    from .invocation import Run
    from .progress import ProgressReporter, is_terminal, wants_colour

    # Whoever reads the JSON finds the warnings in it.
    silent = options.quiet or (options.json and not options.verbose and not is_terminal(sys.stderr, os.environ))
    reporter = ProgressReporter(sys.stderr, quiet=silent, verbose=options.verbose)
    run = Run(options, reporter)
    run.colour = wants_colour(sys.stdout, os.environ)
    try:
        with cancelling_queries():
            answer = call(run)
        reporter.close()
        return voice.done(options.verb, answer.result, answer.render)
    except KeyboardInterrupt:
        reporter.close()
        return voice.failed(options.verb, _InterruptedError("pgops %s was interrupted." % options.verb), run.context)
    except PgopsError as error:
        reporter.close()
        return voice.failed(options.verb, error, run.context)
    except Exception as error:  # noqa: BLE001 - a person gets a sentence, not a traceback
        reporter.close()
        return voice.unexpected(options.verb, error, run.context)


class _InterruptedError(PgopsError):
    """Somebody wanted the run to end."""

    outcome = _INTERRUPTED


class _Voice:
    """How the program speaks: a text or JSON on standard output, errors on standard error; and the exit code."""

    def __init__(self, *, json_wanted: bool) -> None:
        self.json, self.quiet, self.verbose = json_wanted, False, False

    def done(self, verb: str, result: dict[str, Any], render: Callable[[], str]) -> int:
        """Say what `verb` gave and return the exit code."""
        complete = {"verb": verb, "outcome": "ok", "exit_code": 0, **result}
        if self.json:
            text = _as_json(complete)
        elif self.quiet and verb not in _ANSWERS and not complete["exit_code"]:
            text = ""
        else:
            text = self._rendered(complete, render)
        return _write(sys.stdout, text) or int(complete["exit_code"])

    def _rendered(self, result: dict[str, Any], render: Callable[[], str]) -> str:
        """Return the text; a text that cannot be made must not turn work that is done into a failure."""
        from .progress import printable

        try:
            return printable(render(), keep_colours=True)
        except Exception:  # noqa: BLE001 - what was done is told as JSON
            if self.verbose:
                _write(sys.stderr, _trace())
            return _as_json(result)

    def failed(self, verb: Optional[str], error: PgopsError, context: Any = None) -> int:
        """Say why `verb` failed and return the exit code."""
        from ..core.commands import addressed
        from ..core.redaction import Redactor

        redactor = context.redactor if context is not None else Redactor()
        file = context.config_file if context is not None else ""
        message, hint = (addressed(redactor.text(text), file) for text in (error.message, error.hint))
        if self.json:
            result = {
                "verb": verb,
                "instance": context.config.instance if context is not None else None,
                "outcome": error.outcome,
                "exit_code": error.exit_code,
                "message": message,
                "hint": hint,
                "warnings": list(context.warnings) if context is not None else [],
            }
            details = getattr(error, "details", None)
            if isinstance(details, dict):
                result = {"changed": False, **redactor.data(details), **result}
            _write(sys.stdout, _as_json(result))
        else:
            _complain(_as_lines(message, hint))
        if self.verbose:
            _complain(redactor.text(_trace()))
        return error.exit_code

    def unexpected(self, verb: str, error: Exception, context: Any) -> int:
        """Say that `verb` failed in a way that nobody foresaw and return the exit code."""
        if isinstance(error, OSError) and error.strerror:
            text = "%s: %s." % (error.filename, error.strerror) if error.filename else "%s." % error.strerror
        else:
            text = "Something went wrong that should not: %s: %s" % (type(error).__name__, error)
        return self.failed(
            verb, PgopsError(text, hint="" if self.verbose else "Run again with --verbose to see where."), context
        )


# With --quiet these still answer: their text is what they were asked for.
_ANSWERS = frozenset({"status", "info", "metrics", "checklist", "config", "completion", "version"})


def _as_json(result: dict[str, Any]) -> str:
    return json.dumps(result, default=str) + "\n"


def _as_lines(message: str, hint: str) -> str:
    from .progress import printable

    lines: list[str] = ["pgops: %s" % printable(message)]
    if hint:
        lines.append("  → %s" % printable(hint).replace("\n", "\n    "))
    return "\n".join(lines) + "\n"


def _trace() -> str:
    import traceback

    trace = traceback.format_exc()
    return "" if trace.startswith("NoneType") else trace


def _complain(text: str) -> None:
    """Write an error for people, so that the journal knows it for one."""
    from .journal import ERROR, is_journal, levelled

    _write(sys.stderr, levelled(text, ERROR) if is_journal(sys.stderr, os.environ) else text)


def _write(stream: TextIO, text: str) -> int:
    """Write `text`; return 1 if it could not be written, 0 also when the reader has gone (`pgops info | head`)."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _forget(stream)
    except OSError as error:
        _forget(stream)
        if stream is not sys.stderr:
            _complain("pgops: The result could not be written: %s.\n" % error.strerror)
        return 1
    return 0


def _forget(stream: TextIO) -> None:
    """Keep the interpreter from flushing to a dead reader once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


__all__ = ("main",)
