# SPDX-License-Identifier: GPL-3.0-or-later
"""A real, small file system in memory, mounted where only its holder sees it, and reached through that one's /proc."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(mebibytes: int, account: str = "", inodes: int = 0) -> Iterator[Path]:
    """Yield the directory of an empty file system of that size, and of as many files if `inodes` says so. It vanishes with its
    holder, whatever ends that one.

    Who is not root reaches it only if its holder is of the same account: `account` where we are root, else our own.
    """
    ways = [["unshare", "--user", "--map-root-user", "--mount"]]
    if os.geteuid() == 0:
        ways.insert(0, ["unshare", "--mount"])  # a container may allow the one and not the other
    script = "mount -t tmpfs -o mode=0755,size=%dm,nr_inodes=%d small /mnt && echo ready && exec " % (mebibytes, inodes)
    if account and os.geteuid() == 0:
        script += "setpriv --reuid=%s --regid=%d --clear-groups " % (account, pwd.getpwnam(account).pw_gid)
    script += "cat"
    said = []
    for way in ways:
        with subprocess.Popen(
            [*way, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
            if holder.stdout.readline() == "ready\n":
                try:
                    yield Path("/proc/%d/root/mnt" % holder.pid)
                finally:
                    holder.stdin.close()
                return
            said.append(holder.stderr.read().strip())
    pytest.fail("A test of full disks needs a mount of its own, as root or in a user namespace: %s" % " / ".join(said))


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill the disk with one file, up to `leave` bytes, and return that file."""
    facts = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as stream:
        left = facts.f_bavail * facts.f_frsize - leave
        try:
            while left > 0:
                left -= stream.write(bytes(min(left, 65536)))
        except OSError as error:
            if error.errno != 28:
                raise
    return ballast
