# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What on a host still archives WAL, or copies it, by a configuration of ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# Where servers have their settings, Patroni those of its servers, and systemd the services that copy.
FILES = (
    "/var/lib/postgresql/*/*/postgresql*.conf",
    "/var/lib/pgsql/data/postgresql*.conf",
    "/var/lib/pgsql/*/data/postgresql*.conf",
    "/etc/postgresql/*/*/*.conf",
    "/etc/postgresql/*/*/conf.d/*.conf",
    "/etc/patroni/*.y*ml",
    "/etc/systemd/system/pgops_wal_ship@*.service",
)
_COMMAND = r"^\s*['\"]?(?:archive_command['\"]?\s*[=:]?.* wal archive|ExecStart=.* wal ship) .*%s(?=['\"\s]|$)"


def archives_by(configuration: Path, patterns: Sequence[str] = FILES) -> list[Path]:
    """Return the files of this host by which WAL is archived, or copied to S3, as `configuration` says."""
    command = re.compile(_COMMAND % re.escape(str(configuration)), re.MULTILINE)
    return [path for path in _files(patterns) if command.search(_text(path))]


def _files(patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):  # gone meanwhile, or a directory
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


__all__ = ("FILES", "archives_by")
