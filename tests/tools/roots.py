# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian root file systems for the tests, each built once into .cache/roots/."""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from tests.tools.bench import CACHE

ROOTS = CACHE / "roots"

# What a root needs to boot as a host: systemd as its first process, and the bus that its tools talk on.
BOOTABLE = ("dbus", "iproute2", "systemd", "systemd-sysv")

# Where Ceph's object gateway for the tests comes from.
CEPH_SUITE = "trixie"
CEPH_PACKAGES = ("ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd", "radosgw")

# `minbase` is what apt needs. Nobody reads manuals in there, and a power cut only costs another build.
_OPTIONS = (
    "--quiet",
    "--mode=root",
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)


class RootError(Exception):
    """A root file system cannot be built here; the text says why and what to do."""


def root_of(suite: str, packages: Sequence[str]) -> Path:
    """Return a root file system of Debian `suite` (`bookworm`, `trixie`) with `packages`; build it if there is none.

    It is shared: copy it, or mount something over what you write to. Raises RootError.
    """
    if sys.platform != "linux" or os.geteuid():
        raise RootError("Only root on Linux can build a root file system. Run this as root on Debian.")
    recipe = "\n".join([suite, *_OPTIONS, *sorted(packages)])
    target = ROOTS / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    ROOTS.mkdir(parents=True, exist_ok=True)
    with _alone(target.name):
        if not target.is_dir():
            _build(suite, packages, target)
    return target


def _build(suite: str, packages: Sequence[str], target: Path) -> None:
    """Build beside `target` and rename. We hold the lock, so whatever else is beside it was left by a killed run."""
    program = _mmdebstrap()
    for left in ROOTS.glob(f".{target.name}.*"):
        shutil.rmtree(left)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=ROOTS))
    root, log = beside / "root", beside / "log"
    try:
        mirror = _mirror()
        words = [program, *_OPTIONS, *([f"--include={','.join(packages)}"] if packages else []), suite, str(root)]
        with log.open("wb") as out:
            done = subprocess.run(
                [*words, *([mirror] if mirror else [])],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise RootError(f"mmdebstrap ended with {done.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        root.chmod(0o755)
        # A machine id of its own comes at the first boot: two copies of one root are two hosts.
        (root / "etc/machine-id").unlink(missing_ok=True)
        root.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _mmdebstrap() -> str:
    """Return the program, and install it first where it is missing. Raises RootError."""
    found = shutil.which("mmdebstrap")
    if found:
        return found
    if not shutil.which("apt-get"):
        raise RootError("mmdebstrap is not installed, and there is no apt-get to install it. Install it.")
    install = ("install", "-qq", "-y", "--no-install-recommends", "mmdebstrap")
    with _alone("apt"):
        for words in (("update", "-qq"), install):
            done = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RootError(f"apt-get {words[0]} ended with {done.returncode}: {done.stderr[-1000:]}")
    return shutil.which("mmdebstrap") or "/usr/bin/mmdebstrap"


@functools.cache
def _mirror() -> Optional[str]:
    """Return the address from which this machine gets its own Debian, or None: then mmdebstrap knows one."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    system = {name: value.strip('"') for name, _equals, value in (line.partition("=") for line in lines)}
    if system.get("ID") != "debian":
        return None
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        address, _space, rest = line.partition(" ")
        if rest in (f"{name} main" for name in (system.get("VERSION_CODENAME"), "stable", "testing")):
            return address
    return None


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process at a time work on `name`."""
    with (ROOTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build the root file system that the command line names and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", help="bookworm, trixie, …")
    parser.add_argument("packages", nargs="*", metavar="package")
    options = parser.parse_args()
    try:
        print(root_of(options.suite, options.packages))
    except RootError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
