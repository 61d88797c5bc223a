# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the answer of 'pgops status' to what stands in the way of a restore on that host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import is_physical, is_set_id

DOCUMENTATION = r"""
name: hindrances
short_description: Tell from an answer of C(pgops status) what stands in the way of a restore
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - A restore is for bad days, so that most of what may be wrong is no reason to wait. What is told here is - a full disk, no place that
    can be read, no backup set that is sound.
positional: _input
options:
  _input:
    description: What C(pgops --json status) says.
    type: dict
    required: true
  place:
    description: The place to restore from, V(auto), V(local) or V(s3).
    type: str
    default: auto
  wanted:
    description: The set to restore, its id, V(latest) or V(latest_verified).
    type: str
    default: latest_verified
  physical:
    description: Whether a base backup is to be restored, rather than a dump.
    type: bool
    default: false
  foreign:
    description: Whether the set is of another instance, of whose sets the answer says nothing.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Nothing stands in the way
  ansible.builtin.assert:
    that: status.stdout | from_json | pgops.backup.hindrances | length == 0
"""

RETURN = r"""
_value:
  description: What a person should read, a sentence each; nothing where nothing stands in the way.
  type: list
  elements: str
"""


def hindrances(
    said: Mapping[str, Any],
    place: str = "auto",
    wanted: str = "latest_verified",
    physical: bool = False,
    foreign: bool = False,
) -> list[str]:
    """Return what stands in the way of restoring the set `wanted` from `place`, by what status `said`."""
    # Not where the next backup alone would not fit.
    is_full = said["disk"]["free_bytes"] < said["disk"]["min_free_bytes"]
    full = [finding["text"] for finding in said["findings"] if finding["check"] == "disk" and is_full]
    places = [one for one in said["places"] if place in ("auto", one["place"])]
    readable = [one for one in places if one["reachable"]]
    if not readable:
        lost = ["%s cannot be read: %s" % (one["root"], one["error"]) for one in places]
        return full + (lost or ["The configuration has no place %s." % place])
    return full if foreign else full + _unsound(readable, wanted, physical)


def _unsound(places: Sequence[Mapping[str, Any]], wanted: str, physical: bool) -> list[str]:
    """Say that no copy of the `wanted` set in `places` is sound, where it is known and so."""
    where = " and ".join(str(one["root"]) for one in places)
    every = [described for one in places for described in one["sets"]]
    if is_set_id(wanted):
        named = [described for described in every if described["id"] == wanted]
        # One that is not there at all is for the restore to tell, which knows what there is instead.
        return [] if not named or any(map(_is_sound, named)) else ["%s in %s: %s" % (wanted, where, _fault(named[0]))]
    family = [described for described in every if is_physical(described["id"]) == physical]
    if any(map(_is_sound, family)):
        return []
    what = "base backup" if physical else "dump"
    if not family:
        return ["There is no %s in %s." % (what, where)]
    newest = max(family, key=lambda described: str(described["id"]))
    return ["No %s in %s is sound. The newest, %s: %s" % (what, where, newest["id"], _fault(newest))]


def _is_sound(described: Mapping[str, Any]) -> bool:
    """Tell whether a set is whole, and failed no check since it passed."""
    return bool(described["complete"] and (described["verified"] or not _failed(described)))


def _failed(described: Mapping[str, Any]) -> list[str]:
    return sorted(level for level, proof in described["proofs"].items() if proof["outcome"] == "failed")


def _fault(described: Mapping[str, Any]) -> str:
    return str(described.get("problem") or "it failed its verification (%s)." % ", ".join(_failed(described)))


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"hindrances": hindrances}
