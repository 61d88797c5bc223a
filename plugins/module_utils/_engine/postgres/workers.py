# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Several workers of pg_restore: what they do to each other, and one that loads again what failed by it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import CommandError
from ..core.manifest import Database
from ..source import Source
from ..system.runner import Command, Runner
from .pg_restore import Loaded, Options, listing_of_file, restore_arguments, run_restore
from .target import Target

# What several workers can do to each other, and one alone cannot: block each other (partitions, foreign keys), change one row
# of the catalog at once (older tools grant on a table and on its columns so), grant on a table before another has granted the
# use of its schema to who grants, or read through a function, which nobody sees in advance, a materialized view that another
# is about to fill.
_SELF_MADE = (
    ("deadlock detected", "deadlocked with itself"),
    ("tuple concurrently updated", "changed one thing twice at once"),
    ("permission denied for schema", "granted out of order"),
    ("has not been populated", "filled materialized views out of order"),
)


class _Hindered:
    """What one of several workers said because they were in each other's way. Whatever fails after that may want it."""

    def __init__(self) -> None:
        self.met, self.first = "", ""

    def forgives(self, said: str) -> bool:
        self.met, self.first = self.met or _self_made(said), self.first or said
        return bool(self.met)


def _self_made(said: str) -> str:
    return next((what for sign, what in _SELF_MADE if sign in said), "")


def self_made(error: CommandError, options: Options) -> str:
    """Return what a load with `options` did to itself if that is why it failed, and one with a single job may not; else ""."""
    return _self_made(error.message) if options.jobs > 1 else ""


@dataclass
class Work:
    """One archive on its way into the database `into`; `folder` takes files that are needed meanwhile."""

    source: Source
    database: Database
    target: Target
    into: str
    options: Options
    folder: Path
    loaded: Loaded

    @property
    def runner(self) -> Runner:
        """What runs the programs."""
        return self.source.context.runner

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """What each program gets."""
        return self.target.loading_environment(self.into, self.options.jobs, self.database)

    def command(self, *arguments: str) -> Command:
        """Return the call of pg_restore that loads, with `arguments` added."""
        return Command((*restore_arguments(self.target, self.into, self.options), *arguments), env=self.environment)

    def restore(self, archive: Path, *arguments: str, soft: Collection[str] = ()) -> None:
        """Load what `arguments` choose of `archive` by one worker; `soft` are the numbers of entries that may fail.

        Raise CommandError with the first error that matters.
        """
        run_restore(self.source, [self.command(*arguments, str(archive))], None, self.loaded, set(soft))

    def restore_by_workers(self, archive: Path, *arguments: str, soft: Collection[str] = ()) -> None:
        """Load what `arguments` choose of `archive` by several workers, and once more by one what these hindered each other at.

        Raise CommandError with the first error that matters, or with what the workers did to each other and what the one
        said after them.
        """
        hindered = _Hindered()
        command = self.command(*arguments, "--jobs=%d" % self.options.jobs, str(archive))
        failed = run_restore(self.source, [command], None, self.loaded, set(soft), hindered.forgives)
        self.loaded.jobs = self.options.jobs
        if not hindered.met:
            return
        # In the order of the archive, and without its sections: privileges belong to that of the entry before them.
        lines = [line for line in listing_of_file(self.source, self.target, archive) if _number(line) in failed]
        again = self.folder / "list-again"
        again.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        try:
            self.restore(archive, "--use-list=%s" % again, soft=soft)
        except CommandError as error:
            both = "pg_restore by %d workers: %s. One worker, after them: %s"
            text = both % (self.options.jobs, hindered.first.rstrip("."), error.message)
            raise CommandError(text, hint=error.hint, stderr=error.stderr, returncode=error.returncode) from error
        self.loaded.again.append(
            "%s; what failed by that (entries: %d) was loaded again by one worker" % (hindered.met, len(lines))
        )


def _number(line: str) -> str:
    return line.split(";", maxsplit=1)[0]


__all__ = ("Work", "self_made")
