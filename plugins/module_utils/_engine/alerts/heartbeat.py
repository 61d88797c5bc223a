# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A watcher outside that hears of each run, so that silence itself raises an alarm there."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional
from urllib.parse import urlsplit, urlunsplit

from ..core.notices import Notice
from ..settings import HEARTBEAT
from .channel import Beat, Channel
from .http import Answer, DeliveryError

_ENDS = {"start": "/start", "ok": "", "fail": "/fail", "log": "/log"}


class HeartbeatChannel(Channel):
    """Healthchecks or its like. It hears of runs, and of nothing else."""

    name = HEARTBEAT
    watcher = HEARTBEAT
    hears_notices = False

    @property
    def has_log(self) -> bool:  # type: ignore[override]  # by its style
        """Whether it keeps lines that are no sign of life."""
        return bool(self.section.style == "healthchecks")

    @property
    def apart(self) -> bool:
        """Whether its address has {verb}; one that cannot be read is taken for one without."""
        try:
            return "{verb}" in self.secret("url")
        except DeliveryError:
            return False

    def send(self, notice: Notice) -> Answer:
        """Leave a line in its log, which is no sign of life."""
        return self._ping("log", "backup", notice.subject)

    def test(self, notice: Notice) -> Answer:
        """Leave a line in the log of each of its addresses; one of the plain style can only be told that all is well."""
        told: dict[str, Answer] = {}
        for verb in self.watched():
            address = self.named(self.secret("url"), verb)
            if address not in told:
                try:
                    told[address] = self._ping("log" if self.has_log else "ok", verb, notice.subject)
                except DeliveryError as error:
                    raise DeliveryError("Of %s: %s" % (verb, error), again=error.again, wait=error.wait) from error
        said = next(iter(told.values()))
        plain = "" if self.has_log else ", as a success: the plain style has nothing else"
        return replace(said, said="%s%s" % (said.said, plain))

    def beat(self, beat: Beat) -> Optional[Answer]:
        """Tell of a run; one of the plain style hears of success only. Raise DeliveryError if it is not accepted."""
        if self.section.style == "plain" and beat.phase != "ok":
            return None
        return self._ping(beat.phase, beat.verb, beat.text)

    def _ping(self, phase: str, verb: str, text: str) -> Answer:
        url = with_end(self.named(self.secret("url"), verb), _ENDS[phase])
        return self.caller.post(url, text.encode("utf-8", "replace"), {"Content-Type": "text/plain; charset=utf-8"})


def with_end(url: str, end: str) -> str:
    """Return `url` with `end` added to its path, whatever follows the path."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + end)) if end else url


__all__ = ("HeartbeatChannel", "with_end")
