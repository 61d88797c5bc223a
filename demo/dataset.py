# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill a server with two databases that hold what real ones hold, hostile names and edge values included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from psycopg2 import sql

ORDERING = "ordering_system"
HOSTILE = 'Customer\'s "späte" Bestellungen-2'
DATABASES = (ORDERING, HOSTILE)
_SQL = Path(__file__).parent / "sql"

_AT_THE_SAME_TIME = ("large_orders.sql", "large_others.sql")

# Rights and settings of the database itself, which a dump of its content alone does not hold.
_OF_DATABASE = '''
ALTER DATABASE {db} SET timezone = 'Europe/Berlin';
ALTER DATABASE {db} SET search_path = public, sales, "Customer's ""Archive""";
ALTER DATABASE {db} SET "app.motto" = 'it''s 100% "fine"';
ALTER DATABASE {db} CONNECTION LIMIT 90;
ALTER ROLE "ordering app" IN DATABASE {db} SET "app.tenant" = 'tenant 7';
ALTER ROLE "größe_λ_注文" IN DATABASE {db} SET lock_timeout = '3s';
REVOKE CONNECT ON DATABASE {db} FROM PUBLIC;
GRANT CONNECT ON DATABASE {db} TO "read only", "ordering app" WITH GRANT OPTION;
GRANT TEMPORARY, CREATE ON DATABASE {db} TO "O'Brien ""the DBA""";
COMMENT ON DATABASE {db} IS 'All orders; Anna''s "own" database \\ größe';
'''


class Server(Protocol):
    """What this needs of a server."""

    def connect(self, dbname: str = "postgres", *, autocommit: bool = True) -> Any:
        """Return a psycopg2 connection of a superuser."""


def fill(server: Server, *, scale: float = 1.0) -> tuple[str, ...]:
    """Create the roles and both databases; at scale 1 about 200 MB. Return the databases' names."""
    _run_file(server, "postgres", "roles.sql", scale)
    with _cursor(server, "postgres") as cursor:
        if cursor.connection.server_version >= 150000:
            cursor.execute('GRANT SET ON PARAMETER log_min_duration_statement TO "ordering app" WITH GRANT OPTION')
        for name, owner in ((ORDERING, "ordering_owner"), (HOSTILE, 'O\'Brien "the DBA"')):
            owned = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
            cursor.execute(owned)
    _fill_ordering(server, scale)
    _run_file(server, HOSTILE, "hostile.sql", scale)
    with _cursor(server, "postgres") as cursor:
        for name in DATABASES:
            cursor.execute(sql.SQL(_OF_DATABASE).format(db=sql.Identifier(name)))
    return DATABASES


def _fill_ordering(server: Server, scale: float) -> None:
    for name in ("shapes.sql", "pool.sql"):
        _run_file(server, ORDERING, name, scale)
    _at_the_same_time([(_run_file, server, ORDERING, name, scale) for name in _AT_THE_SAME_TIME])
    for name in ("rows.sql", "rules.sql"):
        _run_file(server, ORDERING, name, scale)
    with _cursor(server, ORDERING) as cursor:
        cursor.execute("DROP SCHEMA fill CASCADE")
        _add_newer(cursor)
        _add_extensions(cursor)


def _run_file(server: Server, dbname: str, name: str, scale: float) -> None:
    with _cursor(server, dbname) as cursor:
        cursor.execute("SELECT set_config('fill.scale', %s, false)", [str(scale)])
        cursor.execute((_SQL / name).read_text())


def _at_the_same_time(calls: list[tuple[Any, ...]]) -> None:
    """Run each call in a thread; the first failure is raised when all have ended."""
    failures: list[BaseException] = []

    def run(function: Any, *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _add_newer(cursor: Any) -> None:
    """Add what only newer servers know."""
    version = cursor.connection.server_version
    if version >= 150000:
        cursor.execute("CREATE VIEW sales.invoked WITH (security_invoker) AS SELECT no FROM sales.invoices")
        cursor.execute("CREATE UNIQUE INDEX one_null ON public.empty_table (what) NULLS NOT DISTINCT")
    if version >= 160000:
        cursor.execute('GRANT "100% UPPER" TO "größe_λ_注文" WITH INHERIT FALSE, SET FALSE')
    if version >= 180000:
        cursor.execute("ALTER TABLE stock.lorry ADD tonnes numeric GENERATED ALWAYS AS (load_kg / 1000.0) VIRTUAL")
        cursor.execute("ALTER TABLE stock.bookings ADD CONSTRAINT not_closed CHECK (closed IS NOT NULL) NOT ENFORCED")


def _add_extensions(cursor: Any) -> None:
    """Use the extensions that the server's build happens to have."""
    cursor.execute("SELECT name FROM pg_available_extensions")
    available = {name for (name,) in cursor.fetchall()}
    if "vector" in available:
        cursor.execute("CREATE EXTENSION vector SCHEMA stock")
        cursor.execute(
            "CREATE TABLE stock.embeddings AS SELECT i, array[i, i / 2.0, -i]::real[]::stock.vector(3) AS v"
            " FROM generate_series(1, 200) i"
        )
        cursor.execute("CREATE INDEX ON stock.embeddings USING hnsw (v stock.vector_l2_ops)")
    if "hstore" in available:
        cursor.execute("CREATE EXTENSION hstore SCHEMA public; COMMENT ON EXTENSION hstore IS 'it''s ours'")
        cursor.execute(
            "CREATE TABLE stock.labels AS SELECT i, public.hstore('k' || i, NULLIF(i % 3, 0)::text) AS h"
            " FROM generate_series(1, 200) i"
        )
    if "pg_trgm" in available:
        cursor.execute("CREATE EXTENSION pg_trgm SCHEMA public")
        cursor.execute("CREATE INDEX names_by_trigram ON sales.customers USING gist (name public.gist_trgm_ops)")


@contextmanager
def _cursor(server: Server, dbname: str) -> Iterator[Any]:
    with closing(server.connect(dbname)) as connection, connection.cursor() as cursor:
        # The rows must not depend on the session or the day.
        cursor.execute("SET timezone = 'UTC'; SET search_path = public; SELECT setseed(0.42)")
        yield cursor
