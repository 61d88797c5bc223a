# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engine the collection on this machine has."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engine
short_description: Tell which engine this collection has, to the byte
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Tells the version and the digest of the program that M(pgops.backup.pgops_program) lays down, as C(pgops version) does on a host
    that has it.
options:
  _terms:
    description: Nothing is asked for.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: See which program hosts get
  ansible.builtin.debug:
    msg: "{{ lookup('pgops.backup.engine').digest }}"
"""

RETURN = r"""
_list:
  description: One dictionary.
  type: list
  elements: dict
  contains:
    version:
      description: Version of the collection.
      type: str
    digest:
      description: SHA-256 of the names and contents of the engine's source files.
      type: str
"""

from functools import lru_cache
from typing import Any, Optional

from ansible.plugins.lookup import LookupBase

from ansible_collections.pgops.backup.plugins.module_utils._engine import __version__
from ansible_collections.pgops.backup.plugins.module_utils._engine.identity import digest, own_files


@lru_cache(maxsize=1)
def _own_digest() -> str:
    """Return the digest, worked out once by a process and those that it forks: they ask for each host."""
    return digest(own_files())


class LookupModule(LookupBase):
    """The lookup of this file."""

    def run(self, terms: list[Any], variables: Optional[dict[str, Any]] = None, **kwargs: Any) -> list[dict[str, str]]:
        """Return it."""
        del terms, variables, kwargs
        return [{"version": __version__, "digest": _own_digest()}]
