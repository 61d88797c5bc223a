# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The sections of the PostgreSQL server and of the hosts that share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .option import option


@dataclass(frozen=True)
class Postgres:
    """How to reach the PostgreSQL server."""

    database_url: str = option(
        "",
        "Connection URI. Parts of it give way to the single options below. The environment variable DATABASE_URL is read "
        "when neither this nor any of login_host, login_port, login_user and login_unix_socket is set.",
        example="postgresql://backup@db1.example.com:5432/postgres?sslmode=verify-full",
        secret=True,
    )
    database_url_file: str = option(
        "", "File (mode 0600) that holds the connection URI.", form="path", example="/etc/pgops/database_url"
    )
    login_host: str = option("", "Host name or address; empty for the local socket.", example="db1.example.com")
    login_port: Optional[int] = option(
        None,
        "TCP port, or the number in the socket's name; 5432 where nothing says otherwise.",
        example=5432,
        least=1,
        most=65535,
    )
    login_user: str = option("", "Role to log in as; the account's own name when empty.", example="backup")
    login_password: str = option("", "Password. Rather use login_password_file or a passfile.", secret=True)
    login_password_file: str = option(
        "", "File (mode 0600) that holds the password.", form="path", example="/etc/pgops/password"
    )
    login_unix_socket: str = option(
        "", "Directory of the Unix socket, when it is not the usual one.", form="path", example="/var/run/postgresql"
    )
    login_db: str = option("postgres", "Database to log in to for what concerns the whole server.", example="postgres")
    ssl_mode: str = option(
        "",
        "How TLS is asked for (libpq's sslmode); libpq's own default when empty.",
        choices=("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        example="verify-full",
    )
    ca_cert: str = option(
        "",
        "File with the certificates that the server's must descend from (sslrootcert).",
        form="path",
        example="/etc/pgops/ca.pem",
    )
    ssl_cert: str = option(
        "", "File with the client certificate (sslcert).", form="path", example="/etc/pgops/client.crt"
    )
    ssl_key: str = option(
        "", "File with the key of the client certificate (sslkey).", form="path", example="/etc/pgops/client.key"
    )
    connect_timeout: int = option(10, "Seconds to wait for a connection.", least=1, most=600)
    bin_dir: str = option(
        "",
        "Directory of the PostgreSQL programs. When empty, the newest that fit the server are taken from the usual places and PATH.",
        form="path",
        example="/usr/lib/postgresql/17/bin",
    )


@dataclass(frozen=True)
class Group:
    """A primary and its standbys, of which one backs up. All nodes have the same section, instance and S3 place."""

    members: list[str] = option(
        [],
        "All nodes of the group, each as `host` or `host:port`, in the order of preference; no group when empty. Every node "
        "asks all of them, with the login of the section postgres, which of them is the primary and how far the others are behind. "
        "Without a port it is asked at `postgres.login_port`; by a node whose own entry has a port, at 5432.",
        example=["db1.example.com", "db2.example.com:5433"],
    )
    node: str = option(
        "",
        "This node's own entry of members; found by this host's name when empty. It is asked as the section postgres says.",
        example="db1.example.com",
    )
    run_on: str = option(
        "primary",
        "Which node backs up, syncs, and verifies and prunes the S3 place. primary: the primary; prefer_standby: the first member "
        "that is a standby and not too far behind, the primary where there is none.",
        choices=("primary", "prefer_standby"),
    )
    max_lag: str = option(
        "5min", "How far a standby may be behind the primary and still be the one that backs up.", form="span"
    )


__all__ = ("Group", "Postgres")
