# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Push: local sets to S3, evidence about them too; what was proven before costs one listing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

from ..context import Context
from ..core.errors import DamagedError, MissingError, PgopsError, UnreachableError, UsageError
from ..core.json_text import to_json
from ..core.manifest import NAME, Manifest, content_hash, decode
from ..core.naming import is_physical
from ..core.retention import SetFacts, plan
from ..core.times import parse_iso
from ..places.base import EVIDENCE, SETS, Entry
from ..places.catalog import Catalog, readable
from ..places.chains import problem
from ..places.evidence import is_verified, proofs, standing
from ..places.s3 import S3Place, SourceError
from ..run_records import BASE_BACKUP, history
from ..system.durable import make_dirs, write_bytes
from .sync_steps import Done, Step, partly, wanted_sets, whole

_STALE = timedelta(days=7)


class _Memory:
    """What was proven to be the same on both sides, so that an unchanged listing is enough the next time.

    `evidence` are the paths of evidence files that both sides had.
    """

    def __init__(self, path: Path, root: str) -> None:
        self._path, self._root = path, root
        self._all: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            self._all = found if isinstance(found, dict) else {}
        known = self._all.get(root)
        self._known: dict[str, Any] = dict(known) if isinstance(known, dict) else {}
        evidence = self._known.pop(EVIDENCE, [])
        self.evidence = {path for path in evidence if isinstance(path, str)} if isinstance(evidence, list) else set()
        self._evidence_before = set(self.evidence)
        self._changed = False

    def get(self, set_id: str) -> tuple[str, str, str]:
        """Return the content hash, the digest of the remote listing and the local manifest's tag, as last proven."""
        held = self._known.get(set_id)
        return (str(held[0]), str(held[1]), str(held[2])) if isinstance(held, list) and len(held) == 3 else ("", "", "")

    def put(self, set_id: str, content: str, listing: str, tag: str) -> None:
        self._known[set_id] = [content, listing, tag]
        self._changed = True

    def save(self, context: Context, there: Sequence[str]) -> None:
        """Write what changed; forget sets that are gone from `there`."""
        gone = set(self._known) - set(there)
        if not gone and not self._changed and self.evidence == self._evidence_before:
            return
        held = {k: v for k, v in self._known.items() if k not in gone}
        self._all[self._root] = {**held, EVIDENCE: sorted(self.evidence)} if self.evidence else held
        try:
            make_dirs(self._path.parent)
            write_bytes(self._path, to_json(self._all))
        except OSError as error:
            context.warn("%s cannot be written: %s. The next sync compares more." % (self._path, error.strerror))
        self._changed = False


class Push:
    """Local to S3."""

    def __init__(self, context: Context, place: S3Place, done: Done) -> None:
        self._context, self._place, self._done = context, place, done
        self._own_proofs = proofs(context.local)
        self._local = Catalog(context.local)
        self._remote = Catalog(place, more_proofs=tuple(self._own_proofs))
        self._memory = _Memory(context.state / "synced.json", place.root)

    def run(self, names: Sequence[str], *, dry_run: bool) -> None:
        """Plan and, unless `dry_run` holds, do what brings the sets `names` to S3; keep it in the Done."""
        wanted = wanted_sets(self._context, self._local, names or ("all",))
        there = set(self._remote.ids())
        here = set(self._local.ids())
        self._done.only_there = [set_id for set_id in self._remote.ids() if set_id not in here]
        ordered = self._in_order(wanted)
        doomed = self._doomed([s for s in ordered if s not in there])
        for set_id in ordered:
            try:
                step = self._compared(set_id) if set_id in there else self._missing(set_id, doomed)
                step = step and self._founded(step, there)
            except (DamagedError, UsageError) as error:
                step = Step(set_id, "alarm", str(error))
                self._see_whether_a_pull_mends(set_id)
            if step is None:
                self._done.already += 1
            else:
                self._done.plan.append(step)
        if dry_run:
            coming = {step.set_id for step in self._done.plan if step.action == "push"}
            self._done.evidence_sent = len(self._missing_evidence(there | coming))
            return
        try:
            self._perform_all(there)
        except UnreachableError:
            raise
        except PgopsError:
            self._clear_stale()
            raise
        self._clear_stale()

    def tell_if_the_newest_is_only_there(self) -> None:
        """Warn where this host lost its newest set. That the other place keeps older ones for longer is as it should be."""
        straight = self._context.config.base.to == "s3"  # base backups are never here then
        sent = {
            record.get("set") for record in history(self._context.state, BASE_BACKUP) if record.get("place") == "s3"
        }
        here = [set_id for set_id in self._local.ids() if not (straight and is_physical(set_id))]
        there = [
            set_id for set_id in self._done.only_there if set_id not in sent and not (straight and is_physical(set_id))
        ]
        if there and there[0] > max(here, default=""):
            self._context.warn(
                "The newest set, %s, is only in %s; here is %s. If this host has lost it: pgops sync --pull %s"
                % (there[0], self._place.root, "none that is newer than %s" % here[0] if here else "none", there[0])
            )

    def _perform_all(self, there: Collection[str]) -> None:
        try:
            for step in self._done.plan:
                self._perform(step)
            self._send_evidence({*there, *self._done.sets})
        finally:
            self._memory.save(self._context, sorted({*there, *self._done.sets}))

    def _see_whether_a_pull_mends(self, set_id: str) -> None:
        """Keep the set as one to be pulled if the manifest here cannot be read, and the set there looks whole."""
        damaged = isinstance(readable(self._local, set_id), DamagedError)
        known = damaged and readable(self._remote, set_id) is None
        if known and problem(self._remote, self._remote.manifest(set_id)) is None:
            self._done.pullable.append(set_id)

    def _in_order(self, wanted: Sequence[str]) -> list[str]:
        """Return `wanted`, the newest first, but what a set builds on before it, also where nobody asked for that."""
        order: list[str] = []
        for set_id in wanted:
            chain: list[str] = []
            current: Optional[str] = set_id
            while (
                current is not None
                and current not in (*order, *chain)
                and self._local.stored_manifest(current) is not None
            ):
                chain.append(current)
                current = self._parent(current)
            order += reversed(chain)
        return order

    def _parent(self, set_id: str) -> Optional[str]:
        """Return what the set builds on, None where it builds on nothing or cannot be read."""
        with contextlib.suppress(PgopsError):
            if is_physical(set_id):
                return self._local.manifest(set_id).parent
        return None

    def _founded(self, step: Step, there: Collection[str]) -> Step:
        """Return the step, an alarm instead if what the set builds on neither is there nor comes before it."""
        parent = self._parent(step.set_id)
        if parent is None or step.action in ("skip", "alarm"):
            return step
        coming = next((earlier.action for earlier in self._done.plan if earlier.set_id == parent), "")
        why = ""
        if coming == "alarm":
            why = "%s, which it builds on, cannot be brought there" % parent
        elif parent not in there and coming != "push":
            why = "%s, which it builds on, is not there" % parent
        elif parent in there and not coming:
            base = self._local.manifest(step.set_id).base
            wanted = base.parent_content if base is not None else ""
            if wanted and self._remote.content(parent) != wanted:
                why = "%s, which it builds on, is another set there" % parent
        return Step(step.set_id, "alarm", why) if why else step

    def _missing(self, set_id: str, doomed: Mapping[str, str]) -> Step:
        if set_id in doomed:
            return Step(set_id, "skip", doomed[set_id])
        why = "an earlier run was interrupted" if self._remote.taken(set_id) else "missing there"
        return whole("push", why, self._local.manifest(set_id), with_manifest=True)

    def _compared(self, set_id: str) -> Optional[Step]:
        """Return what to do about a set that both sides have, or None when they are the same."""
        stored = self._remote.files(set_id)
        listing, tag = _listing(stored), self._tag(set_id)
        known, known_listing, known_tag = self._memory.get(set_id)
        if known and (known_listing, known_tag) == (listing, tag):
            return None
        manifest, content = self._local.manifest(set_id), self._local.content(set_id)
        encoded = self._place.read("%s/%s/%s" % (SETS, set_id, NAME))
        broken_manifest = content_hash(encoded) != content
        if broken_manifest and _decodes(encoded, set_id):
            return Step(set_id, "alarm", "its manifest there is valid but names other content than the one here")
        bad = [f for f in manifest.files if f.path not in stored or stored[f.path].size != f.size]
        if broken_manifest or (known == content and known_listing != listing):
            # Something was altered there after it had been proven: sizes alone say nothing any more.
            why = "its manifest there is damaged" if broken_manifest else "it changed there after it was proven"
            return whole("repair", why, manifest, with_manifest=broken_manifest)
        if bad:
            return partly(set_id, "files there are missing or have another size", bad)
        if known != content:
            # Equal sizes prove nothing: what this host has not proven itself is compared by content once.
            return whole("compare", "it was never compared from here", manifest)
        self._memory.put(set_id, content, listing, tag)
        return None

    def _doomed(self, missing: Sequence[str]) -> dict[str, str]:
        """Return the missing sets that the retention of S3 would remove at once, with the reason."""
        if not missing:
            return {}
        s3 = self._context.config.s3
        rules = s3.retention if s3 is not None else None
        pins = set(self._remote.pins())
        facts = [self._facts(s, s in pins) for s in {*self._remote.ids(), *missing}]
        if rules is None:
            return {}
        remove = {*plan(facts, rules, self._context.clock()).remove}
        if not remove.isdisjoint(missing):
            # Of which cluster a set is counts, too, and is read only where that may save one.
            facts = [dataclasses.replace(fact, system=self._system(fact.id)) for fact in facts]
            remove = {*plan(facts, rules, self._context.clock()).remove}
        why = "the retention of %s would remove it at once" % self._place.root
        return {s: why for s in missing if s in remove}

    def _system(self, set_id: str) -> str:
        """Return the cluster that the set is of, empty where nobody can tell."""
        with contextlib.suppress(PgopsError):
            here = self._local.stored_manifest(set_id) is not None
            return (self._local if here else self._remote).manifest(set_id).system_identifier
        return ""

    def _facts(self, set_id: str, pinned: bool) -> SetFacts:
        begun = parse_iso("%s-%s-%sT%s:%s:%s+00:00" % _digits(set_id))
        parent, verified = None, False
        with contextlib.suppress(PgopsError):
            if self._local.stored_manifest(set_id) is not None:
                manifest = self._local.manifest(set_id)
                begun, parent = manifest.begun, manifest.parent
                state = standing(
                    self._remote.proofs, set_id=set_id, content=self._local.content(set_id), place=self._place.name
                )
                verified = is_verified(state)
            else:
                verified = self._remote.verified(set_id)
                parent = self._remote.manifest(set_id).parent if set_id.endswith("-incremental") else None
        physical = is_physical(set_id)
        return SetFacts(set_id, begun, verified=verified, pinned=pinned, parent=parent, physical=physical)

    def _perform(self, step: Step) -> None:
        if step.action == "skip":
            return
        if step.action == "alarm":
            self._done.alarm(self._context, step.set_id, step.reason)
            return
        parent = self._parent(step.set_id)
        if parent is not None and any(parent == bad for bad, _why in self._done.alarms):
            self._done.alarm(self._context, step.set_id, "%s, which it builds on, could not be brought there" % parent)
            return
        reporter = self._context.reporter
        reporter.phase("%s %s" % (step.action, step.set_id), step.size)
        try:
            self._send(step)
        except (DamagedError, MissingError) as error:
            if isinstance(error, SourceError) and step.action != "push" and not step.manifest:
                self._done.pullable.append(step.set_id)
            self._done.alarm(self._context, step.set_id, str(error))
        finally:
            reporter.done()

    def _send(self, step: Step) -> None:
        set_id, local = step.set_id, self._context.local
        files = self._local.manifest(set_id).files if step.files is None else step.files
        jobs = [(f, local.path("%s/%s/%s" % (SETS, set_id, f.path))) for f in files]
        # What has the right size there is compared by content first.
        stored = self._remote.files(set_id)
        present = {f.path for f in files if f.path in stored and stored[f.path].size == f.size}
        tally = self._place.upload_all(set_id, jobs, present=present, progress=self._context.reporter.advance)
        self._done.files_sent += len(tally.sent)
        self._done.bytes_sent += tally.bytes_sent
        self._done.files_skipped += len(tally.skipped)
        if step.manifest:
            encoded = local.read("%s/%s/%s" % (SETS, set_id, NAME))
            self._place.publish(set_id, encoded)
            self._done.files_sent += 1
            self._done.bytes_sent += len(encoded)
        if step.action == "push":
            self._done.sets.append(set_id)
            self._check_parent(set_id)
        elif not tally.sent and not step.manifest:
            self._done.already += 1
        else:
            names = [f.path for f in tally.sent] + ([NAME] if step.manifest else [])
            self._done.repaired.append({"set": set_id, "files": names, "why": step.reason})
            self._context.warn("%s was repaired in %s: %s." % (set_id, self._place.root, step.reason))
        self._prove(set_id)

    def _check_parent(self, set_id: str) -> None:
        """Raise DamagedError if what the set builds on went meanwhile: another node may prune there, which holds another lock."""
        parent = self._parent(set_id)
        if parent is not None and "%s/%s/%s" % (SETS, parent, NAME) not in self._place.entries(
            "%s/%s" % (SETS, parent)
        ):
            raise DamagedError("%s, which it builds on, was removed there meanwhile: push again" % parent)

    def _prove(self, set_id: str) -> None:
        """See by one listing that the set is whole there, and remember it."""
        prefix = "%s/%s" % (SETS, set_id)
        stored = {path[len(prefix) + 1 :]: entry for path, entry in self._place.entries(prefix).items()}
        for entry in self._local.manifest(set_id).files:
            if entry.path not in stored or stored[entry.path].size != entry.size:
                raise DamagedError("%s/%s vanished or changed its size after it was sent." % (prefix, entry.path))
        self._memory.put(set_id, self._local.content(set_id), _listing(stored), self._tag(set_id))

    def _tag(self, set_id: str) -> str:
        entry = self._local.stored_manifest(set_id)
        return "" if entry is None else entry.tag

    def _send_evidence(self, published: Collection[str]) -> None:
        missing = self._missing_evidence(published)
        for path in missing:
            self._memory.evidence.discard(path)
        for path in missing:
            self._place.write(path, self._context.local.read(path))
            self._memory.evidence.add(path)
            self._done.evidence_sent += 1

    def _missing_evidence(self, published: Collection[str]) -> list[str]:
        """Return the evidence about the sets `published` that only this side has.

        The place is asked where there is some that it was not known to have, or where other work was to be done anyway.
        """
        mine = [p.path for p in self._own_proofs if p.set_id in published]
        known = self._memory.evidence = self._memory.evidence.intersection(mine)
        if not self._works() and len(known) == len(mine):
            return []
        there = {entry.path for entry in self._place.listing(EVIDENCE)} if mine else set()
        known.update(path for path in mine if path in there)
        return [path for path in mine if path not in there]

    def _works(self) -> bool:
        """Tell whether anything is to be sent or compared."""
        return any(step.action not in ("skip", "alarm") for step in self._done.plan)

    def _clear_stale(self) -> None:
        """Give up what nobody took up, where anything was to be sent: a sync with nothing to do shall stay at one request."""
        if not self._works():
            return
        try:
            self._done.aborted = self._place.abort_stale_uploads(self._context.clock() - _STALE)
        except PgopsError as error:
            self._context.warn("Unfinished uploads in %s were not looked for: %s" % (self._place.root, error.message))
        if self._done.aborted:
            self._context.warn(
                "%d unfinished uploads older than %d days were given up in %s."
                % (len(self._done.aborted), _STALE.days, self._place.root)
            )


def _listing(stored: Mapping[str, Entry]) -> str:
    """Return a digest of what a listing says about a set: it changes whenever one of its files does."""
    lines = "".join("%s\0%d\0%s\n" % (path, e.size, e.tag) for path, e in sorted(stored.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _decodes(encoded: bytes, set_id: str) -> Optional[Manifest]:
    try:
        return decode(encoded, set_id=set_id)
    except DamagedError:
        return None


def _digits(set_id: str) -> tuple[str, ...]:
    return tuple(set_id[a:b] for a, b in ((0, 4), (4, 6), (6, 8), (9, 11), (11, 13), (13, 15)))


__all__ = ("Push",)
