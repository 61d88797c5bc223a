# SPDX-License-Identifier: GPL-3.0-or-later
"""Each module does what its documentation says: the same options, results that Ansible can carry, examples that run."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.pgops.backup.plugins.module_utils import _ansible
from ansible_collections.pgops.backup.plugins.module_utils._engine import settings

COLLECTION = "ansible_collections.pgops.backup"
ROOT = Path(_ansible.__file__).resolve().parents[2]
ALL = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
# These see to the host itself: they take no configuration and leave no run record.
OF_HOST = ["pgops_config", "pgops_host_info", "pgops_program", "pgops_schedule"]
NAMES = [name for name in ALL if name not in OF_HOST]
# Ansible reads these in a result as its own.
RESERVED = {
    "ansible_facts",
    "copy",
    "deprecations",
    "diff",
    "exception",
    "failed",
    "finished",
    "invocation",
    "items",
    "keys",
    "results",
    "skipped",
    "started",
    "unreachable",
    "update",
    "values",
    "warnings",
}
EVERYWHERE = {
    "verb",
    "instance",
    "dry_run",
    "begun",
    "ended",
    "seconds",
    "run_warnings",
    "hint",
    "outcome",
    "exit_code",
}
OF_EVERY_HOST_TASK = {"removed", "run_warnings", "hint", "outcome", "exit_code"}


@dataclasses.dataclass(frozen=True)
class Made:
    """What a module hands to Task."""

    verb: str
    bound: dict[str, tuple[str, ...]]
    own: dict[str, dict[str, Any]]
    others: dict[str, Any]

    @property
    def spec(self) -> dict[str, dict[str, Any]]:
        return {**_ansible.argument_spec(self.bound), **self.own} if self.verb else self.own


class StopError(Exception):
    """The module has said what it takes."""


def load(name: str) -> Any:
    return importlib.import_module("%s.plugins.modules.%s" % (COLLECTION, name))


def made(name: str, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Call main() up to the options."""
    found: list[Made] = []

    def task(verb: str, bound: Any, *, own: Any = None, **others: Any) -> None:
        found.append(Made(verb, dict(bound), own or {}, others))
        raise StopError

    def host_task(own: Any, **others: Any) -> None:
        task("", {}, own=own, **others)

    module = load(name)
    monkeypatch.setattr(module, *(("HostTask", host_task) if name in OF_HOST else ("Task", task)))
    with pytest.raises(StopError):
        module.main()
    return found[0]


def merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: merge(base.get(key), over.get(key)) if key in base and key in over else {**base, **over}[key]
            for key in {**base, **over}
        }
    if isinstance(base, list) and isinstance(over, list):
        return base + over
    return over


def documentation(name: str) -> dict[str, Any]:
    """Return the documentation with its fragments laid under it."""
    own = yaml.safe_load(load(name).DOCUMENTATION)
    whole: dict[str, Any] = {}
    for fragment in own.pop("extends_documentation_fragment"):
        module = importlib.import_module("%s.plugins.doc_fragments.%s" % (COLLECTION, fragment.rsplit(".", 1)[-1]))
        whole = merge(whole, yaml.safe_load(module.ModuleDocFragment.DOCUMENTATION))
    return merge(whole, own)  # type: ignore[no-any-return]


def flat(options: dict[str, Any], inner: str, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, description) of each option and suboption."""
    for name, described in options.items():
        yield path + name, described
        yield from flat(described.get(inner) or {}, inner, path + name + ".")


@pytest.mark.parametrize("name", ALL)
def test_options_are_documented_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dict(flat(made(name, monkeypatch).spec, "options"))
    documented = dict(flat(documentation(name)["options"], "suboptions"))
    assert sorted(documented) == sorted(spec)
    for path, described in spec.items():
        text = documented[path]
        for fact in ("type", "elements", "choices", "default", "aliases"):
            assert text.get(fact) == described.get(fact), "%s of %s" % (fact, path)
        assert bool(text.get("required")) == bool(described.get("required")), path
        assert text["description"], path


@pytest.mark.parametrize("name", NAMES)
def test_what_holds_when_an_option_is_not_given_is_documented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = dict(flat(documentation(name)["options"], "suboptions"))
    for option, place in made(name, monkeypatch).bound.items():
        for path, default in defaults(option, place):
            said = " ".join(documented[path]["description"])
            shown = {True: "true", False: "false"}[default] if isinstance(default, bool) else default
            assert "Defaults to V(%s)." % shown in said or "V(%s) where nothing says otherwise" % shown in said, path


def defaults(option: str, place: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (path of the option, default) for each key at or below `place` that has a default worth telling."""
    value: Any = dataclasses.replace(settings.Config(), s3=settings.S3(), verify=settings.Verify())
    for key in place:
        value = getattr(value, key)
    if option == "login_port":
        value = 5432
    yield from _defaults(option, value)


def _defaults(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _defaults("%s.%s" % (path, field.name), getattr(value, field.name))
    elif value not in ("", None, [], {}):
        yield path, value


def test_every_key_of_the_configuration_is_an_option_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    reachable = {place for name in NAMES for place in made(name, monkeypatch).bound.values()}
    hints = typing.get_type_hints(settings.Config)
    for field in dataclasses.fields(settings.Config):
        if (field.name,) in reachable:
            continue  # the key itself, or the section as a whole
        if field.name in ("schedule", "alerts", "checklist", "metrics", "wal"):
            continue  # of the host: its program runs by them, and modules find them in the configuration file
        section = hints[field.name]
        for inner in dataclasses.fields(section):
            assert (field.name, inner.name) in reachable, "%s.%s" % (field.name, inner.name)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_takes_the_common_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(_ansible.COMMON) <= set(made(name, monkeypatch).bound)


@pytest.mark.parametrize("name", ALL)
def test_every_secret_is_marked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, described in flat(made(name, monkeypatch).spec, "options"):
        if re.search(r"(?<!sse_kms_)(password|secret|token|access_key)$|database_url$", path):
            assert described.get("no_log") is True, path


@pytest.mark.parametrize("name", ALL)
def test_results_have_names_that_ansible_leaves_alone(name: str) -> None:
    returned = yaml.safe_load(load(name).RETURN)
    wanted = OF_EVERY_HOST_TASK - ({"removed"} if name.endswith("_info") else set())
    assert set(returned) >= (wanted if name in OF_HOST else EVERYWHERE)
    assert not RESERVED & set(returned)
    for path, described in flat(returned, "contains"):
        assert described["description"], path
        assert described["type"], path
        assert described["returned"], path


@pytest.mark.parametrize("name", ALL)
def test_references_in_the_text_lead_somewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {path for path, _unused in flat(documentation(name)["options"], "suboptions")}
    returned = {path for path, _unused in flat(yaml.safe_load(load(name).RETURN), "contains")}
    text = str(documentation(name)) + load(name).RETURN
    for mark, known in (("O", options), ("RV", returned)):
        for found in re.findall(r"\b%s\(([^)=]+)(?:=[^)]*)?\)" % mark, text):
            assert found in known, "%s(%s)" % (mark, found)
    for found in re.findall(r"\bM\(([^)]+)\)", text):
        assert found.rsplit(".", 1)[-1] in ALL


@pytest.mark.parametrize("name", ALL)
def test_the_examples_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = made(name, monkeypatch)
    validator = ArgumentSpecValidator(spec.spec, required_if=spec.others.get("required_if"))
    used = 0
    for task in yaml.safe_load(load(name).EXAMPLES):
        actions = [key for key in task if "." in key]
        assert len(actions) == 1, "each example names one module by its full name"
        if actions[0] == "pgops.backup.%s" % name:
            used += 1
            result = validator.validate(task[actions[0]])
            assert not result.error_messages, result.error_messages
    assert used >= 1


@pytest.mark.parametrize("name", ALL)
def test_the_attributes_are_told(name: str) -> None:
    attributes = documentation(name)["attributes"]
    of_all = {"check_mode", "diff_mode", "idempotent", "platform"}
    assert set(attributes) == (of_all if name in OF_HOST else of_all | {"action_group"})
    if name not in OF_HOST:
        assert attributes["action_group"]["membership"] == ["pgops.backup.pgops"]
    for attribute, said in attributes.items():
        assert said["support"] in ("full", "partial", "none", "N/A"), attribute
        assert said["support"] != "partial" or said["details"], attribute
    assert attributes["check_mode"]["support"] == "full"


def test_the_action_group_has_every_module_that_takes_its_options() -> None:
    groups = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]
    assert groups == {"pgops": NAMES}


@pytest.mark.parametrize(
    ("name", "params", "verb"),
    [("backup_pin", {"state": "present"}, "pin"), ("backup_pin", {"state": "absent"}, "unpin")],
)
def test_the_verb_of_a_pin_follows_its_state(
    name: str, params: dict[str, Any], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Task:
        check_mode = True
        params: ClassVar[dict[str, Any]] = {}
        verb: Optional[str] = None

        def __init__(self, verb: str, _bound: Any, **_others: Any) -> None:
            self.verb = verb
            tasks.append(self)

        def run(self, _work: Any, **_others: Any) -> None:
            pass

    tasks: list[Task] = []
    Task.params = {"place": "auto", "set": "latest", "reason": "r", **params}
    module = load(name)
    monkeypatch.setattr(module, "Task", Task)
    module.main()
    assert tasks[0].verb == verb
