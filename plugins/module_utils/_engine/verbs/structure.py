# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Verification level `structure`: archives parse to their end and hold what the manifest lists."""

from __future__ import annotations

import bisect
import re

from ..core import globals_sql
from ..core.errors import CommandError
from ..core.manifest import Database
from ..core.naming import split_qualified
from ..places.local import LocalPlace
from ..postgres.pg_restore import listing_of_stream
from ..postgres.tools import Programs
from ..source import Source
from ..system import codec
from ..system.runner import Command

_END_OF_PLAIN = b"PostgreSQL database dump complete"


def check_structure(source: Source, programs: Programs) -> list[str]:
    """Return what is wrong with the structure of the set's payloads; nothing when all is well.

    Every archive is decrypted, decompressed and parsed to its last byte. Raise DamagedError for bytes that are not what the
    manifest says.
    """
    findings: list[str] = []
    for database in source.manifest.databases:
        source.context.reporter.phase("structure of %s" % database.name, source.size(database.dump))
        try:
            if database.dump.format == "plain":
                findings += _check_plain(source, database)
            else:
                findings += _check_archive(source, database, programs)
        except CommandError as error:
            findings.append("The dump of %r cannot be read to its end: %s" % (database.name, error.message))
        source.context.reporter.done()
    if source.manifest.globals is not None:
        findings += _check_globals(source)
    return findings


def _check_archive(source: Source, database: Database, programs: Programs) -> list[str]:
    dump, runner = database.dump, source.context.runner
    read_all = (programs.path("pg_restore"), "--file=/dev/null")
    if not dump.layers and isinstance(source.place, LocalPlace):
        path = str(source.place.path("sets/%s/%s" % (source.set_id, dump.path)))
        listing = runner.run(Command((programs.path("pg_restore"), "--list", path))).stdout
        runner.run(Command((*read_all, path)))
    else:
        listing = listing_of_stream(source, dump, programs)
        unwrap = codec.unwrap(runner, dump.layers, identity_file=source.identity_file)
        file = source.manifest.files_of(dump)[0]
        runner.pipe([*unwrap, Command(read_all)], source=source.chunks(file))
    lines = sorted(_entries(listing.decode("utf-8", "surrogateescape")))
    rows = (database.fingerprint or {}).get("rows", {})
    lost = [key for key in rows if not _has_data(lines, *split_qualified(key))]
    return ["The dump of %r has no data of the table %s." % (database.name, key) for key in lost[:50]]


def _entries(listing: str) -> list[str]:
    return [
        m.group(1) for m in (re.fullmatch(r"\d+; \d+ \d+ (TABLE DATA .+)", line) for line in listing.split("\n")) if m
    ]


def _has_data(lines: list[str], schema: str, table: str) -> bool:
    wanted = ("TABLE DATA %s %s " % (schema, table)).replace("\n", " ").replace("\r", " ")
    position = bisect.bisect_left(lines, wanted)
    return position < len(lines) and lines[position].startswith(wanted)


def _check_plain(source: Source, database: Database) -> list[str]:
    tail = b""
    for chunk in source.plain(database.dump):
        tail = (tail + chunk)[-1024:]
    return [] if _END_OF_PLAIN in tail else ["The dump of %r breaks off: its last line is missing." % database.name]


def _check_globals(source: Source) -> list[str]:
    if source.manifest.globals is None:
        return []
    try:
        script = source.content_of(source.manifest.globals).decode("utf-8", "surrogateescape")
    except CommandError as error:
        return ["The globals cannot be read: %s" % error.message]
    held: set[str] = set(globals_sql.select(script, globals_sql.Here(), overwrite=True).creates)
    lost = sorted(set((source.manifest.roles or {}).get("roles", {})) - held)
    return ["The globals do not create the role %r." % name for name in lost]


__all__ = ("check_structure",)
