# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing fingerprints: every loss is a difference; what may rightly differ is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.fingerprint import (
    Rules,
    compare,
    compare_roles,
    summary,
)

FACTS: dict[str, Any] = {
    "format": 1,
    "server_version_num": 160000,
    "whole": True,
    "relations": {
        "s.t": {
            "kind": "r",
            "owner": "anna",
            "acl": {"anna": "SELECT", "bob": "INSERT*"},
            "columns": "c1",
            "persistence": "p",
        },
        's."a b"': {"kind": "r", "owner": "anna", "columns": "c2"},
        "s.q": {"kind": "S", "owned_by": "s.t"},
        "s.p": {"kind": "p", "columns": "c3"},
        "s.p1": {"kind": "r", "columns": "c3", "parents": ["s.p"]},
    },
    "indexes": {"s.t_i": {"table": "s.t", "unique": True, "valid": True}},
    "constraints": {
        "s.t t_fk": {"type": "f", "refers_to": 's."a b"'},
        's."a b" k 1': {"type": "p"},
        "s.p1 c": {"type": "c"},
    },
    "triggers": {"s.t go": {"enabled": "O"}},
    "policies": {"s.t mine": {"command": "*"}},
    "statistics": {},
    "schemas": {"s": {"owner": "anna"}},
    "functions": {"s.f()": {"body": "x"}},
    "types": {},
    "extensions": {"hstore": {"version": "1.8"}},
    "default_privileges": {"anna s r": {"acl": {"bob": "SELECT"}}},
    "event_triggers": {},
    "publications": {},
    "counts": {"pg_cast": 1, "comments": 3},
    "large_objects": {"count": 2, "digest": "9", "bytes": 100},
    "rows": {"s.t": 5, 's."a b"': 0, "s.p1": 4},
    "sequences": {"s.q": [[7, True], [7, True]]},
}


def actual() -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    facts["sequences"] = {"s.q": [7, True]}
    return facts


def test_the_same_is_the_same() -> None:
    result = compare(FACTS, actual())
    assert result.differences == [] and result.remarks == []
    assert result.checked["rows"] == 9 and result.checked["relations"] == 5


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("rows", "s.t"), 4, "table s.t: had 5 rows, has 4"),
        (("rows", 's."a b"'), 1, 'table s."a b": had 0 rows, has 1'),
        (("sequences", "s.q"), [6, True], "sequence s.q: was at 7, is at 6"),
        (("sequences", "s.q"), [7, False], "sequence s.q: was at 7, is at 7 (not called yet)"),
        (("relations", "s.t", "acl"), {"anna": "SELECT"}, "relation s.t: acl was"),
        (("relations", "s.t", "owner"), "bob", "relation s.t: owner was anna, is bob"),
        (("relations", "s.t", "persistence"), "u", "relation s.t: persistence was p, is u"),
        (("relations", "s.t"), None, "relation s.t is missing"),
        (("indexes", "s.t_i"), None, "index s.t_i is missing"),
        (("indexes", "s.t_i", "valid"), False, "index s.t_i is not valid"),
        (("constraints", "s.t t_fk"), None, "constraint s.t t_fk is missing"),
        (("policies", "s.t mine"), None, "policy s.t mine is missing"),
        (("triggers", "s.t go", "enabled"), "D", "trigger s.t go: enabled was O, is D"),
        (("functions", "s.f()", "body"), "y", "function s.f(): body was x, is y"),
        (("schemas", "s"), None, "schema s is missing"),
        (("default_privileges", "anna s r"), None, "default privilege anna s r is missing"),
        (("counts", "comments"), 2, "comments: were 3, are 2"),
        (("counts", "pg_cast"), 2, "entries in pg_cast: were 1, are 2"),
        (("large_objects", "count"), 1, "large objects: were 2, are 1"),
        (("large_objects", "digest"), "8", "large objects: other numbers or owners"),
        (("large_objects", "bytes"), 99, "large objects: were 100 bytes, are 99"),
        (("relations", "s.new"), {"kind": "r"}, "relation s.new was not in the backup"),
        (("extensions", "hstore"), None, "extension hstore is missing"),
    ],
)
def test_each_loss_is_named(path: tuple[str, ...], value: Any, said: str) -> None:
    changed = actual()
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    assert any(said in difference for difference in compare(FACTS, changed).differences)


@pytest.mark.parametrize(
    ("span", "found", "right"),
    [
        ([[5, True], [9, True]], [7, True], True),
        ([[5, True], [9, True]], [5, True], True),
        ([[5, True], [9, True]], [9, True], True),
        ([[5, True], [9, True]], [4, True], False),
        ([[5, True], [9, True]], [10, True], False),
        ([[-5, True], [-20, True]], [-10, True], True),  # one that counts down
        ([[1, False], [1, True]], [1, True], True),
        ([[1, False], [1, False]], [1, True], False),
    ],
)
def test_a_sequence_may_have_moved_during_the_dump(span: list[Any], found: list[Any], right: bool) -> None:
    expected = {**FACTS, "sequences": {"s.q": span}}
    changed = {**actual(), "sequences": {"s.q": found}}
    assert (compare(expected, changed).differences == []) == right


def test_another_version_of_an_extension_is_a_remark() -> None:
    changed = actual()
    changed["extensions"]["hstore"]["version"] = "1.9"
    result = compare(FACTS, changed)
    assert result.differences == [] and result.remarks == ["extension hstore was version 1.8, is 1.9"]


def test_a_newer_server_s_new_privilege_is_no_difference() -> None:
    changed = actual()
    changed["relations"]["s.t"]["acl"]["anna"] = "MAINTAIN SELECT"
    assert compare(FACTS, changed).differences != []
    changed["server_version_num"] = 180000
    assert compare(FACTS, changed).differences == []


def test_without_ownership_owners_and_rights_do_not_count_and_rows_do() -> None:
    changed = actual()
    changed["relations"]["s.t"].update(owner="other", acl={})
    changed["default_privileges"] = {}
    changed["large_objects"]["digest"] = "1"
    assert compare(FACTS, changed, Rules(ownership=False)).differences == []
    changed["rows"]["s.t"] = 1
    assert len(compare(FACTS, changed, Rules(ownership=False)).differences) == 1


def part(*tables: str) -> Rules:
    return Rules(selected=lambda schema, name: "%s.%s" % (schema, name) in tables)


def test_a_part_is_compared_alone_and_more_than_that_is_fine() -> None:
    changed = actual()
    for key in ('s."a b"', "s.p", "s.p1"):
        del changed["relations"][key]
    changed["constraints"] = {}  # the foreign key leads to what was not asked for
    changed["large_objects"] = {"count": 0, "digest": "0", "bytes": 0}
    changed["relations"]["s.more"] = {"kind": "r"}
    assert compare(FACTS, changed, part("s.t")).differences == []
    del changed["relations"]["s.q"]  # the sequence of a wanted table is wanted
    assert compare(FACTS, changed, part("s.t")).differences == ["relation s.q is missing"]


def test_a_partition_alone_lacks_what_it_had_from_its_parent() -> None:
    changed = actual()
    changed["relations"] = {"s.p1": {"kind": "r", "columns": "other"}}
    changed["constraints"] = {}
    assert compare(FACTS, changed, part("s.p1")).differences == []
    changed["rows"]["s.p1"] = 3
    assert compare(FACTS, changed, part("s.p1")).differences == ["table s.p1: had 4 rows, has 3"]
    both = actual()
    both["relations"]["s.p1"]["columns"] = "other"
    assert compare(FACTS, both, part("s.p", "s.p1")).differences == ["relation s.p1: columns was c3, is other"]


def test_an_endless_list_is_cut_and_counted() -> None:
    changed = actual()
    changed["relations"].update({"s.x%d" % i: {"kind": "r"} for i in range(500)})
    shown = compare(FACTS, changed).shown()
    assert len(shown) == 201 and shown[-1] == "… and 300 more"


ROLES: dict[str, Any] = {
    "bootstrap": "postgres",
    "settings": ["app.x=1"],
    "roles": {
        "postgres": {"attributes": {"rolsuper": True}, "member_of": [], "settings": [], "has_password": True},
        "anna": {
            "attributes": {"rolcreatedb": False},
            "member_of": ["staff"],
            "settings": ["a=b"],
            "has_password": True,
        },
    },
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["roles"].pop("anna"), "role 'anna' is missing"),
        (lambda r: r["roles"]["anna"].update(member_of=[]), "role 'anna': member of was ['staff'], is []"),
        (lambda r: r["roles"]["anna"].update(settings=[]), "role 'anna': settings was"),
        (lambda r: r["roles"]["anna"]["attributes"].update(rolcreatedb=True), "role 'anna': attributes was"),
        (lambda r: r["roles"]["anna"].update(has_password=False), "role 'anna': has password was True, is False"),
        (lambda r: r["settings"].clear(), "settings of all roles: app.x=1 is missing"),
    ],
)
def test_each_loss_of_a_role_is_named(change: Any, said: str) -> None:
    found = copy.deepcopy(ROLES)
    change(found)
    (difference,) = compare_roles(ROLES, found, passwords=True)
    assert said in difference


def test_more_roles_and_another_superuser_are_no_difference() -> None:
    found = copy.deepcopy(ROLES)
    found["roles"]["more"] = {}
    found["roles"]["postgres"].update(settings=["x=y"], has_password=False)
    found["roles"]["anna"].pop("has_password")
    assert compare_roles(ROLES, found, passwords=True) == []
    found["roles"]["anna"]["has_password"] = False
    assert compare_roles(ROLES, found, passwords=False) == []


def test_the_summary_counts() -> None:
    assert summary(FACTS) == {"tables": 4, "rows": 9, "sequences": 1, "views": 0, "large_objects": 2}
