# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts would keep the backups of different clusters under one name in one bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple

from ansible.errors import AnsibleError
from jinja2 import UndefinedError

from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import S3

DOCUMENTATION = r"""
name: namesakes
short_description: Tell which hosts would keep different clusters under one name in one bucket
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Compares the variables C(pgops_instances), C(pgops_s3) and C(pgops_group) of hosts. In a bucket, a backup is found by the name
    of its instance.
  - The members of one C(pgops_group) share a name on purpose.
  - A host whose variables cannot be told is passed over; what is wrong with them is told where they are needed.
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
"""

EXAMPLES = r"""
- name: No two hosts share a name
  ansible.builtin.assert:
    that: ansible_play_hosts_all | pgops.backup.namesakes(hostvars) | length == 0
  run_once: true
"""

RETURN = r"""
_value:
  description: A sentence for each name that more than one cluster has.
  type: list
  elements: str
  sample: ["db1 and db2 each call an instance main, and would keep it in s3://backups/database-backups/main."]
"""

_PREFIX = S3().prefix


class _Home(NamedTuple):
    """Where an instance has its copies: the store, the bucket, the prefix and its own name."""

    store: str
    bucket: str
    prefix: str
    name: str


def namesakes(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each place in which several of `hosts`, that are no members of one group, keep an instance."""
    found: dict[_Home, dict[str, frozenset[str]]] = {}
    for host in sorted(hosts):
        try:
            for home, members in _homes(host, hostvars):
                found.setdefault(home, {})[host] = members
        except (AnsibleError, UndefinedError, KeyError, TypeError, AttributeError):
            continue
    said = []
    for home, groups in sorted(found.items()):
        # Who is in no group shares with nobody; members know each other.
        together = frozenset.intersection(*groups.values())
        if len(groups) > 1 and not together:
            names = list(groups)
            said.append(
                "%s and %s each call an instance %s, and would keep it in s3://%s."
                % (", ".join(names[:-1]), names[-1], home.name, "/".join(filter(None, home[1:])))
            )
    return said


def _homes(host: str, hostvars: Mapping[str, Any]) -> Iterator[tuple[_Home, frozenset[str]]]:
    """Yield where the instances of a host have their copies, and the members of the group of each."""
    known = hostvars[host]
    if known.get("agent_state") == "absent":
        return  # it goes, and keeps nothing there any more
    for one in known.get("pgops_instances") or [{"name": "%s-main" % host}]:
        s3 = _section(known, one, "s3")
        if s3.get("bucket"):
            prefix = str(_PREFIX if s3.get("prefix") is None else s3["prefix"]).strip("/")
            members = _section(known, one, "group").get("members") or []
            home = _Home(
                str(s3.get("endpoint_url") or "").rstrip("/").lower(), str(s3["bucket"]), prefix, str(one["name"])
            )
            yield home, frozenset(str(member) for member in members)


def _section(known: Mapping[str, Any], one: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of the configuration of an instance: what all have, and what it says otherwise; null leaves it out."""
    if name in one and one[name] is None:
        return {}
    other = known.get("pgops_other") or {}
    shared, own = other.get(name) or known.get("pgops_%s" % name) or {}, one.get(name) or {}
    return {key: own[key] if key in own else shared[key] for key in {*shared, *own} & {*_ASKED}}


# Of all that may stand there, as secrets may stand beside it and cost a question to a vault.
_ASKED = ("bucket", "endpoint_url", "members", "prefix")


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"namesakes": namesakes}
