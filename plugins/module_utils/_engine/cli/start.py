# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Where the program begins. What PostgreSQL calls for each WAL segment takes a short way; all else the whole command line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv` (those of the process when None) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    called_by_server = arguments[:1] == ["wal"] and arguments[1:2] in (["archive"], ["fetch"])
    if called_by_server and not {"-h", "--help"} & set(arguments):
        from .wal import run

        return run(arguments[1], arguments[2:])
    from .main import main as whole

    return whole(arguments)


__all__ = ("main",)
