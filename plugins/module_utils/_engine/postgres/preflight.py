# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What must hold before a restore touches anything. All that is wrong is found and told at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..core.errors import PgopsError, RefusedError
from ..core.manifest import Database, Manifest
from ..core.naming import quote_ident, quote_literal
from ..core.sizes import human_size
from ..settings import Postgres
from ..source import Source
from ..system.durable import free_bytes
from .connection import Session, connect
from .databases import known_settings
from .swapping import prepared, subscriptions
from .target import Target


@dataclass
class Findings:
    """`refusals` forbid the restore, each with its way out; `remarks` are worth knowing."""

    refusals: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Raise RefusedError that lists every refusal, if there is one."""
        if self.refusals:
            raise RefusedError(
                "The restore was refused, and nothing was touched:\n%s" % "\n".join("  - %s" % r for r in self.refusals)
            )


def check_server(
    session: Session,
    manifest: Manifest,
    databases: Sequence[Database],
    target: Target,
    *,
    jobs: int,
    ownership: bool,
    will_create: Optional[set[str]],
    part: bool = False,
) -> Findings:
    """Hold the server against what the set needs: version, rights, roles, extensions, connections, space.

    `will_create` are the roles that the set's globals bring, None when globals are not restored. Of which only a `part` comes
    back may need neither the space nor the extensions of the whole.
    """
    findings = Findings()
    server = target.server
    if server.in_recovery:
        findings.refusals.append("The server is a standby and takes no writes; restore to the primary.")
    if server.major < manifest.server_version_num // 10000:
        findings.refusals.append(
            "The set is from PostgreSQL %s; the server is %s. Dumps go to the same or a newer major version."
            % (manifest.server_version, server.version)
        )
    may_create = session.value("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
    if not may_create:
        findings.refusals.append(
            "The role %r may not create databases. Log in as a superuser or grant CREATEDB." % server.user
        )
    if not server.superuser and ownership:
        findings.remarks.append(
            "The role %r is no superuser: objects of roles that it does not belong to will fail." % server.user
        )
    _check_roles(session, manifest, databases, findings, ownership=ownership, will_create=will_create, part=part)
    whole = Findings()
    _check_extensions(session, databases, whole)
    free_connections = server.max_connections - server.used_connections
    if free_connections < jobs + 4:
        findings.refusals.append(
            "Only %d connections are free on the server; %d jobs need %d. Lower the jobs, or raise max_connections."
            % (free_connections, jobs, jobs + 4)
        )
    _check_space(databases, target, whole)
    findings.remarks += whole.remarks
    if part:
        findings.remarks += ["For the whole database: %s" % text for text in whole.refusals]
    else:
        findings.refusals += whole.refusals
    return findings


def check_ways(source: Source, databases: Sequence[Database], room: Path, *, ownership: bool, part: bool) -> list[str]:
    """Return why dumps cannot be loaded as asked: `part` of a database, without `ownership`, with files fetched to `room`."""
    refusals = []
    for database in databases:
        dump = database.dump
        if dump.format == "plain" and (part or not ownership):
            refusals.append(
                "The dump of %r is plain SQL: it can only be restored whole, with owners and privileges."
                " Use format custom or directory for backups whose parts you may need." % database.name
            )
        elif part and database.fingerprint is None:
            refusals.append(
                "The set has no fingerprint, so parts of %r cannot be told apart. Restore the whole database."
                % database.name
            )
        if dump.format == "directory" and source.place.name != "local" and not source.fits(room, source.size(dump)):
            refusals.append(
                "There is no room in %s to fetch the dump of %r (%s), and its directory format cannot be read as a stream."
                " Make room, or set work_dir to a larger disk." % (room, database.name, human_size(source.size(dump)))
            )
    return refusals


def check_locales(session: Session, databases: Sequence[Database]) -> list[str]:
    """Return which locales the server lacks that databases need which are made anew."""
    refusals = []
    known = {"C", "POSIX"}
    for row in session.rows("SELECT datcollate, datctype FROM pg_database"):
        known |= set(row)
    encoding = session.value("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()")
    for database in databases:
        properties = database.properties
        names = {str(properties[key]) for key in ("collate", "ctype") if properties.get(key)}
        certain = properties.get("encoding") == encoding
        refusals += [
            "The database %r needs the locale %s, which the server's system lacks. Install it there (Debian: locale-gen,"
            " EL: glibc-langpack-…) and restart the server." % (database.name, name)
            for name in sorted(names - known)
            if not _has_locale(session, name, certain=certain)
        ]
        if properties.get("provider") == "icu" and not session.rows(
            "SELECT 1 FROM pg_collation WHERE collprovider = 'i' AND collname <> 'unicode' LIMIT 1"
        ):
            refusals.append(
                "The database %r needs ICU collations (%s), which this server was built without. Use a server with ICU."
                % (database.name, properties.get("locale"))
            )
    return refusals


def _has_locale(session: Session, name: str, *, certain: bool) -> bool:
    """Tell whether the server's system has the locale `name` of libc: one may be there that initdb did not know yet.

    A collation is made for the question and rolled back. Its encoding is that of the database we are in, so that a no is only
    `certain` where it is the encoding in question, too.
    """
    listed = (
        "SELECT 1 FROM pg_collation WHERE collprovider = 'c'"
        " AND (collcollate = %s OR lower(replace(collcollate, '-', '')) = lower(replace(%s, '-', ''))) LIMIT 1"
    )
    if session.rows(listed, (name, name)) or not certain:
        return True
    session.execute("BEGIN")
    try:
        session.execute("CREATE COLLATION pg_temp.pgops_asks (PROVIDER = libc, LOCALE = %s)" % quote_literal(name))
    except PgopsError as error:
        return getattr(error, "sqlstate", None) != "22023"  # any other error answers another question
    finally:
        session.execute("ROLLBACK")
    return True


def _check_roles(
    session: Session,
    manifest: Manifest,
    databases: Sequence[Database],
    findings: Findings,
    *,
    ownership: bool,
    will_create: Optional[set[str]],
    part: bool,
) -> None:
    known = {row[0] for row in session.rows("SELECT rolname FROM pg_roles")} | (will_create or set())
    needed: set[str] = set()
    of_policies: set[str] = set()
    for database in databases:
        facts = database.fingerprint or {}
        of_policies |= set() if part else _roles_of_policies(facts)
        if ownership:
            needed.add(str(database.properties["owner"]))
            needed |= {who for who in database.properties.get("acl", {}) if who != "public"}
            needed |= _roles_in(facts)
            if not part:
                needed |= _roles_beside(facts)
                settings = database.properties.get("settings", [])
                needed |= {entry["role"] for entry in settings if known_settings(entry["settings"])}
    way = "Restore the globals too (globals: missing)" if will_create is None and manifest.globals else "Create them"
    lacking = sorted(((needed | of_policies) if ownership else of_policies) - known - {""})
    if lacking:
        findings.refusals.append(
            "The server lacks the role%s %s%s. %s%s."
            % (
                "" if len(lacking) == 1 else "s",
                ", ".join(repr(r) for r in lacking),
                "" if ownership else ", which policies are for",
                way,
                ", or restore without owners and privileges"
                if ownership and not of_policies.intersection(lacking)
                else "",
            )
        )


def _roles_of_policies(facts: dict[str, Any]) -> set[str]:
    return {role for policy in facts.get("policies", {}).values() for role in policy.get("roles", [])} - {"public"}


def _roles_beside(facts: dict[str, Any]) -> set[str]:
    """Return the roles that default privileges are of and for, and those that own statistics."""
    found = {str(value["owner"]) for value in facts.get("statistics", {}).values() if value.get("owner")}
    for key, value in facts.get("default_privileges", {}).items():
        role = re.match(r'"(?:[^"]|"")+"|\S+', key)
        if role:
            name = role[0]
            found.add(name[1:-1].replace('""', '"') if name.startswith('"') else name)
        found |= set(value.get("acl", {}))
    return found - {"public"}


def _roles_in(facts: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for kind in ("relations", "schemas", "functions", "types"):
        for value in facts.get(kind, {}).values():
            found.add(str(value.get("owner", "public")))
            found |= set(value.get("acl", {}))
            for acl in value.get("column_acl", {}).values():
                found |= set(acl)
    return found - {"public"}


def _check_extensions(session: Session, databases: Sequence[Database], findings: Findings) -> None:
    available = {row[0]: row[1] for row in session.rows("SELECT name, default_version FROM pg_available_extensions")}
    for database in databases:
        for name, facts in sorted((database.fingerprint or {}).get("extensions", {}).items()):
            if name not in available:
                findings.refusals.append(
                    "The database %r needs the extension %s (%s), which this server cannot offer. Install its package first."
                    % (database.name, name, facts.get("version"))
                )
            elif available[name] != facts.get("version"):
                findings.remarks.append(
                    "The extension %s of %r was version %s; this server brings %s."
                    % (name, database.name, facts.get("version"), available[name])
                )
        if database.fingerprint is None:
            findings.remarks.append(
                "%r has no fingerprint: extensions and roles could not be checked, nor the result compared."
                % database.name
            )


def _check_space(databases: Sequence[Database], target: Target, findings: Findings) -> None:
    directory = target.server.data_directory
    postgres: Postgres = target.postgres
    local = not postgres.login_host or postgres.login_host in ("localhost", "127.0.0.1", "::1")
    if not directory or not local:
        findings.remarks.append("The free space of the server could not be checked from here.")
        return
    try:
        free = free_bytes(Path(directory))
    except OSError:
        findings.remarks.append("The free space of %s could not be read by this account." % directory)
        return
    needed = sum(d.bytes for d in databases)
    if free < needed * 1.1:
        findings.refusals.append(
            "%s has %s free; the databases take about %s. Make room first."
            % (directory, human_size(free), human_size(needed * 1.1))
        )


def check_names(
    session: Session, targets: dict[str, str], mode: str, confirmed: Sequence[str], postgres: Postgres
) -> Findings:
    """Check the target names (`{backed-up name: target name}`) against what exists and what `mode` may do to it."""
    findings = Findings()
    existing = {row[0] for row in session.rows("SELECT datname FROM pg_database")}
    names = list(targets.values())
    for name in sorted({n for n in names if names.count(n) > 1}):
        findings.refusals.append("Two databases would get the name %r. Rename one of them." % name)
    for name in names:
        if len(name.encode("utf-8", "surrogateescape")) > 63 or not name:
            findings.refusals.append("%r cannot name a database: it must have 1 to 63 bytes." % name)
        if mode == "create" and name in existing:
            findings.refusals.append(
                "There is a database %r already. Give another name (rename), or replace it with mode swap, which keeps the old one."
                % name
            )
        if mode == "into_empty":
            if name not in existing:
                findings.refusals.append("There is no database %r to restore into. Use mode create." % name)
            else:
                count = _objects(postgres, name)
                if count:
                    findings.refusals.append(
                        "The database %r is not empty: it has %d objects. Use mode swap, or another name."
                        % (name, count)
                    )
        if mode == "swap" and name in existing:
            if name not in confirmed:
                findings.refusals.append(
                    "Mode swap replaces the database %r. Confirm it by its exact name (confirm)." % name
                )
            hindrance = prepared(session, name)
            findings.refusals += [hindrance] if hindrance else []
            findings.remarks += _subscribed(session, name)
            if name in ("template0", "template1"):
                findings.refusals.append("%r is a template of PostgreSQL and is not replaced." % name)
    return findings


def _subscribed(session: Session, name: str) -> list[str]:
    """Return what to say of the subscriptions of a database that will be kept beside its successor."""
    return [
        "%r has the subscription %s%s. It stays with the database that is kept, which %s; the restored one has it switched off."
        % (
            name,
            quote_ident(found.name),
            ", enabled" if found.enabled else "",
            "goes on taking the changes of %s" % ("its slot %r" % found.slot if found.slot else "the publisher")
            if found.enabled
            else "cannot be dropped before it",
        )
        for found in subscriptions(session, name)
    ]


def _objects(postgres: Postgres, name: str) -> int:
    with connect(postgres, name) as session:
        return int(
            session.value(
                "SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_'"
                " AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass"
                " AND e.objid = c.oid AND e.deptype = 'e'))"
                " + (SELECT count(*) FROM pg_proc p WHERE p.oid >= 16384 AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE"
                " e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'))"
                " + (SELECT count(*) FROM pg_type t WHERE t.oid >= 16384 AND t.typtype IN ('d', 'e', 'r') AND NOT EXISTS"
                " (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e'))"
                " + (SELECT count(*) FROM pg_namespace n WHERE n.oid >= 16384 AND n.nspname !~ '^pg_')"
                " + (SELECT count(*) FROM pg_largeobject_metadata)"
            )
        )


__all__ = ("Findings", "check_locales", "check_names", "check_server", "check_ways")
