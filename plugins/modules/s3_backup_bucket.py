#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_backup_bucket
short_description: Make a bucket fit for backups
version_added: 0.1.0
description:
  - Makes the bucket that O(s3) names where there is none, and gives it versions, Object Lock, a life cycle, a block of
    public access and tags. Returns the two IAM policies that are the least which backups need there.
  - A bucket is never removed, nor is anything in it. What is not asked for stays as it is. Of the life cycle only the
    rules that this module made for O(s3.prefix) are altered; those of others stay.
  - What cannot be is said before anything is touched. What the store does not take is a warning and stands in
    RV(refused).
  - It runs where the credentials are that may do this, which is rather the controller than a host with backups. It
    connects to no PostgreSQL and leaves no run record.
extends_documentation_fragment:
  - pgops.backup.attributes
  - pgops.backup.connection
  - pgops.backup.place
attributes:
  check_mode:
    support: full
    details:
      - What a store refuses only when it is tried cannot be predicted.
  diff_mode:
    support: full
    details:
      - Shows the settings of the bucket.
  idempotent:
    support: full

options:
  state:
    description:
      - V(present) - the bucket exists and is as the other options say.
    type: str
    choices: [present]
    default: present
  versioning:
    description:
      - Whether the bucket keeps what is overwritten or removed as older versions.
      - Without versions, whoever may write can overwrite what is there.
      - Stays as it is when this is not given.
    type: bool
  object_lock:
    description:
      - Keep each new version from being removed for a time. Brings versions with it.
      - Only a bucket that was made with Object Lock can have this. An existing bucket without it is refused.
      - Applies to all that is written to the bucket from then on. It cannot be turned off again.
      - Stays as it is when this is not given.
    type: dict
    suboptions:
      mode:
        description:
          - V(GOVERNANCE) - those with C(s3:BypassGovernanceRetention) may remove it before its time.
          - V(COMPLIANCE) - nobody may.
        type: str
        choices: [GOVERNANCE, COMPLIANCE]
        required: true
      days:
        description:
          - How long.
        type: int
        required: true
  lifecycle:
    description:
      - What the store does by itself below O(s3.prefix). A value of V(0) stands for never.
      - Stays as it is when this is not given. Rules of ours that this no longer asks for are removed.
    type: dict
    suboptions:
      archive_after:
        description:
          - Days after which sets go to O(lifecycle.archive_class).
        type: int
        default: 0
      archive_class:
        description:
          - The colder storage class.
          - What lies in V(GLACIER_IR), V(STANDARD_IA) or V(ONEZONE_IA) can be read at once.
          - What lies in V(GLACIER) or V(DEEP_ARCHIVE) must be thawed before it can be verified or restored. Files below
            8 MiB stay where they are then, as the manifests must be readable. A store that does not keep such a limit
            is refused.
        type: str
        default: GLACIER_IR
      noncurrent_days:
        description:
          - Days after which what was overwritten or removed is gone for good, in a bucket with versions. A lock that
            lasts longer is respected.
        type: int
        default: 0
      abort_multipart_days:
        description:
          - Days after which an upload that nobody finished is given up.
        type: int
        default: 7
  public_access_block:
    description:
      - Block all public access to the bucket. V(false) leaves it as it is.
      - At Ceph only C(IgnorePublicAcls) is turned on, with a warning. Under the other three settings Ceph 18 denies every
        write, or takes every policy of a bucket for a public one.
    type: bool
    default: true
  tags:
    description:
      - Tags of the bucket. Others that it has stay. The tags of objects are O(s3.tags).
    type: dict
    default: {}
  instances:
    description:
      - Names of the instances that the policies are for; all below O(s3.prefix) without any.
      - Only where they are named can the writer remove the objects that C(pgops probe) makes.
    type: list
    elements: str
    default: []
  policies:
    description:
      - More policies, as RV(policies). A dictionary of names, for example of hosts, each with the list of the instances that
        its policies are for.
    type: dict
    default: {}
seealso:
  - module: pgops.backup.s3_backup_sync
  - module: pgops.backup.backup_prune
author:
  - pgops contributors (@pgops)
"""

EXAMPLES = r"""
- name: Make a bucket whose backups nobody can remove for thirty days
  pgops.backup.s3_backup_bucket:
    s3:
      bucket: example-backups
      region: eu-central-1
      profile: admin
    object_lock:
      mode: COMPLIANCE
      days: 30
    lifecycle:
      noncurrent_days: 30
    instances: [db1-main]
  delegate_to: localhost
  register: bucket

- name: Show what the identity of the host must be allowed to
  ansible.builtin.debug:
    var: bucket.policy_writer

- name: Archive after ninety days, in a bucket of our own store
  pgops.backup.s3_backup_bucket:
    s3:
      bucket: backups
      prefix: databases
      endpoint_url: https://s3.example.com
      addressing_style: path
      credentials_file: /root/.aws/credentials
    versioning: true
    lifecycle:
      archive_after: 90
      archive_class: COLD
      noncurrent_days: 14
    tags:
      team: data
"""

RETURN = r"""
bucket:
  description: Name of the bucket.
  returned: success
  type: str
  sample: example-backups
created:
  description: Whether it was made, or would be.
  returned: success
  type: bool
  sample: true
changes:
  description: The settings that were altered, or would be, with what they were and what they are.
  returned: success
  type: list
  elements: dict
  sample:
    - setting: versioning
      before: "Off"
      after: Enabled
  contains:
    setting:
      description: Its name in RV(settings).
      type: str
      returned: success
    before:
      description: What it was.
      type: raw
      returned: success
    after:
      description: What it is.
      type: raw
      returned: success
settings:
  description: The settings of the bucket. Null for what the store does not know.
  returned: success
  type: dict
  sample:
    public_access_block: true
    versioning: Enabled
    object_lock:
      enabled: true
      mode: COMPLIANCE
      days: 30
    lifecycle:
      - ID: "pgops clean: database-backups/"
        Status: Enabled
        Filter:
          Prefix: database-backups/
        AbortIncompleteMultipartUpload:
          DaysAfterInitiation: 7
    tags:
      team: data
  contains:
    public_access_block:
      description: Whether all public access is blocked.
      type: bool
      returned: success
    versioning:
      description: V(Enabled), V(Suspended) or V(Off).
      type: str
      returned: success
    object_lock:
      description: Whether the bucket has Object Lock, and its default mode and days.
      type: dict
      returned: success
    lifecycle:
      description: All rules of the bucket, as S3 words them.
      type: list
      elements: dict
      returned: success
    tags:
      description: The tags of the bucket.
      type: dict
      returned: success
refused:
  description: The settings that were asked for and that the store does not take.
  returned: success
  type: list
  elements: str
  sample: []
capabilities:
  description: Which settings the store offers, as far as this run could tell.
  returned: success
  type: dict
  sample:
    public_access_block: true
    versioning: true
    object_lock: true
    lifecycle: true
    tags: true
policy_writer:
  description:
    - IAM policy of the identity that backs up, copies, verifies and restores. It cannot remove a backup.
    - In a bucket without versions it can overwrite one.
  returned: success
  type: dict
  sample:
    Version: "2012-10-17"
    Statement:
      - Sid: List
        Effect: Allow
        Action: ["s3:ListBucket"]
        Resource: ["arn:aws:s3:::example-backups"]
        Condition:
          StringLike:
            s3:prefix: ["database-backups/db1-main/*"]
policy_pruner:
  description: IAM policy of the identity that prunes. It can remove sets, pins and WAL, and add nothing.
  returned: success
  type: dict
  sample:
    Version: "2012-10-17"
    Statement:
      - Sid: Remove
        Effect: Allow
        Action: ["s3:DeleteObject"]
        Resource: ["arn:aws:s3:::example-backups/database-backups/db1-main/sets/*"]
policies:
  description: The two policies for each name in O(policies).
  returned: success
  type: dict
  sample: {}
verb:
  description: What was done.
  returned: always
  type: str
  sample: bucket
instance:
  description: Name of the instance. It means nothing here.
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
  sample: 0.9
run_warnings:
  description: What the store does not offer, and what is unwise about the bucket. Ansible shows the same as warnings.
  returned: always
  type: list
  elements: str
  sample: []
hint:
  description: What to do next.
  returned: failure
  type: str
  sample: "Allow them s3:ListBucket; or the name is taken by somebody else: then choose another."
outcome:
  description:
    - How the run ended.
    - V(misused) - the options or the configuration are wrong. V(unreachable) - a library, the store or the network was
      out of reach. V(refused) - the bucket cannot become so. V(interrupted) - somebody ended it. V(failed) - anything
      else.
  returned: failure
  type: str
  sample: refused
exit_code:
  description: The exit code that C(pgops) has for this outcome, 1 to 5.
  returned: failure
  type: int
  sample: 5
"""

from typing import Any, Optional

from ansible_collections.pgops.backup.plugins.module_utils._ansible import Task, View, bindings
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.bucket import Lifecycle, Lock, Wanted
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.bucket import Request, look, prepare

OWN: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present"], "default": "present"},
    "versioning": {"type": "bool"},
    "object_lock": {
        "type": "dict",
        "options": {
            "mode": {"type": "str", "choices": ["GOVERNANCE", "COMPLIANCE"], "required": True},
            "days": {"type": "int", "required": True},
        },
    },
    "lifecycle": {
        "type": "dict",
        "options": {
            "archive_after": {"type": "int", "default": 0},
            "archive_class": {"type": "str", "default": "GLACIER_IR"},
            "noncurrent_days": {"type": "int", "default": 0},
            "abort_multipart_days": {"type": "int", "default": 7},
        },
    },
    "public_access_block": {"type": "bool", "default": True},
    "tags": {"type": "dict", "default": {}},
    "instances": {"type": "list", "elements": "str", "default": []},
    "policies": {"type": "dict", "default": {}},
}


def made(cls: Any, values: Optional[dict[str, Any]]) -> Any:
    """Return an object of `cls` with `values`, None for None."""
    return None if values is None else cls(**values)


def main() -> None:
    """Run the module."""
    task = Task("bucket", bindings(), own=OWN)
    given = task.params
    wanted = Wanted(
        versioning=given["versioning"],
        object_lock=made(Lock, given["object_lock"]),
        lifecycle=made(Lifecycle, given["lifecycle"]),
        public_access_block=given["public_access_block"],
        tags={key: str(value) for key, value in given["tags"].items()},
    )
    request = Request(wanted, instances=tuple(given["instances"]), policies=given["policies"], dry_run=task.check_mode)
    task.run(
        lambda context: prepare(context, request),
        view=View(look, lambda _before, result: result["settings"]),
        recorded=False,
        structure=("policy_writer", "policy_pruner", "policies"),
    )


if __name__ == "__main__":
    main()
