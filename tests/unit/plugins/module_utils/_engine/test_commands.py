# SPDX-License-Identifier: GPL-3.0-or-later
"""A command that somebody copies from a text is about the very instance, and says as whom it may be run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import main as cli
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import options, show
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import (
    alerting,
    checklist,
    checklist_text,
    commands,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Alerts, Webhook
from ansible_collections.pgops.backup.plugins.module_utils._engine.system import account
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import alert, alert_delivery, status
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import checklist as checklist_verb
from ansible_collections.pgops.backup.plugins.module_utils._engine.wal import calls

TWO = "/etc/pgops/two.yml"
# A command that names no configuration, in a text about another one than the usual.
BARE = re.compile(r"(?<![\w./-])pgops (?!--config|wal (?:archive|fetch) --config|config --example)(?:%s)\b")


def bare(text: str) -> bool:
    return re.search(BARE.pattern % "|".join(commands.VERBS), text) is not None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Run: pgops backup.", "Run: pgops --config /etc/pgops/two.yml backup."),
        ("'pgops checklist' shows all", "'pgops --config /etc/pgops/two.yml checklist' shows all"),
        ("sudo -u postgres pgops check (x)", "sudo -u postgres pgops --config /etc/pgops/two.yml check (x)"),
        (
            "(pgops probe), and see that pgops wal ship --loop runs",
            "(pgops --config /etc/pgops/two.yml probe), and see that pgops --config /etc/pgops/two.yml wal ship --loop runs",
        ),
        # PostgreSQL calls these, which take no option before their words.
        (
            "archive_command = 'pgops wal archive %p'",
            "archive_command = 'pgops wal archive --config /etc/pgops/two.yml %p'",
        ),
        ("pgops wal fetch %f %p", "pgops wal fetch --config /etc/pgops/two.yml %f %p"),
        ("pgops wal fetch --config /x %f %p", "pgops wal fetch --config /x %f %p"),
        ("begin with 'pgops config --example > FILE'", "begin with 'pgops config --example > FILE'"),
        ("pgops config --check", "pgops --config /etc/pgops/two.yml config --check"),
        ("pgops version, the backups of pgops, pgops backups", "pgops version, the backups of pgops, pgops backups"),
        ("/usr/local/bin/pgops backup --config /x", "/usr/local/bin/pgops backup --config /x"),
    ],
)
def test_each_command_in_a_text_names_the_configuration(text: str, wanted: str) -> None:
    assert commands.addressed(text, TWO) == wanted
    assert commands.addressed(wanted, TWO) == wanted, "it is named once"
    assert commands.addressed(text, "") == commands.addressed(text, config.DEFAULT_PATH) == text


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30))
def test_a_path_is_what_the_shell_makes_of_it(name: str) -> None:
    told = commands.addressed("Run: pgops backup --kind base", "/" + name)
    assert shlex.split(told.partition(": ")[2]) == ["pgops", "--config", "/" + name, "backup", "--kind", "base"]


def test_the_verbs_are_those_that_read_a_configuration() -> None:
    known = {name for name, *_unused in options.VERBS} | set(options.ALIASES)
    assert set(commands.VERBS) == known - {"completion", "version"}
    for verb in sorted(known - {"completion", "version", "config", "list"}):
        assert options.parse(["--config", TWO, verb, *_WORDS.get(verb, [])]).config == TWO


_WORDS = {
    "pin": ["x", "--reason", "r"],
    "unpin": ["x"],
    "alert": ["test"],
    "wal": ["status"],
    "recover": ["--data-directory", "/x", "--to-end"],
    "rescue": ["--database", "d", "--to-end"],
}


def test_no_step_of_the_engine_is_left_without_it() -> None:
    steps = [step for _check, step in status._STEPS]
    steps += [step for _cause, step, _patience in alerting.JUDGED.values()]
    steps += [line.todo for line in checklist.LINES]
    assert any(map(bare, steps))
    assert not [told for told in (commands.addressed(step, TWO) for step in steps) if bare(told)]


def test_a_command_is_not_broken_by_what_wraps_a_text() -> None:
    text = "Read why it failed, then run: pgops --config '/etc/pg ops/two.yml' backup --kind base; or ask pgops wal status today."
    assert commands.unbroken(text, "_").split(" ")[6:] == [
        "pgops_--config_'/etc/pg_ops/two.yml'_backup_--kind_base;",
        "or",
        "ask",
        "pgops_wal_status",
        "today.",
    ]
    told = "Try one: pgops --config /etc/pgops/x.yml restore --database NAME --rename NAME NAME_test. Then tell."
    assert commands.unbroken(told, "_").split(" ")[2:4] == [
        "pgops_--config_/etc/pgops/x.yml_restore_--database_NAME_--rename_NAME_NAME_test.",
        "Then",
    ]


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("Run: pgops backup", "postgres", "Run: pgops backup (as root, or with sudo -u postgres)"),
        ("Run: pgops --config /x sync.", "postgres", "Run: pgops --config /x sync (as root, or with sudo -u postgres)"),
        ("Run: pgops sync", "root", "Run: pgops sync (as root)"),
        ("Run: pgops sync", "o d", "Run: pgops sync (as root, or with sudo -u 'o d')"),
        ("Make room.", "postgres", "Make room."),
        ("Run: pgops sync", "", "Run: pgops sync"),
    ],
)
def test_it_says_as_whom_a_command_may_be_run(text: str, name: str, wanted: str) -> None:
    assert commands.as_account(text, name) == wanted


def test_an_account_is_named_by_its_process_its_file_or_the_directory_that_hides_it(tmp_path: Path) -> None:
    mine = account.own_name()
    assert account.owner_name(tmp_path) == account.owner_name(tmp_path / "gone") == mine
    assert account.owner_name(tmp_path / "gone" / "too") == ""
    assert account._name(2**31 - 5) == "#2147483643"


# --- where they are told ----------------------------------------------------------------------------------------------


def ruined(make_world: Any) -> Any:
    """An instance with a configuration of its own in which little is well."""
    world = make_world()
    for verb in ("backup", "sync", "verify", "prune"):
        with pytest.raises(PgopsError):
            perform(told_of(world), verb, _failing)
    # Only now, so that no run waits for a channel that is not there.
    alerts = Alerts(webhook=Webhook(url="http://127.0.0.1:1/"), restore_test="90d")
    world.config = dataclasses.replace(world.config, alerts=alerts)
    return world


def told_of(world: Any) -> Any:
    context = world.context()
    context.config_file = TWO
    return context


def _failing(_context: Any) -> Any:
    raise PgopsError("The disk is full.", hint="Make room (pgops prune).")


def test_status_and_checklist_tell_commands_about_this_instance(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ruined(make_world)
    monkeypatch.setattr(checklist_verb, "look", lambda _context: {})
    result = status.status(told_of(world))
    assert "Read why the backup failed, then run: pgops --config %s backup." % TWO in result["next"]
    shown = status.render(result, False, config_file=TWO)
    assert shown.count("--config " + TWO) >= 3
    far = told_of(world)
    far.config_file = "/etc/pgops/shop-production-main-of-the-second-cluster.yml"
    screen = status.render(status.status(far), False, config_file=far.config_file)
    assert screen.count("pgops --config ") == screen.count("pgops --config %s " % far.config_file) >= 3, "none is cut"
    listed = checklist_verb.checklist(told_of(world))
    text = checklist_text.text(listed, config_file=TWO)
    assert "→ pgops --config %s checklist sign before.people --name NAME" % TWO in text
    todos = [line["todo"] for stage in listed["stages"] for line in stage["lines"]]
    for told in (*result["next"], *(f["text"] for f in result["findings"]), *shown.splitlines(), *todos):
        assert not bare(told), told
    plain = status.status(world.context())
    assert "Read why the backup failed, then run: pgops backup." in plain["next"]


def test_an_alert_tells_commands_about_this_instance_and_as_whom(make_world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(alert_delivery, "own_name", lambda: "postgres")
    result = alert.evaluate(told_of(ruined(make_world)), dry_run=True)
    steps = {t["cause"]: t["next"] for t in result["troubles"]}
    assert steps["failed-run/prune"].endswith(
        "then run: pgops --config %s prune (as root, or with sudo -u postgres)" % TWO
    )
    assert (
        "Make room (pgops --config %s prune)." % TWO
        in {t["cause"]: t["text"] for t in result["troubles"]}["failed-run/backup"]
    )
    for told in (*steps.values(), *(t["text"] for t in result["troubles"])):
        assert not bare(told), told


def test_a_result_that_names_the_next_step_names_the_configuration() -> None:
    left = {"skipped": "db2 does it."}
    for told in (show.prune, show.verify, show.sync):
        assert "pgops --config %s %s --set group=null" % (TWO, told.__name__) in told(left, config_file=TWO)
    assert "pgops --config %s backup --set" % TWO in show.backup(left, has_s3=True, config_file=TWO)


def test_an_error_and_a_warning_name_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two words.yml"
    path.write_text(json.dumps({"instance": "db1", "state_dir": str(tmp_path), "log_dir": ""}))
    assert cli.main(["--as-root", "--config", str(path), "checklist", "sign", "no.line", "--name", "Ada"]) == 2
    assert "'pgops --config '%s' checklist' shows all" % path in capfd.readouterr().err
    assert cli.main(["--as-root", "--json", "--config", str(path), "alert", "send"]) == 2
    assert json.loads(capfd.readouterr().out)["hint"].startswith("Like: pgops --config '%s' alert send" % path)


def test_who_may_not_read_the_configuration_hears_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, **_how: Any) -> str:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(config, "owner_name", lambda _path: "postgres")
    with pytest.raises(UsageError) as caught:
        config.read(tmp_path / "config.yml")
    assert caught.value.hint == "Run it as root, or with sudo -u postgres."


def test_what_postgresql_is_told_in_its_log_names_it_too() -> None:
    said: list[str] = []
    calls._complain(UsageError("No WAL has come there.", hint="To bring it: pgops wal ship."), TWO, said.append)
    assert calls.line(said[-1]) == "pgops wal:   → To bring it: pgops --config %s wal ship.\n" % TWO
