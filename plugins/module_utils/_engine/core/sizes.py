# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

from .errors import UsageError

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS[_letter] = _UNITS[_letter + "iB"] = 1024**_power
    _UNITS[_letter + "B"] = 1000**_power


def parse_size(text: str) -> int:
    """Return the bytes that `text` (`512M`, `2GiB`, `10GB`, `4096`) names; a bare letter is binary. Raise UsageError if none."""
    match = re.fullmatch(r"([0-9]+)(?:\.([0-9]{1,9}))?\s*([KMGTP]?(?:i?B)?)", text.strip())
    if not match or match.group(3) == "iB":
        raise UsageError("%r is not a size." % (text,), hint="Write it like 512M, 2GiB or 10GB.")
    whole, fraction, unit = match.groups()
    # Whole numbers throughout, as a float would lose the last bytes of a large size.
    digits = fraction or ""
    divisor: int = 10 ** len(digits)
    return int(whole + digits) * _UNITS[unit] // divisor


def human_size(count: float) -> str:
    """Return `count` bytes for a person: `87 B`, `1.4 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return "%d B" % size if unit == "B" else "%.1f %s" % (size, unit)
        size /= 1024
    return "%.1f TiB" % size


__all__ = ("human_size", "parse_size")
