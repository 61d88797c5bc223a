# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a host has that the roles build on: clusters of PostgreSQL, packages, a cron daemon. Asked at once, changing nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..core.errors import CommandError
from ..system.runner import Command
from .changes import Host

OS_RELEASE = Path("/etc/os-release")
# Where distributions keep the daemon.
CRON_PROGRAMS = (Path("/usr/sbin/cron"), Path("/usr/sbin/crond"), Path("/usr/bin/crond"))
_SECONDS = 60.0
# By the program that asks: its arguments before the names, and what a line says of a package that is there.
_QUERIES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "dpkg-query": (("--show", "--showformat=${Package} ${db:Status-Status}\\n"), "installed"),
    "rpm": (("--query", "--queryformat=%{NAME} installed\\n"), "installed"),
}
_FAMILIES = {"debian": "Debian", "rhel": "RedHat", "fedora": "RedHat", "centos": "RedHat"}
_CLUSTER = ("version", "name", "port", "status", "owner", "data_directory")


@dataclass(frozen=True)
class Wanted:
    """The packages for a family of distributions: by name, and one for each major version of PostgreSQL.

    `client` is the name of the latter with `{version}` in it, `client_without` the name where there is no version.
    """

    packages: Sequence[str] = ()
    client: str = ""
    client_without: str = ""


@dataclass(frozen=True)
class Request:
    """Which packages somebody wants, by the family of the distribution, and for which versions (those of the clusters if empty)."""

    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    versions: Sequence[str] = ()
    os_release: Path = OS_RELEASE
    cron_programs: Sequence[Path] = CRON_PROGRAMS


def look(host: Host, request: Request) -> dict[str, Any]:
    """Return `os_family`, `distribution`, `clusters`, `versions`, `packages`, `packages_missing` and `cron`, its daemon's path."""
    family, name = distribution(request.os_release)
    found = clusters(host)
    versions = list(request.versions) or sorted({cluster["version"] for cluster in found}, key=_order)
    wanted = request.wanted.get(family, Wanted())
    packages = list(wanted.packages)
    if wanted.client:
        clients = [wanted.client.replace("{version}", version) for version in versions]
        packages += clients or ([wanted.client_without] if wanted.client_without else [])
    packages = list(dict.fromkeys(packages))
    return {
        "os_family": family,
        "distribution": name,
        "clusters": found,
        "versions": versions,
        "packages": packages,
        "packages_missing": _missing(host, packages),
        "cron": next((str(path) for path in request.cron_programs if path.exists()), ""),
    }


def distribution(os_release: Path) -> tuple[str, str]:
    """Return the family of the distribution by the name that Ansible has for it, Debian or RedHat, and its own name.

    By ID and ID_LIKE of os-release(5). What belongs to neither family has its own name for both.
    """
    try:
        lines = os_release.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown", "unknown"
    pairs = [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]
    said = {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    name = said.get("NAME") or said.get("ID") or "unknown"
    for word in [said.get("ID", ""), *said.get("ID_LIKE", "").split()]:
        if word in _FAMILIES:
            return _FAMILIES[word], name
    return name, name


def clusters(host: Host) -> list[dict[str, Any]]:
    """Return the clusters that `pg_lsclusters` of Debian's postgresql-common tells; none where there is no such program."""
    if shutil.which("pg_lsclusters") is None:
        return []
    try:
        said = host.runner.run(Command(("pg_lsclusters", "--no-header")), timeout=_SECONDS).stdout
    except CommandError as error:
        host.warn("The clusters of this host cannot be told: %s" % error)
        return []
    found = [cluster(line) for line in said.decode("utf-8", "surrogateescape").splitlines()]
    return [each for each in found if each is not None]


def cluster(line: str) -> Optional[dict[str, Any]]:
    """Return what a line of `pg_lsclusters` says, None if it is none. A data directory may have blanks; its log file is left out."""
    words = line.split(None, len(_CLUSTER) - 1)
    if len(words) < len(_CLUSTER) or not words[2].isdigit():
        return None
    said: dict[str, Any] = dict(zip(_CLUSTER, words))
    said["port"] = int(said["port"])
    said["data_directory"] = said["data_directory"].rsplit(None, 1)[0]
    return said


def _order(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else 0, version)


def _missing(host: Host, packages: Sequence[str]) -> list[str]:
    """Return those of `packages` that are not installed: all of them where nobody can tell."""
    program = next((name for name in _QUERIES if shutil.which(name)), None)
    if not packages or program is None:
        if packages:
            host.warn("This host has neither dpkg-query nor rpm: nobody can tell which packages it has.")
        return list(packages)
    arguments, there = _QUERIES[program]
    # Both end with 1 when one of the packages is not known.
    said = host.runner.run(Command((program, *arguments, "--", *packages)), check=False, timeout=_SECONDS).stdout
    lines = [line.split() for line in said.decode("utf-8", "replace").splitlines()]
    installed = {words[0] for words in lines if words[1:] == [there]}
    return [package for package in packages if package not in installed]


__all__ = ("CRON_PROGRAMS", "Request", "Wanted", "cluster", "clusters", "distribution", "look")
