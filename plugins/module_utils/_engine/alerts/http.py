# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""One HTTP request to a channel's service, and what its answer means for trying again."""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn, Optional
from urllib.parse import urlsplit

from .. import __version__

AGENT = "pgops/%s" % __version__
_MOST = 2000  # bytes of an answer that anybody wants to read
_LONGEST_WAIT = 86400.0
_OF_THE_MESSAGE = (400, 413, 422)  # it cannot be read, is too large, or makes no sense


class DeliveryError(Exception):
    """A channel did not accept a message. `again` tells whether the same may work soon; `wait` in how many seconds at the least.

    With `alone` the refusal may be of this message only, so that another one may be taken all the same. `unsure` tells that it
    may have been taken, as the answer to the whole of it never came. With `each` every address refused it for itself: `later`
    are those that may take it later, `lost` those that never will.
    """

    def __init__(
        self,
        text: str,
        *,
        again: bool = True,
        wait: Optional[float] = None,
        alone: bool = False,
        unsure: bool = False,
        each: bool = False,
        later: Sequence[str] = (),
        lost: Sequence[str] = (),
    ) -> None:
        super().__init__(text)
        self.again, self.wait, self.alone, self.unsure = again, wait, alone, unsure
        self.each, self.later, self.lost = each, tuple(later), tuple(lost)


@dataclass(frozen=True)
class Answer:
    """What a service said. `ahead` is by how much the clock of this host is ahead of that service's.

    `refused` says who of several did not take what the others took; mostly empty. `later` are those that may take it later, `lost`
    those that never will.
    """

    said: str
    ahead: Optional[timedelta] = None
    refused: str = ""
    later: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caller:
    """How requests are made: seconds to wait for an answer, and whose certificates are believed."""

    timeout: float = 10.0
    ca_bundle: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def context(self) -> ssl.SSLContext:
        """Return how TLS is done. Raise DeliveryError if the certificates cannot be read."""
        try:
            return ssl.create_default_context(cafile=self.ca_bundle or None)
        except (OSError, ssl.SSLError) as error:
            raise DeliveryError("The certificates in %s cannot be read: %s" % (self.ca_bundle, error)) from error

    def post_json(self, url: str, data: Any, headers: Optional[Mapping[str, str]] = None) -> Answer:
        """Post `data` as JSON; as post() does."""
        return self.post(url, to_body(data), {"Content-Type": "application/json", **(headers or {})})

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post `body` and return the answer of a service that accepted it. Raise DeliveryError if none did."""
        check(url)
        request = urllib.request.Request(  # noqa: S310 - check() lets only http and https pass
            url, data=body, headers={"User-Agent": AGENT, **headers}, method="POST"
        )
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), _Plain()]
        if url.startswith("https:"):
            handlers.append(_Secure(context=self.context()))
        asked = datetime.now(timezone.utc)
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=self.timeout) as response:
                said = _body(response)
                return Answer(("%d %s" % (response.status, said)).strip(), _ahead(response.headers, asked))
        except urllib.error.HTTPError as error:
            _refused(error)
        except urllib.error.URLError as error:
            # Before the whole of it was sent.
            _failed(error.reason if isinstance(error.reason, Exception) else error, self.timeout, sent=False)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _failed(error, self.timeout, sent=True)


def to_body(data: Any) -> bytes:
    """Return `data` as JSON in ASCII, which every service reads the same way."""
    return json.dumps(data, ensure_ascii=True).encode("ascii")


def check(url: str) -> None:
    """Raise DeliveryError if `url` is no address of a web service; it says nothing of it, as it may be a secret."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or not url.isascii() or not url.isprintable() or " " in url:
        raise DeliveryError("Its address is none that begins with https:// and names a host.", again=False)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message that is posted elsewhere would arrive as a GET without its text, and count as told."""

    def redirect_request(self, *_unused: Any, **_others: Any) -> None:
        return None


class _Limited(io.RawIOBase):
    """Reads from a connection until a moment, so that an answer that trickles takes no longer than one that does not come."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection, self._raw = connection, connection.makefile("rb", buffering=0)
        self._end = time.monotonic() + (connection.gettimeout() or _LONGEST_WAIT)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        left = self._end - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *others: Any, **named: Any) -> None:
        super().__init__(sock, *others, **named)
        usual, self.fp = self.fp, io.BufferedReader(_Limited(sock))
        usual.close()


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[attr-defined]


def _body(response: Any) -> str:
    """Return what a service says. Its status has told already; that the rest does not come changes nothing."""
    said = b""
    try:
        while len(said) < _MOST:
            piece = response.read1(_MOST - len(said))
            if not piece:
                break
            said += piece
    except (OSError, http.client.HTTPException):
        pass
    return said.decode("utf-8", "ignore")


def _refused(error: urllib.error.HTTPError) -> NoReturn:
    with error:
        said = " ".join(_body(error).split())
    text = "It answered %d %s%s" % (error.code, error.reason, ": %s" % said[:300] if said else "")
    again = error.code in (408, 425, 429) or error.code >= 500
    alone = error.code in _OF_THE_MESSAGE
    raise DeliveryError(text.strip(), again=again, wait=_retry_after(error.headers), alone=alone) from error


def _failed(error: Exception, timeout: float, *, sent: bool) -> NoReturn:
    if isinstance(error, (socket.timeout, TimeoutError)):
        # It may have been heard; to wait once more would only take longer.
        raise DeliveryError("It did not answer within %.0f s" % timeout, again=False, unsure=sent) from error
    if isinstance(error, socket.gaierror):
        raise DeliveryError("Its name cannot be resolved: %s" % (error.strerror or error), again=False) from error
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "verify_message", "") or error.reason or error
        raise DeliveryError("TLS failed: %s" % why, again=False) from error
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    raise DeliveryError("It cannot be reached: %s" % said) from error


def _retry_after(headers: Any) -> Optional[float]:
    """Return the seconds that the header Retry-After asks for, which may also be a date."""
    text = str((headers or {}).get("Retry-After") or "").strip()
    if not text:
        return None
    if text.isdecimal() and len(text) < 9:
        return min(float(text), _LONGEST_WAIT)
    moment = _moment(text)
    if moment is None:
        return None
    # By the clock of who says it, where that is told: ours may be another.
    now = _moment(str(headers.get("Date") or "")) or datetime.now(timezone.utc)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_WAIT)


def _ahead(headers: Any, asked: datetime) -> Optional[timedelta]:
    moment = _moment(str(headers.get("Date") or ""))
    return asked - moment if moment is not None else None


def _moment(text: str) -> Optional[datetime]:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


__all__ = ("AGENT", "Answer", "Caller", "DeliveryError", "check", "to_body")
