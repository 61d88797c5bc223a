# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From the options of the command line to the engine's verbs. Each verb is imported when it is asked for."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .. import __version__
from ..core.errors import UsageError
from . import show
from .options import CONFIG_VARIABLE, DEFAULT_CONFIG

Result = dict[str, Any]

# These leave a record of their run. The others only look: recorded, a monitoring that asks each minute would push the
# records of the nights out of the history.
RECORDED = frozenset({"backup", "sync", "verify", "restore", "prune", "probe", "pin", "unpin"})


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
        self.context: Any = None

    @property
    def dry_run(self) -> bool:
        """Whether only to show what would be done."""
        return bool(getattr(self.options, "dry_run", False))

    def new_context(self) -> Any:
        """Return a fresh context of the same configuration."""
        from ..context import Context

        return Context(self.context.config, self.context.host, reporter=self.reporter)

    def begin(self) -> None:
        """Read the configuration, become the account that the work is for, and make the context. Raise UsageError."""
        from ..context import Context

        config = load_config(self.options)
        if not self.options.as_root:
            from ..system.account import become_owner

            name = become_owner(config)
            if name:
                self.reporter.note(
                    "warning: running as %s, who owns %s (--as-root stays root)" % (name, config.local.path)
                )
        self.context = Context(config, host_name(), reporter=self.reporter)

    def perform(self, work: Callable[[Any], Result]) -> Result:
        """Do `work` with the context, recorded where the verb is one that leaves a record."""
        from ..runs import perform

        recorded = self.options.verb in RECORDED and not self.dry_run
        result = perform(self.context, self.options.verb, work, dry_run=not recorded)
        result["dry_run"] = self.dry_run
        return result


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
            raise UsageError("--set %s is not KEY=VALUE." % item, hint="Write it like --set backup.jobs=2.")
        value = _value(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        _refuse_secret(key, value)
        found = merge(found, value)
    if getattr(options, "identity_file", None):
        found = merge(found, {"restore": {"identity_file": os.path.abspath(options.identity_file)}})
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
    from .masking import holds_secret

    if holds_secret(value):
        raise UsageError(
            "--set %s would show a secret to every account on this host." % key,
            hint="Name a file (mode 0600) that holds it: login_password_file, database_url_file, credentials_file.",
        )


# --- verbs ------------------------------------------------------------------------------------------------------------


def _backup(run: Run) -> Answer:
    from ..verbs import backup

    request = backup.Request(dry_run=run.dry_run)
    result = run.perform(lambda context: backup.backup(context, request))
    return Answer(result, lambda: show.backup(result, has_s3=run.context.config.s3 is not None))


def _sync(run: Run) -> Answer:
    from ..verbs import sync

    request = sync.Request(
        direction="pull" if run.options.pull else "push", sets=tuple(run.options.sets), dry_run=run.dry_run
    )
    result = run.perform(lambda context: sync.sync(context, request))
    return Answer(result, lambda: show.sync(result))


def _verify(run: Run) -> Answer:
    from ..verbs import verify

    request = verify.Request(
        place=run.options.place,
        sets=tuple(run.options.sets) or ("latest",),
        level=run.options.level,
        dry_run=run.dry_run,
    )
    result = run.perform(lambda context: verify.verify(context, request))
    return Answer(result, lambda: show.verify(result))


def _restore(run: Run) -> Answer:
    if run.options.list:
        run.options.verb, run.options.details = "info", False
        run.options.place = [] if run.options.place == "auto" else [run.options.place]
        return _info(run)
    from . import asking

    return asking.restore(run)


def _prune(run: Run) -> Answer:
    from ..verbs import prune

    request = prune.Request(places=tuple(run.options.place), dry_run=run.dry_run)
    result = run.perform(lambda context: prune.prune(context, request))
    return Answer(result, lambda: show.prune(result))


def _status(run: Run) -> Answer:
    from ..verbs import status

    result = run.perform(status.status)
    return Answer(result, lambda: status.render(result, run.colour))


def _info(run: Run) -> Answer:
    from ..verbs import info

    request = info.Request(places=tuple(run.options.place), details=run.options.details)
    result = run.perform(lambda context: info.info(context, request))
    return Answer(result, lambda: show.info(result, colour=run.colour))


def _probe(run: Run) -> Answer:
    from ..verbs import probe

    result = run.perform(probe.probe)
    if not result["ok"]:
        result.update(outcome="failed", exit_code=1)
    return Answer(result, lambda: show.probe(result, colour=run.colour))


def _pin(run: Run) -> Answer:
    from ..verbs import pins

    options = run.options
    result = run.perform(
        lambda context: pins.pin(context, options.place, options.set_id, options.reason, dry_run=run.dry_run)
    )
    return Answer(result, lambda: show.pin(result))


def _unpin(run: Run) -> Answer:
    from ..verbs import pins

    options = run.options
    result = run.perform(lambda context: pins.unpin(context, options.place, options.set_id, dry_run=run.dry_run))
    return Answer(result, lambda: show.unpin(result))


# --- verbs that need no server and no context -------------------------------------------------------------------------


def _config(run: Run) -> Answer:
    options = run.options
    if options.example:
        from ..reference import example

        text = example()
        return Answer({"changed": False, "example": text}, lambda: text)
    loaded = load_config(options)
    facts = {
        "changed": False,
        "instance": loaded.instance,
        "path": str(config_path(options)),
        "places": ["local", "s3"] if loaded.s3 is not None else ["local"],
    }
    if options.show:
        from .masking import masked

        shown = masked(loaded)
        return Answer({**facts, "config": shown}, lambda: json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    said = "%s is in order: instance %s, places %s.\n" % (
        facts["path"],
        loaded.instance,
        ", ".join(facts["places"]),
    )
    return Answer(facts, lambda: said)


def _completion(run: Run) -> Answer:
    from .completion import script

    text = script(run.options.shell)
    return Answer({"changed": False, "shell": run.options.shell, "script": text}, lambda: text)


def _version(run: Run) -> Answer:
    del run
    python = "%d.%d.%d" % sys.version_info[:3]
    text = "pgops %s (Python %s)\n" % (__version__, python)
    return Answer({"changed": False, "version": __version__, "python": python}, lambda: text)


_WITHOUT_CONTEXT: dict[str, Callable[[Run], Answer]] = {
    "config": _config,
    "completion": _completion,
    "version": _version,
}
_WITH_CONTEXT: dict[str, Callable[[Run], Answer]] = {
    "backup": _backup,
    "sync": _sync,
    "verify": _verify,
    "restore": _restore,
    "prune": _prune,
    "status": _status,
    "info": _info,
    "probe": _probe,
    "pin": _pin,
    "unpin": _unpin,
}


def call(run: Run) -> Answer:
    """Do what the options of `run` ask for. Raise what the verb raises."""
    verb = run.options.verb
    if verb in _WITHOUT_CONTEXT:
        return _WITHOUT_CONTEXT[verb](run)
    run.begin()
    return _WITH_CONTEXT[verb](run)


__all__ = ("RECORDED", "Answer", "Result", "Run", "call", "config_path", "host_name", "load_config", "overrides")
