# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection's archive, install it in an empty place, and use it from there."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from tests.tools import collection_tree
from tests.tools.bench import PASSED, VENV, Bench, LayerError, Outcome

NAME = "pgops.backup"
REFUSED = re.compile('"msg": "(Unsupported parameters|missing required arguments|one of the following is required)')
BELONGS = {
    "CHANGELOG.md", "CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "examples",
    "meta", "playbooks", "plugins", "requirements.txt", "roles",
}  # fmt: skip


def build(output: Path, bench: Bench) -> Path:
    """Build the archive from the files that git does not ignore and return its path."""
    # In a folder of its own: the scratch of the tests ends up as `ansible_collections`, too.
    with tempfile.TemporaryDirectory(prefix="pgops-build-") as scratch:
        tree = collection_tree.copy_to(Path(scratch))
        bench.must(VENV / "ansible-galaxy", "collection", "build", "--force", "--output-path", output, cwd=tree)
    version = yaml.safe_load((collection_tree.ROOT / "galaxy.yml").read_text())["version"]
    return output / f"pgops-backup-{version}.tar.gz"


def _check_contents(archive: Path) -> int:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    strangers = sorted({name.split("/")[0] for name in names} - BELONGS)
    if strangers:
        raise LayerError(f"the archive holds {', '.join(strangers)}: see build_ignore in galaxy.yml")
    return len(names)


def _check_module(module: str, bench: Bench, env: dict[str, str]) -> None:
    """Run a module as Ansible ships it to a host, with an option it must refuse."""
    # That answer comes from the module itself, after all its imports, and before it touches anything.
    here = ["localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    answer = bench.ask(VENV / "ansible", *here, "-m", module, "-a", "no_such_option=1", env=env)[1]
    if not REFUSED.search(answer):
        raise LayerError(f"{module} does not run from the installed archive")


def smoke(bench: Bench) -> Outcome:
    """Build, install, list, document and start every module; check the syntax of every playbook."""
    root = collection_tree.ROOT
    archive = build(bench.scratch, bench)
    count = _check_contents(archive)
    place = bench.scratch / "installed"
    env = {
        "ANSIBLE_COLLECTIONS_PATH": str(place),
        "ANSIBLE_HOME": str(bench.scratch / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONPATH": "",
    }
    bench.must(VENV / "ansible-galaxy", "collection", "install", "--offline", "-p", place, archive, env=env)

    modules = sorted(f"{NAME}.{path.stem}" for path in (root / "plugins" / "modules").glob("[!_]*.py"))
    listed = sorted(json.loads(bench.read(VENV / "ansible-doc", "-t", "module", "-l", "-j", NAME, env=env)))
    if not modules or listed != modules:
        raise LayerError(f"ansible-doc lists {len(listed)} modules, plugins/modules holds {len(modules)}")
    runtime = yaml.safe_load((root / "meta" / "runtime.yml").read_text())
    group = sorted(f"{NAME}.{name}" for name in runtime["action_groups"]["pgops"])
    documented = json.loads(bench.read(VENV / "ansible-doc", "-t", "module", "-j", *modules, env=env))
    members = [name for name in modules if "action_group" in documented[name]["doc"]["attributes"]]
    if group != members:
        raise LayerError("the action group in meta/runtime.yml is not the list of the modules that say they are in it")
    for module in modules:
        _check_module(module, bench, env)

    playbooks = sorted((root / "playbooks").glob("*.yml"))
    for playbook in playbooks:
        name = f"{NAME}.{playbook.stem}"
        bench.must(VENV / "ansible-playbook", "-i", "localhost,", "--syntax-check", name, env=env)
    return Outcome(PASSED, f"files: {count}, modules: {len(modules)}, playbooks: {len(playbooks)}")


def main() -> int:
    """Build the archive into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    bench = Bench(scratch=output, log=output / "archive.log")
    try:
        archive = build(output, bench)
    except LayerError as problem:
        sys.stderr.write(f"{bench.text()}{problem}\n")
        return 1
    sys.stdout.write(f"{os.path.relpath(archive)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
