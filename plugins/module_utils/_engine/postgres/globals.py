# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Roles, and what is set for all of them, into PostgreSQL."""

from __future__ import annotations

from typing import Any

from ..core import globals_sql
from ..core.naming import database_argument
from ..source import Source
from ..system.runner import Command
from . import inventory
from .connection import Session, connect
from .databases import known_settings, setting_name, setting_value
from .target import Target, as_transaction


def load_globals(source: Source, target: Target, *, overwrite: bool) -> tuple[list[str], list[str]]:
    """Create the roles of the set that the server lacks (and with `overwrite` make the others as they were).

    The role that we log in as stays as it is: with another password the next connection would fail.

    Return the roles that were created and the tablespaces that the server lacks. Raise CommandError on the first error.
    """
    payload = source.manifest.globals
    if payload is None:
        return [], []
    script = source.content_of(payload).decode("utf-8", "surrogateescape")
    with connect(target.postgres) as session:
        existing = {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
        tablespaces = {row[0] for row in session.rows("SELECT spcname FROM pg_tablespace")}
        for_all = _settings_of_all_roles(source.manifest.roles or {}, session, overwrite=overwrite)
    keep = (target.server.user,)
    chosen = globals_sql.select(script, existing=existing, overwrite=overwrite, tablespaces=False, keep=keep)
    command = Command(
        (
            target.programs.path("psql"),
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            database_argument(target.postgres.login_db),
        ),
        env=target.environment,
    )
    text = (chosen.sql + for_all).encode("utf-8", "surrogateescape")
    source.context.runner.run(command, stdin=b"".join(as_transaction([text])))
    return list(chosen.creates), [name for name in chosen.tablespaces if name not in tablespaces]


def _settings_of_all_roles(roles: dict[str, Any], session: Session, *, overwrite: bool) -> str:
    """Return SQL for what ALTER ROLE ALL had set, which pg_dumpall leaves out.

    It concerns everyone on the server: without `overwrite` only a server that holds no databases yet gets it.
    """
    if not overwrite and not _is_new(session):
        return ""
    here = {setting.partition("=")[0] for setting in inventory.settings_of_all_roles(session)}
    statements = []
    for setting in known_settings(roles.get("settings", [])):
        key, _unused, value = setting.partition("=")
        if overwrite or key not in here:
            statements.append("ALTER ROLE ALL SET %s TO %s;\n" % (setting_name(key), setting_value(key, value)))
    return "".join(statements)


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


__all__ = ("load_globals", "settings_left_alone")
