# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Reading from S3: streams that go on after a cut, and large files in parallel stretches."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Optional

from ..core.errors import DamagedError, MissingError, PgopsError
from ..core.manifest import File
from ..system.durable import create_private
from .base import Progress
from .fetched import Fetched, forget
from .s3_client import Store, code_of
from .transfer import Bandwidth, Part, Slots, parts_of, stretch

# Small enough that a connection which breaks again and again still brings a stream forward.
_READ = 64 * 1024
# For a body that hands out what has come, rather than wait for all that was asked for.
_READ_MOST = 512 * 1024


class Reader:
    """Reads objects of one store within a shared speed limit."""

    def __init__(self, store: Store, bandwidth: Bandwidth, slots: Slots) -> None:
        self._store, self._bandwidth, self._slots = store, bandwidth, slots

    def stream(
        self,
        key: str,
        *,
        start: int = 0,
        size: Optional[int] = None,
        etag: str = "",
        progress: Optional[Progress] = None,
    ) -> Iterator[bytes]:
        """Yield the object `key` from `start` on, `size` bytes of it or all; `etag` is what it must still be.

        A cut connection is taken up at the broken offset; cuts for too long without a byte between them end it.
        Raise DamagedError if the object changes meanwhile.
        """
        offset, stop = start, None if size is None else start + size
        patience, failed, since = self._store.patience, 0, 0.0
        while stop is None or offset < stop:
            trouble: Exception
            try:
                answer = self._open(key, offset, stop, etag)
                etag = etag or str(answer.get("ETag", ""))
                length = int(answer["ContentLength"])
                if stop is not None and offset + length > stop:  # it would lie on what comes behind it
                    answer["Body"].close()
                    said = "The store answers for s3://%s/%s with more than was asked for."
                    raise DamagedError(said % (self._store.bucket, key))
                stop = offset + length
                for chunk in self._chunks(answer["Body"]):
                    self._bandwidth.take(len(chunk))
                    offset, failed, patience.answered = offset + len(chunk), 0, True
                    if progress:
                        progress(len(chunk))
                    yield chunk
                if offset >= stop:
                    return
                trouble = ConnectionError("the answer ended too soon")
            except Exception as error:
                if not self._store.may_pass(error):
                    raise
                trouble = error
            since = since if failed else patience.now()
            failed += 1
            if not patience.pause(failed, since):
                raise self._store.translated(trouble, "get_object", key) from trouble

    def _open(self, key: str, offset: int, stop: Optional[int], etag: str) -> Any:
        arguments = {}
        if offset or stop is not None:
            arguments["Range"] = "bytes=%d-%s" % (offset, "" if stop is None else stop - 1)
        if etag:
            arguments["IfMatch"] = etag
        try:
            answer = self._store.try_once("get_object", key, **arguments)
        except PgopsError as error:
            code, status = code_of(error)
            if status == 412 or code == "PreconditionFailed":
                raise DamagedError("s3://%s/%s changed while it was being read." % (self._store.bucket, key)) from error
            if status == 416 or code == "InvalidRange":
                raise DamagedError("s3://%s/%s is shorter than it should be." % (self._store.bucket, key)) from error
            raise
        if offset and "ContentRange" not in answer:
            answer["Body"].close()
            raise PgopsError(
                "The store at %s answers a request for a range with the whole object." % self._store.endpoint
            )
        return answer

    def _chunks(self, body: Any) -> Iterator[bytes]:
        read = getattr(body, "read1", None)
        size = min(_READ if read is None else _READ_MOST, self._bandwidth.step)
        try:
            while True:
                chunk = body.read(size) if read is None else read(size)
                if not chunk:
                    return
                yield chunk
        finally:
            body.close()

    def sha256(
        self,
        key: str,
        *,
        start: int = 0,
        size: Optional[int] = None,
        etag: str = "",
        progress: Optional[Progress] = None,
    ) -> tuple[bytes, int]:
        """Return the SHA-256 and the length of the object, or of `size` bytes of it from `start` on."""
        digest, length = hashlib.sha256(), 0
        for chunk in self.stream(key, start=start, size=size, etag=etag, progress=progress):
            digest.update(chunk)
            length += len(chunk)
        return digest.digest(), length

    def fetch(
        self,
        key: str,
        file: File,
        target: Path,
        part_size: int,
        pool: Executor,
        progress: Optional[Progress],
        *,
        keep: bool = False,
    ) -> int:
        """Write the object to the new file `target`, in parallel stretches by `pool` when it is large; return the bytes that came.

        Raise DamagedError if what is on disk then is not what `file` says. What fails leaves no file; with `keep` what came of
        a large one stays unless it is of no use, and the next call goes on with it.
        """
        try:
            if file.size > part_size:
                return self._fetch_large(key, file, target, part_size, pool, progress, keep=keep)
            if keep:
                forget(target)  # it may have been fetched in parts, when they were smaller
            self._fetch_at_once(key, file, target, progress)
        except BaseException as error:
            if not keep:
                target.unlink(missing_ok=True)
            elif isinstance(error, (DamagedError, MissingError, OSError)):
                forget(target)
            raise
        return file.size

    def _fetch_at_once(self, key: str, file: File, target: Path, progress: Optional[Progress]) -> None:
        digest = hashlib.sha256()
        try:
            with self._slots.for_size(file.size), create_private(target) as stream:
                for chunk in self.stream(key, progress=progress):
                    digest.update(chunk)
                    stream.write(chunk)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        compare(file, target.stat().st_size, digest.hexdigest(), self._address(key))

    def _fetch_large(
        self,
        key: str,
        file: File,
        target: Path,
        part_size: int,
        pool: Executor,
        progress: Optional[Progress],
        *,
        keep: bool,
    ) -> int:
        facts = self._store.call("head_object", key)
        if facts["ContentLength"] != file.size:
            compare(file, facts["ContentLength"], "", self._address(key))
        etag, plan = str(facts.get("ETag", "")), parts_of(file.size, part_size)
        about = {"etag": etag, "sha256": file.sha256, "size": file.size, "part_size": part_size}
        fetched = Fetched(target, file.size, plan, about if keep else None, lambda: self._bandwidth.take(0))
        try:
            held = sum(part.size for part in fetched.parts.values())
            if progress and held:
                progress(held)
            found = self._fetch_parts(key, plan, target, fetched, etag, pool, progress)
        finally:
            fetched.close()
        compare(file, target.stat().st_size, found, self._address(key))
        fetched.done()
        return file.size - held

    def _fetch_parts(
        self,
        key: str,
        plan: list[Part],
        target: Path,
        fetched: Fetched,
        etag: str,
        pool: Executor,
        progress: Optional[Progress],
    ) -> str:
        """Fetch the parts of the `plan` that are not there; return the SHA-256 of the whole file on the disk."""

        def one(part: Part) -> Part:
            if part.number not in fetched.parts:
                with self._slots.for_size(part.size):
                    fetched.write(
                        part, self.stream(key, start=part.offset, size=part.size, etag=etag, progress=progress)
                    )
            return part

        digest = hashlib.sha256()
        waiting: deque[Future[Part]] = deque()
        try:
            for part in plan:
                waiting.append(pool.submit(one, part))
            while waiting:
                # The hash follows the writers through the file: it reads what the disk holds, from the page cache.
                part = waiting.popleft().result()
                for chunk in stretch(target, part.offset, part.size):
                    digest.update(chunk)
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    future.exception()
        return digest.hexdigest()

    def _address(self, key: str) -> str:
        return "s3://%s/%s" % (self._store.bucket, key)


def compare(file: File, size: int, sha256: str, where: str) -> None:
    """Raise DamagedError unless `size` and `sha256` (hex) are what `file` says."""
    if size != file.size:
        raise DamagedError("%s has %d bytes; the manifest says %d." % (where, size, file.size))
    if sha256 != file.sha256:
        raise DamagedError("%s is not what the manifest says (SHA-256 differs)." % where)


__all__ = ("Reader", "compare")
