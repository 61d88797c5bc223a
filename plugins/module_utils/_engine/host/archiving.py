# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What on a host still archives its WAL with pgops, by what files say: clusters need not run for that."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from ..config import DEFAULT_PATH
from ..core.errors import RefusedError

# Debian's configurations are not with the data.
SETTINGS = Path("/etc/postgresql")
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
_COMMAND = re.compile(r"^\s*archive_command\s*(?:=|\s)\s*'((?:[^'\\]|''|\\.)*)'", re.MULTILINE | re.IGNORECASE)
_MODE = re.compile(r"^\s*archive_mode\s*(?:=|\s)\s*'?(\w+)", re.MULTILINE | re.IGNORECASE)
_OFF = ("off", "false", "no", "0")
_BY_CONFIGURATION = r"^\s*['\"]?(?:archive_command['\"]?\s*[=:]?.* wal archive|ExecStart=.* wal ship) .*%s(?=['\"\s]|$)"


def check(
    clusters: Sequence[Mapping[str, Any]],
    program: str,
    ports: Sequence[int],
    is_laid_down: Callable[[Path], bool],
    settings: Path = SETTINGS,
) -> list[str]:
    """Raise RefusedError for clusters that archive with `program`, and whose port is none of `ports`, of those that are to.

    With its configuration gone, the command fails, and the server keeps its WAL until the disk is full; with one that says
    nothing of an archive, nobody looks at what is archived, nor removes it. One that is there and that `is_laid_down` does
    not know, whoever wrote it sees to. Return what to tell of those that would only begin to archive one day.
    """
    alone = []
    remarks = []
    for each in clusters:
        found = _set_in(each, program, is_laid_down, settings) if each["port"] not in ports else None
        if found is None:
            continue
        path, mode = found
        called = "cluster %s/%s on port %d" % (each["version"], each["name"], each["port"])
        if _archives_now(str(each["status"]), mode):
            alone.append("%s (%s)" % (called, path))
        else:
            remarks.append(
                "No instance with wal.enabled has the port of %s (%s, %s), which would archive its WAL with pgops once it is started, or "
                "promoted: before that, take archive_command out of that file. If the cluster is of no use any more, drop it."
                % (called, each["status"], path)
            )
    if alone:
        raise RefusedError(
            "No instance with wal.enabled has the port of %s, which archives its WAL with pgops still: that would fail from now "
            "on, and fill the disk, or go on without anybody who looks at it." % " and of ".join(alone),
            hint="Give the instance back what it had, or end its archiving first: apply the role wal_archive with "
            "wal_archive_state: absent, and with wal_archive_instances that has the instance alone (its README shows how). "
            "Nothing was touched.",
        )
    return remarks


def _archives_now(status: str, mode: str) -> bool:
    """Tell it by what pg_lsclusters says: `online` or `down`, and more behind a comma, as `recovery`."""
    words = status.split(",")
    return words[0] == "online" and ("recovery" not in words or mode.lower() == "always")


def archives_by(configuration: Path, patterns: Sequence[str] = FILES) -> list[Path]:
    """Return the files of this host by which WAL is archived, or copied to S3, as `configuration` says."""
    command = re.compile(_BY_CONFIGURATION % re.escape(str(configuration)), re.MULTILINE)
    return [path for path in _matching(patterns) if command.search(_text(path))]


def _matching(patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):  # gone meanwhile, or a directory
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _set_in(
    cluster: Mapping[str, Any], program: str, is_laid_down: Callable[[Path], bool], settings: Path
) -> Optional[tuple[Path, str]]:
    """Return the file by which a cluster archives with `program`, and its archive_mode; None where it does not."""
    texts = {path: _text(path) for path in _files(cluster, settings)}
    path, command = _in_force(_COMMAND, texts)
    _path, mode = _in_force(_MODE, texts)
    if path is None or mode.lower() in _OFF or not _is_ours(command, program):
        return None
    named = _configuration_of(command)
    return None if named.exists() and not is_laid_down(named) else (path, mode)


def _in_force(setting: re.Pattern[str], texts: Mapping[Path, str]) -> tuple[Optional[Path], str]:
    """Return what a setting is, and where: the last one of a file counts, and what ALTER SYSTEM wrote before all others."""
    for path, text in texts.items():
        said = setting.findall(text)
        if said:
            return path, said[-1]
    return None, ""


def _configuration_of(command: str) -> Path:
    try:
        words = shlex.split(command.replace("''", "'"))
    except ValueError:
        words = []
    return Path(words[words.index("--config") + 1] if "--config" in words[:-1] else DEFAULT_PATH)


def _files(cluster: Mapping[str, Any], settings: Path) -> Iterator[Path]:
    data = Path(cluster["data_directory"])
    yield data / "postgresql.auto.conf"
    debian = settings / cluster["version"] / cluster["name"]
    # With the data may lie what came there by a recovery, and is not read.
    for folder in (debian,) if (debian / "postgresql.conf").exists() else (debian, data):
        yield from sorted(folder.glob("conf.d/*.conf"), reverse=True)
        yield folder / "postgresql.conf"


def _is_ours(command: str, program: str) -> bool:
    pattern = r"(?:%s|[^' ]*/pgops)(?:-wal)?'* wal archive " % re.escape(program)
    return re.match("'*" + pattern, command) is not None


__all__ = ("FILES", "SETTINGS", "archives_by", "check")
