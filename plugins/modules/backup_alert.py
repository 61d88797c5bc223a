#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_alert
short_description: Tell people of trouble with backups, or try whether they would hear
version_added: 0.1.0
description:
  - Looks what is wrong with the backups of an instance and tells the channels of the section C(alerts) of the configuration, passes
    on a message, or tries each channel.
  - Each run of the other modules ends with the same look, where the configuration that O(config) names has a channel.
  - The section C(alerts) is read from the file that O(config) names.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - Nobody is told anything, and no service is asked.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - V(evaluate) of O(action) tells each trouble once. V(send) and V(test) tell something each time.

options:
  action:
    description:
      - V(evaluate) looks what is wrong, tells what is new, worse or over, and tries again what was not taken earlier.
      - V(send) passes O(text) on.
      - V(test) sends a test to each channel.
    type: str
    choices: [evaluate, send, test]
    default: evaluate
  level:
    description:
      - How bad it is, with O(action=send). V(ok) ends what was told under the same O(key).
    type: str
    choices: [ok, info, warning, critical]
  text:
    description:
      - What is told, with O(action=send).
    type: str
  key:
    description:
      - What the message is about, so that a later one of O(level=ok) ends it.
    type: str
  once:
    description:
      - Whether to tell the same level and text under O(key) again only after C(alerts.repeat), and to end only what was told, with
        O(action=send). What is not told changes nothing. For a playbook that asks again and again.
    type: bool
    default: false
seealso:
  - module: pgops.backup.backup_info
  - module: pgops.backup.pgops_config
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: See whether a person would hear
  pgops.backup.backup_alert:
    config: /etc/pgops/config.yml
    action: test
  become: true
  become_user: postgres

- name: Tell that the disk is being replaced
  pgops.backup.backup_alert:
    config: /etc/pgops/config.yml
    action: send
    level: warning
    text: The disk of the backups is being replaced.
    key: disk
  become: true
  become_user: postgres

- name: Tell once of many hosts, from a controller with a configuration of its own
  pgops.backup.backup_alert:
    config: /etc/pgops/fleet.yml
    action: send
    level: critical
    text: 3 of 500 hosts are not protected.
    key: fleet
    once: true
  delegate_to: localhost
  run_once: true

- name: Look now what is wrong
  pgops.backup.backup_alert:
    config: /etc/pgops/config.yml
  become: true
  become_user: postgres
  register: alerts
"""

RETURN = r"""
troubles:
  description: What is wrong now, the worst first.
  returned: with V(evaluate)
  type: list
  elements: dict
  contains:
    cause:
      description: A stable name of the cause.
      returned: success
      type: str
    level:
      description: V(warning) or V(critical).
      returned: success
      type: str
    text:
      description: What is wrong.
      returned: success
      type: str
    since:
      description: Since when, in UTC.
      returned: success
      type: str
    next:
      description: What to do next.
      returned: success
      type: str
  sample:
    - cause: missed-run/backup
      level: critical
      text: The backup that was due at 2026-11-22 02:00 +0000 has not run.
      since: "2026-11-22T02:00:00+00:00"
      next: "See whether cron or systemd starts it (systemctl list-timers, /etc/cron.d/pgops), then run: pgops backup (as root, or with sudo -u postgres)"
told:
  description: What was told now, or would be in check mode.
  returned: with V(evaluate)
  type: list
  elements: dict
  contains:
    event:
      description: V(opened), V(raised), V(repeated), V(escalated) or V(recovered).
      returned: success
      type: str
    cause:
      description: The cause.
      returned: success
      type: str
    level:
      description: How bad it is.
      returned: success
      type: str
    subject:
      description: The subject line.
      returned: success
      type: str
  sample:
    - event: opened
      cause: missed-run/backup
      level: critical
      subject: "CRITICAL: db1-main: The backup that was due at 2026-11-22 02:00 +0000 has not run."
incidents:
  description: What is open.
  returned: with V(evaluate)
  type: list
  elements: dict
  contains:
    cause:
      description: The cause.
      returned: success
      type: str
    level:
      description: How bad it is.
      returned: success
      type: str
    text:
      description: What is wrong.
      returned: success
      type: str
    since:
      description: Since when, in UTC.
      returned: success
      type: str
    told:
      description: When it was last told, in UTC; null when it was not yet.
      returned: success
      type: str
    escalated:
      description: Whether it has lasted so long that it was escalated.
      returned: success
      type: bool
  sample:
    - cause: missed-run/backup
      level: critical
      text: The backup that was due at 2026-11-22 02:00 +0000 has not run.
      since: "2026-11-22T02:00:00+00:00"
      told: "2026-11-22T03:00:07+00:00"
      escalated: false
deliveries:
  description: What became of each message at each channel.
  returned: with V(evaluate)
  type: list
  elements: dict
  contains:
    channel:
      description: The channel.
      returned: success
      type: str
    event:
      description: What was told; V(ping) is how a run ended, told late to a watcher of runs.
      returned: success
      type: str
    cause:
      description: Of which cause.
      returned: success
      type: str
    accepted:
      description: Whether the channel took it.
      returned: success
      type: bool
    said:
      description: What it answered.
      returned: success
      type: str
    fresh:
      description: Whether this was the first time that it was tried.
      returned: success
      type: bool
  sample:
    - channel: slack
      event: opened
      cause: missed-run/backup
      accepted: true
      said: 200 ok
      fresh: true
channels:
  description: >-
    What each channel answered, and with V(test) each watcher of runs (C(heartbeat), C(sentry monitor)). Empty when O(once) kept it from being told again.
  returned: with V(send) and V(test)
  type: list
  elements: dict
  contains:
    channel:
      description: The channel.
      returned: success
      type: str
    accepted:
      description: Whether it took the message; null in check mode.
      returned: success
      type: bool
    said:
      description: What it answered.
      returned: success
      type: str
    seconds:
      description: How long that took, with V(test).
      returned: success
      type: float
  sample:
    - channel: slack
      accepted: true
      said: 200 ok
      seconds: 0.31
action:
  description: That this was a test; its run is recorded.
  returned: with V(test)
  type: str
  sample: test
undelivered:
  description: How many messages wait for a channel that did not take them.
  returned: with V(evaluate) and V(send)
  type: int
  sample: 0
level:
  description: The level of the message.
  returned: with V(send)
  type: str
  sample: warning
key:
  description: The name under which services that keep incidents know this one.
  returned: with V(send)
  type: str
  sample: pgops/db1-main/message/disk
verb:
  description: What was done, as C(pgops) calls it.
  returned: always
  type: str
  sample: alert
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
  sample: "2026-11-22T02:00:01+00:00"
seconds:
  description: How long the run took.
  returned: success
  type: float
  sample: 1.3
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
  sample: "It is tried again with the next look. Find out why: pgops alert test."
outcome:
  description:
    - How the run ended.
    - V(misused) - the options or the configuration are wrong, or there is no channel. V(busy) - another look lasts. V(unreachable) - a
      channel did not take something. V(interrupted) - somebody ended it. V(failed) - anything else.
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
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert

OWN: dict[str, dict[str, Any]] = {
    "action": {"type": "str", "choices": ["evaluate", "send", "test"], "default": "evaluate"},
    "level": {"type": "str", "choices": list(alert.LEVELS)},
    "text": {"type": "str"},
    "key": {"type": "str", "no_log": False},
    "once": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    task = Task("alert", bindings(), own=OWN, required_if=[("action", "send", ["level", "text"])])
    wanted = task.params

    def work(context: Context) -> dict[str, Any]:
        if wanted["action"] == "test":
            return alert.test(context, dry_run=task.check_mode)
        if wanted["action"] == "send":
            message = alert.Message(
                wanted["level"], wanted["text"], wanted["key"] or "", task.check_mode, wanted["once"]
            )
            return alert.send(context, message)
        return alert.evaluate(context, dry_run=task.check_mode)

    task.run(work, recorded=wanted["action"] == "test")


if __name__ == "__main__":
    main()
