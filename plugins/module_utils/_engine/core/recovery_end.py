# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Whether a recovery stopped where it was to: what the server says at its end is held against the target.

PostgreSQL itself takes a target that it cannot reach for the end of the WAL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Optional

from .base_choice import Candidate
from .errors import UsageError
from .recovery_target import EPOCH, Target
from .segments import parse_lsn, show_lsn
from .times import iso, parse_iso


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
    if target.kind == "xid" and match.group("xid") != str(target.xid % EPOCH):
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
    "Stopped",
    "doubts",
    "paused_at_the_end",
    "prefix_of",
    "said_at_the_end",
    "spoken",
    "transaction_ahead",
    "why_short",
)
