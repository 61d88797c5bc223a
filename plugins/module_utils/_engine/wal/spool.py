# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The local part of the WAL archive: files that are whole, checked and durable, or not there at all.

Paths are plain texts here, since pathlib alone would take as long to import as everything else.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os

from ..core.errors import DISK_FULL, CommandError, DamagedError, MissingError, PgopsError, RefusedError, UsageError
from ..core.segments import SEGMENT, folder, kind, parse_size_mark, parse_stored, size_mark, stored_name
from .pack import AGE_MAGIC, PIECE, borrowed, pieces, returned, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    T = TypeVar("T")

# What a stored file was when it was proven: its name, device, inode, size and times (ns). Any change makes another one of it.
Proof = tuple[str, int, int, int, int, int]
TREE = "wal"
_TEMPORARY = ".tmp"
_CHUNK = 1 << 20
_HASHED_AT_ONCE = 4 << 20
_MOST_PROVEN = 1024


class AbsentError(MissingError):
    """The archive was read, and does not have the file: the one answer at which a recovery may end."""


def lineage_dir(home: str, system_identifier: str) -> str:
    """Return the directory of the WAL of one cluster inside `home`, the directory of the instance."""
    return os.path.join(home, TREE, system_identifier)


def folder_of(home: str, system_identifier: str, name: str) -> str:
    """Return the directory in which the WAL file `name` lies."""
    return os.path.join(lineage_dir(home, system_identifier), folder(name)).rstrip("/")


def find(directory: str, name: str) -> list[str]:
    """Return the stored files of the WAL file `name` in `directory`: mostly one or none, several when they contradict.

    Raise UsageError if the directory is there and cannot be read.
    """
    try:
        return sorted(stored for stored in os.listdir(directory) if parse_stored(stored)[0] == name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UsageError:
    return UsageError(
        "%s cannot be read: %s." % (error.filename, error.strerror), hint="Give it to the account of the server."
    )


def one_content(found: list[str], name: str, where: str) -> str:
    """Return the one of the stored files `found` to read. Raise RefusedError if they have different contents."""
    hashes = {parse_stored(stored)[1] for stored in found}
    if len(hashes) > 1:
        raise RefusedError(
            "%s holds %d different files called %s (SHA-256 %s)."
            % (where, len(hashes), name, ", ".join(sorted(digest[:12] for digest in hashes))),
            hint="Two servers archived to one place. Find out which of them is right, and move the other's file away.",
        )
    # A plain one can be read by everybody.
    return min(found, key=lambda stored: (stored.endswith(".age"), stored))


class Handed:
    """What the server hands over: the content, when it wrote the last of it (ns since 1970, 0: unknown), its SHA-256 once that was made."""

    def __init__(self, content: bytes | bytearray, written_ns: int = 0, digest: str = "") -> None:
        self.content, self.written_ns, self.digest = content, written_ns, digest


class Last:
    """The segment that was archived last and its SHA-256, in the memory of a process that stays: the server may hand it over once more.

    Compared with that, byte by byte, it need not be hashed, which takes ten times as long. One call at a time has it.
    """

    def __init__(self) -> None:
        self._held: list[tuple[bytearray, str]] = []

    def take(self) -> tuple[bytearray, str] | None:
        """Return the content and its hash, which nobody else has then; None if there is none."""
        try:
            return self._held.pop()
        except IndexError:
            return None

    def keep(self, content: bytearray, digest: str) -> None:
        """Hold this one, which nobody may alter any more, instead of what was held."""
        self._held.append((content, digest))
        while len(self._held) > 1:
            try:
                returned(self._held.pop(0)[0])
            except IndexError:  # another call has taken it
                return


class Packed:
    """What is to be written: its pieces in order, the suffix that says how it is packed, and what proves that they hold the content."""

    def __init__(self, blobs: list[memoryview], suffix: str, proofs: list[Callable[[], bool]]) -> None:
        self.blobs, self.suffix, self.proofs = blobs, suffix, proofs


def read_into(handle: int, content: bytearray, *, hashing: bool = False) -> str:
    """Fill `content` with the whole of an open file; return its SHA-256 if that is wanted (`hashing`), which is made meanwhile.

    Raise OSError, also where the file is not as long as that.
    """
    view, whole = memoryview(content), len(content)

    def read(at: int, end: int) -> None:
        while at < end:
            count = os.preadv(handle, [view[at:end]], at)
            if not count:
                raise OSError(errno.EIO, "it became shorter while it was read")
            at += count

    digest = hashlib.sha256()
    if hashing:
        hashed: Callable[[], None] = lambda: None  # noqa: E731
        try:
            for at in range(0, whole, _HASHED_AT_ONCE):
                end = min(at + _HASHED_AT_ONCE, whole)
                read(at, end)
                hashed()
                hashed = aside(lambda at=at, end=end: digest.update(view[at:end]))  # type: ignore[misc]
        finally:
            hashed()
    else:
        half = whole // 2 // _CHUNK * _CHUNK
        side_by_side([lambda: read(0, half), lambda: read(half, whole)] if half else [lambda: read(0, whole)])
    if os.pread(handle, 1, whole):
        raise OSError(errno.EIO, "it became longer while it was read")
    return digest.hexdigest() if hashing else ""


def read_file(path: str) -> bytes:
    """Return the content of a file. Raise OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # At once, as a buffer that grows would cost more than the reading.
        content = os.read(handle, os.fstat(handle).st_size)
        while True:
            more = os.read(handle, _CHUNK)
            if not more:
                return content
            content += more
    finally:
        os.close(handle)


def sha256(content: bytes | bytearray) -> str:
    """Return the SHA-256 of `content` as hex digits."""
    return hashlib.sha256(content).hexdigest()


def aside(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` on another core, and return what waits for its end, to be called once: it returns or raises what `work` does.

    Hashes, compression and the disk let Python go on meanwhile; the module threading would cost more than they take.
    """
    import _thread

    ended = _thread.allocate_lock()
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            errors.append(error)
        finally:
            ended.release()

    def result() -> T:
        with ended:
            if errors:
                raise errors[0]
            return values[0]

    ended.acquire()  # pylint: disable=consider-using-with
    _thread.start_new_thread(run, ())
    return result


def side_by_side(works: Sequence[Callable[[], T]]) -> list[T]:
    """Do all of them by two threads, begun in their order, and return what they return. Raise what the first to fail raises."""
    waiting = list(enumerate(works))[::-1]
    found: dict[int, T] = {}

    def run() -> None:
        try:
            while waiting:
                try:
                    at, work = waiting.pop()
                except IndexError:  # the other one was quicker
                    return
                found[at] = work()
        except BaseException:
            waiting.clear()
            raise

    if len(works) < 2:
        run()
    else:
        ended = aside(run)
        try:
            run()
        finally:
            ended()
    return [found[at] for at in range(len(works))]


def opened(blob: bytes, stored: str, where: str, decrypt: Callable[[bytes], bytes] | None = None) -> bytes | bytearray:
    """Return what the stored file called `stored`, with the bytes `blob`, holds.

    Raise DamagedError if it is not what its name says or cannot be decrypted; UsageError if it is encrypted and there is no `decrypt`.
    """
    blob = _decrypted(blob, stored, where, decrypt)
    try:
        content = unpack(blob)
    except DamagedError as error:
        raise _damaged(stored, where, error.message) from error
    if sha256(content) != parse_stored(stored)[1]:
        raise _damaged(stored, where, _DIFFERS)
    return content


_DIFFERS = "Its content is not what its name says (SHA-256 differs)."


def _damaged(stored: str, where: str, why: str) -> DamagedError:
    return DamagedError("%s/%s is damaged. %s" % (where, stored, why))


def _decrypted(blob: bytes, stored: str, where: str, decrypt: Callable[[bytes], bytes] | None) -> bytes:
    if not blob.startswith(AGE_MAGIC):
        return blob
    if decrypt is None:
        raise UsageError(
            "%s/%s is encrypted, and no private key was given." % (where, stored),
            hint="Give restore.identity_file with the key for one of its recipients.",
        )
    try:
        return decrypt(blob)
    except CommandError as error:
        raise DamagedError(
            "%s/%s cannot be decrypted: it is damaged, or for another key. %s" % (where, stored, error.message)
        ) from error


def open_to(blob: bytes, stored: str, where: str, decrypt: Callable[[bytes], bytes] | None, target: str) -> None:
    """Write what opened() would return to `target`, whole and checked or not at all: unpacked, hashed and written side by side.

    Raise what opened() raises, PgopsError if it cannot be written.
    """
    blob = _decrypted(blob, stored, where, decrypt)
    digest, rooms = hashlib.sha256(), [borrowed(PIECE), borrowed(PIECE)]

    def heard() -> Iterator[bytes | bytearray]:
        hashed: Callable[[], None] = lambda: None  # noqa: E731
        try:
            for piece in pieces(blob, rooms):
                hashed()
                hashed = aside(lambda piece=piece: digest.update(piece))  # type: ignore[misc]
                yield piece
        except DamagedError as error:
            raise _damaged(stored, where, error.message) from error
        finally:
            hashed()
        if digest.hexdigest() != parse_stored(stored)[1]:
            raise _damaged(stored, where, _DIFFERS)

    write_to(heard(), target)
    for room in rooms:
        returned(room)


def store(
    home: str,
    system_identifier: str,
    name: str,
    handed: Handed,
    wrap: Callable[[], Packed],
    prove: Callable[[bytes, str], bool | None],
    *,
    proven: set[Proof] | None = None,
) -> bool:
    """Make the content durable as the WAL file `name`; return False if it was there already.

    The stored file bears the time at which the server wrote it, as no transaction in it is younger: a slow archive must not make its
    content look younger than it is.
    `proven` remembers which files were proven and made durable, for a process that stays: such a one holds what its name says until it
    is touched.
    `wrap` packs it. `prove` tells whether the bytes of a stored file hold it, None where it cannot (no key).
    Raise RefusedError if other content has that name, which stays untouched; PgopsError if it cannot be written.
    """
    directory = folder_of(home, system_identifier, name)
    try:
        _make_dirs(directory)
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One writer at a time; the lock ends with its process.
            fcntl.flock(held, fcntl.LOCK_EX)
            found = find(directory, name)
            if found:
                whole, known = _compare(directory, name, found, handed, prove, proven)
                if whole:
                    if whole != known:
                        for stored in whole:
                            # Whoever wrote it may have been killed before this.
                            _sync(os.path.join(directory, stored))
                        os.fsync(held)
                        _remember(proven, directory, whole)
                    return False
            elif not any(parse_stored(stored)[0] for stored in os.listdir(directory)):
                # Whoever made it may have been killed before its parent was durable.
                _sync_above(directory, home)
            packed = wrap()
            if packed.suffix.endswith(".age") and kind(name) == SEGMENT:
                _mark_size(lineage_dir(home, system_identifier), len(handed.content))
            written = _write(directory, name, handed, packed)
            os.fsync(held)
            for stored in set(found) - {written}:
                os.unlink(os.path.join(directory, stored))
            if packed.proofs:
                _remember(proven, directory, [written])
            return True
        finally:
            os.close(held)
    except OSError as error:
        raise _trouble(error, directory) from error


def _compare(
    directory: str,
    name: str,
    found: list[str],
    handed: Handed,
    prove: Callable[[bytes, str], bool | None],
    proven: set[Proof] | None,
) -> tuple[set[str], set[str]]:
    """Return which of the stored files `found` hold the content, and which of these were proven before. Raise RefusedError for others."""
    hashed = aside(lambda: handed.digest or sha256(handed.content))
    known = {stored for stored in found if proven and _proof(directory, stored) in proven}
    whole = known or {stored for stored in found if _is_whole(os.path.join(directory, stored), stored, prove)}
    digest = handed.digest = hashed()
    other = [stored for stored in found if parse_stored(stored)[1] != digest]
    if other:
        raise _contradiction(directory, name, digest, other)
    return whole, known


def _proof(directory: str, stored: str) -> Proof:
    facts = os.stat(os.path.join(directory, stored))
    return (stored, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _remember(proven: set[Proof] | None, directory: str, files: Iterable[str]) -> None:
    """Add the files, whose content was read back and compared just now, to those that were proven; the newest are enough."""
    if proven is None:
        return
    if len(proven) >= _MOST_PROVEN:
        proven.clear()
    proven.update(_proof(directory, stored) for stored in files)


def _contradiction(directory: str, name: str, digest: str, other: list[str]) -> RefusedError:
    return RefusedError(
        "%s is archived already with other content: %s holds %s, and this one is SHA-256 %s. The archived one stays."
        % (name, directory, other[0], digest),
        hint="Another server archives to the same place: a copy, or an old primary. Stop its archiving "
        "(archive_mode = off), or give it an instance name of its own.",
    )


def _is_whole(path: str, stored: str, prove: Callable[[bytes, str], bool | None]) -> bool:
    """Tell whether the stored file holds what it is to hold. What cannot be proven, as it is encrypted, is written again."""
    try:
        return prove(read_file(path), stored) is True
    except PgopsError:
        return False


def _write(directory: str, name: str, handed: Handed, packed: Packed) -> str:
    """Write what is packed as the WAL file `name`, durable and proven, and return what it is called.

    It is hashed and proven while it is flushed.
    """
    for left in os.listdir(directory):
        if left.startswith(".") and left.endswith(_TEMPORARY):
            os.unlink(os.path.join(directory, left))  # of a killed process: those that live hold the lock
    temporary = os.path.join(directory, ".%s%s%s" % (name, packed.suffix, _TEMPORARY))
    try:
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _adopt(temporary)
            for blob in packed.blobs:
                view = blob
                while view:
                    view = view[os.write(handle, view) :]
            flushed = aside(lambda: os.fsync(handle))
            digests: list[str] = []

            def hashed() -> bool:
                digests.append(sha256(handed.content))
                return True

            try:
                proven = side_by_side([hashed, lambda: is_held_by(handle, packed.blobs), *map(_proving, packed.proofs)])
            finally:
                flushed()
        finally:
            os.close(handle)
        handed.digest = digests[0]
        stored = stored_name(name, handed.digest, packed.suffix)
        if not all(proven):
            raise DamagedError(
                "%s/%s could not be read back as it was written." % (directory, stored),
                hint="Check the disk and the memory of this host.",
            )
        # Never into the future, whatever the server's clock was.
        if 0 < handed.written_ns < os.stat(temporary).st_mtime_ns:
            os.utime(temporary, ns=(handed.written_ns, handed.written_ns))
        os.rename(temporary, os.path.join(directory, stored))
        return stored
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def is_held_by(handle: int, blobs: Sequence[memoryview]) -> bool:
    """Tell whether an open file has these bytes and no others. Raise OSError."""
    # As a bytearray compares at the speed of memory; bytes do not, where the other one is a view.
    at, room = 0, borrowed(_CHUNK)
    try:
        for blob in blobs:
            for begin in range(0, len(blob), _CHUNK):
                piece = blob[begin : begin + _CHUNK]
                count = os.preadv(handle, [memoryview(room)[: len(piece)]], at)
                if count != len(piece) or (room if count == len(room) else room[:count]) != piece:
                    return False
                at += count
        return not os.pread(handle, 1, at)
    finally:
        returned(room)


def _proving(proof: Callable[[], bool]) -> Callable[[], bool]:
    """Return the proof as one that fails where what was packed is no whole file."""

    def proven() -> bool:
        try:
            return proof()
        except DamagedError:
            return False

    return proven


def _mark_size(top: str, size: int) -> None:
    """Say once how large the segments are, as encryption hides it."""
    path = os.path.join(top, size_mark(size))
    if not os.path.exists(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _adopt(path)
        _sync(top)


def _make_dirs(directory: str) -> None:
    """Make `directory` and what is missing above it, durably."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    _make_dirs(parent)
    try:
        os.mkdir(directory, 0o750)
    except FileExistsError:
        return
    _adopt(directory)
    _sync(parent)


def _sync_above(directory: str, home: str) -> None:
    """Make the directories from `directory` up to that of all instances durable in those that hold them, if these can be read."""
    while len(directory) >= len(os.path.dirname(home)) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
        try:
            _sync(directory)
        except PermissionError:
            return
        except OSError as error:
            # A file system that has no such thing, as autofs, in which what holds all instances is mounted.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            return


def _adopt(path: str) -> None:
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _trouble(error: OSError, directory: str) -> PgopsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PgopsError("The disk of %s is full." % directory, hint=DISK_FULL)
    return PgopsError(
        "%s cannot be written: %s." % (error.filename or directory, error.strerror),
        hint="Make the backup directory writable for the account of the server.",
    )


def names(home: str, system_identifier: str) -> Iterator[tuple[str, str]]:
    """Yield (relative path inside `home`, stored name) of each whole file of one cluster, and what marks its size.

    Raise UsageError for what cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(error)

    top = lineage_dir(home, system_identifier)
    for path, _folders, files in os.walk(top, onerror=refuse):
        for stored in files:
            if parse_stored(stored)[0] or parse_size_mark(stored):
                yield os.path.relpath(os.path.join(path, stored), home), stored


def lineages(home: str) -> list[str]:
    """Return the system identifiers for which there is WAL in `home`. Raise UsageError if it cannot be read."""
    try:
        return sorted(name for name in os.listdir(os.path.join(home, TREE)) if name.isdecimal())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(error) from error


def restore_to(content: bytes | bytearray, target: str) -> None:
    """Write `content` to `target`, whole or not at all. Raise PgopsError if it cannot be written.

    PostgreSQL makes it durable when it keeps the file; until then the archive has it.
    """
    write_to([content], target)


def write_to(pieces_of_it: Iterable[bytes | bytearray], target: str) -> None:
    """Do as restore_to() does for what comes in pieces. Raise what they raise, too."""
    temporary = "%s.pgops%s" % (target, _TEMPORARY)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as stream:
            for piece in pieces_of_it:
                view = memoryview(piece)
                while view:
                    view = view[stream.write(view) :]
        os.rename(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise PgopsError("%s cannot be written: %s." % (target, error.strerror)) from error
        raise


__all__ = (
    "AbsentError",
    "Handed",
    "Last",
    "Packed",
    "Proof",
    "TREE",
    "aside",
    "find",
    "folder_of",
    "is_held_by",
    "lineage_dir",
    "lineages",
    "names",
    "one_content",
    "open_to",
    "opened",
    "read_file",
    "read_into",
    "restore_to",
    "sha256",
    "side_by_side",
    "store",
)
