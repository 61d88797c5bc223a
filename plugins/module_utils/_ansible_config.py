# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The configuration of an instance as a task asks for it: its options, and what the engine makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ._engine.host.configuration import Request, inline_secrets, texts

SECRETS = (
    "postgres_password",
    "database_url",
    "s3_access_key",
    "s3_secret_key",
    "s3_session_token",
    "slack_webhook_url",
    "pagerduty_routing_key",
    "sentry_dsn",
    "smtp_password",
    "webhook_url",
    "webhook_secret",
    "heartbeat_url",
    "apprise_urls",
)
CONFIG: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path", "default": "/etc/pgops/config.yml"},
    "content": {"type": "dict", "default": {}},
    "secrets": {
        "type": "dict",
        "default": {},
        "no_log": False,
        "options": {name: {"type": "str", "no_log": True} for name in SECRETS},
    },
    "instances": {"type": "list", "elements": "path", "default": []},
    "owner": {"type": "str", "default": "postgres"},
    "group": {"type": "str", "default": "postgres"},
}


def request_of(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for."""
    return Request(
        path=Path(params["path"]),
        content=params["content"],
        secrets=params["secrets"],
        account=params["owner"],
        group=params["group"],
        instances=[Path(path) for path in params["instances"]],
    )


def secrets_in(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield every secret among options that nobody has checked yet, also those that stand where none may."""
    secrets = given.get("secrets")
    if isinstance(secrets, Mapping):
        yield from texts(secrets)
    yield from inline_secrets(given.get("content"))


__all__ = ("CONFIG", "request_of", "secrets_in")
