# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's own list of a base backup, read and distrusted."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core import base_list
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import number_of, show_lsn
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.tar_pick import Picker

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


# --- out of a tar that goes by ----------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from(["a", "b/c", "backup_manifest", "d"]), st.binary(max_size=1500)),
    st.integers(1, 2000),
)
def test_one_file_is_picked_out_of_a_tar_that_goes_by(members: dict[str, bytes], size: int) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("backup_manifest")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    whole = raw.getvalue()
    picker = Picker("backup_manifest")
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert b"".join(picker.through(chunks)) == whole
    assert (picker.content or b"") == members.get("backup_manifest", b"")


def test_a_file_beyond_eight_gibibytes_is_gone_past() -> None:
    """Only the header of the large one is made: its size is in base 256."""
    large = tarfile.TarInfo("large")
    large.size = 9 << 30
    picker = Picker("backup_manifest")
    picker.hear(large.tobuf(tarfile.GNU_FORMAT))
    block = bytes(1 << 20)
    for _mebibyte in range(9 << 10):
        picker.hear(block)
    small = tarfile.TarInfo("backup_manifest")
    small.size = 5
    picker.hear(small.tobuf(tarfile.USTAR_FORMAT) + b"lists" + bytes(507) + bytes(1024))
    assert picker.content == b"lists"


def test_from_what_is_no_tar_nothing_is_picked() -> None:
    picker = Picker("backup_manifest")
    assert list(picker.through([b"x" * 700, b"y" * 700])) == [b"x" * 700, b"y" * 700]
    assert picker.content is None
