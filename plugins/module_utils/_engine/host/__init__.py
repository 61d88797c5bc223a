# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What lies on a host beside the backups: the program, its configuration, its schedule."""

from __future__ import annotations
