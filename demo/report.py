# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo says: a line while a step runs, a table and a file at the end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Step:
    """One row of the table."""

    name: str
    seconds: float = 0.0
    changed: bool = False
    size: int | None = None
    said: str = ""


@dataclass
class Report:
    """The steps so far and the outcome."""

    path: Path
    steps: list[Step] = field(default_factory=list)
    compared_tables: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = "it did not finish"
    interrupted: bool = False
    _began: float = 0.0

    def begin(self, name: str, doing: str) -> Step:
        """Say what happens now. Raises KeyboardInterrupt where the one that a signal raised got lost in a destructor."""
        if self.interrupted:
            raise KeyboardInterrupt
        print(f"{doing} ... ", end="", flush=True)
        self._began = time.monotonic()
        self.steps.append(Step(name))
        return self.steps[-1]

    def end(self, step: Step, *, seconds: float | None = None) -> None:
        """Say how long it took."""
        step.seconds = time.monotonic() - self._began if seconds is None else seconds
        print(f"{step.seconds:.1f} s", flush=True)

    def write(self) -> None:
        """Write the summary for programs."""
        summary = {
            "ok": self.error is None,
            "steps": [{"name": s.name, "seconds": round(s.seconds, 2), "changed": s.changed} for s in self.steps],
            "compared_tables": self.compared_tables,
            "differences": self.differences,
        }
        if self.error is not None:
            summary["error"] = self.error
        self.path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    def table(self) -> str:
        """Return the steps for people."""
        rows = [
            ("step", "seconds", "size", ""),
            *((s.name, f"{s.seconds:.1f}", size(s.size), s.said) for s in self.steps),
        ]
        total = sum(step.seconds for step in self.steps)
        rows.append(("in all", f"{total:.1f}", "", ""))
        wide = max(len(row[0]) for row in rows)
        return "\n".join(f"  {a:<{wide}}  {b:>7}  {c:>9}  {d}".rstrip() for a, b, c, d in rows)


def size(count: int | None) -> str:
    """Return a number of bytes as people say it."""
    if count is None:
        return ""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
