# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian root file systems for the tests, each built once and kept outside the checkout.

They lie in `roots` of the folder that the environment variable PGOPS_CACHE names; without it, of `pgops` in the
user's cache.
"""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


def _cache() -> Path:
    """Return the folder of what is built once for all checkouts of this user."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PGOPS_CACHE") or Path(home) / "pgops").absolute()


ROOTS = _cache() / "roots"

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


@dataclass(frozen=True)
class Recipe:
    """A root file system: Debian's release, its packages, and what else is done to it.

    `finish` is a script that gets the root as its first argument, when the packages are in and a mirror can be reached
    from within. `offered` are packages that are not installed; the script gets them in OFFERED, parted by spaces.
    """

    suite: str
    packages: tuple[str, ...]
    finish: Optional[Path] = None
    offered: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name: another recipe has another one."""
        said = "\n".join([self.suite, *_OPTIONS, *sorted(self.packages)])
        if self.finish:
            said = "\n\n".join([said, "\n".join(sorted(self.offered)), self.finish.read_text(encoding="utf-8")])
        return f"{self.suite}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def words(self, root: Path) -> list[str]:
        """Return what mmdebstrap is told."""
        include = [f"--include={','.join(self.packages)}"] if self.packages else []
        # What the script leaves apt knowing is meant to stay.
        finish = [f"--customize-hook={self.finish}", "--skip=cleanup/apt/lists"] if self.finish else []
        return [*_OPTIONS, *include, *finish, self.suite, str(root)]


def root_of(suite: str, packages: Sequence[str]) -> Path:
    """Return a root file system of Debian `suite` (`bookworm`, `trixie`) with `packages`; build it if there is none.

    It is shared: copy it, or mount something over what you write to. Raises RootError.
    """
    return built(Recipe(suite, tuple(packages)))


def built(recipe: Recipe) -> Path:
    """Return the root file system of `recipe`; build it if there is none. It is shared, as `root_of` says."""
    if sys.platform != "linux" or os.geteuid():
        raise RootError("Only root on Linux can build a root file system. Run this as root on Debian.")
    target = ROOTS / recipe.name
    if target.is_dir():
        return target
    ROOTS.mkdir(parents=True, exist_ok=True)
    with _alone(target.name):
        if not target.is_dir():
            _build(recipe, target)
    return target


def _build(recipe: Recipe, target: Path) -> None:
    """Build beside `target` and rename. We hold the lock, so whatever else is beside it was left by a killed run."""
    program = _mmdebstrap()
    for left in ROOTS.glob(f".{target.name}.*"):
        shutil.rmtree(left)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=ROOTS))
    root, log = beside / "root", beside / "log"
    try:
        mirror = _mirror()
        with log.open("wb") as out:
            done = subprocess.run(
                [program, *recipe.words(root), *([mirror] if mirror else [])],
                env={
                    **os.environ,
                    "DEBIAN_FRONTEND": "noninteractive",
                    "LC_ALL": "C.UTF-8",
                    "OFFERED": " ".join(recipe.offered),
                },
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
