# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence around a copy: nothing that its own configuration says may reach what belongs to the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import fencing


@pytest.mark.parametrize("name", ["archive_command", "archive_cleanup_command", "recovery_end_command"])
def test_no_command_of_the_original_runs_in_any_mode(tmp_path: Path, name: str) -> None:
    assert fencing.NO_ARCHIVE[name] == ""
    assert fencing.fence_beside(tmp_path, "")[name] == ""
