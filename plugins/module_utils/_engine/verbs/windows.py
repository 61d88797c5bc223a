# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What the WAL archive of a place can bring base backups to."""

from __future__ import annotations

from typing import Optional

from ..context import Context
from ..core.window import Window
from ..places.base import Place
from ..places.catalog import Catalog


def windows_of(context: Context, place: Place, catalog: Catalog) -> Optional[list[Window]]:
    """Return the recoverable windows of `place`, None where nobody can tell."""
    del context, place, catalog
    return None


__all__ = ("windows_of",)
