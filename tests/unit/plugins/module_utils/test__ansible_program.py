# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine makes of the options of pgops_program."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._ansible_program import PROGRAM, parts_of


@pytest.mark.parametrize(
    ("given", "directories"),
    [({}, None), ({"log_directories": []}, []), ({"log_directories": ["/var/log/a b"]}, ["/var/log/a b"])],
)
def test_a_rule_of_which_nothing_is_said_stays_as_it_is(
    given: dict[str, Any], directories: Optional[list[str]]
) -> None:
    params = {name: spec.get("default") for name, spec in PROGRAM.items()}
    rotation = parts_of({**params, **given})[1]
    assert (rotation is None) == (directories is None)
    assert rotation is None or rotation.directories == directories
    assert parts_of({**params, **given, "logrotate": ""})[1] is None
