#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_rollback
short_description: Give a database or data directory that a restore replaced its name back
version_added: 0.1.0
description:
  - Undoes what M(pgops.backup.pg_restore_from_backup) did in its mode V(swap). The
    database that was kept gets its name back, and what the restore had made is kept under another name. Nothing is dropped.
  - Whoever is connected to one of the two is disconnected. The names are exchanged in one transaction.
  - What a restore in mode V(create) made has replaced nothing. It is undone by C(DROP DATABASE).
  - With O(data_directory) it undoes a recovery in place instead. The data directory that was kept gets its place back. The server
    must be stopped, and is not started.
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
      - Shows the databases of the server. Nothing is shown with O(data_directory).
  idempotent:
    support: none
    details:
      - A second run gives the name to the kept database before that one, or fails when there is none.

options:
  databases:
    description:
      - The databases to roll back, by the names that they have now.
      - One of this and O(data_directory) is required.
    type: list
    elements: str
    default: []
  data_directory:
    description:
      - The data directory that a recovery in place replaced.
    type: path
  kept_directory:
    description:
      - With O(data_directory), the one that gets its place back. The newest that a recovery kept when it is not given.
    type: path
  kept:
    description:
      - For a database, the name of the one that gets its name back. The newest that a restore kept when it is not given.
    type: dict
    default: {}
seealso:
  - module: pgops.backup.pg_restore_from_backup
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: The restored orders were the wrong ones
  pgops.backup.pg_restore_rollback:
    config: /etc/pgops/config.yml
    databases: [orders]
  become: true
  become_user: postgres

- name: The recovered server is the wrong one; its service is stopped
  pgops.backup.pg_restore_rollback:
    config: /etc/pgops/config.yml
    data_directory: /var/lib/postgresql/17/main
  become: true
  become_user: postgres

- name: Go back to the database of two restores ago
  pgops.backup.pg_restore_rollback:
    config: /etc/pgops/config.yml
    databases: [orders]
    kept:
      orders: orders_before_20261121T110000Z
"""

RETURN = r"""
data_directory:
  description: The data directory.
  returned: success, with O(data_directory)
  type: str
  sample: /var/lib/postgresql/17/main
kept:
  description: Where what lies there again had been kept.
  returned: success, with O(data_directory)
  type: str
  sample: /var/lib/postgresql/17/main.before-20261122T093000Z
aside:
  description: Where what the recovery had made lies now; empty where nothing lay there, as after a run that was killed.
  returned: success, with O(data_directory)
  type: str
  sample: /var/lib/postgresql/17/main.rolled-back-20261122T101500Z
service:
  description: The service of systemd that runs the server; empty where none is known.
  returned: success, with O(data_directory)
  type: str
  sample: postgresql@17-main
served:
  description: Whether a server runs there, which must be stopped before. Always false but in check mode.
  returned: success, with O(data_directory)
  type: bool
  sample: false
databases:
  description: What was, or would be, renamed.
  returned: success, with O(databases)
  type: list
  elements: dict
  sample:
    - database: orders
      kept: orders_before_20261122T093000Z
      aside: orders_rolled_back_20261122T101500Z
  contains:
    database:
      description: Its name.
      type: str
      returned: success
    kept:
      description: What the database that has the name again was called.
      type: str
      returned: success
    aside:
      description: What the database that had the name is called now; empty when there was none.
      type: str
      returned: success
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: rollback
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
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.connection import connect
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rollback import Request, rollback
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rollback_data import Request as DataRequest
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rollback_data import rollback_data

OWN: dict[str, dict[str, Any]] = {
    "databases": {"type": "list", "elements": "str", "default": []},
    "data_directory": {"type": "path"},
    "kept_directory": {"type": "path"},
    "kept": {"type": "dict", "default": {}},
}


def look(context: Context) -> dict[str, list[str]]:
    """Return the databases of the server."""
    with connect(context.config.postgres) as session:
        rows = session.rows("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname")
    return {"databases": [row[0] for row in rows]}


def predict(before: dict[str, list[str]], result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the databases that there would be."""
    names = set(before["databases"])
    for step in result["databases"]:
        names = (names - {step["kept"]}) | {step["database"]} | ({step["aside"]} if step["aside"] else set())
    return {"databases": sorted(names)}


def exchange(context: Context, request: DataRequest, also: list[str]) -> dict[str, Any]:
    """Roll the data directory back. Raise UsageError where databases are to be rolled back, too, and what the verb raises."""
    if also:
        raise UsageError("databases and data_directory exclude each other.", hint="Roll back the one or the other.")
    return rollback_data(context, request)


def main() -> None:
    """Run the module."""
    task = Task("rollback", bindings(), own=OWN, required_by={"kept_directory": "data_directory"})
    if task.params["data_directory"]:
        asked = DataRequest(task.params["data_directory"], task.params["kept_directory"] or "", dry_run=task.check_mode)
        task.run(lambda context: exchange(context, asked, task.params["databases"]))
    request = Request(
        databases=tuple(task.params["databases"]),
        kept={name: str(kept) for name, kept in task.params["kept"].items()},
        dry_run=task.check_mode,
    )
    task.run(lambda context: rollback(context, request), view=View(look, predict))


if __name__ == "__main__":
    main()
