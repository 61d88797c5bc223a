# SPDX-License-Identifier: GPL-3.0-or-later
"""The units of systemd that keep our services in: each line with its reason, and safe by systemd's own measure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC
from pathlib import Path

import jinja2
import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.calendar import parse
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.units import VERBS, Common, Job, service
from tests.tools.collection_tree import ROOT
from tests.tools.units import unexplained

# Of 10, as systemd-analyze counts.
MOST_EXPOSED = 3.0
PATHS = ("/backups/postgres", "/srv/my backups/50%nightly of $HOME", '/srv/"quoted" \\ it\'s')


def ship() -> str:
    """The service that copies WAL to S3, as Ansible would write it."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    environment.filters["comment"] = "# {}".format
    one = {"name": "db1-main", "path": "/etc/pgops/config.yml", "scheduled": {"paths": PATHS}}
    text = (ROOT / "roles/wal_archive/templates/ship.service.j2").read_text()
    return environment.from_string(text).render(
        ansible_managed="By Ansible",
        item=0,
        wal_archive_account="root",
        wal_archive_program="/bin/true",
        __wal_archive_shipped=[one],
    )


def scheduled(verb: str) -> str:
    job = Job("db1-main", verb, parse("0 2 * * *"), "/etc/pgops/config.yml", UTC, paths=PATHS, looked_after=True)
    return service(job, Common(program="/bin/true", account="root"))


UNITS = {
    **{"pgops-%s@db1-main.service" % verb: scheduled(verb) for verb in VERBS},
    "pgops_wal_ship@db1-main.service": ship(),
}
SYSTEMD = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
ALL = pytest.mark.parametrize("name", UNITS)


def analyzed(unit: Path, text: str, *words: str) -> str:
    """Return all that systemd says of a unit; it must succeed."""
    unit.write_text(text)
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": "%s:" % unit.parent, "LC_ALL": "C"}
    said = subprocess.run(
        ["systemd-analyze", *words, str(unit)], capture_output=True, text=True, check=False, env=environment
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


@ALL
def test_each_line_has_its_reason(name: str) -> None:
    assert unexplained(UNITS[name]) == []


@ALL
@SYSTEMD
def test_it_may_write_its_directories_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    """Of a path that does not begin at the root systemd says how it reads it."""
    told = re.sub('^(ReadWritePaths="?-)/', r"\1", UNITS[name], flags=re.MULTILINE)
    said = analyzed(tmp_path / name, told, "verify", "--man=no")
    assert re.findall("path is not absolute, ignoring: (.*)", said) == [path[1:] for path in PATHS]


def test_a_line_whose_reason_is_gone_is_found() -> None:
    for text in UNITS.values():
        assert unexplained(text.replace("# Nothing of it lies in a home.\n", "")) == ["ProtectHome=read-only"]


@ALL
@SYSTEMD
def test_systemd_finds_it_right_and_safe(name: str, tmp_path: Path) -> None:
    assert analyzed(tmp_path / name, UNITS[name], "verify", "--man=no") == ""
    said = analyzed(tmp_path / name, UNITS[name], "security", "--offline=true", "--no-pager")
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert score
    assert float(score[1]) <= MOST_EXPOSED, said
