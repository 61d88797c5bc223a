# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""One call of the program: its options, its configuration, its context, and what a verb answers."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable

from ..core.errors import UsageError
from .parser import CONFIG_VARIABLE, DEFAULT_CONFIG

Result = dict[str, Any]

# These leave a record of their run. The others only look: recorded, a monitoring that asks each minute would push the
# records of the nights out of the history.
RECORDED = frozenset({"backup", "sync", "verify", "restore", "recover", "rescue", "prune", "probe", "pin", "unpin"})


@dataclass
class Answer:
    """What a verb gave: the JSON result, and how to say the same to people."""

    result: Result
    render: Callable[[], str]


class Run:
    """One call of the program: its options, who is told, and, once the configuration is read, the context."""

    def __init__(self, options: argparse.Namespace, reporter: Any) -> None:
        self.options, self.reporter = options, reporter
        self.colour = False
        self.config_file, self.program = "", "pgops"
        self.context: Any = None

    @property
    def dry_run(self) -> bool:
        """Whether only to show what would be done."""
        return bool(getattr(self.options, "dry_run", False))

    @property
    def wait(self) -> timedelta:
        """How long to wait for other runs."""
        return getattr(self.options, "wait", None) or timedelta(0)

    def new_context(self) -> Any:
        """Return a fresh context of the same configuration."""
        return self._context(self.context.config, self.context.host)

    def begin(self) -> None:
        """Read the configuration, become the account that the work is for, and make the context. Raise UsageError."""
        config = load_config(self.options)
        # Before anything changes where we are.
        self.config_file, self.program = os.path.abspath(config_path(self.options)), program_path(sys.argv[0])
        if not self.options.as_root:
            from ..system.account import become_owner

            name = become_owner(config)
            if name:
                self.reporter.note(
                    "warning: running as %s, who owns %s (--as-root stays root)" % (name, config.local.path)
                )
        self.context = self._context(config, host_name())

    def _context(self, config: Any, host: str) -> Any:
        from ..context import Context

        return Context(
            config,
            host,
            reporter=self.reporter,
            wait=self.wait,
            config_file=self.config_file,
            program=self.program,
        )

    def perform(self, work: Callable[[Any], Result], *, recorded: bool = False) -> Result:
        """Do `work` with the context, recorded where it is to be or the verb is one that leaves a record."""
        from ..runs import perform

        recorded = (recorded or self.options.verb in RECORDED) and not self.dry_run
        result = perform(self.context, self.options.verb, work, dry_run=not recorded)
        result["dry_run"] = self.dry_run
        return result


def program_path(called: str) -> str:
    """Return the path from the root of the program that was `called`, or its name where it is no script of ours."""
    path = os.path.abspath(called)
    try:
        with open(path, "rb") as stream:
            content = stream.read(4096)
    except OSError:
        return "pgops"
    ours = content.startswith(b"#!") and re.search(rb"\bpgops\b", content) and os.access(path, os.X_OK)
    return path if ours else "pgops"


def host_name() -> str:
    """Return the name of this host."""
    return os.uname().nodename


# --- configuration ----------------------------------------------------------------------------------------------------


def config_path(options: argparse.Namespace) -> Path:
    """Return the configuration file that the options or the environment name."""
    return Path(options.config or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def load_config(options: argparse.Namespace) -> Any:
    """Return the checked configuration with what the options lay over it. Raise UsageError."""
    from .. import config

    path = config_path(options)
    data = config.merge(config.read(path), overrides(options))
    source = "%s with what the options lay over it" % path if options.overrides else str(path)
    return config.build(data, environ=os.environ, host=host_name(), source=source)


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Return what --set and --identity-file say, shaped like the configuration. Raise UsageError."""
    from ..config import merge

    found: dict[str, Any] = {}
    for item in options.overrides:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(
                "--set %s is not KEY=VALUE." % item,
                hint="Write it like --set backup.jobs=2. A backup is named without --set: pgops recover SET.",
            )
        value = _value(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        _refuse_secret(key, value)
        found = merge(found, value)
    if getattr(options, "identity_file", None):
        found = merge(found, {"restore": {"identity_file": os.path.abspath(options.identity_file)}})
    return found


def each_once(pairs: Iterable[tuple[str, str]], twice: str) -> dict[str, str]:
    """Return the (name, value) `pairs` of an option. Raise UsageError, in the words `twice`, where one name has two values."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise UsageError(twice % name)
    return found


def _value(text: str) -> Any:
    """Return what `text` means as JSON or YAML; what is neither (or no JSON type, such as a date) means itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        return text
    try:
        value = yaml.safe_load(text)
        json.dumps(value)
    except (yaml.YAMLError, TypeError, ValueError):
        return text
    return text if value is None else value


def _refuse_secret(key: str, value: Mapping[str, Any]) -> None:
    """Every account of the host can read the arguments of a program."""
    from ..masking import holds_secret

    if holds_secret(value):
        raise UsageError(
            "--set %s would show a secret to every account on this host." % key,
            hint="Name a file (mode 0600) that holds it: login_password_file, database_url_file, credentials_file.",
        )


__all__ = ("RECORDED", "Answer", "Result", "Run", "config_path", "each_once", "host_name", "load_config", "overrides")
