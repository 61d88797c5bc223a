# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/restore-by-hand.md works: its shell blocks are run as they stand, against a fresh server, and the result compared."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import compare, dataset
from demo.servers import PostgresServer
from tests.integration.conftest import ROOT, Key, Site, flip

GUIDE = ROOT / "docs" / "restore-by-hand.md"
MakeSite = Callable[..., Site]


def blocks() -> list[str]:
    """Return the shell blocks of the guide, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def follow(
    site: Site, set_id: str, server: PostgresServer, work: Path, *, key: Key | None = None
) -> subprocess.CompletedProcess[str]:
    """Do what the guide says, block by block in one shell, as a person would: one who stops where a block fails."""
    work.mkdir(exist_ok=True)
    script = "set -e -o pipefail\n" + "\n[ $? -eq 0 ] || exit 1\n".join(blocks())
    script = script.replace("/tmp/", "%s/" % work)  # tests run beside each other
    environment = {
        "PATH": "%s:%s" % (server.bindir, os.environ["PATH"]),
        "SET": str(site.set_folder(set_id)),
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "LC_ALL": "C.UTF-8",
    }
    if key is not None:
        environment["KEY"] = str(key.file)
    return subprocess.run(["bash", "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=False)


def check(site: Site, server: PostgresServer, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "the set is whole" in done.stdout
    assert done.stdout.rstrip().endswith("every table has its rows")
    differences = compare.differences(compare.snapshot(site.server), compare.snapshot(server))
    # The guide shows what was set for all roles and leaves it to the person.
    assert "ALTER ROLE ALL SET app.everyone TO 'yes';" in done.stdout
    assert [d for d in differences if "all roles in all databases is missing" not in d] == []
    assert len(differences) == 1


@pytest.mark.parametrize(
    ("form", "compression"),
    [("custom", "auto"), ("directory", "gzip"), ("plain", "lz4")],
)
def test_the_guide_brings_a_set_back(
    filled: PostgresServer, target: PostgresServer, make_site: MakeSite, tmp_path: Path, form: str, compression: str
) -> None:
    site = make_site(filled)
    set_id = site.backup(format=form, compression=compression)["set"]
    check(site, target, follow(site, set_id, target, tmp_path / "work"))


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_the_guide_brings_an_encrypted_set_back(
    filled: PostgresServer,
    target: PostgresServer,
    make_site: MakeSite,
    tmp_path: Path,
    age_key: Callable[[str], Key],
    form: str,
) -> None:
    site, key = make_site(filled), age_key("key")
    set_id = site.backup(format=form, encryption="age", recipients=[key.public])["set"]
    check(site, target, follow(site, set_id, target, tmp_path / "work", key=key))


def harm_dump(folder: Path) -> None:
    flip(
        max((p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"), key=lambda p: p.stat().st_size)
    )


@pytest.mark.parametrize("harm", [harm_dump, lambda folder: (folder / "globals.sql").unlink()])
def test_the_guide_notices_a_damaged_set_first(
    filled: PostgresServer, target: PostgresServer, make_site: MakeSite, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    site = make_site(filled)
    set_id = site.backup(databases=[dataset.HOSTILE])["set"]
    harm(site.set_folder(set_id))
    done = follow(site, set_id, target, tmp_path / "work")
    assert done.returncode != 0 and "the set is whole" not in done.stdout
    assert "FAILED" in done.stdout + done.stderr


def test_the_guide_counts_the_rows(
    filled: PostgresServer, target: PostgresServer, make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site(filled)
    set_id = site.backup(databases=[dataset.HOSTILE])["set"]

    def lose(manifest: dict[str, Any]) -> None:
        rows = manifest["databases"][0]["fingerprint"]["rows"]
        rows.update({name: count + 1 for name, count in rows.items()})

    done = follow(site, site.forge(set_id, lose), target, tmp_path / "work")
    assert done.returncode != 0 and "every table has its rows" not in done.stdout
    assert done.stdout.count("another number of rows: ") == 2


def test_the_guide_names_no_program_of_ours() -> None:
    for block in blocks():
        assert "pgops " not in block and "jq " not in block
    assert len(blocks()) >= 7
