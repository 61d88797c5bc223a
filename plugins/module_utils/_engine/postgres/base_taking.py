# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From PostgreSQL to the files of a base backup, by pg_basebackup: one tar of the data directory, one of each tablespace.

The WAL that makes a backup consistent is fetched at its end into the same tar (--wal-method=fetch): so it is compressed and
encrypted as the rest is, and needs one connection only. A slot of ours keeps the server from removing it meanwhile; where that
does not help, base_wal.py has it from the WAL archive.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Optional

from ..context import Context
from ..core import base_list
from ..core.choice import LEVELS
from ..core.errors import CommandError, DamagedError, PgopsError, RefusedError, UnreachableError, UsageError
from ..core.manifest import Payload, Tablespace
from ..core.sizes import parse_size
from ..core.tar_pick import Picker
from ..settings import Base
from ..system import codec
from ..system.bridge import flow
from ..system.runner import Command
from .connection import connect, explained, program_environment
from .dumping import DirectoryWatch, Sink
from .tools import Programs

FOLDER = "base"
LEAST_MAJOR = 15
INCREMENTAL_MAJOR = 17
_MOST_WORKERS = 4
_DAMAGE = re.compile(r'checksum verification failed in file "(?:\./)?([^"]+)", block (\d+)')
_START = re.compile(r"write-ahead log start point: ([0-9A-Fa-f]+/[0-9A-Fa-f]+) on timeline (\d+)")
_END = re.compile(r"write-ahead log end point: ([0-9A-Fa-f]+/[0-9A-Fa-f]+)")
_NO_WORKERS = "could not set compression worker count"
# So the server says that it cannot tell what changed since the parent.
_UNFIT = re.compile("WAL summar|[Ss]ummarization|requires WAL|found in manifest|in backup manifest")
# Of the client program, which always speaks English, or of the system.
_OTHER_CAUSES = (
    "connection to server",
    "No space left",
    "could not write",
    "could not create",
    "could not open",
    "killed",
)
# So the server says, in English, that WAL is not there any more.
_REMOVED = ("requested WAL segment", "could not find any WAL files", "could not find WAL file")
_WAITS = "still waiting for all required WAL segments"
# What to do next, by what the server says to who wants to replicate.
_HINTS = (
    ("permission denied to start WAL sender", "role"),
    ("must be superuser or replication role", "role"),
    ("no pg_hba.conf entry for replication", "hba"),
    ("requested standby connections exceeds", "senders"),
    ("too many clients", "senders"),
    *((text, "wal") for text in _REMOVED),
    ("standby was promoted", "promoted"),
    ("full_page_writes=off", "pages"),
)
_TEXTS = {
    "role": "Let the role replicate: ALTER ROLE … REPLICATION.",
    "hba": "Add a line for the database `replication`, this role and this host to the server's pg_hba.conf, and reload it.",
    "senders": "Raise max_wal_senders (and restart the server), or end a standby or another base backup.",
    "wal": "The server removed WAL that the backup needs: raise wal_keep_size or max_slot_wal_keep_size.",
    "pages": "Set full_page_writes to on at the primary, run CHECKPOINT there and then on the standby, and try again.",
    "promoted": "The standby became a primary meanwhile. Run the backup again.",
}


_FULL = "Take a full base backup: pgops backup --kind base --incremental never."


@dataclass(frozen=True)
class Way:
    """How a base backup is compressed: by which method, by whom (`server`, `client`, `program`, or nobody), encrypted or not,
    whether it is `streamed` to another place while it is taken, and whether PostgreSQL's list is kept `apart` for what builds on it.
    """

    method: str
    where: str
    level: Optional[int] = None
    workers: int = 0
    encrypted: bool = False
    streamed: bool = False
    apart: bool = False

    @property
    def piped(self) -> bool:
        """Whether all comes as one stream, which holds no tablespaces of their own."""
        return self.encrypted or self.streamed or self.where == "program"

    @property
    def layers(self) -> tuple[str, ...]:
        """The wrappers around each tar, innermost first."""
        inner = () if self.method == "none" else (self.method,)
        return (*inner, "age") if self.encrypted else inner

    @property
    def argument(self) -> str:
        """The value of pg_basebackup's option --compress."""
        if self.where not in ("server", "client"):
            return "none"
        level = LEVELS[self.method] if self.level is None else self.level
        details = ["level=%d" % min(level, _MOST[self.method])]
        if self.method == "zstd" and self.workers > 1:
            details.append("workers=%d" % self.workers)
        return "%s-%s:%s" % (self.where, self.method, ",".join(details))

    def shown(self) -> dict[str, object]:
        """Return it for the result."""
        return {"compression": self.method, "by": self.where, "workers": self.workers, "encrypted": self.encrypted}


_MOST = {"zstd": 19, "lz4": 12, "gzip": 9}


@dataclass
class Taken:
    """A base backup in the folder of a set: its payloads, and the WAL range of what was copied.

    `inner_list` is PostgreSQL's own list where it is inside a tar that nobody here could read again, or not without fetching it.
    """

    payload: Payload
    way: Way
    listing: Optional[Payload] = None
    tablespaces: tuple[Tablespace, ...] = ()
    inner_list: bytes = b""
    wal: Optional[Payload] = None
    timeline: int = 0
    start: str = ""
    end: str = ""
    said: list[str] = field(default_factory=list)

    @staticmethod
    def start_of(said: Sequence[str]) -> Optional[tuple[str, int]]:
        """Return where the WAL begins, and on which timeline, as pg_basebackup said last; None where it did not come so far."""
        match = next((m for m in map(_START.search, reversed(said)) if m), None)
        return None if match is None else (match.group(1), int(match.group(2)))


class UnfitParentError(RefusedError):
    """The server takes no incremental base backup upon that parent; a full one may go."""


# --- how to compress --------------------------------------------------------------------------------------------------


def choose_way(
    context: Context, programs: Programs, *, tablespaces: bool, apart: bool = False, streamed: bool = False
) -> tuple[Way, str]:
    """Return how to compress, and why in words: the first way of those that the configuration allows which all can go.

    With `apart` an incremental one that builds on this one will need PostgreSQL's own list: best in a file of its own, which a
    program cannot write, so that one is the last choice. With `streamed` all must come as one stream. The server and its program
    are asked what their builds can do. Raise UsageError if none is left, UnreachableError or RefusedError if the server lets
    nobody replicate.
    """
    settings, encrypted = context.config.base, context.config.backup.encryption == "age"
    if encrypted and tablespaces:
        raise UsageError(
            "A base backup of a server with tablespaces cannot be encrypted: pg_basebackup writes each to a file of its own.",
            hint="Say backup.encryption: none for it, and let the store encrypt (s3.sse), or back up by dumps.",
        )
    if streamed and tablespaces:
        raise RefusedError(
            "A base backup of a server with tablespaces cannot be streamed to S3: pg_basebackup writes each to a file of its own.",
            hint="Take it to this host (base.to: local), and bring it to S3 by pgops sync.",
        )
    workers = settings.workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    check_replication(context, programs)
    if settings.compression == "none":
        return Way("none", "nobody", encrypted=encrypted, streamed=streamed), "none: as base.compression says"
    methods = ("zstd", "gzip") if settings.compression == "auto" else (settings.compression,)
    own, last = _places(settings, piped=encrypted or streamed, tablespaces=tablespaces)
    pairs = [(method, where) for method in methods for where in (*own, *(() if apart else last))]
    for method, where in pairs + [(method, where) for method in methods for where in (last if apart else ())]:
        if _can(context, programs, method, where):
            threads = workers if method == "zstd" else 0
            chosen = Way(method, where, settings.compression_level, threads, encrypted, streamed, apart)
            return chosen, "%s: %s" % (method, _WHY[where])
    raise UsageError(
        "Nothing here compresses with %s." % " or ".join(methods),
        hint="Install the package %s, or set base.compression." % methods[0]
        if "program" in (*own, *last)
        else "A program cannot do it here, only %s: set base.compression to gzip or auto."
        % " or ".join(_BUILDS[where] for where in own),
    )


_WHY = {
    "server": "the server can compress with it",
    "client": "this pg_basebackup can compress with it",
    "program": "neither the server nor pg_basebackup can, but there is the program",
}


_BUILDS = {"server": "this server", "client": "this pg_basebackup"}


def _places(settings: Base, *, piped: bool, tablespaces: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return who may compress, and who where those cannot: a program gets one stream, which holds no tablespaces."""
    if piped:
        return ("program",), ()
    own = ("server", "client") if settings.compress_on == "auto" else (settings.compress_on,)
    return own, () if tablespaces or settings.compress_on == "server" else ("program",)


def _can(context: Context, programs: Programs, method: str, where: str) -> bool:
    """Tell whether `where` compresses with `method`. A level that does not exist is refused before anything begins."""
    if where == "program":
        return context.runner.find(method) is not None
    said = _ask(context, programs, "%s-%s:level=99" % (where, method))
    return "expects a compression level" in said


def check_replication(context: Context, programs: Programs) -> None:
    """Raise RefusedError or UnreachableError, with a next step, if the server does not let us take a base backup."""
    said = _ask(context, programs, "server-gzip:level=99")
    if "compression" not in said:
        raise replication_refused(CommandError(" / ".join(said.splitlines()[-3:]), stderr=said))


def _ask(context: Context, programs: Programs, compress: str) -> str:
    command = Command(
        (
            programs.path("pg_basebackup"),
            "--pgdata=-",
            "--format=tar",
            "--wal-method=none",
            "--no-manifest",
            "--no-password",
            "--compress=" + compress,
        ),
        env=program_environment(context.config.postgres),
    )
    return context.runner.run(command, check=False, timeout=60).stderr


def replication_refused(error: CommandError) -> PgopsError:
    """Return what pg_basebackup failed with as an error with a next step: RefusedError where somebody must allow something."""
    said = "%s %s" % (error.message, error.stderr)
    key = next((key for text, key in _HINTS if text in said), "")
    if key in ("role", "hba", "senders"):
        return RefusedError("The server lets nobody take a base backup: %s" % error.message, hint=_TEXTS[key])
    if key:
        error.hint = _TEXTS[key]
        return error
    if "connection to server" in said:
        return UnreachableError(error.message, hint="Check the section postgres of the configuration.")
    return explained(error)


# --- take -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def wal_kept(context: Context) -> Iterator[None]:
    """Keep the server from removing WAL, by a slot, for as long as the block lasts.

    It has a session of its own, with which it goes: a server that wrote more than max_slot_wal_keep_size meanwhile ends both, and the
    backup is whole all the same, if the WAL is still there in the end. So it does after idle_replication_slot_timeout.
    """
    name = "pgops_%s" % secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        try:
            session = stack.enter_context(connect(context.config.postgres))
            session.rows("SELECT pg_create_physical_replication_slot(%s, true, true)", (name,))
        except PgopsError as error:
            context.warn("%s: %s" % (_NO_SLOT, error.message))
            yield
            return
        yield
        try:
            session.rows("SELECT pg_drop_replication_slot(%s)", (name,))
        except PgopsError as error:  # with its session it goes anyway
            if isinstance(error, UnreachableError):
                context.warn(_SLOT_ENDED)


_NO_SLOT = "No slot keeps WAL during the backup, so it fails if the server removes some"
_SLOT_ENDED = (
    "The server ended the slot that was to keep WAL during the backup, as it does when more than max_slot_wal_keep_size is written"
    " meanwhile, and when idle_replication_slot_timeout (PostgreSQL 18) is over. A backup that takes longer may fail for want of WAL:"
    " raise max_slot_wal_keep_size, or the timeout."
)


def take(
    context: Context,
    programs: Programs,
    sink: Sink,
    way: Way,
    tablespaces: Callable[[], Sequence[Tablespace]],
    *,
    parent_list: Optional[Path] = None,
    with_wal: bool = True,
    said: Optional[list[str]] = None,
) -> Taken:
    """Take a base backup into the folder of `sink`, and return what it is: what changed since `parent_list`, the parent's
    backup_manifest, or all. `tablespaces` tells, when it is done, which the server has: some may be younger than the plan.

    Without `with_wal` the WAL that makes it consistent is not in it, nor known which that is; the server waits until it is archived.
    `said` gets what pg_basebackup says.

    Raise DamagedError when the server found damaged blocks (details: `damaged`, a list of {file, block}), CommandError,
    UnfitParentError, RefusedError or UnreachableError; what was written so far lies there then.
    """
    taken = Taken(Payload("%s/base.tar%s" % (FOLDER, codec.suffix(way.layers)), "tar", way.method, way.layers), way)
    taken.said = [] if said is None else said
    try:
        _run(context, programs, sink, taken, parent_list, with_wal)
    except CommandError as error:
        if parent_list is not None and _UNFIT.search(error.stderr):
            raise UnfitParentError(
                "The server takes no incremental base backup upon that one: %s" % error.message, hint=_FULL
            ) from None
        if _NO_WORKERS not in error.stderr or way.workers <= 1:
            raise _told(error, taken) from None
        context.warn("The compression cannot work with several threads here, so it has one.")
        alone = replace(way, workers=0)
        return take(context, programs, sink, alone, tablespaces, parent_list=parent_list, with_wal=with_wal, said=said)
    if with_wal:
        _read_range(taken)
    if not way.piped:
        taken.listing = Payload("%s/%s" % (FOLDER, base_list.NAME), "backup_manifest")
        suffix = codec.suffix(way.layers)
        taken.tablespaces = tuple(
            replace(t, payload=Payload("%s/%s.tar%s" % (FOLDER, t.oid, suffix), "tar", way.method, way.layers))
            for t in _brought(sink.folder / FOLDER, suffix, tablespaces())
        )
    return taken


def _brought(folder: Path, suffix: str, known: Sequence[Tablespace]) -> list[Tablespace]:
    """Return those of the `known` tablespaces that the base backup in `folder` holds. Raise PgopsError if it holds others.

    They are listed when it begins, which may be minutes after it was asked for, as it waits for a checkpoint.
    """
    ending = ".tar" + suffix
    there = {p.name[: -len(ending)] for p in folder.iterdir() if p.name.endswith(ending) and p.name[:1].isdecimal()}
    unknown = sorted(there - {t.oid for t in known})
    if unknown:
        raise PgopsError(
            "Tablespaces were made and dropped while the base backup was taken (number %s)." % ", ".join(unknown),
            hint="Nothing was kept. Run it again.",
        )
    return [t for t in known if t.oid in there]


def _run(
    context: Context, programs: Programs, sink: Sink, taken: Taken, parent_list: Optional[Path], with_wal: bool
) -> None:
    command = _command(context, programs, sink.folder, taken.way, parent_list, with_wal)

    def hear(line: str) -> None:
        taken.said.append(line)
        if _WAITS in line:
            context.reporter.note(
                "warning: the server waits until the WAL of the base backup is archived; 'pgops wal status' tells how that goes"
            )

    if taken.way.piped:
        recipients = context.config.backup.recipients
        wrappers = codec.wrap(
            context.runner, taken.way.layers, level=context.config.base.compression_level, recipients=recipients
        )
        if taken.way.encrypted or taken.way.streamed or taken.way.apart or not with_wal:
            _pick_list(context, sink, taken, command, wrappers, hear)
        else:
            sink.stream(taken.payload.path, [command, *wrappers], watch=sink.check_space, on_line=hear)
        return
    watch = DirectoryWatch(context, sink, sink.folder / FOLDER, lambda: None)
    context.runner.run(command, watch=watch, on_line=hear)


def _pick_list(
    context: Context, sink: Sink, taken: Taken, command: Command, wrappers: list[Command], hear: Callable[[str], None]
) -> None:
    """Let the tar go by on its way to the `wrappers`, and keep PostgreSQL's list from it."""
    picker = Picker(base_list.NAME)
    with flow(context.runner, [command], watch=sink.check_space, on_line=hear) as chunks:
        sink.stream(taken.payload.path, wrappers, source=picker.through(chunks))
    taken.inner_list = picker.content or b""


def _command(
    context: Context, programs: Programs, folder: Path, way: Way, parent_list: Optional[Path], with_wal: bool
) -> Command:
    settings = context.config.base
    upon = ("--incremental=%s" % parent_list,) if parent_list is not None else ()
    rate = ("--max-rate=%dk" % (parse_size(settings.max_rate) // 1024),) if settings.max_rate else ()
    return Command(
        (
            programs.path("pg_basebackup"),
            "--pgdata=%s" % ("-" if way.piped else folder / FOLDER),
            "--format=tar",
            "--wal-method=%s" % ("fetch" if with_wal else "none"),
            "--checkpoint=%s" % settings.checkpoint,
            "--label=pgops",
            "--manifest-checksums=%s" % settings.manifest_checksums,
            "--compress=%s" % way.argument,
            "--no-password",
            "--no-sync",
            "--verbose",
            *rate,
            *upon,
        ),
        env=program_environment(context.config.postgres),
    )


def was_removed(said: str) -> bool:
    """Tell whether the server says, in English, that WAL is not there any more."""
    return any(text in said for text in _REMOVED)


def may_be_unfit(error: PgopsError) -> bool:
    """Tell whether an incremental base backup failed for what may be the parent's sake: a full one may go then.

    The server says why in its own language, so what is told in another way does not count: damage, rights, the connection, full disks.
    """
    if isinstance(error, UnfitParentError):
        return True
    if error.__class__ is not CommandError or "pg_basebackup" not in error.message:
        return False
    said = "%s %s" % (error.message, error.stderr)
    return not any(text in said for text, _key in _HINTS) and not has_other_cause(error)


def has_other_cause(error: CommandError) -> bool:
    """Tell whether pg_basebackup failed for want of the server, of room, or because it was ended."""
    return any(text in "%s %s" % (error.message, error.stderr) for text in _OTHER_CAUSES)


def _told(error: CommandError, taken: Taken) -> PgopsError:
    """Return why it failed; damaged blocks that the server found are told one by one."""
    blocks = [m.groups() for m in (_DAMAGE.search(line) for line in taken.said) if m]
    if not blocks and "checksum error" not in error.stderr:
        return replication_refused(error)
    shown = ", ".join("block %s of %s" % (block, file) for file, block in blocks[:5])
    damaged = DamagedError(
        "The server's data are damaged, so no base backup was kept: %s%s."
        % (shown or "pg_basebackup met blocks with a wrong checksum", " and others" if len(blocks) > 5 else ""),
        hint="Older sets stay as they are: do not remove any. Look at the disk, find the tables (pg_filenode_relation), "
        "and restore them from a set that is proven.",
    )
    damaged.details = {"damaged": [{"file": file, "block": int(block)} for file, block in blocks]}
    return damaged


def _read_range(taken: Taken) -> None:
    start = Taken.start_of(taken.said)
    end = next((m for m in map(_END.search, reversed(taken.said)) if m), None)
    if start is None or end is None:
        raise PgopsError(
            "pg_basebackup did not tell which WAL the base backup needs: %s." % " / ".join(taken.said[-3:]),
            hint="Update the client programs of PostgreSQL.",
        )
    (taken.start, taken.timeline), taken.end = start, end.group(1)


__all__ = (
    "FOLDER",
    "INCREMENTAL_MAJOR",
    "LEAST_MAJOR",
    "Taken",
    "UnfitParentError",
    "Way",
    "check_replication",
    "choose_way",
    "has_other_cause",
    "may_be_unfit",
    "replication_refused",
    "take",
    "wal_kept",
    "was_removed",
)
