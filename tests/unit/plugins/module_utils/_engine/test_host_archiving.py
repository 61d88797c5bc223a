# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that archives with pgops, and no instance that asks for it: whoever would leave it so is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import configuration
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.archiving import check

PROGRAM = "/usr/local/bin/pgops"
OURS = "archive_command = '%s-wal wal archive --config /etc/pgops/db1-two.yml %%p'\n" % PROGRAM


@pytest.fixture(name="cluster")
def one_cluster(tmp_path: Path) -> dict[str, Any]:
    data = tmp_path / "data dir"
    data.mkdir()
    (tmp_path / "etc" / "17" / "two" / "conf.d").mkdir(parents=True)
    return {"version": "17", "name": "two", "port": 5433, "status": "online", "data_directory": str(data)}


def refusal(cluster: dict[str, Any], tmp_path: Path, *ports: int, program: str = PROGRAM) -> str:
    try:
        check([cluster], program, ports, configuration.is_ours, tmp_path / "etc")
    except RefusedError as error:
        return "%s %s" % (error.message, error.hint)
    return ""


def write(cluster: dict[str, Any], text: str, name: str = "postgresql.auto.conf") -> None:
    (Path(cluster["data_directory"]) / name).write_text(text)


def test_a_cluster_whose_instance_is_no_more_is_told_with_its_port_and_its_file(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    write(cluster, "archive_mode = 'on'\n" + OURS)
    said = refusal(cluster, tmp_path, 5432)
    assert "cluster 17/two on port 5433 (%s/data dir/postgresql.auto.conf)" % tmp_path in said
    assert "wal_archive_state: absent" in said


def test_one_of_an_instance_that_asks_for_it_is_in_order_whatever_its_configuration_is_called(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    write(cluster, OURS)
    assert refusal(cluster, tmp_path, 5432, 5433) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#" + OURS,
        # As what was recovered by hand, which has the command of its original
        "archive_mode = on\n" + OURS + "archive_mode = 'off'\n",
        OURS + "Archive_Command = '/bin/true'\n",
        OURS + "archive_command = '/bin/true'\n",
        "archive_command = 'pgbackrest --stanza=main archive-push %p'\n",
        "archive_command = '/usr/bin/other pgops wal archive %p'\n",
    ],
)
def test_what_archives_by_other_means_or_no_more_is_none_of_ours(
    text: str, cluster: dict[str, Any], tmp_path: Path
) -> None:
    write(cluster, text)
    assert refusal(cluster, tmp_path) == ""


def test_what_alter_system_wrote_goes_before_what_stands_elsewhere(cluster: dict[str, Any], tmp_path: Path) -> None:
    debian = tmp_path / "etc" / "17" / "two"
    (debian / "conf.d" / "wal.conf").write_text(OURS)
    assert "wal.conf" in refusal(cluster, tmp_path)
    write(cluster, "archive_command = '/bin/true'\n")
    assert refusal(cluster, tmp_path) == ""


@pytest.mark.parametrize(
    ("status", "mode"), [("down", "on"), ("down,binaries_missing", "always"), ("online,recovery", "on")]
)
def test_one_that_archives_nothing_now_is_told_and_stops_nobody(
    status: str, mode: str, cluster: dict[str, Any], tmp_path: Path
) -> None:
    """As the cluster that pg_upgradecluster leaves behind, on another port; and a standby, which has what its primary has."""
    write(cluster, OURS + "archive_mode = %s\n" % mode)
    there = {**cluster, "status": status}
    (said,) = check([there], PROGRAM, (5432,), configuration.is_ours, tmp_path / "etc")
    assert "17/two on port 5433 (%s, %s)" % (status, Path(cluster["data_directory"]) / "postgresql.auto.conf") in said
    assert check([there], PROGRAM, (5433,), configuration.is_ours, tmp_path / "etc") == []


def test_a_standby_that_always_archives_does_so_now(cluster: dict[str, Any], tmp_path: Path) -> None:
    write(cluster, OURS + "archive_mode = always\n")
    assert refusal({**cluster, "status": "online,recovery"}, tmp_path) != ""


def test_one_whose_configuration_was_written_by_hand_goes_on_as_before(cluster: dict[str, Any], tmp_path: Path) -> None:
    by_hand, laid = tmp_path / "by hand.yml", tmp_path / "laid.yml"
    by_hand.write_text("instance: db1-two\n")
    laid.write_text(configuration.HEAD + "instance: db1-two\n")
    for path in (by_hand, laid, tmp_path / "gone.yml"):
        write(cluster, "archive_command = '%s wal archive --config ''%s'' %%p'\n" % (PROGRAM, path))
        assert (refusal(cluster, tmp_path) == "") is (path == by_hand)


def test_what_lies_with_the_data_is_not_read_where_debian_has_it_elsewhere(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    write(cluster, OURS, "postgresql.conf")
    assert refusal(cluster, tmp_path) != ""
    (tmp_path / "etc" / "17" / "two" / "postgresql.conf").write_text("port = 5433\n")
    assert refusal(cluster, tmp_path) == ""


@pytest.mark.parametrize(
    ("program", "command"),
    [("/opt/p g/pgops", "''/opt/p g/pgops-wal'' wal archive --config x %p"), ("/opt/b", "/opt/b wal archive %p")],
)
def test_a_program_elsewhere_is_ours_too(program: str, command: str, cluster: dict[str, Any], tmp_path: Path) -> None:
    write(cluster, "archive_command '%s'\n" % command, "postgresql.conf")
    assert "postgresql.conf" in refusal(cluster, tmp_path, program=program)


def test_one_whose_data_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    gone = {"version": "17", "name": "x", "port": 1, "status": "online", "data_directory": str(tmp_path / "gone")}
    assert refusal(gone, tmp_path) == ""
