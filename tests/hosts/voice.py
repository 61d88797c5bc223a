# SPDX-License-Identifier: GPL-3.0-or-later
"""What people hear of a host: what its web server and its mailbox took (molecule/hosts/listeners.yml)."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.hosts import instances_of
from tests.tools.lab.machines import until

# Enough for a machine on which three other things are tested; whatever is there is found at once.
PATIENCE = 90
# How a step ends that names a command.
AS_WHOM = " (as root, or with sudo -u postgres)"
_MAILS = """
import json, mailbox, os
from email.header import decode_header, make_header
path = "/var/mail/ops"
found = mailbox.mbox(path, create=False) if os.path.exists(path) else ()
print(json.dumps([[" ".join(str(make_header(decode_header(m["Subject"]))).split()), m.get_payload(decode=True).decode()] for m in found]))
"""


class Listener:
    """What was heard of one instance since this was made, by both ways, and its pings."""

    def __init__(self, host: Any, instance: str) -> None:
        self.host, self.instance = host, instance
        self._requests, self._mails = len(self._all_requests()), len(self._all_mails())

    def _all_requests(self) -> list[dict[str, str]]:
        said = self.host.run("cat /var/lib/lab-heard").stdout
        return [json.loads(line) for line in said.splitlines()]

    def _all_mails(self) -> list[list[str]]:
        found: list[list[str]] = json.loads(self.host.check_output("python3 -c %s", _MAILS))
        return found

    def posted(self, cause: str) -> list[dict[str, Any]]:
        """The messages that the web server took about a cause, the oldest first."""
        new = [one for one in self._all_requests()[self._requests :] if one["path"] == "/hook"]
        said = [json.loads(one["body"]) for one in new]
        return [one for one in said if (one["instance"], one["cause"]) == (self.instance, cause)]

    def events(self, cause: str) -> list[str]:
        """What happened to the incident of a cause, as the web server was told."""
        return [str(one["event"]) for one in self.posted(cause)]

    def mails(self, words: str) -> list[str]:
        """The subjects of the mails in which these words are, the oldest first."""
        about = [one for one in self._all_mails()[self._mails :] if self.instance in one[0]]
        found = [subject for subject, body in about if words in " ".join(f"{subject} {body}".split())]
        assert all(subject.startswith("[pgops] ") for subject in found)
        return [subject.removeprefix("[pgops] ") for subject in found]

    def by_apprise(self, words: str) -> list[str]:
        """The titles of what Debian's own Apprise brought to the web server and in which these words are, the oldest first."""
        new = [one for one in self._all_requests()[self._requests :] if one["path"].startswith("/apprise")]
        said = [json.loads(one["body"]) for one in new]
        return [one["title"] for one in said if self.instance in one["title"] and words in one["message"]]

    def pings(self, verb: str) -> list[str]:
        """What the watcher outside was told of runs: start, success (empty) or fail."""
        top = f"/ping/{self.instance}/{verb}"
        new = [one["path"] for one in self._all_requests()[self._requests :]]
        return [path.removeprefix(top).lstrip("/") for path in new if re.fullmatch(re.escape(top) + r"(/\w+)?", path)]

    def hear(self, cause: str, words: str, *events: str) -> None:
        """Wait until exactly these events of a cause were told by both ways."""
        want = list(events)
        until(lambda: len(self.events(cause)) >= len(want) and len(self.mails(words)) >= len(want), PATIENCE)
        assert (self.events(cause), len(self.mails(words))) == (want, len(want)), self.mails("")


def config_of(host: Any, instance: str) -> str:
    """Return the path of an instance's configuration."""
    return instances_of(host)[instance]


def newest_payload(host: Any, instance: str) -> str:
    """Return a file of the newest backup set of an instance, which is not its manifest."""
    top = f"/backups/postgres/{instance}/sets"
    newest = max(name for name in host.file(top).listdir() if name.endswith("-logical"))
    listed = host.check_output("find %s -type f -not -name manifest.json", f"{top}/{newest}").splitlines()
    return str(min(listed))
