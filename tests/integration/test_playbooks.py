# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks ask a host by a command of their own, on a real server; the playbooks themselves run in Molecule."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.integration.conftest import ROOT, Servers


def serves(data: Path) -> bool:
    """Ask as the playbooks restore and restore_rollback do."""
    words = yaml.safe_load((ROOT / "playbooks" / "vars" / "play.yml").read_text())["pgops_play_serves"]
    return subprocess.run([*words, str(data)], capture_output=True, check=False).returncode == 0


def test_a_server_is_at_home_in_its_data_directory_only(servers: Servers, tmp_path: Path) -> None:
    server = servers.get("playbooks", 18)
    assert serves(server.data_dir)
    link, other = tmp_path / "a link", tmp_path / "other"
    link.symlink_to(server.data_dir)
    assert serves(link), "it is the directory that counts, not its name"
    other.mkdir()
    assert not serves(other)
    (other / "postmaster.pid").write_text((server.data_dir / "postmaster.pid").read_text())
    assert not serves(other), "it lives, elsewhere"
    written = (server.data_dir / "postmaster.pid").read_text()
    server.stop()
    assert not serves(server.data_dir)
    (server.data_dir / "postmaster.pid").write_text(written)
    try:
        assert not serves(server.data_dir), "what a power loss leaves"
    finally:
        (server.data_dir / "postmaster.pid").unlink()
        server.start()
