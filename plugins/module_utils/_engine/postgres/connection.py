# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The connection to PostgreSQL: sessions of our own, and the environment that PostgreSQL's programs get."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ..core.errors import DISK_FULL, CommandError, MissingError, PgopsError, UnreachableError, UsageError
from ..settings import Postgres
from ..system.interrupts import cancelled_at_a_signal, wait_for_cancels

Row = tuple[Any, ...]


_NAMES = {
    "login_host": ("host", "PGHOST"),
    "login_port": ("port", "PGPORT"),
    "login_user": ("user", "PGUSER"),
    "login_password": ("password", "PGPASSWORD"),
    "ssl_mode": ("sslmode", "PGSSLMODE"),
    "ca_cert": ("sslrootcert", "PGSSLROOTCERT"),
    "ssl_cert": ("sslcert", "PGSSLCERT"),
    "ssl_key": ("sslkey", "PGSSLKEY"),
    "connect_timeout": ("connect_timeout", "PGCONNECT_TIMEOUT"),
    "options": ("options", "PGOPTIONS"),  # of a copy only: a pooler refuses them
}

_SOCKETS = ("/var/run/postgresql", "/tmp")  # noqa: S108  # sockets, no files of ours

# What a person should do next, by what the server or libpq says (their English; other languages get the general hint).
_HINTS = (
    ('FATAL: role "', "Make that role (pgops.backup.pg_backup_role does), or correct postgres.login_user."),
    ("password authentication failed", "Check the user and the password (postgres.login_user, login_password_file)."),
    ("no password supplied", "Set postgres.login_password_file, or let the server trust this account."),
    ("no pg_hba.conf entry", "Allow this host, user and database in the server's pg_hba.conf."),
    ("Peer authentication failed", "Run as the account of that name, or log in over TCP with a password."),
    (
        "could not access file",
        "A library that sessions load (session_preload_libraries, local_preload_libraries) is not there: install it, or take it out.",
    ),
    ("Connection refused", "Is the server running, and on that host and port?"),
    ("No such file or directory", "Is the server running? Check postgres.login_unix_socket and login_port."),
    ("could not translate host name", "Check postgres.login_host."),
    ("timeout expired", "Is the host up and the port open in the firewall?"),
    ("is starting up", "Wait until the server has started, then try again."),
    ("too many clients", "Wait, or raise max_connections."),
)

_LOOK = "Look at the server's log."
# Who is refused by these did not reach a server that could be asked what it meant.
_NO_SERVER = (
    *("Connection refused", "No such file or directory", "could not translate host name", "timeout expired"),
    *("No route to host", "Network is unreachable", "Connection timed out"),
)
# Nor is it about one database if a login is refused so; asking again might lock the account.
_NO_LOGIN = ("authentication failed", "no password supplied")
# What may be asked where this role sees it: a server with less, or a database that is gone by now, makes it None.
_UNKNOWN = ("42501", "42883", "42P01", "42703", "58P01")
NO_DATABASE = "3D000"
# PostgreSQL marks so what a DROP DATABASE that was interrupted has left; it takes no connections, and can only be dropped.
INVALID = -2
_TRIES, _CANCELED = 10, "57014"
# Limits of time that end a statement or a whole session, and the first PostgreSQL that knows them.
_LIMITS = (
    ("statement_timeout", 0),
    ("idle_session_timeout", 140000),
    ("transaction_timeout", 170000),
    ("idle_in_transaction_session_timeout", 0),
)
# So a server says that one database takes no logins, and another one may.
_CLOSED = ("is not currently accepting connections", "cannot connect to invalid database")
_LOST = ("server closed the connection", "terminating connection", "could not connect to server", "Connection refused")


def _given(postgres: Postgres) -> dict[str, str]:
    given = {name: str(getattr(postgres, name)) for name in _NAMES if getattr(postgres, name, "")}
    # What libpq would take from its build or from the environment is said, so that sessions and programs agree.
    given.setdefault("login_host", postgres.login_unix_socket or _socket_directory())
    given.setdefault("login_port", "5432")
    return given


def _socket_directory() -> str:
    """Return where servers of this system have their socket: distributions agree on the first, PostgreSQL's own is the second."""
    return next((path for path in _SOCKETS if Path(path).is_dir()), _SOCKETS[-1])


def _forget_environment() -> None:
    """Drop libpq's variables from our own environment: the configuration is the one truth, for sessions as for programs."""
    for name in [n for n in os.environ if n.startswith("PG") and n != "PGPASSFILE"]:
        del os.environ[name]


def program_environment(postgres: Postgres) -> dict[str, str]:
    """Return the environment in which a PostgreSQL program reaches the server; only that one child gets it."""
    environment = {_NAMES[name][1]: value for name, value in _given(postgres).items()}
    return {**environment, "PGAPPNAME": "pgops"}


def without_limits(version_num: int) -> dict[str, str]:
    """Return the settings with which no limit of time ends a session of ours at a server of that version."""
    return {name: "0" for name, since in _LIMITS if version_num >= since}


def as_options(settings: Mapping[str, str]) -> str:
    """Return `settings` as PGOPTIONS has them, where a backslash stands before each blank in a value."""
    return " ".join("-c %s=%s" % setting for setting in settings.items())


def with_options(environment: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with more `settings`, if any, for the sessions of a program."""
    if not settings:
        return dict(environment)
    return {**environment, "PGOPTIONS": _joined(environment.get("PGOPTIONS", ""), as_options(settings))}


def _joined(*options: str) -> str:
    return " ".join(filter(None, options))


def with_database(postgres: Postgres, database: str) -> Postgres:
    """Return `postgres` with another database to log in to."""
    return dataclasses.replace(postgres, login_db=database)


def _driver() -> Any:
    try:
        import psycopg2
    except ImportError as error:
        raise UnreachableError(
            "The Python library psycopg2 cannot be loaded: %s." % error,
            hint="Install python3-psycopg2 (Debian, EL) or psycopg2-binary (pip) for the Python that runs this.",
        ) from error
    return psycopg2


# The texts of a database without an encoding are bytes, mostly UTF-8. In this one they all pass, each as a letter.
_NO_ENCODING, _BYTES = "SQL_ASCII", "LATIN1"


def _to_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode(_BYTES)


def _from_bytes(text: str) -> str:
    """Return UTF-8 as text; a byte that is none becomes a lone surrogate, as in the name of a file."""
    return text.encode(_BYTES).decode("utf-8", "surrogateescape")


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """Return `value`, rows or parameters, with each text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_each(key, change): _each(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    return value


class Session:
    """One connection to one database. In autocommit mode until begin().

    `has_encoding` tells whether the database has one (SQL_ASCII is none).
    """

    def __init__(self, raw: Any, driver: Any, database: str) -> None:
        self._raw, self._driver, self.database = raw, driver, database
        self._since = math.inf
        self.has_encoding = raw.get_parameter_status("server_encoding") != _NO_ENCODING
        cancelled_at_a_signal(self)

    @property
    def busy(self) -> bool:
        """Whether a statement runs now."""
        return self._since < math.inf

    def runs_since(self, moment: float) -> bool:
        """Tell whether a statement runs now that began before `moment` (of time.monotonic())."""
        return self._since < moment

    def rows(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> list[Row]:
        """Return the rows that `sql` gives. Raise PgopsError with what the server says."""
        with self._cursor() as cursor:
            self._execute(cursor, sql, parameters)
            found = list(cursor.fetchall()) if cursor.description else []
        return found if self.has_encoding else _each(found, _from_bytes)

    def value(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> Any:
        """Return the one value that `sql` gives, None where there is no row."""
        rows = self.rows(sql, parameters)
        return rows[0][0] if rows else None

    def execute(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> None:
        """Run `sql`. Raise PgopsError with what the server says."""
        with self._cursor() as cursor:
            self._execute(cursor, sql, parameters)

    def _cursor(self) -> Any:
        try:
            return self._raw.cursor()
        except self._driver.InterfaceError as error:  # the server has ended it since the last statement
            raise UnreachableError(
                "The session in the database %r is over: %s." % (self.database, str(error).rstrip(".")), hint=_LOOK
            ) from None

    def _execute(self, cursor: Any, sql: str, parameters: Optional[Sequence[Any]]) -> None:
        if not self.has_encoding:
            sql, parameters = _each(sql, _to_bytes), _each(parameters, _to_bytes)
        wait_for_cancels()
        try:
            self._since = time.monotonic()
            cursor.execute(sql, parameters)
        except UnicodeEncodeError:
            raise PgopsError(
                "A statement for the database %r holds bytes that are no UTF-8, which only a database without an encoding takes."
                % self.database,
                hint="Rename what is called so, or give it another comment or setting, where it was backed up.",
            ) from None
        except self._driver.Error as error:
            kind: type[PgopsError] = UnreachableError if self._raw.closed else PgopsError
            said = (error.diag.message_primary if error.diag else None) or str(error).strip() or type(error).__name__
            said = said if self.has_encoding else _from_bytes(said)
            failure = kind("In the database %r the server said: %s." % (self.database, said.rstrip(".")), hint=_LOOK)
            failure.sqlstate = error.pgcode  # type: ignore[attr-defined]  # for allowed()
            raise failure from None
        finally:
            self._since = math.inf

    def allowed(
        self, sql: str, parameters: Optional[Sequence[Any]] = None, *, also: Sequence[str] = ()
    ) -> Optional[list[Row]]:
        """Return the rows of `sql`, or None when this role may not ask that or the server does not know it.

        `also` are more SQLSTATEs with which it does not.
        """
        in_transaction = not self._raw.autocommit
        if in_transaction:
            self.execute("SAVEPOINT pgops")
        try:
            return self.rows(sql, parameters)
        except PgopsError as error:
            if getattr(error, "sqlstate", None) not in (*_UNKNOWN, *also):
                raise
            if in_transaction:
                self.execute("ROLLBACK TO SAVEPOINT pgops")
            return None

    def begin_snapshot(self) -> str:
        """Begin a read-only transaction that sees one moment, and return the snapshot's name for pg_dump."""
        self._raw.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
        return str(self.value("SELECT pg_export_snapshot()"))

    def ended(self) -> Optional[PgopsError]:
        """Return what the server said when it ended the session, which had nothing to do then; None if it is alive."""
        with contextlib.suppress(self._driver.Error):
            self._raw.poll()  # libpq keeps last words that nobody waited for as notices, and tells nothing of them later
        try:
            self.execute("SELECT 1")
        except PgopsError as error:
            if not self._raw.closed:
                return None  # only its transaction has failed
            said = self._raw.notices[-1].strip().rstrip(".") if self._raw.notices else ""
            return (
                UnreachableError("The session in %r was ended: %s." % (self.database, said), hint=_LOOK)
                if said
                else error
            )
        return None

    def cancel(self) -> None:
        """Cancel what the session does now; callable from another thread."""
        try:
            self._raw.cancel()
        except self._driver.Error:
            return

    def close(self) -> None:
        """End the session."""
        self._raw.close()

    def __enter__(self) -> Session:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()


def connect(postgres: Postgres, database: str = "", *, options: str = "") -> Session:
    """Return a session in `database` (the login database when empty), with `options` as PGOPTIONS has them.

    Raise MissingError if there is no such database, LostError if there is and the server has lost its files,
    UnreachableError if the server cannot be reached or refuses us.
    """
    driver = _driver()
    name = database or postgres.login_db
    try:
        raw = _connected(driver, name, postgres, options)
    except driver.OperationalError as error:
        said = str(error)
        raise _refusal(said, name, postgres, _looked_up(driver, said, name, postgres)) from None
    except (driver.Error, UnicodeError, ValueError) as error:
        raise UsageError("These are no valid connection options: %s." % str(error).strip()) from None
    session = Session(raw, driver, name)
    # A standby, and a server that recovers, answer no query in a serializable transaction, not even one that sets something.
    _persist(session, "SET default_transaction_isolation TO 'read committed'")
    # The same settings on every server, so that texts compare; nothing may end a long, quiet snapshot.
    for setting, value in (
        *without_limits(raw.server_version).items(),
        ("row_security", "off"),
        ("search_path", ""),
        ("DateStyle", "ISO, YMD"),
        ("TimeZone", "UTC"),
        ("standard_conforming_strings", "on"),
        ("jit", "off"),  # compiling a count of many tables takes longer than the counting
    ):
        _persist(session, "SELECT pg_catalog.set_config(%s, %s, false)", (setting, value))
    # What we hear is looked at, and shown to people, in English. Others than superusers may not ask for that.
    session.execute(
        "SELECT pg_catalog.set_config('lc_messages', 'C', false) FROM pg_catalog.pg_roles"
        " WHERE rolname = current_user AND rolsuper"
    )
    # When we are killed, the server ends what it does for us, also where it waits for a lock. Known since PostgreSQL 14,
    # refused where the server's system cannot look after a connection.
    with contextlib.suppress(PgopsError):
        session.execute(
            "SELECT pg_catalog.set_config(name, '2s', false) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'"
        )
    return session


def connect_any(postgres: Postgres, databases: Sequence[str]) -> Session:
    """Return a session in the login database, or in the first of `databases` where there is none or it takes no logins.

    Raise what connect() says of the login database if none of them does.
    """
    try:
        return connect(postgres)
    except PgopsError as error:
        if not _is_about_one(error):
            raise
        first = error
    for name in dict.fromkeys(name for name in databases if name != postgres.login_db):
        try:
            return connect(postgres, name)
        except PgopsError as error:
            if not _is_about_one(error):
                raise
    raise first


def _is_about_one(error: PgopsError) -> bool:
    """Tell whether it says of one database only that it cannot be logged in to."""
    return isinstance(error, (MissingError, LostError)) or any(words in error.message for words in _CLOSED)


def _connected(driver: Any, name: str, postgres: Postgres, options: str = "") -> Any:
    given = {_NAMES[key][0]: value for key, value in _given(postgres).items()}
    if options:
        given["options"] = _joined(given.get("options", ""), options)
    _forget_environment()
    raw = driver.connect(dbname=name, application_name="pgops", client_encoding="UTF8", **given)
    raw.autocommit = True
    if raw.get_parameter_status("server_encoding") == _NO_ENCODING:
        raw.set_client_encoding(_BYTES)
    return raw


_GONE, _THERE, _LOST_FILES = "gone", "there", "lost files"


def _looked_up(driver: Any, said: str, name: str, postgres: Postgres) -> str:
    """Return what the catalog says of the database `name`, which refused us with `said`; empty where it cannot be asked.

    A refusal has no SQLSTATE, its words are in the server's language, and the server also says of a database whose files
    are gone that it does not exist.
    """
    if any(part in said for part in (*_NO_SERVER, *_NO_LOGIN)):
        return ""
    for other in dict.fromkeys((postgres.login_db, "postgres", "template1")):
        if other == name:
            continue
        try:
            raw = _connected(driver, other, postgres)
        except driver.Error as error:
            # What names that database, and is not said of both, is about it, and another one may let us in.
            if other in str(error) and str(error) != said:
                continue
            return ""  # each further try may count against the account
        with contextlib.closing(raw), Session(raw, driver, other) as session:
            try:
                if not session.rows("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (name,)):
                    return _GONE
                size = session.allowed(_SIZE, (name,), also=(NO_DATABASE,))
                return _LOST_FILES if size == [(None,)] else _THERE
            except PgopsError:
                return ""
    return ""


# There is no row where this role may not know it. Where no file of it is left, PostgreSQL does not know it.
_SIZE = """
SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = %s AND datconnlimit <> -2
AND (pg_catalog.has_database_privilege(oid, 'CONNECT') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'))
"""


def _persist(session: Session, sql: str, parameters: Optional[Sequence[Any]] = None) -> None:
    """Change a setting by `sql`. The database or the role may have a limit for statements so short that it ends even the one that
    lifts it; a limit that strikes as a statement ends is felt by the next one.
    """
    for left in reversed(range(_TRIES)):
        try:
            session.execute(sql, parameters)
            return
        except PgopsError as error:
            if not left or getattr(error, "sqlstate", "") != _CANCELED:
                raise


class TurnedAwayError(UnreachableError):
    """A server answered, and refused us this database: another one of it may let us in."""


class LostError(PgopsError):
    """The server lists the database and cannot open it: its files are lost."""


def _refusal(said: str, database: str, postgres: Postgres, known: str = "") -> PgopsError:
    text = " ".join(said.split())
    where = "%s port %s" % (
        postgres.login_host or postgres.login_unix_socket or "the local socket",
        postgres.login_port or 5432,
    )
    # Where nobody could be asked, the words must say just that; of lost files they say more.
    alone = text.endswith('database "%s" does not exist' % " ".join(database.split()))
    if known == _LOST_FILES:
        return LostError(
            "The server at %s has the database %r and cannot open it, its files are lost: %s."
            % (where, database, text.rstrip(".")),
            hint="%s Restore it (pgops restore --list), or, to save the others meanwhile, put it into backup.exclude_databases."
            % _LOOK,
        )
    if known == _GONE or (alone and not known):
        return MissingError(
            "There is no database %r at %s." % (database, where), hint="Names are case-sensitive; psql -l lists them."
        )
    hint = next((hint for part, hint in _HINTS if part in text), "Check the section postgres of the configuration.")
    alike = any(part in said for part in (*_NO_SERVER, *_NO_LOGIN))
    kind = UnreachableError if alike else TurnedAwayError
    return kind("No connection to %r at %s: %s." % (database, where, text.rstrip(".")), hint=hint)


def explained(error: PgopsError) -> PgopsError:
    """Return what a program of PostgreSQL failed with as UnreachableError if it lost the server, and with a next step."""
    if isinstance(error, CommandError) and any(part in error.stderr for part in _LOST):
        return UnreachableError(error.message, hint="%s Run it again when it takes connections." % _LOOK)
    if isinstance(error, CommandError) and os.strerror(errno.ENOSPC) in error.stderr:
        error.hint = DISK_FULL  # ours, or the server's: the message tells
    error.hint = error.hint or _LOOK
    return error


@dataclass(frozen=True)
class Server:
    """Facts about a server."""

    version_num: int
    version: str
    system_identifier: str
    timeline: Optional[int]
    in_recovery: bool
    superuser: bool
    user: str
    data_directory: str
    max_connections: int
    used_connections: int

    @property
    def major(self) -> int:
        """The major version: 15, 18."""
        return self.version_num // 10000


def server_facts(session: Session) -> Server:
    """Return what the server tells about itself; what this role may not know is empty."""
    row = session.rows(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),"
        " (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), current_user::text,"
        " current_setting('max_connections')::int, (SELECT count(*) FROM pg_catalog.pg_stat_activity)"
    )[0]
    system = session.allowed("SELECT system_identifier::text FROM pg_catalog.pg_control_system()") or [("",)]
    timeline = session.allowed("SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()") or [(None,)]
    directory = session.allowed("SELECT current_setting('data_directory')") or [("",)]
    return Server(
        version_num=row[0],
        version=str(row[1]).split()[0],
        system_identifier=system[0][0],
        timeline=timeline[0][0],
        in_recovery=row[2],
        superuser=bool(row[3]),
        user=row[4],
        data_directory=directory[0][0],
        max_connections=row[5],
        used_connections=row[6],
    )


__all__ = (
    "INVALID",
    "NO_DATABASE",
    "LostError",
    "Row",
    "Server",
    "Session",
    "TurnedAwayError",
    "as_options",
    "connect",
    "connect_any",
    "explained",
    "program_environment",
    "server_facts",
    "with_database",
    "with_options",
    "without_limits",
)
