# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from tests.hosts.protected import *  # noqa: F403
