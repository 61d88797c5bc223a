# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The engine of pgops: it backs up, copies, proves and restores PostgreSQL, with or without Ansible."""

from __future__ import annotations

__version__ = "0.1.0"
