#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pgops_schedule
short_description: Let a host run pgops by itself, by cron or by systemd
version_added: 0.1.0
description:
  - Writes one table for cron, or a timer and a hardened service of systemd for each job, named C(pgops-<verb>@<instance>). The
    other kind and what is no longer wanted are removed.
  - A unit that somebody masked stays so. While one is wanted, the module fails, before it writes anything, and names it.
  - A job that meets another one of its instance waits for it, as long as O(wait) says.
  - Jobs run nicely, with idle priority at the disk, as O(account).
extends_documentation_fragment:
  - pgops.backup.host

options:
  state:
    description:
      - Whether there is to be a schedule. V(absent) removes both kinds.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description:
      - Who starts the jobs.
    type: str
    choices: [cron, systemd]
    default: cron
  instances:
    description:
      - The instances of this host, all of them; jobs of others are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the instance.
        type: str
        required: true
      config:
        description:
          - Its configuration file.
        type: path
        default: /etc/pgops/config.yml
      jobs:
        description:
          - When each verb runs, as five fields of a crontab, or V(@daily), V(@hourly), V(@weekly), V(@monthly); an empty text for
            never.
          - A verb that is not given runs as the section C(schedule) of the configuration says, C(sync) only where there is an S3
            place, C(alert) only where there is a channel for alerts, and C(base), which is a base backup, each week where
            C(wal.enabled) is set.
        type: dict
        default: {}
        suboptions:
          backup:
            description:
              - When to back up.
            type: str
          base:
            description:
              - When to take a base backup; V(auto) is not understood here.
            type: str
          sync:
            description:
              - When to copy to S3.
            type: str
          verify:
            description:
              - When to verify.
            type: str
          prune:
            description:
              - When to prune.
            type: str
          alert:
            description:
              - When to look for what nobody ran, and tell of it.
            type: str
      paths:
        description:
          - Directories that the jobs may write, with systemd; those that the configuration names when it is empty.
        type: list
        elements: path
        default: []
  program:
    description:
      - The program.
    type: path
    default: /usr/local/bin/pgops
  account:
    description:
      - Account that runs the jobs.
    type: str
    default: postgres
  timezone:
    description:
      - Time zone of the calendars, an empty text for the host's. What the configuration says when it is not given.
      - A cron that does not know C(CRON_TZ), as Debian's, takes the host's only; another one is an error then.
    type: str
  random_delay:
    description:
      - Longest random delay of each job, like V(15min). What the configuration says when it is not given.
    type: str
  wait:
    description:
      - How long a job waits for another one that is in its way, like V(6h). What the configuration says when it is not given.
    type: str
  mailto:
    description:
      - Address that cron mails the words of failed jobs to; an empty text for nobody.
    type: str
    default: root
  catch_up:
    description:
      - Whether a run that fell into a downtime is made up for afterwards, once. Cron does it at the boot, by C(pgops catch-up).
    type: bool
    default: true
notes:
  - Where systemd does not run (in a container, or while an image is built) the timers are enabled and begin at the next boot.
  - A time that the clock skips when summer time begins is run when the hour is over.
seealso:
  - module: pgops.backup.pgops_program
  - module: pgops.backup.pgops_config
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Let cron run what the configuration says
  pgops.backup.pgops_schedule:
    instances:
      - name: db1-main
  become: true

- name: Let systemd run two instances, one of them more often
  pgops.backup.pgops_schedule:
    kind: systemd
    timezone: Europe/Berlin
    random_delay: 15min
    instances:
      - name: db1-main
        config: /etc/pgops/db1-main.yml
      - name: db1-reports
        config: /etc/pgops/db1-reports.yml
        jobs:
          backup: 0 */6 * * *
          verify: "@weekly"
  become: true

- name: Nothing runs by itself any more
  pgops.backup.pgops_schedule:
    state: absent
  become: true
"""

RETURN = r"""
kind:
  description: Who starts the jobs; null when there are none any more.
  returned: success
  type: str
  sample: systemd
files:
  description: The files of the schedule.
  returned: success
  type: list
  elements: str
  sample: [/etc/cron.d/pgops]
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: []
next_runs:
  description: The next run of each verb of each instance, in UTC, before any random delay.
  returned: success
  type: dict
  sample:
    db1-main:
      backup: "2026-11-23T02:00:00+00:00"
      sync: "2026-11-23T02:30:00+00:00"
      verify: "2026-11-23T03:00:00+00:00"
      prune: "2026-11-29T01:00:00+00:00"
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
  sample: "Install it (the package cron), or use kind: systemd."
outcome:
  description:
    - How the run ended.
    - V(misused) - the options or the configuration are wrong. V(unreachable) - cron or systemd is missing. V(refused) - it
      would not have been safe. V(interrupted) - somebody ended it. V(failed) - anything else.
  returned: failure
  type: str
  sample: unreachable
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 4
"""

import platform
from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask
from ansible_collections.pgops.backup.plugins.module_utils._ansible_schedule import SCHEDULE, request_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.schedule import lay_down, take_away


def main() -> None:
    """Run the module."""
    task = HostTask(SCHEDULE)
    request = request_of(task.params)

    def work(host: Host) -> dict[str, Any]:
        if task.params["state"] == "absent":
            return take_away(host, request)
        return lay_down(host, request, name=platform.node())

    task.run(work)


if __name__ == "__main__":
    main()
