# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What every transfer needs and no store knows of: parts, checksums of parts, a shared speed limit, patience."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import random
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from ..core.errors import DamagedError, PgopsError
from ..system.durable import CHUNK, create_private

MIB = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PARTS, MAX_PART_SIZE = 10_000, 5 * 1024 * MIB
_SMALL_PER_LARGE = 4
# How long a stop may have to wait for a thread that sleeps.
_MOST_SLEEP = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A stretch of a file; `number` counts from 1, as S3 does."""

    number: int
    offset: int
    size: int


def part_size_for(size: int, wanted: int) -> int:
    """Return the part size for a file of `size` bytes: `wanted`, or whole MiB more where 10,000 parts would not do."""
    least = -(-size // MAX_PARTS)
    return wanted if least <= wanted else min(-(-least // MIB) * MIB, MAX_PART_SIZE)


def parts_of(size: int, part_size: int) -> list[Part]:
    """Return the parts of a file of `size` bytes; an empty file has one empty part."""
    starts = range(0, size, part_size) if size else range(1)
    return [Part(n, start, min(part_size, size - start)) for n, start in enumerate(starts, start=1)]


@dataclass(frozen=True)
class Piece:
    """A part of something that is still being made, in a file of its own; `digest` is its SHA-256."""

    part: Part
    path: Path
    digest: bytes


def pieces(chunks: Iterable[bytes], room: Path, size: int, hear: Callable[[bytes], object]) -> Iterator[Piece]:
    """Yield what comes in `chunks` in pieces of `size` bytes, the last one smaller, as files in `room`; `hear` hears every byte.

    Raise PgopsError where there would be more than 10,000.
    """
    number, offset = 0, 0
    left, source = b"", (chunk for chunk in chunks if chunk)
    while True:
        number += 1
        digest, held = hashlib.sha256(), 0
        path = room / ("part-%d" % number)
        with create_private(path) as stream:
            while held < size:
                chunk = left or next(source, b"")
                if not chunk:
                    break
                now, left = chunk[: size - held], chunk[size - held :]
                for listener in (stream.write, digest.update, hear):
                    listener(now)
                held += len(now)
        if not held and offset:
            path.unlink()
            return
        if number > MAX_PARTS:
            raise PgopsError("It is larger than %d parts of %d bytes." % (MAX_PARTS, size), hint="Raise s3.part_size.")
        yield Piece(Part(number, offset, held), path, digest.digest())
        offset += held
        if held < size:
            return


def b64(digest: bytes) -> str:
    """Return `digest` as S3 writes it."""
    return base64.b64encode(digest).decode("ascii")


def composite(digests: Sequence[bytes]) -> str:
    """Return the checksum that S3 gives an object of parts: that of their SHA-256 digests, and their count."""
    return "%s-%d" % (b64(hashlib.sha256(b"".join(digests)).digest()), len(digests))


class Slots:
    """How many requests may be in flight: `count` that move much, and four times as many that move little.

    A small object is a matter of round trips, not of bandwidth or memory. Who asks for one at a time gets that.
    """

    def __init__(self, count: int) -> None:
        self.most = _SMALL_PER_LARGE * count if count > 1 else 1
        self._large, self._small = threading.BoundedSemaphore(count), threading.BoundedSemaphore(self.most)

    @contextlib.contextmanager
    def many_small(self, wanted: int) -> Iterator[int]:
        """Hold as many slots of small ones as are free, at least one and at most `wanted`; the block is told how many."""
        self._small.acquire()
        held = 1
        try:
            while held < wanted and self._small.acquire(blocking=False):
                held += 1
            yield held
        finally:
            for _count in range(held):
                self._small.release()

    def for_size(self, size: int) -> threading.BoundedSemaphore:
        """Return what to hold while `size` bytes are on their way."""
        return self._small if size <= CHUNK else self._large


class StoppedError(PgopsError):
    """This stretch was given up because another one failed or a person stopped the run; never the first cause."""


class Bandwidth:
    """A speed limit that all threads share: a bucket of tokens, one per byte, that holds a quarter of a second's worth.

    As every byte passes here, this is also where a transfer is stopped.
    """

    def __init__(
        self,
        per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Optional[Callable[[float], object]] = None,
    ) -> None:
        """`per_second` 0 means no limit."""
        self.stopped = threading.Event()
        self._rate, self._clock, self._sleep = per_second, clock, sleep or self.stopped.wait
        self._most = per_second / 4
        self._tokens, self._seen = self._most, clock()
        self._lock = threading.Lock()

    @property
    def step(self) -> int:
        """The most bytes to move at once, so that the speed stays even."""
        return max(4096, min(CHUNK, self._rate // 8)) if self._rate else CHUNK

    def take(self, count: int) -> None:
        """Return when `count` more bytes may pass; a debt is slept off at once. Raise StoppedError if `stopped`."""
        if self.stopped.is_set():
            raise StoppedError("The transfer was stopped.")
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            self._tokens = min(self._most, self._tokens + (now - self._seen) * self._rate)
            self._seen = now
            self._tokens -= count
            debt = -self._tokens
        if debt > 0:
            self._sleep(debt / self._rate)


class Patience:
    """For how long and after what pauses a request is made again: exponential, full jitter, capped.

    A store that has not answered yet gets less time: a person, or a check that runs every minute, is told soon.
    """

    def __init__(
        self,
        longest: float = 300.0,
        *,
        first: float = 30.0,
        base: float = 0.5,
        cap: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        rng: Optional[random.Random] = None,
    ) -> None:
        """`longest` is in seconds, from a failure on that nothing good followed; `first` the same before the first answer."""
        self.answered = False
        self._stopped: Optional[threading.Event] = None
        self._longest, self._first, self._base, self._cap = longest, min(first, longest), base, cap
        self._clock, self._sleep = clock, sleep
        self._rng = rng or random.Random()  # noqa: S311  # spreads load; guards nothing

    def until(self, stopped: threading.Event) -> None:
        """From now on let `stopped` end a pause, and what would be asked again after it."""
        self._stopped = stopped

    def pause(self, failed: int, since: float) -> bool:
        """Sleep after the failure number `failed` (from 1) in a row, the first of which was at `since` by now().

        Return False instead where the time is used up. Raise StoppedError when the transfer is stopped meanwhile.
        """
        left = since + (self._longest if self.answered else self._first) - self.now()
        if left <= 0:
            return False
        pause = min(left, self._rng.uniform(0, min(self._cap, self._base * 2 ** min(failed - 1, 30))))
        while pause > 0:
            self._sleep(min(pause, _MOST_SLEEP))
            pause -= _MOST_SLEEP
            if self._stopped is not None and self._stopped.is_set():
                raise StoppedError("The transfer was stopped.")
        return True

    def now(self) -> float:
        """Return the seconds of a clock that only goes forward."""
        return self._clock()

    def call(self, work: Callable[[], T], passing: Callable[[Exception], bool]) -> T:
        """Return what `work` returns, made again while it raises what `passing` takes for a passing trouble."""
        failed, since = 0, 0.0
        while True:
            try:
                answer = work()
            except Exception as error:
                since = since if failed else self.now()
                failed += 1
                if not passing(error) or not self.pause(failed, since):
                    raise
            else:
                self.answered = True
                return answer


class Slice(io.RawIOBase):
    """A stretch of a local file as a body to send. It holds no content in memory, and can be sent again from its start.

    Reads count against the speed limit only after metered(): what is read for a signature does not pass the wire.
    """

    def __init__(self, path: Path, offset: int, size: int, bandwidth: Bandwidth, *, sha256: str) -> None:
        """`sha256` (hex) is what the stretch is known to be; requests are signed with it."""
        super().__init__()
        self.sha256 = sha256
        self._file = path.open("rb", buffering=0)
        self._path, self._offset, self._size, self._bandwidth = path, offset, size, bandwidth
        self._at, self._metered = 0, False

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at, self._metered = base + offset, False
        return self._at

    def metered(self) -> None:
        """Count what is read from now on, until the next seek()."""
        self._metered = True

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        wanted = left if size < 0 else min(size, left)
        if self._metered:
            # http.client asks for 16 KiB at a time; a larger answer is sent as it is and saves most of the calls.
            wanted = min(left, max(wanted, self._bandwidth.step))
        if wanted <= 0:
            return b""
        try:
            found = os.pread(self._file.fileno(), wanted, self._offset + self._at)
        except OSError as error:
            raise DamagedError("%s cannot be read: %s." % (self._path, error.strerror)) from error
        if not found:
            raise self._shorter()
        self._at += len(found)
        if self._metered:
            self._bandwidth.take(len(found))
        return found

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))[: len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def send_to(self, connection: socket.socket, *, by_kernel: bool) -> None:
        """Send all of it at the shared speed; `by_kernel`: from the file to the connection, past this process."""
        self.seek(0)
        self.metered()
        while self._at < self._size:
            if not by_kernel:
                connection.sendall(self.read(self._bandwidth.step))
                continue
            wanted = min(self._size - self._at, self._bandwidth.step)
            sent = connection.sendfile(self._file, self._offset + self._at, wanted)
            if not sent:
                raise self._shorter()
            self._at += sent
            self._bandwidth.take(sent)

    def _shorter(self) -> DamagedError:
        return DamagedError("%s became shorter while it was being sent." % self._path)

    def close(self) -> None:
        self._file.close()
        super().close()


def stretch(path: Path, offset: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the file `path` from `offset` on, fewer where it ends sooner. Raise DamagedError."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while size > 0:
                chunk = stream.read(min(CHUNK, size))
                if not chunk:
                    return
                size -= len(chunk)
                yield chunk
    except OSError as error:
        raise DamagedError("%s cannot be read: %s." % (path, error.strerror or error)) from error


def digests(path: Path, offset: int, size: int, *, md5: bool) -> tuple[bytes, bytes]:
    """Return the SHA-256 and (when `md5` holds, else empty) the MD5 of a stretch of the file `path`."""
    sha, other = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in stretch(path, offset, size):
        sha.update(chunk)
        if md5:
            other.update(chunk)
    return sha.digest(), other.digest() if md5 else b""


__all__ = (
    "MAX_PARTS",
    "MAX_PART_SIZE",
    "MIB",
    "Bandwidth",
    "Part",
    "Patience",
    "Piece",
    "Slice",
    "Slots",
    "StoppedError",
    "b64",
    "composite",
    "digests",
    "part_size_for",
    "parts_of",
    "pieces",
    "stretch",
)
