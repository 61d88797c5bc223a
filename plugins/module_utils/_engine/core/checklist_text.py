# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The checklists for people: for a terminal and for a wiki. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .checklist import SIGN, SIGNING
from .checklist_proofs import DONE, OPEN, UNKNOWN
from .commands import addressed
from .times import parse_iso

_MARKS = {DONE: "[x]", OPEN: "[ ]", UNKNOWN: "[?]"}


def markdown(result: Mapping[str, Any]) -> str:
    """Return the checklists for a wiki."""
    lines = ["# Checklists of %s on %s" % (_plain(result["instance"]), _plain(result["host"])), ""]
    lines += ["%d of %d lines are ticked, as of %s." % (result["done"], result["lines"], _minute(result["now"]))]
    for stage in result["stages"]:
        lines += ["", "## %s (%d of %d)" % (stage["title"], stage["done"], len(stage["lines"])), ""]
        for line in stage["lines"]:
            mark = "[x]" if line["ticked"] else "[ ]"
            said = (mark, *(_plain(word) for word in (line["text"], line["who"], _seen(line))))
            lines.append("- %s **%s** (%s): %s" % said)
    return "\n".join(lines) + "\n"


def text(result: Mapping[str, Any], *, config_file: str = "") -> str:
    """Return the checklists for a terminal, with commands about `config_file`."""
    lines = ["%s on %s: %d of %d ticked" % (result["instance"], result["host"], result["done"], result["lines"])]
    for stage in result["stages"]:
        lines += ["", "%s (%d of %d)" % (stage["title"], stage["done"], len(stage["lines"]))]
        for line in stage["lines"]:
            lines.append("  %s %s (%s)" % (_MARKS[line["state"]], line["text"], line["who"]))
            lines.append("      %s: %s" % (line["id"], _flat(_seen(line))))
            if line["todo"]:
                how = "sign" if line["todo"] == SIGN else line["todo"]
                lines.append("      → %s" % (addressed(SIGNING % line["id"], config_file) if how == "sign" else how))
    return "\n".join(lines) + "\n"


def _seen(line: Mapping[str, Any]) -> str:
    return "%s (%s)" % (line["seen"], _minute(line["when"])) if line["when"] and line["ticked"] else str(line["seen"])


def _minute(moment: str) -> str:
    return parse_iso(moment).strftime("%Y-%m-%d %H:%M UTC")


def _flat(said: str) -> str:
    return " ".join(said.split())


def _plain(said: str) -> str:
    """Return `said` so that nothing in it is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>#|!])", r"\\\1", _flat(said))


__all__ = ("markdown", "text")
