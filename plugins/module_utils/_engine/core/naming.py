# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Names: hostile ones made safe for files and for PostgreSQL, and our own ones checked."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Container
from datetime import datetime, timezone

from .errors import UsageError
from .times import CLOCK_TOLERANCE, compact

_SET_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-(logical|base|incremental)")
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME_BYTES = 63  # of a name in PostgreSQL
_PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")


def set_id(moment: datetime, kind: str) -> str:
    """Return the id of a set of `kind` that began at `moment`: `20261122T020000Z-logical`."""
    return "%s-%s" % (compact(moment), kind)


def is_set_id(text: str) -> bool:
    """Tell whether `text` has the form of a set id."""
    return _SET_ID.fullmatch(text) is not None


def is_physical(set_id: str) -> bool:
    """Tell whether the set is a copy of a whole data directory (base, incremental), and not dumps of databases."""
    return set_id.endswith(("-base", "-incremental"))


def is_plain_path(path: str) -> bool:
    """Tell whether the path begins at the root, and what lies beside it can be told by its words alone: none is `..`."""
    return path.startswith("/") and "\n" not in path and path == path.rstrip("/") and ".." not in path.split("/")


def check_instance(text: str) -> str:
    """Return `text` if it can name an instance in every place. Raise UsageError otherwise."""
    if not _INSTANCE.fullmatch(text):
        raise UsageError(
            "%r cannot name an instance." % (text,),
            hint="Use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return text


def file_stem(name: str) -> str:
    """Return a file name for the database `name`, safe in any file system, shell and URL; distinct names stay distinct.

    Every byte that is not a plain letter, digit, `_`, `-` or `.` becomes `~xx`; so does a leading dash or dot.
    """
    raw = name.encode("utf-8", "surrogateescape")
    parts = [
        chr(byte) if byte in _PLAIN_BYTES and not (index == 0 and byte in b"-.") else "~%02x" % byte
        for index, byte in enumerate(raw)
    ]
    return "".join(parts)


def is_ahead(name: str, now: datetime) -> bool:
    """Tell whether the set `name` claims to begin so far after `now` that a clock was wrong. It takes no seat of a true newest one then."""
    try:
        begun = datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:  # no moment at all, as the month 99: nor is it ever the newest one
        return True
    return begun > now + CLOCK_TOLERANCE


def quote_ident(name: str) -> str:
    """Return `name` as an SQL identifier."""
    if "\0" in name:
        raise UsageError("A name with a NUL byte cannot exist in PostgreSQL: %r" % (name,))
    return '"%s"' % name.replace('"', '""')


def quote_literal(text: str) -> str:
    """Return `text` as an SQL string literal that reads the same whatever standard_conforming_strings says."""
    if "\0" in text:
        raise UsageError("A text with a NUL byte cannot exist in PostgreSQL: %r" % (text,))
    quoted = "'%s'" % text.replace("'", "''").replace("\\", "\\\\")
    return " E" + quoted if "\\" in text else quoted


def split_qualified(text: str) -> tuple[str, str]:
    """Return (schema, table) of `schema.table`; a part that holds a dot or a quote is written in double quotes.

    Raise UsageError if `text` is not of that form.
    """
    match = re.fullmatch(r'("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)', text, re.DOTALL)
    if not match:
        raise UsageError("%r names no table." % (text,), hint='Write schema.table; quote odd parts: public."my.table".')
    schema, table = (p[1:-1].replace('""', '"') if p.startswith('"') else p for p in match.groups())
    return schema, table


def qualified(schema: str, name: str) -> str:
    """Return the quoted full name of an object in a schema."""
    return "%s.%s" % (quote_ident(schema), quote_ident(name))


def conninfo_value(text: str) -> str:
    """Return `text` quoted as a value of a libpq connection string."""
    return "'%s'" % text.replace("\\", "\\\\").replace("'", "\\'")


def database_argument(name: str) -> str:
    """Return the argument that makes a PostgreSQL client open exactly the database `name`.

    A bare name with `=` in it, or one that begins like a URI, would be read as a connection string
    (PostgreSQL manual, 34.1.1), so every name travels inside one.
    """
    return "--dbname=dbname=%s" % conninfo_value(name)


def kept_name(name: str, stamp: str, since: str = "before", *, taken: Container[str] = ()) -> str:
    """Return the name, none of `taken`, under which a database that was called `name` stays beside its successor.

    Of a name that is too long there is the beginning, and a few digits by which it differs from others that begin so.
    """
    whole = name.encode("utf-8", "surrogateescape")
    for count in itertools.count(1):
        tail = "_%s_%s" % (since, stamp if count == 1 else "%s_%d" % (stamp, count))
        if len(whole) + len(tail) > _NAME_BYTES:
            tail = "_%s%s" % (hashlib.sha256(whole).hexdigest()[:8], tail)
        found = whole[: _NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail
        if found not in taken:
            break
    return found


__all__ = (
    "check_instance",
    "conninfo_value",
    "database_argument",
    "file_stem",
    "is_ahead",
    "is_physical",
    "is_plain_path",
    "is_set_id",
    "kept_name",
    "qualified",
    "quote_ident",
    "quote_literal",
    "set_id",
    "split_qualified",
)
