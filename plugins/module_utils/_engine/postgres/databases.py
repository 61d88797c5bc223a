# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Make a database, and give it what belongs to it as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Optional

from ..core.errors import UsageError
from ..core.naming import quote_ident, quote_literal
from ..core.redaction import is_masked
from .connection import Session
from .target import Target

_LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


def create_database(
    session: Session,
    name: str,
    properties: dict[str, Any],
    target: Target,
    *,
    ownership: bool,
    comment: str,
    locale: bool = True,
) -> None:
    """Create the empty database `name` with the encoding, locale and owner in `properties`; mark it with `comment`.

    Without `locale` it gets the C locale. Raise PgopsError if the server cannot.
    """
    parts = [
        "CREATE DATABASE %s TEMPLATE template0 ENCODING %s" % (quote_ident(name), quote_literal(properties["encoding"]))
    ]
    parts += _locale(properties, target.server.major) if locale else ["LC_COLLATE 'C' LC_CTYPE 'C'"]
    if ownership:
        parts.append("OWNER %s" % quote_ident(properties["owner"]))
    tablespace = properties.get("tablespace") or "pg_default"
    # Naming pg_default takes a right on it that who may create databases need not have.
    if tablespace != "pg_default" and session.rows("SELECT 1 FROM pg_tablespace WHERE spcname = %s", (tablespace,)):
        parts.append("TABLESPACE %s" % quote_ident(tablespace))
    session.execute(" ".join(parts))
    session.execute("COMMENT ON DATABASE %s IS %s" % (quote_ident(name), quote_literal(comment)))


def _locale(properties: dict[str, Any], major: int) -> list[str]:
    parts = ["LC_COLLATE %s LC_CTYPE %s" % (quote_literal(properties["collate"]), quote_literal(properties["ctype"]))]
    provider = properties.get("provider", "libc")
    if major >= 15:
        parts.append("LOCALE_PROVIDER %s" % {"icu": "icu", "builtin": "builtin"}.get(provider, "libc"))
    if provider == "icu" and properties.get("locale"):
        parts.append("ICU_LOCALE %s" % quote_literal(properties["locale"]))
        if properties.get("icu_rules"):
            parts.append("ICU_RULES %s" % quote_literal(properties["icu_rules"]))
    if provider == "builtin" and properties.get("locale"):
        parts.append("BUILTIN_LOCALE %s" % quote_literal(properties["locale"]))
    return parts


def comment_on_database(name: str, comment: Optional[str]) -> str:
    """Return SQL that gives the database `name` its comment, or takes it away."""
    return "COMMENT ON DATABASE %s IS %s" % (quote_ident(name), "NULL" if comment is None else quote_literal(comment))


def finish_database(session: Session, name: str, properties: dict[str, Any], *, ownership: bool) -> None:
    """Give the loaded database `name` its privileges, settings and limits; its comment stays as it is."""
    database = quote_ident(name)
    session.execute("ALTER DATABASE %s CONNECTION LIMIT %d" % (database, int(properties.get("connection_limit", -1))))
    if properties.get("is_template"):
        session.execute("ALTER DATABASE %s IS_TEMPLATE true" % database)
    for entry in properties.get("settings", []):
        if entry["role"] and not ownership:
            continue
        subject = (
            "ROLE %s IN DATABASE %s" % (quote_ident(entry["role"]), database)
            if entry["role"]
            else "DATABASE %s" % database
        )
        for setting in known_settings(entry["settings"]):
            key, _unused, value = setting.partition("=")
            session.execute("ALTER %s SET %s TO %s" % (subject, setting_name(key), setting_value(key, value)))
    if ownership:
        owner = properties["owner"]
        session.execute("REVOKE ALL ON DATABASE %s FROM PUBLIC, %s" % (database, quote_ident(owner)))
        for who, may in sorted(properties.get("acl", {}).items()):
            for privilege in may.split():
                option = " WITH GRANT OPTION" if privilege.endswith("*") else ""
                grantee = "PUBLIC" if who == "public" else quote_ident(who)
                session.execute(
                    "GRANT %s ON DATABASE %s TO %s%s" % (_word(privilege.rstrip("*")), database, grantee, option)
                )


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Z ]+", text):
        raise UsageError("%r is no privilege." % text)
    return text


def known_settings(settings: Iterable[str]) -> list[str]:
    """Return the settings whose values the manifest holds; those of secrets it does not, and somebody sets them again."""
    return [setting for setting in settings if not is_masked(setting)]


def setting_name(key: str) -> str:
    return ".".join(quote_ident(part) for part in key.split("."))


def setting_value(key: str, value: str) -> str:
    """Return a setting's value as SQL; the few that are lists of names must not become one long name."""
    if key.lower() not in _LIST_SETTINGS:
        return quote_literal(value)
    parts = re.findall(r'\s*("(?:[^"]|"")*"|[^,"]+?)\s*(?:,|$)', value)
    return ", ".join(quote_literal(p[1:-1].replace('""', '"') if p.startswith('"') else p) for p in parts) or "''"


__all__ = (
    "comment_on_database",
    "create_database",
    "finish_database",
    "known_settings",
    "setting_name",
    "setting_value",
)
