# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A whole archive into a database by parallel work: definitions and rows, then statistics, then indexes and constraints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

from ..core import archive_toc, row_script
from ..system.runner import Command
from . import rows, statistics
from .pg_restore import Head, listing_of_file, seekable
from .workers import Work


def load_in_sections(work: Work) -> bool:
    """Load definitions and rows, then statistics, then indexes and constraints. Tell whether this archive can be loaded so.

    Left to itself, a parallel pg_restore makes the foreign keys of a partitioned table before its partitions have rows.
    Each row is then checked on its own, which takes five times as long, and the workers can block each other. Without
    statistics, what checks a foreign key afterwards may take five times as long, too.
    """
    if work.database.dump.layers:
        path = _head(work)
        if path is None or not _stream(work, path):
            return False
    else:
        path = seekable(work.source, work.database, work.options, work.folder, work.loaded)
        if path is None:
            return False
        with _freezing(work, path) as archive:
            work.restore_by_workers(archive, "--section=pre-data", "--section=data")
    work.loaded.jobs = work.options.jobs
    if work.options.analyze:
        statistics.gather(work.runner, work.target.programs, work.target.environment, work.into, work.options.jobs)
        work.loaded.analyzed = True
    work.restore_by_workers(path, "--section=post-data")
    return True


@contextlib.contextmanager
def _freezing(work: Work, path: Path) -> Iterator[Path]:
    """Yield the archive `path` such that pg_restore freezes the rows that it loads, as far as that can be had."""
    with contextlib.ExitStack() as stack:
        archive: Optional[Path] = None
        # A table that pg_restore does not make is not emptied by it either.
        if path.is_dir() and not row_script.contents(listing_of_file(work.source, work.target, path)).foreign:
            archive = stack.enter_context(work.source.linked(path))
        if archive is not None:
            toc = archive / "toc.dat"
            content = archive_toc.frozen(toc.read_bytes())
            toc.unlink()  # it may be the set's own file under another name
            toc.write_bytes(content)
            work.loaded.frozen = archive_toc.all_frozen(content)
        yield archive or path


def _stream(work: Work, head: Path) -> bool:
    """Load definitions and rows of a wrapped archive that is read once. Tell whether this archive can be loaded so.

    Its `head` is enough for all but the rows. pg_restore cannot load several tables of a stream at a time; so it only reads.
    """
    source, dump = work.source, work.database.dump
    held = row_script.contents(listing_of_file(source, work.target, head))
    if held.foreign or held.blobs:
        return False
    work.loaded.way, work.loaded.frozen = "stream", True
    work.restore(head, "--section=pre-data")
    read = Command((work.target.programs.path("pg_restore"), _use_list(work, "rows", held.frozen), "--file=-"))
    with contextlib.closing(source.script(dump, read)) as script:
        rows.load(work.runner, _psql(work), _noted(work, rows.spooled(script, work.folder)), work.options.jobs)
    work.restore(head, "--section=data", _use_list(work, "others", held.rest))
    return True


def _noted(work: Work, tables: Iterable[rows.Rows]) -> Iterator[rows.Rows]:
    """Yield `tables`, and note whether there are some that cannot be frozen."""
    for one in tables:
        work.loaded.frozen = work.loaded.frozen and not one.begin.through_root
        yield one


def _psql(work: Work) -> Command:
    return work.target.psql(work.into, environment=work.environment)


def _use_list(work: Work, name: str, entries: Iterable[int]) -> str:
    """Return the argument that has pg_restore take only `entries`, in this order."""
    path = work.folder / ("list-%s" % name)
    path.write_text("".join("%d;\n" % entry for entry in entries), encoding="ascii")
    return "--use-list=%s" % path


def _head(work: Work) -> Optional[Path]:
    """Write down the beginning of a wrapped archive, which holds its table of contents, or return None if that is no good.

    What is encrypted is never written down in the clear, and what does not fit cannot wait for a session to take it.
    """
    dump, source = work.database.dump, work.source
    if "age" in dump.layers or not source.fits(work.folder, work.database.bytes):
        return None
    path = work.folder / "head.dump"
    chunks = source.plain(dump)
    with contextlib.closing(chunks), path.open("xb") as file:
        path.chmod(0o600)
        for chunk in chunks:
            file.write(chunk)
            if file.tell() >= Head.LIMIT:
                break
    return path


__all__ = ("load_in_sections",)
