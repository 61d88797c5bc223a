# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Take apart the SQL script in which pg_restore writes the rows of tables, so that each can be loaded on its own. Pure.

pg_restore can only say `COPY … FROM stdin`. A table that is emptied in the transaction that fills it may be filled with
`FREEZE` (https://www.postgresql.org/docs/current/sql-copy.html): its rows are never visited again to note that they are
committed, neither by the builds of its indexes nor by the first vacuum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Optional, Union

from .errors import DamagedError

_ENTRY = re.compile(r"(\d+); (\d+) (\d+) (.+)")
# The catalog pg_class; entries that hold data and no definition belong to no catalog.
_PG_CLASS, _NO_CATALOG = 1259, 0
_BLOBS = ("BLOB ", "BLOBS ", "BLOB METADATA ")

_STATEMENT = re.compile(rb"""(?:[^'";]|'[^']*'|"[^"]*")*;""")
_NAME = rb"""(?:"(?:[^"]|"")*"|[^\s"'(.;]+)"""
_COPY = re.compile(rb"COPY (?P<table>%s(?:\.%s)?) ?(?:\(.*\))? *FROM stdin;" % (_NAME, _NAME), re.DOTALL)
_SETTINGS = (b"SET ", b"SELECT pg_catalog.set_config(")
# Newer programs say it, and older servers do not know it.
_UNKNOWN_TO_OLDER = b"SET transaction_timeout "
_HEADING = b"-- Data for Name: "
_END = b"\n\\.\n"


@dataclass(frozen=True)
class Contents:
    """What an archive's listing says of its rows. `frozen` are the entries that hold rows of tables which the archive makes.

    `rest` are all other entries. `foreign` tells whether some of them hold rows of a table that an extension makes; it has
    rows of its own and must not be emptied. `blobs` tells whether there are large objects.
    """

    frozen: tuple[int, ...]
    rest: tuple[int, ...]
    foreign: bool
    blobs: bool


def contents(listing: Iterable[str]) -> Contents:
    """Read the lines of `pg_restore --list`."""
    entries = []
    for line in listing:
        found = _ENTRY.match(line)
        if found:
            entries.append((int(found[1]), int(found[2]), int(found[3]), found[4]))
    made = {oid for _id, catalog, oid, words in entries if catalog == _PG_CLASS and words.startswith("TABLE ")}
    rows = {i: oid for i, catalog, oid, words in entries if catalog == _NO_CATALOG and words.startswith("TABLE DATA ")}
    frozen = {i for i, oid in rows.items() if oid in made}
    return Contents(
        frozen=tuple(i for i in rows if i in frozen),
        rest=tuple(entry[0] for entry in entries if entry[0] not in frozen),
        foreign=len(frozen) < len(rows),
        blobs=any(words.startswith(_BLOBS) for _id, _catalog, _oid, words in entries),
    )


@dataclass(frozen=True)
class Begin:
    """The rows of a table follow. `settings` are statements for the session that loads them; `copy` is the command.

    `through_root`: they go into a partitioned table, which is not emptied and takes each where it belongs.
    """

    settings: tuple[bytes, ...]
    table: bytes
    copy: bytes
    through_root: bool = False

    @property
    def frozen(self) -> bytes:
        """The command that fills a table which the same transaction has emptied."""
        return self.copy[:-1] + b" WITH (FREEZE)"


@dataclass(frozen=True)
class End:
    """The rows of the table are complete."""


Event = Union[Begin, bytes, End]


def split(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield for each table of the script a Begin, its rows as chunks, and an End. Raise DamagedError if it breaks off."""
    text, heading, inside = b"", b"", False
    settings: tuple[bytes, ...] = ()
    for chunk in chunks:
        # Within rows, the first byte of `text` has been told already: the end of the rows begins with a line's end.
        text += chunk
        while True:
            if not inside:
                begun, settings, heading, text = _next_table(settings, heading, text)
                if begun is None:
                    break
                yield begun
                text, inside = b"\n" + text, True
            at = text.find(_END)
            told = at + 1 if at >= 0 else len(text) - len(_END) + 1
            if told > 1:
                yield text[1:told]
            if at < 0:
                text = text[max(told, 1) - 1 :]
                break
            yield End()
            text, inside = text[at + len(_END) :], False
    if inside or re.sub(rb"(?m)^--.*$|^\\.*$", b"", text).strip():
        raise DamagedError("The rows that pg_restore reads from the archive break off.")


def _next_table(
    settings: tuple[bytes, ...], heading: bytes, text: bytes
) -> tuple[Optional[Begin], tuple[bytes, ...], bytes, bytes]:
    """Return the next table, if all that begins it has come; the settings and the last heading up to here; and the rest of the text."""
    while True:
        text = text.lstrip()
        if text.startswith((b"--", b"\\")):  # a comment, or a command to psql
            if b"\n" not in text:
                return None, settings, heading, text
            line, _unused, text = text.partition(b"\n")
            heading = line if line.startswith(_HEADING) else heading
            continue
        found = _STATEMENT.match(text)
        # Rows begin after the end of the line.
        if found is None or len(text) == found.end():
            return None, settings, heading, text
        statement, text = found[0], text[found.end() :]
        copy = _COPY.fullmatch(statement)
        if copy:
            begun = Begin(settings, copy["table"], statement, _through_root(heading, statement))
            return begun, settings, b"", text.partition(b"\n")[2]
        if not statement.startswith(_SETTINGS):
            raise DamagedError("Among the rows of the archive stands %r." % statement[:80].decode("utf-8", "replace"))
        if not statement.startswith(_UNKNOWN_TO_OLDER):
            settings += (statement[:-1],)


def _through_root(heading: bytes, copy: bytes) -> bool:
    """Tell whether the command fills another table than that whose rows the heading announces."""
    schema, name = (re.sub(rb"[\r\n]", b" ", part) for part in copied_table(copy))
    return bool(heading) and not heading.startswith(
        b"%s%s; Type: TABLE DATA; Schema: %s; Owner: " % (_HEADING, name, schema)
    )


def copied_table(copy: bytes) -> tuple[bytes, bytes]:
    """Return the schema, empty if the command does not say it, and the name of the table that a COPY command fills."""
    found = _COPY.fullmatch(copy)
    parts = re.findall(_NAME, found["table"]) if found else []
    names = [part[1:-1].replace(b'""', b'"') if part.startswith(b'"') else part for part in parts]
    return (names[0] if len(names) == 2 else b"", names[-1] if names else b"")


__all__ = ("Begin", "Contents", "End", "Event", "contents", "copied_table", "split")
