# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of all scenarios share: the machines, the store, and the journal of a host whose test failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import testinfra
import yaml
from botocore.config import Config

from tests.tools.lab import Lab
from tests.tools.lab.lab import HOME

pytest.register_assert_rewrite("tests.hosts")

_SHARED = Path(__file__).parent / "inventory"
_OWN = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", "")) / "inventory"
# What tells most of a host whose test has failed. Our own logins would be most of the journal.
_TELLING = (
    "journalctl --no-pager --boot --lines 400 | grep -vE ' (sudo|sshd|sshd-session)\\[' | tail -n 80 | cut -c -300",
    "systemctl --no-pager --failed",
    "systemctl --no-pager list-timers --all 'pgops*'",
    "tail -n 20 /var/log/backups/*.log",
)
_ASKED: set[tuple[str, str]] = set()
# Those that the fixture machine has handed out for the test that runs.
_HANDED: list[Any] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin a test that no host was handed out for."""
    _HANDED.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add to the report of a failed test what its hosts have to say."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for host in [*getattr(item, "funcargs", {}).values(), *_HANDED]:
            if isinstance(host, testinfra.host.Host):
                report.sections += _last_words(host, item.nodeid)


def _last_words(host: Any, test: str) -> Iterator[tuple[str, str]]:
    """Ask a host what it has to say, once for each test that fails."""
    name = host.backend.get_pytest_id()
    if (test, name) in _ASKED:
        return
    _ASKED.add((test, name))
    for command in _TELLING:
        try:
            said = host.run(command)
        except RuntimeError as problem:
            yield f"{name} is not reached", str(problem)
            return
        # A line may be cut within a letter.
        yield f"{name}: {command}", (said.stdout_bytes + said.stderr_bytes).decode(errors="replace")


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The machines, to be powered off, cut from the network, and so on."""
    return Lab()


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Any]:
    """Return a function that returns a host of the scenario by its name."""

    def named(name: str) -> Any:
        host = testinfra.get_host(f"ssh://{name}", ssh_config=str(HOME / "ssh_config"), sudo=True)
        _HANDED.append(host)
        return host

    return named


@pytest.fixture(scope="session")
def shared() -> dict[str, Any]:
    """The variables of molecule/inventory that hold for all hosts."""
    return dict(yaml.safe_load((_SHARED / "group_vars" / "all.yml").read_text()))


@pytest.fixture(scope="session")
def secrets(shared: dict[str, Any]) -> list[str]:
    """What belongs nowhere but into the hosts' secret files: of each secret of the scenario the last word, which is easy to search."""
    found = [shared["lab_secret_key"]]
    told = [yaml.safe_load(path.read_text()) for path in sorted(_OWN.rglob("*.yml"))]
    while told:
        one = told.pop()
        told += [value for value in one.values() if isinstance(value, dict)]
        # Those in braces are the store's.
        found += [value for value in one.get("pgops_secrets", {}).values() if "{{" not in value]
    return [value.split()[-1] for value in found]


@pytest.fixture(scope="session")
def s3(shared: dict[str, Any]) -> Any:
    """Return a client of the store."""
    return boto3.client(
        "s3",
        endpoint_url=shared["lab_s3_url"],
        aws_access_key_id=shared["lab_access_key"],
        aws_secret_access_key=shared["lab_secret_key"],
        region_name="us-east-1",
        config=Config(proxies={}, retries={"max_attempts": 2}, s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="session")
def ansible_said() -> str:
    """All that Ansible has printed in this scenario."""
    return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ansible.log").read_text()


@pytest.fixture(scope="session")
def bucket() -> str:
    """The bucket of the scenario."""
    return f"night-{os.environ['MOLECULE_SCENARIO_NAME']}"


@pytest.fixture(scope="session")
def variables() -> dict[str, Any]:
    """The variables of the scenario's own group, as they stand there."""
    return dict(yaml.safe_load((_OWN / "group_vars" / "databases.yml").read_text()))


def _play(play: str, options: Sequence[str], extra: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    # That of the scenario, which may be of another ansible-core than these tests.
    program = shutil.which("ansible-playbook")
    assert program
    words = [program, f"--inventory={_SHARED}", f"--inventory={_OWN}"]
    said = subprocess.run(
        [*words, *options, "--extra-vars", json.dumps(dict(extra)), play],
        cwd=_OWN.parent,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    print(said.stdout[-6000:], said.stderr[-3000:])  # noqa: T201 - pytest shows it when the test fails
    return said


@pytest.fixture(scope="session")
def playbook() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a playbook of the collection as a person would: its name, options, extra variables."""
    return lambda name, *options, **extra: _play(f"pgops.backup.{name}", options, extra)


@pytest.fixture(scope="session")
def ansible_play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a playbook of the scenario: its file, options, extra variables."""
    return lambda name, *options, **extra: _play(name, options, extra)
