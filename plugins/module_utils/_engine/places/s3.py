# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The S3 place: a bucket and prefix. A set is published by its manifest object, written last."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from .. import settings as _settings
from .base import Place


class S3Place(Place):
    """Sets below `s3://<bucket>/<prefix>/<instance>/`."""

    name = "s3"

    def __init__(self, settings: _settings.S3, instance: str, *, state: Path, warn: Callable[[str], None]) -> None:
        self.settings, self.instance, self.state, self.warn = settings, instance, state, warn


__all__ = ("S3Place",)
