# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Writing to S3: objects put at once, and large files in parts.

What has been uploaded is proven before it counts: by a SHA-256 that the store is known to check and keep, or by
reading back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ..core.manifest import File
from ..system.durable import CHUNK
from .base import Progress
from .s3_parts import PartsWriter
from .s3_sending import UnprovenError, answer_proves, check_source, facts_of
from .s3_volley import SMALL, Asked, volley
from .transfer import Part, digests, stretch

_OPENERS = 4
Json = dict[str, Any]
Small = tuple[str, File, Path]


@dataclass(frozen=True)
class Unproven:
    """A small file that was put, and that the answer did not prove: what it was, and what the store answered."""

    small: Small
    digest: bytes
    answer: Mapping[str, Any]


class Writer(PartsWriter):
    """Writes objects below `home`: small ones at once, many tiny ones by one thread, large ones in parts."""

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
        except UnprovenError:
            self._md5_demanded = True
            return self._put(key, file, source, pool, None)

    def put_small(self, small: Small) -> Optional[Unproven]:
        """Store a payload file that is_small(); return what is to be proven, None when the store's answer proves it.

        A proof is to be had when all files are sent: a store may list a folder anew for each read after a write.
        """
        with self._slots.for_size(small[1].size):
            answer, digest = self._put_small(*small)
        return None if answer_proves(answer, digest, self._modes()) else Unproven(small, digest, answer)

    def prove_small(self, one: Unproven) -> None:
        """Prove what was put; put and prove it once more if the store has something else."""
        key, file, source = one.small
        try:
            with self._slots.for_size(file.size):
                self._prove_put(key, one.digest, one.answer)
        except UnprovenError:
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
            return Asked("put_object", key, {"Body": content, **facts_of(digest, md5, modes), **wishes})

        def heard(small: Small, answer: Mapping[str, Any], _content: bytes) -> bool:
            digest = sent.pop(small[0])
            hear(small, None if answer_proves(answer, digest, modes) else Unproven(small, digest, answer))
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
                check_source(file, source, source.stat().st_size, digest)
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
        check_source(file, source, len(content), digest)
        self._bandwidth.take(len(content))
        return self._store.call("put_object", key, Body=content, **self._facts(digest, md5, payload=True)), digest


def _whole(source: Path, size: int) -> bytes:
    """Return the content of a file of `size` bytes, a byte more if it is longer; nothing if it cannot be read."""
    try:
        with source.open("rb", buffering=0) as stream:
            return stream.read(size + 1)
    except OSError:
        return b""


__all__ = ("Small", "Unproven", "Writer")
