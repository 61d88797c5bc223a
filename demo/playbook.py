# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook with this environment's Ansible and hear of its tasks, untouched by the user's own settings."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .guard import Guard

_HERE = Path(__file__).resolve().parent
_FOREIGN = (
    "ANSIBLE_",
    "AWS_",
    "PG",
    "DATABASE_URL",
    "PYTHONPATH",
    "BOTO_",
    "http_",
    "https_",
    "HTTP_",
    "HTTPS_",
    "LC_",
)


class PlaybookError(Exception):
    """A task failed, or Ansible did."""


class Playbooks:
    """Runs playbooks. What they start ends with them; what they write lies in `root`, but for Ansible's own output."""

    def __init__(self, root: Path, *, temp: Path, log_file: Path, variables: Mapping[str, Any]) -> None:
        self._root, self._temp = root, temp
        self.log_file = log_file
        log_file.unlink(missing_ok=True)
        collection = root / "collections" / "ansible_collections" / "pgops" / "backup"
        collection.parent.mkdir(parents=True)
        collection.symlink_to(_HERE.parent)
        self._variables = root / "variables.json"
        self._variables.write_text(json.dumps(variables))
        (root / "ansible.cfg").touch()

    def run(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield an event for each task that begins or ends. Raises PlaybookError."""
        events = self._root / f"{name}.events"
        events.touch()
        playbook = _HERE / "playbooks" / f"{name}.yml"
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-e", f"@{self._variables}"]
        guard = Guard()
        try:
            guard.start(
                [*command, str(playbook)],
                log=self.log_file,
                env=self._environment(events),
                stop_signals=(signal.SIGTERM,),
            )
            with events.open(encoding="utf-8") as lines:
                yield from self._follow(guard, lines)
        finally:
            guard.close()

    def _follow(self, guard: Guard, lines: Any) -> Iterator[dict[str, Any]]:
        status, rest = None, ""
        while status is None:
            status = guard.poll()  # before reading, so that nothing written before the end is missed
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole:
                event = json.loads(line)
                yield event
                if event.get("failed"):
                    raise PlaybookError(str(event["result"].get("msg", "a task failed")))
            time.sleep(0.05)
        if status:
            raise PlaybookError(f"ansible-playbook ended with {status}:\n{_tail(self.log_file)}")

    def _environment(self, events: Path) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        locale = {} if sys.platform == "darwin" else {"LC_ALL": "C.UTF-8"}  # Ansible insists on UTF-8
        return (
            own
            | locale
            | {
                "HOME": str(self._root),
                "TMPDIR": str(self._temp),
                "ANSIBLE_CONFIG": str(self._root / "ansible.cfg"),
                "ANSIBLE_HOME": str(self._root / "ansible"),
                "ANSIBLE_LOCAL_TEMP": str(self._root / "ansible" / "local"),
                "ANSIBLE_REMOTE_TEMP": str(self._root / "ansible" / "remote"),
                "ANSIBLE_COLLECTIONS_PATH": str(self._root / "collections"),
                "ANSIBLE_CALLBACK_PLUGINS": str(_HERE / "callbacks"),
                "ANSIBLE_CALLBACKS_ENABLED": "demo_events",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_NOCOWS": "1",
                "DEMO_EVENTS": str(events),
            }
        )


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
