# SPDX-License-Identifier: GPL-3.0-or-later
"""What cron had to say of the night: nothing of the jobs that went well, and all of the one that did not."""

from __future__ import annotations

import email.message
import mailbox
from typing import Any

import pytest

from tests.hosts import runs_of
from tests.hosts.night import VERBS
from tests.tools.lab.machines import until

BOX = "/var/mail/backup"


@pytest.fixture(scope="module")
def mails(host: Any, tmp_path_factory: pytest.TempPathFactory) -> list[email.message.Message]:
    """What there is in the mailbox of who gets cron's mail, when every job has ended and nothing is under way."""
    assert until(lambda: host.file(BOX).exists and host.file(BOX).size, 60) is not None
    assert until(lambda: host.run("pgrep --full '[/]usr/local/bin/pgops'").rc == 1, 60) is not None
    assert until(lambda: "is empty" in host.check_output("mailq"), 60) is not None
    kept = tmp_path_factory.mktemp("mail") / "box"
    kept.write_bytes(host.file(BOX).content)
    return list(mailbox.mbox(kept))


def test_only_the_job_that_failed_sent_one(host: Any, mails: list[email.message.Message]) -> None:
    assert [run["verb"] for run in runs_of(host, "db12-main")[-len(VERBS) :] if run["outcome"] == "ok"]
    assert len(mails) == 1
    assert "/usr/local/bin/pgops backup " in str(mails[0]["Subject"])
    assert str(mails[0]["To"]) == "backup@localhost"


def test_it_says_what_is_wrong_and_what_to_do(host: Any, mails: list[email.message.Message]) -> None:
    said = bytes(mails[0].get_payload(decode=True)).decode()
    failed = [run for run in runs_of(host, "db12-main", "/var/lib/postgresql/lab") if run["verb"] == "backup"]
    assert len(failed) == 1
    assert failed[0]["reason"] in " ".join(said.replace("→", "").split())
    assert ".s.PGSQL.1" in said
    assert len(said.splitlines()) < 12


def test_nobody_else_got_mail(host: Any) -> None:
    # The mailbox of ops has the alerts.
    assert set(host.check_output("find /var/mail -type f -size +0").split()) - {"/var/mail/ops"} == {BOX}
