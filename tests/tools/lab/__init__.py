# SPDX-License-Identifier: GPL-3.0-or-later
"""Real hosts on this machine: Debian with systemd, cron and sshd, and a Ceph with its S3 gateway, on a bridge of their own.

Each host is a systemd-nspawn container in a network namespace. They reach each other and this machine by the bridge,
and nothing else. `python -m tests.tools.lab --help` says what can be done to them.
"""

from __future__ import annotations

from .lab import Lab
from .machines import Machine
from .network import LabError

__all__ = ("Lab", "LabError", "Machine")
