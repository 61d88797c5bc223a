# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Files that are wholly there or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Callable

CHUNK = 1024 * 1024


def sync_dir(path: Path) -> None:
    """Make renames in the directory `path` durable."""
    _sync(path, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make the content of the file `path` durable."""
    _sync(path)


def _sync(path: Path, more: int = 0) -> None:
    handle = os.open(path, os.O_RDONLY | more)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def adopt(path: Path) -> None:
    """Give `path` to the owner of its parent when we are root, so that the nightly run of that owner can go on with it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def make_dirs(path: Path, mode: int = 0o750) -> None:
    """Make the directory `path` and its missing parents with `mode`; one that exists stays as it is."""
    if path.is_dir():
        return
    make_dirs(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    adopt(path)


def create_private(path: Path) -> BinaryIO:
    """Open the new file `path` for writing, mode 0600. Raise FileExistsError if it exists."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    adopt(path)
    return os.fdopen(handle, "wb")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` (0600) by a temporary file, fsync and one rename."""
    _replace(path, content, "*", os.fsync)
    sync_dir(path.parent)


def publish(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` to `path` with `mode`, for others to read at any moment: they see the old file or the new one.

    The directory may be shared with others, so nothing of theirs is touched; a temporary file of ours that a killed run left
    goes. It is not made durable, as the next run writes it anew.
    """
    _replace(path, content, path.name + ".*", lambda handle: os.fchmod(handle, mode))


def _replace(path: Path, content: bytes, ours: str, finish: Callable[[int], object]) -> None:
    """Write a temporary file, call `finish` with its handle, and rename it; what killed runs left under the pattern `ours` goes."""
    for left in path.parent.glob(".%s.tmp" % ours):
        if not _writes(left):
            with contextlib.suppress(OSError):
                left.unlink()
    temporary = path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))
    temporary.unlink(missing_ok=True)
    try:
        with create_private(temporary) as stream:
            stream.write(content)
            stream.flush()
            finish(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _writes(temporary: Path) -> bool:
    """Tell whether the process that `temporary` is named after is there, or may be."""
    number = temporary.name.split(".")[-2]
    if not number.isdigit() or int(number) in (0, os.getpid()):
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def chunks(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the content of `path` from `offset` on, a chunk at a time."""
    with path.open("rb") as stream:
        stream.seek(offset)
        while True:
            chunk = stream.read(CHUNK)
            if not chunk:
                return
            yield chunk


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file `path` as hex digits."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def allocated(path: Path) -> int:
    """Return the bytes that the file `path` takes on the disk, 0 where there is none; a sparse one takes less than its size."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def free_bytes(path: Path) -> int:
    """Return the bytes that an ordinary user may still write on the file system of `path` or its nearest existing parent.

    Where no file can be made any more, that is none.
    """
    usage = _usage(path)
    return 0 if _no_inode(usage) else usage.f_bavail * usage.f_frsize


def no_inode(path: Path) -> bool:
    """Tell whether the file system of `path`, or of its nearest existing parent, has room for no file more, whatever its size."""
    return _no_inode(_usage(path))


def _usage(path: Path) -> os.statvfs_result:
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.statvfs(path)


def _no_inode(usage: os.statvfs_result) -> bool:
    return usage.f_files > 0 and usage.f_favail == 0  # some file systems count none


__all__ = (
    "CHUNK",
    "adopt",
    "allocated",
    "chunks",
    "create_private",
    "free_bytes",
    "make_dirs",
    "no_inode",
    "publish",
    "sha256_file",
    "sync_dir",
    "sync_file",
    "write_bytes",
)
