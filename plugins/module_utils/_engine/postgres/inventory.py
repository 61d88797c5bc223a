# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Ask a server what it holds. The answers make the fingerprint of a database (fingerprint.py) and the plan of a backup.

Objects that belong to an extension are left to the extension. Names are quoted as SQL quotes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..core.fingerprint import FORMAT, Facts, plain_acl
from ..core.naming import qualified, split_qualified
from ..core.redaction import without_secret
from .connection import INVALID, NO_DATABASE, Session

_BATCH = 100
# Tables: with the indexes of each, as many locks as a server has room for beside those of all tables.
_COUNTED_AT_ONCE = 20

# What a server says that has no room for the locks of so many tables, and what helps.
NO_LOCKS = "out of shared memory"
MORE_LOCKS = (
    "The server has no room for locks on so many tables at once. Raise its max_locks_per_transaction (ALTER SYSTEM SET, then"
    " restart it)."
)


@dataclass(frozen=True)
class Scope:
    """Which part of a database is meant; all of it when everything is empty. Tables are (schema, table)."""

    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    exclude_tables: tuple[tuple[str, str], ...] = ()
    exclude_table_data: tuple[tuple[str, str], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether no object is left out."""
        return not (self.schemas or self.exclude_schemas or self.tables or self.exclude_tables)

    def holds(self, schema: str, relation: str, owner_table: str = "") -> bool:
        """Tell whether the relation is meant; a sequence is when the table that owns it is."""
        names = {(schema, relation)}
        if owner_table:
            names.add(split_qualified(owner_table))
        if self.tables:
            return bool(names & set(self.tables)) and not names & set(self.exclude_tables)
        if self.schemas and schema not in self.schemas:
            return False
        return schema not in self.exclude_schemas and not names & set(self.exclude_tables)


# --- the questions ----------------------------------------------------------------------------------------------------


def _acl(privileges: str) -> str:
    """Return SQL for privileges (an aclitem[]) as {grantee: "PRIV PRIV*"}."""
    return (
        "(SELECT jsonb_object_agg(q.who, q.may) FROM"
        " (SELECT CASE x.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(x.grantee) END AS who,"
        " string_agg(DISTINCT x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END, ' ') AS may"
        " FROM aclexplode(%s) x GROUP BY 1) q)" % privileges
    )


def _effective(column: str, kind: str, owner: str) -> str:
    """Return SQL for the privileges in `column`; what is default is spelled out, so that it compares."""
    return _acl("coalesce(%s, acldefault('%s', %s))" % (column, kind, owner))


def _ours(catalog: str, alias: str) -> str:
    """Return SQL that is true for objects that belong to no extension."""
    return (
        "NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = '%s'::regclass AND e.objid = %s.oid AND e.deptype = 'e')"
        % (catalog, alias)
    )


_USER = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_SYSTEM = "NOT (%s)" % _USER
# Whether a table inherits from others or others from it, but as a partition.
_INHERITS = (
    "c.relkind = 'r' AND NOT c.relispartition"
    " AND (c.relhassubclass OR EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid))"
)
_USER_TABLE = "%s AND c.relpersistence <> 't' AND %s" % (_USER, _ours("pg_class", "c"))

# kind -> SQL that gives (schema, relation, key, value); a scope looks at the first two
_OF_RELATIONS: dict[str, str] = {
    "relations": """
        SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), jsonb_build_object(
          'kind', c.relkind, 'owner', pg_get_userbyid(c.relowner), 'persistence', c.relpersistence,
          'rls', c.relrowsecurity, 'force_rls', c.relforcerowsecurity, 'populated', c.relispopulated,
          'parents', (SELECT jsonb_agg(format('%I.%I', pn.nspname, pc.relname) ORDER BY pn.nspname, pc.relname)
             FROM pg_inherits i JOIN pg_class pc ON pc.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = pc.relnamespace
             WHERE i.inhrelid = c.oid),
          'scattered', CASE WHEN c.relkind = 'p' THEN (SELECT true FROM pg_partitioned_table pt WHERE pt.partrelid = c.oid
             AND EXISTS (SELECT 1 FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
               WHERE o.oid = ANY (pt.partclass) AND m.amname = 'hash' AND o.opcname = 'enum_ops')) END,
          'owned_by', (SELECT format('%I.%I', tn.nspname, t.relname) FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
             JOIN pg_namespace tn ON tn.oid = t.relnamespace WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass
             AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1),
          'acl', CASE c.relkind WHEN 'S' THEN """
    + _effective("c.relacl", "s", "c.relowner")
    + " ELSE "
    + _effective("c.relacl", "r", "c.relowner")
    + """ END,
          'column_acl', (SELECT jsonb_object_agg(a.attname, """
    + _acl("a.attacl")
    + """) FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL),
          'columns', (SELECT md5(string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
             a.attnotnull, CASE WHEN NOT c.relispartition THEN a.attidentity END, a.attgenerated, a.atthasdef,
             (SELECT collname FROM pg_collation l WHERE l.oid = a.attcollation)), ',' ORDER BY a.attname COLLATE "C"))
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          'not_null', CASE WHEN """
    + _INHERITS
    + """ THEN (SELECT jsonb_agg(a.attname ORDER BY a.attname COLLATE "C") FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull) END,
          'nullable_columns', CASE WHEN """
    + _INHERITS
    + """ THEN (SELECT md5(string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
             a.attidentity, a.attgenerated, a.atthasdef, (SELECT collname FROM pg_collation l WHERE l.oid = a.attcollation)),
             ',' ORDER BY a.attname COLLATE "C"))
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND """
    + _USER_TABLE,
    "indexes": """
        SELECT n.nspname, c.relname, format('%I.%I', n.nspname, x.relname), jsonb_build_object(
          'table', format('%I.%I', n.nspname, c.relname), 'unique', i.indisunique, 'valid', i.indisvalid)
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE (i.indisvalid OR c.relkind = 'p') AND """
    + _USER_TABLE,
    "constraints": """
        SELECT n.nspname, c.relname, format('%I.%I %I', n.nspname, c.relname, k.conname), jsonb_build_object(
          'type', k.contype, 'validated', k.convalidated, 'deferrable', k.condeferrable,
          'derived', CASE WHEN k.contype = 'f' AND k.conparentid <> 0 THEN true END,
          'refers_to', (SELECT format('%I.%I', fn.nspname, f.relname) FROM pg_class f
             JOIN pg_namespace fn ON fn.oid = f.relnamespace WHERE f.oid = k.confrelid))
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype <> 'n' AND """
    + _USER_TABLE,
    "triggers": """
        SELECT n.nspname, c.relname, format('%I.%I %I', n.nspname, c.relname, t.tgname),
          jsonb_build_object('enabled', t.tgenabled)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND """
    + _USER_TABLE,
    "statistics": """
        SELECT n.nspname, c.relname, format('%I.%I', sn.nspname, s.stxname), jsonb_build_object(
          'table', format('%I.%I', n.nspname, c.relname), 'owner', pg_get_userbyid(s.stxowner))
        FROM pg_statistic_ext s JOIN pg_namespace sn ON sn.oid = s.stxnamespace JOIN pg_class c ON c.oid = s.stxrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE """
    + _USER_TABLE,
    "policies": """
        SELECT n.nspname, c.relname, format('%I.%I %I', n.nspname, c.relname, p.polname), jsonb_build_object(
          'command', p.polcmd, 'permissive', p.polpermissive,
          'roles', (SELECT jsonb_agg(w.who ORDER BY w.who) FROM
             (SELECT CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END AS who FROM unnest(p.polroles) r) w))
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE """
    + _USER_TABLE,
}

# kind -> SQL that gives (key, value), for what belongs to no relation; a scope that leaves things out does not look here
_OF_DATABASE: dict[str, str] = {
    "schemas": "SELECT quote_ident(n.nspname), jsonb_build_object('owner', pg_get_userbyid(n.nspowner), 'acl', "
    + _effective("n.nspacl", "n", "n.nspowner")
    + ") FROM pg_namespace n WHERE %s AND %s" % (_USER, _ours("pg_namespace", "n")),
    "functions": """
        SELECT format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), jsonb_build_object(
          'owner', pg_get_userbyid(p.proowner), 'kind', p.prokind, 'security_definer', p.prosecdef,
          'settings', p.proconfig, 'body', md5(p.prosrc), 'acl', """
    + _effective("p.proacl", "f", "p.proowner")
    + """)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid
          AND i.deptype = 'i') AND """
    + "%s AND %s" % (_USER, _ours("pg_proc", "p")),
    "types": """
        SELECT format('%I.%I', n.nspname, t.typname), jsonb_build_object(
          'owner', pg_get_userbyid(t.typowner), 'kind', t.typtype,
          'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
          'acl', """
    + _effective("t.typacl", "T", "t.typowner")
    + """)
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typtype IN ('c', 'd', 'e', 'r') AND (c.oid IS NULL OR c.relkind = 'c') AND """
    + "%s AND %s" % (_USER, _ours("pg_type", "t")),
    "extensions": "SELECT x.extname, jsonb_build_object('version', x.extversion) FROM pg_extension x",
    "default_privileges": """
        SELECT concat_ws(' ', quote_ident(pg_get_userbyid(d.defaclrole)),
          CASE WHEN n.oid IS NULL THEN '' ELSE quote_ident(n.nspname) END, d.defaclobjtype::text),
          jsonb_build_object('acl', """
    + _acl("d.defaclacl")
    + ") FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace",
    "event_triggers": "SELECT quote_ident(t.evtname), jsonb_build_object('event', t.evtevent, 'enabled', t.evtenabled)"
    " FROM pg_event_trigger t WHERE " + _ours("pg_event_trigger", "t"),
    "publications": "SELECT quote_ident(p.pubname), jsonb_build_object('all_tables', p.puballtables) FROM pg_publication p",
}

_COUNTED = (
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_language",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_transform",
    "pg_ts_config",
    "pg_ts_dict",
)

# catalog -> its column with the schema. What is in one of PostgreSQL's own schemas, or a session's, is not dumped.
_SCHEMA_OF = {
    "pg_class": "relnamespace",
    "pg_collation": "collnamespace",
    "pg_constraint": "connamespace",
    "pg_conversion": "connamespace",
    "pg_opclass": "opcnamespace",
    "pg_operator": "oprnamespace",
    "pg_opfamily": "opfnamespace",
    "pg_proc": "pronamespace",
    "pg_statistic_ext": "stxnamespace",
    "pg_ts_config": "cfgnamespace",
    "pg_ts_dict": "dictnamespace",
    "pg_ts_parser": "prsnamespace",
    "pg_ts_template": "tmplnamespace",
    "pg_type": "typnamespace",
}

# What pg_dump leaves to the object that brings it, by catalog and condition: with that comes all but its comment.
_BROUGHT = (
    ("pg_constraint", "x.contype = 'c' AND x.conrelid <> 0 AND NOT x.conislocal"),
    ("pg_constraint", "x.contype = 'f' AND x.conparentid <> 0"),
    (  # PostgreSQL 12 has no such column
        "pg_trigger",
        "EXISTS (SELECT 1 FROM pg_trigger p WHERE p.oid = (to_jsonb(x) ->> 'tgparentid')::oid AND p.tgenabled = x.tgenabled)",
    ),
    ("pg_rewrite", "x.rulename = '_RETURN'"),
)
# The types of relations, of arrays and of many ranges; indexes that are no good, which pg_dump leaves out.
_NEVER_DUMPED = (
    ("pg_type", "x.typrelid <> 0 AND EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = x.typrelid AND c.relkind <> 'c')"),
    ("pg_type", "x.typtype = 'm' OR EXISTS (SELECT 1 FROM pg_type a WHERE a.typarray = x.oid)"),
    (
        "pg_class",
        "EXISTS (SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE i.indexrelid = x.oid AND NOT i.indisvalid AND c.relkind <> 'p')",
    ),
)


# --- one database -----------------------------------------------------------------------------------------------------


def take(session: Session, scope: Scope) -> Facts:
    """Return the facts of the session's database within `scope`, without rows and sequence positions.

    Shape: `{"format", "server_version_num", "whole", "relations": {name: {…}}, "indexes": {…}, …}`.
    """
    facts: Facts = {
        "format": FORMAT,
        "server_version_num": int(session.value("SELECT current_setting('server_version_num')")),
        "whole": scope.whole,
    }
    for kind, sql in _OF_RELATIONS.items():
        facts[kind] = {
            key: _tidy(value)
            for schema, relation, key, value in session.rows(sql)
            if scope.holds(schema, relation, value.get("owned_by") or "")
        }
    if scope.whole:
        for kind, sql in _OF_DATABASE.items():
            facts[kind] = {key: _tidy(value) for key, value in session.rows(sql)}
        facts["counts"] = _counts(session)
        facts["brought"] = _brought(session)
        facts["large_objects"] = _large_objects(session)
    return facts


def _tidy(value: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, and put privileges into one order."""
    tidy = {key: item for key, item in value.items() if item not in (None, "", [], {})}
    if "acl" in tidy:
        tidy["acl"] = _sorted_acl(tidy["acl"])
    if "column_acl" in tidy:
        tidy["column_acl"] = {column: _sorted_acl(acl or {}) for column, acl in tidy["column_acl"].items()}
    return tidy


def _sorted_acl(acl: dict[str, str]) -> dict[str, str]:
    return {who: " ".join(sorted(may.split())) for who, may in plain_acl(acl).items()}


def _counts(session: Session) -> dict[str, int]:
    counts = {}
    for catalog in _COUNTED:
        sql = "SELECT count(*) FROM %s o WHERE o.oid >= 16384 AND %s" % (catalog, _ours(catalog, "o"))
        if catalog in _SCHEMA_OF:
            sql += " AND o.%s NOT IN (SELECT n.oid FROM pg_namespace n WHERE %s)" % (_SCHEMA_OF[catalog], _SYSTEM)
        counts[catalog] = int(session.value(sql))
    undumped = [
        "SELECT x.oid FROM %s x WHERE o.classoid = '%s'::regclass AND x.oid = o.objoid AND (%s)"
        % (catalog, catalog, which)
        for catalog, which in (*_system_objects(), *_BROUGHT, *_NEVER_DUMPED)
    ]
    counts["comments"] = int(
        session.value(
            "SELECT count(*) FROM pg_description o WHERE o.objoid >= 16384 AND NOT EXISTS (SELECT 1 FROM pg_depend e"
            " WHERE e.classid = o.classoid AND e.objid = o.objoid AND e.deptype = 'e')"
            + "".join(" AND NOT EXISTS (%s)" % one for one in undumped)
        )
    )
    return counts


def _system_objects() -> list[tuple[str, str]]:
    """Return, by catalog, the condition that an object is in one of PostgreSQL's own schemas, or a session's."""
    inside = "IN (SELECT n.oid FROM pg_namespace n WHERE %s)" % _SYSTEM
    on_table = "EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = x.%s AND c.relnamespace " + inside + ")"
    return [(catalog, "x.%s %s" % (column, inside)) for catalog, column in _SCHEMA_OF.items()] + [
        (catalog, on_table % column)
        for catalog, column in (("pg_trigger", "tgrelid"), ("pg_rewrite", "ev_class"), ("pg_policy", "polrelid"))
    ]


def _brought(session: Session) -> int:
    """Return how many objects there are whose comments pg_dump leaves out, and fingerprints of format 1 counted."""
    parts = ["(SELECT count(*) FROM %s x WHERE x.oid >= 16384 AND (%s))" % one for one in _BROUGHT]
    return int(session.value("SELECT " + " + ".join(parts)))


def _large_objects(session: Session) -> dict[str, Any]:
    count, digest = session.rows(
        "SELECT count(*), coalesce(sum(('x' || left(md5(oid::text || ' ' || pg_get_userbyid(lomowner)), 8))"
        "::bit(32)::int::bigint), 0)::text FROM pg_largeobject_metadata"
    )[0]
    # Where the last page ends: an object written with holes has fewer pages than its copy, but the same length.
    size = (
        session.allowed(
            "SELECT coalesce(sum(l.size), 0)::bigint FROM (SELECT max(pageno * (current_setting('block_size')::bigint / 4) + length(data)) AS size"
            " FROM pg_largeobject GROUP BY loid) l"
        )
        if count
        else None
    )
    return {"count": count, "digest": digest, "bytes": size[0][0] if size else None}


def tables_with_rows(facts: Facts, scope: Scope, *, unlogged: bool = True) -> list[str]:
    """Return the tables of `facts` whose rows belong to `scope`; without the unlogged ones if told so."""
    return [
        key
        for key, value in facts["relations"].items()
        if value["kind"] == "r"
        and split_qualified(key) not in scope.exclude_table_data
        and (unlogged or value["persistence"] != "u")
    ]


def lock_tables(session: Session, tables: Iterable[str]) -> list[str]:
    """Take, for the rest of the transaction, the lock on each of `tables` that reading it takes, in the order of names.

    Return those that were rewritten or truncated since the snapshot: it sees no row in them any more. None can be after.
    """
    names = sorted(tables)
    for batch in _batches(names):
        session.execute("LOCK TABLE %s IN ACCESS SHARE MODE" % ", ".join("ONLY %s" % _quoted(key) for key in batch))
    # The catalog is read as of the snapshot, the function answers as of now.
    rows = session.rows(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND c.relfilenode <> 0 AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode"
    )
    changed = {(row[0], row[1]) for row in rows}
    return [key for key in names if split_qualified(key) in changed]


def count_rows(session: Session, tables: Iterable[str], *, within_transaction: bool = False) -> dict[str, int]:
    """Return the number of rows of each of `tables`, children not counted with their parents.

    Counting locks the indexes too, and a server has room for so many locks only: `within_transaction`, which would keep
    them, each step lets go of its own.
    """
    counts: dict[str, int] = {}
    for batch in _batches(list(tables), _COUNTED_AT_ONCE):
        parts = ["SELECT %d, (SELECT count(*) FROM ONLY %s)" % (i, _quoted(key)) for i, key in enumerate(batch)]
        if within_transaction:
            session.execute("SAVEPOINT pgops_count")
        for index, count in session.rows(" UNION ALL ".join(parts)):
            counts[batch[index]] = count
        if within_transaction:
            session.execute("ROLLBACK TO SAVEPOINT pgops_count; RELEASE SAVEPOINT pgops_count")
    return counts


def sequence_positions(session: Session, facts: Facts, *, unlogged: bool = True) -> dict[str, list[Any]]:
    """Return `[last_value, is_called]` of each sequence in `facts`; without the unlogged ones if told so.

    Positions are read as of now, whatever the snapshot.
    """
    names = [
        key
        for key, value in facts["relations"].items()
        if value["kind"] == "S" and (unlogged or value["persistence"] != "u")
    ]
    positions: dict[str, list[Any]] = {}
    for batch in _batches(names):
        parts = ["SELECT %d, last_value, is_called FROM %s" % (i, _quoted(key)) for i, key in enumerate(batch)]
        for index, value, called in session.rows(" UNION ALL ".join(parts)):
            positions[batch[index]] = [value, called]
    return positions


def _quoted(key: str) -> str:
    return qualified(*split_qualified(key))


def _batches(keys: list[str], size: int = _BATCH) -> Iterable[list[str]]:
    return (keys[i : i + size] for i in range(0, len(keys), size))


def holds_objects(session: Session) -> bool:
    """Tell whether somebody has made anything in the session's database, extensions too."""
    catalogs = (
        "pg_class",
        "pg_extension",
        "pg_largeobject_metadata",
        "pg_namespace",
        "pg_proc",
        "pg_type",
        "pg_operator",
    )
    parts = []
    for catalog in catalogs:
        sql = "SELECT 1 FROM %s x WHERE x.oid >= 16384" % catalog
        if catalog in _SCHEMA_OF:
            sql += " AND x.%s NOT IN (SELECT n.oid FROM pg_namespace n WHERE %s)" % (_SCHEMA_OF[catalog], _SYSTEM)
        if catalog == "pg_namespace":  # those of temporary tables stay, as of each vacuumdb
            sql += " AND x.nspname !~ '^pg_'"
        parts.append("EXISTS (%s)" % sql)
    return bool(session.value("SELECT " + " OR ".join(parts)))


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """A database as the server lists it. `bytes` is 0 where this role may not know it, and where it is `lost`."""

    name: str
    closed: str  # why it takes no connections; empty when it does
    bytes: int
    lost: bool  # the server has no file of it


def databases(session: Session) -> list[Listed]:
    """Return the databases of the server but template0, by name; each is asked for its size alone, as it may go meanwhile."""
    found = []
    for oid, name, allowed, limit in session.rows(
        "SELECT oid::bigint, datname, datallowconn, datconnlimit FROM pg_database WHERE datname <> 'template0' ORDER BY datname"
    ):
        closed = "its DROP DATABASE was interrupted; drop it" if limit == INVALID else ""
        closed = closed or ("" if allowed else "it takes no connections")
        size = session.allowed(
            "SELECT pg_database_size(%s::oid) WHERE has_database_privilege(%s::oid, 'CONNECT')",
            (oid, oid),
            also=(NO_DATABASE,),
        )
        known = size[0][0] if size else 0
        if known is None and limit != INVALID:
            now = session.value("SELECT datconnlimit FROM pg_database WHERE oid = %s", (oid,))
            if now in (None, INVALID):
                continue  # it was, or is being, dropped since it was listed
        found.append(Listed(name, closed, int(known or 0), lost=known is None and limit != INVALID))
    return found


def database_properties(session: Session, database: str) -> dict[str, Any]:
    """Return what CREATE DATABASE, GRANT and ALTER DATABASE need to make `database` again as it is."""
    row, owner, encoding, tablespace, acl, comment = session.rows(
        "SELECT to_jsonb(d) - 'datacl', pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding),"
        " (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace), "
        + _effective("d.datacl", "d", "d.datdba")
        + ", shobj_description(d.oid, 'pg_database') FROM pg_database d WHERE d.datname = %s",
        (database,),
    )[0]
    settings = session.rows(
        "SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole) END, s.setconfig FROM pg_db_role_setting s"
        " JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = %s ORDER BY 1",
        (database,),
    )
    return {
        "owner": owner,
        "encoding": encoding,
        "collate": row["datcollate"],
        "ctype": row["datctype"],
        "provider": {"c": "libc", "i": "icu", "b": "builtin"}.get(row.get("datlocprovider") or "c", "libc"),
        "locale": row.get("datlocale") or row.get("daticulocale"),
        "icu_rules": row.get("daticurules"),
        "collation_version": row.get("datcollversion"),
        "connection_limit": row["datconnlimit"],
        "is_template": row["datistemplate"],
        "tablespace": tablespace,
        "acl": _sorted_acl(acl or {}),
        "settings": [{"role": role, "settings": [_shown(c) for c in _public(config)]} for role, config in settings],
        "comment": comment and _shown(comment),
    }


def _shown(text: str) -> str:
    """Return what is written anew from another database, such that each can take it: bytes of no encoding as they are shown."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def roles(session: Session) -> dict[str, Any]:
    """Return the roles of the server: `{"bootstrap": name, "roles": {name: {…}}, "settings": [setting], "tablespaces": [name]}`.

    A role's password is never read; where this role may know it, `has_password` says whether there is one.
    """
    passwords = session.allowed("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL")
    with_password = None if passwords is None else {row[0] for row in passwords}
    found: dict[str, Any] = {}
    bootstrap = ""
    for oid, name, attributes, member_of, settings in session.rows(
        "SELECT r.oid::bigint, r.rolname, to_jsonb(r) - ARRAY['oid', 'rolname', 'rolpassword', 'rolconfig'],"
        " (SELECT jsonb_agg(DISTINCT g.rolname || CASE WHEN m.admin_option THEN ' *' ELSE '' END) FROM pg_auth_members m"
        "   JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid),"
        " (SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0)"
        " FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 2"
    ):
        if oid == 10:
            bootstrap = name
        facts = {"attributes": attributes, "member_of": sorted(member_of or []), "settings": _public(settings or [])}
        if with_password is not None:
            facts["has_password"] = name in with_password
        found[name] = facts
    tablespaces = session.rows("SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY 1")
    return {
        "bootstrap": bootstrap,
        "roles": found,
        "settings": settings_of_all_roles(session),
        "tablespaces": [row[0] for row in tablespaces],
    }


def settings_of_all_roles(session: Session) -> list[str]:
    """Return what ALTER ROLE ALL has set for the whole server."""
    rows = session.rows(
        "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0 ORDER BY 1"
    )
    return _public([row[0] for row in rows])


def _public(settings: Iterable[str]) -> list[str]:
    """Return settings (`name=value`) as a manifest may hold them: an application's secrets are masked."""
    return sorted(without_secret(setting) for setting in settings)


__all__ = (
    "MORE_LOCKS",
    "NO_LOCKS",
    "Listed",
    "Scope",
    "count_rows",
    "database_properties",
    "databases",
    "holds_objects",
    "roles",
    "sequence_positions",
    "settings_of_all_roles",
    "tables_with_rows",
    "take",
)
