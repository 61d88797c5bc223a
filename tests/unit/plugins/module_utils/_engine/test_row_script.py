# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking pg_restore's script of rows apart: no name and no row, however odd, ends a table or begins one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import quote_ident
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.row_script import Begin, End, contents, split

HEAD = (
    b"--\n-- PostgreSQL database dump; it's \"odd\"\n--\n\n\\restrict abc'def\n\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\n"
    b"SET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\nSET row_security = off;\n\n"
)
FOOT = b"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc'def\n\n"
NAMES = st.text(
    st.one_of(st.sampled_from(list("a.;\"'\\-\n$ E(),")), st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    min_size=1,
    max_size=12,
) | st.sampled_from(['x" (a) FROM stdin;\n', "\\.\n", "\nCOPY public.t (a) FROM stdin;\n"])  # fmt: skip
# A row as COPY writes it: no line's end of its own, and never the two characters that end the rows.
ROWS = st.lists(
    st.text(st.sampled_from(list("\\.;'\"\tN-a é")), max_size=8).filter(lambda row: row != "\\."), max_size=6
)
TABLES = st.lists(st.tuples(NAMES, NAMES, st.lists(NAMES, max_size=3), ROWS), max_size=4)


def _script(tables: list[tuple[str, str, list[str], list[str]]]) -> tuple[bytes, list[tuple[bytes, bytes, bytes]]]:
    """Return what pg_restore writes for `tables`, and of each its name, its command and its rows."""
    script, expected = HEAD, []
    for schema, name, columns, rows in tables:
        table = f"{quote_ident(schema)}.{quote_ident(name)}"
        listed = f"({', '.join(quote_ident(c) for c in columns)})" if columns else ""
        copy = f"COPY {table} {listed} FROM stdin;".encode()
        data = "".join(f"{row}\n" for row in rows).encode()
        comment = f"-- Data for Name: {name}; Type: TABLE DATA; Schema: {schema}; Owner: me"
        comment = re.sub(r"[\r\n]", " ", comment)
        script += b"--\n" + comment.encode() + b"\n--\n\n" + copy + b"\n" + data + b"\\.\n\n\n"
        expected.append((table.encode(), copy, data))
    return script + FOOT, expected


def _cut(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@given(TABLES, st.integers(1, 40))
def test_each_table_comes_whole_wherever_the_chunks_are_cut(
    tables: list[tuple[str, str, list[str], list[str]]], size: int
) -> None:
    script, expected = _script(tables)
    found: list[tuple[bytes, bytes, bytes]] = []
    open_table = False
    for event in split(_cut(script, size)):
        if isinstance(event, Begin):
            assert not open_table
            assert event.settings == (
                b"SET statement_timeout = 0",
                b"SET client_encoding = 'UTF8'",
                b"SELECT pg_catalog.set_config('search_path', '', false)",
                b"SET row_security = off",
            )
            assert event.frozen == event.copy[:-1] + b" WITH (FREEZE)" and not event.through_root
            found.append((event.table, event.copy, b""))
            open_table = True
        elif isinstance(event, End):
            open_table = False
        else:
            found[-1] = (*found[-1][:2], found[-1][2] + event)
    assert found == expected
    assert not open_table


@given(TABLES.filter(bool), st.data())
def test_a_script_that_breaks_off_is_told(
    tables: list[tuple[str, str, list[str], list[str]]], data: st.DataObject
) -> None:
    script, _expected = _script(tables)
    body = script[: -len(FOOT)]
    start = body.rindex(b"COPY ")
    cut = data.draw(st.integers(start + 1, len(body.rstrip(b"\n")) - 1))
    # What is cut off within the last table is missed; before it, nothing is.
    with pytest.raises(DamagedError, match="break off"):
        list(split([body[:cut]]))


@pytest.mark.parametrize("size", [7, 4096])
def test_rows_that_go_through_the_root_of_their_table_are_told_from_the_others(size: int) -> None:
    def table(schema: str, name: str, filled: str) -> bytes:
        heading = "--\n-- Data for Name: %s; Type: TABLE DATA; Schema: %s; Owner: me\n--\n\n" % (name, schema)
        return ("%sCOPY %s (a) FROM stdin;\n1\n\\.\n\n" % (heading, filled)).encode()

    script = (
        HEAD
        + table("s", "leaf 0", 's."ro""ot"')
        + table("s", 'ro"ot', 'o."ro""ot"')
        + table("s_2024", "t", "s.t")
        + table("s", "t", "s.t")
        + FOOT
    )
    begun = [event for event in split(_cut(script, size)) if isinstance(event, Begin)]
    assert [event.through_root for event in begun] == [True, True, True, False]


def test_another_statement_among_the_rows_is_told() -> None:
    with pytest.raises(DamagedError, match="setval"):
        list(split([HEAD, b"SELECT pg_catalog.setval('public.s', 1, true);\n"]))


def test_rows_of_tables_that_the_archive_makes_are_told_from_the_others() -> None:
    listing = [
        ";",
        "; Archive created at 2026-11-26",
        "217; 1259 16400 TABLE public made owner",
        "218; 1259 16401 TABLE DATA named_so owner",  # the table named_so in the schema DATA
        "219; 1259 16402 SEQUENCE public s owner",
        "3000; 0 16400 TABLE DATA public made owner",
        "3001; 0 16401 TABLE DATA DATA named_so owner",
        "3002; 0 16403 TABLE DATA public of_an_extension owner",
        "3003; 0 0 SEQUENCE SET public s owner",
    ]
    found = contents(listing)
    assert found.frozen == (3000, 3001)
    assert found.rest == (217, 218, 219, 3002, 3003)
    assert found.foreign
    assert not found.blobs
    assert not contents(listing[:7]).foreign
    assert contents([*listing, "3010; 0 0 BLOBS - BLOBS "]).blobs
    assert contents([*listing, "3011; 2613 16405 BLOB METADATA - 16405..16409 owner"]).blobs
