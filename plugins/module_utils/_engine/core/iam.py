# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The least that an identity must be allowed to in a bucket, as IAM policies: one that writes, one that prunes.

The writer backs up, copies, verifies, restores and probes. It can add and read, and remove nothing but objects of the
probe, where instances are named. The pruner can remove sets, pins and WAL, and add nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Policy = dict[str, Any]
_VERSION = "2012-10-17"


@dataclass(frozen=True)
class Scope:
    """Where an identity may work: `prefix` of `bucket`, and only these `instances` unless there are none.

    `region` tells the partition. `kms_key` is the key that the store encrypts with, where one is named.
    """

    bucket: str
    prefix: str
    instances: Sequence[str] = ()
    region: str = ""
    kms_key: str = ""
    tagging: bool = False


def writer(scope: Scope) -> Policy:
    """Return the policy of an identity that adds and reads, and cannot remove a backup."""
    put = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
    return _policy(
        *_see(
            scope, ["s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning", "s3:ListBucketMultipartUploads"]
        ),
        _allow(
            "ReadAndAdd",
            put + (["s3:PutObjectTagging"] if scope.tagging else []),
            [_object(scope, home + "*") for home in _homes(scope)],
        ),
        # A set may hold a folder of any name, `probe` too: no pattern over instances would spare it.
        *([_allow("ClearTheProbe", ["s3:DeleteObject"], _rooms(scope, "probe"))] if scope.instances else []),
        *_kms(scope, ["kms:Decrypt", "kms:GenerateDataKey"]),
    )


def pruner(scope: Scope) -> Policy:
    """Return the policy of an identity that removes sets, pins and WAL, and cannot add or alter anything."""
    return _policy(
        *_see(scope, []),
        _allow("Read", ["s3:GetObject"], [_object(scope, home + "*") for home in _homes(scope)]),
        _allow("Remove", ["s3:DeleteObject"], [*_rooms(scope, "sets"), *_rooms(scope, "pins"), *_rooms(scope, "wal")]),
        *_kms(scope, ["kms:Decrypt"]),
    )


def _policy(*statements: dict[str, Any]) -> Policy:
    return {"Version": _VERSION, "Statement": list(statements)}


def _allow(sid: str, actions: list[str], resources: list[str], **condition: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": resources}
    return {**said, "Condition": condition} if condition else said


def _see(scope: Scope, bucket_actions: list[str]) -> list[dict[str, Any]]:
    """Return the statements about the bucket itself. S3 tells no prefix but where it lists objects."""
    bucket = ["arn:%s:s3:::%s" % (_partition(scope.region), literal(scope.bucket))]
    below = {"s3:prefix": [home + "*" for home in _homes(scope)]}
    listing = _allow("List", ["s3:ListBucket"], bucket, StringLike=below)
    return [listing, _allow("LookAtTheBucket", bucket_actions, bucket)] if bucket_actions else [listing]


def _homes(scope: Scope) -> list[str]:
    prefix = scope.prefix.strip("/")
    inside = [instance + "/" for instance in scope.instances] or [""]
    return [literal(prefix + "/" + home if prefix else home) for home in inside]


def _rooms(scope: Scope, room: str) -> list[str]:
    """Return the resources of a room (`sets`, `pins`, `probe`) of each instance."""
    every = "" if scope.instances else "*/"
    return [_object(scope, "%s%s%s/*" % (home, every, room)) for home in _homes(scope)]


def _object(scope: Scope, key: str) -> str:
    return "arn:%s:s3:::%s/%s" % (_partition(scope.region), literal(scope.bucket), key)


def _kms(scope: Scope, actions: list[str]) -> list[dict[str, Any]]:
    """Return the statement about the key. Amazon's own key (none is named) needs no permission."""
    key = scope.kms_key
    if not key:
        return []
    if key.startswith("arn:") and ":alias/" not in key:
        return [_allow("UseTheKey", actions, [literal(key)])]
    keys = "arn:%s:kms:%s:*:key/" % (_partition(scope.region), literal(scope.region) or "*")
    alias = key[key.index("alias/") :] if "alias/" in key else ""
    if not alias:
        return [_allow("UseTheKey", actions, [keys + literal(key)])]
    # What an alias stands for is only known to KMS.
    named = {"kms:ResourceAliases": [literal(alias)]}
    return [_allow("UseTheKey", actions, [keys + "*"], **{"ForAnyValue:StringEquals": named})]


def _partition(region: str) -> str:
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def literal(text: str) -> str:
    """Return `text` as it must be written in a policy to mean itself, and not a pattern or a variable."""
    return "".join("${%s}" % char if char in "$*?" else char for char in text)


__all__ = ("Policy", "Scope", "literal", "pruner", "writer")
