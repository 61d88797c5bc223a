# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verb verify: prove sets at a level, and keep the evidence where the set lies."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from .. import __version__
from ..context import Context
from ..core.errors import (
    NO_SPACE,
    CommandError,
    DamagedError,
    MissingError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ..core.manifest import NAME, Base, Manifest
from ..core.naming import is_physical, is_set_id
from ..core.sizes import human_size
from ..core.times import iso
from ..places.base import SETS
from ..places.catalog import Catalog
from ..places.chains import chain_of, problem
from ..places.evidence import FAILED, LEVELS, PASSED, UNDECIDED, store
from ..places.local import LocalPlace
from ..postgres.base_reading import check_base
from ..postgres.throwaway import account_of, claimed, clear_abandoned
from ..postgres.tools import pick
from ..source import Source
from .backup import KIND
from .base_rehearsal import rehearse_base
from .rehearsal import Rehearsal, as_said, rehearse
from .structure import check_structure
from .turn import Turn, whose_turn
from .verify_wal import verify_wal

_NO_ROOM = "Make room on this host's disk, or set work_dir to a larger one; then verify again."
_LACKING = (
    "Give this host what it lacks, or verify on another one; level restore needs a set's fingerprint and globals."
)


@dataclass(frozen=True)
class Request:
    """Which sets of which place to prove, and how deep.

    `sets` are ids, `latest` (of dumps, and of base backups unless that is proven already), `all`, or `unverified`
    (those without a pass at the level or deeper that no later failure contradicts); an empty `level` and place `auto` are
    the configuration's.
    """

    place: str = "auto"
    sets: tuple[str, ...] = ("latest",)
    level: str = ""
    dry_run: bool = False


def verify(context: Context, request: Request) -> dict[str, Any]:
    """Prove the sets of `request` and store evidence of each.

    Result: `place`, `level`, `sets` (list of {set, outcome, level, asked, seconds, phases, findings, remarks, checked,
    evidence}), and where there are base backups and WAL, `wal` (see verify_wal()). A dry run has `plan` instead of `sets`. In a
    group of servers only the chosen node verifies the S3 place, unless sets are named by their ids; the result of the others
    has `skipped`, which says who does.
    Raise DamagedError when a set or WAL failed, UnreachableError when
    this host could not tell, or a place is gone, UsageError for a wrong key; their `details` have the same keys.
    """
    level = request.level or context.config.verify.level
    if level not in LEVELS:
        raise UsageError("%r is no level of verification." % level, hint="Use one of %s." % ", ".join(LEVELS))
    name = request.place if request.place != "auto" else context.config.verify.place
    place = context.place(name)
    dry = request.dry_run
    if context.wait:
        # Who takes its time, as a schedule does, wants the newest set; the run that brings it may still be at work.
        with context.lock("sync" if place.name == "s3" else "backup", shared=True, dry_run=dry):
            pass
    with context.lock("sets", shared=True, dry_run=dry), context.lock("verify", dry_run=dry):
        turn = Turn()
        if place.name == "s3" and not any(is_set_id(name) for name in request.sets):
            turn = whose_turn(context)
            if not turn.mine:
                return turn.skipped()
        catalog = Catalog(place)
        chosen = _choose(context, catalog, request, level)
        if request.dry_run:
            plan = [{"set": s, "bytes": catalog.stored_bytes(s), "level": level} for s in chosen]
            planned = {"changed": bool(chosen), "place": place.name, "level": level, "plan": plan, **turn.facts}
            return _with_wal(context, catalog, request, chosen, planned)
        if level == "restore":
            account_of(context)  # a wrong verify.run_as is no matter of a set
        clear_abandoned(context)
        result = {"changed": False, "place": place.name, "level": level, "sets": [], **turn.facts}
        _verify_all(context, catalog, chosen, result)
        result = _with_wal(context, catalog, request, chosen, result)
    _judge(place.root, result)
    return result


def _verify_all(context: Context, catalog: Catalog, chosen: list[str], result: dict[str, Any]) -> None:
    """Fill `result` with a report of each set; what ends the run early brings the reports so far along."""
    for set_id in chosen:
        try:
            result["sets"].append(_verify_one(context, catalog, set_id, result["level"]))
            result["changed"] = True
        except PgopsError as error:
            error.details = result
            raise


def _with_wal(
    context: Context, catalog: Catalog, request: Request, chosen: list[str], result: dict[str, Any]
) -> dict[str, Any]:
    """Return `result` with what reading the WAL archive showed, where base backups are asked about and there is any."""
    named = all(is_set_id(name) for name in request.sets or ("latest",))
    if not any(is_physical(s) for s in chosen) and (named or not context.config.wal.enabled):
        return result
    try:
        read = verify_wal(context, catalog.place, catalog, dry_run=request.dry_run)
    except PgopsError as error:
        error.details = result
        if not any(report["outcome"] == FAILED for report in result.get("sets", ())):
            raise
        # That sets are damaged is the graver news.
        context.warn("The WAL archive in %s was not verified: %s" % (catalog.place.root, error))
        return result
    if read is None:
        return result
    return {**result, "changed": result["changed"] or bool(read["read"]), "wal": read}


def _judge(root: str, result: dict[str, Any]) -> None:
    """Raise DamagedError if a set or WAL failed, UnreachableError if a set could not be proven."""
    reports = result["sets"]
    failed = [r for r in reports if r["outcome"] == FAILED]
    said, hints = [], []
    if failed:
        findings = "\n".join("  - %s: %s" % (r["set"], f) for r in failed for f in r["findings"])
        said.append("%d of %d sets in %s failed the verification:\n%s" % (len(failed), len(reports), root, findings))
        hints.append("Do not rely on them: make a new backup, and compare with the other place (pgops sync).")
    wal = result.get("wal") or {}
    if wal.get("found"):
        findings = "\n".join("  - %s" % one["problem"] for one in wal["damaged"])
        said.append("WAL in %s failed the verification:\n%s" % (root, findings))
        hints.append(
            "No recovery from there gets across it: take a new base backup (pgops backup --kind base). What the spool still "
            "has whole, pgops wal ship sends again."
        )
    if said:
        error = DamagedError("\n".join(said), hint=" ".join(hints))
        error.details = result
        raise error
    undecided = [r for r in reports if r["outcome"] == UNDECIDED]
    if undecided:
        reasons = "\n".join("  - %s: %s" % (r["set"], remark) for r in undecided for remark in r["remarks"])
        unable = UnreachableError(
            "%d of %d sets could not be proven, which is no verdict on them:\n%s"
            % (len(undecided), len(reports), reasons),
            hint=_NO_ROOM if NO_SPACE in reasons else _LACKING,
        )
        unable.details = result
        raise unable


def _choose(context: Context, catalog: Catalog, request: Request, level: str) -> list[str]:
    chosen: list[str] = []
    for wanted in request.sets or ("latest",):
        if wanted == "all":
            found = catalog.ids()
        elif wanted == "unverified":
            found = [s for s in catalog.ids() if not _passed(catalog, s, level)]
        elif wanted == "latest":
            found = _newest(context, catalog, level)
        else:
            found = [catalog.find(wanted, context.clock(), warn=context.warn)]
        chosen += [s for s in found if s not in chosen]
    return chosen


def _newest(context: Context, catalog: Catalog, level: str) -> list[str]:
    """Return the newest set, and the newest of the other family (dumps, base backups) unless that has passed at `level`."""
    newest = catalog.find("latest", context.clock(), warn=context.warn)
    other = next((s for s in catalog.past(context.clock()) if is_physical(s) != is_physical(newest)), None)
    return [newest] if other is None or _passed(catalog, other, level) else [newest, other]


def _passed(catalog: Catalog, set_id: str, level: str) -> bool:
    """Tell whether the set passed at `level` or deeper in this place, and failed at no level there since."""
    proofs = [p for p in catalog.proofs if p.set_id == set_id and p.place == catalog.place.name]
    if not proofs:
        return False
    try:
        content = catalog.content(set_id)
    except PgopsError:
        return False
    deep = LEVELS[LEVELS.index(level) :]
    proofs = [p for p in proofs if p.content == content]
    passed = [p.when for p in proofs if p.outcome == PASSED and p.level in deep]
    return bool(passed) and not any(p.outcome == FAILED and p.when >= max(passed) for p in proofs)


class _WrongKeyError(UsageError):
    """The private key does not open this set. That says nothing about the set, and somebody must bring another key."""


@dataclass
class _Report:
    findings: list[str]
    remarks: list[str]
    phases: dict[str, float]
    checked: dict[str, Any]
    level: str = ""
    outcome: str = PASSED
    short: bool = False  # it passed, but this host could not go as deep as was asked
    # What is wrong with sets that this one builds on, by their ids: they failed, too, and all else that builds on them.
    faulty: dict[str, list[str]] = field(default_factory=dict)

    def blame(self, link: str, last: str, found: Sequence[str]) -> None:
        """Keep what was found in `link` of the chain of the set `last`."""
        if found:
            self.outcome = FAILED
            self.findings += found if link == last else ["%s: %s" % (link, text) for text in found]
            if link != last:
                self.faulty.setdefault(link, []).extend(found)

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        tick = time.monotonic()
        try:
            return work()
        finally:
            self.phases[phase] = round(self.phases.get(phase, 0.0) + time.monotonic() - tick, 3)


def _verify_one(context: Context, catalog: Catalog, set_id: str, asked: str) -> dict[str, Any]:
    started, tick = context.clock(), time.monotonic()
    report = _Report([], [], {}, {})
    context.reporter.note("verifying %s in %s (%s)" % (set_id, catalog.place.root, asked))
    content = ""
    try:
        content = catalog.content(set_id)
        source = Source(context, catalog, set_id, identity_file=context.config.restore.identity_file)
        _climb(context, source, asked, report)
    except (DamagedError, MissingError) as error:
        report.outcome = FAILED
        report.findings.append(error.message)
    except _WrongKeyError:
        raise
    except (PgopsError, OSError) as error:
        # A fault of this host or of the way to the place. If the place is gone, keeping the evidence ends the run.
        report.outcome = UNDECIDED
        report.remarks.append(as_said(context, error))
    facts = {
        "set": set_id,
        "content": content or "0" * 64,
        "place": catalog.place.name,
        "root": catalog.place.root,
        "instance": context.config.instance,
        "asked": asked,
        "level": report.level or "checksum",
        "outcome": report.outcome,
        "started": iso(started),
        "finished": iso(context.clock()),
        "seconds": round(time.monotonic() - tick, 3),
        "phases": report.phases,
        "checked": report.checked,
        "findings": report.findings,
        "remarks": report.remarks,
        "host": context.host,
        "engine": __version__,
    }
    for link, found in report.faulty.items():
        alone = {"set": link, "content": catalog.content(link), "phases": {}, "checked": {}, "remarks": []}
        said = {"outcome": FAILED, "findings": ["Found while %s was verified: %s" % (set_id, text) for text in found]}
        store(catalog.place, context.redactor.data({**facts, **alone, **said}))
    for remark in report.remarks:
        context.warn("%s: %s" % (set_id, remark))
    evidence = store(catalog.place, context.redactor.data(facts))
    return {**facts, "outcome": UNDECIDED if report.short else report.outcome, "evidence": evidence}


def _climb(context: Context, source: Source, asked: str, report: _Report) -> None:
    """Go from level to level up to `asked`; stop where one fails or cannot be decided here."""
    with context.scratch("verify") as folder, claimed(context, folder):
        report.level = "checksum"
        chain = _chain(source, report)
        if asked == "checksum" or not all(_readable(link, report) for link in chain):
            report.timed("checksum", lambda: _check_sums(chain, report))
            return
        if source.manifest.kind != KIND and source.manifest.base is None:
            raise DamagedError("The manifest of %s describes no base backup." % source.set_id)
        if source.manifest.base is not None:  # read where it lies: fetched and unpacked, it would need twice the room
            report.timed("checksum", lambda: _check_sums(chain, report))
            if not report.findings:
                _climb_base(context, chain, source.manifest.base, asked, folder, report)
            return
        staged = report.timed("fetch", lambda: _stage(context, source, folder, report))
        report.timed("checksum", lambda: _check_sums([staged], report))
        if report.findings:
            return
        if not isinstance(staged.place, LocalPlace) and any(
            d.dump.format == "directory" for d in staged.manifest.databases
        ):
            report.remarks.append("Dumps in directory format cannot be read as a stream: only checksums were verified.")
            report.short = True
            return
        report.level = "structure"
        programs, _warnings = pick(
            context.runner,
            context.config.postgres.bin_dir,
            major=int(source.manifest.tools["pg_dump"].split(".")[0]),
            needed=("pg_restore",),
        )
        report.findings += report.timed("structure", lambda: check_structure(staged, programs))
        if report.findings:
            report.outcome = FAILED
        elif asked == "restore":
            report.level = "restore"
            _rehearse(context, staged, folder, report)


def _chain(source: Source, report: _Report) -> list[Source]:
    """Return the set and, before it, what it builds on: without all of them it restores nothing."""
    if source.manifest.parent is None:
        return [source]
    try:
        manifests = chain_of(source.catalog, source.set_id)
    except DamagedError:
        report.faulty.update(_not_whole(source.catalog, source.set_id))
        raise
    report.checked["chain"] = [manifest.id for manifest in manifests]
    key = source.identity_file
    return [Source(source.context, source.catalog, m.id, identity_file=key) for m in manifests[:-1]] + [source]


def _not_whole(catalog: Catalog, set_id: str) -> dict[str, list[str]]:
    """Return which of the sets that `set_id` builds on miss files of their own, as far as they can be read."""
    found: dict[str, list[str]] = {}
    parent = catalog.manifest(set_id).parent
    with contextlib.suppress(DamagedError, MissingError, UsageError):
        while parent is not None and parent not in found:
            manifest = catalog.manifest(parent)
            missing = problem(catalog, manifest)
            found[parent] = [missing] if missing else []
            parent = manifest.parent
    return {link: texts for link, texts in found.items() if texts}


def _climb_base(
    context: Context, chain: Sequence[Source], base: Base, asked: str, folder: Path, report: _Report
) -> None:
    report.level = "structure"
    parent: Optional[Manifest] = None
    for link in chain:
        if link.manifest.base is None:
            raise DamagedError("The manifest of %s describes no base backup." % link.set_id)
        try:
            found = report.timed("structure", functools.partial(check_base, link, link.manifest.base, parent))
        except (DamagedError, MissingError) as error:
            found = [error.message]
        report.blame(link.set_id, chain[-1].set_id, found)
        parent = link.manifest
    if not report.findings and asked == "restore":
        report.level = "restore"
        _settle(report, rehearse_base(context, chain, base, folder))


def _readable(source: Source, report: _Report) -> bool:
    """Tell whether the payloads can be opened here; without the key an encrypted set can only be held against its hashes."""
    if source.manifest.encryption == "none" or source.identity_file:
        try:
            source.check_key()
        except UsageError as error:
            raise _WrongKeyError(error.message, hint=error.hint) from None
        except CommandError:
            return True  # who reads the payloads will tell
        return True
    report.remarks.append("The set is encrypted and there is no key here: only its checksums were verified.")
    return False


def _check_sums(chain: Sequence[Source], report: _Report) -> None:
    """Hold each file of the chain against its manifest, also of the sets behind one that is damaged."""
    ways: dict[str, int] = {}
    for source in chain:
        context, manifest = source.context, source.manifest
        context.reporter.phase("checksums of %s" % source.set_id, manifest.size)
        try:
            for file in manifest.files:
                way = source.place.check_file(source.set_id, file, progress=context.reporter.advance)
                ways[way] = ways.get(way, 0) + 1
        except (DamagedError, MissingError) as error:
            report.blame(source.set_id, chain[-1].set_id, [error.message])
        finally:
            context.reporter.done()
        known = {f.path for f in manifest.files} | {NAME}
        more = sorted(set(source.catalog.files(source.set_id)) - known)
        if more:
            report.remarks.append("Files that the manifest does not know: %s." % ", ".join(more[:5]))
    report.checked["files"] = sum(len(source.manifest.files) for source in chain)
    report.checked["bytes"] = sum(source.manifest.size for source in chain)
    report.checked["how"] = ways


def _stage(context: Context, source: Source, folder: Path, report: _Report) -> Source:
    """Return the set as a local one: itself, or fetched into `folder` where there is room for it; else as it is."""
    if isinstance(source.place, LocalPlace):
        return source
    if not source.fits(folder, source.manifest.size):
        report.remarks.append(
            "There is no room to fetch %s; the set was read as a stream." % human_size(source.manifest.size)
        )
        return source
    place = LocalPlace(folder / "staged", context.config.instance)
    context.reporter.phase("fetching %s" % source.set_id, source.manifest.size)
    with place.new_set(source.set_id) as target:
        for file in source.manifest.files:
            path = target / file.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            source.place.fetch(source.set_id, file, path, progress=context.reporter.advance)
        (target / NAME).write_bytes(source.place.read("%s/%s/%s" % (SETS, source.set_id, NAME)))
    context.reporter.done()
    return Source(context, Catalog(place), source.set_id, identity_file=source.identity_file)


def _rehearse(context: Context, source: Source, folder: Path, report: _Report) -> None:
    _settle(report, rehearse(context, source, folder))


def _settle(report: _Report, outcome: Rehearsal) -> None:
    report.phases.update(outcome.phases)
    report.checked.update(outcome.checked)
    report.remarks += outcome.remarks + outcome.cannot
    report.findings += outcome.findings
    if outcome.findings:
        report.outcome = FAILED
    elif outcome.cannot:
        # This host cannot tell: that says nothing about the set, and must not look like a pass.
        report.outcome = UNDECIDED


__all__ = ("Request", "verify")
