# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from tests.hosts import instances_of


def test_its_backups_are_still_read(host: Any) -> None:
    for config in instances_of(host).values():
        assert host.run("sudo -u postgres pgops --config %s verify --level structure", config).rc == 0
