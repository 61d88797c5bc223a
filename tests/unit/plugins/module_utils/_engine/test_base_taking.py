# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server says to who may not or cannot copy it, and what to do then; the words of its compression."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    CommandError,
    PgopsError,
    RefusedError,
    UnreachableError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Payload, Tablespace
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.base_taking import (
    Taken,
    UnfitParentError,
    Way,
    _brought,
    may_be_unfit,
    replication_refused,
    was_removed,
)


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("FATAL:  permission denied to start WAL sender", RefusedError, "REPLICATION"),
        ("FATAL:  must be superuser or replication role to start walsender", RefusedError, "REPLICATION"),
        ('FATAL:  no pg_hba.conf entry for replication connection from host "::1"', RefusedError, "pg_hba.conf"),
        ("FATAL:  number of requested standby connections exceeds max_wal_senders", RefusedError, "max_wal_senders"),
        (
            "ERROR:  requested WAL segment 000000010000000000000001 has already been removed",
            CommandError,
            "wal_keep_size",
        ),
        ("ERROR:  the standby was promoted during online backup", CommandError, "Run the backup again"),
        ('ERROR:  WAL generated with "full_page_writes=off" was replayed', CommandError, "at the primary"),
        ('connection to server at "db1", port 5432 failed: no route', UnreachableError, "section postgres"),
        ("server closed the connection unexpectedly", UnreachableError, "server's log"),
        ("something new", CommandError, "server's log"),
    ],
)
def test_the_next_step_follows_from_what_the_server_says(said: str, kind: type[PgopsError], hint: str) -> None:
    error = replication_refused(CommandError("pg_basebackup ended with status 1: %s" % said, stderr=said))
    assert error.__class__ is kind
    assert hint in error.hint
    assert said in error.message


@pytest.mark.parametrize(
    ("way", "argument", "layers", "piped"),
    [
        (Way("zstd", "server", workers=2), "server-zstd:level=3,workers=2", ("zstd",), False),
        (Way("zstd", "client", 5, workers=1), "client-zstd:level=5", ("zstd",), False),
        (Way("gzip", "server", 19), "server-gzip:level=9", ("gzip",), False),
        (Way("lz4", "client"), "client-lz4:level=1", ("lz4",), False),
        (Way("zstd", "program", 5), "none", ("zstd",), True),
        (Way("zstd", "program", encrypted=True), "none", ("zstd", "age"), True),
        (Way("none", "nobody"), "none", (), False),
        (Way("none", "nobody", encrypted=True), "none", ("age",), True),
    ],
)
def test_a_way_says_how_it_is_asked_for_and_undone(
    way: Way, argument: str, layers: tuple[str, ...], piped: bool
) -> None:
    assert (way.argument, way.layers, way.piped) == (argument, layers, piped)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("FEHLER: WAL-Zusammenfassungen werden ab 0/2000028 benötigt", True),
        ('error: could not open file "/w/backup_manifest": No such file or directory', False),
        ('error: could not write to file "/b/backup_manifest": No space left on device', False),
        ("ERROR: requested WAL segment 000000010000000000000001 has already been removed", False),
        ("FATAL: permission denied to start WAL sender", False),
        ('connection to server at "db1", port 5432 failed', False),
        ("server closed the connection unexpectedly", False),
    ],
)
def test_what_the_server_says_in_its_own_language_may_be_the_parents_fault(said: str, expected: bool) -> None:
    error = replication_refused(CommandError("pg_basebackup ended with status 1: %s" % said, stderr=said))
    assert may_be_unfit(error) == expected


def test_what_another_program_says_is_not_the_parents_fault() -> None:
    assert not may_be_unfit(CommandError("zstd ended with status 1: FEHLER", stderr="FEHLER"))
    assert not may_be_unfit(RefusedError("pg_basebackup is not there."))
    assert may_be_unfit(UnfitParentError("It is of another cluster."))


def test_the_set_has_the_tablespaces_that_came(tmp_path: Path) -> None:
    known = [Tablespace(oid, oid, "/" + oid, Payload("x", "tar"), 0) for oid in ("16400", "16401", "16402")]
    for name in ("base.tar.gz", "16400.tar.gz", "16402.tar.gz", "backup_manifest"):
        (tmp_path / name).touch()
    assert [t.oid for t in _brought(tmp_path, ".gz", known)] == ["16400", "16402"]
    (tmp_path / "16500.tar.gz").touch()
    with pytest.raises(PgopsError, match=r"made and dropped while the base backup was taken \(number 16500\)"):
        _brought(tmp_path, ".gz", known)


def test_what_is_said_of_waiting_for_the_archive_is_no_wal_that_is_gone() -> None:
    """pg_basebackup hears it of a base backup without WAL, and may fail for something else after that."""
    for said in (
        "WARNING:  still waiting for all required WAL segments to be archived (60 seconds elapsed)",
        "NOTICE:  all required WAL segments have been archived",
    ):
        assert not was_removed(said)
        assert "wal_keep_size" not in replication_refused(CommandError("pg_basebackup failed", stderr=said)).hint


def test_the_wal_begins_where_the_last_attempt_says() -> None:
    """One that is made anew without threads has told where the first one began, too."""
    begins = "pg_basebackup: write-ahead log start point: %s on timeline %d"
    said = [begins % ("0/2000028", 1), "could not set compression worker count", begins % ("0/4000028", 2)]
    assert Taken.start_of(said) == ("0/4000028", 2)
    assert Taken.start_of(said[1:2]) is None
