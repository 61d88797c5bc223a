# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Whatever else Apprise speaks, where its package is installed."""

from __future__ import annotations

import logging
from typing import Any

from ..core.notices import Notice
from .channel import Channel
from .http import Answer, DeliveryError


class AppriseChannel(Channel):
    """All addresses together; a notice is accepted when one of them took it, and the others are named by their numbers."""

    name = "apprise"
    bundles = True

    def missing(self) -> str:
        """Say that the package is not installed, where it is not."""
        try:
            _library()
        except DeliveryError as error:
            return str(error)
        return ""

    def send(self, notice: Notice) -> Answer:
        """Hand the notice to each address. Raise DeliveryError if none of them took it."""
        apprise = _library()
        kinds = {"info": "info", "warning": "warning", "critical": "failure"}
        kind = "success" if notice.ends else kinds[notice.level]
        urls = self.secret("urls").split()
        refused = []
        words = _Words()
        log = logging.getLogger("apprise")
        log.addHandler(words)
        try:
            for number, url in enumerate(urls, start=1):
                one = apprise.Apprise()
                added = one.add(url)
                for server in one:
                    # Together they must not take longer than one channel may.
                    for limit in ("socket_connect_timeout", "socket_read_timeout"):
                        usual = getattr(server, limit, None) or self.caller.timeout
                        setattr(server, limit, min(usual, max(1.0, self.caller.timeout / len(urls))))
                taken = added and one.notify(body=notice.body(), title=notice.subject, notify_type=kind)
                if not taken:
                    refused.append("address %d" % number)
        finally:
            log.removeHandler(words)
        if refused:
            said = "; ".join(words.lines)[:300] or "it gave no reason"
            left = "%s of %d did not take it: %s" % (", ".join(refused), len(urls), said)
            if len(refused) == len(urls):
                raise DeliveryError(left)
            # Whoever took it would get it once more with each further try.
            left = "not by %d of %d: %s" % (len(refused), len(urls), left)
            return Answer("taken by %d, %s" % (len(urls) - len(refused), left), refused=left)
        return Answer("taken by %d" % len(urls))


class _Words(logging.Handler):
    """Keeps what Apprise says of its troubles."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _library() -> Any:
    try:
        import apprise
    except ImportError:
        raise DeliveryError(
            "The Python package apprise is not installed (Debian: apprise; or: pip install apprise).", again=False
        ) from None
    return apprise


__all__ = ("AppriseChannel",)
