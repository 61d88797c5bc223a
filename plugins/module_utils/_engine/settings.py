# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Every key of the configuration, once: its type, default, meaning and example.

From these classes come the checks (config.py), the commented example, the reference page and the options that the
modules share. A section is a class; `option()` describes a key.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, Optional

HEARTBEAT, SENTRY_MONITOR = "heartbeat", "sentry monitor"


def option(
    default: Any,
    text: str,
    *,
    example: Any = None,
    choices: tuple[str, ...] = (),
    form: str = "",
    secret: bool = False,
    least: Optional[int] = None,
    most: Optional[int] = None,
) -> Any:
    """Return a dataclass field that carries its documentation.

    `form` names a check of config.py (`size`, `span`, `path`, `instance`, `calendar`, `timezone`, `hours`); `secret` values are
    never shown.
    """
    metadata = {
        "text": text,
        "example": example,
        "choices": choices,
        "form": form,
        "secret": secret,
        "least": least,
        "most": most,
    }
    if isinstance(default, (list, dict)):
        default_factory = functools.partial(type(default), default)
        return dataclasses.field(default_factory=default_factory, metadata=metadata)  # pylint: disable=invalid-field-call
    return dataclasses.field(default=default, metadata=metadata)  # pylint: disable=invalid-field-call


@dataclass(frozen=True)
class Postgres:
    """How to reach the PostgreSQL server."""

    database_url: str = option(
        "",
        "Connection URI. Parts of it give way to the single options below. The environment variable DATABASE_URL is read "
        "when neither this nor any of login_host, login_port, login_user and login_unix_socket is set.",
        example="postgresql://backup@db1.example.com:5432/postgres?sslmode=verify-full",
        secret=True,
    )
    database_url_file: str = option(
        "", "File (mode 0600) that holds the connection URI.", form="path", example="/etc/pgops/database_url"
    )
    login_host: str = option("", "Host name or address; empty for the local socket.", example="db1.example.com")
    login_port: Optional[int] = option(
        None,
        "TCP port, or the number in the socket's name; 5432 where nothing says otherwise.",
        example=5432,
        least=1,
        most=65535,
    )
    login_user: str = option("", "Role to log in as; the account's own name when empty.", example="backup")
    login_password: str = option("", "Password. Rather use login_password_file or a passfile.", secret=True)
    login_password_file: str = option(
        "", "File (mode 0600) that holds the password.", form="path", example="/etc/pgops/password"
    )
    login_unix_socket: str = option(
        "", "Directory of the Unix socket, when it is not the usual one.", form="path", example="/var/run/postgresql"
    )
    login_db: str = option("postgres", "Database to log in to for what concerns the whole server.", example="postgres")
    ssl_mode: str = option(
        "",
        "How TLS is asked for (libpq's sslmode); libpq's own default when empty.",
        choices=("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        example="verify-full",
    )
    ca_cert: str = option(
        "",
        "File with the certificates that the server's must descend from (sslrootcert).",
        form="path",
        example="/etc/pgops/ca.pem",
    )
    ssl_cert: str = option(
        "", "File with the client certificate (sslcert).", form="path", example="/etc/pgops/client.crt"
    )
    ssl_key: str = option(
        "", "File with the key of the client certificate (sslkey).", form="path", example="/etc/pgops/client.key"
    )
    connect_timeout: int = option(10, "Seconds to wait for a connection.", least=1, most=600)
    bin_dir: str = option(
        "",
        "Directory of the PostgreSQL programs. When empty, the newest that fit the server are taken from the usual places and PATH.",
        form="path",
        example="/usr/lib/postgresql/17/bin",
    )


@dataclass(frozen=True)
class Group:
    """A primary and its standbys, of which one backs up. All nodes have the same section, instance and S3 place."""

    members: list[str] = option(
        [],
        "All nodes of the group, each as `host` or `host:port`, in the order of preference; no group when empty. Every node "
        "asks all of them, with the login of the section postgres, which of them is the primary and how far the others are behind. "
        "Without a port it is asked at `postgres.login_port`; by a node whose own entry has a port, at 5432.",
        example=["db1.example.com", "db2.example.com:5433"],
    )
    node: str = option(
        "",
        "This node's own entry of members; found by this host's name when empty. It is asked as the section postgres says.",
        example="db1.example.com",
    )
    run_on: str = option(
        "primary",
        "Which node backs up, syncs, and verifies and prunes the S3 place. primary: the primary; prefer_standby: the first member "
        "that is a standby and not too far behind, the primary where there is none.",
        choices=("primary", "prefer_standby"),
    )
    max_lag: str = option(
        "5min", "How far a standby may be behind the primary and still be the one that backs up.", form="span"
    )


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


@dataclass(frozen=True)
class Schedule:
    """When this host does each verb by itself: five fields as in a crontab, or @daily, @hourly, @weekly, @monthly.

    Limits of freshness follow from it. Nothing is scheduled by this section alone; the module pgops_schedule does that.
    """

    backup: str = option("0 2 * * *", "Backups; not scheduled when empty.", form="calendar")
    base: str = option(
        "auto",
        "Base backups; auto: each Sunday at midnight where wal.enabled is set, never otherwise. Not scheduled when empty.",
        form="calendar or auto",
        example="0 0 * * 0",
    )
    sync: str = option("30 2 * * *", "Copies to S3, where there is an S3 place.", form="calendar")
    verify: str = option("0 3 * * *", "Verifications.", form="calendar")
    prune: str = option("0 1 * * 0", "Removals by retention.", form="calendar")
    alert: str = option(
        "*/15 * * * *",
        "Looks for what nobody ran and what is overdue, where there is an alert channel.",
        form="calendar",
    )
    timezone: str = option(
        "", "Time zone of these calendars; this host's when empty.", form="timezone", example="Europe/Berlin"
    )
    random_delay: str = option(
        "0s", "Longest delay, chosen at random, so that many hosts do not begin at once.", form="span"
    )
    wait: str = option(
        "6h",
        "How long a scheduled run waits for another one that is in its way. By timers it begins only when the jobs that come before it "
        "in the night and are at work are done, however long they take.",
        form="span",
    )


_WEEKLY = "0 0 * * 0"


def base_calendar(base: str, *, archived: bool) -> str:
    """Return when base backups are made by themselves, empty for never, where schedule.base is `base`.

    `archived` tells whether WAL is: without it, a base backup is asked for only by name.
    """
    return (_WEEKLY if archived else "") if base == "auto" else base


_LEVELS = ("info", "warning", "critical", "escalated")
_HEARS = "The least that it hears of. escalated: only what has lasted for escalate_after."


@dataclass(frozen=True)
class Slack:
    """A Slack channel, by an incoming webhook. What understands the same messages (Mattermost, Rocket.Chat) works, too."""

    webhook_url: str = option("", "Address of the webhook. Rather use webhook_url_file.", secret=True)
    webhook_url_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/slack_webhook_url"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class PagerDuty:
    """A service of PagerDuty, by its Events API v2: an incident is opened, and resolved when it is over."""

    routing_key: str = option("", "Integration key of the service. Rather use routing_key_file.", secret=True)
    routing_key_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/pagerduty_routing_key"
    )
    url: str = option(
        "https://events.pagerduty.com/v2/enqueue", "Address of the Events API; that of the EU is another one."
    )
    level: str = option("critical", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Sentry:
    """A project of Sentry. It gets errors, and, where there is a monitor, check-ins of the runs of alerts.watched."""

    dsn: str = option("", "The project's DSN. Rather use dsn_file.", secret=True)
    dsn_file: str = option("", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/sentry_dsn")
    environment: str = option("production", "The environment that it shows.")
    monitor: str = option(
        "",
        "Slug of the cron monitor, which is made when it is missing; {instance} and {verb} stand for themselves. No check-ins "
        "when empty.",
        example="{instance}-{verb}",
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Email:
    """E-mail, by SMTP where there is an smtp_host, by the local sendmail otherwise; that one needs rights that timers lack."""

    to: list[str] = option([], "Who gets it; nobody when empty.", example=["oncall@example.com"])
    sender: str = option("", "From whom; pgops at this host when empty.", example="pgops@db1.example.com")
    smtp_host: str = option("", "Mail server.", example="mail.example.com")
    smtp_port: Optional[int] = option(
        None,
        "Its port; 587, with security tls 465, with none 25 where nothing says otherwise.",
        example=587,
        least=1,
        most=65535,
    )
    security: str = option(
        "starttls",
        "How the connection is encrypted. A password is never sent without.",
        choices=("starttls", "tls", "none"),
    )
    user: str = option("", "Account there, when it wants one.", example="pgops")
    password: str = option("", "Its password. Rather use password_file.", secret=True)
    password_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/smtp_password"
    )
    sendmail: str = option(
        "/usr/sbin/sendmail", "The program that takes mail where there is no smtp_host.", form="path"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Webhook:
    """Any program that takes JSON by POST."""

    url: str = option("", "Its address. Rather use url_file when it holds a secret.", secret=True)
    url_file: str = option("", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/webhook_url")
    secret: str = option(
        "", "Key of the signature (HMAC-SHA-256) of each message. Rather use secret_file.", secret=True
    )
    secret_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/webhook_secret"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Heartbeat:
    """A watcher outside, which raises an alarm when it no longer hears of the runs of alerts.watched."""

    url: str = option("", "Its address; {instance} and {verb} stand for themselves. Rather use url_file.", secret=True)
    url_file: str = option(
        "", "File (mode 0600) that holds it.", form="path", example="/etc/pgops/secrets/heartbeat_url"
    )
    style: str = option(
        "healthchecks",
        "What it understands. healthchecks: /start, /fail and success, as Healthchecks has it; plain: success only.",
        choices=("healthchecks", "plain"),
    )


@dataclass(frozen=True)
class AppriseUrls:
    """Whatever else Apprise speaks; this host then needs the Python package apprise."""

    urls: str = option("", "Apprise's addresses, with blanks between. Rather use urls_file.", secret=True)
    urls_file: str = option(
        "", "File (mode 0600) that holds them in one line.", form="path", example="/etc/pgops/secrets/apprise_urls"
    )
    level: str = option("warning", _HEARS, choices=_LEVELS)


@dataclass(frozen=True)
class Alerts:
    """Who hears of trouble, and when. Nobody does without a channel; the section of a channel turns it on.

    Files of secrets are read when something is sent, so that a channel in trouble never keeps a backup from being made.
    """

    slack: Slack = field(default_factory=Slack)
    pagerduty: PagerDuty = field(default_factory=PagerDuty)
    sentry: Sentry = field(default_factory=Sentry)
    email: Email = field(default_factory=Email)
    webhook: Webhook = field(default_factory=Webhook)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    apprise: AppriseUrls = field(default_factory=AppriseUrls)
    watched: list[str] = option(
        [],
        "Verbs of which the heartbeat and Sentry's monitor hear. When empty: backup; also sync and verify, where they are "
        "scheduled, of one whose address or slug has {verb}, so that each verb has a check of its own.",
        example=["backup", "sync"],
    )
    repeat: str = option("24h", "How often an incident that lasts is told again; 0s for never.", form="span")
    escalate_after: str = option(
        "3d",
        "When an incident that lasts is told as critical, and to channels of the level escalated; 0s for never.",
        form="span",
    )
    quiet_hours: str = option(
        "",
        "Hours in which only what is at least quiet_level is told, in schedule.timezone.",
        form="hours",
        example="22:00-07:00",
    )
    quiet_level: str = option(
        "critical", "What is told in quiet hours all the same.", choices=("critical", "escalated")
    )
    grace: str = option("1h", "How long after its time a run may begin before it counts as missed.", form="span")
    size_change: int = option(
        50,
        "By how many percent a backup may differ from the median of the seven before it; 0 for any.",
        least=0,
        most=100000,
    )
    disk_days: str = option(
        "7d", "How long the disk of the local place must last at its pace; 0s for no forecast.", form="span"
    )
    restore_test: str = option(
        "auto",
        "How often somebody must try a restore (pgops restore, recover or rescue); never when empty. auto: each quarter where "
        "somebody did it once, and once in the first year where verifications prove that sets restore.",
        form="span or auto",
        example="90d",
    )
    ways: int = option(
        2,
        "How many ways there should be by which each trouble reaches people, so that one may fail: with fewer, pgops status has "
        "a notice. 1 where a monitoring system asks as well; 0 for any.",
        least=0,
        most=7,
    )
    timeout: int = option(10, "Seconds to wait for the answer of a channel.", least=1, most=120)
    ca_bundle: str = option(
        "",
        "File with the certificates that those of the channels' servers must descend from.",
        form="path",
        example="/etc/pgops/alerts-ca.pem",
    )

    def channels(self) -> list[str]:
        """Return the names of the channels that are on."""
        given = {
            "slack": self.slack.webhook_url or self.slack.webhook_url_file,
            "pagerduty": self.pagerduty.routing_key or self.pagerduty.routing_key_file,
            "sentry": self.sentry.dsn or self.sentry.dsn_file,
            "email": self.email.to,
            "webhook": self.webhook.url or self.webhook.url_file,
            "heartbeat": self.heartbeat.url or self.heartbeat.url_file,
            "apprise": self.apprise.urls or self.apprise.urls_file,
        }
        return [name for name, value in given.items() if value]

    def ways_told(self) -> list[str]:
        """Return the names of all that is told something: the channels, and Sentry's monitor, which hears of runs."""
        found = self.channels()
        return [*found, SENTRY_MONITOR] if "sentry" in found and self.sentry.monitor else found

    def watchers(self) -> list[str]:
        """Return the names of those that hear of runs, and of nothing else."""
        return [name for name in self.ways_told() if name in (HEARTBEAT, SENTRY_MONITOR)]


@dataclass(frozen=True)
class Metrics:
    """Numbers for Prometheus."""

    textfile_directory: str = option(
        "",
        "Directory of node_exporter's textfile collector; the numbers are written there after each run. None are when empty.",
        form="path",
        example="/var/lib/prometheus/node-exporter",
    )


@dataclass(frozen=True)
class ChecklistLine:
    """One line of a checklist."""

    id: str = option("", "Its name, which begins with the stage that it belongs to.", example="monthly.invoices")
    who: str = option("", "Who sees to it.", example="accounting")
    text: str = option("", "What must be so.", example="The invoices of a test restore were looked at")
    proof: str = option(
        "", "What ticks it by itself; docs/checklists.md names all. A person does when empty.", example="restored"
    )
    todo: str = option("", "What to do when it is not so; a usual advice when empty.", example="Ask accounting.")
    signable: bool = option(False, "Whether a person may tick it as well, where something else does.")


@dataclass(frozen=True)
class Checklist:
    """Lines of your own for pgops checklist, behind those of their stages."""

    lines: list[ChecklistLine] = field(default_factory=list, metadata={"text": "The lines."})
    files: list[str] = option(
        [],
        "Files with more of them, as `lines:` in the same form. They are read by the checklist and by pgops config --check.",
        example=["/etc/pgops/checklist.yml"],
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration of one instance."""

    instance: str = option(
        "",
        "Name of the instance, unique in a bucket; the host and the port of the server when empty.",
        form="instance",
        example="db1-main",
    )
    postgres: Postgres = field(default_factory=Postgres)
    group: Group = field(default_factory=Group)
    backup: Backup = field(default_factory=Backup)
    base: Base = field(default_factory=Base)
    local: Local = field(default_factory=Local)
    s3: Optional[S3] = None
    verify: Verify = field(default_factory=Verify)
    restore: Restore = field(default_factory=Restore)
    wal: Wal = field(default_factory=Wal)
    schedule: Schedule = field(default_factory=Schedule)
    metrics: Metrics = field(default_factory=Metrics)
    alerts: Alerts = field(default_factory=Alerts)
    checklist: Checklist = field(default_factory=Checklist)
    state_dir: str = option("/var/lib/pgops", "Run records, locks and what is remembered between runs.", form="path")
    log_dir: str = option("/var/log/backups", "One log per verb; empty for none.", form="path")
    work_dir: str = option(
        "",
        "Room for files that a verification or restore needs for a while; a directory of its own in state_dir when empty.",
        form="path",
        example="/srv/pgops-work",
    )

    def scheduled_jobs(self) -> list[str]:
        """Return those of backup, sync and verify that run by themselves; backup always, as it is waited for everywhere."""
        found = ["backup"]
        found += ["sync"] if self.s3 is not None and self.schedule.sync else []
        return found + (["verify"] if self.schedule.verify else [])

    def watched_verbs(self, *, apart: bool) -> list[str]:
        """Return the verbs of which a watcher hears; `apart`: it has a check for each of them."""
        return list(self.alerts.watched) or (self.scheduled_jobs() if apart else ["backup"])


__all__ = (
    "Alerts",
    "AppriseUrls",
    "Assertion",
    "Backup",
    "Base",
    "Checklist",
    "ChecklistLine",
    "Config",
    "Email",
    "Group",
    "Heartbeat",
    "Local",
    "Metrics",
    "PagerDuty",
    "Postgres",
    "Restore",
    "Retention",
    "S3",
    "Schedule",
    "Sentry",
    "Slack",
    "Verify",
    "Webhook",
    "Wal",
    "base_calendar",
    "option",
)
