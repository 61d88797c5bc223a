# SPDX-License-Identifier: GPL-3.0-or-later
"""The service that copies the WAL, which the older version began, runs this one."""

from __future__ import annotations

from typing import Any

from tests.hosts import held, objects_of
from tests.hosts.shop import finished_segment
from tests.tools.lab.machines import until

SERVICE = "pgops_wal_ship@up12-main"


def test_the_service_runs_the_program_that_is_current(host: Any) -> None:
    assert host.service(SERVICE).is_enabled
    assert host.service(SERVICE).is_running
    assert held(host, SERVICE) == [host.check_output("readlink -f /usr/local/lib/pgops/current")]


def test_the_server_archives_and_the_service_copies(host: Any, s3: Any, bucket: str) -> None:
    segment = finished_segment(host)
    assert until(lambda: [key for key in objects_of(s3, bucket) if segment in key], 60) is not None
