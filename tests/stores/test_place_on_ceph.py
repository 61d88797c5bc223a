# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test of the S3 place that goes with any store, here on Ceph."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.integration import test_s3_place as place_tests
from tests.integration.s3_fixtures import Kit
from tests.stores.ceph import CephS3


@pytest.fixture(name="kit")
def ceph_kit(ceph: CephS3, tmp_path: Path) -> Kit:
    return Kit(ceph, "ceph", tmp_path)


for _name, _test in vars(place_tests).items():
    if _name.startswith("test_") and "kit" in inspect.signature(_test).parameters:
        globals()[_name] = _test
