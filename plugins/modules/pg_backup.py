#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Back up PostgreSQL databases, or a whole server
version_added: 0.1.0
description:
  - Makes one logical backup set of the databases of a PostgreSQL server with C(pg_dump) and C(pg_dumpall), and
    publishes it in the local place by one rename. A run that fails leaves no half-written set behind.
  - With O(kind=base) it makes a base backup of the whole server with C(pg_basebackup) instead, from which
    M(pgops.backup.pg_restore_from_backup) recovers to any later moment with the WAL archive. Of the options below, only
    O(incremental), O(to), O(base), O(min_free), O(server_settings), O(encryption) and O(recipients) concern it.
  - A set holds the dumps, roles and tablespaces, the server's settings, C(pg_hba.conf) and C(pg_ident.conf), and a
    manifest with the size and SHA-256 sum of each file. The fingerprint in it, taken in the very snapshot of the
    dump, is what a restore is compared with.
  - The result tells which databases, schemas and tables no backup covers.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - Connects to the server and plans the backup, down to formats, compression and space.
  diff_mode:
    support: full
    details:
      - Shows which set is the newest one and the databases in it. Without a run, the name of the new set is not
        known.
  idempotent:
    support: none
    details:
      - Each run makes a new set.

options:
  kind:
    description:
      - V(logical) - dumps of the databases.
      - V(base) - a copy of the whole server. The role needs the attribute C(REPLICATION), and C(pg_hba.conf) a line for
        the database C(replication). A server that finds blocks with a wrong checksum ends it, and no set is kept.
    type: str
    choices: [logical, base]
    default: logical
  incremental:
    description:
      - Whether a base backup holds only what changed since another one. It needs PostgreSQL 17 or newer and C(summarize_wal) on at
        the server.
      - V(auto) - since the newest base backup, but a full one where O(base.full_every) or O(base.chain_limit) says so, or where
        nothing good is there to build on, which is told as a warning.
      - V(never) - a full one.
      - The id of a base backup - since that one. Where that cannot be done, the task fails.
      - Defaults to what O(base.incremental) or the configuration says.
    type: str
  to:
    description:
      - Where a base backup is taken to. V(local) - O(backup_dir). V(s3) - straight to the S3 place while it is taken, where the
        host has no room for it; the server must have no tablespaces of its own then.
      - Defaults to what O(base.to) or the configuration says.
    type: str
    choices: [local, s3]
  base:
    description:
      - How a base backup is taken.
    type: dict
    suboptions:
      compression:
        description:
          - Compression. V(auto) - zstd where the server, C(pg_basebackup) or the program C(zstd) can do it, gzip
            otherwise.
          - Defaults to V(auto).
        type: str
        choices: [auto, zstd, lz4, gzip, none]
      compression_level:
        description:
          - Level of the compression, 1 to 19; a sensible one of each method when it is not given.
        type: int
      compress_on:
        description:
          - Who compresses. V(server) saves network, V(client) saves the server work. V(auto) - the server where it can.
          - Defaults to V(auto).
        type: str
        choices: [auto, server, client]
      workers:
        description:
          - Threads that compress zstd; V(0) for as many as the host has cores, at most 4.
          - Defaults to V(0).
        type: int
      max_rate:
        description:
          - Most bytes per second to read from the server, like V(100MiB); V(32KiB) to V(1GiB), unlimited when it is not
            given.
        type: str
      checkpoint:
        description:
          - V(fast) - the checkpoint at the start is made at once. V(spread) - as slowly as the server's own ones.
          - Defaults to V(fast).
        type: str
        choices: [fast, spread]
      manifest_checksums:
        description:
          - Checksums of the files inside, in PostgreSQL's own list. Those of V(CRC32C) cost the server less, and are
            checked by a verification at level restore only.
          - Defaults to V(SHA256).
        type: str
        choices: [SHA256, CRC32C]
      to:
        description:
          - Where they are taken to. See O(to).
          - Defaults to V(local).
        type: str
        choices: [local, s3]
      incremental:
        description:
          - Whether only what changed since the newest base backup is copied. V(auto) - see O(incremental).
          - Defaults to V(never).
        type: str
        choices: [never, auto]
      full_every:
        description:
          - With V(auto), how old the last full base backup may become, like V(7d).
          - Defaults to V(7d).
        type: str
      chain_limit:
        description:
          - With V(auto), how many incremental ones may follow a full one. All of them are needed to recover from the last.
          - Defaults to V(14).
        type: int
  databases:
    description:
      - Databases to back up; all that accept connections when this is not given or empty.
    type: list
    elements: str
  exclude_databases:
    description:
      - Databases to leave out. Each run reports them as uncovered.
    type: list
    elements: str
  schemas:
    description:
      - Only these schemas, in every database that has them. The rest is reported as uncovered.
    type: list
    elements: str
  exclude_schemas:
    description:
      - Schemas to leave out.
    type: list
    elements: str
  tables:
    description:
      - Only these tables, written V(schema.table). Odd parts are quoted, as in V(public."my.table").
    type: list
    elements: str
  exclude_tables:
    description:
      - Tables to leave out, written V(schema.table).
    type: list
    elements: str
  exclude_table_data:
    description:
      - Tables of which only the definition is kept, written V(schema.table).
    type: list
    elements: str
  format:
    description:
      - Format of the dumps.
      - V(auto) - a directory for a database that is worth parallel work, custom otherwise. The result tells what was
        chosen and why.
      - Defaults to V(auto).
    type: str
    choices: [auto, custom, directory, plain]
  jobs:
    description:
      - Parallel dump jobs of a database, up to 64; V(0) for as many as the host has cores, at most 4.
      - Defaults to V(0).
    type: int
  compression:
    description:
      - Compression of the dumps.
      - V(auto) - zstd where C(pg_dump) or the program C(zstd) can do it, gzip otherwise.
      - Defaults to V(auto).
    type: str
    choices: [auto, zstd, lz4, gzip, none]
  compression_level:
    description:
      - Level of the compression, 0 to 19; a sensible one of each method when it is not given.
    type: int
  globals:
    description:
      - Whether to keep roles, memberships, role settings and tablespaces too.
      - Where the server forbids reading passwords, they are left out with a warning.
      - Defaults to V(true).
    type: bool
  server_settings:
    description:
      - Whether to keep the server's settings, C(pg_hba.conf) and C(pg_ident.conf) too.
      - Defaults to V(true).
    type: bool
  fingerprint:
    description:
      - Whether to count rows and list objects in the dump's own snapshot, so that a restore can be compared.
      - Defaults to V(true).
    type: bool
  lock_wait_timeout:
    description:
      - Longest wait for a table lock, like V(90s) or V(15min). The dump gives up then rather than queue in front of
        others.
      - Defaults to V(60s).
    type: str
  on_lock_wait:
    description:
      - What to do when a session waits for a lock that the dump holds, as a migration does, and others behind it.
      - V(report) - the dump goes on, and the result tells who waited.
      - V(cancel) - the dump gives way at once. That database is dumped anew when the others are done, at most twice.
      - Defaults to V(report).
    type: str
    choices: [report, cancel]
  min_free:
    description:
      - Space that must stay free in O(backup_dir), like V(20GiB). A run does not begin, or ends, rather than go
        below.
      - Defaults to V(1GiB).
    type: str
  allow_no_databases:
    description:
      - Whether a run without a single database is a success.
      - Defaults to V(false).
    type: bool
  encryption:
    description:
      - Encryption of all payload files. With V(age) no plaintext touches the disk.
      - Defaults to V(none).
    type: str
    choices: [none, age]
  recipients:
    description:
      - Public age or SSH keys to encrypt to. The host needs no private key, and cannot read its own backups without
        one.
      - Needed with O(encryption=age).
    type: list
    elements: str
seealso:
  - module: pgops.backup.s3_backup_sync
  - module: pgops.backup.backup_verify
  - module: pgops.backup.backup_prune
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Back up every database through the local socket
  pgops.backup.pg_backup:
    instance: db1-main
    backup_dir: /backups/postgres
  become: true
  become_user: postgres
  register: nightly

- name: Say what no backup covers
  ansible.builtin.debug:
    msg: "{{ item.what }}: {{ item.why }}"
  loop: "{{ nightly.uncovered }}"
  loop_control:
    label: "{{ item.what }}"

- name: Back up as the configuration file says, but only two databases
  pgops.backup.pg_backup:
    config: /etc/pgops/config.yml
    databases: [orders, billing]

- name: Take a base backup, at most 100 MiB per second
  pgops.backup.pg_backup:
    config: /etc/pgops/config.yml
    kind: base
    base:
      max_rate: 100MiB

- name: Copy what changed since the newest base backup, and everything once a week
  pgops.backup.pg_backup:
    config: /etc/pgops/config.yml
    kind: base
    incremental: auto
    base:
      full_every: 7d

- name: Back up over TLS from another host, encrypted to two keys
  pgops.backup.pg_backup:
    instance: db1-main
    login_host: db1.example.com
    login_user: backup
    login_password_file: /etc/pgops/password
    ssl_mode: verify-full
    ca_cert: /etc/pgops/ca.pem
    encryption: age
    recipients:
      - age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudu0ll6qhps6wn
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJp3TbYbkOAaSfpBl8ojgqVo2pYQdcDlCVSGYZ4yAdMb recovery
    exclude_table_data: [audit.events]
"""

RETURN = r"""
set:
  description: Id of the new set.
  returned: success, not in check mode
  type: str
  sample: 20261122T020000Z-logical
path:
  description: Directory of the new set on the host, or its address in S3.
  returned: success, not in check mode
  type: str
  sample: /backups/postgres/db1-main/sets/20261122T020000Z-logical
content:
  description: SHA-256 of the set's manifest. It names the content of the set.
  returned: success, not in check mode
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
bytes:
  description: Size of all payload files.
  returned: success, not in check mode
  type: int
  sample: 203423744
files:
  description: Number of payload files.
  returned: success, not in check mode
  type: int
  sample: 14
databases:
  description: The databases in the set.
  returned: success, not in check mode
  type: list
  elements: dict
  sample:
    - name: orders
      database_bytes: 1992294400
      bytes: 203416211
      seconds: 11.4
      format: directory
      compression: zstd
      tables: 41
      rows: 18230019
      sequences: 12
      views: 3
      large_objects: 0
  contains:
    name:
      description: Name of the database.
      type: str
      returned: success
    database_bytes:
      description: Size of the database on the server.
      type: int
      returned: success
    bytes:
      description: Size of its dump.
      type: int
      returned: success
    seconds:
      description: How long its dump took.
      type: float
      returned: success
    format:
      description: Format of its dump.
      type: str
      returned: success
    compression:
      description: Compression of the dump, inside its format or by a program around it; V(none) where nothing compressed it.
      type: str
      returned: success
    tables:
      description: Number of tables.
      type: int
      returned: when O(fingerprint) is true
    rows:
      description: Number of rows in all tables.
      type: int
      returned: when O(fingerprint) is true
    sequences:
      description: Number of sequences.
      type: int
      returned: when O(fingerprint) is true
    views:
      description: Number of views and materialized views.
      type: int
      returned: when O(fingerprint) is true
    large_objects:
      description: Number of large objects.
      type: int
      returned: when O(fingerprint) is true
kind:
  description:
    - V(base) for a full base backup, V(incremental) for one that builds on another. Their RV(databases) have a name and
      C(database_bytes) only.
  returned: success, not in check mode, with O(kind=base)
  type: str
  sample: base
place:
  description: Where the set is, V(local) or V(s3).
  returned: success, not in check mode, with O(kind=base)
  type: str
  sample: local
parent:
  description: The set that an incremental base backup builds on.
  returned: success, not in check mode, with O(kind=base)
  type: str
  sample: 20261122T020000Z-base
chain:
  description: All sets that a recovery from it needs beside itself, the full base backup first. Empty for a full one.
  returned: success, not in check mode, with O(kind=base)
  type: list
  elements: str
  sample: [20261122T020000Z-base]
timeline:
  description: Timeline of the server.
  returned: success, not in check mode, with O(kind=base)
  type: int
  sample: 1
wal_start:
  description: LSN at which a recovery from it begins.
  returned: success, not in check mode, with O(kind=base)
  type: str
  sample: 0/2000028
wal_end:
  description: LSN at which it is consistent. The WAL from RV(wal_start) up to there is in the set.
  returned: success, not in check mode, with O(kind=base)
  type: str
  sample: 0/2000120
wal:
  description:
    - How the WAL archive fared when the backup had been made. C(timeline_before) is the timeline that the newest backup before
      recorded; another one means a failover or a recovery in between. With C(error), the server did not tell.
  returned: success, not in check mode, when C(wal.enabled) holds in the configuration
  type: dict
  sample:
    timeline_before: 1
    timeline: 2
    current_lsn: 0/5000148
    last_archived: "000000020000000000000004"
    lag_bytes: 328
    lag_seconds: 0.0
    ready: 0
    failing: false
    pending: 0
    pending_bytes: 0
tablespaces:
  description: The tablespaces with directories of their own, each with C(name) and C(path).
  returned: success, not in check mode, with O(kind=base)
  type: list
  elements: dict
  sample: []
damaged:
  description: Blocks with a wrong checksum that the server found, each with C(file) and C(block). No set was kept then.
  returned: failure, with O(kind=base), when there are some
  type: list
  elements: dict
  sample:
    - file: base/16384/16385
      block: 4
uncovered:
  description: Databases, schemas and tables of the server that this backup does not cover, and objects in template1.
  returned: success
  type: list
  elements: dict
  sample:
    - what: database scratch
      why: it is in backup.exclude_databases
  contains:
    what:
      description: What is not covered.
      type: str
      returned: success
    why:
      description: The reason.
      type: str
      returned: success
left_out:
  description: What else is not in the set, in the same form as RV(uncovered).
  returned: success, not in check mode
  type: list
  elements: dict
  sample: []
choices:
  description: Per database, what V(auto) became, and why.
  returned: success, not in check mode
  type: dict
  sample:
    orders:
      format: directory
      compression: zstd
      inside_pg_dump: true
      level: 1
      jobs: 2
      reasons: ["directory: 1.9 GiB are worth 2 jobs", "zstd: this pg_dump can do it"]
lock_waits:
  description:
    - Sessions that waited for a lock of a dump, as a look every few seconds saw them. Of one database, the first 20.
  returned: success or failure, not in check mode
  type: list
  elements: dict
  sample:
    - database: orders
      table: public.orders
      mode: AccessExclusiveLock
      pid: 4711
      role: deploy
      application: migrate
      seconds: 41.2
      queued: 17
  contains:
    database:
      description: Name of the database.
      type: str
      returned: success
    table:
      description: The table. Empty where the session waited for the end of the dump's transaction, as C(CREATE INDEX CONCURRENTLY) does.
      type: str
      returned: success
    mode:
      description: The lock that the session wanted.
      type: str
      returned: success
    pid:
      description: Process of the session on the server.
      type: int
      returned: success
    role:
      description: Its role.
      type: str
      returned: success
    application:
      description: What the session calls itself.
      type: str
      returned: success
    seconds:
      description: How long it was seen to wait.
      type: float
      returned: success
    queued:
      description: The most sessions that were seen to wait behind it.
      type: int
      returned: success
gave_way:
  description: Per database whose dump gave way to others, how often.
  returned: success or failure, not in check mode
  type: dict
  sample: {orders: 1}
plan:
  description: What a run would do.
  returned: success, in check mode
  type: dict
  sample:
    databases: [orders]
    database_bytes: 1992294400
    estimated_bytes: 244099453
    free_bytes: 53687091200
    server_version: "18.3"
    from_standby: false
  contains:
    place:
      description: As RV(place).
      type: str
      returned: success, with O(kind=base)
    kind:
      description: V(base) or V(incremental).
      type: str
      returned: success, with O(kind=base)
    parent:
      description: As RV(parent).
      type: str
      returned: success, with O(kind=base)
    chain:
      description: As RV(chain).
      type: list
      elements: str
      returned: success, with O(kind=base)
    databases:
      description: Names of the databases that would be dumped, the largest first.
      type: list
      elements: str
      returned: success
    database_bytes:
      description: Their size on the server.
      type: int
      returned: success
    estimated_bytes:
      description: About what the set would take.
      type: int
      returned: success
    free_bytes:
      description: What O(backup_dir) has free; what there is for parts on their way to S3, with O(to=s3).
      type: int
      returned: success
    choices:
      description: As RV(choices).
      type: dict
      returned: success
    uncovered:
      description: As RV(uncovered).
      type: list
      elements: dict
      returned: success
    left_out:
      description: As RV(left_out).
      type: list
      elements: dict
      returned: success
    server_version:
      description: Version of the server.
      type: str
      returned: success
    from_standby:
      description: Whether the server is a standby.
      type: bool
      returned: success
group:
  description: In a group of servers, who was chosen, and why.
  returned: success, when O(group) has members
  type: dict
  sample:
    node: db1.example.com
    chosen: db2.example.com
    why: it is the primary
    members:
      - name: db1.example.com
        state: standby
        behind_seconds: 0.0
      - name: db2.example.com
        state: primary
        behind_seconds: null
skip_reason:
  description: Which node of the group does this instead, and why. The task counts as skipped, and has no other results of its own.
  returned: when O(group) leaves it to another node
  type: str
  sample: "db2.example.com backs up this group: it is the primary."
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: backup
instance:
  description: Name of the instance.
  returned: when the options are right
  type: str
  sample: db1-main
dry_run:
  description: Whether this was only a prediction, in check mode.
  returned: success
  type: bool
  sample: false
begun:
  description: When the run began, in UTC.
  returned: success
  type: str
  sample: "2026-11-22T02:00:00+00:00"
ended:
  description: When the run ended, in UTC.
  returned: success
  type: str
  sample: "2026-11-22T02:04:11+00:00"
seconds:
  description: How long the run took.
  returned: success
  type: float
  sample: 251.3
run_warnings:
  description: What the run skipped, degraded or guessed. Ansible shows the same as warnings.
  returned: always
  type: list
  elements: str
  sample: []
hint:
  description: What to do next.
  returned: failure
  type: str
  sample: "Check the user and the password (postgres.login_user, login_password_file)."
outcome:
  description:
    - How the run ended.
    - V(misused) - the options or the configuration are wrong. V(busy) - another run holds the lock. V(unreachable) -
      a program, a library, the server, the bucket or the network was out of reach. V(refused) - it would not have
      been safe. V(interrupted) - somebody ended it. V(failed) - anything else.
  returned: failure
  type: str
  sample: unreachable
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 4
"""

from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, View, bindings
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.backup import Request, backup


def newest(context: Context) -> dict[str, Any]:
    """Return the newest set of the local place and the databases in it."""
    catalog = Catalog(context.local)
    for set_id in catalog.ids():
        return {"newest set": set_id, "databases": sorted(catalog.manifest(set_id).database_names)}
    return {"newest set": None, "databases": []}


def planned(_before: Any, result: dict[str, Any]) -> dict[str, Any]:
    """Return the same of the set that a run would make."""
    return {"newest set": "a new one", "databases": sorted(result["plan"]["databases"])}


OWN: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "choices": ["logical", "base"], "default": "logical"},
    "incremental": {"type": "str"},
    "to": {"type": "str", "choices": ["local", "s3"]},
}


def main() -> None:
    """Run the module."""
    task = Task("backup", bindings("backup", base=("base",)), own=OWN)
    given = {name: task.params[name] for name in OWN if task.params[name]}
    request = Request(dry_run=task.check_mode, **given)
    task.run(lambda context: backup(context, request), view=View(newest, planned))


if __name__ == "__main__":
    main()
