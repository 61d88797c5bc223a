# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration: every error is named with its path, secrets stay private, the example loads as it stands."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.config import build, load, merge, read, secrets_of
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.reference import describe, example
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import (
    S3,
    Alerts,
    Config,
    Retention,
    Schedule,
)

KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudu0ll6qhps6wn"


def made(data: Any, **environ: str) -> Config:
    return build(data, environ=environ, host="db1.example.com")


def group(*members: str, **others: Any) -> dict[str, Any]:
    return {"instance": "shop", "group": {"members": list(members), **others}}


def errors_of(data: Any, **environ: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        made(data, **environ)
    return [line[4:] for line in caught.value.message.splitlines()[1:]]


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# --- values and defaults ----------------------------------------------------------------------------------------------


def test_nothing_said_gives_the_defaults() -> None:
    config = made({})
    assert config.instance == "db1.example.com-5432"
    assert config.local.path == "/backups/postgres"
    assert config.local.retention == Retention(keep_within="7d")
    assert config.s3 is None


def test_the_place_in_s3_keeps_30_days_and_the_prefix_of_old() -> None:
    config = made({"s3": {"bucket": "b"}})
    assert config.s3 is not None
    assert (config.s3.retention.keep_within, config.s3.prefix) == ("30d", "database-backups")


@pytest.mark.parametrize("place", ["local", "s3"])
def test_what_retention_does_not_say_keeps_its_default(place: str) -> None:
    sections: dict[str, Any] = {"local": {}, "s3": {"bucket": "b"}}
    sections[place]["retention"] = {"keep_weekly": 4}
    retention = getattr(made(sections), place).retention
    assert retention == Retention(keep_within={"local": "7d", "s3": "30d"}[place], keep_weekly=4)


@pytest.mark.parametrize("retention", [None, {}, {"keep_within": None}, {"keep_within": None, "keep_last": None}])
def test_an_empty_key_says_nothing_and_never_shortens_retention(retention: Any) -> None:
    assert made({"local": {"retention": retention}}).local.retention == Retention(keep_within="7d")


def test_keep_within_can_be_switched_off_by_name() -> None:
    assert made({"local": {"retention": {"keep_within": "", "keep_last": 5}}}).local.retention == Retention(keep_last=5)


def test_empty_sections_are_as_if_left_out() -> None:
    assert made({"local": None, "s3": None, "postgres": None}) == made({})


def test_the_instance_is_the_host_and_the_port_unless_named() -> None:
    assert made({"postgres": {"login_port": 5433}}).instance == "db1.example.com-5433"
    assert made({"postgres": {"login_host": "db7.site-b.example.com"}}).instance == "db7.site-b.example.com-5432"
    assert made({"postgres": {"login_host": "localhost"}}).instance == "db1.example.com-5432"
    assert made({"postgres": {"login_host": "fe80::1%eth0"}}).instance == "fe80--1-eth0-5432"
    assert made({"instance": "orders"}).instance == "orders"


def test_two_configurations_share_no_list() -> None:
    made({}).backup.databases.append("x")
    assert made({}).backup.databases == []


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "top level: expected keys and values, found []."),
        ({"bakcup": {}}, "bakcup: unknown key. Did you mean backup?"),
        ({"local": {"pth": "/x"}}, "local.pth: unknown key. Did you mean path?"),
        ({"zzz": 1}, "zzz: unknown key."),
        ({5: 1}, "5: unknown key."),
        ({"local": "x"}, "local: expected keys and values, found 'x'."),
        ({"local": {"path": "relative"}}, "local.path: expected a path from the root (/…), found 'relative'."),
        ({"local": {"path": ["/x"]}}, "local.path: expected a text, found ['/x']."),
        ({"backup": {"jobs": "4"}}, "backup.jobs: expected a whole number, found '4'."),
        ({"backup": {"jobs": True}}, "backup.jobs: expected a whole number, found True."),
        ({"backup": {"jobs": 65}}, "backup.jobs: expected 0 to 64, found 65."),
        ({"backup": {"jobs": -1}}, "backup.jobs: expected 0 to 64, found -1."),
        ({"backup": {"globals": "yes"}}, "backup.globals: expected true or false, found 'yes'."),
        ({"backup": {"format": "zip"}}, "backup.format: expected one of auto, custom, directory, plain, found 'zip'."),
        ({"backup": {"databases": "orders"}}, "backup.databases: expected a list, found 'orders'."),
        ({"backup": {"databases": ["a", {}]}}, "backup.databases[1]: expected a text, found {}."),
        ({"backup": {"encryption": "age"}}, "backup.recipients: encryption age needs at least one public key."),
        ({"s3": {}}, "s3.bucket: missing. Leave the whole section s3 out when there is no bucket."),
        ({"s3": {"bucket": "b", "access_key": "x"}}, "s3: access_key and secret_key go together."),
        ({"s3": {"bucket": "b", "part_size": "1MiB"}}, "s3.part_size: S3 takes no parts below 5MiB."),
        ({"base": {"max_rate": "1KiB"}}, "base.max_rate: pg_basebackup takes 32KiB to 1GiB per second, not 1KiB."),
        ({"s3": {"bucket": "b", "tags": ["x"]}}, "s3.tags: expected keys and values, found ['x']."),
        ({"verify": {"assertions": [{"sql": 5, "db": "x"}]}}, "verify.assertions[0].db: unknown key."),
        ({"postgres": {"login_port": 0}}, "postgres.login_port: expected 1 to 65535, found 0."),
        ({"postgres": {"login_password": ["hunter2"]}}, "postgres.login_password: expected a text, found a secret."),
        (
            {"local": {"retention": {"keep_verified": 0}}},
            "local.retention.keep_verified: expected 1 to 100000, found 0.",
        ),
        (
            group("db1"),
            "group.members: a group has two members at least; leave the section out for a server of its own.",
        ),
        (group("db1", "db2", "db2"), "group.members: a member is listed twice."),
        (
            group("db1", "db 2"),
            "group.members[1]: 'db 2' is no member. Write it like db2, db2.example.com:5433 or [2001:db8::2]:5433.",
        ),
        (group("db1", "db2:99999"), "group.members[1]: 'db2:99999' has no true port. Ports go from 1 to 65535."),
        (group("db1", "db2", node="db3"), "group.node: 'db3' is not among group.members, as they are written there."),
        (
            group("db1", "db2", node="db1:5432"),
            "group.node: 'db1:5432' is not among group.members, as they are written there.",
        ),
        (
            group("db2", "db3"),
            "group.node: missing, and this host's name (db1.example.com) fits none of group.members; say which one it is.",
        ),
        (
            group("db1:5432", "db1:5433"),
            "group.node: missing, and this host's name (db1.example.com) fits several of group.members; say which one it is.",
        ),
        (
            {"group": {"node": "db1"}},
            "group.node: there is a node, but group.members is empty; list all nodes of the group.",
        ),
        (
            {"group": {"members": ["db1", "db2"]}},
            "instance: missing. All nodes of a group share one name, so it cannot be made from the host's.",
        ),
        (
            group("db1", "db2", max_lag="soon"),
            "group.max_lag: 'soon' is not a duration. Write it like 90s, 15min, 26h, 7d or 2w.",
        ),
        (group("db1", "db2", run_on="any"), "group.run_on: expected one of primary, prefer_standby, found 'any'."),
    ],
)
def test_an_error_is_named_with_its_path_and_what_was_found(data: Any, expected: str) -> None:
    assert errors_of(data) == [expected]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"instance": "a/b"}, "instance"),
        ({"backup": {"min_free": "lots"}}, "backup.min_free"),
        ({"backup": {"lock_wait_timeout": "1"}}, "backup.lock_wait_timeout"),
        ({"local": {"retention": {"keep_within": "a week"}}}, "local.retention.keep_within"),
        ({"local": {"retention": {"keep_within": "999999999999w"}}}, "local.retention.keep_within"),
        ({"backup": {"tables": ["orders"]}}, "backup.tables"),
        ({"backup": {"recipients": [KEY]}}, "backup.recipients"),
        ({"backup": {"encryption": "age", "recipients": [KEY], "format": "directory"}}, "backup.format"),
    ],
)
def test_values_of_a_form_are_checked(data: Any, path: str) -> None:
    assert [error.split(":")[0] for error in errors_of(data)] == [path]


@pytest.mark.parametrize(
    ("members", "node"),
    [
        (["db1", "db2"], "db1"),
        (["db2", "db1.example.com:5433"], "db1.example.com:5433"),
        (["db2", "db1.other.example"], "db1.other.example"),
    ],
)
def test_a_node_of_a_group_is_found_by_the_name_of_its_host(members: list[str], node: str) -> None:
    assert made(group(*members)).group.node == node


def test_without_members_there_is_no_group() -> None:
    assert made({"group": {"run_on": "prefer_standby"}}).group.node == ""
    assert made({"group": None}) == made({})


def test_all_errors_are_told_at_once() -> None:
    found = errors_of({"backup": {"jobs": "4", "formta": 1}, "s3": {"concurrency": 99}, "local": {"path": "x"}})
    assert sorted(e.split(":")[0] for e in found) == ["backup.formta", "backup.jobs", "local.path", "s3.concurrency"]


@pytest.mark.parametrize("key", ["__class__", "__doc__", "__dict__", "keep_within.x"])
def test_strange_keys_are_unknown_and_not_a_crash(key: str) -> None:
    assert errors_of({"local": {"retention": {key: "x"}}})[0].startswith("local.retention.%s: unknown key." % key)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = [spec.name for spec in dataclasses.fields(Config)]
PATHS = [path.replace("[]", "") for path, _facts in describe()]


@given(st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=4))
def test_no_configuration_however_odd_makes_the_check_crash(data: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        made(data)


@given(st.sampled_from(PATHS), VALUES)
def test_no_value_of_any_key_makes_the_check_crash(path: str, value: Any) -> None:
    data: dict[str, Any] = {"s3": {"bucket": "b"}}
    node = data
    *sections, key = path.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[key] = value
    try:
        made(data)
    except UsageError as error:
        assert (sections[0] if sections else key) in str(error)


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        (
            {"watched": ["backup", "dance"]},
            "alerts.watched: expected some of backup, sync, verify, prune, found dance.",
        ),
        ({"email": {"to": ["a@example.com", "not one"]}}, "alerts.email.to[1]: expected an address"),
        ({"email": {"to": ["a@b\r\nBcc: c@d"]}}, "alerts.email.to[0]: expected an address"),
        ({"email": {"to": [], "sender": "me"}}, "alerts.email.sender: expected an address"),
        ({"pagerduty": {"url": "events.pagerduty.com"}}, "alerts.pagerduty.url: expected https://"),
        ({"quiet_hours": "at night"}, "alerts.quiet_hours: 'at night' names no hours."),
        ({"slack": {"level": "loud"}}, "alerts.slack.level: expected one of info, warning, critical, escalated"),
        ({"slack": {"webhook_url": {"a": "s3cret"}}}, "alerts.slack.webhook_url: expected a text, found a secret."),
        ({"repeat": "often"}, "alerts.repeat: 'often' is not a duration."),
    ],
)
def test_alerts_are_checked(alerts: dict[str, Any], said: str) -> None:
    (error,) = errors_of({"alerts": alerts})
    assert error.startswith(said)


def test_a_channel_is_on_when_it_has_an_address() -> None:
    assert made({}).alerts.channels() == []
    assert made({"alerts": {"slack": {"level": "critical"}}}).alerts.channels() == []
    both = {"slack": {"webhook_url": "https://h/x"}, "email": {"to": ["a@example.com"]}}
    assert made({"alerts": both}).alerts.channels() == ["slack", "email"]


def test_a_long_value_is_shown_shortened() -> None:
    assert len(errors_of({"backup": {"format": "x" * 5000}})[0]) < 200


def test_merging_lays_sections_on_sections_and_replaces_the_rest() -> None:
    base = {"backup": {"jobs": 1, "databases": ["a"]}, "instance": "x"}
    over = {"backup": {"databases": ["b"]}, "instance": "y"}
    assert merge(base, over) == {"backup": {"jobs": 1, "databases": ["b"]}, "instance": "y"}
    assert base["instance"] == "x"


# --- the file ---------------------------------------------------------------------------------------------------------


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    data = {"instance": "db1", "s3": {"bucket": "b"}}
    from_yaml = load(write(tmp_path / "a.yml", "instance: db1\ns3:\n  bucket: b\n"), environ={}, host="h")
    from_json = load(write(tmp_path / "a.json", json.dumps(data)), environ={}, host="h")
    assert from_yaml == from_json


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    assert read(write(tmp_path / "c.yml", "# only a comment\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "not valid YAML in line 2"),
        ("- a\n- b\n", "must hold keys and values, not list"),
        ("just words", "must hold keys and values, not str"),
        ("a: !!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path / "c.yml", text))


def test_a_file_that_is_not_there_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no configuration file .*pgops config --example"):
        read(tmp_path / "none.yml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "c.yml")


def test_without_pyyaml_json_still_works_and_yaml_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read(write(tmp_path / "c.json", '{"instance": "x"}')) == {"instance": "x"}
    with pytest.raises(UsageError, match="PyYAML"):
        read(write(tmp_path / "c.yml", "instance: x"))


def test_the_example_loads_as_it_stands_and_names_every_key(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    config = load(write(tmp_path / "c.yml", example(), 0o644), environ={}, host="db1")
    assert config == build({"s3": {"bucket": "example-backups"}}, environ={}, host="db1")
    for path, _facts in describe():
        assert "%s:" % path.rsplit(".", 1)[-1] in example()


def test_every_commented_key_of_the_example_loads_too_when_it_is_switched_on() -> None:
    for path, facts in describe():
        if facts["section"] or "[]" in path or facts["example"] is None:
            continue
        data: dict[str, Any] = {"s3": {"bucket": "b"}, "backup": {"encryption": "none"}}
        node = data
        *sections, key = path.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = facts["example"]
        if path == "backup.recipients":
            node["encryption"] = "age"
        if sections == ["group"]:
            data["instance"], node["members"] = "shop", ["db1.example.com", "db2.example.com:5433"]
        if facts["secret"] or path.endswith("_file"):
            continue
        assert made(data)


def test_every_key_is_explained() -> None:
    for path, facts in describe():
        assert facts["text"].strip(), path
        assert facts["text"].strip().endswith("."), path


# --- connection URIs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://backup:p%40ss@db.example.com:5433/orders?sslmode=verify-full",
            {
                "login_host": "db.example.com",
                "login_port": 5433,
                "login_user": "backup",
                "login_password": "p@ss",
                "login_db": "orders",
                "ssl_mode": "verify-full",
            },
        ),
        ("postgres://db", {"login_host": "db"}),
        (
            "postgresql:///orders?host=/var/run/postgresql",
            {"login_unix_socket": "/var/run/postgresql", "login_db": "orders"},
        ),
        ("postgresql://%2Ftmp%2FMyDir/orders", {"login_unix_socket": "/tmp/MyDir", "login_db": "orders"}),
        ("postgresql://u@[::1]:5433/x", {"login_host": "::1", "login_port": 5433, "login_user": "u", "login_db": "x"}),
        ("postgresql://db/x?connect_timeout=3&port=5434", {"login_port": 5434, "connect_timeout": 3}),
        ("postgresql://db/x?password=a+b%26c", {"login_password": "a+b&c"}),
        ("postgresql://db/My%20DB", {"login_db": "My DB"}),
    ],
)
def test_a_connection_uri_is_taken_apart(url: str, expected: dict[str, Any]) -> None:
    postgres = dataclasses.asdict(made({"postgres": {"database_url": url}}).postgres)
    assert {key: postgres[key] for key in expected} == expected


@pytest.mark.parametrize(
    "url", ["mysql://db/x", "postgresql://db:port/x", "postgresql://[::1/x", "just words", "postgresql://db/x?evil=1"]
)
def test_what_is_no_connection_uri_of_postgresql_is_refused_without_showing_it(url: str) -> None:
    found = errors_of({"postgres": {"database_url": url + "#hunter2"}})
    assert [e.split(":")[0] for e in found] == ["postgres.database_url"]
    assert "hunter2" not in str(found)


def test_single_options_win_over_the_uri() -> None:
    postgres = made({"postgres": {"database_url": "postgresql://a@db/x", "login_user": "b"}}).postgres
    assert (postgres.login_user, postgres.login_host) == ("b", "db")


def test_the_environment_counts_only_when_nothing_else_is_said() -> None:
    url = "postgresql://a:secret@elsewhere/x"
    assert made({}, DATABASE_URL=url).postgres.login_host == "elsewhere"
    here = made({"postgres": {"login_host": "here"}}, DATABASE_URL=url).postgres
    assert (here.login_host, here.login_user, here.login_password) == ("here", "", "")
    assert made({"postgres": {"database_url": "postgresql://c"}}, DATABASE_URL=url).postgres.login_host == "c"


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"postgres": {"login_password": "hunter2"}}',
        '{"postgres": {"login_password": 12345678}}',
        '{"postgres": {"database_url": "postgresql://u:hunter2@db/x"}}',
        '{"postgres": {"database_url": "postgresql://db/x?password=hunter2"}}',
        '{"s3": {"bucket": "b", "secret_key": "hunter2", "access_key": "a"}}',
    ],
)
@pytest.mark.parametrize(("mode", "allowed"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_file_with_a_secret_must_be_private(tmp_path: Path, text: str, mode: int, allowed: bool) -> None:
    path = write(tmp_path / "c.json", text, mode)
    if allowed:
        assert read(path)
        return
    with pytest.raises(UsageError, match=r"open to others .*chmod 600"):
        read(path)


def test_a_file_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    assert read(write(tmp_path / "c.json", '{"postgres": {"database_url": "postgresql://u@db/x"}}', 0o644))


def test_a_malformed_uri_in_a_file_is_an_error_with_a_path_and_not_a_crash(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", '{"postgres": {"database_url": "postgresql://u:hunter2@[::1/x"}}')
    with pytest.raises(UsageError, match=r"postgres\.database_url: not a connection URI"):
        load(path, environ={}, host="h")


@pytest.mark.parametrize("content", ["hunter2", "hunter2\n", "hunter2\nsecond line\n"])
def test_a_password_file_gives_its_first_line(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "password", content)
    assert made({"postgres": {"login_password_file": str(path)}}).postgres.login_password == "hunter2"


def test_a_url_file_gives_the_whole_connection(tmp_path: Path) -> None:
    path = write(tmp_path / "url", "postgresql://u:hunter2@db/x\n")
    postgres = made({"postgres": {"database_url_file": str(path)}}).postgres
    assert (postgres.login_host, postgres.login_password) == ("db", "hunter2")


def test_a_secret_file_that_is_open_or_missing_is_named_with_its_key(tmp_path: Path) -> None:
    path = write(tmp_path / "password", "hunter2", 0o644)
    found = errors_of({"postgres": {"login_password_file": str(path)}})
    assert found[0].startswith("postgres.login_password_file: %s is open to others (mode 0644)" % path)
    found = errors_of({"postgres": {"login_password_file": str(tmp_path / "none")}})
    assert found[0].startswith("postgres.login_password_file: ")


def test_the_redactor_is_told_every_secret() -> None:
    config = made(
        {
            "postgres": {"database_url": "postgresql://u:p%40ssword@db/x"},
            "s3": {"bucket": "b", "access_key": "AKIA1234", "secret_key": "s3cr3t-key", "session_token": "t0ken-x"},
        }
    )
    assert {"p@ssword", "p%40ssword", "AKIA1234", "s3cr3t-key", "t0ken-x"} <= set(secrets_of(config))


def test_a_watcher_hears_of_what_is_scheduled_where_it_can_tell_the_verbs_apart() -> None:
    bare, placed = Config(), Config(s3=S3(bucket="b"))
    assert bare.watched_verbs(apart=True) == ["backup", "verify"]
    assert placed.watched_verbs(apart=True) == ["backup", "sync", "verify"]
    assert placed.watched_verbs(apart=False) == ["backup"]
    unscheduled = dataclasses.replace(placed, schedule=Schedule(sync="", verify="", backup=""))
    assert unscheduled.watched_verbs(apart=True) == ["backup"]
    named = dataclasses.replace(placed, alerts=Alerts(watched=["prune"]))
    assert named.watched_verbs(apart=True) == named.watched_verbs(apart=False) == ["prune"]
