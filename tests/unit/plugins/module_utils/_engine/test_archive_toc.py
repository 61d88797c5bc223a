# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking pg_restore to freeze rows: the commands change, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.archive_toc import all_frozen, frozen
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import quote_ident

HEAD = b"PGDMP\x01\x10\x00\x04\x08\x03"


def _string(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "little") + text


# What stands in a table of contents beside the commands: numbers, and strings that may speak of COPY themselves.
OTHERS = st.lists(
    st.one_of(
        st.binary(max_size=6).filter(lambda b: b"COPY" not in b),
        st.sampled_from([b"CREATE FUNCTION f() AS 'COPY t (a) FROM stdin;\n'", b"COPY", b"COPY t TO stdout;\n"]).map(
            _string
        ),
    ),
    max_size=3,
).map(b"".join)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def _entry(schema: str, name: str, tail: bytes, through: str = "") -> bytes:
    """Return an entry with the rows of a table as pg_dump writes it, whose command fills `through`, if given, instead."""
    command = ("COPY %s.%s (a)" % (quote_ident(schema), quote_ident(through or name))).encode() + tail
    strings = _string(name.encode()) + _string(b"TABLE DATA") + b"\0\3\0\0\0"
    said = _string(b"-- load via partition root") if through else b"\1\1\0\0\0"
    return strings + said + b"\1\1\0\0\0" + _string(command) + _string(schema.encode())


@given(st.lists(st.tuples(OTHERS, NAMES, NAMES), max_size=5), OTHERS)
def test_only_commands_change(parts: list[tuple[bytes, str, str]], end: bytes) -> None:
    def toc(tail: bytes) -> bytes:
        return HEAD + b"".join(other + _entry(schema, name, tail) for other, schema, name in parts) + end

    before, changed = toc(b" FROM stdin;\n"), toc(b" FROM stdin WITH (FREEZE);\n")
    assert frozen(before) == changed
    assert all_frozen(changed) and all_frozen(before) == (not parts)


def test_what_fills_another_table_is_not_frozen() -> None:
    plain, tail = b" FROM stdin;\n", b" FROM stdin WITH (FREEZE);\n"
    through = _entry("s", "leaf", plain, 'ro"ot')
    # A partition may have the name of its root, in another schema.
    namesake = _entry("s", "t", plain)[: -len(_string(b"s"))] + _string(b"other")
    before = HEAD + _entry("s", "a", plain) + through + namesake + _entry("s", "z", plain)
    assert frozen(before) == HEAD + _entry("s", "a", tail) + through + namesake + _entry("s", "z", tail)
    assert not all_frozen(frozen(before))


def test_a_layout_that_is_not_known_stays_as_it_is() -> None:
    command = _string(b"COPY t (a) FROM stdin;\n")
    for head in (
        b"PGDMP\x01\x11\x00\x04\x08\x03",
        b"PGDMP\x02\x10\x00\x04\x08\x03",
        b"PGDMP\x01\x10\x00\x04\x08\x01",
        b"",
    ):
        assert frozen(head + command) == head + command
