# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing lines of pg_restore's listing: what belongs to a table comes with it, whatever the names look like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import qualified
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.selection import (
    Wanted,
    missing,
    select,
    with_relatives,
)

NAMES = st.text(
    st.one_of(
        st.sampled_from(list("ab .\"'-;\n$")), st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])
    ),
    min_size=1,
    max_size=12,
).filter(lambda name: name.strip() == name)


def flat(name: str) -> str:
    return name.replace("\n", " ")


def quoted(name: str) -> str:
    return qualified("x", name)[4:]


class World:
    """Tables of one schema each with all that can hang on them, as a fingerprint and as a listing."""

    def __init__(self, schema: str, tables: list[str], owner: str = "owner") -> None:
        self.lines: dict[str, list[str]] = {}
        self.facts: dict[str, Any] = {
            "relations": {},
            "indexes": {},
            "constraints": {},
            "statistics": {},
            "schemas": {qualified(schema, "x").rsplit(".", 1)[0]: {}},
        }
        number = 0
        for table in tables:
            key = qualified(schema, table)
            self.facts["relations"][key] = {"kind": "r"}
            self.facts["relations"][qualified(schema, table + "_seq")] = {"kind": "S", "owned_by": key}
            self.facts["indexes"][qualified(schema, table + "_idx")] = {"table": key}
            s, t, o = flat(schema), flat(table), owner
            q = flat(quoted(table))
            entries = [
                "TABLE %s %s %s" % (s, t, o),
                "TABLE DATA %s %s %s" % (s, t, o),
                "SEQUENCE %s %s_seq %s" % (s, t, o),
                "SEQUENCE OWNED BY %s %s_seq %s" % (s, t, o),
                "SEQUENCE SET %s %s_seq %s" % (s, t, o),
                "DEFAULT %s %s id %s" % (s, t, o),
                "CONSTRAINT %s %s %s_pkey %s" % (s, t, t, o),
                "INDEX %s %s_idx %s" % (s, t, o),
                "TRIGGER %s %s stamp %s" % (s, t, o),
                "POLICY %s %s mine %s" % (s, t, o),
                "ROW SECURITY %s %s %s" % (s, t, o),
                "ACL %s TABLE %s %s" % (s, q, o),
                "COMMENT %s TABLE %s %s" % (s, q, o),
                "COMMENT %s COLUMN %s.id %s" % (s, q, o),
            ]
            self.lines[table] = ["%d; 1259 %d %s" % (number + i, 16384 + i, entry) for i, entry in enumerate(entries)]
            number += len(entries)

    @property
    def listing(self) -> str:
        return (
            ";\n; Archive created at 2026-11-22\n;\n"
            + "\n".join(x for lines in self.lines.values() for x in lines)
            + "\n"
        )


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique_by=flat))
def test_all_lines_of_a_table_and_no_others(schema: str, tables: list[str]) -> None:
    # Two tables whose lines read alike cannot be told apart by anybody.
    assume(not any(flat(a).startswith(flat(b)) for a in tables for b in tables if a != b))
    assume(not any(flat(quoted(a)).startswith(flat(b)) for a in tables for b in tables))
    world = World(schema, tables)
    chosen = select(world.listing, Wanted(tables=((schema, tables[0]),)), world.facts)
    assert chosen.lines == world.lines[tables[0]]
    assert chosen.left_out == []


@given(st.lists(NAMES, min_size=2, max_size=3, unique_by=flat), NAMES)
def test_all_lines_of_a_schema_and_no_others(schemas: list[str], table: str) -> None:
    assume(not any(flat(a).startswith(flat(b)) for a in schemas for b in schemas if a != b))
    one, other = World(schemas[0], [table]), World(schemas[1], [table])
    facts = {kind: {**one.facts[kind], **other.facts[kind]} for kind in one.facts}
    chosen = select(one.listing + other.listing, Wanted(schemas=(schemas[0],)), facts)
    assert chosen.lines == one.lines[table]


def test_names_of_which_one_begins_the_other() -> None:
    world = World("s", ["order", "order lines", "order lines old"])
    for table in world.lines:
        assert select(world.listing, Wanted(tables=(("s", table),)), world.facts).lines == world.lines[table]


FACTS: dict[str, Any] = {
    "relations": {
        "s.a": {"kind": "r"},
        "s.b": {"kind": "r"},
        "s.f": {"kind": "f"},
        "s.free": {"kind": "S"},
        "s.p": {"kind": "p"},
        "s.p1": {"kind": "p", "parents": ["s.p"]},
        "s.p11": {"kind": "r", "parents": ["s.p1"]},
        "s.child": {"kind": "r", "parents": ["s.a"]},
    },
    "indexes": {"s.p1_i": {"table": "s.p1"}},
    "constraints": {"s.a a_b_fkey": {"type": "f", "refers_to": "s.b"}, "s.a a_pkey": {"type": "p"}},
    "schemas": {"s": {}, "t": {}},
}


def chosen_of(listing: str, **wanted: Any) -> tuple[list[str], list[str]]:
    numbered = "\n".join("%d; 1 1 %s" % (i, line) for i, line in enumerate(listing.strip().splitlines()))
    chosen = select(numbered, Wanted(**wanted), FACTS)
    return [line.split(" ", 3)[3] for line in chosen.lines], chosen.left_out


def test_a_foreign_key_to_what_stays_behind_stays_behind_with_its_comment() -> None:
    listing = "FK CONSTRAINT s a a_b_fkey o\nCONSTRAINT s a a_pkey o\nCOMMENT s CONSTRAINT a_b_fkey ON a o\nCOMMENT s CONSTRAINT a_pkey ON a o"
    lines, left_out = chosen_of(listing, tables=(("s", "a"),))
    assert lines == ["CONSTRAINT s a a_pkey o", "COMMENT s CONSTRAINT a_pkey ON a o"]
    assert left_out == ["the foreign key of s.a to s.b, which is not restored"]
    lines, left_out = chosen_of(listing, tables=(("s", "a"), ("s", "b")))
    assert len(lines) == 4 and left_out == []


def test_partitions_and_heirs_come_with_their_table_and_heirs_are_told() -> None:
    assert set(with_relatives(Wanted(tables=(("s", "p"),)), FACTS)[0].tables) == {("s", "p"), ("s", "p1"), ("s", "p11")}
    assert with_relatives(Wanted(tables=(("s", "a"),)), FACTS) == (
        Wanted(tables=(("s", "a"), ("s", "child"))),
        ["s.child"],
    )
    assert with_relatives(Wanted(tables=(("s", "child"),)), FACTS) == (
        Wanted(tables=(("s", "child"), ("s", "a"))),
        ["s.a"],
    )
    assert with_relatives(Wanted(tables=(("s", "p11"),)), FACTS) == (Wanted(tables=(("s", "p11"),)), [])
    assert with_relatives(Wanted(schemas=("s",)), FACTS) == (Wanted(schemas=("s",)), [])


def test_a_sequence_that_no_table_owns_comes_with_what_counts_by_it_and_may_fail() -> None:
    listing = (
        "0; 1 1 SEQUENCE s free o\n;\tdepends on: 9\n1; 1 1 SEQUENCE SET s free o\n2; 1 1 TABLE s a o\n;\tdepends on: 7 0\n"
        "3; 1 1 ACL s SEQUENCE free o\n4; 1 1 TABLE s b o\n;\tdepends on: 10 11"
    )
    chosen = select(listing, Wanted(tables=(("s", "a"),)), FACTS)
    assert [line[0] for line in chosen.lines] == ["0", "1", "2", "3"]
    assert chosen.soft == {"0", "1", "3"}
    other = select(listing, Wanted(tables=(("s", "b"),)), FACTS)
    assert ([line[0] for line in other.lines], other.soft) == (["4"], set())
    named = select(listing, Wanted(tables=(("s", "free"),)), FACTS)
    assert (len(named.lines), named.soft) == (3, set())
    assert select(listing, Wanted(schemas=("t",)), FACTS).lines == []


def test_a_partition_alone_is_not_attached() -> None:
    listing = "TABLE s p1 o\nTABLE ATTACH s p1 o\nINDEX s p1_i o\nINDEX ATTACH s p1_i o"
    lines, left_out = chosen_of(listing, tables=(("s", "p1"),))
    assert lines == ["TABLE s p1 o", "INDEX s p1_i o"]
    assert left_out == ["s.p1 being a part of s.p, which is not restored"]
    assert len(chosen_of(listing, tables=(("s", "p1"), ("s", "p")))[0]) == 4


def test_what_foreign_tables_need_comes_with_their_schema_only() -> None:
    listing = "FOREIGN DATA WRAPPER - w o\nSERVER - far o\nACL - FOREIGN SERVER far o\nUSER MAPPING - USER MAPPING anna SERVER far o\nFOREIGN TABLE s f o"
    assert len(chosen_of(listing, schemas=("s",))[0]) == 5
    assert chosen_of(listing, schemas=("t",))[0] == []


@pytest.mark.parametrize(
    "line",
    [
        "BLOB - 4711 o",
        "BLOBS - BLOBS",
        "BLOB METADATA - 1..2 o",
        "EVENT TRIGGER - e o",
        "PUBLICATION - p o",
        "PUBLICATION TABLE s p a o",
        "ACL - LARGE OBJECT 4711 o",
        "COMMENT - EVENT TRIGGER e o",
        "SUBSCRIPTION - x o",
    ],
)
def test_what_belongs_to_the_whole_database_stays_behind(line: str) -> None:
    assert chosen_of(line, tables=(("s", "a"),))[0] == []
    assert chosen_of(line, schemas=("s",))[0] == []


def test_types_and_functions_may_fail_for_tables_and_not_for_schemas() -> None:
    listing = "7; 1 1 TYPE s size o\n8; 1 1 EXTENSION - hstore \n9; 1 1 TABLE s a o"
    assert select(listing, Wanted(tables=(("s", "a"),)), FACTS).soft == {"7", "8"}
    assert select(listing, Wanted(schemas=("s",)), FACTS).soft == {"8"}


def test_what_the_set_does_not_have_is_named() -> None:
    assert missing(Wanted(tables=(("s", "a"), ("s", "A"))), FACTS) == ["table s.A"]
    assert missing(Wanted(schemas=("t", "T")), FACTS) == ["schema T"]
