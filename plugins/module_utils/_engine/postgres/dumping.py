# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From PostgreSQL to payload files: one database by pg_dump, the globals by pg_dumpall, each with its wrappers."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

from ..context import Context
from ..core.choice import Choice
from ..core.errors import CommandError, MissingError, PgopsError, RefusedError
from ..core.fingerprint import Facts
from ..core.lock_queue import LockWaits
from ..core.manifest import Payload
from ..core.naming import database_argument, file_stem, qualified, quote_ident
from ..core.redaction import is_masked
from ..core.sizes import human_size
from ..core.times import parse_span
from ..system import codec
from ..system.durable import create_private, free_bytes
from ..system.following import Following
from ..system.runner import Command, OnLine, Watch
from . import inventory
from .connection import (
    LostError,
    Server,
    Session,
    connect,
    explained,
    program_environment,
    with_options,
    without_limits,
)
from .inventory import MORE_LOCKS, NO_LOCKS
from .lock_waits import DumpAnewError, GaveWayError, LockWatch
from .tools import Programs

# How often a dump that others disturbed is made anew.
ANEW = 2
_SETTLE_SECONDS = 10.0
_SPACE_EVERY = 64 * 1024 * 1024
_FILTER_FILE = 17  # the first pg_dump that reads filters
_ARGUMENT_BYTES = 9  # that the kernel counts for each argument: a pointer, and the end
_EXTENSIONS = {"custom": ".dump", "plain": ".sql", "directory": ""}
# What writes a file from its beginning to its end. An archive of pg_dump gets its positions last, where it can.
_SEQUENTIAL = tuple(codec.SUFFIXES.values())
# These write by themselves, as they say so when the disk is full.
_OWN_WRITERS = ("zstd", "gzip")


@dataclass(frozen=True)
class DumpJob:
    """One database to dump, how, and with which programs."""

    database: str
    scope: inventory.Scope
    choice: Choice
    programs: Programs
    server: Server
    with_rows: bool = True


class Sink:
    """The folder of a set that is being written. It keeps `floor` bytes of its file system free."""

    def __init__(self, context: Context, folder: Path, floor: int) -> None:
        self.folder = folder
        self.hashes: dict[Path, tuple[int, str]] = {}  # of files that are complete: bytes, SHA-256
        self._context, self._floor = context, floor

    def begin_anew(self, path: str) -> None:
        """Forget the folder `path`, which an attempt that failed has begun."""
        shutil.rmtree(self.folder / path, ignore_errors=True)

    def check_space(self) -> None:
        """Raise RefusedError when the file system is down to the floor."""
        free = free_bytes(self.folder)
        if free < self._floor:
            raise RefusedError(
                "Only %s are free in %s and %s must stay free; the backup was ended."
                % (human_size(free), self.folder.parent, human_size(self._floor)),
                hint="Make room (pgops prune), or lower backup.min_free.",
            )

    def stream(
        self,
        path: str,
        commands: list[Command],
        *,
        source: Union[bytes, Iterable[bytes], None] = None,
        watch: Optional[Any] = None,
        on_line: Optional[OnLine] = None,
    ) -> None:
        """Write what the pipeline `commands` gives (or `source`, if it is empty) to the new file `path`. Raise what they raise.

        They read `source`, whole or in chunks.

        `on_line` hears what the programs say.
        """
        target = self.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [0, 0]
        with create_private(target) as stream:

            def put(chunk: bytes) -> None:
                stream.write(chunk)
                written[0] += len(chunk)
                self._context.reporter.advance(len(chunk))
                if written[0] - written[1] >= _SPACE_EVERY:
                    written[1] = written[0]
                    self.check_space()

            chunks = [source] if isinstance(source, bytes) else source
            if commands:
                self._context.runner.pipe(commands, source=chunks, sink=put, watch=watch, on_line=on_line)
            else:
                for chunk in chunks or ():
                    put(chunk)

    def write_itself(self, path: str, commands: list[Command], *, source: bytes, watch: Watch) -> None:
        """Have the last of the pipeline `commands`, which reads `source`, write the new file `path`. Raise what they and `watch` raise."""
        target = self.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = [0]

        def look() -> None:
            self.check_space()
            watch()
            size = target.stat().st_size
            self._context.reporter.advance(size - seen[0])
            seen[0] = size

        with create_private(target) as file:
            self._context.runner.pipe(commands, source=[source] if source else None, sink=file, watch=look)
        self._context.reporter.advance(target.stat().st_size - seen[0])

    @contextlib.contextmanager
    def following(self, target: Path) -> Iterator[None]:
        """Hash what is written to `target`, a file or a folder, in the block and at its end; of one that fails all is forgotten."""
        with Following(target, _SEQUENTIAL) as following:
            yield
        self.hashes.update(following.hashes())


def write_payload(context: Context, sink: Sink, path: str, form: str, content: bytes) -> Payload:
    """Store `content` as the file `path`, encrypted if the configuration says so. Nothing plain touches the disk then."""
    layers = _layers(context)
    commands = codec.wrap(context.runner, layers, level=None, recipients=context.config.backup.recipients)
    full = path + codec.suffix(layers)
    sink.stream(full, commands, source=content)
    return Payload(full, form, "none", layers)


def _layers(context: Context) -> tuple[str, ...]:
    return ("age",) if context.config.backup.encryption == "age" else ()


# As the server, the database or the role has it, whatever this session has set.
_ISOLATION = "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_isolation'"


def _answering(server: Server, session: Session) -> dict[str, str]:
    """Return the settings with which a standby answers a program of PostgreSQL: it has no serializable transactions.

    `session` is asked before it does anything else: who waits for it later would wait for all that it does.
    """
    serializable = server.in_recovery and session.value(_ISOLATION) == "serializable"
    return {"default_transaction_isolation": r"read\ committed"} if serializable else {}


# --- globals ----------------------------------------------------------------------------------------------------------


def dump_globals(context: Context, programs: Programs, server: Server, sink: Sink) -> tuple[Payload, bool]:
    """Store roles, memberships, role settings and tablespaces; return the payload and whether it has the passwords.

    Managed services forbid reading pg_authid: then the passwords are left out, with a warning. Raise CommandError.
    """
    layers = _layers(context)
    path = "globals.sql" + codec.suffix(layers)
    wrappers = codec.wrap(context.runner, layers, level=None, recipients=context.config.backup.recipients)
    with connect(context.config.postgres) as session:
        environment = {**program_environment(context.config.postgres), **_encoding(session)}
        environment = with_options(environment, _answering(server, session))
    attempts = [()] if server.superuser else [(), ("--no-role-passwords",)]
    for extra in attempts:
        command = Command(
            (programs.path("pg_dumpall"), "--globals-only", "--no-password", *extra, _login_database(context)),
            env=environment,
        )
        try:
            sink.stream(path, [command, *wrappers])
        except CommandError as error:
            (sink.folder / path).unlink(missing_ok=True)
            if extra == attempts[-1] or "pg_authid" not in error.stderr:
                raise
            context.warn(
                "Role passwords are not in the set: this role may not read them. Restored roles will need new ones."
            )
            continue
        return Payload(path, "plain", "none", layers), not extra
    raise PgopsError("pg_dumpall was not tried.")


def _login_database(context: Context) -> str:
    return database_argument(context.config.postgres.login_db)


# --- one database -----------------------------------------------------------------------------------------------------


# So the server says it, in every case: a lock, a snapshot that is too old, a buffer, a database that was dropped.
_CONFLICT = "conflict with recovery"
_CONFLICTS = ("40001", "40P01", "57P04")  # to a session that reads: nothing else gives it these
_LOCK_TIMEOUT = "55P03"
_MIGRATIONS = "Back up when no migration runs; with backup.on_lock_wait at report, the others wait for the dump."
_REPLAY = (
    "On the standby, set hot_standby_feedback to on, or raise max_standby_streaming_delay above the time that a dump takes;"
    " or let the primary back up (group.run_on)."
)


class DroppedError(MissingError):
    """The database was dropped, or got another name, while it was dumped."""


Dumped = tuple[Payload, Optional[Facts], dict[str, Any], list[dict[str, str]]]


def dump_database(context: Context, job: DumpJob, sink: Sink, waits: LockWaits) -> Dumped:
    """Dump one database in a snapshot that we hold; return its payload, fingerprint, properties and what was left out.

    The fingerprint is taken in the same snapshot while pg_dump works. Who waited for our locks meanwhile is told, and
    kept in `waits`. A dump that gives way to them, whose snapshot does not see a table's rows any more, or that a standby
    ends for the sake of its replay, is made anew.
    Raise MissingError if the database is gone (DroppedError, and nothing of its dump stays, if it went meanwhile),
    PgopsError if the dump never got through, CommandError, RefusedError or UnreachableError; the file may be half-written
    then.
    """
    reason, hint = "", _MIGRATIONS
    try:
        for again in range(ANEW + 1):
            watch = LockWatch(context, job.server, waits)
            try:
                # What was not hashed on the way is read when our session is gone: nobody need wait for its locks any more.
                with sink.following(sink.folder / _path(job)), watch:
                    return _dump_once(context, job, sink, watch)
            except DumpAnewError as error:
                reason = error.message
                waits.gave_way += isinstance(error, GaveWayError)
            except PgopsError as error:
                now = None if isinstance(error, MissingError) else _oid_now(context, job)
                if now == 0:
                    _discard(sink.folder / _path(job))
                    raise DroppedError(error.message, hint=error.hint) from None
                if now and watch.oid and now != watch.oid:
                    reason, hint = "Another database took the name %r while it was dumped." % job.database, ""
                elif job.server.in_recovery and _is_conflict(error):
                    said = "The standby ended the dump of %r, which was in the way of its replay."
                    reason, hint = said % job.database, _REPLAY
                else:
                    raise
            _discard(sink.folder / _path(job))
            watch.let_pass()
            if again < ANEW:
                context.warn("%s It is made anew." % reason)
                context.reporter.phase("backup of %s, anew" % job.database)
    finally:
        for text in waits.warnings():
            context.warn(text)
    raise PgopsError(
        "The dump of %r was begun %d times and never came to its end: %s" % (job.database, ANEW + 1, reason),
        hint=hint,
    )


def _dump_once(context: Context, job: DumpJob, sink: Sink, watch: LockWatch) -> Dumped:
    left_out: list[dict[str, str]] = []
    with connect(context.config.postgres, job.database) as session:
        watch.oid = int(session.value(_OID))
        timeout = parse_span(context.config.backup.lock_wait_timeout)
        session.execute("SELECT set_config('lock_timeout', %s, false)", ("%ds" % timeout.total_seconds(),))
        session.execute("SELECT set_config('application_name', %s, false)", (watch.name_of_ours,))
        answering = _answering(job.server, session)
        properties = inventory.database_properties(session, job.database)
        for entry in properties["settings"]:
            left_out += masked_settings(entry["settings"], "database %s" % job.database)
        snapshot = session.begin_snapshot()
        watch.watch(session)
        facts = inventory.take(session, job.scope)
        counter = _Counter(session, facts, job)

        def check() -> None:
            watch.check()
            counter.check()

        if job.server.in_recovery and any(v["persistence"] == "u" for v in facts["relations"].values()):
            why = "unlogged tables cannot be read on a standby"
            left_out.append({"what": "rows of unlogged tables of database %s" % job.database, "why": why})
        try:
            payload = _run_pg_dump(context, job, sink, snapshot, watch.name_of_ours, session, check, answering)
            fingerprint = counter.finish(check)
        except BaseException as error:  # noqa: BLE001  # raised again
            if isinstance(error, CommandError):
                counter.settle()
                if _LOST_TO_DDL in error.stderr:
                    watch.look()  # our session still holds its locks, so whoever waits is seen
                    error = GaveWayError("The dump of %r lost a table to a session that waits for it." % job.database)
            # When our session fails, its snapshot ends with it, and pg_dump can only complain that it is gone.
            cause = counter.abandon()
            if cause is None and isinstance(error, CommandError):
                cause = session.ended()
            raise _explained(cause if cause is not None and isinstance(error, CommandError) else error) from None
    _check_archive(context, job, sink, payload)
    return payload, fingerprint, properties, left_out


# A worker of a parallel pg_dump asks for its table's lock again, never waits for it, and ends the dump if it is not to be
# had at once. That is so when somebody waits for a stronger one, whatever on_lock_wait says.
_LOST_TO_DDL = "could not obtain lock on relation"


_OID = "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"


def _oid_now(context: Context, job: DumpJob) -> Optional[int]:
    """Return the OID of the database that has the name now, 0 where there is none, None where the server cannot be asked.

    Raise LostError where its files are lost: that says more than what a program made of it.
    """
    try:
        with connect(context.config.postgres, job.database) as session:  # waits for a DROP DATABASE that is at work
            return int(session.value(_OID))
    except MissingError:
        return 0
    except LostError:
        raise
    except PgopsError:
        return None


def _is_conflict(error: PgopsError) -> bool:
    said = "%s %s" % (error, getattr(error, "stderr", ""))
    return getattr(error, "sqlstate", None) in _CONFLICTS or _CONFLICT in said


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def masked_settings(settings: Iterable[str], whose: str) -> list[dict[str, str]]:
    """Return, for the report of what was left out, the settings whose values a manifest must not hold."""
    why = "it looks like a secret, and a manifest holds none; set it again after a restore"
    return [
        {"what": "value of the setting %s of %s" % (setting.partition("=")[0], whose), "why": why}
        for setting in settings
        if is_masked(setting)
    ]


def _explained(error: BaseException) -> BaseException:
    """Return `error` with a hint where it is about a lock that others held for too long."""
    said = "%s %s" % (error, getattr(error, "stderr", ""))
    # The server tells us a state, and pg_dump its statement.
    timed_out = getattr(error, "sqlstate", None) == _LOCK_TIMEOUT or "LOCK TABLE" in said
    if isinstance(error, PgopsError) and timed_out:
        error.hint = "Another session holds a lock on a table. Try again later, or raise backup.lock_wait_timeout."
    if isinstance(error, PgopsError) and NO_LOCKS in said:
        error.hint = MORE_LOCKS
    return explained(error) if isinstance(error, PgopsError) else error


class _Counter(threading.Thread):
    """Locks the tables and counts their rows in the snapshot's own session while pg_dump reads the same snapshot.

    Nobody can rewrite a table then, and a count never stands behind those who wait for pg_dump's locks meanwhile.
    """

    def __init__(self, session: Session, facts: Facts, job: DumpJob) -> None:
        super().__init__(daemon=True)
        self._session, self._facts, self._job = session, facts, job
        self._trouble: Optional[BaseException] = None
        self._locked = threading.Event()
        self._unlogged = not job.server.in_recovery  # a standby cannot read what is unlogged
        self._before = inventory.sequence_positions(session, facts, unlogged=self._unlogged) if job.with_rows else {}
        self.start()

    def run(self) -> None:
        tables = inventory.tables_with_rows(self._facts, self._job.scope, unlogged=self._unlogged)
        try:
            stale = inventory.lock_tables(self._session, tables)
            if stale:
                raise DumpAnewError(
                    "The snapshot of the dump of %r does not see the rows of %s: others rewrote or truncated it."
                    % (self._job.database, ", ".join(stale))
                )
            self._locked.set()
            if self._job.with_rows:
                self._facts["rows"] = inventory.count_rows(self._session, tables, within_transaction=True)
        except Exception as error:  # noqa: BLE001  # raised again in check()
            self._trouble = error
        finally:
            self._locked.set()

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self._trouble is not None:
            raise self._trouble

    def settle(self) -> None:
        """Wait a moment for the locks: why pg_dump failed may show when they are there."""
        self._locked.wait(_SETTLE_SECONDS)

    def abandon(self) -> Optional[BaseException]:
        """Stop counting, and return what had gone wrong with it before, None if nothing had."""
        trouble = self._trouble
        while self.is_alive():  # between two queries there is nothing to cancel
            self._session.cancel()
            self.join(0.2)
        return trouble

    def finish(self, check: Callable[[], None]) -> Optional[Facts]:
        """Wait for the counts and return the whole fingerprint, if one is wanted; raise what `check` raises."""
        while self.is_alive():
            self.join(0.5)
            check()
        self.check()
        if not self._job.with_rows:
            return None
        after = inventory.sequence_positions(self._session, self._facts, unlogged=self._unlogged)
        self._facts["sequences"] = {key: [self._before[key], after[key]] for key in after}
        return self._facts


def _path(job: DumpJob) -> str:
    suffixes = _EXTENSIONS[job.choice.format], codec.suffix(job.choice.layers)
    return "databases/%s%s%s" % (file_stem(job.database), *suffixes)


def _run_pg_dump(
    context: Context,
    job: DumpJob,
    sink: Sink,
    snapshot: str,
    application: str,
    session: Session,
    check: Callable[[], None],
    answering: Mapping[str, str],
) -> Payload:
    choice = job.choice
    path = _path(job)
    arguments = [
        job.programs.path("pg_dump"),
        "--format=%s" % choice.format,
        "--no-password",
        "--snapshot=%s" % snapshot,
        "--lock-wait-timeout=%d" % (parse_span(context.config.backup.lock_wait_timeout).total_seconds() * 1000),
        *_compress(job),
    ]
    filters, listed = _filters(job)
    arguments += filters
    if job.server.in_recovery:
        arguments.append("--no-unlogged-table-data")
    environment = {**program_environment(context.config.postgres), **_encoding(session), "PGAPPNAME": application}
    if (
        job.server.superuser
    ):  # a limit may end even the statement that lifts it; a pooler, as others use, refuses options
        environment = with_options(environment, {"lc_messages": "C", **without_limits(job.server.version_num)})
    environment = with_options(environment, answering)
    if choice.format == "directory":
        target = sink.folder / path
        target.parent.mkdir(mode=0o700, exist_ok=True)
        # Files are fsynced once, when the set is published.
        arguments += ["--jobs=%d" % choice.jobs, "--no-sync", "--file=%s" % target]
        command = Command((*arguments, database_argument(job.database)), env=environment)
        context.runner.run(command, stdin=listed, watch=DirectoryWatch(context, sink, target, check))
    else:
        command = Command((*arguments, database_argument(job.database)), env=environment)
        wrappers = codec.wrap(
            context.runner, choice.layers, level=choice.level, recipients=context.config.backup.recipients
        )

        def look() -> None:
            sink.check_space()
            check()

        if choice.layers and choice.layers[-1] in _OWN_WRITERS:
            sink.write_itself(path, [command, *wrappers], source=listed, watch=check)
        else:
            sink.stream(path, [command, *wrappers], source=listed or None, watch=look)
    outside = next((layer for layer in choice.layers if layer != "age"), "none")
    return Payload(path, choice.format, choice.native if choice.native != "none" else outside, choice.layers)


def _encoding(session: Session) -> dict[str, str]:
    """Return what a program gets beside, so that it takes the bytes of a database without an encoding as they are."""
    return {} if session.has_encoding else {"PGCLIENTENCODING": "SQL_ASCII"}


def _compress(job: DumpJob) -> list[str]:
    choice = job.choice
    if choice.native == "none":
        return ["--compress=0"] if choice.format != "plain" else []
    if job.programs.major >= 16:
        return ["--compress=%s:%d" % (choice.native, choice.level or 0)]
    return ["--compress=%d" % (choice.level or 0)]


def _filters(job: DumpJob) -> tuple[list[str], bytes]:
    """Return pg_dump's filters as arguments, or, where they are too many for that, what it is to read.

    A name in double quotes is taken literally by its patterns. Raise RefusedError if this pg_dump can do neither.
    """
    scope = job.scope
    wanted = [
        *(("--schema", "include schema", quote_ident(s)) for s in scope.schemas),
        *(("--exclude-schema", "exclude schema", quote_ident(s)) for s in scope.exclude_schemas),
        *(("--table", "include table", qualified(*t)) for t in scope.tables),
        *(("--exclude-table", "exclude table", qualified(*t)) for t in scope.exclude_tables),
        *(("--exclude-table-data", "exclude table_data", qualified(*t)) for t in scope.exclude_table_data),
    ]
    arguments = ["%s=%s" % (option, pattern) for option, _words, pattern in wanted]
    if sum(len(os.fsencode(argument)) + _ARGUMENT_BYTES for argument in arguments) <= _longest():
        return arguments, b""
    if job.programs.major < _FILTER_FILE:
        raise RefusedError(
            "The filters name %d schemas and tables of %r, too many for a command line, and pg_dump reads them from elsewhere from"
            " %d on only; here is %s." % (len(wanted), job.database, _FILTER_FILE, job.programs.version),
            hint="Take the whole database, or a newer pg_dump (postgres.bin_dir).",
        )
    return ["--filter=-"], "".join("%s %s\n" % (words, pattern) for _o, words, pattern in wanted).encode(
        "utf-8", "surrogateescape"
    )


def _longest() -> int:
    """Return how many bytes of arguments surely fit on a command line, beside an environment."""
    return os.sysconf("SC_ARG_MAX") // 2


class DirectoryWatch:
    """Looks at a growing directory: keeps the floor, reports progress, and raises what `check` raises."""

    def __init__(self, context: Context, sink: Sink, folder: Path, check: Callable[[], None]) -> None:
        self._context, self._sink, self._folder, self._check, self._seen = context, sink, folder, check, 0

    def __call__(self) -> None:
        self._sink.check_space()
        self._check()
        try:
            with os.scandir(self._folder) as entries:
                size = sum(entry.stat().st_size for entry in entries)
        except FileNotFoundError:
            return
        self._context.reporter.advance(max(0, size - self._seen))
        self._seen = max(self._seen, size)


def _check_archive(context: Context, job: DumpJob, sink: Sink, payload: Payload) -> None:
    """Have pg_restore read the table of contents where that is possible without taking wrappers off."""
    if payload.layers or payload.format == "plain":
        if payload.format != "directory" and (sink.folder / payload.path).stat().st_size == 0:
            raise PgopsError(
                "The dump of %r is empty." % job.database,
                hint="Run the backup again; if it stays so, run pg_dump by hand.",
            )
        return
    command = Command((job.programs.path("pg_restore"), "--list", str(sink.folder / payload.path)))
    listed = context.runner.run(command).stdout
    if b"Archive created" not in listed:
        raise PgopsError("The dump of %r has no table of contents." % job.database)


__all__ = (
    "ANEW",
    "DirectoryWatch",
    "DroppedError",
    "DumpJob",
    "Sink",
    "dump_database",
    "dump_globals",
    "masked_settings",
    "write_payload",
)
