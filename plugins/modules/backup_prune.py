#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prune
short_description: Remove the backup sets that retention does not keep
version_added: 0.1.0
description:
  - Removes from each place the sets that its own rules (O(retention), O(s3.retention)) do not keep, and what runs
    that were cut short left behind.
  - The newest set, the newest verified set, pinned sets and the ancestors of sets that stay are never removed.
  - It refuses to run beside a backup, sync, verification or restore of the same instance.
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
      - Shows the sets of each place.
  idempotent:
    support: full
    details:
      - A set that grows too old between two runs is removed by the second one.

options:
  places:
    description:
      - The places to prune; all that are configured when it is empty.
    type: list
    elements: str
    choices: [local, s3]
    default: []
  clusters:
    description:
      - System identifiers of earlier clusters of the instance whose WAL is to go whole, from all places. RV(wal_clusters) of a run
        names those of which that may be. Any other is refused, and so is O(places) beside it.
    type: list
    elements: str
    default: []
seealso:
  - module: pgops.backup.backup_info
  - module: pgops.backup.backup_pin
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Prune both places
  pgops.backup.backup_prune:
    instance: db1-main
    retention:
      keep_within: 7d
    s3:
      bucket: example-backups
      retention:
        keep_within: 30d
        keep_monthly: 12
        keep_yearly: 3
  become: true
  become_user: postgres

- name: See what the configuration file would remove from the host
  pgops.backup.backup_prune:
    config: /etc/pgops/config.yml
    places: [local]
  check_mode: true
  diff: true
"""

RETURN = r"""
places:
  description: What was done in each place.
  returned: success
  type: list
  elements: dict
  sample:
    - place: local
      root: /backups/postgres/db1-main
      kept:
        - set: 20261122T020000Z-logical
          reasons: [younger than 7d, newest, verified floor]
      removed:
        - set: 20261114T020000Z-logical
          reasons: ["older than 7d, and no rule keeps it"]
          bytes: 201326592
      unfinished: []
      leftovers: []
      wal_removed: 0
      freed_bytes: 201326592
      skipped: ""
  contains:
    place:
      description: V(local) or V(s3).
      type: str
      returned: success
    root:
      description: Where the place is.
      type: str
      returned: success
    kept:
      description: The sets that stay, the newest first, each with its C(reasons).
      type: list
      elements: dict
      returned: success
    removed:
      description: The sets that went (or would go, in check mode), each with its C(reasons) and C(bytes).
      type: list
      elements: dict
      returned: success
    unfinished:
      description: Uploads that were cut off long ago and were removed, each with C(set) and C(bytes).
      type: list
      elements: dict
      returned: success
    leftovers:
      description: What runs that were cut short left on the host and was removed, each with C(path) and C(bytes).
      type: list
      elements: dict
      returned: success
    wal_removed:
      description: With C(wal.enabled), how many WAL files went that no base backup needs which stays.
      type: int
      returned: success
    skipped:
      description: Which other node of O(group) prunes this place, and why. Empty where this one did.
      type: str
      returned: success
    freed_bytes:
      description: The space that was freed.
      type: int
      returned: success
wal_clusters:
  description: >-
    With C(wal.enabled), the earlier clusters of which no place has a base backup any more, and whose WAL nobody comes to need, each
    with C(place), C(system_identifier), C(files), C(bytes), C(newest), when the last of them came, and C(removed), whether it was
    asked for by O(clusters) and went. RV(places.wal_removed) counts these, too.
  returned: success
  type: list
  elements: dict
  sample: []
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
  sample: prune
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

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, View, bindings, sets_of, without
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.prune import Request, prune
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.survey import chosen

OWN: dict[str, dict[str, Any]] = {
    "places": {"type": "list", "elements": "str", "choices": ["local", "s3"], "default": []},
    "clusters": {"type": "list", "elements": "str", "default": []},
}


def kept(before: dict[str, list[str]], result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the sets of each place without those that a run would remove."""
    return without(before, {place["place"]: [s["set"] for s in place["removed"]] for place in result["places"]})


def main() -> None:
    """Run the module."""
    task = Task("prune", bindings(), own=OWN)
    places = tuple(task.params["places"])
    request = Request(places=places, clusters=tuple(task.params["clusters"]), dry_run=task.check_mode)

    def look(context: Context) -> dict[str, list[str]]:
        return sets_of(context, chosen(context, places))

    task.run(lambda context: prune(context, request), view=View(look, kept))


if __name__ == "__main__":
    main()
