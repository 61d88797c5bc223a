# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The three requests that carry content (put, part, get), without botocore's costs: it computes 3 ms for each.

With ten thousand small files, that is what a sync would take most of its time for. This knows the plain way only: a
direct connection, an answer of success. Whatever else happens, it says "not by me", and botocore makes the request
again, with its retries, redirects and errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Optional
from urllib.parse import urlsplit

from ..core.sigv4 import EMPTY_SHA256, Keys, encoded_path, encoded_query, signed
from .transfer import Slice

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_MOST_HEADERS, _LONGEST_LINE = 200, 65536
_BUFFER, _AT_ONCE = 128 * 1024, 64 * 1024
# An answer that brings no content has nothing to say at length.
_MOST_SAID = 1024 * 1024
# Give up on the wire for good when it has never worked after so many requests.
_TRIES = 3

# As far as it takes to see where an answer ends; receive() looks at it closely.
_INTERIM = re.compile(rb"HTTP/1\.1 1[0-9][0-9] ")
_SAID_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_METHODS = {"put_object": "PUT", "upload_part": "PUT", "get_object": "GET"}
# botocore's arguments as headers of a request, and headers of an answer as botocore's keys.
_SENT = {
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ContentMD5": "content-md5",
    "IfMatch": "if-match",
    "Range": "range",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
}
_ANSWERED = {"etag": "ETag", "x-amz-checksum-sha256": "ChecksumSHA256", "content-range": "ContentRange"}
# The headers of an answer that are looked at. Said twice and differently, they could be read in two ways.
_READ = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding", *_ANSWERED})
Headers = dict[str, str]


class Wire:
    """Connections to one bucket, kept open and shared by all threads."""

    def __init__(self, client: Any, credentials: Any, bucket: str, *, ca_bundle: str = "") -> None:
        """`client` is botocore's, which knows the address of the bucket; `credentials` are botocore's, too."""
        self._credentials, self._ca_bundle = credentials, ca_bundle
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._region = str(client.meta.region_name or "")
        address = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
        self._secure, self._host = address.scheme == "https", _regional(address.netloc, self._region)
        self._prefix = address.path[: -len("k")]
        self._context: Optional[ssl.SSLContext] = None
        self._worked, self._failed = False, 0
        self.off = not self._usable(address.path, "%s://%s/" % (address.scheme, address.netloc))

    def _usable(self, path: str, url: str) -> bool:
        from botocore.utils import get_environ_proxies

        plain = path.endswith("/k") and bool(self._region) and self._credentials is not None
        return plain and not get_environ_proxies(url)

    def attempt(self, operation: str, key: str, arguments: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """Make the request that botocore's client would make, and return what it would return.

        Return None when botocore should do it instead: nothing is known then about what the store did. An answer to
        `get_object` has a `Body` with read1() and close(); its trouble is a ConnectionError. What the body of a request
        raises comes through.
        """
        if self.off or operation not in _METHODS:
            return None
        connection = None
        try:
            head = self.head(operation, key, arguments)
            if head is None:
                return None
            connection = self._connection()
            connection.send(head, arguments.get("Body", b""))
            answer = connection.receive(operation == "get_object", self.put_back)
        except (OSError, http.client.HTTPException, ValueError):
            answer = None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if answer is None and connection is not None:
            connection.close()
        self.learn(worked=answer is not None)
        return answer

    def head(self, operation: str, key: str, arguments: Mapping[str, Any]) -> Optional[bytes]:
        """Return the request up to its body, signed; None if it is not one of ours or cannot be signed.

        Raise ValueError if it would not be one request.
        """
        asked, keys = self._headers(arguments), self._keys()
        if asked is None or keys is None:
            return None
        query = encoded_query([(n[0].lower() + n[1:], str(arguments[n])) for n in _QUERY if n in arguments])
        path = self._prefix + encoded_path(key)
        return self._head(_METHODS[operation], path, query, asked, arguments.get("Body", b""), keys)

    def _headers(self, arguments: Mapping[str, Any]) -> Optional[Headers]:
        """Return the headers that say the `arguments`, or None for one that is not known here."""
        asked = {"host": self._host}
        for name, value in arguments.items():
            if name in _SENT:
                asked[_SENT[name]] = value
            elif name == "Metadata":
                asked.update(("x-amz-meta-" + key, text) for key, text in value.items())
            elif name not in ("Body", *_QUERY):
                return None
        return asked

    def _keys(self) -> Optional[Keys]:
        """Return the keys of this moment, or None where they cannot be had; botocore then says why."""
        try:
            frozen = self._credentials.get_frozen_credentials()
        except Exception:  # noqa: BLE001  # whatever a provider of credentials raises
            return None
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "", self._region)

    def _head(self, method: str, path: str, query: str, asked: Headers, body: Any, keys: Keys) -> bytes:
        payload = body.sha256 if isinstance(body, Slice) else hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        headers = signed(method, path, query, asked, payload, keys, datetime.now(timezone.utc))
        if method == "PUT":
            headers["content-length"] = str(len(body))
        lines = ["%s %s%s HTTP/1.1" % (method, path, "?" + query if query else "")]
        lines += ["%s: %s" % pair for pair in headers.items()]
        # Both end a line: they would end the header, too.
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header of several lines")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def learn(self, *, worked: bool) -> None:
        """Count a request; `off` is true from then on where none of some has ever worked."""
        self._worked = self._worked or worked
        self._failed += not worked
        if not self._worked and self._failed >= _TRIES:
            self.off = True

    def _connection(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _new(self) -> Connection:
        with self._lock:
            if self._secure and self._context is None:
                self._context = _tls(self._ca_bundle)
        return Connection(self._host, self._context)

    def connect(self) -> Connection:
        """Return a connection that the store has not closed meanwhile. Raise OSError."""
        while True:
            with self._lock:
                idle = self._idle.pop() if self._idle else None
            if idle is None:
                return self._new()
            if idle.is_quiet():
                return idle
            idle.close()

    def put_back(self, connection: Connection) -> None:
        """Keep a connection that waits for a request."""
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


_QUERY = ("PartNumber", "UploadId")


class Connection:
    """One connection: sends a request, receives the answer."""

    def __init__(self, host: str, context: Optional[ssl.SSLContext]) -> None:
        kind = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
        options: dict[str, Any] = {} if context is None else {"context": context}
        self._http = kind(host, timeout=_CONNECT_SECONDS, **options)
        self._http.connect()
        self._socket: socket.socket = self._http.sock
        self._socket.settimeout(_READ_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._plain = context is None
        self._live = self._socket.makefile("rb", _BUFFER)
        self._stream: Any = self._live
        self._held = bytearray()  # what is_whole() took of an answer

    def fileno(self) -> int:
        return self._socket.fileno()

    def is_quiet(self) -> bool:
        """Tell whether nothing has come since the last answer: whatever comes unasked is the end, or no good."""
        asked = select.poll()  # select() takes no descriptor above 1023
        asked.register(self._socket, select.POLLIN)
        return not asked.poll(0)

    def send(self, head: bytes, body: Any) -> None:
        if isinstance(body, Slice):
            self._socket.sendall(head)
            body.send_to(self._socket, by_kernel=self._plain)
        else:
            self._socket.sendall(head + body)

    def is_whole(self, most: int) -> bool:
        """Take what has come of an answer, without waiting, and tell whether that is all of it.

        Also true where receive() takes none such: larger than `most` bytes, without a length, or cut. Raise OSError, and
        ValueError for more than one answer.
        """
        try:
            end = _end_of(self._held, most)
            while end is None:
                came = self._come()
                if not came:
                    return True
                self._held += came
                end = _end_of(self._held, most)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        if 0 < end < len(self._held):
            raise ValueError("more than one answer")
        return True

    def _come(self) -> bytes:
        """Return what has come, nothing at the end. Raise BlockingIOError or SSLWantReadError where nothing has."""
        if self._plain:
            return os.read(self.fileno(), _AT_ONCE)  # a socket with a time limit never waits by itself
        self._socket.settimeout(0)
        try:
            return self._socket.recv(_AT_ONCE)
        finally:
            self._socket.settimeout(_READ_SECONDS)

    def receive(self, with_body: bool, put_back: Any, *, most: Optional[int] = None) -> Optional[dict[str, Any]]:
        """Return the answer in botocore's words, or None if it is no plain success, or larger than `most` bytes."""
        held, self._held = bytes(self._held), bytearray()
        self._stream = io.BufferedReader(io.BytesIO(held), len(held)) if held else self._live
        status, headers, keep = self._answer()
        while 100 <= status < 200:
            status, headers, keep = self._answer()
        if status not in (200, 206) or "transfer-encoding" in headers or "content-encoding" in headers:
            return None
        if with_body and "content-length" not in headers:
            return None
        length = _length(headers.get("content-length", "0"))
        limit = most if with_body else _MOST_SAID
        if limit is not None and length > limit:
            return None
        answer: dict[str, Any] = {name: headers[key] for key, name in _ANSWERED.items() if key in headers}
        if with_body:
            answer["ContentLength"] = length
            answer["Body"] = _Body(self, self._stream, length, put_back if keep else None)
            return answer
        if len(self._stream.read(length)) != length:
            return None
        if keep:
            put_back(self)
        else:
            self.close()
        return answer

    def _answer(self) -> tuple[int, Headers, bool]:
        """Return the status, the headers that count by lower-case name, and whether the connection stays open.

        Raise ValueError for what HTTP does not allow, or allows to be read in two ways.
        """
        first, lines = self._lines()
        version, number = first.split(" ", 2)[:2]
        if not version.startswith("HTTP/1.") or len(number) != 3:
            raise ValueError("no status: %r" % first)
        headers: Headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or " " in name or "\t" in name:
                raise ValueError("no header: %r" % line)
            name = name.lower()
            if name in _READ and headers.setdefault(name, value.strip()) != value.strip():
                raise ValueError("%s twice" % name)
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return int(number), headers, keep

    def _lines(self) -> tuple[str, list[str]]:
        """Return the lines of the head of an answer: the first, and the others up to the empty one."""
        # Most heads come in one piece, which is cut up at once.
        end = self._stream.peek().find(b"\r\n\r\n")
        if end >= 0:
            head = self._stream.read(end + 4)[:-4].decode("iso-8859-1")
            lines = head.split("\r\n")
            if not head.count("\r") == head.count("\n") == len(lines) - 1:
                raise ValueError("lines that end in two ways")
        else:
            lines = []
            while not lines or lines[-1]:
                if len(lines) > _MOST_HEADERS:
                    break
                lines.append(self._line())
            lines = lines[:-1] if not lines[-1] else lines
        if not 0 < len(lines) <= _MOST_HEADERS:
            raise ValueError("no answer, or more than %d lines" % _MOST_HEADERS)
        return lines[0], lines[1:]

    def _line(self) -> str:
        line: bytes = self._stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("the answer ended too soon")
        return line.decode("iso-8859-1").rstrip("\r\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._live.close()
        self._http.close()


class _Body:
    """The content of an answer. The connection goes back when all of it was read."""

    def __init__(self, connection: Connection, stream: Any, length: int, put_back: Any) -> None:
        self._connection, self._stream, self._left, self._put_back = connection, stream, length, put_back
        self._open = True
        if not length:
            self._end(whole=True)

    def all(self) -> bytes:
        """Return what is left of it. Raise ConnectionError if it ends too soon."""
        found = []
        while self._left:
            found.append(self.read1(self._left))
        return b"".join(found)

    def read1(self, size: int) -> bytes:
        """Return what has come, at most `size` bytes; nothing at the end. Raise ConnectionError if it came too soon."""
        if not self._left:
            return b""
        try:
            chunk: bytes = self._stream.read1(min(size, self._left))
        except OSError as error:  # a timeout is no TimeoutError before Python 3.10, and TLS has errors of its own
            raise ConnectionError(str(error) or type(error).__name__) from error
        if not chunk:
            raise ConnectionError("the answer ended too soon")
        self._left -= len(chunk)
        if not self._left:
            self._end(whole=True)
        return chunk

    def close(self) -> None:
        self._end(whole=False)

    def _end(self, *, whole: bool) -> None:
        if not self._open:
            return
        self._open = False
        if whole and self._put_back is not None:
            self._put_back(self._connection)
        else:
            self._connection.close()


def _end_of(held: bytearray, most: int) -> Optional[int]:
    """Return where the answer ends of which `held` has come, None where more must come, 0 where it does not say.

    0 also for one that brings more than `most` bytes.
    """
    begin = 0
    while True:
        end = held.find(b"\r\n\r\n", begin)
        if end < 0:
            return None if len(held) - begin < _LONGEST_LINE else 0
        end += 4
        if not _INTERIM.match(held, begin):
            break
        begin = end
    said = _SAID_LENGTH.search(held, begin, end)
    if said is None or int(said[1]) > most:
        return 0
    end += int(said[1])
    return end if end <= len(held) else None


def _length(said: str) -> int:
    """Return what a Content-Length says. Raise ValueError for all but digits: int() also takes signs, blanks and underscores."""
    if not (said.isascii() and said.isdigit()):
        raise ValueError("no length: %r" % said)
    return int(said)


def _regional(host: str, region: str) -> str:
    """Return the address of a bucket at Amazon in its region; botocore signs addresses for others at the global one."""
    suffix = ".s3.amazonaws.com"
    if not host.endswith(suffix) or region in ("us-east-1", "aws-global"):
        return host
    return "%s.s3.%s.amazonaws.com" % (host[: -len(suffix)], region)


def _tls(ca_bundle: str) -> ssl.SSLContext:
    from botocore.httpsession import get_cert_path

    return ssl.create_default_context(cafile=ca_bundle or get_cert_path(True))


__all__ = ("Connection", "Wire")
