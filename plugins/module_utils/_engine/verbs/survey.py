# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Look at several places at once: each one's catalog with the proofs of all, and what retention makes of it.

A proof made in one place counts in the others, as the content is the same. So what a place that is out of reach has
proven must not be forgotten: the proofs of each place are remembered in the state directory while it answers. Nor what was
proven in the bucket, or at the path, that was the place before, also where none took its turn.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from ..context import Context
from ..core.errors import PgopsError, UnreachableError, UsageError
from ..core.json_text import to_json
from ..core.naming import is_set_id
from ..core.retention import Plan, SetFacts, plan
from ..core.times import iso, parse_iso
from ..places.base import Place
from ..places.catalog import Catalog
from ..places.evidence import PASSED, Proof, proofs
from ..settings import Retention
from ..system.durable import make_dirs, write_bytes
from ..wal.holdings import Held, compare, look
from ..wal.proofs import remembered

NAMES = ("local", "s3")
_MOST_EARLIER = 200  # proofs of earlier places; a set of theirs that is still here was proven by one of the newest


@dataclass
class Surveyed:
    """One place: its catalog, or what kept us from reading it. `damaged` are sets whose manifest cannot be read.

    `state` is the directory that remembers what reading its WAL has shown, `others` are the places that were looked at as well.
    """

    name: str
    root: str
    place: Optional[Place] = None
    catalog: Optional[Catalog] = None
    trouble: Optional[PgopsError] = None
    facts: list[SetFacts] = field(default_factory=list)
    damaged: dict[str, PgopsError] = field(default_factory=dict)
    pins: list[str] = field(default_factory=list)
    wal: Optional[Held] = None
    beside: Optional[Surveyed] = None
    state: Optional[Path] = None
    others: list[Surveyed] = field(default_factory=list, repr=False)

    def held(self, hear: Callable[[str], None]) -> Held:
        """Return the WAL of the place and its recoverable windows, looked up once; `hear` is told of what cannot be read."""
        if self.wal is None:
            if self.trouble is not None:
                self.wal = Held(error=str(self.trouble))
            elif self.place is None or self.catalog is None:
                self.wal = Held()
            else:
                beside = self.beside.held(hear) if self.beside else None
                known = remembered(self.state, self.name, self.root) if self.state is not None else {}
                self.wal = look(self.place, self.catalog, hear, beside, known)
            # What one place says of a timeline, another may deny.
            compare([self.wal, *(other.held(hear) for other in self.others)])
        return self.wal

    @property
    def damaged_chain(self) -> str:
        """The newest unreadable set that may build on older ones; its chain is unknown. Empty when there is none."""
        return max((s for s in self.damaged if s.endswith("-incremental")), default="")


def configured(context: Context) -> tuple[str, ...]:
    """Return the names of the places that the configuration has."""
    return NAMES if context.config.s3 is not None else NAMES[:1]


def chosen(context: Context, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the `wanted` places, all configured ones when empty. Raise UsageError for an unknown one."""
    for name in wanted:
        if name not in configured(context):
            raise UsageError(
                "There is no place %r in the configuration." % (name,),
                hint="It has: %s." % ", ".join(configured(context)),
            )
    return tuple(name for name in configured(context) if not wanted or name in wanted)


def rules(context: Context, name: str) -> Retention:
    """Return the retention rules of the place `name`."""
    if name == "s3" and context.config.s3 is not None:
        return context.config.s3.retention
    return context.config.local.retention


def survey(
    context: Context, wanted: Sequence[str] = (), *, remember: bool = False, alone: bool = False
) -> list[Surveyed]:
    """Return what the `wanted` places hold; a place that cannot be read says so in `trouble`.

    Proofs come from every configured place, wanted or not; with `alone` the others are not asked, and what they proved is
    as it was remembered. With `remember` proofs are kept for the day on which a place does not answer.
    """
    names = chosen(context, wanted)
    found: list[Surveyed] = []
    # What was proven in a place that the configuration has no more counts on.
    known = {name: _remembered(context.state, name) for name in NAMES if name not in configured(context)}
    earlier: list[Proof] = []
    for name in configured(context):
        surveyed = Surveyed(name, _root(context, name), state=context.state)
        if alone and name not in names:
            known[name] = _remembered(context.state, name)
            continue
        try:
            surveyed.place = context.place(name)
            surveyed.root = surveyed.place.root
            known[name] = proofs(surveyed.place)
            before = _earlier(context, name, known[name])
            earlier += [proof for _where, proof in before]
            if remember:
                _remember(context, name, known[name], before)
        except PgopsError as error:
            surveyed.trouble = error
            known[name] = _remembered(context.state, name)
        except OSError as error:
            surveyed.trouble = UnreachableError("%s cannot be read: %s." % (surveyed.root, error))
            known[name] = _remembered(context.state, name)
        if name in names:
            found.append(surveyed)
    for surveyed in found:
        surveyed.others = [other for other in found if other is not surveyed]
        # The host knows when WAL was written; S3, when it came.
        surveyed.beside = next((one for one in found if one.name == "local" and surveyed.name != "local"), None)
        if surveyed.trouble is None:
            others = (p for name, held in known.items() if name != surveyed.name for p in held)
            _read(surveyed, (*others, *earlier))
    return found


def decide(surveyed: Surveyed, context: Context) -> Plan:
    """Return what the rules of the place decide about its readable sets; unreadable ones are not in the plan.

    An unreadable incremental set may build on any older base or incremental set, so those count as pinned.
    """
    chain = surveyed.damaged_chain
    facts = [
        dataclasses.replace(f, pinned=True) if chain and f.id < chain and not f.id.endswith("-logical") else f
        for f in surveyed.facts
    ]
    return plan(facts, rules(context, surveyed.name), context.clock())


def _root(context: Context, name: str) -> str:
    """Return how a person calls the place, for the case that it cannot even be opened."""
    if name == "s3" and context.config.s3 is not None:
        parts = (context.config.s3.bucket, context.config.s3.prefix.strip("/"), context.config.instance)
        return "s3://%s" % "/".join(part for part in parts if part)
    return context.local.root


def _read(surveyed: Surveyed, more: tuple[Proof, ...]) -> None:
    if surveyed.place is None:
        return
    try:
        catalog = Catalog(surveyed.place, more_proofs=more)
        surveyed.pins = [name for name in catalog.pins() if is_set_id(name)]
        for set_id in catalog.ids():
            try:
                manifest = catalog.manifest(set_id)
            except UnreachableError:
                raise
            except PgopsError as error:
                surveyed.damaged[set_id] = error
                continue
            surveyed.facts.append(
                SetFacts(
                    set_id,
                    manifest.begun,
                    verified=catalog.verified(set_id),
                    pinned=set_id in surveyed.pins,
                    parent=manifest.parent,
                    physical=manifest.base is not None,
                    system=manifest.system_identifier,
                )
            )
        surveyed.catalog = catalog
    except PgopsError as error:
        surveyed.trouble = error
    except OSError as error:
        surveyed.trouble = UnreachableError("%s cannot be read: %s." % (surveyed.root, error))


# --- what a place proved when it last answered ------------------------------------------------------------------------


def _memory(state: Path, name: str) -> Path:
    return state / "proofs" / ("%s.json" % name)


def _whereabouts(context: Context, name: str) -> str:
    """Return what tells a place from the one that was there before: the directory, or the bucket and its store."""
    store = context.config.s3.endpoint_url if name == "s3" and context.config.s3 is not None else ""
    return " ".join(part for part in (_root(context, name), store) if part)


def _remember(context: Context, name: str, held: list[Proof], before: list[tuple[str, Proof]]) -> None:
    path, here = _memory(context.state, name), _whereabouts(context, name)
    entries = [*before, *((here, proof) for proof in held)]
    content = to_json([{**dataclasses.asdict(p), "when": iso(p.when), "where": where} for where, p in entries])
    try:
        make_dirs(path.parent)
        write_bytes(path, content)
    except OSError as error:
        # On a full disk, pruning is what helps; the memory can wait.
        context.warn("The proofs of the place %s could not be remembered in %s: %s." % (name, path, error.strerror))


def _remembered(state: Path, name: str) -> list[Proof]:
    return [proof for _where, proof in _entries(state, name)]


def _earlier(context: Context, name: str, held: list[Proof]) -> list[tuple[str, Proof]]:
    """Return what was proven where the place was before, the newest, but for what it has `held`; a failure was one of the copy there."""
    here, known = _whereabouts(context, name), set(held)
    found = [
        (where, proof)
        for where, proof in _entries(context.state, name)
        if where != here and proof.outcome == PASSED and proof not in known
    ]
    return sorted(found, key=lambda entry: (entry[1].when, entry[1].set_id))[-_MOST_EARLIER:]


def _entries(state: Path, name: str) -> list[tuple[str, Proof]]:
    """Return where each remembered proof was made, empty where an older version did not say, and the proof."""
    try:
        data: list[dict[str, Any]] = json.loads(_memory(state, name).read_text(encoding="utf-8"))
        return [(str(e.pop("where", "")), Proof(**{**e, "when": parse_iso(e["when"])})) for e in data]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PgopsError):
        return []


__all__ = ("NAMES", "Surveyed", "chosen", "configured", "decide", "rules", "survey")
