# SPDX-License-Identifier: GPL-3.0-or-later
"""The wires of the lab: a bridge on this machine, and a network namespace with one cable to it for each host."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

BRIDGE = "pgops0"
NETWORK = "10.213.0."
GATEWAY = NETWORK + "1"
_NAMESPACES = Path("/run/netns")


class LabError(Exception):
    """The lab cannot do what it was asked for; the text says why and what to do."""


def told(*words: str) -> None:
    """Run a program of this machine. Raises LabError with what it said."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


def namespace(name: str) -> Path:
    """Return the network namespace of a host."""
    return _NAMESPACES / f"pgops-{name}"


def lay_bridge() -> None:
    """Make the bridge, unless it is there."""
    if not Path("/sys/class/net", BRIDGE).exists():
        told("ip", "link", "add", BRIDGE, "type", "bridge")
        told("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        told("ip", "link", "set", BRIDGE, "up")


def remove_bridge() -> None:
    """Remove the bridge, if it is there."""
    if Path("/sys/class/net", BRIDGE).exists():
        told("ip", "link", "del", BRIDGE)


def connect(name: str, address: str) -> None:
    """Give a host its namespace with `address` on the bridge."""
    inside, cable = namespace(name).name, f"pg-{name}"
    told("ip", "netns", "add", inside)
    told("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", inside)
    told("ip", "link", "set", cable, "master", BRIDGE, "up")
    told("ip", "-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
    told("ip", "-n", inside, "link", "set", "lo", "up")
    told("ip", "-n", inside, "link", "set", "eth0", "up")


def disconnect(name: str) -> None:
    """Remove a host's namespace and its cable, if they are there."""
    if Path("/sys/class/net", f"pg-{name}").exists():
        told("ip", "link", "del", f"pg-{name}")
    if namespace(name).exists():
        told("ip", "netns", "del", namespace(name).name)


def plug(name: str, *, into: bool) -> None:
    """Pull a host's cable out, or put it back."""
    told("ip", "link", "set", f"pg-{name}", "up" if into else "down")


def block(name: str, address: str, *, blocked: bool) -> None:
    """Let a host reach an address no more, or again."""
    told("ip", "-n", namespace(name).name, "route", "add" if blocked else "del", "blackhole", address)


def left_namespaces() -> Sequence[str]:
    """Return the names of the hosts that have a namespace, whoever made it."""
    return sorted(entry.name.removeprefix("pgops-") for entry in _NAMESPACES.glob("pgops-*"))
