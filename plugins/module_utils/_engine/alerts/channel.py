# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What every way to people has: its section of the configuration, its secrets, which are read when they are needed, and what it hears."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..config import read_secret
from ..core.notices import Notice
from ..core.quiet import RANK
from ..core.times import parse_iso
from ..settings import Alerts, Config
from ..system.runner import Runner
from .http import Answer, Caller, DeliveryError


@dataclass(frozen=True)
class Beat:
    """A run that begins or has ended, for who watches from outside: `phase` is start, ok or fail, or log for a line in its log.

    `ended` is when, in ISO 8601; empty for a start.
    """

    phase: str
    verb: str
    instance: str
    host: str
    text: str = ""
    seconds: Optional[float] = None
    run: str = ""
    crontab: str = ""
    timezone: str = ""
    ended: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Beat:
        """Return the beat of which asdict() gave `data`. Raise KeyError, TypeError, ValueError or UsageError for anything else."""
        texts = ("phase", "verb", "instance", "host", "text", "run", "crontab", "timezone", "ended")
        seconds = None if data["seconds"] is None else float(data["seconds"])
        parse_iso(data["ended"])
        return cls(seconds=seconds, **{key: str(data[key]) for key in texts})


class Channel(abc.ABC):
    """One way to people. `level` is the least that it hears of; `watcher` what it is called where it hears of runs, empty
    where it does not. With `keeps_runs` a late end is put to its own run there, and not to the moment at which it is heard; one that
    `has_log` keeps lines that are no sign of life.

    One that `knows_again` takes the same twice for once. One that `bundles` is read by people, who would rather have one
    message of a bad night than ten.
    """

    name = ""
    watcher = ""
    keeps_runs = False
    has_log = False
    hears_notices = True
    hears_recoveries = True
    bundles = False
    knows_again = False

    def __init__(self, config: Config, runner: Runner) -> None:
        self.alerts: Alerts = config.alerts
        self.config, self.runner = config, runner
        self.caller = Caller(float(config.alerts.timeout), config.alerts.ca_bundle)

    @property
    def section(self) -> Any:
        """Its section of the configuration."""
        return getattr(self.alerts, self.name)

    @property
    def level(self) -> str:
        """The least level that it hears of."""
        return str(getattr(self.section, "level", "info"))

    def hears(self, notice: Notice) -> bool:
        """Tell whether `notice` is for this channel. What is escalated also opens it for the recovery."""
        if not self.hears_notices or (notice.ends and not self.hears_recoveries):
            return False
        return notice.rank >= RANK[self.level]

    def secret(self, key: str) -> str:
        """Return the secret `key` of the section, or the first line of its file. Raise DeliveryError if neither can be had."""
        value = str(getattr(self.section, key))
        path = str(getattr(self.section, "%s_file" % key))
        if value or not path:
            return value
        errors: list[str] = []
        value = read_secret(Path(path), "alerts.%s.%s_file" % (self.name, key), errors)
        if errors or not value:
            raise DeliveryError(errors[0] if errors else "%s is empty." % path, again=False)
        return value

    def named(self, text: str, verb: str) -> str:
        """Return `text` with {instance} and {verb} filled in."""
        return text.replace("{instance}", self.config.instance).replace("{verb}", verb)

    @property
    def apart(self) -> bool:
        """Whether its watcher has a check of its own for each verb."""
        return False

    def watched(self) -> list[str]:
        """Return the verbs of which its watcher hears; none where there is no watcher."""
        return self.config.watched_verbs(apart=self.apart) if self.watcher else []

    def missing(self) -> str:
        """Say what this host lacks for the channel, empty for nothing."""
        return ""

    def addresses(self) -> list[str]:
        """Return the addresses that each take or refuse a message for themselves; none where they are asked as one."""
        return []

    def send_to(self, notice: Notice, only: Sequence[str]) -> Answer:
        """Hand `notice` over for those addresses `only`. Raise DeliveryError if it is accepted for none of them."""
        del only
        return self.send(notice)

    @abc.abstractmethod
    def send(self, notice: Notice) -> Answer:
        """Hand `notice` over. Raise DeliveryError if it is not accepted."""

    def test(self, notice: Notice) -> Answer:
        """Hand over a notice that is only a test."""
        return self.send(notice)

    def beat(self, beat: Beat) -> Optional[Answer]:
        """Tell that a run begins or has ended; None when there is nothing to tell it. Raise DeliveryError if it is not accepted."""
        del beat
        return None

    def test_watcher(self, notice: Notice) -> Answer:
        """Try the way by which it hears of runs, without a sign of life where there is another one. Raise DeliveryError."""
        return self.test(notice)


__all__ = ("Beat", "Channel")
