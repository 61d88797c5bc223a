# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of somebody else, as a person may read it."""

from __future__ import annotations

from ansible_collections.pgops.backup.plugins.filter.masked import FilterModule


def test_the_filter_masks_what_its_name_says_is_secret() -> None:
    masked = FilterModule().filters()["masked"]
    assert masked("X_TOKEN=hush tool push %p") == "X_TOKEN=******** tool push %p"
