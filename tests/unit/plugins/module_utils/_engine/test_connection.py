# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection: what programs get to know, and what a refusal tells a person."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import MissingError, UnreachableError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import connection
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Postgres


def test_programs_get_what_is_set_and_nothing_else() -> None:
    postgres = Postgres(
        login_host="db1",
        login_port=5433,
        login_user="anna",
        login_password="geheim",
        ssl_mode="verify-full",
        ca_cert="/ca",
    )
    assert connection.program_environment(postgres) == {
        "PGHOST": "db1",
        "PGPORT": "5433",
        "PGUSER": "anna",
        "PGPASSWORD": "geheim",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca",
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "pgops",
    }


def test_a_socket_directory_is_a_host_unless_there_is_one() -> None:
    assert connection.program_environment(Postgres(login_unix_socket="/run/x"))["PGHOST"] == "/run/x"
    assert connection.program_environment(Postgres(login_unix_socket="/run/x", login_host="db1"))["PGHOST"] == "db1"
    assert connection.program_environment(Postgres())["PGHOST"] == "/var/run/postgresql"


def test_only_limits_that_the_server_knows_are_lifted() -> None:
    known = {v: set(connection.without_limits(v)) for v in (130022, 140000, 170000)}
    assert known[130022] == {"statement_timeout", "idle_in_transaction_session_timeout"}
    assert known[140000] - known[130022] == {"idle_session_timeout"}
    assert known[170000] - known[140000] == {"transaction_timeout"}
    assert connection.as_options({"a": "0", "b": "off"}) == "-c a=0 -c b=off"
    assert connection.as_options({}) == ""


def test_another_database_leaves_the_rest() -> None:
    postgres = connection.with_database(Postgres(login_host="db1"), "x")
    assert (postgres.login_db, postgres.login_host) == ("x", "db1")


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ('FATAL:  database "x" does not exist', MissingError, "case-sensitive"),
        ('FATAL:  password authentication failed for user "a"', UnreachableError, "login_password_file"),
        ("fe_sendauth: no password supplied", UnreachableError, "login_password_file"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', connection.TurnedAwayError, "pg_hba.conf"),
        ("Connection refused", UnreachableError, "running"),
        ('could not translate host name "db9" to address', UnreachableError, "login_host"),
        ("timeout expired", UnreachableError, "firewall"),
        ("FATAL:  the database system is starting up", connection.TurnedAwayError, "Wait"),
        ("FATAL:  sorry, too many clients already", connection.TurnedAwayError, "max_connections"),
        ("FATAL:  das Passwort ist falsch", connection.TurnedAwayError, "section postgres"),
    ],
)
def test_a_refusal_says_what_to_do_next(said: str, kind: type[Exception], hint: str) -> None:
    error = connection._refusal(said, "x", Postgres(login_host="db1"))
    assert error.__class__ is kind and hint in error.hint
    assert "'x' at db1 port 5432" in error.message


@pytest.mark.parametrize(
    ("said", "known", "kind"),
    [
        ("FATAL:  Datenbank »x« existiert nicht", connection._GONE, MissingError),
        ("FATAL:  Datenbank »x« existiert nicht", connection._LOST_FILES, connection.LostError),
        ('FATAL:  database "x" does not exist', connection._LOST_FILES, connection.LostError),
        ('FATAL:  database "x" does not exist', connection._THERE, connection.TurnedAwayError),
        (
            'FATAL:  database "x" does not exist DETAIL:  The database subdirectory "base/1" is missing.',
            "",
            connection.TurnedAwayError,
        ),
        ('FATAL:  role "database_backup" does not exist', "", connection.TurnedAwayError),
    ],
)
def test_the_catalog_counts_for_more_than_the_words(said: str, known: str, kind: type[Exception]) -> None:
    assert connection._refusal(said, "x", Postgres(), known).__class__ is kind


@contextmanager
def refusing(said: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the port of a server that refuses each login with `said` about its database, and the databases, as they come."""
    logins: list[str] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                peer, _address = listening.accept()
                with peer, suppress(OSError), peer.makefile("rb") as stream:
                    size, code = struct.unpack("!II", stream.read(8))
                    while code in (80877103, 80877104):  # whether we speak TLS, or GSSAPI
                        peer.sendall(b"N")
                        size, code = struct.unpack("!II", stream.read(8))
                    words = stream.read(size - 8).split(b"\0")
                    logins.append(words[words.index(b"database") + 1].decode())
                    text = said.replace("DATABASE", logins[-1]).encode()
                    fields = b"SFATAL\0VFATAL\0C28000\0M" + text + b"\0\0"
                    peer.sendall(b"E" + struct.pack("!I", 4 + len(fields)) + fields)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1], logins
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("said", "user", "logins"),
    [
        ('password authentication failed for user "a"', "a", ["x"]),
        ("Passwort-Authentifizierung für Benutzer »a« fehlgeschlagen", "a", ["x", "postgres"]),
        ("Passwort-Authentifizierung für Benutzer »postgres« fehlgeschlagen", "postgres", ["x", "postgres"]),
        ("sorry, too many clients already", "a", ["x", "postgres"]),
        ('no pg_hba.conf entry for host "::1", user "a", database "DATABASE"', "a", ["x", "postgres", "template1"]),
        ("Datenbank »DATABASE« existiert nicht", "a", ["x", "postgres", "template1"]),
    ],
)
def test_a_refusal_that_is_of_no_one_database_is_not_tried_on_others(said: str, user: str, logins: list[str]) -> None:
    """An account is locked after so many of them. In English it is known at once, in other languages with the second."""
    with refusing(said) as (port, found):
        with pytest.raises(UnreachableError):
            connection.connect(
                Postgres(login_host="127.0.0.1", login_port=port, login_user=user, login_password="p"), "x"
            )
        assert found == logins


def test_a_port_nobody_listens_on() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError, match="Connection refused"):
        connection.connect(
            Postgres(login_host="127.0.0.1", login_port=port, login_user="a", login_password="geheim-sehr")
        )


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        connection.connect(Postgres(login_unix_socket=str(tmp_path), login_user="a"))
    assert "login_unix_socket" in caught.value.hint
