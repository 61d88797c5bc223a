# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a set needs beside itself: the chain of an incremental base backup, and whether its files are there, as a listing tells."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Optional

from ..core import chain as chains
from ..core.errors import DamagedError, MissingError, PgopsError, UnreachableError
from ..core.manifest import NAME, Manifest
from .catalog import Catalog
from .evidence import FAILED, PASSED


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
        if isinstance(error, MissingError) and NAME not in catalog.files.get(set_id, {}):
            raise
        raise DamagedError("%s builds on what cannot be read: %s" % (set_id, error.message)) from None
    for parent, child in zip(found, found[1:]):
        why = _why_not(catalog, parent, child)
        if why:
            raise DamagedError(
                "%s builds on %s, %s" % (set_id, parent.id, why),
                hint="Bring it back from the other place (pgops sync), or recover from a set that does not need it.",
            )
    if found[0].kind == "incremental":
        raise DamagedError("The manifest of %s names nothing that it builds on." % found[0].id)
    return found


def _why_not(catalog: Catalog, parent: Manifest, child: Manifest) -> str:
    """Return why `child` cannot stand upon `parent`, empty if it can."""
    if parent.base is None or child.base is None:
        return "which is no base backup."
    if parent.system_identifier != child.system_identifier:
        return "which is of another cluster (%s)." % parent.system_identifier
    if child.base.parent_content and catalog.content(parent.id) != child.base.parent_content:
        return "and the set of that name is another one now."
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


def failed(catalog: Catalog, ids: Sequence[str]) -> str:
    """Return the last set of the chain `ids` that failed in some place and has not passed there since; empty if there is none.

    A set that passes proves what it builds on.
    """
    passed: dict[str, datetime] = {}
    for set_id in reversed(ids):
        content, lost = catalog.content(set_id), dict[str, datetime]()
        for proof in catalog.proofs:  # the oldest first
            if proof.set_id == set_id and proof.content == content and proof.outcome in (PASSED, FAILED):
                held = passed if proof.outcome == PASSED else lost
                held[proof.place] = max(proof.when, held.get(proof.place, proof.when))
        if any(place not in passed or when >= passed[place] for place, when in lost.items()):
            return set_id
    return ""


def problem(catalog: Catalog, manifest: Manifest) -> Optional[str]:
    """Return what is wrong with the stored files of the set as far as a listing tells, or None."""
    stored = catalog.files[manifest.id]
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


__all__ = ("broken", "chain_of", "failed", "problem")
