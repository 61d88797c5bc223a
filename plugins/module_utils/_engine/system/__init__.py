# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""This machine: durable files, programs, locks, accounts."""

from __future__ import annotations
