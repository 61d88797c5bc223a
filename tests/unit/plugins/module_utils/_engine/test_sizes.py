# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes are read and shown as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.sizes import human_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1K", 1024),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("512M", 512 * 1024**2),
        ("2GiB", 2 * 1024**3),
        ("10GB", 10**10),
        ("1.5 GiB", 3 * 512 * 1024**2),
        (" 1T ", 1024**4),
        ("1PiB", 1024**5),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1iB", "1 X", "1gib", "1G B", "1.", ".5G", "1e3", "٤", "1G\n2G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 2**80))
def test_a_plain_number_of_bytes_is_read_exactly(size: int) -> None:
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1468006, "1.4 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**5, "3072.0 TiB"),
    ],
)
def test_a_size_is_shown_for_people(size: int, text: str) -> None:
    assert human_size(size) == text
