# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The local place: a directory on this host. A set is published by one rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Container, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Optional

from ..core.errors import DamagedError, MissingError, UsageError
from ..core.manifest import NAME, File, safe_path
from ..system.durable import allocated, chunks, create_private, make_dirs, sync_dir, sync_file, write_bytes
from .base import SETS, Entry, Place, Progress

_UNFINISHED = ".unfinished-"
_PULLED = _UNFINISHED + "pull-"
_TRASH = ".trash-"
# What is fetched beside a damaged file of a set, to take its place.
REPAIR = ".repair"
# So long what a pull had fetched when it broke waits for the next one.
PULLED_FOR = timedelta(days=7)
# So long the programs of a killed run have for their end.
_END_SECONDS = 10.0


class LocalPlace(Place):
    """Sets in the directory `<path>/<instance>/`."""

    name = "local"

    def __init__(self, path: Path, instance: str) -> None:
        self.root = str(path / instance)
        self._home = path / instance

    @property
    def home(self) -> Path:
        """The directory of this instance."""
        return self._home

    def path(self, path: str) -> Path:
        """Return where the stored `path` lies. Raise DamagedError if it would lie outside."""
        if not safe_path(path):
            raise DamagedError("%r is not a path inside %s." % (path, self.root))
        return self._home / path

    def entries(self, prefix: str) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.listing(prefix)}

    def listing(self, prefix: str) -> Iterator[Entry]:
        top = self.path(prefix)
        for folder, names, files in os.walk(top, onerror=_raise):
            names[:] = sorted(n for n in names if not n.startswith((_UNFINISHED, _TRASH)))
            for file in files:
                full = Path(folder) / file
                if file.startswith(".") and file.endswith((".tmp", REPAIR)):
                    continue  # what write_bytes() or a repair has not finished
                try:
                    facts = full.lstat()
                except FileNotFoundError:
                    continue  # removed since the directory was read
                path = full.relative_to(self._home).as_posix()
                tag = "%d-%d-%d" % (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                yield Entry(path, facts.st_size, datetime.fromtimestamp(facts.st_mtime, timezone.utc), tag)

    def read(self, path: str) -> bytes:
        try:
            return self.path(path).read_bytes()
        except FileNotFoundError:
            raise MissingError("There is no %s in %s." % (path, self.root)) from None

    def stream(self, path: str, *, progress: Optional[Progress] = None) -> Iterator[bytes]:
        full = self.path(path)
        if not full.is_file():
            raise MissingError("There is no %s in %s." % (path, self.root))
        for chunk in chunks(full):
            if progress:
                progress(len(chunk))
            yield chunk

    def write(self, path: str, content: bytes) -> None:
        full = self.path(path)
        make_dirs(full.parent)
        write_bytes(full, content)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.path(path).unlink(missing_ok=True)

    def delete_set(self, set_id: str) -> int:
        folder = self.path("%s/%s" % (SETS, set_id))
        if not folder.is_dir():
            raise MissingError("There is no set %s in %s." % (set_id, self.root))
        freed = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        trash = folder.with_name(_TRASH + set_id)
        shutil.rmtree(trash, ignore_errors=True)
        folder.rename(trash)
        sync_dir(folder.parent)
        shutil.rmtree(trash)
        return freed

    def fetch(self, set_id: str, file: File, target: Path, *, progress: Optional[Progress] = None) -> None:
        digest = hashlib.sha256()
        with create_private(target) as stream:
            for chunk in self.stream("%s/%s/%s" % (SETS, set_id, file.path), progress=progress):
                digest.update(chunk)
                stream.write(chunk)
        _compare(file, target.stat().st_size, digest.hexdigest(), self.root)

    def check_file(self, set_id: str, file: File, *, progress: Optional[Progress] = None) -> str:
        digest, size = hashlib.sha256(), 0
        for chunk in self.stream("%s/%s/%s" % (SETS, set_id, file.path), progress=progress):
            digest.update(chunk)
            size += len(chunk)
        _compare(file, size, digest.hexdigest(), self.root)
        return "read"

    @contextlib.contextmanager
    def new_set(self, set_id: str, *, go_on: bool = False) -> Iterator[Path]:
        """Yield the folder in which to write the set; publish it when the block ends well, remove it otherwise.

        The block writes manifest.json last. Every file is fsynced before the one rename that makes it a set. With `go_on` the
        folder holds what an earlier run left there, and stays for a later one, unless the set or the disk is what was wrong.
        Raise UsageError if the directory cannot be written or the set exists.
        """
        folder = self.path("%s/%s" % (SETS, set_id))
        unfinished = folder.with_name((_PULLED if go_on else _UNFINISHED) + set_id)
        if folder.exists():
            raise UsageError("There is a set %s in %s already." % (set_id, self.root))
        try:
            make_dirs(folder.parent)
            if not go_on:
                shutil.rmtree(unfinished, ignore_errors=True)
            make_dirs(unfinished, 0o700)
        except OSError as error:
            raise UsageError(
                "%s cannot be written: %s." % (folder.parent, error.strerror),
                hint="Make the directory and give it to the account that runs the backups.",
            ) from error
        handle = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Whoever clears leftovers sees by this that somebody is still at work here.
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield unfinished
            if not (unfinished / NAME).is_file():
                raise MissingError("The set %s has no manifest." % set_id)
            _sync_tree(unfinished)
            unfinished.chmod(0o750)
            unfinished.rename(folder)
            sync_dir(folder.parent)
        except BaseException as error:
            of_no_use = not go_on or isinstance(error, (DamagedError, MissingError, OSError))
            if of_no_use or not any(path.is_file() for path in unfinished.rglob("*")):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        finally:
            os.close(handle)

    def pulled(self, set_id: str) -> Optional[Path]:
        """Return the folder of what a pull of `set_id` had fetched when it broke, None if there is none."""
        folder = self.path("%s/%s%s" % (SETS, _PULLED, set_id))
        return folder if folder.is_dir() else None

    @contextlib.contextmanager
    def workroom(self) -> Iterator[Path]:
        """Yield a private folder on the file system of the sets; it is removed at the end. Raise OSError."""
        folder = self.path("%s/%swork-%s" % (SETS, _UNFINISHED, secrets.token_hex(4)))
        folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield folder
            finally:
                os.close(handle)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def leftovers(self, now: datetime, *, repairs: bool = False) -> dict[str, int]:
        """Return half-written sets and trash that a killed run left behind: path to bytes. What a run works on is not among them.

        What a pull had fetched is one when it has waited for PULLED_FOR, or its set is here. `repairs`: also what was fetched to
        repair a file, and is beside it still.
        """
        folder = self._home / SETS
        names = [p for p in folder.iterdir() if p.name.startswith((_UNFINISHED, _TRASH))] if folder.is_dir() else []
        found = [p for p in names if not _is_held(p) and not (p.name.startswith(_PULLED) and self._waits(p, now))]
        sizes = {p: _room_of(p) for p in sorted(found)}
        if repairs:
            sizes.update(self._repairs())
        return {str(p): size for p, size in sizes.items()}

    def clear_leftovers(self, now: datetime, *, repairs: bool = False) -> dict[str, int]:
        """Remove what leftovers() lists and return it. Only for a run that holds the backup lock; `repairs` only without a sync."""
        found = self.leftovers(now, repairs=repairs)
        for path in map(Path, found):
            _remove(path)
        return found

    def clear_pulls(self, now: datetime, there: Container[str]) -> dict[str, int]:
        """Remove what killed pulls and repairs left that no later one goes on with, and return it: path to bytes.

        `there` are the sets that can be pulled. Only for the one sync that there is.
        """
        gone = self._repairs()
        for path in (self._home / SETS).glob(_PULLED + "*"):
            if path.name[len(_PULLED) :] not in there or not self._waits(path, now):
                gone[path] = _room_of(path)
        for path in gone:
            _remove(path)
        return {str(path): size for path, size in sorted(gone.items())}

    def _repairs(self) -> dict[Path, int]:
        top, found = self._home / SETS, dict[Path, int]()
        for folder, names, files in os.walk(top):
            if Path(folder) == top:
                names[:], files[:] = [name for name in names if not name.startswith(".")], []
            for name in files:
                path = Path(folder) / name
                if name.startswith(".") and name.endswith(REPAIR):
                    with contextlib.suppress(FileNotFoundError):  # a repair that has ended just now
                        found[path] = path.lstat().st_size
        return {path: found[path] for path in sorted(found)}

    def _waits(self, pulled: Path, now: datetime) -> bool:
        """Tell whether a later pull may go on with the folder `pulled`."""
        try:
            newest = max(p.lstat().st_mtime for p in (pulled, *pulled.rglob("*")))
        except FileNotFoundError:
            return True  # a pull is at it just now
        here = pulled.with_name(pulled.name[len(_PULLED) :])
        return not here.exists() and now - datetime.fromtimestamp(newest, timezone.utc) <= PULLED_FOR


def _is_held(path: Path) -> bool:
    """Tell whether a run is at work in the unfinished folder `path`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # published or removed just now
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _sync_tree(top: Path) -> None:
    for folder, _names, files in os.walk(top, topdown=False):
        for file in files:
            sync_file(Path(folder) / file)
        sync_dir(Path(folder))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise UsageError(
            "%s cannot be read: %s." % (error.filename, error.strerror), hint="Run as the owner of the backups."
        )


def _compare(file: File, size: int, sha256: str, where: str) -> None:
    if size != file.size:
        raise DamagedError("%s in %s has %d bytes; the manifest says %d." % (file.path, where, size, file.size))
    if sha256 != file.sha256:
        raise DamagedError("%s in %s is not what the manifest says (SHA-256 differs)." % (file.path, where))


def _room_of(top: Path) -> int:
    """Return the bytes that the files in it hold; of a large file that was fetched in part, that part."""
    total = 0
    for folder, _names, files in os.walk(top):
        for file in files:
            path = Path(folder) / file
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
                total += min(allocated(path), path.lstat().st_size)
    return total


def _remove(path: Path) -> None:
    """Remove a file or a folder, again while a program of the killed run, which ends by itself, still writes in it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    end = time.monotonic() + _END_SECONDS
    while path.exists():
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or time.monotonic() >= end:
                raise
            time.sleep(0.1)


__all__ = ("PULLED_FOR", "REPAIR", "LocalPlace")
