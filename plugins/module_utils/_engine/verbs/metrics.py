# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Metrics: what status says as numbers for Prometheus, and the file from which node_exporter takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import __version__
from ..context import Context
from ..core.errors import PgopsError, UsageError
from ..core.metrics import render
from ..system.durable import publish as publish_file
from .status import status


def metrics(context: Context, *, write: bool = False) -> dict[str, Any]:
    """Return the `metrics` as text and `path`, the file that holds them where they are written after each run (else None).

    With `write` that file is written now. Raise UsageError if there is none, PgopsError if it cannot be written.
    """
    directory = context.config.metrics.textfile_directory
    path = path_of(context) if directory else None
    if write and path is None:
        raise UsageError(
            "The configuration names no directory for metrics.",
            hint="Set metrics.textfile_directory to node_exporter's.",
        )
    text = render(status(context), __version__)
    if write and path is not None:
        _write(path, text)
    return {"changed": write, "metrics": text, "path": str(path) if path else None}


def publish(context: Context) -> None:
    """Write the metrics to their file. Raise PgopsError if that cannot be done."""
    metrics(context, write=True)


def publish_quietly(context: Context) -> None:
    """Write the metrics where that is wanted. That they cannot be written is a warning, whatever it is: the work is done."""
    if not context.config.metrics.textfile_directory:
        return
    try:
        publish(context)
    except Exception as error:  # noqa: BLE001 - as said
        context.warn("The metrics could not be written: %s." % str(error).rstrip("."))


def path_of(context: Context) -> Path:
    """Return the file of this instance in the directory that the configuration names."""
    return Path(context.config.metrics.textfile_directory) / ("pgops-%s.prom" % context.config.instance)


def _write(path: Path, text: str) -> None:
    try:
        publish_file(path, text.encode("utf-8"))
    except OSError as error:
        raise PgopsError(
            "%s: %s." % (path, error.strerror),
            hint="The account of the backups must be able to write there; the role monitoring sees to it.",
        ) from error


__all__ = ("metrics", "path_of", "publish", "publish_quietly")
