# SPDX-License-Identifier: GPL-3.0-or-later
"""How pg_restore is called; what it does is tested with real servers."""

from __future__ import annotations

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import loading


def test_a_parallel_restore_makes_foreign_keys_after_all_rows() -> None:
    assert loading._steps(3, by_section=True) == [
        ("--section=pre-data",),
        ("--section=data", "--jobs=3"),
        ("--section=post-data", "--jobs=3"),
    ]


def test_who_needs_his_privileges_for_the_rows_gets_them_after() -> None:
    assert loading._steps(3, by_section=False) == [("--jobs=3",)]


def test_one_job_takes_the_archive_in_its_own_order() -> None:
    assert loading._steps(1, by_section=True) == [()]
