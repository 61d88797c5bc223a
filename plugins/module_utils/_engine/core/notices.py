# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What is told of an incident: who, what, since when, what is still safe and what to do next; bounded, without secrets. Pure."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from .incidents import MESSAGE, OPENED, RAISED, RECOVERED, REPEATED, TEST, Telling
from .redaction import Redactor
from .times import human_span, iso, parse_iso

FORMAT = 1
_SUBJECT, _TEXT, _STEP, _LINE, _SAFE = 150, 1500, 600, 300, 6
EACH = "See each with what to do next: pgops status"
SEVERAL = "several"
_LEADS = {RAISED: "WORSE", REPEATED: "STILL", RECOVERED: "RECOVERED", TEST: "TEST"}


@dataclass(frozen=True)
class Origin:
    """Who speaks: the instance, its host, and what is still safe there (sentences)."""

    instance: str
    host: str
    safe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One message to people. `key` is the same for all that is said of one incident; `group` the same on every host."""

    event: str
    level: str
    rank: int
    cause: str
    key: str
    group: str
    instance: str
    host: str
    since: str
    at: str
    subject: str
    text: str
    step: str
    safe: tuple[str, ...]

    @property
    def ends(self) -> bool:
        """Whether it tells that something is over."""
        return self.event == RECOVERED

    @property
    def alarms(self) -> bool:
        """Whether an alarm belongs to it, which its recovery will end."""
        return self.event not in (RECOVERED, TEST)

    def body(self) -> str:
        """Return the whole text, line by line."""
        lines = [self.text, "", "Instance: %s" % self.instance, "Host: %s" % self.host]
        if self.event not in (TEST, MESSAGE):
            lines.append("Since: %s" % self.since)
        if self.ends:
            lines.append("Over since: %s" % self.at)
        if self.safe:
            lines += ["", "Still safe:", *("  %s" % line for line in self.safe)]
        if self.step:
            lines += ["", "Next: %s" % self.step]
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {"format": FORMAT, **asdict(self), "safe": list(self.safe)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Notice:
        """Return the notice that as_data() gave. Raise KeyError, TypeError or ValueError for anything else."""
        texts = {name: str(data[name]) for name in cls.__dataclass_fields__ if name not in ("rank", "safe")}
        return cls(rank=int(data["rank"]), safe=tuple(str(line) for line in data["safe"]), **texts)


def notice(telling: Telling, origin: Origin, redactor: Redactor, now: datetime) -> Notice:
    """Return what is told of an incident."""
    lead = _LEADS.get(telling.event, telling.level.upper())
    text = telling.text
    if telling.event == RECOVERED:
        lasted = human_span(max(0.0, (now - telling.since).total_seconds()))
        text = "This is over, after %s: %s" % (lasted, telling.text)
    return _made(telling, origin, redactor, now, (lead, text))


def bundle(notices: Sequence[Notice], step: str = EACH) -> Notice:
    """Return one notice that says what `notices` of one look say. It is as loud as the loudest of those that are not over."""
    loudest = max(notices, key=lambda n: (not n.ends, n.rank))
    events = {n.event for n in notices}
    count = {event: sum(n.event == event for n in notices) for event in events}
    over = count.get(RECOVERED, 0)
    news = ["%d in trouble" % (len(notices) - over)] if over < len(notices) else []
    news += ["%d over" % over] if over else []
    lead = _LEADS[RECOVERED] if over == len(notices) else loudest.level.upper()
    lines = ["%s: %s" % (_LEADS.get(n.event, n.level.upper()), " ".join(n.text.split())) for n in notices]
    # Each has its share, so that none is left out.
    share = max(40, _TEXT // len(lines) - 1)
    return replace(
        loudest,
        event=events.pop() if len(events) == 1 else OPENED,
        cause=SEVERAL,
        key=key_of(Origin(loudest.instance, loudest.host), SEVERAL),
        group="pgops/several",
        since=min(n.since for n in notices),
        subject=clean(
            "%s: %s: %s. %s" % (lead, loudest.instance, ", ".join(news), loudest.text), _SUBJECT, lines=False
        ),
        text=clean("\n".join(clean(line, share, lines=False) for line in lines), _TEXT),
        step=clean(step, _STEP, lines=False),
    )


def message(
    *, level: str, rank: int, text: str, key: str, event: str, origin: Origin, redactor: Redactor, now: datetime
) -> Notice:
    """Return a notice with the words of a person or a script; without a `key` it is an incident of its own."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    cause = "message/%s" % (key or digest)
    telling = Telling(event, cause, level, text, "", now, rank)
    return _made(telling, origin, redactor, now, (_LEADS.get(event, level.upper()), text))


def _made(telling: Telling, origin: Origin, redactor: Redactor, now: datetime, said: tuple[str, str]) -> Notice:
    lead, text = said
    text = clean(redactor.text(text), _TEXT)
    kind = telling.cause.partition("/")[0]
    return Notice(
        event=telling.event,
        level=telling.level,
        rank=telling.rank,
        cause=clean(telling.cause, _LINE, lines=False),
        key=key_of(origin, telling.cause),
        group="pgops/%s" % clean(kind, 100, lines=False),
        instance=clean(origin.instance, _LINE, lines=False),
        host=clean(origin.host, _LINE, lines=False),
        since=iso(telling.since),
        at=iso(now),
        subject=clean("%s: %s: %s" % (lead, origin.instance, text), _SUBJECT, lines=False),
        text=text,
        step=clean(redactor.text(telling.step), _STEP, lines=False),
        safe=tuple(clean(redactor.text(line), _LINE, lines=False) for line in origin.safe[:_SAFE]),
    )


def key_of(origin: Origin, cause: str) -> str:
    """Return the name of an incident for services that keep incidents: the same in all its notices, at most 255 characters."""
    key = "pgops/%s/%s" % (origin.instance, clean(cause, _LINE, lines=False))
    if len(key) <= 200:
        return key
    return "%s-%s" % (key[:180], hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16])


def clean(text: str, longest: int, *, lines: bool = True) -> str:
    """Return `text` without control characters and halves of characters, at most `longest` long; one line unless `lines`."""
    if not lines:
        text = " ".join(text.split())
    shown = "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def safe_lines(places: Sequence[Mapping[str, Any]], now: datetime) -> tuple[str, ...]:
    """Return what a recovery could start from, a sentence for each place as info() describes it."""
    said = []
    for place in places:
        name = place["place"]
        begun = {s["id"]: s.get("begun") for s in place["sets"]}
        proven, newest = place["newest_verified"], place["newest"]
        if not place["reachable"]:
            said.append("%s: unknown, as it cannot be read." % name)
        elif proven:
            said.append("%s: %s, begun %s ago, is proven to restore." % (name, proven, _age(begun.get(proven), now)))
        elif newest:
            line = "%s: %s, begun %s ago, is whole; nothing there is proven to restore."
            said.append(line % (name, newest, _age(begun.get(newest), now)))
        else:
            said.append("%s: nothing." % name)
    return tuple(said)


def _age(begun: Any, now: datetime) -> str:
    return human_span(max(0.0, (now - parse_iso(str(begun))).total_seconds())) if begun else "some time"


__all__ = (
    "EACH",
    "FORMAT",
    "SEVERAL",
    "Notice",
    "Origin",
    "bundle",
    "clean",
    "key_of",
    "message",
    "notice",
    "safe_lines",
)
