# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which base backup a recovery begins with, and whether the WAL reaches from it to the target.

PostgreSQL itself takes a target that it cannot reach for the end of the WAL, or finds out after hours. So what can be known
before is asked here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from .errors import RefusedError
from .recovery_target import EPOCH, Target
from .segments import USUAL_SIZE, number_at, number_of, show_lsn
from .times import iso
from .window import Gap, Stretch, Window


@dataclass(frozen=True)
class Candidate:
    """A base backup: its cluster, where and when (by the server's clock) it ended, and the first transaction after that."""

    id: str
    system_identifier: str
    timeline: int
    end: int
    stopped: datetime
    next_xid: int
    segment_bytes: int = USUAL_SIZE


@dataclass(frozen=True)
class Chosen:
    """The base backup to begin with, what should be known about that choice, and where the WAL for it ends (0: unknown).

    `timeline` is the one that was looked at for that, 0 where nobody could look. `whole_until` is when the last of that WAL was
    written, None where nobody knows (S3 tells only when it came there), or where WAL is missing behind it. `gap` tells which WAL is
    missing there, where nobody could tell whether that matters.
    """

    base: Candidate
    remarks: tuple[str, ...] = ()
    reach: int = 0
    timeline: int = 0
    whole_until: Optional[datetime] = None
    gap: str = ""

    def followed(self, target: Target) -> Target:
        """Return the target with the timeline that was looked at for the latest one.

        To PostgreSQL the latest is also one of which there is a history file alone. What the base backup is on is called the
        current one, of which it asks no history file.
        """
        if target.timeline != "latest" or not self.timeline:
            return target
        return dataclasses.replace(
            target, timeline="current" if self.timeline == self.base.timeline else str(self.timeline)
        )

    def may_be_quiet(self, target: Target) -> bool:
        """Tell whether WAL that ends before the commit at which to stop can only mean that there was no commit any more."""
        return (
            target.kind == "time"
            and target.moment is not None
            and self.whole_until is not None
            and target.moment <= self.whole_until
        )


def choose_base(
    target: Target, bases: Sequence[Candidate], windows: Optional[Sequence[Window]], now: datetime, *, wanted: str = ""
) -> Chosen:
    """Return the base backup that reaches `target` with the least WAL, or `wanted` if that reaches it.

    `windows` are what the WAL archive can do, of each timeline, None when nobody can tell. Raise RefusedError that says why
    each cannot, or that the target may lie on several timelines or in several clusters, none of which was named.
    """
    if not bases:
        raise RefusedError("There is no base backup.", hint="Take one: pgops backup --kind base.")
    # Targets are by the server's clock, and this is another host's: WAL that reaches that far knows better.
    ahead = target.kind == "time" and target.moment is not None and target.moment > now
    if ahead and windows is None:
        raise _in_the_future(target, now)
    # A restore point may lie before the newest base backup as well as after it; only the oldest one surely comes before it. One
    # that a gap cuts off from the end of the WAL is the last to be asked.
    ordered = sorted(bases, key=lambda b: (b.stopped, b.id), reverse=target.kind != "name")
    if target.kind == "name":
        ordered.sort(key=lambda b: _cut_short(target, b, windows))
    reasons: list[str] = []
    for base in ordered:
        if wanted and base.id != wanted:
            continue
        why_not = _too_late(target, base) or _cut_off(target, base, windows)
        if not why_not:
            if not wanted:
                _check_clusters(target, base, ordered, windows)
            _check_branches(target, base, windows or ())
            remarks = tuple(_remarks(target, windows, wanted, base, ordered))
            window = _window(target, base, windows or ()) if target.kind != "immediate" else None
            stretch = _stretch(base, window)
            return Chosen(
                base,
                remarks,
                stretch.end if stretch is not None else 0,
                window.timeline if window is not None else 0,
                stretch.end_time if stretch and stretch.written and not _behind_it(target, base, windows) else None,
                _shown_gap(_unsure_gap(target, base, windows)),
            )
        reasons.append("%s: %s" % (base.id, why_not))
    if not reasons:
        raise RefusedError("There is no base backup %s." % wanted, hint="'pgops info' lists them.")
    if ahead:
        raise _in_the_future(target, now)
    shown = reasons[:10] + (["… and %d more." % (len(reasons) - 10)] if len(reasons) > 10 else [])
    raise RefusedError(
        "%s cannot be reached from any base backup:\n%s"
        % (_capital(target.shown), "\n".join("  - %s" % text for text in shown)),
        hint="Nothing was touched.%s 'pgops status' shows what can be recovered."
        % _on_others(target, [base for base in ordered if not wanted or base.id == wanted], windows),
    )


def _on_others(target: Target, bases: Sequence[Candidate], windows: Optional[Sequence[Window]]) -> str:
    """Return which other timelines than the latest lead to the target: those of which that does not know, for want of its history."""
    if target.timeline != "latest" or target.kind == "end":
        return ""
    found = []
    for number in sorted({window.timeline for window in windows or ()}):
        there = dataclasses.replace(target, timeline=str(number))
        if any(not _too_late(there, base) and not _cut_off(there, base, windows) for base in bases):
            found.append(str(number))
    said = (
        " Timeline %s leads to where it may lie: ask for that (--timeline, or timeline of the module and the playbook)."
    )
    return said % " or ".join(found) if found else ""


def _in_the_future(target: Target, now: datetime) -> RefusedError:
    return RefusedError(
        "%s lies in the future: it is %s now, by this host's clock." % (_capital(target.shown), iso(now)),
        hint="To recover everything, ask for the end. If that clock is wrong, set it (timedatectl).",
    )


def _check_clusters(
    target: Target, base: Candidate, bases: Sequence[Candidate], windows: Optional[Sequence[Window]]
) -> None:
    """Raise RefusedError if the target may as well lie in another cluster, as each counts its LSNs and transactions for itself."""
    if target.kind not in ("lsn", "xid", "name"):
        return
    for other in bases:
        strange = other.system_identifier != base.system_identifier
        if strange and not _too_late(target, other) and not _cut_off(target, other, windows):
            raise RefusedError(
                "%s may lie in the cluster %s and in the cluster %s: this instance has base backups of both (%s and %s)."
                % (_capital(target.shown), base.system_identifier, other.system_identifier, base.id, other.id),
                hint="Nothing was touched. Name a base backup of the one that is meant (pgops recover SET, set of the module and the playbook).",
            )


def _too_late(target: Target, base: Candidate) -> str:
    """Return why the target does not lie behind the base backup, empty if it may."""
    if target.kind == "time" and target.moment is not None and base.stopped > target.moment:
        return "it was whole at %s only" % iso(base.stopped)
    if target.kind == "lsn" and base.end > target.position:
        return "it was whole at the LSN %s only" % show_lsn(base.end)
    if target.kind == "xid" and base.next_xid > _whole_xid(target.xid, base):
        return "the transaction may have ended before the backup did, whose next one was %d" % base.next_xid
    # WAL and the target have the lower half of its number alone.
    if target.kind == "xid" and _whole_xid(target.xid, base) - base.next_xid >= EPOCH:
        return (
            "the transaction is 2^32 or more after its next one, %d, and WAL has the lower half of the number alone, so that the"
            " server would stop at another one" % base.next_xid
        )
    return ""


def _whole_xid(xid: int, base: Candidate) -> int:
    """Return the transaction with its epoch; a short number is taken for one of the epoch of the base backup."""
    return xid if xid >= EPOCH else base.next_xid // EPOCH * EPOCH + xid


def _cut_off(target: Target, base: Candidate, windows: Optional[Sequence[Window]]) -> str:
    """Return which WAL is missing on the way from the base backup to the target, empty if none is or nobody can tell."""
    if windows is None or target.kind == "immediate":
        return ""
    window = _window(target, base, windows)
    if window is None:
        on = "" if target.timeline == "latest" else " on timeline %s" % target.timeline
        return "the archive holds no WAL for it%s" % on
    stretch = _stretch(base, window)
    if stretch is None:
        return "WAL that it needs is missing in the archive, or lies on another timeline than %d" % window.timeline
    gap = _shown_gap(_gap_after(window, stretch, base.segment_bytes))
    if target.kind == "time" and target.moment is not None and stretch.end_time < target.moment:
        return "the archive holds WAL for it up to %s%s" % (iso(stretch.end_time), gap)
    if target.kind == "lsn" and stretch.end <= target.position:
        there = ", and it stops only where a record begins: ask for the end" if stretch.end == target.position else ""
        return "the archive holds WAL for it up to the LSN %s%s%s" % (show_lsn(stretch.end), gap, "" if gap else there)
    own = [w.timeline for w in windows if w.system_identifier == base.system_identifier and w.is_stranded]
    if target.kind == "end" and target.timeline == "latest" and max(own, default=0) > window.timeline:
        return (
            "the archive holds WAL of timeline %d, but not its history (%08X.history), or the places contradict each other on the way to it,"
            " so its end cannot be reached; hand it over by pgops wal archive, or name another timeline"
            % (max(own), max(own))
        )
    if target.kind == "end" and gap and not target.to_gap:
        return "the WAL breaks off at the LSN %s%s; ask for the end at the gap (to_gap) to stop there" % (
            show_lsn(stretch.end),
            gap,
        )
    return ""


def _check_branches(target: Target, base: Candidate, windows: Sequence[Window]) -> None:
    """Raise RefusedError if the target may as well lie on a branch of the history that the latest timeline left behind.

    PostgreSQL would follow the latest, stop before its first transaction, and be content with that.
    """
    window = _window(target, base, windows)
    if window is None or target.timeline != "latest" or target.kind not in ("time", "lsn", "xid"):
        return
    for other in windows:
        if other is window or other.system_identifier != base.system_identifier:
            continue
        parted = window.parts_at(other)
        if base.end <= parted and _covers(target, window, parted) and _covers(target, other, parted):
            raise RefusedError(
                "%s may lie on timeline %d and on timeline %d: they parted at the LSN %s, and the archive holds WAL of both"
                " behind that." % (_capital(target.shown), other.timeline, window.timeline, show_lsn(parted)),
                hint="Nothing was touched. Say which one is meant, timeline %d or %d (--timeline, or timeline of the module and"
                " the playbook). If it lies before they parted, both lead to it." % (other.timeline, window.timeline),
            )


def _covers(target: Target, window: Window, parted: int) -> bool:
    """Tell whether the target may lie in WAL of the window behind the LSN `parted`."""
    stretches = [s for s in window.stretches if s.end > parted]
    if target.kind == "time" and target.moment is not None:
        moment = target.moment
        return any(s.start_time <= moment <= s.end_time for s in stretches)
    if target.kind == "lsn":
        return target.position > parted and any(s.start <= target.position <= s.end for s in stretches)
    return bool(stretches)


def _stretch(base: Candidate, window: Optional[Window]) -> Optional[Stretch]:
    return next((s for s in window.stretches if base.id in s.bases), None) if window is not None else None


def _behind_it(target: Target, base: Candidate, windows: Optional[Sequence[Window]]) -> Optional[Gap]:
    """Return the gap at which the WAL for the base backup breaks off, None where there is none or nobody can tell."""
    window = _window(target, base, windows or ())
    stretch = _stretch(base, window)
    return _gap_after(window, stretch, base.segment_bytes) if window is not None and stretch is not None else None


def _window(target: Target, base: Candidate, windows: Sequence[Window]) -> Optional[Window]:
    own = [w for w in windows if w.system_identifier == base.system_identifier]
    if target.timeline == "latest":
        return next((w for w in reversed(own) if not w.is_stranded), own[-1] if own else None)
    number = base.timeline if target.timeline == "current" else int(target.timeline)
    return next((w for w in own if w.timeline == number), None)


def _cut_short(target: Target, base: Candidate, windows: Optional[Sequence[Window]]) -> tuple[bool, int]:
    """Return what orders base backups by how far the WAL brings them: first those that no gap cuts off, then from the last gap on."""
    if _behind_it(target, base, windows) is None:
        return False, 0
    stretch = _stretch(base, _window(target, base, windows or ()))
    return True, -stretch.end if stretch is not None else 0


def _gap_after(window: Window, stretch: Stretch, size: int) -> Optional[Gap]:
    """Return which segments are missing where the stretch ends, if there are others behind them."""
    last = number_at(stretch.end, size)
    return next((gap for gap in window.gaps if number_of(gap.first, size) == last), None)


def _shown_gap(gap: Optional[Gap]) -> str:
    return ", as %s to %s (%d) are missing" % (gap.first, gap.last, gap.count) if gap is not None else ""


def _remarks(
    target: Target, windows: Optional[Sequence[Window]], wanted: str, base: Candidate, ordered: Sequence[Candidate]
) -> Iterator[str]:
    clusters = {b.system_identifier for b in ordered} - {base.system_identifier}
    if clusters:
        yield (
            "%s is of the cluster %s. This instance also has base backups of %s, as it has after an upgrade: name one of them to"
            " recover that." % (base.id, base.system_identifier, ", ".join(sorted(clusters)))
        )
    if windows is None and target.kind != "immediate":
        yield "Whether the WAL archive reaches that far was not checked: another command than ours fetches it."
    gap = _unsure_gap(target, base, windows)
    yield from _came_twice(target, base, windows)
    if target.kind == "name" and not wanted:
        older = [b for b in ordered if (b.stopped, b.id) < (base.stopped, base.id)]
        yield (
            "Nobody knows where a restore point lies before the WAL is read, so the oldest base backup %sis taken (%s);"
            " name a younger one to be quicker%s."
            % (
                "that no gap cuts off from the end of the WAL " if older else "",
                base.id,
                ", or an older one if it lies before the gap" if older else "",
            )
        )
    if target.kind == "name":
        yield "If several restore points have that name, the first one behind the base backup is meant."
    if gap is not None:
        yield (
            "The WAL for it breaks off at a gap%s: %s is found only if it lies before that."
            % (_shown_gap(gap), target.shown)
        )


def _came_twice(target: Target, base: Candidate, windows: Optional[Sequence[Window]]) -> Iterator[str]:
    """Yield that the moment came twice behind the base backup, as the server's clock was set back: PostgreSQL stops the first time."""
    stretch = _stretch(base, _window(target, base, windows or ())) if target.moment is not None else None
    for one in stretch.set_back if stretch is not None else ():
        if one.position > base.end and target.moment is not None and one.after <= target.moment < one.before:
            yield (
                "The server's clock was set back near the LSN %s, from %s to %s, so that moment came twice. The recovery stops at the"
                " first transaction that ended after it, which lies before that: what was committed later, by a clock that was"
                " right again, is not brought back. For that ask for an LSN or a transaction (--to-lsn, --to-xid)."
                % (show_lsn(one.position), iso(one.before), iso(one.after))
            )


def _unsure_gap(target: Target, base: Candidate, windows: Optional[Sequence[Window]]) -> Optional[Gap]:
    """Return the gap at which the WAL breaks off, if nobody can tell before it is read whether the target lies before that.

    Of a moment nobody can where it is known only when the last segment before the gap came to its place.
    """
    stretch = _stretch(base, _window(target, base, windows or ()))
    unsure = target.kind in ("name", "xid") or (target.kind == "time" and stretch is not None and not stretch.written)
    return _behind_it(target, base, windows) if unsure else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


__all__ = ("Candidate", "Chosen", "choose_base")
