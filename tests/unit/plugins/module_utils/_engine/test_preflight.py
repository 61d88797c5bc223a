# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight: which roles a set needs, and that all reasons are told at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Database, Manifest, Payload
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import preflight
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import Server
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Postgres

FACTS: dict[str, Any] = {
    "relations": {
        "s.t": {"owner": "anna", "acl": {"bob": "SELECT", "public": "SELECT"}, "column_acl": {"c": {"carl": "SELECT"}}}
    },
    "schemas": {"s": {"owner": "dora"}},
    "functions": {"s.f()": {"owner": "emil"}},
    "types": {"s.e": {"owner": "anna"}},
    "extensions": {"plpgsql": {"version": "1.0"}},
}


class Answers:
    """Stands for a session: answers by what a question contains."""

    def __init__(self, **answers: list[tuple[Any, ...]]) -> None:
        self._answers = answers

    def rows(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return next((rows for part, rows in self._answers.items() if part in sql), [])

    def allowed(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return self.rows(sql, parameters)

    def value(self, sql: str, parameters: Any = None) -> Any:
        rows = self.rows(sql)
        return rows[0][0] if rows else None


def check(
    session: Answers,
    *,
    major: int = 18,
    standby: bool = False,
    used: int = 5,
    will_create: set[str] | None = None,
    ownership: bool = True,
    host: str = "far",
) -> preflight.Findings:
    database = Database(
        "orders",
        Payload("databases/orders.dump", "custom"),
        {"owner": "anna", "acl": {"bob": "CONNECT", "public": "CONNECT"}},
        FACTS,
        1000,
    )
    manifest = Manifest(
        "20261122T020000Z-logical", "db1", "logical", "", "", "1", "17.2", 170002, {}, "", (), (database,)
    )
    server = Server(major * 10000, "%d.1" % major, "1", 1, standby, True, "postgres", "", 100, used)
    target = Target(Postgres(login_host=host), None, server)  # type: ignore[arg-type]
    return preflight.check_server(
        session, manifest, [database], target, jobs=4, ownership=ownership, will_create=will_create
    )  # type: ignore[arg-type]


READY = {
    "rolcreatedb": [(True,)],
    "FROM pg_roles": [("anna",), ("bob",), ("carl",), ("dora",), ("emil",)],
    "pg_available_extensions": [("plpgsql", "1.0")],
}


def test_a_ready_server_has_no_refusal() -> None:
    assert check(Answers(**READY)).refusals == []


def test_every_role_that_is_lacking_is_named_once() -> None:
    (refusal,) = check(Answers(**{**READY, "FROM pg_roles": []})).refusals
    assert "'anna', 'bob', 'carl', 'dora', 'emil'" in refusal and "public" not in refusal
    (refusal,) = check(Answers(**{**READY, "FROM pg_roles": []}), will_create={"anna", "bob", "carl", "dora"}).refusals
    assert "the role 'emil'" in refusal
    assert check(Answers(**{**READY, "FROM pg_roles": []}), ownership=False).refusals == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"major": 16}, "from PostgreSQL 17.2; the server is 16.1"),
        ({"standby": True}, "standby"),
        ({"used": 93}, "Only 7 connections are free"),
    ],
)
def test_what_forbids_a_restore(options: dict[str, Any], said: str) -> None:
    (refusal,) = check(Answers(**READY), **options).refusals
    assert said in refusal


def test_extensions() -> None:
    (refusal,) = check(Answers(**{**READY, "pg_available_extensions": []})).refusals
    assert "extension plpgsql (1.0)" in refusal
    newer = check(Answers(**{**READY, "pg_available_extensions": [("plpgsql", "1.1")]}))
    assert newer.refusals == [] and any("was version 1.0; this server brings 1.1" in remark for remark in newer.remarks)


def test_all_refusals_are_told_at_once_and_nothing_when_there_are_none() -> None:
    preflight.Findings().settle()
    with pytest.raises(RefusedError, match=r"(?s)nothing was touched.*one.*two"):
        preflight.Findings(["one", "two"]).settle()


@pytest.mark.parametrize(
    ("targets", "mode", "confirm", "said"),
    [
        ({"a": "x", "b": "x"}, "create", (), ["Two databases would get the name 'x'"]),
        ({"a": "here"}, "create", (), ["There is a database 'here' already"]),
        ({"a": "new"}, "create", (), []),
        ({"a": "here"}, "swap", (), ["Confirm it by its exact name"]),
        ({"a": "here"}, "swap", ("Here",), ["Confirm it by its exact name"]),
        ({"a": "here"}, "swap", ("here",), []),
        ({"a": "new"}, "swap", (), []),
        ({"a": "template1"}, "swap", ("template1",), ["is a template"]),
        ({"a": "new"}, "into_empty", (), ["no database 'new' to restore into"]),
        ({"a": "é" * 32}, "create", (), ["1 to 63 bytes"]),
        ({"a": "x" * 63}, "create", (), []),
    ],
)
def test_names(targets: dict[str, str], mode: str, confirm: tuple[str, ...], said: list[str]) -> None:
    session = Answers(**{"FROM pg_database": [("here",), ("template1",)]})
    found = preflight.check_names(session, targets, mode, confirm, Postgres()).refusals  # type: ignore[arg-type]
    assert len(found) == len(said) and all(text in refusal for text, refusal in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("form", "place", "options", "said"),
    [
        ("custom", "local", {"part": True}, ""),
        ("plain", "local", {}, ""),
        ("plain", "local", {"part": True}, "plain SQL"),
        ("plain", "local", {"ownership": False}, "plain SQL"),
        ("custom", "local", {"part": True, "facts": None}, "no fingerprint"),
        ("custom", "local", {"facts": None}, ""),
        ("directory", "local", {}, ""),
        ("directory", "s3", {}, "no room"),
        ("custom", "s3", {}, ""),
    ],
)
def test_what_cannot_be_loaded_as_asked_is_known_before(
    form: str, place: str, options: dict[str, Any], said: str
) -> None:
    source = SimpleNamespace(place=SimpleNamespace(name=place), fits=lambda room, size: False, size=lambda dump: 5)
    asked = {"facts": FACTS, "part": False, "ownership": True, **options}
    database = Database("orders", Payload("databases/orders", form), {}, asked.pop("facts"))
    found = preflight.check_ways(source, [database], Path("/work"), **asked)  # type: ignore[arg-type]
    assert [said in text for text in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("collate", "encoding", "makes", "refused"),
    [
        ("C", "UTF8", "22023", False),
        ("de_DE.UTF-8", "UTF8", "", False),  # a database has it
        ("xx_XX", "UTF8", "", False),
        ("xx_XX", "UTF8", "22023", True),
        ("xx_XX", "UTF8", "42501", False),  # this role may not ask
        ("xx_XX", "LATIN1", "22023", False),  # not to be decided in a database of another encoding
    ],
)
def test_locales(collate: str, encoding: str, makes: str, refused: bool) -> None:
    class Server(Answers):
        def execute(self, sql: str) -> None:
            if makes and "CREATE COLLATION" in sql:
                error = PgopsError("no")
                error.sqlstate = makes  # type: ignore[attr-defined]
                raise error

    session = Server(datcollate=[("de_DE.UTF-8", "C")], current_database=[("UTF8",)])
    properties = {"collate": collate, "ctype": "C", "encoding": encoding}
    found = preflight.check_locales(session, [Database("orders", Payload("x", "custom"), properties)])  # type: ignore[arg-type]
    assert [("locale xx_XX" in text) for text in found] == ([True] if refused else [])
