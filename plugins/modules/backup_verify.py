#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Prove that backup sets restore
version_added: 0.1.0
description:
  - Proves sets at a level, and keeps the evidence beside them, in the place where they lie.
  - Only a pass at level V(restore) makes a set verified, and verified sets are what retention counts.
  - The module fails when a set fails; the result tells every difference. A set that this host cannot decide about (it
    may lack a program, an extension or a key) is neither passed nor failed, and the result says why.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - RV(plan) tells which sets would be verified. Whether they pass is not predicted.
  diff_mode:
    support: N/A
  idempotent:
    support: partial
    details:
      - With O(sets=unverified) a second run finds nothing to do. Otherwise each run verifies, and writes evidence,
        again.

options:
  sets:
    description:
      - Ids of sets, or V(latest), V(latest_verified), V(all), or V(unverified) for those without a pass at O(level)
        in this place.
      - V(latest) is the newest set. When that is a dump, the newest base backup goes with it unless it has passed at
        O(level) already, and the other way round.
    type: list
    elements: str
    default: [latest]
  place:
    description:
      - The place whose sets to verify; V(auto) is S3 where there is one, and the local place otherwise.
      - Defaults to V(auto).
    type: str
    choices: [auto, local, s3]
  level:
    description:
      - V(checksum) - every file is what the manifest says, by the store's own sums where it keeps them, else by
        reading.
      - V(structure) - archives parse to their end and hold what the manifest lists, too.
      - V(restore) - the set was restored into a throwaway server without a network, too, and matches its fingerprint.
      - Defaults to V(restore).
    type: str
    choices: [checksum, structure, restore]
  amcheck:
    description:
      - Whether to check every B-tree index of the restored databases, where the extension amcheck can be had.
      - Defaults to V(true).
    type: bool
  wal_files:
    description:
      - How many files of the WAL archive are read again, the newest that were never read first, then those that were read
        longest ago; V(0) for none. It is read where there are base backups that need it.
      - Defaults to V(1500). A day has 1440 where C(archive_timeout) is a minute.
    type: int
  assertions:
    description:
      - Questions that the restored databases must answer rightly.
    type: list
    elements: dict
    suboptions:
      database:
        description:
          - Database to ask.
        type: str
        required: true
      sql:
        description:
          - A query that returns one value.
        type: str
        required: true
      expect:
        description:
          - The value, as C(psql -At) shows it.
          - Defaults to V(t).
        type: str
  server_bin_dir:
    description:
      - Directory of the programs of the throwaway server on the host; found like O(bin_dir) when it is not given.
    type: path
  run_as:
    description:
      - Account of the throwaway server when root runs the module, as PostgreSQL refuses root; C(postgres) or
        C(nobody) when it is not given.
    type: str
  identity_file:
    description:
      - File on the host (mode 0600) with the private age or SSH key for encrypted sets.
      - Without it, the checksums are all that can be verified of such a set.
    type: path
seealso:
  - module: pgops.backup.pg_backup
  - module: pgops.backup.pg_restore_from_backup
  - module: pgops.backup.backup_info
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Restore the newest set in the bucket into a throwaway server, and compare
  pgops.backup.backup_verify:
    config: /etc/pgops/config.yml
  become: true
  become_user: postgres

- name: Prove what is not proven yet, with questions of our own
  pgops.backup.backup_verify:
    instance: db1-main
    place: local
    sets: [unverified]
    assertions:
      - database: orders
        sql: SELECT count(*) > 1000 FROM public.orders
      - database: orders
        sql: SELECT max(version) FROM public.schema_migrations
        expect: "20261101"

- name: Check every file in the bucket against its manifest
  pgops.backup.backup_verify:
    config: /etc/pgops/config.yml
    place: s3
    sets: [all]
    level: checksum
"""

RETURN = r"""
place:
  description: The place of the sets, V(local) or V(s3).
  returned: success, and when a set failed
  type: str
  sample: s3
level:
  description: The level that was asked for.
  returned: success, and when a set failed
  type: str
  sample: restore
sets:
  description: What was found about each set. The evidence holds the same.
  returned: success and when a set failed, not in check mode
  type: list
  elements: dict
  sample:
    - set: 20261122T020000Z-logical
      outcome: passed
      asked: restore
      level: restore
      seconds: 74.2
      findings: []
      remarks: []
      evidence: evidence/20261122T030114Z_s3_restore_passed_20261122T020000Z-logical_9f86d081.json
  contains:
    set:
      description: Id of the set.
      type: str
      returned: always
    content:
      description: SHA-256 of its manifest, which names its content.
      type: str
      returned: always
    outcome:
      description: V(passed), V(failed), or V(undecided) when this host cannot tell.
      type: str
      returned: always
    asked:
      description: The level that was asked for.
      type: str
      returned: always
    level:
      description: The level that was reached.
      type: str
      returned: always
    place:
      description: The place of the set.
      type: str
      returned: always
    root:
      description: Where the place is.
      type: str
      returned: always
    instance:
      description: The instance that verified.
      type: str
      returned: always
    host:
      description: The host that verified.
      type: str
      returned: always
    engine:
      description: Version of the collection's engine that verified.
      type: str
      returned: always
    started:
      description: When it began.
      type: str
      returned: always
    finished:
      description: When it ended.
      type: str
      returned: always
    seconds:
      description: How long it took.
      type: float
      returned: always
    phases:
      description: The seconds of each phase.
      type: dict
      returned: always
    checked:
      description: What was checked, and how much of it.
      type: dict
      returned: always
    findings:
      description: Every difference, every damage and every wrong answer.
      type: list
      elements: str
      returned: always
    remarks:
      description: What else is worth knowing, and why a set could not be decided about.
      type: list
      elements: str
      returned: always
    evidence:
      description: Path of the evidence in the place.
      type: str
      returned: always
wal:
  description:
    - What was read of the WAL archive, where base backups need it. Each file must have the content whose hash is in its name,
      and each segment must begin as the one of its name does. What was read is remembered on this host.
  returned: success, when there are base backups and WAL
  type: dict
  sample:
    files: 2960
    read: 1500
    bytes: 331350016
    sealed: 0
    passed: 1500
    damaged: []
    found: 0
    left: 0
    seconds: 41.7
  contains:
    files:
      description: How many files base backups need.
      type: int
      returned: always
    read:
      description: How many were read, or would be in check mode.
      type: int
      returned: always
    bytes:
      description: How large these are.
      type: int
      returned: always
    sealed:
      description: How many are encrypted and were not read, as there is no key here.
      type: int
      returned: always
    passed:
      description: How many of those that were read are whole.
      type: int
      returned: not in check mode
    damaged:
      description: The files that are damaged, each with C(file) and C(problem); at most 20.
      type: list
      elements: dict
      returned: not in check mode
    found:
      description: How many of them are new, or keep a recovery from going on. These fail the verification.
      type: int
      returned: not in check mode
    left:
      description: How many were never read yet.
      type: int
      returned: not in check mode
    seconds:
      description: How long it took.
      type: float
      returned: not in check mode
plan:
  description: The sets that would be verified.
  returned: in check mode
  type: list
  elements: dict
  sample:
    - set: 20261122T020000Z-logical
      bytes: 203430912
      level: restore
  contains:
    set:
      description: Id of the set.
      type: str
      returned: success
    bytes:
      description: What it takes up.
      type: int
      returned: success
    level:
      description: The level.
      type: str
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
  sample: verify
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

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, bindings
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.verify import Request, verify

OWN: dict[str, dict[str, Any]] = {"sets": {"type": "list", "elements": "str", "default": ["latest"]}}


def main() -> None:
    """Run the module."""
    task = Task("verify", bindings("verify", identity_file=("restore", "identity_file")), own=OWN)
    # The options place and level lie over those of the configuration, which is what the verb goes by.
    request = Request(sets=tuple(task.params["sets"]), dry_run=task.check_mode)
    task.run(lambda context: verify(context, request))


if __name__ == "__main__":
    main()
