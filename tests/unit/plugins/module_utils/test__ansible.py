# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from a module's options through a verb to exit_json or fail_json."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest

from ansible_collections.pgops.backup.plugins.module_utils import _ansible
from ansible_collections.pgops.backup.plugins.module_utils._engine.context import Context
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    BusyError,
    CommandError,
    PgopsError,
    RefusedError,
    UnreachableError,
    UsageError,
)

SECRET = "p4ss-Wörd:with/all"


class EndedError(Exception):
    """What exit_json and fail_json do here instead of ending the process."""

    def __init__(self, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.failed, self.result = failed, result


class FakeModule:
    """Stands for AnsibleModule: params come from `given`, what was not given is None."""

    given: ClassVar[dict[str, Any]] = {}
    check = False
    diff = False
    made: ClassVar[list[FakeModule]] = []

    def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool, **others: Any) -> None:
        assert supports_check_mode
        self.argument_spec, self.others = argument_spec, others
        self.params = {name: described.get("default") for name, described in argument_spec.items()}
        self.params.update(self.given)
        assert set(self.params) == set(argument_spec), "the test gives an option that the module has not"
        self.check_mode, self._diff = self.check, self.diff
        self.warned: list[str] = []
        self.made.append(self)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def exit_json(self, **result: Any) -> None:
        raise EndedError(False, result)

    def fail_json(self, *, msg: str, **result: Any) -> None:
        raise EndedError(True, {"msg": msg, **result})


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Options that keep everything below tmp_path."""
    return {
        "instance": "db1",
        "backup_dir": str(tmp_path / "backups"),
        "state_dir": str(tmp_path / "state"),
        "log_dir": "",
        "login_password": SECRET,
    }


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> type[FakeModule]:
    """AnsibleModule replaced."""

    class Fresh(FakeModule):
        given = options
        made: ClassVar[list[FakeModule]] = []

    monkeypatch.setattr(_ansible, "AnsibleModule", Fresh)
    return Fresh


def run(work: Any, *sections: str, **others: Any) -> EndedError:
    """Run a task of the verb backup and return how it ended."""
    task = _ansible.Task("backup", _ansible.bindings(*sections))
    with pytest.raises(EndedError) as caught:
        task.run(work, **others)
    return caught.value


def records(options: dict[str, Any]) -> list[dict[str, Any]]:
    """The run records that were left."""
    folder = Path(options["state_dir"]) / "db1" / "runs"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []


# --- options ----------------------------------------------------------------------------------------------------------


def test_the_specification_follows_the_settings() -> None:
    spec = _ansible.argument_spec(_ansible.bindings("backup", "verify"))
    assert spec["login_port"] == {"type": "int", "aliases": ["port"]}
    assert spec["ca_cert"] == {"type": "path", "aliases": ["ssl_rootcert"]}
    assert spec["login_password"] == {"type": "str", "no_log": True}
    assert spec["login_password_file"] == {"type": "path", "no_log": False}
    assert spec["format"] == {"type": "str", "choices": ["auto", "custom", "directory", "plain"]}
    assert spec["ssl_mode"]["choices"][0] == "disable"
    assert spec["databases"] == {"type": "list", "elements": "str"}
    assert spec["retention"]["options"]["keep_within"] == {"type": "str"}
    assert spec["s3"]["options"]["secret_key"] == {"type": "str", "no_log": True}
    assert spec["s3"]["options"]["tags"] == {"type": "dict"}
    assert spec["s3"]["options"]["retention"]["options"]["keep_daily"] == {"type": "int"}
    assert spec["assertions"]["options"]["sql"] == {"type": "str", "required": True}


def test_no_option_of_the_configuration_has_a_default() -> None:
    def walk(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for described in spec.values():
            yield described
            yield from walk(described.get("options", {}))

    bound = _ansible.bindings("backup", "verify", "restore")
    assert not [described for described in walk(_ansible.argument_spec(bound)) if "default" in described]


# --- configuration ----------------------------------------------------------------------------------------------------


def configured(given: dict[str, Any], *, environ: Optional[dict[str, str]] = None) -> Any:
    bound = _ansible.bindings("backup", "verify", "restore")
    params = {**dict.fromkeys(["config", *bound]), **given}
    return _ansible.configure(params, bound, environ=environ or {}, host="host1.example.com")


def written(tmp_path: Path, data: dict[str, Any], mode: int = 0o600) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    path.chmod(mode)
    return str(path)


def test_without_options_the_defaults_hold() -> None:
    config = configured({})
    assert (config.instance, config.local.path, config.s3) == ("host1.example.com-5432", "/backups/postgres", None)
    assert config.local.retention.keep_within == "7d"


def test_options_lie_over_the_file(tmp_path: Path) -> None:
    said = {
        "instance": "from-file",
        "postgres": {"login_host": "old", "login_user": "backup"},
        "backup": {"databases": ["a", "b"], "globals": True, "compression_level": 3},
        "local": {"path": "/srv", "retention": {"keep_daily": 5, "keep_last": 9}},
        "s3": {"bucket": "one", "prefix": "p", "retention": {"keep_monthly": 12}},
    }
    config = configured(
        {
            "config": written(tmp_path, said),
            "login_host": "new",
            "databases": [],
            "globals": False,
            "compression_level": 0,
            "retention": {"keep_within": "2d", "keep_daily": None, "keep_last": None},
            "s3": {"bucket": "two", "prefix": None, "retention": {"keep_daily": 4, "keep_monthly": None}},
        }
    )
    assert (config.instance, config.postgres.login_host, config.postgres.login_user) == ("from-file", "new", "backup")
    # What is empty, false or zero was given all the same.
    assert (config.backup.databases, config.backup.globals, config.backup.compression_level) == ([], False, 0)
    assert (config.local.path, config.local.retention.keep_within) == ("/srv", "2d")
    assert (config.local.retention.keep_daily, config.local.retention.keep_last) == (5, 9)
    assert config.s3 is not None
    assert (config.s3.bucket, config.s3.prefix) == ("two", "p")
    assert (config.s3.retention.keep_daily, config.s3.retention.keep_monthly) == (4, 12)
    assert config.s3.retention.keep_within == "30d"


@pytest.mark.parametrize(
    ("in_file", "option", "shown"),
    [
        ({"database_url_file": "/no/such/file"}, {"database_url": "postgresql://me@db2/app"}, ("db2", "me", "")),
        ({"login_password_file": "/no/such/file"}, {"login_password": SECRET, "login_host": "h"}, ("h", "", SECRET)),
        ({"login_password": "old", "login_host": "h"}, {"login_password_file": "KEPT"}, ("h", "", "new")),
    ],
)
def test_an_option_makes_its_rival_in_the_file_void(
    tmp_path: Path, in_file: dict[str, str], option: dict[str, str], shown: tuple[str, str, str]
) -> None:
    kept = tmp_path / "password"
    kept.write_text("new\n")
    kept.chmod(0o600)
    given = {key: str(kept) if value == "KEPT" else value for key, value in option.items()}
    postgres = configured({"config": written(tmp_path, {"postgres": in_file}), **given}).postgres
    assert (postgres.login_host, postgres.login_user, postgres.login_password) == shown


def test_the_environment_gives_the_address_only_when_nothing_else_does() -> None:
    environ = {"DATABASE_URL": "postgresql://envuser@envhost/db"}
    assert configured({}, environ=environ).postgres.login_host == "envhost"
    assert configured({"login_host": "mine"}, environ=environ).postgres.login_host == "mine"


def test_all_errors_are_told_at_once_with_the_names_of_the_options(tmp_path: Path) -> None:
    path = written(tmp_path, {"backup": {"formt": "plain"}})
    with pytest.raises(UsageError) as caught:
        configured({"config": path, "jobs": 0, "login_port": 70000, "backup_dir": "relative"})
    for part in ("formt", "Did you mean format", "postgres.login_port", "local.path", path):
        assert part in caught.value.message
    assert "backup_dir (local.path)" in caught.value.hint


def test_a_file_with_a_secret_must_be_private(tmp_path: Path) -> None:
    path = written(tmp_path, {"postgres": {"login_password": SECRET}}, mode=0o644)
    with pytest.raises(UsageError, match="open to others") as caught:
        configured({"config": path})
    assert SECRET not in str(caught.value)


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_has_what_every_verb_has_and_is_recorded(fake: type[FakeModule], options: dict[str, Any]) -> None:
    def work(context: Context) -> dict[str, Any]:
        context.warn("something was guessed")
        return {"changed": True, "set": "x"}

    ended = run(work)
    assert not ended.failed
    result = ended.result
    assert result["changed"] is True
    assert (result["verb"], result["instance"], result["dry_run"], result["set"]) == ("backup", "db1", False, "x")
    assert {"begun", "ended", "seconds"} <= set(result)
    # Ansible has a key `warnings` of its own.
    assert "warnings" not in result
    assert result["run_warnings"] == ["something was guessed"]
    assert fake.made[-1].warned == ["something was guessed"]
    assert [record["outcome"] for record in records(options)] == ["ok"]


def test_a_run_knows_the_file_of_its_configuration(
    fake: type[FakeModule], options: dict[str, Any], tmp_path: Path
) -> None:
    assert run(lambda context: {"file": context.config_file}).result["file"] == ""
    options["config"] = written(tmp_path, {})
    assert run(lambda context: {"file": context.config_file}).result["file"] == options["config"]


def test_check_mode_leaves_nothing(fake: type[FakeModule], options: dict[str, Any], tmp_path: Path) -> None:
    fake.check = True
    ended = run(lambda _context: {"changed": True, "plan": {}})
    assert (ended.failed, ended.result["dry_run"], ended.result["changed"]) == (False, True, True)
    assert list(tmp_path.iterdir()) == []


def test_a_verb_that_only_looks_leaves_no_record(fake: type[FakeModule], options: dict[str, Any]) -> None:
    ended = run(lambda _context: {}, recorded=False)
    assert (ended.result["dry_run"], ended.result["changed"]) == (False, False)
    assert records(options) == []


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (PgopsError("It failed.", hint="Mend it."), "failed", 1),
        (UsageError("It is wrong.", hint="Mend it."), "misused", 2),
        (BusyError("It is busy.", hint="Mend it."), "busy", 3),
        (UnreachableError("It is away.", hint="Mend it."), "unreachable", 4),
        (RefusedError("It is unsafe.", hint="Mend it."), "refused", 5),
    ],
)
def test_an_error_becomes_a_sentence_with_what_to_do(
    fake: type[FakeModule], options: dict[str, Any], error: PgopsError, outcome: str, code: int
) -> None:
    def work(_context: Context) -> dict[str, Any]:
        raise error

    ended = run(work)
    assert ended.failed
    assert ended.result["msg"] == "%s Mend it." % error.message
    assert (ended.result["hint"], ended.result["outcome"], ended.result["exit_code"]) == ("Mend it.", outcome, code)
    assert (ended.result["verb"], ended.result["instance"]) == ("backup", "db1")
    assert [record["outcome"] for record in records(options)] == [outcome]


def test_an_error_brings_what_the_verb_can_still_tell(fake: type[FakeModule]) -> None:
    def work(context: Context) -> dict[str, Any]:
        context.warn("careful")
        error = CommandError("pg_dump failed:\n  - here", hint="Look.", stderr="said %s" % SECRET, returncode=3)
        error.details = {"changed": True, "sets": [{"outcome": "failed", "findings": ["with %s" % SECRET]}]}
        raise error

    result = run(work).result
    assert result["sets"] == [{"outcome": "failed", "findings": ["with ********"]}]
    assert (result["changed"], result["stderr"], result["rc"]) == (True, "said ********", 3)
    assert result["msg"].endswith("\nLook.")
    assert result["run_warnings"] == ["careful"]
    assert fake.made[-1].warned == ["careful"]


def test_a_result_can_amount_to_a_failure(fake: type[FakeModule]) -> None:
    fake.check = True
    ended = run(
        lambda _context: {"plan": {"refusals": ["no"]}}, fails=lambda _result: RefusedError("It would be refused.")
    )
    assert ended.failed
    assert (ended.result["plan"], ended.result["exit_code"]) == ({"refusals": ["no"]}, 5)


def test_what_nobody_expected_shows_no_secret(fake: type[FakeModule]) -> None:
    def work(_context: Context) -> dict[str, Any]:
        try:
            raise ValueError("cannot use %s" % SECRET)
        except ValueError as error:
            raise RuntimeError("password=%s of postgresql://me:hidden@h/db" % SECRET) from error

    ended = run(work)
    assert ended.failed
    assert SECRET not in str(ended.result)
    assert "hidden" not in str(ended.result)
    assert "RuntimeError" in ended.result["msg"]
    assert "ValueError" in ended.result["exception"]
    # Ansible would add the text of an exception in flight as it is.
    assert ended.__context__ is None


def test_a_wrong_configuration_shows_no_secret(fake: type[FakeModule], options: dict[str, Any]) -> None:
    fake.given = {**options, "s3": {"access_key": SECRET, "bucket": None}}
    result = run(lambda _context: {}).result
    assert (result["outcome"], result["exit_code"], result["run_warnings"]) == ("misused", 2, [])
    assert "s3.bucket" in result["msg"]
    assert SECRET not in str(result)


def test_a_signal_ends_the_run_like_an_interruption(fake: type[FakeModule], options: dict[str, Any]) -> None:
    def work(_context: Context) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did nothing")

    before = signal.getsignal(signal.SIGTERM)
    ended = run(work)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (ended.failed, ended.result["outcome"]) == (True, "interrupted")
    assert [record["outcome"] for record in records(options)] == ["interrupted"]


def test_what_holds_no_secret_survives_one_that_is_part_of_it(fake: type[FakeModule]) -> None:
    said = {"policies": {"db1": "arn:aws:s3:::%s" % SECRET}, "settings": {"tags": [SECRET]}}
    result = run(lambda _context: dict(said), structure=("policies", "none")).result
    assert result["policies"] == said["policies"]
    assert "none" not in result
    del result["policies"]
    assert SECRET not in str(result), "all else, and the options that are shown with it"


def test_every_secret_is_registered(
    fake: type[FakeModule], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[str] = []
    monkeypatch.setattr(_ansible, "register_secret", registered.append)
    fake.given = {
        **options,
        "database_url": "postgresql://me:in%20url@h/db",
        "s3": {"bucket": "b", "access_key": "AKIDAKID", "secret_key": "s3cr3t-k3y", "session_token": "t0ken-t0ken"},
    }
    assert not run(lambda _context: {}).failed
    assert {SECRET, "in%20url", "in url", "AKIDAKID", "s3cr3t-k3y", "t0ken-t0ken"} <= set(registered)


# --- diff mode --------------------------------------------------------------------------------------------------------


class Shelf:
    """Something that a verb changes."""

    def __init__(self) -> None:
        self.held = ["a"]

    def view(self) -> _ansible.View:
        return _ansible.View(lambda _context: list(self.held), lambda before, result: before + result["plan"])

    def add(self, _context: Context) -> dict[str, Any]:
        self.held.append("b, not as planned")
        return {"changed": True}


def test_a_diff_is_what_was_seen_before_and_after(fake: type[FakeModule]) -> None:
    fake.diff = True
    shelf = Shelf()
    assert run(shelf.add, view=shelf.view()).result["diff"] == {"before": ["a"], "after": ["a", "b, not as planned"]}


def test_a_diff_in_check_mode_is_what_is_planned(fake: type[FakeModule]) -> None:
    fake.diff = fake.check = True
    ended = run(lambda _context: {"changed": True, "plan": ["b"]}, view=Shelf().view())
    assert ended.result["diff"] == {"before": ["a"], "after": ["a", "b"]}


def test_a_diff_shows_no_secret(fake: type[FakeModule]) -> None:
    fake.diff = fake.check = True
    ended = run(lambda _context: {"plan": [SECRET]}, view=Shelf().view())
    assert ended.result["diff"]["after"] == ["a", "********"]


def test_without_diff_mode_nobody_looks(fake: type[FakeModule]) -> None:
    def look(_context: Context) -> Any:
        raise AssertionError("looked")

    assert "diff" not in run(lambda _context: {}, view=_ansible.View(look, lambda before, _result: before)).result


def test_a_diff_that_cannot_be_had_is_no_failure(fake: type[FakeModule]) -> None:
    def look(_context: Context) -> Any:
        raise UnreachableError("The store does not answer.")

    fake.diff = True
    ended = run(lambda _context: {"changed": True}, view=_ansible.View(look, lambda before, _result: before))
    assert not ended.failed
    assert "diff" not in ended.result
    assert ended.result["run_warnings"] == ["There is no diff: The store does not answer."]


def test_without_leaves_the_rest_in_order() -> None:
    held = {"local": ["3", "2", "1"], "s3": ["3"]}
    assert _ansible.without(held, {"local": ["2"]}) == {"local": ["3", "1"], "s3": ["3"]}


def test_the_journal_learns_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible's own class would write the dict as text, in which it does not find a secret with a quote."""
    testing = pytest.importorskip("ansible.module_utils.testing")
    secret, told = 'it\'s "100%" \\n k7Wq', []
    monkeypatch.setattr(
        _ansible.AnsibleModule, "log", lambda _self, msg, log_args=None: told.append(f"{msg} {log_args}")
    )
    spec: dict[str, Any] = {
        "name": {"type": "str"},
        "secrets": {"type": "dict", "options": {"key": {"type": "str", "no_log": True}}},
        "content": {"type": "dict"},
    }
    with testing.patch_module_args(
        {"name": "db1", "secrets": {"key": secret}, "content": {"s3": {"secret_key": secret}}}
    ):
        module = _ansible.AnsibleModule(argument_spec=spec)
    assert "name=db1" in told[0]
    assert "secrets=['key']" in told[0]
    assert "k7Wq" not in told[0]
    assert module.params["secrets"]["key"] == secret
