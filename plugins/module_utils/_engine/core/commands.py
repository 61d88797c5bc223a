# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The commands that texts tell: with the configuration that they are about, and as whom to run them. Pure."""

from __future__ import annotations

import re
import shlex

DEFAULT_CONFIG = "/etc/pgops/config.yml"
# The verbs that read a configuration, as cli/options.py names them. An example is one whatever the host has.
VERBS = (
    "backup",
    "sync",
    "verify",
    "restore",
    "recover",
    "rescue",
    "prune",
    "catch-up",
    "status",
    "check",
    "metrics",
    "checklist",
    "info",
    "list",
    "probe",
    "pin",
    "unpin",
    "alert",
    "wal",
    "config",
)
# PostgreSQL calls these two, which take the option behind their words alone.
_COMMAND = re.compile(
    r"(?<![\w./-])pgops (?:(?P<called>wal (?:archive|fetch)\b)(?! --config)|(?!wal (?:archive|fetch)\b|config --example)"
    r"(?=(?:%s)\b)(?!\S+ was ))" % "|".join(VERBS)
)

# A command with what belongs to it, as far as its words can be told from those of the sentence.
_WHOLE = re.compile(
    r"(?<![\w./-])pgops(?: --config (?:'[^']*'|\S+))? (?:(?:wal|alert|checklist|config) )?[a-z-]+(?: --[a-z-]+(?: [\w/.:-]*[\w/])?(?: [A-Z][\w]*)?)*"
)


def addressed(text: str, config_file: str) -> str:
    """Return `text` with `--config` in each command of ours, so that a copy of it is about this very instance.

    Without a file, or with the one that is read anyway, it stays as it is; so does what names a configuration already.
    """
    if config_file in ("", DEFAULT_CONFIG):
        return text
    option = "--config %s" % shlex.quote(config_file)

    def named(command: re.Match[str]) -> str:
        called = command["called"]
        return "pgops %s %s" % (called, option) if called else "pgops %s " % option

    return _COMMAND.sub(named, text)


def unbroken(text: str, space: str) -> str:
    """Return `text` with `space` for each blank within a command of ours, so that nothing wraps it."""
    return _WHOLE.sub(lambda found: found[0].replace(" ", space), text)


def as_account(text: str, account: str) -> str:
    """Return `text` with the accounts that may run the command of ours in it, for who is somebody else; as it is without one."""
    if not account or not re.search(r"(?<![\w./-])pgops (?:--config|%s)\b" % "|".join(VERBS), text):
        return text
    return "%s (%s)" % (text.rstrip().rstrip("."), whom(account))


def whom(account: str) -> str:
    """Return as whom a command of ours may be run where `account` owns the backups; root becomes that account by itself."""
    return "as root" if account in ("", "root") else "as root, or with sudo -u %s" % shlex.quote(account)


__all__ = ("DEFAULT_CONFIG", "VERBS", "addressed", "as_account", "unbroken", "whom")
