# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A throwaway server: nobody outside this process can reach it, it archives nothing, and it is gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional

from ..context import Context
from ..core.errors import CommandError, UnreachableError, UsageError
from ..system.durable import adopt
from ..system.runner import Command
from .connection import connect_any, server_facts, with_database
from .fencing import CopyLogin, no_event_triggers
from .target import Target
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
# What a copy of a whole cluster needs beside that: it may replay WAL, of which nothing may be skipped.
_OF_A_COPY = {
    "hot_standby": "on",
    "ssl": "off",
    "wal_level": "replica",
}
_START_SECONDS = 600
_STOP_SECONDS = 60
_SOCKETS = "pgops-socket-"
_ROOM_FOR_SOCKETS = 60
_PREFIX = "pgops-%s-%s-"  # label, instance
_MARKER = "pgops.json"
_REMOVALS = 100
_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_restore", "psql")


# Puts a data directory into the new directory, as an account, by programs; returns settings that the server needs for it.
Fill = Callable[[Programs, Path, str], Mapping[str, str]]


@contextlib.contextmanager
def throwaway(
    context: Context,
    folder: Path,
    *,
    major: int,
    superuser: str,
    fill: Optional[Fill] = None,
    databases: Sequence[str] = (),
) -> Iterator[Target]:
    """Yield a fresh server of version `major` or the next newer, in `folder`, with the bootstrap role `superuser`.

    With `fill`, its data directory is what that puts there, and the version is exactly `major`; its `databases` are tried
    where the usual ones take no logins.
    It listens on a socket in a private directory only. Raise UnreachableError if no server programs are installed or it
    does not start, UsageError if the account that is to run it is unknown, and what `fill` raises.
    """
    programs = server_programs(context, major, exactly=fill is not None)
    account = account_of(context)
    with contextlib.ExitStack() as stack:
        sockets = socket_directory()
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        home = home_for_server(context, folder, account)
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.enter_context(claimed(context, home))
        data = home / "data"
        give(account, sockets, home)
        own = {**_SETTINGS, **no_event_triggers(programs.major)}
        if fill is None:
            _initialize(context, programs, data, account, superuser)
        else:
            own = {**own, **_OF_A_COPY, **fill(programs, data, account)}
        with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as stream:
            for name, value in {**own, "unix_socket_directories": str(sockets)}.items():
                stream.write("%s = '%s'\n" % (name, value.replace("'", "''")))
        start_server(context, programs, data, account)
        try:
            postgres = CopyLogin(login_unix_socket=str(sockets), login_user=superuser, login_db="template1")
            with connect_any(postgres, ("postgres", *databases)) as session:
                server = server_facts(session)
            yield Target(with_database(postgres, session.database), programs, server)
        finally:
            stop_server(context, programs, data, account)


def server_programs(context: Context, major: int, *, exactly: bool = False) -> Programs:
    """Return server programs of version `major` or, unless it must be `exactly` that, the next newer.

    Raise UnreachableError or UsageError if there are none.
    """
    settings = context.config.verify
    bin_dir = settings.server_bin_dir or context.config.postgres.bin_dir
    programs, warnings = pick(context.runner, bin_dir, major=major, needed=_PROGRAMS)
    if exactly and programs.major != major:
        raise UnreachableError(
            "A data directory of PostgreSQL %d needs server programs of that version; here are those of %s."
            % (major, programs.version),
            hint="Install postgresql-%d, or name the directory of its programs in verify.server_bin_dir." % major,
        )
    for warning in warnings:
        context.warn(warning)
    return programs


@contextlib.contextmanager
def claimed(context: Context, folder: Path) -> Iterator[None]:
    """Say in `folder` which instance it belongs to, and lock that file while somebody lives there.

    Where that cannot be done, no run ever takes the folder for abandoned: the lesser evil.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            handle = os.open(folder / _MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, handle)
            adopt(folder / _MARKER)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The name comes after the lock: a marker that names nobody is left alone.
            os.write(handle, json.dumps({"instance": context.config.instance, "pid": os.getpid()}).encode())
        yield


def _sockets_base() -> Path:
    """Return the directory for those of sockets: its path must be short, as a socket's has 107 bytes at most."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= _ROOM_FOR_SOCKETS else "/tmp")  # noqa: S108


def socket_directory() -> Path:
    """Return a new private directory with a short path."""
    return Path(tempfile.mkdtemp(prefix=_SOCKETS, dir=_sockets_base()))


def room_for_server(context: Context, folder: Path) -> Path:
    """Return the directory in which the home of a server is made: `folder`, or where another account can reach it."""
    if not account_of(context):
        return folder
    return Path(context.config.work_dir or "/var/tmp")  # noqa: S108  # mkdtemp makes a private directory in it


def home_for_server(context: Context, folder: Path, account: str, label: str = "verify") -> Path:
    """Make and return a private directory for the files of a server: in `folder`, or where its `account` can reach it.

    `label` is that of its verb, which alone clears what it left behind: another one could take a new directory for abandoned.
    """
    room = room_for_server(context, folder)
    if account:
        return Path(tempfile.mkdtemp(prefix=_PREFIX % (label, context.config.instance), dir=room))
    home = room / "server"
    home.mkdir(mode=0o700)
    return home


def account_of(context: Context) -> str:
    """Return the account for the server when we are root, empty when we are not: PostgreSQL refuses to run as root.

    Raise UsageError if there is no such account.
    """
    if os.geteuid() != 0:
        return ""
    wanted = context.config.verify.run_as
    for name in (wanted,) if wanted else ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise UsageError(
        "There is no account %r to run the throwaway server." % (wanted or "postgres"), hint="Set verify.run_as."
    )


def give(account: str, *paths: Path) -> None:
    """Let `paths` belong to the account, if there is one."""
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


def start_server(context: Context, programs: Programs, data: Path, account: str) -> None:
    """Start the server of `data` and wait until it takes connections. Raise UnreachableError with the end of its log."""
    log = data.parent / "server.log"
    command = Command(
        (
            programs.path("pg_ctl"),
            "start",
            "--wait",
            "--timeout=%d" % _START_SECONDS,
            "--pgdata=%s" % data,
            "--log=%s" % log,
        ),
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


def stop_server(context: Context, programs: Programs, data: Path, account: str) -> None:
    """Stop the server of `data` at once; warn if it does not end."""
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


def clear_abandoned(context: Context, label: str = "verify") -> None:
    """End throwaway servers of this instance that a killed run left behind, and remove their files.

    `label` is that of the scratch folders, `verify`, `restore` or `rescue`; only under the lock of that name.

    A folder in a directory that others may use as well is touched only if its marker names this instance and nobody
    holds the marker's lock.
    """
    private, shared = context.state / "work", Path(context.config.work_dir or "/var/tmp")  # noqa: S108
    found = dict.fromkeys(private.glob(label + "-*"), True)
    if context.config.work_dir:
        found.update((folder, False) for folder in shared.glob(label + "-*") if folder not in found)
    prefix = _PREFIX % (label, context.config.instance)
    found.update((folder, False) for folder in shared.glob(prefix + "*"))
    for folder, own in found.items():
        with contextlib.ExitStack() as stack:
            if not _vacant(context, folder, own, prefix, stack):
                continue
            try:
                ended = end_servers(context, folder)
            except (OSError, ValueError) as error:
                context.warn("What a run left behind in %s could not be examined: %s." % (folder, error))
                continue
            if not ended:
                context.warn("The throwaway server in %s does not end. Stop it, and remove the folder." % folder)
                continue
            if _removed(folder):
                context.warn("Removed %s, which a run that was cut short left behind." % folder)
            else:
                context.warn("%s, which a run that was cut short left behind, cannot be removed." % folder)


def _removed(folder: Path) -> bool:
    """Remove `folder`, again while a program of the killed run, which ends by itself, still writes or removes in it."""
    for _attempt in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return True
        time.sleep(0.1)
    return False


def _vacant(context: Context, folder: Path, own: bool, prefix: str, stack: contextlib.ExitStack) -> bool:
    """Tell whether `folder` is this instance's and nobody lives in it; its lock is held until `stack` ends.

    What lies in this instance's `own` state directory is its own without a marker, too.
    """
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in _owners(context, folder):
            return False
        handle = os.open(folder / _MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return own or _just_made(folder, prefix)
    except OSError:
        return False
    stack.callback(os.close, handle)
    try:
        if not own and json.loads(os.read(handle, 4096))["instance"] != context.config.instance:
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, ValueError, KeyError, TypeError):
        return _just_made(folder, prefix)
    return True


def _just_made(folder: Path, prefix: str) -> bool:
    """Tell whether a run of this instance was killed before it had put more than an empty marker into `folder`."""
    if not folder.name.startswith(prefix) or not re.fullmatch(r"[a-z0-9_]{8}", folder.name[len(prefix) :]):
        return False  # `db-` begins the folders of an instance `db-1`, too
    try:
        return all(entry.name == _MARKER and entry.stat().st_size == 0 for entry in folder.iterdir())
    except OSError:
        return False


def _owners(context: Context, path: Path) -> set[int]:
    """Return who may own what we left behind at `path`: we, and when we are root the server's account and whom we adopted for."""
    owners = _ourselves(context)
    if os.geteuid() == 0:
        owners.add(path.parent.stat().st_uid)
    return owners


def _ourselves(context: Context) -> set[int]:
    owners = {os.geteuid()}
    with contextlib.suppress(UsageError):  # without that account no server can have run as it
        account = account_of(context)
        if account:
            owners.add(pwd.getpwnam(account).pw_uid)
    return owners


def end_servers(context: Context, folder: Path) -> bool:
    """End the server whose data are in `folder`, if there is one, and remove its socket's directory. Tell whether none is left.

    Raise OSError or ValueError if it cannot be found out.
    """
    for pid_file in (folder / "data" / "postmaster.pid", folder / "server" / "data" / "postmaster.pid"):
        data = pid_file.parent
        if data.resolve() != folder.resolve() / data.relative_to(folder) or not pid_file.is_file():
            continue
        lines = pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines and not _end(int(lines[0]), data.resolve()):
            return False
        # The fifth line is the socket's directory (PostgreSQL manual, 66.1).
        if len(lines) > 4:
            _remove_sockets(context, Path(lines[4]))
    return True


def _end(pid: int, data: Path) -> bool:
    """End the server of the directory `data` if process `pid` is it. Programs of its version may be gone, so none is used."""
    if not _serves(pid, data):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)  # what pg_ctl calls the immediate mode
    deadline = time.monotonic() + _STOP_SECONDS
    while _serves(pid, data):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _serves(pid: int, data: Path) -> bool:
    """Tell whether process `pid` is the server of `data`: after a reboot a leftover number may be anybody's."""
    process = Path("/proc/%d" % pid)
    try:
        if pid <= 1 or process.stat().st_uid != data.stat().st_uid:
            return False
        try:
            return os.readlink(process / "cwd") == str(data)  # PostgreSQL lives in its data directory
        except PermissionError:  # root without CAP_SYS_PTRACE, in a container
            return os.fsencode(data) in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _remove_sockets(context: Context, path: Path) -> None:
    if not path.name.startswith(_SOCKETS) or path.parent != _sockets_base() or path.is_symlink() or not path.is_dir():
        return
    if path.stat().st_uid in _ourselves(context):
        shutil.rmtree(path, ignore_errors=True)


__all__ = (
    "Fill",
    "account_of",
    "claimed",
    "clear_abandoned",
    "end_servers",
    "give",
    "home_for_server",
    "room_for_server",
    "server_programs",
    "socket_directory",
    "start_server",
    "stop_server",
    "throwaway",
)
