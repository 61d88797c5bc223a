# SPDX-License-Identifier: GPL-3.0-or-later
"""A measure, the row that comes out of it, and the tables that people and programs read."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "pgops"
MB = 1_000_000

# One timed run of a contestant: `seconds`, and what else was counted: `cpu` seconds of it and its children (and of the
# database server), `bytes` written, `memory` of it alone in bytes, requests, and seconds of what pgops calls a phase.
Run = dict[str, float]
# All runs of a group, by contestant, in the order in which they were made.
Found = Mapping[str, Sequence[Run]]

# How the names of such facts begin: `PostgreSQL 17`, `zstd of trixie`.
_PROGRAMS = ("PostgreSQL", "Python of", "pgBackRest", "pgops", "rclone", "s5cmd", "zstd of")
_UNITS = {"seconds": ("s", 1), "bytes": ("MB", MB), "memory": ("MB", MB)}


@dataclass(frozen=True)
class Measure:
    """One row: a figure of `group`, held against the best of the contestants `against`, or against the limit alone.

    Exactly one of the limits is given: `faster` (theirs is at least so many times ours) or `at_most` (ours is at most
    so many times theirs; without contestants, ours itself, in the figure's unit).
    """

    group: str
    what: str
    figure: str = "seconds"
    against: tuple[str, ...] = ()
    faster: float | None = None
    at_most: float | None = None

    @property
    def limit(self) -> float:
        """The number to reach or to stay below."""
        limit = self.at_most if self.faster is None else self.faster
        if limit is None:
            raise ValueError(f"{self.what} has no limit")
        return limit

    @property
    def words(self) -> str:
        """The limit as the table shows it."""
        if self.faster is not None:
            return f"at least {self.faster:g}x faster"
        return f"at most {self.limit:g}{'x' if self.against else ' ' + self.unit}"

    @property
    def unit(self) -> str:
        """The unit of the figure in the table."""
        return _UNITS.get(self.figure, ("", 1))[0]


@dataclass(frozen=True)
class Row:
    """A measure with its outcome; `why` says what kept it from being measured."""

    measure: Measure
    ours: float | None = None
    theirs: float | None = None
    rival: str = ""
    runs: Mapping[str, Sequence[Run]] | None = None
    why: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster we are, or how many times theirs ours is; None without a contestant."""
        if self.ours is None or self.theirs is None:
            return None
        high, low = (self.theirs, self.ours) if self.measure.faster is not None else (self.ours, self.theirs)
        return high / low if low else None

    @property
    def ok(self) -> bool:
        """Whether the limit is kept. What could not be measured is not."""
        value = self.ratio if self.measure.against else self.ours
        if value is None or self.why:
            return False
        return value >= self.measure.limit if self.measure.faster is not None else value <= self.measure.limit

    def data(self, of: Mapping[str, Any]) -> dict[str, Any]:
        """The row as bench.json has it, with what it is a figure `of`: the conditions of its run.

        `kind` says what the number `bar` is for the ratio (or for ours).
        """
        measure = self.measure
        return {
            "measure": measure.what,
            "group": measure.group,
            "ours": _rounded(self.ours),
            "theirs": _rounded(self.theirs),
            "against": self.rival,
            "ratio": _rounded(self.ratio),
            "bar": measure.limit,
            "kind": "at least" if measure.faster is not None else "at most",
            "ok": self.ok,
            "unit": measure.unit,
            "why": self.why,
            "runs": {name: [dict(run) for run in runs] for name, runs in (self.runs or {}).items()},
            **of,
        }


def judge(measure: Measure, found: Found) -> Row:
    """Return the row of `measure`: the quickest run of each counts, and of other figures the largest."""
    names = (OURS, *measure.against)
    lacking = [name for name in names if not any(measure.figure in run for run in found.get(name, ()))]
    if lacking:
        return Row(measure, why=f"{', '.join(lacking)} was not measured")
    pick = min if measure.figure == "seconds" else max
    scale = _UNITS.get(measure.figure, ("", 1))[1]
    best = {name: pick(run[measure.figure] for run in found[name]) / scale for name in names}
    rival = min(measure.against, key=lambda name: best[name], default="")
    return Row(measure, best[OURS], best.get(rival), rival, {name: found[name] for name in names})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def markdown(rows: Iterable[Row]) -> str:
    """Return the table for people, in Markdown."""
    head = ("measure", "ours", "theirs", "ratio", "wanted", "ok")
    body = [
        (
            row.measure.what,
            _shown(row.ours, row.measure.unit),
            f"{_shown(row.theirs, row.measure.unit)} {row.rival}".strip().replace("|", "\\|"),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            row.measure.words,
            "yes" if row.ok else "NO, not run" if row.why else "NO",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *body]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f} {unit}" if unit == "s" else f"{value:.0f} {unit}".rstrip()


def file_name(scale: float, groups: Iterable[str], every: Iterable[str]) -> str:
    """Return the name, without its ending, of the files with the table of a run of `groups` at this scale.

    Only a run of all groups at full size writes the table that is called `bench`, so that no other one replaces it.
    """
    if scale < 1:
        return "bench-trial"
    return "bench" if set(groups) == set(every) else "bench-part"


def versions(facts: Mapping[str, str]) -> dict[str, str]:
    """Return those of the facts about a run that say which program took part."""
    return {name: value for name, value in facts.items() if name.startswith(_PROGRAMS)}


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine(folder: Path) -> dict[str, str]:
    """Return what this machine is, for the reader of the figures; `folder` is where the data lie."""
    return {
        "CPU": f"{_field('/proc/cpuinfo', 'model name') or platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0] or 0) // 1024} MiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(folder),
        "Python": platform.python_version(),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _colon, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(folder: Path) -> str:
    """Return the type and the device of the file system that `folder` is on."""
    found = ("", "unknown", "")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, point, kind = line.split(" ")[:3]
        if folder.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind, device)
    return f"{found[1]} on {found[2]}"
