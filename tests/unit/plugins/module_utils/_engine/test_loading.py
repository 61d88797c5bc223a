# SPDX-License-Identifier: GPL-3.0-or-later
"""How pg_restore is called; what it does is tested with real servers."""

from __future__ import annotations

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import loading


def test_a_parallel_restore_makes_constraints_after_all_rows() -> None:
    assert loading._in_turn(3) == [
        ("--section=pre-data",),
        ("--section=data", "--jobs=3"),
        ("--section=post-data", "--jobs=3"),
    ]


def test_one_job_takes_the_archive_in_its_own_order() -> None:
    assert loading._in_turn(1) == [()]
