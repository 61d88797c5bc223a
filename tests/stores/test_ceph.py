# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole program against a real Ceph object gateway, with boto3 looking at what it stored."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.sync import Request, sync
from demo.servers import PostgresServer
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import BUCKET, run_sql, wait_for
from tests.integration.s3_fixtures import Asked, Cut, Kit, Proxy, make_set
from tests.stores.ceph import CephS3
from tests.stores.demands import demand_checksums
from tests.stores.nights import (
    PART,
    MakeProgram,
    checksums_of,
    make_night,
    manifests,
    objects,
    remembered,
)

ONLY_THE_NEWEST = ("--set", "s3.retention.keep_within=1s", "--set", "s3.retention.keep_last=1")


def set_id_of(**ago: float) -> str:
    """Return the id of a set that was begun so long ago: days=1, hours=2."""
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y%m%dT%H%M%SZ-logical")


@pytest.fixture
def night(ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram) -> Program:
    """The program for a server with one database, and a plain bucket at Ceph."""
    return make_night(make_program, shop_server, ceph)


@pytest.fixture
def bucket(ceph: CephS3) -> str:
    """A new bucket that keeps the versions of its objects."""
    name = "versioned-" + uuid.uuid4().hex[:8]
    ceph.create_bucket(name)
    ceph.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def locked(ceph: CephS3) -> str:
    """A new bucket with Object Lock, in which an object stays for a day."""
    name = "locked-" + uuid.uuid4().hex[:8]
    raw = ceph.client()
    raw.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    raw.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return name


def payload(program: Program, set_id: str) -> str:
    """Return the path in the set of its largest file."""
    folder = program.site.set_folder(set_id)
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size > 3 * PART
    return largest.relative_to(folder).as_posix()


def key_of(program: Program, set_id: str, path: str) -> str:
    return "database-backups/%s/sets/%s/%s" % (program.site.instance, set_id, path)


def versions_of(ceph: CephS3, bucket: str, key: str) -> list[dict[str, Any]]:
    """Return the versions of an object that hold content, the newest first."""
    found = ceph.client().list_object_versions(Bucket=bucket, Prefix=key).get("Versions", [])
    return [version for version in found if version["Key"] == key]


# --- the main job -----------------------------------------------------------------------------------------------------


def test_everything_is_lost_and_comes_back_from_ceph(night: Program, shop_server: PostgresServer, ceph: CephS3) -> None:
    before = checksums_of(shop_server)
    set_id = night.json("backup")["set"]
    assert night.json("sync")["sets"] == [set_id]
    shutil.rmtree(night.site.root / "backups")
    run_sql(shop_server, "postgres", "DROP DATABASE shop")
    night("verify", "latest", "--place", "s3", "--level", "structure")
    night("restore", "latest", "--place", "s3", "--yes")
    assert checksums_of(shop_server) == before
    shown = night("probe").stdout
    assert "it can do all that is needed" in shown
    assert night.json("sync", "--pull", set_id)["sets"] == [set_id]
    assert night.json("verify", "latest", "--place", "local", "--level", "checksum")["outcome"] == "ok"
    assert manifests(ceph, night) == [set_id]


# --- what it can do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fixture", "versioning", "lock"),
    [("", "Off", "Off"), ("bucket", "Enabled", "Off"), ("locked", "Enabled", "COMPLIANCE for 1 days by default")],
)
def test_probe_tells_what_ceph_does(
    fixture: str, versioning: str, lock: str, night: Program, ceph: CephS3, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue(fixture) if fixture else BUCKET
    night.configure(s3={"bucket": name})
    found = night.json("probe")
    assert {check["name"] for check in found["checks"] if not check["ok"]} == set()
    assert found["capabilities"] == {
        "put_checksum": "read",
        "multipart_checksum": "read",
        "batch_delete": True,
        "conditional_put": not fixture,  # where versions are kept it takes the request and overwrites
        "versioning": versioning,
        "object_lock": lock,
        "clock_difference_seconds": found["capabilities"]["clock_difference_seconds"],
    }
    assert abs(found["capabilities"]["clock_difference_seconds"]) < 30
    details = {check["name"]: check["detail"] for check in found["checks"]}
    assert "it keeps no SHA-256" in details["checksums"]
    assert ("old versions" in details["delete"]) == (versioning == "Enabled")
    assert (remembered(night)["put_checksum"], remembered(night)["batch_delete"]) == ("read", True)
    assert found["changed"]
    assert not night.json("probe")["changed"]
    assert objects(ceph, night, name) == {}, "nothing of the probe is left to be seen"


def test_ceph_does_what_docs_say_of_it(ceph: CephS3) -> None:
    """Asked by boto3 alone: a later version that differs shows here, and docs/stores.md is to be changed."""
    raw = ceph.client()
    key = "facts-%s" % uuid.uuid4().hex
    wrong = "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564="  # of `foo`
    raw.put_object(Bucket=BUCKET, Key=key, Body=b"bar", ChecksumSHA256=wrong)
    assert "ChecksumSHA256" not in raw.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    with pytest.raises(ClientError, match="BadDigest"):
        raw.put_object(Bucket=BUCKET, Key=key, Body=b"bar", ContentMD5="rL0Y20zC+Fzt72VPzMSk2A==")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        raw.put_object(Bucket=BUCKET, Key=key, Body=b"bar", IfNoneMatch="*")
    raw.delete_object(Bucket=BUCKET, Key=key)


# --- Object Lock and versions -----------------------------------------------------------------------------------------


def test_a_locked_bucket_takes_sets_and_keeps_them(
    locked: str, ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    with Proxy(ceph.endpoint_url, fault=demand_checksums) as proxy:
        program = make_night(make_program, shop_server, ceph, proxy.url, locked)
        old = set_id_of(hours=50)  # of another cluster than the newest: such a one stays for a day by these rules
        make_set(program.site.engine(), old, {"a": 10, "b/c": 1000})
        newest = program.json("backup")["set"]
        assert sorted(program.json("sync")["sets"]) == [old, newest]
        program("verify", "all", "--place", "s3", "--level", "checksum")
        pruned = program.json("prune", "--place", "s3", *ONLY_THE_NEWEST)
    assert [removed["set"] for removed in pruned["places"][0]["removed"]] == [old]
    assert manifests(ceph, program, locked) == [newest], "it is hidden by a marker"
    for path in ("a", "b/c", "manifest.json"):
        (version,) = versions_of(ceph, locked, key_of(program, old, path))
        with pytest.raises(ClientError, match="AccessDenied"):
            ceph.client().delete_object(Bucket=locked, Key=version["Key"], VersionId=version["VersionId"])
    retention = ceph.client().get_object_retention(Bucket=locked, Key=key_of(program, newest, payload(program, newest)))
    assert retention["Retention"]["Mode"] == "COMPLIANCE"


def test_a_removal_that_ceph_refuses_is_told_and_nothing_is_half_gone(
    locked: str, ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    program = make_night(make_program, shop_server, ceph, bucket=locked)
    old = set_id_of(hours=1)
    make_set(program.site.engine(), old, {"a": 10, "b/c": 1000})
    make_set(program.site.engine(), set_id_of(minutes=1), {"a": 10})
    program("sync")
    before = objects(ceph, program, locked)
    deny = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
                "Resource": ["arn:aws:s3:::%s/*" % locked],
            }
        ],
    }
    ceph.client().put_bucket_policy(Bucket=locked, Policy=json.dumps(deny))
    failed = program.json("prune", "--place", "s3", *ONLY_THE_NEWEST, code=1)
    assert failed["outcome"] == "failed"
    assert "AccessDenied" in failed["message"]
    assert old in failed["message"]
    assert "s3:DeleteObject" in failed["message"] + failed["hint"]
    assert "retention lock" in failed["message"] + failed["hint"]
    assert objects(ceph, program, locked) == before
    assert program.site.records()[-1]["outcome"] == "failed"
    ceph.client().delete_bucket_policy(Bucket=locked)
    program("prune", "--place", "s3", *ONLY_THE_NEWEST)
    assert old not in manifests(ceph, program, locked)


def test_an_altered_object_of_the_same_size_is_found_and_replaced(
    bucket: str, ceph: CephS3, shop_server: PostgresServer, make_program: MakeProgram
) -> None:
    program = make_night(make_program, shop_server, ceph, bucket=bucket)
    set_id = program.json("backup")["set"]
    program("sync")
    key = key_of(program, set_id, payload(program, set_id))
    raw = ceph.client()
    content = bytearray(raw.get_object(Bucket=bucket, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    raw.put_object(Bucket=bucket, Key=key, Body=bytes(content))
    said = program("verify", set_id, "--place", "s3", "--level", "checksum", code=1)
    assert "SHA-256 differs" in said.stdout + said.stderr
    program("sync")
    program("verify", set_id, "--place", "s3", "--level", "checksum")
    local = (program.site.set_folder(set_id) / payload(program, set_id)).read_bytes()
    assert raw.get_object(Bucket=bucket, Key=key)["Body"].read() == local
    versions = versions_of(ceph, bucket, key)
    assert len(versions) == 3, "as sent, as altered, as repaired"
    assert versions[0]["IsLatest"]


# --- the clock --------------------------------------------------------------------------------------------------------


def at_another_time(program: Program, shift: str) -> Any:
    """Return the program under a clock that is `shift` off (`+20m`), for all that it calls."""
    if not shutil.which("faketime"):
        pytest.fail("faketime is needed: apt-get install faketime", pytrace=False)
    plain = program.argv
    return lambda *arguments: ["faketime", "-f", shift, *plain(*arguments)]


@pytest.mark.parametrize(("shift", "seconds"), [("+20m", 1200), ("-20m", -1200)])
def test_a_clock_that_is_twenty_minutes_off(
    shift: str, seconds: int, night: Program, ceph: CephS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(night.site.engine(), set_id_of(hours=1), {"a": 10})
    # Waiting goes by the monotonic clock, which nobody sets.
    night.environ["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    monkeypatch.setattr(night, "argv", at_another_time(night, shift))
    refused = night.json("sync", code=1)
    assert "this host's clock is too far from the store's" in refused["message"]
    assert "Set the clock" in refused["hint"]
    probed = night.json("probe", code=1)
    (clock,) = (check for check in probed["checks"] if not check["ok"])
    assert clock["name"] == "clock"
    assert ("ahead of" if seconds > 0 else "behind") in clock["detail"]
    assert abs(probed["capabilities"]["clock_difference_seconds"] - seconds) < 60
    assert objects(ceph, night) == {}
    monkeypatch.undo()
    night("sync")
    assert len(manifests(ceph, night)) == 1


# --- interrupted transfers --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def holding_parts(ceph: CephS3, first_held: int) -> Iterator[Proxy]:
    """Yield a proxy in which the parts from `first_held` on never arrive, until the fault is taken away."""
    over = threading.Event()

    def hold(asked: Asked) -> Cut | None:
        if asked.part < first_held:
            return None
        over.wait(120)
        return Cut(0)

    with Proxy(ceph.endpoint_url, fault=hold) as proxy:
        try:
            yield proxy
        finally:
            over.set()


def parts_at(ceph: CephS3, program: Program) -> set[int]:
    """Return the numbers of the parts that Ceph holds of unfinished uploads of the instance."""
    raw, home = ceph.client(), "database-backups/%s/" % program.site.instance
    found: set[int] = set()
    for upload in raw.list_multipart_uploads(Bucket=BUCKET, Prefix=home).get("Uploads", []):
        listed = raw.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        found |= {part["PartNumber"] for part in listed.get("Parts", [])}
    return found


def test_killed_while_parts_are_sent_and_taken_up_by_the_next_run(
    night: Program, ceph: CephS3, shop_server: PostgresServer
) -> None:
    set_id = night.json("backup")["set"]
    size = (night.site.set_folder(set_id) / payload(night, set_id)).stat().st_size
    count = -(-size // PART)
    with holding_parts(ceph, first_held=3) as proxy:
        night.configure(s3={"endpoint_url": proxy.url, "part_size": "5MiB"})
        process = night.start("sync")
        try:
            wait_for(lambda: parts_at(ceph, night) == {1, 2}, seconds=90)
        finally:
            process.kill()
            process.communicate()
    assert manifests(ceph, night) == []
    with Proxy(ceph.endpoint_url) as proxy:
        night.configure(s3={"endpoint_url": proxy.url, "part_size": "5MiB"})
        assert night.json("sync")["sets"] == [set_id]
        sent = sorted(asked.part for asked in proxy.asked if asked.part and "/sets/" in asked.path)
    assert sent == list(range(3, count + 1))
    line = r'"PUT \S*/%s/sets/\S*[?&]partNumber=(\d+)\S* HTTP/1.1" 200' % night.site.instance
    taken = [int(number) for number in re.findall(line, ceph.log())]
    assert sorted(taken) == list(range(1, count + 1)), "the gateway's own log says the same: each part once"
    assert parts_at(ceph, night) == set()
    night.configure(s3={"part_size": "5MiB"})
    night("verify", set_id, "--place", "s3", "--level", "checksum")


def test_uploads_that_nobody_takes_up_are_given_up_after_a_week(ceph: CephS3, tmp_path: Path) -> None:
    kit = Kit(ceph, "ceph", tmp_path)
    raw, ours, foreign = kit.raw(), kit.raw_key("sets/%s/lost" % set_id_of(days=1)), "foreign/%s" % kit.instance
    for key in (ours, foreign):
        upload = raw.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        raw.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=os.urandom(1000))
    for days, left in ((6, {ours, foreign}), (8, {foreign})):
        context, new = kit.context(), set_id_of(hours=days)
        context.clock = lambda days=days: datetime.now(UTC) + timedelta(days=days)  # type: ignore[misc]
        make_set(context, new, {"a": 10})
        assert new in sync(context, Request())["sets"]
        found = raw.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        assert {upload["Key"] for upload in found} & {ours, foreign} == left
