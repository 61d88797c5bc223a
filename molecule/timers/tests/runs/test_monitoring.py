# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# pylint: disable=unused-import,unused-wildcard-import,wildcard-import
from tests.hosts.monitoring import *  # noqa: F403
