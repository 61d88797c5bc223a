# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` and `make bench` say of their own work: the share of branches, what was not run, what a figure is of; and
whether each fault has its test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Schedule, base_calendar
from tests.benchmarks import arrived
from tests.benchmarks.table import OURS, Measure, file_name, judge, versions
from tests.tools.bench import FAILED, NOT_RUN, PASSED, Bench, Outcome, collect_less
from tests.tools.collection_tree import ROOT
from tests.tools.layers import Layer, Row, count_layers, in_memory, judge_coverage, own_var_tmp
from tests.tools.scenarios import JOBS_BEGIN, ON_SUNDAYS, own_jobs_ahead


@pytest.mark.parametrize(
    ("taken", "ran", "status", "words"),
    [
        (94, 970, PASSED, "94.0 % of branches (94 of 100), 96.7 % of statements and branches"),
        # The figure of both hides what was not taken.
        (50, 1000, FAILED, "50.0 % of branches (50 of 100), 95.5 % of statements and branches"),
        (100, 880, FAILED, "100.0 % of branches (100 of 100), 89.1 % of statements and branches"),
        (90, 900, PASSED, "90.0 % of branches (90 of 100), 90.0 % of statements and branches"),
    ],
)
def test_the_limit_holds_for_branches_alone_and_for_both(taken: int, ran: int, status: str, words: str) -> None:
    totals = {"covered_branches": taken, "num_branches": 100, "covered_lines": ran, "num_statements": 1000}
    assert judge_coverage(totals) == Outcome(status, words)


@pytest.mark.parametrize(
    ("now", "minutes"),
    [
        ("2026-11-27T12:00", 0),
        ("2026-11-27T00:39", 0),
        ("2026-11-27T00:50", 11),  # 01:50 in Berlin
        ("2026-11-27T01:01", 0),
        ("2026-07-03T00:20", 11),  # in summer it is 02:20 there
        ("2026-07-03T01:50", 11),
        ("2026-07-03T03:01", 0),
        ("2026-11-27T23:50", 0),
        ("2026-11-28T23:50", 11),  # base backups are of Sundays
    ],
)
def test_the_hosts_do_not_begin_a_job_of_their_own_while_they_are_tested(now: str, minutes: int) -> None:
    assert own_jobs_ahead(datetime.fromisoformat(now + "+00:00")) == timedelta(minutes=minutes)


def test_the_times_of_their_jobs_are_those_of_the_defaults() -> None:
    defaults = Schedule()
    daily = [defaults.backup, defaults.sync, defaults.verify]
    assert sorted(daily) == sorted("%d %d * * *" % (minute, hour) for hour, minute in JOBS_BEGIN)
    weekly = [base_calendar(defaults.base, archived=True), defaults.prune]
    assert sorted(weekly) == sorted("%d %d * * 0" % (minute, hour) for hour, minute in ON_SUNDAYS)


def test_a_run_without_a_branch_proves_nothing() -> None:
    totals = {"covered_branches": 0, "num_branches": 0, "covered_lines": 10, "num_statements": 10}
    assert judge_coverage(totals).status == FAILED


def test_the_last_line_counts_each_layer_once() -> None:
    layer = Layer("one", "unit", lambda bench: Outcome(PASSED))
    rows = [Row(layer, Outcome(status), 0.0, "") for status in (PASSED, NOT_RUN, PASSED)]
    assert count_layers(rows) == "2 passed, 0 failed, 1 not run"
    assert count_layers([*rows[:1], Row(layer, Outcome(FAILED), 0.0, "")]) == "1 passed, 1 failed"


def test_only_a_place_with_room_is_written_to_instead_of_the_disk(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    free = facts.f_bavail * facts.f_frsize
    assert in_memory(tmp_path, room=1) == str(tmp_path)
    assert in_memory(tmp_path, room=free + 2**40) is None
    assert in_memory(tmp_path / "missing", room=1) is None


def test_what_a_layer_leaves_in_var_tmp_is_nobody_elses(tmp_path: Path) -> None:
    words = own_var_tmp(Bench(tmp_path, tmp_path / "log"))
    assert not words or os.geteuid() == 0
    if words:
        mark = Path("/var/tmp") / ("pgops-mark-%d" % os.getpid())
        shown = subprocess.check_output([*words, "sh", "-c", 'touch "$0" && stat -f -c %T "$0"', str(mark)], text=True)
        assert shown == "tmpfs\n"
        assert not mark.exists()


def test_a_python_of_the_environment_searches_less_often_for_garbage(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = [str(tmp_path / "venv" / "bin" / "python"), "-c", "import gc; print(gc.get_threshold()[0])"]
    before = int(subprocess.check_output(python))
    collect_less(tmp_path / "venv")
    assert int(subprocess.check_output(python)) > 10 * before


# --- make bench -------------------------------------------------------------------------------------------------------


def test_only_a_whole_run_at_full_size_writes_the_table_of_the_bench() -> None:
    every = ["backup-17", "sync-idle"]
    assert file_name(1.0, reversed(every), every) == "bench"
    assert file_name(1.0, ["sync-idle"], every) == "bench-part"
    assert file_name(0.05, every, every) == "bench-trial"
    assert file_name(0.05, ["sync-idle"], every) == "bench-trial"


def test_a_row_says_what_it_is_a_figure_of() -> None:
    facts = {
        "CPU": "x",
        "PostgreSQL 17": "17.1",
        "zstd of trixie": "1.5",
        "data on 17": "2 GB",
        "s5cmd": "2.3",
        "Python": "3",
    }
    assert versions(facts) == {"PostgreSQL 17": "17.1", "zstd of trixie": "1.5", "s5cmd": "2.3"}
    row = judge(Measure("g", "what", at_most=2.0), {OURS: [{"seconds": 1.0}]})
    found = row.data({"scale": 0.05, "rounds": 1})
    assert {"measure", "ours", "theirs", "ratio", "bar", "ok", "scale", "rounds"} <= set(found)
    assert (found["ours"], found["ok"], found["scale"]) == (1.0, True, 0.05)


@pytest.fixture
def copied(tmp_path: Path) -> tuple[arrived.Files, Path]:
    """What was given, and a true copy of it deep below a prefix."""
    given = tmp_path / "given"
    (given / "databases").mkdir(parents=True)
    (given / "manifest.json").write_text("{}")
    for number in range(200):
        (given / "databases" / ("%d.dat" % number)).write_bytes(b"%03d" % number)
    shutil.copytree(given, tmp_path / "there" / "bench" / "sets" / "one")
    return arrived.read(given), tmp_path / "there"


def test_a_true_copy_has_arrived_wherever_the_contestant_put_it(copied: tuple[arrived.Files, Path]) -> None:
    given, there = copied
    assert len(given) == 201
    assert arrived.wrong(given, there, top="manifest.json") == ""


def test_a_copy_that_is_short_cut_or_altered_has_not(copied: tuple[arrived.Files, Path]) -> None:
    given, there = copied
    file = there / "bench" / "sets" / "one" / "databases" / "0.dat"
    file.write_bytes(b"0")
    assert arrived.wrong(given, there, top="manifest.json") == "databases/0.dat has 1 bytes, of 3"
    file.write_bytes(b"abc")
    assert arrived.wrong(given, there, top="manifest.json") == "databases/0.dat has other content"
    file.unlink()
    assert arrived.wrong(given, there, top="manifest.json") == "200 of 201 files are there"
    shutil.rmtree(there)
    assert arrived.wrong(given, there, top="manifest.json") == "0 files are called manifest.json, of 1"


# --- the page about faults --------------------------------------------------------------------------------------------

FAULTS = """
| exit code | 0 |
|---|---|
| meaning | done |

## The server

| fault | what happens | exit code | what to do |
|---|---|---|---|
| `a \\| b` breaks | It is told. | 0 | |
| The roof leaks | It is told. | 1 | Run. |

## The tests

| fault | tests |
|---|---|
| `a \\| b` breaks | `tests/test_it.py::test_a`, `tests/test_it.py::test_b` |
| The roof leaks | `tests/test_it.py::test_a` |
"""


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("", "", []),
        ("| The roof leaks | `tests/test_it.py::test_a` |\n", "", ["no test is named for: The roof leaks"]),
        ("`tests/test_it.py::test_a` |\n", "somewhere |\n", ["no test is named for: The roof leaks"]),
        ("::test_b", "::test_c", ["there is no test tests/test_it.py::test_c"]),
        ("::test_b", "::helper", ["there is no test tests/test_it.py::helper"]),
        ("test_it.py::test_b", "test_at.py::test_b", ["there is no test tests/test_at.py::test_b"]),
        ("| The roof leaks | It", "| The sky falls | It", ["no test is named for: The sky falls", "there are tests for what no row tells: The roof leaks"]),
    ],
)  # fmt: skip
def test_a_fault_without_a_test_is_named(tmp_path: Path, old: str, new: str, wrong: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(generator)
    sys.path[:] = before
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_a(): pass\ndef test_b(): pass\ndef helper(): pass\n")
    assert generator.untested(FAULTS.replace(old, new) if old else FAULTS, tmp_path) == wrong
