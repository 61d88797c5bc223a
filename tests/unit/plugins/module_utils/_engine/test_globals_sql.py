# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading pg_dumpall's script: no name and no text, however odd, splits a statement or hides one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.globals_sql import (
    Here,
    select,
    setting_of,
    statements,
)
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
    chosen = select(text, Here({first}), overwrite=False)
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
    chosen = select(text, Here(set(roles)), overwrite=True, keep=(roles[0],))
    assert chosen.creates == ()
    altered = [s for s in statements(chosen.sql) if s.startswith("ALTER ROLE")]
    assert len(altered) == len(roles) - 1
    assert not any(s.startswith("ALTER ROLE %s WITH" % quote_ident(roles[0])) for s in altered)


def test_names_that_need_no_quotes() -> None:
    text = "CREATE ROLE anna;\nALTER ROLE anna WITH LOGIN;\nALTER ROLE anna SET work_mem TO '1MB';\nGRANT staff TO anna GRANTED BY postgres;\n"
    assert select(text, Here(), overwrite=False).creates == ("anna",)
    assert select(text, Here({"anna"}), overwrite=False).sql.strip() == ""
    assert "GRANT staff TO anna" in select(text, Here({"staff"}), overwrite=False).sql


def test_settings_of_existing_roles_are_left_alone_whatever_they_hold() -> None:
    text = "ALTER ROLE \"a;b\" SET \"app.x\" TO 'it''s; ALTER ROLE c';\nALTER ROLE c SET y TO E'\\\\''; DROP ROLE d; --';\n"
    assert len(list(statements(text))) == 2
    assert select(text, Here({"a;b", "c"}), overwrite=False).sql.strip() == ""


SPACES = (
    'CREATE TABLESPACE "fast;one" OWNER "a b" LOCATION \'/x\';\nALTER TABLESPACE "fast;one" SET (seq_page_cost=\'1\');\n'
    'REVOKE ALL ON TABLESPACE "fast;one" FROM old;\nGRANT ALL ON TABLESPACE "fast;one" TO PUBLIC;\n'
    'GRANT CREATE ON TABLESPACE "fast;one" TO old;\nSET SESSION AUTHORIZATION old;\nGRANT CREATE ON TABLESPACE "fast;one" TO a WITH GRANT OPTION;\n'
    "RESET SESSION AUTHORIZATION;\nCOMMENT ON TABLESPACE \"fast;one\" IS 'x';\nCREATE ROLE a;\n"
)


def test_tablespaces_are_never_made() -> None:
    for overwrite in (False, True):
        chosen = select(SPACES, Here(), overwrite=overwrite)
        assert "TABLESPACE" not in chosen.sql and chosen.creates == ("a",) and chosen.tablespaces == ()


def test_a_tablespace_that_is_there_is_new_only_to_new_roles() -> None:
    chosen = select(SPACES, Here({"old"}, {"fast;one"}), overwrite=False)
    assert chosen.statements == (
        'GRANT CREATE ON TABLESPACE "fast;one" TO a WITH GRANT OPTION;',
        "CREATE ROLE a;",
    )
    assert chosen.tablespaces == ("fast;one",)
    chosen = select(SPACES, Here({"old"}, {"fast;one"}), overwrite=True)
    assert chosen.statements[0] == 'ALTER TABLESPACE "fast;one" OWNER TO "a b";' and chosen.tablespaces == ()
    assert list(chosen.statements[1:]) == list(statements(SPACES))[1:]


@given(st.lists(NAMES, min_size=3, max_size=3, unique=True))
def test_an_existing_member_gets_nothing_back_whatever_its_name(roles: list[str]) -> None:
    group, old, new = map(quote_ident, roles)
    text = "GRANT %s TO %s;\nGRANT %s TO %s;\nGRANT %s TO %s WITH INHERIT TRUE GRANTED BY postgres;\n" % (
        *(group, old, group, new, group, old),
    )
    text += "GRANT SET, ALTER SYSTEM ON PARAMETER log_statement TO %s;\nGRANT ALL ON PARAMETER x TO %s;\n" % (old, new)
    found = select(text, Here({roles[1]}), overwrite=False).statements
    assert found == ("GRANT %s TO %s;" % (group, new), "GRANT ALL ON PARAMETER x TO %s;" % new)
    assert select(text, Here({roles[1]}), overwrite=True).statements == tuple(statements(text))


def test_what_everyone_may_do_changes_only_where_nobody_is_yet() -> None:
    text = 'GRANT SET ON PARAMETER "app.x" TO PUBLIC;\nGRANT SET ON PARAMETER y TO "PUBLIC";\n'
    assert select(text, Here(), overwrite=False).statements == tuple(statements(text))
    chosen = select(text, Here(new=False), overwrite=False)
    assert chosen.statements == ('GRANT SET ON PARAMETER y TO "PUBLIC";',) and chosen.parameters == ("app.x",)
    assert select(text, Here(new=False), overwrite=True).parameters == ()


def test_a_grantor_who_may_not_grant_here_is_replaced() -> None:
    text = (
        "GRANT staff TO lead WITH ADMIN OPTION, INHERIT TRUE GRANTED BY postgres;\n"
        "GRANT staff TO joe WITH INHERIT TRUE, SET FALSE GRANTED BY lead;\nGRANT staff TO joe WITH INHERIT FALSE GRANTED BY postgres;\n"
    )
    # Who has the admin option, or gets it on the way, goes on granting.
    assert select(text, Here(bootstrap="postgres"), overwrite=False).statements == (
        "GRANT staff TO lead WITH ADMIN OPTION, INHERIT TRUE, SET TRUE;",
        "GRANT staff TO joe WITH INHERIT TRUE, SET FALSE GRANTED BY lead;",
        "GRANT staff TO joe WITH INHERIT FALSE, SET TRUE;",
    )
    chosen = select(text, Here({"lead"}, (), "boss", {("staff", "lead")}), overwrite=False)
    assert chosen.statements == (
        "GRANT staff TO joe WITH INHERIT TRUE, SET FALSE GRANTED BY lead;",
        "GRANT staff TO joe WITH INHERIT FALSE, SET TRUE;",
    )
    assert chosen.grantors == ("postgres",)
    # Two grants that become one give what both gave.
    chosen = select(text, Here({"lead"}, (), "boss"), overwrite=False)
    assert chosen.statements == (
        "GRANT staff TO joe WITH INHERIT TRUE, SET FALSE;",
        "GRANT staff TO joe WITH INHERIT TRUE, SET TRUE;",
    )
    assert chosen.grantors == ("lead", "postgres")
    # Before PostgreSQL 16 anybody may be named, and there were no such options.
    assert select(text, Here(), overwrite=False).statements == tuple(statements(text))
    older = "GRANT staff TO lead WITH ADMIN OPTION GRANTED BY postgres;\nGRANT staff TO joe GRANTED BY lead;\n"
    assert select(older, Here({"lead"}, (), "boss"), overwrite=False).statements == ("GRANT staff TO joe;",)
    assert select(older, Here((), (), "boss"), overwrite=False).statements == (
        "GRANT staff TO lead WITH ADMIN OPTION;",
        "GRANT staff TO joe GRANTED BY lead;",
    )


def test_settings_of_roles_are_told_apart() -> None:
    assert setting_of('ALTER ROLE "a SET b" SET "TimeZone" TO \'U;TC\';') == (
        "a SET b",
        "TimeZone",
        "\"TimeZone\" TO 'U;TC'",
    )
    assert setting_of("ALTER ROLE a WITH LOGIN;") is None


def test_a_script_that_breaks_off_loses_nothing_silently() -> None:
    assert list(statements("CREATE ROLE a;\nALTER ROLE a WITH PASSWORD 'SCR")) == [
        "CREATE ROLE a;",
        "ALTER ROLE a WITH PASSWORD 'SCR",
    ]
    assert list(statements('CREATE ROLE "a')) == ['CREATE ROLE "a']
    assert list(statements("")) == []
