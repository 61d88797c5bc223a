# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""`python -m pgops`."""

from __future__ import annotations

from .cli.start import main

if __name__ == "__main__":
    raise SystemExit(main())
