# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The table of contents of an archive in the directory format, changed such that pg_restore freezes the rows it loads. Pure.

A parallel pg_restore empties each table that it has made in the transaction that fills it, so that `FREEZE` is allowed
(https://www.postgresql.org/docs/current/sql-copy.html); it has no option to ask for it. What goes through the root of a
partitioned table, as pg_dump has it for partitions by the hash of an enum, it does not empty, and nothing can freeze.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .row_script import copied_table

# A string is a sign (0), its length in four bytes, the least first, and its bytes. The command is a string of its own.
_COPY = re.compile(rb"\0(....)(?=COPY )", re.DOTALL)
_TAIL = b" FROM stdin;\n"
_FROZEN = b" FROM stdin WITH (FREEZE);\n"
_KIND = b"TABLE DATA"
# major, minor, revision; bytes of a number; bytes of an offset; the format, in which a directory says that it is a tar (3).
_HEAD = re.compile(rb"PGDMP\x01[\x0c-\x10].\x04\x08\x03", re.DOTALL)


def frozen(toc: bytes) -> bytes:
    """Return the content of `toc.dat` with `FREEZE` in each COPY command; unchanged where its layout is not known."""
    if not _HEAD.match(toc):
        return toc
    parts, at = [], 0
    for start, end, command in _commands(toc):
        if _fills_its_own(toc, at, start, end, command):
            parts += [toc[at:start], _string(command[: -len(_TAIL)] + _FROZEN)]
            at = end
    return b"".join([*parts, toc[at:]])


def all_frozen(toc: bytes) -> bool:
    """Tell whether each COPY command of what frozen() gave has `FREEZE`."""
    return not any(True for _command in _commands(toc))


def _commands(toc: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each string that is a COPY command without `FREEZE` begins and ends, and the command."""
    at = 0
    for found in _COPY.finditer(toc):
        end = found.end() + int.from_bytes(found[1], "little")
        command = toc[found.end() : end]
        if found.start() >= at and end <= len(toc) and b"\0" not in command and command.endswith(_TAIL):
            yield found.start(), end, command
            at = end


def _fills_its_own(toc: bytes, after: int, start: int, end: int, command: bytes) -> bool:
    """Tell whether the command fills the table that its entry is about: the name comes before it, the schema behind."""
    kind = toc.rfind(_string(_KIND), after, start)
    schema, name = copied_table(command.rstrip())
    return kind >= 0 and toc.endswith(_string(name), 0, kind) and (not schema or toc.startswith(_string(schema), end))


def _string(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "little") + text


__all__ = ("all_frozen", "frozen")
