# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the answers of 'pgops status' to what is still to be done on a host, and to whether it is protected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.naming import is_physical
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import MASK

DOCUMENTATION = r"""
name: assessment
short_description: Tell from the answers of C(pgops status) which instances of a host are protected
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Reads what a task returned that ran C(pgops --json status) in a loop over instances.
  - An instance is protected when each question of O(require) is answered with V(ok). What else is wrong is told beside.
positional: _input
options:
  _input:
    description: The results of the loop. Each item has the name of an instance as C(key).
    type: list
    elements: dict
    required: true
  require:
    description:
      - The questions that count. C(off-site copy) counts only where there is an S3 place, C(base backup) and C(off-site base backup)
        where base backups are scheduled.
      - C(WAL archive) is none of those that count by themselves; with it, nothing critical may be wrong with the WAL, where it is archived.
    type: list
    elements: str
    choices: [backup, base backup, off-site copy, off-site base backup, verification, WAL archive]
    default: [backup, base backup, off-site copy, off-site base backup, verification]
  planned:
    description:
      - In check mode, on a host that is still to be set up - what would be done for each instance that C(pgops) cannot tell of,
        by its name, as P(pgops.backup.instances#filter) has it in RV(pgops.backup.instances#filter:_value[].first).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Ask pgops how safe the instance is
  ansible.builtin.command:
    argv: [pgops, --json, --config, "{{ item.value }}", status]
  loop: "{{ {'db1-main': '/etc/pgops/config.yml'} | dict2items }}"
  register: status
  changed_when: false
  failed_when: false

- name: Insist on a backup that is off the server and proven
  ansible.builtin.assert:
    that: (status.results | pgops.backup.assessment) is all
    fail_msg: "{{ status.results | pgops.backup.assessment | map(attribute='lines') | flatten }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each instance.
  type: list
  elements: dict
  contains:
    instance:
      description: Name of the instance.
      type: str
    protected:
      description: Whether it is protected.
      type: bool
    answered:
      description: Whether C(pgops) could tell at all.
      type: bool
    predicted:
      description: Whether RV(_value[].needs) are what O(planned) says, as C(pgops) could not tell.
      type: bool
    checks:
      description: What is wrong, by the names of the questions; C(no answer) when C(pgops) could not tell.
      type: list
      elements: str
    needs:
      description:
        - Which of V(backup), V(base), V(sync) and V(verify) would help.
        - Where C(verification) is not among O(require), no V(verify) once the newest sets have passed at any level.
      type: list
      elements: str
    places:
      description: The places of the instance, V(local) and V(s3).
      type: list
      elements: str
    safe:
      description: What a recovery could start from, whatever is wrong.
      type: list
      elements: str
    lines:
      description: What a person should read, the most important first.
      type: list
      elements: str
"""

QUESTIONS = {
    "backup": "backup",
    "base backup": "base",
    "off-site copy": "sync",
    "off-site base backup": "sync",
    "verification": "verify",
}
# Asked only where they are required; no verb answers them.
OPTIONAL = ("WAL archive",)
_WAL = "wal "  # how the checks of the WAL begin
# What a run would do, for a person.
_WOULD = {
    "backup": "back up",
    "base": "take a base backup",
    "sync": "copy it to S3",
    "verify": "verify that it restores",
}
# What answers a question when it cannot be asked as usual.
_INSTEAD = {"off-site place": "off-site copy", "local place": "backup"}


def assessment(
    results: Sequence[Mapping[str, Any]],
    require: Sequence[str] = tuple(QUESTIONS),
    planned: Optional[Mapping[str, Sequence[str]]] = None,
) -> list[dict[str, Any]]:
    """Return what each of the `results`, of a loop over instances or of a look at the host, says of its instance."""
    return [_assess(result, require, planned or {}) for result in results]


def _assess(result: Mapping[str, Any], require: Sequence[str], planned: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    name = result["instance"] if "instance" in result else result["item"]["key"]
    try:
        said = _answer(result)
        findings = said["findings"]
    except (ValueError, KeyError, TypeError):
        return _unanswered(name, _why(result), list(planned.get(name, ())))
    bad = [finding for finding in findings if finding["severity"] != "ok"]
    asked = {_INSTEAD.get(finding["check"], finding["check"]) for finding in bad}
    # A backlog of some minutes passes by itself.
    asked |= {OPTIONAL[0] for one in bad if one["check"].startswith(_WAL) and one["severity"] == "critical"}
    needs = list(dict.fromkeys(verb for question, verb in QUESTIONS.items() if question in asked))
    if "backup" in needs or "base" in needs:
        # A new set is neither off the server nor proven.
        needs = [verb for verb in ("backup", "base") if verb in needs] + ["sync", "verify"]
    elif "verification" not in require and "sync" not in needs and _read_whole(said):
        # Where nothing can be restored, as without the key of encrypted sets, no further look finds more than this one has.
        needs = [verb for verb in needs if verb != "verify"]
    return {
        "instance": name,
        # What a secret has hidden may be anything.
        "protected": not asked & set(require) and not any(MASK in check for check in asked),
        "answered": True,
        "predicted": False,
        "checks": list(dict.fromkeys(finding["check"] for finding in bad)),
        "needs": _places_allow(needs, said),
        "places": [place["place"] for place in said["places"]],
        "safe": list(said.get("safe") or []),
        "lines": [finding["text"] for finding in bad] or [finding["text"] for finding in findings if _counts(finding)],
    }


def _unanswered(name: str, why: str, planned: list[str]) -> dict[str, Any]:
    line = "Nobody can tell: %s" % why
    if planned:
        words = [_WOULD[verb] for verb in planned]
        line = "Would %s and %s. As yet: %s" % (", ".join(words[:-1]), words[-1], why)
    return {
        "instance": name,
        "protected": False,
        "answered": False,
        "predicted": bool(planned),
        "checks": ["no answer"],
        "needs": planned,
        "places": [],
        "safe": [],
        "lines": [line],
    }


def _answer(result: Mapping[str, Any]) -> Any:
    """Return what pgops said, by the task that ran it or as pgops_host_info has it. Raise ValueError where it said nothing."""
    return result["said"] if "said" in result else json.loads(result.get("stdout") or "")


def _read_whole(said: Mapping[str, Any]) -> bool:
    """Tell whether a place has passed, at any level, with its newest set of each family (dumps, base backups)."""
    return any(_newest_passed(place.get("sets") or []) for place in said["places"])


def _newest_passed(sets: Sequence[Mapping[str, Any]]) -> bool:
    newest: dict[bool, Mapping[str, Any]] = {}
    for described in sorted((one for one in sets if one.get("complete")), key=lambda one: str(one["id"])):
        newest[is_physical(described["id"])] = described
    outcomes = [
        {proof["outcome"] for proof in (described.get("proofs") or {}).values()} for described in newest.values()
    ]
    return bool(outcomes) and all(found == {"passed"} for found in outcomes)


def _places_allow(needs: list[str], said: Mapping[str, Any]) -> list[str]:
    has_s3 = any(place["place"] == "s3" for place in said["places"])
    return [verb for verb in needs if verb != "sync" or has_s3]


def _counts(finding: Mapping[str, Any]) -> bool:
    return finding["check"] in QUESTIONS


def _why(result: Mapping[str, Any]) -> str:
    try:
        said = _answer(result)
        return "%s %s" % (said["message"], said["hint"])
    except (ValueError, KeyError, TypeError):
        pass
    if not result.get("stderr") and result.get("rc") == 2:
        return "pgops is not installed on this host."
    return " ".join(str(result.get("stderr") or result.get("msg") or "pgops gave no answer.").split())


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"assessment": assessment}
