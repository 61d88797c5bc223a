# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles' argument specs and defaults say the same, so that what is documented is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.pgops.backup.plugins.module_utils._engine import config
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.invocation import RECORDED

ROLES = Path(config.__file__).resolve().parents[3] / "roles"
NAMES = sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml"))


def read(role: str, *parts: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ROLES.joinpath(role, *parts).read_text(encoding="utf-8")) or {}
    return found


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = read(role, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def test_there_are_roles() -> None:
    assert {"agent", "schedule"} <= set(NAMES)


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_is_described_with_its_default(role: str) -> None:
    defaults, described = read(role, "defaults", "main.yml"), options(role)
    assert set(defaults) == set(described)
    # The default of what may hold a secret is no part of the spec: where any option is wrong, Ansible shows all defaults.
    secret = {name for name in described if re.search("secret|credential|_instances$|_postgres$|_s3$|_alerts$", name)}
    assert {name: said.get("default") for name, said in described.items() if name not in secret} == {
        name: value for name, value in defaults.items() if name not in secret
    }
    assert not any("default" in described[name] for name in secret)


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_bears_the_name_of_its_role_a_type_and_words(role: str) -> None:
    for name, said in options(role).items():
        assert name.startswith(role + "_")
        assert said["type"] in {"str", "bool", "int", "float", "path", "list", "dict"}, name
        assert said["description"], name
        assert said["type"] != "list" or "elements" in said, name


@pytest.mark.parametrize("role", NAMES)
def test_what_is_not_described_is_internal(role: str) -> None:
    for path in (ROLES / role / "vars").glob("*.yml"):
        for name in read(role, "vars", path.name):
            assert name.startswith("__%s_" % role), (path, name)


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_names_tags_that_there_are(role: str) -> None:
    text = (ROLES / role / "README.md").read_text(encoding="utf-8")
    tasks = "".join(path.read_text(encoding="utf-8") for path in (ROLES / role / "tasks").glob("*.yml"))
    tags = set(re.findall(r"^ +tags: \[(\w+)\]", tasks, re.MULTILINE))
    for named in re.findall(r"`(%s_(?:install|configure|check|remove|bucket|probe))`" % role, text):
        assert named in tags


def test_no_handler_calls_changed_what_may_be_nothing() -> None:
    """What a handler says is told in check mode, too, also on hosts where it has nothing to do."""
    for path in ROLES.glob("*/handlers/main.yml"):
        for handler in yaml.safe_load(path.read_text(encoding="utf-8")):
            assert handler.get("changed_when") is not True, (path, handler["name"])


def test_the_agent_takes_every_log_with_it() -> None:
    """A log that it does not know would keep its directory on the host for good."""
    tasks = yaml.safe_load((ROLES / "agent" / "tasks" / "absent.yml").read_text(encoding="utf-8"))
    (known,) = (task["vars"]["__agent_logs_verbs"] for task in tasks if "__agent_logs_verbs" in task.get("vars", {}))
    named = set(re.findall("'([a-z-]+)'", known))
    assert RECORDED | {"alert", "checklist", "rollback", "wal-ship"} <= named


@pytest.mark.parametrize("role", NAMES)
def test_every_way_into_a_role_is_there_and_takes_the_same(role: str) -> None:
    for entry, said in read(role, "meta", "argument_specs.yml")["argument_specs"].items():
        assert (ROLES / role / "tasks" / (entry + ".yml")).is_file()
        assert said["options"] == options(role), "whoever enters there is not asked for less"


def test_the_playbook_site_enters_roles_where_their_variables_are_checked() -> None:
    text = (ROLES.parent / "playbooks" / "site.yml").read_text(encoding="utf-8")
    entered = set(re.findall(r"name: pgops[.]backup[.](\w+)\n +tasks_from: (\w+)\n", text))
    # A look, and what a host tells the others, come before anything is done; the configuration comes once more after the steps.
    looks = {("agent", "preflight"), ("storage", "sharing")}
    assert entered == {*looks, ("agent", "steps"), ("agent", "configure")}
    assert set(read("agent", "meta", "argument_specs.yml")["argument_specs"]) == {"main", "steps"}
