# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Ask the members of a group what they are and how far they have come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional

from ..core.errors import PgopsError
from ..core.group import Member, split_member
from ..settings import Config, Postgres
from .connection import Session, connect

# A standby that was at the primary's heels when both were asked is there within this time.
_CATCH_UP_SECONDS = 3.0
_LOOK_EVERY_SECONDS = 0.2
_USUAL_PORT = 5432

# What only one of the two kinds may be asked is asked of that one. A primary sends what it has flushed; what it has only
# written may stay with it for seconds, where nobody commits.
_FACTS = """
SELECT r.standby, pg_catalog.pg_postmaster_start_time()::text,
  CASE WHEN NOT r.standby THEN (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::text END,
  CASE WHEN NOT r.standby THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,
  (pg_catalog.pg_last_wal_receive_lsn() - '0/0')::text,
  CASE WHEN r.standby THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) r
"""
_REPLAYED = """
SELECT (pg_catalog.pg_last_wal_replay_lsn() - '0/0')::text,
  extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
"""
# A sender that has nothing to say says so every few seconds.
_STREAMING = """
SELECT status = 'streaming' AND pg_catalog.clock_timestamp() - last_msg_receipt_time < '1 min'
FROM pg_catalog.pg_stat_wal_receiver
"""


def ask(config: Config) -> tuple[Member, ...]:
    """Return what each member of the configuration's group tells, in its order; one that cannot be asked says why.

    This node is asked the way that the section postgres says, the others over the network, all with the same login.
    """
    group = config.group
    with ThreadPoolExecutor(max_workers=len(group.members)) as pool:
        # The first connection alone, as it takes libpq's variables out of the environment of the whole process.
        own = _Asked(group.node, config.postgres)
        others = pool.map(lambda name: _Asked(name, _reached_at(config, name)), _others(config))
        asked = {one.member.name: one for one in (own, *others)}
        try:
            primaries = [one.member for one in asked.values() if one.member.written is not None]
            written = primaries[0].written if len(primaries) == 1 else None
            list(pool.map(lambda one: one.follow(written), asked.values()))
        finally:
            for one in asked.values():
                one.close()
    return tuple(asked[name].member for name in group.members)


def _others(config: Config) -> Sequence[str]:
    return [name for name in config.group.members if name != config.group.node]


def _reached_at(config: Config, name: str) -> Postgres:
    """Return how to reach the member `name`: without a port of its own, at ours, unless our entry says that ours is another one."""
    host, port = split_member(name)
    usual = _USUAL_PORT if split_member(config.group.node)[1] else config.postgres.login_port
    return dataclasses.replace(config.postgres, login_host=host, login_port=port or usual, login_unix_socket="")


class _Asked:
    """One member, and the session with it while there is something to ask."""

    def __init__(self, name: str, postgres: Postgres) -> None:
        self.member = Member(name)
        self._session: Optional[Session] = None
        self._try(lambda: self._begin(postgres))

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except PgopsError as error:
            self.member = Member(self.member.name, trouble=error.message)
            self.close()

    def _begin(self, postgres: Postgres) -> None:
        self._session = session = connect(postgres)
        session.execute("SELECT pg_catalog.set_config('statement_timeout', '30s', false)")
        standby, started, written, walfile, received, paused = session.rows(_FACTS)[0]
        system = session.allowed("SELECT system_identifier::text FROM pg_catalog.pg_control_system()") or [("",)]
        streaming = (session.allowed(_STREAMING) or [(False,)])[0][0] if standby else None
        self.member = Member(
            self.member.name,
            standby=standby,
            system=system[0][0],
            started=started,
            timeline=int(walfile[:8], 16) if walfile else None,
            written=_position(written),
            received=_position(received),
            streaming=streaming,
            paused=paused,
        )

    def follow(self, written: Optional[int]) -> None:
        """Look how far a standby has come; give it a moment to reach what the primary had `written` when it was asked."""
        if self.member.standby and not self.member.trouble:
            self._try(lambda: self._follow(written))

    def _follow(self, written: Optional[int]) -> None:
        if self._session is None:
            return
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while True:
            replayed, age = self._session.rows(_REPLAYED)[0]
            self.member = dataclasses.replace(self.member, replayed=_position(replayed), age=age)
            there = written is None or (self.member.replayed is not None and self.member.replayed >= written)
            if there or time.monotonic() >= deadline:
                return
            time.sleep(_LOOK_EVERY_SECONDS)

    def close(self) -> None:
        """End the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _position(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None else None


__all__ = ("ask",)
