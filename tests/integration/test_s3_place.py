# SPDX-License-Identifier: GPL-3.0-or-later
"""The S3 place against real servers, with another tool looking at what it stored, and with faults on the way."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    MissingError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.probe import probe
from tests.integration.s3_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    BUCKET,
    MIB,
    Asked,
    Cut,
    CutAnswer,
    Flip,
    Kit,
    LoseAnswer,
    Proxy,
    Refuse,
    kit_of_each,
    make_moto_kit,
    make_rclone_kit,
    make_strict_kit,
    moto_server,
    rclone_server,
    times,
)

SET = "20261122T020000Z-logical"


def stored(name: str) -> str:
    return "sets/%s/%s" % (SET, name)


def test_another_tool_reads_what_was_uploaded_and_we_read_it_back(kit: Kit) -> None:
    place = kit.place()
    jobs = [kit.file(*spec) for spec in (("large", 12 * MIB + 7), ("one", 2 * MIB), ("empty", 0), ("a/b ü%$'\"", 10))]
    tally = place.upload_all(SET, jobs)
    place.publish(SET, b"{}")
    assert tally.bytes_sent == sum(f.size for f, _unused in jobs)
    for file, path in jobs:
        assert kit.raw_read(stored(file.path)) == path.read_bytes()
    assert set(place.entries("sets")) == {stored(f.path) for f, _unused in jobs} | {stored("manifest.json")}
    (kit.tmp / "back/a").mkdir(parents=True)
    place.fetch_all(SET, [(f, kit.tmp / "back" / f.path) for f, _unused in jobs])
    for file, path in jobs:
        assert (kit.tmp / "back" / file.path).read_bytes() == path.read_bytes()
        assert (kit.tmp / "back" / file.path).stat().st_mode & 0o777 == 0o600
        assert place.check_file(SET, file) == "read"
    again = place.upload_all(SET, jobs, present={f.path for f, _unused in jobs})
    assert (again.bytes_sent, len(again.skipped)) == (0, 4)
    freed = place.delete_set(SET)
    assert freed == tally.bytes_sent + 2
    assert kit.raw_paths() == []


def test_payload_alone_gets_the_storage_class_and_everything_gets_tags(moto_kit: Kit) -> None:
    place = moto_kit.place(storage_class="STANDARD_IA", sse="AES256", tags={"team": "data + more"})
    for name, size in (("large", 6 * MIB), ("small", 10)):
        place.upload(SET, *moto_kit.file(name, size))
    place.publish(SET, b"{}")
    raw = moto_kit.raw()
    for name, storage_class in (("large", "STANDARD_IA"), ("small", "STANDARD_IA"), ("manifest.json", None)):
        key = moto_kit.raw_key(stored(name))
        facts = raw.head_object(Bucket=BUCKET, Key=key)
        assert facts.get("StorageClass") == storage_class
        assert facts["ServerSideEncryption"] == "AES256"
        tags = raw.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
        assert tags == [{"Key": "team", "Value": "data + more"}]


def test_other_content_of_the_same_size_is_found(kit: Kit) -> None:
    place = kit.place()
    for name, size in (("large", 6 * MIB), ("small", 1000)):
        file, path = kit.file(name, size)
        place.upload(SET, file, path)
        altered = bytearray(path.read_bytes())
        altered[size // 2] ^= 1
        kit.raw_write(stored(name), bytes(altered))
        with pytest.raises(DamagedError, match="SHA-256 differs"):
            place.check_file(SET, file)
        assert not place.holds(SET, file, path)
        with pytest.raises(DamagedError, match="SHA-256 differs"):
            place.fetch(SET, file, kit.tmp / ("back-" + name))
        kit.raw_write(stored(name), bytes(altered[:-1]))
        with pytest.raises(DamagedError, match="the manifest says"):
            place.check_file(SET, file)


def test_what_is_not_there_is_missing(kit: Kit) -> None:
    place = kit.place()
    file, _unused = kit.file("nowhere", 10)
    for ask in (
        lambda: place.read("evidence/nothing.json"),
        lambda: list(place.stream(stored("nowhere"))),
        lambda: place.check_file(SET, file),
        lambda: place.fetch(SET, file, kit.tmp / "target"),
        lambda: place.delete_set(SET),
    ):
        with pytest.raises(MissingError):
            ask()
    place.delete(["evidence/nothing.json"])
    with pytest.raises(DamagedError):
        place.read("../other/manifest.json")


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_local_file_that_changed_is_not_stored(kit: Kit, size: int) -> None:
    place = kit.place()
    file, path = kit.file("payload", size)
    with path.open("r+b") as stream:
        stream.seek(size - 1)
        stream.write(bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises(DamagedError, match="not what the manifest of its set says"):
        place.upload(SET, file, path)
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(DamagedError):
        place.upload(SET, file, path)
    path.unlink()
    with pytest.raises(DamagedError, match="cannot be read"):
        place.upload(SET, file, path)
    assert kit.raw_paths() == []
    assert place.abort_stale_uploads(datetime.now(UTC) + timedelta(days=1)) == []


def test_a_cut_upload_is_taken_up_where_it_broke(kit: Kit) -> None:
    file, path = kit.file("large", 23 * MIB)
    with Proxy(kit.server.endpoint_url) as proxy:
        proxy.fault = lambda asked: Cut(MIB) if asked.part > 2 else None
        with pytest.raises(UnreachableError, match="broke during UploadPart"):
            kit.place(proxy.url, tries=2, concurrency=2).upload(SET, file, path)
        assert kit.raw_paths() == []
        proxy.fault = lambda asked: None
        proxy.asked.clear()
        sent = kit.place(proxy.url, concurrency=2).upload(SET, file, path)
        assert sorted(a.part for a in proxy.asked if a.part) == [3, 4, 5]
    assert sent == 13 * MIB
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_parts_of_other_content_are_not_taken_up(kit: Kit) -> None:
    file, path = kit.file("large", 12 * MIB)
    with Proxy(kit.server.endpoint_url) as proxy:
        proxy.fault = lambda asked: Cut(MIB) if asked.part > 2 else None
        with pytest.raises(UnreachableError):
            kit.place(proxy.url, tries=1, concurrency=1).upload(SET, file, path)
        proxy.fault = lambda asked: None
        file, path = kit.file("large", 12 * MIB)
        assert kit.place(proxy.url).upload(SET, file, path) == 12 * MIB
    assert kit.raw_read(stored("large")) == path.read_bytes()
    metadata = kit.raw().head_object(Bucket=BUCKET, Key=kit.raw_key(stored("large")))["Metadata"]
    assert file.sha256 in metadata.values()


@pytest.mark.parametrize("fault", [Cut(100_000), Refuse(503, "SlowDown"), Refuse(500, "InternalError")])
def test_passing_trouble_with_parts_is_sat_out(kit: Kit, fault: Any) -> None:
    file, path = kit.file("large", 12 * MIB)
    with Proxy(kit.server.endpoint_url, fault=times(3, fault, lambda asked: asked.part == 2)) as proxy:
        kit.place(proxy.url).upload(SET, file, path)
        assert [a.part for a in proxy.asked].count(2) == 4
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_a_part_whose_answer_was_lost_is_not_sent_for_ever(kit: Kit) -> None:
    file, path = kit.file("large", 12 * MIB)
    lost = times(1, LoseAnswer(), lambda asked: asked.part == 2)
    with Proxy(kit.server.endpoint_url, fault=lost) as proxy:
        kit.place(proxy.url).upload(SET, file, path)
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_a_storm_of_503_ends_as_unreachable_and_says_so(moto_kit: Kit) -> None:
    file, path = moto_kit.file("small", 100)
    moto_kit.place().modes()
    with Proxy(moto_kit.server.endpoint_url, fault=lambda asked: Refuse(503, "SlowDown")) as proxy:
        with pytest.raises(UnreachableError, match=r"could not do PutObject .SlowDown."):
            moto_kit.place(proxy.url, tries=2, checksum_mode="read").upload(SET, file, path)
        assert 2 <= len(proxy.asked) <= 12


def test_the_answer_to_complete_may_be_lost(kit: Kit) -> None:
    file, path = kit.file("large", 6 * MIB)
    lost = times(1, CutAnswer(5), lambda asked: asked.method == "POST" and asked.kind == "uploadId")
    with Proxy(kit.server.endpoint_url, fault=lost) as proxy:
        kit.place(proxy.url).upload(SET, file, path)
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_a_stream_survives_cuts(kit: Kit) -> None:
    file, path = kit.file("large", 3 * MIB)
    kit.place().upload(SET, file, path)
    with Proxy(kit.server.endpoint_url, fault=times(5, CutAnswer(500_000), lambda a: a.kind == "get")) as proxy:
        found = b"".join(kit.place(proxy.url).stream(stored("large")))
        asked = [a.headers.get("range", "") for a in proxy.asked]
    assert found == path.read_bytes()
    assert asked[0] == ""
    assert asked[1].startswith("bytes=") and asked[1] != "bytes=0-"
    target = kit.tmp / "target"
    with Proxy(kit.server.endpoint_url, fault=times(5, CutAnswer(500_000), lambda a: a.kind == "get")) as proxy:
        kit.place(proxy.url).fetch(SET, file, target)
    assert target.read_bytes() == path.read_bytes()


def test_a_stream_without_progress_ends(moto_kit: Kit) -> None:
    file, path = moto_kit.file("small", 1000)
    moto_kit.place().upload(SET, file, path)
    with Proxy(moto_kit.server.endpoint_url, fault=lambda a: CutAnswer(0) if a.kind == "get" else None) as proxy:
        with pytest.raises(UnreachableError, match="broke during GetObject"):
            list(moto_kit.place(proxy.url, tries=3).stream(stored("small")))
        assert len(proxy.asked) == 3


def test_an_object_that_changes_while_it_is_streamed_is_damaged(moto_kit: Kit) -> None:
    file, path = moto_kit.file("large", 3 * MIB)
    moto_kit.place().upload(SET, file, path)
    with Proxy(moto_kit.server.endpoint_url, fault=times(1, CutAnswer(MIB), lambda a: a.kind == "get")) as proxy:
        stream = moto_kit.place(proxy.url).stream(stored("large"))
        next(stream)
        moto_kit.raw_write(stored("large"), b"x" * 3 * MIB)
        with pytest.raises(DamagedError, match="changed while it was being read"):
            list(stream)


def test_bytes_that_are_hurt_on_the_way_are_found_and_sent_again(kit: Kit) -> None:
    file, path = kit.file("large", 6 * MIB)
    kit.place().modes()
    with Proxy(kit.server.endpoint_url, fault=times(1, Flip(1000), lambda a: a.part == 1)) as proxy:
        kit.place(proxy.url, checksum_mode="read").upload(SET, file, path)
        again = [a for a in proxy.asked if a.part == 1]
        assert len(again) >= 2
        if kit.kind in ("moto", "rclone"):  # others hold the content against the hash that signs the request
            assert ["content-md5" in a.headers for a in (again[0], again[-1])] == [False, True]
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_of_many_small_files_the_one_that_the_way_hurt_is_sent_again(moto_kit: Kit) -> None:
    jobs = [moto_kit.file("small-%d" % number, 100 + number) for number in range(40)]  # by one thread
    moto_kit.place().modes()
    hurts = times(1, Flip(10), lambda a: a.method == "PUT" and a.path.endswith("/small-5"))
    with Proxy(moto_kit.server.endpoint_url, fault=hurts) as proxy:
        tally = moto_kit.place(proxy.url, checksum_mode="read").upload_all(SET, jobs)
        sent = [a.path.rsplit("/", 1)[-1] for a in proxy.asked if a.method == "PUT"]
    assert sorted(sent) == sorted([*(path.name for _file, path in jobs), "small-5"])
    assert tally.bytes_sent == sum(file.size for file, _path in jobs)
    for _file, path in jobs:
        assert moto_kit.raw_read(stored(path.name)) == path.read_bytes()


def test_of_many_small_files_the_one_that_changed_here_or_is_gone_is_named(moto_kit: Kit) -> None:
    jobs = [moto_kit.file("small-%d" % number, 100) for number in range(40)]
    jobs[7][1].write_bytes(b"x" * 100)
    with pytest.raises(DamagedError, match=r"small-7 is not what the manifest of its set says \(SHA-256 differs\)"):
        moto_kit.place(checksum_mode="read").upload_all(SET, jobs)
    jobs[7][1].unlink()
    with pytest.raises(DamagedError, match="small-7 cannot be read: No such file"):
        moto_kit.place(checksum_mode="read").upload_all(SET, jobs)
    assert stored("small-7") not in moto_kit.raw_paths()


@pytest.mark.parametrize("size", [100, 6 * MIB])
def test_a_way_that_hurts_bytes_again_and_again_fails(moto_kit: Kit, size: int) -> None:
    file, path = moto_kit.file("hurt", size)
    moto_kit.place().modes()
    hurts = times(1000, Flip(10), lambda a: a.method == "PUT")
    with (
        Proxy(moto_kit.server.endpoint_url, fault=hurts) as proxy,
        pytest.raises(DamagedError, match="is not what was sent"),
    ):
        moto_kit.place(proxy.url, checksum_mode="read").upload(SET, file, path)


# --- checksums --------------------------------------------------------------------------------------------------------


def test_stores_that_keep_any_checksum_are_not_believed(kit: Kit) -> None:
    modes = kit.place().modes()
    assert (modes.put, modes.multipart) == ("read", "read")
    assert modes.why == {"rclone": "it takes a wrong SHA-256 for a right one"}.get(kit.kind, "it keeps no SHA-256")
    assert len(kit.warnings) == 1
    kit.place().modes()
    assert len(kit.warnings) == 1, "it is remembered, and said once"
    assert kit.raw_paths() == [], "the probe object is removed"


def test_a_store_that_checks_and_keeps_sha256_is_believed(strict_kit: tuple[Kit, Proxy]) -> None:
    kit, proxy = strict_kit
    place = kit.place(proxy.url)
    large, small = kit.file("large", 12 * MIB), kit.file("small", 1000)
    place.upload_all(SET, [large, small, *(kit.file("small-%d" % number, 10) for number in range(40))])
    assert (place.modes().put, place.modes().multipart, kit.warnings) == ("sha256", "sha256", [])
    assert "get" not in proxy.kinds(), "nothing is read back"
    assert kit.raw_read(stored("large")) == large[1].read_bytes()
    assert place.check_file(SET, small[0]) == "store checksum"
    assert place.check_file(SET, large[0]) == "read", "a checksum of parts says nothing about the whole"
    proxy.asked.clear()
    assert place.holds(SET, *large)
    assert place.holds(SET, *small)
    assert proxy.kinds() == ["head", "head"], "with a local copy no content is fetched"
    other = kit.file("small", 1000)
    assert not place.holds(SET, *other)
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        place.check_file(SET, other[0])


def test_a_store_that_checks_sha256_refuses_hurt_bytes_and_gets_them_again(strict_kit: tuple[Kit, Proxy]) -> None:
    kit, proxy = strict_kit
    place = kit.place(proxy.url)
    place.modes()
    proxy.fault = times(1, Flip(1000), lambda asked: asked.part == 1)
    file, path = kit.file("large", 6 * MIB)
    place.upload(SET, file, path)
    assert kit.raw_read(stored("large")) == path.read_bytes()


def test_a_store_that_refuses_checksums_works_all_the_same(kit: Kit) -> None:
    def refuse(asked: Asked) -> Refuse | None:
        named = any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum")) for name in asked.headers)
        return Refuse(501, "NotImplemented") if named else None

    with Proxy(kit.server.endpoint_url, fault=refuse) as proxy:
        place = kit.place(proxy.url)
        for spec in (("large", 6 * MIB), ("small", 10)):
            file, path = kit.file(*spec)
            place.upload(SET, file, path)
            assert place.check_file(SET, file) == "read"
        place.delete_set(SET)
    assert "it refuses SHA-256 checksums" in kit.warnings[0]
    assert kit.raw_paths() == []


def test_checksum_mode_sha256_demands_what_the_store_lacks(moto_kit: Kit) -> None:
    file, path = moto_kit.file("small", 10)
    with pytest.raises(DamagedError, match=r"the store says SHA-256|is not what was sent"):
        moto_kit.place(checksum_mode="sha256").upload(SET, file, path)


# --- removal ----------------------------------------------------------------------------------------------------------


def test_single_deletes_where_a_store_offers_no_batch(kit: Kit) -> None:
    place = kit.place()
    place.upload_all(SET, [kit.file("f%d" % n, 3) for n in range(5)])
    place.publish(SET, b"{}")
    with Proxy(
        kit.server.endpoint_url,
        fault=lambda a: Refuse(501, "NotImplemented") if a.kind == "delete" and a.method == "POST" else None,
    ) as proxy:
        kit.place(proxy.url).delete_set(SET)
        deleted = [a.path.rsplit("/", 1)[1] for a in proxy.asked if a.method == "DELETE"]
        assert deleted[0] == "manifest.json"
        assert [a.method for a in proxy.asked].count("POST") == 1, "it is remembered"
    assert kit.raw_paths() == []


def test_an_object_that_a_batch_leaves_is_an_error(moto_kit: Kit) -> None:
    xml = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>locked</Message></Error></DeleteResult>"
    moto_kit.place().write("pins/x", b"")
    with (
        Proxy(
            moto_kit.server.endpoint_url, fault=lambda a: Refuse(200, "", xml) if a.method == "POST" else None
        ) as proxy,
        pytest.raises(PgopsError, match=r"did not remove 1 of 1 objects.*AccessDenied"),
    ):
        moto_kit.place(proxy.url).delete(["pins/x"])


def test_unfinished_uploads_of_our_own_are_given_up_when_old(kit: Kit) -> None:
    raw, key = kit.raw(), kit.raw_key(stored("large"))
    raw.create_multipart_upload(Bucket=BUCKET, Key=key)
    raw.create_multipart_upload(Bucket=BUCKET, Key="somebody/else")
    place = kit.place()
    if kit.kind != "moto":  # it says that every upload began in 2010
        assert place.abort_stale_uploads(datetime.now(UTC) - timedelta(days=7)) == []
    assert place.abort_stale_uploads(datetime.now(UTC) + timedelta(days=1)) == [stored("large")]
    left = raw.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert {u["Key"] for u in left} >= {"somebody/else"}
    assert key not in {u["Key"] for u in left}
    for upload in left:
        raw.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


# --- trouble with the store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (Refuse(403, "AccessDenied"), PgopsError, "refused PutObject on s3://backups/.*access denied.*s3:PutObject"),
        (Refuse(403, "RequestTimeTooSkewed"), PgopsError, "clock"),
        (Refuse(403, "SignatureDoesNotMatch"), PgopsError, "does not accept the credentials"),
        (Refuse(404, "NoSuchBucket"), MissingError, "bucket backups does not exist.*Create it"),
    ],
)
def test_refusals_say_what_to_do(moto_kit: Kit, refusal: Refuse, kind: type[PgopsError], said: str) -> None:
    with Proxy(moto_kit.server.endpoint_url, fault=lambda asked: refusal) as proxy:
        place = moto_kit.place(proxy.url)
        with pytest.raises(kind, match=said) as caught:
            place.write("evidence/x.json", b"{}")
    assert caught.value.__class__ is kind
    assert moto_kit.server.secret_key not in str(caught.value)
    assert moto_kit.server.access_key not in str(caught.value)
    assert "Signature=" not in str(caught.value)


def test_a_refused_verb_names_its_permission(moto_kit: Kit) -> None:
    file, path = moto_kit.file("large", 6 * MIB)
    place = moto_kit.place()
    place.upload(SET, file, path)
    with Proxy(moto_kit.server.endpoint_url, fault=lambda a: Refuse(403, "AccessDenied")) as proxy:
        denied = moto_kit.place(proxy.url)
        for ask, permission in (
            (lambda: denied.entries("sets"), "s3:ListBucket"),
            (lambda: denied.read(stored("large")), "s3:GetObject"),
            (lambda: denied.check_file(SET, file), "s3:GetObject"),
            (lambda: denied.delete([stored("large")]), "s3:DeleteObject"),
        ):
            with pytest.raises(PgopsError, match=permission):
                ask()


def test_wrong_keys_and_a_missing_bucket(rclone_kit: Kit) -> None:
    with pytest.raises(PgopsError, match=r"does not accept the credentials|access denied"):
        rclone_kit.place(access_key="AKNOBODY", secret_key="wrong").entries("sets")
    with pytest.raises(MissingError, match="bucket nothing-here does not exist"):
        rclone_kit.place(bucket="nothing-here").entries("sets")


def test_an_endpoint_that_is_not_there(moto_kit: Kit) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        moto_kit.place("http://127.0.0.1:9", tries=1).entries("sets")


def test_credentials_files_and_profiles(rclone_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    server, path = rclone_kit.server, rclone_kit.tmp / "credentials"
    lines = "aws_access_key_id = %s\naws_secret_access_key = %s\n" % (server.access_key, server.secret_key)
    path.write_text("[default]\n%s[other]\naws_access_key_id = AKX\naws_secret_access_key = y\n" % lines)
    path.chmod(0o644)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKFROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    options = {"access_key": "", "secret_key": "", "credentials_file": str(path)}
    with pytest.raises(UsageError, match=r"open to others .mode 0644.*chmod 600"):
        rclone_kit.place(**options).entries("sets")
    path.chmod(0o600)
    assert rclone_kit.place(**options).entries("sets") == {}
    with pytest.raises(PgopsError, match=r"credentials|denied"):
        rclone_kit.place(**options, profile="other").entries("sets")
    with pytest.raises(UsageError, match="profile 'nobody' does not exist"):
        rclone_kit.place(**options, profile="nobody").entries("sets")
    with pytest.raises(UsageError, match="cannot be read"):
        rclone_kit.place(**{**options, "credentials_file": str(path) + "x"}).entries("sets")


def test_no_credentials_at_all(moto_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(moto_kit.tmp / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(moto_kit.tmp / "none"))
    with pytest.raises(UsageError, match="no usable credentials"):
        moto_kit.place(access_key="", secret_key="").entries("sets")


def test_the_bandwidth_limit_holds_both_ways(moto_kit: Kit) -> None:
    file, path = moto_kit.file("large", 6 * MIB)
    place = moto_kit.place(bandwidth_limit="4MiB", checksum_mode="read")
    began = time.monotonic()
    place.upload(SET, file, path)  # 6 MiB up, and 6 MiB read back
    least = 2.5
    assert time.monotonic() - began > least
    began = time.monotonic()
    place.fetch(SET, file, moto_kit.tmp / "target")
    assert 1.0 < time.monotonic() - began < 60


def test_a_state_directory_that_cannot_be_written_is_a_warning(moto_kit: Kit) -> None:
    (moto_kit.tmp / "state").write_text("no directory")
    moto_kit.place().write("evidence/x", b"1")
    assert any("s3-capabilities.json cannot be written" in w for w in moto_kit.warnings)


# --- probe ------------------------------------------------------------------------------------------------------------


def test_probe_finds_what_works_and_leaves_nothing(kit: Kit) -> None:
    result = probe(kit.context())
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert result["capabilities"]["put_checksum"] == "read"
    assert result["capabilities"]["versioning"] == "Off"
    assert abs(result["capabilities"]["clock_difference_seconds"]) < 30
    assert result["changed"]
    assert not probe(kit.context())["changed"]
    assert kit.raw_paths() == []


def test_probe_names_what_is_refused(moto_kit: Kit) -> None:
    def fault(asked: Asked) -> Refuse | None:
        if asked.kind == "uploads":
            return Refuse(403, "AccessDenied")
        return (
            Refuse(501, "NotImplemented")
            if asked.kind in ("delete", "versioning") and asked.method != "DELETE"
            else None
        )

    with Proxy(moto_kit.server.endpoint_url, fault=fault) as proxy:
        context = moto_kit.context(proxy.url)
        result = probe(context)
    failed = {c["name"] for c in result["checks"] if not c["ok"]}
    assert failed == {"multipart", "multipart listing"}
    assert result["capabilities"]["batch_delete"] is False
    assert result["capabilities"]["versioning"] is None
    assert any("s3:PutObject" in w for w in context.warnings)
    remembered = json.loads((Path(context.state) / "s3-capabilities.json").read_text())
    assert remembered["%s %s" % (proxy.url, BUCKET)]["batch_delete"] is False
    assert moto_kit.raw_paths() == []


def test_probe_sees_versioning_and_object_lock(moto_kit: Kit) -> None:
    raw = moto_kit.raw()
    raw.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    raw.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    found = probe(moto_kit.context(bucket="locked"))["capabilities"]
    assert found["versioning"] == "Enabled"
    assert found["object_lock"] == "GOVERNANCE for 1 days by default"


def test_probe_sees_a_clock_that_is_off(moto_kit: Kit) -> None:
    context = moto_kit.context()
    context.clock = lambda: datetime.now(UTC) + timedelta(minutes=20)
    clock = next(c for c in probe(context)["checks"] if c["name"] == "clock")
    assert not clock["ok"]
    assert "s ahead of the store's" in clock["detail"]


def test_the_whole_hash_is_kept_as_metadata(kit: Kit) -> None:
    file, path = kit.file("large", 6 * MIB)
    kit.place().upload(SET, file, path)
    metadata = kit.raw().head_object(Bucket=BUCKET, Key=kit.raw_key(stored("large")))["Metadata"]
    assert {k.lower(): v for k, v in metadata.items()}["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
