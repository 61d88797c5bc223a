# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The program pgops as a task asks for it: its options, and what the engine makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ._engine.host.program import Paths
from ._engine.host.rotation import Rotation

PROGRAM: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "lib": {"type": "path", "default": "/usr/local/lib/pgops"},
    "bin": {"type": "path", "default": "/usr/local/bin/pgops"},
    "completion": {"type": "path", "default": "/usr/share/bash-completion/completions/pgops"},
    "man": {"type": "path", "default": "/usr/local/share/man/man1/pgops.1.gz"},
    "logrotate": {"type": "path", "default": "/etc/logrotate.d/pgops"},
    "log_directories": {"type": "list", "elements": "path"},
    "log_owner": {"type": "str", "default": "postgres"},
    "log_group": {"type": "str", "default": "postgres"},
    "log_keep": {"type": "int", "default": 12},
    "python": {"type": "path", "default": "/usr/bin/python3"},
}


def parts_of(params: Mapping[str, Any]) -> tuple[Paths, Optional[Rotation]]:
    """Return where the program is to lie, and the rule for its logs, None to leave the one there as it is."""
    paths = Paths(
        lib=Path(params["lib"]),
        bin=Path(params["bin"]),
        completion=Path(params["completion"]) if params["completion"] else None,
        man=Path(params["man"]) if params["man"] else None,
        python=params["python"],
    )
    rotation = None
    if params["logrotate"] and params["log_directories"] is not None:
        rotation = Rotation(
            path=Path(params["logrotate"]),
            directories=params["log_directories"],
            owner=params["log_owner"],
            group=params["log_group"],
            keep=params["log_keep"],
        )
    return paths, rotation


__all__ = ("PROGRAM", "parts_of")
