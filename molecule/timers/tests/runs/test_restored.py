# SPDX-License-Identifier: GPL-3.0-or-later
"""What was backed up by night comes back, each to the server that it is from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts.shop import asked, databases_of, is_the_shop


@pytest.mark.parametrize(("instance", "version", "port"), [("db13-main", "17", 5432), ("db13-older", "15", 5433)])
def test_the_shop_comes_back_beside_itself(host: Any, instance: str, version: str, port: int) -> None:
    before = databases_of(host, port)
    said = host.run(
        "sudo -u postgres pgops --config %s restore --database shop --rename shop again --yes",
        f"/etc/pgops/{instance}.yml",
    )
    assert said.rc == 0, said.stdout + said.stderr
    assert databases_of(host, port) - before == {"again"}
    is_the_shop(host, "again", port)
    assert asked(host, "again", "SHOW server_version", port).startswith(version)
    asked(host, "postgres", "DROP DATABASE again", port)
