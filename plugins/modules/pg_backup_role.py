#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_role
short_description: Make the least-privilege database role for backups
version_added: 0.1.0
description:
  - Makes a role that may log in and read everything, and may change nothing. It is a member of C(pg_read_all_data) and
    C(pg_monitor), may connect to each database and read each large object.
  - Then reads as that role, one table, sequence and large object after the other, and lists what it cannot read; a backup
    would fail there, or leave it out.
  - What is not asked for is taken away where it would let the role change things (creating databases or roles), and
    reported where it is merely more than a backup needs.
  - Needs PostgreSQL 14 or newer, and the login of a superuser. On a standby it changes nothing, but it checks.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - What the role cannot read is only checked when nothing would be changed.
      - On a standby, to which the role is still to come from the primary, it warns, and RV(statements) are those of the primary.
  diff_mode:
    support: full
    details:
      - Shows the role before and after. Of a password it shows only that there is one, or another one.
  idempotent:
    support: full
    details:
      - A password is compared with what the server stores. Where the login may not see that, it is set each time.
      - One that has expired (VALID UNTIL) never expires from then on; one that will is left, with a warning.

options:
  name:
    description:
      - Name of the role. A role of that name that is a superuser is never touched.
    type: str
    required: true
  state:
    description:
      - Whether the role is to exist.
      - V(absent) - its privileges in all databases and the role itself are removed; refused when it owns anything.
    type: str
    choices: [present, absent]
    default: present
  password:
    description:
      - Password of the role. When it is not given, that of the role stays as it is; a new role has none, and can log in by
        a certificate or as the account of that name only.
      - It is hashed (SCRAM-SHA-256) before it leaves the module, so that no server log can have it.
    type: str
  connection_limit:
    description:
      - Most connections of the role, V(-1) for no limit. A backup needs up to four more than it has jobs.
      - When it is not given, the limit stays as it is; a new role has none.
    type: int
  bypass_rls:
    description:
      - Whether the role reads all rows of tables with row-level security. Without that, a backup of such a table fails.
    type: bool
    default: true
  replication:
    description:
      - Whether the role may replicate, as base backups (C(pg_basebackup)) need it. It may then read every file of the cluster,
        but through the replication protocol only; C(pg_hba.conf) needs a line for the database C(replication) that lets it in.
      - When it is false, a role that may do so already is left so, and the run says it.
    type: bool
    default: false
  large_objects:
    description:
      - How the role may read large objects, which C(pg_read_all_data) leaves out.
      - V(grant) - each is granted to it, and from PostgreSQL 18 on also those that their owners will make. On older servers,
        run this again when there are new ones.
      - V(compat) - C(lo_compat_privileges) is set for the role. It may read all large objects then, also new ones, but
        change and remove them, too.
    type: str
    choices: [grant, compat]
    default: grant
  server_files:
    description:
      - Whether the role may read files of the server, so that sets also hold C(pg_hba.conf) and C(pg_ident.conf). It may then
        read every file that the server's account can, keys of TLS among them.
    type: bool
    default: false
  databases:
    description:
      - Only look after these databases; all that take connections when this is not given or empty.
    type: list
    elements: str
    default: []
notes:
  - O(login_user) and the other options of the connection are those of the administrator who makes the role, not of the role.
  - C(pg_dump) reads subscriptions as a superuser only, and the options of user mappings only as who owns the foreign
    server. Both are listed in RV(unreadable) where there are any.
seealso:
  - module: pgops.backup.pg_backup
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Make the role for backups
  pgops.backup.pg_backup_role:
    name: backup
    password: "{{ vault_backup_password }}"
    connection_limit: 12
  become: true
  become_user: postgres
  register: role

- name: Stop when a backup could not read everything
  ansible.builtin.assert:
    that: role.unreadable | length == 0
    fail_msg: "{{ role.unreadable | map(attribute='name') | join(', ') }}"

- name: Remove it again
  pgops.backup.pg_backup_role:
    name: backup
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
role:
  description: Name of the role.
  returned: success
  type: str
  sample: backup
state:
  description: V(present) or V(absent).
  returned: success
  type: str
  sample: present
granted:
  description: What was granted, or would be.
  returned: success
  type: list
  elements: str
  sample: ["LOGIN, BYPASSRLS", "pg_monitor", "pg_read_all_data", "SELECT on 17 large objects of orders"]
statements:
  description: The statements that were run, or would be. Of a password they have nothing.
  returned: success
  type: list
  elements: str
  sample:
    - CREATE ROLE "backup" LOGIN BYPASSRLS CONNECTION LIMIT 12
    - ALTER ROLE "backup" PASSWORD '********'
unreadable:
  description: What the role cannot read, so that a backup with it would fail or lack it.
  returned: success
  type: list
  elements: dict
  sample:
    - database: orders
      kind: table
      name: audit.events
      why: permission denied for table events
  contains:
    database:
      description: Name of the database.
      type: str
      returned: success
    kind:
      description:
        - V(database), V(table), V(sequence), V(large object), V(large objects), V(user mapping) or V(subscription).
      type: str
      returned: success
    name:
      description: Its name.
      type: str
      returned: success
    why:
      description: The reason, mostly in the server's words.
      type: str
      returned: success
checked:
  description: What was read as the role; null where nothing was, as in check mode before a change.
  returned: success
  type: dict
  sample: {by: login, databases: 3, relations: 212, sequences: 97, large_objects: 17}
  contains:
    by:
      description: How we became the role, V(login) with its password, or V(set role).
      type: str
      returned: success
    databases:
      description: Number of databases.
      type: int
      returned: success
    relations:
      description: Number of tables and materialized views.
      type: int
      returned: success
    sequences:
      description: Number of sequences.
      type: int
      returned: success
    large_objects:
      description: Number of large objects.
      type: int
      returned: success
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: role
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
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.backup_role import Wanted, backup_role

OWN: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "password": {"type": "str", "no_log": True},
    "connection_limit": {"type": "int"},
    "bypass_rls": {"type": "bool", "default": True},
    "replication": {"type": "bool", "default": False},
    "large_objects": {"type": "str", "choices": ["grant", "compat"], "default": "grant"},
    "server_files": {"type": "bool", "default": False},
    "databases": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    task = Task("role", bindings(), own=OWN)
    given = {name: task.params[name] for name in OWN}
    given.update(password=given["password"] or "", databases=tuple(given["databases"]))
    wanted = Wanted(**given)

    def work(context: Context) -> dict[str, Any]:
        result = backup_role(context, wanted, dry_run=task.check_mode)
        before, after = result.pop("before"), result.pop("after")
        return {**result, "diff": {"before": before, "after": after}} if task.diff_mode else result

    task.run(work, recorded=False)


if __name__ == "__main__":
    main()
