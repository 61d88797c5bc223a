# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""In a group of servers, whose turn it is: one node works, the others record that they left it to that one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..context import Context
from ..core.group import behind, choose
from ..core.times import parse_span
from ..postgres.members import ask

Result = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """Whether this node is to work. `left_to` says who works instead; `facts` belong into the result, if there is a group."""

    mine: bool = True
    left_to: str = ""
    facts: Result = field(default_factory=dict)

    def skipped(self) -> Result:
        """Return the result of a run that left its work to another node."""
        return {"changed": False, "skipped": self.left_to, **self.facts}


def whose_turn(context: Context) -> Turn:
    """Ask the group whose turn it is; without a group it is ours.

    Raise RefusedError or UnreachableError if nobody can tell or none qualifies: that must reach a person.
    """
    group = context.config.group
    if not group.members:
        return Turn()
    members = ask(context.config)
    for member in members:
        if member.trouble:
            context.warn("The member %s of this group could not be asked: %s" % (member.name, member.trouble))
    chosen = choose(members, run_on=group.run_on, max_lag=parse_span(group.max_lag))
    if chosen.name == group.node:
        unknown = {member.name for member in members if member.trouble}
        for name, why in chosen.passed_over:
            if name not in unknown:
                context.warn("%s backs up this group instead of %s: %s." % (chosen.name, name, why))
    written = next((m.written for m in members if m.written is not None), None)
    shown = [
        {"name": m.name, "state": m.state, "behind_seconds": behind(m, written) if m.standby else None} for m in members
    ]
    facts = {"group": {"node": group.node, "chosen": chosen.name, "why": chosen.why, "members": shown}}
    return Turn(chosen.name == group.node, "%s backs up this group: %s." % (chosen.name, chosen.why), facts)


__all__ = ("Turn", "whose_turn")
