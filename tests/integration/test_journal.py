# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal of systemd takes: a journal of our own, in a /run of its own, and journalctl, which looks for what is loud."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    program_builder,
    shop_program,
)

JOURNALD = Path("/lib/systemd/systemd-journald")
LACKING = [name for name in ("unshare", "systemd-cat", "journalctl") if not shutil.which(name)]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(LACKING) or not JOURNALD.exists(), reason="a journal needs root and systemd's programs"
)
# systemd tells its services which stream the journal reads; systemd-cat of this age does not.
SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
"$JOURNALD" 2>/dev/null &
trap 'kill $!' EXIT
tries=0
until test -S /run/systemd/journal/stdout; do tries=$((tries + 1)); test $tries -lt 1200; sleep 0.05; done
systemd-cat -t pgops-test sh -c 'export JOURNAL_STREAM="$(stat -L -c %d:%i /proc/self/fd/2)"; exec "$@"' sh "$@" || echo "ended with $?"
journalctl --sync || sleep 1
for level in debug warning err; do
    echo "-- $level"
    journalctl --quiet --no-pager -D /run/log/journal -t pgops-test -o cat -p "$level"
done
"""


def journal(program: Program, *words: str) -> tuple[int, dict[str, str]]:
    """Run the program as a service of systemd; return its exit code and what the journal has from each level on."""
    argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", SCRIPT, "sh", *program.argv(*words)]
    environ = {**program.environ, "JOURNALD": str(JOURNALD)}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    first, *parts = done.stdout.split("-- ")
    found = dict(part.split("\n", 1) for part in parts)
    return int(first.partition("ended with ")[2] or 0), found


def test_an_error_is_one_for_the_journal_with_what_to_do(shop: Program) -> None:
    code, found = journal(shop, "backup", "--set", "postgres.login_port=1")
    assert code == 4
    lines = found["err"].splitlines()
    assert lines[0].startswith("pgops: ")
    assert any(line.startswith("  → ") for line in lines)
    assert found["debug"].count("pgops: ") == 1
    assert "<3>" not in found["debug"]


def test_a_warning_is_one_and_what_is_no_trouble_is_neither(shop: Program) -> None:
    code, found = journal(shop, "backup", "--set", "log_dir=/proc/nowhere")
    assert code == 0
    assert found["err"] == ""
    assert "could not be recorded" in found["warning"]
    assert all(line.startswith("warning: ") for line in found["warning"].splitlines())
    assert "Backed up" in found["debug"]


def test_who_is_read_by_somebody_else_hears_no_levels(shop: Program) -> None:
    """A child of a service, with a pipe in place of the journal, as under cron or Ansible."""
    said = shop("backup", "--set", "postgres.login_port=1", code=4, JOURNAL_STREAM="9:4711")
    assert said.stderr.startswith("pgops: ")
