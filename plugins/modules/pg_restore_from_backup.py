#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_from_backup
short_description: Restore PostgreSQL databases from a backup set, or recover a whole server to a moment
version_added: 0.1.0
description:
  - Brings databases of a backup set back, from the local place or straight from S3, and proves by queries on the
    result that they are what the backup held.
  - Each database is loaded under a name of its own, compared with the fingerprint in its set, and only then gets its
    name. Whatever goes wrong before, no database has been replaced and none is left half-made.
  - With O(recovery) it recovers a whole server from a base backup and the WAL archive instead, to a moment, and proves
    where it stopped. It chooses the base backup itself, and refuses what cannot be reached before anything is touched.
  - With O(recovery) and O(databases) it rescues one database as it was at a moment. A copy of the whole server is recovered where nobody
    reaches it, the database is dumped from there and loaded under another name, and the copy is removed.
  - Roles come first. Nothing begins before the server's version, extensions, locale, space and connections were found
    to fit; all that is wrong is told at once.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - RV(plan) tells what would be done. A restore that would be refused fails in check mode, too.
  diff_mode:
    support: partial
    details:
      - Shows the databases of the server. In check mode the name under which O(mode=swap) would keep an old one is
        not known.
  idempotent:
    support: none
    details:
      - Each run restores. With O(mode=create) a second run fails, as the databases exist.

options:
  place:
    description:
      - Where to restore from; V(auto) is S3 where there is one, and the local place otherwise.
    type: str
    choices: [auto, local, s3]
    default: auto
  set:
    description:
      - Id of the set, or V(latest), or V(latest_verified) for the newest one that was proven by a restore.
      - With O(recovery), the id of a base backup; otherwise the one is taken that needs the least WAL.
    type: str
    default: latest_verified
  databases:
    description:
      - Databases to restore. All of the set when it is empty, except an empty V(postgres).
    type: list
    elements: str
    default: []
  schemas:
    description:
      - Only these schemas of the one database that O(databases) names.
    type: list
    elements: str
    default: []
  tables:
    description:
      - Only these tables of the one database that O(databases) names, written V(schema.table).
      - Their partitions come along, and the tables that inherit from them, with what those inherit from.
      - Mutually exclusive with O(schemas).
    type: list
    elements: str
    default: []
  rename:
    description:
      - New names for databases, by the names that they have in the set.
    type: dict
    default: {}
  mode:
    description:
      - V(create) - the target must not exist.
      - V(swap) - a target that exists is replaced by the restored and proven database, and kept under another name
        until somebody drops it. O(confirm) must list it.
      - V(into_empty) - the target exists and holds nothing. All is restored in one transaction.
    type: str
    choices: [create, swap, into_empty]
    default: create
  globals:
    description:
      - Which roles to restore first.
      - V(missing) - those that the server lacks. V(all) - existing ones are changed to what the set says, too.
        V(none) - none.
      - Existing roles keep all that they have with V(missing), and get no membership or privilege back. So do existing
        tablespaces, except for the privileges of roles that are made. No tablespace is made; the result tells what is left.
      - What C(ALTER ROLE ALL SET) had set concerns everybody on the server. It is set again with V(all), or on a server
        that holds no databases yet; otherwise it is left alone, and the result says so.
      - Defaults to V(missing); with O(recovery) to V(none), as a role that the server lacks there was dropped since.
    type: str
    choices: [missing, all, none]
  ownership:
    description:
      - Whether to restore owners and privileges. Without them everything belongs to who restores.
    type: bool
    default: true
  confirm:
    description:
      - The exact names of the databases that O(mode=swap) may replace.
    type: list
    elements: str
    default: []
  jobs:
    description:
      - Parallel restore jobs, up to 64; V(0) for as many as the host has cores, at most 8.
      - Defaults to V(0).
    type: int
  identity_file:
    description:
      - File on the host (mode 0600) with the private age or SSH key for encrypted sets. Keep it off the host until
        you need it.
      - The account that runs the task must be able to read it; with O(recovery), that of the server, too, for the WAL.
    type: path
  restore_command:
    description:
      - How a server in recovery gets a WAL file (C(%f) its name, C(%p) where to put it), as PostgreSQL's own setting. The
        program C(pgops) must be on the host for the usual one, which reads the file that O(config) names; without that the
        recovery is refused.
      - Defaults to V(pgops wal fetch %f %p).
    type: str
  preload:
    description:
      - C(shared_preload_libraries) of a copy beside the server, for extensions that have WAL of their own. Its workers act in it.
      - None by default.
    type: str
  recovery:
    description:
      - Recover a whole server. Exactly one of O(recovery.time), O(recovery.lsn), O(recovery.xid), O(recovery.name) and
        O(recovery.stop) says how far. Options about databases and O(globals) do not concern it.
      - With one of O(databases), rescue that database. O(tables), O(rename), O(globals), O(ownership) and O(jobs) hold then,
        and of the suboptions those about the moment. Without O(rename) its name tells when it was rescued.
    type: dict
    suboptions:
      data_directory:
        description:
          - Where the server's data will lie. It must be empty, or not be there, unless O(recovery.mode=in_place).
          - Required unless a database is rescued, for which the copy lies in C(work_dir).
        type: path
      time:
        description:
          - A moment with its offset from UTC, like V(2026-11-22T14:31:07+01:00), or with the name of a time zone, like
            V(2026-11-22 14:31:07 Europe/Berlin).
        type: str
      lsn:
        description:
          - A position in the WAL, like V(16/B374D848).
        type: str
      xid:
        description:
          - The number of a transaction.
        type: str
      name:
        description:
          - A restore point, made by C(pg_create_restore_point). As nobody knows where it lies before the WAL is read, the
            oldest base backup is taken unless O(set) names one.
        type: str
      stop:
        description:
          - V(immediate) - as soon as the base backup is consistent. V(end) - at the end of the archived WAL.
        type: str
        choices: [immediate, end]
      to_gap:
        description:
          - With O(recovery.stop=end), whether to stop where WAL is missing, rather than refuse.
        type: bool
        default: false
      inclusive:
        description:
          - Whether what lies exactly at the target is replayed, too.
        type: bool
        default: true
      timeline:
        description:
          - V(latest), V(current) for that of the base backup, or a number.
        type: str
        default: latest
      action:
        description:
          - V(promote) - the server takes writes then. V(pause) - it stays read-only, to look whether the moment is right.
        type: str
        choices: [promote, pause]
        default: promote
      mode:
        description:
          - V(beside) - a copy that only a private socket reaches. It archives nothing, and nothing of the original acts
            in it.
          - V(in_place) - as the server itself, with its own configuration; only archiving is off. The server must be
            stopped. A data directory that is there is kept under another name, and O(recovery.confirm) must name it.
        type: str
        choices: [beside, in_place]
        default: beside
      port:
        description:
          - The number in the name of the socket of a copy.
        type: int
        default: 5432
      socket_directory:
        description:
          - Where that socket lies, a directory of mode 0700. A new one when it is not given.
        type: path
      tablespaces:
        description:
          - Other directories for tablespaces, by their names, or by the directories that they have. Each must be empty, or not be there.
          - One that was made after the base backup is called by its directory.
        type: dict
        default: {}
      waldir:
        description:
          - Where C(pg_wal) is to lie, with a link to it in the data directory, as with C(initdb --waldir). It must be empty, or not be
            there. Without it C(pg_wal) lies inside the data directory, and RV(remarks) says so where the original had it elsewhere.
          - In place the WAL of the data directory that is kept stays where it is, so this is another directory.
        type: path
      config_file:
        description:
          - The server's C(postgresql.conf) where that lies outside of the data directory. That of a Debian cluster is found.
        type: path
      leave:
        description:
          - How the server is left. V(stopped) - its own service can start it then, which RV(service) names on Debian.
          - In place nobody but its own account reaches the server before it is proven; V(running) opens it then by one more
            start.
        type: str
        choices: [running, stopped]
        default: running
      confirm:
        description:
          - The exact path of the data directory that O(recovery.mode=in_place) may replace.
        type: path
  analyze:
    description:
      - Whether to gather planner statistics after the restore.
      - Defaults to V(true).
    type: bool
seealso:
  - module: pgops.backup.pg_backup
  - module: pgops.backup.backup_verify
  - module: pgops.backup.backup_info
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Bring everything back on a new server, straight from S3
  pgops.backup.pg_restore_from_backup:
    instance: db1-main
    place: s3
    s3:
      bucket: example-backups
  become: true
  become_user: postgres

- name: See the plan first
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    databases: [orders]
    mode: swap
    confirm: [orders]
  check_mode: true
  register: what_would_happen

- name: Replace a damaged database and keep the old one beside it
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    databases: [orders]
    mode: swap
    confirm: [orders]

- name: Bring a copy of the server to the moment before the rows were deleted, and look
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    recovery:
      data_directory: /srv/copy
      time: "2026-11-22T14:31:07+01:00"
      action: pause
  become: true
  become_user: postgres
  register: copy

- name: Bring the server itself back to that moment; its service was stopped before, and is started afterwards
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    recovery:
      data_directory: /var/lib/postgresql/17/main
      mode: in_place
      confirm: /var/lib/postgresql/17/main
      leave: stopped
      time: "2026-11-22T14:31:07+01:00"
  become: true
  become_user: postgres

- name: Bring one table back as it was before the rows were deleted, into a database of its own
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    databases: [shop]
    tables: [public.orders]
    rename:
      shop: shop_before
    recovery:
      time: "2026-11-22T14:31:07+01:00"
  become: true
  become_user: postgres

- name: Restore one table into a database of its own, to look something up
  pgops.backup.pg_restore_from_backup:
    config: /etc/pgops/config.yml
    set: 20261122T020000Z-logical
    databases: [orders]
    tables: [public.invoices]
    rename:
      orders: orders_lookup
    globals: none
    ownership: false
"""

RETURN = r"""
set:
  description: Id of the set.
  returned: success
  type: str
  sample: 20261122T020000Z-logical
place:
  description: Where it was restored from, V(local) or V(s3).
  returned: success
  type: str
  sample: s3
databases:
  description: The databases that were restored; with O(recovery), the names of all.
  returned: success, not in check mode
  type: list
  elements: dict
  sample:
    - database: orders
      name: orders
      kept: orders_before_20261122T093000Z
      seconds: 61.2
      phases: {load: 52.1, analyze: 4.0, compare: 5.1}
      jobs: 4
      compared: {rows: 18230019, sequences: 12, large_objects: 0}
      remarks: []
      benign: []
      left_out: []
  contains:
    database:
      description: Its name in the set.
      type: str
      returned: success
    name:
      description: Its name now.
      type: str
      returned: success
    kept:
      description: The name of the database that it replaced; empty when there was none.
      type: str
      returned: success
    seconds:
      description: How long it took.
      type: float
      returned: success
    phases:
      description: The seconds of each phase.
      type: dict
      returned: success
    jobs:
      description: The parallel jobs that loaded it.
      type: int
      returned: success
    way:
      description: How the data came, as V(file) or as V(stream).
      type: str
      returned: success
    frozen:
      description:
        - Whether the rows were loaded frozen, so that no vacuum has to visit them again.
        - A superuser's parallel restore of a whole database does so, unless an extension's own table came with rows, a table is
          partitioned by the hash of an enum, or the backup directory can hold no links for a while.
      type: bool
      returned: success
    compared:
      description: How many of each kind were compared with the fingerprint.
      type: dict
      returned: success
    remarks:
      description: Differences that are none of the data's, like newer versions of extensions.
      type: list
      elements: str
      returned: success
    benign:
      description: Errors of the load that are known to be harmless.
      type: list
      elements: str
      returned: success
    left_out:
      description: What was not restored, and why.
      type: list
      elements: str
      returned: success
bytes:
  description: Size of the dumps that were restored.
  returned: success, not in check mode
  type: int
  sample: 203416211
roles_created:
  description: The roles that were created.
  returned: success, not in check mode
  type: list
  elements: str
  sample: [ordering_owner]
remarks:
  description: What is worth knowing about the server and the set.
  returned: success, not in check mode
  type: list
  elements: str
  sample: []
plan:
  description: What a run would do.
  returned: in check mode
  type: dict
  sample:
    set: 20261122T020000Z-logical
    place: s3://example-backups/database-backups/db1-main
    server_version: "18.3"
    mode: create
    globals: missing
    jobs: 4
    databases:
      - database: orders
        name: orders
        replaces: false
        bytes: 203416211
        database_bytes: 1992294400
        files: 43
    refusals: []
    remarks: []
  contains:
    set:
      description: Id of the set.
      type: str
      returned: success
    place:
      description: Where the place is.
      type: str
      returned: success
    server_version:
      description: Version of the server.
      type: str
      returned: success
    mode:
      description: The value of O(mode).
      type: str
      returned: success
    globals:
      description: The value of O(globals).
      type: str
      returned: success
    jobs:
      description: Parallel jobs.
      type: int
      returned: success
    databases:
      description: >-
        The databases, each with C(database) (its name in the set), C(name) (its name then), C(replaces), C(bytes) of its dump,
        C(database_bytes) that it had on the server, and C(files).
      type: list
      elements: dict
      returned: success
    refusals:
      description: What forbids the restore.
      type: list
      elements: str
      returned: success
    remarks:
      description: What is worth knowing.
      type: list
      elements: str
      returned: success
    target:
      description: Where it is to stop, as RV(target).
      type: dict
      returned: with O(recovery)
    data_directory:
      description: Where the data directory is to be.
      type: str
      returned: with O(recovery)
    replaces:
      description: Whether a data directory is there, which is kept under another name.
      type: bool
      returned: with O(recovery)
    rests:
      description: What a recovery that was cut short left there, which is removed.
      type: list
      elements: str
      returned: with O(recovery)
    to_make:
      description: >-
        The directories that are not there, and that this account cannot make. Each is one of RV(plan.refusals); who may, as root, makes
        them first, as the playbook restore does.
      type: list
      elements: str
      returned: with O(recovery)
    served:
      description: Whether a server runs on the data directory. That is one of RV(plan.refusals), too.
      type: bool
      returned: with O(recovery)
    service:
      description: The service that runs it, where it is known.
      type: str
      returned: with O(recovery)
    chain:
      description: What an incremental base backup builds on, the full one first.
      type: list
      elements: str
      returned: with O(recovery)
    bytes:
      description: What comes there, unpacked, with the WAL that is replayed.
      type: int
      returned: with O(recovery)
    stored_bytes:
      description: What the base backups have in the place.
      type: int
      returned: with O(recovery)
    base_stopped:
      description: When the base backup was whole.
      type: str
      returned: with O(recovery)
    tablespaces:
      description: Where each tablespace is to lie.
      type: dict
      returned: with O(recovery)
    wal_directory:
      description: Where C(pg_wal) is to lie; empty for inside the data directory.
      type: str
      returned: with O(recovery)
    original_wal_directory:
      description: Where it lay; empty for inside the data directory, null where that is not known.
      type: str
      returned: with O(recovery)
chain:
  description: What the set of an incremental base backup builds on, the full one first. Empty for a full one. A plan has it, too.
  returned: success, not in check mode, with O(recovery)
  type: list
  elements: str
  sample: []
target:
  description: Where the recovery was to stop, as C(kind), C(value), C(inclusive), C(timeline) and C(action).
  returned: success, not in check mode, with O(recovery)
  type: dict
  sample:
    kind: time
    value: "2026-11-22T13:31:07+00:00"
    inclusive: true
    timeline: latest
    action: pause
stopped:
  description: >-
    Where it stopped - C(lsn) is the last one replayed, C(time) when the last transaction replayed had ended, C(timeline) that of
    the server now, C(log) the server's own words. It was held against RV(target).
  returned: success, not in check mode, with O(recovery)
  type: dict
  sample:
    lsn: 0/6000528
    time: "2026-11-22T13:31:06.880231+00:00"
    timeline: 1
    log: "recovery stopping before commit of transaction 759, time 2026-11-22 13:31:09.552259+00"
data_directory:
  description: Where the server's data lie.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: /srv/copy
kept:
  description: Where the data directory lies that it replaced; empty when there was none.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: ""
wal_directory:
  description: Where C(pg_wal) lies; empty for inside the data directory.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: /wal/copy
kept_wal_directory:
  description: Where C(pg_wal) of the data directory in RV(kept) lies, and stays; empty for inside of it.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: ""
socket_directory:
  description: Where the socket of a copy lies; empty for the server itself.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: /tmp/pgops-socket-k0osvr2
port:
  description: The number in the name of that socket.
  returned: success, not in check mode, with O(recovery)
  type: int
  sample: 5432
superuser:
  description: Who may log in there.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: postgres
database:
  description: The database that was rescued, by its name at that moment.
  returned: success, not in check mode, with O(recovery) and O(databases)
  type: str
  sample: shop
name:
  description: Its name now.
  returned: success, not in check mode, with O(recovery) and O(databases)
  type: str
  sample: shop_before
tables:
  description: The tables that were asked for; empty for the whole database.
  returned: success, not in check mode, with O(recovery) and O(databases)
  type: list
  elements: str
  sample: [public.orders]
compared:
  description: How many of each kind were compared with the copy.
  returned: success, not in check mode, with O(recovery) and O(databases)
  type: dict
  sample: {rows: 18230019, sequences: 12, large_objects: 0}
left_out:
  description: What was not rescued, and why.
  returned: success, not in check mode, with O(recovery) and O(databases)
  type: list
  elements: str
  sample: []
service:
  description: The service of systemd that is to run the server, where it is known; on Debian for a server in place.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: postgresql@17-main
running:
  description: Whether the server was left running.
  returned: success, not in check mode, with O(recovery)
  type: bool
  sample: true
system_identifier:
  description: Identifier of the cluster.
  returned: success, not in check mode, with O(recovery)
  type: str
  sample: "7712533533113469207"
phases:
  description: The seconds of each phase.
  returned: success, not in check mode, with O(recovery)
  type: dict
  sample: {unpack: 31.2, recover: 12.9}
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: restore
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

from typing import Any, Optional

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, View, bindings
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target, parse_target
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import connect
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.zones import named_zone
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recover import Request as Recovery
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recover import recover
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rescue import Request as Rescue
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rescue import rescue
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.restore import Request, restore

OWN: dict[str, dict[str, Any]] = {
    "place": {"type": "str", "choices": ["auto", "local", "s3"], "default": "auto"},
    "set": {"type": "str", "default": "latest_verified"},
    "databases": {"type": "list", "elements": "str", "default": []},
    "schemas": {"type": "list", "elements": "str", "default": []},
    "tables": {"type": "list", "elements": "str", "default": []},
    "rename": {"type": "dict", "default": {}},
    "mode": {"type": "str", "choices": ["create", "swap", "into_empty"], "default": "create"},
    "globals": {"type": "str", "choices": ["missing", "all", "none"]},
    "ownership": {"type": "bool", "default": True},
    "confirm": {"type": "list", "elements": "str", "default": []},
}


RECOVERY: dict[str, dict[str, Any]] = {
    "data_directory": {"type": "path"},
    "time": {"type": "str"},
    "lsn": {"type": "str"},
    "xid": {"type": "str"},
    "name": {"type": "str"},
    "stop": {"type": "str", "choices": ["immediate", "end"]},
    "to_gap": {"type": "bool", "default": False},
    "inclusive": {"type": "bool", "default": True},
    "timeline": {"type": "str", "default": "latest"},
    "action": {"type": "str", "choices": ["promote", "pause"], "default": "promote"},
    "mode": {"type": "str", "choices": ["beside", "in_place"], "default": "beside"},
    "port": {"type": "int", "default": 5432},
    "socket_directory": {"type": "path"},
    "tablespaces": {"type": "dict", "default": {}},
    "waldir": {"type": "path"},
    "config_file": {"type": "path"},
    "leave": {"type": "str", "choices": ["running", "stopped"], "default": "running"},
    "confirm": {"type": "path"},
}


def target_of(asked: dict[str, Any]) -> Target:
    """Return where the option `recovery` says to stop. Raise UsageError."""
    given = {kind: asked[kind] or "" for kind in ("time", "lsn", "xid", "name")}
    if asked["stop"]:
        given[asked["stop"]] = "yes"
    return parse_target(
        given,
        inclusive=asked["inclusive"],
        timeline=asked["timeline"],
        action=asked["action"],
        to_gap=asked["to_gap"],
        zone=named_zone,
    )


def rescue_of(params: dict[str, Any], *, dry_run: bool) -> Rescue:
    """Return the rescue that the options ask for. Raise UsageError."""
    asked, databases = params["recovery"], params["databases"]
    if len(databases) != 1 or asked["data_directory"] or params["schemas"] or params["mode"] != "create":
        raise UsageError(
            "With recovery, databases names the one that is rescued, whole or some of its tables, under another name.",
            hint="Leave out recovery.data_directory, schemas and mode; or leave out databases to recover the whole server.",
        )
    (database,) = databases
    return Rescue(
        database=database,
        target=target_of(asked),
        tables=tuple(params["tables"]),
        into=str(params["rename"].get(database, "")),
        set=base_of(params["set"]),
        place=params["place"],
        globals=params["globals"] or Rescue.globals,
        ownership=params["ownership"],
        dry_run=dry_run,
    )


def base_of(wanted: str) -> str:
    """Return which base backup the option `set` names."""
    return "auto" if wanted in ("latest", "latest_verified") else wanted


def recovery(asked: dict[str, Any], place: str, wanted: str, *, dry_run: bool) -> Recovery:
    """Return the recovery that the option `recovery` asks for. Raise UsageError."""
    if not asked["data_directory"]:
        raise UsageError(
            "A recovery needs recovery.data_directory.", hint="Or name one of databases, which is rescued then."
        )
    return Recovery(
        target=target_of(asked),
        data_directory=asked["data_directory"],
        place=place,
        set=base_of(wanted),
        mode=asked["mode"],
        port=asked["port"],
        socket_directory=asked["socket_directory"] or "",
        tablespaces={name: str(path) for name, path in asked["tablespaces"].items()},
        wal_directory=asked["waldir"] or "",
        config_file=asked["config_file"] or "",
        leave=asked["leave"],
        confirm=asked["confirm"] or "",
        dry_run=dry_run,
    )


def databases(context: Context) -> dict[str, list[str]]:
    """Return the databases of the server."""
    with connect(context.config.postgres) as session:
        rows = session.rows("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname")
    return {"databases": [row[0] for row in rows]}


def planned(before: dict[str, list[str]], result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the databases that there would be; the name of a kept one is the run's to choose."""
    jobs = result["plan"]["databases"]
    kept = ["%s, as it was, under another name" % job["name"] for job in jobs if job["replaces"]]
    return {"databases": sorted({*before["databases"], *(job["name"] for job in jobs)}) + kept}


def refused(result: dict[str, Any]) -> Optional[PgopsError]:
    """Return the error that the planned restore would end with, if it would."""
    refusals = result.get("plan", {}).get("refusals", [])
    if not refusals:
        return None
    return RefusedError("The restore would be refused:\n%s" % "\n".join("  - %s" % r for r in refusals))


def main() -> None:
    """Run the module."""
    task = Task("restore", bindings("restore"), own={**OWN, "recovery": {"type": "dict", "options": RECOVERY}})
    params = task.params
    if params["recovery"] and params["databases"]:
        task.verb = "rescue"
        task.run(lambda context: rescue(context, rescue_of(params, dry_run=task.check_mode)), fails=refused)
    if params["recovery"]:
        task.verb = "recover"
        asked = (params["recovery"], params["place"], params["set"])
        task.run(lambda context: recover(context, recovery(*asked, dry_run=task.check_mode)), fails=refused)
    request = Request(
        place=params["place"],
        set=params["set"],
        databases=tuple(params["databases"]),
        schemas=tuple(params["schemas"]),
        tables=tuple(params["tables"]),
        rename={old: str(new) for old, new in params["rename"].items()},
        mode=params["mode"],
        globals=params["globals"] or Request.globals,
        ownership=params["ownership"],
        confirm=tuple(params["confirm"]),
        dry_run=task.check_mode,
    )
    task.run(lambda context: restore(context, request), view=View(databases, planned), fails=refused)


if __name__ == "__main__":
    main()
