#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pgops_program
short_description: Lay the program pgops down on a host
version_added: 0.1.0
description:
  - Lays down the engine of this collection, the very files that the module itself runs with, as the program C(pgops), with
    its bash completion, its manual page and a rule for logrotate. The host needs no way to a registry or a repository.
  - Each version lies in a folder of its own, compiled and tried before a link makes it current. A run that is cut short at any
    moment leaves the old program or the new one.
  - Older versions and leftovers are removed. A version that somebody runs at that moment stays until the next time.
  - At the end C(pgops version) must tell the version and the digest that were laid down; otherwise the module fails.
extends_documentation_fragment:
  - pgops.backup.host
attributes:
  idempotent:
    details:
      - A version that was in use is removed by the next run.

options:
  state:
    description:
      - Whether the program is to be there. V(absent) removes it, unless somebody runs it.
    type: str
    choices: [present, absent]
    default: present
  lib:
    description:
      - Directory of the versions.
    type: path
    default: /usr/local/lib/pgops
  bin:
    description:
      - File that starts the program. A file of that name that is not C(pgops) is left alone, and the module fails.
      - Where the host has C(/usr/bin/perl), the client that PostgreSQL calls for its WAL lies beside it, under the same name with C(-wal).
    type: path
    default: /usr/local/bin/pgops
  completion:
    description:
      - File of the bash completion; an empty text for none.
    type: path
    default: /usr/share/bash-completion/completions/pgops
  man:
    description:
      - File of the manual page, packed when its name ends in C(.gz); an empty text for none.
    type: path
    default: /usr/local/share/man/man1/pgops.1.gz
  logrotate:
    description:
      - File of the rule by which logrotate turns the logs over; with an empty text nobody looks at one.
    type: path
    default: /etc/logrotate.d/pgops
  log_directories:
    description:
      - Directories of the logs. Without this, the rule that is there stays as it is; with an empty list it goes.
    type: list
    elements: path
  log_owner:
    description:
      - The account that writes the logs.
    type: str
    default: postgres
  log_group:
    description:
      - Its group.
    type: str
    default: postgres
  log_keep:
    description:
      - How many weeks of logs stay.
    type: int
    default: 12
  python:
    description:
      - Python on the host that runs the program, 3.9 or later. PyYAML, psycopg2 and boto3 must be installed for it.
    type: path
    default: /usr/bin/python3
seealso:
  - module: pgops.backup.pgops_config
  - module: pgops.backup.pgops_schedule
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Lay pgops down
  pgops.backup.pgops_program:
    state: present
  become: true

- name: Lay it down, and let logrotate see to its logs
  pgops.backup.pgops_program:
    log_directories: [/var/log/backups]
    log_keep: 26
  become: true

- name: Lay it down for a Python of its own
  pgops.backup.pgops_program:
    python: /opt/pgops/bin/python
  become: true

- name: Take it away again
  pgops.backup.pgops_program:
    state: absent
  become: true
"""

RETURN = r"""
version:
  description: Version of the program; null when it was removed.
  returned: success
  type: str
  sample: 0.2.0
digest:
  description: SHA-256 of the program's files and their names, the same that C(pgops version --json) tells; null when it was removed.
  returned: success
  type: str
  sample: 0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f
before:
  description: The version that was there before; null when there was none.
  returned: success
  type: str
  sample: 0.1.0
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/lib/pgops/0.1.0-5f0c8f0b7d5e]
in_use:
  description: Older versions that stay until the next time, as somebody runs them.
  returned: success
  type: list
  elements: str
  sample: []
outdated:
  description: Services of the program that run another version than the one laid down, until they are started again.
  returned: success
  type: list
  elements: str
  sample: [pgops_wal_ship@db1-main.service]
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
  sample: Install python3, or name another python.
outcome:
  description:
    - How the run ended.
    - V(misused) - the options are wrong. V(busy) - somebody runs the program, or lays it down. V(unreachable) - the Python is
      missing or too old. V(refused) - it would not have been safe. V(interrupted) - somebody ended it. V(failed) - anything
      else.
  returned: failure
  type: str
  sample: unreachable
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 4
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask
from ansible_collections.pgops.backup.plugins.module_utils._ansible_program import PROGRAM, parts_of

# The program's own beginning: what it imports travels to the host with this module, and is what is laid down.
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import start as _program  # noqa: F401
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.program import lay_down, take_away

if TYPE_CHECKING:
    # What nothing above leads to is never imported, and travels as well: the engine has one digest everywhere.
    from ansible_collections.pgops.backup.plugins.module_utils._engine.core import severities  # noqa: F401
    from ansible_collections.pgops.backup.plugins.module_utils._engine.host import archiving, configuration, looking  # noqa: F401
    from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import backup_role  # noqa: F401
    from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import rollback, rollback_data  # noqa: F401


def main() -> None:
    """Run the module."""
    task = HostTask(PROGRAM)
    paths, rotation = parts_of(task.params)

    def work(host: Host) -> dict[str, Any]:
        return lay_down(host, paths, rotation) if task.params["state"] == "present" else take_away(host, paths)

    task.run(work)


if __name__ == "__main__":
    main()
