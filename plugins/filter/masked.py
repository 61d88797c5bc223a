# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, pgops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A command of somebody else, as a person may read it."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import masked_command

DOCUMENTATION = r"""
name: masked
short_description: Mask the secrets in a command
version_added: 0.1.0
author: pgops contributors (@pgops)
description:
  - Masks the values of options and variables whose names say that they are secret, passwords in addresses, and what looks like a
    secret by itself.
options:
  _input:
    description: The command, as a shell would read it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show how a server archives
  ansible.builtin.debug:
    msg: "{{ 'PGBACKREST_REPO1_CIPHER_PASS=abc pgbackrest archive-push %p' | pgops.backup.masked }}"
"""

RETURN = r"""
_value:
  description: The same command without its secrets.
  type: str
  sample: PGBACKREST_REPO1_CIPHER_PASS=******** pgbackrest archive-push %p
"""


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"masked": masked_command}
