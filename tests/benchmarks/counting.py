# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before an S3 server that counts what is asked of it."""

from __future__ import annotations

import threading
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

_HOP = ("connection", "transfer-encoding", "content-length")


class CountingProxy:
    """Passes every request on as it is, the signed Host included, and counts them by kind in `counts`.

    Kinds: `listings` (a first page), `pages` (each further one), and the methods of all others.
    """

    def __init__(self, upstream: str) -> None:
        self.counts: Counter[str] = Counter()
        self.upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, path: str) -> None:
        """Count one request."""
        query = parse_qs(urlsplit(path).query, keep_blank_values=True)
        listing = method == "GET" and "list-type" in query
        kind = ("pages" if "continuation-token" in query else "listings") if listing else method
        with self._lock:
            self.counts[kind] += 1


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection to the end, over one connection to the server."""

    proxy: CountingProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._server = HTTPConnection(self.proxy.upstream)

    def finish(self) -> None:
        self._server.close()
        super().finish()

    def _pass_on(self) -> None:
        self.proxy.count(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            self._server.putheader(name, value)
        self._server.endheaders(body)
        answer = self._server.getresponse()
        content = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names are the base class's

    def log_message(self, *_unused: object) -> None:
        """Say nothing."""
