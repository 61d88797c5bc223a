#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_pin
short_description: Keep a backup set whatever retention says
version_added: 0.1.0
description:
  - Pins a set, so that M(pgops.backup.backup_prune) does not remove it, or takes the pin off again.
  - A pin belongs to one place. To keep a set in both, pin it in both.
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
      - Shows what the pin says.
  idempotent:
    support: full

options:
  state:
    description:
      - Whether the set is to be pinned.
    type: str
    choices: [present, absent]
    default: present
  set:
    description:
      - Id of the set. To pin one, also V(latest) or V(latest_verified), which mean another set after the next backup.
    type: str
    required: true
  place:
    description:
      - The place of the set; V(auto) is S3 where there is one, and the local place otherwise.
    type: str
    choices: [auto, local, s3]
    default: auto
  reason:
    description:
      - Why the set must stay. Needed with O(state=present).
    type: str
seealso:
  - module: pgops.backup.backup_prune
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Keep the newest verified set before an upgrade
  pgops.backup.backup_pin:
    config: /etc/pgops/config.yml
    set: latest_verified
    reason: Before the upgrade to PostgreSQL 18
  register: pinned

- name: Let retention decide about it again
  pgops.backup.backup_pin:
    config: /etc/pgops/config.yml
    set: "{{ pinned.set }}"
    state: absent
"""

RETURN = r"""
set:
  description: Id of the set.
  returned: success
  type: str
  sample: 20261122T020000Z-logical
place:
  description: V(local) or V(s3).
  returned: success
  type: str
  sample: s3
root:
  description: Where the place is.
  returned: success
  type: str
  sample: s3://example-backups/database-backups/db1-main
pin:
  description: What the pin says, or said before it was taken off; null when there was none.
  returned: success
  type: dict
  sample:
    set: 20261122T020000Z-logical
    reason: Before the upgrade to PostgreSQL 18
    since: "2026-11-22T08:00:00+00:00"
    by: postgres@db1
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: pin
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
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.pins import pin, read_pin, unpin

OWN: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "set": {"type": "str", "required": True},
    "place": {"type": "str", "choices": ["auto", "local", "s3"], "default": "auto"},
    "reason": {"type": "str"},
}


def main() -> None:
    """Run the module."""
    task = Task("pin", bindings(), own=OWN, required_if=[("state", "present", ["reason"])])
    place, wanted, reason = task.params["place"], task.params["set"], task.params["reason"]
    present = task.params["state"] == "present"
    if not present:
        task.verb = "unpin"

    def work(context: Context) -> dict[str, Any]:
        if present:
            return pin(context, place, wanted, reason, dry_run=task.check_mode)
        return unpin(context, place, wanted, dry_run=task.check_mode)

    def look(context: Context) -> dict[str, Optional[dict[str, Any]]]:
        where = context.place(place)
        set_id = Catalog(where).find(wanted, context.clock()) if present else wanted
        return {set_id: read_pin(where, set_id)}

    def predict(_before: Any, result: dict[str, Any]) -> dict[str, Any]:
        return {result["set"]: result["pin"] if present else None}

    task.run(work, view=View(look, predict))


if __name__ == "__main__":
    main()
