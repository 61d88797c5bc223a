# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The fence around a copy of a server: it archives nothing, follows nobody, and is reached by a private socket only."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..settings import Postgres
from .connection import as_options

HBA, IDENT, PID = "pgops_hba.conf", "pgops_ident.conf", "pgops.pid"
# No copy may write into the archive of the original, nor clear it, whatever becomes of it.
NO_ARCHIVE = {
    "archive_mode": "off",
    "archive_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
}
# No subscription may take over a publisher's slot, no job may start, no client come in.
UNPROVEN = {
    "cron.launch_active_jobs": "off",
    "listen_addresses": "",
    "max_logical_replication_workers": "0",
    "synchronous_standby_names": "",
}
# Nothing of the original may act in a copy, whose host has no memory for two.
ALONE = {
    **NO_ARCHIVE,
    **UNPROVEN,
    # In a serializable transaction it answers no query while it recovers, or pauses.
    "default_transaction_isolation": "read committed",
    "log_destination": "stderr",
    "huge_pages": "off",
    "local_preload_libraries": "",
    "logging_collector": "off",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "session_preload_libraries": "",
    "shared_buffers": "128MB",
    "shared_preload_libraries": "",
    "ssl": "off",
    # The directory of its socket is private; of the group this host may know nothing.
    "unix_socket_group": "",
    "unix_socket_permissions": "0777",
}
_IO_METHOD_MAJOR = 18
_EVENT_TRIGGERS_MAJOR = 17


def no_event_triggers(major: int) -> dict[str, str]:
    """Return the setting for a server of that version: since 17 they may turn away who logs in, or fail as it takes no writes yet."""
    return {"event_triggers": "off"} if major >= _EVENT_TRIGGERS_MAJOR else {}


@dataclass(frozen=True)
class CopyLogin(Postgres):
    """How to log in to a copy, as its superuser: what a database or a role has its sessions load, this host may lack."""

    options: str = as_options({"session_preload_libraries": "", "local_preload_libraries": ""})

    def of_version(self, major: int) -> CopyLogin:
        """Return it for a copy of that version: what a database has its sessions run when they begin is nobody's business here."""
        return replace(self, options=" ".join(filter(None, (self.options, as_options(no_event_triggers(major))))))


def fence_copy(data: Path, account: str) -> dict[str, str]:
    """Make the data directory `data` that of a throwaway copy, and return the settings that fence it.

    Its own configuration goes: who may log in, what it loads and where it logs is nobody's business here.
    """
    forget_signals(data)
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        write_file(data / name, "", account)
    return {**logins(data, account), "primary_conninfo": "", "primary_slot_name": ""}


def fence_beside(data: Path, account: str) -> dict[str, str]:
    """Return the settings of a copy that stays beside its original; its own configuration holds where they say nothing."""
    forget_signals(data)
    if not (data / "postgresql.conf").exists():  # Debian keeps it elsewhere
        write_file(data / "postgresql.conf", "", account)
    major = int((data / "PG_VERSION").read_text(encoding="utf-8").split(".")[0])
    # io_uring, for one, is not to be had on each host.
    more = {"io_method": "worker"} if major >= _IO_METHOD_MAJOR else {}
    return {**ALONE, **more, **logins(data, account), "external_pid_file": str(data / PID)}


def forget_signals(data: Path) -> None:
    """Remove what would make the server a standby, as in a backup that was taken from one."""
    for name in ("standby.signal", "recovery.signal"):
        (data / name).unlink(missing_ok=True)


def logins(folder: Path, account: str) -> dict[str, str]:
    """Let everybody in who can reach the private socket, by files in `folder`; nobody else can. Return the settings that say so."""
    write_file(folder / HBA, "local all all trust\n", account)
    write_file(folder / IDENT, "", account)
    return {"hba_file": str(folder / HBA), "ident_file": str(folder / IDENT)}


def append_settings(data: Path, account: str, settings: Mapping[str, str]) -> None:
    """Add `settings` to postgresql.auto.conf, which has the last word but for the command line."""
    path = data / "postgresql.auto.conf"
    before = ""
    with contextlib.suppress(FileNotFoundError):
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = ["%s = '%s'\n" % (name, value.replace("\\", "\\\\").replace("'", "''")) for name, value in settings.items()]
    write_file(path, before + "".join(lines), account)


def write_file(path: Path, text: str, account: str) -> None:
    """Write a small file of the data directory; it belongs to the account, which may not have laid a link there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), 0o600)
        if account:
            owner = pwd.getpwnam(account)
            os.fchown(stream.fileno(), owner.pw_uid, owner.pw_gid)


__all__ = (
    "ALONE",
    "NO_ARCHIVE",
    "UNPROVEN",
    "CopyLogin",
    "append_settings",
    "fence_beside",
    "fence_copy",
    "forget_signals",
    "logins",
    "no_event_triggers",
    "write_file",
)
