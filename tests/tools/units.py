# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether each line of a unit that shuts its service in says why."""

from __future__ import annotations

# Settings that one reason may stand for.
_TOGETHER = (
    ("Restart", "RestartSec"),
    ("Nice", "IOSchedulingClass", "OOMScoreAdjust"),
    ("KillMode", "TimeoutStopSec"),
    ("ProtectSystem", "ReadWritePaths"),
    (
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
    ),
    ("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "SystemCallArchitectures"),
    ("SystemCallFilter", "SystemCallErrorNumber"),
)
# What a service is, and not how it is kept in.
_PLAIN = ("Type", "User", "ExecStart", "SyslogIdentifier")


def unexplained(unit: str) -> list[str]:
    """Return the lines of [Service] with neither a reason right above nor, right above, a line of the same group."""
    body = unit.partition("[Service]\n")[2].partition("\n[")[0].splitlines()
    found = []
    above = ""
    for line in body:
        before, above = above, line
        name = line.partition("=")[0]
        if not line or line.startswith("#") or name in _PLAIN:
            continue
        group = next((names for names in _TOGETHER if name in names), (name,))
        if not before.startswith("#") and before.partition("=")[0] not in group:
            found.append(line)
    return found
