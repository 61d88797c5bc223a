# SPDX-License-Identifier: GPL-3.0-or-later
"""The program with a database that is large enough for several parts, and an S3 place of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from demo.servers import PostgresServer, _S3Server
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import BUCKET, Servers, create_shop, databases_of, empty, run_sql

MIB = 1024 * 1024
PART = 5 * MIB
# 280,000 times 64 random digits are 18 MB, which make four parts where nothing compresses them.
BLOBS = """
CREATE TABLE blobs AS SELECT i, md5(random()::text) || md5(random()::text) AS noise FROM generate_series(1, 280000) i
"""

MakeProgram = Callable[..., Program]


def lay_out(server: PostgresServer) -> None:
    """Let the server have the shop with much noise and no other database."""
    if "shop" not in databases_of(server):
        empty(server)
        create_shop(server)
        run_sql(server, "shop", BLOBS)
    for name in databases_of(server) - {"postgres", "shop"}:
        run_sql(server, "postgres", 'DROP DATABASE "%s" WITH (FORCE)' % name)


@pytest.fixture(name="shop_server")
def make_shop_server(servers: Servers) -> PostgresServer:
    """PostgreSQL 18 with a shop of 18 MB, the same for all tests; they leave it as it was."""
    server = servers.get("night", 18)
    lay_out(server)
    return server


def make_night(
    make_program: MakeProgram, server: PostgresServer, store: _S3Server, url: str = "", bucket: str = BUCKET
) -> Program:
    """Return the program for `server`, on which the shop with much noise is, and a bucket at `store`, reached by `url`."""
    program = make_program(server, backup={"min_free": "1MiB", "compression": "none"})
    program.site.use_s3(store, url)  # type: ignore[arg-type]
    program.configure(s3={"bucket": bucket, "part_size": "5MiB"})
    return program


def objects(store: _S3Server, program: Program, bucket: str = BUCKET) -> dict[str, int]:
    """Return the size of each object of the instance by its name below it, as boto3 lists them."""
    home = "database-backups/%s/" % program.site.instance
    listed = store.client().list_objects_v2(Bucket=bucket, Prefix=home).get("Contents", [])
    return {item["Key"][len(home) :]: item["Size"] for item in listed}


def manifests(store: _S3Server, program: Program, bucket: str = BUCKET) -> list[str]:
    """Return the ids of the sets in the bucket: those that have a manifest."""
    return sorted(p.split("/")[1] for p in objects(store, program, bucket) if p.endswith("/manifest.json"))


def checksums_of(server: PostgresServer) -> list[tuple[Any, ...]]:
    """Return what stands in the tables of the shop, each as a count and a sum over all its rows."""
    tables = ("shop.goods", "shop.sales", "shop.totals", "blobs")
    texts = ["SELECT '%s', count(*), sum(hashtext(t::text)::bigint) FROM %s t" % (name, name) for name in tables]
    return run_sql(server, "shop", " UNION ALL ".join(texts) + " ORDER BY 1")


def remembered(program: Program) -> dict[str, Any]:
    """Return what the program has noted about the store that it uses."""
    found = next((program.site.root / "state").rglob("s3-capabilities.json"))
    (only,) = json.loads(found.read_text()).values()
    return dict(only)
