# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's clusters, found by the data directory that their configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.debian import cluster_of


def lay_out(root: Path, version: str, name: str, text: str) -> Path:
    file = root / "etc" / version / name / "postgresql.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "line",
    [
        "data_directory = '%s'\t\t# use data in another directory",
        "  DATA_DIRECTORY '%s'",
        "data_directory = '/elsewhere'\ndata_directory='%s'",
    ],
)
def test_a_cluster_is_found_by_its_data_directory(tmp_path: Path, line: str) -> None:
    data = tmp_path / "what's here" / "main"
    data.mkdir(parents=True)
    lay_out(tmp_path, "15", "main", "data_directory = '/var/lib/postgresql/15/main'\n")
    file = lay_out(tmp_path, "17", "main", "port = 5433\n%s\n" % (line % str(data).replace("'", "''")))
    lay_out(tmp_path, "17", "two-words", "#data_directory = '%s'\n" % data)
    found = cluster_of(data, tmp_path / "etc")
    assert found is not None
    assert (found.version, found.name, found.config_file) == ("17", "main", file)
    assert found.service == "postgresql@17-main"
    linked = tmp_path / "link"
    linked.symlink_to(data)
    assert cluster_of(linked, tmp_path / "etc") == found


def test_what_no_configuration_names_is_no_cluster_of_debians(tmp_path: Path) -> None:
    assert cluster_of(tmp_path / "data", tmp_path / "etc") is None
    lay_out(tmp_path, "17", "main", "data_directory = '/elsewhere'\ndata_directory = '/still elsewhere'\n")
    (tmp_path / "etc" / "17" / "dir" / "postgresql.conf").mkdir(parents=True)
    assert cluster_of(tmp_path / "data", tmp_path / "etc") is None
    assert cluster_of(Path("/elsewhere"), tmp_path / "etc") is None, "the last one counts"
