# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at a host refuses: every error of the options and of what stands in them, at once."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.modules import pgops_host_info

SCHEDULE: dict[str, Any] = {"instances": [{"name": "a"}], "timezone": "UTC", "random_delay": "0s", "wait": "6h"}


def refused(look: Any, given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        look(given, Host(dry_run=True))
    return caught.value.message


def test_a_slip_in_a_secret_hides_no_error_of_the_content() -> None:
    content = {"instance": "a", "backup": {"jobs": -1}, "verify": "abc"}
    secrets = {"s3_acess_key": "hush", "postgres_password": "two\nlines"}
    said = refused(pgops_host_info.lacks_configuration, {"content": content, "secrets": secrets})
    for part in (
        "secrets.s3_acess_key: unknown. Did you mean s3_access_key?",
        "secrets: postgres_password holds a line break",
        "backup.jobs: expected",
        "verify: expected keys and values, found 'abc'.",
    ):
        assert part in said
    assert "hush" not in said
    assert "configuration cannot be so:\n  - all of it: expected" in refused(pgops_host_info.lacks_configuration, "x")


def test_a_wrong_kind_hides_no_error_of_the_schedule() -> None:
    given = {**SCHEDULE, "kind": "timers", "mailto": "a'b", "owner": "x"}
    said = refused(pgops_host_info.lacks_schedule, given)
    assert "kind (pgops_scheduler): expected one of cron, systemd, found 'timers'." in said
    assert "owner (pgops_account): unknown." in said
    assert 'mailto: "a\'b" is no address' in said
    assert not pgops_host_info.disagree({**given, "of_instances": []}, Host()), "who lays it down tells"


def test_what_whoever_asks_has_found_is_told_as_an_error() -> None:
    assert not pgops_host_info.wrong([], Host())
    with pytest.raises(UsageError, match="The variables of this host cannot be so:\n  - a\n  - b"):
        pgops_host_info.wrong(["a", "b"], Host())
