# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The catalog: the sets of a place, read from their manifests. A folder without a manifest is not a backup."""

from __future__ import annotations

from typing import Optional

from ..core.chain import chain
from ..core.errors import DamagedError, MissingError, PgopsError, UsageError
from ..core.manifest import NAME, Manifest, content_hash, decode
from ..core.naming import is_physical, is_set_id
from .base import PINS, SETS, Entry, Place
from .evidence import FAILED, Proof, is_verified, proofs, standing


class Catalog:
    """The sets of one place, from one listing; manifests are read when they are asked for, once."""

    def __init__(self, place: Place, *, more_proofs: tuple[Proof, ...] = ()) -> None:
        """List `place`. `more_proofs` are proofs that other places hold about the same content."""
        self.place = place
        self.files: dict[str, dict[str, Entry]] = {}
        self.strays: list[str] = []
        for path, entry in place.entries(SETS).items():
            _unused, _unused, rest = path.partition("/")
            set_id, _unused, inner = rest.partition("/")
            if is_set_id(set_id) and inner:
                self.files.setdefault(set_id, {})[inner] = entry
            else:
                self.strays.append(path)
        self.unfinished = sorted(s for s, files in self.files.items() if NAME not in files)
        self._manifests: dict[str, tuple[Manifest, str]] = {}
        self._proofs: Optional[list[Proof]] = None
        self._more_proofs = more_proofs

    def ids(self) -> list[str]:
        """Return the ids of all sets, the newest first."""
        return sorted((s for s, files in self.files.items() if NAME in files), reverse=True)

    def manifest(self, set_id: str) -> Manifest:
        """Return the manifest of `set_id`. Raise MissingError, DamagedError or UsageError."""
        return self._read(set_id)[0]

    def content(self, set_id: str) -> str:
        """Return the content hash of `set_id`: the SHA-256 of its manifest."""
        return self._read(set_id)[1]

    def _read(self, set_id: str) -> tuple[Manifest, str]:
        if set_id not in self._manifests:
            if NAME not in self.files.get(set_id, {}):
                raise MissingError(
                    "There is no set %s in %s." % (set_id, self.place.root),
                    hint="'pgops restore --list' shows what there is.",
                )
            encoded = self.place.read("%s/%s/%s" % (SETS, set_id, NAME))
            self._manifests[set_id] = (decode(encoded, set_id=set_id), content_hash(encoded))
        return self._manifests[set_id]

    def stored_bytes(self, set_id: str) -> int:
        """Return what the set takes up in the place."""
        return sum(entry.size for entry in self.files[set_id].values())

    @property
    def proofs(self) -> list[Proof]:
        """All proofs known about sets of this place, the oldest first."""
        if self._proofs is None:
            known = {*proofs(self.place), *self._more_proofs}
            self._proofs = sorted(known, key=lambda p: (p.when, p.path))
        return self._proofs

    def proof(self, set_id: str) -> dict[str, Optional[Proof]]:
        """Return the newest proof of each level about `set_id` in this place."""
        return standing(self.proofs, set_id=set_id, content=self.content(set_id), place=self.place.name)

    def verified(self, set_id: str) -> bool:
        """Tell whether `set_id` is verified, and nothing that it builds on failed since. A set whose manifest cannot be read is not."""
        if not any(p.set_id == set_id for p in self.proofs):
            return False
        try:
            proof = self.proof(set_id)
            restored = proof["restore"]
            if restored is None or not is_verified(proof):
                return False
            above = chain(set_id, lambda one: self.manifest(one).parent)[:-1] if is_physical(set_id) else []
            return not any(
                p is not None and p.outcome == FAILED and p.when >= restored.when
                for ancestor in above
                for p in self.proof(ancestor).values()
            )
        except (DamagedError, MissingError, UsageError):
            return False

    def pins(self) -> list[str]:
        """Return the ids of pinned sets."""
        return sorted(path.rsplit("/", 1)[-1] for path in self.place.entries(PINS))

    def find(self, wanted: str, *, physical: Optional[bool] = None) -> str:
        """Return the id that `wanted` names: an id, `latest` or `latest_verified`. Raise MissingError or UsageError.

        `physical` narrows the latter two to base backups or, False, to dumps.
        """
        if wanted not in ("latest", "latest_verified"):
            if not is_set_id(wanted):
                raise UsageError(
                    "%r names no set." % (wanted,),
                    hint="Give an id like 20261122T020000Z-logical, or latest, or latest_verified.",
                )
            self.manifest(wanted)
            return wanted
        for set_id in self.ids():
            if physical not in (None, is_physical(set_id)):
                continue
            if wanted == "latest" or self.verified(set_id):
                return set_id
        noun = {None: "set", True: "base backup", False: "set"}[physical]
        if wanted == "latest":
            raise MissingError(
                "There is no %s in %s." % (noun, self.place.root),
                hint="Run a backup first, or look in the other place.",
            )
        raise MissingError(
            "No %s in %s is verified." % (noun, self.place.root),
            hint="Verify one (pgops verify --level restore), or name a set, or say latest.",
        )


def readable(catalog: Catalog, set_id: str) -> Optional[PgopsError]:
    """Return what keeps the manifest of `set_id` from being read, or None."""
    try:
        catalog.manifest(set_id)
    except PgopsError as error:
        return error
    return None


__all__ = ("Catalog", "readable")
