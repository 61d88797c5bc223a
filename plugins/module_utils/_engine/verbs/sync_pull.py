# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Pull: sets from S3 to the local place, with what they build on and the evidence about them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.errors import DamagedError, MissingError, RefusedError, UsageError
from ..core.manifest import NAME, File, content_hash
from ..core.sizes import human_size, parse_size
from ..places.base import EVIDENCE, SETS
from ..places.catalog import Catalog
from ..places.evidence import proofs
from ..places.fetched import is_begun, list_beside
from ..places.local import PULLED_FOR, REPAIR
from ..places.s3 import S3Place
from ..system.durable import allocated, create_private, free_bytes, make_dirs, sha256_file, sync_dir, sync_file
from .sync_steps import Done, Step, partly, wanted_sets, whole


class Pull:
    """S3 to local."""

    def __init__(self, context: Context, place: S3Place, done: Done) -> None:
        self._context, self._place, self._done = context, place, done
        self._local = Catalog(context.local)
        self._remote = Catalog(place, more_proofs=tuple(proofs(context.local)))

    def run(self, names: Sequence[str], *, dry_run: bool) -> None:
        """Plan and, unless `dry_run` holds, do what brings the sets `names` here; keep it in the Done."""
        for set_id in self._with_ancestors(wanted_sets(self._context, self._remote, names or ("latest",))):
            try:
                step = self._compared(set_id)
            except (DamagedError, UsageError) as error:
                step = Step(set_id, "alarm", str(error))
            if step is None:
                self._done.already += 1
            else:
                self._done.plan.append(step)
        here = set(self._local.ids())
        self._done.only_there = [set_id for set_id in self._remote.ids() if set_id not in here]
        if dry_run:
            return
        self._clear_left()
        for step in self._done.plan:
            if step.action == "alarm":
                self._done.alarm(self._context, step.set_id, step.reason)
                continue
            self._context.reporter.phase("%s %s" % (step.action, step.set_id), step.size)
            try:
                self._fetch(step)
            except (DamagedError, MissingError) as error:
                self._done.alarm(self._context, step.set_id, str(error))
            finally:
                self._context.reporter.done()
        brought = {*self._done.sets, *(repaired["set"] for repaired in self._done.repaired)}
        self._done.only_there = [set_id for set_id in self._done.only_there if set_id not in brought]
        self._fetch_evidence()

    def _clear_left(self) -> None:
        found = self._context.local.clear_pulls(self._context.clock(), self._remote.ids())
        for path, size in found.items():
            self._context.warn(
                "Removed %s (%s), which a sync that was cut short left behind." % (path, human_size(size))
            )

    def _with_ancestors(self, wanted: Sequence[str]) -> list[str]:
        order: list[str] = []
        for set_id in wanted:
            chain: list[str] = []
            current: Optional[str] = set_id
            while current is not None and current not in order and current not in chain:
                chain.append(current)
                parent = None
                with contextlib.suppress(DamagedError):
                    parent = None if current.endswith("-logical") else self._remote.manifest(current).parent
                current = parent
            order += reversed(chain)
        return order

    def _compared(self, set_id: str) -> Optional[Step]:
        manifest = self._remote.manifest(set_id)
        if not self._local.taken(set_id):
            return whole("pull", "missing here", manifest, with_manifest=True)
        broken = self._manifest_is_broken(set_id)
        if not broken and self._local.content(set_id) != self._remote.content(set_id):
            return Step(set_id, "alarm", "its manifest there names other content than the one here")
        bad = tuple(f for f in manifest.files if not self._is_right(set_id, f))
        if broken:
            return partly(set_id, "its manifest here is missing or damaged", bad, with_manifest=True)
        return partly(set_id, "files here are missing or damaged", bad) if bad else None

    def _manifest_is_broken(self, set_id: str) -> bool:
        try:
            self._local.manifest(set_id)
        except (DamagedError, MissingError):
            return True
        return False

    def _is_right(self, set_id: str, file: File) -> bool:
        """Tell whether the file here is what the manifest says, by its content."""
        try:
            self._context.local.check_file(set_id, file)
        except (DamagedError, MissingError):
            return False
        return True

    def _fetch(self, step: Step) -> None:
        if step.files is None:
            files, came = self._pull(step.set_id, self._remote.manifest(step.set_id).files)
            self._done.sets.append(step.set_id)
        else:
            files = step.files
            came = self._repair(step, files)
        self._done.files_sent += len(files) + step.manifest
        self._done.bytes_sent += came

    def _pull(self, set_id: str, files: Sequence[File]) -> tuple[Sequence[File], int]:
        """Fetch and publish the set; return the files that were not here from a pull that broke, and the bytes that came."""
        try:
            with self._context.local.new_set(set_id, go_on=True) as folder:
                taken = {path for f in files for path in (folder / f.path, *(folder / f.path).parents)}
                keep = taken.isdisjoint(list_beside(folder / f.path) for f in files)
                held = self._held(folder, files, keep=keep)
                missing = [f for f in files if f.path not in held]
                targets = [folder / f.path for f in missing]
                self._check_space(set_id, missing, there=sum(allocated(t) for t in targets))
                came = self._fetch_into(set_id, missing, targets, keep=keep)
                with create_private(folder / NAME) as stream:
                    stream.write(self._manifest_there(set_id))
        except BaseException:
            left = self._context.local.pulled(set_id)
            if left is not None:
                self._context.warn(
                    "What was fetched of %s stays in %s for %d days: pgops sync --pull %s goes on with it."
                    % (set_id, left, PULLED_FOR.days, set_id)
                )
            raise
        self._done.files_skipped += len(held)
        return missing, came

    def _held(self, folder: Path, files: Sequence[File], *, keep: bool) -> set[str]:
        """Return which of `files` are in `folder` from an earlier pull. Each is read once.

        With `keep` what came of a large file stays, with the list of its parts. Whatever else is there goes.
        """
        wanted, held = {f.path: f for f in files}, set[str]()
        begun = {folder / f.path for f in files if keep and is_begun(folder / f.path)}
        begun |= {list_beside(path) for path in begun}
        for path in sorted(p for p in folder.rglob("*") if p not in begun and (p.is_symlink() or not p.is_dir())):
            file = wanted.get(path.relative_to(folder).as_posix())
            if file is not None and path.stat().st_size == file.size and sha256_file(path) == file.sha256:
                held.add(file.path)
                self._context.reporter.advance(file.size)
            else:
                path.unlink()
        return held

    def _manifest_there(self, set_id: str) -> bytes:
        encoded = self._place.read("%s/%s/%s" % (SETS, set_id, NAME))
        if content_hash(encoded) != self._remote.content(set_id):
            raise DamagedError("The manifest of %s changed while the set was fetched." % set_id)
        return encoded

    def _repair(self, step: Step, files: Sequence[File]) -> int:
        """Fetch files beside those of the set, and let them take their place; return the bytes that came."""
        self._check_space(step.set_id, files)
        folder = self._context.local.path("%s/%s" % (SETS, step.set_id))
        targets = [folder / f.path for f in files]
        beside = [t.with_name(".%s%s" % (t.name, REPAIR)) for t in targets]
        try:
            came = self._fetch_into(step.set_id, files, beside)
            for fetched, target in zip(beside, targets):
                sync_file(fetched)
                fetched.replace(target)
                sync_dir(target.parent)
            if step.manifest:
                self._context.local.write("%s/%s/%s" % (SETS, step.set_id, NAME), self._manifest_there(step.set_id))
        finally:
            for path in beside:
                path.unlink(missing_ok=True)
        names = [f.path for f in files] + ([NAME] if step.manifest else [])
        self._done.repaired.append({"set": step.set_id, "files": names, "why": step.reason})
        self._context.warn("%s was repaired in %s: %s." % (step.set_id, self._context.local.root, step.reason))
        return came

    def _fetch_into(self, set_id: str, files: Sequence[File], targets: Sequence[Path], *, keep: bool = False) -> int:
        for target in targets:
            make_dirs(target.parent)
            if not keep:
                target.unlink(missing_ok=True)
        advance = self._context.reporter.advance
        return self._place.fetch_all(set_id, list(zip(files, targets)), progress=advance, keep=keep)

    def _check_space(self, set_id: str, files: Sequence[File], *, there: int = 0) -> None:
        """Raise RefusedError unless `files` fit; `there` bytes of them are on the disk already."""
        needed, floor = max(0, sum(f.size for f in files) - there), parse_size(self._context.config.backup.min_free)
        free = free_bytes(Path(self._context.local.root))
        if free < needed + floor:
            raise RefusedError(
                "%s needs %s and %s must stay free, but %s has only %s."
                % (set_id, human_size(needed), human_size(floor), self._context.local.root, human_size(free)),
                hint="Make room, lower backup.min_free, or restore straight from S3.",
            )

    def _fetch_evidence(self) -> None:
        if not self._done.sets:
            return
        here = self._context.local.entries(EVIDENCE)
        for proof in proofs(self._place):
            if proof.set_id in self._done.sets and proof.path not in here:
                self._context.local.write(proof.path, self._place.read(proof.path))
                self._done.evidence_sent += 1


__all__ = ("Pull",)
