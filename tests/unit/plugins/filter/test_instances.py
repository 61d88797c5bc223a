# SPDX-License-Identifier: GPL-3.0-or-later
"""From variables to instances: sections are laid over each other, and nothing of one instance ends up in another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.filter import assessment
from ansible_collections.pgops.backup.plugins.filter.instances import instances
from ansible_collections.pgops.backup.plugins.module_utils._ansible_variables import QUESTIONS, kind_of
from ansible_collections.pgops.backup.plugins.module_utils._engine import config

SECTIONS = {
    "local": {"path": "/srv/backups"},
    "s3": {"bucket": "b", "region": "r"},
    "backup": {},
    "log_dir": "/var/log/x",
}
KEYS = st.sampled_from(["local", "s3", "backup", "postgres"])
TREES = st.dictionaries(
    KEYS, st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(), max_size=3), max_size=3
)


def one(own: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    return instances([{"name": "db1-main", **(own or {})}], **given)[0]


def test_a_single_instance_is_called_by_the_usual_path() -> None:
    found = one(sections=SECTIONS)
    assert found["path"] == "/etc/pgops/config.yml"
    assert found["content"] == {
        "instance": "db1-main",
        "local": {"path": "/srv/backups"},
        "s3": {"bucket": "b", "region": "r"},
        "log_dir": "/var/log/x",
    }


@pytest.mark.parametrize(
    ("require", "told"),
    [
        (None, "expected a list of some of backup, "),
        ([], "found an empty list"),
        ("backup", "found a text"),
        ({"backup": True}, "found keys and values"),
        (["backup", "of-site copy"], "'of-site copy' is none of backup, "),
        ([17], "17 is none of"),
        ([["backup"]], "a list is none of"),
    ],
)
def test_what_asks_for_nothing_is_no_requirement(require: Any, told: str) -> None:
    (error,) = one(lenient=True, require=require)["errors"]
    assert error.startswith("pgops_require: ")
    assert told in error
    with pytest.raises(AnsibleFilterError, match="pgops_require"):
        one(require=require)


def test_each_question_may_be_required() -> None:
    assert one(lenient=True, require=list(QUESTIONS))["errors"] == []
    assert (*assessment.QUESTIONS, *assessment.OPTIONAL) == QUESTIONS


def test_several_have_files_of_their_own() -> None:
    found = instances([{"name": "a"}, {"name": "b"}])
    assert [i["path"] for i in found] == ["/etc/pgops/a.yml", "/etc/pgops/b.yml"]


def test_what_an_instance_says_wins_key_by_key() -> None:
    found = one({"s3": {"region": "other"}, "log_dir": ""}, sections=SECTIONS)
    assert found["content"]["s3"] == {"bucket": "b", "region": "other"}
    assert found["content"]["log_dir"] == ""
    assert found["log_dir"] == ""


def test_null_leaves_a_section_out() -> None:
    found = one({"s3": None}, sections=SECTIONS)
    assert "s3" not in found["content"]
    assert found["scheduled"]["jobs"]["sync"] == ""


def test_jobs_come_from_the_schedule_and_its_defaults() -> None:
    found = one({"schedule": {"backup": "@hourly", "timezone": "Europe/Berlin"}}, sections=SECTIONS)
    assert found["scheduled"]["jobs"] == {
        "backup": "@hourly",
        "base": "",
        "sync": "30 2 * * *",
        "verify": "0 3 * * *",
        "prune": "0 1 * * 0",
        "alert": "",
    }
    assert (found["timezone"], found["random_delay"], found["wait"]) == ("Europe/Berlin", "0s", "6h")


def test_secrets_are_apart_and_an_empty_one_is_none() -> None:
    secrets = {"s3_access_key": "K", "s3_secret_key": "S"}
    found = instances(
        [{"name": "a"}, {"name": "b", "secrets": {"s3_access_key": "", "postgres_password": "p"}}], secrets=secrets
    )
    assert [i["secrets"] for i in found] == [secrets, {"s3_secret_key": "S", "postgres_password": "p"}]
    assert all("secrets" not in i["content"] and "S" not in str(i["content"]) for i in found)


def test_paths_are_what_jobs_write_to() -> None:
    found = one({"work_dir": "/srv/work", "log_dir": ""}, sections={"local": {"path": "/srv/backups"}})
    assert found["scheduled"]["paths"] == ["/srv/backups", "/var/lib/pgops", "/srv/work"]


@pytest.mark.parametrize(
    ("postgres", "port"),
    [
        ({}, 5432),
        ({"login_port": 5433}, 5433),
        ({"login_host": "localhost", "login_port": 5434}, 5434),
        ({"login_host": "db9.example.com"}, None),
        ({"database_url": "postgresql://x/"}, None),
    ],
)
def test_the_port_of_a_server_of_the_host(postgres: dict[str, Any], port: int | None) -> None:
    assert one({"postgres": postgres})["port"] == port


def test_a_secret_url_hides_the_port() -> None:
    url = {"database_url": "postgresql://u:p@x/"}
    assert one(secrets=url)["port"] is None
    here, away = instances([{"name": "a"}, {"name": "b", "secrets": url}], secrets={"postgres_password": "p"})
    assert (here["port"], away["port"]) == (5432, None), "also one of the instance's own"
    assert one({"secrets": {"database_url": ""}}, secrets=url)["port"] == 5432


@pytest.mark.parametrize(
    ("own", "removable"),
    [
        ({}, ["/var/lib/pgops/db1-main", "/var/lib/pgops"]),
        ({"state_dir": "/srv/state"}, ["/srv/state/db1-main"]),
        ({"local": {"path": "/var/lib/pgops/backups"}}, ["/var/lib/pgops/db1-main"]),
        ({"local": {"path": "/var/lib/pgops/db1-main/backups"}}, []),
        ({"local": {"path": "/var/lib/pgops"}}, ["/var/lib/pgops/db1-main"]),
        ({"state_dir": "/srv/state", "name": ".."}, []),
    ],
)
def test_no_backup_lies_below_what_may_be_removed(own: dict[str, Any], removable: list[str]) -> None:
    assert one(own)["state_dirs"] == removable


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "list of instances"),
        ({"name": "a"}, "list of instances"),
        ("a", "list of instances"),
        ([{"postgres": {}}], "needs a name"),
        (["a"], "expected keys and values, found a text"),
        ([{"name": 17}], "expected a text, found 17."),
        ([{"name": "a"}, {"name": "a"}], "more than one is called a"),
        ([{"name": "a"}, {"name": "config"}], "cannot be called config"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        instances(wrong)


WRONG = [None, 17, True, [], ["x"], {"x": 1}, "abc"]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    "path",
    [
        "postgres.login_port",
        "postgres.database_url",
        "local.path",
        "log_dir",
        "state_dir",
        "metrics.textfile_directory",
        "schedule.backup",
        "schedule.timezone",
        "schedule.wait",
        "wal.enabled",
        "alerts.apprise",
        *("postgres", "local", "s3", "schedule", "wal", "metrics", "alerts", "secrets"),
    ],
)
def test_what_cannot_be_is_left_to_the_schema_and_all_else_can_be_told(path: str, value: Any) -> None:
    section, _dot, key = path.partition(".")
    given = [{"name": "db1-main", section: {key: value} if key else value}]
    (found,) = instances(given, sections={"backup": {"jobs": -1}}, lenient=True)
    assert found["errors"] == ["pgops_instances[0].secrets: expected keys and values, found %s." % kind_of(value)] * (
        section == "secrets" and bool(value) and not isinstance(value, dict)
    )
    assert found["content"]["backup"] == {"jobs": -1}
    assert section in ("secrets", "alerts") or value is None or not key or found["content"][section] == {key: value}
    assert all(isinstance(path, str) and path for path in found["scheduled"]["paths"])
    assert all(isinstance(text, str) for text in found["scheduled"]["jobs"].values())
    assert found["port"] is None or isinstance(found["port"], int)


@pytest.mark.parametrize(
    ("wrong", "said", "names"),
    [
        ([], ["expected a list of instances"], [""]),
        ("main", ["expected a list of instances"], [""]),
        ([{"nam": "x"}], ["[0]: it needs a name, as in [{name: db1-main}]; its keys are nam."], [""]),
        (
            [{"name": 17}, {}, "x", {"name": "b"}],
            ["[0].name: expected a text, found 17", "[1]: it needs a name", "[2]: expected keys"],
            ["", "", "b"],
        ),
        (
            [{"name": "a"}, {"name": "a"}, {"name": "config"}],
            ["called a", "cannot be called config"],
            ["a", "a", "config"],
        ),
    ],
)
def test_wrong_names_are_told_beside_all_else_where_that_is_asked_for(
    wrong: Any, said: list[str], names: list[str]
) -> None:
    found = instances(wrong, sections={"backup": {"jobs": -1}}, lenient=True)
    assert [each["name"] for each in found] == names
    assert all(each["content"]["backup"] == {"jobs": -1} for each in found)
    errors = found[0]["errors"]
    assert len(errors) == len(said)
    assert all(part in error for part, error in zip(said, errors, strict=True))
    with pytest.raises(AnsibleFilterError) as caught:
        instances(wrong)
    assert str(caught.value) == " ".join(errors)


def test_what_holds_for_all_may_be_wrong_too() -> None:
    (found,) = instances([{"name": "a"}], secrets="hush", other=["log_dir"], lenient=True)
    assert found["errors"] == [
        "pgops_other: expected keys and values, found a list.",
        "pgops_secrets: expected keys and values, found a text.",
    ]
    wrong = {"name": "a", "secrets": {"s3_secret_key": "hush"}}
    assert "hush" not in str(instances(wrong, secrets="hush", other=["hush"], lenient=True)[0]["errors"]), "no values"
    assert "hush" not in str(instances([["hush"], "hush"], lenient=True)[0]["errors"])
    for blank in (None, 17, True):
        assert len(instances(blank, lenient=True)[0]["errors"]) == 1
    with pytest.raises(AnsibleFilterError, match="pgops_other"):
        instances([{"name": "a"}], other="x")
    assert one(sections={"log_dir": "/a"}, other={"log_dir": "/b"})["log_dir"] == "/b"
    whole = one(sections={"postgres": {"login_port": 5433}}, other={"postgres": {"login_user": "x"}})
    assert whole["content"]["postgres"] == {"login_user": "x"}, "as the roles that read it beside have it"
    assert one()["errors"] == []


@given(TREES, st.lists(TREES, min_size=1, max_size=3))
def test_each_is_the_sections_with_its_own_over_them_and_nothing_is_changed(shared: Any, owns: list[Any]) -> None:
    given_to_it = [{"name": "i%d" % n, **own} for n, own in enumerate(owns)]
    before = copy.deepcopy((shared, given_to_it))
    for own, found in zip(owns, instances(given_to_it, sections=shared), strict=True):
        wanted = {key: value for key, value in config.merge(shared, own).items() if value}
        assert {key: value for key, value in found["content"].items() if key != "instance"} == wanted
    assert (shared, given_to_it) == before


@pytest.mark.parametrize(
    ("given", "others", "wanted"),
    [
        ({"alerts": {"email": {"to": ["a@example.com"]}}}, {}, "*/15 * * * *"),
        ({}, {"secrets": {"slack_webhook_url": "https://hooks.example.com/x"}}, "*/15 * * * *"),
        ({"secrets": {"sentry_dsn": "https://k@sentry.example.com/1"}}, {}, "*/15 * * * *"),
        ({"alerts": {"email": {"to": ["a@example.com"]}}, "schedule": {"alert": "@hourly"}}, {}, "@hourly"),
        ({"alerts": None}, {"sections": {"alerts": {"email": {"to": ["a@example.com"]}}}}, ""),
        ({}, {"secrets": {"smtp_password": "secret", "slack_webhook_url": ""}}, ""),
    ],
)
def test_alerts_are_looked_after_where_there_is_a_channel(given: Any, others: Any, wanted: str) -> None:
    assert one(given, **others)["scheduled"]["jobs"]["alert"] == wanted


def test_an_instance_that_archives_has_base_backups_of_its_own() -> None:
    plain, asks = instances([{"name": "a"}, {"name": "b", "wal": {"enabled": True}}], sections={"s3": {"bucket": "b"}})
    assert (plain["archives"], plain["scheduled"]["jobs"]["base"]) == (False, "")
    assert (asks["archives"], asks["scheduled"]["jobs"]["base"]) == (True, "0 0 * * 0")
    assert (plain["first"], asks["first"]) == (["backup", "sync", "verify"], ["backup", "base", "sync", "verify"])
    assert one()["first"] == ["backup", "verify"]
    own = one({"schedule": {"base": "0 4 * * 6"}})
    assert (own["archives"], own["scheduled"]["jobs"]["base"]) == (False, "0 4 * * 6")


def test_an_instance_whose_alerts_go_by_apprise_says_so() -> None:
    def speaks(content: dict[str, Any], **secrets: str) -> bool:
        return bool(instances([{"name": "a", **content}], secrets=secrets)[0]["apprise"])

    assert speaks({}, apprise_urls="json://localhost")
    assert speaks({"alerts": {"apprise": {"urls_file": "/etc/pgops/secrets/apprise_urls"}}})
    assert not speaks({}, slack_webhook_url="https://x")
    assert not speaks({"alerts": {"apprise": {"level": "critical"}}})
    assert not speaks({"alerts": "loud"})
