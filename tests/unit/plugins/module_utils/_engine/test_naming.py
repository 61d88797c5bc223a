# SPDX-License-Identifier: GPL-3.0-or-later
"""Names: hostile ones survive files, shells and connection strings; our own ones are checked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import (
    check_instance,
    conninfo_value,
    database_argument,
    file_stem,
    is_set_id,
    quote_ident,
    quote_literal,
    set_id,
)

# PostgreSQL takes any byte but NUL in a name; Python shows undecodable ones as lone low surrogates.
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=63)
BYTES = st.binary(min_size=1, max_size=63).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(NAMES | BYTES)
@example("../../etc/passwd")
@example("-rf")
@example(".hidden")
@example("a~2fb")
@example("Ö;$(reboot)\n'\"")
def test_a_file_stem_is_safe_in_files_shells_and_urls(name: str) -> None:
    stem = file_stem(name)
    assert re.fullmatch(r"[A-Za-z0-9_~][A-Za-z0-9_.~-]*", stem)
    assert len(stem) <= 3 * len(name.encode("utf-8", "surrogateescape"))


@given(NAMES | BYTES)
def test_a_file_stem_can_be_read_back_so_no_two_names_share_one(name: str) -> None:
    raw = re.sub(rb"~([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), file_stem(name).encode("ascii"))
    assert raw.decode("utf-8", "surrogateescape") == name


@pytest.mark.parametrize(
    ("name", "stem"),
    [("ordering_system", "ordering_system"), ("My DB", "My~20DB"), (".x", "~2ex"), ("a~b", "a~7eb"), ("ü", "~c3~bc")],
)
def test_plain_names_stay_readable_as_files(name: str, stem: str) -> None:
    assert file_stem(name) == stem


def test_a_set_id_is_the_moment_in_utc_and_the_kind() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert set_id(datetime(2026, 11, 22, 11, 0, tzinfo=tokyo), "logical") == "20261122T020000Z-logical"


@pytest.mark.parametrize("kind", ["logical", "base", "incremental"])
def test_every_kind_makes_a_set_id(kind: str) -> None:
    assert is_set_id(set_id(datetime(2026, 11, 22, tzinfo=UTC), kind))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "20261122T020000Z",
        "20261122T020000Z-",
        "20261122T020000Z-other",
        "20261122T020000Z-logical/",
        "20261122T020000Z-logical\n",
        "../20261122T020000Z-logical",
        ".unfinished-20261122T020000Z-logical",
        "20261122T020000Z-logical".replace("2", "\u0662"),
    ],
)
def test_what_only_resembles_a_set_id_is_none(text: str) -> None:
    assert not is_set_id(text)


@pytest.mark.parametrize("name", ["db1", "db1-main", "a.b_c-d", "0", "x" * 100])
def test_an_instance_name_may_be(name: str) -> None:
    assert check_instance(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "ü", "x" * 101, "a\n", "~"])
def test_an_instance_name_may_not_be(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an instance"):
        check_instance(name)


def _read_conninfo(text: str) -> dict[str, str]:
    """Read a connection string as libpq's conninfo_parse does: quoted values, backslash escapes."""
    found, rest = {}, text
    while rest:
        key, rest = rest.split("=", 1)
        assert rest[0] == "'"
        value, index = "", 1
        while rest[index] != "'":
            index += rest[index] == "\\"
            value += rest[index]
            index += 1
        found[key.strip()] = value
        rest = rest[index + 1 :].strip()
    return found


@given(NAMES, NAMES)
@example("it's", "back\\slash'")
def test_connection_string_values_come_back_as_they_were(first: str, second: str) -> None:
    text = "dbname=%s user=%s" % (conninfo_value(first), conninfo_value(second))
    assert _read_conninfo(text) == {"dbname": first, "user": second}


@pytest.mark.parametrize("name", ["postgresql://evil/db", "host=evil", "a b", "x'y", "-h", "\\"])
def test_a_database_name_never_becomes_another_connection(name: str) -> None:
    argument = database_argument(name)
    assert argument.startswith("--dbname=dbname='")
    assert _read_conninfo(argument[len("--dbname=") :]) == {"dbname": name}


@pytest.mark.parametrize(("name", "quoted"), [("a", '"a"'), ('a"b', '"a""b"'), ("select", '"select"'), ("'", '"\'"')])
def test_identifiers_are_quoted_for_sql(name: str, quoted: str) -> None:
    assert quote_ident(name) == quoted


@pytest.mark.parametrize(
    ("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("\\'", " E'\\\\'''")]
)
def test_literals_read_the_same_whatever_the_server_is_set_to(text: str, quoted: str) -> None:
    assert quote_literal(text) == quoted


@pytest.mark.parametrize("quote", [quote_ident, quote_literal])
def test_a_nul_byte_is_refused_in_sql(quote: object) -> None:
    with pytest.raises(UsageError, match="NUL"):
        quote("a\0b")  # type: ignore[operator]
