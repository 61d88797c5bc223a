# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of all scenarios share: the machines, the store, and the journal of a host whose test failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import testinfra
import yaml
from botocore.config import Config

from tests.tools.lab import Lab
from tests.tools.lab.lab import HOME
from tests.tools.lab.machines import S3_PORT

_SHARED = Path(__file__).parent / "inventory"
# What tells most of a host whose test has failed.
_TELLING = (
    # Our own logins would be most of it.
    "journalctl --no-pager --boot --lines 400 | grep -vE ' (sudo|sshd|sshd-session)\\[' | tail -n 80",
    "systemctl --no-pager --failed",
    "systemctl --no-pager list-timers --all",
    "tail -n 40 /var/log/backups/*.log",
)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add to the report of a failed test what its hosts have to say."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for host in item.funcargs.values() if hasattr(item, "funcargs") else []:
        if isinstance(host, testinfra.host.Host):
            report.sections += _last_words(host)


def _last_words(host: Any) -> Iterator[tuple[str, str]]:
    for command in _TELLING:
        try:
            said = host.run(command)
        except RuntimeError as problem:
            yield f"{host.backend.get_pytest_id()} is not reached", str(problem)
            return
        yield f"{host.backend.get_pytest_id()}: {command}", said.stdout + said.stderr


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The machines, to be powered off, cut from the network, and so on."""
    return Lab()


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Any]:
    """Return a function that returns a host of the scenario by its name."""

    def named(name: str) -> Any:
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(HOME / "ssh_config"), sudo=True)

    return named


@pytest.fixture(scope="session")
def shared() -> dict[str, Any]:
    """The variables of molecule/inventory that hold for all hosts."""
    return dict(yaml.safe_load((_SHARED / "group_vars" / "all.yml").read_text()))


@pytest.fixture(scope="session")
def s3(shared: dict[str, Any]) -> Any:
    """Return a client of the store."""
    store = yaml.safe_load((_SHARED / "hosts.yml").read_text())["lab"]["hosts"]["s3"]
    return boto3.client(
        "s3",
        endpoint_url=f"http://{store['lab_address']}:{S3_PORT}",
        aws_access_key_id=shared["lab_access_key"],
        aws_secret_access_key=shared["lab_secret_key"],
        region_name="us-east-1",
        config=Config(proxies={}, retries={"max_attempts": 2}, s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="session")
def ansible_said() -> str:
    """All that Ansible has printed in this scenario."""
    return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ansible.log").read_text()
