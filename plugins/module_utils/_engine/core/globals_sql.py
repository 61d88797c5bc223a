# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Read what pg_dumpall --globals-only wrote, statement by statement, and leave out what would touch existing roles. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_IDENT = r'("(?:[^"]|"")+"|[^\s;"]+)'
_CREATE_ROLE = re.compile(r"CREATE ROLE %s;" % _IDENT, re.DOTALL)
_ALTER_ROLE = re.compile(r"ALTER ROLE %s\s" % _IDENT, re.DOTALL)
_COMMENT_ROLE = re.compile(r"COMMENT ON ROLE %s IS" % _IDENT, re.DOTALL)
_GRANT_ROLE = re.compile(r"GRANT %s TO %s\b" % (_IDENT, _IDENT), re.DOTALL)
_TABLESPACE = re.compile(
    r"(?:CREATE|ALTER) TABLESPACE %s\s|(?:GRANT|REVOKE) .* ON TABLESPACE %s\s|COMMENT ON TABLESPACE %s IS"
    % ((_IDENT,) * 3),
    re.DOTALL,
)


@dataclass(frozen=True)
class Selected:
    """The statements to run, the roles that they create, and what was left out."""

    sql: str
    creates: tuple[str, ...]
    tablespaces: tuple[str, ...]


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a pg_dumpall script, each with its semicolon; psql's backslash lines stand alone.

    Quotes, E'' strings and comments are read as PostgreSQL reads them, so a semicolon in a name ends nothing.
    """
    start = position = 0
    while position < len(script):
        letter = script[position]
        if letter == "-" and script.startswith("--", position):
            position = _line_end(script, position)
            if not script[start:position].lstrip().startswith("--"):
                continue
            start = position
        elif letter == "\\" and not script[start:position].strip():
            end = _line_end(script, position)
            yield script[position:end].rstrip("\n")
            start = position = end
        elif letter == "'":
            position = _string_end(script, position)
        elif letter == '"':
            position = script.find('"', position + 1) + 1 or len(script)
        elif letter == ";":
            yield script[start : position + 1].strip()
            start = position = position + 1
        else:
            position += 1
    if script[start:].strip():
        yield script[start:].strip()


def _line_end(script: str, position: int) -> int:
    return script.find("\n", position) + 1 or len(script)


def _string_end(script: str, position: int) -> int:
    escapes = position > 0 and script[position - 1] in "eE" and (position < 2 or not script[position - 2].isalnum())
    position += 1
    while position < len(script):
        if escapes and script[position] == "\\":
            position += 2
        elif script[position] == "'":
            if script.startswith("''", position):
                position += 2
            else:
                return position + 1
        else:
            position += 1
    return position


def select(
    script: str, *, existing: Collection[str], overwrite: bool, tablespaces: bool, keep: Collection[str] = ()
) -> Selected:
    """Return the part of `script` to run on a server that has the roles `existing`.

    Existing roles keep their attributes, passwords, settings and memberships unless `overwrite` holds; a role that
    exists is never created again, and those in `keep` stay as they are in any case. Tablespaces are left out unless `tablespaces` holds.
    """
    kept: list[str] = []
    created: list[str] = []
    left: list[str] = []
    for statement in statements(script):
        tablespace = _TABLESPACE.match(statement)
        if tablespace:
            name = _unquote(next(g for g in tablespace.groups() if g))
            if not tablespaces:
                if name not in left:
                    left.append(name)
                continue
        create = _CREATE_ROLE.match(statement)
        if create:
            name = _unquote(create.group(1))
            if name in existing:
                continue
            created.append(name)
        elif _subject(statement) in (keep if overwrite else existing):
            continue
        kept.append(statement)
    return Selected("\n".join(kept) + "\n", tuple(created), tuple(left))


def _subject(statement: str) -> str:
    """Return the role that `statement` changes, empty if it changes none. A grant of a role changes its new member."""
    for pattern in (_ALTER_ROLE, _COMMENT_ROLE):
        match = pattern.match(statement)
        if match:
            return _unquote(match.group(1))
    grant = _GRANT_ROLE.match(statement)
    return _unquote(grant.group(2)) if grant else ""


def _unquote(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


__all__ = ("Selected", "select", "statements")
