# SPDX-License-Identifier: GPL-3.0-or-later
"""A recovery is done a second time only when the server of the first one has ended."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.recovery_target import Target
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import recover
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.dropping import DroppedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.recovery_plan import Earlier, Request, Work


@pytest.mark.parametrize("runs", [True, False])
def test_under_a_server_that_does_not_end_nothing_is_unpacked_anew(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    nothing: Any = SimpleNamespace(remarks=())
    moment = datetime(2026, 11, 27, 11, 16, tzinfo=UTC)
    request = Request(Target("time", moment=moment), str(tmp_path))
    work = Work(request, [], nothing, nothing, nothing, "", {}, "", False, [])
    earlier = Earlier(Target("lsn", position=0x3000040, inclusive=False), ("gone",), moment)
    tried = list[Any]()

    def perform(_context: Any, one: Work) -> dict[str, Any]:
        tried.append(one.instead)
        if one.instead is None:
            raise DroppedError("without gone", earlier=earlier)
        return {"changed": True}

    monkeypatch.setattr(recover, "prepare", lambda *_asked: work)
    monkeypatch.setattr(recover, "_perform", perform)
    if runs:
        monkeypatch.chdir(tmp_path)  # as the server's process
        (tmp_path / "postmaster.pid").write_text("%d\n" % os.getpid())
        with pytest.raises(DroppedError, match="without gone"):
            recover.recover(world.context(), request)
        assert tried == [None]
    else:
        assert recover.recover(world.context(), request) == {"changed": True}
        assert tried == [None, earlier]
