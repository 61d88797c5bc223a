# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the S3 place and of sync share: servers, a proxy that injects faults, places, sets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import settings
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import manifest as manifests
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import File, Manifest
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3 import S3Place
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import Patience
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.durable import create_private
from demo.servers import MotoS3, RcloneS3

MIB = 1024 * 1024
BUCKET = "backups"


@dataclass(frozen=True)
class Asked:
    """A request as the proxy saw it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def part(self) -> int:
        """The number of the part that it sends, 0 for any other request."""
        return int(self.query["partNumber"][0]) if self.method == "PUT" and "partNumber" in self.query else 0

    @property
    def kind(self) -> str:
        """`put`, `part`, `get`, `head`, `list`, `delete`, or the subresource of a POST or a bucket request."""
        if self.part:
            return "part"
        for name in ("uploads", "uploadId", "delete", "versioning", "object-lock", "list-type"):
            if name in self.query:
                return {"list-type": "list"}.get(name, name)
        return self.method.lower()


@dataclass(frozen=True)
class Cut:
    """Break the connection after so many bytes of the request's body."""

    after: int


@dataclass(frozen=True)
class CutAnswer:
    """Break the connection after so many bytes of the answer's body."""

    after: int


@dataclass(frozen=True)
class LoseAnswer:
    """Hand the request on, and break the connection before the answer."""


@dataclass(frozen=True)
class Stall:
    """Hand the request on, answer with half a head, set `begun`, and say no more until `over`."""

    begun: threading.Event
    over: threading.Event


@dataclass(frozen=True)
class Refuse:
    """Answer in the store's place."""

    status: int
    code: str
    body: bytes = b""


@dataclass(frozen=True)
class Flip:
    """Change one byte of the request's body on its way."""

    at: int


Fault = Cut | CutAnswer | LoseAnswer | Stall | Refuse | Flip | None


@dataclass
class Proxy:
    """A proxy in front of an S3 server. `fault` decides about each request; `asked` is what went through."""

    upstream: str
    fault: Callable[[Asked], Fault] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    strict: StrictChecksums | None = None
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = "%s://127.0.0.1:%d" % ("https" if self.tls else "http", self._server.server_address[1])
        return self

    def __exit__(self, *_unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kinds(self) -> list[str]:
        return [asked.kind for asked in self.asked]


def times(count: int, fault: Fault, when: Callable[[Asked], bool]) -> Callable[[Asked], Fault]:
    """Return a decision that applies `fault` to the first `count` requests for which `when` holds."""
    left, lock = [count], threading.Lock()

    def decide(asked: Asked) -> Fault:
        with lock:
            if left[0] > 0 and when(asked):
                left[0] -= 1
                return fault
        return None

    return decide


class StrictChecksums:
    """Checks and keeps SHA-256 like Amazon's store, which neither moto nor rclone's server does: the test's own model."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.parts: dict[str, dict[int, str]] = {}
        self.lock = threading.Lock()

    def before(self, asked: Asked, body: bytes) -> Refuse | None:
        said = asked.headers.get("x-amz-checksum-sha256")
        if asked.method == "PUT" and said and said != base64.b64encode(hashlib.sha256(body).digest()).decode():
            return Refuse(400, "BadDigest")
        return None

    def after(self, asked: Asked, status: int, headers: dict[str, str]) -> None:
        said = asked.headers.get("x-amz-checksum-sha256", "")
        with self.lock:
            if status == 200 and asked.part:
                self.parts.setdefault(asked.query["uploadId"][0], {})[asked.part] = said
            elif status == 200 and asked.kind == "put":
                self.kept[asked.path] = said
            elif status == 200 and asked.method == "POST" and asked.kind == "uploadId":
                digests = [d for _unused, d in sorted(self.parts[asked.query["uploadId"][0]].items())]
                whole = hashlib.sha256(b"".join(base64.b64decode(d) for d in digests)).digest()
                self.kept[asked.path] = (
                    "%s-%d" % (base64.b64encode(whole).decode(), len(digests)) if all(digests) else ""
                )
            if asked.kind in ("head", "get", "put"):
                headers.pop("x-amz-checksum-sha256", None)
                kept = self.kept.get(asked.path, "")
                if kept and (asked.kind == "put" or asked.headers.get("x-amz-checksum-mode") == "ENABLED"):
                    headers["x-amz-checksum-sha256"] = kept


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection of a proxy."""

    proxy: Proxy
    protocol_version = "HTTP/1.1"
    timeout = 60

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _serve(self) -> None:
        where = urlsplit(self.path)
        headers = {k.lower(): v for k, v in self.headers.items()}
        asked = Asked(self.command, where.path, parse_qs(where.query, keep_blank_values=True), headers)
        self.proxy.asked.append(asked)
        fault = self.proxy.fault(asked)
        length = int(headers.get("content-length", 0))
        if isinstance(fault, Cut):
            self.rfile.read(min(fault.after, length))
            return self._break()
        body = self.rfile.read(length)
        if isinstance(fault, Flip) and body:
            body = body[: fault.at] + bytes([body[fault.at] ^ 1]) + body[fault.at + 1 :]
        if self.proxy.strict and (fault is None or isinstance(fault, Flip)):
            fault = self.proxy.strict.before(asked, body) or fault
        if isinstance(fault, Refuse):
            xml = "<Error><Code>%s</Code><Message>%s</Message></Error>" % (fault.code, fault.code)
            return self._answer(fault.status, {"Content-Type": "application/xml"}, fault.body or xml.encode())
        status, answer_headers, content = self._forward(body)
        if isinstance(fault, LoseAnswer):
            return self._break()
        if isinstance(fault, Stall):
            self.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "')
            fault.begun.set()
            fault.over.wait(120)
            return self._break()
        if self.proxy.strict:
            self.proxy.strict.after(asked, status, answer_headers)
        return self._answer(status, answer_headers, content, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = urlsplit(self.proxy.upstream)
        connection = HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        with contextlib.suppress(ConnectionError):  # it may answer before it has read everything
            connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        hop = ("transfer-encoding", "connection")
        found = {k.lower(): v for k, v in answer.getheaders() if k.lower() not in hop}
        connection.close()
        return answer.status, found, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault = None) -> None:
        self.send_response_only(status)
        if self.command != "HEAD":
            headers = {**headers, "content-length": str(len(content))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status == 204:
            return
        if isinstance(fault, CutAnswer) and len(content) > fault.after:
            self.wfile.write(content[: fault.after])
            self.wfile.flush()
            self._break()
            return
        self.wfile.write(content)

    def _break(self) -> None:
        # A close with linger 0 sends a reset, as a broken middlebox does.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_unused: Any) -> None:
        pass


class Tries(Patience):
    """Patience that ends after so many tries, for tests that count them."""

    def __init__(self, tries: int) -> None:
        super().__init__()
        self._tries = tries

    def pause(self, failed: int, since: float) -> bool:
        time.sleep(0.01)
        return failed < self._tries


@dataclass
class Kit:
    """A running server and what a test makes of it. Each kit has its own instance name, and so its own prefix."""

    server: Any
    kind: str
    tmp: Path
    instance: str = field(default_factory=lambda: "i" + uuid.uuid4().hex[:8])
    warnings: list[str] = field(default_factory=list)

    def s3(self, url: str = "", **others: Any) -> settings.S3:
        options = {
            "bucket": BUCKET,
            "endpoint_url": url or self.server.endpoint_url,
            "access_key": self.server.access_key,
            "secret_key": self.server.secret_key,
            "addressing_style": "path",
            "part_size": "5MiB",
        }
        return settings.S3(**{**options, **others})

    def place(self, url: str = "", *, tries: int = 4, **others: Any) -> S3Place:
        patience, state = Tries(tries), self.tmp / "state"
        return S3Place(self.s3(url, **others), self.instance, state=state, warn=self.warnings.append, patience=patience)

    def context(self, url: str = "", *, home: str = "here", **others: Any) -> Context:
        """Return a context whose local place and state lie below `home`."""
        config = settings.Config(
            instance=self.instance,
            local=settings.Local(path=str(self.tmp / home / "backups")),
            state_dir=str(self.tmp / home / "state"),
            log_dir="",
            s3=self.s3(url, **others),
            backup=settings.Backup(min_free="1MiB"),
        )
        return Context(config, "host")

    def file(self, name: str, size: int) -> tuple[File, Path]:
        """Return a new file of random bytes and its manifest entry."""
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = os.urandom(size)
        path.write_bytes(content)
        return File(name, size, hashlib.sha256(content).hexdigest()), path

    def raw(self) -> Any:
        """A boto3 client of the server itself: the other tool that looks at what we stored."""
        return self.server.client()

    def raw_key(self, path: str) -> str:
        return "database-backups/%s/%s" % (self.instance, path)

    def raw_read(self, path: str) -> bytes:
        answer = self.raw().get_object(Bucket=BUCKET, Key=self.raw_key(path))
        return bytes(answer["Body"].read())

    def raw_write(self, path: str, content: bytes) -> None:
        self.raw().put_object(Bucket=BUCKET, Key=self.raw_key(path), Body=content)

    def raw_paths(self) -> list[str]:
        home = self.raw_key("")
        listed = self.raw().list_objects_v2(Bucket=BUCKET, Prefix=home).get("Contents", [])
        return sorted(item["Key"][len(home) :] for item in listed)


def make_set(
    context: Context, set_id: str, sizes: dict[str, int], *, mark: str = "", parent: str | None = None
) -> Manifest:
    """Publish a set of random files in the local place of `context`; `mark` makes manifests differ."""
    with context.local.new_set(set_id) as folder:
        files = []
        for name, size in sizes.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            content = os.urandom(size)
            (folder / name).write_bytes(content)
            files.append(File(name, size, hashlib.sha256(content).hexdigest()))
        begun = datetime.strptime(set_id[:16] + "+0000", "%Y%m%dT%H%M%SZ%z").astimezone(UTC).isoformat()
        made = Manifest(
            id=set_id,
            instance=context.config.instance,
            kind=set_id.rsplit("-", 1)[1],
            started=begun,
            finished=begun,
            system_identifier="1",
            server_version="17.0",
            server_version_num=170000,
            tools={},
            engine="test" + mark,
            files=tuple(files),
            parent=parent,
        )
        with create_private(folder / manifests.NAME) as stream:
            stream.write(made.encode())
    return made


def _server(cls: Any, root: Path) -> Iterator[Any]:
    with cls(root) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session", name="moto")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from _server(MotoS3, tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session", name="rclone")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from _server(RcloneS3, tmp_path_factory.mktemp("rclone"))


@pytest.fixture(params=["moto", "rclone"], name="kit")
def kit_of_each(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    """A kit on each of the servers."""
    return Kit(request.getfixturevalue(request.param), request.param, tmp_path)


@pytest.fixture(name="moto_kit")
def make_moto_kit(moto: Any, tmp_path: Path) -> Kit:
    return Kit(moto, "moto", tmp_path)


@pytest.fixture(name="rclone_kit")
def make_rclone_kit(rclone: Any, tmp_path: Path) -> Kit:
    return Kit(rclone, "rclone", tmp_path)


@pytest.fixture(name="strict_kit")
def make_strict_kit(moto: Any, tmp_path: Path) -> Iterator[tuple[Kit, Proxy]]:
    """A kit, and a proxy that checks and keeps SHA-256 in front of its server."""
    with Proxy(moto.endpoint_url, strict=StrictChecksums()) as proxy:
        yield Kit(moto, "strict", tmp_path), proxy
