# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Alerts: the channels by which people hear of trouble, and what is remembered between two looks."""

from __future__ import annotations
