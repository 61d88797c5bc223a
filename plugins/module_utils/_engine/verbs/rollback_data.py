# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb rollback for a whole server: the data directory that a recovery in place replaced gets its place back."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.errors import MissingError, RefusedError, UsageError
from ..core.naming import is_plain_path
from ..core.times import compact
from ..postgres.debian import cluster_of
from ..postgres.recovering import is_served
from ..postgres.unproven import kept_of
from ..postgres.wal_directory import outside
from ..system.durable import sync_dir
from ..wal.origin import system_identifier_of

_ASIDE = re.compile(r"\.(?:before|rolled-back)-[0-9]{8}T[0-9]{6}Z(?:-[0-9]{1,3})?")


@dataclass(frozen=True)
class Request:
    """Which data directory gets back what was there before; `kept` names it where it is not the newest that was kept."""

    data_directory: str
    kept: str = ""
    dry_run: bool = False


def rollback_data(context: Context, request: Request) -> dict[str, Any]:
    """Exchange the data directory for the kept one; what the recovery made is kept beside it. The server stays stopped.

    Where a run was killed between its two renames there is none to exchange it for: the kept one just gets its name.

    Result: `data_directory`, `kept` (what has its name again), `aside` (what the other is called now, empty where there was
    none), `service` (that of systemd which runs it, empty where none is known), `served` (whether a server still runs there,
    which only a dry run bears). Raise UsageError, MissingError or RefusedError before anything is renamed.
    """
    data = Path(request.data_directory)
    for path in (request.data_directory, *([request.kept] if request.kept else [])):
        if not is_plain_path(path):
            raise UsageError("A data directory must be a path from the root without .., and %r is none." % path)
    with context.lock("restore", dry_run=request.dry_run):
        kept = _kept_of(data, request.kept)
        cluster = cluster_of(data)
        service = cluster.service if cluster else ""
        served = is_served(data) or is_served(kept)
        if served and not request.dry_run:
            raise RefusedError(
                "A server runs on %s." % data,
                hint="Stop it first%s." % (": systemctl stop %s" % service if service else ""),
            )
        for link in (path for path in (data, kept) if path.is_symlink()):
            raise RefusedError(
                "%s is a symbolic link, and renaming it would move no data." % link,
                hint="Name the directory itself: %s." % os.path.realpath(link),
            )
        if os.path.ismount(data) or not os.access(data.parent, os.W_OK):
            raise RefusedError("%s cannot be renamed: it is a mount point, or its folder is not ours." % data)
        aside = _free(data, "rolled-back-%s" % compact(context.clock())) if data.exists() else None
        if not request.dry_run:
            _exchange(data, kept, aside)
        if aside is not None and not request.dry_run:
            wal = outside(aside)
            with_wal = ", and %s, where its WAL lies" % wal if wal else ""
            context.warn(
                "What was %s is kept as %s; remove it when nobody needs it any more%s." % (data, aside, with_wal)
            )
    return {
        "changed": True,
        "data_directory": str(data),
        "kept": str(kept),
        "aside": str(aside) if aside is not None else "",
        "service": service,
        "served": served,
    }


def _kept_of(data: Path, named: str) -> Path:
    """Return the data directory that gets its place back. Raise MissingError if there is none."""
    if os.path.lexists(data) and not (data / "PG_VERSION").is_file():
        raise MissingError("%s is no data directory." % data, hint="Look what it is, and move it away.")
    found = [Path(named)] if named else kept_of(data)
    candidates = [path for path in found if (path / "PG_VERSION").is_file() and path.parent == data.parent]
    if named and candidates and not _is_of(data, candidates[0]):
        raise RefusedError(
            "%s was not kept of %s, and is of another cluster." % (named, data),
            hint="A recovery in place keeps one under a name like %s.before-20261122T093000Z." % data.name,
        )
    if not candidates:
        raise MissingError(
            "There is no data directory%s."
            % (" %s beside %s" % (named, data) if named else " that was kept of %s" % data),
            hint="Only a recovery in place keeps one, under a name like main.before-20261122T093000Z.",
        )
    return candidates[-1]


def _is_of(data: Path, kept: Path) -> bool:
    """Tell whether `kept` has a name that we gave to what was `data`, or is of the same cluster."""
    if kept.name.startswith(data.name) and _ASIDE.fullmatch(kept.name[len(data.name) :]):
        return True
    try:
        return system_identifier_of(str(data)) == system_identifier_of(str(kept))
    except UsageError:
        return False


def _free(data: Path, word: str) -> Path:
    """Return a name beside `data` that nothing has."""
    names = (data.with_name("%s.%s%s" % (data.name, word, more)) for more in ("", *("-%d" % n for n in range(2, 1000))))
    return next(path for path in names if not path.exists())


def _exchange(data: Path, kept: Path, aside: Optional[Path]) -> None:
    if aside is not None:
        data.rename(aside)
    try:
        kept.rename(data)
    except BaseException:
        if aside is not None:
            aside.rename(data)
        raise
    sync_dir(data.parent)


__all__ = ("Request", "rollback_data")
