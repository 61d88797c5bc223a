# SPDX-License-Identifier: GPL-3.0-or-later
"""Level structure without programs: what a listing must hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import structure

LISTING = """;
; Archive created at 2026-11-22
;
215; 1259 16390 TABLE public orders anna
3001; 0 16390 TABLE DATA public orders anna
3002; 0 16391 TABLE DATA public order lines anna
3003; 0 16392 TABLE DATA my schema x y anna
"""


@pytest.mark.parametrize(
    ("schema", "table", "there"),
    [
        ("public", "orders", True),
        ("public", "order lines", True),
        ("my schema", "x y", True),
        ("my schema", "x\ny", True),  # pg_restore shows line ends as blanks
        ("public", "order", True),  # reads like `order lines` of a role; only a restore can tell
        ("public", "Orders", False),
        ("public", "orders2", False),
        ("publi", "orders", False),
        ("other", "orders", False),
        ("public", "zzz", False),
    ],
)
def test_data_of_a_table(schema: str, table: str, there: bool) -> None:
    lines = sorted(structure._entries(LISTING))
    assert len(lines) == 3
    assert structure._has_data(lines, schema, table) == there


@given(
    st.lists(
        st.tuples(
            st.text('ab ."é\n\x85\u2028', min_size=1, max_size=6), st.text('ab ."é\n\x85\u2028', min_size=1, max_size=6)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_listed_is_found(pairs: list[tuple[str, str]]) -> None:
    shown = [
        "%d; 0 1 TABLE DATA %s %s anna" % (i, s.replace("\n", " "), t.replace("\n", " "))
        for i, (s, t) in enumerate(pairs)
    ]
    lines = sorted(structure._entries("\n".join(shown)))
    assert all(structure._has_data(lines, *pair) for pair in pairs)
    assert not structure._has_data(lines, "nowhere", "x")
