# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that applications keep in server settings do not end up where a manifest goes."""

from __future__ import annotations

from collections.abc import Callable

from demo.servers import PostgresServer
from tests.integration.conftest import Site, run_sql

MakeSite = Callable[..., Site]


def test_a_secret_in_a_setting_is_in_no_manifest_and_its_absence_is_told(
    shop: PostgresServer, make_site: MakeSite
) -> None:
    site = make_site(shop)
    run_sql(shop, "postgres", "ALTER DATABASE shop SET \"app.jwt_secret\" = 'hush-hush-1'")
    run_sql(shop, "postgres", "ALTER DATABASE shop SET \"app.upstream\" = 'postgresql://u:hush-hush-2@h/d'")
    run_sql(shop, "postgres", "ALTER DATABASE shop SET \"app.colour\" = 'green'")
    try:
        result = site.backup(databases=["shop"])
        encoded = site.manifest(result["set"]).encode()
        assert b"hush-hush" not in encoded
        assert b"app.colour=green" in encoded
        told = [entry["what"] for entry in result["left_out"]]
        assert "value of the setting app.jwt_secret of database shop" in told
        assert "value of the setting app.upstream of database shop" in told
        assert site.verify("restore")["sets"][0]["outcome"] == "passed"
        assert all(b"hush-hush" not in path.read_bytes() for path in site.evidence())
    finally:
        for name in ("app.jwt_secret", "app.upstream", "app.colour"):
            run_sql(shop, "postgres", 'ALTER DATABASE shop RESET "%s"' % name)
