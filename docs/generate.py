# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/reference/ from the code: the configuration, the modules, the command line.

Run it without arguments after a change of the settings, of the command line's options or of the documentation in a
module. With --check it writes nothing and exits with 1 when a page is not what the code says, naming it; also when a
row of docs/faults.md has no test.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "plugins"
REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(PLUGINS / "module_utils"))

from _engine import reference  # noqa: E402 - the engine has no name of its own in a checkout
from _engine.cli import options  # noqa: E402 - as above
from _engine.cli.parser import CONFIG_VARIABLE, DEFAULT_CONFIG  # noqa: E402 - as above
from _engine.core import severities  # noqa: E402 - as above

NOTE = "<!-- Written by docs/generate.py from the code. Change the code, then run: make docs -->\n\n"
YAML_NOTE = "---\n# Written by docs/generate.py from the code. 'pgops config --example' prints the same.\n"
DEFAULTS = """\
- hosts: databases
  module_defaults:
    group/pgops.backup.pgops:
      config: /etc/pgops/config.yml
  tasks:
    - name: Back up
      pgops.backup.pg_backup:

    - name: Copy to S3
      pgops.backup.s3_backup_sync:
"""
FRAGMENTS = {"connection": "Connection", "place": "Configuration and places"}


# --- text -------------------------------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """Return Ansible's markup as Markdown."""
    text = re.sub(r"\bM\(([^)]+)\)", lambda m: "[%s](%s.md)" % (m[1], m[1].rsplit(".", 1)[-1]), text)
    text = re.sub(r"\bL\(([^,)]+),\s*([^)]+)\)", r"[\1](\2)", text)
    text = re.sub(r"\bU\(([^)]+)\)", r"<\1>", text)
    text = re.sub(r"\bO\(([^)=]+)=([^)]*)\)", r"`\1: \2`", text)
    text = re.sub(r"\bB\(([^)]+)\)", r"**\1**", text)
    text = re.sub(r"\bI\(([^)]+)\)", r"*\1*", text)
    return re.sub(r"\b(?:O|V|RV|E|C|P)\(([^)]*)\)", r"`\1`", text)


def cell(text: str) -> str:
    """Return `text` as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def sentences(value: Any) -> list[str]:
    """Return a description, which is a text or a list of them, as a list."""
    return [markdown(text) for text in ([value] if isinstance(value, str) else value)]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = ["| %s |" % " | ".join(heads), "|%s" % ("---|" * len(heads))]
    return "\n".join([*lines, *("| %s |" % " | ".join(cell(text) for text in row) for row in rows)]) + "\n"


def as_code(value: Any) -> str:
    """Return a value as a person writes it in YAML, as code; nothing for nothing."""
    if value in (None, "", [], {}):
        return ""
    return "`%s`" % (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def as_yaml(value: Any) -> str:
    """Return a value as YAML, in a code block."""
    shown = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return "```yaml\n%s```\n" % shown


# --- the configuration ------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the page about the keys of the configuration."""
    lines = [
        "# Configuration\n",
        "`pgops` reads one YAML or JSON file, `%s` unless `--config` or the environment variable `%s` names another."
        % (DEFAULT_CONFIG, CONFIG_VARIABLE),
        "The modules read it where their option `config` names it; their other options are laid over it. A file that holds a",
        "secret must have mode 0600; better, let it name files that hold them.\n",
        "Every key with its default or an example: [config.example.yml](config.example.yml). All keys are optional, but a section",
        "`s3` needs its `bucket`. Sizes are written like `500MiB` or `20GiB`, durations like `90s`, `15min`, `26h`, `7d` or `2w`.\n",
    ]
    keys = list(reference.describe())
    sections = [("", "Top level", "")]
    sections += [(path, "`%s`" % path.replace("[]", ""), facts["text"]) for path, facts in keys if facts["section"]]
    for section, title, text in sections:
        rows = [row for path, facts in keys for row in _key_row(section, path, facts)]
        if rows:
            lines += ["## %s\n" % title, *(["%s\n" % text] if text else [])]
            lines.append(table(["key", "type", "default", "example", "meaning"], rows))
    return NOTE + "\n".join(lines)


def _key_row(section: str, path: str, facts: dict[str, Any]) -> Iterator[list[str]]:
    owner, _unused, key = path.rpartition(".")
    if facts["section"] or owner.replace("[]", "") != section:
        return
    meaning = facts["text"]
    if facts["choices"]:
        meaning += " One of %s." % ", ".join("`%s`" % choice for choice in facts["choices"])
    if facts["secret"]:
        meaning += " Secret: never shown."
    kind = {"path": "path", "size": "size", "span": "duration"}.get(facts["form"], facts["type"])
    yield ["`%s`" % key, kind, as_code(facts["default"]), as_code(facts["example"]), meaning]


def example() -> str:
    """Return the commented example."""
    return YAML_NOTE + reference.example()


# --- the modules ------------------------------------------------------------------------------------------------------


def texts(path: Path) -> dict[str, str]:
    """Return the texts that a plugin assigns (DOCUMENTATION and its like), without importing it."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
    return found


def fragment(name: str) -> dict[str, Any]:
    """Return what the documentation fragment `name` says."""
    said: dict[str, Any] = yaml.safe_load(texts(PLUGINS / "doc_fragments" / ("%s.py" % name))["DOCUMENTATION"])
    return said


def module_names() -> list[str]:
    """Return the names of the modules."""
    return sorted(path.stem for path in (PLUGINS / "modules").glob("*.py") if path.stem != "__init__")


def documentation(name: str) -> dict[str, Any]:
    """Return what the module `name` says of itself."""
    said: dict[str, Any] = yaml.safe_load(texts(PLUGINS / "modules" / ("%s.py" % name))["DOCUMENTATION"])
    return said


def module_page(name: str) -> str:
    """Return the page about a module."""
    own = documentation(name)
    extended = [one.rsplit(".", 1)[-1] for one in own["extends_documentation_fragment"]]
    shared = fragment("host" if "host" in extended else "attributes")["attributes"]
    source = texts(PLUGINS / "modules" / ("%s.py" % name))
    lines = ["# pgops.backup.%s\n" % name, "%s. Since %s.\n" % (own["short_description"], own["version_added"])]
    lines += ["%s\n" % text for text in sentences(own["description"])]
    lines.append("## Options\n")
    if own.get("options"):
        lines.append(option_table(own["options"]))
    if "place" in extended:
        lines.append(
            "It also takes the [common options](common-options.md) of the connection, the configuration and the places.\n"
        )
    lines += ["## Behaviour\n", attribute_table(own.get("attributes", {}), shared)]
    lines += ["## Examples\n", "```yaml\n%s\n```\n" % source["EXAMPLES"].strip()]
    lines += ["## Result\n", result_table(yaml.safe_load(source["RETURN"]))]
    samples = {key: said["sample"] for key, said in yaml.safe_load(source["RETURN"]).items() if said.get("contains")}
    lines += ["A sample of the keys that hold more than one value:\n", as_yaml(samples)] if samples else []
    if own.get("seealso"):
        lines.append("## See also\n")
        lines += ["- [%s](%s.md)" % (also["module"], also["module"].rsplit(".", 1)[-1]) for also in own["seealso"]]
        lines.append("")
    return NOTE + "\n".join(lines)


def option_table(described: dict[str, Any]) -> str:
    """Return the table of options and suboptions."""
    rows = []
    for path, said in _flat(described, "suboptions"):
        kind = said["type"] + (" of %s" % said["elements"] if said.get("elements") else "")
        default = "required" if said.get("required") else as_code(said.get("default"))
        notes = []
        for text in sentences(said["description"]):
            # What the configuration would say has no place in the specification, so it stands in the text.
            found = re.fullmatch(r"(.*?)\s*Defaults to (`[^`]*`)\.", text, re.DOTALL)
            notes.append(found[1] if found else text)
            default = found[2] if found else default
        if said.get("choices"):
            notes.append("One of %s." % ", ".join("`%s`" % choice for choice in said["choices"]))
        if said.get("aliases"):
            notes.append("Also called %s." % ", ".join("`%s`" % alias for alias in said["aliases"]))
        rows.append(["`%s`" % path, kind, default, " ".join(notes)])
    return table(["option", "type", "default", "meaning"], rows)


def _flat(described: dict[str, Any], inner: str, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, said in described.items():
        yield path + name, said
        yield from _flat(said.get(inner) or {}, inner, "%s%s." % (path, name))


def attribute_table(own: dict[str, Any], shared: dict[str, Any]) -> str:
    """Return the table of what the module supports."""
    rows = []
    for name, common in shared.items():
        said = {**common, **own.get(name, {})}
        details = sentences(said.get("details") or [])
        rows.append([name, str(said["support"]), " ".join([*sentences(said["description"]), *details])])
    return table(["property", "support", "meaning"], rows)


def result_table(described: dict[str, Any]) -> str:
    """Return the table of what a module returns."""
    rows = []
    for path, said in _flat(described, "contains"):
        kind = said["type"] + (" of %s" % said["elements"] if said.get("elements") else "")
        sample = as_code(said.get("sample")) if not isinstance(said.get("sample"), (dict, list)) else ""
        meaning = " ".join([*sentences(said["description"]), *(["For example %s." % sample] if sample else [])])
        rows.append(["`%s`" % path, kind, markdown(said["returned"]) if "." not in path else "", meaning])
    return table(["key", "type", "returned", "meaning"], rows)


def common_options() -> str:
    """Return the page about the options that every module has."""
    lines = ["# Common options of the modules\n"]
    for name, title in FRAGMENTS.items():
        said = fragment(name)
        lines += ["## %s\n" % title, option_table(said["options"])]
        for key, heading in (("notes", "Notes"), ("requirements", "Requirements")):
            if said.get(key):
                lines += ["## %s\n" % heading, *("- %s" % text for text in sentences(said[key])), ""]
    lines += ["## Setting them once\n", "```yaml\n%s```\n" % DEFAULTS]
    return NOTE + "\n".join(lines)


# --- the roles --------------------------------------------------------------------------------------------------------


def role_names() -> list[str]:
    """Return the names of the roles."""
    return sorted(path.parents[1].name for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))


def role(name: str) -> dict[str, Any]:
    """Return what the role `name` says of itself."""
    text = (ROOT / "roles" / name / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    said: dict[str, Any] = yaml.safe_load(text)["argument_specs"]["main"]
    return said


def role_page(name: str) -> str:
    """Return the page about a role."""
    own = role(name)
    lines = [
        "# The role pgops.backup.%s\n" % name,
        "%s. Since %s.\n" % (own["short_description"], own["version_added"]),
    ]
    lines += ["%s\n" % text for text in sentences(own["description"])]
    lines.append(
        "How it goes about it: [its README](../../roles/%s/README.md). One variable for all: [setup](../setup.md).\n"
        % name
    )
    rows = []
    for path, said in _flat(own["options"], "options"):
        kind = said["type"] + (" of %s" % said["elements"] if said.get("elements") else "")
        notes = sentences(said["description"])
        if said.get("choices"):
            notes.append("One of %s." % ", ".join("`%s`" % choice for choice in said["choices"]))
        default = said.get("default")
        shared = re.fullmatch(r"\{\{ (pgops_\w+) \| default\((.*)\) \}\}", str(default))
        shown = "`%s`, or `%s`" % (shared[1], shared[2]) if shared else as_code(default)
        rows.append(["`%s`" % path, kind, "required" if said.get("required") else shown, " ".join(notes)])
    lines += ["## Variables\n", table(["variable", "type", "default", "meaning"], rows)]
    return NOTE + "\n".join(lines)


# --- the command line -------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Return the page about the program pgops."""
    parser = options.build()
    lines = ["# The program pgops\n", "%s\n" % parser.description, "```\n%s\n```\n" % (parser.epilog or "").strip()]
    lines += [
        "## Options of every verb\n",
        "They stand before or after the verb.\n",
        argument_table(parser.arguments()),
    ]
    everywhere = {text for action in parser.arguments() for text in action.option_strings}
    lines += [
        "## Verbs\n",
        table(["verb", "does"], [[_link(name), summary] for name, summary, *_unused in options.VERBS]),
    ]
    for name, _summary, _add, examples in options.VERBS:
        verb = parser.verbs[name]
        lines += ["## pgops %s\n" % name, "%s\n" % verb.description]
        aliases = [alias for alias, of in options.ALIASES.items() if of == name]
        lines += ["Also called %s.\n" % ", ".join("`%s`" % alias for alias in aliases)] if aliases else []
        own = [a for a in verb.arguments() if not (a.option_strings and everywhere.issuperset(a.option_strings))]
        lines += [argument_table(own)] if own else []
        lines.append("```\n%s\n```\n" % examples)
    return NOTE + "\n".join(lines)


def _link(verb: str) -> str:
    return "[%s](#pgops-%s)" % (verb, verb)


def argument_table(actions: list[argparse.Action]) -> str:
    """Return the table of arguments; the order is the parser's."""
    rows = []
    for action in actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        names = ["`%s`" % text for text in action.option_strings]
        value = action.metavar or (
            "" if action.nargs == 0 or not action.choices else "|".join(map(str, action.choices))
        )
        shown = " ".join(value) if isinstance(value, tuple) else value
        if not names:
            names = ["`%s`" % (shown or action.dest)]
            shown = ""
        many = " (any number)" if action.nargs == "*" else ""
        said = (action.help or "") % {"prog": "pgops", "default": action.default}
        rows.append([", ".join(names) + (" `%s`" % shown if shown else "") + many, said])
    return table(["argument", "meaning"], rows)


# --- all pages --------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return every page by its name."""
    found = {
        "configuration.md": configuration(),
        "config.example.yml": example(),
        "common-options.md": common_options(),
        "cli.md": command_line(),
    }
    found.update({"%s.md" % name: module_page(name) for name in module_names()})
    found.update({"role_%s.md" % name: role_page(name) for name in role_names()})
    rows = [[_module_link(name), documentation(name)["short_description"]] for name in module_names()]
    roles = [["[pgops.backup.%s](role_%s.md)" % (name, name), role(name)["short_description"]] for name in role_names()]
    found["README.md"] = NOTE + "\n".join(
        [
            "# Reference\n",
            "- [Configuration](configuration.md), and a [commented example](config.example.yml)",
            "- [The program pgops](cli.md)",
            "- [Common options of the modules](common-options.md)\n",
            table(["role", "does"], roles),
            table(["module", "does"], rows),
        ]
    )
    return {name: text.rstrip("\n") + "\n" for name, text in found.items()}


def _module_link(name: str) -> str:
    return "[pgops.backup.%s](%s.md)" % (name, name)


# --- the table of severities ------------------------------------------------------------------------------------------

SEVERITIES = "## Severities"


def with_severities(page: str) -> str:
    """Return the guide with the table of the engine under the head of the severities, which is its last part."""
    above, head, below = page.partition("\n%s\n" % SEVERITIES)
    words = [line for line in below.strip("\n").splitlines() if not line.startswith("|")]
    return above + head + "\n" + "\n".join(words).rstrip("\n") + "\n\n" + "\n".join(severities.rows()) + "\n"


# --- the page about faults --------------------------------------------------------------------------------------------


def untested(page: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong with the tests that the page about faults names: each of its rows has one that exists.

    A test is `tests/PATH.py::FUNCTION`, below `root`.
    """
    above, _head, below = page.partition("\n## The tests\n")
    faults = [row[0] for row in _rows_of(above.partition("\n## ")[2])]
    named = {row[0]: re.findall(r"`([^`]+)`", row[1]) for row in _rows_of(below)}
    wrong = ["no test is named for: %s" % fault for fault in faults if not named.get(fault)]
    wrong += ["there are tests for what no row tells: %s" % fault for fault in named if fault not in faults]
    wrong += ["there is no fault"] if not faults else []
    known: dict[str, set[str]] = {}
    for test in sorted({test for tests in named.values() for test in tests}):
        path, _colons, name = test.partition("::")
        if path not in known:
            known[path] = _tests_of(root / path) if path.startswith("tests/") else set()
        if name not in known[path]:
            wrong.append("there is no test %s" % test)
    return wrong


def _rows_of(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables, without heads: a line of dashes follows those."""
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not after.startswith("|--"):
            yield [part.strip() for part in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _tests_of(path: Path) -> set[str]:
    """Return the names of the tests in a file; none where there is no such file."""
    if not path.is_file():
        return set()
    parts = ast.parse(path.read_text(encoding="utf-8")).body
    return {part.name for part in parts if isinstance(part, ast.FunctionDef) and part.name.startswith("test_")}


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is stale")
    parser.add_argument("--folder", type=Path, default=REFERENCE, help="where the pages are (default: docs/reference)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    guide = ROOT / "docs" / "monitoring.md"
    wanted = pages()
    held = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} if folder.is_dir() else {}
    stale = sorted(name for name, text in wanted.items() if held.get(name) != text)
    extra = sorted(set(held) - set(wanted))
    if arguments.check:
        for name in stale:
            sys.stdout.write("%s is not what the code says. Run: make docs\n" % (folder / name))
        for name in extra:
            sys.stdout.write("%s belongs to nothing. Run: make docs\n" % (folder / name))
        wrong = untested((ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))
        for said in wrong:
            sys.stdout.write("docs/faults.md: %s\n" % said)
        stale_guide = with_severities(guide.read_text(encoding="utf-8")) != guide.read_text(encoding="utf-8")
        if stale_guide:
            sys.stdout.write("%s: the severities are not what the code says. Run: make docs\n" % guide)
        return 1 if stale or extra or wrong or stale_guide else 0
    folder.mkdir(parents=True, exist_ok=True)
    if folder == REFERENCE:
        guide.write_text(with_severities(guide.read_text(encoding="utf-8")), encoding="utf-8")
    for name in stale:
        (folder / name).write_text(wanted[name], encoding="utf-8")
        sys.stdout.write("wrote %s\n" % (folder / name))
    for name in extra:
        (folder / name).unlink()
        sys.stdout.write("removed %s\n" % (folder / name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
