# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers, sites and programs of the integration tests, for the tests that inject faults.

`shop` is here the program of a server with one small database, as in the tests of the command line.
"""

from __future__ import annotations

# pylint: disable=unused-import
from tests.integration.cli_fixtures import program_builder, shop_program  # noqa: F401
from tests.integration.conftest import (  # noqa: F401
    _no_foreign_settings,
    age_key,
    bench,
    filled,
    make_site,
    servers,
    store,
    target,
)
from tests.integration.s3_fixtures import (  # noqa: F401
    kit_of_each,
    make_moto_kit,
    make_rclone_kit,
    make_strict_kit,
    moto_server,
    rclone_server,
)
