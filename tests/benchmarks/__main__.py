# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.benchmarks`: time pgops against what people use without it, and hold the ratios to their limits.

The table below is all that is measured. Each group of it is run by a scene; what cannot be run is a row that fails,
with the reason. docs/benchmarks.md says how, and has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from demo.guard import Guard
from tests.benchmarks import databases, hosts, physical, transfers
from tests.benchmarks.databases import BARE, GZIP, PSQL
from tests.benchmarks.race import Bench, CannotRunError
from tests.benchmarks.table import Found, Measure, Row, file_name, judge, machine, markdown, say, versions
from tests.benchmarks.transfers import RIVALS
from tests.tools import program
from tests.tools.collection_tree import ROOT

BUILD = ROOT / "build"
CORES = 2

MEASURES = (
    Measure("backup-17", "17: backup, time", against=(GZIP,), faster=4),
    Measure("backup-17", "17: backup, size", "bytes", against=(GZIP,), at_most=0.9),
    Measure("backup-17", "17: backup, time of its checks", against=(BARE,), at_most=1.10),
    Measure("backup-17", "17: backup, memory", "memory", at_most=150),
    Measure("restore-17", "17: restore, time", against=(PSQL,), faster=1.6),
    Measure("restore-17", "17: restore, memory", "memory", at_most=150),
    Measure("backup-15", "15: backup, time", against=(GZIP,), faster=2),
    Measure("backup-15", "15: backup, size", "bytes", against=(GZIP,), at_most=1.0),
    Measure("backup-15", "15: backup, time of its checks", against=(BARE,), at_most=1.10),
    Measure("backup-15", "15: backup, memory", "memory", at_most=150),
    Measure("restore-15", "15: restore, time", against=(PSQL,), faster=1.6),
    Measure("restore-15", "15: restore, memory", "memory", at_most=150),
    Measure("base-full", "base backup, time", against=(physical.FULL,), at_most=1.0),
    Measure("base-full", "base backup, size", "bytes", against=(physical.FULL,), at_most=1.0),
    Measure("base-full", "base backup, memory", "memory", at_most=150),
    Measure("base-restore", "base backup to a running server, time", against=(physical.RESTORE,), at_most=1.1),
    Measure("base-restore", "base backup to a running server, memory", "memory", at_most=150),
    Measure("base-incremental", "incremental of 1 % of the rows, time", against=physical.INCREMENTALS, at_most=1.2),
    Measure("base-archive", "60 segments of WAL archived, time", against=(physical.PUSH,), at_most=1.0),
    Measure("base-again", "one call of the archive_command, time", against=(physical.PUSH,), at_most=1.0),
    Measure("base-replay", "200 segments of WAL replayed from S3, time", against=(physical.GET,), at_most=1.2),
    Measure("sync-large", "sync of 4 large files, time", against=RIVALS, at_most=1.2),
    Measure("sync-large", "sync of 4 large files, memory", "memory", at_most=150),
    Measure("sync-small", "sync of 10,000 small files, time", against=RIVALS, at_most=1.2),
    Measure("sync-small", "sync of 10,000 small files, memory", "memory", at_most=150),
    Measure("sync-idle", "sync with nothing to do: listings", "listings", at_most=1),
    Measure("sync-idle", "sync with nothing to do: other requests", "others", at_most=0),
    Measure("sync-idle", "sync with nothing to do, memory", "memory", at_most=150),
    Measure("site-one", "site on a protected host, time", at_most=25),
    Measure("site-eight", "site on eight protected hosts, time", against=(hosts.ONE,), at_most=2.5),
)

Scene = Callable[[Bench, set[str]], Iterator[tuple[str, Found]]]
SCENES: tuple[tuple[tuple[str, ...], Scene], ...] = (
    (("backup-17", "restore-17"), partial(databases.scene, "trixie", 17)),
    (("backup-15", "restore-15"), partial(databases.scene, "bookworm", 15)),
    (physical.GROUPS, physical.scene),
    (("sync-large", "sync-small", "sync-idle"), transfers.scene),
    (("site-one", "site-eight"), hosts.scene),
)


def main() -> int:
    """Run the wanted groups, print and write the table; 1 when a limit was missed or something could not be run."""
    options = _arguments()
    began = datetime.now(UTC)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # The limits are for two cores; a larger machine lends us two of its own.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    BUILD.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD))
    scratch.chmod(0o711)  # the account of the servers passes through
    guard = Guard(remove=[scratch])
    try:
        facts = machine(scratch)
        for name, value in facts.items():
            say(f"  {name}: {value}")
        pgops = (sys.executable, *program.lay_down(scratch / "program", sys.executable))
        bench = Bench(scratch, pgops, options.scale, options.rounds, dict(facts))
        said = subprocess.run([*pgops, "--version"], capture_output=True, text=True, check=True).stdout
        bench.note("pgops", " ".join(said.split()))
        rows = list(_rows(bench, options.groups))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut the clean-up short
        guard.close()
    of = {"scale": bench.scale, "rounds": bench.rounds, "when": began.isoformat(timespec="seconds")}
    of |= {"machine": facts, "versions": versions(bench.facts)}
    return _conclude(rows, bench, of, file_name(bench.scale, options.groups, _names()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size; the limits hold for 1")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contestant; the quickest counts")
    parser.add_argument(
        "--only", default="", help="words, by commas: only groups whose name has one (sync, backup, 17)"
    )
    options = parser.parse_args()
    words = [word for word in options.only.replace(",", " ").split() if word]
    names = _names()
    options.groups = {name for name in names if not words or any(word in name for word in words)}
    if not options.groups:
        parser.error(f"--only {options.only} names none of the groups {', '.join(names)}")
    return options


def _names() -> list[str]:
    return [name for names, _scene in SCENES for name in names]


def _interrupt(*_unused: object) -> None:
    raise KeyboardInterrupt


def _rows(bench: Bench, groups: set[str]) -> Iterator[Row]:
    """Run the scenes and yield their rows, each told at once."""
    for names, scene in SCENES:
        wanted = groups & set(names)
        if not wanted:
            continue
        pending = [name for name in names if name in wanted]
        say(f"\n{', '.join(pending)}")
        why = "its scene ended without it"
        try:
            for group, found in scene(bench, wanted):
                pending.remove(group)
                rows = [judge(measure, found) for measure in _of(group)]
                say(markdown(rows))
                yield from rows
        except CannotRunError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - one scene that broke must not hide the others
            why = f"{type(error).__name__}: {error}"
        for group in pending:
            say(f"  {group} could not be run: {why}")
            yield from (Row(measure, why=why.strip()) for measure in _of(group))


def _of(group: str) -> Sequence[Measure]:
    return [measure for measure in MEASURES if measure.group == group]


def _conclude(rows: Sequence[Row], bench: Bench, of: Mapping[str, Any], name: str) -> int:
    """Print what came out, and write it to the files `name`; `of` are the conditions of the run."""
    facts = "\n".join(f"- {name}: {value}" for name, value in bench.facts.items())
    reasons = "".join(f"\n\n{why}" for why in dict.fromkeys(f"{r.measure.group}: {r.why}" for r in rows if r.why))
    kind = {
        "bench-trial": f"A trial at scale {bench.scale:g}; the limits hold for scale 1.",
        "bench-part": "A part of the bench.",
    }
    about = (
        f"{kind.get(name, 'The whole bench.')} Begun {of['when']}, scale {bench.scale:g}, runs of each: {bench.rounds}."
    )
    report = f"{markdown(rows)}{reasons}\n\n{about}\n\n{facts}\n"
    (BUILD / f"{name}.json").write_text(json.dumps([row.data(of) for row in rows], indent=2) + "\n")
    (BUILD / f"{name}.md").write_text(report)
    missed = [row.measure.what for row in rows if not row.ok]
    kept = f"{len(rows) - len(missed)} of {len(rows)} kept"
    full = "" if name == "bench" else "; the table of the last whole run in build/bench.json is as it was"
    say(f"\n{report}\n{kept}; build/{name}.json and build/{name}.md have it all{full}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; all that was started has ended\n")
        raise SystemExit(130) from None
