# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/generate.py writes the reference from the code, and notices when it is stale."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every page as it is written today."""
    folder = tmp_path_factory.mktemp("reference")
    assert generate(folder)[0] == 0
    return folder


def test_a_stale_page_is_named_and_written_anew(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "pages"))
    (folder / "cli.md").write_text("old")
    (folder / "gone_module.md").write_text("old")
    (folder / "configuration.md").unlink()
    code, said = generate(folder, "--check")
    assert code == 1
    for name in ("cli.md", "gone_module.md", "configuration.md"):
        assert name in said
    assert "pg_backup.md" not in said
    assert generate(folder)[0] == 0
    assert generate(folder, "--check") == (0, "")


def test_the_pages_are_whole_and_readable(written: Path) -> None:
    pages = {path.name: path.read_text() for path in written.iterdir()}
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
