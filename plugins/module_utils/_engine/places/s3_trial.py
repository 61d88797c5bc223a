# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Find out by trying, on an object of our own, whether a store's SHA-256 can be trusted.

Some stores refuse the checksums, some drop them, and some (rclone's server, moto) keep whatever they are told without
looking at the content: there a wrong checksum is as welcome as a right one, and proves nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ..core.errors import MissingError, PgopsError, UnreachableError
from .s3_client import Store, not_offered
from .transfer import b64, composite

_CONTENT = b"pgops.backup tries what this store does with checksums. This object may be removed.\n"
_DIGEST = hashlib.sha256(_CONTENT).digest()
_MD5 = b64(hashlib.md5(_CONTENT, usedforsecurity=False).digest())
_WRONG = b64(hashlib.sha256(b"something else").digest())


@dataclass(frozen=True)
class Modes:
    """How content is proven (`sha256` or `read`) for objects put at once and for multipart objects, and why."""

    put: str
    multipart: str
    why: str = ""


def checksum_modes(store: Store, key: str) -> Modes:
    """Return what the object `key`, written for this, tells about the store. It is the caller's to remove.

    Raise what keeps us from writing any object at all.
    """
    why = _put_trouble(store, key)
    if why:
        return Modes("read", "read", why)
    why = _multipart_trouble(store, key)
    return Modes("sha256", "read" if why else "sha256", why)


def _put_trouble(store: Store, key: str) -> str:
    """Return why the SHA-256 of an object that is put at once proves nothing, or an empty text."""
    right = b64(_DIGEST)
    try:
        store.try_once("put_object", key, Body=_CONTENT, ChecksumSHA256=right)
    except (MissingError, UnreachableError):
        raise
    except PgopsError as error:
        # It was the checksum's fault if the same object is taken without one.
        store.call("put_object", key, Body=_CONTENT, ContentMD5=_MD5)
        return _unknown_here(error) or "it refuses SHA-256 checksums"
    try:
        kept = store.call("head_object", key, ChecksumMode="ENABLED").get("ChecksumSHA256")
    except PgopsError as error:
        if not not_offered(error):
            raise
        return _unknown_here(error) or "it does not tell the SHA-256 of an object"
    if kept != right:
        return "it keeps no SHA-256"
    if _accepted(store, "put_object", key, Body=_CONTENT, ChecksumSHA256=_WRONG):
        return "it takes a wrong SHA-256 for a right one"
    return ""


def _multipart_trouble(store: Store, key: str) -> str:
    """Return why the SHA-256 of a multipart object proves nothing, or an empty text."""
    try:
        upload = store.try_once("create_multipart_upload", key, ChecksumAlgorithm="SHA256")["UploadId"]
    except (MissingError, UnreachableError):
        raise
    except PgopsError:
        return "it refuses multipart uploads with SHA-256 checksums"
    finished = False
    try:
        right = b64(_DIGEST)
        if _accepted(store, "upload_part", key, UploadId=upload, PartNumber=1, Body=_CONTENT, ChecksumSHA256=_WRONG):
            return "it takes a wrong SHA-256 of a part for a right one"
        part = store.try_once("upload_part", key, UploadId=upload, PartNumber=1, Body=_CONTENT, ChecksumSHA256=right)
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": right}]
        answer = store.try_once("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
        finished = True
        kept = answer.get("ChecksumSHA256") or store.call("head_object", key, ChecksumMode="ENABLED").get(
            "ChecksumSHA256"
        )
        return (
            "" if same_composite(str(kept or ""), composite([_DIGEST])) else "it keeps no SHA-256 of multipart objects"
        )
    except UnreachableError:
        raise
    except PgopsError as error:
        return "it fails a multipart upload with SHA-256 checksums (%s)" % error.message
    finally:
        if not finished:
            abort(store, key, upload)


def _accepted(store: Store, operation: str, key: str, **arguments: Any) -> bool:
    try:
        store.try_once(operation, key, **arguments)
    except UnreachableError:
        raise
    except PgopsError:
        return False
    return True


def _unknown_here(error: PgopsError) -> str:
    if type(error.__cause__).__name__ == "ParamValidationError":
        return "this host's botocore is too old to know SHA-256 checksums"
    return ""


def abort(store: Store, key: str, upload_id: str) -> bool:
    """Give up a multipart upload as far as the store lets us; return whether it did. Where that is not allowed, warn."""
    try:
        store.try_once("abort_multipart_upload", key, UploadId=upload_id)
    except PgopsError as error:
        so = "An unfinished upload stays in the bucket, and its parts are paid for."
        store.tell_if_denied(error, "abort_multipart_upload", so)
        return False
    return True


def same_composite(kept: str, ours: str) -> bool:
    """Tell whether the store's checksum of a multipart object is ours; some stores leave the count of parts away."""
    return kept == ours or (bool(kept) and "-" not in kept and kept == ours.rpartition("-")[0])


__all__ = ("Modes", "abort", "checksum_modes", "same_composite")
