# SPDX-License-Identifier: GPL-3.0-or-later
"""A rescue before it begins: what is asked for makes sense, and the server can take it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import parse_target
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import rescue as module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rescue import Request, rescue

END = parse_target({"end": "yes"}, action="pause")


class Server:
    """Stands for the session in the server that is to take the database."""

    def __init__(self, *, standby: bool = False, may: bool = True) -> None:
        self.standby, self.may = standby, may

    def rows(self, _query: str) -> list[tuple[str]]:
        return [("shop",), ("postgres",)]

    def value(self, query: str) -> bool:
        return self.standby if "recovery" in query else self.may


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and a recovery that could begin."""
    found = Server()
    plan = {
        **dict.fromkeys(("set", "place", "server_version", "target", "base_stopped", "bytes", "stored_bytes"), ""),
        "remarks": [],
        "refusals": [],
        "tablespaces": {"far": "/mnt/far"},
    }
    asked: list[Any] = []

    @contextlib.contextmanager
    def connect(_postgres: Any) -> Iterator[Server]:
        yield found

    def recover(_context: Any, request: Any) -> dict[str, Any]:
        asked.append(request)
        return {"set": "20261122T000000Z-base", "place": "s3", "plan": plan}

    monkeypatch.setattr(module, "connect", connect)
    monkeypatch.setattr(module, "recover", recover)
    found.asked = asked  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"database": ""}, "No database is named"),
        ({"globals": "some"}, "no way to restore globals"),
        ({"tables": ("orders",)}, "orders"),
    ],
)
def test_what_makes_no_sense_is_told(world: Any, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rescue(world.context(), Request(**{"database": "shop", "target": END, **wrong}))


def test_a_plan_names_the_database_and_lays_the_tablespaces_beside_the_copy(world: Any, server: Any) -> None:
    result = rescue(world.context(), Request("shop", END, dry_run=True))
    assert (result["plan"]["name"], result["plan"]["refusals"]) == ("shop_rescued_20261122T080000Z", [])
    last = server.asked[-1]
    assert last.dry_run
    assert last.target.action == "promote", "a copy that pauses could not be dumped by everybody's tools"
    assert last.tablespaces == {"far": last.data_directory + "-tablespace-0"}
    long = rescue(world.context(), Request("ü" * 31, END, dry_run=True))["plan"]["name"]
    assert len(long.encode()) <= 63


@pytest.mark.parametrize(
    ("facts", "into", "said"),
    [
        ({}, "postgres", "There is a database 'postgres' already"),
        ({"standby": True}, "then", "is a standby"),
        ({"may": False}, "then", "may not create databases"),
        ({}, "x" * 64, "must have 1 to 63 bytes"),
    ],
)
def test_a_server_that_cannot_take_it_is_told_of_before(
    world: Any, server: Any, facts: dict[str, bool], into: str, said: str
) -> None:
    for name, value in facts.items():
        setattr(server, name, value)
    plan = rescue(world.context(), Request("shop", END, into=into, dry_run=True))["plan"]
    assert [said in text for text in plan["refusals"]] == [True]
    with pytest.raises(RefusedError, match="The rescue was refused"):
        rescue(world.context(), Request("shop", END, into=into))
