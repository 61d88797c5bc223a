# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that does not let us in, or not do one thing: what is said, what still works, and that the next run succeeds."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.faults.two_places import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Host,
    host_at_each,
    host_at_moto,
    host_at_rclone,
)
from tests.integration.s3_fixtures import BUCKET, MIB, Asked, Fault, Refuse

DENIED = Refuse(403, "AccessDenied")


def denying(*kinds: str, method: str = "") -> Callable[[Asked], Fault]:
    """Return a decision that denies what is of these kinds (see Asked.kind)."""
    return lambda asked: DENIED if asked.kind in kinds and method in ("", asked.method) else None


# --- nobody gets in ---------------------------------------------------------------------------------------------------


def configure(host: Host, **s3: str) -> None:
    host.program.configure(s3=s3)


def test_a_wrong_key_is_named_as_such_and_the_right_one_goes_on(rclone_host: Host) -> None:
    """rclone's server checks signatures."""
    host = rclone_host
    set_id = host.make_set()
    for wrong, arguments in (
        ({"access_key": "AKNOBODY"}, ("sync",)),
        ({"secret_key": "wrong"}, ("sync",)),
        ({"secret_key": "wrong"}, ("verify", "--place", "s3")),
    ):
        configure(host, **wrong)
        text = host.fails(*arguments, code=1, said=r"does not accept the credentials|access denied")
        assert "wrong" not in text
        assert host.kit.raw_paths() == []
    configure(host)
    assert host.succeeds("sync")["sets"] == [set_id]
    host.is_whole_there(set_id)


def test_a_missing_bucket_is_named_and_is_not_made(host: Host) -> None:
    set_id = host.make_set()
    configure(host, bucket="nothing-here")
    text = host.fails("sync", code=1, said="The bucket nothing-here does not exist")
    assert "Create it, or correct s3.bucket" in text
    host.fails("sync", "--pull", code=1, said="bucket nothing-here does not exist")
    assert "nothing-here" not in [b["Name"] for b in host.kit.raw().list_buckets()["Buckets"]]
    configure(host)
    assert host.succeeds("sync")["sets"] == [set_id]


def test_a_clock_that_is_off_is_told_as_a_clock(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set()
    host.proxy.hurt(lambda asked: Refuse(403, "RequestTimeTooSkewed"))
    text = host.fails("sync", code=1, said="clock is too far from the store's")
    assert "Set the clock" in text and "credentials" not in text
    assert len(host.proxy.asked) < 10, "asking again does not set a clock"
    place = next(p for p in host.program.json("info")["places"] if p["place"] == "s3")
    assert not place["reachable"] and "clock" in place["error"]
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [set_id]


@pytest.mark.parametrize("from_the", ["GET", "PUT"])
def test_credentials_that_have_expired_are_told_as_such(moto_host: Host, from_the: str) -> None:
    """As temporary ones do; in the midst of a sync, too, which the next one ends."""
    host = moto_host
    set_id = host.make_set(2)
    over: list[Asked] = []

    def expired(asked: Asked) -> Fault:
        if over or asked.method == from_the:
            over.append(asked)
        return Refuse(400, "ExpiredToken") if over else None

    host.proxy.hurt(expired)
    text = host.fails("sync", code=1, said="the credentials have expired")
    assert "Renew them" in text
    assert len(over) < 20, "asking again renews nothing"  # several files are on their way at once
    assert [path for path in host.kit.raw_paths() if path.endswith("manifest.json")] == []
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [set_id]
    host.is_whole_there(set_id)


def test_a_head_whose_answer_tells_nothing_names_what_it_may_be(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set()
    host.proxy.hurt(lambda asked: Refuse(400, "ExpiredToken") if asked.method == "HEAD" else None)
    text = host.fails("sync", code=1, said="says no more than 400")
    assert "credentials that have expired" in text
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [set_id]


def test_a_store_that_is_not_there_is_out_of_reach(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set()
    configure(host, endpoint_url="http://127.0.0.1:9")
    host.fails("sync", code=4, said="cannot be reached")
    assert host.program.json("verify", "--place", "local", "--level", "checksum")["sets"][0]["outcome"] == "passed"
    configure(host)
    assert host.succeeds("sync")["sets"] == [set_id]


# --- one thing is not allowed -----------------------------------------------------------------------------------------


@pytest.fixture(name="kept")
def kept_set(moto_host: Host) -> tuple[Host, str]:
    """A host with one set that is in S3 already."""
    set_id = moto_host.make_set(2)
    moto_host.succeeds("sync")
    return moto_host, set_id


def test_a_backup_directory_that_is_lost_is_told_by_the_next_sync(kept: tuple[Host, str]) -> None:
    host, old = kept
    host.lose_local()
    result = host.succeeds("sync")
    assert (result["changed"], result["only_there"], result["only_there_count"]) == (False, [old], 1)
    said = r"here is none\. If this host has lost it: pgops --config \S+ sync --pull %s" % old
    assert re.search(said, host.record()["warnings"][0])
    assert "Only there: 1 set: %s." % old in host.program("sync").stdout


def test_without_the_right_to_list_nothing_is_guessed(kept: tuple[Host, str]) -> None:
    host, old = kept
    new = host.make_set()
    before = host.kit.raw_paths()
    host.proxy.hurt(denying("list"))
    for arguments in (("sync",), ("verify", "--place", "s3")):
        text = host.fails(*arguments, code=1, said=r"refused ListObjectsV2 on s3://backups/.*: access denied")
        assert "s3:ListBucket" in text
    assert host.kit.raw_paths() == before
    # What is here still is.
    places = {p["place"]: p for p in host.program.json("info")["places"]}
    assert [s["id"] for s in places["local"]["sets"]] == [new, old]
    assert not places["s3"]["reachable"] and "s3:ListBucket" in places["s3"]["error"]
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [new]


def test_without_the_right_to_put_what_is_there_can_still_be_read(kept: tuple[Host, str]) -> None:
    host, old = kept
    new = host.make_set()
    before = host.kit.raw_paths()
    host.proxy.hurt(denying("put", "part", "uploads"))
    text = host.fails("sync", code=1, said="access denied")
    assert "s3:PutObject" in text
    assert host.kit.raw_paths() == before and host.unfinished_uploads() == []
    host.lose_local()
    assert host.succeeds("sync", "--pull")["sets"] == [old]
    host.is_whole_here(old)
    # Evidence is written where the set lies, so what cannot be kept is not claimed.
    host.fails("verify", "--place", "s3", "--level", "checksum", code=1, said="access denied.*s3:PutObject")
    host.make_set()
    host.proxy.heal()
    assert len(host.succeeds("sync")["sets"]) == 1
    assert new not in host.published()


def test_without_the_right_to_get_nothing_is_published_that_was_not_proven(kept: tuple[Host, str]) -> None:
    host, old = kept
    new = host.make_set()
    host.proxy.hurt(denying("get", "head"))
    text = host.fails("sync", code=1, said="refused GetObject on s3://backups/.*: access denied")
    assert "s3:GetObject" in text
    assert host.published() == [old]
    # A verification cannot keep its evidence either: what is stored there is read back.
    verify = ("verify", "--place", "s3", "--level", "checksum")
    for arguments in (("sync", "--pull"), ("restore", old, "--place", "s3", "--yes"), verify):
        host.fails(*arguments, code=1, said="refused (Get|Head)Object on .*: access denied.*s3:GetObject")
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [new]
    host.is_whole_there(new)


def test_without_multipart_uploads_large_files_are_refused_and_small_sets_pass(kept: tuple[Host, str]) -> None:
    host, old = kept
    large, small = host.make_set(), host.make_set(1, {"a": 1000, "b": 4 * MIB})
    host.proxy.hurt(denying("uploads", method="POST"))
    host.fails("sync", code=1, said="refused CreateMultipartUpload on .*b/large: access denied.*s3:PutObject")
    assert host.published() == [old]
    assert host.succeeds("sync", small)["sets"] == [small]
    assert host.unfinished_uploads() == []
    host.proxy.heal()
    assert host.succeeds("sync")["sets"] == [large]
    host.is_whole_there(large)


@pytest.mark.parametrize(
    ("kind", "method", "permission"),
    [
        ("uploads", "GET", "s3:ListBucketMultipartUploads"),
        ("uploadId", "GET", "s3:ListMultipartUploadParts"),
        ("uploadId", "DELETE", "s3:AbortMultipartUpload"),
    ],
)
def test_without_the_rights_over_unfinished_uploads_sets_go_there_and_it_is_told_once(
    moto_host: Host, kind: str, method: str, permission: str
) -> None:
    host = moto_host
    sizes = {"a": 6 * MIB, "b": 6 * MIB}
    set_id = host.make_set(sizes=sizes)
    for name in sizes:
        key = host.kit.raw_key(host.stored(set_id, name))
        upload = host.kit.raw().create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        if method == "GET":
            host.kit.raw().upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=bytes(5 * MIB))
    host.proxy.hurt(denying(kind, method=method))
    result = host.program.json("sync")
    assert result["sets"] == [set_id]
    (said,) = [text for text in result["warnings"] if permission in text]
    assert "access denied" in said
    assert said in host.record()["warnings"]
    host.is_whole_there(set_id)
    # Without the second alone they can still be given up.
    assert bool(host.unfinished_uploads()) == (permission != "s3:ListMultipartUploadParts")


def test_uploads_that_are_stale_are_given_up_also_when_the_run_fails(kept: tuple[Host, str]) -> None:
    """moto says that every upload began in 2010."""
    host, _old = kept
    host.make_set(sizes={"a": 1000})
    key = host.kit.raw_key(host.stored("20200101T000000Z-logical", "a"))
    host.kit.raw().create_multipart_upload(Bucket=BUCKET, Key=key)
    host.proxy.hurt(denying("put"))
    text = host.fails("sync", code=1, said="access denied")
    assert "1 unfinished uploads older than 7 days were given up" in text
    assert host.unfinished_uploads() == []


def test_without_the_right_to_delete_sets_go_there_and_none_is_half_removed(moto_host: Host) -> None:
    host = moto_host
    host.proxy.hurt(denying("delete"))
    old, new = host.make_set(40), host.make_set()
    retention = {"keep_within": "30d", "keep_last": 1, "keep_verified": 1}
    host.program.configure(s3={"retention": {"keep_within": "90d"}})
    assert host.program.json("sync")["sets"] == [new, old]
    host.kit.raw().delete_object(Bucket=BUCKET, Key=host.kit.raw_key("probe/checksum"))
    host.program.configure(s3={"retention": retention})
    text = host.fails("prune", "--place", "s3", code=1, said="refused DeleteObjects? on .*: access denied")
    assert "s3:DeleteObject" in text
    assert host.published() == sorted([old, new])
    host.is_whole_there(old)
    host.proxy.heal()
    (place,) = host.succeeds("prune", "--place", "s3")["places"]
    assert [s["set"] for s in place["removed"]] == [old]
    assert not [p for p in host.kit.raw_paths() if re.match("sets/" + old, p)]
