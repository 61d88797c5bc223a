# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The sections of what is proven, and of what is brought back."""

from __future__ import annotations

from dataclasses import dataclass, field

from .option import option


@dataclass(frozen=True)
class Assertion:
    """A question to the restored database that has one right answer."""

    database: str = option("", "Database to ask.", example="orders")
    sql: str = option("", "A query that returns one value.", example="SELECT count(*) > 1000 FROM public.orders")
    expect: str = option("t", "The value, as psql -At shows it.")


@dataclass(frozen=True)
class Verify:
    """How sets are proven."""

    place: str = option(
        "auto",
        "Which place to verify; auto: S3 where there is one, the local one otherwise.",
        choices=("auto", "local", "s3"),
    )
    level: str = option(
        "restore", "How deep: checksum, structure or restore.", choices=("checksum", "structure", "restore")
    )
    amcheck: bool = option(
        True, "Check every B-tree index of the restored databases where the amcheck extension can be had."
    )
    assertions: list[Assertion] = field(
        default_factory=list, metadata={"text": "Questions that the restored databases must answer rightly."}
    )
    server_bin_dir: str = option(
        "",
        "Directory of the programs of the throwaway server; found like postgres.bin_dir when empty.",
        form="path",
        example="/usr/lib/postgresql/17/bin",
    )
    wal_files: int = option(
        1500,
        "How many files of the WAL archive each verification of a place with base backups reads again, the newest that were never "
        "read first; 0 for none. A day has 1440 where archive_timeout is a minute.",
        least=0,
        most=1000000,
    )
    run_as: str = option(
        "", "Account of the throwaway server when we run as root; postgres or nobody when empty.", example="postgres"
    )


@dataclass(frozen=True)
class Restore:
    """How databases are brought back."""

    jobs: int = option(0, "Parallel restore jobs; 0 for as many as the machine has cores, at most 8.", least=0, most=64)
    identity_file: str = option(
        "",
        "File (mode 0600) with the private age or SSH key for encrypted sets. Keep it off this host until you need it.",
        form="path",
        example="/run/pgops-key.txt",
    )
    analyze: bool = option(True, "Gather planner statistics after a restore.")
    restore_command: str = option(
        "pgops wal fetch %f %p",
        "How a server in recovery gets a WAL file (%f its name, %p where to put it), as PostgreSQL's restore_command.",
        example="cp /srv/wal/%f %p",
    )
    preload: str = option(
        "",
        "shared_preload_libraries of a copy beside the server, for extensions that have WAL of their own. Its workers act in it.",
        example="pg_tde",
    )


__all__ = ("Assertion", "Restore", "Verify")
