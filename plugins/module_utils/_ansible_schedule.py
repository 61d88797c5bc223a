# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The schedule of a host as a task asks for it: its options, and what the engine makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._engine.host.schedule import Instance, Request
from ._engine.host.units import VERBS, Common

INSTANCE: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "config": {"type": "path", "default": "/etc/pgops/config.yml"},
    "jobs": {"type": "dict", "default": {}, "options": {verb: {"type": "str"} for verb in VERBS}},
    "paths": {"type": "list", "elements": "path", "default": []},
}
SCHEDULE: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "kind": {"type": "str", "choices": ["cron", "systemd"], "default": "cron"},
    "instances": {"type": "list", "elements": "dict", "default": [], "options": INSTANCE},
    "program": {"type": "path", "default": "/usr/local/bin/pgops"},
    "account": {"type": "str", "default": "postgres"},
    "timezone": {"type": "str"},
    "random_delay": {"type": "str"},
    "wait": {"type": "str"},
    "mailto": {"type": "str", "default": "root"},
    "catch_up": {"type": "bool", "default": True},
}


def request_of(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for."""
    return Request(
        common=Common(**{name: params[name] for name in ("program", "account", "mailto", "catch_up")}),
        instances=[Instance(**given) for given in params["instances"]],
        **{name: params[name] for name in ("kind", "timezone", "random_delay", "wait")},
    )


__all__ = ("SCHEDULE", "request_of")
