# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection amazon.aws, for a test of the role storage: out of PyPI's package `ansible`, which carries it.

Galaxy has it for users; a machine that tests may reach the package index only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.tools.bench import CACHE

# The newest one whose collections run on ansible-core 2.19 and later.
_PACKAGE = "ansible>=12,<13"
_TOP = "ansible_collections/amazon/aws/"
_NEEDED = ("MANIFEST.json", "FILES.json", "meta/", "plugins/")


def collection() -> Path:
    """Return a folder for ANSIBLE_COLLECTIONS_PATH that has the collection; fetch it once. Raises CalledProcessError."""
    place = CACHE / "amazon-aws"
    if place.is_dir():
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="amazon-", dir=CACHE))
    try:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(scratch), _PACKAGE], check=True)
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = tuple(_TOP + name for name in _NEEDED)
            archive.extractall(scratch / "new", [name for name in archive.namelist() if name.startswith(wanted)])
        (scratch / "new").rename(place)
    finally:
        shutil.rmtree(scratch)
    return place


__all__ = ("collection",)
