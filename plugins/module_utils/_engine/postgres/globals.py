# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Roles, and what is set for all of them, into PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core import globals_sql
from ..source import Source
from . import inventory
from .connection import Server, Session
from .databases import known_settings, refused_settings, setting_text
from .target import Target, as_transaction

ALL_ROLES = ""


@dataclass(frozen=True)
class Globals:
    """What of a set's globals a server gets: one script, the roles that it creates, and what is different then.

    `refused`: (role, ALL_ROLES for all; name of a setting; what the server says of it) of each setting that is left out.
    `remarks` tell that and all the rest.
    """

    sql: str
    creates: tuple[str, ...]
    refused: tuple[tuple[str, str, str], ...]
    remarks: tuple[str, ...]


def choose_globals(source: Source, session: Session, server: Server, *, overwrite: bool) -> Globals:
    """Return what creates the roles of the set that the server lacks (and with `overwrite` makes the others as they were).

    The role that we log in as stays as it is: with another password the next connection would fail.
    """
    payload = source.manifest.globals
    if payload is None:
        return Globals("", (), (), ())
    script = source.content_of(payload).decode("utf-8", "surrogateescape")
    chosen = globals_sql.select(script, _here(session, server), overwrite=overwrite, keep=(server.user,))
    for_all = _settings_of_all_roles(source.manifest.roles or {}, session, overwrite=overwrite)
    found = [(s, globals_sql.setting_of(s) or (ALL_ROLES, "", "")) for s in chosen.statements]
    found += [("ALTER ROLE ALL SET %s;" % text, (ALL_ROLES, name, text)) for name, text in for_all]
    refusals = refused_settings(session, [text for _unused, (_role, _name, text) in found if _is_text(text)])
    kept = [statement for statement, (_role, _name, text) in found if text not in refusals]
    refused = tuple((role, name, refusals[text]) for _unused, (role, name, text) in found if text in refusals)
    return Globals("\n".join(kept) + "\n", chosen.creates, refused, tuple(_remarks(chosen, refused)))


def _is_text(text: str) -> bool:
    """Tell whether `text` is there, and such that a session can send it: of bytes that are no UTF-8 only psql can judge."""
    return bool(text) and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _here(session: Session, server: Server) -> globals_sql.Here:
    roles = {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
    spaces = {row[0] for row in session.rows("SELECT spcname FROM pg_tablespace")} if server.superuser else set()
    bootstrap, admins = "", set()
    if server.major >= 16:
        bootstrap = session.value("SELECT rolname FROM pg_roles WHERE oid = 10")
        admins = {
            (row[0], row[1])
            for row in session.rows(
                "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members WHERE admin_option"
            )
        }
    return globals_sql.Here(roles, spaces, bootstrap, admins, _is_new(session))


def _remarks(chosen: globals_sql.Selected, refused: Sequence[tuple[str, str, str]]) -> list[str]:
    remarks = [
        "This server does not take the setting %s of %s (%s); it is left out."
        % (name, "the role %r" % role if role else "all roles", said)
        for role, name, said in refused
    ]
    if chosen.tablespaces:
        remarks.append(
            "Options, comments and privileges of the tablespace%s %s stay as they are here. Use globals: all to have those of the set."
            % ("" if len(chosen.tablespaces) == 1 else "s", ", ".join(map(repr, chosen.tablespaces)))
        )
    if chosen.parameters:
        remarks.append(
            "What everyone may do with the parameter%s %s stays as it is here. Use globals: all, or GRANT … ON PARAMETER."
            % ("" if len(chosen.parameters) == 1 else "s", ", ".join(chosen.parameters))
        )
    if chosen.grantors:
        remarks.append(
            "Memberships that %s had granted come back without naming a grantor who may not grant them here."
            % ", ".join(map(repr, chosen.grantors))
        )
    return remarks


def load_globals(source: Source, target: Target, chosen: Globals) -> None:
    """Give the server what was `chosen`, as one transaction. Raise CommandError on the first error."""
    if source.manifest.globals is None:
        return
    command = target.psql(target.postgres.login_db, "--file=-")
    text = chosen.sql.encode("utf-8", "surrogateescape")
    source.context.runner.run(command, stdin=b"".join(as_transaction([text])))


def _settings_of_all_roles(roles: dict[str, Any], session: Session, *, overwrite: bool) -> list[tuple[str, str]]:
    """Return what ALTER ROLE ALL had set, which pg_dumpall leaves out: (name, as SQL).

    It concerns everyone on the server: without `overwrite` only a server that holds no databases yet gets it.
    """
    if not overwrite and not _is_new(session):
        return []
    here = {setting.partition("=")[0] for setting in inventory.settings_of_all_roles(session)}
    found = [(s.partition("=")[0], setting_text(s)) for s in known_settings(roles.get("settings", []))]
    return [(name, text) for name, text in found if overwrite or name not in here]


def settings_left_alone(roles: dict[str, Any], session: Session) -> list[str]:
    """Return what ALTER ROLE ALL had set and load_globals does not set without `overwrite`."""
    here = set(inventory.settings_of_all_roles(session))
    names = {setting.partition("=")[0] for setting in here}
    new = _is_new(session)
    return [
        s
        for s in known_settings(roles.get("settings", []))
        if s not in here and (not new or s.partition("=")[0] in names)
    ]


def _is_new(session: Session) -> bool:
    """Tell whether the server holds no databases but those that every server has."""
    own = "SELECT 1 FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') LIMIT 1"
    return not session.rows(own)


__all__ = ("ALL_ROLES", "Globals", "choose_globals", "load_globals", "settings_left_alone")
