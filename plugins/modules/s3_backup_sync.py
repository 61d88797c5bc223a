#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_backup_sync
short_description: Copy backup sets to S3, or back from there
version_added: 0.1.0
description:
  - Copies the sets of the local place that the S3 place lacks, the newest first, or fetches sets from there. Evidence
    about them goes along.
  - Content is compared by SHA-256, never by size or ETag alone. The manifest of a set is written last, so a copy that
    was cut short is no set, and the next run goes on with it.
  - What is damaged on one side is repaired from the other where that is certain. Where it is not, the others are
    copied and then the module fails; nothing is overwritten blindly.
  - A push waits up to six hours for a backup that is running.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the sets of the place that is written to.
  idempotent:
    support: full

options:
  direction:
    description:
      - V(push) copies from the host to S3, V(pull) from S3 to the host.
    type: str
    choices: [push, pull]
    default: push
  sets:
    description:
      - Ids of sets, or V(latest), V(latest_verified) or V(all).
      - Without any, a push copies all that are missing there, and a pull fetches V(latest).
      - A push leaves out what O(s3.retention) would remove at once.
    type: list
    elements: str
    default: []
seealso:
  - module: pgops.backup.pg_backup
  - module: pgops.backup.backup_verify
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Copy all sets that the bucket lacks
  pgops.backup.s3_backup_sync:
    instance: db1-main
    backup_dir: /backups/postgres
    s3:
      bucket: example-backups
      region: eu-central-1
      credentials_file: /etc/pgops/aws_credentials
  become: true
  become_user: postgres

- name: Do the same as the configuration file says, with a limit
  pgops.backup.s3_backup_sync:
    config: /etc/pgops/config.yml
    s3:
      bandwidth_limit: 20MiB

- name: Fetch one set from an S3 server of our own
  pgops.backup.s3_backup_sync:
    instance: db1-main
    direction: pull
    sets: [20261122T020000Z-logical]
    s3:
      bucket: backups
      endpoint_url: https://s3.example.com
      addressing_style: path
      credentials_file: /etc/pgops/aws_credentials
"""

RETURN = r"""
direction:
  description: The value of O(direction).
  returned: success
  type: str
  sample: push
place:
  description: The S3 place.
  returned: success
  type: str
  sample: s3://example-backups/database-backups/db1-main
plan:
  description: What was to be done about each set that is not the same on both sides.
  returned: success
  type: list
  elements: dict
  sample:
    - set: 20261122T020000Z-logical
      action: push
      files: 15
      bytes: 203423744
      reason: missing there
  contains:
    set:
      description: Id of the set.
      type: str
      returned: success
    action:
      description: V(push), V(pull), V(repair), V(skip), or V(alarm) when it could not be reconciled.
      type: str
      returned: success
    files:
      description: Number of files to copy or compare.
      type: int
      returned: success
    bytes:
      description: Their size.
      type: int
      returned: success
    reason:
      description: Why.
      type: str
      returned: success
sets:
  description: Ids of the sets that were copied.
  returned: success
  type: list
  elements: str
  sample: [20261122T020000Z-logical]
files_sent:
  description: Number of files that were copied.
  returned: success
  type: int
  sample: 15
bytes_sent:
  description: Bytes that were copied.
  returned: success
  type: int
  sample: 203430912
files_skipped:
  description: Number of files of those sets that were there already.
  returned: success
  type: int
  sample: 0
already:
  description: Number of sets that were the same on both sides.
  returned: success
  type: int
  sample: 6
left_out:
  description: Sets that were not copied, and why.
  returned: success
  type: list
  elements: dict
  sample: []
  contains:
    set:
      description: Id of the set.
      type: str
      returned: success
    why:
      description: The reason.
      type: str
      returned: success
repaired:
  description: Sets that were repaired.
  returned: success
  type: list
  elements: dict
  sample: []
  contains:
    set:
      description: Id of the set.
      type: str
      returned: success
    files:
      description: The files that were replaced.
      type: list
      elements: str
      returned: success
    why:
      description: What was wrong.
      type: str
      returned: success
evidence_sent:
  description: Number of evidence files that were copied.
  returned: success
  type: int
  sample: 1
aborted_uploads:
  description: Stale multipart uploads that were removed.
  returned: success
  type: list
  elements: str
  sample: []
only_there:
  description: Sets that only the S3 place has, the newest first, at most 20.
  returned: success
  type: list
  elements: str
  sample: [20261025T020000Z-logical]
only_there_count:
  description: Number of sets that only the S3 place has. Where the newest is one of them, a warning tells.
  returned: success
  type: int
  sample: 1
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
  sample: sync
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

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, View, bindings, sets_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request, sync

OWN: dict[str, dict[str, Any]] = {
    "direction": {"type": "str", "choices": ["push", "pull"], "default": "push"},
    "sets": {"type": "list", "elements": "str", "default": []},
}


def with_planned(before: dict[str, list[str]], result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the sets of the place that is written to, with those that a run would add."""
    added = [step["set"] for step in result["plan"] if step["action"] in ("push", "pull")]
    return {place: sorted({*ids, *added}, reverse=True) for place, ids in before.items()}


def main() -> None:
    """Run the module."""
    task = Task("sync", bindings(), own=OWN)
    direction = task.params["direction"]
    request = Request(direction=direction, sets=tuple(task.params["sets"]), dry_run=task.check_mode)
    target = ["s3" if direction == "push" else "local"]
    task.run(
        lambda context: sync(context, request),
        view=View(lambda context: sets_of(context, target), with_planned),
    )


if __name__ == "__main__":
    main()
