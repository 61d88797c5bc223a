# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The WAL archive: what PostgreSQL's archive_command and restore_command call. Its modules import little, to start fast.

`wal/<system identifier>/<first 16 digits>/<name>-<SHA-256>.zst` in every place; history files lie in no such folder.
"""

from __future__ import annotations
