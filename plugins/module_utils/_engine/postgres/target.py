# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The server that gets what is restored, and how it is fed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Optional

from ..core.manifest import Database
from ..core.naming import database_argument
from ..settings import Postgres
from ..system.runner import Command
from .connection import Server, Session, as_options, connect, program_environment, with_options, without_limits
from .tools import Programs

# The first PostgreSQL that lets a session hear no event trigger, also none that hears of its login.
_UNHEARD = 17
# For building indexes, all workers together; the server's own setting where that is more for each.
_INDEX_MEMORY = 512 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """The server that gets the databases, and the programs that suit it."""

    postgres: Postgres
    programs: Programs
    server: Server

    @property
    def environment(self) -> dict[str, str]:
        """What the programs get. Messages come in English where this role may ask for that: BENIGN knows no others."""
        environment = program_environment(self.postgres)
        if not self.server.superuser:
            return environment
        return with_options(
            environment, {"lc_messages": "C", **self._unheard, **without_limits(self.server.version_num)}
        )

    @property
    def _unheard(self) -> dict[str, str]:
        """The setting with which no event trigger of a restored database writes into it, or forbids what we do."""
        return {"event_triggers": "off"} if self.server.superuser and self.server.major >= _UNHEARD else {}

    def session(self, database: str) -> Session:
        """Return a session in the restored `database`. Raise what connect() raises."""
        return connect(self.postgres, database, options=as_options(self._unheard))

    def psql(self, database: str, *options: str, environment: Optional[Mapping[str, str]] = None) -> Command:
        """Return the command that gives `database` the SQL that it reads, and ends with the first error; nobody's psqlrc counts."""
        always = ("--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1")
        words = (self.programs.path("psql"), *always, *options, database_argument(database))
        return Command(words, env=self.environment if environment is None else environment)

    def loading_environment(self, into: str, jobs: int, database: Database) -> dict[str, str]:
        """What a program gets that fills the database `into` by `jobs` workers: settings that make loading faster.

        Nothing waits for the disk before the end, as what was half loaded when a server dies is dropped anyway; the
        database gets its name by a commit that is on disk. Only for a superuser, who gets options anyway: a pooler, as
        others may come through, refuses options.
        """
        if not self.server.superuser:
            return self.environment
        with self.session(into) as session:
            memory = session.rows("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")[0][0]
        wanted = {
            "synchronous_commit": "off",
            "maintenance_work_mem": "%dkB" % (max(memory, _INDEX_MEMORY // jobs) // 1024),
        }
        if jobs > 1:  # the workers are the parallel work; more processes would only be in their way
            wanted["max_parallel_maintenance_workers"] = "0"
        if not self._unheard and (database.fingerprint or {}).get("event_triggers"):
            # All that comes after them, materialized views, would be heard. Those that hear a replica, too, stay so.
            wanted["session_replication_role"] = "replica"
        return with_options(self.environment, wanted)


def as_transaction(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks` as one transaction. With psql's own option the end of its input would commit, also when we were killed."""
    yield b"BEGIN;\n"
    yield from chunks
    yield b"\nCOMMIT;\n"


__all__ = ("Target", "as_transaction")
