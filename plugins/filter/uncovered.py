# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which clusters of a host nobody backs up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

DOCUMENTATION = r"""
name: uncovered
short_description: Tell which clusters of a host belong to no instance
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Compares the clusters that M(pgops.backup.pgops_host_info) tells with the ports of the instances.
positional: _input, ports
options:
  _input:
    description: The clusters.
    type: list
    elements: dict
    required: true
  ports:
    description: The port of each instance. With a V(null) among them nobody can tell, and none counts as uncovered.
    type: list
    elements: int
    required: true
"""

EXAMPLES = r"""
- name: Name the clusters that have no backup
  ansible.builtin.debug:
    msg: "{{ [{'version': '15', 'name': 'main', 'port': 5433}] | pgops.backup.uncovered([5432]) }}"
"""

RETURN = r"""
_value:
  description: What a person should read of each such cluster.
  type: list
  elements: str
  sample: [cluster 15/main on port 5433]
"""


def uncovered(clusters: Sequence[Mapping[str, Any]], ports: Sequence[Optional[int]]) -> list[str]:
    """Return the words for each of `clusters` whose port is none of `ports`."""
    if None in ports:
        return []
    return [
        "cluster %s/%s on port %d" % (each["version"], each["name"], each["port"])
        for each in clusters
        if each["port"] not in ports
    ]


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"uncovered": uncovered}
