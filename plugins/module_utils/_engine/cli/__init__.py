# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The program pgops: from the command line to the verbs, and back to people."""

from __future__ import annotations
