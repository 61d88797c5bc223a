# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The bucket itself: whether it is there, its settings as core/bucket.py names them, and how they are written.

There are stores that take a question about a setting for one about the bucket, and the removal of a setting for that of
the bucket. So nothing is ever removed that the store has not shown before, and what was written is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from ..core.bucket import Settings, in_order
from ..core.errors import MissingError, PgopsError, UsageError
from .s3_client import Store, code_of, not_offered

_BLOCK = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
# Ceph 18 denies every write under the first, and takes every policy of a bucket for a public one under two others.
_BLOCK_OF_CEPH = ("IgnorePublicAcls",)
# What a store without the setting makes of the request to set it, beside what it says honestly.
_MISTAKEN = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou", "MalformedACLError"})
_UNSET = {
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object_lock": "ObjectLockConfigurationNotFoundError",
    "public_access_block": "NoSuchPublicAccessBlockConfiguration",
    "tags": "NoSuchTagSet",
}


def is_amazon(endpoint_url: str) -> bool:
    """Tell whether the endpoint is one of Amazon's own; an empty one is."""
    host = urlsplit(endpoint_url).hostname or ""
    return not endpoint_url or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class Bucket:
    """The bucket of `store`. It is never removed, and nothing in it is."""

    def __init__(self, store: Store, *, amazon: bool) -> None:
        self.store, self._amazon = store, amazon
        self._block_keys: tuple[str, ...] = _BLOCK
        self._blocked: dict[str, bool] = {}
        self._least_size: Optional[str] = None

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return str(self.store.client.meta.region_name or "")

    def exists(self) -> bool:
        """Tell whether it is there. Raise PgopsError if it is, but not for us."""
        try:
            # HeadBucket would not say why it refuses: its answer has no body.
            self.store.call("list_objects_v2", MaxKeys=1)
        except MissingError:
            return False
        except PgopsError as error:
            if code_of(error)[0] not in ("AccessDenied", "AllAccessDisabled"):
                raise
            raise PgopsError(
                "The bucket %s is there, but these credentials may not see it." % self.store.bucket,
                hint="Allow them s3:ListBucket; or the name is taken by somebody else: then choose another.",
            ) from error
        return True

    def create(self, *, lock: bool) -> None:
        """Make it, with Object Lock if `lock`."""
        wish: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if lock else {}
        if self._amazon and self.region != "us-east-1":
            wish["CreateBucketConfiguration"] = {"LocationConstraint": self.region}
        try:
            self.store.call("create_bucket", **wish)
        except PgopsError as error:
            code = code_of(error)[0]
            if code == "BucketAlreadyOwnedByYou":  # an answer was lost, or another run was quicker
                return
            if code in ("BucketAlreadyExists", "InvalidBucketName"):
                why = "belongs to somebody else" if code == "BucketAlreadyExists" else "is not allowed by the store"
                raise UsageError(
                    "The name of the bucket %s %s." % (self.store.bucket, why), hint="Choose another."
                ) from error
            raise

    # --- settings ---

    def read(self) -> Settings:
        """Return the settings of the bucket; None for what the store does not know."""
        if not self._amazon and self._is_ceph():
            self._block_keys = _BLOCK_OF_CEPH
        return {
            "public_access_block": self._read("public_access_block", "get_public_access_block", self._block, False),
            "versioning": self._read("versioning", "get_bucket_versioning", _versioning, "Off"),
            "object_lock": self._read("object_lock", "get_object_lock_configuration", _lock, _lock({})),
            "lifecycle": self._read("lifecycle", "get_bucket_lifecycle_configuration", self._rules, []),
            "tags": self._read("tags", "get_bucket_tagging", _tags, {}),
        }

    @property
    def blocks_little(self) -> bool:
        """Whether this is a store whose block of public access would block more than that, as read() found."""
        return self._block_keys == _BLOCK_OF_CEPH

    def _is_ceph(self) -> bool:
        try:
            answer = self.store.call("head_bucket")
        except PgopsError:
            return False  # those who may not ask go on as anywhere else
        return "x-rgw-object-count" in answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})

    def _read(self, name: str, operation: str, parse: Callable[[Mapping[str, Any]], Any], unset: Any) -> Any:
        try:
            return parse(self.store.call(operation))
        except PgopsError as error:
            if code_of(error)[0] == _UNSET.get(name):
                return unset
            if not_offered(error):
                return None
            raise

    def _block(self, answer: Mapping[str, Any]) -> Optional[bool]:
        said = answer.get("PublicAccessBlockConfiguration")
        self._blocked = {key: (said or {}).get(key) is True for key in _BLOCK}
        return all(self._blocked[key] for key in self._block_keys) if said else None

    def _rules(self, answer: Mapping[str, Any]) -> Optional[list[dict[str, Any]]]:
        self._least_size = answer.get("TransitionDefaultMinimumObjectSize")
        return in_order([_newer(rule) for rule in answer["Rules"]]) if "Rules" in answer else None

    def write(self, name: str, goal: Any) -> str:
        """Write the setting `name`; return why the store does not take it, or an empty text.

        Never write an empty life cycle where read() has not shown rules.
        """
        operation, wish = self._request(name, goal)
        try:
            self.store.call(operation, **wish)
        except PgopsError as error:
            code = code_of(error)[0]
            if not_offered(error) or code in _MISTAKEN:
                return code or error.message
            raise
        return ""

    def _request(self, name: str, goal: Any) -> tuple[str, dict[str, Any]]:
        if name == "public_access_block":
            kept = {**dict.fromkeys(_BLOCK, False), **self._blocked}
            return "put_public_access_block", {
                "PublicAccessBlockConfiguration": {**kept, **dict.fromkeys(self._block_keys, bool(goal))}
            }
        if name == "versioning":
            return "put_bucket_versioning", {"VersioningConfiguration": {"Status": goal}}
        if name == "object_lock":
            rule = {"DefaultRetention": {"Mode": goal["mode"], "Days": goal["days"]}}
            return "put_object_lock_configuration", {
                "ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": rule}
            }
        if name == "tags":
            pairs = [{"Key": key, "Value": value} for key, value in goal.items()]
            return "put_bucket_tagging", {"Tagging": {"TagSet": pairs}}
        if not goal:
            return "delete_bucket_lifecycle", {}
        # This belongs to the rules as a whole, and goes back to its default when it is not said again.
        size = {"TransitionDefaultMinimumObjectSize": self._least_size} if self._least_size else {}
        return "put_bucket_lifecycle_configuration", {
            "LifecycleConfiguration": {"Rules": goal},
            **size,
        }


def _newer(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rule with its prefix in a filter: S3 takes no mixture of the older form and the newer one."""
    if "Prefix" not in rule:
        return dict(rule)
    others = {key: value for key, value in rule.items() if key != "Prefix"}
    return {**others, "Filter": {"Prefix": rule["Prefix"]}}


def _versioning(answer: Mapping[str, Any]) -> str:
    return str(answer.get("Status") or "Off")


def _lock(answer: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    said = answer.get("ObjectLockConfiguration")
    if said == {}:
        return None
    rule = ((said or {}).get("Rule") or {}).get("DefaultRetention") or {}
    days = int(rule.get("Days") or 0) or 365 * int(rule.get("Years") or 0)
    enabled = (said or {}).get("ObjectLockEnabled") == "Enabled"
    return {"enabled": enabled, "mode": str(rule.get("Mode") or ""), "days": days}


def _tags(answer: Mapping[str, Any]) -> Optional[dict[str, str]]:
    if "TagSet" not in answer:
        return None
    return {str(tag["Key"]): str(tag["Value"]) for tag in answer["TagSet"]}


__all__ = ("Bucket", "is_amazon")
