# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that say how to reach the PostgreSQL server."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragment pgops.backup.connection."""

    DOCUMENTATION = r"""
options:
  database_url:
    description:
      - Connection URI, like V(postgresql://backup@db1.example.com:5432/postgres?sslmode=verify-full).
      - Its parts give way to the single options below.
      - The environment variable E(DATABASE_URL) of the host is read when there is neither this nor
        O(database_url_file), O(login_host), O(login_port), O(login_user) or O(login_unix_socket), also not in
        O(config).
      - Mutually exclusive with O(database_url_file).
    type: str
  database_url_file:
    description:
      - File on the host (mode 0600) that holds the connection URI.
    type: path
  login_host:
    description:
      - Host name or address of the server; the local socket is used without one.
    type: str
    aliases: [host]
  login_port:
    description:
      - TCP port, or the number in the socket's name; V(5432) where nothing says otherwise.
    type: int
    aliases: [port]
  login_user:
    description:
      - Role to log in as; the name of the account that runs the module when it is not given.
    type: str
  login_password:
    description:
      - Password of O(login_user). Rather use O(login_password_file) or a passfile of libpq.
      - Mutually exclusive with O(login_password_file).
    type: str
  login_password_file:
    description:
      - File on the host (mode 0600) that holds the password.
    type: path
  login_unix_socket:
    description:
      - Directory of the Unix socket, when it is not the usual one.
    type: path
    aliases: [unix_socket]
  login_db:
    description:
      - Database to log in to for what concerns the whole server.
      - Defaults to V(postgres).
    type: str
  ssl_mode:
    description:
      - How TLS is asked for (C(sslmode) of libpq); libpq's own default when it is not given.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description:
      - File on the host with the certificates that the server's must descend from (C(sslrootcert) of libpq).
    type: path
    aliases: [ssl_rootcert]
  ssl_cert:
    description:
      - File on the host with the client certificate (C(sslcert) of libpq).
    type: path
  ssl_key:
    description:
      - File on the host with the key of the client certificate (C(sslkey) of libpq).
    type: path
  connect_timeout:
    description:
      - Seconds to wait for a connection, 1 to 600.
      - Defaults to V(10).
    type: int
  bin_dir:
    description:
      - Directory of the PostgreSQL programs on the host.
      - Without it, the newest that fit the server are taken from the usual places and from E(PATH).
    type: path
"""
