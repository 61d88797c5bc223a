# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The pure rooms: rules that take data and a clock and return data."""

from __future__ import annotations
