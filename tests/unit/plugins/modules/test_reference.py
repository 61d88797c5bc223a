# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/generate.py writes the reference from the code, and notices when it is stale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
