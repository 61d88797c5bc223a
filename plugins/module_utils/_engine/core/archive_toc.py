# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The table of contents of an archive in the directory format, changed such that pg_restore freezes the rows it loads. Pure.

A parallel pg_restore empties each table that it has made in the transaction that fills it, so that `FREEZE` is allowed
(https://www.postgresql.org/docs/current/sql-copy.html); it has no option to ask for it.
"""

from __future__ import annotations

import re

# A string is a sign (0), its length in four bytes, the least first, and its bytes. The command is a string of its own.
_COPY = re.compile(rb"\0(....)(?=COPY )", re.DOTALL)
_TAIL = b" FROM stdin;\n"
_FROZEN = b" FROM stdin WITH (FREEZE);\n"
# major, minor, revision; bytes of a number; bytes of an offset; the format, in which a directory says that it is a tar (3).
_HEAD = re.compile(rb"PGDMP\x01[\x0c-\x10].\x04\x08\x03", re.DOTALL)


def frozen(toc: bytes) -> bytes:
    """Return the content of `toc.dat` with `FREEZE` in each COPY command; unchanged where its layout is not known."""
    if not _HEAD.match(toc):
        return toc
    parts, at = [], 0
    for found in _COPY.finditer(toc):
        end = found.end() + int.from_bytes(found[1], "little")
        command = toc[found.end() : end]
        if found.start() < at or end > len(toc) or b"\0" in command or not command.endswith(_TAIL):
            continue
        command = command[: -len(_TAIL)] + _FROZEN
        parts += [toc[at : found.start()], b"\0", len(command).to_bytes(4, "little"), command]
        at = end
    return b"".join([*parts, toc[at:]])


__all__ = ("frozen",)
