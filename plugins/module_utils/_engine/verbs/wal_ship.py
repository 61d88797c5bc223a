# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Ship: archived WAL from the local spool to S3, several files at once. What S3 does not take stays here and goes later."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Optional

from ..context import Context
from ..core.errors import DamagedError, MissingError, PgopsError, RefusedError, UnreachableError
from ..core.manifest import File
from ..core.segments import HISTORY, kind, order, parse_stored
from ..core.times import human_span, iso, parse_span
from ..core.wal_proof import Read, problem_of
from ..core.window import Base
from ..places.base import Entry
from ..places.catalog import Catalog
from ..places.s3 import S3Place
from ..runs import perform
from ..wal.holdings import bases_of, lineages, spare
from ..wal.proofs import mark_of, problem_in, remember, remembered
from ..wal.shipping import keep_state, last_state
from ..wal.spool import TREE, opened, read_file, sha256
from ..wal.spool import lineages as local_lineages
from ..wal.spool import names as local_names

Result = dict[str, Any]
# So much is known to be in S3 whenever a batch has ended.
_BATCH = 32
# What somebody else removed from the bucket is sent again at the latest after this.
_LOOK_AGAIN = timedelta(hours=1)
_NAMED = 10


@dataclass(frozen=True)
class Request:
    """Whether to go on until somebody ends it, and whether only to show what would be sent."""

    loop: bool = False
    dry_run: bool = False


def ship(context: Context, request: Request, *, sleep: Callable[[float], object] = time.sleep) -> Result:
    """Send what S3 does not have, clear the spool of what need not stay, and return what was done.

    Raise UnreachableError when S3 cannot be reached; at the end DamagedError if a file of the spool is damaged, RefusedError if
    S3 has other content under its name; nothing is lost then. With `loop` it returns when it is interrupted; a failure is
    recorded and told once, and again when it is over. Raise BusyError while another one ships.
    """
    shipping = _Shipping(context)
    if request.dry_run:
        pending = shipping.pending()
        if shipping.contested:
            context.warn(shipping.contradiction().message)
        told = _told(context, [*pending, *shipping.contested])
        return {"changed": bool(pending), **told, "sent": len(pending), "removed": 0}
    with context.lock("wal-ship"):
        failed = str(last_state(context).get("error") or "")
        if request.loop:
            return _forever(context, shipping, sleep, failed)
        try:
            result = shipping.once()
        except PgopsError as error:
            if str(error) != failed:
                _record(context, error, {})
            raise
        if failed:
            _record(context, None, result)
        return result


def _forever(context: Context, shipping: _Shipping, sleep: Callable[[float], object], failed: str) -> Result:
    every, said = parse_span(context.config.wal.ship_every).total_seconds(), ""
    total: Result = {"sent": 0, "sent_bytes": 0, "removed": 0, "removed_bytes": 0}
    result: Result = {"pending": 0, "pending_bytes": 0, "pending_since": None}
    try:
        while True:
            began = time.monotonic()
            try:
                result = shipping.once()
            except PgopsError as error:
                result = {**result, **error.details}
                if str(error) != failed:
                    _record(context, error, {})
                if str(error) != said:  # the journal of a service that has just begun is to have it, too
                    context.reporter.alarm("warning: %s" % context.redactor.text(str(error)))
                failed = said = str(error)
            else:
                if failed:
                    _record(context, None, result)
                    context.reporter.note("S3 takes WAL again.")
                failed = said = ""
            context.warnings.clear()
            for key in total:
                total[key] += result.get(key, 0)
            # A store that is away is not asked more often than it takes to be told so.
            sleep(max(every, time.monotonic() - began if failed else 0.0))
    except KeyboardInterrupt:
        # That is how a service ends; what was not sent yet waits in the spool.
        return {**result, **total, "changed": bool(total["sent"] or total["removed"])}


def _record(context: Context, error: Optional[PgopsError], result: Result) -> None:
    """Leave a record of a change of fortune: one of each call would push those of the nights out of the history."""

    def work(_context: Context) -> Result:
        if error is not None:
            raise error
        return result

    try:
        perform(context, "wal-ship", work)
    except PgopsError:
        return


@dataclass
class _Shipping:
    """What one process knows about both sides.

    `known` is what S3 has, whole as far as can be seen, by path; `held` are the hashes that it has of each WAL file (its path but
    for the hash). `contested` are the paths here of which it has other content, `doubted` what it has in another size.
    """

    context: Context
    place: S3Place = field(init=False)
    known: dict[str, Entry] = field(default_factory=dict)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)
    read: dict[str, Read] = field(default_factory=dict)
    doubted: dict[str, Entry] = field(default_factory=dict)
    here: list[str] = field(default_factory=list)
    contested: list[str] = field(default_factory=list)
    spared: set[str] = field(default_factory=set)
    looked: Optional[datetime] = None

    def __post_init__(self) -> None:
        self.place = self.context.s3()

    @property
    def home(self) -> Path:
        return self.context.local.home

    def pending(self) -> list[str]:
        """Return the paths in the spool that S3 does not have and may get, in the order of the log."""
        self.look()
        self.here = self._here()
        waiting = sorted(
            (path for path in self.here if path not in self.known and path not in self.spared),
            key=lambda path: order(_name(path)),
        )
        self.contested = [path for path in waiting if self._is_contested(path)]
        return [path for path in waiting if not self._is_contested(path)]

    def look(self) -> None:
        """List S3 where that is due."""
        now = self.context.clock()
        if self.looked is not None and timedelta(0) <= now - self.looked < _LOOK_AGAIN:
            return
        there = self._asked(lambda: self.place.entries(TREE))
        try:
            catalog = Catalog(self.place)
            bases, unread = bases_of(catalog, catalog.ids())
        except MissingError as error:
            raise UnreachableError(error.message, hint=error.hint) from error
        self.read = remembered(self.context.state, self.place.name, self.place.root)
        self.known, self.held, self.doubted = {}, {}, {}
        self._learn(there)
        # What a prune has removed there, or would, is not sent again.
        self.spared = set() if unread else self._unneeded(bases)
        self.looked = now

    def _asked(self, listing: Callable[[], dict[str, Entry]]) -> dict[str, Entry]:
        try:
            return listing()
        except MissingError as error:
            raise UnreachableError(error.message, hint=error.hint) from error

    def _learn(self, there: dict[str, Entry]) -> None:
        home = str(self.home)
        for path, entry in there.items():
            if _name(path):
                self._hold(path)
            # What a verification found damaged there is sent again, where the spool still has it.
            if path in self.read and problem_of(path, mark_of(entry), self.read):
                continue
            if self._looks_whole(entry, home):
                self.known[path] = entry
            else:
                self.doubted[path] = entry

    def _hold(self, path: str) -> None:
        which, _dash, digest = _split(path)
        held = self.held.get(which, ())
        if digest not in held:
            self.held[which] = (*held, digest)

    def _is_contested(self, path: str) -> bool:
        """Tell whether S3 has only other content of that WAL file. What has both is told by whoever looks into the place."""
        which, _dash, digest = _split(path)
        held = self.held.get(which, ())
        return bool(_name(path) and held) and digest not in held

    def _looks_whole(self, entry: Entry, home: str) -> bool:
        """Tell whether what S3 has is of the size of the file below `home`, if there is one, or was read there and was whole."""
        try:
            size = os.stat(os.path.join(home, entry.path)).st_size
        except OSError:
            return True
        return _same_size(entry, size) or self._was_read(entry)

    def _was_read(self, entry: Entry) -> bool:
        read = self.read.get(entry.path)
        return read is not None and read.mark == mark_of(entry) and not read.problem

    def _clear_doubts(self, paths: Iterable[str]) -> None:
        """Read what S3 has in another size. Whole, it was packed by another library, or it is the file here that is cut."""
        fresh: dict[str, Read] = {}
        for path in paths:
            entry = self.doubted.get(path)
            # Nobody here can open an encrypted one.
            if entry is None or path in self.known or path.endswith(".age") or not _name(path):
                continue
            with contextlib.suppress(MissingError):
                if not problem_in(self.place, path, None):
                    fresh[path] = Read(mark_of(entry), int(self.context.clock().timestamp()))
                    self.known[path] = entry
        self.read.update(fresh)
        if fresh:
            state, place = self.context.state, self.place
            try:
                remember(state, place.name, place.root, {**remembered(state, place.name, place.root), **fresh})
            except OSError:
                return  # it is read once more

    def _agreed(self, paths: list[str]) -> list[str]:
        """Return those of the paths that S3 still wants: another host may have sent what has the same name since the last look."""
        for prefix in sorted({_beside(path) for path in paths if _name(path)}):
            self._learn(self._asked(lambda prefix=prefix: self.place.beginning(prefix)))  # type: ignore[misc]
        self.contested += [path for path in paths if self._is_contested(path)]
        self._clear_doubts(paths)
        return [path for path in paths if path not in self.known and not self._is_contested(path)]

    def contradiction(self) -> RefusedError:
        """Return what is wrong with `contested`. How many there are is left out, as each new one would be told again."""
        first = min(self.contested, key=lambda path: order(_name(path)))
        which, _dash, digest = _split(first)
        return RefusedError(
            "%s holds other content for %s (SHA-256 %s) than the WAL spool of this host (%s). So that both stay, this host's is not"
            " sent, nor anything else whose name S3 has with other content."
            % (self.place.root, _name(first), ", ".join(one[:12] for one in self.held.get(which, ())), digest[:12]),
            hint="Another server archives to the same place: a copy of this one, or an old primary. Find out which of them is right, "
            "and stop the archiving of the other (archive_mode = off), or give it an instance name of its own.",
        )

    def _unneeded(self, bases: Sequence[Base]) -> set[str]:
        local = self.context.local
        return {
            entry.path
            for lineage in lineages(local).values()
            for name in spare(local, lineage, bases)
            for entry in lineage.files[name]
        }

    def once(self) -> Result:
        """Send what is missing there and remove here what need not stay. Raise what kept it from being done."""
        looked = self.looked
        began, sent, size, error = self.context.clock(), 0, 0, None
        damaged: list[str] = []
        pending: list[str] = []
        try:
            pending = self.pending()
            for start in range(0, len(pending), _BATCH):
                found = [self._job(path, damaged) for path in self._agreed(pending[start : start + _BATCH])]
                jobs = [job for job in found if job is not None]
                self.place.store_all(jobs)
                for file, _source in jobs:
                    self.known[file.path] = Entry(file.path, file.size, self.context.clock(), "")
                    self._hold(file.path)
                    sent, size = sent + 1, size + file.size
            removed = self._clear() if self.looked != looked else {}
        except (PgopsError, OSError) as trouble:
            error = trouble if isinstance(trouble, PgopsError) else self._trouble(trouble)
            left = self._left()
            self.looked = None
            # With whatever the files of the credentials say by then: they may be new.
            self.place = self.context.s3()
        else:
            left = [*damaged, *self.contested]
        told = _told(self.context, left, home=self.home)
        failure = error or self._failure(damaged)
        self._remember(told, failure, sent, began)
        if error is not None:
            error.details = {"changed": bool(sent), "sent": sent, "sent_bytes": size, **told}
            raise error
        result = {"changed": bool(sent or removed), "sent": sent, "sent_bytes": size, **told}
        result.update(removed=len(removed), removed_bytes=sum(removed.values()))
        if failure is not None:
            failure.details = result
            raise failure
        return result

    def _trouble(self, trouble: OSError) -> PgopsError:
        where = trouble.filename or str(self.home / TREE)
        return PgopsError("The WAL spool is in trouble: %s: %s." % (where, trouble.strerror or trouble))

    def _failure(self, damaged: list[str]) -> Optional[PgopsError]:
        """Return what is wrong though S3 took the rest; None if nothing is."""
        failure: Optional[PgopsError] = None
        if damaged:
            failure = DamagedError(
                "%d files in the WAL spool are damaged or cannot be read, and were not sent: %s."
                % (len(damaged), ", ".join(damaged[:3])),
                hint="Give what cannot be read to the account of pgops. If the server still has what is damaged in pg_wal, it archives it"
                " again; else take a new base backup.",
            )
        if self.contested:
            refused = self.contradiction()
            if failure is not None:
                refused.message = "%s %s" % (refused.message, failure)
            failure = refused
        return failure

    def _here(self) -> list[str]:
        return [
            path
            for identifier in local_lineages(str(self.home))
            for path, _stored in local_names(str(self.home), identifier)
        ]

    def _left(self) -> list[str]:
        """Return what waits, as far as can be told while S3 does not answer."""
        with contextlib.suppress(PgopsError):
            self.here = self._here()
        here = [path for path in self.here if path not in self.known and path not in self.spared]
        if self.looked is not None:
            return here
        # What was there when all had been sent does not wait, though S3 cannot say so now. When it was written says nothing of
        # that, as a server may archive it much later; and a clock may go back, but the log does not.
        seen = _seen(last_state(self.context))
        if seen is None:
            return here
        return [path for path in here if order(_name(path)) > seen[1] or _changed_ns(self.home / path) > seen[0]]

    def _job(self, path: str, damaged: list[str]) -> Optional[tuple[File, Path]]:
        """Return what to send for the stored `path`, after a look whether it is what it says; None if it is not, or is gone."""
        source, stored = self.home / path, path.rpartition("/")[2]
        try:
            blob = read_file(str(source))
            if not stored.endswith(".age") and parse_stored(stored)[0]:
                opened(blob, stored, str(source.parent))
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self.context.warn(error.message)
            damaged.append(path)
            return None
        except OSError as error:
            # One bad sector must not keep all the others here.
            self.context.warn("%s cannot be read: %s." % (source, error.strerror))
            damaged.append(path)
            return None
        return File(path, len(blob), sha256(blob)), source

    def _clear(self) -> dict[str, int]:
        """Remove from the spool what S3 has or does not need, and neither time nor a base backup here keeps; return bytes by path."""
        config = self.context.config.wal
        oldest = self.context.clock() - parse_span(config.keep_local)
        local = self.context.local
        catalog = Catalog(local)
        bases, unread = bases_of(catalog, catalog.ids())
        removed: dict[str, int] = {}
        for identifier, lineage in lineages(local).items():
            names = set(lineage.files)
            if unread:
                continue
            if any(base.system_identifier == identifier for base in bases):
                names = spare(local, lineage, bases)
            for entry in (entry for name in names if kind(name) != HISTORY for entry in lineage.files[name]):
                there = self.known.get(entry.path)
                # Since when it is there counts, not since when it is written: S3 may have been away for longer than that.
                whole = there and (_same_size(there, entry.size) or self._was_read(there))
                since = there.modified if there and whole else None
                if since is None and entry.path in self.spared:
                    since = entry.modified
                if since is not None and since < oldest:
                    removed[entry.path] = entry.size
        local.delete(removed)
        return removed

    def _remember(self, told: Result, error: Optional[PgopsError], sent: int, began: datetime) -> None:
        """Keep for status how it went. It must not fail for that."""
        now = iso(self.context.clock())
        before = last_state(self.context)
        state = {
            "when": now,
            "error": str(error) if error else None,
            "failing_since": (before.get("failing_since") or now) if error else None,
            "last_ok": before.get("last_ok") if error else iso(began),
            "last_sent": now if sent else before.get("last_sent"),
            "seen": before.get("seen") if error else self._newest(),
            # While S3 is away it is as it was.
            "contested": [_name(path) for path in self.contested[:_NAMED]] if self.looked else before.get("contested"),
            **told,
        }
        same = all(before.get(key) == state[key] for key in ("error", "pending", "contested"))
        if not sent and same and _recent(before.get("when"), self.context):
            return
        try:
            keep_state(self.context, state)
        except OSError as trouble:
            self.context.warn("The state of the shipping could not be kept: %s." % trouble)

    def _newest(self) -> Optional[list[Any]]:
        """Return when the newest file of the spool came there (nanoseconds) and the last name in the log; None for an empty one."""
        if not self.here:
            return None
        return [
            max(_changed_ns(self.home / path) for path in self.here),
            max((_name(path) for path in self.here), key=order),
        ]


def _recent(when: Optional[str], context: Context) -> bool:
    """Tell whether `when` is less than half a minute ago: each second another file would only wear the disk."""
    if not when:
        return False
    try:
        # A clock that went back makes it the future.
        return timedelta(0) <= context.clock() - datetime.fromisoformat(when) < timedelta(seconds=30)
    except ValueError:
        return False


def _changed_ns(path: Path) -> int:
    """Return when the file came to be there, by the file system; 0 if it is gone."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def _seen(state: dict[str, Any]) -> Optional[tuple[int, tuple[int, int, str]]]:
    """Return what _newest() kept, the name as what it sorts by; None where nothing or something else is kept."""
    seen = state.get("seen")
    if isinstance(seen, list) and [type(one) for one in seen] == [int, str]:
        return seen[0], order(seen[1])
    return None


def _same_size(there: Entry, size: int) -> bool:
    return there.size == size or (there.path.endswith(".age") and there.size > size)


def _split(path: str) -> tuple[str, str, str]:
    """Return the path but for the hash, and the hash."""
    which, dash, rest = path.rpartition("-")
    return which, dash, rest.partition(".")[0]


def _beside(path: str) -> str:
    """Return with what the path begins of whatever has the name of the file at `path`; for segments, of all in their folder."""
    which = _split(path)[0]
    return which + "-" if kind(_name(path)) == HISTORY else which[: which.rindex("/") + 17]


def _name(path: str) -> str:
    return parse_stored(path.rpartition("/")[2])[0]


def _told(context: Context, paths: Iterable[str], *, home: Optional[Path] = None) -> Result:
    """Return how much waits for S3, and since when."""
    sizes, moments = [], []
    for path in paths:
        try:
            facts = ((home or context.local.home) / path).stat()
        except OSError:
            continue
        sizes.append(facts.st_size)
        moments.append(facts.st_mtime)
    oldest = datetime.fromtimestamp(min(moments), timezone.utc) if moments else None
    return {
        "pending": len(sizes),
        "pending_bytes": sum(sizes),
        "pending_since": iso(oldest) if oldest else None,
    }


def render(result: Result) -> str:
    """Return the result of ship() for a person."""
    said = "%d WAL files sent to S3; %d wait" % (result["sent"], result["pending"])
    if result.get("dry_run"):
        said = "%d WAL files would be sent to S3" % result["sent"]
    if result.get("removed"):
        said += "; %d removed from the spool" % result["removed"]
    return "%s (%s).\n" % (said, human_span(result.get("seconds", 0.0)))


__all__ = ("Request", "Result", "render", "ship")
