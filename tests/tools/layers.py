# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the layers of the tests and print how each ended.

A layer that fails prints its whole output; the logs of all stay in build/test/. The last line of the output
is `N passed, N failed`, counted in layers, and `, N not run` where there are such.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.tools import archive, collection_tree, cores, program, roots
from tests.tools.bench import (
    FAILED,
    NOT_RUN,
    PASSED,
    VENV,
    Bench,
    Children,
    LayerError,
    Outcome,
    Word,
    collect_less,
    count_tests,
)

ROOT = collection_tree.ROOT
LOGS = ROOT / "build" / "test"
COVERAGE: tuple[Word, ...] = (VENV / "python", "-m", "coverage")
# The groups by how long they take.
_SLOW_FIRST = ("integration", "faults", "stores")
# The deadlines of other tests would not be fair beside real hosts at work.
_ALONE = "molecule"
# They have no deadlines, or, among the units, some of half a minute: one after the other takes, from the first second on, the
# time of the processors that the rest leaves.
_PATIENT = ("lint", "sanity", "unit", "build")
# The files whose tests take longest, the longest first, so that none of them is the last to begin.
_SLOW_FILES = (
    "test_modules.py",
    "test_recover.py",
    "test_wal.py",
    "test_cli.py",
    "test_base_backup.py",
    "test_s3_place.py",
    "test_group.py",
    "test_incremental.py",
    "test_partial_restore.py",
    "test_sync.py",
    "test_host_modules.py",
    "test_killed.py",
    "test_killed_restore.py",
    "test_s3_transfers.py",
    "test_sixty_days.py",
)
# Percent of the engine's branches, and of its statements and branches together, that all layers together must run.
_LEAST_COVERED = 90.0
# Where files are in memory, and what must be free there and of the memory.
_MEMORY = Path("/dev/shm")
_ROOM = 10 * 1024**3
MYPY_TARGETS = ("plugins/module_utils/_engine", "tests/tools")


@dataclass(frozen=True)
class Layer:
    """One row of the table. `group` is the target of the Makefile that runs it alone."""

    name: str
    group: str
    work: Callable[[Bench], Outcome]


@dataclass(frozen=True)
class Row:
    """A layer that has ended."""

    layer: Layer
    outcome: Outcome
    seconds: float
    log: str


def _tool(command: Sequence[str], counted: str, bench: Bench) -> Outcome:
    """Run a tool of .venv on the checkout; `counted`, if any, finds the words for the table in what it prints."""
    bench.must(VENV / command[0], *command[1:])
    found = re.search(counted, bench.text()) if counted else None
    return Outcome(PASSED, found.group(0) if found else "")


def _mypy(bench: Bench) -> Outcome:
    for target in MYPY_TARGETS:
        # One by one: the engine is a package of its own name, the tools belong to `tests`.
        bench.must(VENV / "mypy", "--strict", target)
    return Outcome(PASSED, ", ".join(MYPY_TARGETS))


def _ansible_lint(bench: Bench) -> Outcome:
    """Lint the collection where its own names resolve."""
    tree = collection_tree.copy_to(bench.scratch)
    env = {"ANSIBLE_COLLECTIONS_PATH": str(bench.scratch), "ANSIBLE_HOME": str(bench.scratch / "home"), "NO_COLOR": "1"}
    bench.must(VENV / "ansible-lint", "--offline", "--strict", cwd=tree, env={**env, "PATH": _path()})
    found = re.search(r"(\d+) files processed", bench.text()) or re.search(r"in (\d+) files", bench.text())
    if not found or not int(found.group(1)):
        return Outcome(FAILED, "ansible-lint looked at no file")
    return Outcome(PASSED, f"profile production, {found.group(1)} files")


def _docs(bench: Bench) -> Outcome:
    """Check that what is generated in docs/ is what the code says today."""
    if not (ROOT / "docs" / "generate.py").is_file():
        return Outcome(NOT_RUN, "there is no docs/generate.py")
    bench.must(VENV / "python", "docs/generate.py", "--check")
    return Outcome(PASSED)


def slow_first(folder: Path) -> list[Path]:
    """Return the files with tests below `folder` in the order in which they are to begin."""
    rank = {name: number for number, name in enumerate(_SLOW_FILES)}
    return sorted(folder.rglob("test_*.py"), key=lambda path: (rank.get(path.name, len(rank)), path))


def _pytest(folders: Sequence[str], data: Path, bench: Bench, *, workers: int = max(2, os.cpu_count() or 2)) -> Outcome:
    """Run pytest under coverage. No test at all is a failure."""
    here = [path for folder in folders for path in slow_first(ROOT / folder)]
    if not here:
        return Outcome(FAILED, f"there is no test in {folders[0]}")
    report = bench.scratch / "junit.xml"
    env = {"COVERAGE_FILE": str(data), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"), "PATH": _path()}
    # The tests wait for servers more than they compute; a file stays with one worker, as its tests share servers.
    spread = ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder")
    pytest = ("run", "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *spread)
    with _temporary() as temporary:
        code = bench.run(*own_var_tmp(bench), *COVERAGE, *pytest, *here, env={**env, **temporary})
    ran, words = count_tests([report] if report.is_file() else [])
    if code or not ran:
        return Outcome(FAILED, words if ran else "no test ran")
    return Outcome(PASSED, words)


@contextmanager
def _temporary() -> Iterator[dict[str, str]]:
    """Yield the variable of a folder in memory for what the tests write, or none; the layers that come later get that memory."""
    place = in_memory()
    if not place:
        yield {}
        return
    # Sockets lie deep in there, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="t", dir=place))
    try:
        folder.chmod(0o1777)  # as /tmp: the servers have an account of their own
        yield {"TMPDIR": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_var_tmp(bench: Bench) -> tuple[Word, ...]:
    """Return the words before a command that give it a /var/tmp in memory; none where that cannot be.

    Throwaway servers lie there, and what their restores write takes as long on a disk as all else together.
    """
    if sys.platform != "linux" or os.geteuid() or not in_memory():
        return ()
    words = ("unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs -o mode=1777 tmpfs /var/tmp && exec "$@"', "sh")
    return words if shutil.which(words[0]) and bench.ask(*words, "true")[0] == 0 else ()


def _stores(data: Path, bench: Bench) -> Outcome:
    """Run the tests against a real Ceph. Where it cannot run, that is said, and under CI it is a failure."""
    lacking = [name for name in ("apt-get", "faketime", "unshare") if not shutil.which(name)]
    if sys.platform != "linux" or os.geteuid() or lacking:
        why = f"Ceph's tests need root on Debian{' and ' + ', '.join(lacking) if lacking else ''}"
        return Outcome(FAILED if os.environ.get("CI") else NOT_RUN, why)
    bench.must(VENV / "python", "-m", "tests.tools.roots", roots.CEPH_SUITE, *roots.CEPH_PACKAGES)
    # One worker has one Ceph for all; a second one would cost more than it saves.
    return _pytest(["tests/stores"], data, bench, workers=1)


def _molecule(bench: Bench) -> Outcome:
    """Run the scenarios on real hosts. Where none can boot, that is said, and under CI it is a failure."""
    programs = ("apt-get", "ip", "mount", "ssh", "systemd-nspawn", "unshare")
    lacking = [name for name in programs if not shutil.which(name)]
    if sys.platform != "linux" or os.geteuid() or lacking:
        why = f"booting hosts needs root on Debian{' and ' + ', '.join(lacking) if lacking else ''}"
        return Outcome(FAILED if os.environ.get("CI") else NOT_RUN, why)
    bench.must(VENV / "python", "-m", "tests.tools.scenarios")
    found = re.findall(r"^(\d+ tests on hosts|\d+ passed, 0 failed)$", bench.text(), re.MULTILINE)
    return Outcome(PASSED, ", ".join(reversed(found)).replace(" passed, 0 failed", " scenarios"))


def _path() -> str:
    return os.pathsep.join([str(VENV), os.environ.get("PATH", os.defpath)])


def all_layers(data: Path) -> list[Layer]:
    """Return every layer, in the order of the table. `data` is where pytest leaves its coverage.

    The unit tests all run on the ansible-core of .venv, by pytest, which measures coverage; on the others those run, by
    ansible-test, that Ansible has a part in.
    """
    ours = version("ansible-core")
    others = [core for core in cores.CORES if not ours.startswith(core.version + ".")]
    return [
        Layer("ruff check", "lint", partial(_tool, ["ruff", "check", "."], "")),
        Layer("ruff format", "lint", partial(_tool, ["ruff", "format", "--check", "."], r"\d+ files")),
        Layer("mypy --strict", "lint", _mypy),
        Layer("yamllint", "lint", partial(_tool, ["yamllint", "--strict", "."], "")),
        Layer("ansible-lint", "lint", _ansible_lint),
        Layer("changelog", "lint", partial(_tool, ["antsibull-changelog", "lint"], "")),
        Layer("generated docs", "lint", _docs),
        *(Layer(f"sanity, core {core.version}", "sanity", partial(cores.sanity, core)) for core in cores.CORES),
        *(Layer(f"units, core {core.version}", "sanity", partial(cores.units, core)) for core in others),
        Layer("engine on Python 3.9", "unit", program.floor),
        Layer("pgops in one file", "unit", program.one_file),
        Layer(f"unit, core {ours}", "unit", partial(_pytest, ["tests/unit"], data)),
        Layer("integration", "integration", partial(_pytest, ["tests/integration"], data)),
        Layer("faults", "faults", partial(_pytest, ["tests/faults"], data)),
        Layer("stores, Ceph", "stores", partial(_stores, data)),
        Layer("molecule, hosts", "molecule", _molecule),
        Layer("archive", "build", archive.smoke),
    ]


def run_layer(layer: Layer, scratch: Path, children: Children, *, patient: bool = False) -> Row:
    """Run one layer; whatever happens in it is an outcome."""
    folder = scratch / re.sub(r"[^a-z0-9.]+", "-", layer.name.lower())
    folder.mkdir()
    bench = Bench(scratch=folder, log=folder / "log", children=children, patient=patient)
    began = time.monotonic()
    try:
        outcome = layer.work(bench)
    except LayerError as problem:
        outcome = Outcome(FAILED, str(problem))
    except Exception as problem:  # noqa: BLE001 - one broken layer must not hide how the others ended
        outcome = Outcome(FAILED, f"{type(problem).__name__}: {problem}")
    return Row(layer, outcome, time.monotonic() - began, bench.text())


def run_all(layers: Sequence[Layer], scratch: Path, jobs: int) -> list[Row]:
    """Run the layers, `jobs` at a time but for one that runs alone and the patient ones beside all, and tell of each as it ends."""
    children = Children()
    rows: dict[str, Row] = {}

    def work(layer: Layer, *, patient: bool = False) -> None:
        row = run_layer(layer, scratch, children, patient=patient)
        rows[layer.name] = row
        _tell(row)

    alone = [layer for layer in layers if layer.group == _ALONE]
    # The slow ones first, so that no long layer starts when all else is done.
    rest = [layer for group in _SLOW_FIRST for layer in layers if layer.group == group]
    others = [layer for layer in layers if layer.group in _PATIENT]
    if not alone and not rest:
        rest, others = others, rest
    with ThreadPoolExecutor(max_workers=jobs) as pool, ThreadPoolExecutor(max_workers=1) as beside:
        try:
            patient = [beside.submit(work, layer, patient=True) for layer in others]
            for batch in (alone, rest):
                _wait([pool.submit(work, layer) for layer in batch])
            _wait(patient)
        except KeyboardInterrupt:
            for each in (pool, beside):
                each.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    return [rows[layer.name] for layer in layers]


def _wait(futures: Sequence[Future[None]]) -> None:
    for future in as_completed(futures):
        future.result()


def _tell(row: Row) -> None:
    print(f"{row.outcome.status:8} {row.layer.name} ({row.seconds:.1f} s) {row.outcome.detail}", flush=True)
    if row.outcome.status == FAILED and row.log:
        print(f"--- {row.layer.name}: all it printed ---\n{row.log.rstrip()}\n--- end ---", flush=True)


def _keep_logs(rows: Sequence[Row]) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (LOGS / f"{re.sub(r'[^a-z0-9.]+', '-', row.layer.name.lower())}.log").write_text(row.log)


def _coverage(data: Path, bench: Bench) -> Outcome:
    """Print what the tests of this run covered of the engine, and tell whether it is enough."""
    env = {"COVERAGE_FILE": str(data)}
    found = bench.scratch / "coverage.json"
    bench.must(*COVERAGE, "combine", "--quiet", env=env)
    bench.must(*COVERAGE, "report", env=env)
    bench.must(*COVERAGE, "json", "--quiet", "-o", found, env=env)
    outcome = judge_coverage(json.loads(found.read_text())["totals"])
    bench.note(outcome.detail)
    print(f"\nCoverage of the engine\n{bench.text()}", flush=True)
    return outcome


def judge_coverage(totals: Mapping[str, int]) -> Outcome:
    """Hold the `totals` of `coverage json` to the limit: the branches alone, and statements and branches together.

    The second figure is what `coverage report` shows; it can be high while many branches were never taken.
    """
    taken, branches = totals["covered_branches"], totals["num_branches"]
    ran, statements = totals["covered_lines"], totals["num_statements"]
    if not branches:
        return Outcome(FAILED, "no branch was measured")
    alone, together = 100 * taken / branches, 100 * (ran + taken) / (statements + branches)
    detail = f"{alone:.1f} % of branches ({taken} of {branches}), {together:.1f} % of statements and branches"
    return Outcome(PASSED if min(alone, together) >= _LEAST_COVERED else FAILED, detail)


def _print_table(rows: Sequence[Row]) -> None:
    width = max(len(row.layer.name) for row in rows)
    print(f"\n{'layer':{width}}  {'result':8} {'seconds':>8}  what")
    for row in rows:
        print(f"{row.layer.name:{width}}  {row.outcome.status:8} {row.seconds:8.1f}  {row.outcome.detail}".rstrip())


def _compile_once() -> None:
    """Compile our code, and let the tools keep what they compile, too.

    Where the environment forbids that, as those of containers do, each of thousands of processes would compile the engine anew.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for folder in ("plugins", "demo", "tests"):
        compileall.compile_dir(ROOT / folder, quiet=2)


def in_memory(place: Path = _MEMORY, *, room: int = _ROOM) -> str | None:
    """Return the folder for what the tests write if it can be in memory, else None: then it is where TMPDIR says.

    What we write is made durable again and again, and on a disk the tests wait for that more than they do anything else.
    """
    try:
        facts = os.statvfs(place)
        kibibytes = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    free = min(facts.f_bavail * facts.f_frsize, int(kibibytes.group(1)) * 1024 if kibibytes else 0)
    # A container may forbid to run programs that lie there, as some tests do.
    return str(place) if free >= room and not facts.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK) else None


def main() -> int:
    """Run the layers of the groups that the command line names, or all."""
    groups = sorted({layer.group for layer in all_layers(Path())})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"one or more of: {', '.join(groups)}; default: all")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="layers at a time (%(default)s)")
    options = parser.parse_args()
    unknown = sorted(set(options.groups) - set(groups))
    if unknown:
        parser.error(f"there is no group {', '.join(unknown)}; there are {', '.join(groups)}")

    # What a shell or nohup has us ignore, the programs that the tests interrupt would ignore, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    _compile_once()
    collect_less(VENV.parent)
    scratch = Path(tempfile.mkdtemp(prefix="pgops-test-"))
    data = scratch / "coverage" / "data"
    data.parent.mkdir()
    layers = [layer for layer in all_layers(data) if not options.groups or layer.group in options.groups]
    try:
        rows = run_all(layers, scratch, options.jobs)
        if not options.groups:
            rows.append(run_layer(Layer("branch coverage", "coverage", partial(_coverage, data)), scratch, Children()))
        _keep_logs(rows)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _print_table(rows)
    print(f"\n{count_layers(rows)}", flush=True)
    statuses = [row.outcome.status for row in rows]
    return 1 if FAILED in statuses or PASSED not in statuses else 0


def count_layers(rows: Sequence[Row]) -> str:
    """Return the last line: how many layers ended how. Each is counted once."""
    statuses = [row.outcome.status for row in rows]
    left = statuses.count(NOT_RUN)
    return f"{statuses.count(PASSED)} passed, {statuses.count(FAILED)} failed{f', {left} not run' if left else ''}"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
