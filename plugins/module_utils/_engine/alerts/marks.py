# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a channel took while the state could not be saved: an empty file each, for which a full disk mostly has room."""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import timedelta
from pathlib import Path

from ..core.incidents import MESSAGE
from ..core.notices import Notice
from ..core.times import Clock
from ..system.durable import adopt

_HELD = timedelta(hours=24)


class Marks:
    """The marks in `folder`. One counts for a day, so that what lasts is told again."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock

    def holds(self, channel: str, notice: Notice) -> bool:
        """Tell whether the channel took `notice`, or one that says the same, within a day."""
        try:
            age = self._clock().timestamp() - self._path(channel, notice).stat().st_mtime
        except OSError:
            return False
        return 0 <= age < _HELD.total_seconds()

    def add(self, channel: str, notice: Notice) -> None:
        """Remember that the channel took `notice`. Raise OSError if it cannot be."""
        path = self._path(channel, notice)
        path.touch(mode=0o600)
        now = self._clock().timestamp()
        os.utime(path, (now, now))
        adopt(path)

    def clear(self) -> None:
        """Forget all: the state knows them."""
        for path in self._folder.glob("alerts-*.told"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, channel: str, notice: Notice) -> Path:
        # What a person says is said each time; of an incident each event is, whenever it was written.
        said = notice.at if notice.event == MESSAGE or notice.cause.startswith("message/") else ""
        name = "%s\0%s\0%s\0%s\0%s" % (channel, notice.key, notice.event, notice.level, said)
        return self._folder / ("alerts-%s.told" % hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32])


__all__ = ("Marks",)
