# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A watch over the locks of a dump: it sees who waits for them, tells, and by policy makes the dump give way."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Optional

from ..context import Context
from ..core.errors import PgopsError
from ..core.lock_queue import LockWaits, Waiting
from ..core.times import parse_span
from .connection import Server, Session, connect

# Six looks within the 30 s that we promise; a dump that is shorter than one costs nobody a connection.
EVERY_SECONDS = 5.0
_AGAIN_SECONDS = 30.0
_END_SECONDS = 5.0
_CLEAR_SECONDS = 0.2

# One pass over the server's locks; the rest is asked only for those who wait. pg_blocking_pids() counts those who are
# queued in front, too. wait_event would be cheaper, but a role without privileges does not see that of others.
_WAITING = """
SELECT l.pid, pg_catalog.pg_blocking_pids(l.pid), CASE WHEN c.oid IS NOT NULL THEN n.nspname || '.' || c.relname END,
  l.mode, a.usename, a.application_name, %s,
  ARRAY(SELECT o.pid FROM pg_catalog.pg_stat_activity o WHERE o.application_name = %%s AND o.usename = session_user)
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid AND a.datname = pg_catalog.current_database()
LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation AND l.locktype IN ('relation', 'tuple', 'page', 'extend')
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT l.granted
"""
_SINCE = "extract(epoch FROM pg_catalog.clock_timestamp() - l.waitstart)::float8"  # servers from 14 on
_UNKNOWN = "NULL::float8"

# A pg_dump that was killed may have a backend that has not noticed.
_END_OURS = """
SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
WHERE application_name = %s AND usename = session_user AND pid <> pg_catalog.pg_backend_pid()
"""
# Any of these locks says that the statement we gave way to still runs, or has not been committed.
_STILL_AT_WORK = """
SELECT count(*) FROM pg_catalog.pg_locks
WHERE pid = ANY(%s::int[]) AND locktype = 'relation' AND mode IN
  ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""


class DumpAnewError(PgopsError):
    """The dump was ended, and can be made anew."""


class GaveWayError(DumpAnewError):
    """It was ended for the sake of those who wait for its locks."""


class LockWatch(threading.Thread):
    """Watches one dump, from its beginning to its end, in a thread and over a connection of its own.

    Ours are the backends that bear `name` as their application's, and the session whose process is given to watch().
    What goes wrong here is a warning, never the failure of the backup.
    """

    def __init__(self, context: Context, server: Server, waits: LockWaits) -> None:
        super().__init__(name="lock-watch", daemon=True)
        self.name_of_ours = "pgops-%s" % secrets.token_hex(6)
        self.oid = 0  # of the database that the dump is of, as soon as that is known
        self._context, self._waits = context, waits
        self._query = _WAITING % (_SINCE if server.major >= 14 else _UNKNOWN)
        self._ours: frozenset[int] = frozenset()
        self._session: Optional[Session] = None
        self._looking = threading.Lock()
        self._over, self._held_up, self._told = threading.Event(), threading.Event(), False

    def watch(self, session: Session) -> None:
        """Begin to watch, for `session` too, which must be in its transaction: a pooler may give it another process before."""
        self._ours = frozenset([int(session.value("SELECT pg_catalog.pg_backend_pid()"))])
        self.start()

    def __enter__(self) -> LockWatch:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_unused: object) -> None:
        self._over.set()
        session = self._session
        if session is not None and session.busy:
            session.cancel()
        if self.is_alive():
            self.join(_END_SECONDS)  # it may hang in a network that is gone; the backup need not

    def check(self) -> None:
        """Raise GaveWayError if the dump is to give way."""
        if self._held_up.is_set() and self._context.config.backup.on_lock_wait == "cancel":
            raise GaveWayError("The dump of %r gave way to sessions that wait for its locks." % self._waits.database)

    # --- the thread ---

    def run(self) -> None:
        pause = EVERY_SECONDS
        while not self._over.wait(pause):
            pause = EVERY_SECONDS if self.look() else _AGAIN_SECONDS
        self._close()

    def look(self) -> bool:
        """Look once, now, and tell what is new. Return whether that was possible."""
        with self._looking:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  # a watch must not end what it watches
                self._close()
                if not (self._told or self._over.is_set()):
                    self._told = True
                    self._context.warn(
                        "Who waits for locks of the dump of %r could not be watched all the time: %s"
                        % (self._waits.database, getattr(error, "message", error))
                    )
                return False
        return True

    def _look(self) -> None:
        if self._session is None:
            self._session = connect(self._context.config.postgres, self._waits.database)
            self._session.execute("SELECT set_config('lock_timeout', '3s', false)")
            self._session.execute("SELECT set_config('statement_timeout', '10s', false)")
        rows = self._session.rows(self._query, (self.name_of_ours,))
        waiting = [
            Waiting(row[0], tuple(row[1] or ()), row[2] or "", row[3], row[4] or "", row[5] or "", row[6])
            for row in rows
        ]
        ours = self._ours.union(rows[0][7] if rows else ())
        held_up, fresh = self._waits.see(waiting, ours, time.monotonic())
        if held_up:
            self._held_up.set()
        for wait in fresh:
            # The result tells it when it is over; those who wait have to be helped now.
            self._context.tell_now(wait.now())

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    # --- after it gave way ---

    def let_pass(self) -> None:
        """Make sure that no backend of the dump is left, and wait until those who waited have done their work.

        That wait takes no longer than backup.lock_wait_timeout; the next dump then waits for its locks as any does.
        """
        limit = parse_span(self._context.config.backup.lock_wait_timeout).total_seconds()
        deadline = time.monotonic() + limit
        try:
            with connect(self._context.config.postgres, self._waits.database) as session:
                while time.monotonic() < deadline:
                    ours = session.value(_END_OURS, (self.name_of_ours,))
                    theirs = session.value(_STILL_AT_WORK, (self._waits.pids,))
                    if not ours and not theirs:
                        return
                    time.sleep(_CLEAR_SECONDS)
        except PgopsError as error:
            self._context.warn(
                "Whether those who waited for the dump of %r are done could not be seen: %s"
                % (self._waits.database, error.message)
            )


__all__ = ("EVERY_SECONDS", "DumpAnewError", "GaveWayError", "LockWatch")
