# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From the tars of a base backup to a data directory: unpacked by tar, held against PostgreSQL's list, tablespaces in new places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..context import Context
from ..core.base_list import NAME
from ..core.errors import CommandError, DamagedError, UnreachableError
from ..core.manifest import Base, Payload
from ..source import Source
from ..system.durable import create_private
from ..system.runner import Command
from .throwaway import give
from .tools import Programs

_TABLESPACE_MAP = "tablespace_map"
# What pg_control remembers of the server, and a server that replays its WAL must not go below.
_LEAST = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}


def unpack(source: Source, base: Base, data: Path, account: str, locations: Mapping[str, Path]) -> None:
    """Unpack the base backup into the new directory `data`, and each tablespace (by its number) into its new `locations`.

    The directories belong to `account` if there is one. Raise DamagedError, CommandError, UsageError (no key) or
    UnreachableError (no tar); what was unpacked stays then.
    """
    _extract(source, base.payload, data, account)
    for tablespace in base.tablespaces:
        place = locations[tablespace.oid]
        _extract(source, tablespace.payload, place, account)
        (data / "pg_tblspc" / tablespace.oid).symlink_to(place)
    if base.listing is not None:
        with create_private(data / NAME) as stream:
            stream.write(source.content_of(base.listing))
        give(account, data / NAME)


def _extract(source: Source, payload: Payload, folder: Path, account: str) -> None:
    context = source.context
    tar = context.runner.find("tar")
    if tar is None:
        raise UnreachableError("The program tar is not installed.", hint="Install the package tar.")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    give(account, folder)
    context.reporter.phase("unpacking %s" % payload.path, source.size(payload))
    command = Command((tar, "--extract", "--file=-", "--directory=%s" % folder, "--no-same-owner"), user=account)
    for _nothing in source.script(payload, command):
        pass
    context.reporter.done()


def verify_unpacked(context: Context, programs: Programs, data: Path, account: str) -> None:
    """Have pg_verifybackup hold the data directory against PostgreSQL's list, and read the WAL.

    Raise DamagedError with what differs, UnreachableError if it does not run here at all.
    """
    tool = programs.path("pg_verifybackup")
    if (
        not programs.has("pg_verifybackup")
        or context.runner.run(Command((tool, "--version"), user=account), check=False).returncode
    ):
        raise UnreachableError("pg_verifybackup %s does not run here." % programs.version, hint="Reinstall it.")
    options = () if programs.has("pg_waldump") else ("--no-parse-wal",)
    command = Command((tool, "--quiet", *options, str(data)), user=account)
    try:
        context.runner.run(command)
    except CommandError as error:
        if error.returncode < 0:  # killed: no verdict
            raise UnreachableError(error.message, hint="Look for memory and limits of the account.") from None
        said = "; ".join(re.sub("^pg_verifybackup: error: ", "", line) for line in error.stderr.splitlines()[:5])
        raise DamagedError("pg_verifybackup: %s" % (said or error.message)) from None


def write_tablespace_map(base: Base, data: Path, account: str, locations: Mapping[str, Path]) -> None:
    """Let the server that starts on `data` find the tablespaces in `locations`: it makes its links from this file."""
    if not base.tablespaces:
        return
    path = data / _TABLESPACE_MAP
    lines = ["%s %s\n" % (t.oid, re.sub(r"([\\\r\n])", r"\\\1", str(locations[t.oid]))) for t in base.tablespaces]
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    give(account, path)


def least_settings(context: Context, programs: Programs, data: Path, account: str) -> dict[str, str]:
    """Return the settings below which the server of `data` would not replay its WAL."""
    shown = context.runner.run(Command((programs.path("pg_controldata"), str(data)), user=account)).stdout
    found: dict[str, str] = {}
    for line in shown.decode("utf-8", "replace").splitlines():
        name, _unused, value = line.partition(":")
        if name in _LEAST:
            found[_LEAST[name]] = value.strip()
    return found


__all__ = ("least_settings", "unpack", "verify_unpacked", "write_tablespace_map")
