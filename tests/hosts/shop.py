# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of molecule/hosts/files/shop.sql, asked by psql."""

from __future__ import annotations

from typing import Any

# What there is once in the shop, and what it must be after a restore.
QUESTIONS = {
    "SELECT count(*), sum(amount), min(placed AT TIME ZONE 'UTC'), max(placed AT TIME ZONE 'UTC') FROM orders": (
        "20000|979307.00|2026-01-01 00:01:00|2026-01-14 21:20:00"
    ),
    "SELECT count(*), min(name), max(name) FROM customers": "500|customer 1|customer 99",
    "SELECT last_value FROM customers_id_seq": "4711",
    "SELECT convert_from(lo_get(424242), 'UTF8')": "a large object",
    "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'": "shop_owner",
    "SELECT has_table_privilege('shop_reader', 'customers', 'SELECT'), has_table_privilege('shop_reader', 'orders', 'SELECT')": "t|f",
    "SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'f' AND convalidated": "1",
    "SELECT count(*) FROM pg_indexes WHERE tablename = 'orders'": "2",
}
ODD = 'Odd "name" 50% $x'
ODD_ROW = "1|tab\tquote' end"


def asked(host: Any, database: str, sql: str, port: int = 5432) -> str:
    """Return what psql answers."""
    words = "sudo -u postgres psql -XAt -v ON_ERROR_STOP=1 -p %s -d %s -c %s"
    said: str = host.check_output(words, str(port), database, sql)
    return said


def finished_segment(host: Any) -> str:
    """Let the server finish the segment of WAL that it writes, with something in it, and return its name."""
    asked(host, "postgres", "SELECT pg_logical_emit_message(true, 'lab', 'finished')")
    return asked(host, "postgres", "SELECT pg_walfile_name(pg_switch_wal())")


def databases_of(host: Any, port: int = 5432) -> set[str]:
    """Return the names of the databases of a server, without the templates."""
    return set(asked(host, "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate", port).splitlines())


def is_the_shop(host: Any, database: str = "shop", port: int = 5432) -> None:
    """Assert that a database is the shop with all that it has."""
    assert {sql: asked(host, database, sql, port) for sql in QUESTIONS} == QUESTIONS
