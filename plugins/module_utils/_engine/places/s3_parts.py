# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Large files in S3: parallel parts that an interrupted run takes up again, and streams whose end nobody knows yet."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..core.errors import DamagedError, MissingError, PgopsError, UnreachableError
from ..core.manifest import File
from .base import Progress
from .s3_client import code_of
from .s3_sending import Sender, check_source, label
from .s3_trial import abort, same_composite
from .s3_unfinished import Upload, same_part
from .transfer import Part, Piece, StoppedError, b64, composite, digests, part_size_for, parts_of, pieces, stretch

Json = dict[str, Any]


@dataclass(frozen=True)
class _Sent:
    """A part that the store has: what completes the upload, its SHA-256, and the bytes that passed for it now."""

    part: Part
    etag: str
    digest: bytes
    sent: int


class PartsWriter(Sender):
    """Writes large objects in parallel parts; an upload that broke is taken up where it broke."""

    def _put_parts(
        self, key: str, file: File, source: Path, pool: Executor, progress: Optional[Progress], *, resume: bool = True
    ) -> int:
        mode = self._modes().multipart
        part_size = part_size_for(file.size, self.part_size)
        upload = (self.unfinished.take_up(key, mode) if resume else None) or self._begun(key, file, part_size, mode)
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

    def _begun(self, key: str, file: File, part_size: int, mode: str) -> Upload:
        algorithm: Json = {"ChecksumAlgorithm": "SHA256"} if mode == "sha256" else {}
        label = {"sha256": file.sha256, "part-size": str(part_size)}
        answer = self._store.call(
            "create_multipart_upload", key, Metadata=label, **algorithm, **self._wishes(payload=True)
        )
        return Upload(str(answer["UploadId"]), {})

    def _send_parts(
        self,
        upload: Upload,
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
        check_source(file, source, source.stat().st_size, whole.digest())
        return done

    def _send_part(self, upload: Upload, key: str, source: Path, part: Part, mode: str) -> _Sent:
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

    def _complete(self, upload: Upload, key: str, file: File, sent: list[_Sent], mode: str) -> str:
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
            upload = Upload(str(begun.result()["UploadId"]), {})
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


def _settle(futures: deque[Future[Any]]) -> None:
    """Leave no request behind: cancel what has not begun, wait for the rest."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()


__all__ = ("PartsWriter",)
