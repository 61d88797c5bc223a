# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a host is to hold, what it lacks of that, and the way from the one to the other.

Everything is looked at before anything is touched, so that a dry run and a diff tell what a run would do.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from ..core.errors import PgopsError, RefusedError, UsageError
from ..core.times import Clock, utc_now
from ..system.durable import sync_dir
from ..system.runner import Runner

HIDDEN = "(a secret)\n"


@dataclass(frozen=True)
class Owner:
    """Whose a file is. An account that is still to be made has the numbers -1."""

    uid: int
    gid: int

    @property
    def known(self) -> bool:
        """Whether the account is there."""
        return self.uid >= 0 and self.gid >= 0

    def __str__(self) -> str:
        return "%s:%s" % (_name_of(pwd.getpwuid, self.uid), _name_of(grp.getgrgid, self.gid))


def _name_of(find: Callable[[int], Any], number: int) -> str:
    try:
        return str(find(number)[0])
    except (KeyError, ValueError, OverflowError):
        return str(number)


def ourselves() -> Owner:
    """Return the owner of what is laid down for every account: root, where root runs this."""
    return Owner(os.geteuid(), os.getegid())


@dataclass(frozen=True)
class Change:
    """One step: what diff mode shows of it, and how it is made."""

    path: str
    before: str
    after: str
    make: Callable[[], None]
    removes: bool = False

    def as_diff(self) -> dict[str, str]:
        """Return it in the shape that Ansible shows."""
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": self.before,
            "after": self.after,
        }


@dataclass
class Host:
    """This host as a run sees it: the steps that it needs, and what the run guessed or left out."""

    dry_run: bool = False
    clock: Clock = utc_now
    runner: Runner = field(default_factory=Runner)
    warnings: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    excused: bool = False

    def warn(self, text: str) -> None:
        """Remember that something was skipped, degraded or guessed."""
        text = self.runner.redactor.text(text)
        if text not in self.warnings:
            self.warnings.append(text)

    def excuse(self, text: str) -> None:
        """In a dry run, warn of what would be an error without one: an earlier task may bring what is missing."""
        self.excused = True
        self.warn("%s Without check mode this would be an error." % text)

    def need(self, change: Optional[Change]) -> bool:
        """Take the step `change` on; None is nothing to do. Tell whether there is something to do."""
        if change is not None:
            self.changes.append(change)
        return change is not None

    def settle(self) -> dict[str, Any]:
        """Make the changes, unless this is a dry run, and return `changed`, `removed` and `diff`. Raise PgopsError."""
        for change in self.changes if not self.dry_run else ():
            try:
                change.make()
            except OSError as error:
                raise told(error, change.path) from error
        return {
            "changed": bool(self.changes),
            "removed": [change.path for change in self.changes if change.removes],
            "diff": [change.as_diff() for change in self.changes],
        }


def told(error: OSError, path: str = "") -> PgopsError:
    """Return `error`, met at `path`, as a sentence with a next step."""
    hint = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "Run it as root (become: true)."
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Make room on that file system, then run it again."
    elif error.errno == errno.EROFS:
        hint = "Its file system cannot be written: mount it anew, or name another place."
    where = str(error.filename) if error.filename else path
    return PgopsError("%s: %s." % (where or "The system says", error.strerror or error), hint=hint)


def owner(host: Host, account: str, group: str) -> Owner:
    """Return the numbers of `account` and `group`. Raise UsageError if one is missing; a dry run warns, as it may come."""
    try:
        return Owner(pwd.getpwnam(account).pw_uid, grp.getgrnam(group).gr_gid)
    except KeyError as error:
        text = "This host has no account %s with a group %s." % (account, group)
        if not host.dry_run:
            raise UsageError(text, hint="Install PostgreSQL first, or name another account.") from error
        host.excuse(text)
        return Owner(-1, -1)


# --- what a host can hold ---------------------------------------------------------------------------------------------


def file(
    path: Path,
    content: bytes,
    *,
    mode: int,
    owned: Owner,
    secret: bool = False,
    unpack: Callable[[bytes], bytes] = bytes,
) -> Optional[Change]:
    """Return the step after which `path` holds `content`, or None when it does already.

    Contents count as equal when what `unpack` makes of them is; a `secret` is not shown. Raise RefusedError for what is no file.
    """
    before = _read(path)
    same = before is not None and _unpacked(before, unpack) == unpack(content)
    if same and _facts(path) == (mode, owned.uid, owned.gid):
        return None
    after = _text(content, mode, owned, secret=secret, unpack=unpack, old=same)
    shown = "" if before is None else _text(before, *_named(path), secret=secret, unpack=unpack, old=True)
    return Change(str(path), shown, after, lambda: _write(path, content, mode, owned))


def folder(path: Path, *, mode: int, owned: Owner) -> Optional[Change]:
    """Return the step after which the directory `path` is there, or None. Missing parents are made for everybody to pass."""
    if path.is_dir():
        if _facts(path) == (mode, owned.uid, owned.gid):
            return None
        before = _line("directory", *_named(path))
    elif path.exists() or path.is_symlink():
        raise RefusedError("%s is to be a directory, and it is none." % path, hint="Move it away, or name another.")
    else:
        before = ""
    return Change(str(path), before, _line("directory", mode, owned), lambda: _make_folder(path, mode, owned))


def link(path: Path, target: str) -> Optional[Change]:
    """Return the step after which `path` is a symbolic link to `target`, or None."""
    before = os.readlink(path) if path.is_symlink() else ""
    if before == target:
        return None
    if not path.is_symlink() and path.exists():
        raise RefusedError("%s is to be a symbolic link, and it is none." % path, hint="Move it away.")

    def make() -> None:
        temporary = _temporary(path)
        temporary.symlink_to(target)
        temporary.replace(path)
        sync_dir(path.parent)

    return Change(str(path), before and "link to %s\n" % before, "link to %s\n" % target, make)


def gone(path: Path, *, secret: bool = False) -> Optional[Change]:
    """Return the step after which the file or link `path` is not there, or None."""
    if path.is_symlink():
        before = "link to %s\n" % os.readlink(path)
    else:
        content = _read(path)
        if content is None:
            return None
        before = _text(content, *_named(path), secret=secret, unpack=bytes, old=True)

    def make() -> None:
        path.unlink(missing_ok=True)
        sync_dir(path.parent)

    return Change(str(path), before, "", make, removes=True)


def empty_folder_gone(path: Path, leaving: Sequence[Path]) -> Optional[Change]:
    """Return the step after which the directory `path`, in which nothing but `leaving` lies, is not there; else None."""
    if not path.is_dir() or path.is_symlink() or set(path.iterdir()) - set(leaving):
        return None

    def make() -> None:
        with contextlib.suppress(OSError):  # somebody has put something in
            path.rmdir()

    return Change(str(path), _line("directory", *_named(path)), "", make, removes=True)


def tree_gone(path: Path, shown: str, make: Callable[[], None]) -> Change:
    """Return the step `make`, which removes the directory `path` with all that it holds."""
    return Change(str(path), shown, "", make, removes=True)


# --- the world --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Optional[bytes]:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise RefusedError("%s is to be a file, and it is a directory." % path, hint="Move it away.") from None


def _unpacked(content: bytes, unpack: Callable[[bytes], bytes]) -> Optional[bytes]:
    try:
        return unpack(content)
    except (OSError, EOFError, ValueError):
        return None


def _facts(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def _named(path: Path) -> tuple[int, Owner]:
    mode, uid, gid = _facts(path)
    return mode, Owner(uid, gid)


def _line(what: str, mode: int, owned: Owner) -> str:
    return "# %s, mode %04o, owner %s\n" % (what, mode, owned if owned.known else "that is still to be made")


def _text(content: bytes, mode: int, owned: Owner, *, secret: bool, unpack: Callable[[bytes], bytes], old: bool) -> str:
    if secret:
        return _line("file", mode, owned) + (HIDDEN if old else "(another secret)\n")
    return _line("file", mode, owned) + (_unpacked(content, unpack) or b"").decode("utf-8", "backslashreplace")


def _temporary(path: Path) -> Path:
    """Return the name under which `path` is made; whatever an earlier run left under it goes."""
    for left in path.parent.glob(".%s.*.tmp" % path.name):
        with contextlib.suppress(OSError):
            left.unlink()
    return path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))


def _write(path: Path, content: bytes, mode: int, owned: Owner) -> None:
    """Write `content` to `path` by a temporary file, fsync and one rename; nobody else can read it in between."""
    make_parents(path.parent)
    temporary = _temporary(path)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(stream.fileno(), owned.uid, owned.gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def make_parents(path: Path) -> None:
    """Make the directory `path` and its missing parents so that every account can pass."""
    if path.is_dir():
        return
    make_parents(path.parent)
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


def _make_folder(path: Path, mode: int, owned: Owner) -> None:
    make_parents(path.parent)
    if not path.is_dir():
        path.mkdir(mode=0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fchown(handle, owned.uid, owned.gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)
    sync_dir(path.parent)


__all__ = (
    "HIDDEN",
    "Change",
    "Host",
    "Owner",
    "empty_folder_gone",
    "file",
    "folder",
    "gone",
    "link",
    "make_parents",
    "ourselves",
    "owner",
    "told",
    "tree_gone",
)
