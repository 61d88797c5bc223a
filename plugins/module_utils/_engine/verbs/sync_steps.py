# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a sync has to do and has done: the nouns that both directions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ..context import Context
from ..core.manifest import File, Manifest
from ..places.base import Place
from ..places.catalog import Catalog

Result = dict[str, Any]
_SHOWN = 20


@dataclass(frozen=True)
class Step:
    """What to do about one set: `push`, `pull`, `repair`, `compare`, `skip` or `alarm`, with which files, and why.

    `files` None are all of its manifest, which is asked again when it is their turn: the plan may hold a thousand sets.
    `count` and `size` are those of the files. With `manifest` the manifest is written too.
    """

    set_id: str
    action: str
    reason: str
    files: Optional[tuple[File, ...]] = ()
    count: int = 0
    size: int = 0
    manifest: bool = False

    def shown(self) -> Result:
        """Return it as an entry of the plan in the result."""
        return {
            "set": self.set_id,
            "action": self.action,
            "files": self.count + self.manifest,
            "bytes": self.size,
            "reason": self.reason,
        }


def whole(action: str, reason: str, manifest: Manifest, *, with_manifest: bool = False) -> Step:
    """Return a step with all files of the set."""
    files = manifest.files
    return Step(manifest.id, action, reason, None, len(files), sum(f.size for f in files), with_manifest)


def partly(set_id: str, reason: str, files: Sequence[File], *, with_manifest: bool = False) -> Step:
    """Return the repair of some files of the set."""
    return Step(set_id, "repair", reason, tuple(files), len(files), sum(f.size for f in files), with_manifest)


@dataclass
class Done:
    """What has been done so far, and what could not be. `only_there` are the sets that only the S3 place has, the newest first;
    `pullable` those alarms whose copy here is damaged, and the one there is not, as far as is known.
    """

    plan: list[Step] = field(default_factory=list)
    already: int = 0
    sets: list[str] = field(default_factory=list)
    files_sent: int = 0
    bytes_sent: int = 0
    files_skipped: int = 0
    repaired: list[Result] = field(default_factory=list)
    evidence_sent: int = 0
    aborted: list[str] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)
    only_there: list[str] = field(default_factory=list)
    pullable: list[str] = field(default_factory=list)

    def result(self, direction: str, place: Place) -> Result:
        """Return it as the verb's result."""
        return {
            "changed": bool(self.sets or self.repaired or self.evidence_sent or self.aborted),
            "direction": direction,
            "place": place.root,
            "plan": [step.shown() for step in self.plan],
            "sets": self.sets,
            "files_sent": self.files_sent,
            "bytes_sent": self.bytes_sent,
            "files_skipped": self.files_skipped,
            "already": self.already,
            "left_out": [{"set": s.set_id, "why": s.reason} for s in self.plan if s.action == "skip"],
            "repaired": self.repaired,
            "evidence_sent": self.evidence_sent,
            "aborted_uploads": self.aborted,
            "only_there": self.only_there[:_SHOWN],
            "only_there_count": len(self.only_there),
        }

    def alarm(self, context: Context, set_id: str, why: str) -> None:
        """Keep and report what could not be reconciled."""
        self.alarms.append((set_id, why))
        context.warn("%s: %s" % (set_id, why))


def wanted_sets(context: Context, catalog: Catalog, names: Sequence[str]) -> list[str]:
    """Return the ids that `names` mean, the newest first. Raise MissingError or UsageError."""
    found = set()
    for name in names:
        found.update(catalog.ids() if name == "all" else [catalog.find(name, context.clock(), warn=context.warn)])
    return sorted(found, reverse=True)


__all__ = ("Done", "Result", "Step", "partly", "wanted_sets", "whole")
