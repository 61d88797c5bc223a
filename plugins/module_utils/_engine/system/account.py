# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Which account does the work. What root writes by hand, the nightly run of another account could not go on with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Optional

from ..core.errors import UsageError
from ..settings import Config


def owner_of_backups(config: Config) -> Optional[os.stat_result]:
    """Return the facts of the backup directory if another account than root owns it, None otherwise."""
    path = Path(config.local.path)
    for candidate in (path / config.instance, path):
        try:
            facts = candidate.stat()
        except OSError:
            continue
        return facts if facts.st_uid != 0 else None
    return None


def own_name() -> str:
    """Return the name of the account that this process runs as, its number where it has none."""
    return _name(os.geteuid())


def owner_name(path: Path) -> str:
    """Return the name of who owns the file `path`, or the directory that hides it; empty where nobody can tell."""
    for candidate in (path, path.parent):
        try:
            return _name(candidate.stat().st_uid)
        except OSError:
            continue
    return ""


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return "#%d" % number


def become_owner(config: Config) -> str:
    """Let root become the owner of the backup directory, for good, and return that account's name.

    Empty when there is nothing to do: we are not root, or the directory is not there or is root's own.
    Raise UsageError when that account could not read a file that the run needs.
    """
    if os.geteuid() != 0:
        return ""
    facts = owner_of_backups(config)
    if facts is None:
        return ""
    try:
        account = pwd.getpwuid(facts.st_uid)
        name, group, home = account.pw_name, account.pw_gid, account.pw_dir
        groups = os.getgrouplist(name, group)
    except KeyError:
        name, group, home, groups = str(facts.st_uid), facts.st_gid, "/", [facts.st_gid]
    os.setgroups(groups)
    os.setgid(group)
    os.setuid(facts.st_uid)
    os.environ.update(HOME=home, USER=name, LOGNAME=name)
    os.chdir("/")
    _check_identity(config, name)
    return name


def _check_identity(config: Config, name: str) -> None:
    file = config.restore.identity_file
    if file and not os.access(file, os.R_OK):
        raise UsageError(
            "The account %s, which owns %s and so does the work, cannot read %s." % (name, config.local.path, file),
            hint="Give it a copy (install -m 600 -o %s %s …), or stay root with --as-root." % (name, file),
        )


__all__ = ("become_owner", "own_name", "owner_name", "owner_of_backups")
