#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pgops_host_info
short_description: Tell what a host has that backups need
version_added: 0.1.0
description:
  - Tells the PostgreSQL clusters of a host, which of the wanted packages it lacks, and whether it has a cron daemon, all in one step.
  - Changes nothing. The roles of this collection ask it first, so that their later tasks know what there is to do.
extends_documentation_fragment:
  - pgops.backup.host
attributes:
  check_mode:
    details:
      - This module does not change anything.
  diff_mode:
    support: none
    details:
      - There is nothing to show.

options:
  packages:
    description:
      - The packages that are wanted, by the family of the distribution, V(Debian) or V(RedHat).
    type: dict
    default: {}
    suboptions:
      Debian:
        description: Those on Debian and what descends from it.
        type: dict
        suboptions: &family
          names:
            description: Names that C(dpkg-query) or C(rpm) knows.
            type: list
            elements: str
            default: []
          client:
            description: Name of the package with PostgreSQL's programs, with C({version}) in place of the major version.
            type: str
            default: ""
          client_without:
            description: Name of that package where the host has no cluster and O(versions) is empty.
            type: str
            default: ""
      RedHat:
        description: Those on EL and what descends from it.
        type: dict
        suboptions: *family
  versions:
    description:
      - The major versions for which a package with PostgreSQL's programs is wanted; those of the clusters when empty.
    type: list
    elements: str
    default: []
seealso:
  - module: pgops.backup.pgops_config
  - module: pgops.backup.backup_info
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: See which clusters there are and what is not installed yet
  pgops.backup.pgops_host_info:
    packages:
      Debian:
        names: [python3-psycopg2, python3-boto3]
        client: postgresql-client-{version}
        client_without: postgresql-client
  register: host
"""

RETURN = r"""
os_family:
  description: V(Debian), V(RedHat), or the name of a distribution of neither family.
  returned: success
  type: str
  sample: Debian
distribution:
  description: Name of the distribution.
  returned: success
  type: str
  sample: Debian GNU/Linux
clusters:
  description: What C(pg_lsclusters) of Debian tells; empty where there is no such program.
  returned: success
  type: list
  elements: dict
  sample:
    - version: "17"
      name: main
      port: 5432
      status: online
      owner: postgres
      data_directory: /var/lib/postgresql/17/main
  contains:
    version:
      description: Major version.
      type: str
      returned: success
    name:
      description: Name of the cluster.
      type: str
      returned: success
    port:
      description: Its port.
      type: int
      returned: success
    status:
      description: V(online) or V(down), with more after a comma.
      type: str
      returned: success
    owner:
      description: The account that runs it.
      type: str
      returned: success
    data_directory:
      description: Its data directory.
      type: str
      returned: success
versions:
  description: The major versions, those of O(versions) or of the clusters.
  returned: success
  type: list
  elements: str
  sample: ["17"]
packages:
  description: All packages that are wanted.
  returned: success
  type: list
  elements: str
  sample: [python3-psycopg2, python3-boto3, postgresql-client-17]
packages_missing:
  description: Those of them that are not installed.
  returned: success
  type: list
  elements: str
  sample: [python3-boto3]
cron:
  description: Path of the cron daemon; empty when there is none.
  returned: success
  type: str
  sample: /usr/sbin/cron
run_warnings:
  description: What could not be told. Ansible shows the same as warnings.
  returned: always
  type: list
  elements: str
  sample: []
hint:
  description: What to do next.
  returned: failure
  type: str
  sample: Run it as root.
outcome:
  description: How the run ended, V(misused), V(interrupted), V(unreachable) or V(failed).
  returned: failure
  type: str
  sample: failed
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 1
"""

from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.facts import Request, Wanted, look

FAMILY: dict[str, dict[str, Any]] = {
    "names": {"type": "list", "elements": "str", "default": []},
    "client": {"type": "str", "default": ""},
    "client_without": {"type": "str", "default": ""},
}
OWN: dict[str, dict[str, Any]] = {
    "packages": {
        "type": "dict",
        "default": {},
        "options": {"Debian": {"type": "dict", "options": FAMILY}, "RedHat": {"type": "dict", "options": FAMILY}},
    },
    "versions": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    task = HostTask(OWN)
    wanted = {
        family: Wanted(said["names"], said["client"], said["client_without"])
        for family, said in task.params["packages"].items()
        if said
    }
    request = Request(wanted, task.params["versions"])

    def work(host: Host) -> dict[str, Any]:
        return {**look(host, request), "changed": False}

    task.run(work)


if __name__ == "__main__":
    main()
