# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task about a host says, as Ansible's own class prints it: no secret in any words, and all that steers the plays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.pgops.backup.plugins.module_utils._ansible_config import secrets_in
from ansible_collections.pgops.backup.plugins.module_utils._ansible_host import HostTask, checked, sound
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host

# Each is a word of a host's own as well: part of its name, its port, an account, a package.
SECRETS = ("db1", "5432", "main", "postgres")
SPEC = {
    "word": {"type": "str", "no_log": True},
    "all": {"type": "dict", "no_log": False, "options": {}},
    "free": {"type": "dict"},
}


def said(capsys: pytest.CaptureFixture[str], work: Any, structure: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what the module prints, given one secret as an option and the others in one that is no secret itself."""
    with patch_module_args({"word": "db1", "free": {"inner": list(SECRETS)}}):
        task = HostTask(SPEC)
        with pytest.raises(SystemExit):
            task.run(work, secrets=SECRETS, structure=structure)
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_what_steers_the_plays_survives_a_secret_that_is_part_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    steering = {
        "answers": [{"instance": "db1-main", "rc": 0}],
        "clusters": [{"name": "main", "port": 5432}],
        "packages_missing": ["postgresql-client-17"],
    }

    def work(host: Host) -> dict[str, Any]:
        host.warn("postgres is the owner")
        return {**steering, "told": "at 5432", "changed": False}

    printed = said(capsys, work, tuple(steering))
    assert {name: printed.pop(name) for name in steering} == steering
    assert printed.pop("changed") is False
    assert printed.pop("run_warnings") == ["******** is the owner"]
    assert not any(secret in json.dumps(printed) for secret in SECRETS), "all else, the options and warnings too"


def test_an_error_shows_no_secret_also_where_a_result_would(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_host: Host) -> dict[str, Any]:
        raise UsageError("db1 at 5432 is wrong.", hint="Ask postgres.")

    printed = said(capsys, work, ("msg_of_nothing",))
    assert printed["failed"] is True
    assert (printed["outcome"], printed["exit_code"]) == ("misused", 2)
    assert not any(secret in json.dumps(printed) for secret in SECRETS)


SCHEDULE = {
    "kind": {"type": "str", "choices": ["cron", "systemd"], "default": "cron"},
    "catch_up": {"type": "bool", "default": True},
    "jobs": {"type": "list", "elements": "dict", "options": {"name": {"type": "str", "required": True}}},
    "secrets": {"type": "dict", "options": {"key": {"type": "str", "no_log": True}, "n": {"type": "int"}}},
}


@pytest.mark.parametrize(
    ("given", "said", "left"),
    [
        ({"kind": "timers"}, ["kind (pgops_scheduler): expected one of cron, systemd, found 'timers'."], {}),
        (
            {"kind": "systemd", "catch_up": "maybe"},
            ["catch_up: expected true or false, found 'maybe'."],
            {"kind": "systemd"},
        ),
        ({"knd": 1}, ["knd: unknown. Did you mean kind?"], {}),
        ({17: 1}, ["17: unknown."], {}),
        (
            {"secrets": {"ky": "hush", "key": "k", "n": "x"}},
            ["secrets.ky: unknown. Did you mean key?", "secrets.n: expected a whole number, found 'x'."],
            {"secrets": {"key": "k", "n": None}},
        ),
        ({"secrets": "abc"}, ["secrets: expected keys and values, found a text."], {}),
        ({"jobs": [{"name": "a"}, {}]}, ["jobs.1.name: missing."], None),
        ({"jobs": ["a"]}, ["jobs.0: expected keys and values, found a text."], None),
        ("abc", ["all of it: expected keys and values, found a text."], {}),
    ],
)
def test_what_another_module_would_refuse_is_told_by_its_name(given: Any, said: list[str], left: Any) -> None:
    with pytest.raises(UsageError) as caught:
        checked(SCHEDULE, given, "The schedule", {"kind": "pgops_scheduler"})
    assert caught.value.message == "\n  - ".join(["The schedule cannot be so:", *said])
    rest = sound(SCHEDULE, given)
    if left is None:
        assert rest is None
    else:
        assert rest == {"kind": "cron", "catch_up": True, "jobs": None, "secrets": None, **left}


def test_what_it_takes_is_handed_on_as_ansible_would() -> None:
    given = {"catch_up": "no", "jobs": [{"name": 5}]}
    assert checked(SCHEDULE, given) == sound(SCHEDULE, given)
    assert checked(SCHEDULE, given)["catch_up"] is False
    assert checked(SCHEDULE, given)["jobs"] == [{"name": "5"}]


def test_secrets_are_known_however_deep_they_were_put() -> None:
    """A slip of a level is an error that sends people to -vvv, which shows what was given."""
    given = {
        "secrets": {"s3": {"secret_key": "hushhush"}, "apprise_urls": ["tgram://token/1"], "pin": 4711, "none": None}
    }
    assert set(secrets_in(given)) == {"hushhush", "tgram://token/1", "4711"}
