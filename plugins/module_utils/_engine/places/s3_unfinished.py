# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Multipart uploads that earlier runs left unfinished: which there are, and which of them an upload takes up again."""

from __future__ import annotations

import re
import threading
from typing import Any, Optional

from ..core.errors import MissingError, PgopsError, UnreachableError
from .s3_client import Store, code_of, not_offered
from .s3_trial import abort
from .transfer import Part, b64

_MD5 = re.compile(r"[0-9a-f]{32}")
Json = dict[str, Any]


class Upload:
    """An unfinished multipart upload: its id, and the parts of an earlier run by number."""

    def __init__(self, upload_id: str, listed: dict[int, Json]) -> None:
        self.id, self.listed = upload_id, listed
        self.resumed, self.moved = bool(listed), False


class Unfinished:
    """The unfinished multipart uploads below `home` in the bucket of `store`, listed once."""

    def __init__(self, store: Store, home: str) -> None:
        self._store, self._home = store, home
        self._known: Optional[dict[str, list[Json]]] = None
        self._lock = threading.Lock()

    def by_key(self) -> dict[str, list[Json]]:
        """Return them by key, the newest first."""
        with self._lock:
            if self._known is None:
                found: dict[str, list[Json]] = {}
                for upload in self._list_uploads():
                    found.setdefault(str(upload["Key"]), []).append(upload)
                for uploads in found.values():
                    uploads.sort(key=lambda u: u["Initiated"], reverse=True)
                self._known = found
            return self._known

    def forget(self) -> None:
        """Let the next call of by_key() ask the store again."""
        with self._lock:
            self._known = None

    def _list_uploads(self) -> list[Json]:
        found: list[Json] = []
        marker: Json = {}
        while True:
            try:
                answer = self._store.call("list_multipart_uploads", Prefix=self._home, **marker)
            except PgopsError as error:
                if isinstance(error, UnreachableError) or code_of(error)[0] == "NoSuchBucket":
                    raise
                # Without the permission or the feature there is nothing to take up; uploads work all the same.
                # rclone's server says NoSuchUpload where there are none.
                so = "Unfinished uploads are not looked for: what broke is sent anew, and what is stale stays and is paid for."
                self._store.tell_if_denied(error, "list_multipart_uploads", so)
                return []
            found += [u for u in answer.get("Uploads", []) if str(u["Key"]).startswith(self._home)]
            if not answer.get("IsTruncated") or not answer.get("NextKeyMarker"):
                return found
            marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}

    def take_up(self, key: str, mode: str) -> Optional[Upload]:
        """Return the newest unfinished upload of `key` that can be gone on with; give up the others."""
        uploads = self.by_key()
        with self._lock:
            candidates = uploads.pop(key, [])
        chosen: Optional[Upload] = None
        for candidate in candidates:
            upload_id = str(candidate["UploadId"])
            fits = str(candidate.get("ChecksumAlgorithm") or "") == ("SHA256" if mode == "sha256" else "")
            listed = self.sent_parts(key, upload_id) if fits and chosen is None else None
            if listed:
                chosen = Upload(upload_id, listed)
            else:
                abort(self._store, key, upload_id)
        return chosen

    def sent_parts(self, key: str, upload_id: str) -> dict[int, Json]:
        """Return the parts that the store has of an upload, by number; none where that cannot be known."""
        found: dict[int, Json] = {}
        marker: Json = {}
        while True:
            try:
                answer = self._store.call("list_parts", key, UploadId=upload_id, **marker)
            except MissingError:
                return {}
            except PgopsError as error:
                if isinstance(error, UnreachableError) and not not_offered(error):
                    raise
                so = "The parts of an unfinished upload are not known, so it is sent anew."
                self._store.tell_if_denied(error, "list_parts", so)
                return {}
            found.update((int(p["PartNumber"]), p) for p in answer.get("Parts", []))
            if not answer.get("IsTruncated") or not answer.get("NextPartNumberMarker"):
                return found
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}


def same_part(part: Part, listed: Json, digest: bytes, md5: bytes) -> bool:
    """Tell whether the part that the store lists holds exactly our bytes. What cannot be compared is not the same."""
    if listed.get("Size") != part.size:
        return False
    if listed.get("ChecksumSHA256"):
        return bool(listed["ChecksumSHA256"] == b64(digest))
    etag = str(listed.get("ETag", "")).strip('"').lower()
    return bool(_MD5.fullmatch(etag)) and etag == md5.hex()


__all__ = ("Unfinished", "Upload", "same_part")
