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
  - Tells the PostgreSQL clusters of a host, which of the wanted packages it lacks, whether it has a cron daemon, and whether its
    configurations, its program and its schedule are as they are wanted, all in one step.
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
  wanted:
    description:
      - What other modules would be asked for. The answer RV(lacking) tells which of them have something to do.
    type: dict
    default: {}
    suboptions:
      configurations:
        description:
          - The options of M(pgops.backup.pgops_config), for each instance.
          - What is wrong with them, and with what else is wanted, is told at once and whole. What is wrong with the host, only the
            module itself tells.
        type: list
        elements: dict
        default: []
      program:
        description:
          - The options of M(pgops.backup.pgops_program), and C(digest), that of the engine, as the lookup P(pgops.backup.engine#lookup)
            has it.
        type: dict
      schedule:
        description:
          - The options of M(pgops.backup.pgops_schedule), and C(of_instances), a dictionary of what each instance says of C(timezone),
            C(random_delay) and C(wait), of which a host has one each.
        type: dict
      archiving:
        description:
          - The C(program), and the C(ports) of the servers that are to archive their WAL with it. A cluster that does so by its
            configuration files, and has none of these ports, is an error; of one that does not run, or is a standby, there is a
            warning. One whose C(--config) is a file that M(pgops.backup.pgops_config) has not written is left alone.
        type: dict
      errors:
        description:
          - What whoever asks has found to be wrong already. It is told with all else that is wrong.
        type: list
        elements: str
        default: []
  variables:
    description:
      - The names of the variables of the host. A warning tells which of those that begin with C(pgops_) nothing of this collection
        reads, as after a slip in a name.
    type: list
    elements: str
    default: []
  status:
    description:
      - Whether to ask the program how safe the instance of each of the wanted configurations is. It is asked only where nothing is
        RV(lacking), and no package missing.
    type: bool
    default: false
seealso:
  - module: pgops.backup.pgops_config
  - module: pgops.backup.pgops_program
  - module: pgops.backup.pgops_schedule
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

- name: See whether the program is this collection's
  pgops.backup.pgops_host_info:
    wanted:
      program:
        digest: "{{ lookup('pgops.backup.engine').digest }}"
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
lacking:
  description:
    - Of what is in O(wanted), that which is not so - V(configurations), V(program) or V(schedule). To the others their modules would
      do nothing. The program is not so, either, while a service of it runs another version.
  returned: success
  type: list
  elements: str
  sample: [schedule]
answers:
  description: What the program said of each configuration, by O(status), as C(pgops --json status) says it.
  returned: success
  type: list
  elements: dict
  sample: []
  contains:
    instance:
      description: Name of the instance.
      type: str
      returned: success
    config:
      description: Its configuration file.
      type: str
      returned: success
    rc:
      description: The exit code.
      type: int
      returned: success
    said:
      description: The answer, null where there was none.
      type: dict
      returned: success
    stderr:
      description: What it said beside it.
      type: str
      returned: success
schedule_wanted:
  description: The schedule of O(wanted), null without one.
  returned: success
  type: dict
  sample: {instances: [{name: db1-main}]}
run_warnings:
  description: What could not be told, and what the modules of O(wanted) would warn of. Ansible shows the same as warnings.
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

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable

from ansible_collections.pgops.backup.plugins.module_utils import (
    _ansible_config,
    _ansible_program,
    _ansible_schedule,
)
from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask, checked, sound
from ansible_collections.pgops.backup.plugins.module_utils._ansible_variables import unread
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import (
    archiving,
    configuration,
    program,
    schedule,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.facts import Request, Wanted, look
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.looking import answers, lacking

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
    "wanted": {
        "type": "dict",
        "default": {},
        "options": {
            "configurations": {"type": "list", "elements": "dict", "default": []},
            "program": {"type": "dict"},
            "schedule": {"type": "dict"},
            "archiving": {"type": "dict"},
            "errors": {"type": "list", "elements": "str", "default": []},
        },
    },
    "variables": {"type": "list", "elements": "str", "default": []},
    "status": {"type": "bool", "default": False},
}
SHARED: dict[str, dict[str, Any]] = {
    name: {"type": "list", "elements": "str", "default": []} for name in ("timezone", "random_delay", "wait")
}
SCHEDULE: dict[str, dict[str, Any]] = {
    **_ansible_schedule.SCHEDULE,
    "of_instances": {"type": "dict", "default": {}, "options": SHARED},
}
ARCHIVING: dict[str, dict[str, Any]] = {
    "program": {"type": "path", "required": True},
    "ports": {"type": "list", "elements": "int", "default": []},
}
PROGRAM: dict[str, dict[str, Any]] = {**_ansible_program.PROGRAM, "digest": {"type": "str", "required": True}}

STRUCTURE = ("os_family", "distribution", "clusters", "versions", "packages", "packages_missing", "cron", "lacking")


# By which variables of the roles people say it.
VARIABLES = {
    "account": "pgops_account",
    "catch_up": "schedule_catch_up",
    "kind": "pgops_scheduler",
    "mailto": "pgops_mailto",
    "owner": "pgops_account",
    "group": "pgops_account_group",
}


def looked_at(spec: Any, given: Any, what: str, look_at: Callable[[dict[str, Any]], bool]) -> bool:
    """Call `look_at` with the options `given`. Raise UsageError that lists every error of them, those that it finds too."""
    try:
        params = checked(spec, given, what, VARIABLES)
    except UsageError as error:
        rest = sound(spec, given)
        if rest is None:
            raise
        try:
            look_at(rest)
        except (UsageError, RefusedError) as other:
            raise UsageError("%s\n%s" % (error.message, other.message), hint=other.hint) from None
        except (PgopsError, OSError):
            pass  # of the host, which whoever does it tells
        raise
    return look_at(params)


def lacks_configuration(given: Any, host: Host) -> bool:
    """Tell whether a configuration is not as it is wanted. Raise UsageError that lists every error of it."""

    def look_at(params: dict[str, Any]) -> bool:
        return bool(configuration.lay_down(host, _ansible_config.request_of(params), name=platform.node())["changed"])

    path = given.get("path") if isinstance(given, Mapping) else None
    return looked_at(
        _ansible_config.CONFIG, given, "What is to lie on the host as %s" % (path or "configuration"), look_at
    )


def lacks_program(given: Mapping[str, Any], host: Host) -> bool:
    """Tell whether the program is not as it is wanted."""
    params = checked(PROGRAM, given, "The program")
    return not program.in_order(host, *_ansible_program.parts_of(params), digest=params["digest"])


def lacks_schedule(given: Mapping[str, Any], host: Host) -> bool:
    """Tell whether the schedule is not as it is wanted. Raise UsageError that lists every error of it."""

    def look_at(params: dict[str, Any]) -> bool:
        del params["of_instances"]
        return bool(schedule.lay_down(host, _ansible_schedule.request_of(params), name=platform.node())["changed"])

    return looked_at(SCHEDULE, given, "The schedule", look_at)


def disagree(given: Mapping[str, Any], _host: Host) -> bool:
    """Raise UsageError where the instances of a host differ in what it has one of; else there is nothing to do."""
    params = sound(SCHEDULE, given)
    of_instances = params["of_instances"] if params else {}
    unlike = [
        "schedule.%s (%s)" % (name, ", ".join(one or '""' for one in values))
        for name, values in of_instances.items()
        if len(set(values)) > 1
    ]
    if unlike:
        raise UsageError(
            "The instances of this host differ in %s. A host has one of each: set them in pgops_schedule only."
            % " and ".join(unlike)
        )
    return False


def archives_alone(given: Mapping[str, Any], found: Sequence[Mapping[str, Any]], host: Host) -> bool:
    """Raise RefusedError where a cluster archives for no instance; else there is nothing to do."""
    params = checked(ARCHIVING, given, "What archives")
    for remark in archiving.check(found, params["program"], params["ports"], configuration.is_ours):
        host.warn(remark)
    return False


def wrong(errors: Sequence[str], _host: Host) -> bool:
    """Raise UsageError where whoever asks has found errors."""
    if errors:
        raise UsageError(
            "\n".join(["The variables of this host cannot be so:", *("  - %s" % error for error in errors)]),
            hint="docs/setup.md lists the variables.",
        )
    return False


def _answers(host: Host, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {one["path"]: one["content"].get("instance", platform.node()) for one in wanted["configurations"]}
    program_path = checked(PROGRAM, wanted["program"])["bin"]
    return [{"instance": names[answer["config"]], **answer} for answer in answers(host, program_path, list(names))]


def main() -> None:
    """Run the module."""
    task = HostTask(OWN)
    packages = {
        family: Wanted(said["names"], said["client"], said["client_without"])
        for family, said in task.params["packages"].items()
        if said
    }
    request = Request(packages, task.params["versions"])
    wanted = {
        "configurations": [],
        "program": None,
        "schedule": None,
        "archiving": None,
        "errors": [],
        **task.params["wanted"],
    }

    def work(host: Host) -> dict[str, Any]:
        hint = unread(task.params["variables"])
        if hint:
            host.warn(hint)
        seen = look(host, request)
        parts = {
            "variables": [
                partial(wrong, wanted["errors"]),
                *(partial(archives_alone, one, seen["clusters"]) for one in [wanted["archiving"]] if one),
            ],
            "configurations": [partial(lacks_configuration, one) for one in wanted["configurations"]],
            "program": [partial(lacks_program, one) for one in [wanted["program"]] if one],
            "schedule": [
                partial(side, one) for one in [wanted["schedule"]] if one for side in (disagree, lacks_schedule)
            ],
        }
        found = lacking(host, parts)
        asked = task.params["status"] and wanted["program"] and not (found or seen["packages_missing"])
        return {
            **seen,
            "lacking": found,
            "answers": _answers(host, wanted) if asked else [],
            "schedule_wanted": wanted["schedule"],
            "changed": False,
        }

    secrets = [secret for one in wanted["configurations"] for secret in _ansible_config.secrets_in(one)]
    # The answers come from the program, which has masked what it says.
    task.run(work, secrets=secrets, structure=(*STRUCTURE, "answers", "schedule_wanted"))


if __name__ == "__main__":
    main()
