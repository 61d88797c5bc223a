# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Where the program begins. What PostgreSQL calls for each WAL segment takes a short way; all else the whole command line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = {"-h", "--help"}
_SIGNALS = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv` (those of the process when None) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    called_by_server = arguments[:1] == ["wal"] and arguments[1:2] in (["archive"], ["fetch"], ["stay"])
    if called_by_server and not _HELP & set(arguments):
        from .wal import run

        return run(arguments[1], arguments[2:])
    from .main import main as whole

    if not _fetches(arguments):
        return whole(arguments)
    # It takes the short way only, and PostgreSQL takes what is below 126 for the end of the WAL.
    try:
        code = whole(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    return 200 + code if 0 < code < _SIGNALS else code


def _fetches(arguments: Sequence[str]) -> bool:
    """Tell whether somebody calls `wal fetch` with options before these words or between them, and no help."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return "wal" in words[:2] and "fetch" in words[1:4] and not _HELP & set(arguments)


__all__ = ("main",)
