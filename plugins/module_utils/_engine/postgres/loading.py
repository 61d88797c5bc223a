# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A dump into an empty database, by pg_restore or psql. For restore and verify."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Optional

from ..core import selection
from ..core.errors import CommandError, PgopsError, UsageError
from ..core.manifest import Database
from ..core.naming import quote_ident, split_qualified
from ..source import Source
from ..system import codec
from .inventory import MORE_LOCKS, NO_LOCKS
from .pg_restore import Loaded, Options, listing_of_file, listing_of_stream, run_restore, seekable
from .sections import load_in_sections
from .target import Target, as_transaction
from .workers import Work

_WITH_NEEDS = "--verbose"  # with what each entry depends on
_NO_ROLE = re.compile(r'\brole ".*" does not exist')
_A_ROLE = "Restore the globals too (globals: missing), or create the role."
_A_PART = "It may need more than what was asked for: name that, too, or restore the whole database, without tables and schemas."


def load_database(
    source: Source, database: Database, target: Target, into: str, options: Options, folder: Path
) -> Loaded:
    """Load the dump of `database` into the empty database `into`; `folder` takes files that are needed meanwhile.

    Raise CommandError with the first error that is not benign, DamagedError if the stored bytes are not what the
    manifest says.
    """
    made = _make_schemas(target, into, database)
    if options.wanted is None and not options.single_transaction:
        _drop_what_it_lacked(target, into, database)
    try:
        return _load(source, database, target, into, options, folder)
    except BaseException as error:
        if options.single_transaction:
            _drop_schemas(target, into, made)
        if isinstance(error, CommandError):
            error.hint = error.hint or _hint(error.stderr, options)
        raise


def _hint(said: str, options: Options) -> str:
    """Return what to do about an error, empty where nobody knows.

    Who is mapped to a foreign server, or owns a publication, is in no fingerprint, so that nothing told of that role before.
    """
    if NO_LOCKS in said:
        return MORE_LOCKS
    if _NO_ROLE.search(said):
        return _A_ROLE
    return _A_PART if options.wanted is not None and "does not exist" in said else ""


def _load(source: Source, database: Database, target: Target, into: str, options: Options, folder: Path) -> Loaded:
    if database.dump.format == "plain":
        return _load_plain(source, database, target, into, options)
    loaded = Loaded()
    parallel = options.jobs > 1 and not options.single_transaction
    work = Work(source, database, target, into, options, folder, loaded)
    # By section, privileges come before the rows: only a superuser can do without those that are not granted.
    if parallel and options.wanted is None and target.server.superuser and load_in_sections(work):
        return loaded
    path = seekable(source, database, options, folder, loaded)
    only: tuple[str, ...] = ()
    soft: set[str] = set()
    if options.wanted is not None:
        chosen = _chosen(source, database, target, path, options.wanted)
        loaded.left_out += chosen.left_out
        soft = chosen.soft
        listed = folder / "use-list"
        listed.write_text("\n".join(chosen.lines) + "\n", encoding="utf-8", errors="surrogateescape")
        only = ("--use-list=%s" % listed,)
    if path is not None and parallel:
        work.restore_by_workers(path, *only, soft=soft)
        return loaded
    alone = dataclasses.replace(work, options=dataclasses.replace(options, jobs=1))
    if path is not None:
        alone.restore(path, *only, soft=soft)
    else:
        unwrap = codec.unwrap(source.context.runner, database.dump.layers, identity_file=source.identity_file)
        file = source.manifest.files_of(database.dump)[0]
        run_restore(source, [*unwrap, alone.command(*only)], source.chunks(file), loaded, soft)
    return loaded


def _make_schemas(target: Target, into: str, database: Database) -> list[str]:
    """Make the schemas that a dump of some tables does not bring; return those that were not there."""
    if database.fingerprint is None or database.fingerprint["whole"]:
        return []
    made: list[str] = []
    with target.session(into) as session:
        existing = {row[0] for row in session.rows("SELECT nspname FROM pg_namespace")}
        for schema in sorted({split_qualified(key)[0] for key in database.fingerprint["relations"]} - existing):
            session.execute("CREATE SCHEMA %s" % quote_ident(schema))
            made.append(schema)
    return made


def _drop_what_it_lacked(target: Target, into: str, database: Database) -> None:
    """Drop what every new database has where the one that was backed up had dropped it. What stays is remarked by the proof."""
    facts = database.fingerprint
    if facts is None or not facts["whole"]:
        return
    statements = []
    if "public" not in facts["schemas"]:
        statements.append("DROP SCHEMA IF EXISTS public")
    if "plpgsql" not in facts["extensions"]:
        statements.append("DROP EXTENSION IF EXISTS plpgsql")
    for statement in statements:
        with contextlib.suppress(PgopsError), target.session(into) as session:
            session.execute(statement)


def _drop_schemas(target: Target, into: str, schemas: list[str]) -> None:
    """Take back what was made before a transaction that failed, so that the database is empty again."""
    if schemas:
        with contextlib.suppress(PgopsError), target.session(into) as session:
            session.execute("DROP SCHEMA IF EXISTS %s" % ", ".join(quote_ident(schema) for schema in schemas))


def _chosen(
    source: Source, database: Database, target: Target, path: Optional[Path], wanted: selection.Wanted
) -> selection.Selection:
    if database.fingerprint is None:
        raise UsageError(
            "The set has no fingerprint, so parts of %r cannot be told apart." % database.name,
            hint="Restore the whole database.",
        )
    if path is not None:
        listing = "\n".join(listing_of_file(source, target, path, _WITH_NEEDS))
    else:
        listing = listing_of_stream(source, database.dump, target.programs, _WITH_NEEDS).decode(
            "utf-8", "surrogateescape"
        )
    return selection.select(listing, wanted, database.fingerprint)


def _load_plain(source: Source, database: Database, target: Target, into: str, options: Options) -> Loaded:
    if options.wanted is not None or not options.ownership:
        raise UsageError(
            "The dump of %r is plain SQL: it can only be restored whole, with owners and privileges." % database.name,
            hint="Use format custom or directory for backups whose parts you may need.",
        )
    psql = target.psql(into, "--file=-", environment=target.loading_environment(into, 1, database))
    plain = source.plain(database.dump)
    source.context.runner.pipe([psql], source=as_transaction(plain) if options.single_transaction else plain)
    return Loaded(way="stream")


__all__ = ("load_database",)
