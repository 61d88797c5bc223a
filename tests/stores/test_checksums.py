# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole program against stores that demand checksums with all content, and against such that refuse them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from demo.servers import MotoS3, PostgresServer
from tests.integration.conftest import BUCKET
from tests.integration.s3_fixtures import Asked, Proxy, StrictChecksums
from tests.stores.ceph import CephS3
from tests.stores.demands import demand_checksums, names_a_checksum, refuse_checksums
from tests.stores.nights import PART, MakeProgram, make_night, manifests, objects, remembered


@pytest.fixture(name="strict_store")
def make_strict_store(store: MotoS3) -> Iterator[Proxy]:
    """A store that checks and keeps SHA-256, which Amazon's does and no free one here."""
    with Proxy(store.endpoint_url, strict=StrictChecksums()) as proxy:
        yield proxy


def put_kinds(proxy: Proxy) -> set[str]:
    return {asked.kind for asked in proxy.asked if asked.method == "PUT"}


def go_through_a_night(program: Any, store: Any, bucket: str = BUCKET) -> None:
    """Back up, send and prove by the program, and compare by sizes and by each byte of the largest file."""
    set_id: str = program.json("backup")["set"]
    assert program.json("sync")["sets"] == [set_id]
    assert manifests(store, program, bucket) == [set_id]
    assert max(objects(store, program, bucket).values()) > 2 * PART, "it takes several parts"
    for path, size in objects(store, program, bucket).items():
        if path.startswith("sets/%s/" % set_id):
            assert (program.site.set_folder(set_id) / path.split("/", 2)[2]).stat().st_size == size
    largest = max(objects(store, program, bucket).items(), key=lambda item: item[1])[0]
    key = "database-backups/%s/%s" % (program.site.instance, largest)
    there = store.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    assert there == (program.site.set_folder(set_id) / largest.split("/", 2)[2]).read_bytes()
    program("verify", set_id, "--place", "s3", "--level", "checksum")


@pytest.mark.parametrize("kind", ["moto", "ceph"])
def test_a_store_that_demands_checksums_gets_them(
    kind: str, request: pytest.FixtureRequest, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    server: MotoS3 | CephS3 = request.getfixturevalue({"moto": "store"}.get(kind, kind))
    with Proxy(server.endpoint_url, fault=demand_checksums) as proxy:
        program = make_night(make_program, shop_server, server, proxy.url)
        go_through_a_night(program, server)
        assert remembered(program)["put_checksum"] == "read"
        assert put_kinds(proxy) == {"put", "part"}


def test_a_bucket_with_object_lock_that_demands_checksums(
    store: MotoS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    """moto demands them by itself where an object is to stay, as Amazon's store does."""
    name, raw = "locked-" + uuid.uuid4().hex[:8], store.client()
    raw.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    raw.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    bare = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name=store.region,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
    with pytest.raises(ClientError, match="Content-MD5"):
        bare.put_object(Bucket=name, Key="bare", Body=b"x")
    program = make_night(make_program, shop_server, store, bucket=name)
    go_through_a_night(program, store, name)
    assert program.json("probe")["capabilities"]["object_lock"] == "COMPLIANCE for 1 days by default"


def test_a_store_that_demands_and_keeps_checksums_is_believed(
    strict_store: Proxy, store: MotoS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    strict_store.fault = demand_checksums
    program = make_night(make_program, shop_server, store, strict_store.url)
    program.json("backup")
    program("sync")
    assert remembered(program)["put_checksum"] == remembered(program)["multipart_checksum"] == "sha256"
    sent = [asked for asked in strict_store.asked if asked.kind in ("put", "part")]
    assert all("x-amz-checksum-sha256" in asked.headers for asked in sent)
    payload = [asked for asked in strict_store.asked if asked.kind == "get" and "/sets/" in asked.path]
    assert payload == [], "nothing is read back where the store proves it"
    program("verify", "latest", "--place", "s3", "--level", "checksum")


@pytest.mark.parametrize("kind", ["moto", "ceph"])
def test_a_store_that_refuses_checksums_gets_none(
    kind: str, request: pytest.FixtureRequest, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    server: MotoS3 | CephS3 = request.getfixturevalue({"moto": "store"}.get(kind, kind))
    with Proxy(server.endpoint_url, fault=refuse_checksums) as proxy:
        program = make_night(make_program, shop_server, server, proxy.url)
        go_through_a_night(program, server)
        assert remembered(program)["put_checksum"] == "read"
        refused = [asked for asked in proxy.asked if names_a_checksum(asked)]
        assert refused and all("/probe/" in asked.path for asked in refused), "it was tried once, on a probe object"


def test_a_checksum_that_is_demanded_of_a_store_that_keeps_none_is_an_error(
    ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    program = make_night(make_program, shop_server, ceph)
    program.json("backup")
    said = program("sync", "--set", "s3.checksum_mode=sha256", code=1).stderr
    assert "is not what was sent" in said
    assert "checksum_mode" in said
    assert manifests(ceph, program) == []


def test_the_demanding_store_refuses_what_has_no_checksum() -> None:
    """Were it not so, the tests above would prove nothing."""
    put: Callable[[dict[str, str]], Asked] = lambda headers: Asked("PUT", "/b/k", {}, headers)  # noqa: E731
    assert demand_checksums(put({})) is not None
    assert demand_checksums(put({"x-amz-checksum-mode": "ENABLED"})) is not None
    assert demand_checksums(put({"content-md5": "x"})) is None
    assert demand_checksums(Asked("PUT", "/b/k", {"partNumber": ["1"]}, {})) is not None
    assert refuse_checksums(put({"x-amz-checksum-sha256": "x"})) is not None
