# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The part of verify that reads the WAL archive: some files each time, so that with the nights all that base backups need is read."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Union

from ..context import Context
from ..core.errors import MissingError, PgopsError, UnreachableError
from ..core.segments import USUAL_SIZE, parse_stored
from ..core.wal_proof import Read, choose, left, problem_of
from ..core.window import Base
from ..places.base import Entry, Place
from ..places.catalog import Catalog
from ..wal.fetch import decryption
from ..wal.holdings import Held, Lineage, apart, bases_of, lineages, look, segment_size, spare
from ..wal.proofs import mark_of, problem_in, remember, remembered

Result = dict[str, Any]
# How many files are read at once, and how many bytes of segments they may hold together.
_AT_ONCE, _ROOM = 4, 1 << 28
_BATCH = 64
_SHOWN = 20
# So many in a row that cannot be read: the place is gone.
_GONE = 8


def verify_wal(context: Context, place: Place, catalog: Catalog, *, dry_run: bool) -> Optional[Result]:
    """Read files of the WAL that base backups in `place` need, and remember which; None where there is nothing to read.

    Result: `files` (how many are needed), `read`, `bytes`, `passed`, `damaged` (list of {file, problem}, of all that were ever
    found and are still so), `found` (how many of these a recovery to now needs, or are new), `left` (how many were never
    read), `sealed` (encrypted ones, which cannot be read without the key), `seconds`. A dry run reads nothing: `read` is what
    would be. What keeps it from reading a file is raised when the others are read, or is a warning beside damage.
    """
    most = context.config.verify.wal_files
    if not most:
        return None
    tick = time.monotonic()
    bases, _unread = bases_of(catalog, catalog.ids())
    if not bases:
        return None
    held = lineages(place)
    needed = dict(_needed(place, held, bases))
    if not needed:
        return None
    _compare(context, place, held)
    keyless = not context.config.restore.identity_file
    sealed = {path for path in needed if keyless and path.endswith(".age")}
    marks = {path: mark_of(entry) for path, entry in needed.items() if path not in sealed}
    known = {path: read for path, read in remembered(context.state, place.name, place.root).items() if path in needed}
    chosen = choose(marks, known, most)
    size = sum(needed[path].size for path in chosen)
    result: Result = {"files": len(needed), "read": len(chosen), "bytes": size, "sealed": len(sealed)}
    if dry_run:
        return result
    before = {path for path, mark in marks.items() if problem_of(path, mark, known)}
    context.reporter.phase("WAL archive of %s" % place.root, size)
    largest = max(segment_size(place, lineage) or USUAL_SIZE for lineage in held.values())
    done, troubles = _learn(context, place, {path: needed[path] for path in chosen}, marks, known, largest)
    damaged = {path: problem_of(path, mark, known) for path, mark in marks.items()}
    damaged = {path: problem for path, problem in sorted(damaged.items()) if problem}
    urgent = _urgent(context, place, catalog, damaged, before, known)
    for trouble in troubles[:1]:
        if not urgent:
            raise trouble
        context.warn("%d WAL files in %s were not read: %s" % (len(troubles), place.root, trouble))
    shown = [*urgent, *(path for path in damaged if path not in urgent)][:_SHOWN]
    if sealed:
        context.warn(
            "%d encrypted WAL files in %s were not read, as there is no key here (restore.identity_file)."
            % (len(sealed), place.root)
        )
    result.update(
        read=len(done),
        bytes=sum(needed[path].size for path in done),
        passed=len(done) - len(set(done) & set(damaged)),
        damaged=[{"file": path, "problem": damaged[path]} for path in shown],
        found=len(urgent),
        left=left(marks, known),
        seconds=round(time.monotonic() - tick, 3),
    )
    return result


def _learn(
    context: Context,
    place: Place,
    wanted: dict[str, Entry],
    marks: dict[str, str],
    known: dict[str, Read],
    largest: int,
) -> tuple[list[str], list[PgopsError]]:
    """Read the `wanted` files, and keep in `known` how each was; return which were read, and what kept it from others."""
    threads = max(1, min(_AT_ONCE, _ROOM // largest))
    done: list[str] = []
    troubles: list[PgopsError] = []
    try:
        decrypt = decryption(context.config.restore.identity_file)
        for path, problem in _read(context, place, wanted, decrypt, threads, troubles):
            done.append(path)
            known[path] = Read(marks[path], int(context.clock().timestamp()), problem)
    finally:
        context.reporter.done()
        _keep(context, place, known)
    return done, troubles


def _urgent(
    context: Context,
    place: Place,
    catalog: Catalog,
    damaged: dict[str, str],
    before: set[str],
    known: dict[str, Read],
) -> list[str]:
    """Return what of the `damaged` a recovery to now needs, or was not damaged `before`; all of it where nobody can tell."""
    seen = look(place, catalog, context.warn, known=known) if damaged else Held()
    if seen.error:
        context.warn("Which damaged WAL a recovery needs is unknown, so all of it counts: %s" % seen.error)
    return [path for path in damaged if path not in before or seen.error or _name(path) in seen.open_damage]


def _compare(context: Context, place: Place, held: dict[str, Lineage]) -> None:
    """Tell where this host's spool says other things of a timeline than `place` does; another place is not waited for."""
    if place.name == context.local.name:
        return
    try:
        found = apart([held, lineages(context.local)])
    except (PgopsError, OSError):
        return  # what is wrong with the spool is told where that is verified
    for system, timelines in found.items():
        context.warn(
            "%s and %s hold different histories of timeline %s of the cluster %s, so no recovery is known to get across the switch to it:"
            " pgops wal status." % (context.local.root, place.root, ", ".join(map(str, timelines)), system)
        )


def _needed(place: Place, held: dict[str, Lineage], bases: list[Base]) -> Iterator[tuple[str, Entry]]:
    """Yield the stored files that a base backup needs, of clusters that have one."""
    for identifier, lineage in sorted(held.items()):
        if any(base.system_identifier == identifier for base in bases):
            needless = spare(place, lineage, bases)
            for name in sorted(set(lineage.files) - needless):
                yield from ((entry.path, entry) for entry in lineage.files[name])


def _read(
    context: Context,
    place: Place,
    chosen: dict[str, Entry],
    decrypt: Optional[Callable[[bytes], bytes]],
    threads: int,
    troubles: list[PgopsError],
) -> Iterator[tuple[str, str]]:
    """Yield each path that was read and what is wrong with it; one that is gone by now is passed over.

    `troubles` takes what kept it from reading a file; it ends early where that comes so often that the place must be gone.
    """

    def one(path: str) -> Union[str, PgopsError, None]:
        try:
            return problem_in(place, path, decrypt)
        except MissingError:
            return None  # a prune was here, or the shipping
        except PgopsError as error:
            return error
        except OSError as error:
            if error.errno != errno.EIO:
                return UnreachableError("%s in %s cannot be read: %s." % (path, place.root, error.strerror))
            return "%s/%s cannot be read: %s." % (place.root, path, error.strerror)
        finally:
            context.reporter.advance(chosen[path].size)

    paths, in_a_row = list(chosen), 0
    with ThreadPoolExecutor(threads, "pgops-wal") as pool:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            for path, problem in zip(batch, pool.map(one, batch)):
                if isinstance(problem, PgopsError):
                    troubles.append(problem)
                    in_a_row = in_a_row + 1 if isinstance(problem, UnreachableError) else 0
                    if in_a_row == _GONE:
                        return
                elif problem is not None:
                    in_a_row = 0
                    yield path, problem


def _name(path: str) -> str:
    return parse_stored(path.rpartition("/")[2])[0]


def _keep(context: Context, place: Place, known: dict[str, Read]) -> None:
    try:
        remember(context.state, place.name, place.root, known)
    except OSError as error:
        context.warn("Which WAL files were read could not be remembered: %s." % error)


__all__ = ("verify_wal",)
