# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The records that runs leave, whatever their outcome, and the logs of the verbs. Status, metrics and alerts read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from . import __version__
from .context import Context
from .core.errors import PgopsError
from .core.json_text import to_json
from .core.times import iso, ordered, parse_iso
from .system.durable import adopt, make_dirs, write_bytes

FORMAT = 1
# What the runs of the verb backup that make base backups are called beside the verbs.
BASE_BACKUP = "base backup"
_KEPT = 2000
_WORTH_TELLING = 1.0  # seconds of waiting for other runs
# What a verb found in detail is in manifests and evidence; a run record says how it went.
_LEFT_TO_THE_RESULT = frozenset({"plan", "sets", "databases", "catalog", "findings", "places", "commands"})

Result = dict[str, Any]


def write_record(context: Context, result: Result, failure: Optional[BaseException]) -> None:
    """Record a run that gave `result` or ended with `failure`, and add it to the log of its verb. It never fails."""
    record = {key: value for key, value in result.items() if key not in _LEFT_TO_THE_RESULT}
    if context.waited >= _WORTH_TELLING:
        record["waited_seconds"] = round(context.waited, 3)
    record.update(format=FORMAT, host=context.host, engine=__version__, pid=os.getpid(), **outcome_of(failure))
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


def outcome_of(failure: Optional[BaseException]) -> dict[str, Any]:
    """Return the `outcome`, `exit_code` and `reason` of a run that ended with `failure`, or well."""
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


__all__ = ("BASE_BACKUP", "FORMAT", "Result", "append_log", "first_run", "history", "outcome_of", "write_record")
