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
    counted,
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


def partitioned() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of format 1 of keys to and of partitions, and what the restored database has: names differ."""
    expected, found = copy.deepcopy(FACTS), actual()
    key = {"type": "f", "deferrable": False}
    expected["constraints"].update(
        {
            "s.t to_p": {**key, "refers_to": "s.p"},
            "s.t to_p3": {**key, "refers_to": "s.p1"},
            "s.p up": {**key, "refers_to": "s.t"},
            "s.p1 own": {**key, "refers_to": "s.t"},
        }
    )
    found["constraints"].update(
        {
            "s.t to_p": {**key, "refers_to": "s.p"},
            "s.t to_p_1": {**key, "refers_to": "s.p1", "derived": True},
            "s.p up": {**key, "refers_to": "s.t"},
            "s.p1 up": {**key, "refers_to": "s.t", "derived": True},
        }
    )
    found["format"] = 2
    return expected, found


def test_keys_that_postgresql_makes_for_partitions_may_have_other_names() -> None:
    expected, found = partitioned()
    assert compare(expected, found).differences == []
    newer = copy.deepcopy(expected)
    newer["format"] = 2
    for key in ("s.t to_p3", "s.p1 own"):
        newer["constraints"][key]["derived"] = True
    assert compare(newer, found).differences == []


@pytest.mark.parametrize("form", [1, 2])
def test_a_lost_key_is_found_beside_those_of_partitions(form: int) -> None:
    expected, found = partitioned()
    expected["format"] = form
    if form == 2:
        for key in ("s.t to_p3", "s.p1 own"):
            expected["constraints"][key]["derived"] = True
    expected["constraints"]["s.p1 another"] = {"type": "f", "deferrable": False, "refers_to": "s.t"}
    (difference,) = compare(expected, found).differences
    assert difference in ("constraint s.p1 another is missing", "constraint s.p1 own is missing")
    del expected["constraints"]["s.p1 another"]
    del found["constraints"]["s.t to_p"]
    assert compare(expected, found).differences == ["constraint s.t to_p is missing"]


def test_an_index_that_was_not_valid_is_missed_of_a_partitioned_table_alone() -> None:
    expected, changed = copy.deepcopy(FACTS), actual()
    expected["indexes"]["s.ux"] = {"table": "s.t", "unique": True, "valid": False}
    assert compare(expected, changed).differences == []
    expected["indexes"]["s.p_i"] = {"table": "s.p", "unique": False, "valid": False}
    assert compare(expected, changed).differences == ["index s.p_i is missing"]


def test_what_every_new_database_has_is_a_remark() -> None:
    changed = actual()
    changed["schemas"]["public"] = {"owner": "anna"}
    changed["extensions"]["plpgsql"] = {"version": "1.0"}
    result = compare(FACTS, changed)
    assert result.differences == [] and [r.partition(" was")[0] for r in result.remarks] == [
        "schema public",
        "extension plpgsql",
    ]


def test_what_format_1_counted_although_it_is_not_dumped_is_a_remark() -> None:
    expected, changed = copy.deepcopy(FACTS), actual()
    changed["counts"]["comments"], changed["brought"] = 1, 2
    expected["counts"]["pg_collation"], changed["counts"]["pg_collation"] = 900, 0
    result = compare(expected, changed)
    assert result.differences == [] and len(result.remarks) == 2
    changed["brought"] = 1  # two comments are lost, and only one can be such
    assert compare(expected, changed).differences == ["comments: were 3, are 1"]
    changed["brought"], changed["counts"]["comments"] = 9, 4
    assert compare(expected, changed).differences == ["comments: were 3, are 4"]
    expected["format"], changed["counts"]["comments"] = 2, 2
    assert compare(expected, changed).differences == [
        "comments: were 3, are 2",
        "entries in pg_collation: were 900, are 0",
    ]


def test_a_privilege_of_two_grantors_is_one() -> None:
    expected, changed = copy.deepcopy(FACTS), actual()
    expected["relations"]["s.t"]["acl"]["bob"] = "INSERT INSERT* SELECT"
    changed["relations"]["s.t"]["acl"]["bob"] = "INSERT* SELECT"
    assert compare(expected, changed).differences == []
    changed["relations"]["s.t"]["acl"]["bob"] = "INSERT SELECT"
    assert len(compare(expected, changed).differences) == 1


def test_a_child_that_is_not_null_as_its_parent_now_is_a_remark() -> None:
    expected, changed = copy.deepcopy(FACTS), actual()
    for facts, columns, held in ((expected, "c5", ["j"]), (changed, "c6", ["i", "j"])):
        facts["relations"]["s.t"]["not_null"] = ["i"]
        facts["relations"]["s.child"] = {
            "kind": "r",
            "parents": ["s.t"],
            "columns": columns,
            "not_null": held,
            "nullable_columns": "n",
        }
    said = "relation s.child: columns was c5, is c6"
    assert compare(expected, changed).differences == [said]  # of the same version
    changed["server_version_num"] = 180000
    result = compare(expected, changed)
    assert result.differences == []
    assert result.remarks == ["relation s.child: column i is NOT NULL now, as in its parent"]
    changed["relations"]["s.t"].pop("not_null")
    assert compare(expected, changed).differences == [said]
    changed["relations"]["s.t"]["not_null"] = ["i"]
    changed["relations"]["s.child"]["nullable_columns"] = "others"
    assert compare(expected, changed).differences == [said]


def test_rows_that_move_between_partitions_are_compared_by_their_root() -> None:
    expected, changed = copy.deepcopy(FACTS), actual()
    for facts in (expected, changed):
        facts["relations"]["s.p2"] = {"kind": "r", "columns": "c3", "parents": ["s.p"]}
    expected["rows"]["s.p2"] = 10
    changed["rows"].update({"s.p1": 8, "s.p2": 6})
    assert len(compare(expected, changed).differences) == 2
    changed["relations"]["s.p"]["scattered"] = True
    assert compare(expected, changed).differences == []
    changed["rows"]["s.p2"] = 5
    assert compare(expected, changed).differences == ["table s.p with its partitions: had 14 rows, has 13"]
    # One whose rows are not in the set takes some of the others all the same.
    del expected["rows"]["s.p1"]
    assert counted(expected, changed) == ['s."a b"', "s.p1", "s.p2", "s.t"]
    changed["relations"]["s.p"].pop("scattered")
    assert counted(expected, changed) == ['s."a b"', "s.p2", "s.t"]


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
