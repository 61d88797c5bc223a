# SPDX-License-Identifier: GPL-3.0-or-later
"""The rooms of the engine: each stands on those below it, as the map in docs/development.md draws them, and none in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import identity

ENGINE = Path(identity.__file__).parent
ROOT = ENGINE.parents[2]
# What goes up on purpose, file and room.
UPWARDS = {
    ("host/program.py", "cli"),  # it lays down the completion and the manual page, which are made from the options
    ("postgres/base_wal.py", "wal"),  # what the server no longer has of a base backup's WAL comes from the archive
    ("postgres/wal_directory.py", "wal"),  # whose data directory it is; `wal archive` asks it too, and must load little
    ("verbs/wal_ship.py", "runs"),  # each batch of its loop is a run
}


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def imports() -> Iterator[tuple[str, str]]:
    """Yield (file, file that it imports, anywhere in it), as paths in the engine."""
    files = {str(path.relative_to(ENGINE)) for path in ENGINE.rglob("*.py")}
    for file in sorted(files):
        for statement in ast.walk(ast.parse((ENGINE / file).read_text(encoding="utf-8"))):
            if isinstance(statement, ast.ImportFrom) and statement.level:
                above = Path(file).parents[statement.level - 1]
                module = above / (statement.module or "").replace(".", "/")
                for name in [alias.name for alias in statement.names]:
                    candidates = (module / f"{name}.py", Path(f"{module}.py"), module / "__init__.py")
                    found = next((str(one) for one in candidates if str(one) in files), "")
                    assert found, (file, name)
                    yield file, found


@pytest.fixture(scope="module")
def floors() -> dict[str, int]:
    """The floor of each room by the map, the ground being 0."""
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    drawn = re.search(r"each floor stands on those below it:\n\n```\n(.*?)```", text, re.DOTALL)
    assert drawn
    lines = [line.partition("   ")[0] for line in drawn.group(1).splitlines() if not line.startswith(" ")]
    return {
        name.rstrip("/").removesuffix(".py"): floor
        for floor, line in enumerate(reversed(lines))
        for name in line.split()
    }


def test_the_map_has_every_room(floors: dict[str, int]) -> None:
    rooms = {room_of(str(path.relative_to(ENGINE))) for path in ENGINE.rglob("*.py")} - {"__init__"}
    assert rooms == set(floors)


def test_every_import_leads_down(floors: dict[str, int]) -> None:
    up = set()
    for file, imported in imports():
        room, other = room_of(file), room_of(imported)
        if other not in (room, "__init__") and floors[room] < floors[other]:
            up.add((file, other))
    assert up == UPWARDS


def test_no_files_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for file, imported in imports():
        if not imported.endswith("__init__.py"):
            graph.setdefault(file, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them
