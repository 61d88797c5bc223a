# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules of this collection support, in the words that all of them share."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragment pgops.backup.attributes."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict what would change, without changing it.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
  idempotent:
    description: When run twice in a row with the same options, the second run changes nothing.
  platform:
    description: Target systems that can be operated against.
    support: full
    platforms: posix
    details:
      - Linux. The programs of PostgreSQL must be installed for whatever reads or writes a dump.
  action_group:
    description: Use C(group/pgops.backup.pgops) in C(module_defaults) to set options for this module.
    support: full
    membership:
      - pgops.backup.pgops
"""
