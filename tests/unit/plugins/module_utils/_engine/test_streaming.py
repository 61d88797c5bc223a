# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a set that is made in S3 when the run that makes it fails."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import MissingError, PgopsError
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.streaming import set_in_s3

SET = "20261122T020000Z-base"


class _EndError(PgopsError):
    """What ends the run."""


@pytest.fixture
def context(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A context; no upload of the place is stale."""
    monkeypatch.setattr(world.memory, "abort_stale_uploads", lambda _before: [], raising=False)
    return world.context()


def fail(world: Any, context: Any, *, sent: bool, down: bool) -> list[str]:
    """Fail while a set is made; return the warnings."""
    with pytest.raises(_EndError), set_in_s3(context, world.memory, SET, 1):
        if sent:
            world.memory.write("sets/%s/base/base.tar" % SET, b"data")
        world.memory.down = down
        raise _EndError("The disk is full.")
    world.memory.down = False
    return list(context.warnings)


def test_what_was_sent_is_removed(world: Any, context: Any) -> None:
    assert fail(world, context, sent=True, down=False) == []
    assert world.memory.entries("sets") == {}


def test_that_nothing_was_sent_is_no_trouble(world: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(set_id: str) -> int:
        raise MissingError("There is no set %s." % set_id)  # so says the S3 place

    monkeypatch.setattr(world.memory, "delete_set", gone)
    assert fail(world, context, sent=False, down=False) == []


def test_what_stays_is_told(world: Any, context: Any) -> None:
    (said,) = fail(world, context, sent=True, down=True)
    assert said.startswith(
        "What was sent of %s may still lie in %s, where it is no set: The store" % (SET, context.s3().root)
    )
    assert list(world.memory.entries("sets")) == ["sets/%s/base/base.tar" % SET]
