# SPDX-License-Identifier: GPL-3.0-or-later
"""Real receivers of alerts: a web server that writes down what it hears and may misbehave, and a mail server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

HANG, RESET = "hang", "reset"
# Headers that never end; a body that never ends.
TRICKLE, HALF = "trickle", "half"
# What each service says when it is content.
CONTENT = {
    "/slack": (200, "ok"),
    "/v2/enqueue": (202, '{"status":"success"}'),
    "/api": (200, "{}"),
    "/ping": (200, "OK"),
}


@dataclass
class Heard:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """How the next request is answered."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class HttpReceiver:
    """A web server on this host. `answers` are for the next requests, in order; then it is content, or `always`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.heard: list[Heard] = []
        self.answers: queue.Queue[Answer | str] = queue.Queue()
        self.always: Answer | str | None = None
        self.over = threading.Event()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.hear(self)

            def log_message(self, *_unused: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if context is not None else "http"
        self.url = "%s://localhost:%d" % (scheme, self.server.server_address[1])
        self.server.handle_error = lambda *_unused: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def hear(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.heard.append(Heard(request.command, request.path, headers, body, time.monotonic()))
        try:
            answer = self.answers.get_nowait()
        except queue.Empty:
            answer = self.always or self._content(request.path)
        if answer == TRICKLE:
            # A byte now and then: no single wait is long.
            with contextlib.suppress(OSError):
                for byte in b"HTTP/1.0 200 OK\r\nX: " + b"x" * 600:
                    request.connection.sendall(bytes([byte]))
                    if self.over.wait(0.1):
                        break
            return
        if answer == HALF:
            request.connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\no")
            self.over.wait(60)
            return
        if answer == HANG:
            self.over.wait(60)
            return
        if answer == RESET:
            # No FIN but a RST: the connection is gone as if the program had crashed.
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            return
        assert isinstance(answer, Answer)
        # Its own date is that of this host.
        (request.send_response_only if "Date" in answer.headers else request.send_response)(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer.body)))
        request.end_headers()
        request.wfile.write(answer.body.encode())

    @staticmethod
    def _content(path: str) -> Answer:
        return next((Answer(*said) for start, said in CONTENT.items() if path.startswith(start)), Answer())

    def of(self, start: str) -> list[Heard]:
        """The requests whose path begins with `start`, in order."""
        return [h for h in self.heard if h.path.startswith(start)]

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(name="receiver")
def receiver_here() -> Iterator[HttpReceiver]:
    made = HttpReceiver()
    yield made
    made.close()


@dataclass(frozen=True)
class Certificate:
    """A certificate for localhost that nobody knows, and its key."""

    path: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


@pytest.fixture(name="certificate", scope="session")
def certificate_of_localhost(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(made.key), "-out", str(made.path)]
    subprocess.run(words, check=True, capture_output=True)
    return made


@pytest.fixture(name="tls_receiver")
def tls_receiver_here(certificate: Certificate) -> Iterator[HttpReceiver]:
    made = HttpReceiver(certificate.context())
    yield made
    made.close()


class Mails:
    """What a mail server took. It refuses the addresses in `refused`, and a mail with `poison`, with the codes given there.

    One that is `silent` takes a mail and never says so.
    """

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.refused: dict[str, str] = {}
        self.at_data = ""
        self.silent = False
        self.poison, self.at_poison = b"", ""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names it
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - as above
        if self.at_data:
            return self.at_data
        if self.poison and self.poison in bytes(envelope.content or b""):
            return self.at_poison
        self.taken.append(envelope)
        if self.silent:
            await asyncio.sleep(60)
        return "250 OK"

    def got(self) -> list[tuple[list[str], str]]:
        """Who got what, by the first words of the subject."""
        parsed = [
            (e.rcpt_tos, message_from_bytes(bytes(e.content or b""), policy=default)["Subject"]) for e in self.taken
        ]
        return [(to, str(subject).removeprefix("[pgops] ")) for to, subject in parsed]


@dataclass
class MailServer:
    """A mail server on this host, and what it took."""

    port: int
    mails: Mails


@pytest.fixture(name="mail_server")
def mail_server_with_account(certificate: Certificate) -> Iterator[MailServer]:
    """A server that wants TLS before anything else, and the account pgops with its password."""

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"pgops", b"sesame-open"), handled=False)

    mails = Mails()
    controller = Controller(
        mails,
        hostname="127.0.0.1",
        port=0,
        tls_context=certificate.context(),
        require_starttls=True,
        auth_required=True,
        authenticator=authenticate,
    )
    yield from _served(controller, mails)


@pytest.fixture(name="plain_mail_server")
def plain_mail_server_here() -> Iterator[MailServer]:
    """A server as a relay of the own network is: no TLS, no account."""
    mails = Mails()
    yield from _served(Controller(mails, hostname="127.0.0.1", port=0), mails)


def _served(controller: Controller, mails: Mails) -> Iterator[MailServer]:
    # aiosmtpd asks itself whether it answers, by the port that it was given: so it is given a real one.
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        controller.port = found.getsockname()[1]
    controller.start()
    try:
        yield MailServer(controller.port, mails)
    finally:
        controller.stop()
