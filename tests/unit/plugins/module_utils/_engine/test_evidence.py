# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence: what counts as verified, told from file names alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.places.evidence import (
    LEVELS,
    Proof,
    is_verified,
    proofs,
    standing,
    store,
)

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
SET, CONTENT = "20261122T020000Z-logical", "a" * 64


def proof(
    level: str, outcome: str, minutes: int, *, place: str = "s3", content: str = CONTENT, set_id: str = SET
) -> Proof:
    when = T0 + timedelta(minutes=minutes)
    return Proof(set_id, content, place, level, outcome, when, "evidence/%d" % minutes)


def verified(*found: Proof, place: str = "s3") -> bool:
    return is_verified(standing(found, set_id=SET, content=CONTENT, place=place))


PASS = proof("restore", "passed", 0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], False),
        ([PASS], True),
        ([proof("checksum", "passed", 0), proof("structure", "passed", 1)], False),
        ([proof("restore", "failed", 0)], False),
        ([proof("restore", "undecided", 0)], False),
        ([PASS, proof("restore", "failed", 5)], False),
        ([proof("restore", "failed", 0), proof("restore", "passed", 5)], True),
        ([PASS, proof("checksum", "failed", 5)], False),
        ([PASS, proof("structure", "failed", 5)], False),
        ([PASS, proof("checksum", "failed", 5), proof("checksum", "passed", 6)], True),
        ([proof("checksum", "failed", 0), proof("restore", "passed", 5)], True),
        ([PASS, proof("restore", "undecided", 5)], True),
        ([PASS, proof("checksum", "failed", 0)], False),
        ([proof("restore", "passed", 0, content="b" * 64)], False),
        ([proof("restore", "passed", 0, set_id="20261121T020000Z-logical")], False),
        ([proof("restore", "passed", 0, place="local")], True),
        ([PASS, proof("restore", "failed", 5, place="local")], True),
        ([PASS, proof("checksum", "failed", 5, place="local")], True),
    ],
)
def test_a_set_is_verified_when_it_was_restored_and_nothing_failed_here_since(
    found: list[Proof], expected: bool
) -> None:
    assert verified(*found) is expected
    assert verified(*reversed(found)) is expected


def test_a_failure_counts_only_in_the_place_where_it_happened() -> None:
    found = [PASS, proof("checksum", "failed", 5, place="local")]
    assert verified(*found, place="s3")
    assert not verified(*found, place="local")


def report(**changes: Any) -> dict[str, Any]:
    return {
        "set": SET,
        "content": CONTENT,
        "place": "s3",
        "level": "restore",
        "outcome": "passed",
        "finished": "2026-11-22T04:05:06+02:00",
        **changes,
    }


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("outcome", ["passed", "failed", "undecided"])
def test_what_is_stored_is_found_again_from_its_name(world: Any, level: str, outcome: str) -> None:
    path = store(world.memory, report(level=level, outcome=outcome, seconds=1.5))
    expected = Proof(SET, CONTENT, "s3", level, outcome, datetime(2026, 11, 22, 2, 5, 6, tzinfo=UTC), path)
    assert proofs(world.memory) == [expected]
    assert json.loads(world.memory.read(path)) == {"format": 1, **report(level=level, outcome=outcome, seconds=1.5)}


def test_proofs_come_the_oldest_first(world: Any) -> None:
    for hour in (3, 1, 2):
        store(world.memory, report(finished="2026-11-22T0%d:00:00+00:00" % hour))
    assert [p.when.hour for p in proofs(world.memory)] == [1, 2, 3]


@pytest.mark.parametrize(
    "name",
    [
        "note.txt",
        ".20261122T020506Z_s3.123.tmp",
        "20261122T020506Z_s3_restore_passed_%s_short.json" % SET,
        "20261122T020506Z_s3_restore_maybe_%s_%s.json" % (SET, CONTENT),
        "20261399T020506Z_s3_restore_passed_%s_%s.json" % (SET, CONTENT),
        "20261122T996666Z_s3_restore_passed_%s_%s.json" % (SET, CONTENT),
        "20261122T020506Z_s3_restore_passed_%s_%s.json.bak" % (SET, CONTENT),
        "\u0662\u0660\u0662\u06661122T020506Z_s3_restore_passed_%s_%s.json" % (SET, CONTENT),
    ],
)
def test_files_that_are_no_evidence_are_passed_over(world: Any, name: str) -> None:
    world.memory.write("evidence/" + name, b"{}")
    assert proofs(world.memory) == []
