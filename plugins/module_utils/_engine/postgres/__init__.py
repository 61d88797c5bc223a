# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""PostgreSQL: connections, its programs, what a server holds, dumping and loading."""

from __future__ import annotations
