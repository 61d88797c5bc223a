# SPDX-License-Identifier: GPL-3.0-or-later
"""The units that the guide has for one message about all hosts: systemd takes them; test_fleet_guide.py of the integration runs them."""

from __future__ import annotations

import re
from typing import Any

from tests.tools.collection_tree import ROOT

GUIDE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
UNITS = re.findall(r"^```ini\n(# /etc/systemd/system/(pgops-fleet\.\w+).*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_units_of_the_guide_are_what_systemd_takes(host: Any) -> None:
    assert [name for _text, name in UNITS] == ["pgops-fleet.service", "pgops-fleet.timer"]
    try:
        for text, name in UNITS:
            host.check_output("mkdir -p /run/lab-fleet && printf %%s %s > /run/lab-fleet/%s", text, name)
        said = host.run("systemd-analyze verify --man=no %s", "/run/lab-fleet/pgops-fleet.timer")
        assert (said.rc, "pgops-fleet" in said.stderr) == (0, False), said.stderr
    finally:
        host.run("rm -rf /run/lab-fleet")
