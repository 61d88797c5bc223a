# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Probe: try on objects of our own what an S3 place must be able to do, name what it refuses, remember what works."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Optional

from ..context import Context
from ..core.errors import PgopsError, UnreachableError, UsageError
from ..places.s3 import S3Place
from ..places.s3_client import code_of, not_offered
from ..places.s3_trial import Modes, abort, checksum_modes
from ..places.transfer import b64
from ..system.durable import CHUNK

_CONTENT = bytes(range(256)) * 64
_PART = 5 * CHUNK
_LONGEST_PROBE = timedelta(hours=1)
_SKEW_SECONDS = 60
# Amazon refuses requests whose time is further off than this.
_SKEW_LIMIT_SECONDS = 900


@dataclass
class _Probe:
    """The checks so far. A check is a function that returns what it found, or raises one of our errors."""

    context: Context
    place: S3Place
    checks: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    refused_for_clock: bool = False
    # Nodes of a group share a place and may probe it at the same time: each has objects of its own.
    mark: str = field(default_factory=lambda: secrets.token_hex(4))

    def check(self, name: str, work: Callable[[], str]) -> bool:
        """Do one check and keep its outcome. Trouble that no later check could overcome is raised."""
        self.context.reporter.note(name)
        try:
            detail, ok = work(), True
        except (UnreachableError, UsageError) as error:
            if not not_offered(error):
                raise
            detail, ok = str(error), False
        except PgopsError as error:
            if code_of(error)[0] == "NoSuchBucket":
                raise
            detail, ok = str(error), False
        self.checks.append({"name": name, "ok": ok, "detail": detail})
        return ok

    def key(self, name: str) -> str:
        return self.place.key(self.path(name))

    def path(self, name: str) -> str:
        return "probe/%s-%s" % (self.mark, name)

    def own(self) -> list[str]:
        """Return the objects of this probe that are there, with those that one left long ago."""
        old = self.context.clock() - _LONGEST_PROBE
        found = self.place.entries("probe").values()
        return sorted(entry.path for entry in found if entry.path.startswith(self.path("")) or entry.modified < old)


def probe(context: Context) -> dict[str, Any]:
    """Return what the S3 place can do: `checks` (name, ok, detail) and `capabilities`, which later runs go by.

    Raise UnreachableError if the store cannot be reached, UsageError or MissingError if no check could succeed.
    Objects that were made are removed again, as far as the store allows. A clock that is so far off that the store
    refuses everything is the only thing that is told then.
    """
    place = context.s3()
    work = _Probe(context, place)
    before = {name: place.capabilities.get(name) for name in ("put_checksum", "multipart_checksum", "batch_delete")}
    if not work.check("clock", lambda: _clock(work)) and work.refused_for_clock:
        return _result(work, before)
    work.check("list", lambda: _list(work))
    if work.check("put", lambda: _put(work)):
        work.check("get", lambda: _get(work))
        work.check("head", lambda: _head(work))
        work.check("ranged get", lambda: _ranged(work))
        work.check("conditional put", lambda: _conditional(work))
        work.check("checksums", lambda: _checksums(work))
        work.check("multipart", lambda: _multipart(work))
        work.check("multipart listing", lambda: _uploads(work))
    work.check("versioning", lambda: _versioning(work))
    work.check("object lock", lambda: _object_lock(work))
    work.check("batch delete", lambda: _batch_delete(work))
    work.check("delete", lambda: _delete(work))
    return _result(work, before)


def _result(work: _Probe, before: dict[str, Any]) -> dict[str, Any]:
    """Warn of each check that failed and return the verb's result; `before` is what was remembered at the start."""
    context, place = work.context, work.place
    for entry in work.checks:
        if not entry["ok"]:
            context.warn("The store's check '%s' failed: %s" % (entry["name"], entry["detail"]))
    after = {name: place.capabilities.get(name) for name in before}
    return {
        "changed": after != before,
        "place": place.root,
        "ok": all(entry["ok"] for entry in work.checks),
        "checks": work.checks,
        "capabilities": {**after, **work.found},
    }


def _list(work: _Probe) -> str:
    return "%d objects below probe/" % len(work.place.entries("probe"))


def _put(work: _Probe) -> str:
    work.place.store.call("put_object", work.key("object"), Metadata={"sha256": _digest(_CONTENT)}, **_body(_CONTENT))
    return "%d bytes" % len(_CONTENT)


def _get(work: _Probe) -> str:
    _same(b"".join(work.place.reader.stream(work.key("object"))), _CONTENT)
    return "%d bytes came back as they were sent" % len(_CONTENT)


def _head(work: _Probe) -> str:
    facts = work.place.store.call("head_object", work.key("object"))
    kept = {key.lower(): value for key, value in facts.get("Metadata", {}).items()}
    if facts.get("ContentLength") != len(_CONTENT):
        raise PgopsError("The store says %s bytes instead of %d." % (facts.get("ContentLength"), len(_CONTENT)))
    if kept.get("sha256") != _digest(_CONTENT):
        raise PgopsError("The store does not keep the metadata of an object.")
    return "size and metadata are kept"


def _ranged(work: _Probe) -> str:
    _same(b"".join(work.place.reader.stream(work.key("object"), start=1000, size=500)), _CONTENT[1000:1500])
    return "a range comes back exactly"


def _conditional(work: _Probe) -> str:
    """See whether an object that is there is kept from being overwritten where the request asks for that."""
    key = work.key("object")
    try:
        work.place.store.call("put_object", key, IfNoneMatch="*", Metadata={"sha256": _digest(b"")}, **_body(b""))
    except PgopsError as error:
        code, status = code_of(error)
        if status == 412 or code == "PreconditionFailed":
            work.found["conditional_put"] = True
            return "an object that is there is not overwritten"
        if isinstance(error, UnreachableError) and not not_offered(error):
            raise
    # Nothing of ours needs it, so that a store without it passes.
    work.found["conditional_put"] = False
    return "not offered: an object that is there is overwritten all the same"


def _checksums(work: _Probe) -> str:
    chosen = work.context.config.s3.checksum_mode if work.context.config.s3 is not None else "auto"
    found = checksum_modes(work.place.store, work.key("checksum"))
    work.place.remember(found)
    said = {
        "sha256": "SHA-256 is checked and kept",
        "read": "SHA-256 cannot be trusted (%s): uploads are read back" % found.why,
    }[found.put]
    if chosen == "sha256" and found != Modes("sha256", "sha256"):
        raise PgopsError("%s, but s3.checksum_mode asks for sha256." % said, hint="Set s3.checksum_mode to auto.")
    return said + ("; for multipart uploads: %s" % found.why if found.put != found.multipart else "")


def _multipart(work: _Probe) -> str:
    """Send two parts, the first of the least size that S3 allows, and read across their seam."""
    store, key = work.place.store, work.key("multipart")
    upload = str(store.call("create_multipart_upload", key)["UploadId"])
    pieces = [bytes(_PART), _CONTENT]
    try:
        parts = []
        for number, piece in enumerate(pieces, start=1):
            answer = store.call("upload_part", key, UploadId=upload, PartNumber=number, **_body(piece))
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        store.call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
    except PgopsError:
        abort(store, key, upload)
        raise
    _same(b"".join(work.place.reader.stream(key, start=_PART - 10, size=20)), bytes(10) + _CONTENT[:10])
    return "two parts became one object"


def _uploads(work: _Probe) -> str:
    """See whether an interrupted upload can be found again, with its parts, and given up."""
    store, key = work.place.store, work.key("interrupted")
    upload = str(store.call("create_multipart_upload", key)["UploadId"])
    try:
        store.call("upload_part", key, UploadId=upload, PartNumber=1, **_body(_CONTENT))
        listed = store.call("list_multipart_uploads", Prefix=key).get("Uploads", [])
        parts = store.call("list_parts", key, UploadId=upload).get("Parts", [])
    finally:
        given_up = abort(store, key, upload)
    if not any(str(u.get("UploadId")) == upload for u in listed) or len(parts) != 1:
        raise PgopsError("The store does not list an unfinished upload: an interrupted one begins again.")
    if not given_up:
        raise PgopsError("The store did not give up an unfinished upload.", hint="Allow s3:AbortMultipartUpload.")
    return "an interrupted upload can be taken up or given up"


def _versioning(work: _Probe) -> str:
    status = _optional(work, "get_bucket_versioning", lambda answer: str(answer.get("Status") or "Off"))
    work.found["versioning"] = status
    return "unknown: the store does not tell" if status is None else status


def _object_lock(work: _Probe) -> str:
    def read(answer: dict[str, Any]) -> str:
        settings = answer.get("ObjectLockConfiguration") or {}
        rule = (settings.get("Rule") or {}).get("DefaultRetention") or {}
        if settings.get("ObjectLockEnabled") != "Enabled":
            return "Off"
        span = "%s days" % rule["Days"] if rule.get("Days") else "%s years" % rule.get("Years")
        return "%s for %s by default" % (rule["Mode"], span) if rule.get("Mode") else "On, without a default retention"

    status = _optional(work, "get_object_lock_configuration", read)
    work.found["object_lock"] = status
    return "unknown: the store does not tell" if status is None else status


def _optional(work: _Probe, operation: str, read: Callable[[dict[str, Any]], str]) -> Optional[str]:
    """Return what a question about the bucket says, `Off` where there is no such setting, None where it is not told."""
    try:
        return read(work.place.store.call(operation))
    except UnreachableError as error:
        if not not_offered(error):
            raise
    except PgopsError as error:
        code, status = code_of(error)
        if code in ("NoSuchBucket",):
            raise
        if code == "ObjectLockConfigurationNotFoundError" or status == 404:
            return "Off"
    return None


def _clock(work: _Probe) -> str:
    refusal: Optional[PgopsError] = None
    try:
        answer = work.place.store.call("list_objects_v2", Prefix=work.key("clock"), MaxKeys=1)
    except PgopsError as error:
        if code_of(error)[0] != "RequestTimeTooSkewed":
            raise
        work.refused_for_clock, refusal = True, error
        answer = getattr(error.__cause__, "response", {})
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        there = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        if refusal is not None:
            raise refusal from None
        return "unknown: the store sends no Date"
    if there.tzinfo is None:
        there = there.replace(tzinfo=timezone.utc)
    seconds = round((work.context.clock() - there).total_seconds())
    work.found["clock_difference_seconds"] = seconds
    if refusal is not None or abs(seconds) > _SKEW_SECONDS:
        raise PgopsError(
            "This host's clock is %d s %s the store's." % (abs(seconds), "ahead of" if seconds > 0 else "behind"),
            hint="Set it (chrony, systemd-timesyncd): %s."
            % (
                "the store refuses everything until then, so nothing else was tried"
                if refusal is not None
                else "from %d s on S3 refuses everything" % _SKEW_LIMIT_SECONDS
            ),
        )
    return "%d s apart" % abs(seconds)


def _batch_delete(work: _Probe) -> str:
    """Remove two objects by one request, and see that they are gone."""
    keys = [work.key("batch-%d" % n) for n in (1, 2)]
    for key in keys:
        work.place.store.call("put_object", key, **_body(b""))
    try:
        answer = work.place.store.call("delete_objects", Delete={"Objects": [{"Key": key} for key in keys]})
    except PgopsError as error:
        if isinstance(error, UnreachableError) and not not_offered(error):
            raise
        work.place.capabilities.put(batch_delete=False)
        work.place.delete([work.path("batch-1"), work.path("batch-2")])
        return "refused (%s): objects are removed one by one" % (code_of(error)[0] or error.message)
    if answer.get("Errors"):
        raise PgopsError(
            "The store removed nothing: %s." % answer["Errors"][0].get("Code"), hint="Allow s3:DeleteObject."
        )
    left = set(work.place.entries("probe")) & {work.path("batch-1"), work.path("batch-2")}
    work.place.capabilities.put(batch_delete=not left)
    if left:
        work.place.delete(sorted(left))
        return "without effect: objects are removed one by one"
    return "two objects by one request"


def _delete(work: _Probe) -> str:
    paths = work.own()
    for path in paths:
        work.place.store.call("delete_object", work.place.key(path))
    left = work.own()
    if left:
        raise PgopsError("%d of our probe objects are still there." % len(left))
    kept = "; the bucket keeps old versions of them" if work.found.get("versioning") == "Enabled" else ""
    return "%d probe objects removed%s" % (len(paths), kept)


def _body(content: bytes) -> dict[str, Any]:
    """Return `content` with the MD5 that a bucket with Object Lock demands and every store knows."""
    return {"Body": content, "ContentMD5": b64(hashlib.md5(content, usedforsecurity=False).digest())}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _same(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise PgopsError("What came back is not what was sent (%d bytes instead of %d)." % (len(found), len(expected)))


__all__ = ("probe",)
