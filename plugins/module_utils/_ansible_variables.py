# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The variables of the playbooks and roles: a slip in the name of one, and a value of another kind, in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Those that people set, by what follows pgops_.
KNOWN = (
    *("account", "account_group", "alerts", "backup", "base", "checklist", "fleet_config", "fleet_host", "group"),
    *("instances", "local", "mailto", "metrics", "monitoring", "other", "postgres", "require", "restore", "restore_as"),
    *("s3", "schedule", "scheduler", "secrets", "serial", "storage", "verify", "wal"),
)
# What can be asked of a host before it counts as protected.
QUESTIONS = ("backup", "base backup", "off-site copy", "off-site base backup", "verification", "WAL archive")
# What the playbooks keep for themselves.
_OWN = re.compile(
    "(?:play|step|gate|recover|restore|checklist)_.*|answered|archives|bad|checklists|done|failed_step|failures|gate|hindrances|host"
    "|is_done|judged|knowing|lacking|namesakes|needs|phrase|predicted|reached|recover|recovered|report|restored|rollback|status|step|summary"
    "|trouble|uncovered"
)
_PREFIX = "pgops_"


def unread(names: Iterable[str]) -> str:
    """Return words about those of the variables `names` that nothing reads, empty when there are none."""
    found = []
    for name in sorted(set(names)):
        word = name[len(_PREFIX) :]
        if name.startswith(_PREFIX) and word not in KNOWN and not _OWN.fullmatch(word):
            near = difflib.get_close_matches(word, KNOWN, n=1)
            found.append("%s (did you mean %s%s?)" % (name, _PREFIX, near[0]) if near else name)
    return "Nothing of this collection reads %s." % ", ".join(found) if found else ""


def unasked(require: Any) -> list[str]:
    """Return what is wrong with pgops_require: without a question that is asked, each host would count as protected."""
    known = ", ".join(QUESTIONS)
    if not isinstance(require, (list, tuple)) or not require:
        return ["pgops_require: expected a list of some of %s, found %s." % (known, kind_of(require))]
    return [
        "pgops_require: %s is none of %s." % (repr(str(one)) if isinstance(one, str) else kind_of(one), known)
        for one in require
        if one not in QUESTIONS
    ]


def kind_of(value: Any) -> str:
    """Return what kind of value it is, for a person; not the value, which may hold a secret, but for numbers and the like."""
    if isinstance(value, Mapping):
        return "keys and values" if value else "nothing"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "a text" if isinstance(value, str) else repr(value)


__all__ = ("KNOWN", "QUESTIONS", "kind_of", "unasked", "unread")
