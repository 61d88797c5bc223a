# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading pg_dumpall's script: no name and no text, however odd, splits a statement or hides one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.globals_sql import select, statements
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import quote_ident, quote_literal

# What PostgreSQL takes for a name, the odd parts often.
NAMES = st.text(
    st.one_of(
        st.sampled_from(list("a;\"'\\-\n$ E/*")), st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    ),
    min_size=1,
    max_size=20,
)
TEXTS = st.text(
    st.one_of(
        st.sampled_from(list("a;\"'\\-\n$ E")), st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    ),
    max_size=30,
)
HEAD = "--\n-- PostgreSQL database cluster dump; it's \"odd\"\n--\n\n\\restrict abc'def\n\nSET default_transaction_read_only = off;\n"


def script_of(roles: list[str], comment: str) -> tuple[str, list[str]]:
    """Return a script as pg_dumpall writes it, and its statements."""
    expected = []
    for name in roles:
        expected += [
            "CREATE ROLE %s;" % quote_ident(name),
            "ALTER ROLE %s WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x;y';" % quote_ident(name),
            "COMMENT ON ROLE %s IS%s;" % (quote_ident(name), " " + quote_literal(comment).lstrip()),
        ]
    text = HEAD + "\n\n--\n-- Roles\n--\n\n" + "\n".join(expected) + "\n\n\\unrestrict abc'def\n\n--\n-- complete\n--\n"
    return text, expected


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True), TEXTS)
def test_statements_come_out_as_they_went_in(roles: list[str], comment: str) -> None:
    text, expected = script_of(roles, comment)
    found = [s for s in statements(text) if not s.startswith(("\\", "--"))]
    found = ["\n".join(line for line in s.split("\n")) for s in found]
    assert found[0].endswith("SET default_transaction_read_only = off;")
    assert [s[s.index(w) :] if (w := s.split(" ")[0]) else s for s in found[1:]][1:] == expected[1:]
    assert found[1].endswith(expected[0])
    assert [s for s in statements(text) if s.startswith("\\")] == ["\\restrict abc'def", "\\unrestrict abc'def"]


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True), TEXTS)
def test_an_existing_role_is_never_touched_and_the_others_are_made(roles: list[str], comment: str) -> None:
    text, _unused = script_of(roles, comment)
    first, others = roles[0], roles[1:]
    chosen = select(text, existing={first}, overwrite=False, tablespaces=False)
    assert sorted(chosen.creates) == sorted(others)
    left = [s for s in statements(chosen.sql) if s.split(" ")[0] in ("CREATE", "ALTER", "COMMENT")]
    for statement in left:
        assert not statement.startswith(
            ("ALTER ROLE %s WITH" % quote_ident(first), "COMMENT ON ROLE %s IS" % quote_ident(first))
        )
    assert sum(s.startswith("ALTER ROLE") for s in left) == len(others)


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True), TEXTS)
def test_overwriting_changes_all_but_those_that_are_kept(roles: list[str], comment: str) -> None:
    text, _unused = script_of(roles, comment)
    chosen = select(text, existing=set(roles), overwrite=True, tablespaces=False, keep=(roles[0],))
    assert chosen.creates == ()
    altered = [s for s in statements(chosen.sql) if s.startswith("ALTER ROLE")]
    assert len(altered) == len(roles) - 1
    assert not any(s.startswith("ALTER ROLE %s WITH" % quote_ident(roles[0])) for s in altered)


def test_names_that_need_no_quotes() -> None:
    text = "CREATE ROLE anna;\nALTER ROLE anna WITH LOGIN;\nALTER ROLE anna SET work_mem TO '1MB';\nGRANT staff TO anna GRANTED BY postgres;\n"
    assert select(text, existing=(), overwrite=False, tablespaces=False).creates == ("anna",)
    assert select(text, existing={"anna"}, overwrite=False, tablespaces=False).sql.strip() == ""
    assert "GRANT staff TO anna" in select(text, existing={"staff"}, overwrite=False, tablespaces=False).sql


def test_settings_of_existing_roles_are_left_alone_whatever_they_hold() -> None:
    text = "ALTER ROLE \"a;b\" SET \"app.x\" TO 'it''s; ALTER ROLE c';\nALTER ROLE c SET y TO E'\\\\''; DROP ROLE d; --';\n"
    assert len(list(statements(text))) == 2
    assert select(text, existing={"a;b", "c"}, overwrite=False, tablespaces=False).sql.strip() == ""


def test_tablespaces_are_left_out_and_named_once() -> None:
    text = (
        "CREATE TABLESPACE \"fast;one\" OWNER postgres LOCATION '/x';\nALTER TABLESPACE \"fast;one\" SET (seq_page_cost='1');\n"
        'GRANT ALL ON TABLESPACE "fast;one" TO PUBLIC;\nCREATE ROLE a;\n'
    )
    chosen = select(text, existing=(), overwrite=False, tablespaces=False)
    assert chosen.tablespaces == ("fast;one",) and "TABLESPACE" not in chosen.sql and chosen.creates == ("a",)
    assert "CREATE TABLESPACE" in select(text, existing=(), overwrite=False, tablespaces=True).sql


def test_a_script_that_breaks_off_loses_nothing_silently() -> None:
    assert list(statements("CREATE ROLE a;\nALTER ROLE a WITH PASSWORD 'SCR")) == [
        "CREATE ROLE a;",
        "ALTER ROLE a WITH PASSWORD 'SCR",
    ]
    assert list(statements('CREATE ROLE "a')) == ['CREATE ROLE "a']
    assert list(statements("")) == []
