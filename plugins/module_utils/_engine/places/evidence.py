# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Evidence: what a verification proved, of which set (by content hash), in which place, how, when and how long."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ..core.json_text import to_json
from ..core.times import compact, parse_iso
from .base import EVIDENCE, Place

FORMAT = 1
LEVELS = ("checksum", "structure", "restore")
PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"

_NAME = re.compile(
    r"(?P<when>[0-9]{8}T[0-9]{6}Z)_(?P<place>[a-z0-9]+)_(?P<level>checksum|structure|restore)_(?P<outcome>passed|failed|undecided)"
    r"_(?P<set>[0-9]{8}T[0-9]{6}Z-[a-z]+)_(?P<hash>[0-9a-f]{64})\.json"
)


@dataclass(frozen=True)
class Proof:
    """The part of an evidence file that its name tells: a listing is enough to know what is verified."""

    set_id: str
    content: str
    place: str
    level: str
    outcome: str
    when: datetime
    path: str


def store(place: Place, report: dict[str, Any]) -> str:
    """Keep `report` in the evidence room of `place` and return its path there.

    `report` holds at least set, content (the manifest's SHA-256), place, level (the one reached), outcome and finished.
    """
    name = "%s_%s_%s_%s_%s_%s.json" % (
        compact(parse_iso(report["finished"])),
        report["place"],
        report["level"],
        report["outcome"],
        report["set"],
        report["content"],
    )
    path = "%s/%s" % (EVIDENCE, name)
    place.write(path, to_json({"format": FORMAT, **report}))
    return path


def proofs(place: Place) -> list[Proof]:
    """Return what the evidence room of `place` says, the oldest first. One listing, no file is read."""
    found = []
    for path in place.entries(EVIDENCE):
        proof = _parse(path)
        if proof:
            found.append(proof)
    return sorted(found, key=lambda proof: (proof.when, proof.path))


def _parse(path: str) -> Optional[Proof]:
    match = _NAME.fullmatch(path.rsplit("/", 1)[-1])
    if not match:
        return None
    try:
        when = datetime.strptime(match["when"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None
    return Proof(match["set"], match["hash"], match["place"], match["level"], match["outcome"], when, path)


def standing(found: Iterable[Proof], *, set_id: str, content: str, place: str) -> dict[str, Optional[Proof]]:
    """Return the newest decided proof of each level about exactly this content in `place`, from proofs of any place.

    A pass in another place counts, as the content is the same; a failure only counts where it happened.
    """
    newest: dict[str, Optional[Proof]] = dict.fromkeys(LEVELS)
    for proof in found:
        if proof.set_id != set_id or proof.content != content or proof.outcome == UNDECIDED:
            continue
        if proof.outcome == FAILED and proof.place != place:
            continue
        held = newest[proof.level]
        if held is None or proof.when >= held.when:
            newest[proof.level] = proof
    return newest


def is_verified(state: dict[str, Optional[Proof]]) -> bool:
    """Tell whether a set with this standing is verified: it was restored, and nothing failed since."""
    restored = state["restore"]
    if restored is None or restored.outcome != PASSED:
        return False
    return not any(p is not None and p.outcome == FAILED and p.when >= restored.when for p in state.values())


__all__ = ("FAILED", "FORMAT", "LEVELS", "PASSED", "UNDECIDED", "Proof", "is_verified", "proofs", "standing", "store")
