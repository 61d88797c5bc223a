# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the scenarios of molecule/, on real hosts that are booted for them and ended afterwards.

Without a name, all of them. The output of a scenario is printed when it failed; the logs of all stay in
build/molecule/. The last line is `N passed, N failed`, counted in scenarios.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as clock_time
from importlib.metadata import version
from pathlib import Path
from typing import Optional
from zoneinfo import ZoneInfo

from tests.tools import cores
from tests.tools.bench import VENV, Bench, LayerError, stop_group
from tests.tools.collection_tree import ROOT
from tests.tools.lab import Lab, LabError
from tests.tools.lab.machines import prepare_all

LOGS = ROOT / "build" / "molecule"
# Owns the machines and the store, so that it is first and last.
HOSTS = "hosts"
# Its controller is of another ansible-core than that of .venv, with which the others play: each that we support plays.
_ON_ANOTHER_CORE = "absent"
# So that no long one begins when all else is done.
_SLOW_FIRST = ("timers", "baddays", "default", "upgrade", "patroni", "ha")
_BASE = ROOT / "molecule" / "base.yml"
_LOCK = Path("/run/pgops-scenarios.lock")
_LIMIT_SECONDS = 1500
# The zones of the hosts, and when on their clocks the jobs begin that every host has: the tests count what ran.
_ZONES = ("UTC", "Europe/Berlin")
JOBS_BEGIN = ((2, 0), (2, 30), (3, 0))
ON_SUNDAYS = ((0, 0), (1, 0))
# All scenarios together take less, and between two of those times there is more.
_LASTS, _JUST_BEGUN = timedelta(minutes=20), timedelta(minutes=1)
_SUNDAY = 6


@dataclass(frozen=True)
class Ended:
    """How a scenario ended."""

    name: str
    passed: bool
    seconds: float
    tests: int
    log: Path


@dataclass(frozen=True)
class Controller:
    """An ansible-core, and the folder that has its programs and nothing else."""

    core: str
    programs: Path


def another_controller() -> Optional[Controller]:
    """Return the first supported ansible-core that is not that of .venv, ready to play; None where no Python here runs it.

    Raises LabError when it cannot be installed.
    """
    ours = version("ansible-core")
    others = [core for core in cores.CORES if not ours.startswith(core.version + ".")]
    core = next((core for core in others if core.python()), None)
    if core is None:
        needs = " or ".join(f"ansible-core {core.version}" for core in others)
        print(f"not run: nothing plays on {needs}, for which this machine has no Python", flush=True)
        return None
    LOGS.mkdir(parents=True, exist_ok=True)
    bench = Bench(scratch=LOGS, log=LOGS / "controller.log")
    bench.log.unlink(missing_ok=True)
    try:
        environment = cores.prepare(core, bench)
    except LayerError as problem:
        raise LabError(f"{bench.text()}ansible-core {core.version}: {problem}") from problem
    # Molecule and pytest stay those of .venv: only what plays is exchanged.
    programs = LOGS / f"core-{core.version}"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    for program in environment.bin.glob("ansible*"):
        (programs / program.name).symlink_to(program)
    return Controller(core.version, programs)


def all_scenarios() -> list[str]:
    """Return the names of the scenarios, in the order in which they begin."""
    found = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {HOSTS}
    return [HOSTS, *(name for name in _SLOW_FIRST if name in found), *sorted(found - set(_SLOW_FIRST))]


def _molecule(words: Sequence[str], log: Path, controller: Optional[Controller]) -> bool:
    """Run Molecule and tell whether it succeeded."""
    first = [str(controller.programs)] if controller else []
    environment = {
        **os.environ,
        "ANSIBLE_FORCE_COLOR": "0",
        # The first play of the scenario holds the controller to it.
        "LAB_CORE": controller.core if controller else "",
        "MOLECULE_COMMAND_BORDERS": "false",
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        "NO_COLOR": "1",
        "PATH": os.pathsep.join([*first, str(VENV), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]),
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(VENV / "molecule"), "--base-config", str(_BASE), *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=_LIMIT_SECONDS) == 0
        except subprocess.TimeoutExpired:
            out.write(f"\nended by us: {' '.join(words)} took more than {_LIMIT_SECONDS} s\n".encode())
            return False
        finally:
            if process.poll() is None:
                stop_group(process)


def run(name: str, *, keep: bool, controller: Optional[Controller] = None) -> Ended:
    """Run one scenario, with another ansible-core than that of .venv if there is a `controller`, and tell of it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    log.unlink(missing_ok=True)
    began = time.monotonic()
    if name == HOSTS:
        passed = all(_molecule([step, "-s", name], log, controller) for step in ("destroy", "create", "verify"))
    elif keep:
        # Told to destroy nothing, Molecule would not begin anew, either.
        passed = all(
            _molecule([*words, "-s", name], log, controller) for words in (["destroy"], ["test", "--destroy=never"])
        )
    else:
        passed = _molecule(["test", "-s", name], log, controller)
    text = log.read_text(errors="replace")
    tests = sum(int(number) for number in re.findall(r"^=+ .*?(\d+) passed", text, re.MULTILINE))
    ended = Ended(name, passed and tests > 0, time.monotonic() - began, tests, log)
    word = "passed" if ended.passed else "FAILED"
    played = f", played on ansible-core {controller.core}" if controller else ""
    print(f"{word:8} {name} ({ended.seconds:.0f} s) {tests} tests{played}", flush=True)
    if not ended.passed:
        print(f"--- {name}: all it printed ---\n{text.rstrip()}\n--- end ---", flush=True)
    return ended


def own_jobs_ahead(now: datetime) -> timedelta:
    """Return how long it takes until no job of the hosts' own schedule begins within a run of the scenarios; mostly nothing."""
    begins = []
    for zone in map(ZoneInfo, _ZONES):
        for day in (now.astimezone(zone).date() + timedelta(days=days) for days in (0, 1)):
            times = (*JOBS_BEGIN, *ON_SUNDAYS) if day.weekday() == _SUNDAY else JOBS_BEGIN
            begins += [datetime.combine(day, clock_time(*one), zone).astimezone(ZoneInfo("UTC")) for one in times]
    then = now
    for moment in sorted(begins):
        if then - _JUST_BEGUN < moment < then + _LASTS:
            then = moment + _JUST_BEGUN
    return then - now


def run_all(names: Sequence[str], *, jobs: int, keep: bool) -> list[Ended]:
    """Run scenarios, `jobs` at a time, on machines of their own and with one store."""
    lab = Lab()
    lab.down()
    ended: list[Ended] = []
    try:
        # Before the clock of a scenario runs, and once for all.
        prepare_all()
        other = another_controller() if _ON_ANOTHER_CORE in names else None
        ahead = own_jobs_ahead(datetime.now(ZoneInfo("UTC")))
        if ahead:
            print(f"waiting for {ahead}: on the clocks of the hosts their own jobs are about to begin", flush=True)
            time.sleep(ahead.total_seconds())
        rest = [name for name in names if name != HOSTS]
        if HOSTS in names:
            ended.append(run(HOSTS, keep=keep))
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            ended += pool.map(
                lambda name: run(name, keep=keep, controller=other if name == _ON_ANOTHER_CORE else None), rest
            )
    finally:
        if keep:
            print("kept: python -m tests.tools.lab list; end them with: python -m tests.tools.lab down", flush=True)
        else:
            lab.down()
    return ended


@contextmanager
def _alone() -> Iterator[None]:
    """Let one run at a time use the lab: its addresses are the same ones in every checkout."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another run has the lab; wait for its end (ps -ef | grep tests.tools.scenarios)") from None
        yield


def main() -> int:
    """Run what the command line names."""
    scenarios = all_scenarios()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="scenario", help=f"of {', '.join(scenarios)}; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts running, to look at them")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(scenarios))
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(scenarios)}")
    if not shutil.which("molecule", path=str(VENV)):
        parser.error("Molecule is not installed here; run this as: make molecule")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _alone():
            ended = run_all(options.names or scenarios, jobs=options.jobs, keep=options.keep)
    except LabError as problem:
        print(problem, file=sys.stderr)
        return 1
    passed = sum(one.passed for one in ended)
    print(f"{sum(one.tests for one in ended)} tests on hosts")
    print(f"{passed} passed, {len(ended) - passed} failed", flush=True)
    return 0 if passed == len(ended) else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
