# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding PostgreSQL's programs: the version that suits, none that is known to be bad, and what a build can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UnreachableError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import tools
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner

NEEDED = ("pg_dump", "pg_restore")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without PostgreSQL; `install` puts programs on it."""
    monkeypatch.setattr(tools, "_FOLDERS", ("%s/*/bin" % tmp_path,))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


def install(machine: Path, version: str, *, programs: tuple[str, ...] = NEEDED, body: str = "") -> Path:
    folder = machine / version / "bin"
    folder.mkdir(parents=True)
    for name in programs:
        (folder / name).write_text(
            "#!/bin/sh\n%s\necho '%s (PostgreSQL) %s (Debian %s-1)'\n" % (body, name, version, version)
        )
        (folder / name).chmod(0o755)
    return folder


def picked(major: int, *, careful: bool = False) -> str:
    return tools.pick(Runner(), "", major=major, needed=NEEDED, careful=careful)[0].version


def test_the_same_version_is_best_then_the_next_newer(machine: Path) -> None:
    for version in ("15.9", "16.3", "18.4"):
        install(machine, version)
    assert [picked(major) for major in (15, 16, 17, 18)] == ["15.9", "16.3", "18.4", "18.4"]
    with pytest.raises(UsageError, match=r"newest PostgreSQL programs here are 18\.4") as caught:
        picked(19)
    assert "postgresql-client-19" in caught.value.hint


def test_of_one_version_the_newest_minor_is_taken(machine: Path) -> None:
    for version in ("16.9", "16.10", "16.2"):
        install(machine, version)
    assert picked(16) == "16.10"


def test_versions_that_are_known_to_be_bad_are_avoided(machine: Path) -> None:
    install(machine, "18.1")
    with pytest.raises(UsageError, match="loses sequence positions"):
        picked(18, careful=True)
    found, warnings = tools.pick(Runner(), "", major=18, needed=NEEDED)
    assert found.version == "18.1" and len(warnings) == 1 and "superuser" in warnings[0]
    install(machine, "18.2")
    assert tools.pick(Runner(), "", major=18, needed=NEEDED, careful=True) == (
        tools.Programs(machine / "18.2" / "bin", "18.2"),
        [],
    )


def test_a_directory_that_lacks_a_program_is_passed_over_or_refused(machine: Path) -> None:
    bare = install(machine, "18.4", programs=("pg_dump",))
    with pytest.raises(UnreachableError, match="No PostgreSQL programs"):
        picked(18)
    with pytest.raises(UsageError, match="has no pg_restore"):
        tools.pick(Runner(), str(bare), major=18, needed=NEEDED)


def test_only_the_named_directory_is_looked_at(machine: Path) -> None:
    old, _unused = install(machine, "15.9"), install(machine, "18.4")
    assert tools.pick(Runner(), str(old), major=15, needed=NEEDED)[0].version == "15.9"
    with pytest.raises(UsageError, match="older than the server's 18"):
        tools.pick(Runner(), str(old), major=18, needed=NEEDED)


@pytest.mark.parametrize(("said", "version"), [("18beta2", "18"), ("17devel", "17"), ("16.4", "16.4"), ("19rc1", "19")])
def test_versions_as_they_are_written(machine: Path, said: str, version: str) -> None:
    folder = machine / "odd" / "bin"
    folder.mkdir(parents=True)
    for name in NEEDED:
        (folder / name).write_text("#!/bin/sh\necho '%s (PostgreSQL) %s'\n" % (name, said))
        (folder / name).chmod(0o755)
    (found,) = tools.installed(Runner(), "", needed=NEEDED)
    assert found.version == version and found.major == int(version.split(".", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("refusal", "able"),
    [
        ("pg_dump: error: this build does not support compression with ZSTD", {"lz4", "gzip"}),
        (
            'pg_dump: error: invalid compression specification: unrecognized compression algorithm: "zstd"',
            {"lz4", "gzip"},
        ),
    ],
)
def test_a_build_is_asked_what_it_can_do(machine: Path, refusal: str, able: set[str]) -> None:
    body = (
        "case \"$*\" in *--compress=zstd*) echo '%s' >&2; exit 1;; *--compress=*)"
        " echo 'pg_dump: error: connection to server on socket \"/nonexistent/.s.PGSQL.1\" failed' >&2; exit 1;; esac"
        % refusal.replace("'", "")
    )
    folder = install(machine, "16.4", body=body)
    assert tools.dump_compressions(Runner(), tools.Programs(folder, "16.4")) == able
