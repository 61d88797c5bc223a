# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# pylint: disable=unused-import,unused-wildcard-import,wildcard-import
import json
from typing import Any

from tests.hosts import instances_of, runs_of
from tests.hosts.agent import *  # noqa: F403
from tests.hosts.older import GONE, VERSION
from tests.hosts.protected import *  # noqa: F403


def test_the_older_version_was_there_and_is_gone(host: Any) -> None:
    # The backup that it took says so.
    runs = [run for instance in instances_of(host) for run in runs_of(host, instance)]
    assert {run["engine"] for run in runs if run["verb"] == "backup"} == {VERSION}
    said = json.loads(host.check_output("pgops version --json"))
    assert said["version"] != VERSION
    assert host.run("find /usr/local/lib/pgops -name %s", GONE.rpartition("/")[2]).stdout == ""
