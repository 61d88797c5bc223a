# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Make a database, and give it what belongs to it as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Optional

from ..core.errors import PgopsError, UsageError
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
    """Give the loaded database `name` its privileges, settings and limits; its comment stays as it is.

    The settings must be such as the server takes (without_refused).
    """
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
            session.execute("ALTER %s SET %s" % (subject, setting_text(setting)))
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


def without_refused(
    session: Session, properties: dict[str, Any], *, ownership: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the properties of a database without the settings that this server does not take, and what to say of each.

    A newer major version may have lost a setting, another system a time zone. Those of roles count only with `ownership`.
    """
    entries = [entry for entry in properties.get("settings", []) if ownership or not entry["role"]]
    refused = refused_settings(
        session, [setting_text(setting) for entry in entries for setting in known_settings(entry["settings"])]
    )
    if not refused:
        return properties, []
    said, left = [], []
    for entry in entries:
        fine = []
        for setting in entry["settings"]:
            reason = "" if is_masked(setting) else refused.get(setting_text(setting), "")
            if reason:
                whose = " of the role %r" % entry["role"] if entry["role"] else ""
                said.append("the setting %s%s (%s)" % (setting, whose, reason))
            else:
                fine.append(setting)
        left += [{**entry, "settings": fine}] if fine else []
    return {**properties, "settings": left}, said


# The value is none, the parameter is unknown, its name cannot be one, it cannot be changed for a session.
_NOT_HERE = ("22023", "42704", "42602", "55P02")


def refused_settings(session: Session, texts: Iterable[str]) -> dict[str, str]:
    """Return which settings, written as SQL (setting_text), this server does not take, and what it says of each.

    Each is tried on the role that we log in as, and taken back.
    """
    refused = {}
    wanted = list(dict.fromkeys(texts))
    if not wanted:
        return {}
    session.execute("BEGIN")
    try:
        for text in wanted:
            session.execute("SAVEPOINT pgops")
            try:
                session.execute("ALTER ROLE CURRENT_USER SET %s" % text)
            except PgopsError as error:
                if getattr(error, "sqlstate", None) in _NOT_HERE:
                    refused[text] = error.message.partition(" the server said: ")[2].rstrip(".")
            session.execute("ROLLBACK TO SAVEPOINT pgops")
    finally:
        session.execute("ROLLBACK")
    return refused


def setting_text(setting: str) -> str:
    """Return `name=value` as it follows SET in SQL."""
    key, _unused, value = setting.partition("=")
    return "%s TO %s" % (setting_name(key), setting_value(key, value))


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
    "refused_settings",
    "setting_name",
    "setting_text",
    "setting_value",
    "without_refused",
)
