# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Sending one stretch of content to S3: what goes with it, when it is tried again, and how it is proven."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlencode

from ..core.errors import DamagedError, PgopsError
from ..core.manifest import File
from ..core.sizes import parse_size
from ..settings import S3
from .s3_client import Store, code_of
from .s3_download import Reader
from .s3_trial import Modes
from .s3_unfinished import Unfinished, same_part
from .transfer import Bandwidth, Part, Slice, Slots, b64, digests

# What a store answers that takes nothing without an MD5, as one with Object Lock does.
_DEMANDS = frozenset({"InvalidRequest", "MissingContentMD5", "MissingUploadObjectWithObjectLockHeaders"})
Json = dict[str, Any]


class UnprovenError(DamagedError):
    """The store has something else than what was sent."""


class Sender:
    """Sends content to `store`, within a shared speed limit and a shared number of requests in flight, and proves what is there."""

    def __init__(
        self,
        store: Store,
        settings: S3,
        home: str,
        modes: Callable[[], Modes],
        reader: Reader,
        bandwidth: Bandwidth,
        slots: Slots,
    ) -> None:
        self._store, self._settings, self._modes = store, settings, modes
        self._reader, self._bandwidth, self._slots = reader, bandwidth, slots
        self.part_size = parse_size(settings.part_size)
        self.unfinished = Unfinished(store, home)
        self._md5_demanded = False

    def _facts(self, digest: bytes, md5: bytes, *, payload: bool) -> Json:
        """Return the arguments that go with the content of one object that is put at once; `md5` may be empty."""
        return {**facts_of(digest, md5, self._modes()), **self._wishes(payload=payload)}

    def _wishes(self, *, payload: bool) -> Json:
        wishes: Json = {}
        if payload and self._settings.storage_class:
            wishes["StorageClass"] = self._settings.storage_class
        if self._settings.sse:
            wishes["ServerSideEncryption"] = self._settings.sse
        if self._settings.sse_kms_key_id:
            wishes["SSEKMSKeyId"] = self._settings.sse_kms_key_id
        if self._settings.tags:
            wishes["Tagging"] = urlencode(self._settings.tags)
        return wishes

    def _send(self, operation: str, key: str, source: Path, part: Part, digest: bytes, **arguments: Any) -> Json:
        """Send a stretch of `source`, again from its start while the trouble may pass; return the store's answer.

        The request is signed with its SHA-256, so an MD5 is computed only for a store that has demanded one.
        """
        sent = 0
        with Slice(source, part.offset, part.size, self._bandwidth, sha256=digest.hex()) as body:

            def once() -> Json:
                nonlocal sent
                sent += 1
                if sent > 1 and operation == "upload_part":
                    # The answer alone may have been lost; rclone's server takes no part twice.
                    listed = self.unfinished.sent_parts(key, arguments["UploadId"]).get(part.number)
                    if listed and same_part(part, listed, *digests(source, part.offset, part.size, md5=True)):
                        return listed
                body.seek(0)
                return self._store.try_once(operation, key, Body=body, **arguments)  # type: ignore[no-any-return]

            def add_md5() -> None:
                arguments["ContentMD5"] = b64(digests(source, part.offset, part.size, md5=True)[1])

            proven = "ContentMD5" in arguments or "ChecksumSHA256" in arguments
            if self._md5_demanded and not proven:
                add_md5()
            try:
                return self._store.patience.call(once, self._store.may_pass)
            except PgopsError as error:
                if proven or "ContentMD5" in arguments or code_of(error)[0] not in _DEMANDS:
                    raise
                self._md5_demanded = True
                add_md5()
                return self._store.patience.call(once, self._store.may_pass)

    def _prove_put(self, key: str, digest: bytes, answer: Mapping[str, Any]) -> None:
        if answer_proves(answer, digest, self._modes()):
            return
        if self._modes().put == "sha256":
            kept = answer.get("ChecksumSHA256") or self._store.call("head_object", key, ChecksumMode="ENABLED").get(
                "ChecksumSHA256"
            )
            if kept == b64(digest):
                return
            if kept or self._settings.checksum_mode == "sha256":
                raise self._unproven(key, kept)
        if self._reader.sha256(key)[0] != digest:
            raise self._unproven(key, None)

    def _unproven(self, key: str, kept: Optional[str]) -> UnprovenError:
        return UnprovenError(
            "s3://%s/%s is not what was sent%s."
            % (self._store.bucket, key, "" if kept is None else " (the store says SHA-256 %s)" % (kept or "unknown")),
            hint="Try again. If it stays so, the store or something before it alters data; try checksum_mode: read.",
        )


def facts_of(digest: bytes, md5: bytes, modes: Modes) -> Json:
    """Return what says of an object what it is, and lets the store check it as `modes` has it; `md5` may be empty."""
    checked = modes.put == "sha256"
    proof: Json = {"ChecksumSHA256": b64(digest)} if checked else {"ContentMD5": b64(md5)} if md5 else {}
    return {"Metadata": {"sha256": digest.hex()}, **proof}


def answer_proves(answer: Mapping[str, Any], digest: bytes, modes: Modes) -> bool:
    """Tell whether the store's answer alone proves that it has what was sent."""
    return modes.put == "sha256" and bool(answer.get("ChecksumSHA256") == b64(digest))


def check_source(file: File, source: Path, size: int, digest: bytes) -> None:
    """Raise DamagedError unless what was read of `source` is what the manifest says of `file`."""
    if size != file.size or digest.hex() != file.sha256:
        raise DamagedError(
            "%s is not what the manifest of its set says (%s)."
            % (source, "SHA-256 differs" if size == file.size else "%d bytes instead of %d" % (size, file.size)),
            hint="The local copy is damaged, so it is not sent. Verify the set, and make a new backup.",
        )


def label(facts: Mapping[str, Any], name: str) -> str:
    """Return our metadata `name` from a HeadObject answer; some stores change the case of its name."""
    return next((str(value) for key, value in facts.get("Metadata", {}).items() if key.lower() == name), "")


__all__ = ("Sender", "UnprovenError", "answer_proves", "check_source", "facts_of", "label")
