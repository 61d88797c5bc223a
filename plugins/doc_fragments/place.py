# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that say where the configuration, the sets and the state of an instance are."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragment pgops.backup.place."""

    DOCUMENTATION = r"""
options:
  config:
    description:
      - Configuration file of C(pgops) on the host, YAML or JSON. Reading YAML needs PyYAML there.
      - The other options are laid over it. An option that is not given has the value from this file, or the default
        that its text names.
      - No file is read when this is not given.
    type: path
  instance:
    description:
      - Name of the instance. It must be unique in a bucket, and the same for every module and for C(pgops) on the
        host.
      - Defaults to the name of the server's host and the port, like V(db1.example.com-5432).
    type: str
  backup_dir:
    description:
      - Directory of the backups on the host, the local place (C(local.path) in O(config)).
      - Sets lie below C(<backup_dir>/<instance>/sets).
      - Defaults to V(/backups/postgres).
    type: path
  retention:
    description:
      - Which sets the local place keeps (C(local.retention) in O(config)). A set stays when any rule keeps it.
      - Whatever the rules say, the newest set, the newest verified set and pinned sets stay.
      - Only M(pgops.backup.backup_prune) removes sets, and M(pgops.backup.backup_info) tells which it would remove.
    type: dict
    suboptions:
      keep_within:
        description:
          - Keep every set that is younger than this, like V(36h), V(7d) or V(4w).
          - Defaults to V(7d).
        type: str
      keep_last:
        description:
          - Keep this many of the newest sets, whatever their age.
          - Defaults to V(1).
        type: int
      keep_daily:
        description:
          - Keep one set of each of the last so many days that have one.
          - Defaults to V(0).
        type: int
      keep_weekly:
        description:
          - The same for ISO weeks.
          - Defaults to V(0).
        type: int
      keep_monthly:
        description:
          - The same for months.
          - Defaults to V(0).
        type: int
      keep_yearly:
        description:
          - The same for years.
          - Defaults to V(0).
        type: int
      keep_verified:
        description:
          - Keep at least this many of the newest verified sets, never fewer than 1.
          - Defaults to V(1).
        type: int
  state_dir:
    description:
      - Directory on the host for run records, locks and what is remembered between runs.
      - Defaults to V(/var/lib/pgops).
    type: path
  log_dir:
    description:
      - Directory on the host for one log per verb; an empty string for none.
      - Defaults to V(/var/log/backups).
    type: path
  work_dir:
    description:
      - Directory on the host with room for files that a verification or restore needs for a while.
      - Defaults to a directory in O(state_dir).
    type: path
  s3:
    description:
      - The S3 place. There is none when neither this nor O(config) has one.
    type: dict
    suboptions:
      bucket:
        description:
          - Name of the bucket. It must exist. Needed here or in O(config).
        type: str
      prefix:
        description:
          - What the keys begin with. Sets lie below C(<prefix>/<instance>/sets).
          - Defaults to V(database-backups).
        type: str
      endpoint_url:
        description:
          - Address of an S3 server other than Amazon's, like V(https://s3.example.com).
        type: str
      region:
        description:
          - Region; what the usual AWS chain says when it is not given.
        type: str
      addressing_style:
        description:
          - How the bucket is addressed, by path or by host name.
          - Defaults to V(auto).
        type: str
        choices: [auto, path, virtual]
      access_key:
        description:
          - Access key. Rather use O(s3.credentials_file), a profile or an instance role.
        type: str
      secret_key:
        description:
          - Secret key that belongs to O(s3.access_key).
        type: str
      session_token:
        description:
          - Session token of temporary credentials.
        type: str
      credentials_file:
        description:
          - AWS credentials file on the host (mode 0600).
          - The usual AWS chain is used when no credentials are given.
        type: path
      profile:
        description:
          - Profile in the credentials file or in the AWS configuration.
        type: str
      ca_bundle:
        description:
          - File on the host with the certificates that the S3 server's must descend from.
        type: path
      storage_class:
        description:
          - Storage class of payload files, like V(STANDARD_IA).
        type: str
      sse:
        description:
          - Encryption by the store; the bucket's own setting when it is not given.
        type: str
        choices: [AES256, "aws:kms"]
      sse_kms_key_id:
        description:
          - Key for O(s3.sse=aws:kms); the bucket's own when it is not given.
        type: str
      tags:
        description:
          - Tags of each object.
        type: dict
      concurrency:
        description:
          - Parts in flight at once, 1 to 64.
          - Defaults to V(4).
        type: int
      part_size:
        description:
          - Size of a part. It grows by itself for files that would need more than 10,000 parts.
          - Defaults to V(16MiB).
        type: str
      bandwidth_limit:
        description:
          - Most bytes per second, uploads and downloads together, like V(20MiB). No limit when it is not given.
        type: str
      retry_for:
        description:
          - How long a request is made again while the store is away or busy, like V(5min). A store that has not answered yet in
            this run is given up after 30 seconds.
          - Defaults to V(5min).
        type: str
      checksum_mode:
        description:
          - How content is proven at the store.
          - V(sha256) - the store checks and keeps SHA-256 sums.
          - V(read) - everything is read back after it was uploaded.
          - V(auto) - as V(sha256) where the store keeps the sums, as V(read) otherwise.
          - Defaults to V(auto).
        type: str
        choices: [auto, sha256, read]
      retention:
        description:
          - Which sets the bucket keeps, by the rules that O(retention) explains.
        type: dict
        suboptions:
          keep_within:
            description:
              - Keep every set that is younger than this.
              - Defaults to V(30d).
            type: str
          keep_last:
            description:
              - Keep this many of the newest sets, whatever their age.
              - Defaults to V(1).
            type: int
          keep_daily:
            description:
              - Keep one set of each of the last so many days that have one.
              - Defaults to V(0).
            type: int
          keep_weekly:
            description:
              - The same for ISO weeks.
              - Defaults to V(0).
            type: int
          keep_monthly:
            description:
              - The same for months.
              - Defaults to V(0).
            type: int
          keep_yearly:
            description:
              - The same for years.
              - Defaults to V(0).
            type: int
          keep_verified:
            description:
              - Keep at least this many of the newest verified sets, never fewer than 1.
              - Defaults to V(1).
            type: int
  group:
    description:
      - The primary and standbys of which this host's server is one, when each of them runs the same tasks or schedules.
      - At run time each node asks all members who is the primary. One node works; to the others the task is skipped.
        It is an error when nobody can tell, or none qualifies.
    type: dict
    suboptions:
      members:
        description:
          - All nodes of the group, each as V(host) or V(host:port), in the order of preference. There is no group when
            this is not given or empty.
          - They are asked with the login of this module, who is the primary and how far the others are behind.
          - One without a port is asked at O(login_port); by a node whose own entry has a port, at 5432.
        type: list
        elements: str
      node:
        description:
          - This node's own entry of O(group.members). It is found by the name of the host when it is not given.
        type: str
      run_on:
        description:
          - Which node backs up, syncs, and verifies and prunes the S3 place.
          - V(primary) - the primary.
          - V(prefer_standby) - the first member that is a standby and not too far behind; the primary where there is none.
          - Defaults to V(primary).
        type: str
        choices: [primary, prefer_standby]
      max_lag:
        description:
          - How far a standby may be behind the primary and still be the one that backs up.
          - Defaults to V(5min).
        type: str
requirements:
  - Python 3.9 or later on the host
  - psycopg2 on the host, for what connects to PostgreSQL
  - boto3 on the host, when there is an S3 place
  - PyYAML on the host, when O(config) is YAML
notes:
  - Every module of the collection takes the options of the connection and of the places, so that C(module_defaults)
    can set them once for C(group/pgops.backup.pgops).
  - Run the modules as the account that runs C(pgops) on the host, or as root. What root writes goes to the owner of
    the directory.
  - The result never holds a secret.
  - What a run skipped, degraded or guessed is shown as a warning and stays in the result as RV(run_warnings).
"""
