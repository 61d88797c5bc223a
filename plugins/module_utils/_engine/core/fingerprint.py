# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The fingerprint: what a database held at the moment of its dump, and how a restored one differs from it. Pure.

inventory.py takes the facts. A lost row, sequence position or grant must show up as a difference; what may rightly differ
(a newer extension version, privileges that a newer server adds) is a remark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .naming import split_qualified
from .redaction import is_masked

# Format 1 did not tell apart what PostgreSQL makes anew for partitions, and counted what pg_dump leaves out.
FORMAT = 2
Facts = dict[str, Any]
Selected = Callable[[str, str], bool]

_RELATED = ("indexes", "constraints", "triggers", "policies", "statistics")
_WHOLE = ("schemas", "functions", "types", "extensions", "default_privileges", "event_triggers", "publications")
_SINGULAR = {
    "relations": "relation",
    "indexes": "index",
    "constraints": "constraint",
    "triggers": "trigger",
    "policies": "policy",
    "statistics": "extended statistics",
    "schemas": "schema",
    "functions": "function",
    "types": "type",
    "extensions": "extension",
    "default_privileges": "default privilege",
    "event_triggers": "event trigger",
    "publications": "publication",
}
# What a partition has from its parent, and lacks when it is restored alone.
_INHERITED = ("parents", "columns")
# What is looked at, but must not be the same.
_NOT_COMPARED = ("valid", "version", "scattered", "derived", "not_null", "nullable_columns")
# What every new database has. A set of a database that has dropped it lacks it.
_OF_EVERY_DATABASE = (("schemas", "public"), ("extensions", "plpgsql"))
_SHOWN = 200
# The first version that keeps a child from being nullable where its parent is not.
_NOT_NULL_INHERITED = 180000


@dataclass
class Comparison:
    """The outcome: `differences` make a restore wrong, `remarks` do not; `checked` counts what was compared by kind."""

    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    def shown(self) -> list[str]:
        """Return the differences for a result, the endless tail as a count."""
        more = len(self.differences) - _SHOWN
        return self.differences[:_SHOWN] + (["… and %d more" % more] if more > 0 else [])


@dataclass(frozen=True)
class Rules:
    """What to compare: without `ownership` owners and privileges are left out; `selected` names the relations (all if None)."""

    ownership: bool = True
    selected: Optional[Selected] = None


def compare(expected: Facts, actual: Facts, rules: Rules = Rules()) -> Comparison:
    """Compare the fingerprint `expected` with the facts of the restored database."""
    result = Comparison()
    cross_major = expected["server_version_num"] // 10000 != actual["server_version_num"] // 10000
    view = _View(rules, cross_major)
    relations = {k: v for k, v in expected["relations"].items() if _wanted(k, v, rules)}
    alone = {k for k, v in relations.items() if rules.selected and not relations.keys() >= set(v.get("parents", ()))}
    shape = {k: {f: x for f, x in v.items() if k not in alone or f not in _INHERITED} for k, v in relations.items()}
    found = {
        k: {f: x for f, x in v.items() if k not in alone or f not in _INHERITED} for k, v in actual["relations"].items()
    }
    if expected["server_version_num"] < _NOT_NULL_INHERITED <= actual["server_version_num"]:
        _take_over_not_null(shape, found, result)
    _compare_kind("relations", shape, found, view, result)
    for kind in _RELATED:
        wanted = {k: v for k, v in expected[kind].items() if _table_of(kind, k, v) in relations}
        existing = actual[kind]
        if kind == "indexes":  # pg_dump leaves out one that is not valid, but for that of a partitioned table
            wanted = {k: v for k, v in wanted.items() if v.get("valid") or relations[v["table"]]["kind"] == "p"}
        if kind == "constraints":
            wanted, existing = _own_constraints(wanted, existing, expected.get("format", 1))
        if kind in ("constraints", "triggers"):  # a partition without its parent lacks what it has from there
            wanted = {k: v for k, v in wanted.items() if _table_of(kind, k, v) not in alone}
        if rules.selected:  # a foreign key to a table that was not asked for cannot be restored
            wanted = {k: v for k, v in wanted.items() if v.get("refers_to") is None or v["refers_to"] in relations}
        _compare_kind(kind, wanted, existing, view, result)
    _compare_rows(expected.get("rows", {}), actual, relations, result)
    _compare_sequences(expected.get("sequences", {}), actual.get("sequences", {}), relations, result)
    if expected.get("whole") and actual.get("whole") and rules.selected is None:
        for kind in _WHOLE:
            if kind == "default_privileges" and not rules.ownership:
                continue
            _compare_kind(kind, expected[kind], actual[kind], view, result)
        _compare_counts(expected, actual, result)
        _compare_large_objects(expected["large_objects"], actual["large_objects"], rules, result)
    return result


def _take_over_not_null(expected: Facts, actual: Facts, result: Comparison) -> None:
    """Let a child have the NOT NULL of its parents that it had dropped, which newer servers do not allow, and remark it."""
    for key, value in sorted(expected.items()):
        found = actual.get(key, {})
        was, now = set(value.get("not_null", ())), set(found.get("not_null", ()))
        parents = value.get("parents", ())
        above = {column for parent in parents for column in actual.get(parent, {}).get("not_null", ())}
        columns = found.get("nullable_columns")
        if columns is not None and columns == value.get("nullable_columns") and was < now <= was | above:
            expected[key] = {**value, "columns": found.get("columns")}
            text = "relation %s: column %s is NOT NULL now, as in its parent"
            result.remarks += [text % (key, column) for column in sorted(now - was)]


def _wanted(key: str, value: dict[str, Any], rules: Rules) -> bool:
    if rules.selected is None:
        return True
    return rules.selected(*split_qualified(value.get("owned_by") or key))


def _table_of(kind: str, key: str, value: dict[str, Any]) -> str:
    if kind in ("indexes", "statistics"):
        return str(value["table"])
    # `schema.table name`: the table ends where splitting it off leaves a whole name
    return _leading_table(key)


def _leading_table(key: str) -> str:
    quoted, dots = False, 0
    for position, letter in enumerate(key):
        if letter == '"':
            quoted = not quoted
        elif letter == "." and not quoted:
            dots += 1
        elif letter == " " and not quoted and dots == 1:
            return key[:position]
    return key


@dataclass(frozen=True)
class _View:
    """How values are looked at: without what may rightly differ."""

    rules: Rules
    cross_major: bool

    def facts(self, value: dict[str, Any]) -> dict[str, Any]:
        seen = {k: v for k, v in value.items() if k not in _NOT_COMPARED}
        if "acl" in seen:
            seen["acl"] = plain_acl(seen["acl"])
        if "column_acl" in seen:
            seen["column_acl"] = {column: plain_acl(acl) for column, acl in seen["column_acl"].items()}
        if not self.rules.ownership:
            for key in ("owner", "acl", "column_acl"):
                seen.pop(key, None)
        if self.cross_major and "acl" in seen:
            # PostgreSQL 17 added MAINTAIN to what owners have by default.
            kept = {
                who: " ".join(p for p in may.split() if p.rstrip("*") != "MAINTAIN") for who, may in seen["acl"].items()
            }
            seen["acl"] = {who: may for who, may in kept.items() if may}
        return seen


def _compare_kind(kind: str, expected: dict[str, Any], actual: dict[str, Any], view: _View, result: Comparison) -> None:
    name = _SINGULAR[kind]
    result.checked[kind] = len(expected)
    for key, value in sorted(expected.items()):
        if key not in actual:
            result.differences.append("%s %s is missing" % (name, key))
            continue
        found = actual[key]
        wanted, seen = view.facts(value), view.facts(found)
        for fact in sorted(set(wanted) | set(seen)):
            if wanted.get(fact) != seen.get(fact):
                result.differences.append(
                    "%s %s: %s was %s, is %s"
                    % (name, key, fact.replace("_", " "), _show(wanted.get(fact)), _show(seen.get(fact)))
                )
        if value.get("valid") and not found.get("valid"):
            result.differences.append("%s %s is not valid" % (name, key))
        if value.get("version") != found.get("version"):
            result.remarks.append(
                "%s %s was version %s, is %s" % (name, key, value.get("version"), found.get("version"))
            )
    if view.rules.selected is None:
        for key in sorted(set(actual) - set(expected)):
            said = "%s %s was not in the backup" % (name, key)
            if (kind, key) in _OF_EVERY_DATABASE:
                result.remarks.append("%s: every new database has it" % said)
            else:
                result.differences.append(said)


def _show(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 120 else text[:117] + "…"


def plain_acl(acl: dict[str, str]) -> dict[str, str]:
    """Return privileges (`{grantee: "PRIV PRIV*"}`) without those that the same grantee has with the grant option as well."""
    return {who: " ".join(p for p in may.split() if p + "*" not in may.split()) for who, may in acl.items()}


def _own_constraints(expected: Facts, actual: Facts, form: int) -> tuple[Facts, Facts]:
    """Return both without the foreign keys that PostgreSQL made for partitions: their names depend on the order of creation.

    Format 1 does not tell them apart. Each that is not there by its name is one of them if its table has such a one.
    """
    own = {key: value for key, value in actual.items() if not value.get("derived")}
    if form > 1:
        return {key: value for key, value in expected.items() if not value.get("derived")}, own
    made = Counter(_kind_of_key(key, value) for key, value in actual.items() if value.get("derived"))
    wanted = {}
    for key, value in sorted(expected.items()):
        if key not in own and made[_kind_of_key(key, value)]:
            made[_kind_of_key(key, value)] -= 1
        else:
            wanted[key] = value
    return wanted, own


def _kind_of_key(key: str, value: dict[str, Any]) -> tuple[Any, ...]:
    return (_leading_table(key), value["type"], value.get("refers_to"), value.get("deferrable"))


def _root(key: str, relations: dict[str, Any]) -> str:
    """Return the partitioned table through whose root the rows of the table come, empty for one whose rows stay in it.

    pg_dump loads so what is partitioned by the hash of an enum: its values have other numbers in each database.
    """
    scattered, at = False, key
    while relations.get(at, {}).get("parents"):
        at = relations[at]["parents"][0]
        scattered = scattered or bool(relations.get(at, {}).get("scattered"))
    return at if scattered else ""


def _rooted(relations: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each table whose rows may have come into another partition, and the root of both."""
    for key, value in sorted(relations.items()):
        root = _root(key, relations) if value.get("parents") and value["kind"] == "r" else ""
        if root:
            yield key, root


def counted(expected: Facts, actual: Facts) -> list[str]:
    """Return the tables of the restored database whose rows have to be counted to compare it."""
    keys = set(expected.get("rows", {}))
    rooted = dict(_rooted(actual["relations"]))
    roots = {root for key, root in rooted.items() if key in keys}
    return sorted((keys & actual["relations"].keys()) | {key for key, root in rooted.items() if root in roots})


def _compare_rows(expected: dict[str, int], actual: Facts, relations: dict[str, Any], result: Comparison) -> None:
    wanted = {k: v for k, v in expected.items() if k in relations}
    found = dict(actual.get("rows", {}))
    result.checked["rows"] = sum(wanted.values())
    sums: dict[str, list[int]] = {}
    for key, root in _rooted(actual["relations"]):
        both = sums.setdefault(root, [0, 0])
        both[0] += wanted.pop(key, 0)
        both[1] += found.pop(key, 0)
    for root, (count, now) in sorted(sums.items()):
        if count != now:
            result.differences.append("table %s with its partitions: had %d rows, has %d" % (root, count, now))
    for key, count in sorted(wanted.items()):
        if key in found and found[key] != count:
            result.differences.append("table %s: had %d rows, has %d" % (key, count, found[key]))


def _compare_sequences(
    expected: dict[str, Any], actual: dict[str, Any], relations: dict[str, Any], result: Comparison
) -> None:
    wanted = {k: v for k, v in expected.items() if k in relations}
    result.checked["sequences"] = len(wanted)
    for key, span in sorted(wanted.items()):
        if key in actual and not _within(span, tuple(actual[key])):
            ends = [_position(p) for p in span]
            was = ends[0] if ends[0] == ends[-1] else "%s to %s" % (ends[0], ends[-1])
            result.differences.append("sequence %s: was at %s, is at %s" % (key, was, _position(actual[key])))


def _within(span: list[Any], found: tuple[Any, ...]) -> bool:
    """A sequence moves while it is dumped: `span` is its position before and after, `found` must lie between."""
    before, after = tuple(span[0]), tuple(span[-1])
    if found in (before, after):
        return True
    low, high = sorted((before[0], after[0]))
    return bool(before != after and low <= found[0] <= high)


def _position(position: Any) -> str:
    return str(position[0]) if position[1] else "%s (not called yet)" % position[0]


def _compare_counts(expected: Facts, actual: Facts, result: Comparison) -> None:
    for catalog, count in sorted(expected["counts"].items()):
        now = actual["counts"].get(catalog)
        if now == count:
            continue
        what = "comments" if catalog == "comments" else "entries in %s" % catalog
        said = "%s: were %d, are %s" % (what, count, now)
        if (
            now is not None
            and now < count
            and expected.get("format", 1) < 2
            and _once_counted(catalog, count - now, actual)
        ):
            result.remarks.append("%s; this set counts some that pg_dump leaves out" % said)
        else:
            result.differences.append(said)


def _once_counted(catalog: str, lost: int, actual: Facts) -> bool:
    """Tell whether what a count of format 1 has more may be what pg_dump leaves out: collations of the system, comments."""
    return catalog == "pg_collation" or (catalog == "comments" and lost <= actual.get("brought", 0))


def _compare_large_objects(expected: dict[str, Any], actual: dict[str, Any], rules: Rules, result: Comparison) -> None:
    result.checked["large_objects"] = expected["count"]
    if expected["count"] != actual["count"]:
        result.differences.append("large objects: were %d, are %d" % (expected["count"], actual["count"]))
    elif rules.ownership and expected["digest"] != actual["digest"]:
        result.differences.append("large objects: other numbers or owners than in the backup")
    if expected["bytes"] is not None and actual["bytes"] is not None and expected["bytes"] != actual["bytes"]:
        result.differences.append("large objects: were %d bytes, are %d" % (expected["bytes"], actual["bytes"]))


def compare_roles(expected: dict[str, Any], actual: dict[str, Any], *, passwords: bool) -> list[str]:
    """Return how the roles `actual` differ from those in the backup. More roles than that are no difference."""
    differences = []
    known = {setting for setting in expected.get("settings", []) if not is_masked(setting)}
    lost = sorted(known - set(actual.get("settings", [])))
    if lost:
        differences.append("settings of all roles: %s is missing" % ", ".join(lost))
    for name, value in sorted(expected["roles"].items()):
        if name not in actual["roles"]:
            differences.append("role %r is missing" % name)
            continue
        found = actual["roles"][name]
        if name == expected["bootstrap"]:
            continue
        facts = ("attributes", "member_of", "settings") + (("has_password",) if passwords else ())
        changed = [f for f in facts if f in value and f in found and value[f] != found[f]]
        differences += [
            "role %r: %s was %s, is %s" % (name, f.replace("_", " "), _show(value[f]), _show(found[f])) for f in changed
        ]
    return differences


def summary(facts: Facts) -> dict[str, Any]:
    """Return the figures of a fingerprint that a person wants to see."""
    kinds = [value["kind"] for value in facts["relations"].values()]
    return {
        "tables": sum(kind in ("r", "p") for kind in kinds),
        "rows": sum(facts.get("rows", {}).values()),
        "sequences": kinds.count("S"),
        "views": sum(kind in ("v", "m") for kind in kinds),
        "large_objects": facts.get("large_objects", {}).get("count", 0),
    }


__all__ = (
    "FORMAT",
    "Comparison",
    "Facts",
    "Rules",
    "compare",
    "compare_roles",
    "counted",
    "plain_acl",
    "summary",
)
