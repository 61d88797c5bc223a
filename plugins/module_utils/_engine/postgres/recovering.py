# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A server that recovers: started on a data directory, waited for, and asked where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.errors import CommandError, PgopsError, UnreachableError
from ..core.recovery_end import Stopped, paused_at_the_end, prefix_of, said_at_the_end, spoken
from ..core.segments import parse_lsn
from ..core.times import human_span
from ..settings import Postgres
from ..system.durable import free_bytes, write_bytes
from ..system.runner import Command
from .connection import Session, connect_any
from .fencing import CopyLogin
from .throwaway import give
from .tools import Programs

LOG = "pgops_recovery.log"
FAILED_LOG = "failed_recovery.log"
_POLL_SECONDS = 0.2
_TELL_SECONDS = 15.0
_BEGIN_SECONDS = 2.0
_STOP_SECONDS = 120
_SERVERS = ("postgres", "postmaster")
_GOES_ON, _PAUSES, _PROMOTED = "goes on", "pauses", "promoted"
_NOT_RUNNING = 3
_NO_FILE = "could not open configuration "
_LACKING = (
    "Its configuration includes what this host does not have: make those files and directories (for a copy empty ones do), readable for"
    " the server's account, and run this again. "
)
_LEAST_FREE = 1024 * 1024
# In English, and where we can read it: what the server says is a part of the proof.
_HEARD = (
    "-c lc_messages=C",
    "-c log_min_messages=warning",
    "-c logging_collector=off",
    "-c log_destination=stderr",
)
_LINES = ("-c log_error_verbosity=default",)
_GRAVE = ("FATAL:", "PANIC:", "WARNING:", "HINT:")
_MORE = "DETAIL:"  # of the line before
_OURS = "pgops wal:"  # what the restore_command says, before the server says that it failed
_RESUME = "pg_wal_replay_resume()"  # bad advice
_NO_LOGIN = ('role "%s" does not exist', 'role "%s" is not permitted to log in')
# So a login hears that is no superuser, of what a CopyLogin asks for.
_NOT_ITS_TO_SET = "permission denied to set parameter"
_OUR_OWN = "the database system is "  # starting up, or not ready yet: so it answers while we wait
_REFUSED_SECONDS = 60.0
# Answers of a server that will let us in, or is too busy to: for the others nothing changes by waiting.
_PASSING = (_OUR_OWN, "too many clients", "connection slots are reserved", "timeout")
# Which ones they are, the lines before tell.
_CONTAINS_ERRORS = re.compile('configuration file ".*" contains errors')
_STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, extract(epoch FROM pg_last_xact_replay_timestamp())::float8
"""
# Behind a promotion the new timeline is what is written; before it, what was replayed last.
_TIMELINE = """
SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT min_recovery_end_timeline FROM pg_control_recovery())
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""
_REDONE = re.compile(r"LOG:  redo done at ([0-9A-F]+/[0-9A-F]+)")
_SHORT = "FATAL:  recovery ended before configured recovery target was reached"


class ShortError(PgopsError):
    """The WAL ended before the target; `last` is where the last record begins that was replayed, None where that is unknown."""

    last: Optional[int] = None


class ShutOutError(UnreachableError):
    """The server runs, and does not let us in."""


@dataclass(frozen=True)
class Recovery:
    """A server on its way: its programs, data directory and account, how to log in, and more options of its command line.

    `second` is who logs in where the login of `postgres` does not exist at that moment, or may not log in: the first superuser may have
    been renamed, or locked.
    `databases` are others to log in to, where that of `postgres` is not there or takes no logins. `token` marks the lines of its
    log: the server's configuration may have a prefix that reads like a part of the proof.
    """

    context: Context
    programs: Programs
    data: Path
    account: str
    postgres: Postgres
    options: Sequence[str] = ()
    databases: Sequence[str] = ()
    second: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def log(self) -> Path:
        """What the server says meanwhile."""
        return self.data / LOG

    def start(self) -> None:
        """Start the server; it recovers by itself. Raise UnreachableError if it cannot be started."""
        with self.log.open("wb"):
            self.log.chmod(0o600)
        give(self.account, self.log)
        options = " ".join((*_HEARD, *_LINES, "-c log_line_prefix='%s'" % prefix_of(self.token), *self.options))
        command = Command(
            (
                self.programs.path("pg_ctl"),
                "start",
                "--no-wait",
                "--silent",
                "--pgdata=%s" % self.data,
                "--log=%s" % self.log,
                "--options=%s" % options,
            ),
            user=self.account,
        )
        try:
            self.context.runner.run(command)
        except CommandError as error:
            raise UnreachableError("The server did not start: %s" % (self.last_words() or error.message)) from None

    def stop(self) -> None:
        """Stop the server, if it runs, in order, and wait until it has ended; that takes as long as its checkpoint takes."""
        begun = time.monotonic()
        self._stop("fast")
        while is_served(self.data):
            self.context.reporter.note(
                "warning: the server still shuts down, since %s" % human_span(time.monotonic() - begun)
            )
            time.sleep(_POLL_SECONDS)
            self._stop("fast")

    def abandon(self) -> bool:
        """End the server at once, as it is thrown away. Tell whether it has ended."""
        self._stop("immediate")
        return not is_served(self.data)

    def _stop(self, mode: str) -> None:
        command = Command(
            (
                self.programs.path("pg_ctl"),
                "stop",
                "--mode=%s" % mode,
                "--wait",
                "--silent",
                "--timeout=%d" % _STOP_SECONDS,
                "--pgdata=%s" % self.data,
            ),
            user=self.account,
        )
        self.context.runner.run(command, check=False, timeout=_STOP_SECONDS + 30)

    def runs(self) -> bool:
        """Tell whether the server runs."""
        command = Command((self.programs.path("pg_ctl"), "status", "--pgdata=%s" % self.data), user=self.account)
        return self.context.runner.run(command, check=False).returncode != _NOT_RUNNING

    def last_words(self) -> str:
        """Return what the server said last that tells why it ended."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            lines = text.replace(" %s " % self.token, " ").splitlines()
        grave: list[str] = []
        ours: list[str] = []
        why: list[str] = []
        told: list[str] = []
        last = ""
        for line in lines:
            heard = any(mark in line for mark in _GRAVE) and _OUR_OWN not in line and _RESUME not in line
            if line.startswith(_OURS):
                ours.append(line)
            elif heard or (_MORE in line and grave[-1:] == [last]):
                grave.append(line)
                why = (told if _CONTAINS_ERRORS.search(line) else ours) or why
                ours = []
            elif _OUR_OWN not in line:
                ours = []
            told += [line] if "LOG:" in line else []
            last = line
        return " / ".join([*why[-2:], *(grave or lines)[-3:]])

    @property
    def kept_log(self) -> Path:
        """Where its log lies when it has failed, and its data directory is gone."""
        return self.context.state / FAILED_LOG

    def keep_log(self) -> None:
        """Keep the log where it outlives the data directory. Where that cannot be, say so."""
        try:
            self.kept_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self.kept_log, self.log.read_bytes())
        except OSError as error:
            self.context.warn("The log of the failed recovery could not be kept as %s: %s" % (self.kept_log, error))

    # --- wait ---

    def wait(self) -> Stopped:
        """Wait until the server has promoted itself or paused, and return where it stopped.

        It takes as long as the WAL takes; what it has reached is told now and then. Raise UnreachableError if the server
        ends, ShortError with its own words if it does so because it cannot reach the target, PgopsError if it pauses before that.
        """
        begun = told = time.monotonic()
        refused: Optional[float] = None
        while True:
            state, error = self._state()
            if not error or not self._is_open() or any(words in error for words in _PASSING):
                refused = None
            elif refused is None:
                refused = time.monotonic()
            elif time.monotonic() - refused > _REFUSED_SECONDS:
                raise ShutOutError(
                    "The server recovers, but does not let us in: %s" % error,
                    hint="See %s." % self.kept_log
                    if "could not access file" in error
                    else "Name a superuser that existed at that moment (postgres.login_user), postgres for one.",
                )
            if state is None and time.monotonic() - begun > _BEGIN_SECONDS and not self.runs():
                raise self._ended()
            if state is not None and state[0] != _GOES_ON:
                return self._stopped(promoted=state[0] == _PROMOTED)
            if state is not None and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                reached = (
                    "" if state[2] is None else ", of %s" % datetime.fromtimestamp(state[2], timezone.utc).isoformat()
                )
                self.context.reporter.note(
                    "replayed up to the LSN %s%s, in %s" % (state[1], reached, human_span(told - begun))
                )
            time.sleep(_POLL_SECONDS)

    def _state(self) -> tuple[Optional[tuple[str, Optional[str], Optional[float]]], str]:
        """Return how it fares and what it replayed last; None while it lets nobody in, and why."""
        try:
            with self.session() as session:
                recovering, position, epoch = session.rows(_STATE)[0]
                paused = recovering and session.value("SELECT pg_is_wal_replay_paused()")
        except PgopsError as error:
            return None, str(error)
        return (_PAUSES if paused else _GOES_ON if recovering else _PROMOTED, position, epoch), ""

    def _is_open(self) -> bool:
        """Tell whether the server says of itself that it takes logins."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() in ("ready", "standby")

    def _ended(self) -> PgopsError:
        said = self.last_words()
        lines = self._spoken()
        if any(line.startswith(_SHORT) for line in lines):
            short = ShortError("The WAL ended before the target: %s" % said)
            redone = [match.group(1) for match in map(_REDONE.match, lines) if match is not None]
            short.last = parse_lsn(redone[-1]) if redone else None
            return short
        if not said and free_bytes(self.data) < _LEAST_FREE:  # its log lies on the same disk
            return UnreachableError(
                "The server ended before it had recovered, and could not say why: the disk of %s is full." % self.data,
                hint="Make room there, or recover to a larger disk.",
            )
        lacking = _LACKING if _NO_FILE in said else ""
        return UnreachableError(
            "The server ended before it had recovered: %s" % said, hint="%sSee %s." % (lacking, self.kept_log)
        )

    def _stopped(self, *, promoted: bool) -> Stopped:
        lines = self._spoken()
        if not promoted and not paused_at_the_end(lines):
            raise PgopsError(
                "The recovery paused before it came to its end: %s" % self.last_words(),
                hint="Where a setting is too low, begin with a base backup that was made after it had been raised on the "
                "original, or, in place, raise it in the server's configuration.",
            )
        with self.session() as session:
            _recovering, position, epoch = session.rows(_STATE)[0]
            timeline = session.allowed(_TIMELINE)
        return Stopped(
            None if position is None else parse_lsn(position),
            None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc),
            None if timeline is None else timeline[0][0],
            said_at_the_end(lines),
            promoted,
        )

    def _spoken(self) -> list[str]:
        return spoken(self.log.read_text(encoding="utf-8", errors="replace"), self.token)

    def session(self) -> Session:
        """Return a session in it. Raise UnreachableError while it lets nobody in."""
        where = self._where()
        try:
            return connect_any(where, self.databases)
        except UnreachableError as error:
            if not self.second or not any(said % where.login_user in str(error) for said in _NO_LOGIN):
                raise
            where = dataclasses.replace(where, login_user=self.second)
        try:
            return connect_any(where, self.databases)
        except UnreachableError as error:
            if not isinstance(where, CopyLogin) or _NOT_ITS_TO_SET not in str(error):
                raise
            return connect_any(dataclasses.replace(where, options=""), self.databases)

    def _where(self) -> Postgres:
        """Return how to log in: by the port and the socket that the server itself has written down."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) <= 5 or not lines[3].strip().isdecimal():
            raise UnreachableError("The server has not begun to listen yet.")
        socket, address = lines[4].strip(), lines[5].strip()
        return dataclasses.replace(
            self.postgres,
            database_url="",
            login_host="" if socket else address,
            login_unix_socket=socket,
            login_port=int(lines[3]),
        )


def started_here(data: Path) -> bool:
    """Tell whether it was a recovery that started the server of `data` last, and not its service or a person."""
    try:
        text = (data / "postmaster.opts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return all('"%s"' % option.split(" ", 1)[1] in text for option in _HEARD)


def is_served(data: Path) -> bool:
    """Tell whether a server runs on the data directory: its file names a process, and that one lives there.

    A file that a power loss left behind may name anybody's process. Where it cannot be told whose it is, its name counts.
    """
    try:
        text = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        process = Path("/proc/%d" % abs(int(text.split("\n")[0])))
        if process.stat().st_uid != data.stat().st_uid:  # PostgreSQL insists on it
            return False
        try:
            return os.path.samefile(process / "cwd", data)
        except PermissionError:
            return (process / "comm").read_text(encoding="utf-8", errors="replace").strip() in _SERVERS
    except (OSError, ValueError):
        return False


__all__ = ("LOG", "Recovery", "ShortError", "ShutOutError", "is_served", "started_here")
