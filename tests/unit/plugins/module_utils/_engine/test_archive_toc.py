# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking pg_restore to freeze rows: the commands change, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.archive_toc import frozen

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
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)


@given(st.lists(st.tuples(OTHERS, NAMES), max_size=5), OTHERS)
def test_only_commands_change(parts: list[tuple[bytes, bytes]], end: bytes) -> None:
    def toc(tail: bytes) -> bytes:
        return HEAD + b"".join(other + _string(b"COPY " + name + tail) for other, name in parts) + end

    assert frozen(toc(b" FROM stdin;\n")) == toc(b" FROM stdin WITH (FREEZE);\n")


def test_a_layout_that_is_not_known_stays_as_it_is() -> None:
    command = _string(b"COPY t (a) FROM stdin;\n")
    for head in (
        b"PGDMP\x01\x11\x00\x04\x08\x03",
        b"PGDMP\x02\x10\x00\x04\x08\x03",
        b"PGDMP\x01\x10\x00\x04\x08\x01",
        b"",
    ):
        assert frozen(head + command) == head + command
