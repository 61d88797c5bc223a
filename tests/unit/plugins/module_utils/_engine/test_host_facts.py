# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has: distributions by os-release(5), clusters as pg_lsclusters tells them, packages that are there or not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.host import facts
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host

RELEASES = [
    ('ID=debian\nNAME="Debian GNU/Linux"\n', ("Debian", "Debian GNU/Linux")),
    ("NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n", ("Debian", "Ubuntu")),
    ('# of EL\nNAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\n', ("RedHat", "Rocky Linux")),
    ("NAME='Alpine Linux'\nID=alpine\n", ("Alpine Linux", "Alpine Linux")),
    ("", ("unknown", "unknown")),
]


@pytest.mark.parametrize(("text", "told"), RELEASES)
def test_the_family_is_that_of_os_release(text: str, told: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text(text)
    assert facts.distribution(path) == told
    assert facts.distribution(tmp_path / "none") == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "15  main    5432 online          postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log",
            ("15", "main", 5432, "online", "postgres", "/var/lib/postgresql/15/main"),
        ),
        (
            "17  old     5433 down,binaries_missing <unknown> /srv/a b/17 /var/log/postgresql/postgresql-17-old.log",
            ("17", "old", 5433, "down,binaries_missing", "<unknown>", "/srv/a b/17"),
        ),
    ],
)
def test_a_line_of_pg_lsclusters_is_read(line: str, told: tuple[object, ...]) -> None:
    found = facts.cluster(line)
    assert found is not None
    assert tuple(found.values()) == told


@pytest.mark.parametrize(
    "line", ["", "Ver Cluster Port Status Owner Data directory Log file", "15 main x online postgres /a /b", "15"]
)
def test_what_is_no_cluster_is_none(line: str) -> None:
    assert facts.cluster(line) is None


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    path = tmp_path / "os-release"
    path.write_text("ID=debian\n")
    return path


def put(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text("#!%s\n%s" % (sys.executable, body))
    path.chmod(0o755)


def test_all_packages_count_as_missing_where_nobody_can_tell(release: Path, programs: Path) -> None:
    assert not list(programs.iterdir())
    host = Host()
    packages = {"Debian": facts.Wanted(("acl",), "client-{version}", "client")}
    told = facts.look(host, facts.Request(packages, os_release=release))
    assert (told["clusters"], told["packages"], told["packages_missing"]) == ([], ["acl", "client"], ["acl", "client"])
    assert host.warnings == ["This host has neither dpkg-query nor rpm: nobody can tell which packages it has."]


def test_a_client_is_wanted_for_each_version(release: Path, programs: Path) -> None:
    lines = ("9 a 1 down p /d /l", "17 b 2 down p /d /l", "17 c 3 down p /d /l")
    put(programs, "pg_lsclusters", "".join("print(%r)\n" % line for line in lines))
    put(programs, "rpm", "import sys; print('client-9 installed'); print('package acl is not installed'); sys.exit(1)")
    release.write_text("ID=centos\n")
    packages = {"RedHat": facts.Wanted(("acl",), "client-{version}", "client")}
    told = facts.look(Host(), facts.Request(packages, os_release=release))
    assert told["versions"] == ["9", "17"]
    assert told["packages"] == ["acl", "client-9", "client-17"]
    assert told["packages_missing"] == ["acl", "client-17"]
    told = facts.look(Host(), facts.Request(packages, versions=["16"], os_release=release))
    assert told["packages"] == ["acl", "client-16"]


def test_clusters_that_cannot_be_told_are_a_warning(programs: Path) -> None:
    put(programs, "pg_lsclusters", "import sys; sys.exit('no such luck')")
    host = Host()
    assert facts.clusters(host) == []
    assert "no such luck" in host.warnings[0]


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="asks Debian's own package database")
def test_the_database_of_packages_is_asked(release: Path) -> None:
    packages = {"Debian": facts.Wanted(("dpkg", "no-such-package-of-anybody"))}
    told = facts.look(Host(), facts.Request(packages, os_release=release))
    assert told["packages_missing"] == ["no-such-package-of-anybody"]


def test_the_daemon_of_cron_is_found(tmp_path: Path) -> None:
    daemon = tmp_path / "crond"
    assert facts.look(Host(), facts.Request(cron_programs=(daemon,)))["cron"] == ""
    daemon.write_text("")
    assert facts.look(Host(), facts.Request(cron_programs=(tmp_path / "cron", daemon)))["cron"] == str(daemon)
