# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What the process that stays (stay.py) says of itself, to whoever looks how the archive fares."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, Optional

from ..system.lock import holder
from .brief import socket_path
from .calls import ABOUT, PROTOCOL

_ANSWER_SECONDS = 2.0
_LONGEST_ANSWER = 1 << 16
_COUNTS = ("calls", "proven", "recoveries", "ahead")


def staying(config_path: str, home: Path) -> Optional[dict[str, Any]]:
    """Return who answers PostgreSQL's calls with this configuration, None if nobody does; `home` belongs to the account of the server.

    `pid`, `since` (ISO 8601), `calls` that it has answered, `proven` files that it need not unpack again, `recoveries` for which it
    fetches on, and segments that are ready for them (`ahead`). The last four are None where it does not say so, as to another account.
    """
    account = _owner(home)
    path = socket_path(os.path.abspath(config_path), account)
    lock = Path(path[: -len("sock")] + "lock")
    found = holder(lock) if path else None
    if found is None or not found.alive:
        return None
    counts: dict[str, Optional[int]] = dict.fromkeys(_COUNTS)
    try:
        said = json.loads(_ask(path))
        counts = {name: int(said[name]) for name in _COUNTS}
    except (ConnectionRefusedError, FileNotFoundError):
        return None  # that number is another process by now
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError, struct.error):
        pass
    return {"pid": found.pid, "since": found.since, **counts}


def _owner(home: Path) -> int:
    for path in (home, home.parent):
        with contextlib.suppress(OSError):
            return path.stat().st_uid
    return os.geteuid()


def _ask(path: str) -> str:
    """Return what it answers. Raise OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        asking.connect(path)
        question = b"\0".join((PROTOCOL.encode(), b"", b"", ABOUT.encode()))
        asking.sendall(struct.pack("!I", len(question)) + question)
        heard, until = b"", time.monotonic() + _ANSWER_SECONDS
        while len(heard) < _LONGEST_ANSWER and time.monotonic() < until:
            more = asking.recv(4096)
            if not more:
                break
            heard = (heard + more).lstrip(b".")
    return heard[5:].decode("utf-8").split("\0")[3] if heard[:1] == b"=" else ""


__all__ = ("staying",)
