# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Call pg_restore: its arguments, its errors, what its listing says, and an archive that it can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..core import selection
from ..core.errors import CommandError, RefusedError
from ..core.manifest import Database, Payload
from ..core.naming import database_argument
from ..core.sizes import human_size
from ..source import Source
from ..system import codec
from ..system.runner import Command
from .target import Target
from .tools import Programs

# Errors that harm nothing, each with its reason. Anything else stops the restore at once.
BENIGN = (
    (
        r'unrecognized configuration parameter "transaction_timeout"',
        "a setting of newer tools that an older server lacks",
    ),
    (r"must be owner of extension \S+", "a comment on an extension that the server's owner installed"),
    (r'schema "public" already exists', "every new database has it"),
)


@dataclass
class Options:
    """How to load: parallel jobs, owners and privileges or not, one transaction or not, and a part if not all is wanted.

    `analyze` allows the planner's statistics to be gathered where that makes the rest faster.
    """

    jobs: int = 1
    ownership: bool = True
    tablespaces: bool = True
    single_transaction: bool = False
    analyze: bool = False
    wanted: Optional[selection.Wanted] = None


@dataclass
class Loaded:
    """What a load reports: benign errors that were passed over, what was left out, how the data came (`file`, `stream`).

    `again` says what several workers did to each other, and that one has loaded it again.
    `frozen`: no vacuum has to visit the rows again. `analyzed`: the planner's statistics are there, but for what needs
    indexes (statistics.complete()).
    """

    benign: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    way: str = ""
    jobs: int = 1
    frozen: bool = False
    analyzed: bool = False


def seekable(source: Source, database: Database, options: Options, folder: Path, loaded: Loaded) -> Optional[Path]:
    """Return the archive as a file or directory that pg_restore can read in parallel, or None where it must be a stream.

    An encrypted dump is never written down in the clear; one that does not fit into `folder` comes as a stream too.
    """
    dump, layers = database.dump, database.dump.layers
    stored = source.size(dump)
    loaded.way = "file"
    if dump.format == "directory":
        if source.place.name != "local" and not source.fits(folder, stored):
            raise RefusedError(
                "There is no room in %s to fetch the dump of %r (%s), and its directory format cannot be read as a stream."
                % (folder.parent, database.name, human_size(stored)),
                hint="Make room, or set work_dir to a larger disk.",
            )
        return source.at_hand(dump, folder)
    if not layers:
        if source.place.name == "local" or (options.jobs > 1 and source.fits(folder, stored)):
            return source.at_hand(dump, folder)
    elif (
        "age" not in layers
        and options.jobs > 1
        and not options.single_transaction
        and source.fits(folder, stored + database.bytes)
    ):
        target = folder / "unwrapped.dump"
        with target.open("xb") as stream:
            target.chmod(0o600)
            source.context.runner.pipe(
                codec.unwrap(source.context.runner, layers, identity_file=""),
                source=source.chunks(source.manifest.files_of(dump)[0]),
                sink=stream.write,
            )
        return target
    if options.wanted is not None and source.fits(folder, stored):
        return source.at_hand(dump, folder) if not layers else None
    loaded.way = "stream"
    return None


def restore_arguments(target: Target, into: str, options: Options) -> list[str]:
    # Only the verbose pg_restore says which entry an error belongs to.
    arguments = [target.programs.path("pg_restore"), "--verbose", "--no-password", database_argument(into)]
    if not options.ownership:
        arguments += ["--no-owner", "--no-privileges"]
    if not options.tablespaces:
        arguments.append("--no-tablespaces")
    if options.single_transaction:
        arguments.append("--single-transaction")
    return arguments


def listing_of_file(source: Source, target: Target, path: Path, *options: str) -> list[str]:
    """Return pg_restore's listing of an archive, with what `options` add to it."""
    command = Command((target.programs.path("pg_restore"), "--list", *options, str(path)))
    # Names may hold what splitlines() takes for a line's end.
    return source.context.runner.run(command).stdout.decode("utf-8", "surrogateescape").split("\n")


def listing_of_stream(source: Source, dump: Payload, programs: Programs, *options: str) -> bytes:
    """Return pg_restore's listing of an archive that is no file at hand, with what `options` add to it.

    All of it is read and held against the manifest.
    """
    found: list[bytes] = []
    unwrap = codec.unwrap(source.context.runner, dump.layers, identity_file=source.identity_file)
    # pg_restore stops reading after the table of contents and would break the pipe; so it gets the beginning afterwards.
    command = Command((programs.path("pg_restore"), "--list", *options))
    head: list[bytes] = []
    if unwrap:
        source.context.runner.pipe(unwrap, source=source.chunks(source.manifest.files_of(dump)[0]), sink=Head(head))
    else:
        _drain(source.chunks(source.manifest.files_of(dump)[0]), Head(head))
    source.context.runner.pipe([command], source=head, sink=found.append)
    return b"".join(found)


class Head:
    """Keeps the beginning of a stream: the table of contents comes first, data follow."""

    LIMIT = 64 * 1024 * 1024

    def __init__(self, kept: list[bytes]) -> None:
        self._kept, self._size = kept, 0

    def __call__(self, chunk: bytes) -> None:
        if self._size < self.LIMIT:
            self._kept.append(chunk)
            self._size += len(chunk)


def _drain(chunks: Iterable[bytes], sink: Head) -> None:
    for chunk in chunks:
        sink(chunk)


def _nothing(_said: str) -> bool:
    return False


def run_restore(
    source: Source,
    commands: list[Command],
    chunks: Optional[Iterable[bytes]],
    loaded: Loaded,
    soft: set[str],
    forgives: Callable[[str], bool] = _nothing,
) -> set[str]:
    """Run pg_restore and what feeds it; `soft` are the numbers of entries that may fail.

    `forgives` is asked about each other error of a statement by what pg_restore said: the statement is undone, and the rest goes
    on. Return the numbers of the entries that failed, the soft ones not among them.
    Raise CommandError with the first error that is neither benign, nor about a soft entry, nor forgiven.
    """
    listener = _ErrorListener(loaded, soft, forgives)
    try:
        source.context.runner.pipe(commands, source=chunks, on_line=listener)
    except CommandError as error:
        # pg_restore ends with status 1 after errors that were passed over, too, and then says at its end how many.
        if listener.stopped or error.returncode != 1 or not listener.passed_over or not listener.complete:
            raise
    return listener.failed - soft


# Workers write at the same time: what one says is in one piece, but not in one with the words before it.
_WORDS_BEFORE = re.compile(r"(?:pg_restore:|error:|warning:|detail:|hint:| )*")
_OF_A_STATEMENT = ("could not execute query: ", "COPY failed for table ")


class _ErrorListener:
    """Stops pg_restore at its first error that is neither benign, nor about an entry that may fail, nor forgiven."""

    def __init__(self, loaded: Loaded, soft: set[str], forgives: Callable[[str], bool]) -> None:
        self._loaded, self._soft, self._forgives, self._where = loaded, soft, forgives, ""
        self.stopped, self.complete, self.passed_over = False, False, 0
        # Each that is named, and not only the last one: two workers may name theirs before either says why.
        self.failed: set[str] = set()

    def __call__(self, line: str) -> None:
        at = _WORDS_BEFORE.match(line)
        before = at[0] if at else ""
        said = line[len(before) :]
        if said.startswith("from TOC entry "):
            self._where = said[len("from TOC entry ") :].strip()
            self.failed.add(self._where.split(";")[0])
        self.complete = self.complete or said.startswith("errors ignored on restore: ")
        of_a_statement = said.startswith(_OF_A_STATEMENT)
        if not of_a_statement and before != "pg_restore: error: ":
            return
        if said.startswith("input file"):
            return  # what comes before it in the pipe may be the cause; the exit statuses tell
        reason = next((why for pattern, why in BENIGN if re.search(pattern, said)), None)
        if reason is not None:
            self._loaded.benign.append("%s: %s" % (said, reason))
        elif self._where.split(";")[0] in self._soft:
            self._loaded.left_out.append("%s: %s" % (self._where.split(" ", 3)[-1], said))
        elif not (of_a_statement and self.failed and self._forgives(said)):
            self.stopped = True
            where = " (entry %s)" % self._where if self._where else ""
            raise CommandError("pg_restore stopped at its first error: %s%s." % (said.rstrip("."), where), stderr=line)
        self.passed_over += 1


__all__ = (
    "BENIGN",
    "Head",
    "Loaded",
    "Options",
    "listing_of_file",
    "listing_of_stream",
    "restore_arguments",
    "run_restore",
    "seekable",
)
