# SPDX-License-Identifier: GPL-3.0-or-later
"""apt_lock.py LOCK FILE SECONDS: hold a lock of apt until an apt-get has waited for it that long; with 0, until somebody ends us.

FILE gets two lines: when the lock was had, and when it was let go (seconds since 1970).
"""

from __future__ import annotations

import fcntl
import sys
import time
from pathlib import Path


def installing() -> set[str]:
    """Return the numbers of the processes of apt-get that are to install something."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"apt-get") and b"install" in words:
            found.add(entry.name)
    return found


locked, told, patience = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
# apt's lock is one of fcntl, not of flock.
with locked.open("w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    told.write_text(f"{time.time()}\n")
    since: dict[str, float] = {}
    while not patience or not any(time.monotonic() - first >= patience for first in since.values()):
        since = {pid: since.get(pid, time.monotonic()) for pid in installing()}
        time.sleep(0.1)
    with told.open("a") as out:
        out.write(f"{time.time()}\n")
