# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The sections of the places, each with its own retention."""

from __future__ import annotations

from dataclasses import dataclass, field

from .option import option


@dataclass(frozen=True)
class Retention:
    """Which sets a place keeps. A set stays when any rule keeps it."""

    keep_within: str = option("", "Keep every set that is younger than this.", form="span", example="7d")
    keep_last: int = option(1, "Keep the newest sets, whatever their age.", least=0, most=100000)
    keep_daily: int = option(
        0, "Keep the newest set of each of the last so many days that have one.", least=0, most=100000
    )
    keep_weekly: int = option(0, "The same for ISO weeks.", least=0, most=100000)
    keep_monthly: int = option(0, "The same for months.", least=0, most=100000)
    keep_yearly: int = option(0, "The same for years.", least=0, most=100000)
    keep_verified: int = option(
        1, "Keep at least so many of the newest verified sets. Never fewer than 1.", least=1, most=100000
    )


def _week() -> Retention:
    return Retention(keep_within="7d")


def _month() -> Retention:
    return Retention(keep_within="30d")


@dataclass(frozen=True)
class Local:
    """The local place."""

    path: str = option("/backups/postgres", "Directory of the backups on this host.", form="path")
    retention: Retention = field(default_factory=_week, metadata={"text": "Which sets stay on this host."})


@dataclass(frozen=True)
class S3:
    """The S3 place. Leave the section out when there is none."""

    bucket: str = option("", "Name of the bucket. It must exist.", example="example-backups")
    prefix: str = option("database-backups", "What the keys begin with.")
    endpoint_url: str = option("", "Address of an S3 server other than Amazon's.", example="https://s3.example.com")
    region: str = option("", "Region; the AWS chain's when empty.", example="eu-central-1")
    addressing_style: str = option("auto", "How the bucket is addressed.", choices=("auto", "path", "virtual"))
    access_key: str = option("", "Access key. Rather use credentials_file, a profile or an instance role.", secret=True)
    secret_key: str = option("", "Secret key.", secret=True)
    session_token: str = option("", "Session token of temporary credentials.", secret=True)
    credentials_file: str = option(
        "",
        "AWS credentials file (mode 0600). The usual AWS chain is used when no credentials are given.",
        form="path",
        example="/etc/pgops/aws_credentials",
    )
    profile: str = option("", "Profile in the credentials file or the AWS configuration.", example="backup")
    ca_bundle: str = option(
        "",
        "File with the certificates that the server's must descend from.",
        form="path",
        example="/etc/pgops/s3-ca.pem",
    )
    storage_class: str = option("", "Storage class of payload files.", example="STANDARD_IA")
    sse: str = option("", "Encryption by the store.", choices=("", "AES256", "aws:kms"), example="aws:kms")
    sse_kms_key_id: str = option("", "Key for sse aws:kms; the bucket's own when empty.", example="alias/backups")
    tags: dict[str, str] = option({}, "Tags of each object.", example={"team": "data"})
    concurrency: int = option(
        4, "Parts in flight at once; four times as many small files, unless it is 1.", least=1, most=64
    )
    part_size: str = option(
        "16MiB", "Size of a part; grows by itself for files that would need more than 10,000.", form="size"
    )
    bandwidth_limit: str = option(
        "", "Most bytes per second, uploads and downloads together.", form="size", example="20MiB"
    )
    retry_for: str = option(
        "5min",
        "How long a request is made again while the store is away or busy, after pauses that grow to 20 s. A store that has not "
        "answered yet in this run is given up after 30 s.",
        form="span",
    )
    checksum_mode: str = option(
        "auto",
        "How content is proven at the store. sha256: the store checks and keeps SHA-256; read: read back after each upload; "
        "auto: sha256 where the store keeps it, read otherwise.",
        choices=("auto", "sha256", "read"),
    )
    retention: Retention = field(default_factory=_month, metadata={"text": "Which sets stay in the bucket."})


__all__ = ("Local", "Retention", "S3")
