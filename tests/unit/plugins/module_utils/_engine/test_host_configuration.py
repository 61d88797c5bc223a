# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration on a host: whole, private, and read back to the letter by those who use it."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.alerts.channels import channels
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import RefusedError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import Redactor
from ansible_collections.pgops.backup.plugins.module_utils._engine.host import configuration
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.changes import Host
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.configuration import (
    Request,
    inline_secrets,
    lay_down,
    take_away,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.emit import to_yaml
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.runner import Runner

HOSTILE = "p'a\"s$s%w#ö\\ =:;x[]{}"
# What YAML can hold at all: no lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-(10**12), 10**12), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=12,
)


def me() -> dict[str, str]:
    return {"account": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def content(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "instance": "db1-main",
        "local": {"path": str(tmp_path / "disk" / "backups")},
        "state_dir": str(tmp_path / "state"),
        "log_dir": str(tmp_path / "log"),
        **more,
    }


def request(tmp_path: Path, *, secrets: dict[str, str] | None = None, **more: Any) -> Request:
    return Request(tmp_path / "etc" / "config.yml", content(tmp_path, **more), secrets or {}, **me())


def lay(wanted: Request, *, dry_run: bool = False) -> dict[str, Any]:
    host = Host(dry_run=dry_run)
    return {**lay_down(host, wanted, name="db1"), "warnings": host.warnings}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- YAML -------------------------------------------------------------------------------------------------------------


@given(data=st.dictionaries(TEXTS, VALUES, max_size=5))
def test_any_data_is_read_back_by_yaml(data: dict[str, Any]) -> None:
    assert (yaml.safe_load(to_yaml(data)) or {}) == data


def test_what_is_written_reads_well() -> None:
    data = {
        "backup": {"databases": ["shop", "no"], "jobs": 2},
        "verify": {"assertions": [{"database": "x", "sql": "y"}]},
    }
    assert to_yaml(data) == (
        'backup:\n  databases:\n    - "shop"\n    - "no"\n  jobs: 2\n'
        'verify:\n  assertions:\n    - database: "x"\n      sql: "y"\n'
    )


# --- laying it down ---------------------------------------------------------------------------------------------------


def test_the_engine_reads_what_was_laid_down(tmp_path: Path) -> None:
    wanted = request(
        tmp_path,
        secrets={"postgres_password": HOSTILE, "s3_access_key": "AKIA", "s3_secret_key": HOSTILE, "database_url": ""},
        s3={"bucket": "b"},
        backup={"databases": ["a: b # c", "yes", "%"]},
    )
    result = lay(wanted)
    assert result["changed"]
    loaded = config.load(wanted.path, environ={}, host="db1")
    assert loaded.postgres.login_password == HOSTILE
    assert loaded.backup.databases == ["a: b # c", "yes", "%"]
    assert loaded.instance == result["instance"] == "db1-main"
    assert HOSTILE not in str(result)
    for path in result["files"]:
        assert mode(Path(path)) == 0o600
    for folder in result["directories"]:
        assert mode(Path(folder)) == 0o750
    assert mode(tmp_path / "etc" / "secrets") == 0o700
    # Other accounts must be able to pass what leads there.
    assert mode(tmp_path / "disk") == 0o755


def test_botocore_reads_the_credentials_to_the_letter(tmp_path: Path) -> None:
    secrets = {"s3_access_key": "AK#IA", "s3_secret_key": HOSTILE, "s3_session_token": "a=b%(c)s;d#e"}
    wanted = request(tmp_path, secrets=secrets, s3={"bucket": "b", "profile": "backup"})
    lay(wanted)
    session = botocore.session.Session()
    session.set_config_variable("credentials_file", str(tmp_path / "etc" / "secrets" / "config.aws_credentials"))
    session.set_config_variable("profile", "backup")
    found = session.get_credentials()
    assert found is not None
    assert (found.access_key, found.secret_key, found.token) == tuple(secrets.values())


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30))
def test_any_secret_in_one_line_comes_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("host")
    wanted = request(tmp_path, secrets={"postgres_password": text})
    if text != text.strip():
        with pytest.raises(UsageError, match="begins or ends with a blank"):
            lay(wanted)
        return
    lay(wanted)
    assert config.load(wanted.path, environ={}, host="db1").postgres.login_password == text


def test_a_second_run_changes_nothing_and_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    wanted = request(tmp_path, secrets={"postgres_password": "x y"})
    planned = lay(wanted, dry_run=True)
    assert not list(tmp_path.iterdir())
    made = lay(wanted)
    assert planned["diff"] == made["diff"]
    before = tree(tmp_path)
    again = lay(wanted)
    assert (again["changed"], again["diff"], again["removed"]) == (False, [], [])
    assert tree(tmp_path) == before


def test_a_mode_or_a_content_that_somebody_changed_is_set_right(tmp_path: Path) -> None:
    wanted = request(tmp_path, secrets={"postgres_password": "secret-word"})
    lay(wanted)
    password = tmp_path / "etc" / "secrets" / "config.postgres_password"
    password.chmod(0o644)
    (tmp_path / "state").chmod(0o777)
    changed = {entry["before_header"] for entry in lay(wanted)["diff"]}
    assert changed == {str(password), str(tmp_path / "state")}
    assert (mode(password), mode(tmp_path / "state")) == (0o600, 0o750)


def test_a_diff_shows_the_configuration_and_no_secret(tmp_path: Path) -> None:
    lay(request(tmp_path, secrets={"postgres_password": "the-old-word"}))
    shown = str(
        lay(request(tmp_path, secrets={"postgres_password": "the-new-word"}, work_dir=str(tmp_path / "w")))["diff"]
    )
    assert "the-old-word" not in shown
    assert "the-new-word" not in shown
    assert "(another secret)" in shown
    assert "work_dir" in shown


def test_a_secret_that_is_not_given_any_more_is_removed(tmp_path: Path) -> None:
    lay(
        request(
            tmp_path, secrets={"postgres_password": "x", "s3_access_key": "a", "s3_secret_key": "b"}, s3={"bucket": "b"}
        )
    )
    other = tmp_path / "etc" / "secrets" / "other.postgres_password"
    other.write_text("of another instance\n")
    result = lay(request(tmp_path, secrets={"postgres_password": "x"}))
    assert result["removed"] == [str(tmp_path / "etc" / "secrets" / "config.aws_credentials")]
    assert other.exists()


def test_credentials_without_a_bucket_are_told_and_left(tmp_path: Path) -> None:
    result = lay(request(tmp_path, secrets={"s3_access_key": "a", "s3_secret_key": "b"}))
    assert "no section s3" in " ".join(result["warnings"])
    assert result["files"] == [str(tmp_path / "etc" / "config.yml")]


def test_what_lies_in_the_directories_stays_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "disk" / "backups" / "db1" / "sets"
    kept.mkdir(parents=True, mode=0o700)
    kept.chmod(0o711)
    lay(request(tmp_path))
    assert mode(kept) == 0o711


# --- errors -----------------------------------------------------------------------------------------------------------


def test_every_error_is_told_at_once_and_nothing_was_touched(tmp_path: Path) -> None:
    wanted = request(
        tmp_path,
        secrets={"postgres_password": "two\nlines", "database_url": " u ", "s3_access_key": "only one"},
        s3={"bukcet": "b", "access_key": "AKIAINLINE"},
        backup={"jobs": "many"},
        schedule={"backup": "0 25 * * *", "timezone": "Mars/Olympus"},
        postgres={"login_password": "inline-word", "database_url_file": "/etc/url"},
    )
    with pytest.raises(UsageError) as caught:
        lay(wanted)
    # As it is shown: what looks like a password with its value would be masked.
    said = Redactor().text(str(caught.value))
    for part in (
        "secrets: postgres_password holds a line break",
        "secrets: database_url begins or ends with a blank",
        "s3_access_key and s3_secret_key go together",
        "s3.bukcet: unknown key. Did you mean bucket?",
        "content holds a secret (s3.access_key)",
        "content holds a secret (postgres.login_password)",
        "postgres.database_url_file: the option secrets gives the same",
        "backup.jobs: expected a whole number",
        "schedule.backup: '0 25 * * *' is not a calendar",
        "schedule.timezone: 'Mars/Olympus' is no time zone",
    ):
        assert part in said, part
    assert "inline-word" not in said
    assert "AKIAINLINE" not in said
    assert not list(tmp_path.iterdir())


def test_secrets_in_the_content_are_found_wherever_one_may_stand() -> None:
    found = inline_secrets(
        {
            "postgres": {"login_password": ["deep", {"er": "still"}], "database_url": "postgresql://u:pw@h/d"},
            "s3": {"secret_key": "k"},
        }
    )
    assert set(found) == {"deep", "still", "postgresql://u:pw@h/d", "k"}
    assert list(inline_secrets({"postgres": {"database_url": "postgresql://u@h/d"}, "s3": None})) == []
    assert list(inline_secrets({"postgres": "nonsense"})) == []


@pytest.mark.parametrize("path", ["/", "/var/lib", "/var/log/", "/home", "/var/lib/postgresql", "/tmp/../etc"])
def test_a_directory_of_the_system_is_not_given_away(tmp_path: Path, path: str) -> None:
    with pytest.raises(RefusedError, match="belongs to the system"):
        lay(request(tmp_path, local={"path": path}))
    assert not list(tmp_path.iterdir())


def test_a_work_directory_that_all_share_is_left_as_it_is(tmp_path: Path) -> None:
    assert "/var/tmp" not in lay(request(tmp_path, work_dir="/var/tmp"))["directories"]


@pytest.mark.parametrize("path", ["config.yml", "/etc/pgops", "/etc/pgops/config"])
def test_a_path_that_is_no_configuration_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="is not the full path"):
        lay_down(Host(), Request(Path(path)), name="db1")


def test_a_file_in_the_way_of_a_directory_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(RefusedError, match="to be a directory"):
        lay(request(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def test_an_account_that_is_missing_is_an_error_and_in_a_dry_run_a_warning(tmp_path: Path) -> None:
    wanted = Request(tmp_path / "etc" / "config.yml", content(tmp_path), account="nobody-of-that-name")
    with pytest.raises(UsageError, match="no account nobody-of-that-name"):
        lay(wanted)
    assert "no account" in lay(wanted, dry_run=True)["warnings"][0]
    assert not list(tmp_path.iterdir())


def test_a_secret_file_of_ones_own_that_is_missing_is_an_error_and_in_a_dry_run_a_warning(tmp_path: Path) -> None:
    wanted = request(tmp_path, postgres={"login_password_file": str(tmp_path / "none")})
    with pytest.raises(UsageError, match="cannot be read"):
        lay(wanted)
    assert "is not there" in lay(wanted, dry_run=True)["warnings"][0]


def test_backups_on_the_disk_of_the_data_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data" / "17" / "main"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    monkeypatch.setattr(configuration, "_DATA_DIRECTORIES", (str(tmp_path / "data" / "*" / "*"),))
    assert "same file system" in lay(request(tmp_path))["warnings"][0]
    assert not lay(request(tmp_path, postgres={"login_host": "db2.example.com"}))["warnings"]


# --- taking it away ---------------------------------------------------------------------------------------------------


def test_taking_away_leaves_what_the_configuration_led_to(tmp_path: Path) -> None:
    wanted = request(tmp_path, secrets={"postgres_password": "x"})
    lay(wanted)
    (tmp_path / "state" / "run.json").write_text("{}")
    planned = take_away(Host(dry_run=True), wanted.path)
    assert wanted.path.exists()
    result = take_away(Host(), wanted.path)
    assert result["removed"] == planned["removed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "log", "state"]
    assert not take_away(Host(), wanted.path)["changed"]


def test_taking_one_instance_away_leaves_the_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        wanted = Request(tmp_path / "etc" / ("%s.yml" % name), content(tmp_path), {"postgres_password": name}, **me())
        lay(wanted)
    take_away(Host(), tmp_path / "etc" / "one.yml")
    assert sorted(tree(tmp_path / "etc")) == [
        str(tmp_path / "etc" / "secrets" / "two.postgres_password"),
        str(tmp_path / "etc" / "two.yml"),
    ]


def test_a_configuration_that_somebody_wrote_by_hand_stays(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    ours, theirs, link = etc / "config.yml", etc / "fleet.yml", etc / "link.yml"
    lay(Request(ours, content(tmp_path), {"postgres_password": "pw"}, **me()))
    theirs.write_text("# by hand\ninstance: fleet\n")
    link.symlink_to(ours)
    for path in (theirs, link):
        host = Host()
        result = take_away(host, path)
        assert (result["changed"], result["removed"]) == (False, [])
        assert host.warnings == ["%s is not of pgops_config and stays." % path]
    assert take_away(Host(), ours)["changed"]
    assert sorted(path.name for path in etc.iterdir()) == ["fleet.yml", "link.yml"]
    assert not take_away(Host(), ours)["changed"]


def test_configurations_of_instances_that_are_no_more_go_with_their_secrets(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    one, old = etc / "one.yml", etc / "old.yml"
    for path in (one, old):
        lay(Request(path, content(tmp_path, instance=path.stem), {"postgres_password": "pw"}, **me()))
    (etc / "theirs.yml").write_text("# by hand\n")
    wanted = Request(one, content(tmp_path, instance="one"), {"postgres_password": "pw"}, instances=[one], **me())
    before = tree(etc)
    assert lay(wanted, dry_run=True)["changed"] is True
    assert tree(etc) == before
    assert lay(wanted)["removed"] == [str(old), str(etc / "secrets" / "old.postgres_password")]
    assert set(tree(etc)) == {
        "/".join([str(etc), name]) for name in ("one.yml", "theirs.yml", "secrets/one.postgres_password")
    }
    assert lay(wanted)["changed"] is False


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("postgresql.auto.conf", "archive_command = '/usr/local/bin/pgops-wal wal archive --config %s %%p'"),
        ("postgresql.conf", "  archive_command='/usr/local/bin/pgops wal archive --config ''%s'' %%p'  # since spring"),
        ("patroni.yml", '    archive_command: "/usr/local/bin/pgops wal archive --config %s %%p"'),
        ("pgops_wal_ship@old.service", "ExecStart=/usr/local/bin/pgops wal ship --loop --config %s"),
    ],
)
def test_a_configuration_by_which_wal_is_archived_stays_and_that_is_told(tmp_path: Path, file: str, line: str) -> None:
    etc = tmp_path / "etc"
    one, old = etc / "one.yml", etc / "old.yml"
    for path in (one, old):
        lay(Request(path, content(tmp_path, instance=path.stem), **me()))
    server = tmp_path / "server" / file
    server.parent.mkdir()
    where = [str(tmp_path / "server" / "*")]
    wanted = Request(one, content(tmp_path, instance="one"), instances=[one], archiving=where, **me())
    server.write_text("port = 5433\n%s\n" % (line % old))
    host = Host()
    result = lay_down(host, wanted, name="db1")
    assert (result["changed"], result["removed"], result["staying"]) == (False, [], [str(old)])
    assert old.exists()
    (said,) = [warning for warning in host.warnings if str(old) in warning]
    assert str(server) in said
    # A remark, and the file of another one whose name begins like it, archive nothing by it.
    server.write_text("# %s\n%s\n" % (line % old, line % (str(old) + "er")))
    done = lay(wanted)
    assert (done["removed"], done["staying"]) == ([str(old)], [])


@pytest.mark.parametrize(
    ("file", "line", "listed", "told"),
    [
        # The first instance of a host that gets a second one: its file has another name now, which its server hears of later.
        (
            "a.conf",
            "archive_command = 'pgops wal archive --config %s %%p'",
            ["old"],
            "gives the server of old its new one",
        ),
        ("a.conf", "archive_command = 'pgops wal archive --config %s %%p'", [], "wal_archive_state: absent"),
        # Of an instance that was renamed, whose server archives under the new name: that is not to be ended.
        (
            "pgops_wal_ship@old.service",
            "ExecStart=/x/pgops wal ship --loop --config %s",
            [],
            "systemctl disable --now ",
        ),
    ],
)
def test_what_is_to_be_done_about_it_fits_the_case(
    tmp_path: Path, file: str, line: str, listed: list[str], told: str
) -> None:
    etc = tmp_path / "etc"
    one, old = etc / "one.yml", etc / "config.yml"
    lay(Request(old, content(tmp_path, instance="old"), **me()))
    (tmp_path / file).write_text("%s\n" % (line % old))
    host = Host()
    paths = [one, *(etc / ("%s.yml" % name) for name in listed)]
    where = [str(tmp_path / "*.conf"), str(tmp_path / "*.service")]
    lay_down(
        host, Request(one, content(tmp_path, instance="one"), instances=paths, archiving=where, **me()), name="db1"
    )
    (said,) = [warning for warning in host.warnings if str(old) in warning]
    assert told in said
    assert ("wal_archive_state: absent" in said) is (told == "wal_archive_state: absent")


# --- alerts -----------------------------------------------------------------------------------------------------------

ALERT_SECRETS = {
    "slack_webhook_url": "https://hooks.example.com/services/T0/B0/x" + HOSTILE.replace(" ", ""),
    "pagerduty_routing_key": "k" * 32,
    "sentry_dsn": "https://k@sentry.example.com/1",
    "smtp_password": HOSTILE,
    "webhook_url": "https://hook.example.com/token",
    "webhook_secret": HOSTILE,
    "heartbeat_url": "https://hc.example.com/ping/{verb}",
    "apprise_urls": "json://a.example.com tgram://token/chat",
}


def test_the_secrets_of_alerts_turn_their_channels_on(tmp_path: Path) -> None:
    wanted = request(tmp_path, secrets=ALERT_SECRETS, alerts={"email": {"to": ["a@example.com"], "user": "u"}})
    result = lay(wanted)
    read = config.load(wanted.path, environ={}, host="db1")
    assert read.alerts.channels() == ["slack", "pagerduty", "sentry", "email", "webhook", "heartbeat", "apprise"]
    assert read.alerts.email.user == "u"
    found = channels(read, Runner())
    keys = {"slack": ["webhook_url"], "email": ["password"], "webhook": ["url", "secret"], "apprise": ["urls"]}
    names = {"slack.webhook_url": "slack_webhook_url", "email.password": "smtp_password", "webhook.url": "webhook_url"}
    names.update({"webhook.secret": "webhook_secret", "apprise.urls": "apprise_urls"})
    for channel in found:
        for key in keys.get(channel.name, []):
            assert channel.secret(key) == ALERT_SECRETS[names["%s.%s" % (channel.name, key)]]
    for path in result["files"]:
        assert mode(Path(path)) == 0o600
    text = wanted.path.read_text() + str(result["config"])
    for secret in ALERT_SECRETS.values():
        assert secret not in text
    assert result["config"]["alerts"]["slack"]["webhook_url_file"].endswith("config.slack_webhook_url")
    assert not lay(wanted)["changed"]
    lay(request(tmp_path))
    assert not (wanted.path.parent / "secrets" / "config.slack_webhook_url").exists()


def test_a_secret_of_alerts_stands_in_no_content(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        lay(request(tmp_path, alerts={"slack": {"webhook_url": "https://hooks.example.com/secret-words"}}))
    assert "content holds a secret (alerts.slack.webhook_url)" in caught.value.message
    assert "secret-words" not in str(caught.value)
    twice = {"slack": {"webhook_url_file": "/etc/other"}}
    with pytest.raises(UsageError, match=r"alerts\.slack\.webhook_url_file: the option secrets gives the same"):
        lay(request(tmp_path, secrets={"slack_webhook_url": "https://h"}, alerts=twice))


# --- another account --------------------------------------------------------------------------------------------------


def untouched(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What changes when somebody writes below `folder`; reading leaves it."""
    facts = {path: path.stat() for path in folder.rglob("*")}
    return {path: (f.st_ino, f.st_mode, f.st_uid, f.st_gid, f.st_size, f.st_ctime_ns) for path, f in facts.items()}


@pytest.mark.parametrize("place", ["state", "disk/backups"])
def test_what_another_account_left_is_told_before_anything_is_touched(tmp_path: Path, place: str) -> None:
    wanted = request(tmp_path)
    lay(wanted)
    (tmp_path / place / "db1-main").mkdir()
    (tmp_path / "log" / "it's.log").touch()
    assert lay(wanted)["changed"] is False
    before = untouched(tmp_path)
    # Whoever that is, it is nobody who has made what is there.
    other = next(one for one in pwd.getpwall() if one.pw_uid not in (0, os.geteuid()))
    group = grp.getgrgid(other.pw_gid).gr_name
    with pytest.raises(RefusedError) as refused:
        lay(dataclasses.replace(wanted, account=other.pw_name, group=group))
    assert "%s is not of the account %s" % (tmp_path / place / "db1-main", other.pw_name) in refused.value.message
    command = "chown -R --from=%s %s:%s %s " % (me()["account"], other.pw_name, group, tmp_path / place / "db1-main")
    assert command + shlex.quote(str(tmp_path / "log" / "it's.log")) in refused.value.hint
    assert untouched(tmp_path) == before


def test_a_directory_that_the_account_may_write_in_is_in_order_whosever_it_is(tmp_path: Path) -> None:
    """As a share that is mounted there, all of which belongs to somebody else."""
    other = next(one for one in pwd.getpwall() if one.pw_uid not in (0, os.geteuid()))
    wanted = request(tmp_path)
    lay(wanted)
    shared = tmp_path / "disk" / "backups" / "db1-main"
    shared.mkdir()
    wanted = dataclasses.replace(wanted, account=other.pw_name, group=grp.getgrgid(other.pw_gid).gr_name)
    shared.chmod(0o755)
    with pytest.raises(RefusedError):
        lay(wanted, dry_run=True)
    shared.chmod(0o777)
    assert lay(wanted, dry_run=True)["changed"] is True


# --- metrics ----------------------------------------------------------------------------------------------------------


def of_instance(tmp_path: Path, name: str, stem: str, **more: Any) -> Request:
    made = request(tmp_path, **{"instance": name, "metrics": {"textfile_directory": str(tmp_path / "told")}, **more})
    return dataclasses.replace(made, path=tmp_path / "etc" / ("%s.yml" % stem))


@pytest.fixture(name="told")
def metrics_of_two(tmp_path: Path) -> Path:
    folder = tmp_path / "told"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / ("pgops-%s.prom" % name)).write_text("pgops_up 1\n")
        lay(of_instance(tmp_path, name, name))
    return folder


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_numbers_of_an_instance_go_with_it(tmp_path: Path, told: Path) -> None:
    alone = of_instance(tmp_path, "a", "config")
    alone = dataclasses.replace(alone, instances=[alone.path])
    lay(alone, dry_run=True)
    assert there(told) == ["pgops-a.prom", "pgops-b.prom"]
    lay(alone)
    assert there(told) == ["pgops-a.prom"], "no exporter tells of it for ever"
    assert lay(alone)["changed"] is False
    take_away(Host(), alone.path)
    assert there(told) == []


def test_of_one_that_only_has_another_file_the_numbers_stay(tmp_path: Path, told: Path) -> None:
    (tmp_path / "etc" / "b.yml").unlink()
    (tmp_path / "etc" / "a.yml").rename(tmp_path / "etc" / "config.yml")
    paths = [tmp_path / "etc" / "a.yml", tmp_path / "etc" / "b.yml"]
    lay(of_instance(tmp_path, "a", "a"))
    lay(dataclasses.replace(of_instance(tmp_path, "b", "b"), instances=paths))
    assert not (tmp_path / "etc" / "config.yml").exists()
    assert there(told) == ["pgops-a.prom", "pgops-b.prom"]


def test_where_the_numbers_go_elsewhere_or_nowhere_the_former_ones_go(tmp_path: Path, told: Path) -> None:
    (tmp_path / "etc" / "b.yml").write_text("no: [configuration")
    lay(of_instance(tmp_path, "a", "a", metrics={"textfile_directory": ""}))
    lay(of_instance(tmp_path, "b", "b"))
    assert there(told) == ["pgops-b.prom"]


def test_one_of_several_that_writes_elsewhere_leaves_no_numbers_behind(tmp_path: Path, told: Path) -> None:
    both = [tmp_path / "etc" / "a.yml", tmp_path / "etc" / "b.yml"]
    elsewhere = of_instance(tmp_path, "a", "a", metrics={"textfile_directory": str(tmp_path / "elsewhere")})
    lay(dataclasses.replace(elsewhere, instances=both))
    assert there(told) == ["pgops-b.prom"]


def test_no_file_elsewhere_goes_by_what_a_configuration_calls_its_instance(tmp_path: Path, told: Path) -> None:
    (told / "pgops-").mkdir()
    (tmp_path / "other.prom").write_text("1\n")
    path = tmp_path / "etc" / "a.yml"
    path.write_text(re.sub("(?m)^instance: .*", "instance: /../../other", path.read_text()))
    take_away(Host(), path)
    assert (tmp_path / "other.prom").exists()
