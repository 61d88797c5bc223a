# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Checklist: gather the evidence that ticks the lines, and keep the signatures of people for what only they can tell."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from ..config import read_lines
from ..context import Context
from ..core.checklist import check_name, judge, line_of
from ..core.checklist_proofs import Facts
from ..core.errors import PgopsError
from ..core.json_text import to_json
from ..core.times import iso
from ..run_records import history
from ..settings import Alerts
from ..system.durable import make_dirs, write_bytes
from .bucket import look
from .metrics import path_of
from .status import status

FORMAT = 1
# node_exporter's option, and what Debian's has it read where nobody says otherwise.
_TEXTFILE = "--collector.textfile.directory"
_USUAL = "/var/lib/prometheus/node-exporter"
# A run of each verb in each hour of a quarter is more than the history holds.
_MANY = 2000


def checklist(context: Context, stages: Sequence[str] = (), *, config_path: str = "") -> dict[str, Any]:
    """Return what core.checklist.judge() says of this instance, with `instance`, `host` and `now`. It changes nothing.

    `config_path` is the configuration's own file, if there is one, whose mode is among the evidence. Raise UsageError that
    lists every error of the lines that the configuration adds.
    """
    own = read_lines(context.config)
    known = status(context)
    bucket, error = _bucket(context)
    config = context.config
    metrics_file = path_of(context) if config.metrics.textfile_directory else None
    facts = Facts(
        now=context.clock(),
        status=known,
        runs=list(itertools.islice(history(context.state), _MANY)),
        files=_files(context, config_path),
        bucket=bucket,
        bucket_error=error,
        encryption=config.backup.encryption,
        store_encryption=config.s3.sse if config.s3 is not None else "",
        metrics_file=str(metrics_file) if metrics_file else "",
        metrics_written=_facts_of(metrics_file)[1] if metrics_file else None,
        metrics_read=_exported(config.metrics.textfile_directory) if metrics_file else None,
        asked=_facts_of(context.asked)[1],
        config_path=config_path,
        config_file=context.config_file,
        signed=signatures(context),
    )
    head = {"changed": False, "instance": config.instance, "host": context.host, "now": iso(facts.now)}
    return {**head, **judge(facts, stages, own=own)}


def sign(context: Context, line_id: str, name: str, note: str = "", *, dry_run: bool = False) -> dict[str, Any]:
    """Keep that `name` ticks the line `line_id` now, and return the signature. Earlier ones stay.

    Raise UsageError for a line that nobody can sign or a name that is none.
    """
    line = line_of(line_id, read_lines(context.config))
    signature = {
        "line": line.id,
        "text": line.text,
        "name": check_name(name),
        "note": " ".join(note.split())[:500],
        "when": iso(context.clock()),
        "host": context.host,
    }
    if not dry_run:
        with context.lock("checklist"):
            make_dirs(context.state)
            kept = [*signatures(context), signature]
            write_bytes(_path(context), to_json({"format": FORMAT, "signed": kept}))
    return {"changed": True, "signature": signature}


def signatures(context: Context) -> list[dict[str, Any]]:
    """Return what people have signed, the oldest first. Raise PgopsError if it cannot be understood."""
    path = _path(context)
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))["signed"]
        return [{key: str(entry[key]) for key in ("line", "text", "name", "note", "when", "host")} for entry in signed]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PgopsError(
            "The signatures in %s cannot be read: %s." % (path, error),
            hint="Restore that file, or move it away and sign anew.",
        ) from error


def _path(context: Context) -> Path:
    return context.state / "checklist.json"


def _bucket(context: Context) -> tuple[Optional[dict[str, Any]], str]:
    """Return the bucket's settings (None without a bucket), and why they cannot be read."""
    if context.config.s3 is None:
        return None, ""
    try:
        return look(context) or None, ""
    except PgopsError as error:
        return None, str(error)


def _files(context: Context, config_path: str) -> list[dict[str, Any]]:
    """Return mode and age of every file that holds a secret, and of the directories of backups and records."""
    config = context.config
    named: Iterable[str] = (
        config_path,
        config.postgres.database_url_file,
        config.postgres.login_password_file,
        config.postgres.ssl_key,
        config.s3.credentials_file if config.s3 is not None else "",
        config.restore.identity_file,
        *_alert_secrets(config.alerts),
    )
    wanted = [("secret", path) for path in named if path]
    wanted += [("directory", str(context.local.home)), ("directory", str(context.state))]
    found = []
    for kind, path in wanted:
        mode, modified = _facts_of(Path(path))
        found.append({"path": path, "kind": kind, "mode": mode, "modified": modified})
    return found


def _alert_secrets(alerts: Alerts) -> Iterator[str]:
    """Yield the path of every file that holds a secret of a channel."""
    for section in dataclasses.fields(alerts):
        held = getattr(alerts, section.name)
        if dataclasses.is_dataclass(held):
            names = (field.name for field in dataclasses.fields(held))
            yield from (str(getattr(held, name)) for name in names if name.endswith("_file"))


def _exported(directory: str, processes: Path = Path("/proc")) -> Optional[bool]:
    """Tell whether a node_exporter runs here that reads `directory`; None where the processes of others cannot be seen."""
    found = False
    for entry in processes.glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        found = True
        if "node" in words[0] and words[0].endswith("exporter"):
            named = [word.partition("=")[2] or after for word, after in zip(words, words[1:]) if _TEXTFILE in word]
            if any(os.path.normpath(name) == os.path.normpath(directory) for name in named or [_USUAL]):
                return True
    return False if found and (processes / "1" / "cmdline").exists() else None


def _facts_of(path: Path) -> tuple[Optional[int], Optional[datetime]]:
    try:
        facts = os.stat(path)
    except OSError:
        return None, None
    return stat.S_IMODE(facts.st_mode), datetime.fromtimestamp(facts.st_mtime, timezone.utc)


__all__ = ("checklist", "sign", "signatures")
