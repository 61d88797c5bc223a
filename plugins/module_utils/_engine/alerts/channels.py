# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The channels that the configuration turns on, and their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from ..settings import Config
from ..system.runner import Runner
from .apprise_urls import AppriseChannel
from .channel import Channel
from .heartbeat import HeartbeatChannel
from .http import DeliveryError
from .mail import EmailChannel
from .pagerduty import PagerDutyChannel
from .sentry import SentryChannel
from .slack import SlackChannel
from .webhook import WebhookChannel

_WORTH_MASKING, _LONG = 8, 16  # characters
# By name, as what is found otherwise does not travel to hosts.
_KINDS = {
    kind.name: kind
    for kind in (
        SlackChannel,
        PagerDutyChannel,
        SentryChannel,
        EmailChannel,
        WebhookChannel,
        HeartbeatChannel,
        AppriseChannel,
    )
}
_SECRETS = {
    "slack": ("webhook_url",),
    "pagerduty": ("routing_key",),
    "sentry": ("dsn",),
    "email": ("password",),
    "webhook": ("url", "secret"),
    "heartbeat": ("url",),
    "apprise": ("urls",),
}


def channels(config: Config, runner: Runner) -> list[Channel]:
    """Return the channels that the configuration turns on."""
    return [_KINDS[name](config, runner) for name in config.alerts.channels()]


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


__all__ = ("channels", "secrets_of", "trouble_with_channels")
