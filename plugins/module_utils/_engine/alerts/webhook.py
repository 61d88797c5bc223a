# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Any program that takes JSON by POST; with a signature by which it knows that the message is ours and not an old one."""

from __future__ import annotations

import hashlib
import hmac
import time

from ..core.notices import Notice
from .channel import Channel
from .http import Answer, to_body


class WebhookChannel(Channel):
    """One address."""

    name = "webhook"

    def send(self, notice: Notice) -> Answer:
        """Post the notice. Raise DeliveryError if it is not accepted."""
        url, key = self.secret("url"), self.secret("secret")
        body = to_body(notice.as_data())
        headers = {"Content-Type": "application/json", "X-Pgops-Event": notice.event}
        if key:
            stamp = "%d" % time.time()
            headers.update({"X-Pgops-Timestamp": stamp, "X-Pgops-Signature": signature(key, stamp, body)})
        return self.caller.post(url, body, headers)


def signature(key: str, stamp: str, body: bytes) -> str:
    """Return `sha256=…`, the HMAC of the stamp (seconds since 1970), a point and the body."""
    return "sha256=%s" % hmac.new(key.encode("utf-8"), stamp.encode("ascii") + b"." + body, hashlib.sha256).hexdigest()


__all__ = ("WebhookChannel", "signature")
