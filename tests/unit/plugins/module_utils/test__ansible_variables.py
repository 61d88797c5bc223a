# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of the variables: all that people may set and all that the playbooks keep are known, and a slip is told."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.pgops.backup.plugins.module_utils import _ansible_variables
from ansible_collections.pgops.backup.plugins.module_utils._ansible_variables import KNOWN, unread

ROOT = Path(_ansible_variables.__file__).resolve().parents[2]
# Tags, modules and names on the host, which are no variables.
NO_VARIABLES = {
    "pgops_install",
    "pgops_host_info",
    "pgops_config",
    "pgops_program",
    "pgops_bucket_",
    "pgops_sync",
    "pgops_wal_ship",
}


def words(*globs: str) -> set[str]:
    texts = [path.read_text(encoding="utf-8") for pattern in globs for path in ROOT.glob(pattern)]
    return {word for text in texts for word in re.findall(r"\bpgops_\w+", text)}


def test_every_variable_of_the_playbooks_and_roles_is_known() -> None:
    found = words("playbooks/**/*.yml", "roles/*/defaults/*.yml", "roles/*/tasks/*.yml", "roles/*/vars/*.yml")
    assert len(found) > len(KNOWN)
    assert unread(found - NO_VARIABLES) == ""


def test_what_people_may_set_is_documented_and_read() -> None:
    table = (ROOT / "docs" / "setup.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `pgops_"))
    assert {"pgops_" + word for word in KNOWN} == set(re.findall(r"\bpgops_\w+", rows))
    assert {"pgops_" + word for word in KNOWN} <= words("playbooks/**/*.yml", "roles/*/defaults/*.yml")


def test_a_slip_is_told_with_what_may_be_meant() -> None:
    assert unread(["pgops_backups", "pgops_zzz", "pgops_s3", "other", "pgops_backups"]) == (
        "Nothing of this collection reads pgops_backups (did you mean pgops_backup?), pgops_zzz."
    )
    assert unread(["pgops_s3", "ansible_user"]) == ""
