# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a set needs beside itself: the chain of an incremental base backup, and whether its files are there, as a listing tells.

And whether the sets of a place are of one cluster, so that one may be chosen by its age.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Optional

from ..core import chain as chains
from ..core.errors import DamagedError, MissingError, PgopsError, RefusedError, UnreachableError, UsageError
from ..core.lineages import Taken, entwined, newest_of_each, told
from ..core.manifest import NAME, Manifest
from ..core.naming import is_physical
from .catalog import Catalog
from .evidence import FAILED, LEVELS, PASSED

_LOOKED_AT = 60  # sets: with many years of them nobody wants to wait for each manifest
_ANOTHER = "and the set of that name is another one now."
_REPLACED = (
    "No sync mends that. Recover from a set that does not need it, and take a full base backup (--incremental never)."
)


def chain_of(catalog: Catalog, set_id: str) -> list[Manifest]:
    """Return the manifests of all that a recovery of `set_id` needs, the full base backup first and its own last.

    Raise DamagedError if one of those that it builds on is missing, is not whole, or is not the one that it was; of itself
    only the manifest is read.
    """
    try:
        ids = chains.chain(set_id, lambda one: catalog.manifest(one).parent)
        found = [catalog.manifest(one) for one in ids]
    except UnreachableError:
        raise
    except PgopsError as error:
        if isinstance(error, MissingError) and catalog.stored_manifest(set_id) is None:
            raise
        raise DamagedError(
            "%s builds on what cannot be read: %s" % (set_id, error.message), hint=_next(catalog, set_id)
        ) from None
    for parent, child in zip(found, found[1:]):
        why = _why_not(catalog, parent, child)
        if why:
            # A sync leaves alone what has other content on both sides.
            hint = _REPLACED if why == _ANOTHER else _next(catalog, set_id)
            raise DamagedError("%s builds on %s, %s" % (set_id, parent.id, why), hint=hint)
    if found[0].kind == "incremental":
        raise DamagedError("The manifest of %s names nothing that it builds on." % found[0].id)
    return found


def _next(catalog: Catalog, set_id: str) -> str:
    """Return what to do when something is missing below `set_id`: a pull brings what it builds on, a push only from this host."""
    command = "pgops sync" if catalog.place.name == "s3" else "pgops sync --pull %s" % set_id
    return "Bring it back from the other place (%s), or recover from a set that does not need it." % command


def _why_not(catalog: Catalog, parent: Manifest, child: Manifest) -> str:
    """Return why `child` cannot stand upon `parent`, empty if it can."""
    if parent.base is None or child.base is None:
        return "which is no base backup."
    if parent.system_identifier != child.system_identifier:
        return "which is of another cluster (%s)." % parent.system_identifier
    if child.base.parent_content and catalog.content(parent.id) != child.base.parent_content:
        return _ANOTHER
    missing = problem(catalog, parent)
    return "which is not whole: %s" % missing if missing else ""


def broken(catalog: Catalog, manifest: Manifest) -> Optional[str]:
    """Return what is wrong with the set or with what it builds on, as far as a listing and manifests tell, or None."""
    own = problem(catalog, manifest)
    if own or manifest.parent is None:
        return own
    try:
        chain_of(catalog, manifest.id)
    except DamagedError as error:
        return error.message
    return None


def failed(catalog: Catalog, ids: Sequence[str], *, place: str = "") -> str:
    """Return the last set of the chain `ids` that failed in `place` and has not passed there since; empty if there is none.

    Without a `place` any counts. A set that passes proves what it builds on, and a pass says nothing of a deeper level.
    """
    passed: dict[tuple[str, str], datetime] = {}
    for set_id in reversed(ids):
        content, lost = catalog.content(set_id), dict[tuple[str, str], datetime]()
        for proof in catalog.proofs:  # the oldest first
            if proof.set_id != set_id or proof.content != content or place not in ("", proof.place):
                continue
            if proof.outcome == FAILED:
                lost[proof.place, proof.level] = proof.when
            elif proof.outcome == PASSED:
                for level in LEVELS[: LEVELS.index(proof.level) + 1]:
                    key = (proof.place, level)
                    passed[key] = max(proof.when, passed.get(key, proof.when))
        if any(key not in passed or when >= passed[key] for key, when in lost.items()):
            return set_id
    return ""


def problem(catalog: Catalog, manifest: Manifest) -> Optional[str]:
    """Return what is wrong with the stored files of the set as far as a listing tells, or None."""
    stored = catalog.files(manifest.id)
    missing = [f.path for f in manifest.files if f.path not in stored]
    wrong = [f.path for f in manifest.files if f.path in stored and stored[f.path].size != f.size]
    listed = {f.path for f in manifest.files} | {NAME}
    said = [
        "%s: %s" % (what, _few(paths)) for what, paths in (("missing", missing), ("of the wrong size", wrong)) if paths
    ]
    if said:
        extra = len(set(stored) - listed)
        return "Files are %s%s." % (", ".join(said), "; %d more are in no manifest" % extra if extra else "")
    return None


def _few(paths: list[str]) -> str:
    shown = ", ".join(paths[:3])
    return shown if len(paths) <= 3 else "%s and %d more" % (shown, len(paths) - 3)


def entwined_sets(catalog: Catalog, *, physical: bool) -> list[Taken]:
    """Return the newest set of each of the clusters that took the newest base backups, or dumps, of a place by turns; mostly none.

    Of each the newest proven one, where there is one. What cannot be read is of none.
    """
    taken = []
    for set_id in [one for one in catalog.ids() if is_physical(one) is physical][:_LOOKED_AT]:
        with contextlib.suppress(DamagedError, MissingError, UsageError):
            manifest = catalog.manifest(set_id)
            taken.append(Taken(set_id, manifest.begun, manifest.system_identifier, manifest.host))
    systems = entwined(taken)
    proven = [one for one in taken if one.system in systems and catalog.verified(one.id)]
    found = {one.system: one for one in (*newest_of_each(taken, systems), *newest_of_each(proven, systems))}
    return newest_of_each(found.values(), systems)


def refuse_entwined(catalog: Catalog, *, physical: bool) -> None:
    """Refuse to choose among the sets of several clusters that lie under one name: the newest may be of another host.

    Raise RefusedError that names the newest set of each.
    """
    found = entwined_sets(catalog, physical=physical)
    if found:
        raise RefusedError(
            "%s has the sets of several clusters, taken by turns, so that nobody can tell which one is meant: %s."
            % (catalog.place.root, told(found)),
            hint="Nothing was touched. Name the set that is to be taken, as one of these; and give the instance of each host a name of its own.",
        )


__all__ = ("broken", "chain_of", "entwined_sets", "failed", "problem", "refuse_entwined")
