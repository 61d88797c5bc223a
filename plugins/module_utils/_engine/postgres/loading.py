# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""From payload files into PostgreSQL: globals by psql, a database by pg_restore or psql. For restore and verify."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..core import archive_toc, globals_sql, row_script, selection
from ..core.errors import CommandError, PgopsError, RefusedError, UsageError
from ..core.fingerprint import Comparison, Rules, compare
from ..core.manifest import Database, Payload
from ..core.naming import database_argument, quote_ident, quote_literal, split_qualified
from ..core.redaction import is_masked
from ..core.sizes import human_size
from ..settings import Postgres
from ..source import Source
from ..system import codec
from ..system.runner import Command, Runner
from . import inventory, rows, statistics
from .connection import Server, Session, connect, program_environment
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
# For building indexes, all workers together; the server's own setting where that is more for each.
_INDEX_MEMORY = 512 * 1024 * 1024
_LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


@dataclass(frozen=True)
class Target:
    """The server that gets the databases, and the programs that suit it."""

    postgres: Postgres
    programs: Programs
    server: Server

    @property
    def environment(self) -> dict[str, str]:
        """What the programs get. Messages come in English where this role may ask for that: BENIGN knows no others."""
        english = {"PGOPTIONS": "-c lc_messages=C"} if self.server.superuser else {}
        return {**program_environment(self.postgres), **english}

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
        options = " ".join([self.environment["PGOPTIONS"], *("-c %s" % setting for setting in wanted)])
        return {**self.environment, "PGOPTIONS": options}


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

    `frozen`: no vacuum has to visit the rows again. `analyzed`: the planner's statistics are there, but for what needs
    indexes (statistics.complete()).
    """

    benign: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    way: str = ""
    jobs: int = 1
    frozen: bool = False
    analyzed: bool = False


# --- globals ----------------------------------------------------------------------------------------------------------


def load_globals(source: Source, target: Target, *, overwrite: bool) -> tuple[list[str], list[str]]:
    """Create the roles of the set that the server lacks (and with `overwrite` make the others as they were).

    The role that we log in as stays as it is: with another password the next connection would fail.

    Return the roles that were created and the tablespaces that the server lacks. Raise CommandError on the first error.
    """
    payload = source.manifest.globals
    if payload is None:
        return [], []
    script = source.content_of(payload).decode("utf-8", "surrogateescape")
    with connect(target.postgres) as session:
        existing = {row[0] for row in session.rows("SELECT rolname FROM pg_roles")}
        tablespaces = {row[0] for row in session.rows("SELECT spcname FROM pg_tablespace")}
        for_all = _settings_of_all_roles(source.manifest.roles or {}, session, overwrite=overwrite)
    keep = (target.server.user,)
    chosen = globals_sql.select(script, existing=existing, overwrite=overwrite, tablespaces=False, keep=keep)
    command = Command(
        (
            target.programs.path("psql"),
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            database_argument(target.postgres.login_db),
        ),
        env=target.environment,
    )
    text = (chosen.sql + for_all).encode("utf-8", "surrogateescape")
    source.context.runner.run(command, stdin=b"".join(_transaction([text])))
    return list(chosen.creates), [name for name in chosen.tablespaces if name not in tablespaces]


def _settings_of_all_roles(roles: dict[str, Any], session: Session, *, overwrite: bool) -> str:
    """Return SQL for what ALTER ROLE ALL had set, which pg_dumpall leaves out.

    It concerns everyone on the server: without `overwrite` only a server that holds no databases yet gets it.
    """
    if not overwrite and not _is_new(session):
        return ""
    here = {setting.partition("=")[0] for setting in inventory.settings_of_all_roles(session)}
    statements = []
    for setting in _known_settings(roles.get("settings", [])):
        key, _unused, value = setting.partition("=")
        if overwrite or key not in here:
            statements.append("ALTER ROLE ALL SET %s TO %s;\n" % (_setting_name(key), _setting_value(key, value)))
    return "".join(statements)


def settings_left_alone(roles: dict[str, Any], session: Session) -> list[str]:
    """Return what ALTER ROLE ALL had set and load_globals does not set without `overwrite`."""
    here = set(inventory.settings_of_all_roles(session))
    names = {setting.partition("=")[0] for setting in here}
    new = _is_new(session)
    return [
        s
        for s in _known_settings(roles.get("settings", []))
        if s not in here and (not new or s.partition("=")[0] in names)
    ]


def _known_settings(settings: Iterable[str]) -> list[str]:
    """Return the settings whose values the manifest holds; those of secrets it does not, and somebody sets them again."""
    return [setting for setting in settings if not is_masked(setting)]


def _is_new(session: Session) -> bool:
    """Tell whether the server holds no databases but those that every server has."""
    own = "SELECT 1 FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') LIMIT 1"
    return not session.rows(own)


# --- a database -------------------------------------------------------------------------------------------------------


def create_database(
    session: Session,
    name: str,
    properties: dict[str, Any],
    target: Target,
    *,
    ownership: bool,
    comment: str,
    locale: bool = True,
) -> None:
    """Create the empty database `name` with the encoding, locale and owner in `properties`; mark it with `comment`.

    Without `locale` it gets the C locale. Raise PgopsError if the server cannot.
    """
    parts = [
        "CREATE DATABASE %s TEMPLATE template0 ENCODING %s" % (quote_ident(name), quote_literal(properties["encoding"]))
    ]
    parts += _locale(properties, target.server.major) if locale else ["LC_COLLATE 'C' LC_CTYPE 'C'"]
    if ownership:
        parts.append("OWNER %s" % quote_ident(properties["owner"]))
    tablespace = properties.get("tablespace") or "pg_default"
    # Naming pg_default takes a right on it that who may create databases need not have.
    if tablespace != "pg_default" and session.rows("SELECT 1 FROM pg_tablespace WHERE spcname = %s", (tablespace,)):
        parts.append("TABLESPACE %s" % quote_ident(tablespace))
    session.execute(" ".join(parts))
    session.execute("COMMENT ON DATABASE %s IS %s" % (quote_ident(name), quote_literal(comment)))


def _locale(properties: dict[str, Any], major: int) -> list[str]:
    parts = ["LC_COLLATE %s LC_CTYPE %s" % (quote_literal(properties["collate"]), quote_literal(properties["ctype"]))]
    provider = properties.get("provider", "libc")
    if major >= 15:
        parts.append("LOCALE_PROVIDER %s" % {"icu": "icu", "builtin": "builtin"}.get(provider, "libc"))
    if provider == "icu" and properties.get("locale"):
        parts.append("ICU_LOCALE %s" % quote_literal(properties["locale"]))
        if properties.get("icu_rules"):
            parts.append("ICU_RULES %s" % quote_literal(properties["icu_rules"]))
    if provider == "builtin" and properties.get("locale"):
        parts.append("BUILTIN_LOCALE %s" % quote_literal(properties["locale"]))
    return parts


def comment_on_database(name: str, comment: Optional[str]) -> str:
    """Return SQL that gives the database `name` its comment, or takes it away."""
    return "COMMENT ON DATABASE %s IS %s" % (quote_ident(name), "NULL" if comment is None else quote_literal(comment))


def finish_database(session: Session, name: str, properties: dict[str, Any], *, ownership: bool) -> None:
    """Give the loaded database `name` its privileges, settings and limits; its comment stays as it is."""
    database = quote_ident(name)
    session.execute("ALTER DATABASE %s CONNECTION LIMIT %d" % (database, int(properties.get("connection_limit", -1))))
    if properties.get("is_template"):
        session.execute("ALTER DATABASE %s IS_TEMPLATE true" % database)
    for entry in properties.get("settings", []):
        if entry["role"] and not ownership:
            continue
        subject = (
            "ROLE %s IN DATABASE %s" % (quote_ident(entry["role"]), database)
            if entry["role"]
            else "DATABASE %s" % database
        )
        for setting in _known_settings(entry["settings"]):
            key, _unused, value = setting.partition("=")
            session.execute("ALTER %s SET %s TO %s" % (subject, _setting_name(key), _setting_value(key, value)))
    if ownership:
        owner = properties["owner"]
        session.execute("REVOKE ALL ON DATABASE %s FROM PUBLIC, %s" % (database, quote_ident(owner)))
        for who, may in sorted(properties.get("acl", {}).items()):
            for privilege in may.split():
                option = " WITH GRANT OPTION" if privilege.endswith("*") else ""
                grantee = "PUBLIC" if who == "public" else quote_ident(who)
                session.execute(
                    "GRANT %s ON DATABASE %s TO %s%s" % (_word(privilege.rstrip("*")), database, grantee, option)
                )


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Z ]+", text):
        raise UsageError("%r is no privilege." % text)
    return text


def _setting_name(key: str) -> str:
    return ".".join(quote_ident(part) for part in key.split("."))


def _setting_value(key: str, value: str) -> str:
    """Return a setting's value as SQL; the few that are lists of names must not become one long name."""
    if key.lower() not in _LIST_SETTINGS:
        return quote_literal(value)
    parts = re.findall(r'\s*("(?:[^"]|"")*"|[^,"]+?)\s*(?:,|$)', value)
    return ", ".join(quote_literal(p[1:-1].replace('""', '"') if p.startswith('"') else p) for p in parts) or "''"


def load_database(
    source: Source, database: Database, target: Target, into: str, options: Options, folder: Path
) -> Loaded:
    """Load the dump of `database` into the empty database `into`; `folder` takes files that are needed meanwhile.

    Raise CommandError with the first error that is not benign, DamagedError if the stored bytes are not what the
    manifest says.
    """
    made = _make_schemas(target, into, database)
    try:
        return _load(source, database, target, into, options, folder)
    except BaseException:
        if options.single_transaction:
            _drop_schemas(target, into, made)
        raise


def _load(source: Source, database: Database, target: Target, into: str, options: Options, folder: Path) -> Loaded:
    if database.dump.format == "plain":
        return _load_plain(source, database, target, into, options)
    loaded = Loaded()
    parallel = options.jobs > 1 and not options.single_transaction
    # By section, privileges come before the rows: only a superuser can do without those that are not granted.
    if parallel and options.wanted is None and target.server.superuser:
        work = _Work(source, database, target, into, options, folder, loaded)
        if _load_in_sections(work):
            return loaded
    path = _seekable(source, database, options, folder, loaded)
    arguments = _restore_arguments(target, into, options)
    soft: set[str] = set()
    if options.wanted is not None:
        chosen = _chosen(source, database, target, path, options.wanted)
        loaded.left_out += chosen.left_out
        soft = chosen.soft
        listed = folder / "use-list"
        listed.write_text("\n".join(chosen.lines) + "\n", encoding="utf-8")
        arguments.append("--use-list=%s" % listed)
    if path is not None:
        loaded.jobs = options.jobs if parallel else 1
        arguments += ["--jobs=%d" % loaded.jobs] if parallel else []
        command = Command((*arguments, str(path)), env=target.loading_environment(into, loaded.jobs))
        _run_restore(source, [command], None, loaded, soft)
    else:
        command = Command(tuple(arguments), env=target.loading_environment(into, 1))
        unwrap = codec.unwrap(source.context.runner, database.dump.layers, identity_file=source.identity_file)
        file = source.manifest.files_of(database.dump)[0]
        _run_restore(source, [*unwrap, command], source.chunks(file), loaded, soft)
    return loaded


# --- in sections ------------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """One archive on its way into one database."""

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
        return self.target.loading_environment(self.into, self.options.jobs)

    def restore(self, path: Path, *arguments: str) -> None:
        """Run pg_restore on the archive `path`. Raise CommandError with the first error that is not benign."""
        command = Command(
            (*_restore_arguments(self.target, self.into, self.options), *arguments, str(path)), env=self.environment
        )
        _run_restore(self.source, [command], None, self.loaded, set())


def _load_in_sections(work: _Work) -> bool:
    """Load definitions and rows, then statistics, then indexes and constraints. Tell whether this archive can be loaded so.

    Left to itself, a parallel pg_restore makes the foreign keys of a partitioned table before its partitions have rows.
    Each row is then checked on its own, which takes five times as long, and the workers can block each other. Without
    statistics, what checks a foreign key afterwards may take five times as long, too.
    """
    jobs = "--jobs=%d" % work.options.jobs
    if work.database.dump.layers:
        path = _head(work)
        if path is None or not _stream(work, path):
            return False
    else:
        path = _seekable(work.source, work.database, work.options, work.folder, work.loaded)
        if path is None:
            return False
        with _freezing(work, path) as archive:
            work.restore(archive, "--section=pre-data", "--section=data", jobs)
    work.loaded.jobs = work.options.jobs
    if work.options.analyze:
        statistics.gather(work.runner, work.target.programs, work.target.environment, work.into, work.options.jobs)
        work.loaded.analyzed = True
    work.restore(path, "--section=post-data", jobs)
    return True


@contextlib.contextmanager
def _freezing(work: _Work, path: Path) -> Iterator[Path]:
    """Yield the archive `path` such that pg_restore freezes the rows that it loads, as far as that can be had."""
    with contextlib.ExitStack() as stack:
        archive: Optional[Path] = None
        # A table that pg_restore does not make is not emptied by it either.
        if path.is_dir() and not row_script.contents(_listing(work.source, work.target, path)).foreign:
            archive = stack.enter_context(work.source.linked(path))
        if archive is not None:
            toc = archive / "toc.dat"
            content = archive_toc.frozen(toc.read_bytes())
            toc.unlink()  # it may be the set's own file under another name
            toc.write_bytes(content)
        work.loaded.frozen = archive is not None
        yield archive or path


def _stream(work: _Work, head: Path) -> bool:
    """Load definitions and rows of a wrapped archive that is read once. Tell whether this archive can be loaded so.

    Its `head` is enough for all but the rows. pg_restore cannot load several tables of a stream at a time; so it only reads.
    """
    source, dump = work.source, work.database.dump
    held = row_script.contents(_listing(source, work.target, head))
    if held.foreign or held.blobs:
        return False
    work.loaded.way, work.loaded.frozen = "stream", True
    work.restore(head, "--section=pre-data")
    read = Command((work.target.programs.path("pg_restore"), _use_list(work, "rows", held.frozen), "--file=-"))
    with contextlib.closing(source.script(dump, read)) as script:
        rows.load(work.runner, _psql(work), rows.spooled(script, work.folder), work.options.jobs)
    work.restore(head, "--section=data", _use_list(work, "others", held.rest))
    return True


def _psql(work: _Work) -> Command:
    options = ("--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1")
    return Command((work.target.programs.path("psql"), *options, database_argument(work.into)), env=work.environment)


def _use_list(work: _Work, name: str, entries: Iterable[int]) -> str:
    """Return the argument that has pg_restore take only `entries`, in this order."""
    path = work.folder / ("list-%s" % name)
    path.write_text("".join("%d;\n" % entry for entry in entries), encoding="ascii")
    return "--use-list=%s" % path


def _head(work: _Work) -> Optional[Path]:
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
            if file.tell() >= _Head.LIMIT:
                break
    return path


def _make_schemas(target: Target, into: str, database: Database) -> list[str]:
    """Make the schemas that a dump of some tables does not bring; return those that were not there."""
    if database.fingerprint is None or database.fingerprint["whole"]:
        return []
    made: list[str] = []
    with connect(target.postgres, into) as session:
        existing = {row[0] for row in session.rows("SELECT nspname FROM pg_namespace")}
        for schema in sorted({split_qualified(key)[0] for key in database.fingerprint["relations"]} - existing):
            session.execute("CREATE SCHEMA %s" % quote_ident(schema))
            made.append(schema)
    return made


def _drop_schemas(target: Target, into: str, schemas: list[str]) -> None:
    """Take back what was made before a transaction that failed, so that the database is empty again."""
    if schemas:
        with contextlib.suppress(PgopsError), connect(target.postgres, into) as session:
            session.execute("DROP SCHEMA IF EXISTS %s" % ", ".join(quote_ident(schema) for schema in schemas))


def _seekable(source: Source, database: Database, options: Options, folder: Path, loaded: Loaded) -> Optional[Path]:
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


def _restore_arguments(target: Target, into: str, options: Options) -> list[str]:
    # Only the verbose pg_restore says which entry an error belongs to.
    arguments = [target.programs.path("pg_restore"), "--verbose", "--no-password", database_argument(into)]
    if not options.ownership:
        arguments += ["--no-owner", "--no-privileges"]
    if not options.tablespaces:
        arguments.append("--no-tablespaces")
    if options.single_transaction:
        arguments.append("--single-transaction")
    return arguments


def _chosen(
    source: Source, database: Database, target: Target, path: Optional[Path], wanted: selection.Wanted
) -> selection.Selection:
    if database.fingerprint is None:
        raise UsageError(
            "The set has no fingerprint, so parts of %r cannot be told apart." % database.name,
            hint="Restore the whole database.",
        )
    if path is not None:
        listing = "\n".join(_listing(source, target, path))
    else:
        listing = listing_of_stream(source, database.dump, target.programs).decode("utf-8", "replace")
    return selection.select(listing, wanted, database.fingerprint)


def _listing(source: Source, target: Target, path: Path) -> list[str]:
    command = Command((target.programs.path("pg_restore"), "--list", str(path)))
    # Names may hold what splitlines() takes for a line's end.
    return source.context.runner.run(command).stdout.decode("utf-8", "replace").split("\n")


def listing_of_stream(source: Source, dump: Payload, programs: Programs) -> bytes:
    """Return pg_restore's listing of an archive that is no file at hand. All of it is read and held against the manifest."""
    found: list[bytes] = []
    unwrap = codec.unwrap(source.context.runner, dump.layers, identity_file=source.identity_file)
    # pg_restore stops reading after the table of contents and would break the pipe; so it gets the beginning afterwards.
    command = Command((programs.path("pg_restore"), "--list"))
    head: list[bytes] = []
    if unwrap:
        source.context.runner.pipe(unwrap, source=source.chunks(source.manifest.files_of(dump)[0]), sink=_Head(head))
    else:
        _drain(source.chunks(source.manifest.files_of(dump)[0]), _Head(head))
    source.context.runner.pipe([command], source=head, sink=found.append)
    return b"".join(found)


class _Head:
    """Keeps the beginning of a stream: the table of contents comes first, data follow."""

    LIMIT = 64 * 1024 * 1024

    def __init__(self, kept: list[bytes]) -> None:
        self._kept, self._size = kept, 0

    def __call__(self, chunk: bytes) -> None:
        if self._size < self.LIMIT:
            self._kept.append(chunk)
            self._size += len(chunk)


def _drain(chunks: Iterable[bytes], sink: _Head) -> None:
    for chunk in chunks:
        sink(chunk)


def _run_restore(
    source: Source, commands: list[Command], chunks: Optional[Iterable[bytes]], loaded: Loaded, soft: set[str]
) -> None:
    listener = _ErrorListener(loaded, soft)
    try:
        source.context.runner.pipe(commands, source=chunks, on_line=listener)
    except CommandError as error:
        # pg_restore ends with status 1 after errors that were passed over, too.
        if listener.stopped or error.returncode != 1 or not listener.passed_over:
            raise


class _ErrorListener:
    """Stops pg_restore at its first error that is neither benign nor about an entry that may fail."""

    def __init__(self, loaded: Loaded, soft: set[str]) -> None:
        self._loaded, self._soft, self._where = loaded, soft, ""
        self.stopped, self.passed_over = False, 0

    def __call__(self, line: str) -> None:
        if "from TOC entry" in line:
            self._where = line.split("from TOC entry", 1)[1].strip()
        if not line.startswith("pg_restore: error: "):
            return
        said = line[len("pg_restore: error: ") :]
        if said.startswith("input file"):
            return  # what comes before it in the pipe may be the cause; the exit statuses tell
        reason = next((why for pattern, why in BENIGN if re.search(pattern, line)), None)
        if reason is not None:
            self._loaded.benign.append("%s: %s" % (said, reason))
        elif self._where.split(";")[0] in self._soft:
            self._loaded.left_out.append("%s: %s" % (self._where.split(" ", 3)[-1], said))
        else:
            self.stopped = True
            where = " (entry %s)" % self._where if self._where else ""
            raise CommandError("pg_restore stopped at its first error: %s%s." % (said.rstrip("."), where), stderr=line)
        self.passed_over += 1


def _load_plain(source: Source, database: Database, target: Target, into: str, options: Options) -> Loaded:
    if options.wanted is not None or not options.ownership:
        raise UsageError(
            "The dump of %r is plain SQL: it can only be restored whole, with owners and privileges." % database.name,
            hint="Use format custom or directory for backups whose parts you may need.",
        )
    arguments = [
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--file=-",
        database_argument(into),
    ]
    psql = Command((target.programs.path("psql"), *arguments), env=target.loading_environment(into, 1))
    plain = source.plain(database.dump)
    source.context.runner.pipe([psql], source=_transaction(plain) if options.single_transaction else plain)
    return Loaded(way="stream")


def _transaction(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks` as one transaction. With psql's own option the end of its input would commit, also when we were killed."""
    yield b"BEGIN;\n"
    yield from chunks
    yield b"\nCOMMIT;\n"


# --- proof ------------------------------------------------------------------------------------------------------------


def compare_database(database: Database, target: Target, name: str, rules: Rules) -> Comparison:
    """Compare the database `name` on the server with the fingerprint of `database`. Raise PgopsError if it has none."""
    expected = database.fingerprint
    if expected is None:
        raise PgopsError("The set has no fingerprint of %r to compare with." % database.name)
    with connect(target.postgres, name) as session:
        actual = inventory.take(session, inventory.Scope())
        actual["rows"] = inventory.count_rows(
            session, [key for key in expected.get("rows", {}) if key in actual["relations"]]
        )
        actual["sequences"] = inventory.sequence_positions(session, actual)
        comparison = compare(expected, actual, rules)
        found = inventory.database_properties(session, name)
    for fact in ("owner", "acl", "encoding", "settings", "comment", "connection_limit"):
        if fact not in database.properties or rules.selected is not None:
            continue
        wanted, is_now = (_comparable(fact, properties.get(fact)) for properties in (database.properties, found))
        if (rules.ownership or fact not in ("owner", "acl", "settings")) and wanted != is_now:
            comparison.differences.append("database: %s was %s, is %s" % (fact.replace("_", " "), wanted, is_now))
    return comparison


def _comparable(fact: str, value: Any) -> Any:
    """Return a property of a database without the settings that no restore can bring back."""
    if fact != "settings":
        return value
    known = [{"role": entry["role"], "settings": _known_settings(entry["settings"])} for entry in value]
    return [entry for entry in known if entry["settings"]]


__all__ = (
    "BENIGN",
    "Loaded",
    "Options",
    "Target",
    "comment_on_database",
    "compare_database",
    "create_database",
    "finish_database",
    "listing_of_stream",
    "load_database",
    "load_globals",
    "settings_left_alone",
)
