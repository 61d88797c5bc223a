# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The verbs. None calls another; the command line and the playbooks put them in order."""

from __future__ import annotations
