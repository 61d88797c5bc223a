# SPDX-License-Identifier: GPL-3.0-or-later
"""What a throwaway server and this host say, and whether the set is to blame for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.inventory import Listed
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import base_rehearsal
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.base_rehearsal import is_fault
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.rehearsal import Rehearsal, as_said, last_words

START = "The throwaway server did not start: "


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (START + "PANIC:  could not locate a valid checkpoint record", True),
        (START + "FATAL:  could not open file \"global/pg_control\"", True),
        (START + "PANIC:  could not write to file \"pg_wal/xlogtemp.7\": No space left on device", False),
        (START + "FATAL:  could not map anonymous shared memory: Cannot allocate memory", False),
        ("The connection broke: invalid page", False),
    ],
)  # fmt: skip
def test_a_full_disk_is_never_a_fault_of_the_set(said: str, fault: bool) -> None:
    assert is_fault(said) is fault


@pytest.mark.parametrize(
    ("error", "work_dir", "said"),
    [
        (PgopsError("It failed.", hint="Run it again."), "", "It failed. Run it again."),
        (OSError(28, "No space left on device"), "/w", "No space left on device (below /w)."),
        (OSError(28, "No space left on device"), "", "No space left on device (below /state or /var/tmp)."),
        (OSError(28, "No space left on device", "/w/x"), "/w", "No space left on device (/w/x)."),
    ],
)
def test_a_fault_of_this_host_says_where(error: Exception, work_dir: str, said: str) -> None:
    context: Any = SimpleNamespace(config=SimpleNamespace(work_dir=work_dir), state=Path("/state"))
    assert as_said(context, error) == said


def test_a_server_that_broke_down_is_quoted(tmp_path: Path) -> None:
    target: Any = SimpleNamespace(server=SimpleNamespace(data_directory=str(tmp_path / "data")))
    assert last_words(target) == ""
    (tmp_path / "server.log").write_text(
        "LOG:  starting\nPANIC:  could not write to file: No space left on device\nLOG:  over\n"
    )
    assert last_words(target) == ": could not write to file: No space left on device"
    (tmp_path / "server.log").write_text("LOG:  starting\n")
    assert last_words(target) == ""


def test_a_database_that_takes_no_logins_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared in it holds up nobody, and to be turned away there says nothing of the set."""

    def session(name: str) -> Any:
        raise PgopsError("%s takes no logins." % name)

    found = [Listed("shut", "it takes no connections", 1, False)]
    monkeypatch.setattr(base_rehearsal.inventory, "databases", lambda _session: found)
    monkeypatch.setattr(base_rehearsal, "prepared", lambda _session: {"shut": ["one"]})
    stage: Any = SimpleNamespace(
        context=SimpleNamespace(config=SimpleNamespace(verify=SimpleNamespace(amcheck=True, assertions=()))),
        result=Rehearsal(),
        source=SimpleNamespace(manifest=SimpleNamespace(system_identifier="7")),
        target=SimpleNamespace(server=SimpleNamespace(system_identifier="7"), session=session),
        session=None,
    )
    base: Any = SimpleNamespace(databases=[{"name": "shut"}])
    base_rehearsal._look(stage, base)
    assert (stage.result.findings, stage.result.cannot) == ([], [])
