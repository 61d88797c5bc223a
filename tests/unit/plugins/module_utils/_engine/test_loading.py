# SPDX-License-Identifier: GPL-3.0-or-later
"""How pg_restore is called; what it does is tested with real servers."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import loading

LISTING = [
    ";",
    "; Archive created at 2026-11-22 02:00:00 UTC",
    "215; 1259 16389 TABLE public children postgres",
    "3401; 0 16389 TABLE DATA public children_1 postgres",
    "3402; 0 0 SEQUENCE SET public children_id_seq postgres",
    "3260; 2606 16395 CONSTRAINT public parents parents_pkey postgres",
    "3262; 1259 16401 INDEX public children_month_idx postgres",
    "3263; 0 0 INDEX ATTACH public children_1_month_idx postgres",
    "3264; 2606 16402 FK CONSTRAINT public children children_parent_fkey postgres",
    "3265; 2620 16403 TRIGGER public children stamp postgres",
    "3403; 0 16404 MATERIALIZED VIEW DATA public totals postgres",
    "3404; 0 16405 SOMETHING OF A LATER VERSION public what postgres",
    "",
]


def step(folder: Path, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return the sections and jobs of a call, and the ids that it restores."""
    listed = next(a for a in arguments if a.startswith("--use-list="))
    lines = Path(listed.partition("=")[2]).read_text().splitlines()
    assert Path(listed.partition("=")[2]).parent == folder
    return tuple(a for a in arguments if a != listed), [line.split(";")[0] for line in lines if line[:1].isdigit()]


def test_a_parallel_restore_takes_what_looks_at_other_rows_last(tmp_path: Path) -> None:
    before, rows, rest = (step(tmp_path, arguments) for arguments in loading._steps(tmp_path, LISTING, 3))
    assert before[0] == ("--section=pre-data",)
    assert rows[0] == rest[0] == ("--section=data", "--section=post-data", "--jobs=3")
    assert rows[1] == ["3401", "3402", "3260", "3262", "3263"]
    assert rest[1] == ["215", "3264", "3265", "3403", "3404"]
    assert sorted(rows[1] + rest[1]) == sorted(before[1])


def test_one_job_takes_the_archive_in_its_own_order(tmp_path: Path) -> None:
    assert loading._steps(tmp_path, [], 1) == [()]
    assert step(tmp_path, loading._steps(tmp_path, LISTING[2:4], 1)[0]) == ((), ["215", "3401"])
