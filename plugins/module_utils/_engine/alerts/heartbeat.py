# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""A watcher outside that hears of each run, so that silence itself raises an alarm there."""

from __future__ import annotations

from typing import Optional
from urllib.parse import urlsplit, urlunsplit

from ..core.notices import Notice
from .channels import Beat, Channel
from .http import Answer

_ENDS = {"start": "/start", "ok": "", "fail": "/fail", "log": "/log"}


class HeartbeatChannel(Channel):
    """Healthchecks or its like. It hears of runs, and of nothing else."""

    name = "heartbeat"
    beats = True
    hears_notices = False

    def send(self, notice: Notice) -> Answer:
        """Leave a line in its log, which is no sign of life."""
        return self._ping("log", "backup", notice.subject)

    def test(self, notice: Notice) -> Answer:
        """Leave a line in its log; one of the plain style can only be told that all is well."""
        return self._ping("log" if self.section.style == "healthchecks" else "ok", "backup", notice.subject)

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
