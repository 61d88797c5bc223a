# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From the options of the command line to the engine's verbs. Each verb is imported when it is asked for."""

from __future__ import annotations

import json
import sys
from typing import Any, Callable

from .. import __version__
from ..core.errors import UsageError
from ..settings import Config
from . import show
from .invocation import Answer, Result, Run, config_path, load_config

# --- verbs ------------------------------------------------------------------------------------------------------------


def _backup(run: Run) -> Answer:
    from ..verbs import backup, catch_up

    options = run.options
    request = backup.Request(run.dry_run, options.kind, options.incremental, options.to)

    def work(context: Any) -> Result:
        if not run.dry_run:
            catch_up.await_after_boot(context)
        return backup.backup(context, request)

    result = run.perform(work)
    to_copy = run.context.config.s3 is not None and result.get("place") != "s3"
    return Answer(result, lambda: show.backup(result, has_s3=to_copy, config_file=run.config_file))


def _sync(run: Run) -> Answer:
    from ..verbs import sync

    request = sync.Request(
        direction="pull" if run.options.pull else "push", sets=tuple(run.options.sets), dry_run=run.dry_run
    )
    result = run.perform(lambda context: sync.sync(context, request))
    return Answer(result, lambda: show.sync(result, config_file=run.config_file))


def _verify(run: Run) -> Answer:
    from ..verbs import verify

    request = verify.Request(
        place=run.options.place,
        sets=tuple(run.options.sets) or ("latest",),
        level=run.options.level,
        dry_run=run.dry_run,
    )
    result = run.perform(lambda context: verify.verify(context, request))
    return Answer(result, lambda: show.verify(result, config_file=run.config_file))


def _restore(run: Run) -> Answer:
    if run.options.list:
        run.options.verb, run.options.details = "info", False
        run.options.place = [] if run.options.place == "auto" else [run.options.place]
        return _info(run)
    from . import asking

    return asking.restore(run)


def _recover(run: Run) -> Answer:
    from . import recovery

    return recovery.recover(run)


def _rescue(run: Run) -> Answer:
    from . import recovery

    return recovery.rescue(run)


def _prune(run: Run) -> Answer:
    from ..verbs import prune

    request = prune.Request(places=tuple(run.options.place), clusters=tuple(run.options.cluster), dry_run=run.dry_run)
    result = run.perform(lambda context: prune.prune(context, request))
    return Answer(result, lambda: show.prune(result, config_file=run.config_file))


def _status(run: Run) -> Answer:
    from ..verbs import status

    result = run.perform(status.status)
    return Answer(result, lambda: status.render(result, run.colour, config_file=run.config_file))


def _metrics(run: Run) -> Answer:
    from ..verbs import metrics

    result = run.perform(lambda context: metrics.metrics(context, write=run.options.write))
    said = "Wrote %s.\n" % result["path"] if run.options.write else result["metrics"]
    return Answer(result, lambda: str(said))


def _checklist(run: Run) -> Answer:
    from ..core.checklist_text import markdown, text
    from ..verbs import checklist

    options = run.options
    if options.what == "sign":
        if not options.line or not options.name:
            raise UsageError(
                "Which line is signed, and by whom?", hint="pgops checklist sign before.people --name 'Ada Lovelace'"
            )
        signed = run.perform(
            lambda context: checklist.sign(context, options.line, options.name, options.note, dry_run=run.dry_run),
            recorded=True,
        )
        told = (signed["signature"]["line"], signed["signature"]["name"])
        return Answer(signed, lambda: "%s %s: %s.\n" % ("Would sign" if run.dry_run else "Signed", *told))
    if options.line or options.name or options.note or run.dry_run:
        raise UsageError("A line, --name, --note and --dry-run belong to 'pgops checklist sign'.")
    stages = [options.what] if options.what else []
    path = str(config_path(options))
    result = run.perform(lambda context: checklist.checklist(context, stages, config_path=path))
    return Answer(result, lambda: markdown(result) if options.markdown else text(result, config_file=run.config_file))


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


def _alert(run: Run) -> Answer:
    from ..core.errors import UsageError
    from ..verbs import alert

    options = run.options
    if options.action != "send" and (options.words or options.key or options.once):
        raise UsageError("pgops alert %s takes no message." % options.action, hint="Only pgops alert send does.")
    if options.action == "evaluate":
        result = run.perform(lambda context: alert.evaluate(context, dry_run=run.dry_run))
        return Answer(result, lambda: show.alert_evaluate(result))
    if options.action == "test":
        result = run.perform(lambda context: alert.test(context, dry_run=run.dry_run), recorded=True)
        return Answer(result, lambda: show.alert_channels(result))
    if len(options.words) < 2:
        raise UsageError(
            "What shall be told? Give a level and a text.", hint="Like: pgops alert send warning 'The disk is full'."
        )
    wanted = alert.Message(options.words[0], " ".join(options.words[1:]), options.key, run.dry_run, options.once)
    result = run.perform(lambda context: alert.send(context, wanted))
    return Answer(result, lambda: show.alert_channels(result))


def _wal(run: Run) -> Answer:
    options = run.options
    if options.action in ("archive", "fetch"):
        # They have a way of their own (start.py), which takes none of the options that led here.
        raise UsageError(
            "pgops wal %s takes only PostgreSQL's own words and a few options." % options.action,
            hint="Begin with the words: pgops wal %s …" % options.action,
        )
    if options.words:
        raise UsageError("pgops wal %s takes no words." % options.action, hint="'pgops wal --help' shows it.")
    if options.action == "status":
        from ..verbs import wal_status

        status = run.perform(wal_status.wal_status)
        return Answer(status, lambda: wal_status.render(status))
    from ..verbs import wal_ship

    request = wal_ship.Request(loop=options.loop, dry_run=run.dry_run)
    shipped = run.perform(lambda context: wal_ship.ship(context, request))
    return Answer(shipped, lambda: wal_ship.render(shipped))


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
        "alerts": loaded.alerts.channels(),
    }
    if options.show:
        from ..masking import masked

        shown = masked(loaded)
        return Answer({**facts, "config": shown}, lambda: json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    if loaded.alerts.channels():
        _check_channels(loaded)
    if loaded.checklist.files:
        from ..config import read_lines

        read_lines(loaded)
    said = "%s is in order: instance %s, places %s%s.\n" % (
        facts["path"],
        loaded.instance,
        ", ".join(facts["places"]),
        ", alerts to %s" % ", ".join(facts["alerts"]) if facts["alerts"] else "",
    )
    return Answer(facts, lambda: said)


def _check_channels(loaded: Config) -> None:
    """Raise UsageError for a secret that cannot be read, or a package that lacks: backups go on, but nobody would hear."""
    from ..alerts.channels import trouble_with_channels
    from ..core.errors import UsageError
    from ..system.runner import Runner

    errors = trouble_with_channels(loaded, Runner())
    if errors:
        raise UsageError(
            "The channels for alerts are not in order:\n%s" % "\n".join("  - %s" % error for error in errors),
            hint="Backups go on, but nobody hears by these channels.",
        )


def _completion(run: Run) -> Answer:
    from .completion import script

    text = script(run.options.shell)
    return Answer({"changed": False, "shell": run.options.shell, "script": text}, lambda: text)


def _version(run: Run) -> Answer:
    from ..identity import digest, own_files

    del run
    python, whole = "%d.%d.%d" % sys.version_info[:3], digest(own_files())
    text = "pgops %s (%s, Python %s)\n" % (__version__, whole[:12], python)
    return Answer({"changed": False, "version": __version__, "digest": whole, "python": python}, lambda: text)


_WITHOUT_CONTEXT: dict[str, Callable[[Run], Answer]] = {
    "config": _config,
    "completion": _completion,
    "version": _version,
}


def _catch_up(run: Run) -> Answer:
    from .catching import catch_up

    return catch_up(run, call)


_WITH_CONTEXT: dict[str, Callable[[Run], Answer]] = {
    "backup": _backup,
    "sync": _sync,
    "verify": _verify,
    "restore": _restore,
    "recover": _recover,
    "rescue": _rescue,
    "prune": _prune,
    "catch-up": _catch_up,
    "status": _status,
    "metrics": _metrics,
    "checklist": _checklist,
    "info": _info,
    "probe": _probe,
    "pin": _pin,
    "unpin": _unpin,
    "alert": _alert,
    "wal": _wal,
}


def call(run: Run) -> Answer:
    """Do what the options of `run` ask for. Raise what the verb raises."""
    verb = run.options.verb
    if verb in _WITHOUT_CONTEXT:
        return _WITHOUT_CONTEXT[verb](run)
    run.begin()
    return _WITH_CONTEXT[verb](run)


__all__ = ("call",)
