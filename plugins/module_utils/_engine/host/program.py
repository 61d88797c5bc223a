# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The program pgops on a host: this engine's own files, each version in a folder of its own, one of them current.

A version is laid down under a temporary name and tried before one rename makes it current, so that a run that is cut
short leaves the old program or the new one. A program that runs stays with its version: it holds a lock on that folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

from .. import __version__, identity
from ..cli.completion import script
from ..cli.manual import page
from ..core.errors import BusyError, CommandError, PgopsError, RefusedError, UnreachableError, UsageError
from ..system.durable import sync_dir, sync_file
from ..system.runner import START, Command
from .changes import Change, Host, file, gone, link, make_parents, ourselves, tree_gone
from .client import client, client_of
from .rotation import Rotation
from .rotation import change as rotation_change
from .rotation import check as check_rotation

_PACKAGE = "pgops"
_CURRENT = "current"
_VERSION = re.compile(r"([0-9][A-Za-z0-9.+]*)-[0-9a-f]{12}")
_LEFT = re.compile(r"\.%s\.(new|old)" % _VERSION.pattern)
_OLDEST = (3, 9)
_PROC = Path("/proc")
# A line of /proc/PID/cgroup of what the role wal_archive has this host's systemd run; one in a container lies deeper.
_SERVICE = re.compile(r":/system\.slice/(?:[^/\n]+/)?(pgops_wal_ship@[^/\n]+\.service)$", re.MULTILINE)
# Each Debian has it. Where it is missing PostgreSQL calls the program itself.
_PERL = Path("/usr/bin/perl")
_SECONDS = 120.0
# Killed with us, so that it does not write into a folder that the next run removes.
_COMPILE = """
import compileall, os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
sys.exit(not compileall.compile_dir(sys.argv[2], quiet=1, stripdir=sys.argv[2], prependdir=sys.argv[3]))
"""
_ABOUT = "import json, sys; print(json.dumps([list(sys.version_info[:3]), sys.implementation.cache_tag]))"

_LAUNCHER = '''\
#!%(python)s -I
# Written by Ansible (pgops.backup.pgops_program): changes made here are lost.
"""Start the pgops that is current now, and stay with it also when another one becomes current meanwhile."""

import fcntl
import os
import sys

CURRENT = %(current)r
# PostgreSQL takes a code up to 125 of its restore_command for the end of the WAL.
FETCHES = sys.argv[1:3] == ["wal", "fetch"]


def current():
    """Return the folder of the version that is current, held until we end: one that somebody runs is not removed."""
    while True:
        home = os.path.realpath(CURRENT)
        try:
            held = os.open(home, os.O_RDONLY)
        except OSError as error:
            if os.path.realpath(CURRENT) == home:
                sys.stderr.write("pgops: %%s: %%s. Lay the program down again: pgops.backup.pgops_program.\\n" %% (home, error.strerror))
                sys.exit(204 if FETCHES else 4)
            continue
        fcntl.flock(held, fcntl.LOCK_SH)
        if os.path.realpath(CURRENT) == home:
            return home
        os.close(held)


try:
    sys.path.insert(0, current())
    from pgops.cli.start import main

    code = main()
except Exception:
    if not FETCHES:
        raise
    import traceback

    traceback.print_exc()
    code = 204
raise SystemExit(code)
'''


@dataclass(frozen=True)
class Paths:
    """Where the program lies, and the Python that runs it. An empty `completion` or `man` is not laid down."""

    lib: Path = Path("/usr/local/lib/pgops")
    bin: Path = Path("/usr/local/bin/pgops")
    completion: Optional[Path] = Path("/usr/share/bash-completion/completions/pgops")
    man: Optional[Path] = Path("/usr/local/share/man/man1/pgops.1.gz")
    python: str = "/usr/bin/python3"

    @property
    def client(self) -> Path:
        """What PostgreSQL calls for each WAL file, beside the program."""
        return client_of(self.bin)

    @property
    def current(self) -> Path:
        """The link to the version that runs."""
        return self.lib / _CURRENT


def lay_down(host: Host, paths: Paths, rotation: Optional[Rotation] = None) -> dict[str, Any]:
    """Lay this engine down as the program, and return `version`, `digest`, `before`, `in_use`, `outdated` and what Host.settle() says.

    With `rotation` the rule for its logs is laid down, too, or taken away where it is for no directory.
    Raise UsageError, RefusedError for a file that is not ours, UnreachableError for a Python that does not do, PgopsError
    when the program that was laid down is not this one.
    """
    _check(paths)
    if rotation is not None:
        check_rotation(rotation)
    tag = _python(host, paths.python)
    files = identity.own_files()
    digest = identity.digest(files)
    name = identity.label(__version__, digest)
    before = _before(paths)
    with _alone(host, paths.lib, make=True):
        home = paths.lib / name
        trouble = _trouble(home, files, tag)
        if trouble:
            host.need(Change(str(home), trouble, name + "\n", lambda: _unpack(host, paths, home, files)))
        kept = _around(host, paths, rotation, name)
        result = host.settle()
        if not host.dry_run:
            _assert_runs(host, [str(paths.bin)], digest)
        behind = _outdated(paths.lib, name)
    return {**result, "version": __version__, "digest": digest, "before": before, "in_use": kept, "outdated": behind}


def in_order(host: Host, paths: Paths, rotation: Optional[Rotation] = None, *, digest: str) -> bool:
    """Tell whether lay_down() would find nothing to do, where only the digest of the engine is at hand, and not its files.

    A service that runs another version is something to do. Raise what lay_down() raises. Nothing is touched; the program is not run.
    """
    _check(paths)
    if rotation is not None:
        check_rotation(rotation)
    name = identity.label(__version__, digest)
    found, wrong = _lies_in(paths.lib / name, _python(host, paths.python))
    looking = Host(dry_run=True, clock=host.clock, runner=host.runner)
    _around(looking, paths, rotation, name)
    return not (wrong or looking.changes or _outdated(paths.lib, name)) and identity.digest(found) == digest


def take_away(host: Host, paths: Paths) -> dict[str, Any]:
    """Remove the program. Raise BusyError while somebody runs it; nothing was touched then."""
    _check(paths)
    before = _before(paths)
    with _alone(host, paths.lib, make=False), contextlib.ExitStack() as stack:
        versions = [path for path in _entries(paths.lib) if _VERSION.fullmatch(path.name) or _LEFT.fullmatch(path.name)]
        for version in versions:
            if not stack.enter_context(_claim(version)):
                raise BusyError(
                    "Somebody runs pgops from %s." % version, hint="Wait until it has ended (lsof %s)." % version
                )
        for path in (paths.bin, paths.client, paths.completion, paths.man, paths.current):
            if path is not None and _is_ours(path):
                host.need(gone(path))
            elif path is not None and path.exists():
                host.warn("%s is not of pgops and stays." % path)
        for version in versions:
            host.need(tree_gone(version, version.name + "\n", partial(shutil.rmtree, version)))
        stay = set(_entries(paths.lib)) - {*versions, paths.current}
        if paths.lib.is_dir() and not stay:
            host.need(Change(str(paths.lib), "directory\n", "", paths.lib.rmdir, removes=True))
        elif stay:
            host.warn("%s stays, as it holds what is not of pgops." % paths.lib)
        result = host.settle()
    return {**result, "version": None, "digest": None, "before": before, "in_use": [], "outdated": []}


# --- before anything is touched ---------------------------------------------------------------------------------------


def _check(paths: Paths) -> None:
    """Raise UsageError for paths that cannot work."""
    for name in ("lib", "bin", "completion", "man"):
        path = getattr(paths, name)
        if path is not None and not path.is_absolute():
            raise UsageError("%s: expected a path from the root (/…), found %r." % (name, str(path)))
    if not re.fullmatch(r"/[^\s]{1,120}", paths.python):
        raise UsageError(
            "python: %r cannot stand in the first line of a script." % paths.python,
            hint="Give the full path of a Python, without blanks and with at most 120 characters.",
        )
    for path in (paths.bin, paths.client):
        if path.exists() and not _is_ours(path):
            raise RefusedError("%s is there and is not pgops." % path, hint="Move it away, or choose another bin.")


def _is_ours(path: Path) -> bool:
    """Tell whether the file `path` is of pgops, as far as its name in it tells."""
    if path.is_symlink() and not path.exists():
        return True
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        return path.is_symlink()
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError, EOFError):
        content = gzip.decompress(content)
    return re.search(rb"\bpgops\b", content, re.IGNORECASE) is not None


def _python(host: Host, python: str) -> str:
    """Return how that Python marks its compiled files. Raise UnreachableError if it is missing or too old."""
    if sys.implementation.cache_tag and os.path.realpath(python) == os.path.realpath(sys.executable):
        return sys.implementation.cache_tag
    try:
        said = host.runner.run(Command((python, "-I", "-c", _ABOUT)), timeout=_SECONDS).stdout
        version, tag = json.loads(said)
    except (PgopsError, ValueError) as error:
        raise UnreachableError(
            "%s is not a Python that runs: %s" % (python, error), hint="Install python3, or name another python."
        ) from error
    if tuple(version) < _OLDEST:
        raise UnreachableError(
            "%s is Python %s; pgops needs %d.%d or later." % (python, ".".join(map(str, version)), *_OLDEST),
            hint="Name a newer one as python.",
        )
    return str(tag)


def _before(paths: Paths) -> Optional[str]:
    """Return the version that is current, None if there is none."""
    if not paths.current.is_symlink():
        return None
    match = _VERSION.fullmatch(os.readlink(paths.current))
    return match.group(1) if match else None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _alone(host: Host, lib: Path, *, make: bool) -> Iterator[None]:
    """Keep other runs of this module away from `lib`, after making it where `make` holds; a dry run holds nothing."""
    if host.dry_run:
        yield
        return
    if make:
        make_parents(lib)
    with _claim(lib) as alone:
        if not alone:
            raise BusyError("Another run lays pgops down in %s." % lib, hint="Try again when it has ended.")
        yield


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold the directory `folder` alone; yield False if somebody else holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


# --- one version ------------------------------------------------------------------------------------------------------


def _trouble(home: Path, files: Mapping[str, bytes], tag: str) -> str:
    """Say what is wrong with the version that lies in `home`; empty when nothing is."""
    if not home.is_dir():
        return "(not laid down)\n"
    found, wrong = _lies_in(home, tag)
    wrong += ["%s is missing" % name for name in sorted(set(files) - set(found))]
    wrong += ["%s does not belong here" % name for name in sorted(set(found) - set(files))]
    wrong += ["%s was altered" % name for name in sorted(set(found) & set(files)) if found[name] != files[name]]
    return "".join("%s\n" % line for line in wrong)


def _lies_in(home: Path, tag: str) -> tuple[dict[str, bytes], list[str]]:
    """Return the source files of the version in `home` by their path in the package, and what is wrong with how they lie there."""
    found: dict[str, bytes] = {}
    wrong: list[str] = []
    owned = ourselves()
    compiled = set()
    for path in sorted(home.rglob("*")):
        facts = path.lstat()
        name = str(path.relative_to(home))
        mode = 0o755 if stat.S_ISDIR(facts.st_mode) else 0o644
        if stat.S_ISLNK(facts.st_mode) or stat.S_IMODE(facts.st_mode) != mode or facts.st_uid != owned.uid:
            wrong.append("%s has another mode or owner" % name)
        elif stat.S_ISREG(facts.st_mode) and path.parent.name == "__pycache__":
            compiled.add(path)
        elif stat.S_ISREG(facts.st_mode):
            found[os.path.relpath(path, home / _PACKAGE)] = path.read_bytes()
    wrong += [
        "%s is not compiled" % name for name in sorted(found) if _compiled(home / _PACKAGE / name, tag) not in compiled
    ]
    return found, wrong


def _around(host: Host, paths: Paths, rotation: Optional[Rotation], name: str) -> list[str]:
    """Take on all but the version `name` itself; return the older versions that stay, as somebody runs them."""
    host.need(link(paths.current, name))
    for change in _surroundings(paths):
        host.need(change)
    if rotation is not None:
        host.need(rotation_change(rotation))
    return _old_versions(host, paths, name)


def _compiled(source: Path, tag: str) -> Path:
    return source.parent / "__pycache__" / ("%s.%s.pyc" % (source.stem, tag))


def _unpack(host: Host, paths: Paths, home: Path, files: Mapping[str, bytes]) -> None:
    """Put the version into `home` as a whole, tried and safe from a power cut."""
    fresh, old = (home.with_name(".%s.%s" % (home.name, word)) for word in ("new", "old"))
    for left in (fresh, old):
        if left.exists():
            shutil.rmtree(left)
    try:
        for name, content in files.items():
            target = fresh / _PACKAGE / name
            make_parents(target.parent)
            target.write_bytes(content)
        compiler = (paths.python, "-I", "-c", _COMPILE, str(os.getpid()), str(fresh), str(home))
        host.runner.run(Command(compiler), timeout=_SECONDS)
        for path in [fresh, *fresh.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.chown(path, os.geteuid(), os.getegid())
            (sync_dir if path.is_dir() else sync_file)(path)
        _assert_runs(host, [paths.python, "-I", "-c", START, str(fresh)], identity.digest(files))
    except BaseException:
        # Also the space that it takes, where a disk was too small for it.
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if home.exists():
        home.rename(old)
    fresh.rename(home)
    sync_dir(home.parent)
    if old.exists():
        shutil.rmtree(old)


def _assert_runs(host: Host, program: list[str], digest: str) -> None:
    """Raise PgopsError unless `program` runs and is, to the byte, what it is to be."""
    try:
        said = json.loads(host.runner.run(Command((*program, "version", "--json")), timeout=_SECONDS).stdout)
    except (CommandError, ValueError) as error:
        raise PgopsError(
            "The program that was laid down does not run: %s" % error, hint="Look at %s version." % program[0]
        ) from error
    if (said.get("version"), said.get("digest")) != (__version__, digest):
        raise PgopsError(
            "The program that runs is %s (%s), and not %s (%s), which was laid down."
            % (said.get("version"), said.get("digest"), __version__, digest),
            hint="Look for another pgops in its way: %s." % program[0],
        )


def _surroundings(paths: Paths) -> Iterator[Optional[Change]]:
    """Yield what it takes that people find the program: the launcher, the completion, the manual page."""
    owned = ourselves()
    launcher = _LAUNCHER % {"python": paths.python, "current": str(paths.current)}
    yield file(paths.bin, launcher.encode("utf-8"), mode=0o755, owned=owned)
    if _PERL.is_file():
        script_of_it = client(perl=str(_PERL), program=str(paths.bin), current=str(paths.current))
        yield file(paths.client, script_of_it.encode("utf-8"), mode=0o755, owned=owned)
    else:
        yield gone(paths.client)
    if paths.completion is not None:
        yield file(paths.completion, script("bash").encode("utf-8"), mode=0o644, owned=owned)
    if paths.man is not None:
        packed = paths.man.suffix == ".gz"
        content = page().encode("utf-8")
        yield file(
            paths.man,
            gzip.compress(content, mtime=0) if packed else content,
            mode=0o644,
            owned=owned,
            unpack=gzip.decompress if packed else bytes,
        )


def _old_versions(host: Host, paths: Paths, name: str) -> list[str]:
    """Take on the removal of every version but `name`; return those that stay, as somebody runs them."""
    kept = []
    for path in _entries(paths.lib):
        if path.is_symlink() or path.name == name or path.name == ".%s.new" % name:
            continue
        if _LEFT.fullmatch(path.name) or _VERSION.fullmatch(path.name):
            with _claim(path) as free:
                if free:
                    host.need(tree_gone(path, path.name + "\n", partial(_remove, host, path)))
                else:
                    kept.append(str(path))
    return kept


def _outdated(lib: Path, name: str) -> list[str]:
    """Return the services of the program that run another version in `lib` than `name`, as far as we may see that.

    Each holds the folder of the version with which it began.
    """
    top = os.path.realpath(lib)
    found = set()
    for process in _PROC.iterdir() if lib.is_dir() else ():
        try:
            service = _SERVICE.search((process / "cgroup").read_text(encoding="utf-8", errors="replace"))
            held = [os.readlink(one) for one in (process / "fd").iterdir()] if service else []
        except OSError:
            continue  # no process, none of ours, or one that has just ended
        if service and any(os.path.dirname(path) == top and os.path.basename(path) != name for path in held):
            found.add(service.group(1))
    return sorted(found)


def _remove(host: Host, version: Path) -> None:
    """Remove a version that is no longer current, unless somebody has begun to run it since we looked."""
    with _claim(version) as free:
        if free:
            shutil.rmtree(version)
        else:
            host.warn("%s stays until the next time, as somebody runs it." % version)


__all__ = ("Paths", "in_order", "lay_down", "take_away")
