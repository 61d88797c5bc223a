# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How loud a line is where the journal of systemd takes it: `journalctl -p err` and `-p warning` find what they should."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

# As in syslog.
ERROR, WARNING, INFO = 3, 4, 6


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether the journal reads `stream`: systemd names the one that it does, which children with pipes of ours inherit, too."""
    named = environ.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == "%d:%d" % (found.st_dev, found.st_ino)


def levelled(text: str, level: int) -> str:
    """Return `text` with the level before each line, as the journal wants it: a line is an entry."""
    return "".join("<%d>%s" % (level, line) for line in text.splitlines(keepends=True))


__all__ = ("ERROR", "INFO", "WARNING", "is_journal", "levelled")
