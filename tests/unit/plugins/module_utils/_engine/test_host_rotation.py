# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule for logrotate: what it says, and what cannot stand in one. logrotate itself reads it on the test hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import rotation
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.rotation import Rotation


def test_a_rule_for_each_directory_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "logrotate.d" / "pgops"
    rule = Rotation(path, ["/var/log/b", "/var/log/a", "/var/log/b"], "postgres", "adm", 3)
    rotation.check(rule)
    change = rotation.change(rule)
    assert change is not None
    change.make()
    text = path.read_text()
    heads = [line.split()[0] for line in text.splitlines() if line.endswith("{")]
    assert heads == ['"/var/log/a/*.log"', '"/var/log/b/*.log"']
    assert text.count("su postgres adm") == text.count("rotate 3") == 2
    assert rotation.change(rule) is None


@pytest.mark.parametrize(
    "rule",
    [
        Rotation(directories=["var/log"]),
        Rotation(directories=['/var/log/"x"']),
        Rotation(directories=["/var/log/*"]),
        Rotation(directories=["/var/log\n}"]),
        Rotation(path=Path("pgops"), directories=["/var/log"]),
        Rotation(directories=["/var/log"], owner="a b"),
        Rotation(directories=["/var/log"], group=""),
        Rotation(directories=["/var/log"], keep=-1),
    ],
)
def test_what_logrotate_would_read_otherwise_is_refused(rule: Rotation) -> None:
    with pytest.raises(UsageError):
        rotation.check(rule)


def test_without_a_directory_the_rule_goes_when_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "pgops"
    none = Rotation(path)
    assert rotation.change(none) is None
    path.write_text("# by hand\n/var/log/backups/*.log {}\n")
    assert rotation.change(none) is None
    path.unlink()
    laid = rotation.change(Rotation(path, ["/var/log/a"]))
    assert laid is not None
    laid.make()
    taken = rotation.change(none)
    assert taken is not None
    assert taken.removes
    taken.make()
    assert not path.exists()
    path.symlink_to(tmp_path / "elsewhere")
    assert rotation.change(none) is None
