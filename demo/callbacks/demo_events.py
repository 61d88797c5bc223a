# SPDX-License-Identifier: GPL-3.0-or-later
"""Write one line of JSON for each task that begins or ends, for the demo's table."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: demo_events
type: notification
short_description: one line of JSON for each task
description: Writes to the file that E(DEMO_EVENTS) names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible finds the class by this name."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "demo_events"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Tell that a task begins."""
        _write({"event": "start", "step": _step(task), "at": time.time()})

    def v2_runner_on_ok(self, result: Any) -> None:
        """Tell how a task ended."""
        _write_end(result, failed=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        """Tell why a task failed."""
        _write_end(result, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Tell why a task could not begin."""
        _write_end(result, failed=True)


def _write_end(result: Any, *, failed: bool) -> None:
    event = {"event": "end", "step": _step(result.task), "at": time.time(), "failed": failed}
    _write(event | {"result": dict(result.result)})


def _step(task: Any) -> str:
    return str(task.tags[0]) if task.tags else str(task.get_name())


def _write(event: dict[str, Any]) -> None:
    with open(os.environ["DEMO_EVENTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(event, default=str) + "\n")
