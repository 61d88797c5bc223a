# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence around a copy: nothing that its own configuration says may reach what belongs to the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import fencing


@pytest.mark.parametrize("name", ["archive_command", "archive_cleanup_command", "recovery_end_command"])
def test_no_command_of_the_original_runs_in_any_mode(tmp_path: Path, name: str) -> None:
    (tmp_path / "PG_VERSION").write_text("17\n")
    assert fencing.NO_ARCHIVE[name] == ""
    assert fencing.fence_beside(tmp_path, "")[name] == ""


def test_a_copy_asks_for_little_and_loads_nothing_of_the_original(tmp_path: Path) -> None:
    """Where postgresql.conf lies in the data directory, that of the original holds for what the fence does not say."""
    (tmp_path / "postgresql.conf").write_text("shared_buffers = '64GB'\nshared_preload_libraries = 'its_worker'\n")
    (tmp_path / "PG_VERSION").write_text("18\n")
    fenced = fencing.fence_beside(tmp_path, "")
    assert (fenced["shared_buffers"], fenced["huge_pages"]) == ("128MB", "off")
    assert fenced["shared_preload_libraries"] == ""
    assert fenced["io_method"] == "worker"
    (tmp_path / "PG_VERSION").write_text("17\n")
    assert "io_method" not in fencing.fence_beside(tmp_path, "")


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    """The directory belongs to the server's account by then, and root writes into it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("as it was")
    (tmp_path / "pgops_unproven").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        fencing.write_file(tmp_path / "pgops_unproven", "x", "")
    assert elsewhere.read_text() == "as it was"
