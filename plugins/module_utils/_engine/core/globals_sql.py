# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Read what pg_dumpall --globals-only wrote, statement by statement, and leave out what would touch existing roles. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Optional

_IDENT = r'("(?:[^"]|"")+"|[^\s;"]+)'
_END = r"(?=[\s;])"  # \b is no end: there is none between a closing quote and a semicolon
_WORDS = "[A-Z, ]+"  # of privileges and options; a name that needs no quotes is in small letters
_CREATE_ROLE = re.compile(r"CREATE ROLE %s;" % _IDENT, re.DOTALL)
_OF_ROLE = re.compile(
    r"(?:ALTER ROLE|COMMENT ON ROLE|SECURITY LABEL FOR %s ON ROLE) (?P<role>%s)\s" % (_IDENT, _IDENT), re.DOTALL
)
_SETTING = re.compile(r"ALTER ROLE %s SET (?P<text>%s TO .*);" % (_IDENT, _IDENT), re.DOTALL)
_GRANT_ROLE = re.compile(
    r"GRANT %s TO %s(?: WITH (%s?))??(?: GRANTED BY %s)?;" % (_IDENT, _IDENT, _WORDS, _IDENT), re.DOTALL
)
_ON_PARAMETER = re.compile(
    r"(?:GRANT|REVOKE) %s ON PARAMETER %s (?:TO|FROM) %s%s" % (_WORDS, _IDENT, _IDENT, _END), re.DOTALL
)
_MAKE_TABLESPACE = re.compile(r"CREATE TABLESPACE %s OWNER %s\s" % (_IDENT, _IDENT), re.DOTALL)
_GRANT_TABLESPACE = re.compile(r"GRANT %s ON TABLESPACE %s TO %s%s" % (_WORDS, _IDENT, _IDENT, _END), re.DOTALL)
_TABLESPACE = re.compile(
    r"(?:(?:CREATE|ALTER|COMMENT ON) TABLESPACE|(?:GRANT|REVOKE) %s ON TABLESPACE|SECURITY LABEL FOR %s ON TABLESPACE)"
    r" (?P<name>%s)\s" % (_WORDS, _IDENT, _IDENT),
    re.DOTALL,
)
_SESSION = re.compile(r"(?:RE)?SET SESSION AUTHORIZATION\b")
_EVERYONE = "PUBLIC"  # without quotes; a role of that name has some


@dataclass(frozen=True)
class Here:
    """What the server has: roles, tablespaces, and who may grant membership.

    `bootstrap` is the role that initdb made, which may always grant; empty before PostgreSQL 16, where a grant may name
    anybody as its grantor. `admins` are (role, member that may grant it). `new`: there is nobody yet whom a privilege for
    everyone would concern.
    """

    roles: Collection[str] = ()
    tablespaces: Collection[str] = ()
    bootstrap: str = ""
    admins: Collection[tuple[str, str]] = ()
    new: bool = True


@dataclass(frozen=True)
class Selected:
    """The statements to run, the roles that they create, and what differs from the script.

    `tablespaces` that the server has and that are left alone, `parameters` whose privileges for everyone are, and
    `grantors` who may not grant here what they granted there.
    """

    statements: tuple[str, ...]
    creates: tuple[str, ...]
    tablespaces: tuple[str, ...]
    parameters: tuple[str, ...]
    grantors: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The statements as one script."""
        return "\n".join(self.statements) + "\n"


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


def select(script: str, here: Here, *, overwrite: bool, keep: Collection[str] = ()) -> Selected:
    """Return the part of `script` to run on a server that is as `here` says.

    Roles and tablespaces that exist keep all that they have unless `overwrite` holds: attributes, passwords, settings,
    memberships and privileges. What exists is never created again, a tablespace is not created at all, and the roles in
    `keep` stay as they are in any case.
    """
    choice = _Choice(here, overwrite, keep)
    kept = [run for run in map(choice.of, statements(script)) if run]
    return Selected(
        tuple(kept), tuple(choice.created), tuple(choice.spaces), tuple(choice.parameters), tuple(choice.redirected)
    )


class _Choice:
    """The choice among the statements of a script, one after the other."""

    def __init__(self, here: Here, overwrite: bool, keep: Collection[str]) -> None:
        self._here, self._overwrite = here, overwrite
        self._untouched = keep if overwrite else here.roles
        self._admins = set(here.admins)
        self._given: dict[tuple[str, str], tuple[bool, ...]] = {}
        self.created: list[str] = []
        self.spaces: dict[str, None] = {}
        self.parameters: dict[str, None] = {}
        self.redirected: dict[str, None] = {}

    def of(self, statement: str) -> str:
        """Return what to run for `statement`; empty for nothing."""
        for pattern, choose in (
            (_CREATE_ROLE, self._create),
            (_OF_ROLE, self._of_role),
            (_GRANT_ROLE, self._membership),
            (_ON_PARAMETER, self._parameter),
            (_TABLESPACE, self._tablespace),
            (_SESSION, self._session),
        ):
            match = pattern.match(statement)
            if match:
                return choose(match)
        return statement

    def _create(self, match: re.Match[str]) -> str:
        name = _unquote(match[1])
        if name in self._here.roles:
            return ""
        self.created.append(name)
        return match.string

    def _of_role(self, match: re.Match[str]) -> str:
        return "" if _unquote(match["role"]) in self._untouched else match.string

    def _parameter(self, match: re.Match[str]) -> str:
        if match[2] != _EVERYONE:
            return "" if _unquote(match[2]) in self._untouched else match.string
        if self._overwrite or self._here.new:
            return match.string
        self.parameters[_unquote(match[1])] = None
        return ""

    def _tablespace(self, match: re.Match[str]) -> str:
        name, statement = _unquote(match["name"]), match.string
        made, granted = _MAKE_TABLESPACE.match(statement), _GRANT_TABLESPACE.match(statement)
        if name not in self._here.tablespaces:
            return ""
        if self._overwrite:
            return "ALTER TABLESPACE %s OWNER TO %s;" % made.groups() if made else statement
        if granted and granted[2] != _EVERYONE and _unquote(granted[2]) not in self._here.roles:
            return statement
        if not made:
            self.spaces[name] = None
        return ""

    def _session(self, match: re.Match[str]) -> str:
        return match.string if self._overwrite else ""  # the grantor may not have here what it passed on there

    def _membership(self, match: re.Match[str]) -> str:
        """Return a grant of membership. Of a grantor who may not grant here, it is the server's own superuser who does.

        From PostgreSQL 16 on, a grantor must have the admin option.
        """
        role, member, options, by = match.groups()
        pair = (_unquote(role), _unquote(member))
        if pair[1] in self._untouched:
            return ""
        bootstrap = self._here.bootstrap
        grantor = _unquote(by) if by else bootstrap
        allowed = (pair[0], grantor) in self._admins
        if "ADMIN OPTION" in (options or ""):
            self._admins.add(pair)
        if not bootstrap or (allowed and grantor != bootstrap):
            return match.string
        if grantor != bootstrap:
            self.redirected[grantor] = None
        return "GRANT %s TO %s%s;" % (role, member, self._with(pair, options))

    def _with(self, pair: tuple[str, str], options: Optional[str]) -> str:
        """Return the options of a grant: the second of one grantor would take away what the first gave."""
        if not options or "INHERIT" not in options:
            return " WITH %s" % options if options else ""
        asked = ("ADMIN OPTION" in options, "INHERIT TRUE" in options, "SET FALSE" not in options)
        before = self._given.get(pair, (False, False, False))
        admin, inherit, switch = self._given[pair] = tuple(a or b for a, b in zip(asked, before))
        parts = ["ADMIN OPTION"] if admin else []
        parts += ["INHERIT %s" % str(inherit).upper(), "SET %s" % str(switch).upper()]
        return " WITH %s" % ", ".join(parts)


def setting_of(statement: str) -> Optional[tuple[str, str, str]]:
    """Return (role, setting, `setting TO value` as SQL) if `statement` sets something for a role."""
    match = _SETTING.fullmatch(statement)
    return (_unquote(match[1]), _unquote(match[3]), match["text"]) if match else None


def _unquote(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


__all__ = ("Here", "Selected", "select", "setting_of", "statements")
