# SPDX-License-Identifier: GPL-3.0-or-later
"""hear.py PORT FILE: a web server that writes down what it is sent, a line of JSON each; while /run/lab-deaf is there it does not."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OUT = Path(sys.argv[2])


class Ear(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
        deaf = Path("/run/lab-deaf").exists()
        if not deaf:
            with OUT.open("a", encoding="utf-8") as out:
                # One write for each line, so that two requests at once do not mix.
                out.write(json.dumps({"path": self.path, "body": body}) + "\n")
        self.send_response(503 if deaf else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_unused: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ear).serve_forever()
