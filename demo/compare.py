# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two states of a server, row by row and object by object, independently of the engine.

It reads the system catalogs only, so that what our own fingerprint forgets is still noticed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from psycopg2 import sql

Details = dict[str, Any]
Snapshot = dict[str, dict[str, dict[str, Details]]]

_SQL = Path(__file__).parent / "sql"
_CLUSTER = "the server"

# Values must read the same in any session; names come out with their schemas.
_SESSION = """
SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET xmloption = 'content'; SET lc_monetary = 'C'; SET search_path = '';
SET row_security = off; SET statement_timeout = 0; SET lock_timeout = 0; SET jit = off; SET quote_all_identifiers = off;
CREATE FUNCTION pg_temp.acl(rights aclitem[], kind "char", owner oid) RETURNS text[] LANGUAGE sql STABLE AS
    $$ SELECT ARRAY(SELECT x::text FROM unnest(coalesce(rights, acldefault(kind, owner))) x ORDER BY 1) $$;
CREATE FUNCTION pg_temp.name(oid) RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE c.oid = $1 $$;
CREATE TEMPORARY VIEW own_relations AS
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';
"""

_WITH_ROWS = """
SELECT pg_temp.name(oid), nspname, relname FROM (
    SELECT c.oid, nspname, relname FROM pg_temp.own_relations c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' OR relkind = 'm' AND relispopulated) x ORDER BY pg_relation_size(oid) DESC
"""

# The alias must not be the name of a column, or it would mean that column instead of the row.
_CONTENT = """
SELECT count(*), sum(hashtextextended({row}::text, 0)::numeric)::text FROM ONLY {schema}.{table} AS {row}
"""
_ROW = "the row, not a column"


class Server(Protocol):
    """What this needs of a server."""

    def connect(self, dbname: str = "postgres", *, autocommit: bool = True) -> Any:
        """Return a psycopg2 connection of a superuser."""


def snapshot(server: Server) -> Snapshot:
    """Return the state of every database and of the server itself; passwords are in it as digests only."""
    with _cursor(server, "postgres") as cursor:
        state: Snapshot = {_CLUSTER: _ask_all(cursor, "cluster.sql")}
        cursor.execute("SELECT to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL")
        if cursor.fetchone()[0]:
            cursor.execute("SELECT parname, jsonb_build_object('rights', paracl::text[]) FROM pg_parameter_acl")
            state[_CLUSTER]["rights on settings"] = dict(cursor.fetchall())
        cursor.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        state[f'database "{name}"'] = _database(server, name)
    return state


def compared_tables(state: Snapshot) -> int:
    """Return how many tables' rows the snapshot holds, partitions and materialized views included."""
    return sum(len(sections.get("tables", {})) for sections in state.values())


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Return a sentence for each thing that is missing, new or not as it was."""
    return [f"{where}: {what}" for where, what in _differences(before, after)]


def _differences(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, str]]:
    for place, what in _missing_or_new(before, after):
        yield place, what
    for place in _both(before, after):
        for section in sorted(before[place].keys() | after[place].keys()):
            old, new = before[place].get(section, {}), after[place].get(section, {})
            for identity, what in _missing_or_new(old, new):
                yield place, f"{section}: {identity} {what}"
            for identity in _both(old, new):
                for what in _changes(old[identity], new[identity]):
                    yield place, f"{section}: {identity}: {what}"


def _missing_or_new(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in sorted(before.keys() - after.keys()):
        yield name, "is missing"
    for name in sorted(after.keys() - before.keys()):
        yield name, "was not there before"


def _both(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(before.keys() & after.keys())


def _changes(old: Details, new: Details) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if key in ("content", "password"):
            if old.get("rows") == new.get("rows"):
                yield f"another {key}"
        elif isinstance(was, list) and isinstance(now, list):
            lost, gained = [x for x in was if x not in now], [x for x in now if x not in was]
            yield f"{key}: lost {lost}, gained {gained}" if lost or gained else f"{key}: another order"
        else:
            yield f"{key}: was {was}, is {now}"


def _database(server: Server, name: str) -> dict[str, dict[str, Details]]:
    with _cursor(server, name) as cursor:
        sections = _ask_all(cursor, "catalog.sql")
        for identity, details in sections["sequences"].items():
            cursor.execute(f"SELECT last_value, is_called FROM {identity}")  # quoted by the server
            details["last value"], details["was called"] = cursor.fetchone()
        cursor.execute(_WITH_ROWS)
        tables = cursor.fetchall()

    def content(part: list[tuple[str, str, str]]) -> dict[str, Details]:
        with _cursor(server, name) as cursor:
            return {identity: _content(cursor, schema, table) for identity, schema, table in part}

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(content, (tables[0::2], tables[1::2])))
    return sections | {"tables": parts[0] | parts[1]}


def _content(cursor: Any, schema: str, table: str) -> Details:
    names = {"row": sql.Identifier(_ROW), "schema": sql.Identifier(schema), "table": sql.Identifier(table)}
    cursor.execute(sql.SQL(_CONTENT).format(**names))
    rows, digest = cursor.fetchone()
    return {"rows": rows, "content": digest}


def _ask_all(cursor: Any, file: str) -> dict[str, dict[str, Details]]:
    """Run each named query of a file."""
    parts = re.split(r"^--: (.+)$", (_SQL / file).read_text(), flags=re.MULTILINE)[1:]
    sections = {}
    for section, query in zip(parts[0::2], parts[1::2], strict=True):
        cursor.execute(query)
        found = cursor.fetchall()
        sections[section] = dict(found)
        if len(sections[section]) != len(found):
            raise AssertionError(f"two of the {section} have the same identity")
    return sections


@contextmanager
def _cursor(server: Server, dbname: str) -> Iterator[Any]:
    with closing(server.connect(dbname)) as connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        yield cursor
