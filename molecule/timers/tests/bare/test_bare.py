# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# pylint: disable=unused-import,unused-wildcard-import,wildcard-import
from tests.hosts.bare import *  # noqa: F403
from tests.hosts.bare import test_check_mode_has_said_what_would_protect_the_host  # noqa: F401
