# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket that s3_backup_bucket makes, as boto3 sees it: at moto, which knows every setting, and at rclone's server."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.bucket import Lifecycle, Lock, Wanted
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.bucket import Request, look, prepare
from tests.integration.conftest import store  # noqa: F401  # pylint: disable=unused-import  # a fixture of `site`
from tests.integration.s3_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Kit,
    Proxy,
    Refuse,
    make_moto_kit,
    make_rclone_kit,
    moto_server,
    rclone_server,
)
from tests.integration.test_modules import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    CHECK,
    Site,
    assert_silent,
    site,
    task,
)

ALL = Wanted(
    versioning=True,
    object_lock=Lock("GOVERNANCE", 3),
    lifecycle=Lifecycle(archive_after=90, noncurrent_days=30),
    public_access_block=True,
    tags={"team": "data & more", "größe": 'a "b" $c'},
)
LOGS = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}


def new_name() -> str:
    return "bucket-" + uuid.uuid4().hex[:12]


def context_of(kit: Kit, name: str, url: str = "", **others: Any) -> Context:
    return kit.context(url, bucket=name, **others)


def seen(client: Any, name: str) -> dict[str, Any]:
    """Return what boto3 sees of the bucket."""
    lock = client.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
    return {
        "versioning": client.get_bucket_versioning(Bucket=name)["Status"],
        "lock": lock["Rule"]["DefaultRetention"],
        "rules": client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
        "block": client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
        "tags": {tag["Key"]: tag["Value"] for tag in client.get_bucket_tagging(Bucket=name)["TagSet"]},
    }


def names(kit: Kit) -> set[str]:
    return {bucket["Name"] for bucket in kit.raw().list_buckets()["Buckets"]}


def test_another_tool_sees_the_bucket_that_was_asked_for(moto_kit: Kit) -> None:
    name, raw = new_name(), moto_kit.raw()
    predicted = prepare(context_of(moto_kit, name), Request(ALL, dry_run=True))
    assert name not in names(moto_kit), "a prediction makes nothing"
    context = context_of(moto_kit, name)
    made = prepare(context, Request(ALL))
    found = seen(raw, name)
    assert found["versioning"] == "Enabled"
    assert (found["lock"]["Mode"], found["lock"]["Days"]) == ("GOVERNANCE", 3)
    assert set(found["block"].values()) == {True}
    assert found["tags"] == ALL.tags
    archive, clean = found["rules"]
    assert clean["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert clean["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert archive["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER_IR"}]
    assert {clean["Filter"]["Prefix"], archive["Filter"]["Prefix"]} == {"database-backups/"}
    assert made["settings"] == predicted["settings"], "the prediction was the truth"
    assert (made["refused"], context.warnings) == ([], [])
    again = prepare(context, Request(ALL))
    assert (again["changed"], again["created"], again["changes"]) == (False, False, [])
    assert seen(raw, name) == found


def test_a_bucket_of_others_keeps_what_they_gave_it(moto_kit: Kit) -> None:
    name, raw = new_name(), moto_kit.raw()
    raw.create_bucket(Bucket=name)
    raw.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [LOGS]})
    raw.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "owner", "Value": "them"}]})
    raw.put_object(Bucket=name, Key="logs/x", Body=b"theirs")
    wanted = Wanted(versioning=True, lifecycle=Lifecycle(noncurrent_days=9), tags={"team": "data"})
    made = prepare(context_of(moto_kit, name), Request(wanted))
    assert [change["setting"] for change in made["changes"]] == ["versioning", "lifecycle", "tags"]
    kept = raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert kept[0] == LOGS
    assert kept[1]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 9}
    assert made["settings"]["tags"] == {"owner": "them", "team": "data"}
    assert made["settings"]["public_access_block"] is False, "nobody asked for it"
    # Another prefix of the same bucket has rules of its own; taking ours back leaves both others alone.
    prepare(context_of(moto_kit, name, prefix="elsewhere"), Request(Wanted(lifecycle=Lifecycle())))
    prepare(context_of(moto_kit, name), Request(Wanted(lifecycle=Lifecycle(abort_multipart_days=0))))
    left = raw.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [rule["Filter"]["Prefix"] for rule in left] == ["logs/", "elsewhere/"]
    assert raw.get_object(Bucket=name, Key="logs/x")["Body"].read() == b"theirs"


def test_object_lock_is_refused_to_a_bucket_without_before_anything_is_touched(moto_kit: Kit) -> None:
    name = new_name()
    moto_kit.raw().create_bucket(Bucket=name)
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="made without"):
            prepare(context_of(moto_kit, name), Request(ALL, dry_run=dry_run))
    assert look(context_of(moto_kit, name))["versioning"] == "Off"
    assert look(context_of(moto_kit, name))["public_access_block"] is False


def test_a_locked_object_cannot_be_removed(moto_kit: Kit) -> None:
    name, raw = new_name(), moto_kit.raw()
    prepare(context_of(moto_kit, name), Request(Wanted(object_lock=Lock("COMPLIANCE", 2))))
    version = raw.put_object(Bucket=name, Key="x", Body=b"x", ChecksumAlgorithm="SHA256")["VersionId"]
    with pytest.raises(raw.exceptions.ClientError, match="AccessDenied"):
        raw.delete_object(Bucket=name, Key="x", VersionId=version)


def test_a_store_that_knows_little_keeps_its_bucket_and_says_what_it_lacks(rclone_kit: Kit) -> None:
    """rclone's server takes the removal of a life cycle for that of the bucket, and a setting for the bucket's making."""
    name = new_name()
    context = context_of(rclone_kit, name)
    wanted = Wanted(
        versioning=True, lifecycle=Lifecycle(noncurrent_days=3), public_access_block=True, tags={"team": "data"}
    )
    made = prepare(context, Request(wanted))
    assert (made["created"], made["changed"]) == (True, True)
    assert sorted(made["refused"]) == ["lifecycle", "public_access_block", "tags", "versioning"]
    assert len([warning for warning in context.warnings if "does not offer" in warning]) == 4
    again = prepare(context, Request(wanted))
    assert (again["changed"], sorted(again["refused"])) == (False, sorted(made["refused"]))
    prepare(context, Request(Wanted(lifecycle=Lifecycle(abort_multipart_days=0))))
    assert name in names(rclone_kit)


def test_a_lock_that_a_store_cannot_hold_is_an_error(rclone_kit: Kit) -> None:
    with pytest.raises(PgopsError, match="without Object Lock"):
        prepare(context_of(rclone_kit, new_name()), Request(ALL))


def test_a_store_that_forgets_the_size_of_what_to_freeze_is_refused(moto_kit: Kit) -> None:
    """moto is such a store: a rule with a size comes back without."""
    name = new_name()
    moto_kit.raw().create_bucket(Bucket=name)
    moto_kit.raw().put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [LOGS]})
    cycle = Lifecycle(archive_after=9, archive_class="GLACIER")
    with pytest.raises(PgopsError, match="archive the manifests"):
        prepare(context_of(moto_kit, name), Request(Wanted(lifecycle=cycle)))
    assert moto_kit.raw().get_bucket_lifecycle_configuration(Bucket=name)["Rules"] == [LOGS]


def test_what_a_store_refuses_half_way_is_made_up_for_by_the_next_run(moto_kit: Kit) -> None:
    name = new_name()
    refuse = Refuse(403, "AccessDenied")
    with Proxy(moto_kit.server.endpoint_url) as proxy:
        proxy.fault = lambda asked: refuse if asked.method == "PUT" and "lifecycle" in asked.query else None
        with pytest.raises(PgopsError, match="s3:PutLifecycleConfiguration") as raised:
            prepare(context_of(moto_kit, name, proxy.url), Request(ALL))
        assert raised.value.details["created"] is True
        proxy.fault = lambda asked: None
        rest = prepare(context_of(moto_kit, name, proxy.url), Request(ALL))
        assert [change["setting"] for change in rest["changes"]] == ["lifecycle", "tags"]


def test_settings_come_with_a_checksum(moto_kit: Kit) -> None:
    with Proxy(moto_kit.server.endpoint_url) as proxy:
        prepare(context_of(moto_kit, new_name(), proxy.url), Request(ALL))
        puts = [asked for asked in proxy.asked if asked.method == "PUT" and asked.query]
        assert len(puts) == 4
        assert all("content-md5" in asked.headers for asked in puts)


# --- the module -------------------------------------------------------------------------------------------------------


def test_the_module_predicts_makes_and_rests(site: Site) -> None:  # noqa: F811
    name, raw = new_name(), site.store.client()
    options = {
        "s3": {**site.options["s3"], "bucket": name},
        "versioning": True,
        "lifecycle": {"noncurrent_days": 14},
        "tags": {"team": "data", "count": 3},
        "instances": ["db1-main"],
    }
    step = task("s3_backup_bucket", **options)
    checked = site.play(task("s3_backup_bucket", CHECK, **options), flags=("--diff", "-vvv"))
    assert checked.result["changed"] is True
    with pytest.raises(raw.exceptions.ClientError):
        raw.head_bucket(Bucket=name)
    played = site.play(step, step, flags=("--diff", "-vvv"))
    made, again = played.results
    assert [made["changed"], again["changed"]] == [True, False]
    assert made["created"] is True
    assert checked.result["diff"]["after"] == made["diff"]["after"] == again["diff"]["before"] == again["diff"]["after"]
    assert made["diff"]["before"] == {}
    assert raw.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert {"Key": "count", "Value": "3"} in raw.get_bucket_tagging(Bucket=name)["TagSet"]
    # The two policies are JSON that S3 takes as it is, once it is said whose they are.
    for policy in (made["policy_writer"], made["policy_pruner"]):
        statements = [{**statement, "Principal": {"AWS": "*"}} for statement in policy["Statement"]]
        raw.put_bucket_policy(Bucket=name, Policy=json.dumps({**policy, "Statement": statements}))
    assert_silent(site, played)
    assert_silent(site, checked)
    assert not site.state.exists(), "it leaves nothing on the host where it runs"


def test_the_module_says_what_cannot_be(site: Site) -> None:  # noqa: F811
    name = new_name()
    site.store.client().create_bucket(Bucket=name)
    s3 = {**site.options["s3"], "bucket": name}
    steps = [
        (task("s3_backup_bucket", s3=s3, object_lock={"mode": "GOVERNANCE", "days": 7}), "refused", 5, "made without"),
        (
            task("s3_backup_bucket", s3=s3, object_lock={"mode": "GOVERNANCE", "days": 0}),
            "misused",
            2,
            "object_lock.days",
        ),
        (task("s3_backup_bucket", s3={**s3, "endpoint_url": "http://127.0.0.1:1"}), "unreachable", 4, "127.0.0.1"),
    ]
    played = site.play(*(step for step, *_unused in steps), flags=("-vvv",))
    for failed, (_unused, outcome, code, words) in zip(played.results, steps, strict=True):
        assert failed["failed"] is True
        assert (failed["outcome"], failed["exit_code"]) == (outcome, code), words
        assert words in failed["msg"]
    assert_silent(site, played)
