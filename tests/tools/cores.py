# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test on the ansible-core versions we support, each in an environment of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tools import collection_tree, pythons
from tests.tools.bench import (
    CACHE,
    COLLECT_LESS,
    FAILED,
    NOT_RUN,
    PASSED,
    Bench,
    LayerError,
    Outcome,
    Word,
    collect_less,
    count_tests,
)

# ansible-test fetches this script from a site of its own to put pip into its environments. Python
# carries a pip already, so the tests need no more than the package index.
GET_PIP = "import ensurepip\n\nensurepip.bootstrap(upgrade=True)\n"
_IMPORTS_ANSIBLE = re.compile(r"^\s*(?:from|import) ansible(?!_collections)\b", re.MULTILINE)


@dataclass(frozen=True)
class Core:
    """A version of ansible-core and the Pythons of a controller for it, the preferred one first.

    `elsewhere` are the sanity tests that say on this version what they say on the newest one, which looks at all Pythons of hosts, too.
    """

    version: str
    runs_on: tuple[pythons.Version, ...]
    elsewhere: tuple[str, ...] = ()

    def python(self) -> pythons.Version | None:
        """Return the Python to use on this machine, or None."""
        return next((version for version in self.runs_on if version in pythons.find()), None)


CORES = (
    Core("2.21", ((3, 14), (3, 13), (3, 12))),
    Core(
        "2.19",
        ((3, 11), (3, 12), (3, 13)),
        elsewhere=("changelog", "compile", "pep8", "pylint", "shellcheck", "yamllint"),
    ),
)


@dataclass(frozen=True)
class Environment:
    """An installed ansible-core."""

    core: Core
    python: pythons.Version
    folder: Path

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.folder / "venv" / "bin"

    def variables(self) -> dict[str, str]:
        """Return the variables for ansible-test: a home of its own, which also keeps the environments it builds."""
        home = Path.home()
        found = {
            "HOME": str(self.folder / "home"),
            "PATH": pythons.search_path(self.bin),
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(home / ".cache" / "pip")),
            "PYTHONPATH": "",
            "ANSIBLE_NOCOLOR": "1",
        }
        settings = [home / ".config/pip/pip.conf", home / ".pip/pip.conf"]
        mine = next((path for path in settings if path.is_file()), None)
        if mine and "PIP_CONFIG_FILE" not in os.environ:
            found["PIP_CONFIG_FILE"] = str(mine)
        return found


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep two runs out of one environment."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def prepare(core: Core, bench: Bench) -> Environment:
    """Return the environment of this core, built when it is missing or its requirements changed."""
    python = core.python()
    if python is None:
        raise LayerError(f"no Python for ansible-core {core.version}")
    interpreter = pythons.find()[python]
    wanted = collection_tree.ROOT / "requirements-units.txt"
    state = hashlib.sha256(f"{core} {interpreter} {GET_PIP} {COLLECT_LESS}".encode() + wanted.read_bytes()).hexdigest()
    environment = Environment(core, python, CACHE / f"core-{core.version}-py{pythons.label(python)}")
    stamp = environment.folder / "stamp"
    with _alone(CACHE / f"core-{core.version}.lock"):
        if stamp.is_file() and stamp.read_text() == state:
            return environment
        shutil.rmtree(environment.folder, ignore_errors=True)
        bench.must(interpreter, "-m", "venv", environment.folder / "venv")
        pip: list[Word] = [environment.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        bench.must(*pip, f"ansible-core=={core.version}.*", "-r", wanted)
        _seed_get_pip(environment)
        collect_less(environment.folder / "venv")
        stamp.write_text(state)
    return environment


def _seed_get_pip(environment: Environment) -> None:
    """Lay down the script under each name this ansible-test may look for. Raises LayerError when it names none."""
    source = next(environment.folder.glob("venv/lib/python3*/site-packages/ansible_test/_internal"))
    versions = re.findall(r"\bpip=['\"]([0-9.]+)['\"]", (source / "python_requirements.py").read_text())
    if not versions:
        raise LayerError("ansible-test no longer says which pip it wants")
    cache = environment.folder / "home" / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True)
    for version in versions:
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP)


def _absent(core: Core) -> Outcome:
    """Say why a core cannot run here. When none can, that is a failure: nothing would have been tested."""
    needs = " or ".join(pythons.label(version) for version in sorted(core.runs_on))
    status = NOT_RUN if any(other.python() for other in CORES) else FAILED
    return Outcome(status, f"this machine has no Python {needs}")


def sanity(core: Core, bench: Bench) -> Outcome:
    """Run `ansible-test sanity`."""
    if core.python() is None:
        return _absent(core)
    environment = prepare(core, bench)
    tree = collection_tree.copy_to(bench.scratch)
    with _alone(environment.folder / "in-use.lock"):
        # Without --python it compiles and imports the code on each Python it finds, not on the controller's alone.
        wanted = ["--python", pythons.label(environment.python)] if core.elsewhere else []
        wanted += [word for name in core.elsewhere for word in ("--skip-test", name)]
        code = bench.run("ansible-test", "sanity", "--color", "no", *wanted, cwd=tree, env=environment.variables())
    output = bench.text()
    ran = set(re.findall(r'^Running sanity test "([^"]+)"', output, re.MULTILINE))
    imported = re.findall(r'^Running sanity test "import" on Python ([0-9.]+)', output, re.MULTILINE)
    if code:
        failed = re.findall(r"^FATAL: The \d+ sanity test.*\n((?:[a-z0-9-]+.*\n)+)", output, re.MULTILINE)
        return Outcome(FAILED, " ".join(" ".join(failed).split()) or f"ansible-test ended with {code}")
    if "All targets skipped" in output or not imported:
        return Outcome(FAILED, "ansible-test skipped its targets: nothing was tested")
    return Outcome(PASSED, f"{len(ran)} tests, imports on Python {' '.join(imported)}")


def units_of_core(root: Path) -> list[str]:
    """Return the unit tests that Ansible has a part in: all but those of the engine, which imports nothing of it.

    Raises LayerError when a test of the engine does.
    """
    found = sorted(path.relative_to(root) for path in (root / "tests" / "unit").rglob("*.py"))
    engine = [path for path in found if "_engine" in path.parts]
    strangers = [str(path) for path in engine if _IMPORTS_ANSIBLE.search((root / path).read_text())]
    if strangers:
        raise LayerError(f"these must run on every ansible-core, so not below _engine: {', '.join(strangers)}")
    return [str(path) for path in found if path not in engine and path.name.startswith("test_")]


def units(core: Core, bench: Bench) -> Outcome:
    """Run `ansible-test units` where the version of ansible-core can make a difference."""
    if core.python() is None:
        return _absent(core)
    environment = prepare(core, bench)
    tree = collection_tree.copy_to(bench.scratch)
    wanted = ["--python", pythons.label(environment.python), "--color", "no", *units_of_core(tree)]
    code = bench.run("ansible-test", "units", *wanted, cwd=tree, env=environment.variables())
    ran, words = count_tests(sorted(tree.glob("tests/output/junit/*.xml")))
    if code or not ran:
        return Outcome(FAILED, words if ran else "no test ran")
    return Outcome(PASSED, f"{words}, Python {pythons.label(environment.python)}")
