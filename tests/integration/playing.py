# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible as a person calls it, with the collection of this checkout and nothing of this machine's own settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.tools.collection_tree import ROOT

COLLECTIONS = ROOT / ".venv" / "collections"


def played(
    words: Sequence[str], home: Path, *, seconds: float = 240, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `words` in `home`, with `environ` beside what each needs or instead of it, and return how that ended."""
    return subprocess.run(
        words,
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
            **environ,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
