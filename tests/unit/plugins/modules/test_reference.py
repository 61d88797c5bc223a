# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/generate.py writes the reference from the code, and notices when it is stale."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils import _ansible

ROOT = Path(_ansible.__file__).resolve().parents[2]


def generate(folder: Path, *flags: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--folder", str(folder), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_stale_page_is_named_and_written_anew(tmp_path: Path) -> None:
    assert generate(tmp_path, "--check")[0] == 1
    assert generate(tmp_path)[0] == 0
    assert generate(tmp_path, "--check") == (0, "")
    (tmp_path / "cli.md").write_text("old")
    (tmp_path / "gone_module.md").write_text("old")
    code, said = generate(tmp_path, "--check")
    assert code == 1
    assert "cli.md" in said
    assert "gone_module.md" in said
    assert "pg_backup.md" not in said
    assert generate(tmp_path)[0] == 0
    assert generate(tmp_path, "--check") == (0, "")


def test_the_pages_are_whole_and_readable(tmp_path: Path) -> None:
    generate(tmp_path)
    pages = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for name in sorted(p.stem for p in (ROOT / "plugins" / "modules").glob("*.py")):
        assert "`run_warnings`" in pages["%s.md" % name]
        assert "](%s.md)" % name in pages["README.md"]
    assert "| `keep_verified` |" in pages["configuration.md"]
    assert "`s3.retention.keep_verified`" in pages["common-options.md"]
    assert "## pgops restore" in pages["cli.md"]
    for name, text in pages.items():
        assert text.endswith("\n"), name
        for mark in ("O(", "V(", "RV(", " C(", "M(pgops"):
            assert mark not in text.replace("KEEP(", ""), "%s in %s" % (mark, name)


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
