# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What alerts remember between two looks: incidents, what waits for a channel, and how the channels do. One file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Optional

from ..core.errors import UsageError
from ..core.incidents import Incident
from ..core.json_text import to_json
from ..core.notices import Notice
from ..core.times import compact, iso, parse_iso
from ..system.durable import make_dirs, write_bytes
from .channel import Beat

NAME = "alerts.json"
COPY = "alerts.json.copy"
# Where the memory is damaged: it is the copy's, or there is none.
COPIED, NONE = "copied", "none"
_KEPT_ASIDE = 3
FORMAT = 1


@dataclass
class Waiting:
    """A notice that a channel has still to take: after `not_before`, when the service asked for that.

    `to` are those of its addresses that it is still for (None: all), `lost` those that refused it for good, `taken` tells
    whether others took it. `unsure` counts the tries after which nobody knows whether it was taken.
    """

    channel: str
    notice: Notice
    queued: datetime
    tries: int = 0
    not_before: Optional[datetime] = None
    error: str = ""
    to: Optional[list[str]] = None
    lost: list[str] = field(default_factory=list)
    taken: bool = False
    unsure: int = 0


@dataclass
class Unheard:
    """How a run ended that the watcher `way` has still to hear: after `not_before`, when it asked for that."""

    way: str
    beat: Beat
    tries: int = 0
    not_before: Optional[datetime] = None
    error: str = ""

    @property
    def ended(self) -> datetime:
        """When the run ended."""
        return parse_iso(self.beat.ended)


@dataclass
class Health:
    """How a channel does: when it last accepted something, since when it does not, and what it said.

    `refused` says who of its addresses did not take what the others took last.
    """

    last_ok: Optional[datetime] = None
    failing_since: Optional[datetime] = None
    error: str = ""
    refused: str = ""


@dataclass
class State:
    """All that is remembered. `due` maps a verb to its calendar and since when we know of it; `s3` is the last look there.

    `cut_short` tells when a run began that was killed, until another one of its verb has ended. `messages` maps the key of a
    message that was not ended yet to what was last told under it, in short, and when. `owed` maps each channel to the causes
    that it has still to hear of, as it was turned on later. `damaged` is when the memory was found damaged last; `memory` says
    what load() made of that, until a look has seen to it.
    """

    watched_since: Optional[datetime] = None
    incidents: dict[str, Incident] = field(default_factory=dict)
    due: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    cut_short: dict[str, datetime] = field(default_factory=dict)
    messages: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    known_uncovered: Optional[list[str]] = None
    days: dict[date, int] = field(default_factory=dict)
    ahead: Optional[tuple[timedelta, datetime]] = None
    queue: list[Waiting] = field(default_factory=list)
    unheard: list[Unheard] = field(default_factory=list)
    health: dict[str, Health] = field(default_factory=dict)
    dropped: int = 0
    s3: Optional[dict[str, Any]] = None
    s3_asked: Optional[datetime] = None
    owed: Optional[dict[str, list[str]]] = None
    damaged: Optional[datetime] = None
    memory: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {
            "format": FORMAT,
            "watched_since": _out(self.watched_since),
            "incidents": {cause: incident.as_data() for cause, incident in self.incidents.items()},
            "due": {verb: {"calendar": text, "since": iso(since)} for verb, (text, since) in self.due.items()},
            "cut_short": {verb: iso(since) for verb, since in self.cut_short.items()},
            "messages": {key: {"told": told, "at": iso(at)} for key, (told, at) in self.messages.items()},
            "known_uncovered": self.known_uncovered,
            "days": {day.isoformat(): free for day, free in self.days.items()},
            "ahead": {"seconds": self.ahead[0].total_seconds(), "at": iso(self.ahead[1])} if self.ahead else None,
            "queue": [
                {
                    "channel": w.channel,
                    "notice": w.notice.as_data(),
                    "queued": iso(w.queued),
                    "tries": w.tries,
                    "not_before": _out(w.not_before),
                    "error": w.error,
                    "to": w.to,
                    "lost": w.lost,
                    "taken": w.taken,
                    "unsure": w.unsure,
                }
                for w in self.queue
            ],
            "unheard": [
                {
                    "way": u.way,
                    "beat": asdict(u.beat),
                    "tries": u.tries,
                    "not_before": _out(u.not_before),
                    "error": u.error,
                }
                for u in self.unheard
            ],
            "health": {
                name: {
                    "last_ok": _out(h.last_ok),
                    "failing_since": _out(h.failing_since),
                    "error": h.error,
                    "refused": h.refused,
                }
                for name, h in self.health.items()
            },
            "dropped": self.dropped,
            "s3": self.s3,
            "s3_asked": _out(self.s3_asked),
            "owed": self.owed,
            "damaged": _out(self.damaged),
            "memory": self.memory,
        }


def _out(moment: Optional[datetime]) -> Optional[str]:
    return iso(moment) if moment is not None else None


def _in(text: Any) -> Optional[datetime]:
    return parse_iso(text) if text is not None else None


def _check_look(s3: Any) -> None:
    """Raise KeyError or TypeError if `s3` is not what is remembered of a place."""
    for held in s3["sets"]:
        for key in ("id", "begun", "bytes", "complete", "verified", "proofs", "problem", "databases"):
            if key not in held:
                raise KeyError(key)
    if not all(key in s3 for key in ("place", "root", "reachable", "error", "newest", "newest_verified")):
        raise KeyError("s3")
    if s3.get("wal") is not None and not all(
        key in s3["wal"] for key in ("gaps", "contradictions", "recoverable_to", "segments")
    ):
        raise KeyError("wal")


def from_data(data: Mapping[str, Any]) -> State:
    """Return the state that as_data() gave. Raise KeyError, TypeError, ValueError, AttributeError or UsageError for another."""
    if data["format"] != FORMAT:
        raise ValueError("format %r" % data["format"])
    ahead = data["ahead"]
    s3 = data["s3"]
    if s3 is not None:
        _check_look(s3)
    return State(
        watched_since=_in(data["watched_since"]),
        incidents={str(cause): Incident.from_data(held) for cause, held in data["incidents"].items()},
        due={str(verb): (str(held["calendar"]), parse_iso(held["since"])) for verb, held in data["due"].items()},
        # What an older version remembered has none of these.
        cut_short={str(verb): parse_iso(since) for verb, since in data.get("cut_short", {}).items()},
        messages={
            str(key): (str(held["told"]), parse_iso(held["at"])) for key, held in data.get("messages", {}).items()
        },
        known_uncovered=None if data["known_uncovered"] is None else [str(n) for n in data["known_uncovered"]],
        days={date.fromisoformat(day): int(free) for day, free in data["days"].items()},
        ahead=(timedelta(seconds=float(ahead["seconds"])), parse_iso(ahead["at"])) if ahead else None,
        queue=[
            Waiting(
                channel=str(held["channel"]),
                notice=Notice.from_data(held["notice"]),
                queued=parse_iso(held["queued"]),
                tries=int(held["tries"]),
                not_before=_in(held["not_before"]),
                error=str(held["error"]),
                to=None if held.get("to") is None else [str(address) for address in held["to"]],
                lost=[str(address) for address in held.get("lost", [])],
                taken=bool(held.get("taken", False)),
                unsure=int(held.get("unsure", 0)),
            )
            for held in data["queue"]
        ],
        unheard=[
            Unheard(
                way=str(held["way"]),
                beat=Beat.from_data(held["beat"]),
                tries=int(held["tries"]),
                not_before=_in(held["not_before"]),
                error=str(held["error"]),
            )
            for held in data.get("unheard", [])
        ],
        health={
            str(name): Health(
                _in(held["last_ok"]), _in(held["failing_since"]), str(held["error"]), str(held.get("refused", ""))
            )
            for name, held in data["health"].items()
        },
        dropped=int(data["dropped"]),
        s3=s3,
        s3_asked=_in(data["s3_asked"]),
        owed=_owed(data.get("owed")),
        damaged=_in(data.get("damaged")),
        memory=str(data.get("memory", "")),
    )


def _owed(data: Any) -> Optional[dict[str, list[str]]]:
    if data is None:
        return None
    return {str(name): [str(cause) for cause in causes] for name, causes in data.items()}


def load(folder: Path) -> tuple[State, str]:
    """Return the state that lies in `folder`, and what is wrong with the file (mostly nothing).

    Where something is, the state is the one that the copy holds; a fresh one when there is none.
    """
    try:
        return _read(folder / NAME), ""
    except FileNotFoundError:
        return State(), ""
    except _UNREADABLE as error:
        trouble = "%s: %s" % (type(error).__name__, error)
    try:
        state = _read(folder / COPY)
    except _UNREADABLE:
        return State(memory=NONE), trouble
    state.memory = state.memory or COPIED
    return state, trouble


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError)


def _read(path: Path) -> State:
    return from_data(json.loads(path.read_text(encoding="utf-8")))


def set_aside(folder: Path, now: datetime) -> str:
    """Keep the damaged file under another name as well, and return that. Of earlier ones the newest stay. Raise OSError if it cannot be."""
    aside = "%s.damaged-%s" % (NAME, compact(now))
    # It stays under its own name, too, until a whole one takes that: who is killed before finds the damage again, and the copy.
    with contextlib.suppress(FileNotFoundError):
        (folder / aside).unlink()
    os.link(folder / NAME, folder / aside)
    earlier = sorted(p.name for p in folder.glob("%s.damaged-*" % NAME) if p.name != aside)
    for name in earlier[: -(_KEPT_ASIDE - 1)]:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    return aside


def save(folder: Path, state: State) -> None:
    """Keep `state` in `folder`. Raise OSError if it cannot be."""
    make_dirs(folder)
    write_bytes(folder / NAME, to_json(state.as_data()))


def save_copy(folder: Path, state: State) -> None:
    """Keep `state` in `folder` once more, as it is after a look. Raise OSError if it cannot be."""
    write_bytes(folder / COPY, to_json(state.as_data()))


__all__ = (
    "COPIED",
    "COPY",
    "NAME",
    "NONE",
    "Health",
    "State",
    "Unheard",
    "Waiting",
    "from_data",
    "load",
    "save",
    "save_copy",
    "set_aside",
)
