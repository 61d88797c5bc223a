# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a restore from beginning, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.filter.hindrances import hindrances

NEW, OLD, BASE = "20261127T020000Z-logical", "20261126T020000Z-logical", "20261127T000000Z-base"


def a_set(name: str, *, verified: bool = False, problem: str = "", **proofs: str) -> dict[str, Any]:
    return {
        "id": name,
        "complete": not problem,
        "problem": problem or None,
        "verified": verified,
        "proofs": {level: {"outcome": outcome, "when": "x"} for level, outcome in proofs.items()},
    }


def a_place(name: str, *sets: dict[str, Any], error: str = "") -> dict[str, Any]:
    return {"place": name, "root": "/" + name, "reachable": not error, "error": error or None, "sets": list(sets)}


def said(*places: dict[str, Any], free: int = 2, **findings: str) -> dict[str, Any]:
    told = [{"check": check, "severity": severity, "text": check + "."} for check, severity in findings.items()]
    return {"findings": told, "places": list(places), "disk": {"free_bytes": free, "min_free_bytes": 1}}


GOOD = a_place("local", a_set(NEW), a_set(OLD, verified=True, restore="passed"))
GONE = a_place("s3", error="No route.")
TORN = a_set(NEW, problem="A file is missing.")
FAILED = a_set(NEW, checksum="passed", restore="failed")


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (said(GOOD), {}, []),
        (said(GOOD, backup="critical", verification="critical", disk="warning"), {}, []),
        (said(GOOD, disk="critical"), {}, []),  # the next backup alone would not fit
        (said(GOOD, disk="critical", free=0), {}, ["disk."]),
        (said(GOOD, GONE), {}, []),
        (said(GOOD, GONE), {"place": "s3"}, ["/s3 cannot be read: No route."]),
        (said(GOOD), {"place": "s3"}, ["The configuration has no place s3."]),
        (said(GONE, disk="critical", free=0), {"foreign": True}, ["disk.", "/s3 cannot be read: No route."]),
        (said(a_place("local", TORN, a_set(OLD))), {}, []),
        (said(a_place("local", TORN), a_place("s3", a_set(NEW))), {"wanted": NEW}, []),
        (
            said(a_place("local", TORN), a_place("s3", a_set(NEW))),
            {"wanted": NEW, "place": "local"},
            [NEW + " in /local: A file is missing."],
        ),
        (said(GOOD), {"wanted": "20200101T000000Z-logical"}, []),
        (
            said(a_place("local", FAILED, a_set(BASE))),
            {},
            ["No dump in /local is sound. The newest, %s: it failed its verification (restore)." % NEW],
        ),
        (said(a_place("local", {**FAILED, "verified": True})), {"wanted": "latest"}, []),
        (said(GOOD), {"physical": True}, ["There is no base backup in /local."]),
        (said(a_place("local", a_set(BASE))), {"physical": True, "wanted": "latest"}, []),
        (said(a_place("local"), a_place("s3")), {}, ["There is no dump in /local and /s3."]),
        (said(a_place("local")), {"foreign": True}, []),
    ],
)
def test_what_stands_in_the_way_is_told_and_nothing_else(
    answer: dict[str, Any], asked: dict[str, Any], told: list[str]
) -> None:
    assert hindrances(answer, **asked) == told
