# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The catalog: the sets of a place, read from their manifests. A folder without a manifest is not a backup."""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timedelta, timezone
from typing import Callable, Optional

from ..core.chain import chain
from ..core.errors import DamagedError, MissingError, PgopsError, UsageError
from ..core.manifest import NAME, Manifest, content_hash, decode
from ..core.naming import is_ahead, is_physical, is_set_id
from .base import PINS, SETS, Entry, Place
from .evidence import FAILED, Proof, is_verified, proofs, standing

# So many files of manifests are kept decoded; a manifest beyond that is unpacked again when it is asked for again.
_MOST_FILES = 20_000
_BATCH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


class _Folder:
    """What a place holds of one set. Only the entry of its manifest is at hand; the others are packed until they are asked for."""

    __slots__ = ("_fresh", "_packed", "_set_id", "bytes", "manifest")

    def __init__(self, set_id: str) -> None:
        self._set_id = set_id
        self._fresh: list[list[object]] = []
        self._packed: list[bytes] = []
        self.manifest: Optional[Entry] = None
        self.bytes = 0

    def add(self, inner: str, entry: Entry) -> None:
        self.bytes += entry.size
        if inner == NAME:
            self.manifest = entry
            return
        self._fresh.append([inner, entry.size, (entry.modified - _EPOCH) // _MICROSECOND, entry.tag])
        if len(self._fresh) >= _BATCH:
            self.pack()

    def pack(self) -> None:
        """Pack what was added."""
        if self._fresh:
            self._packed.append(zlib.compress(json.dumps(self._fresh).encode("ascii"), 1))
            self._fresh = []

    def entries(self) -> dict[str, Entry]:
        """Return all entries by their path inside the set."""
        self.pack()
        found = {} if self.manifest is None else {NAME: self.manifest}
        for packed in self._packed:
            for inner, size, modified, tag in json.loads(zlib.decompress(packed)):
                path = "%s/%s/%s" % (SETS, self._set_id, inner)
                found[inner] = Entry(path, size, _EPOCH + modified * _MICROSECOND, tag)
        return found


class Catalog:
    """The sets of one place, from one listing; manifests are read when they are asked for, once.

    It stays small however many files there are: some tens of bytes for each.
    """

    def __init__(self, place: Place, *, more_proofs: tuple[Proof, ...] = ()) -> None:
        """List `place`. `more_proofs` are proofs that other places hold about the same content."""
        self.place = place
        self._folders: dict[str, _Folder] = {}
        self.strays: list[str] = []
        last: Optional[_Folder] = None
        for entry in place.listing(SETS):
            path = entry.path
            _unused, _unused, rest = path.partition("/")
            set_id, _unused, inner = rest.partition("/")
            if is_set_id(set_id) and inner:
                folder = self._folders.setdefault(set_id, _Folder(set_id))
                if last is not None and last is not folder:
                    last.pack()
                folder.add(inner, entry)
                last = folder
            else:
                self.strays.append(path)
        self.unfinished = sorted(s for s, folder in self._folders.items() if folder.manifest is None)
        self._manifests: dict[str, Manifest] = {}
        self._packed: dict[str, bytes] = {}
        self._contents: dict[str, str] = {}
        self._decoded = 0
        self._proofs: Optional[list[Proof]] = None
        self._more_proofs = more_proofs

    def ids(self) -> list[str]:
        """Return the ids of all sets, the newest first."""
        return sorted((s for s, folder in self._folders.items() if folder.manifest is not None), reverse=True)

    def files(self, set_id: str) -> dict[str, Entry]:
        """Return what the place holds of `set_id`, by the path inside it; nothing where there is no such set."""
        folder = self._folders.get(set_id)
        return {} if folder is None else folder.entries()

    def stored_manifest(self, set_id: str) -> Optional[Entry]:
        """Return the entry of the manifest of `set_id`, None where there is none."""
        folder = self._folders.get(set_id)
        return None if folder is None else folder.manifest

    def taken(self, set_id: str) -> bool:
        """Tell whether there is anything under the name `set_id`, be it a set or not."""
        return set_id in self._folders

    def manifest(self, set_id: str) -> Manifest:
        """Return the manifest of `set_id`. Raise MissingError, DamagedError or UsageError."""
        return self._manifests[set_id] if set_id in self._manifests else self._read(set_id)

    def content(self, set_id: str) -> str:
        """Return the content hash of `set_id`: the SHA-256 of its manifest."""
        if set_id not in self._contents:
            self._read(set_id)
        return self._contents[set_id]

    def _read(self, set_id: str) -> Manifest:
        if self.stored_manifest(set_id) is None:
            raise MissingError(
                "There is no set %s in %s." % (set_id, self.place.root),
                hint="'pgops restore --list' shows what there is.",
            )
        if set_id in self._packed:
            manifest = decode(zlib.decompress(self._packed[set_id]), set_id=set_id)
        else:
            encoded = self.place.read("%s/%s/%s" % (SETS, set_id, NAME))
            manifest = decode(encoded, set_id=set_id)
            self._packed[set_id], self._contents[set_id] = zlib.compress(encoded, 1), content_hash(encoded)
        self._decoded += len(manifest.files)
        while self._manifests and self._decoded > _MOST_FILES:
            oldest = next(iter(self._manifests))
            self._decoded -= len(self._manifests.pop(oldest).files)
        self._manifests[set_id] = manifest
        return manifest

    def stored_bytes(self, set_id: str) -> int:
        """Return what the set takes up in the place."""
        return self._folders[set_id].bytes

    @property
    def total_bytes(self) -> int:
        """What everything below the names of sets takes up in the place."""
        return sum(folder.bytes for folder in self._folders.values())

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

    def past(self, now: datetime, warn: Callable[[str], None] = lambda _text: None) -> list[str]:
        """Return the ids of the sets that do not claim to begin after `now`, the newest first, and `warn` of the others."""
        ids = self.ids()
        ahead = [set_id for set_id in ids if is_ahead(set_id, now)]
        for set_id in ahead:
            warn(
                "The set %s in %s claims to begin in the future and is not counted as the newest; check the clock of its host."
                % (set_id, self.place.root)
            )
        return [set_id for set_id in ids if set_id not in ahead]

    def find(
        self,
        wanted: str,
        now: datetime,
        *,
        physical: Optional[bool] = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> str:
        """Return the id that `wanted` names: an id, `latest` or `latest_verified`. Raise MissingError or UsageError.

        `physical` narrows the latter two to base backups or, False, to dumps. Sets that claim to begin after `now` are none
        of the two, and `warn` hears of them.
        """
        if wanted not in ("latest", "latest_verified"):
            if not is_set_id(wanted):
                raise UsageError(
                    "%r names no set." % (wanted,),
                    hint="Give an id like 20261122T020000Z-logical, or latest, or latest_verified.",
                )
            self.manifest(wanted)
            return wanted
        for set_id in self.past(now, warn):
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
