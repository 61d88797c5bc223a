# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bucket is to become: the rules of the core, and the whole way against a store that forgets and refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.bucket import (
    FROZEN_FROM_BYTES,
    Lifecycle,
    Lock,
    Wanted,
    check,
    concerns,
    differing,
    fresh,
    home_of,
    in_order,
    planned,
    rules,
    unknown_to_store,
    with_rules,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places import s3_client
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_bucket import is_amazon
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import S3, Config
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import bucket as verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.bucket import Request, look, prepare

HOME = "database-backups/"
THEIRS = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
NOTHING = fresh(Wanted())
LOCKED = {**fresh(Wanted(object_lock=Lock("COMPLIANCE", 1))), "object_lock": {"enabled": True, "mode": "", "days": 0}}


# --- the core ---------------------------------------------------------------------------------------------------------


def test_what_is_not_asked_for_stays() -> None:
    found = {**NOTHING, "versioning": "Suspended", "lifecycle": [THEIRS], "tags": {"a": "b"}}
    assert planned(found, Wanted(), HOME) == found


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ("Off", True, "Enabled"),
        ("Enabled", True, "Enabled"),
        ("Suspended", True, "Enabled"),
        ("Enabled", False, "Suspended"),
        ("Suspended", False, "Suspended"),
        ("Off", False, "Off"),
        (None, True, None),
    ],
)
def test_versions(found: Optional[str], wanted: bool, expected: Optional[str]) -> None:
    held = {**NOTHING, "versioning": found}
    assert planned(held, Wanted(versioning=wanted), HOME)["versioning"] == expected
    assert unknown_to_store(held, Wanted(versioning=wanted)) == (["versioning"] if found is None else [])


def test_a_bucket_without_object_lock_does_not_get_it() -> None:
    for held in (NOTHING, {**NOTHING, "object_lock": None}):
        with pytest.raises(RefusedError, match="made without"):
            planned(held, Wanted(object_lock=Lock("GOVERNANCE", 7)), HOME)


def test_a_bucket_with_object_lock_gets_the_days_and_keeps_its_versions() -> None:
    goal = planned(LOCKED, Wanted(object_lock=Lock("GOVERNANCE", 7)), HOME)
    assert goal["object_lock"] == {"enabled": True, "mode": "GOVERNANCE", "days": 7}
    with pytest.raises(RefusedError, match="without versions"):
        planned(LOCKED, Wanted(versioning=False), HOME)


def test_tags_of_others_stay() -> None:
    goal = planned({**NOTHING, "tags": {"a": "1", "b": "2"}}, Wanted(tags={"b": "3", "c": "4"}), HOME)
    assert goal["tags"] == {"a": "1", "b": "3", "c": "4"}


@pytest.mark.parametrize(
    ("wanted", "amazon", "words"),
    [
        (Wanted(object_lock=Lock("GOVERNANCE", 0)), True, "object_lock.days"),
        (Wanted(object_lock=Lock("GOVERNANCE", 36501)), True, "object_lock.days"),
        (Wanted(object_lock=Lock("GOVERNANCE", 1), versioning=False), True, "needs versions"),
        (Wanted(lifecycle=Lifecycle(noncurrent_days=-1)), True, "lifecycle.noncurrent_days"),
        (Wanted(lifecycle=Lifecycle(archive_after=9, archive_class="")), True, "lifecycle.archive_class"),
        (Wanted(lifecycle=Lifecycle(archive_after=29, archive_class="STANDARD_IA")), True, "before 30 days"),
        (Wanted(lifecycle=Lifecycle(archive_after=29, archive_class="STANDARD_IA")), False, ""),
        (Wanted(lifecycle=Lifecycle(archive_after=30, archive_class="STANDARD_IA")), True, ""),
        (Wanted(lifecycle=Lifecycle(archive_after=1)), True, ""),
    ],
)
def test_what_cannot_be_wanted(wanted: Wanted, amazon: bool, words: str) -> None:
    if not words:
        return check(wanted, amazon=amazon)
    with pytest.raises(UsageError, match=words):
        check(wanted, amazon=amazon)
    return None


def test_every_error_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        check(Wanted(object_lock=Lock("GOVERNANCE", 0), lifecycle=Lifecycle(-1, "", -1, -1)), amazon=True)
    assert str(raised.value).count("\n  - ") == 5


def test_the_rules_of_a_life_cycle() -> None:
    clean, archive = rules(Lifecycle(archive_after=90, noncurrent_days=30), HOME)
    assert clean["Filter"] == archive["Filter"] == {"Prefix": HOME}
    assert clean["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert clean["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert clean["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert archive["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER_IR"}]
    assert rules(Lifecycle(abort_multipart_days=0), HOME) == []


@pytest.mark.parametrize("frozen", ["GLACIER", "DEEP_ARCHIVE"])
def test_small_objects_are_spared_from_what_must_be_thawed(frozen: str) -> None:
    _clean, archive = rules(Lifecycle(archive_after=1, archive_class=frozen), HOME)
    assert archive["Filter"] == {"And": {"Prefix": HOME, "ObjectSizeGreaterThan": FROZEN_FROM_BYTES - 1}}
    # S3 takes neither of these together with a size.
    assert not {"AbortIncompleteMultipartUpload", "Expiration"} & set(archive)


_DAYS = st.integers(0, 400)
_CYCLES = st.builds(Lifecycle, _DAYS, st.sampled_from(["GLACIER", "GLACIER_IR", "COLD"]), _DAYS, _DAYS)
_PREFIXES = st.text(max_size=300)
_OTHERS = st.lists(
    st.builds(lambda name: {**THEIRS, "ID": name}, st.text(max_size=20).filter(lambda name: name[:5] != "pgops")),
    max_size=5,
    unique_by=lambda rule: rule["ID"],
)


@given(_OTHERS, _CYCLES, _CYCLES, _PREFIXES, _PREFIXES)
def test_rules_of_others_stay_and_ours_follow(
    others: list[dict[str, Any]], first: Lifecycle, second: Lifecycle, prefix: str, elsewhere: str
) -> None:
    home, there = home_of(prefix), home_of(elsewhere)
    held = with_rules(others, rules(first, home), home)
    assert with_rules(held, rules(first, home), home) == held, "a second time changes nothing"
    assert [rule for rule in held if rule in others] == in_order(others)
    assert all(len(rule["ID"]) <= 255 for rule in rules(first, home))
    if home != there:
        both = with_rules(held, rules(second, there), there)
        assert [rule for rule in both if rule in held] == held, "another prefix has rules of its own"
    after = with_rules(held, rules(second, home), home)
    assert sorted(map(json.dumps, after)) == sorted(map(json.dumps, others + rules(second, home)))


def test_the_order_of_rules_means_nothing() -> None:
    ours = rules(Lifecycle(archive_after=5), HOME)
    for found in ([*ours, THEIRS], [THEIRS, *ours[::-1]]):
        held = {**NOTHING, "lifecycle": in_order(found)}
        assert differing(held, planned(held, Wanted(lifecycle=Lifecycle(archive_after=5)), HOME)) == []
        assert differing(held, planned(held, Wanted(lifecycle=Lifecycle()), HOME)) == ["lifecycle"]


def test_what_a_person_should_know() -> None:
    def said(wanted: Wanted, **after: Any) -> str:
        return " ".join(concerns(wanted, {**NOTHING, **after}))

    assert "overwrite" in said(Wanted())
    assert said(Wanted(versioning=False)) == "", "somebody has decided that"
    assert "noncurrent_days" in said(Wanted(versioning=True), versioning="Enabled")
    expiring = rules(Lifecycle(noncurrent_days=3), HOME)
    assert said(Wanted(versioning=True), versioning="Enabled", lifecycle=expiring) == ""
    assert "thawed" in said(Wanted(versioning=False, lifecycle=Lifecycle(9, "GLACIER")))
    assert said(Wanted(versioning=False, lifecycle=Lifecycle(9, "GLACIER_IR"))) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", True),
        ("https://s3.eu-central-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn/", True),
        ("https://amazonaws.com.example.com", False),
        ("http://127.0.0.1:9000", False),
    ],
)
def test_whose_store_it_is(url: str, expected: bool) -> None:
    assert is_amazon(url) is expected


# --- the whole way ----------------------------------------------------------------------------------------------------


class RefusalError(Exception):
    """Shaped like botocore's ClientError."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class FakeStore:
    """A store as Amazon describes it, in memory. `faults` are answers in place of its own, by operation."""

    endpoint = "https://s3.example.com"
    region = "eu-central-1"

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.kept: Optional[dict[str, Any]] = None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.faults: dict[str, RefusalError] = {}
        self.drops_sizes = False
        self.headers: dict[str, str] = {}
        self.client = type("Client", (), {"meta": type("Meta", (), {"region_name": self.region})})

    @property
    def written(self) -> list[str]:
        return [operation for operation, _unused in self.asked if operation.startswith(("put", "create", "delete"))]

    def call(self, operation: str, **wish: Any) -> Any:
        self.asked.append((operation, wish))
        try:
            if operation in self.faults:
                raise self.faults[operation]
            return copy.deepcopy(getattr(self, operation)(**wish))
        except RefusalError as error:
            where = "s3://%s/" % self.bucket
            raise s3_client.translate(error, operation, where, self.endpoint) from error

    def list_objects_v2(self, MaxKeys: int) -> Any:  # noqa: N803
        if self.kept is None:
            raise RefusalError("NoSuchBucket", 404)
        return {}

    def head_bucket(self) -> Any:
        return {"ResponseMetadata": {"HTTPHeaders": self.headers}}

    def create_bucket(self, **wish: Any) -> Any:
        # Amazon blocks public access to new buckets by itself.
        self.kept = {"public_access_block": dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls"), True)}
        self.kept["public_access_block"].update(BlockPublicPolicy=True, RestrictPublicBuckets=True)
        if wish.get("ObjectLockEnabledForBucket"):
            self.kept.update(lock={"ObjectLockEnabled": "Enabled"}, versioning={"Status": "Enabled"})
        return {}

    def _get(self, name: str, code: str) -> Any:
        assert self.kept is not None
        if name not in self.kept:
            raise RefusalError(code, 404)
        return self.kept[name]

    def get_public_access_block(self) -> Any:
        block = self._get("public_access_block", "NoSuchPublicAccessBlockConfiguration")
        return {"PublicAccessBlockConfiguration": block}

    def get_bucket_versioning(self) -> Any:
        assert self.kept is not None
        return self.kept.get("versioning", {})

    def get_object_lock_configuration(self) -> Any:
        return {"ObjectLockConfiguration": self._get("lock", "ObjectLockConfigurationNotFoundError")}

    def get_bucket_lifecycle_configuration(self) -> Any:
        return self._get("lifecycle", "NoSuchLifecycleConfiguration")

    def get_bucket_tagging(self) -> Any:
        return self._get("tags", "NoSuchTagSet")

    def put_public_access_block(self, PublicAccessBlockConfiguration: Any) -> Any:  # noqa: N803
        self._put("public_access_block", PublicAccessBlockConfiguration)

    def put_bucket_versioning(self, VersioningConfiguration: Any) -> Any:  # noqa: N803
        self._put("versioning", VersioningConfiguration)

    def put_object_lock_configuration(self, ObjectLockConfiguration: Any) -> Any:  # noqa: N803
        self._put("lock", ObjectLockConfiguration)

    def put_bucket_lifecycle_configuration(self, LifecycleConfiguration: Any, **others: Any) -> Any:  # noqa: N803
        size = {"TransitionDefaultMinimumObjectSize": "all_storage_classes_128K", **others}
        kept = copy.deepcopy(LifecycleConfiguration["Rules"])
        for rule in kept if self.drops_sizes else ():
            rule["Filter"] = {"Prefix": rule["Filter"].get("And", rule["Filter"])["Prefix"]}
        self._put("lifecycle", {"Rules": kept, **size})

    def delete_bucket_lifecycle(self) -> Any:
        assert self.kept is not None
        del self.kept["lifecycle"]

    def put_bucket_tagging(self, Tagging: Any) -> Any:  # noqa: N803
        self._put("tags", Tagging)

    def _put(self, name: str, value: Any) -> None:
        assert self.kept is not None
        self.kept[name] = copy.deepcopy(value)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    fake = FakeStore("example-backups")
    monkeypatch.setattr(verb, "Store", lambda settings: fake)
    return fake


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Config(instance="db1", s3=S3(bucket="example-backups"), state_dir=str(tmp_path)), "host")


ALL = Wanted(
    versioning=True,
    object_lock=Lock("COMPLIANCE", 30),
    lifecycle=Lifecycle(archive_after=90, archive_class="GLACIER", noncurrent_days=30),
    public_access_block=True,
    tags={"team": "data"},
)


def test_a_new_bucket_gets_it_all_and_a_second_run_writes_nothing(store: FakeStore, context: Context) -> None:
    predicted = prepare(context, Request(ALL, dry_run=True))
    assert store.kept is None
    assert store.written == []
    made = prepare(context, Request(ALL))
    assert made["created"] is predicted["created"] is True
    assert made["settings"] == predicted["settings"]
    assert made["refused"] == []
    assert "put_public_access_block" not in store.written, "Amazon did that by itself"
    assert made["settings"]["object_lock"] == {"enabled": True, "mode": "COMPLIANCE", "days": 30}
    store.asked.clear()
    again = prepare(context, Request(ALL))
    assert (again["changed"], again["changes"], store.written) == (False, [], [])
    assert look(context) == again["settings"]


def test_a_region_of_amazon_is_said_when_a_bucket_is_made(store: FakeStore, context: Context) -> None:
    prepare(context, Request(ALL))
    (wish,) = [wish for operation, wish in store.asked if operation == "create_bucket"]
    assert wish["CreateBucketConfiguration"] == {"LocationConstraint": "eu-central-1"}


def test_the_least_size_of_others_rules_is_said_again(store: FakeStore, context: Context) -> None:
    store.create_bucket()
    older = {"ID": "old", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 3}}
    store.kept = {
        **(store.kept or {}),
        "lifecycle": {"Rules": [older], "TransitionDefaultMinimumObjectSize": "varies_by_storage_class"},
    }
    prepare(context, Request(Wanted(lifecycle=Lifecycle())))
    kept = store.kept["lifecycle"]
    assert kept["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    assert kept["Rules"][0] == {**THEIRS, "ID": "old"}, "S3 takes no mixture of prefixes and filters"
    # What we no longer want goes, and so do all rules when none is left.
    prepare(context, Request(Wanted(lifecycle=Lifecycle(abort_multipart_days=0))))
    assert [rule["ID"] for rule in store.kept["lifecycle"]["Rules"]] == ["old"]
    store.kept["lifecycle"]["Rules"] = rules(Lifecycle(), HOME)
    gone = prepare(context, Request(Wanted(lifecycle=Lifecycle(abort_multipart_days=0))))
    assert (gone["changed"], gone["settings"]["lifecycle"]) == (True, [])
    assert "lifecycle" not in store.kept


def test_a_store_that_drops_the_size_does_not_archive_the_manifests(store: FakeStore, context: Context) -> None:
    store.drops_sizes = True
    store.create_bucket()
    store._put("lifecycle", {"Rules": [THEIRS]})
    with pytest.raises(PgopsError, match="archive the manifests") as raised:
        prepare(context, Request(Wanted(lifecycle=Lifecycle(archive_after=9, archive_class="DEEP_ARCHIVE"))))
    assert store.kept is not None
    assert store.kept["lifecycle"]["Rules"] == [THEIRS]
    assert raised.value.details["changed"] is False
    prepare(context, Request(Wanted(lifecycle=Lifecycle(archive_after=9, archive_class="GLACIER_IR"))))
    assert len(store.kept["lifecycle"]["Rules"]) == 3


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("get_public_access_block", "public_access_block"),
        ("put_bucket_versioning", "versioning"),
        ("put_bucket_lifecycle_configuration", "lifecycle"),
        ("get_bucket_tagging", "tags"),
    ],
)
def test_what_the_store_does_not_know_is_a_warning(
    operation: str, name: str, store: FakeStore, context: Context
) -> None:
    store.faults[operation] = RefusalError("NotImplemented", 501)
    wanted = Wanted(versioning=True, lifecycle=Lifecycle(noncurrent_days=1), public_access_block=True, tags={"a": "b"})
    made = prepare(context, Request(wanted))
    assert made["refused"] == [name]
    assert [key for key, offered in made["capabilities"].items() if not offered] == [name]
    assert any("does not offer" in warning for warning in context.warnings)
    again = prepare(context, Request(wanted))
    assert (again["changed"], again["refused"]) == (False, [name])


def test_a_setting_that_may_not_be_written_is_an_error_that_names_the_permission(
    store: FakeStore, context: Context
) -> None:
    store.faults["put_bucket_lifecycle_configuration"] = RefusalError("AccessDenied", 403)
    with pytest.raises(PgopsError, match="s3:PutLifecycleConfiguration") as raised:
        prepare(context, Request(ALL))
    details = raised.value.details
    assert (details["changed"], details["created"]) == (True, True)
    assert "lifecycle" not in [change["setting"] for change in details["changes"]]
    assert details["settings"]["object_lock"]["days"] == 30, "what was written before it"


@pytest.mark.parametrize(("ceph", "expected"), [(False, 4), (True, 1)])
def test_public_access_is_blocked_by_what_the_store_can_bear(
    ceph: bool, expected: int, store: FakeStore, context: Context
) -> None:
    store.headers = {"x-rgw-object-count": "0"} if ceph else {}
    elsewhere = Context(replace(context.config, s3=S3(bucket="example-backups", endpoint_url=store.endpoint)), "host")
    store.create_bucket()
    store._put("public_access_block", {"RestrictPublicBuckets": False})
    wanted = Wanted(versioning=False, public_access_block=True)
    assert prepare(elsewhere, Request(wanted))["changed"] is True
    assert store.kept is not None
    assert list(store.kept["public_access_block"].values()).count(True) == expected
    assert prepare(elsewhere, Request(wanted))["changed"] is False
    assert bool(elsewhere.warnings) is ceph


def test_what_others_block_at_ceph_stays(store: FakeStore, context: Context) -> None:
    store.headers = {"x-rgw-object-count": "0"}
    elsewhere = Context(replace(context.config, s3=S3(bucket="example-backups", endpoint_url=store.endpoint)), "host")
    store.create_bucket()
    store._put("public_access_block", {"BlockPublicAcls": True})
    prepare(elsewhere, Request(Wanted(public_access_block=True)))
    assert store.kept is not None
    assert [key for key, on in store.kept["public_access_block"].items() if on] == [
        "BlockPublicAcls",
        "IgnorePublicAcls",
    ]


def test_a_bucket_that_we_may_not_see_is_not_made(store: FakeStore, context: Context) -> None:
    store.faults["list_objects_v2"] = RefusalError("AccessDenied", 403)
    with pytest.raises(PgopsError, match="somebody else"):
        prepare(context, Request(ALL))
    store.faults["list_objects_v2"] = RefusalError("SignatureDoesNotMatch", 403)
    with pytest.raises(PgopsError, match="does not accept the credentials"):
        prepare(context, Request(ALL))
    assert store.written == []


def test_a_name_that_others_have_is_told(store: FakeStore, context: Context) -> None:
    store.faults["create_bucket"] = RefusalError("BucketAlreadyExists", 409)
    with pytest.raises(UsageError, match="belongs to somebody else"):
        prepare(context, Request(ALL))


def test_a_bucket_that_another_run_made_meanwhile_is_ours(store: FakeStore, context: Context) -> None:
    class Quicker(FakeStore):
        def create_bucket(self, **wish: Any) -> Any:
            super().create_bucket(**wish)
            raise RefusalError("BucketAlreadyOwnedByYou", 409)

    store.__class__ = Quicker
    assert prepare(context, Request(ALL))["settings"]["versioning"] == "Enabled"


def test_a_lock_that_the_store_ignores_is_an_error(store: FakeStore, context: Context) -> None:
    class Careless(FakeStore):
        def create_bucket(self, **_wish: Any) -> Any:
            return super().create_bucket()

        def put_object_lock_configuration(self, ObjectLockConfiguration: Any) -> Any:  # noqa: N803
            """Say yes."""

    store.__class__ = Careless
    with pytest.raises(PgopsError, match="without Object Lock"):
        prepare(context, Request(ALL))
    store._put("lock", {"ObjectLockEnabled": "Enabled"})
    store._put("versioning", {"Status": "Enabled"})
    with pytest.raises(PgopsError, match="does not keep the lock of 30 days"):
        prepare(context, Request(ALL))


def test_refusals_come_before_anything_is_touched(store: FakeStore, context: Context) -> None:
    store.create_bucket()
    with pytest.raises(RefusedError, match="made without"):
        prepare(context, Request(ALL))
    with pytest.raises(UsageError, match="cannot name an instance"):
        prepare(context, Request(Wanted(versioning=True), instances=["../x"]))
    assert store.written == []


def test_without_a_bucket_nothing_is_asked() -> None:
    with pytest.raises(UsageError, match="No bucket"):
        prepare(Context(Config(instance="db1"), "host"), Request(Wanted()))


def test_a_life_cycle_is_not_removed_where_none_was_seen(store: FakeStore, context: Context) -> None:
    """A store that does not know the setting takes that for the removal of the bucket."""
    store.create_bucket()
    prepare(context, Request(Wanted(lifecycle=Lifecycle(abort_multipart_days=0))))
    assert "delete_bucket_lifecycle" not in store.written
