# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Writing to S3: objects put at once, and large files in parallel parts that an interrupted run takes up again.

What has been uploaded is proven before it counts: by a SHA-256 that the store is known to check and keep, or by
reading back.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlencode

from ..core.errors import DamagedError, MissingError, PgopsError, UnreachableError
from ..core.manifest import File
from ..core.sizes import parse_size
from ..settings import S3
from ..system.durable import CHUNK
from .base import Progress
from .s3_client import Store, code_of, not_offered
from .s3_download import Reader
from .s3_trial import Modes, abort, same_composite
from .s3_volley import SMALL, Asked, volley
from .transfer import (
    Bandwidth,
    Part,
    Piece,
    Slice,
    Slots,
    StoppedError,
    b64,
    composite,
    digests,
    part_size_for,
    parts_of,
    pieces,
    stretch,
)

_MD5 = re.compile(r"[0-9a-f]{32}")
# What a store answers that takes nothing without an MD5, as one with Object Lock does.
_DEMANDS = frozenset({"InvalidRequest", "MissingContentMD5", "MissingUploadObjectWithObjectLockHeaders"})
_OPENERS = 4
Json = dict[str, Any]
Small = tuple[str, File, Path]


@dataclass(frozen=True)
class _Sent:
    """A part that the store has: what completes the upload, its SHA-256, and the bytes that passed for it now."""

    part: Part
    etag: str
    digest: bytes
    sent: int


@dataclass(frozen=True)
class Unproven:
    """A small file that was put, and that the answer did not prove: what it was, and what the store answered."""

    small: Small
    digest: bytes
    answer: Mapping[str, Any]


class _UnprovenError(DamagedError):
    """The store has something else than what was sent."""


class _Upload:
    """An unfinished multipart upload: its id, and the parts of an earlier run by number."""

    def __init__(self, upload_id: str, listed: dict[int, Json]) -> None:
        self.id, self.listed = upload_id, listed
        self.resumed, self.moved = bool(listed), False


class Writer:
    """Writes objects below `home` within a shared speed limit and a shared number of requests in flight."""

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
        self._store, self._settings, self._home, self._modes = store, settings, home, modes
        self._reader, self._bandwidth, self._slots = reader, bandwidth, slots
        self.part_size = parse_size(settings.part_size)
        self._unfinished: Optional[dict[str, list[Json]]] = None
        self._lock = threading.Lock()
        self._md5_demanded = False

    def put_bytes(self, key: str, content: bytes) -> None:
        """Store and prove a small object that is no payload."""
        digest, md5 = hashlib.sha256(content).digest(), hashlib.md5(content, usedforsecurity=False).digest()
        with self._slots.for_size(len(content)):
            self._bandwidth.take(len(content))
            answer = self._store.call("put_object", key, Body=content, **self._facts(digest, md5, payload=False))
            self._prove_put(key, digest, answer)

    def put_file(self, key: str, file: File, source: Path, pool: Executor, progress: Optional[Progress] = None) -> int:
        """Store and prove a payload file; return the bytes sent. Raise DamagedError if `source` is not `file`.

        What does not arrive as it was is sent once more, with an MD5 for the store to check.
        """
        try:
            return self._put(key, file, source, pool, progress)
        except _UnprovenError:
            self._md5_demanded = True
            return self._put(key, file, source, pool, None)

    def put_small(self, small: Small) -> Optional[Unproven]:
        """Store a payload file that is_small(); return what is to be proven, None when the store's answer proves it.

        A proof is to be had when all files are sent: a store may list a folder anew for each read after a write.
        """
        with self._slots.for_size(small[1].size):
            answer, digest = self._put_small(*small)
        return None if _answer_proves(answer, digest, self._modes()) else Unproven(small, digest, answer)

    def prove_small(self, one: Unproven) -> None:
        """Prove what was put; put and prove it once more if the store has something else."""
        key, file, source = one.small
        try:
            with self._slots.for_size(file.size):
                self._prove_put(key, one.digest, one.answer)
        except _UnprovenError:
            self._put_small_proven(key, file, source)

    def put_tiny(self, files: Sequence[Small], hear: Callable[[Small, Optional[Unproven]], object]) -> list[Small]:
        """Do put_small() for files that is_tiny(), by this one thread; tell `hear` of each, and return what is left to do."""
        wire = self._store.wire
        if wire is None:
            return list(files)
        sent: dict[str, bytes] = {}
        modes, wishes = self._modes(), self._wishes(payload=True)

        def ask(small: Small) -> Optional[Asked]:
            key, file, source = small
            content = _whole(source, file.size)
            digest = hashlib.sha256(content).digest()
            if len(content) != file.size or digest.hex() != file.sha256:
                return None  # whoever takes it up says what is wrong
            self._bandwidth.take(len(content))
            sent[key] = digest
            md5 = hashlib.md5(content, usedforsecurity=False).digest()
            return Asked("put_object", key, {"Body": content, **_facts(digest, md5, modes), **wishes})

        def heard(small: Small, answer: Mapping[str, Any], _content: bytes) -> bool:
            digest = sent.pop(small[0])
            hear(small, None if _answer_proves(answer, digest, modes) else Unproven(small, digest, answer))
            return True

        with self._lanes() as (lanes, opener):
            return volley(wire, files, ask, heard, lanes=lanes, opener=opener, bandwidth=self._bandwidth)

    @contextlib.contextmanager
    def _lanes(self) -> Iterator[tuple[int, Executor]]:
        """Yield how many connections one volley may have, and who opens them.

        Some are left for the last parts of large files, which wait inside the pool of the parts: that pool opens none here, as
        each would wait for the other.
        """
        most = max(1, self._slots.most - self._settings.concurrency)
        with self._slots.many_small(most) as lanes, ThreadPoolExecutor(min(_OPENERS, lanes), "pgops-open") as opener:
            yield lanes, opener

    def prove_tiny(self, put: Sequence[Unproven]) -> list[Unproven]:
        """Do prove_small() for files that is_tiny() by reading, by this one thread; return what is left to do."""
        wire = self._store.wire
        if wire is None or self._modes().put == "sha256":
            return list(put)

        def heard(one: Unproven, _answer: Mapping[str, Any], content: bytes) -> bool:
            self._bandwidth.take(len(content))
            return hashlib.sha256(content).digest() == one.digest

        with self._lanes() as (lanes, opener):
            return volley(
                wire,
                put,
                lambda one: Asked("get_object", one.small[0], {}) if self.is_tiny(one.small[1]) else None,
                heard,
                lanes=lanes,
                opener=opener,
                bandwidth=self._bandwidth,
            )

    @staticmethod
    def is_tiny(file: File) -> bool:
        """Return whether it is sent by put_tiny() where there are many."""
        return file.size <= SMALL

    @staticmethod
    def is_small(file: File) -> bool:
        """Return whether it is sent out of memory, by put_small()."""
        return file.size <= CHUNK

    def _put(self, key: str, file: File, source: Path, pool: Executor, progress: Optional[Progress]) -> int:
        if file.size > self.part_size:
            return self._put_parts(key, file, source, pool, progress)
        if self.is_small(file):
            self._put_small_proven(key, file, source)
        else:
            with self._slots.for_size(file.size):
                digest = digests(source, 0, file.size + 1, md5=False)[0]
                _check_source(file, source, source.stat().st_size, digest)
                facts = self._facts(digest, b"", payload=True)
                answer = self._send("put_object", key, source, Part(1, 0, file.size), digest, **facts)
                self._prove_put(key, digest, answer)
        if progress:
            progress(file.size)
        return file.size

    def _put_small_proven(self, key: str, file: File, source: Path) -> None:
        with self._slots.for_size(file.size):
            answer, digest = self._put_small(key, file, source)
            self._prove_put(key, digest, answer)

    def _put_small(self, key: str, file: File, source: Path) -> tuple[Json, bytes]:
        """Store a file that is read once, into memory; return the store's answer and the SHA-256."""
        content = b"".join(stretch(source, 0, file.size + 1))
        digest, md5 = hashlib.sha256(content).digest(), hashlib.md5(content, usedforsecurity=False).digest()
        _check_source(file, source, len(content), digest)
        self._bandwidth.take(len(content))
        return self._store.call("put_object", key, Body=content, **self._facts(digest, md5, payload=True)), digest

    def _facts(self, digest: bytes, md5: bytes, *, payload: bool) -> Json:
        """Return the arguments that go with the content of one object that is put at once; `md5` may be empty."""
        return {**_facts(digest, md5, self._modes()), **self._wishes(payload=payload)}

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
                    listed = self._list_parts(key, arguments["UploadId"]).get(part.number)
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
        if _answer_proves(answer, digest, self._modes()):
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

    def _unproven(self, key: str, kept: Optional[str]) -> _UnprovenError:
        return _UnprovenError(
            "s3://%s/%s is not what was sent%s."
            % (self._store.bucket, key, "" if kept is None else " (the store says SHA-256 %s)" % (kept or "unknown")),
            hint="Try again. If it stays so, the store or something before it alters data; try checksum_mode: read.",
        )

    # --- large files ---

    def _put_parts(
        self, key: str, file: File, source: Path, pool: Executor, progress: Optional[Progress], *, resume: bool = True
    ) -> int:
        mode = self._modes().multipart
        part_size = part_size_for(file.size, self.part_size)
        upload = (self._taken_up(key, mode) if resume else None) or self._begun(key, file, part_size, mode)
        try:
            sent = self._send_parts(upload, key, file, source, parts_of(file.size, part_size), mode, pool, progress)
            kept = self._complete(upload, key, file, sent, mode)
        except (UnreachableError, StoppedError):
            # A later run takes it up where it broke, unless it had been taken up already and no part passed since.
            if upload.resumed and not upload.moved:
                abort(self._store, key, upload.id)
            raise
        except PgopsError as error:
            abort(self._store, key, upload.id)
            # rclone's server ends the upload over a part that was hurt, and never lets one be replaced.
            hopeless = isinstance(error, DamagedError) or not (upload.resumed or code_of(error)[0] == "NoSuchUpload")
            if hopeless or not resume:
                raise
            return self._put_parts(key, file, source, pool, None, resume=False)
        if upload.resumed and self._labelled(key) != file.sha256:
            # It was begun for other content under this name; the parts are right, the label on them is not.
            return self._put_parts(key, file, source, pool, None, resume=False)
        self._prove_parts(key, sent, kept, mode, pool)
        return sum(one.sent for one in sent)

    def _begun(self, key: str, file: File, part_size: int, mode: str) -> _Upload:
        algorithm: Json = {"ChecksumAlgorithm": "SHA256"} if mode == "sha256" else {}
        label = {"sha256": file.sha256, "part-size": str(part_size)}
        answer = self._store.call(
            "create_multipart_upload", key, Metadata=label, **algorithm, **self._wishes(payload=True)
        )
        return _Upload(str(answer["UploadId"]), {})

    def _send_parts(
        self,
        upload: _Upload,
        key: str,
        file: File,
        source: Path,
        plan: list[Part],
        mode: str,
        pool: Executor,
        progress: Optional[Progress],
    ) -> list[_Sent]:
        """Send what is missing; return all parts. Raise DamagedError if the whole is not what `file` says."""

        def one(part: Part) -> _Sent:
            with self._slots.for_size(part.size):
                found = self._send_part(upload, key, source, part, mode)
            if progress:
                progress(part.size)
            return found

        whole = hashlib.sha256()
        running: deque[Future[_Sent]] = deque()
        done: list[_Sent] = []
        try:
            for part in plan:
                # Reading a few parts ahead hashes the whole while they are sent, and warms the page cache for them.
                for chunk in stretch(source, part.offset, part.size):
                    whole.update(chunk)
                running.append(pool.submit(one, part))
                while len(running) > 2 * self._settings.concurrency or (running and running[0].done()):
                    done.append(running.popleft().result())
            while running:
                done.append(running.popleft().result())
        finally:
            _settle(running)
        _check_source(file, source, source.stat().st_size, whole.digest())
        return done

    def _send_part(self, upload: _Upload, key: str, source: Path, part: Part, mode: str) -> _Sent:
        listed = upload.listed.get(part.number)
        digest, md5 = digests(source, part.offset, part.size, md5=listed is not None)
        if listed is not None and same_part(part, listed, digest, md5):
            return _Sent(part, str(listed["ETag"]), digest, 0)
        proof: Json = {"ChecksumSHA256": b64(digest)} if mode == "sha256" else {}
        answer = self._send(
            "upload_part", key, source, part, digest, UploadId=upload.id, PartNumber=part.number, **proof
        )
        upload.moved = True
        return _Sent(part, str(answer["ETag"]), digest, part.size)

    def _complete(self, upload: _Upload, key: str, file: File, sent: list[_Sent], mode: str) -> str:
        """Make the parts one object; return the checksum that the store answers with, if any."""
        parts: list[Json] = []
        for one in sent:
            parts.append({"PartNumber": one.part.number, "ETag": one.etag})
            if mode == "sha256":
                parts[-1]["ChecksumSHA256"] = b64(one.digest)
        try:
            answer = self._store.call(
                "complete_multipart_upload", key, UploadId=upload.id, MultipartUpload={"Parts": parts}
            )
        except MissingError:
            # The first try may have succeeded although its answer was lost.
            if self._labelled(key) != file.sha256:
                raise
            return ""
        return str(answer.get("ChecksumSHA256") or "")

    def _labelled(self, key: str) -> str:
        try:
            return label(self._store.call("head_object", key), "sha256")
        except MissingError:
            return ""

    def _prove_parts(self, key: str, sent: list[_Sent], kept: str, mode: str, pool: Executor) -> None:
        if mode == "sha256":
            kept = kept or str(self._store.call("head_object", key, ChecksumMode="ENABLED").get("ChecksumSHA256") or "")
            if same_composite(kept, composite([one.digest for one in sent])):
                return
            if kept or self._settings.checksum_mode == "sha256":
                raise self._unproven(key, kept)

        def one_back(one: _Sent) -> bool:
            with self._slots.for_size(one.part.size):
                return self._reader.sha256(key, start=one.part.offset, size=one.part.size) == (
                    one.digest,
                    one.part.size,
                )

        reading: deque[Future[bool]] = deque()
        try:
            # One alone first: a store that computes something about an object when it is first read does so once.
            reading.append(pool.submit(one_back, sent[0]))
            reading[0].exception()
            reading.extend(pool.submit(one_back, one) for one in sent[1:])
            while reading:
                if not reading.popleft().result():
                    raise self._unproven(key, None)
        except KeyboardInterrupt:
            self._bandwidth.stopped.set()  # a store that does not answer is not waited for
            raise
        finally:
            _settle(reading)

    # --- what is still being made ---

    def put_stream(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        part_size: int,
        room: Path,
        pool: Executor,
        progress: Optional[Progress] = None,
    ) -> tuple[int, str]:
        """Store and prove what comes in `chunks`, as it comes; return its size and SHA-256 (hex).

        Each part lies in the directory `room` until the store has it, a few at a time. What breaks is given up. Raise what
        `chunks` raises, PgopsError if it does not end within 10,000 parts, and DamagedError if the store has something else.
        """
        mode = self._modes().multipart
        algorithm: Json = {"ChecksumAlgorithm": "SHA256"} if mode == "sha256" else {}
        facts = {"Metadata": {"part-size": str(part_size)}, **algorithm, **self._wishes(payload=True)}
        # By another thread: a signal that comes while the store makes it must not lose its id.
        begun = pool.submit(self._store.call, "create_multipart_upload", key, **facts)

        def one(piece: Piece) -> _Sent:
            with self._slots.for_size(piece.part.size):
                proof: Json = {"ChecksumSHA256": b64(piece.digest)} if mode == "sha256" else {}
                # In its own file it begins at 0.
                alone = Part(piece.part.number, 0, piece.part.size)
                named: Json = {"UploadId": begun.result()["UploadId"], "PartNumber": alone.number, **proof}
                answer = self._send("upload_part", key, piece.path, alone, piece.digest, **named)
            piece.path.unlink()
            if progress:
                progress(piece.part.size)
            return _Sent(piece.part, str(answer["ETag"]), piece.digest, piece.part.size)

        whole, size = hashlib.sha256(), 0
        running: deque[Future[_Sent]] = deque()
        sent: list[_Sent] = []
        try:
            upload = _Upload(str(begun.result()["UploadId"]), {})
            for piece in pieces(chunks, room, part_size, whole.update):
                size += piece.part.size
                running.append(pool.submit(one, piece))
                while len(running) > self._settings.concurrency or (running and running[0].done()):
                    sent.append(running.popleft().result())
            while running:
                sent.append(running.popleft().result())
            kept = self._complete(upload, key, File(key, size, ""), sent, mode)
        except BaseException:
            self._bandwidth.stopped.set()  # nobody waits for parts that nobody wants
            _settle(running)
            if not begun.cancel() and begun.exception() is None:
                abort(self._store, key, str(begun.result()["UploadId"]))
            raise
        self._prove_parts(key, sent, kept, mode, pool)
        return size, whole.hexdigest()

    # --- what earlier runs left ---

    def unfinished(self) -> dict[str, list[Json]]:
        """Return the unfinished multipart uploads below `home` by key, the newest first; listed once."""
        with self._lock:
            if self._unfinished is None:
                found: dict[str, list[Json]] = {}
                for upload in self._list_uploads():
                    found.setdefault(str(upload["Key"]), []).append(upload)
                for uploads in found.values():
                    uploads.sort(key=lambda u: u["Initiated"], reverse=True)
                self._unfinished = found
            return self._unfinished

    def forget_unfinished(self) -> None:
        """Let the next call of unfinished() ask the store again."""
        with self._lock:
            self._unfinished = None

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

    def _taken_up(self, key: str, mode: str) -> Optional[_Upload]:
        """Return the newest unfinished upload of `key` that can be gone on with; give up the others."""
        uploads = self.unfinished()
        with self._lock:
            candidates = uploads.pop(key, [])
        chosen: Optional[_Upload] = None
        for candidate in candidates:
            upload_id = str(candidate["UploadId"])
            fits = str(candidate.get("ChecksumAlgorithm") or "") == ("SHA256" if mode == "sha256" else "")
            listed = self._list_parts(key, upload_id) if fits and chosen is None else None
            if listed:
                chosen = _Upload(upload_id, listed)
            else:
                abort(self._store, key, upload_id)
        return chosen

    def _list_parts(self, key: str, upload_id: str) -> dict[int, Json]:
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


def label(facts: Mapping[str, Any], name: str) -> str:
    """Return our metadata `name` from a HeadObject answer; some stores change the case of its name."""
    return next((str(value) for key, value in facts.get("Metadata", {}).items() if key.lower() == name), "")


def _check_source(file: File, source: Path, size: int, digest: bytes) -> None:
    if size != file.size or digest.hex() != file.sha256:
        raise DamagedError(
            "%s is not what the manifest of its set says (%s)."
            % (source, "SHA-256 differs" if size == file.size else "%d bytes instead of %d" % (size, file.size)),
            hint="The local copy is damaged, so it is not sent. Verify the set, and make a new backup.",
        )


def _facts(digest: bytes, md5: bytes, modes: Modes) -> Json:
    """Return what says of an object what it is, and lets the store check it as `modes` has it; `md5` may be empty."""
    checked = modes.put == "sha256"
    proof: Json = {"ChecksumSHA256": b64(digest)} if checked else {"ContentMD5": b64(md5)} if md5 else {}
    return {"Metadata": {"sha256": digest.hex()}, **proof}


def _answer_proves(answer: Mapping[str, Any], digest: bytes, modes: Modes) -> bool:
    return modes.put == "sha256" and bool(answer.get("ChecksumSHA256") == b64(digest))


def _whole(source: Path, size: int) -> bytes:
    """Return the content of a file of `size` bytes, a byte more if it is longer; nothing if it cannot be read."""
    try:
        with source.open("rb", buffering=0) as stream:
            return stream.read(size + 1)
    except OSError:
        return b""


def _settle(futures: deque[Future[Any]]) -> None:
    """Leave no request behind: cancel what has not begun, wait for the rest."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()


__all__ = ("Small", "Unproven", "Writer", "label", "same_part")
