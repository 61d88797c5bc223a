# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that are wrong: the playbooks tell all of it at once, also in the summary, and touch nothing."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from tests.integration.playing import played

# Each host is this machine; nothing is touched, as check mode sees to it, and as their variables are wrong.
HOSTS: dict[str, dict[str, Any]] = {
    "gone": {"agent_state": "absent"},
    "stuck": {
        "agent_state": "absent",
        "wal_archive_state": "absent",
        "pgops_postgres": {"login_port": 9},
    },  # nobody listens
    "named": {"pgops_instances": [{"nam": "x"}, {"name": 17}, {"name": "db1-main"}], "pgops_backups": {"jobs": 1}},
    # With a slip, or as a text, it would ask for nothing.
    "lax": {"pgops_require": ["backup", "offsite copy"]},
    "text": {"pgops_require": "verification"},
    "types": {
        "pgops_postgres": {"login_port": "abc"},
        "pgops_local": {"path": ["/backups"]},
        "pgops_metrics": {"textfile_directory": {}, "textfile_dir": "/x"},
        "pgops_other": {"log_dir": [1]},
        "pgops_schedule": {"wait": [1], "timezone": {}, "backup": "daily"},
        "pgops_scheduler": "timers",
        "schedule_catch_up": "maybe",
    },
}
# What each is told beside what is wrong with it: an error of the schema.
COMMON = {"pgops_backup": {"jobs": -1}}
SAID = {
    "named": [
        "pgops_instances[0]: it needs a name, as in [{name: db1-main}]; its keys are nam.",
        "pgops_instances[1].name: expected a text, found 17",
        "nam: unknown key",
    ],
    "lax": ["pgops_require: 'offsite copy' is none of backup, base backup, off-site copy, off-site base backup, verif"],
    "text": [
        "pgops_require: expected a list of some of backup, base backup, off-site copy, off-site base backup, verif"
    ],
    "types": [
        "postgres.login_port: expected a whole number, found 'abc'.",
        "local.path: expected a text, found ['/backups'].",
        "metrics.textfile_directory: expected a text, found {}.",
        "metrics.textfile_dir: unknown key. Did you mean textfile_directory?",
        "log_dir: expected a text, found [1].",
        "schedule.wait: expected a text, found [1].",
        "schedule.timezone: expected a text, found {}.",
        "schedule.backup: 'daily' is not a calendar",
        "kind (pgops_scheduler): expected one of cron, systemd, found 'timers'.",
        "catch_up (schedule_catch_up): expected true or false, found 'maybe'.",
    ],
}


@pytest.fixture(scope="module", name="played")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return what Ansible says, without line breaks within words: of site in check mode, and of status after it."""
    folder = tmp_path_factory.mktemp("variables")
    local = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        # The program of this machine, if it has one, is not asked.
        "pgops_play_program": str(folder / "none"),
        "agent_packages_install": False,
        **COMMON,
    }
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps({"all": {"children": {"databases": {"hosts": HOSTS, "vars": local}}}}))
    words = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(hosts), "--check"]
    words += ["pgops.backup.site", "pgops.backup.status"]
    done = played(words, folder, seconds=300, ANSIBLE_PIPELINING="1", ANSIBLE_CALLBACK_RESULT_FORMAT="yaml")
    said = done.stdout + done.stderr
    site, _dashes, status = said.partition("PLAY [Ask]")
    assert status, said
    return site, status


def summary_of(said: str) -> dict[str, str]:
    """Return what the summary says of each host, blanks and line breaks evened out."""
    text = said.partition("TASK [Who is protected?]")[2].partition("\nTASK ")[0]
    text = re.sub(r"\s+", " ", text.replace("\\n", " "))
    found = re.split(r"(%s): (?=NOT PROTECTED|protected|would be)" % "|".join(HOSTS), text)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("host", sorted(SAID))
def test_the_summary_tells_every_error_at_once(played: tuple[str, str], host: str) -> None:
    told = summary_of(played[0])[host]
    assert told.startswith("NOT PROTECTED")
    for part in [*SAID[host], "backup.jobs: expected"]:
        assert part.replace("'", "''") in told or part in told, (part, told)
    assert "could not be reached" not in told
    assert told.count("(pgops_scheduler)") == (host == "types"), "once"


def test_status_tells_why_it_cannot_ask(played: tuple[str, str]) -> None:
    for host in ("named", "lax", "text"):
        told = summary_of(played[1])[host].replace("''", "'")
        assert SAID[host][0] in told, told
        assert "could not be reached" not in told


def test_a_host_whose_agent_goes_is_not_set_up_anew(played: tuple[str, str]) -> None:
    told = summary_of(played[0])["gone"]
    assert told.startswith("would be removed")
    steps = re.findall(r"^TASK \[(.+?)\].*\n((?:(?!^TASK|^PLAY).*\n)*)", played[0], re.MULTILINE)
    done = {name for name, lines in steps if re.search(r"^(?:ok|changed): \[gone\]", lines, re.MULTILINE)}
    assert any("Absent | Remove the program" in name for name in done), done
    assert not any("Write the schedule" in name for name in done)


def test_a_removal_whose_wal_step_fails_is_no_removal_and_says_why(played: tuple[str, str]) -> None:
    told = summary_of(played[0])["stuck"]
    assert told.startswith("NOT PROTECTED"), told
    assert "Absent | See whether the server archives with pgops: " in told, told


def test_a_variable_that_nothing_reads_is_told_with_the_one_that_may_be_meant(played: tuple[str, str]) -> None:
    assert "Nothing of this collection reads pgops_backups (did you mean pgops_backup?)." in re.sub(
        r"\s+", " ", played[0]
    )
    assert played[0].count("Nothing of this collection reads") == 1, "and of no variable of the playbooks themselves"
