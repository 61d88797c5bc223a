# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The manual page, made from the options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .. import __version__
from .options import ALIASES, VERBS, build
from .parser import CONFIG_VARIABLE, DEFAULT_CONFIG

_FILES = (
    (DEFAULT_CONFIG, "The configuration, unless --config or %s names another." % CONFIG_VARIABLE),
    ("/backups/postgres", "The backups (local.path)."),
    ("/var/lib/pgops", "Run records and locks (state_dir)."),
    ("/var/log/backups", "One log per verb (log_dir)."),
)


def page() -> str:
    """Return the manual page pgops(1) in the language of man."""
    parser = build()
    about, _unused, codes = (parser.epilog or "").partition("exit codes:\n")
    codes, _unused, examples = codes.partition("\n\nexamples:\n")
    del about
    lines = [
        '.TH PGOPS 1 "" "pgops %s" "PostgreSQL backups"' % __version__,
        ".SH NAME",
        "pgops \\- %s" % _text((parser.description or "").rstrip(".")),
        ".SH SYNOPSIS",
        ".B pgops",
        "[\\fIOPTION\\fR]... \\fIVERB\\fR [\\fIARGUMENT\\fR]...",
        ".SH DESCRIPTION",
        _text(parser.description or ""),
        "The options of every verb stand before or after it.",
        ".SH OPTIONS",
        *_arguments(parser.arguments()),
        ".SH VERBS",
    ]
    everywhere = {flag for action in parser.arguments() for flag in action.option_strings}
    for name, summary, _add, shown in VERBS:
        own = [
            a
            for a in parser.verbs[name].arguments()
            if not (a.option_strings and everywhere.issuperset(a.option_strings))
        ]
        lines += [".SS pgops %s" % name, _text(summary[:1].upper() + summary[1:] + ".")]
        aliases = ["pgops %s" % alias for alias, of in ALIASES.items() if of == name]
        lines += ["Also called \\fB%s\\fR." % _text(aliases[0])] if aliases else []
        lines += [*_arguments(own), *_literally(shown)]
    lines += [".SH EXIT STATUS"]
    for line in codes.split("\n"):
        code, _unused, meaning = line.strip().partition("  ")
        lines += [".TP", ".B %s" % code, _text(meaning)]
    lines += [".SH FILES"]
    for path, meaning in _FILES:
        lines += [".TP", ".I %s" % _text(path), _text(meaning)]
    lines += [".SH EXAMPLES", *_literally(examples.partition("\n\n")[0])]
    return "\n".join(lines) + "\n"


def _arguments(actions: list[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        value = action.metavar or ("" if action.nargs == 0 else "|".join(map(str, action.choices or ())))
        shown = " ".join(value) if isinstance(value, tuple) else value
        names = ", ".join("\\fB%s\\fR" % _text(flag) for flag in action.option_strings)
        if not names:
            many = "..." if action.nargs == "*" else ""
            names, shown = "\\fI%s\\fR%s" % (_text(shown or action.dest), many), ""
        yield ".TP"
        yield names + (" \\fI%s\\fR" % _text(shown) if shown else "")
        yield _text((action.help or "") % {"prog": "pgops", "default": action.default})


def _literally(text: str) -> list[str]:
    """Return `text` as it stands, line for line."""
    lines = [_text(line.strip()) for line in text.split("\n")]
    return [".PP", ".nf", ".RS", *lines, ".RE", ".fi"]


def _text(text: str) -> str:
    """Return `text` so that nothing in it is a command of man."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\\&" + text if text.startswith(".") else text


__all__ = ("page",)
