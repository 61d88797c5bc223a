# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The rows of tables, as a script has them, into PostgreSQL: several at a time, each by a psql of its own, frozen where that can be."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

from ..core.row_script import Begin, End, split
from ..system.runner import Command, Runner


@dataclass(frozen=True)
class Rows:
    """The rows of one table, in a file."""

    begin: Begin
    file: Path


def load(runner: Runner, psql: Command, tables: Iterable[Rows], jobs: int) -> None:
    """Load `tables` as they come, `jobs` at a time, each by a `psql` of its own, and remove their files.

    The first failure ends all of them: CommandError, or what `tables` raises.
    """
    failed = threading.Event()

    def watch() -> None:
        if failed.is_set():
            raise _OthersFailedError

    def one(rows: Rows) -> None:
        watch()
        try:
            runner.pipe([_filling(psql, rows.begin)], source=rows.file, watch=watch)
        except BaseException:
            failed.set()
            raise
        finally:
            rows.file.unlink()

    futures: list[Future[None]] = []
    with ThreadPoolExecutor(jobs, "pgops-rows") as pool:
        try:
            for rows in tables:
                futures.append(pool.submit(one, rows))
                watch()
            wait(futures, return_when=FIRST_EXCEPTION)
        except _OthersFailedError:
            pass
        except BaseException:
            failed.set()
            raise
    for future in futures:
        trouble = future.exception()
        if trouble is not None and not isinstance(trouble, _OthersFailedError):
            raise trouble


class _OthersFailedError(Exception):
    """Another table could not be loaded; what that raised is what counts."""


def _filling(psql: Command, begin: Begin) -> Command:
    """Return the command that empties a table and fills it from standard input, all or nothing."""
    if begin.through_root:
        return psql.with_arguments("--command=" + os.fsdecode(one) for one in (*begin.settings, begin.copy))
    statements = [*begin.settings, b"BEGIN", b"TRUNCATE TABLE ONLY " + begin.table, begin.frozen, b"COMMIT"]
    return psql.with_arguments("--command=" + os.fsdecode(statement) for statement in statements)


def spooled(chunks: Iterable[bytes], folder: Path) -> Iterator[Rows]:
    """Write the rows of each table of a script down and yield them, while the script is read as fast as it comes."""
    number, begin = 0, None
    with contextlib.ExitStack() as stack:
        file: Optional[IO[bytes]] = None
        path = folder
        for event in split(chunks):
            if isinstance(event, Begin):
                begin, number = event, number + 1
                path = folder / ("rows-%d" % number)
                file = stack.enter_context(_private(path))
            elif file is None or begin is None:
                continue
            elif isinstance(event, End):
                file.close()
                yield Rows(begin, path)
            else:
                file.write(event)


def _private(path: Path) -> IO[bytes]:
    file = path.open("xb", buffering=0)
    path.chmod(0o600)
    return file


__all__ = ("Rows", "load", "spooled")
