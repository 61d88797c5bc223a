# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's own list of a base backup, read and distrusted."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import base_list
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import number_of, show_lsn

FILES = [
    {"Path": "PG_VERSION", "Size": 3, "Checksum-Algorithm": "SHA256", "Checksum": "ab"},
    {"Encoded-Path": "ff2e", "Size": 0},
]
RANGES = [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120"}]


def written(**others: Any) -> bytes:
    """A list as PostgreSQL writes it: its own checksum is on the last line."""
    data = {
        "PostgreSQL-Backup-Manifest-Version": 2,
        "System-Identifier": 73,
        "Files": FILES,
        "WAL-Ranges": RANGES,
        **others,
    }
    body = json.dumps(data)[:-1].encode() + b",\n"
    return body + b'"Manifest-Checksum": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def test_a_list_is_read() -> None:
    found = base_list.parse_list(written())
    assert found.files["PG_VERSION"] == base_list.Listed(3, "SHA256", "ab")
    assert found.files["\udcff."] == base_list.Listed(0, None, "")
    assert found.ranges == ((1, "0/2000028", "0/2000120"),)
    assert found.system_identifier == "73"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100000,
        written(Files=[{"Size": 1}]),
        written(Files=[{"Path": "a", "Size": "many"}]),
        written(**{"WAL-Ranges": [{}]}),
    ],
)
def test_what_is_no_list_is_damaged(raw: bytes) -> None:
    with pytest.raises(DamagedError, match="cannot be read"):
        base_list.parse_list(raw)


def test_a_changed_list_is_damaged() -> None:
    with pytest.raises(DamagedError, match="its own checksum differs"):
        base_list.parse_list(written().replace(b'"Size": 3', b'"Size": 4'))


SIZES = st.sampled_from([1 << power for power in range(20, 31)])


@given(st.integers(min_value=0, max_value=1 << 50), st.integers(min_value=0, max_value=1 << 24), SIZES)
def test_wal_files_cover_the_range_and_no_more(first: int, length: int, size: int) -> None:
    names = base_list.wal_files(3, show_lsn(first), show_lsn(first + length), size)
    numbers = [number_of(name, size) for name in names]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] * size <= first < (numbers[0] + 1) * size
    last = first + max(length, 1) - 1
    assert numbers[-1] * size <= last < (numbers[-1] + 1) * size
    assert all(name.startswith("00000003") for name in names)
