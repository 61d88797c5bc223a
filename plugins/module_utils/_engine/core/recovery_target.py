# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Where a recovery is to stop, which base backup it begins with, and whether it stopped there.

PostgreSQL itself takes a target that it cannot reach for the end of the WAL, or finds out after hours. So what can be known
before is asked here, and the end is held against the target afterwards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Callable, Optional

from .errors import RefusedError, UsageError
from .segments import USUAL_SIZE, number_at, number_of, parse_lsn, show_lsn
from .times import iso, parse_iso, written_out
from .window import Gap, Stretch, Window

KINDS = ("time", "lsn", "xid", "name", "immediate", "end")
ACTIONS = ("promote", "pause")
_EPOCH = 1 << 32
_FIRST_XID = 3
_LONGEST_NAME = 63
_SETTINGS = ("", "_time", "_lsn", "_xid", "_name")


@dataclass(frozen=True)
class Target:
    """Where to stop: at a `moment`, a `position` (LSN), a transaction `xid`, a restore point `name`, or as `kind` alone says.

    `inclusive`: whether what lies exactly there is replayed, too. `timeline`: latest, current or a number. `action`: what the
    server does then. `to_gap`: the end may be one where WAL is missing.
    """

    kind: str
    moment: Optional[datetime] = None
    position: int = 0
    xid: int = 0
    name: str = ""
    inclusive: bool = True
    timeline: str = "latest"
    action: str = "promote"
    to_gap: bool = False

    @property
    def shown(self) -> str:
        """The target in words."""
        return {
            "time": "the moment %s" % (iso(self.moment) if self.moment else ""),
            "lsn": "the LSN %s" % show_lsn(self.position),
            "xid": "the transaction %d" % self.xid,
            "name": "the restore point %r" % self.name,
            "immediate": "the end of the base backup",
            "end": "the end of the WAL",
        }[self.kind]

    def as_data(self) -> dict[str, object]:
        """Return it for the result."""
        value = {
            "time": iso(self.moment) if self.moment else "",
            "lsn": show_lsn(self.position),
            "xid": str(self.xid),
            "name": self.name,
        }.get(self.kind, "")
        return {
            "kind": self.kind,
            "value": value,
            "inclusive": self.inclusive,
            "timeline": self.timeline,
            "action": self.action,
        }

    def settings(self) -> dict[str, str]:
        """Return PostgreSQL's settings for it; those of an earlier recovery are emptied.

        The one that is set must come behind them: PostgreSQL takes an empty one that follows for a second target.
        """
        own = {"immediate": "recovery_target", "end": ""}.get(self.kind, "recovery_target_" + self.kind)
        found = {name: "" for name in ("recovery_target%s" % suffix for suffix in _SETTINGS) if name != own}
        if own:
            found[own] = "immediate" if self.kind == "immediate" else str(self.as_data()["value"])
        found["recovery_target_inclusive"] = "on" if self.inclusive else "off"
        found["recovery_target_timeline"] = "current" if self.kind == "immediate" else self.timeline
        found["recovery_target_action"] = self.action
        return found


# --- what a person asks for -------------------------------------------------------------------------------------------


def parse_target(
    given: dict[str, str],
    *,
    inclusive: bool = True,
    timeline: str = "",
    action: str = "promote",
    to_gap: bool = False,
    zone: Callable[[str], Optional[tzinfo]] = lambda _name: None,
) -> Target:
    """Return the target of which `given` has one by its kind (time, lsn, xid, name; immediate and end need no value).

    `zone` finds time zones by name, None or a UsageError if there is none. Raise UsageError for what names no single target.
    """
    chosen = [kind for kind in KINDS if given.get(kind)]
    if len(chosen) != 1:
        said = "Several targets were given: %s." % ", ".join(chosen) if chosen else "No target was given."
        raise UsageError(said, hint="Give exactly one of %s." % ", ".join(KINDS))
    if action not in ACTIONS:
        raise UsageError("%r is no action at a target." % action, hint="Use one of %s." % ", ".join(ACTIONS))
    (kind,) = chosen
    text = given[kind].strip()
    moment = parse_moment(text, zone) if kind == "time" else None
    return Target(
        kind,
        moment,
        _position(text) if kind == "lsn" else 0,
        _xid(text) if kind == "xid" else 0,
        _name(given[kind]) if kind == "name" else "",
        inclusive,
        _timeline(timeline),
        action,
        to_gap,
    )


def parse_moment(text: str, zone: Callable[[str], Optional[tzinfo]]) -> datetime:
    """Return the moment that `text` names, in UTC: with an offset, or with the name of a time zone behind a blank.

    Raise UsageError if it names none, or, as clocks are set back or forward, two or none.
    """
    stem, _unused, name = text.strip().rpartition(" ")
    if not stem or not re.search("[A-Za-z]{2}", name):
        return parse_iso(text)
    try:
        # EST and the like are in the database, too, and mean one thing there and another to a person.
        found = zone(name) if "/" in name or name == "UTC" else None
    except UsageError:
        found = None
    if found is None:
        raise UsageError(
            "%r is no time zone." % name,
            hint="Write an offset, as in 2026-11-22T14:31:07+01:00, or a name such as Europe/Berlin; EST and the like are not unique.",
        )
    try:
        naive = datetime.fromisoformat(written_out(stem))
    except ValueError:
        raise UsageError("%r is not a moment." % text, hint="Write it like 2026-11-22T14:31:07+01:00.") from None
    if naive.tzinfo is not None:
        raise UsageError("%r has an offset and a time zone." % text, hint="Leave one of them out.")
    early, late = (naive.replace(tzinfo=found, fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    if early != late:
        what = "twice" if early < late else "never"
        raise UsageError(
            "The clocks of %s showed %s %s, as they were changed then." % (name, stem, what),
            hint="Write the offset instead of the zone.",
        )
    return early


def _position(text: str) -> int:
    try:
        return parse_lsn(text)
    except ValueError:
        raise UsageError("%r is no LSN." % text, hint="Write it like 16/B374D848.") from None


def _xid(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) >= _EPOCH**2 or int(text) % _EPOCH < _FIRST_XID:
        raise UsageError("%r is no transaction." % text, hint="Give the number that pg_current_xact_id() shows.")
    return int(text)


def _name(text: str) -> str:
    if "\0" in text or "\n" in text or len(text.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        raise UsageError("%r cannot name a restore point." % text, hint="A name has up to 63 bytes.")
    return text


def _timeline(text: str) -> str:
    text = text or "latest"
    if text in ("latest", "current") or (re.fullmatch("[0-9]{1,10}", text) and 0 < int(text) < _EPOCH):
        return text
    raise UsageError("%r is no timeline." % text, hint="Use latest, current, or a number.")


# --- which base backup ------------------------------------------------------------------------------------------------


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
    if target.kind == "xid" and _whole_xid(target.xid, base) - base.next_xid >= _EPOCH:
        return (
            "the transaction is 2^32 or more after its next one, %d, and WAL has the lower half of the number alone, so that the"
            " server would stop at another one" % base.next_xid
        )
    return ""


def _whole_xid(xid: int, base: Candidate) -> int:
    """Return the transaction with its epoch; a short number is taken for one of the epoch of the base backup."""
    return xid if xid >= _EPOCH else base.next_xid // _EPOCH * _EPOCH + xid


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


# --- did it stop there ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stopped:
    """Where a recovery ended: the last LSN replayed, when the last transaction replayed had ended, and what the log says.

    `promoted`: whether the server has ended its recovery; else it pauses. `quiet`: whether the WAL ended before a commit at which
    it would have stopped, so that it was brought to the last LSN of that instead.
    """

    position: Optional[int]
    moment: Optional[datetime]
    timeline: Optional[int]
    log: str = ""
    promoted: bool = True
    quiet: bool = False

    def as_data(self) -> dict[str, object]:
        """Return it for the result."""
        return {
            "lsn": None if self.position is None else show_lsn(self.position),
            "time": None if self.moment is None else iso(self.moment),
            "timeline": self.timeline,
            "log": self.log,
        }


_LOG = "LOG:  "
_ENDED = re.compile(
    r"recovery stopping (?:(?P<how>before|after) (?:(?:commit|abort) of (?:prepared )?transaction (?P<xid>\d+)(?:, time (?P<time>.*))?"
    r'|WAL location \(LSN\) "(?P<lsn>[^"]+)"|reaching (?P<consistency>consistency))|at restore point "(?P<name>.*)", time)'
)


def spoken(log: str, token: str) -> list[str]:
    """Return the lines of a server's log that the process wrote which replays, without what the server puts before each.

    That ends with prefix_of(`token`). The prefix of the server's own configuration, the name of a restore point and what a
    restore_command prints may hold what it says at its end, word by word.
    """
    mark = re.compile("%s (?:startup)?: " % re.escape(token))  # before PostgreSQL 13 no process told its kind
    # A line ends with \n alone: the server puts a tab behind each that is part of what it says.
    found = (mark.search(line) for line in log.split("\n"))
    return [match.string[match.end() :] for match in found if match is not None]


def prefix_of(token: str) -> str:
    """Return the log_line_prefix by which spoken() knows the lines; `token` is what nobody can know before."""
    return "%%m [%%p] %s %%b: " % token


def said_at_the_end(lines: Sequence[str]) -> str:
    """Return what a server that recovered said of why it stopped, of what it has `spoken`; empty when it did not."""
    found = [line[len(_LOG) :] for line in lines if line.startswith(_LOG) and _ENDED.match(line, len(_LOG))]
    return found[-1] if found else ""


def transaction_ahead(log: str) -> str:
    """Return the transaction before whose end the server stopped, as it says, empty if it stopped at something else."""
    match = _ENDED.match(log)
    return match.group("xid") or "" if match is not None and match.group("how") == "before" else ""


def paused_at_the_end(lines: Sequence[str]) -> bool:
    """Tell whether a server that pauses does so since it is where it was to go, as it has `spoken`.

    It also pauses midway, where a setting is lower than on the original.
    """
    return bool(said_at_the_end(lines)) or any(
        line.startswith(_LOG + "pausing at the end of recovery") for line in lines
    )


# Why the WAL may end before a target of that kind, and what to ask for instead.
_SHORT = {
    "xid": (
        (
            "no transaction of that number has ended behind the base backup: it may go on or wait as a prepared one, have ended"
            " before, or be part of another one (a subtransaction)"
        ),
        "Ask for the transaction that it belongs to, for a moment",
    ),
    "name": (
        "there is no restore point of that name behind the base backup; upper and lower case differ",
        "Ask for a moment",
    ),
    "lsn": ("no record begins at that LSN or behind it", "Ask for an earlier one"),
}


def why_short(target: Target, gap: str = "") -> str:
    """Return what it may mean that the WAL ended before the target, and what to ask for instead; `gap` is as of Chosen."""
    if gap:
        return (
            "The archive breaks off there%s. Bring them back, or ask for the end at the gap (--to-end --to-gap)." % gap
        )
    why, instead = _SHORT.get(target.kind, ("nothing was committed after that moment", "Ask for an earlier one"))
    return (
        "Either WAL is missing, or %s. %s, or for the end (--to-end), which brings back all that the archive has."
        % (
            why,
            instead,
        )
    )


def doubts(target: Target, base: Candidate, stopped: Stopped, reach: int = 0) -> list[str]:
    """Return what speaks against it that the recovery stopped at `target`; nothing when it is proven.

    `reach` is the LSN up to which the archive has WAL, 0 where nobody knows.
    """
    found = []
    match = _ENDED.match(stopped.log)
    if stopped.position is None:
        found.append("The server does not tell which LSN it replayed last.")
    elif stopped.position < base.end and target.kind != "immediate":
        found.append("It stopped at the LSN %s, before the base backup is whole." % show_lsn(stopped.position))
    if target.kind == "end":
        found += _short_of_the_end(base, stopped, reach)
    elif match is None:
        found.append("The server's log does not say that it stopped at a target.")
    elif target.kind == "time" and stopped.quiet and match.group("lsn"):
        found += _short_of_the_archive(base, stopped, reach)
    else:
        found += _elsewhere(target, base, stopped, match)
    if target.kind == "time" and target.moment is not None and stopped.moment is not None:
        late = stopped.moment - target.moment
        if late > timedelta(0) or (not target.inclusive and not late):
            found.append(
                "The last transaction that it replayed ended at %s, which is after the target." % iso(stopped.moment)
            )
    if (
        target.kind == "lsn"
        and target.inclusive
        and stopped.position is not None
        and stopped.position < target.position
    ):
        found.append("The last LSN that it replayed is %s, before the target." % show_lsn(stopped.position))
    return found


def _elsewhere(target: Target, base: Candidate, stopped: Stopped, match: re.Match[str]) -> Iterator[str]:
    """Yield what the server's own words have against it that it stopped at the target."""
    if target.kind == "time" and target.moment is not None:
        # It always stops before a transaction, of which it tells when it ended.
        next_one = _moment_of(match.group("time") or "") if match.group("how") == "before" else None
        if next_one is None:
            yield "It stopped at something else than a moment: %s." % stopped.log
        elif next_one < target.moment or (target.inclusive and next_one == target.moment):
            yield "It stopped before a transaction that ended at %s and belongs to the target." % iso(next_one)
    if target.kind == "lsn":
        yield from _at_another_lsn(target, base, stopped, match)
    if target.kind == "xid" and match.group("xid") != str(target.xid % _EPOCH):
        yield "It stopped at another transaction: %s." % stopped.log
    elif target.kind == "xid" and match.group("how") != _how(target):
        yield "It was to stop %s the transaction: %s." % (_how(target), stopped.log)
    if target.kind == "name" and match.group("name") != target.name:
        yield "It stopped at another restore point: %s." % stopped.log
    if target.kind == "immediate" and not match.group("consistency"):
        yield "It stopped at something else than the end of the base backup: %s." % stopped.log


def _at_another_lsn(target: Target, base: Candidate, stopped: Stopped, match: re.Match[str]) -> Iterator[str]:
    """The server tells where the first record begins that lies at the target or behind it: next to it, or in the next segment."""
    try:
        position = parse_lsn(match.group("lsn") or "")
    except ValueError:
        yield "It stopped at something else than an LSN: %s." % stopped.log
        return
    if not 0 <= position - target.position <= base.segment_bytes:
        yield "It stopped at another LSN: %s." % stopped.log
    elif match.group("how") != _how(target):
        yield "It was to stop %s the LSN: %s." % (_how(target), stopped.log)


def _how(target: Target) -> str:
    return "after" if target.inclusive else "before"


def _moment_of(text: str) -> Optional[datetime]:
    """Return the moment that PostgreSQL's log calls so (`2026-11-22 05:00:00.5+00`), None if it is none."""
    match = _LOGGED.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return parse_iso(match.group())
    except UsageError:
        return None


_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(?:\.[0-9]{1,6})?[+-][0-9]{2}(?::[0-9]{2}){0,2}")


def _short_of_the_end(base: Candidate, stopped: Stopped, reach: int) -> Iterator[str]:
    if not stopped.promoted:
        yield "It pauses, and did not come to the end of the WAL."
    yield from _short_of_the_archive(base, stopped, reach)


def _short_of_the_archive(base: Candidate, stopped: Stopped, reach: int) -> Iterator[str]:
    # The last segment may be filled in part.
    if stopped.position is not None and reach and stopped.position < reach - base.segment_bytes:
        yield "It stopped at the LSN %s, and the archive holds WAL up to %s." % (
            show_lsn(stopped.position),
            show_lsn(reach),
        )


__all__ = (
    "ACTIONS",
    "KINDS",
    "Candidate",
    "Chosen",
    "Stopped",
    "Target",
    "choose_base",
    "doubts",
    "parse_moment",
    "parse_target",
    "paused_at_the_end",
    "prefix_of",
    "said_at_the_end",
    "spoken",
    "transaction_ahead",
    "why_short",
)
