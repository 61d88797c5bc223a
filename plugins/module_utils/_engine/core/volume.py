# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Is the newest set about as large as the ones before? Half of one, or one of nothing, is no backup. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Optional

from .freshness import CRITICAL, WARNING, Finding
from .sizes import human_size

# How far off the median the newest set may be, as a part of it; of how many sets at most; and from how many on.
ALLOWED = 0.5
_SETS = 7
_LEAST = 3
# Below this, a row more or less is half of the set.
SMALL = 1024 * 1024


def measure(sets: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is known of the sizes of `sets` (described as info() does), each id once and whole ones only.

    `set`, `bytes` and `databases` are of the newest; `median_bytes` of up to seven of its kind before it; `deviation` is how
    far it is off that as a part of it, None with fewer than three; `allowed` is how far it may be.
    """
    whole = {str(s["id"]): s for s in sets if s["complete"]}
    ordered = [whole[name] for name in sorted(whole, reverse=True)]
    known: dict[str, Any] = dict.fromkeys(("set", "bytes", "databases", "median_bytes", "deviation"))
    known["allowed"] = ALLOWED
    if not ordered:
        return known
    newest = ordered[0]
    known.update(set=newest["id"], bytes=newest["bytes"], databases=len(newest["databases"]))
    before = [s["bytes"] for s in ordered[1:] if s["kind"] == newest["kind"]][:_SETS]
    if len(before) >= _LEAST:
        known["median_bytes"] = int(median(before))
        if known["median_bytes"]:
            known["deviation"] = newest["bytes"] / known["median_bytes"] - 1
    return known


def judge(known: Mapping[str, Any], *, none_allowed: bool = False) -> list[Finding]:
    """Return a finding where what measure() returned is not as it should be; `none_allowed`: sets may hold no database."""
    found = []
    if known["databases"] == 0 and not none_allowed and str(known["set"]).endswith("-logical"):
        found.append(Finding("no databases", CRITICAL, "The newest set (%s) holds no database at all." % known["set"]))
    off: Optional[float] = known["deviation"]
    if off is not None and abs(off) > ALLOWED and max(known["bytes"], known["median_bytes"]) >= SMALL:
        text = "The newest set (%s) has %s, %.0f %% %s than usual (%s): look at what is missing or new." % (
            known["set"],
            human_size(known["bytes"]),
            abs(100 * off),
            "more" if off > 0 else "less",
            human_size(known["median_bytes"]),
        )
        found.append(Finding("size", WARNING, text))
    return found


__all__ = ("ALLOWED", "SMALL", "judge", "measure")
