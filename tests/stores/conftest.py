# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Ceph for the tests of the stores, beside the servers, sites and programs of the integration tests."""

from __future__ import annotations

# pylint: disable=unused-import
from collections.abc import Iterator

import pytest

from demo.servers import ServerError
from tests.integration.cli_fixtures import program_builder  # noqa: F401
from tests.integration.conftest import (  # noqa: F401
    BUCKET,
    _no_foreign_settings,
    make_site,
    servers,
    store,
)
from tests.integration.s3_fixtures import moto_server  # noqa: F401
from tests.stores.ceph import CephS3
from tests.stores.nights import make_shop_server  # noqa: F401

# The tests of the S3 place are run from here, too; what their asserts compared is to be seen here as well.
pytest.register_assert_rewrite("tests.integration.test_s3_place")


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephS3]:
    """A Ceph object gateway with a bucket. Without one these tests fail: nothing is skipped."""
    try:
        with CephS3(tmp_path_factory.mktemp("ceph")) as server:
            server.create_bucket(BUCKET)
            yield server
    except ServerError as problem:
        pytest.fail(str(problem), pytrace=False)
