# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The sections of what is backed up: dumps, base backups, the WAL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .option import option


@dataclass(frozen=True)
class Backup:
    """What a backup holds and how it is made."""

    databases: list[str] = option(
        [], "Databases to back up; all that accept connections, when empty.", example=["orders", "billing"]
    )
    exclude_databases: list[str] = option(
        [], "Databases to leave out; reported as uncovered in each run.", example=["scratch"]
    )
    schemas: list[str] = option(
        [],
        "Only these schemas, in every database that has them. The rest is reported as uncovered.",
        example=["public"],
    )
    exclude_schemas: list[str] = option([], "Schemas to leave out.", example=["staging"])
    tables: list[str] = option([], "Only these tables, written schema.table.", example=["public.orders"])
    exclude_tables: list[str] = option([], "Tables to leave out, written schema.table.", example=["public.cache"])
    exclude_table_data: list[str] = option(
        [], "Tables of which only the definition is kept, written schema.table.", example=["audit.events"]
    )
    format: str = option(
        "auto",
        "Dump format. auto: directory for a database worth parallel work, custom otherwise.",
        choices=("auto", "custom", "directory", "plain"),
    )
    jobs: int = option(0, "Parallel dump jobs; 0 for as many as the machine has cores, at most 4.", least=0, most=64)
    compression: str = option(
        "auto",
        "Compression. auto: zstd where pg_dump or the zstd program can do it, gzip otherwise.",
        choices=("auto", "zstd", "lz4", "gzip", "none"),
    )
    compression_level: Optional[int] = option(
        None, "Level of the compression; a sensible one of each method when empty.", least=0, most=19
    )
    globals: bool = option(True, "Keep roles, memberships, role settings and tablespaces too.")
    server_settings: bool = option(True, "Keep the server's settings, pg_hba.conf and pg_ident.conf too.")
    fingerprint: bool = option(
        True, "Count rows and list objects in the dump's own snapshot, so that a restore can be compared."
    )
    lock_wait_timeout: str = option(
        "60s",
        "Longest wait for a table lock; the dump gives up then rather than queue in front of others.",
        form="span",
    )
    on_lock_wait: str = option(
        "report",
        "What to do when a session waits for a lock that the dump holds, as a migration does, and others behind it. "
        "report: go on, and tell; cancel: give way, and dump that database anew, at most twice.",
        choices=("report", "cancel"),
    )
    min_free: str = option(
        "1GiB", "Space that must stay free in the backup directory; a run ends before it would go below.", form="size"
    )
    allow_no_databases: bool = option(False, "Whether a run without a single database is a success.")
    encryption: str = option("none", "Encryption of all payload files.", choices=("none", "age"))
    recipients: list[str] = option(
        [],
        "Public age or SSH keys to encrypt to. This host needs no private key.",
        example=["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudu0ll6qhps6wn"],
    )


@dataclass(frozen=True)
class Base:
    """How base backups (pgops backup --kind base) are taken. Of the section backup, min_free and encryption hold for them, too."""

    compression: str = option(
        "auto",
        "Compression. auto: zstd where the server, pg_basebackup or the zstd program can do it, gzip otherwise.",
        choices=("auto", "zstd", "lz4", "gzip", "none"),
    )
    compression_level: Optional[int] = option(
        None, "Level of the compression; a sensible one of each method when empty.", least=1, most=19
    )
    compress_on: str = option(
        "auto",
        "Who compresses: the server, which saves network; or the client, which saves the server work. auto: the server "
        "where it can.",
        choices=("auto", "server", "client"),
    )
    workers: int = option(
        0, "Threads that compress zstd; 0 for as many as the machine has cores, at most 4.", least=0, most=64
    )
    max_rate: str = option(
        "",
        "Most bytes per second to read from the server, 32KiB to 1GiB; unlimited when empty.",
        form="size",
        example="100MiB",
    )
    checkpoint: str = option(
        "fast",
        "How the checkpoint at the start is made. fast: at once; spread: as slowly as the server's own ones, which may take minutes.",
        choices=("fast", "spread"),
    )
    manifest_checksums: str = option(
        "SHA256",
        "Checksums of the files inside, which PostgreSQL writes into its own list. Those of CRC32C cost the server less, and are "
        "checked at level restore only.",
        choices=("SHA256", "CRC32C"),
    )
    to: str = option(
        "local",
        "Where they are taken to. local: this host, and pgops sync copies them. s3: straight to the S3 place while they are "
        "taken, where this host has no room for them; the server must have no tablespaces of its own.",
        choices=("local", "s3"),
    )
    incremental: str = option(
        "never",
        "Whether only what changed since the newest base backup is copied, from PostgreSQL 17 on and with summarize_wal on at "
        "the server. auto: yes, but for a full one when it is due, or where nothing good is there to build on.",
        choices=("never", "auto"),
    )
    full_every: str = option(
        "7d", "With incremental: how old the last full one may become; any age when empty.", form="span"
    )
    chain_limit: int = option(
        14,
        "With incremental: how many may follow a full one. All of them are needed to recover from the last.",
        least=1,
        most=1000,
    )


@dataclass(frozen=True)
class Wal:
    """The WAL archive: what brings an instance from a base backup to any later moment."""

    enabled: bool = option(
        False,
        "Whether the server archives its WAL with pgops wal archive; status and prune look after the archive then.",
    )
    compression: str = option(
        "auto",
        "Compression of each segment. auto: zstd where its library is there, gzip otherwise.",
        choices=("auto", "zstd", "gzip", "none"),
    )
    compression_level: Optional[int] = option(
        None, "Level of the compression; 1, the quickest, when empty.", least=1, most=19
    )
    keep_local: str = option(
        "2d",
        "How long WAL stays on this host after it was copied to S3. What a base backup on this host needs stays longer.",
        form="span",
    )
    ship_every: str = option("1s", "How often pgops wal ship --loop looks for new WAL.", form="span")
    prefetch: int = option(
        16, "How many segments pgops wal fetch brings from S3 ahead of those that were asked for.", least=0, most=256
    )
    max_lag: str = option(
        "10min", "How old WAL may become before it is archived and in S3; status tells when it is older.", form="span"
    )
    max_backlog: str = option(
        "1GiB", "How much WAL may wait to be archived or copied to S3; status tells when it is more.", form="size"
    )


__all__ = ("Backup", "Base", "Wal")
