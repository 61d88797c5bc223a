# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own way to send and receive content: what it takes, what it leaves to botocore, and TLS."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_wire import Wire
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import Bandwidth, Slice
from tests.integration.s3_fixtures import (  # pylint: disable=unused-import
    Kit,
    Proxy,
    Refuse,
    kit_of_each,
    make_moto_kit,
    moto_server,
    rclone_server,
)

__all__ = ("kit_of_each", "make_moto_kit", "moto_server", "rclone_server")

SET = "20261122T020000Z-logical"
MIB = 1024 * 1024
PLAIN = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n\r\nhello'


def stored(name: str) -> str:
    return "sets/%s/%s" % (SET, name)


class Scripted:
    """A server that gives the next of its `answers` to each request, and keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.requests, self.connections = list(answers), [], 0  # type: ignore[var-annotated]
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while self.answers:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rb") as stream:
                while self.answers:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = stream.readline()
                        if not line:
                            break
                        head += line
                    if not head:
                        break
                    lengths = [h.split(b":")[1] for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")]
                    self.requests.append((head, stream.read(int(lengths[0])) if lengths else b""))
                    if not self.answers:  # closed meanwhile
                        return
                    answer = self.answers.pop(0)
                    connection.sendall(answer)
                    if not answer.endswith(b"hello") or b"close" in answer.lower() or b"HTTP/1.0" in answer:
                        break

    def close(self) -> None:
        self.answers.clear()
        self._server.close()


def wire_to(url: str, **more: Any) -> Wire:
    session = botocore.session.Session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    config = Config(s3={"addressing_style": "path"})
    client = session.create_client("s3", region_name="us-east-1", endpoint_url=url, config=config)
    return Wire(client, session.get_credentials(), "backups", **more)


@contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[Scripted, Wire]]:
    server = Scripted(*answers)
    wire = wire_to(server.url)
    try:
        yield server, wire
    finally:
        wire.close()
        server.close()


def whole(answer: Any) -> bytes:
    found = b""
    while True:
        chunk = answer["Body"].read1(3)
        if not chunk:
            return found
        found += chunk


def test_a_plain_answer_is_taken_and_the_connection_used_again() -> None:
    with scripted(PLAIN, PLAIN, PLAIN) as (server, wire):
        for _count in range(3):
            answer = wire.attempt("get_object", "a b/ä", {"Range": "bytes=0-4"})
            assert answer is not None
            assert (answer["ETag"], answer["ContentLength"], whole(answer)) == ('"e"', 5, b"hello")
        assert server.connections == 1
        assert server.requests[0][0].startswith(b"GET /backups/a%20b/%C3%A4 HTTP/1.1\r\n")
        assert b"\r\nrange: bytes=0-4\r\n" in server.requests[0][0]


def test_a_body_that_is_not_read_to_its_end_ends_the_connection() -> None:
    with scripted(PLAIN, PLAIN) as (server, wire):
        first = wire.attempt("get_object", "k", {})
        assert first is not None
        assert first["Body"].read1(2) == b"he"
        first["Body"].close()
        second = wire.attempt("get_object", "k", {})
        assert second is not None
        assert whole(second) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nwhat is this\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"Content-Length: 5\r\n\r\nhello",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_plain_success_is_left_to_botocore(answer: bytes) -> None:
    with scripted(answer) as (server, wire):
        assert wire.attempt("get_object", "k", {}) is None
        assert len(server.requests) == 1


def test_an_interim_answer_is_passed_over_and_an_old_protocol_closes() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
    with scripted(interim, PLAIN.replace(b"/1.1", b"/1.0"), PLAIN) as (server, wire):
        for _count in range(3):
            answer = wire.attempt("get_object", "k", {})
            assert answer is not None
            assert whole(answer) == b"hello"
        assert server.connections == 2


def test_a_body_that_ends_too_soon_is_trouble_of_the_connection() -> None:
    with scripted(PLAIN[:-2]) as (_server, wire):
        answer = wire.attempt("get_object", "k", {})
        assert answer is not None
        with pytest.raises(ConnectionError):
            whole(answer)


def test_a_way_that_never_works_is_given_up() -> None:
    refusal = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    with scripted(*[refusal] * 9) as (server, wire):
        assert [wire.attempt("get_object", "k", {}) for _count in range(6)] == [None] * 6
        assert len(server.requests) == 3


def test_requests_that_it_does_not_know_are_left_to_botocore() -> None:
    with scripted(PLAIN) as (server, wire):
        assert wire.attempt("head_object", "k", {}) is None
        assert wire.attempt("put_object", "k", {"Body": b"x", "ACL": "private"}) is None
        assert wire.attempt("put_object", "k", {"Body": b"x", "Metadata": {"a": "b\r\nX-Evil: 1"}}) is None
        assert server.requests == []


def test_a_stretch_of_a_file_is_sent_with_its_hash(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20000
    source = tmp_path / "file"
    source.write_bytes(content)
    digest = hashlib.sha256(content[1000 : 1000 + 3 * MIB]).hexdigest()
    with (
        scripted(PLAIN) as (server, wire),
        Slice(source, 1000, 3 * MIB, Bandwidth(0), sha256=digest) as body,
    ):
        answer = wire.attempt("upload_part", "k", {"Body": body, "UploadId": "u/1", "PartNumber": 7})
        assert answer == {"ETag": '"e"'}
        head, sent = server.requests[0]
        assert head.startswith(b"PUT /backups/k?partNumber=7&uploadId=u%2F1 HTTP/1.1\r\n")
        assert b"x-amz-content-sha256: %s\r\n" % digest.encode() in head
        assert sent == content[1000 : 1000 + 3 * MIB]


def test_credentials_that_cannot_be_had_are_left_to_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("the role may not be assumed")

    with scripted(PLAIN) as (server, wire):
        monkeypatch.setattr(wire._credentials, "get_frozen_credentials", refuse)
        assert wire.attempt("get_object", "k", {}) is None
        assert server.requests == []


@pytest.mark.parametrize("trouble", [TimeoutError("timed out"), ssl.SSLError("bad record"), OSError(113, "No route")])
def test_any_trouble_of_the_network_in_a_body_is_one_that_may_pass(trouble: OSError) -> None:
    class Broken:
        def read1(self, size: int) -> bytes:
            raise trouble

    with scripted(PLAIN) as (_server, wire):
        answer = wire.attempt("get_object", "k", {})
        assert answer is not None
        answer["Body"]._stream = Broken()
        with pytest.raises(ConnectionError):
            answer["Body"].read1(5)


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-central-1", "backups.s3.eu-central-1.amazonaws.com"), ("us-east-1", "backups.s3.amazonaws.com")],
)
def test_a_bucket_at_amazon_is_addressed_in_its_region(region: str, host: str) -> None:
    session = botocore.session.Session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    wire = Wire(session.create_client("s3", region_name=region), session.get_credentials(), "backups")
    assert (wire._secure, wire._host, wire._prefix) == (True, host, "/")


def test_a_file_that_became_shorter_is_damage_not_trouble_of_the_network(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x" * 100)
    with (
        scripted(PLAIN) as (_server, wire),
        Slice(source, 0, 200, Bandwidth(0), sha256="00" * 32) as body,
        pytest.raises(DamagedError, match="became shorter"),
    ):
        wire.attempt("put_object", "k", {"Body": body})


def test_a_proxy_of_the_environment_is_left_to_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with scripted(PLAIN) as (server, wire):
        assert wire.attempt("get_object", "k", {}) is None
        assert server.requests == []


def test_content_goes_over_the_wire_and_refusals_over_botocore(kit: Kit) -> None:
    file, path = kit.file("small", 100)
    with Proxy(kit.server.endpoint_url) as proxy:
        place = kit.place(proxy.url)
        place.modes()
        proxy.asked.clear()
        place.upload(SET, file, path)
        assert [("user-agent" in a.headers, a.method) for a in proxy.asked] == [(False, "PUT"), (False, "GET")]
        proxy.asked.clear()
        proxy.fault = lambda asked: Refuse(503, "SlowDown") if "user-agent" not in asked.headers else None
        place.upload(SET, file, path)
        assert [("user-agent" in a.headers, a.method) for a in proxy.asked] == [
            (False, "PUT"),
            (True, "PUT"),
            (False, "GET"),
            (True, "GET"),
        ]
    assert kit.raw_read(stored("small")) == path.read_bytes()


# --- TLS --------------------------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for the loopback address, signed by itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, secret


def test_tls_is_checked_and_used(moto_kit: Kit, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    file, path = moto_kit.file("large", 6 * MIB)
    many = [moto_kit.file("small-%d" % number, 100 + number) for number in range(40)]  # by one thread
    with Proxy(moto_kit.server.endpoint_url, tls=context) as proxy:
        place = moto_kit.place(proxy.url, ca_bundle=str(cert))
        place.modes()
        proxy.asked.clear()
        place.upload_all(SET, [(file, path), *many])
        sent = [a for a in proxy.asked if a.part or a.kind == "put"]
        assert len(sent) == 2 + len(many)
        assert all("user-agent" not in a.headers for a in sent)
        assert [moto_kit.raw_read(stored(one.path)) for one, _path in many] == [p.read_bytes() for _one, p in many]
        assert moto_kit.raw_read(stored("large")) == path.read_bytes()
        assert wire_to(proxy.url).attempt("get_object", "k", {}) is None  # nobody vouches for this certificate
