# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The rule by which logrotate turns our logs over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..core.errors import UsageError
from .changes import Change, file, gone, ourselves

_HEAD = "# Written by Ansible (pgops.backup.pgops_program): changes made here are lost.\n"
_RULE = """\
"%(directory)s/*.log" {
    # The directory belongs to the account that writes the logs, and logrotate must not follow what that account puts there.
    su %(owner)s %(group)s
    weekly
    rotate %(keep)d
    missingok
    notifempty
    compress
    # A run that began before the rotation still has the file open.
    delaycompress
    create 0640 %(owner)s %(group)s
}
"""


@dataclass(frozen=True)
class Rotation:
    """Where the rule lies, for which directories (without one there is to be no rule), whose the logs are, how many weeks stay."""

    path: Path = Path("/etc/logrotate.d/pgops")
    directories: Sequence[str] = ()
    owner: str = "postgres"
    group: str = "postgres"
    keep: int = 12


def check(rotation: Rotation) -> None:
    """Raise UsageError for what logrotate would read otherwise than it is meant."""
    for name in [str(rotation.path), *rotation.directories]:
        # logrotate(8) reads quotes, wild cards, backslashes and braces.
        if not name.startswith("/") or re.search(r"[\"'*?\[\]{}\\\x00-\x1f]", name):
            raise UsageError(
                "log_directories: %r cannot stand in a rule of logrotate." % name,
                hint="Give full paths without quotes, wild cards, braces or backslashes; or turn logrotate off.",
            )
    for name in (rotation.owner, rotation.group):
        if not re.fullmatch(r"[^\s\"'{}#]+", name):
            raise UsageError("log_owner, log_group: %r is no name of an account." % name)
    if rotation.keep < 0:
        raise UsageError("log_keep: expected 0 or more weeks, found %d." % rotation.keep)


def change(rotation: Rotation) -> Optional[Change]:
    """Return the step after which the rule is there, or is not where it has no directory and was ours; None if it is so."""
    if not rotation.directories:
        return gone(rotation.path) if _is_ours(rotation.path) else None
    facts = {"owner": rotation.owner, "group": rotation.group, "keep": rotation.keep}
    rules = [_RULE % {"directory": name, **facts} for name in sorted(set(rotation.directories))]
    return file(rotation.path, "".join([_HEAD, *rules]).encode("utf-8"), mode=0o644, owned=ourselves())


def _is_ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and path.read_text(encoding="utf-8", errors="replace").startswith(_HEAD)
    except OSError:
        return False


__all__ = ("Rotation", "change", "check")
