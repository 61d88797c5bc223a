# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The JSON that is stored: in manifests, records and what is remembered."""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any) -> bytes:
    """Return `value` as the JSON text that we store: sorted keys, indented, UTF-8; lone surrogates as escapes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


__all__ = ("to_json",)
