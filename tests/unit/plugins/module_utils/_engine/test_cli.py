# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine import __version__
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import commands, invocation, options, parser
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import main as cli
from ansible_collections.pgops.backup.plugins.module_utils._engine.config import DEFAULT_PATH, build
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Reporter
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import errors
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import MASK
from ansible_collections.pgops.backup.plugins.module_utils._engine.masking import holds_secret, masked
from ansible_collections.pgops.backup.plugins.module_utils._engine.system.account import become_owner


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    data = {
        "instance": "db1",
        "postgres": {"login_port": 1, "login_host": "127.0.0.1", "login_password": "hunter22"},
        "local": {"path": str(tmp_path / "backups")},
        "state_dir": str(tmp_path / "state"),
        "log_dir": "",
    }
    path.write_text(json.dumps(data))
    path.chmod(0o600)
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    return (code, *capfd.readouterr())


# --- options ----------------------------------------------------------------------------------------------------------


def test_every_verb_has_help_with_examples_and_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    for name, *_unused in options.VERBS:
        code, out, err = run(capfd, name, "--help")
        # A plugin that only shows its help has checked nothing, which is UNKNOWN.
        assert (code, err) == (3 if name == "check" else 0, "")
        assert "examples:\n  pgops %s" % name in out or name in ("info", "version", "verify", "sync"), name
        assert "5  refused for safety" in out


def test_every_example_of_the_help_can_be_parsed() -> None:
    for _unused, _unused, _unused, text in options.VERBS:
        for line in text.splitlines():
            if line.startswith("pgops "):
                command = re.split(r"\s{3,}|\s>\s", line)[0]
                words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)[1:]]
                assert options.parse(words).verb in {name for name, *_unused in options.VERBS}


def test_the_default_configuration_is_the_documented_one() -> None:
    assert parser.DEFAULT_CONFIG == DEFAULT_PATH


def test_every_context_of_a_run_knows_its_file(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that recovers reads the same, wherever it runs."""
    monkeypatch.chdir(config_file.parent)
    made = invocation.Run(options.parse(["status", "-c", config_file.name, "--as-root"]), Reporter())
    made.begin()
    assert [made.context.config_file, made.new_context().config_file] == [str(config_file)] * 2
    assert made.new_context().reporter is made.reporter


def test_common_options_stand_before_and_after_the_verb() -> None:
    for arguments in (
        ["--json", "-c", "/a", "--set", "a=1", "backup", "--set", "b=2"],
        ["backup", "--json", "-c", "/a", "--set", "a=1", "--set", "b=2"],
    ):
        parsed = options.parse(arguments)
        assert (parsed.json, parsed.config, parsed.overrides) == (True, "/a", ["a=1", "b=2"])
    assert options.parse(["list"]).verb == "info"
    assert options.parse(["--version"]).verb == "version"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bakcup"],
        ["backup", "--dry"],
        ["backup", "--quiet", "--verbose"],
        ["--quiet", "backup", "--verbose"],
        ["restore", "--jobs", "-1"],
        ["restore", "--jobs", "1000"],
        ["restore", "--rename", "old"],
        ["pin", "latest"],
        ["config", "--check", "--example"],
    ],
)
def test_wrong_usage_is_2_with_a_hint_and_one_json_result(
    capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"pgops: [^\n]+\.\n  → [^\n]+\n", err)
    code, out, err = run(capfd, *arguments, "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["exit_code"] == 2


def test_names_that_look_like_options_can_be_given() -> None:
    parsed = options.parse(["restore", "--database=-x", "--rename", "a=b", "c=d"])
    assert (parsed.database, parsed.rename) == (["-x"], [["a=b", "c=d"]])


# --- overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("backup.jobs=2", {"backup": {"jobs": 2}}),
        ('backup.databases=["a", "b"]', {"backup": {"databases": ["a", "b"]}}),
        ("backup.databases=[a, b]", {"backup": {"databases": ["a", "b"]}}),
        ("instance=db=1", {"instance": "db=1"}),
        ("backup.globals=false", {"backup": {"globals": False}}),
        ("log_dir=", {"log_dir": ""}),
        ("s3=null", {"s3": None}),
        ("instance=2026-11-22", {"instance": "2026-11-22"}),
        ("local.retention.keep_within=7d", {"local": {"retention": {"keep_within": "7d"}}}),
        ("instance={", {"instance": "{"}),
    ],
)
def test_what_set_means(item: str, expected: dict[str, Any]) -> None:
    assert invocation.overrides(options.parse(["backup", "--set", item])) == expected


def test_later_overrides_win_and_sections_merge() -> None:
    parsed = options.parse(
        ["--set", "backup.jobs=1", "backup", "--set", "backup.jobs=2", "--set", "backup.format=plain"]
    )
    assert invocation.overrides(parsed) == {"backup": {"jobs": 2, "format": "plain"}}


@pytest.mark.parametrize(
    "item",
    [
        "postgres.login_password=hunter22",
        'postgres={"login_password": "hunter22"}',
        "s3.secret_key=hunter22",
        "postgres.database_url=postgresql://u:hunter22@h/d",
        "postgres.database_url=postgresql://h/d?password=hunter22",
    ],
)
def test_a_secret_is_refused_in_the_arguments(item: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        invocation.overrides(options.parse(["backup", "--set", item]))
    assert "hunter22" not in str(caught.value)
    assert "file" in caught.value.hint


def test_a_uri_without_a_password_is_no_secret() -> None:
    assert not holds_secret({"postgres": {"database_url": "postgresql://u@h/d"}})


@pytest.mark.parametrize("item", ["jobs", "=2", "backup..jobs=2", ".=1"])
def test_what_is_no_key_and_value(item: str) -> None:
    with pytest.raises(errors.UsageError):
        invocation.overrides(options.parse(["backup", "--set", item]))


def test_an_identity_file_is_found_from_here() -> None:
    found = invocation.overrides(options.parse(["restore", "--identity-file", "key.txt"]))
    assert found == {"restore": {"identity_file": os.path.abspath("key.txt")}}


# --- configuration ----------------------------------------------------------------------------------------------------


def test_config_check_show_and_example(capfd: pytest.CaptureFixture[str], config_file: Path) -> None:
    code, out, _unused = run(capfd, "config", "-c", str(config_file))
    assert (code, "is in order: instance db1" in out) == (0, True)
    code, out, _unused = run(capfd, "config", "--show", "-c", str(config_file), "--set", "backup.jobs=3")
    assert json.loads(out)["backup"]["jobs"] == 3
    assert "hunter22" not in out
    code, out, _unused = run(capfd, "config", "--example")
    assert (code, "login_port" in out) == (0, True)
    code, out, _unused = run(capfd, "config", "--check", "--json", "--set", "x.y=1", "-c", str(config_file))
    assert (code, json.loads(out)["outcome"]) == (2, "misused")


def test_the_configuration_is_named_by_option_then_environment(
    capfd: pytest.CaptureFixture[str], config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPS_CONFIG", str(config_file))
    assert run(capfd, "config")[0] == 0
    code, _unused, err = run(capfd, "config", "--config", "/nowhere.yml")
    assert (code, "/nowhere.yml" in err) == (2, True)


def test_every_secret_is_masked_whatever_its_length() -> None:
    built = build(
        {
            "postgres": {"database_url": "postgresql://u:pw%21@h/d"},
            "s3": {"bucket": "b", "access_key": "AK", "secret_key": "SK", "session_token": "T"},
        },
        environ={},
        host="h",
    )
    shown = masked(built)
    assert shown["postgres"]["login_password"] == MASK
    assert {shown["s3"][key] for key in ("access_key", "secret_key", "session_token")} == {MASK}
    assert "pw" not in json.dumps(shown)


# --- how it speaks ----------------------------------------------------------------------------------------------------


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _unused = run(capfd, "version", "--json")
    assert (code, json.loads(out)["version"]) == (0, __version__)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def call(run: Any) -> Any:
        raise error

    monkeypatch.setattr(commands, "call", call)


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (errors.PgopsError("It failed."), 1, "failed"),
        (errors.UsageError("It is wrong."), 2, "misused"),
        (errors.BusyError("It is busy."), 3, "busy"),
        (errors.UnreachableError("It is away."), 4, "unreachable"),
        (errors.RefusedError("It is unsafe."), 5, "refused"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (ZeroDivisionError("oops"), 1, "failed"),
        (PermissionError(13, "Permission denied", "/x"), 1, "failed"),
    ],
)
def test_exit_codes_are_the_contract(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, outcome: str
) -> None:
    fail_with(monkeypatch, error)
    got, out, err = run(capfd, "backup", "--json")
    result = json.loads(out)
    assert (got, result["exit_code"], result["outcome"], result["verb"]) == (code, code, outcome, "backup")
    assert result["message"]
    assert err == ""
    got, out, err = run(capfd, "backup")
    assert (got, out) == (code, "")
    assert "Traceback" not in err


def test_a_failed_verb_may_tell_details(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors.DamagedError("1 of 2 sets failed.")
    error.details = {"sets": [1, 2], "exit_code": 0, "url": "postgresql://u:hunter22@h/d"}
    fail_with(monkeypatch, error)
    result = json.loads(run(capfd, "verify", "--json")[1])
    assert (result["sets"], result["exit_code"]) == ([1, 2], 1)
    assert "hunter22" not in json.dumps(result)


def test_verbose_shows_where_without_secrets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("postgresql://u:hunter22@h/d"))
    _unused, _unused, err = run(capfd, "backup", "--verbose")
    assert "Traceback" in err
    assert "hunter22" not in err


def test_a_text_that_cannot_be_made_does_not_undo_the_work(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "call", lambda run: commands.Answer({"changed": True}, lambda: {}["missing"]))
    code, out, err = run(capfd, "backup")
    assert (code, json.loads(out)["changed"], err) == (0, True, "")


def test_hostile_names_are_harmless_in_text_and_json(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a\033]0;x\007\udcff"
    monkeypatch.setattr(commands, "call", lambda run: commands.Answer({"name": name}, lambda: name + "\n"))
    assert "\033" not in run(capfd, "backup")[1]
    assert json.loads(run(capfd, "backup", "--json")[1])["name"] == name


def test_quiet_still_answers_questions(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "call", lambda run: commands.Answer({}, lambda: "text\n"))
    assert run(capfd, "backup", "--quiet")[1] == ""
    assert run(capfd, "status", "--quiet")[1] == "text\n"


def test_signals_are_as_they_were_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(capfd, "version")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_signal_does_not_break_into_the_clean_up() -> None:
    with cli.interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# --- the account ------------------------------------------------------------------------------------------------------


def test_nobody_becomes_another_account_without_reason(
    config_file: Path, as_ordinary_user: None, tmp_path: Path
) -> None:
    built = build({"local": {"path": str(tmp_path)}}, environ={}, host="h")
    assert become_owner(built) == ""


def test_root_stays_root_where_the_directory_is_its_own_or_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("we are not root")
    for path in (tmp_path, tmp_path / "missing"):
        assert become_owner(build({"local": {"path": str(path)}}, environ={}, host="h")) == ""
    assert os.geteuid() == 0


# --- start-up ---------------------------------------------------------------------------------------------------------


def test_help_and_completion_import_little(tmp_path: Path) -> None:
    (tmp_path / "pgops").symlink_to(Path(cli.__file__).parents[1])
    script = "import sys; from pgops.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    for arguments in (["--help"], ["restore", "--help"], ["completion", "bash"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, %r); " % str(tmp_path) + script, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        heavy = {
            "psycopg2",
            "boto3",
            "botocore",
            "yaml",
            "pgops.verbs.backup",
            "pgops.verbs.restore",
            "pgops.verbs.verify",
        }
        assert not heavy & set(done.stderr.split()), arguments
