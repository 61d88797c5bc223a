# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A throwaway server: nobody outside this process can reach it, it archives nothing, and it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..context import Context
from ..core.errors import CommandError, UnreachableError, UsageError
from ..settings import Postgres
from ..system.runner import Command
from .connection import connect, server_facts
from .loading import Target
from .tools import Programs, pick

# Speed over safety: its data are a copy, and are thrown away. Nothing of the original server may act in it.
_SETTINGS = {
    "archive_mode": "off",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "",
    "logging_collector": "off",
    "max_connections": "40",
    "max_logical_replication_workers": "0",
    "max_prepared_transactions": "10",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
    "shared_preload_libraries": "",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}
_STOP_SECONDS = 60
_SOCKETS = "pgops-socket-"
_ROOM_FOR_SOCKETS = 60
_PREFIX = "pgops-verify-%s-"
_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_restore", "psql")


@contextlib.contextmanager
def throwaway(context: Context, folder: Path, *, major: int, superuser: str) -> Iterator[Target]:
    """Yield a fresh server of version `major` or the next newer, in `folder`, with the bootstrap role `superuser`.

    It listens on a socket in a private directory only. Raise UnreachableError if no server programs are installed or it
    does not start, UsageError if the account that is to run it is unknown.
    """
    settings = context.config.verify
    programs, warnings = pick(
        context.runner, settings.server_bin_dir or context.config.postgres.bin_dir, major=major, needed=_PROGRAMS
    )
    for warning in warnings:
        context.warn(warning)
    account = _account(settings.run_as)
    sockets = _socket_directory()
    home = _home(context, folder, account)
    data = home / "data"
    try:
        _give(account, sockets, home)
        _initialize(context, programs, data, account, superuser)
        with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as stream:
            for name, value in {**_SETTINGS, "unix_socket_directories": str(sockets)}.items():
                stream.write("%s = '%s'\n" % (name, value.replace("'", "''")))
        _start(context, programs, data, account)
        try:
            postgres = Postgres(login_unix_socket=str(sockets), login_user=superuser, login_db="template1")
            with connect(postgres) as session:
                server = server_facts(session)
            yield Target(postgres, programs, server)
        finally:
            _stop(context, programs, data, account)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


def _socket_directory() -> Path:
    """Return a new private directory with a short path: that of a socket has 107 bytes at most."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=_SOCKETS, dir=usual if len(usual) <= _ROOM_FOR_SOCKETS else "/tmp"))  # noqa: S108


def _home(context: Context, folder: Path, account: str) -> Path:
    """Return a new directory for the server: in `folder`, or where another account can reach it."""
    if not account:
        home = folder / "server"
        home.mkdir(mode=0o700)
        return home
    base = context.config.work_dir or "/var/tmp"  # noqa: S108  # mkdtemp makes a private directory in it
    return Path(tempfile.mkdtemp(prefix=_PREFIX % context.config.instance, dir=base))


def _account(wanted: str) -> str:
    """Return the account for the server when we are root, empty when we are not: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ""
    for name in (wanted,) if wanted else ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise UsageError(
        "There is no account %r to run the throwaway server." % (wanted or "postgres"), hint="Set verify.run_as."
    )


def _give(account: str, *paths: Path) -> None:
    if account:
        for path in paths:
            os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)


def _initialize(context: Context, programs: Programs, data: Path, account: str, superuser: str) -> None:
    context.runner.run(
        Command(
            (
                programs.path("initdb"),
                "--pgdata=%s" % data,
                "--username=%s" % superuser,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ),
            user=account,
        )
    )


def _start(context: Context, programs: Programs, data: Path, account: str) -> None:
    log = data.parent / "server.log"
    command = Command(
        (programs.path("pg_ctl"), "start", "--wait", "--timeout=60", "--pgdata=%s" % data, "--log=%s" % log),
        user=account,
    )
    try:
        context.runner.run(command)
    except CommandError as error:
        lines: list[str] = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        raise UnreachableError(
            "The throwaway server did not start: %s" % (" / ".join(lines[-3:]) or error.message),
            hint="Look for memory, disk space and limits of the account.",
        ) from None


def _stop(context: Context, programs: Programs, data: Path, account: str) -> None:
    command = Command(
        (
            programs.path("pg_ctl"),
            "stop",
            "--mode=immediate",
            "--wait",
            "--timeout=%d" % _STOP_SECONDS,
            "--pgdata=%s" % data,
        ),
        user=account,
    )
    done = context.runner.run(command, check=False, timeout=_STOP_SECONDS + 30)
    if done.returncode != 0 and (data / "postmaster.pid").exists():
        context.warn("The throwaway server in %s could not be stopped: %s" % (data, done.stderr))


def clear_abandoned(context: Context) -> None:
    """End throwaway servers of this instance that a killed run left behind, and remove their files. Only under the verify lock."""
    own = Path(context.config.work_dir) if context.config.work_dir else context.state / "work"
    shared = Path(context.config.work_dir or "/var/tmp")  # noqa: S108
    for folder in (*own.glob("verify-*"), *shared.glob(_PREFIX % context.config.instance + "*")):
        for pid_file in (*folder.glob("data/postmaster.pid"), *folder.glob("server/data/postmaster.pid")):
            _end_abandoned(context, pid_file)
        shutil.rmtree(folder, ignore_errors=True)
        context.warn("Removed %s, which a verification that was cut short left behind." % folder)


def _end_abandoned(context: Context, pid_file: Path) -> None:
    data, settings = pid_file.parent, context.config.verify
    lines = pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
    major = int((data / "PG_VERSION").read_text(encoding="ascii").strip())
    programs, _warnings = pick(
        context.runner, settings.server_bin_dir or context.config.postgres.bin_dir, major=major, needed=_PROGRAMS
    )
    _stop(context, programs, data, _account(settings.run_as))
    # The fifth line is the socket's directory (PostgreSQL manual, 66.1).
    if len(lines) > 4 and Path(lines[4]).name.startswith(_SOCKETS):
        shutil.rmtree(lines[4], ignore_errors=True)


__all__ = ("clear_abandoned", "throwaway")
