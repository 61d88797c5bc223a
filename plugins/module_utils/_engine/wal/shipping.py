# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How the newest shipping of WAL to S3 went, as it said itself: `wal ship` keeps it, status and the alerts read it."""

from __future__ import annotations

import json
from typing import Any

from ..context import Context
from ..core.json_text import to_json
from ..system.durable import make_dirs, write_bytes

_NAME = "wal-ship.json"


def last_state(context: Context) -> dict[str, Any]:
    """Return how the newest shipping went; empty if there was none."""
    try:
        found = json.loads((context.state / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def keep_state(context: Context, state: dict[str, Any]) -> None:
    """Keep how a shipping went. Raise OSError if that cannot be."""
    make_dirs(context.state)
    write_bytes(context.state / _NAME, to_json(context.redactor.data(state)))


__all__ = ("keep_state", "last_state")
