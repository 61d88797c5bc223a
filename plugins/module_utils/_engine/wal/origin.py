# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which cluster a WAL file is of: what pg_control of the data directory says, and what the segment says itself."""

from __future__ import annotations

import os
import sys

from ..core.errors import PgopsError, RefusedError, UsageError
from ..core.segments import PARTIAL, SEGMENT, is_size, is_system_identifier, kind, number_of, start_of

_LONG_HEADER = 0x0002
# The upper half of the magic number of each page; the lower half counts versions of PostgreSQL (0xD118 is 18).
_MAGIC = range(0xD0, 0xE0)


def system_identifier_of(data_directory: str) -> str:
    """Return the system identifier of the cluster in `data_directory`. Raise UsageError if there is none."""
    path = os.path.join(data_directory, "global", "pg_control")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(8)
    except OSError as error:
        raise UsageError(
            "%s cannot be read: %s." % (path, error.strerror),
            hint="Let PostgreSQL call this (it does so in its data directory), or give --system-identifier.",
        ) from error
    # A cluster lies in the byte order of its machine.
    identifier = str(int.from_bytes(raw, sys.byteorder))
    if len(raw) < 8 or not is_system_identifier(identifier):
        raise UsageError("%s is no control file of PostgreSQL." % path)
    return identifier


def known_identifier(given: str, data_directory: str) -> str:
    """Return the system identifier of the cluster in `data_directory`, or the `given` one where there is no such directory.

    Raise RefusedError if the two differ, UsageError if neither tells.
    """
    if given and not is_system_identifier(given):
        raise UsageError("%r is no system identifier." % given, hint="pg_controldata shows it: a number of 19 digits.")
    if given and not os.path.exists(os.path.join(data_directory, "global", "pg_control")):
        return given
    found = system_identifier_of(data_directory)
    if given and given != found:
        raise RefusedError(
            "The server here has the system identifier %s, not %s." % (found, given),
            hint="This is another cluster (a new one after pg_upgrade or initdb?). If it is the right one, correct "
            "--system-identifier.",
        )
    return found


def check_segment(name: str, content: bytes | bytearray, system_identifier: str) -> None:
    """Raise PgopsError unless `content` can be the segment `name` of that cluster; other WAL files tell nothing of it."""
    if kind(name) not in (SEGMENT, PARTIAL):
        return
    size = len(content)
    if not is_size(size):
        raise PgopsError(
            "%s has %d bytes; a WAL segment has a power of two of them, 1 MiB at least." % (name, size),
            hint="It is cut or still being written; it is archived when PostgreSQL asks for it again.",
        )
    magic, flags = (int.from_bytes(content[at : at + 2], sys.byteorder) for at in (0, 2))
    owner = str(int.from_bytes(content[24:32], sys.byteorder))
    stated = int.from_bytes(content[32:36], sys.byteorder)
    if magic >> 8 not in _MAGIC or not flags & _LONG_HEADER or stated != size:
        raise PgopsError("%s does not begin as a WAL segment of %d bytes does." % (name, size))
    if owner != system_identifier:
        raise RefusedError(
            "%s is of the cluster %s, and this server is %s." % (name, owner, system_identifier),
            hint="A file of another cluster lies in pg_wal; find out who put it there.",
        )
    at = int.from_bytes(content[8:16], sys.byteorder)
    if at != start_of(number_of(name, size), size):
        raise PgopsError(
            "%s holds WAL of another position than its name says." % name, hint="It was renamed or altered by hand."
        )


__all__ = ("check_segment", "known_identifier", "system_identifier_of")
