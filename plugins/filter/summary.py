# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what each host left behind to the lines at the end of a playbook, also for hosts that left nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: summary
short_description: Tell of many hosts which are protected and which are not
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Reads what the playbooks of this collection leave in the variable C(pgops_report) of each host. It has C(trouble), a
    list of what went wrong in the play, C(instances), what P(pgops.backup.assessment#filter) returned, and C(uncovered), the
    clusters of the host that belong to no instance; with C(removed), pgops is not on that host any more, as it was to be; with
    C(outdated), it answered by a configuration that a run would replace.
  - A host without it was unreachable, or failed before it could report.
positional: _input
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  check:
    description:
      - Whether this is check mode, so that the lines are a prediction.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say which hosts are protected
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts_all | pgops.backup.summary(hostvars)).lines }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: What is known of all hosts.
  type: dict
  contains:
    fleet:
      description: One message about all of them, a C(level) (V(ok) or V(critical)) and a C(text) that groups the hosts by what is wrong.
      type: dict
    protected:
      description: The hosts all of whose instances are protected and on which nothing went wrong.
      type: list
      elements: str
    unprotected:
      description: The other hosts.
      type: list
      elements: str
    removed:
      description: The hosts from which pgops was taken away; they count neither as protected nor as unprotected.
      type: list
      elements: str
    worked:
      description: The hosts on which nothing went wrong in the play, protected or not.
      type: list
      elements: str
    reasons:
      description: For each unprotected host, why it is so.
      type: dict
    lines:
      description: The same for a person, the unprotected hosts first; in check mode those last that are only to be set up.
      type: list
      elements: str
"""


# What fits into one message that somebody reads on a telephone.
_MOST_CAUSES = 8
_MOST_NAMES = 5
_OUTDATED = (
    "That is so by the configuration that is there now. A run would replace it first, and make the backup, the copy or the proof that"
    " the new one lacks then."
)


def summary(hosts: Sequence[str], hostvars: Mapping[str, Any], check: bool = False) -> dict[str, Any]:
    """Return which of `hosts` are protected, and lines that tell, by the hosts' names: Ansible may give them in any order."""
    protected: dict[str, list[str]] = {}
    unprotected: dict[str, list[str]] = {}
    worked: list[str] = []
    removed: list[str] = []
    for host in sorted(hosts, key=_by_name):
        report = hostvars[host].get("pgops_report") if host in hostvars else None
        if isinstance(report, Mapping) and report.get("removed"):
            removed.append(host)
            continue
        reasons = _reasons(report)
        (unprotected if reasons else protected)[host] = reasons or _remarks(report or {})
        worked += [host] if isinstance(report, Mapping) and not report.get("trouble") else []
    fresh = {
        host: said
        for host, said in unprotected.items()
        if check and host in hostvars and _is_fresh(hostvars[host].get("pgops_report"))
    }
    bad = {host: said for host, said in unprotected.items() if host not in fresh}
    lines = [_head(len(protected), len(fresh), len(removed), len(hosts) - len(removed), check)]
    gone = {
        host: ["pgops is not on this host any more." if not check else "pgops would go from this host."]
        for host in removed
    }
    groups = (
        ("NOT PROTECTED", bad),
        ("protected", protected),
        ("would be set up", fresh),
        ("would be removed" if check else "removed", gone),
    )
    for title, group in groups:
        for host, said in group.items():
            lines.append("%s: %s" % (host, title))
            lines += ["    %s" % text for text in said]
    return {
        "fleet": _fleet([host for host in hosts if host not in removed], unprotected, hostvars),
        "protected": list(protected),
        "unprotected": list(unprotected),
        "worked": worked,
        "removed": removed,
        "reasons": unprotected,
        "lines": lines,
    }


def _head(protected: int, fresh: int, removed: int, every: int, check: bool) -> str:
    if not check:
        return "%d of %d protected%s" % (protected, every, ", %d removed" % removed if removed else "")
    more = (", %d would be set up" % fresh if fresh else "") + (", %d would be removed" % removed if removed else "")
    return "Prediction, as check mode changes nothing: %d of %d protected already%s" % (protected, every, more)


def _is_fresh(report: Any) -> bool:
    """Tell whether all that a host with this report lacks is what a run would do there at first."""
    if not isinstance(report, Mapping) or report.get("trouble"):
        return False
    bad = [one for one in report.get("instances") or [] if not one["protected"]]
    return bool(bad) and all(one.get("predicted") for one in bad)


def _by_name(host: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that puts db2 before db10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", host)], host


def _fleet(hosts: Sequence[str], unprotected: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """Return one message about all hosts: the level, and a text that only changes when what is wrong somewhere changes."""
    if not unprotected:
        return {"level": "ok", "text": "All %d hosts are protected." % len(hosts)}
    groups: dict[str, list[str]] = {}
    for host in unprotected:
        for cause in _causes(hostvars[host].get("pgops_report") if host in hostvars else None):
            groups.setdefault(cause, []).append(host)
    lines = ["%d of %d hosts are not protected." % (len(unprotected), len(hosts))]
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    for cause, named in ranked[:_MOST_CAUSES]:
        names = ", ".join(sorted(named)[:_MOST_NAMES])
        more = " and %d more" % (len(named) - _MOST_NAMES) if len(named) > _MOST_NAMES else ""
        lines.append("%s: %d (%s%s)" % (cause, len(named), names, more))
    if len(ranked) > _MOST_CAUSES:
        lines.append("And %d other causes." % (len(ranked) - _MOST_CAUSES))
    return {"level": "critical", "text": "\n".join(lines)}


def _causes(report: Any) -> list[str]:
    """Return what is wrong with a host that is not protected, by words that are the same on every host."""
    if not isinstance(report, Mapping):
        return ["not reached"]
    bad = [one for one in report.get("instances") or [] if not one["protected"]]
    found = [check for one in bad for check in one.get("checks") or ()]
    found += ["a step of the play failed"] if report.get("trouble") else []
    return list(dict.fromkeys(found)) or ["nothing is known"]


def _reasons(report: Any) -> list[str]:
    """Return why a host with this report is not protected; nothing if it is."""
    if not isinstance(report, Mapping):
        return ["It could not be reached, or failed before it could report; see above."]
    trouble = list(report.get("trouble") or [])
    instances = report.get("instances") or []
    bad = [one for one in instances if not one["protected"]]
    if bad or trouble:
        safe = ["%s: still safe - %s" % (one["instance"], text) for one in bad or instances for text in one["safe"]]
        return _once(trouble + _said(bad or instances)) + safe
    return [] if instances else ["Nothing is known of it."]


def _once(lines: Sequence[str]) -> list[str]:
    """Return `lines` without those that only repeat, in other words around it, what an earlier one says."""
    kept: list[str] = []
    for line in lines:
        if not any(earlier.partition(": ")[2] in line for earlier in kept):
            kept.append(line)
    return kept


def _remarks(report: Mapping[str, Any]) -> list[str]:
    return [
        *_said(report.get("instances") or []),
        *([_OUTDATED] if report.get("outdated") else []),
        *("Not backed up: %s." % text for text in report.get("uncovered") or []),
    ]


def _said(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["%s: %s" % (one["instance"], line) for one in instances for line in one["lines"]]


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"summary": summary}
