# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Choose from an archive's table of contents what a restore of some schemas or tables needs. Pure.

pg_restore's own --table leaves out indexes, constraints, defaults, triggers, privileges and sequences of the table. Here
the table of contents is filtered instead: what belongs to another relation goes, the rest stays in its order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Optional

from .naming import quote_ident, split_qualified

Pair = tuple[str, str]

_LINE = re.compile(r"(\d+); (\d+) (\d+) (.+)")
_NEEDS = ";\tdepends on:"  # behind an entry, in the verbose listing
# Kinds whose tag is the relation's own name, and kinds whose tag begins with it.
_NAMED = (
    "MATERIALIZED VIEW DATA",
    "MATERIALIZED VIEW",
    "FOREIGN TABLE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "SEQUENCE",
    "STATISTICS DATA",
    "TABLE ATTACH",
    "TABLE DATA",
    "ROW SECURITY",
    "TABLE",
    "VIEW",
)
_LED_BY_TABLE = ("CHECK CONSTRAINT", "FK CONSTRAINT", "CONSTRAINT", "DEFAULT", "POLICY", "RULE", "TRIGGER")
_OF_INDEX = ("INDEX ATTACH", "INDEX", "STATISTICS")
_ABOUT = ("ACL", "COMMENT", "SECURITY LABEL")
# These stand for the whole database and have no place in a part of it.
_WHOLE_ONLY = (
    "BLOB METADATA", "BLOBS", "BLOB", "EVENT TRIGGER", "PUBLICATION TABLES IN SCHEMA", "PUBLICATION TABLE", "PUBLICATION",
    "SUBSCRIPTION TABLE", "SUBSCRIPTION",
)  # fmt: skip
_OTHERS = (
    "ACCESS METHOD", "AGGREGATE", "CAST", "COLLATION", "CONVERSION", "DATABASE PROPERTIES", "DATABASE", "DEFAULT ACL", "DOMAIN",
    "ENCODING", "EXTENSION", "FOREIGN DATA WRAPPER", "FUNCTION", "OPERATOR CLASS", "OPERATOR FAMILY", "OPERATOR",
    "PROCEDURAL LANGUAGE", "PROCEDURE", "SCHEMA", "SEARCHPATH", "SERVER", "SHELL TYPE", "STDSTRINGS",
    "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM", "TYPE",
    "USER MAPPING",
)  # fmt: skip
_KINDS = sorted((*_NAMED, *_LED_BY_TABLE, *_OF_INDEX, *_ABOUT, *_WHOLE_ONLY, *_OTHERS), key=len, reverse=True)


@dataclass(frozen=True)
class Wanted:
    """Which schemas, or which tables, to restore. Exactly one of the two is not empty."""

    schemas: tuple[str, ...] = ()
    tables: tuple[Pair, ...] = ()

    def holds(self, schema: str, relation: str) -> bool:
        """Tell whether the relation is asked for."""
        return (schema, relation) in self.tables if self.tables else schema in self.schemas


@dataclass
class Selection:
    """The lines for pg_restore --use-list, and foreign keys that had to stay behind.

    `soft` are the dump ids of entries that are no part of what was asked for but may be needed by it (types, functions,
    extensions, sequences that no table owns): one that fails is left out and told, and does not end the restore.
    """

    lines: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    soft: set[str] = field(default_factory=set)


def missing(wanted: Wanted, fingerprint: dict[str, Any]) -> list[str]:
    """Return the names in `wanted` that the backed-up database did not have."""
    relations = {split_qualified(key) for key in fingerprint["relations"]}
    schemas = {split_qualified(key + ".x")[0] for key in fingerprint.get("schemas", {})} | {
        pair[0] for pair in relations
    }
    return ["schema %s" % s for s in wanted.schemas if s not in schemas] + [
        "table %s.%s" % t for t in wanted.tables if t not in relations
    ]


def with_relatives(wanted: Wanted, fingerprint: dict[str, Any]) -> tuple[Wanted, list[str]]:
    """Return `wanted` with the partitions of its tables and what inherits from them: those hold rows of them.

    What inherits cannot be made without all that it inherits from, so that comes, too. The list names, in
    order, what is no partition of what was asked for: nobody may expect that.
    """
    relations = {split_qualified(key): value for key, value in fingerprint["relations"].items()}
    parents = {pair: [split_qualified(key) for key in value.get("parents", ())] for pair, value in relations.items()}
    partitioned = {pair for pair, value in relations.items() if value["kind"] == "p"}
    tables = list(wanted.tables)
    for table in tables:  # grows while it is read: partitions may have partitions
        tables += [pair for pair in relations if table in parents[pair] and pair not in tables]
    for table in tables:
        tables += [
            pair
            for pair in parents.get(table, ())
            if pair in relations and pair not in partitioned and pair not in tables
        ]
    heirs = {pair for pair in set(tables) - set(wanted.tables) if not partitioned.intersection(parents[pair])}
    names = sorted(key for key in fingerprint["relations"] if split_qualified(key) in heirs)
    return Wanted(wanted.schemas, tuple(tables)), names


def select(listing: str, wanted: Wanted, fingerprint: dict[str, Any]) -> Selection:
    """Return what of pg_restore's `listing` to restore, by the names that the `fingerprint` of the database knows.

    A sequence that no table owns comes with what depends on it (as the default of a column does), where the listing tells.
    """
    needed: set[str] = set()
    sequences: dict[str, Pair] = {}
    ours: dict[str, tuple[str, Pair]] = {}
    kept = False
    reader = _Reader(fingerprint)
    selection = Selection()
    foreign = any(v["kind"] == "f" and wanted.holds(*split_qualified(k)) for k, v in fingerprint["relations"].items())
    for line in listing.split("\n"):  # names may hold what splitlines() takes for a line's end
        match = _LINE.fullmatch(line)
        if not match:
            if kept and line.startswith(_NEEDS):
                needed.update(line[len(_NEEDS) :].split())
            continue
        kept = False
        kind = next((k for k in _KINDS if match.group(4).startswith(k + " ")), "")
        schema, rest = reader.schema(match.group(4)[len(kind) + 1 :])
        if kind in _WHOLE_ONLY or (kind in _ABOUT and rest.startswith(("LARGE OBJECT ", "EVENT TRIGGER "))):
            continue
        relation = reader.relation(kind, schema, rest)
        sequence = reader.free_sequence(schema, relation)
        if sequence is not None and wanted.tables and not wanted.holds(*sequence):
            keep = True
            if kind == "SEQUENCE":
                sequences[match.group(1)] = sequence
            ours[line] = (match.group(1), sequence)
        elif relation:
            keep = _keep_relation(kind, schema, rest, relation, wanted, reader, selection)
        else:
            keep = (
                bool(wanted.tables) or _keep_other(kind, schema, rest, wanted) or (foreign and _of_foreign(kind, rest))
            )
            if keep and (wanted.tables or schema == "-") and kind != "SCHEMA":
                selection.soft.add(match.group(1))
        kept = keep and line not in ours
        if keep:
            selection.lines.append(line)
    coming = {sequence for number, sequence in sequences.items() if number in needed}
    selection.lines = [line for line in selection.lines if line not in ours or ours[line][1] in coming]
    selection.soft.update(number for number, sequence in ours.values() if sequence in coming)
    return selection


def _keep_relation(
    kind: str, schema: str, rest: str, relation: str, wanted: Wanted, reader: _Reader, selection: Selection
) -> bool:
    if not wanted.holds(*reader.owner(schema, relation)):
        return False
    if kind == "COMMENT" and rest.startswith("CONSTRAINT "):
        return all(wanted.holds(*target) for target in reader.commented_keys(schema, relation, rest))
    if kind == "FK CONSTRAINT":
        target = reader.refers_to(schema, relation, rest)
        if target is not None and not wanted.holds(*target):
            selection.left_out.append(
                "the foreign key of %s.%s to %s.%s, which is not restored" % (schema, relation, *target)
            )
            return False
    if kind in ("TABLE ATTACH", "INDEX ATTACH"):
        parent = next((p for p in reader.parents(schema, relation) if not wanted.holds(*p)), None)
        if parent is not None and kind == "TABLE ATTACH":
            selection.left_out.append(
                "%s.%s being a part of %s.%s, which is not restored" % (schema, relation, *parent)
            )
        return parent is None
    return True


def _keep_other(kind: str, schema: str, rest: str, wanted: Wanted) -> bool:
    """Tell whether an entry that belongs to no relation is needed for some schemas."""
    if kind == "SCHEMA":
        return any(rest.startswith(_sanitized(s) + " ") for s in wanted.schemas)
    if rest.startswith("SCHEMA "):
        return any(_begins(rest[7:], s, " ") for s in wanted.schemas)
    return schema in wanted.schemas or kind == "EXTENSION" or rest.startswith("EXTENSION ")


def _of_foreign(kind: str, rest: str) -> bool:
    """Tell whether an entry is about what foreign tables need."""
    names = ("FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING", "FOREIGN SERVER")
    return kind in names or rest.startswith(tuple(name + " " for name in names))


class _Reader:
    """Finds names in a line of the listing, where blanks both separate and occur, by the names that exist."""

    def __init__(self, fingerprint: dict[str, Any]) -> None:
        self._relations: dict[str, list[str]] = {}
        self._owner: dict[Pair, Pair] = {}
        self._free: set[Pair] = set()
        self._parents: dict[Pair, list[Pair]] = {}
        self._part_of: dict[Pair, str] = {}
        self._foreign: list[tuple[Pair, str, Optional[Pair]]] = []
        for key, value in fingerprint["relations"].items():
            schema, name = split_qualified(key)
            self._relations.setdefault(schema, []).append(name)
            self._parents[(schema, name)] = [split_qualified(parent) for parent in value.get("parents", ())]
            if value.get("owned_by"):
                self._owner[(schema, name)] = split_qualified(value["owned_by"])
            elif value["kind"] == "S":
                self._free.add((schema, name))
        for kind in ("indexes", "statistics"):
            for key, value in fingerprint.get(kind, {}).items():
                self._part_of[split_qualified(key)] = split_qualified(value["table"])[1]
        for key, value in fingerprint["constraints"].items():
            if value.get("refers_to"):
                self._foreign.append((_table_of(key), _constraint_of(key), split_qualified(value["refers_to"])))
        self._schemas = sorted(self._schema_names(fingerprint), key=len, reverse=True)
        for names in self._relations.values():
            names.sort(key=len, reverse=True)

    def _schema_names(self, fingerprint: dict[str, Any]) -> set[str]:
        return {split_qualified(key + ".x")[0] for key in fingerprint.get("schemas", {})} | set(self._relations)

    def schema(self, rest: str) -> tuple[str, str]:
        for schema in [*self._schemas, "-"]:
            if rest.startswith(_sanitized(schema) + " "):
                return schema, rest[len(_sanitized(schema)) + 1 :]
        return "", rest

    def relation(self, kind: str, schema: str, rest: str) -> str:
        """Return the relation that an entry belongs to, empty if to none."""
        if kind in _OF_INDEX:
            return self._by_part(schema, rest)
        if kind in _NAMED or kind in _LED_BY_TABLE:
            return self._leading(schema, rest, " ")
        if kind not in _ABOUT:
            return ""
        for word in ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"):
            if rest.startswith(word + " "):
                return self._leading(schema, rest[len(word) + 1 :], " ")
        if rest.startswith("COLUMN "):
            return self._leading(schema, rest[7:], ".")
        if rest.startswith(("INDEX ", "STATISTICS ")):
            return self._by_part(schema, rest.split(" ", 1)[1])
        if rest.startswith(("CONSTRAINT ", "TRIGGER ", "POLICY ", "RULE ")) and " ON " in rest:
            return self._leading(schema, rest.rsplit(" ON ", 1)[1], " ")
        return ""

    def _leading(self, schema: str, rest: str, end: str) -> str:
        return next((n for n in self._relations.get(schema, ()) if _begins(rest, n, end)), "")

    def _by_part(self, schema: str, rest: str) -> str:
        found = [name for (s, name) in self._part_of if s == schema and _begins(rest, name, " ")]
        return self._part_of[(schema, max(found, key=len))] if found else ""

    def owner(self, schema: str, relation: str) -> Pair:
        """Return the table that owns a sequence; any other relation stands for itself."""
        return self._owner.get((schema, relation), (schema, relation))

    def free_sequence(self, schema: str, relation: str) -> Optional[Pair]:
        """Return the relation if it is a sequence that no table owns."""
        return (schema, relation) if (schema, relation) in self._free else None

    def commented_keys(self, schema: str, relation: str, rest: str) -> list[Pair]:
        """Return the tables that the foreign keys refer to which the comment `rest` is about."""
        return [
            target
            for table, name, target in self._foreign
            if target is not None and table == (schema, relation) and _begins(rest[len("CONSTRAINT ") :], name, " ON ")
        ]

    def parents(self, schema: str, relation: str) -> list[Pair]:
        """Return the tables that a table is a part of or inherits from."""
        return self._parents.get((schema, relation), [])

    def refers_to(self, schema: str, relation: str, rest: str) -> Optional[Pair]:
        return next(
            (
                target
                for table, name, target in self._foreign
                if table == (schema, relation) and rest.startswith("%s %s " % (_sanitized(relation), _sanitized(name)))
            ),
            None,
        )


def _table_of(key: str) -> Pair:
    return split_qualified(_split_leading(key)[0])


def _constraint_of(key: str) -> str:
    name = _split_leading(key)[1]
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _split_leading(key: str) -> tuple[str, str]:
    """Split `schema.table name`, in which each part may be quoted, at the blank between the two."""
    match = re.match(r'((?:"(?:[^"]|"")+"|[^". ]+)\.(?:"(?:[^"]|"")+"|[^". ]+)) (.+)', key, re.DOTALL)
    if not match:
        return key, ""
    return match.group(1), match.group(2)


def _begins(rest: str, name: str, end: str) -> bool:
    """Tell whether `rest` begins with `name` (bare, or quoted as in the tags of privileges and comments) and `end`."""
    return rest.startswith((_sanitized(name) + end, _sanitized(quote_ident(name)) + end))


def _sanitized(name: str) -> str:
    """Return `name` as pg_restore --list shows it: line ends become blanks."""
    return name.replace("\n", " ").replace("\r", " ")


__all__ = ("Selection", "Wanted", "missing", "select", "with_relatives")
