# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Run records: every execution of a verb leaves one, whatever its outcome. Status, metrics and alerts read them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from . import __version__
from .context import Context
from .core.errors import DISK_FULL, PgopsError
from .core.times import iso, ordered, parse_iso
from .system.durable import adopt, make_dirs, to_json, write_bytes

FORMAT = 1
# What the runs of the verb backup that make base backups are called beside the verbs.
BASE_BACKUP = "base backup"
_KEPT = 2000
_WORTH_TELLING = 1.0  # seconds of waiting for other runs
# What a verb found in detail is in manifests and evidence; a run record says how it went.
_LEFT_TO_THE_RESULT = frozenset({"plan", "sets", "databases", "catalog", "findings", "places", "commands"})

Result = dict[str, Any]


def perform(context: Context, verb: str, work: Callable[[Context], Result], *, dry_run: bool = False) -> Result:
    """Do `work`, record the run, and return its result with the keys that every verb has.

    These are `verb`, `instance`, `changed`, `dry_run`, `begun`, `ended` (ISO 8601, UTC), `seconds` and `warnings`.
    A dry run touches nothing and so leaves no record. What `work` raises is recorded and raised again; the `details` of a
    PgopsError are completed to the same shape.
    """
    watch = None if dry_run else _watch(context, verb)
    started, tick = context.clock(), time.monotonic()
    urgent = None if watch is None else _urgent(context, verb)
    if not dry_run:
        context.alarm = lambda text: _tell_now(context, verb, text, urgent)
    result: Result = {}
    failure: Optional[BaseException] = None
    try:
        result = work(context)
    except BaseException as error:
        failure = _told(error)
        result = getattr(failure, "details", {})
        if failure is not error:
            raise failure from error
        raise
    finally:
        result = {
            "verb": verb,
            "instance": context.config.instance,
            "changed": False,
            **result,
            "dry_run": dry_run,
            "begun": iso(started),
            "ended": iso(context.clock()),
            "seconds": round(time.monotonic() - tick, 3),
            "warnings": list(context.warnings),
        }
        context.alarm = None
        if not dry_run:
            _record(context, result, failure)
        if urgent is not None:
            urgent.over()
            result["warnings"] = list(context.warnings)
        if watch is not None:
            _alert(context, watch, result, failure)
        elif not dry_run:
            _remember(context, result)
        if not dry_run:
            # Last, so that they tell whether the alerts were taken.
            _publish(context, result)
        if isinstance(failure, PgopsError):
            failure.details = context.redactor.data(result)
    return context.redactor.data(result)  # type: ignore[no-any-return]


def _watch(context: Context, verb: str) -> Any:
    """Tell who watches from outside that a run begins; None where nobody is to be told anything."""
    if not context.config.alerts.channels():
        return None
    from .verbs.alert_runs import before_run  # it reads run records, so it imports this file

    return before_run(context, verb)


def _urgent(context: Context, verb: str) -> Any:
    """Return what tells people of something while a run lasts."""
    from .verbs.alert_runs import Urgent  # it reads run records, so it imports this file

    return Urgent(context, verb)


def _tell_now(context: Context, verb: str, text: str, urgent: Any) -> None:
    """Write to the log of the verb what cannot wait for the end of the run, and let people hear of it. It never fails."""
    line = "%s %s warning: %s" % (iso(context.clock()), context.config.instance, " ".join(text.split()))
    if context.config.log_dir:
        # What the log does not take, the record tells at the end.
        with contextlib.suppress(OSError):
            append_log(Path(context.config.log_dir) / ("%s.log" % verb), [line])
    if urgent is not None:
        urgent.tell(text)


def _alert(context: Context, watch: Any, result: Result, failure: Optional[BaseException]) -> None:
    """Let people hear of what they must hear of; the run's own outcome stands, whatever comes of that."""
    from .verbs.alert_runs import after_run

    after_run(context, watch, context.redactor.data({**result, **_outcome(failure)}))
    result["warnings"] = list(context.warnings)


def _remember(context: Context, result: Result) -> None:
    """Where nobody is to be told anything, keep what status compares with later."""
    from .verbs.alert_runs import remember  # it reads run records, so it imports this file

    remember(context)
    result["warnings"] = list(context.warnings)


def _told(error: BaseException) -> BaseException:
    """Return `error`, or a sentence with a next step where a disk is full: that can happen wherever something is written."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    where = " (%s)" % error.filename if error.filename else ""
    return PgopsError("A disk is full: %s%s." % (error.strerror, where), hint=DISK_FULL)


def _record(context: Context, result: Result, failure: Optional[BaseException]) -> None:
    record = {key: value for key, value in result.items() if key not in _LEFT_TO_THE_RESULT}
    if context.waited >= _WORTH_TELLING:
        record["waited_seconds"] = round(context.waited, 3)
    record.update(format=FORMAT, host=context.host, engine=__version__, pid=os.getpid(), **_outcome(failure))
    record = context.redactor.data(record)
    name = "%s-%s-%d.json" % (ordered(context.clock()), result["verb"], os.getpid())
    try:
        folder = context.state / "runs"
        make_dirs(folder)
        write_bytes(folder / name, to_json(record))
        _log(context, record)
        _forget_old(folder)
    except OSError as error:
        # The work's own outcome counts for more than its record, but the loss is not silent.
        context.warn("This run could not be recorded: %s." % error)
        result["warnings"] = list(context.warnings)


def _publish(context: Context, result: Result) -> None:
    """Write the numbers of the host anew, where that is wanted. That they cannot be written does not fail the run."""
    if not context.config.metrics.textfile_directory:
        return
    from .verbs.metrics import publish_quietly  # it reads the records of the runs

    publish_quietly(context)
    result["warnings"] = list(context.warnings)


def _outcome(failure: Optional[BaseException]) -> dict[str, Any]:
    if failure is None:
        return {"outcome": "ok", "exit_code": 0, "reason": ""}
    if isinstance(failure, PgopsError):
        return {"outcome": failure.outcome, "exit_code": failure.exit_code, "reason": str(failure)}
    if isinstance(failure, KeyboardInterrupt):
        return {"outcome": "interrupted", "exit_code": 1, "reason": "The run was interrupted."}
    return {"outcome": "failed", "exit_code": 1, "reason": "%s: %s" % (type(failure).__name__, failure)}


def _log(context: Context, record: dict[str, Any]) -> None:
    """Add one line to the log of the verb: /var/log/backups/backup.log and its like."""
    if not context.config.log_dir:
        return
    path = Path(context.config.log_dir) / ("%s.log" % record["verb"])
    reason = " ".join(str(record["reason"]).split())
    waited = ", %.1f s of them waiting for other runs" % record["waited_seconds"] if "waited_seconds" in record else ""
    line = "%s %s %s %s in %.1f s%s%s" % (
        record["ended"],
        record["instance"],
        record["verb"],
        record["outcome"],
        record["seconds"],
        waited,
        ": " + reason if reason else "",
    )
    append_log(
        path,
        [line]
        + [
            "%s %s warning: %s" % (record["ended"], record["instance"], " ".join(w.split())) for w in record["warnings"]
        ],
    )


def append_log(path: Path, lines: list[str]) -> None:
    """Add `lines` to the log `path`. Raise OSError if that cannot be."""
    make_dirs(path.parent)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    with os.fdopen(handle, "a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write("\n".join(lines) + "\n")
    adopt(path)


def _forget_old(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir() if p.suffix == ".json")
    for name in names[:-_KEPT]:
        (folder / name).unlink(missing_ok=True)


def history(state: Path, verb: str = "") -> Iterator[dict[str, Any]]:
    """Yield the run records of the instance with the directory `state`, the newest first; all verbs unless one is named.

    Of the verb backup, those of dumps; those of base backups are BASE_BACKUP, as neither takes the place of the other.
    """
    wanted = "backup" if verb == BASE_BACKUP else verb
    folder = state / "runs"
    names: list[str] = sorted((p.name for p in folder.iterdir()), reverse=True) if folder.is_dir() else []
    for name in names:
        if name.endswith(".json") and not name.startswith(".") and (not wanted or "-%s-" % wanted in name):
            try:
                record = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if wanted != "backup" or _of_base(record) == (verb == BASE_BACKUP):
                yield record


def first_run(state: Path) -> Optional[str]:
    """Return when the oldest run that is still recorded began, None where none is. It reads one record."""
    folder = state / "runs"
    for name in sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []:
        if name.endswith(".json") and not name.startswith("."):
            try:
                begun = json.loads((folder / name).read_text(encoding="utf-8"))["begun"]
                return iso(parse_iso(begun))
            except (OSError, ValueError, KeyError, TypeError, PgopsError):
                continue
    return None


def _of_base(record: Any) -> bool:
    return isinstance(record, dict) and record.get("kind") in ("base", "incremental")


__all__ = ("BASE_BACKUP", "FORMAT", "Result", "append_log", "first_run", "history", "perform")
