# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' own tools for the tests, from Debian's package, unpacked once beside the root file systems of roots.py.

Nothing is installed, so that no server of Prometheus begins to run on this machine.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.tools.roots import ROOTS

_HOME = ROOTS.parent / "prometheus"


class PrometheusError(Exception):
    """Prometheus' tools cannot be had here; the text says why."""


def promtool() -> Path:
    """Return the program promtool: of this machine, or of Debian's package. Raises PrometheusError."""
    return _program("promtool")


def prometheus() -> Path:
    """Return the server. Raises PrometheusError."""
    return _program("prometheus")


def _program(name: str) -> Path:
    here = shutil.which(name)
    if here:
        return Path(here)
    target = _HOME / "usr" / "bin" / name
    if not target.is_file():
        _HOME.parent.mkdir(parents=True, exist_ok=True)
        with _HOME.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                _unpack()
    return target


def _unpack() -> None:
    """Get the package and unpack it beside its place, then rename."""
    if not shutil.which("apt-get"):
        raise PrometheusError("Prometheus comes from Debian's packages, and there is no apt-get. Install promtool.")
    beside = Path(tempfile.mkdtemp(prefix=".prometheus.", dir=_HOME.parent))
    try:
        download = ["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", "prometheus"]
        done = subprocess.run(download, cwd=beside, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
            done = subprocess.run(download, cwd=beside, capture_output=True, text=True, check=False)
        packages = sorted(beside.glob("*.deb"))
        if done.returncode or not packages:
            raise PrometheusError(f"apt-get download prometheus ended with {done.returncode}: {done.stderr[-1000:]}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(beside / "root")], check=True)
        shutil.rmtree(_HOME, ignore_errors=True)
        (beside / "root").rename(_HOME)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
