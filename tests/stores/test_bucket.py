# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket that s3_backup_bucket makes at a real Ceph, and the two policies as Ceph judges them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.bucket import Lifecycle, Lock, Wanted
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, RefusedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.iam import Scope, writer
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.bucket import Request, prepare
from demo.servers import PostgresServer
from tests.integration.cli_fixtures import Program
from tests.integration.s3_fixtures import Kit
from tests.stores.ceph import CephS3
from tests.stores.nights import MakeProgram, make_night, manifests, objects

ONLY_THE_NEWEST = ("--set", "s3.retention.keep_within=1s", "--set", "s3.retention.keep_last=1")
ALL = Wanted(
    versioning=True,
    object_lock=Lock("COMPLIANCE", 1),
    lifecycle=Lifecycle(archive_after=90, archive_class="STANDARD", noncurrent_days=30),
    public_access_block=True,
    tags={"team": "data ü"},
)


def make(ceph: CephS3, tmp: Path, name: str, wanted: Wanted, *instances: str, dry_run: bool = False) -> dict[str, Any]:
    context = Kit(ceph, "ceph", tmp).context(bucket=name)
    return {**prepare(context, Request(wanted, instances=instances, dry_run=dry_run)), "warned": context.warnings}


def new_name() -> str:
    return "made-" + uuid.uuid4().hex[:12]


def test_ceph_takes_every_setting(ceph: CephS3, tmp_path: Path) -> None:
    name, raw = new_name(), ceph.client()
    predicted = make(ceph, tmp_path, name, ALL, dry_run=True)
    made = make(ceph, tmp_path, name, ALL)
    assert made["refused"] == []
    (warned,) = made["warned"]
    assert "IgnorePublicAcls" in warned
    assert made["settings"] == predicted["settings"]
    lock = raw.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert lock == {"Mode": "COMPLIANCE", "Days": 1}
    assert len(raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]) == 2
    assert raw.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "team", "Value": "data ü"}]
    block = raw.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert [key for key, on in block.items() if on] == ["IgnorePublicAcls"]
    version = raw.put_object(Bucket=name, Key="x", Body=b"x")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        raw.delete_object(Bucket=name, Key="x", VersionId=version)
    again = make(ceph, tmp_path, name, ALL)
    assert (again["changed"], again["changes"]) == (False, [])
    # Taking our rules back leaves no life cycle, and the bucket.
    without = make(ceph, tmp_path, name, Wanted(lifecycle=Lifecycle(abort_multipart_days=0)))
    assert without["settings"]["lifecycle"] == []
    assert raw.get_object(Bucket=name, Key="x")["Body"].read() == b"x"


def test_ceph_still_denies_too_much_under_a_block_of_public_access(ceph: CephS3) -> None:
    """Were it not so, all four settings could be turned on."""
    name, raw = new_name(), ceph.client()
    ceph.create_bucket(name)
    policy = writer(Scope(name, "database-backups", ["db1"]))
    for key in ("BlockPublicAcls", "BlockPublicPolicy"):
        raw.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration={key: True})
        with pytest.raises(ClientError, match="AccessDenied"):
            if key == "BlockPublicAcls":
                raw.put_object(Bucket=name, Key="private", Body=b"x", ACL="private")
            grant(ceph, name, policy)


def test_object_lock_is_refused_to_a_bucket_without(ceph: CephS3, tmp_path: Path) -> None:
    name = new_name()
    ceph.create_bucket(name)
    with pytest.raises(RefusedError, match="made without"):
        make(ceph, tmp_path, name, ALL)
    assert "Status" not in ceph.client().get_bucket_versioning(Bucket=name)


def test_ceph_forgets_the_size_of_what_is_to_be_frozen(ceph: CephS3, tmp_path: Path) -> None:
    name = new_name()
    frozen = Wanted(lifecycle=Lifecycle(archive_after=9, archive_class="GLACIER"))
    with pytest.raises(PgopsError, match="archive the manifests"):
        make(ceph, tmp_path, name, frozen)
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        ceph.client().get_bucket_lifecycle_configuration(Bucket=name)


# --- the policies -----------------------------------------------------------------------------------------------------


def guest_client(ceph: CephS3) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=ceph.endpoint_url,
        region_name=ceph.region,
        aws_access_key_id=ceph.guest["access_key"],
        aws_secret_access_key=ceph.guest["secret_key"],
        config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 2}),
    )


def grant(ceph: CephS3, name: str, policy: dict[str, Any]) -> None:
    """Give the guest what `policy` says, and nothing else."""
    whom = {"AWS": ["arn:aws:iam:::user/guest"]}
    statements = [{**statement, "Principal": whom} for statement in policy["Statement"]]
    ceph.client().put_bucket_policy(Bucket=name, Policy=json.dumps({**policy, "Statement": statements}))


def test_the_writer_does_all_but_remove_and_the_pruner_removes(
    ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram, tmp_path: Path
) -> None:
    name, owner, guest = new_name(), ceph.client(), guest_client(ceph)
    program = make_night(make_program, shop_server, ceph, bucket=name)
    instance = program.site.instance
    wanted = Wanted(versioning=True, lifecycle=Lifecycle(noncurrent_days=9), public_access_block=True)
    made = make(ceph, tmp_path, name, wanted, instance)
    theirs = "database-backups/another-instance/sets/x"
    owner.put_object(Bucket=name, Key=theirs, Body=b"theirs")
    program.configure(s3={"bucket": name, "part_size": "5MiB", **ceph.guest})
    program("sync", code=1)
    grant(ceph, name, made["policy_writer"])

    # A host with the writer's keys does its nights.
    assert program.json("probe")["ok"] is True
    old = program.json("backup")["set"]
    assert program.json("sync")["sets"] == [old]
    assert program.json("verify", old, "--place", "s3", "--level", "checksum")["outcome"] == "ok"
    program("pin", old, "--place", "s3", "--reason", "a test")
    new = program.json("backup")["set"]
    assert program.json("sync")["sets"] == [new]
    assert manifests(ceph, program, name) == sorted([old, new])
    assert not [path for path in objects(ceph, program, name) if path.startswith("probe/")]
    held = objects(ceph, program, name)

    # It removes nothing, whatever is tried, and sees nothing of others.
    key = "database-backups/%s/sets/%s/manifest.json" % (instance, old)
    version = owner.list_object_versions(Bucket=name, Prefix=key)["Versions"][0]["VersionId"]
    other = {"Bucket": name, "Key": theirs}
    for attempt in (
        lambda: guest.delete_object(Bucket=name, Key=key),
        lambda: guest.delete_object(Bucket=name, Key=key, VersionId=version),
        lambda: guest.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key}]}),
        lambda: guest.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"}),
        lambda: guest.delete_bucket_lifecycle(Bucket=name),
        lambda: guest.put_bucket_policy(Bucket=name, Policy="{}"),
        lambda: guest.get_object(**other),
        lambda: guest.put_object(**other, Body=b"ours"),
        lambda: guest.list_objects_v2(Bucket=name),
        lambda: guest.list_objects_v2(Bucket=name, Prefix="database-backups/another-instance/"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
    unpinned = program.json("unpin", old, "--place", "s3", code=1)
    assert "s3:DeleteObject" in unpinned["message"] + unpinned["hint"]
    assert objects(ceph, program, name) == held

    # The pruner removes, and adds nothing.
    grant(ceph, name, made["policy_pruner"])
    program("unpin", old, "--place", "s3")
    program("prune", "--place", "s3", *ONLY_THE_NEWEST)
    assert manifests(ceph, program, name) == [new]
    for room in ("sets/x", "evidence/x", "pins/x", "probe/x"):
        with pytest.raises(ClientError, match="AccessDenied"):
            guest.put_object(Bucket=name, Key="database-backups/%s/%s" % (instance, room), Body=b"x")
    assert program.json("backup")["outcome"] == "ok"
    program("sync", code=1)
    assert owner.get_object(**other)["Body"].read() == b"theirs"


def test_a_pin_that_is_not_there_is_not_denied(
    ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram, tmp_path: Path
) -> None:
    """Who may list one prefix only gets 403 for an object that is missing, where others get 404."""
    name = new_name()
    program: Program = make_night(make_program, shop_server, ceph, bucket=name)
    made = make(ceph, tmp_path, name, Wanted(), program.site.instance)
    grant(ceph, name, made["policy_writer"])
    program.configure(s3={"bucket": name, "part_size": "5MiB", **ceph.guest})
    set_id = program.json("backup")["set"]
    program("sync")
    assert program.json("unpin", set_id, "--place", "s3")["changed"] is False
