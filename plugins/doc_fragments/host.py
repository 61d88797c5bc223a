# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules that see to the host itself support, in the words that all of them share."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragment pgops.backup.host."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row with the same options, the second run changes nothing.
    support: full
  platform:
    description: Target systems that can be operated against.
    support: full
    platforms: posix
    details:
      - Linux, with Python 3.9 or later. Run it as root.
"""
