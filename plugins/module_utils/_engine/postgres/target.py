# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The server that gets what is restored, and how it is fed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..settings import Postgres
from .connection import Server, connect, program_environment, with_options
from .tools import Programs

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
        return with_options(environment, "-c lc_messages=C") if self.server.superuser else environment

    def loading_environment(self, into: str, jobs: int) -> dict[str, str]:
        """What a program gets that fills the database `into` by `jobs` workers: settings that make loading faster.

        Nothing waits for the disk before the end, as what was half loaded when a server dies is dropped anyway; the
        database gets its name by a commit that is on disk. Only for a superuser, who gets options anyway: a pooler, as
        others may come through, refuses options.
        """
        if not self.server.superuser:
            return self.environment
        with connect(self.postgres, into) as session:
            memory = session.rows("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")[0][0]
        wanted = ["synchronous_commit=off", "maintenance_work_mem=%dkB" % (max(memory, _INDEX_MEMORY // jobs) // 1024)]
        if jobs > 1:  # the workers are the parallel work; more processes would only be in their way
            wanted.append("max_parallel_maintenance_workers=0")
        return with_options(self.environment, *("-c %s" % setting for setting in wanted))


def as_transaction(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks` as one transaction. With psql's own option the end of its input would commit, also when we were killed."""
    yield b"BEGIN;\n"
    yield from chunks
    yield b"\nCOMMIT;\n"


__all__ = ("Target", "as_transaction")
