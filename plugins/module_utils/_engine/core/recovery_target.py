# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Where a recovery is to stop: the target, as a person asks for it and as PostgreSQL is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Callable, Optional

from .errors import UsageError
from .segments import parse_lsn, show_lsn
from .times import iso, parse_iso, written_out

KINDS = ("time", "lsn", "xid", "name", "immediate", "end")
ACTIONS = ("promote", "pause")
EPOCH = 1 << 32  # transactions; PostgreSQL often tells a number without it
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
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) >= EPOCH**2 or int(text) % EPOCH < _FIRST_XID:
        raise UsageError("%r is no transaction." % text, hint="Give the number that pg_current_xact_id() shows.")
    return int(text)


def _name(text: str) -> str:
    if "\0" in text or "\n" in text or len(text.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        raise UsageError("%r cannot name a restore point." % text, hint="A name has up to 63 bytes.")
    return text


def _timeline(text: str) -> str:
    text = text or "latest"
    if text in ("latest", "current") or (re.fullmatch("[0-9]{1,10}", text) and 0 < int(text) < EPOCH):
        return text
    raise UsageError("%r is no timeline." % text, hint="Use latest, current, or a number.")


__all__ = ("ACTIONS", "EPOCH", "KINDS", "Target", "parse_moment", "parse_target")
