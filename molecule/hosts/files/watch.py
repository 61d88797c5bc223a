# SPDX-License-Identifier: GPL-3.0-or-later
"""watch.py FILE SECONDS: write down the words of every process that can be seen, each once, with a rest after each look, until ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path

seen = set()
with Path(sys.argv[1]).open("ab", buffering=0) as out:
    while True:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if words and words not in seen:
                seen.add(words)
                out.write(words.replace(b"\0", b" ").replace(b"\n", b" ") + b"\n")
        time.sleep(float(sys.argv[2]))
