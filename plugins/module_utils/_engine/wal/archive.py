# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Archive: one WAL file of a server into the local spool, whole, checked and durable. PostgreSQL's archive_command."""

from __future__ import annotations

import os

from ..core.errors import PgopsError, UsageError
from ..core.segments import HISTORY, SEGMENT, kind
from .origin import check_segment, known_identifier
from .pack import LARGEST_KEPT, borrowed, holds, pack, part_holds, parts, returned
from .spool import Handed, Packed, is_held_by, read_into, side_by_side, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .brief import Brief
    from .pack import Part
    from .spool import Last, Proof


def archive(
    brief: Brief,
    path: str,
    *,
    system_identifier: str = "",
    directory: str = "",
    proven: set[Proof] | None = None,
    last: Last | None = None,
) -> bool:
    """Store the WAL file `path` (as %p says it, from the data directory); return False if it was archived already.

    `directory` is the one that PostgreSQL calls from, where that is not the process's own. What stored files a process that stays
    has proven already is in `proven`: as long as such a file is untouched it is not unpacked again. `last` is the segment that it
    archived last: one with the same bytes has the same hash.
    When it returns, the file is durable. Raise RefusedError for a file of another cluster, or when other content was archived under
    its name; PgopsError for everything else that keeps it from being durable.
    """
    name = os.path.basename(path)
    if not kind(name):
        raise UsageError("%s is no WAL file." % path, hint="archive_command must pass %p: pgops wal archive %p.")
    # %p is relative to the data directory; a path from the root has it two levels up.
    directory = directory or os.getcwd()
    data_directory = os.path.dirname(os.path.dirname(os.path.abspath(path))) if os.path.isabs(path) else directory
    source = os.path.join(directory, path)
    identifier = known_identifier(system_identifier, data_directory)
    rooms: list[bytearray] = []
    try:
        try:
            # What was archived a moment ago is compared, all else is packed first.
            again = any(one[0].startswith(name + "-") for one in list(proven or ()))
            held = last.take() if again and last is not None else None
            handed = _read(source, rooms, held, hashing=again)
        except OSError as error:
            raise PgopsError("%s cannot be read: %s." % (path, error.strerror)) from error
        content = handed.content
        check_segment(name, content, identifier)

        # Which timelines there are must be known also where no private key is: a history holds LSNs, and names of restore points.
        recipients = () if kind(name) == HISTORY else brief.recipients

        def wrap() -> Packed:
            if recipients:
                blob, suffix = pack(content, brief.compression, brief.level)
                # Only who has the private key could open it.
                return Packed([memoryview(_encrypted(blob, recipients))], suffix + ".age", [])
            works, suffix = parts(content, brief.compression, brief.level, rooms)
            made = side_by_side(works)
            return Packed([part[0] for part in made], suffix, [proof_of(part) for part in made])

        def proof_of(part: Part) -> Callable[[], bool]:
            # What comes out is compared as a whole, so no hash is needed.
            return lambda: part_holds(part, content)

        def prove(blob: bytes, stored: str) -> bool | None:
            return None if stored.endswith(".age") else holds(blob, content)

        fresh = store(brief.home, identifier, name, handed, wrap, prove, proven=proven)
        if last is not None and kind(name) == SEGMENT and len(content) <= LARGEST_KEPT:
            last.keep(rooms.pop(0), handed.digest)
        return fresh
    finally:
        for room in rooms:
            returned(room)


def _read(source: str, rooms: list[bytearray], held: tuple[bytearray, str] | None, *, hashing: bool) -> Handed:
    """Read the file into memory, the first of `rooms` then; where it is what is `held`, that is it. Raise OSError."""
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(handle)
        if held is not None:
            if facts.st_size == len(held[0]) and is_held_by(handle, [memoryview(held[0])]):
                rooms.append(held[0])
                return Handed(held[0], facts.st_mtime_ns, held[1])
            returned(held[0])
        content = borrowed(facts.st_size)
        rooms.append(content)
        return Handed(content, facts.st_mtime_ns, read_into(handle, content, hashing=hashing))
    finally:
        os.close(handle)


def _encrypted(blob: bytes, recipients: tuple[str, ...]) -> bytes:
    from ..system.codec import wrap
    from ..system.runner import Runner

    runner, output = Runner(), list[bytes]()
    runner.pipe(wrap(runner, ["age"], level=None, recipients=recipients), source=[blob], sink=output.append)
    return b"".join(output)


__all__ = ("archive",)
