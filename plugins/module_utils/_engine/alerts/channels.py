# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The channels that the configuration turns on, and their secrets, which are read when they are needed."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import unquote, urlsplit

from ..config import read_secret
from ..core.notices import Notice
from ..core.quiet import RANK
from ..core.times import parse_iso
from ..settings import Alerts, Config
from ..system.runner import Runner
from .http import Answer, Caller, DeliveryError

_WORTH_MASKING, _LONG = 8, 16  # characters


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


def channels(config: Config, runner: Runner) -> list[Channel]:
    """Return the channels that the configuration turns on."""
    kinds = _kinds()
    return [kinds[name](config, runner) for name in config.alerts.channels()]


def _kinds() -> dict[str, Callable[[Config, Runner], Channel]]:
    # Imported here, as each of them imports this file; by name, as what is found otherwise does not travel to hosts.
    from .apprise_urls import AppriseChannel
    from .heartbeat import HeartbeatChannel
    from .mail import EmailChannel
    from .pagerduty import PagerDutyChannel
    from .sentry import SentryChannel
    from .slack import SlackChannel
    from .webhook import WebhookChannel

    kinds = (
        SlackChannel,
        PagerDutyChannel,
        SentryChannel,
        EmailChannel,
        WebhookChannel,
        HeartbeatChannel,
        AppriseChannel,
    )
    return {kind.name: kind for kind in kinds}


_SECRETS = {
    "slack": ("webhook_url",),
    "pagerduty": ("routing_key",),
    "sentry": ("dsn",),
    "email": ("password",),
    "webhook": ("url", "secret"),
    "heartbeat": ("url",),
    "apprise": ("urls",),
}


def secrets_of(found: list[Channel]) -> Iterator[str]:
    """Yield every secret of the channels, and the parts of it by which it would show in a message."""
    for channel in found:
        for key in _SECRETS[channel.name]:
            try:
                value = channel.secret(key)
            except DeliveryError:
                continue
            if value:
                yield value
            for word in value.split():
                yield from _parts(word)
                if "{" in word:
                    # As it is sent, and as an answer may show it.
                    for verb in channel.config.watched_verbs(apart=True):
                        yield from _parts(channel.named(word, verb))


def _parts(address: str) -> Iterator[str]:
    """Yield what of an address is secret: its path, each long part of that, and who logs in; as written, and as meant."""
    try:
        parts = urlsplit(address)
        path = parts.path.strip("/")
        found = [part for part in (path, parts.query, parts.username) if part and len(part) >= _WORTH_MASKING]
        # What is shorter may be a word of any message.
        found += [part for part in path.split("/") if len(part) >= _LONG and "{" not in part]
        found += [parts.password] if parts.password else []
        yield address
        for part in found:
            yield part
            yield unquote(part)
    except ValueError:
        return


def trouble_with_channels(config: Config, runner: Runner) -> list[str]:
    """Return what is wrong with the files of the channels' secrets, and what this host lacks for them, a sentence each."""
    found = []
    for channel in channels(config, runner):
        found += ["alerts.%s: %s" % (channel.name, said) for said in (channel.missing(),) if said]
        for key in _SECRETS[channel.name]:
            try:
                channel.secret(key)
            except DeliveryError as error:
                found.append(str(error))
    return found


__all__ = ("Beat", "Channel", "channels", "secrets_of", "trouble_with_channels")
