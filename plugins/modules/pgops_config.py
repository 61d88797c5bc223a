#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pgops_config
short_description: Lay the configuration of pgops down on a host
version_added: 0.1.0
description:
  - Writes the configuration of one instance, the files of its secrets, and makes the directories that it names.
  - All is checked first, by the schema that C(pgops) itself goes by. Every error is told at once, and nothing was touched then.
  - Each secret lies in a file of its own (mode 0600) in the directory C(secrets) beside the configuration, and the key that
    leads to it is set. A file that is no longer needed is removed.
  - The directories C(local.path), C(state_dir), C(log_dir), C(work_dir) and that of O(path)
    get mode 0750 and O(owner); what lies in them stays as it is.
extends_documentation_fragment:
  - pgops.backup.host
attributes:
  diff_mode:
    details:
      - Shows the configuration; of a secret only that it changes.

options:
  state:
    description:
      - Whether the configuration is to be there. V(absent) removes it with its secrets, and nothing that it leads to.
      - One that this module did not write stays, with a warning.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - The configuration file. Each instance has one of its own.
    type: path
    default: /etc/pgops/config.yml
  content:
    description:
      - What is to stand in it, by the keys of the configuration. Those that are not given have their defaults.
      - A secret in it is an error; give it in O(secrets).
    type: dict
    default: {}
  secrets:
    description:
      - The secrets. One that is empty is as if it were not given.
      - None may hold a line break, or begin or end with a blank; everything else is kept to the letter.
    type: dict
    default: {}
    suboptions:
      postgres_password:
        description:
          - Password of the role that backs up (C(postgres.login_password_file)).
        type: str
      database_url:
        description:
          - Connection URI of the server, when it holds a password (C(postgres.database_url_file)).
        type: str
      s3_access_key:
        description:
          - Access key of the S3 place (C(s3.credentials_file)).
        type: str
      s3_secret_key:
        description:
          - Secret key that belongs to O(secrets.s3_access_key).
        type: str
      s3_session_token:
        description:
          - Session token of temporary credentials.
        type: str
      slack_webhook_url:
        description:
          - Address of the webhook of Slack (C(alerts.slack.webhook_url_file)).
        type: str
      pagerduty_routing_key:
        description:
          - Integration key of the service in PagerDuty (C(alerts.pagerduty.routing_key_file)).
        type: str
      sentry_dsn:
        description:
          - DSN of the project in Sentry (C(alerts.sentry.dsn_file)).
        type: str
      smtp_password:
        description:
          - Password of the account at the mail server (C(alerts.email.password_file)).
        type: str
      webhook_url:
        description:
          - Address that takes alerts as JSON (C(alerts.webhook.url_file)).
        type: str
      webhook_secret:
        description:
          - Key of their signature (C(alerts.webhook.secret_file)).
        type: str
      heartbeat_url:
        description:
          - Address of the watcher outside (C(alerts.heartbeat.url_file)).
        type: str
      apprise_urls:
        description:
          - Addresses of Apprise, with blanks between (C(alerts.apprise.urls_file)).
        type: str
  instances:
    description:
      - The paths of the configurations of all instances of this host.
      - When given, the configurations that lie beside O(path), were written by this module and are none of these are removed with
        their secrets, as their instances are no more. One by which a server still archives its WAL, or a service copies it, stays,
        with a warning.
    type: list
    elements: path
    default: []
  owner:
    description:
      - Account that backs up, and owns the files and directories.
    type: str
    default: postgres
  group:
    description:
      - Its group.
    type: str
    default: postgres
notes:
  - A warning tells when the backups would lie on the file system of the server's data.
seealso:
  - module: pgops.backup.pgops_program
  - module: pgops.backup.pgops_schedule
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Configure pgops
  pgops.backup.pgops_config:
    content:
      instance: db1-main
      postgres:
        login_unix_socket: /var/run/postgresql
      s3:
        bucket: example-backups
        region: eu-central-1
    secrets:
      s3_access_key: "{{ vault_s3_access_key }}"
      s3_secret_key: "{{ vault_s3_secret_key }}"
  become: true

- name: See what a second instance would need
  pgops.backup.pgops_config:
    path: /etc/pgops/db1-reports.yml
    content:
      instance: db1-reports
      postgres:
        login_port: 5433
  become: true
  check_mode: true
  diff: true
"""

RETURN = r"""
path:
  description: The configuration file.
  returned: success
  type: str
  sample: /etc/pgops/config.yml
instance:
  description: Name of the instance; null when the configuration was removed.
  returned: success
  type: str
  sample: db1-main
files:
  description: The configuration file and the files of its secrets.
  returned: success
  type: list
  elements: str
  sample: [/etc/pgops/config.yml, /etc/pgops/secrets/config.aws_credentials]
directories:
  description: The directories that were seen to.
  returned: success
  type: list
  elements: str
  sample: [/etc/pgops, /backups/postgres, /var/lib/pgops, /var/log/backups]
staying:
  description: The configurations of instances that are no more that stay, as WAL is archived by them.
  returned: success
  type: list
  elements: str
  sample: []
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: []
config:
  description: What is in force, every key with its value, secrets masked.
  returned: success
  type: dict
  sample:
    instance: db1-main
    local:
      path: /backups/postgres
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
  sample: Install PostgreSQL first, or name another account.
outcome:
  description:
    - How the run ended.
    - V(misused) - the content, the secrets or the options are wrong. V(refused) - it would not have been safe.
      V(interrupted) - somebody ended it. V(failed) - anything else.
  returned: failure
  type: str
  sample: misused
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 2
"""

import platform
from typing import Any

from ansible_collections.pgops.backup.plugins.module_utils._ansible_config import CONFIG, request_of, secrets_in
from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.configuration import lay_down, take_away


def main() -> None:
    """Run the module."""
    task = HostTask(CONFIG)
    request = request_of(task.params)

    def work(host: Host) -> dict[str, Any]:
        if task.params["state"] == "absent":
            return take_away(host, request.path)
        return lay_down(host, request, name=platform.node())

    structure = ("path", "instance", "files", "directories", "staying", "removed")
    task.run(work, secrets=secrets_in(task.params), structure=structure)


if __name__ == "__main__":
    main()
