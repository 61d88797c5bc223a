#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: Tell what backup sets there are, and what is proven of them
version_added: 0.1.0
description:
  - Lists the sets of each place with their databases, sizes and proofs, what O(retention) would keep and remove, and
    how fresh the newest backup, off-site copy and verification are.
  - A place that cannot be read is reported with its error; the module does not fail for it.
  - It leaves no run record.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full

options:
  places:
    description:
      - The places to look at; all that are configured when it is empty.
    type: list
    elements: str
    choices: [local, s3]
    default: []
  details:
    description:
      - Whether to read the pins and tell the contents of each set.
    type: bool
    default: false
seealso:
  - module: pgops.backup.backup_prune
  - module: pgops.backup.backup_verify
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: See what there is
  pgops.backup.backup_info:
    config: /etc/pgops/config.yml
  register: backups

- name: Insist on a fresh backup that is verified and off the server
  ansible.builtin.assert:
    that: backups.state == "ok"
    fail_msg: "{{ backups.freshness | rejectattr('severity', 'eq', 'ok') | map(attribute='text') | join(' ') }}"

- name: List the sets in the bucket with their contents
  pgops.backup.backup_info:
    instance: db1-main
    places: [s3]
    details: true
    s3:
      bucket: example-backups
"""

RETURN = r"""
state:
  description: The worst of RV(freshness), V(ok), V(warning) or V(critical).
  returned: success
  type: str
  sample: ok
freshness:
  description: One finding for each question, and for a place or clock in trouble.
  returned: success
  type: list
  elements: dict
  sample:
    - check: backup
      severity: ok
      text: "The newest backup, 20261122T020000Z-logical, is 6 h 0 min old."
      since: "2026-11-22T02:00:00+00:00"
      age_seconds: 21600.0
      limit_seconds: 93600.0
  contains:
    check:
      description: The question.
      type: str
      returned: success
    severity:
      description: V(ok), V(warning) or V(critical).
      type: str
      returned: success
    text:
      description: The answer, for a person.
      type: str
      returned: success
    since:
      description: The moment that the answer is about.
      type: str
      returned: success
    age_seconds:
      description: How long ago that is.
      type: float
      returned: success
    limit_seconds:
      description: From which age on the answer is no longer V(ok).
      type: float
      returned: success
places:
  description: What each place holds.
  returned: success
  type: list
  elements: dict
  sample:
    - place: local
      root: /backups/postgres/db1-main
      reachable: true
      error: null
      sets:
        - id: 20261122T020000Z-logical
          kind: logical
          bytes: 203430912
          databases: [billing, orders]
          verified: true
          pinned: false
          complete: true
      unfinished: []
      strays: []
      retention:
        keep:
          - set: 20261122T020000Z-logical
            reasons: [younger than 7d, newest, verified floor]
        remove: []
      total_bytes: 203430912
      newest: 20261122T020000Z-logical
      newest_verified: 20261122T020000Z-logical
      windows: []
  contains:
    place:
      description: V(local) or V(s3).
      type: str
      returned: success
    root:
      description: Where the place is.
      type: str
      returned: success
    reachable:
      description: Whether the place could be read.
      type: bool
      returned: success
    error:
      description: Why the place could not be read.
      type: str
      returned: success
    sets:
      description: The sets, the newest first.
      type: list
      elements: dict
      returned: success
      contains:
        id:
          description: Id of the set.
          type: str
          returned: success
        kind:
          description: V(logical), V(base) or V(incremental).
          type: str
          returned: success
        bytes:
          description: What the set takes up.
          type: int
          returned: success
        begun:
          description: When the backup began.
          type: str
          returned: success
        ended:
          description: When the backup was whole.
          type: str
          returned: success
        age_seconds:
          description: How long ago it began.
          type: float
          returned: success
        files:
          description: Number of payload files.
          type: int
          returned: success
        databases:
          description: Names of the databases in it.
          type: list
          elements: str
          returned: success
        verified:
          description: Whether it was restored and matched, and nothing failed since.
          type: bool
          returned: success
        proofs:
          description: Per level of verification, the C(outcome) of the last one and C(when) it was.
          type: dict
          returned: success
        pinned:
          description: Whether it is pinned.
          type: bool
          returned: success
        pin:
          description: What the pin says.
          type: dict
          returned: when O(details) is true
        encryption:
          description: V(none) or V(age).
          type: str
          returned: success
        server_version:
          description: Version of the server that was backed up.
          type: str
          returned: success
        system_identifier:
          description: The cluster that was backed up, by its own identifier; empty where the role may not read it.
          type: str
          returned: success
        host:
          description: The host that took the set; empty in sets of versions that did not tell.
          type: str
          returned: success
        parent:
          description: The set that it builds on.
          type: str
          returned: success
        chain:
          description: All that it builds on, the full base backup first.
          type: list
          elements: str
          returned: success
        complete:
          description: Whether every file of its manifest is there, with the right size.
          type: bool
          returned: success
        problem:
          description: What is wrong with it.
          type: str
          returned: success
        warnings:
          description: What the backup warned of.
          type: list
          elements: str
          returned: success
        contents:
          description: Per database, its sizes and what its fingerprint counted.
          type: list
          elements: dict
          returned: when O(details) is true
    unfinished:
      description: Names of folders without a manifest; they are no sets.
      type: list
      elements: str
      returned: success
    strays:
      description: Files among the sets that belong to none.
      type: list
      elements: str
      returned: success
    retention:
      description: The sets that the rules C(keep) and would C(remove), each with C(set) and its C(reasons).
      type: dict
      returned: success
    total_bytes:
      description: What all sets take up.
      type: int
      returned: success
    newest:
      description: Id of the newest complete set.
      type: str
      returned: success
    newest_verified:
      description: Id of the newest set that is verified.
      type: str
      returned: success
    windows:
      description:
        - With C(wal.enabled), to which moments base backups and WAL of this place can bring the instance back, one entry for each cluster
          and timeline.
      type: list
      elements: dict
      returned: success
      contains:
        system_identifier:
          description: The cluster, as C(pg_controldata) calls it.
          type: str
          returned: success
        timeline:
          description: The timeline that it ends on.
          type: int
          returned: success
        stretches:
          description: The unbroken parts. Each has C(start) and C(end), C(start_lsn) and C(end_lsn), and the C(bases) to begin with.
          type: list
          elements: dict
          returned: success
        gaps:
          description: The segments that are missing, by the C(first) and C(last) of them and their C(count).
          type: list
          elements: dict
          returned: success
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: info
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
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.info import Request, info

OWN: dict[str, dict[str, Any]] = {
    "places": {"type": "list", "elements": "str", "choices": ["local", "s3"], "default": []},
    "details": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    task = Task("info", bindings(), own=OWN)
    request = Request(places=tuple(task.params["places"]), details=task.params["details"])
    task.run(lambda context: info(context, request), recorded=False)


if __name__ == "__main__":
    main()
