# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Ceph object gateway of its own: monitor, manager, store and gateway from Debian's packages, all in memory.

It needs root on Linux. All its processes are in a process namespace whose first one ends with us, and all its mounts
in a mount namespace, so that nothing stays behind, whatever ends the tests. It listens on loopback only.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import time
import urllib.error
from pathlib import Path
from typing import Self

from demo.servers import LOOPBACK, ServerError, _direct, _plain_environment, _S3Server, free_port
from tests.tools.roots import CEPH_PACKAGES, CEPH_SUITE, RootError, root_of

PATIENCE = 240  # seconds; on an idle machine it is up in six

_NODE = Path(__file__).with_name("ceph_node.sh")
_NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--")


class CephS3(_S3Server):
    """Ceph's S3 gateway: versioning, Object Lock, bucket policies, conditional puts, a clock that is compared."""

    def __init__(self, root: Path) -> None:
        try:
            self._system = root_of(CEPH_SUITE, CEPH_PACKAGES)
        except RootError as problem:
            raise ServerError(f"Ceph cannot run here. {problem}") from problem
        super().__init__(root)
        # Somebody else at the same store, who owns no bucket: "arn:aws:iam:::user/guest" in a policy.
        self.guest = {"access_key": "GU" + secrets.token_hex(9).upper(), "secret_key": secrets.token_urlsafe(30)}

    def __enter__(self) -> Self:
        try:
            for attempt in range(1, 6):
                if self._came_up(final=attempt == 5):
                    break
        except BaseException:
            self.close()
            raise
        return self

    def _came_up(self, *, final: bool) -> bool:
        """Start it and wait until it answers; False when it lost a port to another process. Raises ServerError."""
        ports = [str(free_port()) for _unused in range(3)]
        self.endpoint_url = f"http://{LOOPBACK}:{ports[-1]}"
        self.log_file.write_text("")
        self._guard.start(
            [*_NAMESPACES, "bash", str(_NODE), str(self._system), *ports],
            log=self.log_file,
            env=_plain_environment()
            | {"ACCESS_KEY": self.access_key, "SECRET_KEY": self.secret_key}
            | {"GUEST_ACCESS_KEY": self.guest["access_key"], "GUEST_SECRET_KEY": self.guest["secret_key"]},
            # `unshare` heeds nothing less while its child runs; with it the kernel ends that child and all below.
            stop_signals=(signal.SIGKILL,),
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not final and re.search(r"unable to bind.*in use", self.log()):
                self._guard.stop()
                return False
            if self._guard.poll() is not None:
                raise ServerError(f"Ceph ended:\n{self.log()[-4000:]}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                _direct().open(self.endpoint_url, timeout=30).close()
                return True
            time.sleep(0.1)
        raise ServerError(f"Ceph did not answer within {PATIENCE} s:\n{self.log()[-4000:]}")

    @property
    def version(self) -> str:
        """The version of Ceph that runs."""
        found = re.search(r"ceph version (\S+)", self.log())
        return found[1] if found else "unknown"

    def log(self) -> str:
        """Return what the daemons have said; the gateway writes a line for each request."""
        return self.log_file.read_text(errors="replace")
