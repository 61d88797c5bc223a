# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""PostgreSQL's own programs: where they are, of which version, and what their build can do."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..core.errors import UnreachableError, UsageError
from ..system.runner import Command, Runner

# pg_dump 18.0 and 18.1 write the start value of every sequence whose position the role may not read, and say nothing.
KNOWN_BAD = {"18.0": "loses sequence positions silently", "18.1": "loses sequence positions silently"}
# The compressions that pg_dump may have inside, as each is asked for.
_SPELLED = {"zstd": "zstd:1", "lz4": "lz4", "gzip": "1"}
_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
)


@dataclass(frozen=True)
class Programs:
    """A directory of PostgreSQL programs that are of one version, such as 18.4."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The major version."""
        return int(self.version.split(".")[0])

    def path(self, name: str) -> str:
        """Return the full path of the program `name`."""
        return str(self.directory / name)

    def has(self, name: str) -> bool:
        """Tell whether the program `name` is there."""
        return os.access(self.directory / name, os.X_OK)


def installed(runner: Runner, bin_dir: str, *, needed: tuple[str, ...]) -> list[Programs]:
    """Return the program directories that have all of `needed`, the lowest version first.

    With `bin_dir` only that one is looked at. Raise UsageError if it lacks a program.
    """
    if bin_dir:
        folders = [Path(bin_dir)]
    else:
        folders = [p for pattern in _FOLDERS for p in sorted(Path("/").glob(pattern[1:]))]
        folders += [Path(p) for p in os.environ.get("PATH", "").split(":") if p.startswith("/")]
    found: dict[Path, Programs] = {}
    for folder in folders:
        missing = [name for name in needed if not os.access(folder / name, os.X_OK)]
        if missing and bin_dir:
            raise UsageError(
                "%s has no %s." % (folder, " and no ".join(missing)), hint="Check bin_dir, or leave it empty."
            )
        # Debian's /usr/bin/pg_dump is a wrapper that picks a version by itself.
        if missing or (not bin_dir and _is_wrapper(folder / needed[0])):
            continue
        if folder.resolve() in found:  # PATH names it, too
            continue
        version = _version(runner, folder / needed[0])
        if version:
            found[folder.resolve()] = Programs(folder, version)
    return sorted(found.values(), key=lambda p: [int(n) for n in p.version.split(".")])


def _is_wrapper(path: Path) -> bool:
    return path.resolve().name == "pg_wrapper"


def _version(runner: Runner, program: Path) -> Optional[str]:
    said = runner.run(Command((str(program), "--version")), check=False, timeout=30).stdout.decode("utf-8", "replace")
    match = re.search(r"(\d+(?:\.\d+)*)(?:devel|beta\d+|rc\d+)?(?:\s|$)", said)
    return match.group(1) if match else None


def pick(
    runner: Runner, bin_dir: str, *, major: int, needed: tuple[str, ...], careful: bool = False
) -> tuple[Programs, list[str]]:
    """Return the programs that suit a server of version `major` best, and warnings about the choice.

    The same major version is best, then the next newer. `careful` refuses versions known to be bad for a role that may
    not read everything. Raise UnreachableError if there are none, UsageError if all are too old or known bad.
    """
    found = installed(runner, bin_dir, needed=needed)
    if not found:
        raise UnreachableError(
            "No PostgreSQL programs (%s) were found." % ", ".join(needed),
            hint="Install postgresql-client-%d, or name their directory in bin_dir." % major,
        )
    fit = [p for p in found if p.major >= major]
    if not fit:
        raise UsageError(
            "The newest PostgreSQL programs here are %s (%s), older than the server's %d."
            % (found[-1].version, found[-1].directory, major),
            hint="Install postgresql-client-%d, or name its directory in bin_dir." % major,
        )
    good = [p for p in fit if p.version not in KNOWN_BAD]
    if good:
        best = min(good, key=lambda p: p.major)
        # Of one major version the newest minor is best.
        return max((p for p in good if p.major == best.major), key=lambda p: [int(n) for n in p.version.split(".")]), []
    bad = fit[0]
    said = "PostgreSQL programs %s (%s): this version %s" % (bad.version, bad.directory, KNOWN_BAD[bad.version])
    if careful:
        raise UsageError(
            said + " for a role that may not read all sequences.",
            hint="Update the client package to 18.2 or newer, or log in as a superuser.",
        )
    return bad, [said + " for roles without rights on them; this role is a superuser, so it is used. Update it."]


def dump_compressions(runner: Runner, programs: Programs) -> frozenset[str]:
    """Return the compressions that this build of pg_dump really has inside (of zstd, lz4, gzip).

    The build is asked, never the version alone: a build may lack what its version could do. pg_dump rejects a method
    that it lacks before it tries to connect; the connection goes nowhere on purpose.
    """

    def has(spelled: str) -> bool:
        command = Command(
            (
                programs.path("pg_dump"),
                "--format=custom",
                "--compress=" + spelled,
                "--no-password",
                "--file=/dev/null",
                "--dbname=postgres",
            ),
            env={"PGHOST": "/nonexistent", "PGPORT": "1"},
        )
        said = runner.run(command, check=False, timeout=30).stderr
        return "/nonexistent" in said and "ompress" not in said

    with ThreadPoolExecutor(len(_SPELLED)) as pool:
        return frozenset(method for method, able in zip(_SPELLED, pool.map(has, _SPELLED.values())) if able)


__all__ = ("KNOWN_BAD", "Programs", "dump_compressions", "installed", "pick")
