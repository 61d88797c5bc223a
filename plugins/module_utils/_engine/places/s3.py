# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The S3 place: a bucket and prefix. A set is published by its manifest object, written last."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from .. import settings as _settings
from ..core.errors import DamagedError, MissingError, PgopsError
from ..core.manifest import NAME, File, safe_path
from ..core.sizes import parse_size
from .base import SETS, Entry, Place, Progress
from .s3_client import Capabilities, Store, code_of, not_offered
from .s3_download import Reader, compare
from .s3_sending import label
from .s3_trial import Modes, abort, checksum_modes, same_composite
from .s3_upload import Small, Unproven, Writer
from .transfer import Bandwidth, Patience, Slots, StoppedError, b64, composite, part_size_for, parts_of, stretch

_BATCH = 1000
# From so many files on it pays to send the tiny ones by one thread.
_MANY = 32
Job = tuple[File, Path]


class SourceError(DamagedError):
    """The copy here is damaged; of the one in the store nothing bad is known."""


@dataclass
class Tally:
    """What an upload did: the files that were sent, the bytes that passed, the files that were there already."""

    sent: list[File] = field(default_factory=list)
    skipped: list[File] = field(default_factory=list)
    bytes_sent: int = 0


class S3Place(Place):
    """Sets below `s3://<bucket>/<prefix>/<instance>/`. One object may be used by several threads."""

    name = "s3"

    def __init__(
        self,
        settings: _settings.S3,
        instance: str,
        *,
        state: Path,
        warn: Callable[[str], None],
        patience: Optional[Patience] = None,
    ) -> None:
        """Nothing is sent before the first use. `state` is where we remember what the store can do."""
        self._home = "/".join(part for part in (settings.prefix.strip("/"), instance) if part) + "/"
        self.root = "s3://%s/%s" % (settings.bucket, self._home.rstrip("/"))
        self.store = Store(settings, patience=patience, warn=warn)
        self.capabilities = Capabilities(state, settings, warn)
        self._settings, self._warn = settings, warn
        self._bandwidth = Bandwidth(parse_size(settings.bandwidth_limit) if settings.bandwidth_limit else 0)
        self.store.patience.until(self._bandwidth.stopped)
        self._slots = slots = Slots(settings.concurrency)
        self._modes_lock = threading.Lock()
        self.reader = Reader(self.store, self._bandwidth, slots)
        self.writer = Writer(self.store, settings, self._home, self.modes, self.reader, self._bandwidth, slots)

    def key(self, path: str) -> str:
        """Return the key of the stored `path`. Raise DamagedError if it would lie outside."""
        if not safe_path(path):
            raise DamagedError("%r is not a path inside %s." % (path, self.root))
        return self._home + path

    # --- listing, small files ---

    def entries(self, prefix: str) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.listing(prefix)}

    def beginning(self, start: str) -> dict[str, Entry]:
        return {entry.path: entry for entry in self._listing(self.key(start))}

    def listing(self, prefix: str) -> Iterator[Entry]:
        yield from self._listing(self.key(prefix) + "/")

    def _listing(self, start: str) -> Iterator[Entry]:
        marker: dict[str, Any] = {}
        while True:
            answer = self.store.call("list_objects_v2", Prefix=start, **marker)
            for item in answer.get("Contents", []):
                path = str(item["Key"])[len(self._home) :]
                if safe_path(path):  # the "folders" that consoles make end in a slash
                    yield Entry(path, int(item["Size"]), item["LastModified"], str(item.get("ETag", "")).strip('"'))
            if not answer.get("IsTruncated") or not answer.get("NextContinuationToken"):
                return
            marker = {"ContinuationToken": answer["NextContinuationToken"]}

    def read(self, path: str) -> bytes:
        return b"".join(self.stream(path))

    def stream(self, path: str, *, progress: Optional[Progress] = None) -> Iterator[bytes]:
        try:
            yield from self.reader.stream(self.key(path), progress=progress)
        except MissingError as error:
            raise self._missing(error, path) from error

    def write(self, path: str, content: bytes) -> None:
        self.writer.put_bytes(self.key(path), content)

    def publish(self, set_id: str, encoded: bytes) -> None:
        """Make the set that has been uploaded a set: write its manifest."""
        self.write("%s/%s/%s" % (SETS, set_id, NAME), encoded)

    # --- removal ---

    def delete(self, paths: Iterable[str]) -> None:
        pending = iter([self.key(path) for path in paths])
        while True:
            batch = list(itertools.islice(pending, _BATCH))
            if not batch:
                return
            if self.capabilities.get("batch_delete") is False or not self._delete_batch(batch):
                for key in batch:
                    self._delete_one(key)

    def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Remove `keys` by one request; return False if the store does not offer that. Raise if any of them stays."""
        try:
            answer = self.store.call(
                "delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        except PgopsError as error:
            if not not_offered(error):
                raise
            self.capabilities.put(batch_delete=False)
            return False
        errors = [e for e in answer.get("Errors", []) if e.get("Code") not in ("NoSuchKey", "NoSuchVersion")]
        if errors:
            first = errors[0]
            raise PgopsError(
                "The store did not remove %d of %d objects; the first is %s: %s."
                % (len(errors), len(keys), first.get("Key"), first.get("Code") or first.get("Message")),
                hint="Allow s3:DeleteObject there, or wait until a retention lock of the bucket ends.",
            )
        return True

    def _delete_one(self, key: str) -> None:
        try:
            self.store.call("delete_object", key)
        except MissingError as error:
            if code_of(error)[0] == "NoSuchBucket":
                raise

    def delete_set(self, set_id: str) -> int:
        found = self.entries("%s/%s" % (SETS, set_id))
        if not found:
            raise MissingError("There is no set %s in %s." % (set_id, self.root))
        manifest = "%s/%s/%s" % (SETS, set_id, NAME)
        if manifest in found:
            self.delete([manifest])
        self.delete(path for path in found if path != manifest)
        return sum(entry.size for entry in found.values())

    def abort_stale_uploads(self, older_than: datetime) -> list[str]:
        """Give up multipart uploads of this instance that began before the moment `older_than`; return their paths."""
        self.writer.unfinished.forget()
        given_up = [
            key[len(self._home) :]
            for key, uploads in sorted(self.writer.unfinished.by_key().items())
            for upload in uploads
            if upload["Initiated"] < older_than and abort(self.store, key, str(upload["UploadId"]))
        ]
        self.writer.unfinished.forget()
        return given_up

    # --- payload ---

    def upload(self, set_id: str, file: File, source: Path, *, progress: Optional[Progress] = None) -> int:
        """Store the payload file `source`, prove it and return the bytes sent. It is in no set before publish()."""
        return self.upload_all(set_id, [(file, source)], progress=progress).bytes_sent

    def upload_all(
        self, set_id: str, jobs: Sequence[Job], *, present: Collection[str] = (), progress: Optional[Progress] = None
    ) -> Tally:
        """Store and prove payload files, several at once; one whose path in the set is in `present` is compared first.

        The first failure stops the others and is raised: DamagedError if a source is not what its File says.
        """
        tally, lock = Tally(), threading.Lock()
        unproven: list[Unproven] = []

        def key_of(file: File) -> str:
            return self.key("%s/%s/%s" % (SETS, set_id, file.path))

        def put(file: File, sent: int, proof: Optional[Unproven] = None) -> None:
            with lock:
                tally.sent.append(file)
                tally.bytes_sent += sent
                unproven.extend([proof] if proof else [])

        def one(job: Job, parts: Executor) -> None:
            file, source = job
            if file.path in present and self.holds(set_id, file, source):
                with lock:
                    tally.skipped.append(file)
                if progress:
                    progress(file.size)
            elif self.writer.is_small(file):
                put(file, file.size, self.writer.put_small((key_of(file), file, source)))
                if progress:
                    progress(file.size)
            else:
                put(file, self.writer.put_file(key_of(file), file, source, parts, progress))

        def many(some: Sequence[Job], _parts: Executor) -> None:
            def hear(small: Small, proof: Optional[Unproven]) -> None:
                put(small[1], small[1].size, proof)
                if progress:
                    progress(small[1].size)

            rest = self.writer.put_tiny([(key_of(file), file, source) for file, source in some], hear)
            left.extend((file, source) for _key, file, source in rest)

        tiny = [job for job in jobs if self.writer.is_tiny(job[0]) and job[0].path not in present]
        left: list[Job] = list(jobs)
        if len(tiny) >= _MANY:
            quick, left = {file.path for file, _source in tiny}, []
            others = [job for job in jobs if job[0].path not in quick]
            self._side_by_side([partial(many, tiny), *(partial(one, job) for job in others)])
        self._side_by_side([partial(one, job) for job in left])
        self._prove_all(unproven)
        order = {file.path: number for number, (file, _source) in enumerate(jobs)}
        tally.sent.sort(key=lambda file: order[file.path])
        return tally

    def _prove_all(self, unproven: Sequence[Unproven]) -> None:
        left = list(unproven)
        if len(left) >= _MANY:
            left = []
            self._side_by_side([lambda _parts: left.extend(self.writer.prove_tiny(unproven))])
        self._side_by_side([partial(lambda each, _parts: self.writer.prove_small(each), one) for one in left])

    def upload_stream(
        self,
        set_id: str,
        path: str,
        chunks: Iterable[bytes],
        *,
        expected: int,
        room: Path,
        progress: Optional[Progress] = None,
    ) -> File:
        """Store and prove the payload file `path` of a set while it is made, and return what it is. `expected` is about its size.

        Raise what `chunks` raises, or what upload() does. `room` is a directory for a few parts (stream_room() bytes).
        """
        part_size = self._stream_part(expected)
        self._bandwidth.stopped.clear()
        with ThreadPoolExecutor(self._settings.concurrency, "pgops-part") as pool:
            try:
                size, sha256 = self.writer.put_stream(
                    self.key("%s/%s/%s" % (SETS, set_id, path)),
                    chunks,
                    part_size=part_size,
                    room=room,
                    pool=pool,
                    progress=progress,
                )
            finally:
                self._bandwidth.stopped.clear()
        return File(path, size, sha256)

    def stream_room(self, expected: int) -> int:
        """Return how many bytes upload_stream() needs on this host."""
        return (self._settings.concurrency + 2) * self._stream_part(expected)

    def _stream_part(self, expected: int) -> int:
        # Nobody knows how large it gets, so there is room for four times as much.
        return part_size_for(4 * expected, self.writer.part_size)

    def store_all(self, jobs: Sequence[Job]) -> None:
        """Store and prove files that belong to no set, several at once; the path of each File is that of the stored file.

        The first failure stops the others and is raised: DamagedError if a source is not what its File says.
        """

        def one(job: Job, parts: Executor) -> None:
            file, source = job
            self.writer.put_file(self.key(file.path), file, source, parts)

        self._side_by_side([partial(one, job) for job in jobs])

    def fetch(self, set_id: str, file: File, target: Path, *, progress: Optional[Progress] = None) -> None:
        self.fetch_all(set_id, [(file, target)], progress=progress)

    def fetch_all(
        self, set_id: str, jobs: Sequence[Job], *, progress: Optional[Progress] = None, keep: bool = False
    ) -> int:
        """Write files of a set to new files (0600), several at once; return the bytes that came.

        With `keep` what came of a large file stays when it breaks, and the next call goes on with it.
        Raise DamagedError for what is not its File.
        """
        came: list[int] = []

        def one(job: Job, parts: Executor) -> None:
            file, target = job
            path = "%s/%s/%s" % (SETS, set_id, file.path)
            try:
                part_size = self.writer.part_size
                came.append(self.reader.fetch(self.key(path), file, target, part_size, parts, progress, keep=keep))
            except MissingError as error:
                raise self._missing(error, path) from error

        self._side_by_side([partial(one, job) for job in jobs])
        return sum(came)

    def _side_by_side(self, works: Sequence[Callable[[Executor], None]]) -> None:
        """Do all `works`, by as many threads as may have a request in flight, and as many for parts, which they are handed."""
        if not works:
            return
        self._bandwidth.stopped.clear()
        count, most = self._settings.concurrency, self._slots.most
        with ThreadPoolExecutor(count, "pgops-part") as parts, ThreadPoolExecutor(most, "pgops-file") as files:
            running: list[Future[None]] = []
            try:
                running = [files.submit(work, parts) for work in works]
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                unfinished = [future for future in running if not future.done()]
                if unfinished:
                    self._bandwidth.stopped.set()
                    for future in unfinished:
                        future.cancel()
                    wait(running)
                    self._bandwidth.stopped.clear()
        failures = [f.exception() for f in running if not f.cancelled() and f.exception() is not None]
        for failure in sorted(failures, key=lambda f: isinstance(f, StoppedError)):
            if failure is not None:
                raise failure

    # --- proof ---

    def modes(self) -> Modes:
        """Return how content is proven here. Under checksum_mode auto the store is tried once, and it is remembered."""
        if self._settings.checksum_mode != "auto":
            return Modes(self._settings.checksum_mode, self._settings.checksum_mode)
        with self._modes_lock:
            known = self._known_modes()
            if known is None:
                try:
                    known = checksum_modes(self.store, self.key("probe/checksum"))
                except PgopsError:
                    with contextlib.suppress(PgopsError):  # what broke the trial is told
                        self._delete_one(self.key("probe/checksum"))
                    raise
                self.remember(known)
                try:
                    self._delete_one(self.key("probe/checksum"))
                except PgopsError as error:
                    self._warn("Our probe object could not be removed: %s" % error.message)
            return known

    def remember(self, modes: Modes) -> None:
        """Keep what a trial found, and say so where it costs something."""
        self.capabilities.put(put_checksum=modes.put, multipart_checksum=modes.multipart, checksum_why=modes.why)
        if modes.why:
            what = "each upload" if modes.put == "read" else "each large file"
            self._warn(
                "%s cannot prove content by SHA-256 (%s), so %s is read back after it was sent."
                % (self.store.endpoint, modes.why, what)
            )

    def _known_modes(self) -> Optional[Modes]:
        put, multipart = self.capabilities.get("put_checksum"), self.capabilities.get("multipart_checksum")
        if put not in ("sha256", "read") or multipart not in ("sha256", "read"):
            return None
        return Modes(put, multipart, str(self.capabilities.get("checksum_why") or ""))

    def _trusted(self) -> Modes:
        """Return how far the store's checksums may be believed, without writing anything."""
        if self._settings.checksum_mode != "auto":
            return Modes(self._settings.checksum_mode, self._settings.checksum_mode)
        return self._known_modes() or Modes("read", "read")

    def check_file(self, set_id: str, file: File, *, progress: Optional[Progress] = None) -> str:
        path = "%s/%s/%s" % (SETS, set_id, file.path)
        where = "%s/%s" % (self.root, path)
        try:
            if self._trusted().put == "sha256":
                facts = self._head(path)
                kept = str(facts.get("ChecksumSHA256") or "")
                if int(facts["ContentLength"]) == file.size and kept and not _of_parts(facts):
                    compare(file, file.size, file.sha256 if kept == b64(bytes.fromhex(file.sha256)) else "", where)
                    if progress:
                        progress(file.size)
                    return "store checksum"
                if int(facts["ContentLength"]) != file.size:
                    compare(file, int(facts["ContentLength"]), "", where)
            digest, size = self.reader.sha256(self.key(path), progress=progress)
        except MissingError as error:
            raise self._missing(error, path) from error
        compare(file, size, digest.hex(), where)
        return "read"

    def holds(self, set_id: str, file: File, source: Path) -> bool:
        """Tell whether the stored file is what `file` says; `source` is a copy to compare its checksums with.

        Raise SourceError if that is needed and `source` is not what `file` says.
        """
        path = "%s/%s/%s" % (SETS, set_id, file.path)
        try:
            facts = self._head(path)
            if int(facts["ContentLength"]) != file.size or label(facts, "sha256") not in ("", file.sha256):
                return False
            kept, trusted = str(facts.get("ChecksumSHA256") or ""), self._trusted()
            if kept and not _of_parts(facts) and trusted.put == "sha256":
                return kept == b64(bytes.fromhex(file.sha256))
            part_size = label(facts, "part-size")
            if kept and trusted.multipart == "sha256" and part_size.isdigit() and int(part_size) > 0:
                try:
                    ours = _composite_of(source, file, int(part_size))
                except DamagedError as error:
                    raise SourceError(error.message, hint=error.hint) from error
                return same_composite(kept, ours)
            digest, size = self.reader.sha256(self.key(path))
        except MissingError:
            return False
        return (digest.hex(), size) == (file.sha256, file.size)

    def _head(self, path: str) -> Mapping[str, Any]:
        wish = {} if self._trusted().put == "read" else {"ChecksumMode": "ENABLED"}
        return self.store.call("head_object", self.key(path), **wish)  # type: ignore[no-any-return]

    def _missing(self, error: MissingError, path: str) -> MissingError:
        if code_of(error)[0] == "NoSuchBucket":
            return error
        return MissingError("There is no %s in %s." % (path, self.root))


def _of_parts(facts: Mapping[str, Any]) -> bool:
    """Tell whether the store's checksum is one of part checksums, which says nothing about the whole by itself."""
    return (
        facts.get("ChecksumType") == "COMPOSITE"
        or "-" in str(facts.get("ChecksumSHA256") or "")
        or bool(label(facts, "part-size"))
    )


def _composite_of(source: Path, file: File, part_size: int) -> str:
    """Return the checksum that the store must have for `source`. Raise DamagedError if it is not what `file` says."""
    whole, digests = hashlib.sha256(), []
    for part in parts_of(file.size, part_size):
        one = hashlib.sha256()
        for chunk in stretch(source, part.offset, part.size):
            one.update(chunk)
            whole.update(chunk)
        digests.append(one.digest())
    compare(file, source.stat().st_size, whole.hexdigest(), str(source))
    return composite(digests)


__all__ = ("Job", "S3Place", "SourceError", "Tally")
