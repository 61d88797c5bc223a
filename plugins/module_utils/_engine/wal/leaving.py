# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""When a call of PostgreSQL leaves a process behind that answers the next ones (stay.py): when they follow each other."""

from __future__ import annotations

import os
import sys
import time

from .brief import socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# So soon after one another calls must come.
BUSY_SECONDS = 10.0
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def leave_behind(config_path: str, environment: Mapping[str, str]) -> bool:
    """Start the process that stays, with this environment, and return whether that was due. Raise OSError."""
    path = socket_path(config_path)
    if not path or os.path.basename(_PACKAGE) != "pgops":
        return False
    called = path[: -len("sock")] + "called"
    try:
        before = time.time() - os.stat(called).st_mtime
    except FileNotFoundError:
        before = BUSY_SECONDS
    os.close(os.open(called, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    os.utime(called)
    if not 0 <= before < BUSY_SECONDS:
        return False
    from pathlib import Path

    from ..system.lock import holder
    from ..system.runner import START, detach

    found = holder(Path(path[: -len("sock")] + "lock"))
    if found is not None and found.alive:
        return False  # it is there, though it did not answer this call
    words = ("wal", "stay", os.path.abspath(config_path))
    detach([sys.executable, "-I", "-c", START, os.path.dirname(_PACKAGE), *words], environment)
    return True


__all__ = ("BUSY_SECONDS", "leave_behind")
