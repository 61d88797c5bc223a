# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Archive: one WAL file of a server into the local spool, whole, checked and durable. PostgreSQL's archive_command."""

from __future__ import annotations

import os

from ..core.errors import PgopsError, UsageError
from ..core.segments import kind
from .origin import check_segment, known_identifier
from .pack import holds, pack
from .spool import read_file, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .brief import Brief
    from .spool import Proof


def archive(
    brief: Brief, path: str, *, system_identifier: str = "", directory: str = "", proven: set[Proof] | None = None
) -> bool:
    """Store the WAL file `path` (as %p says it, from the data directory); return False if it was archived already.

    `directory` is the one that PostgreSQL calls from, where that is not the process's own. What stored files a process that stays
    has proven already is in `proven`: as long as such a file is untouched it is not unpacked again.
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
    try:
        written_ns = os.stat(source).st_mtime_ns
        content = read_file(source)
    except OSError as error:
        raise PgopsError("%s cannot be read: %s." % (path, error.strerror)) from error
    check_segment(name, content, identifier)

    def wrap(raw: bytes) -> tuple[bytes, str]:
        blob, suffix = pack(raw, brief.compression, brief.level)
        return (_encrypted(blob, brief.recipients), suffix + ".age") if brief.recipients else (blob, suffix)

    def prove(blob: bytes, stored: str) -> bool | None:
        # Only who has the private key could open an encrypted one. What comes out is compared as a whole, so no hash is needed.
        return None if stored.endswith(".age") else holds(blob, content)

    return store(brief.home, identifier, name, content, wrap, prove, written_ns=written_ns, proven=proven)


def _encrypted(blob: bytes, recipients: tuple[str, ...]) -> bytes:
    from ..system.codec import wrap
    from ..system.runner import Runner

    runner, output = Runner(), list[bytes]()
    runner.pipe(wrap(runner, ["age"], level=None, recipients=recipients), source=[blob], sink=output.append)
    return b"".join(output)


__all__ = ("archive",)
